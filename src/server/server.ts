/**
 * One member, assembled: it wires the log, the raft core, the state, the transport and the services, and owns their start and end. What each part does is in
 * the part; what happens when one of them breaks is here.
 */
import * as api from "../api/index.ts";
import { isRpcError, rpcError } from "../api/rpc-errors.ts";
import { type PasswordHasher, passwordWorker, SimpleTokens, type TokenProvider } from "../auth/index.ts";
import { InvariantError } from "../base/assert.ts";
import { EMPTY_BYTES } from "../base/bytes.ts";
import type { Timer } from "../base/clock.ts";
import { EtcdError } from "../base/errors.ts";
import { type ClusterId, hexId, type LeaseId, type LogIndex, type MemberId, NO_MEMBER, type Revision, type Term } from "../base/ids.ts";
import type { MvccEvent, MvccStore } from "../mvcc/index.ts";
import { type ConfChange, type ConfState, type Entry, encodeConfChange, RawNode, type SoftState } from "../raft/index.ts";
import { WatchHub } from "../watch/index.ts";
import { Applier } from "./applier.ts";
import type { ApplySinks, MembersResult, OperationCounts } from "./apply/execute.ts";
import { Executor } from "./apply/execute.ts";
import type { State, StateOptions } from "./apply/state.ts";
import { type Booted, bootstrap, type RemoteMembers } from "./bootstrap.ts";
import { AutoCompactor, CompactionRunner } from "./compactor.ts";
import { CLUSTER_VERSION, SERVER_VERSION, type ServerConfig, type ServerPorts, STORAGE_VERSION } from "./config.ts";
import { Healer, HealingError } from "./healer.ts";
import { LeaseKeeper } from "./lease-keeper.ts";
import { encodeMemberChange, type MemberChange, type MemberRecord, toMessage } from "./membership.ts";
import type { PeerTransport } from "./peer/index.ts";
import { createPeerHandlers } from "./peer-handlers.ts";
import { abortError, Proposals } from "./proposals.ts";
import { RaftDriver } from "./raft-driver.ts";
import { type RaftRequest, raftRequest } from "./raft-request.ts";
import { ReadBarrier } from "./read-index.ts";
import { RequestIdGenerator } from "./request-id.ts";
import { Access } from "./services/access.ts";
import type { ServiceCore } from "./services/core.ts";
import { createServices, type ServerServices } from "./services/index.ts";
import { quotaBytes } from "./services/kv.ts";
import { alarmName } from "./services/maintenance.ts";
import type { CallContext } from "./services/services.contract.ts";
import { Snapshots } from "./snapshots.ts";
import { isOutOfSpace, OutOfSpaceError } from "./storage-failure.ts";

/** What happened inside, for metrics. All optional. */
export interface ServerObserver {
  onWalSync?(milliseconds: number): void;
  onBackendCommit?(milliseconds: number): void;
  onApplied?(kind: string, ok: boolean, applyMs: number, requestMs: number | undefined): void;
  onOperations?(counts: OperationCounts): void;
  /** A range or a read-only transaction was answered, or failed. */
  onRead?(kind: "Range" | "ReadonlyTxn", ok: boolean, milliseconds: number): void;
  onMembers?(members: readonly MemberId[]): void;
  onLeaderChange?(leader: MemberId): void;
  onProposalFailed?(): void;
  onSlowRead?(): void;
  onReadFailed?(): void;
  onLateHeartbeat?(): void;
  onLeaseExpired?(count: number): void;
  onSlowApply?(): void;
  onAlarm?(change: { action: "activated" | "deactivated"; alarm: string }): void;
  /** An entry was applied; `state` is as of it. For the simulator's oracle. */
  onEntry?(entry: Entry, state: State): void;
}

export interface ServerOptions {
  readonly config: ServerConfig;
  readonly ports: ServerPorts;
  readonly transport: PeerTransport;
  /** Asks running members who they are; undefined when none answers. */
  fetchMembers(urls: readonly string[], timeoutMs: number): Promise<RemoteMembers | undefined>;
  readonly observer?: ServerObserver | undefined;
  /** Called once, as soon as the member knows who it is, before it talks to anybody. */
  readonly onIdentity?: ((identity: { memberId: MemberId; clusterId: ClusterId }) => void) | undefined;
}

/**
 * Why a member ended by itself: "space": something could not be written for want of space, so that another life of it may go on from the same data when there is
 * space again; "storage": the disk failed, or a sync of it, which is never tried again; "invariant": a bug; "removed": from the cluster.
 */
export type FailureReason = "space" | "storage" | "invariant" | "removed";

export class ServerFailedError extends EtcdError {
  readonly failure: FailureReason;

  constructor(failure: FailureReason, message: string, options?: { cause?: unknown }) {
    super("server-failed", 14, message, options);
    this.name = "ServerFailedError";
    this.failure = failure;
  }
}

const APPEND_BYTES_MAX = 1024 * 1024;
const INFLIGHT_MESSAGES_MAX = 512;
const INFLIGHT_BYTES_MAX = 16 * 1024 * 1024;
const UNCOMMITTED_BYTES_MAX = 64 * 1024 * 1024;
const COMMITTED_BYTES_MAX = 4 * 1024 * 1024;
const PENDING_PROPOSALS_MAX = 100_000;
const PENDING_READS_MAX = 100_000;
/** Callers whose token was given by a login that is not applied here yet. */
const PENDING_TOKENS_MAX = 1000;
const WATCH_STREAM_BYTES_MAX = 16 * 1024 * 1024;
const WATCHERS_PER_STREAM_MAX = 1_000_000;
const CATCH_UP_REVISIONS_MAX = 1000;
const GRPC_OVERHEAD_BYTES = 512 * 1024;
const CATCH_UP_MS = 100;
const CAUGHT_UP_MS = 1000;
const PUBLISH_RETRY_MS = 500;
const REMOVED_GRACE_MS = 1000;
const ADVANCE_POLL_MS = 50;
const ADVANCE_FOR_MS = 5000;
/** `--force-new-cluster`: how long applying what is in the log already may take. */
const SOLE_MEMBER_MS = 600_000;

export class Server {
  readonly config: ServerConfig;
  readonly services: ServerServices;
  readonly memberId: MemberId;
  readonly clusterId: ClusterId;
  /** Resolves when the member has published itself through the log and can serve; rejects when it ended before. */
  readonly ready: Promise<void>;
  /** Resolves with the reason when the member ended by itself; never on `close`. */
  readonly failed: Promise<ServerFailedError>;

  readonly #ports: ServerPorts;
  readonly #transport: PeerTransport;
  readonly #observer: ServerObserver;
  readonly #booted: Booted;
  readonly #driver: RaftDriver;
  readonly #applier: Applier;
  readonly #proposals: Proposals;
  readonly #reads: ReadBarrier;
  readonly #hub: WatchHub;
  readonly #leases: LeaseKeeper;
  readonly #compaction: CompactionRunner;
  readonly #autoCompactor: AutoCompactor;
  readonly #snapshots: Snapshots;
  readonly #ids: RequestIdGenerator;
  readonly #passwords: PasswordHasher;
  readonly #tokens: TokenProvider<AbortSignal>;
  readonly #access: Access;
  readonly #core: ServiceCore;
  readonly #requestTimeoutMs: number;
  readonly #timers = new Set<Timer>();
  readonly #leaderListeners = new Set<(leader: MemberId) => void>();
  #state: State;
  #leader: MemberId = NO_MEMBER;
  #lastLeaderChangeMs: number;
  #lastLeaderLossMs: number | undefined;
  #stopped: EtcdError | undefined;
  #closing: Promise<void> | undefined;
  #raisingNoSpace = false;
  #pendingTokens = 0;
  #catchingUp = false;
  /** A received state is taking the place of the present one. */
  #replacing = false;
  #settleReady: { resolve: () => void; reject: (error: EtcdError) => void };
  #settleFailed: (error: ServerFailedError) => void = () => undefined;
  #published = false;
  /** While this member is in quarantine. */
  #healer: Healer | undefined;

  /** Boots from disk and starts. Resolves before the member is ready: see {@link ready}. */
  static async start(options: ServerOptions): Promise<Server> {
    const { config, ports } = options;
    const late: { fail?: (error: Error) => void } = {};
    const stateOptions: Omit<StateOptions, "backend"> = {
      valueCacheBytes: config.valueCacheBytes,
      electionMs: config.electionMs,
      heartbeatMs: config.heartbeatMs,
      learnersMax: config.maxLearners,
      yieldNow: () => new Promise<void>((resolve) => ports.defer(resolve)),
      nowMs: () => ports.clock.monotonicMs(),
      onProgress: (rows) => ports.logger.info({ rows }, "restoring the key index"),
      onBackendFailed: (error) => late.fail?.(error),
      mutants: config.mutants,
      ...(options.observer?.onBackendCommit === undefined ? {} : { onCommitMs: (ms: number) => options.observer?.onBackendCommit?.(ms) }),
    };
    const booted = await bootstrap({
      config,
      ports,
      stateOptions,
      fetchMembers: options.fetchMembers,
      walHooks: { onSyncMs: (ms) => options.observer?.onWalSync?.(ms) },
    });
    options.onIdentity?.({ memberId: booted.memberId, clusterId: booted.clusterId });
    const server = new Server(options, booted, stateOptions);
    late.fail = (error) => server.#failStorage(error);
    try {
      await server.#begin();
    } catch (error) {
      await server.close();
      throw error;
    }
    return server;
  }

  private constructor(options: ServerOptions, booted: Booted, stateOptions: Omit<StateOptions, "backend">) {
    const { config, ports } = options;
    const { clock } = ports;
    const limits = config.limits ?? {};
    this.config = config;
    this.#ports = ports;
    this.#transport = options.transport;
    this.#observer = options.observer ?? {};
    this.#booted = booted;
    this.memberId = booted.memberId;
    this.clusterId = booted.clusterId;
    this.#state = booted.state;
    this.#requestTimeoutMs = 5000 + 2 * config.electionMs;
    this.#lastLeaderChangeMs = clock.monotonicMs();
    this.#ids = new RequestIdGenerator(booted.memberId, ports.random);
    this.#settleReady = { resolve: () => undefined, reject: () => undefined };
    this.ready = new Promise((resolve, reject) => {
      this.#settleReady = { resolve, reject };
    });
    // Whoever waits for it sees the rejection; that nobody waits is no error.
    this.ready.catch(() => undefined);
    this.failed = new Promise((resolve) => {
      this.#settleFailed = resolve;
    });

    const electionTicks = Math.max(1, Math.floor(config.electionMs / config.heartbeatMs));
    this.#snapshots = new Snapshots({
      config,
      ports,
      wal: booted.wal,
      clusterId: booted.clusterId,
      state: () => this.#state,
      transport: options.transport,
      storage: booted.storage,
      driver: () => this.#driver,
      onFatal: (error) => this.#failStorage(error),
    });
    booted.storage.setSnapshotSource((from) => this.#snapshots.offer(from));
    const raft = new RawNode(
      {
        id: booted.memberId,
        electionTimeoutTicks: electionTicks,
        heartbeatTicks: 1,
        preVote: config.preVote,
        checkQuorum: true,
        appendBytesMax: limits.appendBytesMax ?? APPEND_BYTES_MAX,
        inflightMessagesMax: limits.inflightMessagesMax ?? INFLIGHT_MESSAGES_MAX,
        inflightBytesMax: limits.inflightBytesMax ?? INFLIGHT_BYTES_MAX,
        uncommittedBytesMax: limits.uncommittedBytesMax ?? UNCOMMITTED_BYTES_MAX,
        committedBytesMax: limits.committedBytesMax ?? COMMITTED_BYTES_MAX,
        readMode: "quorum",
        applied: booted.state.appliedIndex,
        quarantined: booted.healing !== undefined,
        ...(config.mutants === undefined ? {} : { mutants: config.mutants }),
      },
      booted.storage,
      ports.random,
    );
    this.#driver = new RaftDriver({
      raft,
      storage: booted.storage,
      wal: booted.wal,
      transport: options.transport,
      clock,
      defer: ports.defer,
      heartbeatMs: config.heartbeatMs,
      electionTicks,
      mutants: config.mutants,
      hooks: {
        onCommitted: (entries) => this.#applier.push(entries),
        onSoftState: (state, term) => this.#onSoftState(state, term),
        onReadStates: (states) => this.#reads.onReadStates(states),
        decideSnapshot: (snapshot) => this.#snapshots.decide(snapshot.metadata.index),
        installSnapshot: (snapshot) => this.#installSnapshot(snapshot.metadata.index, stateOptions),
        sendSnapshot: (message) => this.#snapshots.send(message),
        onFatal: (error) => this.#failStorage(error),
        onLateHeartbeat: () => this.#observer.onLateHeartbeat?.(),
      },
    });
    this.#proposals = new Proposals({
      clock,
      ids: this.#ids,
      requestTimeoutMs: this.#requestTimeoutMs,
      requestBytesMax: config.maxRequestBytes,
      pendingMax: PENDING_PROPOSALS_MAX,
      propose: (data, proposal) => this.#driver.propose(data, proposal),
      applyLag: () => this.#driver.commit - this.#state.appliedIndex,
      timeoutError: (startedMs) => this.#timeoutError(startedMs),
    });
    this.#reads = new ReadBarrier({
      clock,
      ids: this.#ids,
      requestTimeoutMs: this.#requestTimeoutMs,
      waitersMax: PENDING_READS_MAX,
      requestReadIndex: (context) => this.#driver.readIndex(context),
      appliedIndex: () => this.#state.appliedIndex,
      onSlow: () => this.#observer.onSlowRead?.(),
      onFailed: () => this.#observer.onReadFailed?.(),
    });
    this.#hub = new WatchHub({
      source: this.#state.store,
      streamBytesMax: limits.watchStreamBytesMax ?? WATCH_STREAM_BYTES_MAX,
      fragmentBytes: config.maxRequestBytes + GRPC_OVERHEAD_BYTES,
      catchUpRevisionsMax: limits.catchUpRevisionsMax ?? CATCH_UP_REVISIONS_MAX,
      watchersPerStreamMax: WATCHERS_PER_STREAM_MAX,
      yieldNow: stateOptions.yieldNow,
      onLagging: () => ports.defer(() => this.#catchUp()),
      ...(config.mutants === undefined ? {} : { mutants: config.mutants }),
    });
    this.#leases = new LeaseKeeper({
      clock,
      logger: ports.logger,
      proposals: this.#proposals,
      lessor: () => this.#state.lessor,
      isLeader: () => this.#driver.isLeader,
      term: () => this.#driver.term,
      stalls: () => this.#driver.stalls,
      confirmLeadership: (signal) => this.#reads.wait(signal),
      electionMs: config.electionMs,
      requestTimeoutMs: this.#requestTimeoutMs,
      checkpoint: config.leaseCheckpoint,
      mutants: config.mutants,
      onExpired: (count) => this.#observer.onLeaseExpired?.(count),
    });
    this.#compaction = new CompactionRunner({
      clock,
      logger: ports.logger,
      state: () => this.#state,
      batchRevisions: config.compactionBatchLimit,
      sleepMs: config.compactionSleepMs,
      onFatal: (error) => this.#failStorage(error),
    });
    this.#autoCompactor = new AutoCompactor({
      clock,
      logger: ports.logger,
      mode: config.autoCompactionMode,
      retention: config.autoCompactionRetention,
      isLeader: () => this.#driver.isLeader,
      revision: () => this.#state.store.revision,
      compact: (request) => this.#proposals.submit(raftRequest("compaction", request), {}),
    });
    const executor = new Executor({
      sinks: this.#sinks(),
      nowMs: () => clock.monotonicMs(),
      quotaBytes: quotaBytes(config.quotaBackendBytes),
      mutants: config.mutants,
      ...(this.#observer.onEntry === undefined ? {} : { onEntry: (entry, state) => this.#observer.onEntry?.(entry, state) }),
      ...(this.#observer.onApplied === undefined
        ? {}
        : {
            onApplied: (kind, ok, applyMs, requestMs) => this.#observer.onApplied?.(kind, ok, applyMs, requestMs),
            onOperations: (counts) => this.#observer.onOperations?.(counts),
          }),
    });
    this.#applier = new Applier({
      executor,
      state: () => this.#state,
      clock,
      defer: ports.defer,
      logger: ports.logger,
      warningMs: config.warningApplyMs,
      onApplied: (index) => this.#onApplied(index),
      onFatal: (error) => this.#failStorage(error),
    });
    this.#passwords = ports.passwords ?? passwordWorker();
    this.#tokens =
      ports.tokens ??
      new SimpleTokens({
        nowMs: () => clock.monotonicMs(),
        random: ports.random,
        ttlMs: config.authTokenTtlMs,
        revision: () => this.#state.auth.revision,
        appliedIndex: () => this.#state.appliedIndex,
        waitApplied: (index, signal) => this.#waitForToken(index, signal),
      });
    this.#access = new Access({ auth: () => this.#state.auth, tokens: this.#tokens, clientCertAuth: config.clientCertAuth });
    this.#core = this.#makeCore();
    this.services = createServices(this.#core, {
      progressJitter: () => ports.random.below(1000) / 1000,
      backup: (signal) => this.#snapshots.backup(signal),
      backendOf: () => this.#state.backend,
      linearizableProbe: (options) => this.#probe(options),
      auth: { passwords: this.#passwords, tokens: this.#tokens, random: ports.random, bcryptCost: config.bcryptCost },
      versions: () => ({
        server: SERVER_VERSION,
        cluster: this.#state.clusterVersion ?? "not_decided",
        storage: this.#state.clusterVersion === undefined ? "unknown" : STORAGE_VERSION,
      }),
    });
  }

  // -- what an embedder and the skins look at -----------------------------------------------------------------------------------------

  get state(): State {
    return this.#state;
  }

  get store(): MvccStore {
    return this.#state.store;
  }

  get hub(): WatchHub {
    return this.#hub;
  }

  /** NO_MEMBER when none is known. */
  get leader(): MemberId {
    return this.#leader;
  }

  get isLeader(): boolean {
    return this.#driver.isLeader;
  }

  get term(): Term {
    return this.#driver.term;
  }

  get commitIndex(): LogIndex {
    return this.#driver.commit;
  }

  get appliedIndex(): LogIndex {
    return this.#state.appliedIndex;
  }

  /** Why this member serves nobody at present, although it runs; undefined when it serves. */
  get outage(): string | undefined {
    return this.#healer === undefined ? undefined : new HealingError().message;
  }

  get isLearner(): boolean {
    return this.#state.membership.get(this.memberId)?.isLearner === true;
  }

  get walBytesWritten(): number {
    return this.#booted.wal.bytesWritten;
  }

  get pendingProposals(): number {
    return this.#proposals.pending;
  }

  raftStatus(): ReturnType<RaftDriver["status"]> {
    return this.#driver.status();
  }

  /** Called with each new leader (not with "none"). Returns how to stop it. */
  onLeaderChanged(listener: (leader: MemberId) => void): () => void {
    this.#leaderListeners.add(listener);
    return () => this.#leaderListeners.delete(listener);
  }

  /** Hands leadership over when this member leads others, then stops. Idempotent, in any state. */
  async close(options: { transfer?: boolean } = {}): Promise<void> {
    this.#closing ??= this.#shutDown(options.transfer ?? true);
    await this.#closing;
  }

  /** Something that must not happen did, in a part above: the member stops. */
  fail(error: unknown): void {
    this.#failStorage(error instanceof Error ? error : new Error(String(error)));
  }

  // -- start and end ---------------------------------------------------------------------------------------------------------------------

  async #begin(): Promise<void> {
    await this.#snapshots.start();
    const { soleMemberFrom } = this.#booted;
    if (soleMemberFrom > 0) {
      // The others may still run: nothing is said to them, or heard from them, before they have left.
      this.#driver.start();
      await this.#applier.waitFor(soleMemberFrom, SOLE_MEMBER_MS, undefined);
    }
    this.#healer = this.#makeHealer();
    this.#observer.onMembers?.([this.memberId, ...this.#booted.peers.map((peer) => peer.id)]);
    this.#transport.setPeers(this.#booted.peers);
    await this.#transport.start(
      createPeerHandlers({
        core: () => this.#core,
        clusterId: this.clusterId,
        memberId: this.memberId,
        driver: this.#driver,
        snapshots: this.#snapshots,
        membership: () => this.#state.membership,
        onRemoved: () => this.#onOwnRemoval(),
        healer: () => this.#healer,
      }),
    );
    if (soleMemberFrom === 0) this.#driver.start();
    this.#leases.start();
    this.#autoCompactor.start();
    this.#compaction.kick();
    if (this.#healer === undefined) this.#join();
    else this.#healer.start();
  }

  /** Takes part: elects, and publishes itself. */
  #join(): void {
    if (!this.#booted.fresh || this.#booted.peers.length === 0) this.#hastenElection();
    else if (this.config.initialElectionTickAdvance) this.#pollForPeers(this.#ports.clock.monotonicMs());
    this.#publish().then(
      () => {
        this.#published = true;
        this.#settleReady.resolve();
      },
      (error: unknown) => this.#settleReady.reject(EtcdError.is(error) ? error : rpcError("server-stopped", { cause: error })),
    );
  }

  #makeHealer(): Healer | undefined {
    const { healing, peers } = this.#booted;
    if (healing === undefined) return undefined;
    return new Healer({
      clock: this.#ports.clock,
      logger: this.#ports.logger,
      reason: healing.reason,
      electionMs: this.config.electionMs,
      driver: this.#driver,
      peers: () => peers.map((peer) => peer.id),
      ask: (to, signal) => this.#transport.request(to, "progress-reset", EMPTY_BYTES, { signal }),
      finish: () => healing.finish(),
      onHealed: () => {
        this.#healer = undefined;
        this.#join();
      },
      onFatal: (error) => this.#failStorage(error),
    });
  }

  /** A lone voter need not wait for anybody; others give a live leader the time to be heard. */
  #hastenElection(): void {
    if (this.#booted.peers.length === 0) {
      // The entries of the bootstrap make this member a voter once they are applied.
      const attempt = (): void => {
        if (this.#stopped !== undefined || this.#leader !== NO_MEMBER) return;
        const { voters } = this.#state.confState;
        if (voters.length === 1 && voters[0] === this.memberId) this.#driver.campaign();
        // Not alone after all, as what was committed before shows: elections come in their own time.
        else if (this.#state.appliedIndex < this.#driver.commit) this.#ports.defer(attempt);
      };
      const alone = this.#booted.fresh || this.#booted.soleMemberFrom > 0 || this.#state.confState.voters.length <= 1;
      if (alone) this.#ports.defer(attempt);
      return;
    }
    if (this.config.initialElectionTickAdvance) this.#pollForPeers(this.#ports.clock.monotonicMs());
  }

  /** Once more than one peer is connected election time jumps ahead, leaving two ticks for a live leader (cluster-behaviour.md section 1). */
  #pollForPeers(startedMs: number): void {
    this.#after(ADVANCE_POLL_MS, () => {
      if (this.#leader !== NO_MEMBER) return;
      const active = this.#booted.peers.filter((peer) => this.#transport.activeSince(peer.id) !== undefined).length;
      if (active > 1) {
        const ticks = Math.floor(this.config.electionMs / this.config.heartbeatMs);
        this.#driver.advanceTicks(Math.max(0, ticks - 2));
      } else if (this.#ports.clock.monotonicMs() - startedMs < ADVANCE_FOR_MS) {
        this.#pollForPeers(startedMs);
      }
    });
  }

  /** Tells the cluster this member's name and client URLs, until it has been applied. */
  async #publish(): Promise<void> {
    for (;;) {
      if (this.#stopped !== undefined) throw this.#stopped;
      try {
        await this.#proposals.submit(
          raftRequest(
            "member-attributes-set",
            api.ClusterMemberAttrSetRequest.create({
              memberId: this.memberId,
              memberAttributes: api.MemberAttributes.create({ name: this.config.name, clientUrls: [...this.config.advertiseClientUrls] }),
            }),
          ),
          {},
        );
        return;
      } catch (error) {
        if (this.#stopped !== undefined) throw this.#stopped;
        this.#ports.logger.warn({ error: String(error) }, "failed to publish local member to cluster");
        await new Promise<void>((resolve) => this.#after(PUBLISH_RETRY_MS, resolve));
      }
    }
  }

  #after(ms: number, fn: () => void): void {
    const timer = this.#ports.clock.timer(ms, () => {
      this.#timers.delete(timer);
      fn();
    });
    this.#timers.add(timer);
  }

  async #shutDown(transfer: boolean): Promise<void> {
    if (transfer && this.#stopped === undefined) await this.#handOver();
    this.#stop(rpcError("server-stopped"));
    this.#driver.stop();
    await this.#transport.close();
    await this.#snapshots.close();
    await this.#applier.close();
    this.#hub.close();
    await this.#passwords.close();
    await this.#booted.wal.close();
    await this.#state.close();
    await this.#booted.identity?.settled();
    await this.#booted.lock.close();
  }

  /** To the voter that has been connected for the longest time. Failure only costs the others an election timeout. */
  async #handOver(): Promise<void> {
    if (!this.#driver.isLeader) return;
    const candidates = this.#state.membership
      .voters()
      .filter((member) => member.id !== this.memberId)
      .map((member) => ({ id: member.id, since: this.#transport.activeSince(member.id) }))
      .filter((one): one is { id: MemberId; since: number } => one.since !== undefined)
      .sort((a, b) => a.since - b.since);
    const to = candidates[0]?.id;
    if (to === undefined) return;
    try {
      await this.#transferLeader(to, {}, true);
    } catch (error) {
      this.#ports.logger.warn({ error: String(error), transferee: hexId(to) }, "leadership transfer failed");
    }
  }

  /** No more answers, no more work. What is pending is told so; its outcome may be unknown. */
  #stop(error: EtcdError): void {
    if (this.#stopped !== undefined) return;
    this.#stopped = error;
    this.#leader = NO_MEMBER;
    this.#healer?.stop();
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    this.#autoCompactor.stop();
    this.#compaction.stop();
    this.#leases.stop();
    this.#proposals.stop(error);
    this.#reads.stop(error);
    this.services.stop(error);
    this.#settleReady.reject(error);
  }

  #failStorage(error: Error): void {
    const reason: FailureReason = error instanceof InvariantError ? "invariant" : isOutOfSpace(error) ? "space" : "storage";
    this.#fail(new ServerFailedError(reason, error.message, { cause: error }));
  }

  /** The member cannot keep its promises any more: it stops sending and answering at once, and never guesses on. */
  #fail(error: ServerFailedError): void {
    if (this.#stopped !== undefined) return;
    this.#ports.logger.error(
      { error: error.message, reason: error.failure, stack: error.cause instanceof Error ? error.cause.stack : undefined },
      "server error",
    );
    this.#driver.stop();
    this.#stop(error.failure === "space" ? new OutOfSpaceError({ cause: error }) : rpcError("server-stopped", { cause: error }));
    this.#settleFailed(error);
  }

  #onOwnRemoval(): void {
    if (this.#stopped !== undefined) return;
    // The others still need to learn that the removal is committed.
    this.#after(Math.max(REMOVED_GRACE_MS, this.config.electionMs), () => {
      this.#ports.logger.warn({}, "data-dir used by this member must be removed");
      this.#fail(new ServerFailedError("removed", "the member has been permanently removed from the cluster"));
    });
  }

  // -- raft's side -------------------------------------------------------------------------------------------------------------------------

  #onSoftState(state: SoftState, term: Term): void {
    const before = this.#leader;
    const now = this.#ports.clock.monotonicMs();
    if (state.leader !== before) {
      this.#leader = state.leader;
      if (state.leader === NO_MEMBER) {
        this.#lastLeaderLossMs = now;
      } else {
        this.#lastLeaderChangeMs = now;
        this.#observer.onLeaderChange?.(state.leader);
      }
      if (before !== NO_MEMBER) this.#reads.onLeaderChanged();
      this.#ports.logger.info({ leader: hexId(state.leader), term }, state.leader === NO_MEMBER ? "lost leader" : "elected leader");
    }
    if (state.role !== "leader" && this.#state.lessor.primary) this.#leases.demote();
    if (state.leader !== NO_MEMBER && state.leader !== before) {
      this.#proposals.retryWaiting();
      for (const listener of [...this.#leaderListeners]) listener(state.leader);
    }
  }

  #onApplied(index: LogIndex): void {
    this.#driver.applied(index);
    this.#reads.onApplied();
    this.#snapshots.onApplied(index);
  }

  /** Serves lagging watchers in rounds with pauses, as long as there are any. */
  #catchUp(): void {
    if (this.#catchingUp || this.#replacing || this.#stopped !== undefined) return;
    this.#catchingUp = true;
    const source = this.#state.store;
    this.#hub.catchUp().then(
      () => {
        this.#catchingUp = false;
        if (this.#stopped === undefined && this.#hub.lagging) this.#after(CATCH_UP_MS, () => this.#catchUp());
      },
      (error: unknown) => {
        this.#catchingUp = false;
        // The store it read from was replaced: the watchers go on from the new one.
        if (this.#replacing || source !== this.#state.store) return;
        if (this.#stopped === undefined) this.#failStorage(error instanceof Error ? error : new Error(String(error)));
      },
    );
  }

  #sinks(): ApplySinks {
    return {
      takeWaiter: (id) => this.#proposals.take(id),
      onEvents: (revision: Revision, events: readonly MvccEvent[]) => this.#hub.notify(revision, events),
      onConfChange: (change: ConfChange | undefined): ConfState => this.#driver.applyConfChange(change),
      onMembersChanged: (change) => this.#onMembersChanged(change),
      onTermStart: (term) => this.#onTermStart(term),
      onCompacted: () => this.#compaction.kick(),
      onLeaseRevoked: (id: LeaseId) => this.#leases.onRevoked(id),
      onAlarmsChanged: (change) => {
        for (const one of change.alarms) this.#observer.onAlarm?.({ action: change.action, alarm: alarmName(one.alarm) });
      },
      onClusterVersion: (version) => this.#ports.logger.info({ "cluster-version": version }, "set cluster version"),
      onQuotaExceeded: () => this.#raiseNoSpace(),
      onLogin: (grant) => this.#tokens.remember(grant),
      onTokensVoid: (username) => (username === undefined ? this.#tokens.forgetAll() : this.#tokens.forgetUser(username)),
      onMemberAttributes: (id) => {
        if (id === this.memberId && !this.#published)
          this.#ports.logger.info({ "local-member-id": hexId(id) }, "published local member to cluster through raft");
      },
    };
  }

  #onMembersChanged(change: MemberChange): void {
    const members = this.#state.membership.list();
    this.#booted.identity?.update(members);
    this.#observer.onMembers?.(members.map((member) => member.id));
    this.#transport.setPeers(
      members.filter((member) => member.id !== this.memberId).map((member) => ({ id: member.id, urls: member.peerUrls })),
    );
    this.#ports.logger.info({ action: change.action, "member-id": hexId(change.member.id) }, "applied a configuration change through raft");
    if (change.action === "remove" && change.member.id === this.memberId) this.#onOwnRemoval();
  }

  /** The empty entry of a term is applied: if it is this member's term, its leadership begins for everything that goes by the clock. */
  #onTermStart(term: Term): void {
    if (!this.#driver.isLeader || this.#driver.term !== term) return;
    this.#leases.promote();
    this.#reads.retryNow();
    if (this.#state.clusterVersion === undefined) {
      this.#proposals
        .submit(raftRequest("cluster-version-set", api.ClusterVersionSetRequest.create({ ver: CLUSTER_VERSION })), {})
        .catch((error: unknown) => {
          // The next leader decides it.
          this.#ports.logger.debug({ error: String(error) }, "failed to set cluster version");
        });
    }
  }

  async #installSnapshot(index: LogIndex, stateOptions: Omit<StateOptions, "backend">): Promise<void> {
    this.#replacing = true;
    await this.#applier.pauseAt(index);
    await this.#compaction.pause();
    const primary = this.#state.lessor.primary;
    const state = await this.#snapshots.install(index, stateOptions);
    this.#state = state;
    this.#replacing = false;
    if (primary) this.#leases.demote();
    this.#hub.restore(state.store);
    this.#booted.identity?.update(state.membership.list());
    this.#transport.setPeers(
      state.membership
        .list()
        .filter((member) => member.id !== this.memberId)
        .map((member) => ({ id: member.id, urls: member.peerUrls })),
    );
    this.#applier.resume();
    this.#reads.onApplied();
    this.#compaction.resume();
    if (this.#hub.lagging) this.#catchUp();
  }

  // -- the services' side -------------------------------------------------------------------------------------------------------------------

  #raiseNoSpace(): void {
    if (this.#raisingNoSpace || this.#state.alarms.list(api.AlarmType.NOSPACE).some((alarm) => alarm.memberId === this.memberId)) return;
    this.#raisingNoSpace = true;
    this.#ports.logger.warn(
      { "quota-size-bytes": quotaBytes(this.config.quotaBackendBytes) },
      "alarm NOSPACE raised: database space exceeded",
    );
    const body = api.AlarmRequest.create({ action: api.AlarmAction.ACTIVATE, memberId: this.memberId, alarm: api.AlarmType.NOSPACE });
    const done = (): void => {
      this.#raisingNoSpace = false;
    };
    this.#proposals.submit(raftRequest("alarm", body), {}).then(done, done);
  }

  /** Which of the timeouts it was: near a change of leaders, without connection to a quorum, or plain (cluster-behaviour.md section 7). */
  #timeoutError(startedMs: number): EtcdError {
    const window = 2 * this.config.electionMs;
    if (this.#lastLeaderLossMs !== undefined && startedMs >= this.#lastLeaderLossMs - window && startedMs <= this.#lastLeaderChangeMs) {
      return rpcError("timeout-leader-failure");
    }
    const voters = this.#state.membership.voters();
    if (this.#driver.isLeader) {
      const connected = voters.filter((member) => {
        if (member.id === this.memberId) return true;
        const since = this.#transport.activeSince(member.id);
        return since !== undefined && since <= startedMs;
      }).length;
      if (connected < Math.floor(voters.length / 2) + 1) return rpcError("timeout-connection-lost");
    } else if (this.#leader !== NO_MEMBER) {
      const since = this.#transport.activeSince(this.#leader);
      if (since === undefined || since > startedMs) return rpcError("timeout-connection-lost");
    }
    return rpcError("timeout");
  }

  async #probe(options: { serializable: boolean; signal?: AbortSignal }): Promise<void> {
    this.#admit({}, true, false);
    if (!options.serializable) {
      const barrier = this.#linearizable(options.signal);
      if (barrier !== undefined) await barrier;
    }
    const started = this.#ports.clock.monotonicMs();
    const { store } = this.#state;
    const request = api.RangeRequest.create({ key: new Uint8Array(1), limit: 1, keysOnly: true });
    if (store.rangeNow(request) === undefined) await store.range(request);
    this.#observer.onRead?.("Range", true, this.#ports.clock.monotonicMs() - started);
  }

  /** A lone voter that leads has applied everything it ever acknowledged, so its state is linearizable as it is. */
  #linearizable(signal: AbortSignal | undefined): Promise<void> | undefined {
    if (this.#driver.isLeader && this.#loneVoter && this.#state.lessor.primary) return undefined;
    return this.#reads.wait(signal);
  }

  get #loneVoter(): boolean {
    const { voters, votersOutgoing } = this.#state.confState;
    return voters.length === 1 && votersOutgoing.length === 0 && voters[0] === this.memberId;
  }

  /** `untilAborted`: give up as soon as raft has (after an election timeout), instead of waiting for the request timeout. */
  #transferLeader(to: MemberId, context: CallContext, untilAborted = false): Promise<void> {
    return new Promise((resolve, reject) => {
      const started = this.#ports.clock.monotonicMs();
      let timer: Timer | undefined;
      const check = (): void => {
        if (this.#leader === to) resolve();
        else if (this.#stopped !== undefined) reject(this.#stopped);
        else if (context.signal?.aborted === true) reject(abortError(context.signal));
        else if (this.#ports.clock.monotonicMs() - started >= this.#requestTimeoutMs) reject(rpcError("leader-transfer-timeout"));
        else if (untilAborted && this.#driver.isLeader && this.#driver.status().transferee !== to)
          reject(rpcError("leader-transfer-timeout"));
        else {
          timer = this.#ports.clock.timer(this.config.heartbeatMs, check);
          return;
        }
        timer?.cancel();
      };
      this.#driver.transferLeader(to);
      check();
    });
  }

  async #proposeMemberChange(change: Omit<MemberChange, "requestId">, context: CallContext): Promise<readonly MemberRecord[]> {
    const result = await this.#proposals.submitWith<MembersResult>(context, (id) => {
      const steps: ConfChange["steps"] = [{ kind: confChangeKind(change), memberId: change.member.id }];
      const confChange: ConfChange = { steps, context: encodeMemberChange({ ...change, requestId: id }) };
      return { bytes: encodeConfChange(confChange).byteLength, propose: () => this.#driver.proposeConfChange(confChange) };
    });
    return result.members;
  }

  #deadline(context: CallContext): { signal: AbortSignal; done(): void } {
    const controller = new AbortController();
    const { signal } = context;
    const onAbort = (): void => controller.abort(abortError(signal as AbortSignal));
    if (signal?.aborted === true) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
    const timer = this.#ports.clock.timer(this.#requestTimeoutMs, () => controller.abort(rpcError("timeout")));
    return {
      signal: controller.signal,
      done: () => {
        timer.cancel();
        signal?.removeEventListener("abort", onAbort);
      },
    };
  }

  /** In the caller's name; checked again when it is applied. */
  #propose<Result>(request: RaftRequest, context: CallContext): Promise<Result> {
    return this.#access.enabled ? this.#proposeAs(request, context) : this.#proposals.submit(request, context);
  }

  async #proposeAs<Result>(request: RaftRequest, context: CallContext): Promise<Result> {
    const who = await this.#access.identify(context);
    if (who !== undefined) {
      request.username = who.username;
      // A revision that makes no sense is an old one.
      request.authRevision = who.revision < 0 ? 1 : who.revision;
    }
    return this.#proposals.submit(request, context);
  }

  /** A token of a login that is not applied here yet: it may be good. */
  async #waitForToken(index: LogIndex, signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted === true) throw abortError(signal);
    if (this.#pendingTokens >= PENDING_TOKENS_MAX) throw rpcError("too-many-requests");
    this.#pendingTokens += 1;
    try {
      await this.#applier.waitFor(index, this.#requestTimeoutMs, signal);
    } catch (error) {
      throw isRpcError(error, "timeout-waiting-applied") ? rpcError("invalid-auth-token") : error;
    } finally {
      this.#pendingTokens -= 1;
    }
  }

  async #caughtUp(signal: AbortSignal | undefined): Promise<void> {
    const target = this.#driver.commit;
    if (this.#state.appliedIndex >= target) return;
    await this.#applier.waitFor(target, CAUGHT_UP_MS, signal);
  }

  #admit(context: CallContext, learnerMay: boolean, healingMay: boolean): void {
    if (this.#stopped !== undefined) throw this.#stopped;
    if (this.#healer !== undefined && !healingMay) throw new HealingError();
    if (!learnerMay && this.isLearner) throw rpcError("not-supported-for-learner");
    if (context.requireLeader === true && this.#leader === NO_MEMBER) throw rpcError("no-leader");
  }

  #makeCore(): ServiceCore {
    const server = this;
    return {
      config: this.config,
      clock: this.#ports.clock,
      logger: this.#ports.logger,
      clusterId: this.clusterId,
      memberId: this.memberId,
      ids: this.#ids,
      hub: this.#hub,
      leases: this.#leases,
      compaction: this.#compaction,
      access: this.#access,
      requestTimeoutMs: this.#requestTimeoutMs,
      get state() {
        return server.#state;
      },
      get term() {
        return server.#driver.term;
      },
      get leader() {
        return server.#leader;
      },
      get isLeader() {
        return server.#driver.isLeader;
      },
      get isLearner() {
        return server.isLearner;
      },
      get outage() {
        return server.outage;
      },
      get commitIndex() {
        return server.#driver.commit;
      },
      raftStatus: () => this.#driver.status(),
      admit: (context, options) => this.#admit(context, options?.learnerMay ?? false, options?.healingMay ?? false),
      linearizable: (signal) => this.#linearizable(signal),
      propose: (request, context) => this.#propose(request, context),
      proposeMemberChange: (change, context) => this.#proposeMemberChange(change, context),
      askPeer: (to, kind, body, signal) => this.#transport.request(to, kind, body, { signal }),
      activeSince: (member) => (member === this.memberId ? 0 : this.#transport.activeSince(member)),
      transferLeader: (to, context) => this.#transferLeader(to, context),
      deadline: (context) => this.#deadline(context),
      caughtUp: (signal) => this.#caughtUp(signal),
      header: (revision) => ({ clusterId: this.clusterId, memberId: this.memberId, revision, raftTerm: this.#driver.term }),
      raiseNoSpace: () => this.#raiseNoSpace(),
      yieldNow: () => new Promise<void>((resolve) => this.#ports.defer(resolve)),
      onRead: (kind, ok, milliseconds) => this.#observer.onRead?.(kind, ok, milliseconds),
    };
  }

  /** For GET /members on the peer port. */
  membersMessage(): api.Member[] {
    return this.#state.membership.list().map(toMessage);
  }
}

function confChangeKind(change: Omit<MemberChange, "requestId">): ConfChange["steps"][number]["kind"] {
  switch (change.action) {
    case "add":
      return change.member.isLearner ? "add-learner" : "add-voter";
    case "promote":
      return "add-voter";
    case "update":
      return "update";
    case "remove":
      return "remove";
    default:
      return change.action satisfies never;
  }
}
