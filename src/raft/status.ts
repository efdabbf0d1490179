import type { LogIndex, MemberId, Term } from "../base/ids.ts";

export type Role = "follower" | "pre-candidate" | "candidate" | "leader";
/** `ignored`: the message was without effect (stale term, unknown sender, wrong addressee, malformed). */
export type StepOutcome = "ok" | "ignored";
export type ProposeOutcome = "accepted" | "no-leader" | "transferring" | "over-limit" | "not-member";
/** `pending`: an earlier change is not applied yet, or no own-term entry is committed. `not-leader`: only the leader checks these; followers forward. */
export type ProposeConfChangeOutcome = ProposeOutcome | "pending";

export interface SoftState {
  readonly leader: MemberId;
  readonly role: Role;
}

/** Answer to `readIndex(context)`: everything at or below `index` was committed when the request was made. */
export interface ReadState {
  readonly context: bigint;
  readonly index: LogIndex;
}

export interface PeerStatus {
  readonly id: MemberId;
  readonly match: LogIndex;
  readonly next: LogIndex;
  readonly state: "probe" | "replicate" | "snapshot";
  readonly learner: boolean;
  readonly recentActive: boolean;
}

export interface RaftStatus {
  readonly id: MemberId;
  readonly term: Term;
  readonly vote: MemberId;
  readonly commit: LogIndex;
  readonly applied: LogIndex;
  readonly leader: MemberId;
  readonly role: Role;
  readonly transferee: MemberId;
  /** It has lost its log, is being healed, and does not vote. */
  readonly quarantined: boolean;
  /** Only on the leader, ascending by id, this member included. */
  readonly progress: readonly PeerStatus[];
}
