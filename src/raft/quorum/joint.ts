import type { LogIndex, MemberId } from "../../base/ids.ts";
import { committedByMajority, type VoteResult, voteByMajority } from "./majority.ts";

/** Decisions of a joint configuration need both majorities (Raft thesis, 4.3). `outgoing` is empty outside a joint configuration. */
export interface JointVoters {
  readonly incoming: readonly MemberId[];
  readonly outgoing: readonly MemberId[];
}

/** The highest index acknowledged by both majorities. */
export function committedByJoint(voters: JointVoters, ackedOf: (id: MemberId) => LogIndex): LogIndex {
  const incoming = committedByMajority(voters.incoming, ackedOf);
  if (voters.outgoing.length === 0) return incoming;
  return Math.min(incoming, committedByMajority(voters.outgoing, ackedOf));
}

/** Won when both are won, lost when either is lost. */
export function voteByJoint(voters: JointVoters, voteOf: (id: MemberId) => boolean | undefined): VoteResult {
  const incoming = voteByMajority(voters.incoming, voteOf);
  if (voters.outgoing.length === 0) return incoming;
  const outgoing = voteByMajority(voters.outgoing, voteOf);
  if (incoming === outgoing) return incoming;
  return incoming === "lost" || outgoing === "lost" ? "lost" : "pending";
}
