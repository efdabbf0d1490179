import { expect, test } from "vitest";
import { EMPTY_BYTES } from "../../base/bytes.ts";
import { compareIds, type MemberId } from "../../base/ids.ts";
import { type Random, seededRandom } from "../../base/random.ts";
import type { ConfChange, ConfChangeKind, ConfChangeStep, ConfState } from "../entry.ts";
import { changeConf, confChangeProblem, EMPTY_CONF, isProblem, isWellFormedConf } from "./change.ts";

const id = (n: number): MemberId => BigInt(n) as MemberId;
const conf = (voters: number[], learners: number[] = []): ConfState => ({
  ...EMPTY_CONF,
  voters: voters.map(id),
  learners: learners.map(id),
});
const step = (kind: ConfChangeKind, n: number): ConfChangeStep => ({ kind, memberId: id(n) });
const change = (steps: ConfChangeStep[], options: { joint?: boolean; autoLeave?: boolean } = {}): ConfChange => ({
  steps,
  context: EMPTY_BYTES,
  ...options,
});

function changed(before: ConfState, wanted: ConfChange): ConfState {
  const after = changeConf(before, wanted);
  if (isProblem(after)) throw new Error(after);
  return after;
}

/** What a change is for, without any joint business: who votes and who learns in the end. Undefined when nobody would vote. */
function naive(before: ConfState, steps: readonly ConfChangeStep[]): ConfState | undefined {
  const role = new Map<MemberId, "voter" | "learner">();
  for (const voter of before.voters) role.set(voter, "voter");
  for (const learner of before.learners) role.set(learner, "learner");
  for (const { kind, memberId } of steps) {
    if (kind === "add-voter") role.set(memberId, "voter");
    else if (kind === "add-learner") role.set(memberId, "learner");
    else if (kind === "remove") role.delete(memberId);
  }
  const all = [...role.keys()].sort(compareIds);
  const voters = all.filter((member) => role.get(member) === "voter");
  if (voters.length === 0) return undefined;
  return { ...EMPTY_CONF, voters, learners: all.filter((member) => role.get(member) === "learner") };
}

function someStep(random: Random): ConfChangeStep {
  const kinds: ConfChangeKind[] = ["add-voter", "add-learner", "remove", "update"];
  return step(kinds[random.below(4)] as ConfChangeKind, 1 + random.below(6));
}

test("simple and joint changes end where a naive twin says, and every configuration on the way is well-formed", () => {
  const random = seededRandom(4);
  for (let round = 0; round < 500; round++) {
    let config = conf([1]);
    for (let i = 0; i < 30; i++) {
      const steps = Array.from({ length: 1 + random.below(4) }, () => someStep(random));
      const joint = random.chance({ of: 1, outOf: 2 });
      const expected = naive(config, steps);
      const wanted = change(steps, { joint });
      const after = changeConf(config, wanted);
      if (expected === undefined) {
        expect(after).toBe("no voters would be left");
        continue;
      }
      if (isProblem(after)) throw new Error(after);
      expect(isWellFormedConf(after, false)).toBe(true);
      if (joint || steps.length > 1) {
        expect(after.votersOutgoing).toEqual(config.voters);
        expect(after.autoLeave).toBe(true);
        // Nobody who still votes in the outgoing half is called a learner.
        expect(after.learners.filter((learner) => config.voters.includes(learner))).toEqual([]);
        config = changed(after, change([]));
      } else {
        config = after;
      }
      expect(config).toEqual(expected);
    }
  }
});

test("a simple change moves at most one voter, so old and new majorities intersect (J9)", () => {
  const random = seededRandom(5);
  let config = conf([1, 2, 3]);
  for (let i = 0; i < 2000; i++) {
    const after = changeConf(config, change([someStep(random)]));
    if (isProblem(after)) continue;
    const moved =
      after.voters.filter((voter) => !config.voters.includes(voter)).length +
      config.voters.filter((voter) => !after.voters.includes(voter)).length;
    expect(moved).toBeLessThanOrEqual(1);
    config = after;
  }
});

test("a demoted voter waits in learnersNext", () => {
  const joint = changed(conf([1, 2, 3]), change([step("add-learner", 3), step("add-voter", 4)], { autoLeave: false }));
  expect(joint).toEqual({
    voters: [id(1), id(2), id(4)],
    votersOutgoing: [id(1), id(2), id(3)],
    learners: [],
    learnersNext: [id(3)],
    autoLeave: false,
  });
  expect(changed(joint, change([]))).toEqual(conf([1, 2, 4], [3]));
});

test("leaving twice changes nothing (BM2)", () => {
  const config = conf([1, 2]);
  expect(changeConf(config, change([]))).toBe(config);
});

test("what cannot be", () => {
  const joint = changed(conf([1, 2]), change([step("add-voter", 3)], { joint: true }));
  const table: [ConfState, ConfChange, string][] = [
    [joint, change([step("add-voter", 4)]), "configuration is joint"],
    [joint, change([step("add-voter", 4), step("remove", 1)]), "configuration is already joint"],
    [EMPTY_CONF, change([step("add-voter", 4)], { joint: true }), "configuration has no voters"],
    [conf([1]), change([step("remove", 1)]), "no voters would be left"],
    [conf([1]), change([step("add-learner", 1)]), "no voters would be left"],
    [conf([1, 2]), change([step("remove", 1), step("remove", 2)]), "no voters would be left"],
    [conf([1]), change([step("add-voter", 0)]), "member id is zero"],
  ];
  for (const [before, wanted, problem] of table) {
    expect(changeConf(before, wanted)).toBe(problem);
    expect(confChangeProblem(before, wanted)).toBe(problem);
  }
  expect(confChangeProblem(conf([1]), change([step("add-voter", 2)]))).toBeUndefined();
});

test("an empty configuration takes its first voter by a simple change (bootstrap)", () => {
  expect(changed(EMPTY_CONF, change([step("add-voter", 7)]))).toEqual(conf([7]));
});

test("configurations that no change could have made are not well-formed", () => {
  const bad: ConfState[] = [
    conf([]),
    conf([2, 1]),
    conf([1, 1]),
    conf([0]),
    conf([1], [1]),
    { ...conf([1]), learnersNext: [id(2)] },
    { ...conf([1]), autoLeave: true },
    { ...conf([1]), votersOutgoing: [id(2)], learners: [id(2)] },
    { ...conf([1]), votersOutgoing: [id(1)], learnersNext: [id(1)] },
    { ...conf([1]), votersOutgoing: undefined as unknown as MemberId[] },
    { ...conf([1]), voters: [1 as unknown as MemberId] },
  ];
  for (const config of bad) expect(isWellFormedConf(config, false)).toBe(false);
  expect(isWellFormedConf(EMPTY_CONF, true)).toBe(true);
  expect(isWellFormedConf(conf([1, 2], [3]), false)).toBe(true);
});
