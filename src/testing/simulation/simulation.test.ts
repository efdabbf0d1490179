import { describe, expect, it } from "vitest";
import { seededRandom } from "../../base/random.ts";
import { FAULT_KINDS, planFaults } from "./fault-plan.ts";
import { SimClock } from "./sim-clock.ts";
import { type DiskUser, SimDisk } from "./sim-disk.ts";
import { takeGlobals } from "./sim-globals.ts";

describe("simulated time", () => {
  it("goes from timer to timer, those of one instant in order", () => {
    const clock = new SimClock();
    const fired: string[] = [];
    const note = (what: string) => (): void => void fired.push(`${what}@${clock.monotonicMs()}`);
    clock.timer(50, note("c"));
    clock.timer(10, note("a"));
    clock.timer(50, note("d"));
    const cancelled = clock.timer(20, note("never"));
    clock.timer(10, () => {
      note("b")();
      clock.timer(5, note("later"));
      // What is due already fires next, without time going back.
      clock.timer(-5, note("at once"));
    });
    cancelled.cancel();
    while (clock.fireNext());
    expect(fired).toEqual(["a@10", "b@10", "at once@10", "later@15", "c@50", "d@50"]);
    expect(clock.fireNext()).toBe(false);
  });

  it("keeps order among many timers, as a sorted list would", () => {
    const random = seededRandom(1);
    const clock = new SimClock();
    const due: number[] = [];
    const fired: number[] = [];
    for (let i = 0; i < 500; i += 1) {
      const ms = random.below(100);
      due.push(ms);
      clock.timer(ms, () => fired.push(ms));
    }
    while (clock.fireNext());
    expect(fired).toEqual(due.sort((a, b) => a - b));
  });

  it("has a fingerprint of what happened", () => {
    const run = (...delays: readonly number[]): string => {
      const clock = new SimClock();
      for (const ms of delays) clock.timer(ms, () => undefined);
      while (clock.fireNext());
      return clock.fingerprint;
    };
    expect(run(1, 2, 3)).toBe(run(1, 2, 3));
    expect(run(1, 2, 3)).not.toBe(run(1, 3, 2));
    expect(run(1, 2)).not.toBe(run(1, 2, 3));
  });

  it("stands in for the runtime's, and gives it back", async () => {
    const clock = new SimClock();
    const real = [setTimeout, setInterval, setImmediate, clearInterval, Math.random, Date.now];
    const release = takeGlobals(clock, seededRandom(1));
    const fired: string[] = [];
    try {
      const began = Date.now();
      const repeated = setInterval(() => fired.push(`i${Date.now() - began}`), 10);
      setTimeout((what: string) => fired.push(`${what}${performance.now()}`), 25, "t");
      const handle = setTimeout(() => fired.push("never"), 1);
      handle.unref();
      clearTimeout(handle);
      setImmediate(() => fired.push("now"));
      for (let i = 0; i < 4; i += 1) clock.fireNext();
      clearInterval(repeated);
      while (clock.fireNext());
      const chance = [Math.random(), Math.random()];
      expect(chance.every((one) => one >= 0 && one < 1)).toBe(true);
    } finally {
      release();
    }
    expect(fired).toEqual(["now", "i10", "i20", "t25"]);
    expect([setTimeout, setInterval, setImmediate, clearInterval, Math.random, Date.now]).toEqual(real);
  });
});

describe("a simulated disk", () => {
  const user = (): DiskUser & { dead: boolean } => ({ dead: false, done: () => Promise.resolve() });

  it("keeps what was written when the process dies, and nothing of what a dead one writes", async () => {
    const disk = new SimDisk();
    const first = user();
    const before = disk.for(first);
    await before.makeDirectory("/data/member/wal");
    const file = await before.open("/data/member/wal/1", { create: true });
    await file.write(65_530, new Uint8Array(20).fill(7));
    expect(await file.sizeBytes()).toBe(65_550);
    first.dead = true;
    await file.write(0, new Uint8Array([9]));
    await before.remove("/data/member/wal/1");
    const after = disk.for(user());
    const again = await after.open("/data/member/wal/1");
    expect([...(await again.read(0, 2))]).toEqual([0, 0]);
    // Across two blocks, and shorter at the end.
    expect([...(await again.read(65_529, 100))]).toEqual([0, ...new Array<number>(20).fill(7)]);
    await again.truncate(65_540);
    await again.truncate(65_550);
    expect([...(await again.read(65_538, 100))]).toEqual([7, 7, ...new Array<number>(10).fill(0)]);
  });

  it("lists, renames and removes whole trees", async () => {
    const disk = new SimDisk().for(user());
    expect(await disk.list("/data")).toBeUndefined();
    await disk.makeDirectory("/data/a/b");
    await disk.open("/data/a/x", { create: true });
    await disk.open("/data/a/b/y", { create: true });
    expect(await disk.list("/data/a")).toEqual(["b", "x"]);
    await disk.rename("/data/a", "/data/z");
    expect(await disk.list("/data")).toEqual(["z"]);
    expect(await disk.exists("/data/z/b/y")).toBe(true);
    await expect(disk.open("/data/a/x")).rejects.toMatchObject({ code: "ENOENT" });
    await expect(disk.rename("/data/a", "/data/q")).rejects.toMatchObject({ code: "ENOENT" });
    await disk.removeTree("/data/z");
    expect(await disk.list("/data")).toEqual([]);
    await disk.remove("/data/none");
  });
});

describe("a plan of faults", () => {
  it("follows from its seed, stays within its time, and has the kinds that were asked for", () => {
    const plan = (seed: number) => planFaults({ seed, durationMs: 60_000, kinds: FAULT_KINDS });
    expect(plan(1)).toEqual(plan(1));
    expect(plan(1)).not.toEqual(plan(2));
    for (const { atMs, forMs } of plan(3)) expect(atMs + forMs).toBeLessThanOrEqual(60_000);
    expect(new Set(plan(4).map(({ kind }) => kind))).toEqual(new Set(FAULT_KINDS));
    expect(planFaults({ seed: 1, durationMs: 60_000, kinds: [] })).toEqual([]);
    const kills = planFaults({ seed: 1, durationMs: 60_000, kinds: ["kill"] });
    expect(new Set(kills.map(({ kind }) => kind))).toEqual(new Set(["kill"]));
  });
});
