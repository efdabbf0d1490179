/**
 * The face the driver programs against. `raw-node.ts` implements it; when both agree this file is folded into it.
 */
import type { LogIndex, MemberId, Term } from "../base/ids.ts";
import type { ConfChange, ConfState, Entry, HardState, Snapshot } from "./entry.ts";
import type { Message } from "./message.ts";

export type Role = "follower" | "pre-candidate" | "candidate" | "leader";
/** `ignored`: the message was well-formed but without effect (stale term, unknown sender, wrong addressee). */
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

/** Opaque. Carries the term it was made in: an old one is ignored by `appended`. */
export interface AppendTicket {
  readonly term: Term;
  readonly sequence: number;
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
}

export interface Ready {
  /** Present when leader or role changed. */
  readonly softState?: SoftState;
  /** May leave at once. */
  readonly messages: readonly Message[];
  /** Make durable in ticket order, and only then send `thenSend` and call `appended(ticket)`. */
  readonly append?: {
    readonly ticket: AppendTicket;
    /** Present when it changed. */
    readonly hardState?: HardState;
    /** May overwrite a suffix of what was appended before: the first entry's index tells where. */
    readonly entries: readonly Entry[];
    /** Install this first (it replaces the whole log). */
    readonly snapshot?: Snapshot;
    /** False when only the commit index changed: may be written without a sync. */
    readonly mustSync: boolean;
    readonly thenSend: readonly Message[];
  };
  /** Committed and durable on this node, in order, to be applied; each entry is handed out once. */
  readonly committed: readonly Entry[];
  readonly readStates: readonly ReadState[];
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
  /** Only on the leader. */
  readonly progress: readonly PeerStatus[];
}

export interface RawNodeFace {
  /**
   * `ticks` logical ticks have passed (default 1). The driver derives them from a monotonic clock, so a stalled event loop hands in several
   * at once; a leader counts them all (check-quorum, lease), a follower must not campaign on a backlog: it counts at most one.
   */
  tick(ticks?: number): void;
  step(message: Message): StepOutcome;
  /** `context` is kept on the local Entry (memory only). On a follower the proposal is forwarded and `context` is lost. */
  propose(data: Uint8Array, context?: unknown): ProposeOutcome;
  proposeConfChange(change: ConfChange): ProposeConfChangeOutcome;
  /** To be called for each committed conf-change entry; `undefined` when the state machine refused it (then nothing changes but the pending mark). */
  applyConfChange(change: ConfChange | undefined): ConfState;
  /** The answer comes as a ReadState with the same context, or never (leader lost): the caller retries with a new context. */
  readIndex(context: bigint): void;
  transferLeader(to: MemberId): void;
  /** Starts an election now, if this node may. */
  campaign(): void;
  /** The last message to that peer may be lost: leave "replicate" for "probe". */
  reportUnreachable(peer: MemberId): void;
  reportSnapshot(peer: MemberId, outcome: "received" | "failed"): void;
  /** True when `ready()` would hand out work. Cheap. */
  hasReady(): boolean;
  /** Hands out each piece of work exactly once. */
  ready(): Ready | undefined;
  appended(ticket: AppendTicket): void;
  applied(index: LogIndex): void;
  status(): RaftStatus;
  confState(): ConfState;
}
