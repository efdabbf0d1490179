import { beforeAll, describe, expect, test, vi } from "vitest";
import { DiskDeadError, ModelDisk } from "../../test/support/model-disk.ts";
import { type Life, liveWal, recoveredAppends, runSteps, type Step } from "../../test/support/wal-crash.ts";
import { confState, describeLog, entries, type LogState, member, WorkloadGenerator } from "../../test/support/wal-model.ts";
import { setVerify } from "../base/assert.ts";
import { NO_MEMBER } from "../base/ids.ts";
import { type Random, seededRandom } from "../base/random.ts";
import { Wal, WalCorruptError } from "./index.ts";

// Much computing, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const options = { directory: "data/wal", segmentBytes: 2048 };

beforeAll(() => setVerify(true));

function steps(seed: number, count: number, bytesMax = 200): Step[] {
  const random = seededRandom(seed);
  const generator = new WorkloadGenerator(random, bytesMax);
  const list: Step[] = [];
  for (let i = 0; i < count; i++) {
    list.push(generator.next());
    if (random.chance({ of: 1, outOf: 10 })) list.push({ purge: generator.state.snapshot.index });
  }
  return list;
}

async function crashedAt(
  event: number,
  crash: "kill" | "power-loss",
  seed: number,
  list: readonly Step[],
  how: { mutants?: ReadonlySet<string>; waits?: Random } = {},
): Promise<{ disk: ModelDisk; life: Life }> {
  const disk = new ModelDisk({ random: seededRandom(seed) });
  disk.dieAt(event);
  const { mutants, waits = seededRandom(seed + 1) } = how;
  const life = await liveWal(disk, mutants === undefined ? options : { ...options, mutants }, list, waits);
  disk.crash(crash);
  return { disk, life };
}

/** The log goes on from what it recovered: appended to, closed, and read again. */
async function goesOn(disk: ModelDisk, wal: Wal, state: LogState): Promise<void> {
  const next = state.snapshot.index + state.entries.length + 1;
  const term = Math.max(1, state.hardState.term, state.entries[state.entries.length - 1]?.term ?? state.snapshot.term);
  const added = entries(next, next + 2, term);
  await new Promise<void>((resolve, reject) => {
    wal.append({ entries: added, mustSync: true }, (error) => (error === undefined ? resolve() : reject(error)));
  });
  await wal.close();
  disk.crash("power-loss");
  const { contents, wal: again } = await Wal.open({ ...options, disk });
  expect(describeLog(contents)).toBe(describeLog({ ...state, entries: [...state.entries, ...added] }));
  await again.close();
}

describe("a crash at every disk event", () => {
  const list = steps(7, 70);

  test.each(["kill", "power-loss"] as const)(
    "K5, K6, BW2, BW4, BW5, BW7, BW11, BW12: %s loses nothing acknowledged and the log opens",
    async (crash) => {
      const whole = new ModelDisk();
      await liveWal(whole, options, list, seededRandom(2));
      expect(whole.events).toBeGreaterThan(200);
      let repaired = 0;
      for (let event = 1; event <= whole.events + 1; event++) {
        for (let seed = 1; seed <= (crash === "kill" ? 1 : 8); seed++) {
          const { disk, life } = await crashedAt(event, crash, seed, list);
          const recovered = await recoveredAppends(disk, options, life, crash).catch((error: unknown) => {
            throw new Error(`event ${event}, seed ${seed}`, { cause: error });
          });
          if (recovered === undefined) continue;
          if (recovered.repaired) repaired += 1;
          await goesOn(disk, recovered.wal, life.states[recovered.appends] as LogState);
        }
      }
      // The sweep is worth something only if it produces torn tails.
      expect(repaired).toBeGreaterThan(crash === "kill" ? 10 : 50);
    },
  );

  test("a crash during recovery, and again, loses nothing either", async () => {
    for (let seed = 1; seed <= 150; seed++) {
      const random = seededRandom(seed);
      const { disk, life } = await crashedAt(20 + random.below(300), "power-loss", seed, list);
      for (let again = 0; again < 3; again++) {
        disk.dieAt(disk.events + 1 + random.below(25));
        await recoveredAppends(disk, options, life, "power-loss")
          .then((recovered) => recovered?.wal.close())
          .catch((error: unknown) => {
            if (!disk.isDead) throw new Error(`seed ${seed}`, { cause: error });
          });
        disk.crash("power-loss");
      }
      const recovered = await recoveredAppends(disk, options, life, "power-loss");
      if (recovered !== undefined) await goesOn(disk, recovered.wal, life.states[recovered.appends] as LogState);
    }
  });

  test("BW5: a created log is there after power loss, however deep its directory", async () => {
    for (let seed = 0; seed < 20; seed++) {
      const disk = new ModelDisk({ random: seededRandom(seed) });
      const wal = await Wal.create({ disk, directory: "a/b/c/wal", metadata: { memberId: member(1), clusterId: 2n as never } });
      disk.crash("power-loss");
      const opened = await Wal.open({ disk, directory: "a/b/c/wal" });
      await opened.wal.close();
      await wal.close().catch(() => undefined);
    }
  });
});

test("random workloads, several lives, kill and power loss, against a plain array", async () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = seededRandom(seed * 1000);
    const generator = new WorkloadGenerator(random, 1 + random.below(600));
    const disk = new ModelDisk({ random });
    disk.dieAt(50 + random.below(200));
    const take = (count: number): Step[] => Array.from({ length: count }, () => generator.next());
    let life = await liveWal(disk, options, take(40), random);
    for (let again = 0; again < 5; again++) {
      const crash = random.chance({ of: 1, outOf: 2 }) ? "kill" : "power-loss";
      disk.crash(crash);
      const recovered = await recoveredAppends(disk, options, life, crash).catch((error: unknown) => {
        throw new Error(`seed ${seed}, life ${again}, ${crash}`, { cause: error });
      });
      if (recovered === undefined) break;
      const state = life.states[recovered.appends] as LogState;
      generator.state = state;
      life = { started: true, states: [state], durable: 0, acknowledged: 0, error: undefined };
      if (random.chance({ of: 3, outOf: 4 })) disk.dieAt(disk.events + 1 + random.below(200));
      await runSteps(recovered.wal, life, take(30), random);
      if (!disk.isDead && random.chance({ of: 1, outOf: 2 })) await recovered.wal.close();
    }
  }
});

describe("errors of the disk", () => {
  test("BW6: disk full at every byte count; after space is freed the log opens with all that was acknowledged", async () => {
    const list = steps(11, 25, 100);
    for (let free = 0; free < 12_000; free += 97) {
      const disk = new ModelDisk({ random: seededRandom(free) });
      disk.faults.freeBytes = free;
      let life: Life | undefined;
      try {
        life = await liveWal(disk, options, list, seededRandom(free));
      } catch (error) {
        expect((error as { code?: string }).code).toBe("ENOSPC");
      }
      disk.faults.freeBytes = undefined;
      if (life === undefined) {
        // Not even created: it can be created now.
        await (await Wal.create({ ...options, disk, metadata: { memberId: member(1), clusterId: 2n as never } })).close();
        continue;
      }
      if (life.error !== undefined) expect((life.error.cause as { code?: string }).code).toBe("ENOSPC");
      disk.crash("kill");
      const recovered = await recoveredAppends(disk, options, life, "kill").catch((error: unknown) => {
        throw new Error(`free ${free}`, { cause: error });
      });
      expect(recovered).toBeDefined();
      if (recovered !== undefined) await goesOn(disk, recovered.wal, life.states[recovered.appends] as LogState);
    }
  });

  test.each(["once", "forever"] as const)(
    "BW19: a sync error (%s) fails that append and all later ones, nothing is retried",
    async (kind) => {
      const disk = new ModelDisk();
      const wal = await Wal.create({ ...options, disk, metadata: { memberId: member(1), clusterId: 2n as never } });
      const results: string[] = [];
      const write = (index: number): Promise<void> =>
        new Promise((resolve) => {
          wal.append({ entries: entries(index, index, 1), mustSync: true }, (error) => {
            results.push(error === undefined ? `${index} ok` : `${index} ${error.name}`);
            resolve();
          });
        });
      await write(1);
      disk.faults.syncError = kind;
      disk.faults.only = (path) => path.endsWith(".wal");
      await Promise.all([write(2), write(3)]);
      const events = disk.events;
      await write(4);
      expect(results).toEqual(["1 ok", "2 WalFailedError", "3 WalFailedError", "4 WalFailedError"]);
      expect(disk.events).toBe(events);
      disk.faults.syncError = undefined;
      await wal.close();
      expect(disk.events - events).toBeLessThan(4);
      disk.crash("power-loss");
      const { contents, wal: again } = await Wal.open({ ...options, disk });
      expect(contents.entries.map((entry) => entry.index)).toEqual([1]);
      await again.close();
    },
  );

  test.each([
    ["a sync that failed", "BW19"],
    ["a sync that never returned", "BW2"],
  ])("%s (%s): what it left in the page cache is on disk before open returns it", async (how) => {
    for (let seed = 1; seed <= 50; seed++) {
      let die = false;
      const disk = new ModelDisk({
        random: seededRandom(seed),
        onEvent: (event) => {
          if (die && event.kind === "sync") throw new DiskDeadError();
        },
      });
      const wal = await Wal.create({ ...options, disk, metadata: { memberId: member(1), clusterId: 2n as never } });
      disk.faults.only = (path) => path.endsWith(".wal");
      if (how === "a sync that failed") disk.faults.syncError = "once";
      else die = true;
      await new Promise<void>((resolve) => wal.append({ entries: entries(1, 3, 1), mustSync: true }, () => resolve()));
      die = false;
      disk.crash("kill");
      const first = await Wal.open({ ...options, disk });
      // They are in the page cache, so open hands them out, and the member may acknowledge them from now on.
      expect(first.contents.entries).toHaveLength(3);
      disk.crash("power-loss");
      const second = await Wal.open({ ...options, disk });
      expect(second.contents.entries).toHaveLength(3);
      await second.wal.close();
    }
  });

  test("BW6: an error while the next segment is prepared or filled only costs time", async () => {
    const disk = new ModelDisk();
    let fail = true;
    const failing = new ModelDisk({
      onEvent: (event) => {
        if (fail && event.path.endsWith(".tmp") && event.kind === "sync") throw new Error("EIO");
      },
    });
    expect(disk.events).toBe(0);
    fail = false;
    const wal = await Wal.create({ ...options, disk: failing, metadata: { memberId: member(1), clusterId: 2n as never } });
    fail = true;
    for (let i = 1; i <= 5; i++) {
      await new Promise<void>((resolve, reject) => {
        wal.append({ entries: entries(i, i, 1, 100), mustSync: true }, (error) => (error === undefined ? resolve() : reject(error)));
      });
    }
    fail = false;
    for (let i = 6; i <= 30; i++) {
      await new Promise<void>((resolve, reject) => {
        wal.append({ entries: entries(i, i, 1, 200), mustSync: true }, (error) => (error === undefined ? resolve() : reject(error)));
      });
    }
    await wal.close();
    const { contents, wal: again } = await Wal.open({ ...options, disk: failing });
    expect(contents.entries).toHaveLength(30);
    await again.close();
  });

  test("BW22: a disk that stores less than it says is found out, or nothing is lost", async () => {
    const outcomes = { refused: 0, whole: 0 };
    for (let seed = 1; seed <= 60; seed++) {
      const disk = new ModelDisk({ random: seededRandom(seed) });
      const list = steps(seed, 30).filter((step) => !("purge" in step));
      disk.faults.shortWrites = { of: 1, outOf: 40 };
      disk.faults.only = (path) => path.endsWith(".wal");
      const life = await liveWal(disk, options, list, seededRandom(seed));
      disk.faults.shortWrites = undefined;
      try {
        const recovered = await recoveredAppends(disk, options, life, "kill");
        expect(recovered?.appends).toBeGreaterThanOrEqual(life.durable);
        outcomes.whole += 1;
        await recovered?.wal.close();
      } catch (error) {
        if (!(error instanceof WalCorruptError)) throw error;
        outcomes.refused += 1;
      }
    }
    expect(outcomes.refused).toBeGreaterThan(5);
    expect(outcomes.whole).toBeGreaterThan(5);
  });
});

describe("mutants: the sweep finds each of them", () => {
  const list: Step[] = [
    { hardState: { term: 1, vote: member(1), commit: 0 }, entries: [], mustSync: true },
    { entries: entries(1, 8, 1, 100), mustSync: true },
    { hardState: { term: 2, vote: NO_MEMBER, commit: 4 }, entries: [], mustSync: true },
    { hardState: { term: 2, vote: member(2), commit: 4 }, entries: [], mustSync: true },
    { entries: entries(9, 16, 2, 100), mustSync: true },
    { entries: entries(17, 24, 2, 100), mustSync: true },
    { snapshot: { index: 4, term: 1, confState: confState(1, 2, 3) }, entries: [], mustSync: true },
    { entries: entries(25, 32, 2, 100), mustSync: true },
  ];

  // Every append by itself: in a group with an honest one a mutant is synced after all.
  const always: Random = { below: () => 0, chance: () => true, bits64: () => 0n };

  async function violations(mutant: string): Promise<number> {
    let found = 0;
    for (let event = 10; event <= 90; event++) {
      for (let seed = 1; seed <= 4; seed++) {
        const { disk, life } = await crashedAt(event, "power-loss", seed, list, { mutants: new Set([mutant]), waits: always });
        const recovered = await recoveredAppends(disk, options, life, "power-loss").catch(() => "violation" as const);
        if (recovered === "violation") found += 1;
        else await recovered?.wal.close();
      }
    }
    return found;
  }

  test.each(["wal-skip-entry-sync", "wal-skip-vote-sync", "wal-drop-directory-sync"])("%s", async (mutant) => {
    expect(await violations(mutant)).toBeGreaterThan(0);
  });

  test("none of them without a mutant", async () => {
    expect(await violations("no-such-mutant")).toBe(0);
  });
});
