import type { LogIndex, MemberId, Term } from "../base/ids.ts";
import type { Entry, Snapshot } from "./entry.ts";

/** Header fields first and in the same order everywhere, so that all messages share one hidden class prefix. */
interface Header<Type extends string> {
  readonly type: Type;
  readonly from: MemberId;
  readonly to: MemberId;
  readonly term: Term;
}

/** Asks for a vote (or, with `pre`, whether a vote would be given; `term` is then the term the sender would start). */
export interface VoteRequest extends Header<"vote-request"> {
  readonly pre: boolean;
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
  /** The sender's commit index and that entry's term: whoever has the same entry may take it for committed (catalogue BR28). */
  readonly commit: LogIndex;
  readonly commitTerm: Term;
  /** Set after a leadership transfer: the receiver votes although it still hears a leader. */
  readonly transfer: boolean;
}

export interface VoteResponse extends Header<"vote-response"> {
  readonly pre: boolean;
  readonly granted: boolean;
  /** As in the request. */
  readonly commit: LogIndex;
  readonly commitTerm: Term;
}

/** Replicates `entries` behind (prevIndex, prevTerm) and tells the commit index. */
export interface AppendRequest extends Header<"append-request"> {
  readonly prevIndex: LogIndex;
  readonly prevTerm: Term;
  readonly commit: LogIndex;
  readonly entries: readonly Entry[];
}

export interface AppendResponse extends Header<"append-response"> {
  readonly rejected: boolean;
  /** Accepted: last index covered by the request (never more, catalogue I9). Rejected: the request's prevIndex. */
  readonly index: LogIndex;
  /** Rejected: where the sender may find agreement (index and term of the follower's best guess). */
  readonly hintIndex: LogIndex;
  readonly hintTerm: Term;
}

export interface Heartbeat extends Header<"heartbeat"> {
  readonly commit: LogIndex;
  /**
   * Number of this broadcast, from 1 on: unique and increasing within (leader, term), never reused (catalogue BR15). Reads that
   * joined this round or an earlier one are confirmed by a quorum of answers to it.
   */
  readonly round: number;
}

export interface HeartbeatResponse extends Header<"heartbeat-response"> {
  /** The round of the heartbeat it answers; 0 tells a leader of an old term that it is one. */
  readonly round: number;
}

/** The follower is too far behind for the log. The server streams the state beside this message. */
export interface SnapshotRequest extends Header<"snapshot"> {
  readonly snapshot: Snapshot;
}

/** Proposals forwarded by a follower. */
export interface Propose extends Header<"propose"> {
  readonly entries: readonly { readonly type: Entry["type"]; readonly data: Uint8Array }[];
}

/** Asks the leader for a read index on behalf of a follower. `context` is opaque to the leader. */
export interface ReadIndexRequest extends Header<"read-index-request"> {
  readonly context: bigint;
}

export interface ReadIndexResponse extends Header<"read-index-response"> {
  readonly context: bigint;
  readonly index: LogIndex;
}

/** Asks the leader to hand over to `transferee` (forwarded from a follower). */
export interface TransferLeader extends Header<"transfer-leader"> {
  readonly transferee: MemberId;
}

/** From the leader: campaign now. */
export interface TimeoutNow extends Header<"timeout-now"> {}

export type Message =
  | VoteRequest
  | VoteResponse
  | AppendRequest
  | AppendResponse
  | Heartbeat
  | HeartbeatResponse
  | SnapshotRequest
  | Propose
  | ReadIndexRequest
  | ReadIndexResponse
  | TransferLeader
  | TimeoutNow;
