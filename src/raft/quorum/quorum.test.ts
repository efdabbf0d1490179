import { expect, test } from "vitest";
import type { LogIndex, MemberId } from "../../base/ids.ts";
import { type Random, seededRandom } from "../../base/random.ts";
import { committedByJoint, voteByJoint } from "./joint.ts";
import { committedByMajority, majorityOf, UNBOUNDED, type VoteResult, voteByMajority } from "./majority.ts";

const id = (n: number): MemberId => BigInt(n) as MemberId;

/** Tries every index that somebody acknowledged, and counts. */
function naiveCommitted(voters: readonly MemberId[], acked: ReadonlyMap<MemberId, LogIndex>): LogIndex {
  if (voters.length === 0) return UNBOUNDED;
  let best = 0;
  for (const candidate of acked.values()) {
    const holders = voters.filter((voter) => (acked.get(voter) ?? 0) >= candidate).length;
    if (2 * holders > voters.length && candidate > best) best = candidate;
  }
  return best;
}

/** Lets everybody who is missing answer in every possible way. */
function naiveVote(voters: readonly MemberId[], votes: ReadonlyMap<MemberId, boolean>): VoteResult {
  const missing = voters.filter((voter) => !votes.has(voter));
  let won = 0;
  let lost = 0;
  for (let bits = 0; bits < 2 ** missing.length; bits++) {
    const granted = voters.filter((voter) => votes.get(voter) ?? ((bits >> missing.indexOf(voter)) & 1) === 1).length;
    if (voters.length === 0 || 2 * granted > voters.length) won += 1;
    else lost += 1;
  }
  if (lost === 0) return "won";
  return won === 0 ? "lost" : "pending";
}

function someVoters(random: Random): MemberId[] {
  const voters: MemberId[] = [];
  for (let n = 1; n <= 7; n++) if (random.chance({ of: 1, outOf: 2 })) voters.push(id(n));
  return voters;
}

test("a majority is more than half", () => {
  expect([1, 2, 3, 4, 5, 6, 7].map(majorityOf)).toEqual([1, 2, 2, 3, 3, 4, 4]);
});

test("committed index and votes agree with a naive twin, single and joint", () => {
  const random = seededRandom(1);
  for (let round = 0; round < 3000; round++) {
    const incoming = someVoters(random);
    const outgoing = random.chance({ of: 1, outOf: 2 }) ? someVoters(random) : [];
    const acked = new Map<MemberId, LogIndex>();
    const votes = new Map<MemberId, boolean>();
    for (let n = 1; n <= 7; n++) {
      if (random.chance({ of: 3, outOf: 4 })) acked.set(id(n), random.below(10));
      if (random.chance({ of: 1, outOf: 2 })) votes.set(id(n), random.chance({ of: 1, outOf: 2 }));
    }
    const ackedOf = (voter: MemberId): LogIndex => acked.get(voter) ?? 0;
    const voteOf = (voter: MemberId): boolean | undefined => votes.get(voter);

    expect(committedByMajority(incoming, ackedOf)).toBe(naiveCommitted(incoming, acked));
    expect(voteByMajority(incoming, voteOf)).toBe(naiveVote(incoming, votes));

    const joint = { incoming, outgoing };
    expect(committedByJoint(joint, ackedOf)).toBe(Math.min(naiveCommitted(incoming, acked), naiveCommitted(outgoing, acked)));
    const both = [naiveVote(incoming, votes), naiveVote(outgoing, votes)];
    const expected = both.includes("lost") ? "lost" : both.includes("pending") ? "pending" : "won";
    expect(voteByJoint(joint, voteOf)).toBe(expected);
  }
});

test("an empty group decides nothing and holds nothing back", () => {
  expect(committedByMajority([], () => 5)).toBe(UNBOUNDED);
  expect(voteByMajority([], () => false)).toBe("won");
});
