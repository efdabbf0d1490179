/**
 * The Raft algorithm: elections with pre-vote and check-quorum, replication, commitment, membership, reads and leadership transfer.
 * Sources: "In Search of an Understandable Consensus Algorithm" (the paper), "Consensus: Bridging Theory and Practice" (the thesis)
 * and etcd/raft for the parts that both leave open. References like BR7 or I3 are rows of the project's failure catalogue.
 *
 * Everything here is synchronous and deterministic: inputs are ticks, messages, proposals and two acknowledgements (entries durable,
 * entries applied), outputs pile up in `messages`, `promises`, `readStates` and the log until the face (`raw-node.ts`) collects them.
 *
 * Two classes of outgoing messages:
 * - `messages` may leave at once;
 * - `promises` may leave only when everything handed out for the log so far is durable: votes, acknowledgements of entries that are
 *   not durable yet, and every message of a term or vote that is not durable yet (I1, BR2).
 *
 * Appends and read rounds are not sent when their cause arises but in `flush`, right before the face collects: any number of
 * proposals and acknowledgements between two collections share the messages.
 */
import { assert } from "../base/assert.ts";
import { type LogIndex, type MemberId, NO_MEMBER, type Term } from "../base/ids.ts";
import type { Random } from "../base/random.ts";
import { changeConf, isProblem, isWellFormedConf } from "./confchange/change.ts";
import { decodeConfChange, encodeConfChange } from "./confchange/codec.ts";
import type { RaftConfig } from "./config.ts";
import type { ConfChange, ConfState, Entry, EntryType } from "./entry.ts";
import { conflictWithCommitted, RaftLog } from "./log.ts";
import { payloadBytes } from "./memory-storage.ts";
import type {
  AppendRequest,
  AppendResponse,
  HeartbeatResponse,
  Message,
  Propose,
  SnapshotRequest,
  VoteRequest,
  VoteResponse,
} from "./message.ts";
import { isWellFormed } from "./message-check.ts";
import type { RaftMutant } from "./mutants.ts";
import { ReadOnly, type ReadRequest } from "./read-only.ts";
import type { ProposeConfChangeOutcome, ProposeOutcome, RaftStatus, ReadState, Role, StepOutcome } from "./status.ts";
import type { RaftStorage } from "./storage.ts";
import type { DropReason, IgnoreReason, TraceSink } from "./trace.ts";
import type { Progress } from "./tracker/progress.ts";
import { Tracker } from "./tracker/tracker.ts";

/** Read requests on a leader that are not answered yet; more are dropped, and their callers ask again. */
export const READS_PENDING_MAX = 4096;
/** Page size when looking through committed entries for configuration changes. */
const SCAN_BYTES = 1024 * 1024;

/** Says at which term, and from which index on, a member that began anew is admitted; or why not now. */
export type ResetOutcome =
  | { readonly term: Term; readonly fence: LogIndex }
  /** This member does not lead (any more). */
  | "not-leader"
  /** That one is in no role in the configuration. */
  | "unknown-member"
  /** The others, without all that are in the same situation, are no majority: nothing could be committed without it. */
  | "no-quorum"
  | "transferring"
  | "over-limit";

const NOT_ADMITTED = { leader: NO_MEMBER, term: 0, fence: 0 } as const;

const NO_BYTES = new Uint8Array(0);
const NO_ENTRIES: readonly Entry[] = Object.freeze([]);

interface Payload {
  readonly type: EntryType;
  readonly data: Uint8Array;
}

export class Raft {
  readonly id: MemberId;
  readonly log: RaftLog;
  readonly tracker: Tracker;
  /** Never decreases (I1). */
  term: Term;
  /** Within a term it only changes from none to a member (I1). */
  vote: MemberId;
  /** Of this term, as far as known. */
  leader: MemberId = NO_MEMBER;
  role: Role = "follower";
  /** Leader: who leadership is being transferred to. */
  transferee: MemberId = NO_MEMBER;

  /** See the head of the file. The face takes the arrays away. */
  messages: Message[] = [];
  promises: Message[] = [];
  readStates: ReadState[] = [];

  readonly #config: RaftConfig;
  readonly #storage: RaftStorage;
  readonly #random: Random;
  readonly #trace: TraceSink | undefined;
  readonly #reads = new ReadOnly(READS_PENDING_MAX);

  /**
   * The configuration as of the applied index. The tracker's, on which this member acts, is the same except while an accepted snapshot
   * is not installed yet: then it is the snapshot's.
   */
  #appliedConf: ConfState;

  /** Hard state known to be durable. */
  #durableTerm: Term;
  #durableVote: MemberId;

  /** Follower: ticks since the leader was heard or a vote was given. Leader: ticks since the last check of its quorum. */
  #electionElapsed = 0;
  #heartbeatElapsed = 0;
  /** In [electionTimeoutTicks, 2 electionTimeoutTicks - 1], drawn anew at every change of role or term. */
  #electionTimeout = 0;
  /** Ticks during which no vote is given after a restart, counted down. See `readMode`. */
  #voteHold: number;

  /** Leader: index of the first entry of its term. Reads and configuration changes wait until it is committed (I11, I12, BR14, BM1). */
  #termStart: LogIndex = 0;
  /** Leader: no configuration change may be proposed before this index is applied. */
  #pendingConfIndex: LogIndex = 0;
  /** Leader: payload of own-term entries that are not handed out for applying yet. */
  #uncommittedBytes = 0;
  /** Leader: number of the last heartbeat broadcast; the token of read requests (BR15). */
  #round = 0;
  /** Leader: ticks of the whole leadership, the clock of the lease. */
  #leaderTicks = 0;
  /** Lease mode: when the last confirmed round was sent, and when those under way were. */
  #leaseStart = -1;
  #roundsSent: { readonly round: number; readonly tick: number }[] = [];
  /** Somebody was told to campaign at once, so that followers may break the lease. */
  #leaseVoid = false;
  #transferElapsed = 0;
  /** Leader: it is not in the configuration any more and only hands over. */
  #resigning = false;
  /** Leader: `flush` should look for appends to send. */
  #appendsDue = false;

  /**
   * This member has lost what it had promised (its log, its term, its vote) and must not vote before that can do no harm any more. Until a
   * leader has told its fence (`leader` is not NO_MEMBER) it hears nobody; then that leader in that term. See docs/adr/0004-healing.md.
   */
  #quarantine: { readonly leader: MemberId; readonly term: Term; readonly fence: LogIndex } | undefined;

  /** Follower: proposals for the leader, sent as one message by `flush`. */
  #forward: Payload[] = [];
  #forwardBytes = 0;

  // Breakages for the mutant run, read once so that production pays one field load at most.
  readonly #commitOldTerm: boolean;
  readonly #resetVote: boolean;
  readonly #noNoop: boolean;
  readonly #readWithoutRound: boolean;
  readonly #reuseReadToken: boolean;
  readonly #ackFullLog: boolean;
  readonly #twoPendingConfs: boolean;
  readonly #noOwnTermCheck: boolean;
  readonly #removedCampaigns: boolean;
  readonly #applyBeforeDurable: boolean;
  readonly #voteBeforeDurable: boolean;
  readonly #ackBeforeDurable: boolean;
  readonly #voteWithoutLogCheck: boolean;
  readonly #voteTwice: boolean;
  readonly #commitBeyondCovered: boolean;
  readonly #heartbeatUnclamped: boolean;
  readonly #nextBelowMatch: boolean;
  readonly #snapshotWithoutConf: boolean;
  readonly #transferWithoutCatchUp: boolean;
  readonly #quarantinedVotes: boolean;
  readonly #resetUnmuted: boolean;
  readonly #formerAcksCount: boolean;

  constructor(config: RaftConfig, storage: RaftStorage, random: Random) {
    assertConfig(config);
    const mutant = (name: RaftMutant): boolean => config.mutants?.has(name) ?? false;
    this.#commitOldTerm = mutant("commit-old-term");
    this.#resetVote = mutant("reset-vote-on-step-down");
    this.#noNoop = mutant("no-noop");
    this.#readWithoutRound = mutant("read-without-round");
    this.#reuseReadToken = mutant("reuse-read-token");
    this.#ackFullLog = mutant("ack-full-log");
    this.#twoPendingConfs = mutant("two-pending-confs");
    this.#noOwnTermCheck = mutant("no-own-term-check-before-conf");
    this.#removedCampaigns = mutant("removed-keeps-campaigning");
    this.#applyBeforeDurable = mutant("apply-before-durable");
    this.#voteBeforeDurable = mutant("send-vote-before-durable");
    this.#ackBeforeDurable = mutant("send-ack-before-durable");
    this.#voteWithoutLogCheck = mutant("vote-without-log-check");
    this.#voteTwice = mutant("vote-twice");
    this.#commitBeyondCovered = mutant("commit-beyond-covered");
    this.#heartbeatUnclamped = mutant("heartbeat-commit-unclamped");
    this.#nextBelowMatch = mutant("next-below-match");
    this.#snapshotWithoutConf = mutant("snapshot-without-conf");
    this.#transferWithoutCatchUp = mutant("transfer-without-catch-up");
    this.#quarantinedVotes = mutant("quarantined-votes");
    this.#resetUnmuted = mutant("reset-unmuted");
    this.#formerAcksCount = mutant("former-acks-count");

    this.id = config.id;
    this.#config = config;
    this.#storage = storage;
    this.#random = random;
    this.#trace = config.trace;
    const { hardState, confState } = storage.initialState();
    assert(isWellFormedConf(confState, true), "the stored configuration is well-formed");
    this.log = new RaftLog(storage, hardState.commit, config.applied, {
      keepConflicts: mutant("no-conflict-truncation"),
      truncateAlways: mutant("truncate-always"),
      acceptStaleAppend: mutant("accept-stale-append"),
      handOutBeforeDurable: this.#applyBeforeDurable,
    });
    assert(hardState.term >= this.log.lastTerm, "the stored term is not behind the log", {
      term: hardState.term,
      logTerm: this.log.lastTerm,
    });
    if (!mutant("commit-unlearned-from-confs")) this.log.commitTo(this.#committedByConfChanges());
    this.tracker = new Tracker(config.id, confState, this.log.last, {
      inflightMessagesMax: config.inflightMessagesMax,
      inflightBytesMax: config.inflightBytesMax,
      learnersCount: mutant("learner-counted"),
      inflightLeak: mutant("inflight-leak"),
    });
    this.#appliedConf = confState;
    this.term = hardState.term;
    this.vote = hardState.vote;
    this.#durableTerm = hardState.term;
    this.#durableVote = hardState.vote;
    if (config.quarantined === true) this.#quarantine = NOT_ADMITTED;
    this.#voteHold = config.readMode === "lease" && hardState.term > 0 ? config.electionTimeoutTicks : 0;
    this.#drawElectionTimeout();
  }

  // ---------------------------------------------------------------------------------------------------------------- inputs

  tick(ticks: number): void {
    assert(Number.isSafeInteger(ticks) && ticks >= 1, "ticks are a positive integer", { ticks });
    if (this.role === "leader") this.#tickLeader(ticks);
    else this.#tickFollower();
  }

  step(message: Message): StepOutcome {
    if (!isWellFormed(message) || message.from === NO_MEMBER) return this.#ignore(message, "malformed");
    if (message.to !== this.id || message.from === this.id) return this.#ignore(message, "wrong-addressee");
    if (this.#quarantine !== undefined && !this.#passesQuarantine(message)) return this.#ignore(message, "quarantined");
    if (message.term > this.term) {
      if (message.type === "vote-request") {
        if (this.#refusesVotes(message)) return this.#ignore(message, "lease");
        if (!message.pre) this.#becomeFollower(message.term, NO_MEMBER);
      } else if (message.type === "vote-response" && message.pre && message.granted) {
        // Carries the term that a campaign would have; nobody is in it yet.
      } else {
        this.#becomeFollower(message.term, comesFromLeader(message) ? message.from : NO_MEMBER);
      }
    } else if (message.term < this.term) {
      const outcome = this.#stepOldTerm(message);
      if (outcome !== undefined) return outcome;
    }
    switch (message.type) {
      case "vote-request":
        return this.#handleVoteRequest(message);
      case "vote-response":
        return this.#handleVoteResponse(message);
      case "append-request":
        if (!this.#followLeader(message)) return "ignored";
        return this.#handleAppendRequest(message);
      case "heartbeat": {
        if (!this.#followLeader(message)) return "ignored";
        // To a member in quarantine it may have been sent before the leader knew that it began anew; appends tell the commit index, too.
        if (this.#quarantine === undefined && this.log.commitTo(message.commit)) this.#traceCommit();
        this.#send({ type: "heartbeat-response", from: this.id, to: message.from, term: this.term, round: message.round });
        return "ok";
      }
      case "snapshot":
        if (!this.#followLeader(message)) return "ignored";
        return this.#handleSnapshot(message);
      case "propose":
        return this.#handlePropose(message);
      case "timeout-now":
        if (this.role === "leader" || !this.tracker.isVoter(this.id)) return this.#ignore(message, "no-effect");
        this.#campaignIfAllowed(true);
        return "ok";
      case "read-index-response":
        this.readStates.push({ context: message.context, index: message.index });
        return "ok";
      case "append-response":
      case "heartbeat-response":
      case "read-index-request":
      case "transfer-leader": {
        if (this.role !== "leader") return this.#ignore(message, "no-effect");
        const peer = this.tracker.progress(message.from);
        if (peer === undefined) return this.#ignore(message, "unknown-sender");
        switch (message.type) {
          case "append-response":
            return this.#handleAppendResponse(message, peer);
          case "heartbeat-response":
            return this.#handleHeartbeatResponse(message, peer);
          case "read-index-request":
            this.#addRead(message.from, message.context);
            return "ok";
          case "transfer-leader":
            this.#startTransfer(message.transferee);
            return "ok";
          default:
            return message satisfies never;
        }
      }
      default:
        return message satisfies never;
    }
  }

  propose(data: Uint8Array, context: unknown): ProposeOutcome {
    if (this.role !== "leader") return this.#forwardProposal("normal", data);
    if (this.transferee !== NO_MEMBER && !this.#transferWithoutCatchUp) return "transferring";
    if (this.#overLimit(data.byteLength)) return "over-limit";
    this.#push("normal", data, context);
    return "accepted";
  }

  proposeConfChange(change: ConfChange): ProposeConfChangeOutcome {
    const data = encodeConfChange(change);
    if (this.role !== "leader") return this.#forwardProposal("conf-change", data);
    if (this.transferee !== NO_MEMBER) return "transferring";
    if (this.#confChangeMustWait(change)) return "pending";
    if (this.#overLimit(data.byteLength)) return "over-limit";
    this.#pushConfChange(data);
    return "accepted";
  }

  applyConfChange(change: ConfChange | undefined): ConfState {
    const before = this.#appliedConf;
    if (change === undefined) return before;
    const after = changeConf(before, change);
    if (isProblem(after)) {
      this.#trace?.({ type: "conf-refused", problem: after });
      return before;
    }
    this.#appliedConf = after;
    // From before a snapshot whose configuration is acted on already: only the state machine is still there.
    if (this.log.unstable.snapshot !== undefined) return after;
    this.tracker.switchTo(after, this.log.last);
    this.#trace?.({ type: "conf-applied", confState: after });
    const voter = this.tracker.isVoter(this.id);
    if (this.role === "leader") {
      if (this.transferee !== NO_MEMBER && !this.tracker.isVoter(this.transferee)) this.#endTransfer();
      if (!voter) {
        this.#resign();
      } else {
        // A smaller quorum may have what it needs already.
        this.#maybeCommit();
        this.#confirmReads();
        this.#appendsDue = true;
      }
    } else if (this.role !== "follower") {
      if (voter) this.#countVotes();
      else this.#becomeFollower(this.term, NO_MEMBER);
    }
    return after;
  }

  readIndex(context: bigint): void {
    if (this.role === "leader") {
      this.#addRead(this.id, context);
    } else if (this.leader !== NO_MEMBER) {
      this.#send({ type: "read-index-request", from: this.id, to: this.leader, term: this.term, context });
    } else {
      this.#trace?.({ type: "reads-dropped", count: 1 });
    }
  }

  transferLeader(to: MemberId): void {
    if (this.role === "leader") this.#startTransfer(to);
    else if (this.leader !== NO_MEMBER) {
      this.#send({ type: "transfer-leader", from: this.id, to: this.leader, term: this.term, transferee: to });
    }
  }

  campaign(): void {
    if (this.role !== "leader") this.#campaignIfAllowed(false);
  }

  reportUnreachable(id: MemberId): void {
    const peer = this.role === "leader" ? this.tracker.progress(id) : undefined;
    if (peer === undefined || id === this.id || peer.state !== "replicate") return;
    peer.becomeProbe();
    this.#traceProgress(peer);
  }

  reportSnapshot(id: MemberId, outcome: "received" | "failed"): void {
    const peer = this.role === "leader" ? this.tracker.progress(id) : undefined;
    if (peer === undefined || peer.state !== "snapshot") return;
    if (outcome === "failed") peer.pendingSnapshot = 0;
    peer.becomeProbe();
    // Received: its acknowledgement says where to go on. Failed: not again before the next heartbeat interval.
    peer.paused = true;
    this.#traceProgress(peer);
  }

  /**
   * Leader: the member `id` has lost its log and has begun anew with an empty one. From now on nothing counts that it said before; and it counts in
   * no quorum until an entry that is appended now (`fence`, for the state machine) is committed by the others. Then no candidate can win any more that
   * has a vote from its former life (docs/adr/0004-healing.md). It gets a snapshot at or behind that entry.
   */
  resetProgress(id: MemberId, fence: Uint8Array): ResetOutcome {
    if (this.role !== "leader" || this.#resigning) return "not-leader";
    const peer = this.tracker.progress(id);
    if (peer === undefined || id === this.id) return "unknown-member";
    if (!this.tracker.hasQuorumWithout(id)) return "no-quorum";
    if (this.transferee !== NO_MEMBER) return "transferring";
    if (this.#overLimit(fence.byteLength)) return "over-limit";
    this.#push("normal", fence, undefined);
    const index = this.log.last;
    this.tracker.beginAnew(peer, index, !this.#resetUnmuted);
    this.#trace?.({ type: "fenced", peer: id, fence: index });
    return { term: this.term, fence: index };
  }

  /**
   * In quarantine: the leader of `term` has reset its view of this member, and appended `fence` after that. From now on it is heard. False: the answer is
   * of an older term than one this member has been in.
   */
  admit(leader: MemberId, term: Term, fence: LogIndex): boolean {
    assert(this.#quarantine !== undefined, "only a member in quarantine is admitted");
    assert(leader !== NO_MEMBER && leader !== this.id && fence > 0, "another member admits, with a fence");
    if (term < this.term) return false;
    if (term > this.term) this.#becomeFollower(term, leader);
    // It may have voted in this term in its former life. Nobody but its leader can win it; a vote for that one is no second vote.
    if (this.vote === NO_MEMBER) this.vote = leader;
    assert(this.vote === leader && (this.leader === NO_MEMBER || this.leader === leader), "one leader per term", { term });
    this.leader = leader;
    this.#electionElapsed = 0;
    this.#quarantine = { leader, term, fence };
    this.#trace?.({ type: "quarantine", phase: "admitted", leader, term, fence });
    return true;
  }

  /** In quarantine, and it may end: this member has everything that it may ever have promised, and its former votes are void. */
  get healed(): boolean {
    const quarantine = this.#quarantine;
    if (quarantine === undefined || quarantine.leader === NO_MEMBER || quarantine.term !== this.term) return false;
    const { log } = this;
    // All of it durable, so that a crash does not forget it again.
    return (
      log.applied >= quarantine.fence && log.durable >= quarantine.fence && log.unstable.snapshot === undefined && this.#hardStateDurable
    );
  }

  /** The owner has made durable that the quarantine is over. */
  endQuarantine(): void {
    const quarantine = this.#quarantine;
    assert(quarantine !== undefined && this.healed, "only a healed member leaves quarantine");
    this.#quarantine = undefined;
    this.#electionElapsed = 0;
    this.#trace?.({ type: "quarantine", phase: "ended", ...quarantine });
  }

  get quarantined(): boolean {
    return this.#quarantine !== undefined;
  }

  /** False when `step` would ignore it because of a quarantine. */
  hears(message: Message): boolean {
    return this.#quarantine === undefined || this.#passesQuarantine(message);
  }

  /** The fence's leader of its term is the only one heard; a snapshot of a lower index was begun for the former life. */
  #passesQuarantine(message: Message): boolean {
    const { leader, term, fence } = this.#quarantine ?? NOT_ADMITTED;
    if (this.#quarantinedVotes && message.type === "vote-request") return true;
    if (leader === NO_MEMBER || message.from !== leader || message.term !== term) return false;
    if (message.type === "snapshot") return message.snapshot.metadata.index >= fence;
    return message.type === "append-request" || message.type === "heartbeat";
  }

  /** Appends up to `sequence` are durable, and storage has them. */
  appended(sequence: number, ticketIndex: LogIndex): void {
    const done = this.log.completeAppend(sequence);
    if (done === undefined) return;
    if (done.stale) this.#trace?.({ type: "stale-append", ticketIndex, durable: this.log.durable });
    this.#durableTerm = done.term;
    this.#durableVote = done.vote;
    if (done.snapshot !== undefined) this.#appliedConf = done.snapshot.confState;
    if (this.role === "leader") {
      this.#ownEntriesDurable();
    } else if (this.role === "candidate" && this.#hardStateDurable) {
      // The vote for itself counts when a crash cannot forget it (BR2, BR4).
      this.tracker.recordVote(this.id, true);
      this.#countVotes();
    }
  }

  applied(index: LogIndex): void {
    if (this.log.appliedTo(index)) this.#maybeLeaveJoint();
  }

  /** Entries are being handed out for applying: what the leader proposed among them is no longer uncommitted. */
  handedOut(entries: readonly Entry[]): void {
    if (this.role !== "leader" || this.#uncommittedBytes === 0) return;
    for (const entry of entries) if (entry.index >= this.#termStart) this.#uncommittedBytes -= entry.data.byteLength;
    assert(this.#uncommittedBytes >= 0, "uncommitted bytes do not go below zero");
  }

  /** Turns what has piled up into messages. To be called before collecting; calling it again changes nothing. */
  flush(): void {
    if (this.#forward.length > 0) this.#sendForward();
    if (this.role === "leader") {
      if (this.#reads.hasWaiting && !this.#reads.roundUnderWay && this.#ownTermCommitted) this.#broadcastHeartbeat(false);
      if (this.#appendsDue) {
        this.#appendsDue = false;
        this.#broadcastAppends();
      }
    }
  }

  // ---------------------------------------------------------------------------------------------------------------- state

  status(): RaftStatus {
    const leading = this.role === "leader";
    return {
      id: this.id,
      term: this.term,
      vote: this.vote,
      commit: this.log.committed,
      applied: this.log.applied,
      leader: this.leader,
      role: this.role,
      transferee: this.transferee,
      quarantined: this.#quarantine !== undefined,
      progress: leading
        ? this.tracker.peers.map(({ id, match, next, state, learner, recentActive }) => ({ id, match, next, state, learner, recentActive }))
        : [],
    };
  }

  /** Cheap, after every input. */
  assertOrder(): void {
    this.log.assertOrder();
    assert(this.role !== "leader" || this.leader === this.id, "a leader knows that it leads");
  }

  /** Recomputes what is kept incrementally. Costly. */
  check(): void {
    this.log.check();
    assert(
      this.log.unstable.snapshot !== undefined || this.#snapshotWithoutConf || this.#appliedConf === this.tracker.config,
      "the configuration acted on is the applied one",
    );
    this.tracker.check(this.log.last);
    assert(
      this.#twoPendingConfs || this.#noOwnTermCheck || this.#committedByConfChanges() === 0,
      "at most one uncommitted configuration change (I11)",
    );
    if (this.role !== "leader") return;
    const own = this.tracker.progress(this.id);
    assert(this.#applyBeforeDurable || (own?.match ?? 0) <= this.log.durable, "the leader counts only its durable entries (I4)");
    let uncommitted = 0;
    const from = Math.max(this.#termStart, this.log.handedOut + 1);
    if (from <= this.log.last) uncommitted = payloadBytes(this.log.slice(from, this.log.last + 1, Number.MAX_SAFE_INTEGER) ?? NO_ENTRIES);
    assert(uncommitted === this.#uncommittedBytes, "uncommitted bytes equal the recomputed sum", {
      counted: this.#uncommittedBytes,
      recomputed: uncommitted,
    });
  }

  /** Term and vote are durable: a crash cannot take back what messages of this term say. */
  get #hardStateDurable(): boolean {
    return (this.term === this.#durableTerm && this.vote === this.#durableVote) || this.#voteBeforeDurable;
  }

  get #ownTermCommitted(): boolean {
    return this.log.committed >= this.#termStart;
  }

  // ---------------------------------------------------------------------------------------------------------------- time

  #tickFollower(): void {
    // One tick, however many have passed: a stalled process must not campaign on a backlog before it has read what is waiting.
    this.#electionElapsed += 1;
    if (this.#voteHold > 0) this.#voteHold -= 1;
    if (this.#electionElapsed < this.#electionTimeout) return;
    this.#electionElapsed = 0;
    if ((this.tracker.isVoter(this.id) || this.#removedCampaigns) && this.#quarantine === undefined) {
      this.#campaignIfAllowed(false);
    } else if (this.leader !== NO_MEMBER) {
      // It will not find out by campaigning.
      this.leader = NO_MEMBER;
      this.#traceRole();
    }
  }

  #tickLeader(ticks: number): void {
    this.#leaderTicks += ticks;
    this.#electionElapsed += ticks;
    this.#heartbeatElapsed += ticks;
    if (this.transferee !== NO_MEMBER) {
      this.#transferElapsed += ticks;
      if (this.#transferElapsed >= this.#config.electionTimeoutTicks) {
        if (this.#resigning) {
          this.#becomeFollower(this.term, NO_MEMBER);
          return;
        }
        this.#endTransfer();
      }
    }
    if (this.#electionElapsed >= this.#config.electionTimeoutTicks) {
      this.#electionElapsed = 0;
      if (this.#config.checkQuorum && !this.tracker.quorumActive()) {
        this.#trace?.({ type: "quorum-lost", term: this.term });
        this.#becomeFollower(this.term, NO_MEMBER);
        return;
      }
      this.tracker.clearActive();
    }
    if (this.#heartbeatElapsed >= this.#config.heartbeatTicks) {
      this.#heartbeatElapsed = 0;
      this.#broadcastHeartbeat(true);
      // The first one may have been lost, or have come before the target had applied its promotion (BR27).
      const target = this.transferee === NO_MEMBER ? undefined : this.tracker.progress(this.transferee);
      if (target !== undefined) this.#tellToCampaign(target);
      this.#maybeLeaveJoint();
    }
  }

  #drawElectionTimeout(): void {
    const base = this.#config.electionTimeoutTicks;
    this.#electionTimeout = base + this.#random.below(base);
  }

  /** Heard from a leader less than an election timeout ago: an election now would only disturb it (thesis, 4.2.3). */
  #refusesVotes(request: VoteRequest): boolean {
    if (request.transfer) return false;
    if (this.#voteHold > 0) return true;
    // Who asks for votes of a higher term has ceased to lead, even if it is the leader we heard of (BR11).
    if (!this.#config.checkQuorum || this.leader === NO_MEMBER || this.leader === request.from) return false;
    return this.#electionElapsed < this.#config.electionTimeoutTicks;
  }

  // ---------------------------------------------------------------------------------------------------------------- roles

  #becomeFollower(term: Term, leader: MemberId): void {
    if (this.#resetVote && term === this.term) this.vote = NO_MEMBER;
    this.#reset(term);
    this.role = "follower";
    this.leader = leader;
    this.#traceRole();
  }

  #becomePreCandidate(): void {
    // The term and the vote stay: that is what pre-vote is for (thesis, 9.6).
    this.#reset(this.term);
    this.role = "pre-candidate";
    this.#traceRole();
  }

  #becomeCandidate(): void {
    this.#reset(this.term + 1);
    this.role = "candidate";
    this.vote = this.id;
    this.#traceRole();
  }

  #becomeLeader(): void {
    assert(this.role === "candidate", "only a candidate becomes leader", { role: this.role });
    this.#reset(this.term);
    this.role = "leader";
    this.leader = this.id;
    this.#termStart = this.log.last + 1;
    // Changes of earlier terms may be in the log: none is proposed before all of it is applied.
    this.#pendingConfIndex = this.#noOwnTermCheck ? 0 : this.log.last;
    this.#traceRole();
    const own = this.tracker.progress(this.id);
    assert(own !== undefined || this.#removedCampaigns, "a leader is in its configuration (I7)");
    if (own !== undefined) {
      own.acknowledged(this.log.durable);
      own.becomeReplicate();
      own.recentActive = true;
    }
    // Entries of earlier terms are committed by committing one of this term (paper, 5.4.2).
    if (!this.#noNoop) this.#push("normal", NO_BYTES, undefined);
    this.#appendsDue = true;
  }

  #reset(term: Term): void {
    if (term !== this.term) {
      assert(term > this.term, "terms do not decrease (I1)", { from: this.term, to: term });
      this.term = term;
      this.vote = NO_MEMBER;
      // What was promised to somebody of an older term, and has not left, is of no use to him any more.
      if (this.promises.length > 0) this.promises = [];
    }
    this.leader = NO_MEMBER;
    this.#electionElapsed = 0;
    this.#heartbeatElapsed = 0;
    this.#drawElectionTimeout();
    if (this.transferee !== NO_MEMBER) this.#endTransfer();
    this.tracker.resetVotes();
    this.tracker.resetProgress(this.log.last);
    const unanswered = this.#reads.clear();
    if (unanswered > 0) this.#trace?.({ type: "reads-dropped", count: unanswered });
    this.#termStart = 0;
    this.#pendingConfIndex = 0;
    this.#uncommittedBytes = 0;
    this.#leaderTicks = 0;
    this.#leaseStart = -1;
    this.#roundsSent = [];
    this.#leaseVoid = false;
    this.#resigning = false;
    this.#appendsDue = false;
  }

  /** A message that only a leader of this term sends. False: it is refused. */
  #followLeader(message: AppendRequest | Message): boolean {
    if (this.role === "leader" || (this.leader !== NO_MEMBER && this.leader !== message.from)) {
      this.#ignore(message, "second-leader");
      return false;
    }
    if (this.role !== "follower") this.#becomeFollower(this.term, message.from);
    this.#electionElapsed = 0;
    if (this.leader === NO_MEMBER) {
      this.leader = message.from;
      this.#traceRole();
    }
    return true;
  }

  // ---------------------------------------------------------------------------------------------------------------- elections

  #campaignIfAllowed(transfer: boolean): void {
    if (this.#quarantine !== undefined) {
      this.#trace?.({ type: "campaign-held", reason: "quarantined" });
    } else if (!this.tracker.isVoter(this.id) && !this.#removedCampaigns) {
      this.#trace?.({ type: "campaign-held", reason: "not-voter" });
    } else if (this.log.unstable.snapshot !== undefined) {
      this.#trace?.({ type: "campaign-held", reason: "snapshot-pending" });
    } else if (this.#hasUnappliedConfChange()) {
      // It would count votes by a configuration that is known to be superseded.
      this.#trace?.({ type: "campaign-held", reason: "unapplied-conf-change" });
    } else if (this.#config.preVote && !transfer) {
      this.#preCampaign();
    } else {
      this.#campaign(transfer);
    }
  }

  #hasUnappliedConfChange(): boolean {
    let from = this.log.applied + 1;
    while (from <= this.log.committed) {
      const entries = this.log.slice(from, this.log.committed + 1, SCAN_BYTES);
      assert(entries !== undefined, "entries that are not applied are not compacted");
      for (const entry of entries) if (entry.type === "conf-change") return true;
      from += entries.length;
    }
    return false;
  }

  /**
   * Every configuration change in the log but the last is committed: a leader proposes one only when it has applied the one before. A
   * member that has one in its log is told so together with it, but the commit index may be lost in a crash. Without it the member
   * would campaign by a configuration that is more than one step old, whose quorums need not meet the newest one's (I11, J9).
   */
  #committedByConfChanges(): LogIndex {
    let before = 0;
    let newest = 0;
    let from = this.log.committed + 1;
    while (from <= this.log.last) {
      const entries = this.log.slice(from, this.log.last + 1, SCAN_BYTES);
      assert(entries !== undefined, "entries that are not committed are not compacted");
      for (const entry of entries) {
        if (entry.type !== "conf-change") continue;
        before = newest;
        newest = entry.index;
      }
      from += entries.length;
    }
    return before;
  }

  #preCampaign(): void {
    this.#becomePreCandidate();
    this.tracker.recordVote(this.id, true);
    if (this.tracker.voteResult() === "won") this.#campaign(false);
    else this.#requestVotes(true, false);
  }

  #campaign(transfer: boolean): void {
    this.#becomeCandidate();
    this.#requestVotes(false, transfer);
    if (this.#voteBeforeDurable) {
      this.tracker.recordVote(this.id, true);
      this.#countVotes();
    }
  }

  #requestVotes(pre: boolean, transfer: boolean): void {
    const { last, lastTerm, committed, committedTerm } = this.log;
    for (const peer of this.tracker.peers) {
      if (peer.id === this.id || !this.tracker.isVoter(peer.id)) continue;
      this.#send({
        type: "vote-request",
        from: this.id,
        to: peer.id,
        term: pre ? this.term + 1 : this.term,
        pre,
        lastIndex: last,
        lastTerm,
        commit: committed,
        commitTerm: committedTerm,
        transfer,
      });
    }
  }

  /**
   * Whoever asks may be given the vote, also by a learner and by one that is not in any configuration yet: they may not have applied
   * their promotion, and without their votes a cluster could not elect anybody then. The candidate counts only voters of its own
   * configuration (I7). Granting never touches the log (BR6), and granting again to the same candidate is harmless (BR5).
   */
  #handleVoteRequest(request: VoteRequest): StepOutcome {
    const { pre, from } = request;
    const free = this.vote === from || (this.vote === NO_MEMBER && this.leader === NO_MEMBER) || (pre && request.term > this.term);
    const upToDate = this.log.isUpToDate(request.lastIndex, request.lastTerm) || this.#voteWithoutLogCheck;
    const granted = (free || this.#voteTwice) && upToDate;
    this.#trace?.({ type: "vote", candidate: from, term: request.term, pre, granted });
    this.#learnCommit(request);
    if (granted && !pre) {
      this.vote = from;
      this.#electionElapsed = 0;
    }
    this.#respondToVote(request, granted);
    return "ok";
  }

  #respondToVote(request: VoteRequest, granted: boolean): void {
    this.#send({
      type: "vote-response",
      from: this.id,
      to: request.from,
      term: granted ? request.term : this.term,
      pre: request.pre,
      granted,
      commit: this.log.committed,
      commitTerm: this.log.committedTerm,
    });
  }

  /**
   * What one member knows to be committed is committed, and who has the same entry has everything before it (log matching). Without
   * this an election could hang for ever: configurations switch when they are applied, so a candidate that has not heard of the commit
   * may need the vote of one that has, is no voter any more and has the longer log (BR28; raft-rs has the same remedy).
   */
  #learnCommit({ commit, commitTerm }: VoteRequest | VoteResponse): void {
    if (this.role === "leader" || commit <= this.log.committed || this.log.term(commit) !== commitTerm) return;
    this.log.commitTo(commit);
    this.#traceCommit();
  }

  #handleVoteResponse(response: VoteResponse): StepOutcome {
    this.#learnCommit(response);
    const asked = response.pre ? this.role === "pre-candidate" : this.role === "candidate";
    const wantedTerm = response.pre && response.granted ? this.term + 1 : this.term;
    if (!asked || response.term !== wantedTerm) return this.#ignore(response, "no-effect");
    if (!this.tracker.isMember(response.from)) return this.#ignore(response, "unknown-sender");
    if (this.#hasUnappliedConfChange()) {
      // Just learned: the votes are being counted by a configuration that is superseded.
      this.#becomeFollower(this.term, NO_MEMBER);
      return "ok";
    }
    this.tracker.recordVote(response.from, response.granted);
    this.#countVotes();
    return "ok";
  }

  #countVotes(): void {
    switch (this.tracker.voteResult()) {
      case "won":
        if (this.role === "pre-candidate") this.#campaign(false);
        else this.#becomeLeader();
        return;
      case "lost":
        this.#becomeFollower(this.term, NO_MEMBER);
        return;
      case "pending":
    }
  }

  /** An answer for the sender of an old term, where one helps. Undefined: the message does not depend on the term. */
  #stepOldTerm(message: Message): StepOutcome | undefined {
    switch (message.type) {
      case "append-request":
      case "heartbeat":
      case "snapshot":
        // It may not find out otherwise: with pre-vote or leases nobody raises its term by campaigning (BR10). Round 0 confirms nothing.
        this.#send({ type: "heartbeat-response", from: this.id, to: message.from, term: this.term, round: 0 });
        return this.#ignore(message, "stale-term");
      case "vote-request":
        // A candidate that is behind would otherwise ask in vain for ever (BR10).
        this.#learnCommit(message);
        this.#respondToVote(message, false);
        return this.#ignore(message, "stale-term");
      case "propose":
      case "read-index-request":
        return undefined;
      default:
        return this.#ignore(message, "stale-term");
    }
  }

  // ---------------------------------------------------------------------------------------------------------------- following

  #handleAppendRequest(request: AppendRequest): StepOutcome {
    assert(this.role === "follower", "only a follower takes entries from elsewhere (I6)");
    const { log } = this;
    const { prevIndex, prevTerm, entries } = request;
    const ownTerm = log.term(prevIndex);
    if (ownTerm !== prevTerm) {
      if (prevIndex > log.committed) {
        const hintIndex = log.findByTerm(prevIndex, prevTerm);
        this.#send({
          type: "append-response",
          from: this.id,
          to: request.from,
          term: this.term,
          rejected: true,
          index: prevIndex,
          hintIndex,
          hintTerm: log.term(hintIndex) ?? 0,
        });
        return "ok";
      }
      // Compacted here, hence committed, hence equal to the leader's. Known and different: one of the two is broken.
      if (ownTerm !== undefined) throw conflictWithCommitted(prevIndex, ownTerm, prevTerm);
    }
    const truncated = log.append(prevIndex, entries);
    if (truncated > 0) this.#trace?.({ type: "truncated", from: truncated });
    // Not more than this request covered: what is behind it may differ from the leader's log (BR7, I9).
    const covered = prevIndex + entries.length;
    if (log.commitTo(Math.min(request.commit, this.#commitBeyondCovered ? log.last : covered))) this.#traceCommit();
    this.#acknowledge(request.from, this.#ackFullLog ? log.last : covered);
    return "ok";
  }

  #handleSnapshot(request: SnapshotRequest): StepOutcome {
    assert(this.role === "follower", "only a follower takes a snapshot (I6)");
    const { metadata } = request.snapshot;
    const { log } = this;
    if (metadata.index <= log.committed) {
      this.#trace?.({ type: "snapshot-skipped", index: metadata.index });
    } else if (log.term(metadata.index) === metadata.term) {
      log.commitTo(metadata.index);
      this.#trace?.({ type: "snapshot-skipped", index: metadata.index });
    } else {
      log.restore(metadata);
      if (!this.#snapshotWithoutConf) this.tracker.switchTo(metadata.confState, log.last);
      this.#trace?.({ type: "snapshot-accepted", index: metadata.index, term: metadata.term });
    }
    this.#acknowledge(request.from, metadata.index);
    return "ok";
  }

  #acknowledge(to: MemberId, index: LogIndex): void {
    const response: AppendResponse = {
      type: "append-response",
      from: this.id,
      to,
      term: this.term,
      rejected: false,
      index,
      hintIndex: 0,
      hintTerm: 0,
    };
    if (index <= this.log.durable || this.#ackBeforeDurable) this.#send(response);
    else this.promises.push(response);
  }

  #forwardProposal(type: EntryType, data: Uint8Array): ProposeOutcome {
    const { config } = this.tracker;
    // A member with no configuration at all is about to join; one that has a configuration without itself was removed.
    if (config.voters.length > 0 && !this.tracker.isMember(this.id)) return "not-member";
    if (this.leader === NO_MEMBER) return "no-leader";
    if (this.#forward.length > 0 && this.#forwardBytes + data.byteLength > this.#config.uncommittedBytesMax) return "over-limit";
    this.#forward.push({ type, data });
    this.#forwardBytes += data.byteLength;
    return "accepted";
  }

  #sendForward(): void {
    const payloads = this.#forward;
    this.#forward = [];
    this.#forwardBytes = 0;
    // The leader that they were taken in for is gone, and there is no other to send them to.
    if (this.leader === NO_MEMBER || this.leader === this.id) {
      this.#dropProposals(payloads.length, "no-leader");
      return;
    }
    let start = 0;
    while (start < payloads.length) {
      let end = start;
      let bytes = 0;
      while (end < payloads.length) {
        bytes += (payloads[end] as Payload).data.byteLength;
        if (bytes > this.#config.appendBytesMax && end > start) break;
        end += 1;
      }
      this.#send({ type: "propose", from: this.id, to: this.leader, term: this.term, entries: payloads.slice(start, end) });
      start = end;
    }
  }

  // ---------------------------------------------------------------------------------------------------------------- leading

  /** A proposal whose proposer does not wait for the outcome. Dropped when it cannot be taken. */
  #proposeOnBehalf({ type, data }: Payload): void {
    const change = type === "conf-change" ? decodeConfChange(data) : undefined;
    if (this.transferee !== NO_MEMBER && !this.#transferWithoutCatchUp) {
      this.#dropProposals(1, "transferring");
    } else if (change !== undefined && (change instanceof Error || this.#confChangeMustWait(change))) {
      this.#dropProposals(1, "pending");
    } else if (this.#overLimit(data.byteLength)) {
      this.#dropProposals(1, "over-limit");
    } else if (change === undefined) {
      this.#push("normal", data, undefined);
    } else {
      this.#pushConfChange(data);
    }
  }

  #handlePropose(message: Propose): StepOutcome {
    if (this.role === "leader") {
      if (!this.tracker.isMember(message.from)) return this.#ignore(message, "unknown-sender");
      for (const payload of message.entries) this.#proposeOnBehalf(payload);
      return "ok";
    }
    // The sender's leader has become a follower meanwhile. Terms only rise along the way, so a proposal does not travel for ever.
    if (this.leader === NO_MEMBER) {
      this.#dropProposals(message.entries.length, "no-leader");
      return "ignored";
    }
    for (const { type, data } of message.entries) {
      if (this.#forwardProposal(type, data) !== "accepted") this.#dropProposals(1, "over-limit");
    }
    return "ok";
  }

  #dropProposals(count: number, reason: DropReason): void {
    this.#trace?.({ type: "proposals-dropped", count, reason });
  }

  /** While a quorum is missing the log must not grow without bound (BR20); but one proposal, however large, is always taken. */
  #overLimit(bytes: number): boolean {
    return this.#uncommittedBytes > 0 && bytes > 0 && this.#uncommittedBytes + bytes > this.#config.uncommittedBytesMax;
  }

  #push(type: EntryType, data: Uint8Array, context: unknown): void {
    this.log.push({ term: this.term, index: this.log.last + 1, type, data, context });
    this.#uncommittedBytes += data.byteLength;
    this.#appendsDue = true;
    if (this.#applyBeforeDurable) this.#ownEntriesDurable();
  }

  #pushConfChange(data: Uint8Array): void {
    this.#push("conf-change", data, undefined);
    this.#pendingConfIndex = this.log.last;
  }

  /** At most one change that is not applied (thesis, 4.1; I11), and none before an entry of this term is committed (BM1). */
  #confChangeMustWait(change: ConfChange): boolean {
    if (!this.#ownTermCommitted && !this.#noOwnTermCheck) return true;
    if (this.#pendingConfIndex > this.log.applied && !this.#twoPendingConfs) return true;
    const leaving = change.steps.length === 0;
    return leaving !== this.tracker.isJoint();
  }

  /** A joint configuration that is applied and was to be left by itself. A leader elected in between takes over, too. */
  #maybeLeaveJoint(): void {
    if (this.role !== "leader" || !this.tracker.config.autoLeave || this.transferee !== NO_MEMBER) return;
    if (this.log.applied < this.#pendingConfIndex || !this.#ownTermCommitted) return;
    this.#pushConfChange(encodeConfChange({ steps: [], context: NO_BYTES }));
  }

  #ownEntriesDurable(): void {
    const own = this.tracker.progress(this.id);
    const index = this.#applyBeforeDurable ? this.log.last : this.log.durable;
    if (own?.acknowledged(index) && this.#maybeCommit()) this.#appendsDue = true;
  }

  /** Only entries of the own term are committed by counting; earlier ones come with them (paper, 5.4.2; I4, BR1). */
  #maybeCommit(): boolean {
    const index = Math.min(this.tracker.committed(), this.log.last);
    if (index <= this.log.committed) return false;
    if (this.log.term(index) !== this.term && !this.#commitOldTerm) return false;
    this.log.commitTo(index);
    this.#traceCommit();
    // Who counts again may have more than the others.
    if (this.tracker.unmute(index)) this.#maybeCommit();
    return true;
  }

  #handleAppendResponse(response: AppendResponse, peer: Progress): StepOutcome {
    // Said before it lost its log.
    if (response.index < peer.fence && !this.#formerAcksCount) return this.#ignore(response, "former-life");
    peer.recentActive = true;
    if (response.rejected) {
      // Both sides skip a whole term per round trip: the follower's guess is the end of its entries of at most prevTerm, and the
      // leader goes on to the end of its entries of at most the guess's term (paper, end of 5.3; see etcd/raft for the proof).
      const hint = response.hintTerm > 0 ? this.log.findByTerm(response.hintIndex, response.hintTerm) : response.hintIndex;
      const before = peer.state;
      if (!peer.refused(response.index, hint)) return this.#ignore(response, "no-effect");
      if (this.#nextBelowMatch) peer.next = Math.max(1, Math.min(response.index, hint + 1, peer.match));
      if (before !== peer.state) this.#traceProgress(peer);
      peer.appendDue = true;
      this.#appendsDue = true;
      return "ok";
    }
    const { index } = response;
    if (index > this.log.last) return this.#ignore(response, "malformed");
    const news = peer.acknowledged(index);
    if (!news && !(peer.state === "probe" && index === peer.match)) return "ok";
    switch (peer.state) {
      case "probe":
        peer.becomeReplicate();
        this.#traceProgress(peer);
        break;
      case "snapshot":
        if (peer.match + 1 >= this.log.firstIndex()) {
          peer.becomeReplicate();
          this.#traceProgress(peer);
        } else if (peer.match >= peer.pendingSnapshot) {
          // Installed, but the log has been compacted further meanwhile: it takes another one.
          peer.becomeProbe();
          this.#traceProgress(peer);
        }
        break;
      case "replicate":
        peer.inflights.freeTo(index);
        break;
      default:
        return peer.state satisfies never;
    }
    this.#maybeCommit();
    this.#appendsDue = true;
    if (peer.id === this.transferee) this.#tellToCampaign(peer);
    return "ok";
  }

  #handleHeartbeatResponse(response: HeartbeatResponse, peer: Progress): StepOutcome {
    if (response.round > this.#round) return this.#ignore(response, "malformed");
    peer.recentActive = true;
    if (response.round > peer.ackedRound) peer.ackedRound = response.round;
    if (peer.heartbeatDue) {
      peer.heartbeatDue = false;
      peer.paused = false;
      // It lives; should all that was sent have been lost, the answer to one more append, empty if need be, will tell.
      if (peer.match < this.log.last || peer.state === "probe") {
        peer.appendDue = true;
        this.#appendsDue = true;
      }
    }
    this.#confirmReads();
    return "ok";
  }

  #broadcastAppends(): void {
    let sharedFrom = 0;
    let shared: readonly Entry[] = NO_ENTRIES;
    for (const peer of this.tracker.peers) {
      if (peer.id === this.id) continue;
      while (!peer.isPaused()) {
        const { next } = peer;
        const prevTerm = this.log.term(next - 1);
        if (prevTerm === undefined || next <= peer.fence) {
          this.#sendSnapshot(peer);
          break;
        }
        let entries = NO_ENTRIES;
        if (next <= this.log.last && !(peer.state === "replicate" && peer.inflights.full())) {
          // Followers that are equally far share one list.
          if (sharedFrom !== next) {
            const sliced = this.log.slice(next, this.log.last + 1, this.#config.appendBytesMax);
            if (sliced === undefined) {
              this.#sendSnapshot(peer);
              break;
            }
            sharedFrom = next;
            shared = sliced;
          }
          entries = shared;
        }
        if (entries.length === 0 && !peer.appendDue && !peer.canTellCommit(this.log.committed)) break;
        this.#send({
          type: "append-request",
          from: this.id,
          to: peer.id,
          term: this.term,
          prevIndex: next - 1,
          prevTerm,
          commit: this.log.committed,
          entries,
        });
        peer.sent(entries.length, payloadBytes(entries), this.log.committed);
        if (entries.length === 0) break;
      }
    }
  }

  #sendSnapshot(peer: Progress): void {
    // Not to one that does not answer; and what cannot be continued from the log is no help. Both are tried again later.
    if (!peer.recentActive) return;
    const metadata = this.#storage.snapshot(peer.fence);
    if (metadata === undefined || metadata.index + 1 < this.log.firstIndex() || metadata.index <= peer.match) return;
    if (metadata.index < peer.fence) return;
    assert(metadata.index <= this.log.committed, "a snapshot holds only committed entries", { index: metadata.index });
    this.#send({ type: "snapshot", from: this.id, to: peer.id, term: this.term, snapshot: { metadata } });
    peer.becomeSnapshot(metadata.index);
    peer.appendDue = false;
    this.#trace?.({ type: "snapshot-sent", to: peer.id, index: metadata.index });
  }

  // ---------------------------------------------------------------------------------------------------------------- reads

  #addRead(from: MemberId, context: bigint): void {
    if (this.#resigning) this.#trace?.({ type: "reads-dropped", count: 1 });
    else if (this.#readWithoutRound || this.#leaseHeld()) this.#answerRead({ from, context }, this.log.committed);
    else if (!this.#reads.add(from, context)) this.#trace?.({ type: "reads-dropped", count: 1 });
  }

  #answerRead({ from, context }: ReadRequest, index: LogIndex): void {
    if (from === this.id) this.readStates.push({ context, index });
    else this.#send({ type: "read-index-response", from: this.id, to: from, term: this.term, context, index });
  }

  /** `periodic`: by the clock, to everybody; otherwise for reads, to those whose answer counts. Each broadcast is a new round. */
  #broadcastHeartbeat(periodic: boolean): void {
    if (!this.#reuseReadToken || this.#round === 0) this.#round += 1;
    const round = this.#round;
    if (this.#ownTermCommitted) {
      const started = this.#reads.start(round, this.log.committed);
      if (started !== undefined) {
        this.#trace?.({ type: "read-round", round, index: started.index, requests: started.requests.length });
      }
    }
    if (this.#config.readMode === "lease") this.#roundsSent.push({ round, tick: this.#leaderTicks });
    for (const peer of this.tracker.peers) {
      if (peer.id === this.id || (!periodic && peer.learner)) continue;
      // Not more than it is known to have (and never a reason to believe that its log matches further).
      const commit = this.#heartbeatUnclamped ? this.log.committed : Math.min(peer.match, this.log.committed);
      this.#send({ type: "heartbeat", from: this.id, to: peer.id, term: this.term, commit, round });
      if (periodic) peer.heartbeatDue = true;
    }
    this.#confirmReads();
  }

  #confirmReads(): void {
    if (!this.#reads.roundUnderWay && this.#roundsSent.length === 0) return;
    const confirmed = this.tracker.confirmedRound(this.#round);
    for (const { round, index, requests } of this.#reads.confirm(confirmed)) {
      this.#trace?.({ type: "read-confirmed", round, index, requests: requests.length });
      for (const request of requests) this.#answerRead(request, index);
    }
    let done = 0;
    for (const { round, tick } of this.#roundsSent) {
      if (round > confirmed) break;
      this.#leaseStart = tick;
      done += 1;
    }
    if (done > 0) this.#roundsSent.splice(0, done);
  }

  /**
   * A quorum answered a heartbeat that was sent at `#leaseStart` or later, and refuses votes for an election timeout since. Both ends
   * count whole ticks, hence two less. Void once somebody was told to campaign regardless (thesis, 6.4.1).
   */
  #leaseHeld(): boolean {
    if (this.#config.readMode !== "lease" || this.#leaseVoid || !this.#ownTermCommitted || this.#leaseStart < 0) return false;
    return this.#leaderTicks - this.#leaseStart <= this.#config.electionTimeoutTicks - 2;
  }

  // ---------------------------------------------------------------------------------------------------------------- transfer

  /** Refused without a word: to itself, to a learner, to one outside the configuration. A transfer to another target replaces one under way. */
  #startTransfer(to: MemberId): void {
    const target = this.tracker.progress(to);
    if (target === undefined || !this.tracker.isVoter(to) || this.transferee === to) return;
    if (this.transferee !== NO_MEMBER) this.#endTransfer();
    if (to === this.id) return;
    this.transferee = to;
    this.#transferElapsed = 0;
    this.#trace?.({ type: "transfer", phase: "started", to });
    this.#tellToCampaign(target);
    target.appendDue = true;
    this.#appendsDue = true;
  }

  /**
   * This leader's own removal (or demotion) is applied. It counts in no quorum any more and takes no new work, but leads until
   * another voter takes over, an election timeout at most: were it to stop here, the others might not know yet that the change is
   * committed, and need the vote of one that has left (BR28; thesis, 4.2.2 and 3.10).
   */
  #resign(): void {
    let best: Progress | undefined;
    for (const peer of this.tracker.peers) {
      if (!this.tracker.isVoter(peer.id)) continue;
      if (best === undefined || (peer.recentActive && !best.recentActive)) best = peer;
      else if (peer.recentActive === best.recentActive && peer.match > best.match) best = peer;
    }
    assert(best !== undefined, "a configuration has a voter");
    this.#resigning = true;
    const unanswered = this.#reads.clear();
    if (unanswered > 0) this.#trace?.({ type: "reads-dropped", count: unanswered });
    if (this.transferee === NO_MEMBER) this.#startTransfer(best.id);
    this.#maybeCommit();
    this.#appendsDue = true;
  }

  /** Only when it has the whole log, so that it wins (thesis, 3.10). */
  #tellToCampaign(target: Progress): void {
    if (target.match < this.log.last && !this.#transferWithoutCatchUp) return;
    this.#leaseVoid = true;
    this.#send({ type: "timeout-now", from: this.id, to: target.id, term: this.term });
    this.#trace?.({ type: "transfer", phase: "timeout-now", to: target.id });
  }

  #endTransfer(): void {
    this.#trace?.({ type: "transfer", phase: "ended", to: this.transferee });
    this.transferee = NO_MEMBER;
  }

  // ---------------------------------------------------------------------------------------------------------------- leaf work

  #send(message: Message): void {
    if (this.#hardStateDurable) this.messages.push(message);
    else this.promises.push(message);
  }

  #ignore(message: Message, reason: IgnoreReason): StepOutcome {
    this.#trace?.({ type: "ignored", message, reason });
    return "ignored";
  }

  #traceRole(): void {
    this.#trace?.({ type: "role", role: this.role, term: this.term, leader: this.leader });
  }

  #traceCommit(): void {
    this.#trace?.({ type: "commit", index: this.log.committed, term: this.term });
  }

  #traceProgress(peer: Progress): void {
    this.#trace?.({ type: "progress", peer: peer.id, state: peer.state, match: peer.match, next: peer.next });
  }
}

function comesFromLeader(message: Message): boolean {
  return message.type === "append-request" || message.type === "heartbeat" || message.type === "snapshot";
}

function assertConfig(config: RaftConfig): void {
  const { electionTimeoutTicks, heartbeatTicks } = config;
  assert(config.id !== NO_MEMBER, "a member id is not zero");
  assert(heartbeatTicks >= 1 && electionTimeoutTicks > heartbeatTicks, "the election timeout exceeds the heartbeat interval", {
    electionTimeoutTicks,
    heartbeatTicks,
  });
  assert(config.appendBytesMax >= 1 && config.committedBytesMax >= 1, "byte limits are positive");
  assert(config.uncommittedBytesMax >= 1, "byte limits are positive");
  assert(config.readMode === "quorum" || config.checkQuorum, "lease reads need check-quorum");
}
