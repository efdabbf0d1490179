import { assert, verify } from "../base/assert.ts";
import { type LogIndex, type MemberId, NO_MEMBER, type Term } from "../base/ids.ts";
import type { Random } from "../base/random.ts";
import type { RaftConfig } from "./config.ts";
import type { ConfChange, ConfState, Entry, HardState, Snapshot } from "./entry.ts";
import type { Message } from "./message.ts";
import { Raft, type ResetOutcome } from "./raft.ts";
import type { ProposeConfChangeOutcome, ProposeOutcome, RaftStatus, ReadState, Role, SoftState, StepOutcome } from "./status.ts";
import type { RaftStorage } from "./storage.ts";

/** Opaque. Names one append; see {@link RawNodeFace.appended}. */
export interface AppendTicket {
  /** The term it was handed out in. */
  readonly term: Term;
  readonly sequence: number;
  /** End of the log as of this append. */
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
}

/** One portion of work, to be done in the order of the fields unless they say otherwise. */
export interface Ready {
  /** Present when leader or role changed. */
  readonly softState?: SoftState | undefined;
  /** May leave at once, also before `append` is durable. */
  readonly messages: readonly Message[];
  /** Make durable in ticket order; only then fill the storage, call `appended(ticket)` and send `thenSend`. */
  readonly append?: AppendWork | undefined;
  /** Committed and durable on this node, in order, to be applied; each entry is handed out once. */
  readonly committed: readonly Entry[];
  readonly readStates: readonly ReadState[];
}

export interface AppendWork {
  readonly ticket: AppendTicket;
  /** Present when it changed. */
  readonly hardState?: HardState | undefined;
  /** May overwrite a suffix of what was appended before: the first entry's index tells where. */
  readonly entries: readonly Entry[];
  /** Install this first (it replaces the whole log); with `appended` it counts as applied. */
  readonly snapshot?: Snapshot | undefined;
  /** False when only the commit index changed, or nothing (the messages wait for earlier appends): may be written without a sync. */
  readonly mustSync: boolean;
  readonly thenSend: readonly Message[];
}

export interface RawNodeFace {
  /**
   * `ticks` logical ticks have passed (default 1). The driver derives them from a monotonic clock, so a stalled event loop hands in several
   * at once; a leader counts them all (check-quorum, lease), a follower must not campaign on a backlog: it counts at most one.
   */
  tick(ticks?: number): void;
  /** Throws InvariantError only when the message proves that this member or the leader has lost committed entries. */
  step(message: Message): StepOutcome;
  /** `context` is kept on the local Entry (memory only). On a follower the proposal is forwarded and `context` is lost. */
  propose(data: Uint8Array, context?: unknown): ProposeOutcome;
  /** `pending` also when the change does not fit: a leave outside a joint configuration, another change inside one. */
  proposeConfChange(change: ConfChange): ProposeConfChangeOutcome;
  /** To be called for each committed conf-change entry; `undefined` when the state machine refused it (then nothing changes but the pending mark). */
  applyConfChange(change: ConfChange | undefined): ConfState;
  /** The answer comes as a ReadState with the same context, or never (leader lost): the caller retries with a new context. */
  readIndex(context: bigint): void;
  /** Ignored when `to` is this leader, a learner or unknown. `status().transferee` tells whether one is under way. */
  transferLeader(to: MemberId): void;
  /** Starts an election now, if this node may. */
  campaign(): void;
  /** The last message to that peer may be lost: leave "replicate" for "probe". */
  reportUnreachable(peer: MemberId): void;
  /** Must follow every snapshot message that was sent or dropped: until then nothing else goes to that peer. */
  reportSnapshot(peer: MemberId, outcome: "received" | "failed"): void;
  /**
   * Leader: member `id` says that it lost its log and begins anew. `fence` is proposed as an ordinary entry. The answer is for that member
   * (see `admit`); it must come to it as the answer to a question that it asked in its present life.
   */
  resetProgress(id: MemberId, fence: Uint8Array): ResetOutcome;
  /** In quarantine (`RaftConfig.quarantined`): what `resetProgress` of that leader answered. False when it is out of date. May be called again. */
  admit(leader: MemberId, term: Term, fence: LogIndex): boolean;
  /** False when `step` would ignore the message because of a quarantine. For messages that cost something before they are stepped. */
  hears(message: Message): boolean;
  /** The quarantine may end: make that durable, then call `endQuarantine`. */
  readonly healed: boolean;
  endQuarantine(): void;
  /** True when `ready()` would hand out work. Cheap. */
  hasReady(): boolean;
  /** Hands out each piece of work exactly once. */
  ready(): Ready | undefined;
  /**
   * That append, and every earlier one, is durable, and storage holds it. It may come much later, while newer ones have been handed out;
   * whatever newer ones have replaced is not counted. Calling it again changes nothing.
   */
  appended(ticket: AppendTicket): void;
  /** Entries up to here are in the state machine, and `applyConfChange` was called for the conf-change entries among them. */
  applied(index: LogIndex): void;
  status(): RaftStatus;
  confState(): ConfState;
}

const NO_MESSAGES: readonly Message[] = Object.freeze([]);
const NO_READ_STATES: readonly ReadState[] = Object.freeze([]);

/**
 * One member's raft core without any I/O. The driver calls the inputs, then takes work with `ready()` until there is none, does it, and
 * reports back with `appended` and `applied`. Everything runs in the caller's thread; an InvariantError out of any call means that
 * this instance must not be used any more.
 */
export class RawNode implements RawNodeFace {
  readonly #raft: Raft;
  readonly #committedBytesMax: number;
  /** What was handed out last. */
  #term: Term;
  #vote: MemberId;
  #commit: LogIndex;
  #leader: MemberId = NO_MEMBER;
  #role: Role = "follower";
  readonly #checkAll = (): void => this.#raft.check();

  constructor(config: RaftConfig, storage: RaftStorage, random: Random) {
    const { hardState } = storage.initialState();
    this.#raft = new Raft(config, storage, random);
    this.#committedBytesMax = config.committedBytesMax;
    this.#term = hardState.term;
    this.#vote = hardState.vote;
    this.#commit = hardState.commit;
  }

  tick(ticks = 1): void {
    this.#raft.tick(ticks);
    this.#check();
  }

  step(message: Message): StepOutcome {
    const outcome = this.#raft.step(message);
    this.#check();
    return outcome;
  }

  propose(data: Uint8Array, context?: unknown): ProposeOutcome {
    return this.#raft.propose(data, context);
  }

  proposeConfChange(change: ConfChange): ProposeConfChangeOutcome {
    return this.#raft.proposeConfChange(change);
  }

  applyConfChange(change: ConfChange | undefined): ConfState {
    const confState = this.#raft.applyConfChange(change);
    this.#check();
    return confState;
  }

  readIndex(context: bigint): void {
    this.#raft.readIndex(context);
  }

  transferLeader(to: MemberId): void {
    this.#raft.transferLeader(to);
  }

  campaign(): void {
    this.#raft.campaign();
    this.#check();
  }

  reportUnreachable(peer: MemberId): void {
    this.#raft.reportUnreachable(peer);
  }

  reportSnapshot(peer: MemberId, outcome: "received" | "failed"): void {
    this.#raft.reportSnapshot(peer, outcome);
  }

  resetProgress(id: MemberId, fence: Uint8Array): ResetOutcome {
    const outcome = this.#raft.resetProgress(id, fence);
    this.#check();
    return outcome;
  }

  admit(leader: MemberId, term: Term, fence: LogIndex): boolean {
    const admitted = this.#raft.admit(leader, term, fence);
    this.#check();
    return admitted;
  }

  hears(message: Message): boolean {
    return this.#raft.hears(message);
  }

  get healed(): boolean {
    return this.#raft.healed;
  }

  endQuarantine(): void {
    this.#raft.endQuarantine();
  }

  hasReady(): boolean {
    const raft = this.#raft;
    raft.flush();
    return (
      raft.messages.length > 0 ||
      raft.promises.length > 0 ||
      raft.readStates.length > 0 ||
      raft.log.unstable.hasWork ||
      raft.log.hasCommitted(this.#committedBytesMax) ||
      raft.log.committed !== this.#commit ||
      raft.term !== this.#term ||
      raft.vote !== this.#vote ||
      raft.leader !== this.#leader ||
      raft.role !== this.#role
    );
  }

  ready(): Ready | undefined {
    if (!this.hasReady()) return undefined;
    const raft = this.#raft;
    let softState: SoftState | undefined;
    if (raft.leader !== this.#leader || raft.role !== this.#role) {
      this.#leader = raft.leader;
      this.#role = raft.role;
      softState = { leader: raft.leader, role: raft.role };
    }
    const readStates = raft.readStates.length === 0 ? NO_READ_STATES : raft.readStates;
    if (readStates.length > 0) raft.readStates = [];
    const append = this.#takeAppend();
    // After the append: promises that turned out to be kept already have become plain messages.
    const messages = raft.messages.length === 0 ? NO_MESSAGES : raft.messages;
    if (messages.length > 0) raft.messages = [];
    const committed = raft.log.handOutCommitted(this.#committedBytesMax);
    if (committed.length > 0) raft.handedOut(committed);
    this.#check();
    return { softState, messages, append, committed, readStates };
  }

  appended(ticket: AppendTicket): void {
    this.#raft.appended(ticket.sequence, ticket.lastIndex);
    this.#check();
  }

  applied(index: LogIndex): void {
    this.#raft.applied(index);
    this.#check();
  }

  status(): RaftStatus {
    return this.#raft.status();
  }

  confState(): ConfState {
    return this.#raft.tracker.config;
  }

  #takeAppend(): AppendWork | undefined {
    const raft = this.#raft;
    const { unstable } = raft.log;
    const voteChanged = raft.term !== this.#term || raft.vote !== this.#vote;
    const hardStateChanged = voteChanged || raft.log.committed !== this.#commit;
    const hasWork = unstable.hasWork;
    if (raft.promises.length > 0 && !voteChanged && !hasWork && unstable.appendsUnderWay === 0) {
      // What they waited for has become durable before they were collected.
      raft.messages = raft.messages.concat(raft.promises);
      raft.promises = [];
    }
    // Promises alone wait behind the appends under way: an append of nothing, in ticket order.
    if (!hardStateChanged && !hasWork && raft.promises.length === 0) return undefined;
    const { term, vote } = raft;
    const commit = raft.log.committed;
    assert(term >= this.#term && commit >= this.#commit, "hard state does not go back (I1, I2)");
    const { record, entries, snapshot } = unstable.handOut(term, vote);
    let hardState: HardState | undefined;
    if (hardStateChanged) {
      hardState = { term, vote, commit };
      this.#term = term;
      this.#vote = vote;
      this.#commit = commit;
    }
    const thenSend = raft.promises.length === 0 ? NO_MESSAGES : raft.promises;
    if (thenSend.length > 0) raft.promises = [];
    return {
      ticket: { term, sequence: record.sequence, lastIndex: raft.log.last, lastTerm: raft.log.lastTerm },
      hardState,
      entries,
      snapshot: snapshot === undefined ? undefined : { metadata: snapshot },
      mustSync: voteChanged || hasWork,
      thenSend,
    };
  }

  #check(): void {
    this.#raft.assertOrder();
    verify(this.#checkAll);
  }
}
