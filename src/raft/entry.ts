import type { LogIndex, MemberId, Term } from "../base/ids.ts";

/** One slot of the replicated log. */
export interface Entry {
  readonly term: Term;
  readonly index: LogIndex;
  readonly type: EntryType;
  /** Opaque to raft, except for `conf-change` entries, whose data is `encodeConfChange(...)`. Empty for the no-op at term start. */
  readonly data: Uint8Array;
  /**
   * Memory only, never replicated or stored: what the proposer passed to `propose`. Lets the member that proposed an entry skip
   * decoding it when it commits. Undefined on every other member and after a restart.
   */
  readonly context?: unknown;
}

/** `normal` covers the no-op too. */
export type EntryType = "normal" | "conf-change";

/** Durable raft state besides the log. */
export interface HardState {
  readonly term: Term;
  /** `NO_MEMBER` when no vote was given in this term. */
  readonly vote: MemberId;
  readonly commit: LogIndex;
}

/** The membership raft acts on, as of some applied index. All lists ascending by id. */
export interface ConfState {
  readonly voters: readonly MemberId[];
  /** Outgoing voters while joint; empty otherwise. */
  readonly votersOutgoing: readonly MemberId[];
  readonly learners: readonly MemberId[];
  /** Demoted voters that become learners when the joint configuration is left. */
  readonly learnersNext: readonly MemberId[];
  /** Leave the joint configuration automatically once it is applied. */
  readonly autoLeave: boolean;
}

export interface SnapshotMetadata {
  readonly index: LogIndex;
  readonly term: Term;
  readonly confState: ConfState;
}

/** A snapshot as raft sees it. The state machine's data is streamed by the server and never passes through raft. */
export interface Snapshot {
  readonly metadata: SnapshotMetadata;
}

export type ConfChangeKind = "add-voter" | "add-learner" | "remove" | "update";

export interface ConfChangeStep {
  readonly kind: ConfChangeKind;
  readonly memberId: MemberId;
}

/** One step is a simple change; several steps go through a joint configuration; none leaves a joint configuration. */
export interface ConfChange {
  readonly steps: readonly ConfChangeStep[];
  /** Force the joint protocol even for one step; default false. */
  readonly joint?: boolean;
  /** With a joint change: leave by itself (default true) or wait for an explicit empty change. */
  readonly autoLeave?: boolean;
  /** Opaque payload for the state machine (the membership record), carried along. */
  readonly context: Uint8Array;
}
