/** What recovery makes of a log that was changed behind its back: the same contents, or a refusal; never a silent loss of what was acknowledged. */
import { crc32 } from "node:zlib";
import { describe, expect, test, vi } from "vitest";
import { DiskDeadError, ModelDisk } from "../../test/support/model-disk.ts";
import { runWalDamage } from "../../test/support/wal-damage.ts";
import {
  appended,
  confState,
  describeLog,
  EMPTY_LOG,
  entries,
  type LogState,
  member,
  TEST_METADATA,
  WorkloadGenerator,
} from "../../test/support/wal-model.ts";
import { EtcdError } from "../base/errors.ts";
import { NO_MEMBER } from "../base/ids.ts";
import { seededRandom } from "../base/random.ts";
import { Wal, type WalContents, WalCorruptError } from "./index.ts";

// Much computing, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const directory = "wal";
const FIRST = "0000000000000000-0000000000000000.wal";

interface Sample {
  readonly disk: ModelDisk;
  readonly states: readonly LogState[];
  readonly segments: readonly string[];
}

/** A log of some hundred acknowledged appends over a few segments. */
async function sample(
  how: { appends?: number; segmentBytes?: number; close?: boolean; mutants?: ReadonlySet<string> } = {},
): Promise<Sample> {
  const disk = new ModelDisk();
  const wal = await Wal.create({ disk, directory, segmentBytes: how.segmentBytes ?? 8192, metadata: TEST_METADATA, ...mutantsOf(how) });
  const generator = new WorkloadGenerator(seededRandom(5), 60);
  const states: LogState[] = [EMPTY_LOG];
  for (let i = 0; i < (how.appends ?? 100); i++) {
    await appended(wal, generator.next());
    states.push(generator.state);
  }
  if (how.close !== false) await wal.close();
  else disk.crash("kill");
  const segments = ((await disk.list(directory)) ?? []).filter((name) => name.endsWith(".wal"));
  return { disk, states, segments };
}

function mutantsOf(how: { mutants?: ReadonlySet<string> }): { mutants?: ReadonlySet<string> } {
  return how.mutants === undefined ? {} : { mutants: how.mutants };
}

/** Opens a damaged copy. "same" compares with the state that was acknowledged last. */
async function outcome(disk: ModelDisk, expected: LogState): Promise<"same" | "refused" | WalContents> {
  try {
    const { wal, contents } = await Wal.open({ disk, directory });
    await wal.close();
    return describeLog(contents) === describeLog(expected) ? "same" : contents;
  } catch (error) {
    if (!(error instanceof WalCorruptError)) throw error;
    expect(error.message).toMatch(/^wal: [a-z-]+ in \S+ at offset \d+: .+; nothing was changed; this member must not start with it/);
    expect(error.message).not.toContain("\n");
    return "refused";
  }
}

function last<T>(list: readonly T[]): T {
  return list[list.length - 1] as T;
}

function usedBytes(bytes: Uint8Array): number {
  let end = bytes.byteLength;
  while (end > 0 && bytes[end - 1] === 0) end -= 1;
  return end;
}

describe("BW20: damage before the last synced position", () => {
  test.each([true, false])("a flipped bit anywhere (closed: %s): the same contents or a refusal", async (close) => {
    const { disk, states, segments } = await sample({ appends: 70, close });
    const random = seededRandom(9);
    const counts = { same: 0, refused: 0 };
    for (const name of segments) {
      const path = `${directory}/${name}`;
      const used = usedBytes(disk.peek(path));
      for (let at = 0; at < used + 64; at++) {
        const copy = disk.clone();
        copy.flipBit(path, at, random.below(8));
        const result = await outcome(copy, last(states));
        if (typeof result !== "string") throw new Error(`a flip at ${at} of ${name} gave ${describeLog(result).slice(0, 300)}`);
        counts[result] += 1;
      }
    }
    expect(counts.refused).toBeGreaterThan(counts.same);
  });

  test("4 KiB blocks zeroed, swapped, or of an earlier time: the same contents or a refusal, but for the very last block", async () => {
    const { disk, states, segments } = await sample({ appends: 200, segmentBytes: 32768 });
    for (const name of segments) {
      const path = `${directory}/${name}`;
      const bytes = disk.peek(path);
      const blocks = Math.ceil(usedBytes(bytes) / 4096);
      const block = (i: number): Uint8Array => bytes.slice(i * 4096, (i + 1) * 4096);
      for (let i = 0; i < blocks; i++) {
        const isVeryLast = name === last(segments) && i === blocks - 1;
        const changes: [string, (copy: ModelDisk) => void][] = [
          ["zero", (copy) => copy.poke(path, i * 4096, new Uint8Array(4096))],
          ["stale", (copy) => copy.poke(path, i * 4096 + 1024, new Uint8Array(3072))],
        ];
        for (let j = i + 1; j < blocks; j++) {
          changes.push([
            `swap with ${j}`,
            (copy) => {
              copy.poke(path, i * 4096, block(j));
              copy.poke(path, j * 4096, block(i));
            },
          ]);
        }
        for (const [what, change] of changes) {
          const copy = disk.clone();
          change(copy);
          const result = await outcome(copy, last(states));
          if (isVeryLast && what !== "zero" && what !== "stale") continue;
          if (typeof result !== "string" && !isVeryLast) throw new Error(`${what} of block ${i} of ${name} went unnoticed`);
          // The one loss that nothing in the log can tell: the newest block gone with all claims in it. Then a prefix of the truth is left.
          if (typeof result !== "string") expect(states.map(describeLog)).toContain(describeLog(result));
        }
      }
    }
  });

  test("the mutant without claims is found: there a flipped bit in the newest records passes for a torn tail", async () => {
    const { disk, states, segments } = await sample({ appends: 70, mutants: new Set(["wal-skip-claims"]) });
    const path = `${directory}/${last(segments)}`;
    const used = usedBytes(disk.peek(path));
    let silent = 0;
    for (let at = 64; at < used; at++) {
      const copy = disk.clone();
      copy.flipBit(path, at, 0);
      if (typeof (await outcome(copy, last(states))) !== "string") silent += 1;
    }
    expect(silent).toBeGreaterThan(0);
  });

  test("random logs, flipped bits: the same contents or a refusal, and the mutant without claims is noticed", async () => {
    let refused = 0;
    for (let seed = 1; seed <= 25; seed++) refused += await runWalDamage({ seed });
    expect(refused).toBeGreaterThan(500);
    await expect(runWalDamage({ seed: 1, mutants: new Set(["wal-skip-claims"]) })).rejects.toThrow("went unnoticed");
  });

  test("refusing changes nothing", async () => {
    const { disk, states, segments } = await sample({ appends: 30 });
    const path = `${directory}/${segments[0]}`;
    disk.flipBit(path, 700, 2);
    const before = disk.peek(path);
    const names = await disk.list(directory);
    expect(await outcome(disk, last(states))).toBe("refused");
    expect(Buffer.compare(disk.peek(path), before)).toBe(0);
    expect(await disk.list(directory)).toEqual(names);
  });

  test("the error names the segment, the place, and what is lost", async () => {
    const disk = new ModelDisk();
    const wal = await Wal.create({ disk, directory, metadata: TEST_METADATA });
    for (let i = 1; i <= 9; i++) await appended(wal, { entries: entries(i, i, 1) });
    await wal.close();
    const at = Buffer.from(disk.peek(`${directory}/${FIRST}`)).indexOf(entries(5, 5, 1)[0]?.data ?? "");
    disk.flipBit(`${directory}/${FIRST}`, at, 0);
    const error = await Wal.open({ disk, directory }).then(
      () => undefined,
      (thrown: unknown) => thrown as WalCorruptError,
    );
    expect(error).toMatchObject({ reason: "wal-corrupt", damage: "damaged-record", segment: FIRST, lastGoodIndex: 4 });
    expect(error?.offset).toBeLessThan(at);
    expect(error?.message).toContain("readable up to index 4");
  });
});

describe("the last record, not acknowledged", () => {
  /** Three acknowledged appends, and a fourth whose sync never returned. */
  async function unacknowledged(
    bytes: number,
  ): Promise<{ disk: ModelDisk; before: LogState; after: LogState; from: number; to: number; path: string }> {
    let armed = false;
    const disk = new ModelDisk({
      onEvent: (event) => {
        if (armed && event.kind === "sync") throw new DiskDeadError();
      },
    });
    const wal = await Wal.create({ disk, directory, segmentBytes: 32768, metadata: TEST_METADATA });
    await appended(wal, { entries: entries(1, 2, 1, 300), hardState: { term: 1, vote: member(1), commit: 0 } });
    await appended(wal, { entries: entries(3, 3, 1, 300) });
    const path = `${directory}/${FIRST}`;
    const from = usedBytes(disk.peek(path));
    armed = true;
    await appended(wal, { entries: entries(4, 6, 1, bytes) }).catch(() => undefined);
    armed = false;
    disk.crash("kill");
    const to = usedBytes(disk.peek(path));
    const before: LogState = { ...EMPTY_LOG, hardState: { term: 1, vote: member(1), commit: 0 }, entries: entries(1, 3, 1, 300) };
    return { disk, before, after: { ...before, entries: [...before.entries, ...entries(4, 6, 1, bytes)] }, from, to, path };
  }

  test.each([40, 900])("BW3: zeroed from every byte on (%i bytes per entry): opens, drops only that record", async (bytes) => {
    const { disk, before, after, from, to, path } = await unacknowledged(bytes);
    expect(to - from).toBeGreaterThan(3 * bytes);
    // Zeroing nothing but the padding and the last byte changes nothing.
    const whole = usedBytes(disk.peek(path).subarray(0, to - 1));
    for (let at = from; at <= to; at += to - at < 100 || at - from < 100 ? 1 : 1 + (bytes >> 6)) {
      const copy = disk.clone();
      copy.poke(path, at, new Uint8Array(to - at));
      const { wal, contents } = await Wal.open({ disk: copy, directory });
      expect(describeLog(contents)).toBe(describeLog(at >= whole ? after : before));
      if (at > from && at < whole) expect(contents.repaired).toMatchObject({ segment: FIRST, offset: Math.ceil(from / 8) * 8 });
      // The torn bytes are gone for good, and the log goes on in their place.
      await appended(wal, { entries: entries(at >= whole ? 7 : 4, 8, 2, 10), hardState: { term: 2, vote: NO_MEMBER, commit: 0 } });
      await wal.close();
      copy.crash("power-loss");
      const again = await Wal.read({ disk: copy, directory });
      expect(again.entries).toHaveLength(8);
      expect(again.repaired).toBeUndefined();
    }
  });

  test("BW3: a file cut inside its records is refused, because a crash cannot do that; cut behind them it opens", async () => {
    const { disk, after, from, to, path } = await unacknowledged(40);
    const end = Math.ceil(to / 8) * 8;
    for (let at = 0; at <= end + 64; at++) {
      const copy = disk.clone();
      copy.resize(path, at);
      expect(await outcome(copy, after), `cut at ${at}`).toBe(at < end + 8 ? "refused" : "same");
      if (at >= end + 8) expect(copy.peek(path).byteLength).toBe(32768);
    }
    expect(from).toBeLessThan(end);
  });

  test("BW4: any subset of its blocks", async () => {
    const { disk, before, after, from, to, path } = await unacknowledged(4000);
    const first = Math.floor(from / 4096);
    const blocks = Math.ceil(to / 4096) - first;
    expect(blocks).toBeGreaterThan(2);
    for (let subset = 0; subset < 2 ** blocks; subset++) {
      const copy = disk.clone();
      for (let i = 0; i < blocks; i++) {
        if ((subset >> i) & 1) continue;
        const start = Math.max(from, (first + i) * 4096);
        copy.poke(path, start, new Uint8Array((first + i + 1) * 4096 - start));
      }
      const { wal, contents } = await Wal.open({ disk: copy, directory });
      await wal.close();
      expect(describeLog(contents)).toBe(describeLog(subset === 2 ** blocks - 1 ? after : before));
    }
  });

  test("BW11: garbage in place of it, as stale blocks would be, is dropped", async () => {
    const { disk, before, from, to, path } = await unacknowledged(40);
    for (let seed = 1; seed <= 50; seed++) {
      const random = seededRandom(seed);
      const copy = disk.clone();
      copy.poke(
        path,
        from,
        Uint8Array.from({ length: to - from + random.below(9000) }, () => random.below(256)),
      );
      const { wal, contents } = await Wal.open({ disk: copy, directory });
      await wal.close();
      expect(describeLog(contents)).toBe(describeLog(before));
      expect(contents.repaired).toBeDefined();
    }
  });

  test("a bit flipped in it: the same, a refusal, or only that record dropped; most flips are noticed by their shape", async () => {
    const { disk, before, after, from, to, path } = await unacknowledged(100);
    const counts = { same: 0, refused: 0, dropped: 0 };
    for (let at = from; at < to; at++) {
      const copy = disk.clone();
      copy.flipBit(path, at, at % 8);
      const result = await outcome(copy, after);
      if (typeof result === "string") counts[result] += 1;
      else {
        expect(describeLog(result)).toBe(describeLog(before));
        counts.dropped += 1;
      }
    }
    expect(counts.refused).toBeGreaterThan(5 * counts.dropped);
  });
});

describe("BW21: records at the wrong place", () => {
  test("another member's segment under our name", async () => {
    const ours = await sample({ appends: 60 });
    const theirs = new ModelDisk();
    const wal = await Wal.create({ disk: theirs, directory, segmentBytes: 8192, metadata: { ...TEST_METADATA, memberId: member(99) } });
    const generator = new WorkloadGenerator(seededRandom(5), 60);
    for (let i = 0; i < 60; i++) await appended(wal, generator.next());
    await wal.close();
    expect(ours.segments.length).toBeGreaterThan(1);
    for (const name of ours.segments) {
      const copy = ours.disk.clone();
      copy.poke(`${directory}/${name}`, 0, theirs.peek(`${directory}/${name}`));
      expect(await outcome(copy, last(ours.states)), name).toBe("refused");
    }
  });

  test("a segment in place of another, a second one with the same number, a name that contradicts the head (BW12)", async () => {
    const { disk, states, segments } = await sample({ appends: 100 });
    expect(segments.length).toBeGreaterThan(2);
    const [first, second] = segments as [string, string];
    const swapped = disk.clone();
    swapped.poke(`${directory}/${second}`, 0, disk.peek(`${directory}/${first}`));
    expect(await outcome(swapped, last(states))).toBe("refused");
    const newest = last(segments);
    const renamed = disk.clone();
    await renamed.rename(`${directory}/${newest}`, `${directory}/${newest.slice(0, 17)}${"f".padStart(16, "0")}.wal`);
    expect(await outcome(renamed, last(states))).toBe("refused");
    const absurd = disk.clone();
    await absurd.rename(`${directory}/${newest}`, `${directory}/${"f".repeat(16)}-${"f".repeat(16)}.wal`);
    expect(await outcome(absurd, last(states))).toBe("refused");
  });

  test("a sector written over the next one, and records repeated at the end", async () => {
    const { disk, states, segments } = await sample({ appends: 20, segmentBytes: 32768 });
    const path = `${directory}/${segments[0]}`;
    const bytes = disk.peek(path);
    const used = usedBytes(bytes);
    const moved = disk.clone();
    moved.poke(path, 1024, bytes.slice(512, 1024));
    expect(await outcome(moved, last(states))).toBe("refused");
    const repeated = disk.clone();
    repeated.poke(path, Math.ceil(used / 8) * 8, bytes.slice(512, used));
    expect(await outcome(repeated, last(states))).toBe("same");
  });
});

/** Assembles a record from docs/FORMATS.md alone. */
function record(
  seed: number,
  fields: {
    previousCrc: number;
    type: number;
    segment: number;
    offset: number;
    lastIndex: number;
    lastTerm: number;
    items: number;
    payloadBytes?: number;
  },
  payload: Uint8Array,
): { bytes: Buffer; crc: number } {
  const padded = payload.byteLength === 0 ? 0 : Math.ceil((payload.byteLength + 1) / 8) * 8;
  const bytes = Buffer.alloc(64 + padded);
  bytes.write("HFW1", 0, "latin1");
  bytes.writeUInt32LE(fields.previousCrc, 8);
  bytes.writeUInt32LE(payload.byteLength === 0 ? 0 : crc32(payload), 12);
  bytes.writeUInt32LE(fields.payloadBytes ?? payload.byteLength, 16);
  bytes.writeUInt32LE(fields.type, 20);
  bytes.writeUInt32LE(fields.segment, 24);
  bytes.writeUInt32LE(fields.offset, 28);
  bytes.writeBigUInt64LE(BigInt(fields.lastIndex), 40);
  bytes.writeBigUInt64LE(BigInt(fields.lastTerm), 48);
  bytes.writeUInt32LE(fields.items, 56);
  bytes.writeUInt32LE(0xa5a5a5a5, 60);
  const crc = crc32(bytes.subarray(8, 64), seed);
  bytes.writeUInt32LE(crc, 4);
  bytes.set(payload, 64);
  if (padded > 0) bytes[64 + padded - 1] = 0xa5;
  return { bytes, crc };
}

function u64(...values: (number | bigint)[]): Buffer {
  const bytes = Buffer.alloc(values.length * 8);
  values.forEach((value, i) => {
    bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), i * 8);
  });
  return bytes;
}

function item(kind: number, body: Uint8Array, length = body.byteLength): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(length, 0);
  head.writeUInt32LE(kind, 4);
  return Buffer.concat([head, body]);
}

function handmadeHead(): { bytes: Buffer; crc: number; seed: number } {
  const payload = Buffer.concat([u64(TEST_METADATA.clusterId, TEST_METADATA.memberId, 8192), u64(0, 0, 0), u64(0, 0), Buffer.alloc(24)]);
  const seed = crc32(payload.subarray(0, 16));
  return { ...record(seed, { previousCrc: 0, type: 1, segment: 0, offset: 0, lastIndex: 0, lastTerm: 0, items: 0 }, payload), seed };
}

async function handmade(
  payload: Uint8Array,
  fields: { lastIndex: number; lastTerm: number; items: number; payloadBytes?: number },
): Promise<ModelDisk> {
  const head = handmadeHead();
  const group = record(head.seed, { previousCrc: head.crc, type: 2, segment: 0, offset: head.bytes.byteLength, ...fields }, payload);
  const disk = new ModelDisk();
  await disk.makeDirectory(directory);
  const file = await disk.open(`${directory}/${FIRST}`, { create: true });
  await file.truncate(8192);
  await file.write(0, Buffer.concat([head.bytes, group.bytes]));
  return disk;
}

describe("the format", () => {
  test("a log assembled from docs/FORMATS.md opens", async () => {
    const payload = Buffer.concat([
      item(1, Buffer.concat([u64(1, 3), Buffer.from("one")])),
      item(2, Buffer.concat([u64(2, 3), Buffer.from("two")])),
      item(3, u64(3, 7, 2)),
    ]);
    const contents = await Wal.read({ disk: await handmade(payload, { lastIndex: 2, lastTerm: 3, items: 3 }), directory });
    expect(contents.metadata).toEqual(TEST_METADATA);
    expect(contents.hardState).toEqual({ term: 3, vote: member(7), commit: 2 });
    expect(contents.entries.map((e) => [e.index, e.term, e.type, Buffer.from(e.data).toString()])).toEqual([
      [1, 3, "normal", "one"],
      [2, 3, "conf-change", "two"],
    ]);
  });

  test("what the log writes is what the document says", async () => {
    const disk = new ModelDisk();
    const wal = await Wal.create({ disk, directory, segmentBytes: 8192, metadata: TEST_METADATA });
    await appended(wal, { entries: entries(1, 1, 3, 5), hardState: { term: 3, vote: member(7), commit: 1 } });
    await appended(wal, { snapshot: { index: 1, term: 3, confState: confState(7) } });
    await wal.close();
    const bytes = Buffer.from(disk.peek(`${directory}/${FIRST}`));
    const head = handmadeHead();
    expect(bytes.subarray(0, head.bytes.byteLength).equals(head.bytes)).toBe(true);
    const payload = Buffer.concat([item(1, Buffer.concat([u64(1, 3), Buffer.alloc(5, 2)])), item(3, u64(3, 7, 1))]);
    const group = record(
      head.seed,
      { previousCrc: head.crc, type: 2, segment: 0, offset: head.bytes.byteLength, lastIndex: 1, lastTerm: 3, items: 2 },
      payload,
    );
    const written = bytes.subarray(head.bytes.byteLength, head.bytes.byteLength + group.bytes.byteLength);
    // The claim is the one field that the assembler leaves out.
    expect(written.readUInt32LE(32)).toBe(0);
    expect(written.readUInt32LE(36)).toBe(head.bytes.byteLength);
    expect(written.subarray(64).equals(group.bytes.subarray(64))).toBe(true);
    expect(written.subarray(8, 32).equals(group.bytes.subarray(8, 32))).toBe(true);
    expect(written.subarray(40, 64).equals(group.bytes.subarray(40, 64))).toBe(true);
    const mark = bytes.subarray(head.bytes.byteLength + group.bytes.byteLength);
    expect(mark.readUInt32LE(20)).toBe(3);
    expect(mark.readUInt32LE(8)).toBe(written.readUInt32LE(4));
    expect(mark.readUInt32LE(36)).toBe(head.bytes.byteLength + group.bytes.byteLength);
    const marker = mark.subarray(64 + 64);
    expect(marker.readUInt32LE(0)).toBe(40 + 8);
    expect(marker.readUInt32LE(4)).toBe(4);
    expect(marker.subarray(8, 24).equals(u64(1, 3))).toBe(true);
    expect(marker.readUInt32LE(24)).toBe(1);
    expect(marker.subarray(48, 56).equals(u64(7))).toBe(true);
  });

  test("BW10: contents that break a rule of the log are refused although every checksum matches", async () => {
    const e = (index: number, term: number): Buffer => item(1, Buffer.concat([u64(index, term), Buffer.from("x")]));
    const marker = (index: number, term: number, counts: number[], flags = 0): Buffer => {
      const body = Buffer.alloc(24);
      for (const [i, count] of counts.entries()) body.writeUInt32LE(count, i * 4);
      return item(4 | (flags << 8), Buffer.concat([u64(index, term), body]));
    };
    const broken: [string, Buffer, { lastIndex: number; lastTerm: number; items: number }][] = [
      ["gap", e(2, 1), { lastIndex: 2, lastTerm: 1, items: 1 }],
      ["index 0", e(0, 1), { lastIndex: 0, lastTerm: 1, items: 1 }],
      ["term 0", e(1, 0), { lastIndex: 1, lastTerm: 0, items: 1 }],
      ["term goes back", Buffer.concat([e(1, 2), e(2, 1)]), { lastIndex: 2, lastTerm: 1, items: 2 }],
      ["index above 2^53", item(1, u64(2n ** 60n, 1)), { lastIndex: 1, lastTerm: 1, items: 1 }],
      ["commit behind the log", item(3, u64(1, 1, 5)), { lastIndex: 0, lastTerm: 0, items: 1 }],
      ["another last index", e(1, 1), { lastIndex: 2, lastTerm: 1, items: 1 }],
      ["another number of items", e(1, 1), { lastIndex: 1, lastTerm: 1, items: 2 }],
      ["unknown item", item(9, u64(1, 1)), { lastIndex: 0, lastTerm: 0, items: 1 }],
      ["item longer than the record", item(1, u64(1, 1), 1 << 30), { lastIndex: 1, lastTerm: 1, items: 1 }],
      ["entry shorter than its fixed part", item(1, u64(1)), { lastIndex: 1, lastTerm: 1, items: 1 }],
      ["item head cut", Buffer.from([1, 2, 3]), { lastIndex: 0, lastTerm: 0, items: 1 }],
      ["lists that do not fit", marker(1, 1, [0xffffffff, 0, 0, 0], 1), { lastIndex: 1, lastTerm: 1, items: 1 }],
      ["marker behind the log", marker(5, 1, [0, 0, 0, 0]), { lastIndex: 5, lastTerm: 1, items: 1 }],
      ["marker of another term", Buffer.concat([e(1, 2), marker(1, 1, [0, 0, 0, 0])]), { lastIndex: 1, lastTerm: 2, items: 2 }],
      ["unknown flag", marker(1, 1, [0, 0, 0, 0], 2), { lastIndex: 1, lastTerm: 1, items: 1 }],
    ];
    for (const [what, payload, fields] of broken) {
      const disk = await handmade(payload, fields);
      await expect(Wal.open({ disk, directory }), what).rejects.toThrow(WalCorruptError);
    }
  });

  test("BW10: a length of 1 GiB in a small file allocates nothing of that size", async () => {
    const disk = await handmade(Buffer.from("x"), { lastIndex: 1, lastTerm: 1, items: 1, payloadBytes: 1 << 30 });
    const before = process.memoryUsage().arrayBuffers;
    const result = await Wal.open({ disk, directory }).then(
      ({ wal }) => wal.close(),
      (error: unknown) => expect(EtcdError.is(error)).toBe(true),
    );
    expect(result).toBeUndefined();
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(32 << 20);
    const bytes = disk.peek(`${directory}/${FIRST}`);
    new DataView(bytes.buffer).setUint32(16, 0x7fffffff, true);
    disk.poke(`${directory}/${FIRST}`, 0, bytes);
    await expect(Wal.open({ disk, directory })).rejects.toThrow(WalCorruptError);
  });

  test("BW10: random changes of every kind: contents that were once true, or a typed error", async () => {
    const { disk, states, segments } = await sample({ appends: 60 });
    const known = new Set(states.map(describeLog));
    const tail = `${directory}/${last(segments)}`;
    for (let seed = 1; seed <= 1500; seed++) {
      const random = seededRandom(seed);
      const copy = disk.clone();
      for (let changes = 1 + random.below(4); changes > 0; changes--) {
        const path = `${directory}/${segments[random.below(segments.length)]}`;
        const size = copy.peek(path).byteLength;
        switch (random.below(5)) {
          case 0:
            copy.resize(path, random.below(size + 1));
            break;
          case 1:
            copy.poke(
              path,
              random.below(size + 1),
              Uint8Array.from({ length: 1 + random.below(300) }, () => random.below(256)),
            );
            break;
          case 2:
            copy.poke(path, random.below(size + 1), new Uint8Array(1 + random.below(5000)));
            break;
          case 3: {
            const from = random.below(size + 1);
            copy.poke(path, random.below(size + 1), copy.peek(path).slice(from, from + random.below(4096)));
            break;
          }
          default:
            if (random.chance({ of: 1, outOf: 4 }))
              copy.poke(
                tail,
                0,
                Uint8Array.from({ length: 2000 }, () => random.below(256)),
              );
            else copy.flipBit(path, random.below(size), random.below(8));
        }
      }
      try {
        const { wal, contents } = await Wal.open({ disk: copy, directory });
        await wal.close();
        if (!known.has(describeLog(contents))) throw new Error(`seed ${seed} gave contents that never were`);
      } catch (error) {
        if (!EtcdError.is(error)) throw new Error(`seed ${seed}`, { cause: error });
      }
    }
  });

  test("BW10: files of random bytes", async () => {
    for (let seed = 1; seed <= 300; seed++) {
      const random = seededRandom(seed);
      const disk = new ModelDisk();
      await disk.makeDirectory(directory);
      const file = await disk.open(`${directory}/${FIRST}`, { create: true });
      await file.write(
        0,
        Uint8Array.from({ length: random.below(5000) }, () => random.below(256)),
      );
      await expect(Wal.open({ disk, directory })).rejects.toThrow(WalCorruptError);
    }
  });
});
