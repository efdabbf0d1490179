import { expect, test } from "vitest";
import { setVerify } from "../../src/base/assert.ts";
import { type ClusterOptions, type ClusterReport, runCluster } from "./cluster.ts";

setVerify(true);

/** RAFT_SEEDS=from-to runs other seeds, for a long search. */
const [FROM = 1, TO = 80] = (process.env.RAFT_SEEDS ?? "").split("-").filter(Boolean).map(Number);
const STEPS = 5000;

function run(options: ClusterOptions): ClusterReport {
  try {
    return runCluster(options);
  } catch (error) {
    throw new Error(`seed ${options.seed}`, { cause: error });
  }
}

test(`random clusters keep J1 to J6 and converge, seeds ${FROM} to ${TO}`, () => {
  const total = { committed: 0, leaders: 0, reads: 0, confChanges: 0, crashes: 0, snapshots: 0 };
  for (let seed = FROM; seed <= TO; seed++) {
    const report = run({ seed, steps: STEPS });
    for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += report[key];
  }
  // The world must have been as rough as it is meant to be.
  const perSeed = (count: number): number => count / (TO - FROM + 1);
  expect(perSeed(total.committed)).toBeGreaterThan(20);
  expect(perSeed(total.leaders)).toBeGreaterThan(2);
  expect(perSeed(total.reads)).toBeGreaterThan(10);
  expect(perSeed(total.confChanges)).toBeGreaterThan(1);
  expect(perSeed(total.crashes)).toBeGreaterThan(2);
  expect(perSeed(total.snapshots)).toBeGreaterThan(0.2);
}, 120_000);

test(`members that lose their disks heal and no promise is broken (BW20), seeds ${FROM} to ${TO}`, () => {
  let lostDisks = 0;
  let healed = 0;
  for (let seed = FROM; seed <= TO; seed++) {
    const report = run({ seed, steps: STEPS, lostDisks: true });
    lostDisks += report.lostDisks;
    healed += report.healed;
  }
  expect(lostDisks / (TO - FROM + 1)).toBeGreaterThan(1);
  expect(healed / (TO - FROM + 1)).toBeGreaterThan(1);
}, 120_000);

test("equal seeds give equal runs, different seeds different ones (E8)", () => {
  const digest = (seed: number): number => runCluster({ seed, steps: 2000 }).digest;
  expect(digest(5)).toBe(digest(5));
  expect(digest(5)).not.toBe(digest(6));
});
