/**
 * Moves work between the pure raft core and the world: messages to the transport, appends to the WAL, committed entries to the applier, time in as ticks.
 * It decides nothing. Pumping is deferred to a later turn of the event loop, so that everything that arrives in one turn shares one append and one sync.
 */
import type { Clock, Timer } from "../base/clock.ts";
import type { LogIndex, MemberId, Term } from "../base/ids.ts";
import { NO_MEMBER } from "../base/ids.ts";
import type {
  ConfChange,
  ConfState,
  Entry,
  Message,
  ProposeConfChangeOutcome,
  ProposeOutcome,
  RaftStatus,
  RawNode,
  ReadState,
  Ready,
  ResetOutcome,
  Snapshot,
  SoftState,
} from "../raft/index.ts";
import type { WalFace } from "../wal/index.ts";
import type { PeerTransport } from "./peer/index.ts";
import type { ServerStorage } from "./server-storage.ts";

export interface RaftDriverHooks {
  /** Committed and durable here; in order. */
  onCommitted(entries: readonly Entry[]): void;
  /** Leader or role changed. */
  onSoftState(state: SoftState, term: Term): void;
  onReadStates(states: readonly ReadState[]): void;
  /** The core accepted a snapshot: make sure that a restart will use it if, and only if, its marker is in the log. */
  decideSnapshot(snapshot: Snapshot): Promise<void>;
  /** Its marker is in the log: make it the state. Entries committed behind it come only after the promise has resolved. */
  installSnapshot(snapshot: Snapshot): Promise<void>;
  /** A snapshot has to go to that member. */
  sendSnapshot(message: Message & { type: "snapshot" }): void;
  /** Something broke for good: the member must stop. */
  onFatal(error: Error): void;
  /** More than two heartbeat intervals passed between two heartbeats. */
  onLateHeartbeat?(milliseconds: number): void;
}

export interface RaftDriverOptions {
  readonly raft: RawNode;
  readonly storage: ServerStorage;
  readonly wal: WalFace;
  readonly transport: PeerTransport;
  readonly clock: Clock;
  readonly defer: (fn: () => void) => void;
  readonly heartbeatMs: number;
  readonly electionTicks: number;
  readonly hooks: RaftDriverHooks;
  readonly mutants?: ReadonlySet<string> | undefined;
}

export class RaftDriver {
  readonly #raft: RawNode;
  readonly #storage: ServerStorage;
  readonly #wal: WalFace;
  readonly #transport: PeerTransport;
  readonly #clock: Clock;
  readonly #defer: (fn: () => void) => void;
  readonly #hooks: RaftDriverHooks;
  readonly #heartbeatMs: number;
  readonly #electionTicks: number;
  readonly #tickCountClock: boolean;
  #ticker: Timer | undefined;
  #lastTickMs: number;
  readonly #stallMs: number;
  #aliveMs: number;
  #aliveWallMs: number;
  #stalls = 0;
  #pumpScheduled = false;
  #pumping = false;
  /** A snapshot is being installed: nothing else is taken out of the core meanwhile. */
  #installing = false;
  #stopped = false;
  #leader: MemberId = NO_MEMBER;
  #role: SoftState["role"] = "follower";
  #term: Term;
  #commit: LogIndex;

  constructor(options: RaftDriverOptions) {
    this.#raft = options.raft;
    this.#storage = options.storage;
    this.#wal = options.wal;
    this.#transport = options.transport;
    this.#clock = options.clock;
    this.#defer = options.defer;
    this.#hooks = options.hooks;
    this.#heartbeatMs = options.heartbeatMs;
    this.#electionTicks = options.electionTicks;
    this.#tickCountClock = options.mutants?.has("tick-count-clock") ?? false;
    this.#lastTickMs = options.clock.monotonicMs();
    this.#stallMs = 3 * options.heartbeatMs;
    this.#aliveMs = this.#lastTickMs;
    this.#aliveWallMs = options.clock.wallMs();
    const status = options.raft.status();
    this.#term = status.term;
    this.#commit = status.commit;
  }

  get leader(): MemberId {
    return this.#leader;
  }

  get isLeader(): boolean {
    return this.#role === "leader";
  }

  get term(): Term {
    return this.#term;
  }

  get commit(): LogIndex {
    return this.#commit;
  }

  /**
   * How often, up to now, this member stood still for more than three heartbeats. Whatever it believed before about its leadership is old then, and stays so after
   * the next tick: the leader's check of its quorum looks at what was heard before the stall, too. The wall clock counts as well, because the monotonic one stands
   * still in a machine that is suspended; that it was put forward costs no more than a confirmation.
   */
  get stalls(): number {
    this.#noteStall();
    return this.#stalls;
  }

  start(): void {
    this.#lastTickMs = this.#clock.monotonicMs();
    this.#aliveMs = this.#lastTickMs;
    this.#aliveWallMs = this.#clock.wallMs();
    this.#schedulePump();
    this.#ticker = this.#clock.timer(this.#heartbeatMs, () => this.#onTimer());
  }

  propose(data: Uint8Array, context: unknown): ProposeOutcome {
    if (this.#stopped) return "not-member";
    const outcome = this.#raft.propose(data, context);
    if (outcome === "accepted") this.#schedulePump();
    return outcome;
  }

  proposeConfChange(change: ConfChange): ProposeConfChangeOutcome {
    if (this.#stopped) return "not-member";
    const outcome = this.#raft.proposeConfChange(change);
    this.#schedulePump();
    return outcome;
  }

  step(message: Message): void {
    if (this.#stopped) return;
    this.#guard(() => this.#raft.step(message));
    this.#schedulePump();
  }

  readIndex(context: bigint): void {
    if (this.#stopped) return;
    this.#guard(() => this.#raft.readIndex(context));
    this.#schedulePump();
  }

  transferLeader(to: MemberId): void {
    if (this.#stopped) return;
    this.#guard(() => this.#raft.transferLeader(to));
    this.#schedulePump();
  }

  campaign(): void {
    if (this.#stopped) return;
    this.#guard(() => this.#raft.campaign());
    this.#schedulePump();
  }

  /** Lets election time pass quickly at the start; see `initial-election-tick-advance`. */
  advanceTicks(ticks: number): void {
    for (let i = 0; i < ticks && !this.#stopped; i++) this.#raft.tick();
    this.#schedulePump();
  }

  applyConfChange(change: ConfChange | undefined): ConfState {
    const confState = this.#raft.applyConfChange(change);
    this.#schedulePump();
    return confState;
  }

  applied(index: LogIndex): void {
    if (this.#stopped) return;
    this.#guard(() => this.#raft.applied(index));
    // Applying a configuration change may call for the next step (leaving a joint configuration).
    if (this.#raft.hasReady()) this.#schedulePump();
  }

  reportUnreachable(peer: MemberId): void {
    if (this.#stopped) return;
    this.#guard(() => this.#raft.reportUnreachable(peer));
    this.#schedulePump();
  }

  reportSnapshot(peer: MemberId, outcome: "received" | "failed"): void {
    if (this.#stopped) return;
    this.#guard(() => this.#raft.reportSnapshot(peer, outcome));
    this.#schedulePump();
  }

  /** See `RawNodeFace.resetProgress`. */
  resetProgress(peer: MemberId, fence: Uint8Array): ResetOutcome {
    if (this.#stopped) return "not-leader";
    const outcome = this.#raft.resetProgress(peer, fence);
    this.#schedulePump();
    return outcome;
  }

  /** See `RawNodeFace.admit`. */
  admit(leader: MemberId, term: Term, fence: LogIndex): boolean {
    if (this.#stopped) return false;
    const admitted = this.#raft.admit(leader, term, fence);
    this.#schedulePump();
    return admitted;
  }

  hears(message: Message): boolean {
    return !this.#stopped && this.#raft.hears(message);
  }

  get healed(): boolean {
    return !this.#stopped && this.#raft.healed;
  }

  endQuarantine(): void {
    if (!this.#stopped) this.#raft.endQuarantine();
  }

  status(): RaftStatus {
    return this.#raft.status();
  }

  /** No more work is taken from or given to the core. The WAL is closed by its owner. */
  stop(): void {
    this.#stopped = true;
    this.#ticker?.cancel();
    this.#ticker = undefined;
  }

  #onTimer(): void {
    if (this.#stopped) return;
    const now = this.#clock.monotonicMs();
    const late = now - this.#lastTickMs;
    this.#noteStall();
    let ticks = Math.max(1, Math.floor(late / this.#heartbeatMs));
    if (this.#tickCountClock) ticks = 1;
    if (this.#role === "leader" && late > 2 * this.#heartbeatMs) this.#hooks.onLateHeartbeat?.(late);
    if (ticks >= this.#electionTicks) {
      // After a stall what the others sent is still in the sockets: take it in before judging who has been silent.
      this.#defer(() => this.#tick(ticks, now));
    } else {
      this.#tick(ticks, now);
    }
    this.#ticker = this.#clock.timer(this.#heartbeatMs, () => this.#onTimer());
  }

  #noteStall(): void {
    const now = this.#clock.monotonicMs();
    const wall = this.#clock.wallMs();
    if (now - this.#aliveMs > this.#stallMs || wall - this.#aliveWallMs > this.#stallMs) this.#stalls += 1;
    this.#aliveMs = now;
    this.#aliveWallMs = wall;
  }

  #tick(ticks: number, now: number): void {
    if (this.#stopped) return;
    this.#lastTickMs = now;
    this.#guard(() => this.#raft.tick(ticks));
    this.#pump();
  }

  #schedulePump(): void {
    if (this.#pumpScheduled || this.#stopped) return;
    this.#pumpScheduled = true;
    this.#defer(() => {
      this.#pumpScheduled = false;
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#stopped || this.#pumping || this.#installing) return;
    this.#pumping = true;
    this.#guard(() => {
      while (!this.#stopped && !this.#installing && this.#raft.hasReady()) {
        const ready = this.#raft.ready();
        if (ready === undefined) break;
        this.#handle(ready);
      }
    });
    this.#pumping = false;
  }

  #handle(ready: Ready): void {
    const { append, softState } = ready;
    if (append?.hardState !== undefined) {
      this.#term = append.hardState.term;
      this.#commit = append.hardState.commit;
    }
    if (softState !== undefined) {
      this.#leader = softState.leader;
      this.#role = softState.role;
      this.#hooks.onSoftState(softState, this.#term);
    }
    if (ready.messages.length > 0) this.#send(ready.messages);
    if (append !== undefined) {
      if (append.snapshot !== undefined) {
        this.#install(ready, append.snapshot);
        return;
      }
      this.#append(append);
    }
    if (ready.readStates.length > 0) this.#hooks.onReadStates(ready.readStates);
    if (ready.committed.length > 0) this.#hooks.onCommitted(ready.committed);
  }

  #append(append: NonNullable<Ready["append"]>): void {
    this.#wal.append({ hardState: append.hardState, entries: append.entries, mustSync: append.mustSync }, (error) => {
      if (this.#stopped) return;
      if (error !== undefined) {
        this.#hooks.onFatal(error);
        return;
      }
      this.#guard(() => {
        if (append.hardState !== undefined) this.#storage.setHardState(append.hardState);
        if (append.entries.length > 0) this.#storage.append(append.entries);
        if (append.thenSend.length > 0) this.#send(append.thenSend);
        this.#raft.appended(append.ticket);
      });
      this.#pump();
    });
  }

  /** The received state is on disk already; it becomes the member's state before anything that follows it. */
  #install(ready: Ready, snapshot: Snapshot): void {
    const append = ready.append as NonNullable<Ready["append"]>;
    this.#installing = true;
    const decided = this.#hooks.decideSnapshot(snapshot);
    decided
      .then(() => this.#appendSnapshot(append, snapshot))
      .then(() => this.#hooks.installSnapshot(snapshot))
      .then(() => {
        if (this.#stopped) return;
        this.#installing = false;
        this.#guard(() => {
          this.#storage.applySnapshot(snapshot.metadata);
          if (append.hardState !== undefined) this.#storage.setHardState(append.hardState);
          if (append.entries.length > 0) this.#storage.append(append.entries);
          this.#send(append.thenSend);
          this.#raft.appended(append.ticket);
          this.#raft.applied(snapshot.metadata.index);
          if (ready.readStates.length > 0) this.#hooks.onReadStates(ready.readStates);
          if (ready.committed.length > 0) this.#hooks.onCommitted(ready.committed);
        });
        this.#pump();
      })
      .catch((error: unknown) => {
        if (!this.#stopped) this.#hooks.onFatal(error instanceof Error ? error : new Error(String(error)));
      });
  }

  #appendSnapshot(append: NonNullable<Ready["append"]>, snapshot: Snapshot): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#wal.append({ hardState: append.hardState, entries: append.entries, snapshot: snapshot.metadata, mustSync: true }, (error) =>
        error === undefined ? resolve() : reject(error),
      );
    });
  }

  #send(messages: readonly Message[]): void {
    let snapshots = false;
    for (const message of messages) {
      if (message.type === "snapshot") {
        snapshots = true;
        this.#hooks.sendSnapshot(message);
      }
    }
    this.#transport.send(snapshots ? messages.filter((message) => message.type !== "snapshot") : messages);
  }

  /** A broken invariant stops the member; it never goes through the event loop. */
  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#hooks.onFatal(error instanceof Error ? error : new Error(String(error)));
    }
  }
}
