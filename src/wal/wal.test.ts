import { describe, expect, test } from "vitest";
import { ModelDisk } from "../../test/support/model-disk.ts";
import { appended, confState, EMPTY_LOG, entries, entry, expectLog, member, TEST_METADATA } from "../../test/support/wal-model.ts";
import { NO_MEMBER } from "../base/ids.ts";
import { readSnapshotFile, Wal, WalClosedError, WalCorruptError, WalExistsError, WalMissingError, writeSnapshotFile } from "./index.ts";

const directory = "data/member/wal";

function options(disk: ModelDisk, segmentBytes = 16 << 10) {
  return { disk, directory, segmentBytes };
}

async function created(disk = new ModelDisk(), segmentBytes = 16 << 10): Promise<{ disk: ModelDisk; wal: Wal }> {
  return { disk, wal: await Wal.create({ ...options(disk, segmentBytes), metadata: TEST_METADATA }) };
}

async function segmentsOf(disk: ModelDisk): Promise<string[]> {
  return ((await disk.list(directory)) ?? []).filter((name) => name.endsWith(".wal"));
}

describe("create and open", () => {
  test("an empty log comes back empty, with its metadata", async () => {
    const { disk, wal } = await created();
    await wal.close();
    const { wal: again, contents } = await Wal.open(options(disk));
    expect(contents.metadata).toEqual(TEST_METADATA);
    expect(contents.repaired).toBeUndefined();
    expectLog(contents, EMPTY_LOG);
    await again.close();
  });

  test("what was appended comes back, in a second and a third life too", async () => {
    const { disk, wal } = await created();
    await appended(wal, { hardState: { term: 1, vote: member(1), commit: 0 } });
    await appended(wal, { entries: entries(1, 3, 1) });
    await appended(wal, { entries: [{ ...entry(4, 1), type: "conf-change" }], hardState: { term: 1, vote: member(1), commit: 4 } });
    await wal.close();
    let state = {
      ...EMPTY_LOG,
      hardState: { term: 1, vote: member(1), commit: 4 },
      entries: [...entries(1, 3, 1), { ...entry(4, 1), type: "conf-change" as const }],
    };
    const second = await Wal.open(options(disk));
    expectLog(second.contents, state);
    await appended(second.wal, { entries: entries(5, 6, 1) });
    await second.wal.close();
    state = { ...state, entries: [...state.entries, ...entries(5, 6, 1)] };
    const third = await Wal.open(options(disk));
    expectLog(third.contents, state);
    await third.wal.close();
    expectLog(await Wal.read(options(disk)), state);
  });

  test("opening again and again does not make the log grow", async () => {
    const { disk, wal } = await created();
    await appended(wal, { entries: entries(1, 3, 1) });
    await wal.close();
    const [name] = await segmentsOf(disk);
    const before = disk.peek(`${directory}/${name}`);
    for (let i = 0; i < 3; i++) await (await Wal.open(options(disk))).wal.close();
    expect(Buffer.compare(disk.peek(`${directory}/${name}`), before)).toBe(0);
    expect(await segmentsOf(disk)).toEqual([name]);
  });

  test("typed errors: no directory, no log, a log already there", async () => {
    const disk = new ModelDisk();
    await expect(Wal.open(options(disk))).rejects.toThrow(WalMissingError);
    await disk.makeDirectory(directory);
    await expect(Wal.open(options(disk))).rejects.toThrow(WalMissingError);
    expect(await Wal.exists(disk, directory)).toBe(false);
    const { wal } = await created(disk);
    await wal.close();
    expect(await Wal.exists(disk, directory)).toBe(true);
    await expect(created(disk)).rejects.toThrow(WalExistsError);
  });

  test("foreign files are ignored and left alone, our own leftovers are removed", async () => {
    const { disk, wal } = await created();
    await appended(wal, { entries: entries(1, 1, 1) });
    await wal.close();
    for (const name of ["lost+found.txt", "0.tmp", "1.tmp", "2.tmp", "x.wal"])
      await (await disk.open(`${directory}/${name}`, { create: true })).close();
    const opened = await Wal.open(options(disk));
    expect(opened.contents.entries).toHaveLength(1);
    await opened.wal.close();
    expect(await disk.list(directory)).toEqual(["0000000000000000-0000000000000000.wal", "2.tmp", "lost+found.txt", "x.wal"]);
  });

  test("names are etcd's: sequence and first index in 16 hex digits", async () => {
    const { disk, wal } = await created(new ModelDisk(), 1024);
    for (let i = 1; i <= 30; i++) await appended(wal, { entries: entries(i, i, 1, 300) });
    await wal.close();
    const names = await segmentsOf(disk);
    expect(names.slice(0, 3)).toEqual([
      "0000000000000000-0000000000000000.wal",
      "0000000000000001-0000000000000002.wal",
      "0000000000000002-0000000000000003.wal",
    ]);
  });
});

describe("appending", () => {
  test("BW2: no acknowledgement before the sync has returned", async () => {
    let release: (() => void) | undefined;
    const disk = new ModelDisk({
      delay: (event) =>
        event.kind === "sync" && event.path.endsWith(".wal")
          ? new Promise((resolve) => {
              release = resolve;
            })
          : undefined,
    });
    const { wal } = await created(disk);
    let acknowledged = false;
    const done = appended(wal, { entries: entries(1, 1, 1) }).then(() => {
      acknowledged = true;
    });
    await settled(() => release !== undefined);
    expect(acknowledged).toBe(false);
    release?.();
    await done;
    expect(acknowledged).toBe(true);
    disk.crash("kill");
  });

  test("BR2: terms and votes are synced even when the caller forgets to ask", async () => {
    const syncs: string[] = [];
    const disk = new ModelDisk({
      onEvent: (event) => (event.kind === "sync" && event.path.endsWith(".wal") ? syncs.push(event.path) : undefined),
    });
    const { wal } = await created(disk);
    const before = syncs.length;
    await appended(wal, { hardState: { term: 1, vote: NO_MEMBER, commit: 0 }, mustSync: false });
    await appended(wal, { hardState: { term: 1, vote: member(2), commit: 0 }, mustSync: false });
    await appended(wal, { entries: entries(1, 1, 1), mustSync: false });
    expect(syncs.length - before).toBe(3);
    await appended(wal, { hardState: { term: 1, vote: member(2), commit: 1 }, mustSync: false });
    expect(syncs.length - before).toBe(3);
    await wal.close();
  });

  test("everything queued while a sync runs becomes one group, and callbacks keep their order", async () => {
    const gates: (() => void)[] = [];
    let writes = 0;
    const disk = new ModelDisk({
      onEvent: (event) => {
        if (event.kind === "write" && event.path.endsWith(".wal")) writes += 1;
      },
      delay: (event) => (event.kind === "sync" && event.path.endsWith(".wal") ? new Promise((resolve) => gates.push(resolve)) : undefined),
    });
    const { wal } = await created(disk);
    const order: number[] = [];
    const write = (i: number): void => wal.append({ entries: entries(i, i, 1), mustSync: true }, () => order.push(i));
    write(1);
    await settled(() => gates.length === 1);
    for (let i = 2; i <= 10; i++) write(i);
    // A commit index alone does not jump the queue.
    wal.append({ entries: [], hardState: { term: 0, vote: NO_MEMBER, commit: 10 }, mustSync: false }, () => order.push(11));
    const before = writes;
    expect(wal.queuedBytes).toBeGreaterThan(0);
    gates.shift()?.();
    await settled(() => gates.length === 1);
    expect(order).toEqual([1]);
    expect(writes - before).toBe(1);
    gates.shift()?.();
    await settled(() => order.length === 11);
    expect(order).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(wal.queuedBytes).toBe(0);
    disk.crash("kill");
    const { contents } = await reopen(disk, gates);
    expect(contents.entries).toHaveLength(10);
    expect(contents.hardState.commit).toBe(10);
  });

  test("appends of one turn share a sync", async () => {
    let syncs = 0;
    const disk = new ModelDisk({
      onEvent: (event) => {
        if (event.kind === "sync" && event.path.endsWith(".wal")) syncs += 1;
      },
    });
    const { wal } = await created(disk);
    const before = syncs;
    await Promise.all([1, 2, 3].map((i) => appended(wal, { entries: entries(i, i, 1) })));
    expect(syncs - before).toBe(1);
    await wal.close();
  });

  test("later entries replace earlier ones of the same index", async () => {
    const { disk, wal } = await created();
    await appended(wal, { entries: entries(1, 10, 1), hardState: { term: 1, vote: NO_MEMBER, commit: 4 } });
    await appended(wal, { entries: entries(6, 7, 2), hardState: { term: 2, vote: NO_MEMBER, commit: 4 } });
    await wal.close();
    const { contents, wal: again } = await Wal.open(options(disk));
    expect(contents.entries.map((e) => `${e.index}.${e.term}`)).toEqual(["1.1", "2.1", "3.1", "4.1", "5.1", "6.2", "7.2"]);
    await again.close();
  });

  test("a marker inside the log keeps what is behind it, one from a leader replaces the log", async () => {
    const { disk, wal } = await created();
    await appended(wal, { entries: entries(1, 10, 1), hardState: { term: 1, vote: NO_MEMBER, commit: 8 } });
    await appended(wal, { snapshot: { index: 6, term: 1, confState: confState(1, 2, 3) } });
    await wal.close();
    const first = await Wal.open(options(disk));
    expect(first.contents.snapshot).toEqual({ index: 6, term: 1, confState: confState(1, 2, 3) });
    expect(first.contents.entries.map((e) => e.index)).toEqual([7, 8, 9, 10]);
    // Entry 9 is ours, but of another term: the leader's snapshot contradicts it and everything behind it.
    await appended(first.wal, {
      snapshot: { index: 9, term: 3, confState: confState(1, 2) },
      hardState: { term: 3, vote: NO_MEMBER, commit: 9 },
      entries: entries(10, 11, 3),
    });
    await first.wal.close();
    const second = await Wal.open(options(disk));
    expect(second.contents.snapshot.index).toBe(9);
    expect(second.contents.entries.map((e) => `${e.index}.${e.term}`)).toEqual(["10.3", "11.3"]);
    // An older marker of our own that comes late changes nothing.
    await appended(second.wal, { snapshot: { index: 8, term: 1, confState: confState(1) } });
    await second.wal.close();
    const third = await Wal.open(options(disk));
    expect(third.contents.snapshot.index).toBe(9);
    expect(third.contents.entries).toHaveLength(2);
    await third.wal.close();
  });

  test("all lists of a conf state survive, and ids up to 2^64 - 1", async () => {
    const { disk, wal } = await created();
    const max = 0xffff_ffff_ffff_ffffn as ReturnType<typeof member>;
    const state = {
      voters: [member(1), max],
      votersOutgoing: [member(3)],
      learners: [member(4), member(5)],
      learnersNext: [member(6)],
      autoLeave: true,
    };
    await appended(wal, { entries: entries(1, 2, 1), hardState: { term: 1, vote: max, commit: 2 } });
    await appended(wal, { snapshot: { index: 2, term: 1, confState: state } });
    await wal.close();
    const { contents, wal: again } = await Wal.open(options(disk));
    expect(contents.snapshot.confState).toEqual(state);
    expect(contents.hardState.vote).toBe(max);
    await again.close();
  });

  test("indices and terms above 2^32", async () => {
    const { disk, wal } = await created();
    const index = 2 ** 40;
    const term = 2 ** 45 + 3;
    await appended(wal, {
      snapshot: { index, term, confState: confState(1) },
      hardState: { term, vote: member(1), commit: index },
      entries: entries(index + 1, index + 2, term),
    });
    await wal.close();
    const { contents, wal: again } = await Wal.open(options(disk));
    expect(contents.entries.map((e) => e.index)).toEqual([index + 1, index + 2]);
    expect(contents.hardState).toEqual({ term, vote: member(1), commit: index });
    await again.close();
  });

  test("entries larger than a group, larger than a segment, and empty ones", async () => {
    const { disk, wal } = await created(new ModelDisk(), 64 << 10);
    const big = [
      entry(1, 1, ""),
      entry(2, 1, Buffer.alloc(3 << 20, 7)),
      entry(3, 1, Buffer.alloc(40 << 10, 8)),
      entry(4, 1, Buffer.alloc(70 << 10, 9)),
    ];
    await Promise.all(big.map((e) => appended(wal, { entries: [e] })));
    await appended(wal, { entries: [entry(5, 1, "")] });
    await wal.close();
    const { contents, wal: again } = await Wal.open(options(disk, 64 << 10));
    expectLog(contents, { ...EMPTY_LOG, entries: [...big, entry(5, 1, "")] });
    await again.close();
  });

  test("a group takes about 1 MiB at most", async () => {
    const sizes: number[] = [];
    const disk = new ModelDisk({
      onEvent: (event) => {
        if (event.kind === "write" && event.path.endsWith(".wal") && event.bytes > 64) sizes.push(event.bytes);
      },
    });
    const { wal } = await created(disk, 16 << 20);
    await Promise.all(Array.from({ length: 40 }, (_, i) => appended(wal, { entries: entries(i + 1, i + 1, 1, 100 << 10) })));
    expect(Math.max(...sizes)).toBeLessThanOrEqual((1 << 20) + 128);
    expect(sizes.length).toBeGreaterThanOrEqual(4);
    await wal.close();
  });

  test("rules that the caller broke are refused, and stop the log", async () => {
    const broken: [string, (wal: Wal) => void][] = [
      ["gap", (wal) => wal.append({ entries: entries(5, 5, 1), mustSync: true }, () => undefined)],
      ["committed", (wal) => wal.append({ entries: entries(2, 2, 2), mustSync: true }, () => undefined)],
      ["not contiguous", (wal) => wal.append({ entries: [entry(4, 1), entry(4, 2)], mustSync: true }, () => undefined)],
      [
        "term back",
        (wal) => wal.append({ entries: [], hardState: { term: 0, vote: NO_MEMBER, commit: 2 }, mustSync: true }, () => undefined),
      ],
      [
        "commit back",
        (wal) => wal.append({ entries: [], hardState: { term: 1, vote: member(1), commit: 1 }, mustSync: true }, () => undefined),
      ],
      // BW7: a commit index without the snapshot or entries that it covers.
      [
        "commit ahead",
        (wal) => wal.append({ entries: [], hardState: { term: 1, vote: member(1), commit: 9 }, mustSync: true }, () => undefined),
      ],
      [
        "second vote",
        (wal) => wal.append({ entries: [], hardState: { term: 1, vote: member(2), commit: 2 }, mustSync: true }, () => undefined),
      ],
      ["entry term back", (wal) => wal.append({ entries: [entry(4, 0)], mustSync: true }, () => undefined)],
      [
        "snapshot against commit",
        (wal) => wal.append({ entries: [], snapshot: { index: 2, term: 5, confState: confState(1) }, mustSync: true }, () => undefined),
      ],
    ];
    for (const [name, act] of broken) {
      const { disk, wal } = await created();
      await appended(wal, { entries: entries(1, 3, 1), hardState: { term: 1, vote: member(1), commit: 2 } });
      expect(() => act(wal), name).toThrow(/invariant violated/);
      await expect(appended(wal, { entries: entries(4, 4, 1) }), name).rejects.toThrow();
      await wal.close();
      const { contents, wal: again } = await Wal.open(options(disk));
      expect(contents.entries, name).toHaveLength(3);
      await again.close();
    }
  });

  test("a callback that throws stops the log, the others are still called", async () => {
    const { wal } = await created();
    const called: number[] = [];
    wal.append({ entries: entries(1, 1, 1), mustSync: true }, () => {
      throw new Error("broken callback");
    });
    wal.append({ entries: entries(2, 2, 1), mustSync: true }, (error) => called.push(error === undefined ? 2 : -2));
    await settled(() => called.length === 1);
    expect(called).toEqual([2]);
    await expect(appended(wal, { entries: entries(3, 3, 1) })).rejects.toThrow("broken callback");
    await wal.close();
  });

  test("close flushes what is queued, is idempotent, and refuses what comes later", async () => {
    const { disk, wal } = await created();
    const results: string[] = [];
    for (let i = 1; i <= 5; i++)
      wal.append({ entries: entries(i, i, 1), mustSync: true }, (error) => results.push(error === undefined ? "ok" : "error"));
    const closing = wal.close();
    await expect(appended(wal, { entries: entries(6, 6, 1) })).rejects.toThrow(WalClosedError);
    await Promise.all([closing, wal.close()]);
    expect(results).toEqual(["ok", "ok", "ok", "ok", "ok"]);
    disk.crash("power-loss");
    const { contents, wal: again } = await Wal.open(options(disk));
    expect(contents.entries).toHaveLength(5);
    await again.close();
  });

  test("reports sync durations and bytes written", async () => {
    const durations: number[] = [];
    let now = 0;
    const clock = { monotonicMs: () => now++, wallMs: () => 0, timer: () => ({ cancel: () => undefined }) };
    const disk = new ModelDisk();
    const wal = await Wal.create({ ...options(disk), metadata: TEST_METADATA, clock, onSyncMs: (ms) => durations.push(ms) });
    const before = wal.bytesWritten;
    await appended(wal, { entries: entries(1, 1, 1, 100) });
    expect(durations).toEqual([1]);
    expect(wal.bytesWritten - before).toBeGreaterThan(100);
    await wal.close();
  });
});

describe("purge", () => {
  async function filled(disk = new ModelDisk()): Promise<{ disk: ModelDisk; wal: Wal }> {
    const made = await created(disk, 1024);
    for (let i = 1; i <= 40; i++)
      await appended(made.wal, { entries: entries(i, i, 1, 200), hardState: { term: 1, vote: NO_MEMBER, commit: i } });
    return made;
  }

  test("BW8: deletes nothing without a marker on disk, nothing behind it, and keeps what it is told to", async () => {
    const { disk, wal } = await filled();
    const all = await segmentsOf(disk);
    await wal.purge(40, 1);
    expect(await segmentsOf(disk)).toEqual(all);
    await appended(wal, { snapshot: { index: 20, term: 1, confState: confState(1) } });
    await wal.purge(10, 1);
    const afterTen = await segmentsOf(disk);
    expect(afterTen.length).toBeLessThan(all.length);
    await wal.purge(40, all.length);
    expect(await segmentsOf(disk)).toEqual(afterTen);
    await wal.purge(40, 1);
    const least = await segmentsOf(disk);
    expect(least.length).toBeLessThan(afterTen.length);
    // The oldest one left begins at or below the entry behind the marker.
    expect(Number.parseInt((least[0] as string).slice(17, 33), 16)).toBeLessThanOrEqual(21);
    await wal.close();
    const { contents, wal: again } = await Wal.open(options(disk, 1024));
    expect(contents.entries.map((e) => e.index)).toEqual(Array.from({ length: 20 }, (_, i) => 21 + i));
    await again.close();
  });

  test("BW9: the chain is verified from the first segment that is left", async () => {
    const { disk, wal } = await filled();
    await appended(wal, { snapshot: { index: 30, term: 1, confState: confState(1) } });
    await wal.purge(30, 1);
    await wal.close();
    const { contents, wal: again } = await Wal.open(options(disk, 1024));
    expect(contents.snapshot.index).toBe(30);
    expect(contents.entries).toHaveLength(10);
    expect(contents.hardState).toEqual({ term: 1, vote: NO_MEMBER, commit: 40 });
    await again.close();
    const [first] = await segmentsOf(disk);
    disk.flipBit(`${directory}/${first}`, 100, 3);
    await expect(Wal.open(options(disk, 1024))).rejects.toThrow(WalCorruptError);
  });

  test("BW9: everything up to the last entry in a snapshot, then purged, then more appended", async () => {
    const { disk, wal } = await filled();
    await appended(wal, { snapshot: { index: 40, term: 1, confState: confState(1) } });
    await wal.purge(40, 1);
    for (let i = 41; i <= 45; i++) await appended(wal, { entries: entries(i, i, 1, 200) });
    await wal.close();
    const { contents, wal: again } = await Wal.open(options(disk, 1024));
    expect(contents.snapshot.index).toBe(40);
    expect(contents.entries.map((e) => e.index)).toEqual([41, 42, 43, 44, 45]);
    await again.close();
  });

  test("BW8: close during a purge stops it between two segments", async () => {
    let release: (() => void) | undefined;
    let armed = false;
    const disk = new ModelDisk({
      delay: (event) =>
        armed && event.kind === "sync-directory"
          ? new Promise((resolve) => {
              release = resolve;
            })
          : undefined,
    });
    const { wal } = await filled(disk);
    await appended(wal, { snapshot: { index: 40, term: 1, confState: confState(1) } });
    const before = (await segmentsOf(disk)).length;
    armed = true;
    const purging = wal.purge(40, 1);
    await settled(() => release !== undefined);
    const closing = wal.close();
    armed = false;
    release?.();
    await Promise.all([purging, closing]);
    expect((await segmentsOf(disk)).length).toBe(before - 1);
    await wal.purge(40, 1);
    expect((await segmentsOf(disk)).length).toBe(before - 1);
    const { contents, wal: again } = await Wal.open(options(disk, 1024));
    expect(contents.snapshot.index).toBe(40);
    await again.close();
  });

  test("segments that are gone although they are needed are missed, also the last one", async () => {
    const { disk, wal } = await filled();
    await appended(wal, { snapshot: { index: 20, term: 1, confState: confState(1) } });
    await wal.close();
    const names = await segmentsOf(disk);
    for (const name of names) {
      const copy = disk.clone();
      await copy.remove(`${directory}/${name}`);
      const firstOfNext = Number.parseInt((names[names.indexOf(name) + 1] ?? "").slice(17, 33), 16);
      const needed = !(firstOfNext <= 21);
      if (needed) {
        await expect(Wal.open(options(copy, 1024)), name).rejects.toThrow(/missing-segment/);
      } else {
        const { contents, wal: again } = await Wal.open(options(copy, 1024));
        expect(contents.entries, name).toHaveLength(20);
        await again.close();
      }
    }
  });
});

describe("snapshot file", () => {
  test("is replaced as a whole, survives power loss, and is checked", async () => {
    const disk = new ModelDisk();
    await disk.makeDirectory("d");
    await disk.syncDirectory(".");
    expect(await readSnapshotFile(disk, "d", "current")).toBeUndefined();
    await writeSnapshotFile(disk, "d", "current", Buffer.from("one"));
    await writeSnapshotFile(disk, "d", "current", Buffer.from("two"));
    disk.crash("power-loss");
    expect(Buffer.from((await readSnapshotFile(disk, "d", "current")) ?? []).toString()).toBe("two");
    disk.flipBit("d/current", 9, 1);
    await expect(readSnapshotFile(disk, "d", "current")).rejects.toThrow(WalCorruptError);
  });
});

/** Waits until the condition holds; the disk is in memory, so a bounded number of turns of the event loop is a deadline. */
async function settled(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    if (condition()) return;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error("the condition did not come true");
}

/** Opens while every sync waits at a gate. */
async function reopen(disk: ModelDisk, gates: (() => void)[]): Promise<{ contents: Awaited<ReturnType<typeof Wal.open>>["contents"] }> {
  let opened: Awaited<ReturnType<typeof Wal.open>> | undefined;
  const opening = Wal.open(options(disk)).then((result) => {
    opened = result;
  });
  await settled(() => {
    gates.shift()?.();
    return opened !== undefined;
  });
  await opening;
  return { contents: (opened as Awaited<ReturnType<typeof Wal.open>>).contents };
}
