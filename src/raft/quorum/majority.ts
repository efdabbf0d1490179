import type { LogIndex, MemberId } from "../../base/ids.ts";

/** Answer of an empty group: it never holds anything back, so that the other half of a joint configuration decides alone. */
export const UNBOUNDED: LogIndex = Number.MAX_SAFE_INTEGER;

export type VoteResult = "won" | "lost" | "pending";

/** Votes (or acknowledgements) needed in a group of `size`. */
export function majorityOf(size: number): number {
  return Math.floor(size / 2) + 1;
}

/**
 * The highest index which a majority of `voters` has acknowledged; {@link UNBOUNDED} when there are no voters.
 * `ackedOf` gives 0 for a voter that has acknowledged nothing.
 */
export function committedByMajority(voters: readonly MemberId[], ackedOf: (id: MemberId) => LogIndex): LogIndex {
  const size = voters.length;
  if (size === 0) return UNBOUNDED;
  // Insertion sort: groups have 1 to 7 members, and this runs once per acknowledgement.
  const ascending: LogIndex[] = [];
  for (const voter of voters) {
    const acked = ackedOf(voter);
    let at = ascending.length;
    ascending.push(acked);
    while (at > 0) {
      const before = ascending[at - 1] as LogIndex;
      if (before <= acked) break;
      ascending[at] = before;
      at -= 1;
    }
    ascending[at] = acked;
  }
  return ascending[size - majorityOf(size)] as LogIndex;
}

/** Outcome among `voters`; `voteOf` gives undefined for who has not answered. An empty group is won. */
export function voteByMajority(voters: readonly MemberId[], voteOf: (id: MemberId) => boolean | undefined): VoteResult {
  if (voters.length === 0) return "won";
  const needed = majorityOf(voters.length);
  let granted = 0;
  let missing = 0;
  for (const voter of voters) {
    const vote = voteOf(voter);
    if (vote === undefined) missing += 1;
    else if (vote) granted += 1;
  }
  if (granted >= needed) return "won";
  return granted + missing >= needed ? "pending" : "lost";
}
