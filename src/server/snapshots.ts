/**
 * Snapshots of one member: checkpoints that let the log be cut, states streamed to members that are too far behind for the log, and states received from the
 * leader. Formats and the swap of the store are in `snapshot/`; this is the life cycle (docs/ARCHITECTURE.md).
 */
import { type Backend, createBatch } from "../backend/index.ts";
import { RowSpace } from "../backend/row-spaces.ts";
import { assert } from "../base/assert.ts";
import { equalBytes } from "../base/bytes.ts";
import type { Timer } from "../base/clock.ts";
import { EtcdError } from "../base/errors.ts";
import type { ClusterId, LogIndex } from "../base/ids.ts";
import { hexId } from "../base/ids.ts";
import { decodeLeaseRow } from "../lease/index.ts";
import { compactionMarks, EtcdRows } from "../mvcc/index.ts";
import type { SnapshotMetadata, SnapshotRequest } from "../raft/index.ts";
import type { WalFace } from "../wal/index.ts";
import { belongsToSnapshot, decodeConfState, State, type StateOptions } from "./apply/state.ts";
import { encodePosition } from "./backend-writer.ts";
import { writeBackup } from "./backup.ts";
import { backendDirectory, snapshotDirectory } from "./bootstrap.ts";
import { isDamage } from "./bootstrap-error.ts";
import { openRow } from "./checked-row.ts";
import type { ServerConfig, ServerPorts } from "./config.ts";
import { APPLIED_KEY, CHECKPOINT_KEY } from "./meta-rows.ts";
import type { PeerTransport, SnapshotInfo, SnapshotSource } from "./peer/index.ts";
import type { RaftDriver } from "./raft-driver.ts";
import type { ServerStorage } from "./server-storage.ts";
import {
  decideSwap,
  diskSpool,
  finishSwap,
  memorySpool,
  prepareIncoming,
  type ReceivedSnapshot,
  SnapshotReceiver,
  type SpoolStorage,
  writeSnapshotSpool,
} from "./snapshot/index.ts";

export interface SnapshotsOptions {
  readonly config: ServerConfig;
  readonly ports: ServerPorts;
  readonly wal: WalFace;
  readonly clusterId: ClusterId;
  readonly storage: ServerStorage;
  readonly transport: PeerTransport;
  state(): State;
  driver(): RaftDriver;
  onFatal(error: Error): void;
}

/** A received state that raft did not take in this time is deleted. */
const UNWANTED_MS = 30_000;
/** A spool that could not be sent so often is not used again. */
const SPOOL_FAILURES_MAX = 2;
/** A spool that nobody asked for in this time is deleted. */
const SPOOL_IDLE_MS = 60_000;
/** After a snapshot was delivered the log it leads to is kept for this long, so that the receiver can go on from it. */
const KEEP_LOG_MS = 30_000;

interface Spool {
  readonly metadata: SnapshotMetadata;
  readonly source: SnapshotSource;
  users: number;
  failures: number;
  idle: Timer | undefined;
}

interface Incoming {
  readonly metadata: SnapshotMetadata;
  readonly received: ReceivedSnapshot;
  readonly backend: Backend;
  timer: Timer | undefined;
}

export class Snapshots {
  readonly #options: SnapshotsOptions;
  readonly #receiver: SnapshotReceiver;
  readonly #spoolStorage: SpoolStorage;
  readonly #abort = new AbortController();
  #spool: Spool | undefined;
  #preparing: Promise<void> | undefined;
  #checkpointing: Promise<void> | undefined;
  #lastCheckpoint: LogIndex;
  /** Received and offered to raft, which has not taken it yet. */
  #incoming: Incoming | undefined;
  /** Taken by raft, not yet the state. */
  #installing: Incoming | undefined;
  /** The log is not cut beyond this index before this time: a member that got a snapshot still needs what follows. */
  #keep: { index: LogIndex; untilMs: number } | undefined;
  #closed = false;
  #backups = 0;
  readonly #tasks = new Set<Promise<unknown>>();

  constructor(options: SnapshotsOptions) {
    this.#options = options;
    const { config, ports } = options;
    const storage = config.inMemory ? memorySpool() : diskSpool(ports.disk, snapshotDirectory(config));
    this.#receiver = new SnapshotReceiver({ storage, clusterId: options.clusterId, defer: ports.defer });
    this.#lastCheckpoint = options.state().appliedIndex;
    this.#spoolStorage = storage;
  }

  /** Removes what an earlier life left behind. */
  async start(): Promise<void> {
    await this.#receiver.removeLeftovers();
  }

  // -- checkpoints --------------------------------------------------------------------------------------------------------------------------

  /** Called after every slice of applied entries; begins a checkpoint when enough has been applied since the last. */
  onApplied(index: LogIndex): void {
    if (index - this.#lastCheckpoint <= this.#options.config.snapshotCount) return;
    if (this.#checkpointing !== undefined || this.#closed || this.#installing !== undefined) return;
    this.#checkpointing = this.checkpoint().then(
      () => {
        this.#checkpointing = undefined;
      },
      (error: unknown) => {
        this.#checkpointing = undefined;
        if (!this.#closed) this.#options.onFatal(error instanceof Error ? error : new Error(String(error)));
      },
    );
  }

  /** Makes the state durable, marks that in the log, and lets go of the log behind it. */
  async checkpoint(): Promise<void> {
    const { wal, storage, config, ports } = this.#options;
    const state = this.#options.state();
    state.saveSize();
    const { position, confState } = await state.writer.checkpoint();
    if (position.index <= this.#lastCheckpoint && this.#lastCheckpoint > 0) return;
    const metadata: SnapshotMetadata = { index: position.index, term: position.term, confState: decodeConfState(confState) };
    await new Promise<void>((resolve, reject) => {
      wal.append({ entries: [], snapshot: metadata, mustSync: true }, (error) => (error === undefined ? resolve() : reject(error)));
    });
    this.#lastCheckpoint = position.index;
    let floor = Math.max(0, position.index - config.snapshotCatchUpEntries);
    if (this.#keep !== undefined && this.#keep.untilMs > ports.clock.monotonicMs()) floor = Math.min(floor, this.#keep.index);
    if (this.#spool !== undefined && this.#spool.users > 0) floor = Math.min(floor, this.#spool.metadata.index);
    storage.compact(floor);
    await wal.purge(position.index, config.maxWals);
    ports.logger.info({ "snapshot-index": position.index, "compact-index": floor }, "saved snapshot");
  }

  // -- sending ----------------------------------------------------------------------------------------------------------------------------------

  /** What raft may offer to a member that is too far behind, at `from` or behind it; undefined while it is being written: raft asks again. */
  offer(from: LogIndex): SnapshotMetadata | undefined {
    const spool = this.#spool;
    if (spool !== undefined && spool.metadata.index >= Math.max(from, this.#options.storage.firstIndex() - 1)) return spool.metadata;
    // Too early: what is being written now would be of no use.
    if (this.#options.state().writer.written.index < from) return undefined;
    if (this.#preparing === undefined && !this.#closed && this.#installing === undefined) {
      this.#preparing = this.#track(this.#prepare()).then(
        () => {
          this.#preparing = undefined;
        },
        (error: unknown) => {
          this.#preparing = undefined;
          if (this.#closed) return;
          this.#options.ports.logger.warn({ error: String(error) }, "failed to write a snapshot for a slow member");
          // This member's own state is damaged; when it comes back it will be healed.
          if (isDamage(error)) this.#options.onFatal(error);
        },
      );
    }
    return undefined;
  }

  async #prepare(): Promise<void> {
    const { clusterId } = this.#options;
    const state = this.#options.state();
    const { snapshot, position, confState } = await state.writer.snapshot();
    const metadata: SnapshotMetadata = { index: position.index, term: position.term, confState: decodeConfState(confState) };
    try {
      const source = await writeSnapshotSpool({
        backend: state.backend,
        snapshot,
        header: { clusterId, ...metadata },
        storage: this.#spoolStorage,
        tag: "state",
        includes: belongsToSnapshot,
        check: rowChecker(),
        defer: this.#options.ports.defer,
        signal: this.#abort.signal,
      });
      const old = this.#spool;
      this.#spool = { metadata, source, users: 0, failures: 0, idle: undefined };
      this.#armIdle(this.#spool);
      if (old !== undefined && old.users === 0) await this.#dispose(old);
      if (this.#closed) await this.#dispose(this.#spool);
    } finally {
      await snapshot.close();
    }
  }

  /** Streams the state that raft decided to send. Raft is told how it went. */
  send(message: SnapshotRequest): void {
    const driver = this.#options.driver();
    const spool = this.#spool;
    if (spool === undefined || spool.metadata.index !== message.snapshot.metadata.index || this.#closed) {
      driver.reportSnapshot(message.to, "failed");
      return;
    }
    spool.users++;
    spool.idle?.cancel();
    const { logger, clock } = this.#options.ports;
    logger.info(
      { to: hexId(message.to), "snapshot-index": spool.metadata.index, bytes: spool.source.info.sizeBytes },
      "sending database snapshot",
    );
    const done = (outcome: "received" | "failed"): void => {
      spool.users--;
      this.#keep = { index: spool.metadata.index, untilMs: clock.monotonicMs() + KEEP_LOG_MS };
      if (spool.users === 0) {
        if (spool !== this.#spool || this.#closed) this.#background(this.#dispose(spool));
        else this.#armIdle(spool);
      }
      driver.reportSnapshot(message.to, outcome);
    };
    this.#background(
      this.#options.transport.sendSnapshot(message, spool.source, this.#abort.signal).then(
        () => {
          logger.info({ to: hexId(message.to), "snapshot-index": spool.metadata.index }, "sent database snapshot");
          done("received");
        },
        (error: unknown) => {
          logger.warn({ to: hexId(message.to), error: String(error) }, "failed to send database snapshot");
          // Whoever gets it checks all of it. What cannot be sent twice may have been damaged where it was spooled: the next one is made anew.
          spool.failures += 1;
          if (spool.failures >= SPOOL_FAILURES_MAX && this.#spool === spool) this.#spool = undefined;
          done("failed");
        },
      ),
    );
  }

  #armIdle(spool: Spool): void {
    spool.idle?.cancel();
    spool.idle = this.#options.ports.clock.timer(SPOOL_IDLE_MS, () => {
      if (spool.users > 0) return;
      if (this.#spool === spool) this.#spool = undefined;
      this.#background(this.#dispose(spool));
    });
  }

  async #dispose(spool: Spool): Promise<void> {
    spool.idle?.cancel();
    if (this.#spool === spool) this.#spool = undefined;
    await spool.source.close();
  }

  // -- backup ------------------------------------------------------------------------------------------------------------------------------------

  /** The store at one position, for `Maintenance.Snapshot`: blobs of the file, then its digest. */
  async *backup(signal: AbortSignal | undefined): AsyncGenerator<{ blob: Uint8Array; remainingBytes: number }> {
    const state = this.#options.state();
    yield* writeBackup({
      state,
      storage: this.#spoolStorage,
      tag: `backup${(++this.#backups).toString(36)}`,
      defer: this.#options.ports.defer,
      signal: signal === undefined ? this.#abort.signal : AbortSignal.any([signal, this.#abort.signal]),
    });
  }

  // -- receiving ------------------------------------------------------------------------------------------------------------------------------

  async bytesHeld(info: SnapshotInfo): Promise<number> {
    return this.#receiver.bytesHeld(info);
  }

  /**
   * Stores an incoming state, checks all of it, builds a store from it beside the live one, and only then tells raft: what raft accepts is on disk already.
   */
  async receive(message: SnapshotRequest, chunks: AsyncIterable<Uint8Array>, info: SnapshotInfo): Promise<void> {
    const { config, ports } = this.#options;
    const { metadata } = message.snapshot;
    // One that raft did not want (a stale leader's, or overtaken by the log) makes room for the next.
    if (this.#incoming !== undefined) await this.#drop(this.#incoming);
    const received = await this.#receiver.receive(info, chunks, metadata);
    let backend: Backend | undefined;
    try {
      if (metadata.index <= this.#options.state().appliedIndex || this.#installing !== undefined) {
        // Overtaken by the log: raft answers by telling where this member is.
        await received.discard();
        this.#options.driver().step(message);
        return;
      }
      ports.logger.info(
        { from: hexId(message.from), "snapshot-index": metadata.index, bytes: info.sizeBytes },
        "received database snapshot",
      );
      const directory = config.inMemory ? "" : await prepareIncoming(ports.disk, snapshotDirectory(config), metadata.index);
      backend = await ports.openBackend(directory);
      await received.installInto(backend);
      const position = encodePosition({ index: metadata.index, term: metadata.term, sequence: 1, link: 0 });
      const batch = createBatch();
      batch.put(APPLIED_KEY, position);
      batch.put(CHECKPOINT_KEY, position);
      await backend.write(batch);
      await backend.checkpoint();
      if (this.#closed) throw new Error("closed while a snapshot was being received");
    } catch (error) {
      await backend?.close();
      await received.discard();
      throw error;
    }
    const incoming: Incoming = { metadata, received, backend, timer: undefined };
    incoming.timer = ports.clock.timer(UNWANTED_MS, () => {
      if (this.#incoming === incoming) this.#background(this.#drop(incoming));
    });
    this.#incoming = incoming;
    this.#options.driver().step(message);
  }

  /** Raft accepted the received state: after this a restart uses it as soon as its marker is in the log. */
  async decide(index: LogIndex): Promise<void> {
    const { config, ports } = this.#options;
    const incoming = this.#incoming;
    assert(incoming !== undefined && incoming.metadata.index === index, "raft installs the snapshot that was received", { index });
    incoming.timer?.cancel();
    this.#incoming = undefined;
    this.#installing = incoming;
    if (config.inMemory) return;
    await incoming.backend.close();
    await decideSwap(ports.disk, snapshotDirectory(config), index);
  }

  /** Swaps the received store in; the applier stands still. Returns the new state. */
  async install(index: LogIndex, stateOptions: Omit<StateOptions, "backend">): Promise<State> {
    const { config, ports } = this.#options;
    const incoming = this.#installing;
    assert(incoming !== undefined && incoming.metadata.index === index, "the decided snapshot is installed", { index });
    // What works on the old store ends before the store does.
    await Promise.allSettled([this.#checkpointing, this.#preparing]);
    const old = this.#options.state();
    let { backend } = incoming;
    await old.close();
    if (!config.inMemory) {
      await finishSwap(ports.disk, snapshotDirectory(config));
      backend = await ports.openBackend(backendDirectory(config));
    }
    const state = await State.open({ ...stateOptions, backend });
    assert(state.appliedIndex === index, "the store is at the index of its snapshot", { index, applied: state.appliedIndex });
    this.#installing = undefined;
    await incoming.received.discard();
    this.#lastCheckpoint = index;
    ports.logger.info({ "snapshot-index": index, revision: state.store.revision }, "applied snapshot");
    return state;
  }

  async #drop(incoming: Incoming): Promise<void> {
    if (this.#incoming === incoming) this.#incoming = undefined;
    incoming.timer?.cancel();
    await incoming.backend.close();
    await incoming.received.discard();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#abort.abort();
    await Promise.allSettled([...this.#tasks]);
    await Promise.allSettled([this.#checkpointing, this.#preparing]);
    if (this.#spool !== undefined) await this.#dispose(this.#spool);
    if (this.#incoming !== undefined) await this.#drop(this.#incoming);
    if (this.#installing !== undefined) {
      await this.#installing.backend.close();
      await this.#installing.received.discard();
    }
    await this.#receiver.close();
  }

  #track<T>(task: Promise<T>): Promise<T> {
    this.#tasks.add(task);
    const forget = (): void => {
      this.#tasks.delete(task);
    };
    task.then(forget, forget);
    return task;
  }

  /** Work nobody waits for; its failure is worth a line, no more. */
  #background(task: Promise<unknown>): void {
    this.#track(task).catch((error: unknown) => {
      const text = EtcdError.is(error) ? error.message : String(error);
      if (!this.#closed) this.#options.ports.logger.warn({ error: text }, "snapshot work failed");
    });
  }
}

/** Throws for rows that are not as they were written. */
function rowChecker(): (key: Uint8Array, value: Uint8Array) => void {
  const rows = new EtcdRows();
  return (key, value) => {
    switch (key[0]) {
      case RowSpace.revision:
        rows.toEtcd(key, value);
        return;
      case RowSpace.lease:
        decodeLeaseRow(key, value);
        return;
      case RowSpace.member:
      case RowSpace.alarm:
      case RowSpace.auth:
        openRow(key, value, "a row of the state that another member needs");
        return;
      case RowSpace.meta:
        if (equalBytes(key, compactionMarks.askedKey) || equalBytes(key, compactionMarks.finishedKey)) compactionMarks.decode(value);
        else openRow(key, value, "a row of the state that another member needs");
        return;
      default:
        return;
    }
  };
}
