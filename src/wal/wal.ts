/**
 * The write-ahead log, which is the only truth of a member: what is not here was never acknowledged.
 *
 * Appends are collected in groups: everything queued while one sync runs becomes one record, one write and one sync (group commit by
 * load, no timer). Groups are all or nothing after a crash, and no group is written before the sync of the one before it returned;
 * repair.ts builds on that and explains what is and is not detected. Bytes: docs/FORMATS.md.
 *
 * A segment is made of zeros that are on disk before it is used, and given its name only then: the next one is prepared beside the
 * current one under a temporary name. Filling it with zeros keeps step with the log (256 KiB at a time), because a sync that must also
 * allocate blocks was measured at 1.4 times the cost of one that need not.
 */
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import type { Disk, DiskFile } from "../base/disk.ts";
import type { ClusterId, LogIndex, MemberId, Term } from "../base/ids.ts";
import { NO_MEMBER } from "../base/ids.ts";
import { type Logger, silentLogger } from "../base/logger.ts";
import type { Entry, HardState, SnapshotMetadata } from "../raft/entry.ts";
import { WalClosedError, WalExistsError, WalFailedError } from "./errors.ts";
import {
  entryBytes,
  HEADER_BYTES,
  hardStateBytes,
  headPayloadBytes,
  logSeed,
  PAYLOAD_BYTES_MAX,
  RecordEncoder,
  recordBytes,
  SEGMENT_BYTES_MAX,
  type SegmentHead,
  snapshotBytes,
  type WalPosition,
} from "./record.ts";
import { type Recovered, readOwner, recover } from "./recovery.ts";
import { NO_HARD_STATE, NO_SNAPSHOT } from "./replay.ts";
import { type SegmentName, segmentName, sortSegments, temporaryName } from "./segment.ts";
import { TermRuns } from "./term-runs.ts";

export interface WalMetadata {
  readonly memberId: MemberId;
  readonly clusterId: ClusterId;
}

/** What one `append` makes durable together: after a crash all of it is there or nothing. */
export interface WalAppend {
  readonly hardState?: HardState | undefined;
  /** Contiguous; may overwrite a suffix of what was appended before, but nothing committed. Not copied: leave them unchanged until `done`. */
  readonly entries: readonly Entry[];
  /**
   * A snapshot marker: the state machine is durable up to here, replay may start behind it. Always synced, and takes effect before
   * `entries`. When the log has that entry (same index and term) it goes on across the marker; otherwise the snapshot came from the
   * leader and replaces the whole log. A marker at or below the newest one is ignored.
   */
  readonly snapshot?: SnapshotMetadata | undefined;
  /** False only when nothing but the commit index changed. Entries, markers, terms and votes are synced whatever it says. */
  readonly mustSync: boolean;
}

export interface WalContents {
  readonly metadata: WalMetadata;
  /** The commit index is never below the snapshot's and never above the last entry's. */
  readonly hardState: HardState;
  /** The newest durable snapshot marker; index 0 for none. */
  readonly snapshot: SnapshotMetadata;
  /** Entries behind the snapshot marker, contiguous, later writes having replaced earlier ones of the same index. */
  readonly entries: readonly Entry[];
  /** A torn tail was cut: bytes dropped and where (only what was never acknowledged). */
  readonly repaired?: { readonly segment: string; readonly offset: number; readonly droppedBytes: number };
}

export interface WalFace {
  /**
   * Queues one append. Everything queued while a sync runs joins the next group: one write and one fdatasync for all of it.
   * `done` is called in order, once each, with an error when the write or sync failed; after the first error every later
   * append fails with it too, nothing is retried, and the owner must stop (catalogue BW19). `done` must not throw.
   */
  append(append: WalAppend, done: (error?: Error) => void): void;
  /** Deletes segments whose entries all lie at or below `index`, keeping at least `keepSegments` and everything needed from the last marker on. */
  purge(index: LogIndex, keepSegments: number): Promise<void>;
  /** Flushes what is queued, then closes. Idempotent. */
  close(): Promise<void>;
  /** Bytes written since open, for metrics. */
  readonly bytesWritten: number;
  /** Bytes of appends whose `done` has not been called. Unbounded here: whoever appends holds back above a bound of its own. */
  readonly queuedBytes: number;
}

export interface WalOptions {
  readonly disk: Disk;
  /** Holds the segments and nothing else; may lie anywhere. */
  readonly directory: string;
  /** Size at which a segment is cut (default 64,000,000, at least 1024). A single append larger than that gets a segment to itself. */
  readonly segmentBytes?: number;
  readonly logger?: Logger;
  /** For `onSyncMs` and the warning about slow syncs; neither happens without it. */
  readonly clock?: Clock;
  /** Called after each sync of the log with its duration. */
  readonly onSyncMs?: (ms: number) => void;
  /**
   * Breakages for the mutant run: `wal-skip-entry-sync` and `wal-skip-vote-sync` acknowledge without a sync, `wal-drop-directory-sync` never
   * syncs a directory, `wal-skip-claims` writes no claims, so that damage passes for a torn tail. Undefined in production.
   */
  readonly mutants?: ReadonlySet<string>;
}

export interface WalCreateOptions extends WalOptions {
  readonly metadata: WalMetadata;
}

const SKIP_ENTRY_SYNC = "wal-skip-entry-sync";
const SKIP_VOTE_SYNC = "wal-skip-vote-sync";
const DROP_DIRECTORY_SYNC = "wal-drop-directory-sync";
const SKIP_CLAIMS = "wal-skip-claims";
const NO_MUTANTS: ReadonlySet<string> = new Set();
const NOWHERE: WalPosition = { segment: 0, offset: 0 };

const SEGMENT_BYTES_DEFAULT = 64_000_000;
const SEGMENT_BYTES_MIN = 1024;
/** Payload above which a group takes no further append. */
const GROUP_BYTES_MAX = 1 << 20;
const FILL_BYTES = 256 << 10;
const FILL_ZEROS = new Uint8Array(FILL_BYTES);
const SLOW_SYNC_MS = 1000;
/** A mark and a seal always fit behind the last group. */
const RESERVED_BYTES = 2 * HEADER_BYTES;

interface Pending {
  readonly hardState: HardState | undefined;
  readonly entries: readonly Entry[];
  readonly snapshot: SnapshotMetadata | undefined;
  readonly replacesLog: boolean;
  readonly sync: boolean;
  /** Exact bytes of the items but the hard state, of which a group writes only the last. */
  readonly bytes: number;
  readonly done: (error?: Error) => void;
}

interface Active {
  readonly segment: SegmentName;
  readonly file: DiskFile;
  /** End of the head. */
  readonly start: number;
  /** Where the next record goes. */
  offset: number;
  /** Something was written since the last sync. */
  dirty: boolean;
}

/** The next segment under its temporary name. */
interface Prepared {
  readonly name: string;
  readonly file: DiskFile;
  filledBytes: number;
  /** Undefined while no fill runs. */
  filling: Promise<void> | undefined;
}

export class Wal implements WalFace {
  readonly metadata: WalMetadata;
  bytesWritten = 0;
  queuedBytes = 0;

  readonly #disk: Disk;
  readonly #directory: string;
  readonly #segmentBytes: number;
  readonly #logger: Logger;
  readonly #clock: Clock | undefined;
  readonly #onSyncMs: ((ms: number) => void) | undefined;
  readonly #mutants: ReadonlySet<string>;
  readonly #seed: number;
  readonly #encoder = new RecordEncoder();

  /** As of the last append accepted, written or not. */
  #hardState: HardState;
  #snapshotIndex: LogIndex;
  readonly #terms: TermRuns;

  /** As of the last record written: what a head repeats. */
  #writtenHardState: HardState;
  #writtenSnapshot: SnapshotMetadata;
  #writtenLastIndex: LogIndex;
  #writtenLastTerm: Term;
  #crc: number;
  #synced: WalPosition;
  /** Index of the newest marker that is on disk. */
  #durableSnapshotIndex: LogIndex;

  #active: Active;
  /** Ascending; the last one is the active segment. */
  #segments: SegmentName[];
  /** The next segment; undefined while it is being prepared, or when that failed. */
  #next: Prepared | undefined;
  #preparing: Promise<void> = Promise.resolve();
  /** The finished segment being sealed and closed in the background. */
  #sealing: Promise<void> = Promise.resolve();
  #purging: Promise<void> = Promise.resolve();

  #queue: Pending[] = [];
  /** The loop that writes groups; undefined while there is nothing to do. */
  #loop: Promise<void> | undefined;
  #failure: Error | undefined;
  #closing: Promise<void> | undefined;

  private constructor(options: WalOptions, state: WalState) {
    this.metadata = state.metadata;
    this.#disk = options.disk;
    this.#directory = options.directory;
    this.#segmentBytes = segmentBytesOf(options);
    this.#logger = options.logger ?? silentLogger;
    this.#clock = options.clock;
    this.#onSyncMs = options.onSyncMs;
    this.#mutants = options.mutants ?? NO_MUTANTS;
    this.#seed = logSeed(state.metadata.clusterId, state.metadata.memberId);
    this.#hardState = state.hardState;
    this.#writtenHardState = state.hardState;
    this.#writtenSnapshot = state.snapshot;
    this.#snapshotIndex = state.snapshot.index;
    this.#durableSnapshotIndex = state.snapshot.index;
    this.#terms = new TermRuns(state.snapshot, state.entries);
    this.#writtenLastIndex = this.#terms.lastIndex;
    this.#writtenLastTerm = this.#terms.lastTerm;
    this.#crc = state.crc;
    this.#synced = { segment: state.active.segment.sequence, offset: state.active.offset };
    this.#active = state.active;
    this.#segments = [...state.segments];
  }

  /** True when the directory holds a log (readable or not). */
  static async exists(disk: Disk, directory: string): Promise<boolean> {
    return sortSegments((await disk.list(directory)) ?? []).segments.length > 0;
  }

  /**
   * Makes the directory (and its parents) and an empty log, all of it durable when this resolves. A crash in between leaves no log, and
   * `create` can be called again. Throws WalExistsError or the disk's error.
   */
  static async create(options: WalCreateOptions): Promise<Wal> {
    const { disk, directory, metadata } = options;
    const syncDirectories = !(options.mutants ?? NO_MUTANTS).has(DROP_DIRECTORY_SYNC);
    if (await Wal.exists(disk, directory)) throw new WalExistsError(directory);
    await makeDirectories(disk, directory, syncDirectories);
    const encoder = new RecordEncoder();
    const segmentBytes = segmentBytesOf(options);
    const head: SegmentHead = { ...metadata, segmentBytes, hardState: NO_HARD_STATE, snapshot: NO_SNAPSHOT };
    encoder.start(headPayloadBytes(head));
    encoder.head(head);
    const { bytes, crc } = encoder.finish({
      type: "head",
      seed: logSeed(metadata.clusterId, metadata.memberId),
      previousCrc: 0,
      position: { segment: 0, offset: 0 },
      synced: { segment: 0, offset: 0 },
      lastIndex: 0,
      lastTerm: 0,
    });
    const segment: SegmentName = { name: segmentName(0, 0), sequence: 0, lastIndexBefore: 0 };
    const temporary = `${directory}/${temporaryName(0)}`;
    await disk.remove(temporary);
    const file = await disk.open(temporary, { create: true });
    try {
      await file.truncate(segmentBytes);
      file.writeNow(0, bytes);
      await file.sync();
      await disk.rename(temporary, `${directory}/${segment.name}`);
      if (syncDirectories) await disk.syncDirectory(directory);
    } catch (error) {
      await file.close();
      throw error;
    }
    const wal = new Wal(options, {
      metadata,
      hardState: NO_HARD_STATE,
      snapshot: NO_SNAPSHOT,
      entries: [],
      crc,
      active: { segment, file, start: bytes.byteLength, offset: bytes.byteLength, dirty: false },
      segments: [segment],
    });
    wal.bytesWritten += bytes.byteLength;
    wal.#preparing = wal.#prepare();
    return wal;
  }

  /**
   * Reads the log, cuts a torn tail, and makes everything it returns durable (after the death of the process alone, records may be in
   * the page cache only). `entries` hold views of the memory the segments were read into.
   * Throws WalMissingError, WalCorruptError (nothing was changed then) or the disk's error.
   */
  static async open(options: WalOptions): Promise<{ wal: Wal; contents: WalContents }> {
    const { disk, directory } = options;
    const logger = options.logger ?? silentLogger;
    const recovered = await recover(disk, directory, logger);
    const { reader, last } = recovered;
    const contents = contentsOf(recovered);
    let wal: Wal;
    try {
      if (contents.repaired !== undefined) logger.warn({ directory, ...contents.repaired }, "dropped a torn tail of the log");
      await settleTail(recovered);
      if (!(options.mutants ?? NO_MUTANTS).has(DROP_DIRECTORY_SYNC)) await disk.syncDirectory(directory);
      for (const name of recovered.temporary) await disk.remove(`${directory}/${name}`);
      wal = new Wal(options, {
        metadata: contents.metadata,
        hardState: contents.hardState,
        snapshot: contents.snapshot,
        entries: contents.entries,
        crc: last.crc,
        active: { segment: last.segment, file: reader.file, start: last.start, offset: last.end, dirty: false },
        segments: recovered.segments,
      });
      // Not needed when the log already ends in one: opening again and again must not make it grow.
      if (last.type !== "mark") wal.#mark();
      wal.#preparing = wal.#prepare();
    } catch (error) {
      await reader.close();
      throw error;
    }
    return { wal, contents };
  }

  /** Whose log it is, as far as one head can be read; undefined when none can, or there is no log. Also for logs that `open` refuses. */
  static async readMetadata(disk: Disk, directory: string): Promise<WalMetadata | undefined> {
    return readOwner(disk, directory);
  }

  /** What `open` would return, without changing anything: for offline tools. Same errors. */
  static async read(options: { disk: Disk; directory: string; logger?: Logger }): Promise<WalContents> {
    const recovered = await recover(options.disk, options.directory, options.logger ?? silentLogger);
    await recovered.reader.close();
    return contentsOf(recovered);
  }

  append(append: WalAppend, done: (error?: Error) => void): void {
    const failure = this.#failure ?? (this.#closing === undefined ? undefined : new WalClosedError());
    if (failure !== undefined) {
      queueMicrotask(() => done(failure));
      return;
    }
    let pending: Pending;
    try {
      pending = this.#accept(append, done);
    } catch (error) {
      // The caller broke a rule of the log: nothing that it says can be trusted any more.
      this.#fail(error);
      throw error;
    }
    this.#queue.push(pending);
    this.queuedBytes += pending.bytes;
    this.#loop ??= this.#run();
  }

  purge(index: LogIndex, keepSegments: number): Promise<void> {
    // One at a time; an error is the caller's, and must not stop the next purge.
    const purge = this.#purging.then(() => this.#purge(index, keepSegments));
    this.#purging = purge.catch(() => undefined);
    return purge;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** Checks the append against the log as it will be when all before it are written, and takes it into account. */
  #accept(append: WalAppend, done: (error?: Error) => void): Pending {
    const { entries } = append;
    const terms = this.#terms;
    const old = this.#hardState;
    let bytes = 0;

    let snapshot = append.snapshot;
    let replacesLog = false;
    if (snapshot !== undefined && snapshot.index <= this.#snapshotIndex) {
      this.#logger.debug({ index: snapshot.index, newest: this.#snapshotIndex }, "ignored a snapshot marker that is not newer");
      snapshot = undefined;
    }
    if (snapshot !== undefined) {
      replacesLog = terms.termAt(snapshot.index) !== snapshot.term;
      assert(!replacesLog || snapshot.index > old.commit, "a snapshot contradicts a committed entry");
      terms.mark(snapshot.index, snapshot.term, replacesLog);
      this.#snapshotIndex = snapshot.index;
      bytes += snapshotBytes(snapshot);
    }

    const committed = Math.max(old.commit, this.#snapshotIndex);
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i] as Entry;
      assert(entry.index > committed, "an append overwrites a committed entry");
      assert(i === 0 || entry.index === (entries[i - 1] as Entry).index + 1, "entries of one append are not contiguous");
      terms.append(entry.index, entry.term);
      bytes += entryBytes(entry);
    }
    assert(bytes < PAYLOAD_BYTES_MAX, "an append is too large for one record");

    const given = append.hardState ?? old;
    // A snapshot holds committed entries only.
    const state = given.commit < this.#snapshotIndex ? { ...given, commit: this.#snapshotIndex } : given;
    const electionChanged = state.term !== old.term || state.vote !== old.vote;
    assert(state.term >= old.term, "the term went back");
    assert(state.term > old.term || old.vote === NO_MEMBER || state.vote === old.vote, "a vote was changed within a term");
    assert(state.commit >= old.commit, "the commit index went back");
    assert(state.commit <= terms.lastIndex, "the commit index is behind the last entry");
    this.#hardState = state;

    let sync = append.mustSync || append.snapshot !== undefined || entries.length > 0 || electionChanged;
    if (entries.length > 0 && this.#mutants.has(SKIP_ENTRY_SYNC)) sync = false;
    if (entries.length === 0 && electionChanged && this.#mutants.has(SKIP_VOTE_SYNC)) sync = false;
    return { hardState: state === old ? undefined : state, entries, snapshot, replacesLog, sync, bytes, done };
  }

  async #run(): Promise<void> {
    // Appends made later in the same turn join the first group.
    await Promise.resolve();
    /** Written and synced, but their callbacks are still due. */
    let ready: readonly Pending[] = [];
    let group: readonly Pending[] = [];
    try {
      for (;;) {
        if (this.#failure !== undefined) throw this.#failure;
        group = this.#takeGroup();
        if (group.length === 0) {
          const due = ready;
          ready = [];
          this.#deliver(due);
          if (this.#queue.length > 0) continue;
          // The last group's claim; with more to write the next group would carry it.
          if (this.#synced.offset === this.#active.offset && this.#failure === undefined) this.#mark();
          break;
        }
        const payloadBytes = payloadBytesOf(group);
        if (this.#mustCut(payloadBytes)) {
          const due = ready;
          ready = [];
          this.#deliver(due);
          await this.#cut();
        }
        if (payloadBytes > 0) this.#write(group, payloadBytes);
        const synced = this.#active.dirty && group.some(needsSync) ? this.#sync() : undefined;
        // While that runs: the callbacks of the group before. What they append joins the next group.
        const due = ready;
        ready = [];
        this.#deliver(due);
        if (synced === undefined) {
          this.#deliver(group);
        } else {
          await synced;
          this.#durableSnapshotIndex = this.#writtenSnapshot.index;
          this.#fillNext();
          ready = group;
        }
        group = [];
      }
    } catch (error) {
      const failure = this.#fail(error);
      // Those were durable before anything failed.
      this.#deliver(ready);
      this.#deliver(group, failure);
      this.#deliver(this.#queue.splice(0), failure);
    }
    this.#loop = undefined;
  }

  /** Everything queued, up to about 1 MiB; a single append may be larger. */
  #takeGroup(): readonly Pending[] {
    const queue = this.#queue;
    let bytes = 0;
    let count = 0;
    while (count < queue.length) {
      bytes += (queue[count] as Pending).bytes;
      if (count > 0 && bytes > GROUP_BYTES_MAX) break;
      count += 1;
    }
    if (count < queue.length) return queue.splice(0, count);
    this.#queue = [];
    return queue;
  }

  #mustCut(payloadBytes: number): boolean {
    const { offset, start } = this.#active;
    // A segment that holds nothing but its head and perhaps a mark takes any group, however large: cutting again would not help.
    return offset > start + HEADER_BYTES && offset + recordBytes(payloadBytes) + RESERVED_BYTES > this.#segmentBytes;
  }

  #write(group: readonly Pending[], payloadBytes: number): void {
    const encoder = this.#encoder;
    let hardState: HardState | undefined;
    encoder.start(payloadBytes);
    for (const pending of group) {
      if (pending.snapshot !== undefined) {
        encoder.snapshot(pending.snapshot, pending.replacesLog);
        this.#writtenSnapshot = pending.snapshot;
        if (pending.replacesLog) {
          this.#writtenLastIndex = pending.snapshot.index;
          this.#writtenLastTerm = pending.snapshot.term;
        }
      }
      const { entries } = pending;
      for (let i = 0; i < entries.length; i++) encoder.entry(entries[i] as Entry);
      const last = entries[entries.length - 1];
      if (last !== undefined) {
        this.#writtenLastIndex = last.index;
        this.#writtenLastTerm = last.term;
      }
      hardState = pending.hardState ?? hardState;
    }
    // Only the last one counts, because a group is all or nothing. Behind the entries, which its commit index may cover.
    if (hardState !== undefined) {
      encoder.hardState(hardState);
      this.#writtenHardState = hardState;
    }
    this.#writeRecord("group");
  }

  /** Claims that everything before it is on disk. Not synced: see repair.ts. */
  #mark(): void {
    if (this.#mutants.has(SKIP_CLAIMS)) return;
    this.#encoder.start(0);
    this.#writeRecord("mark");
  }

  #writeRecord(type: "group" | "mark"): void {
    const active = this.#active;
    const { bytes, crc } = this.#encoder.finish({
      type,
      seed: this.#seed,
      previousCrc: this.#crc,
      position: { segment: active.segment.sequence, offset: active.offset },
      synced: this.#mutants.has(SKIP_CLAIMS) ? NOWHERE : this.#synced,
      lastIndex: this.#writtenLastIndex,
      lastTerm: this.#writtenLastTerm,
    });
    active.dirty = true;
    active.file.writeNow(active.offset, bytes);
    active.offset += bytes.byteLength;
    this.#crc = crc;
    this.bytesWritten += bytes.byteLength;
  }

  async #sync(): Promise<void> {
    const active = this.#active;
    await this.#timed(active.file);
    active.dirty = false;
    this.#synced = { segment: active.segment.sequence, offset: active.offset };
  }

  async #timed(file: DiskFile): Promise<void> {
    const clock = this.#clock;
    if (clock === undefined) return file.sync();
    const start = clock.monotonicMs();
    await file.sync();
    const tookMs = clock.monotonicMs() - start;
    this.#onSyncMs?.(tookMs);
    if (tookMs > SLOW_SYNC_MS) this.#logger.warn({ tookMs, expectedMs: SLOW_SYNC_MS }, "slow fdatasync");
  }

  /** Ends the active segment and begins the next. Everything in the old one is on disk before the new one has a name. */
  async #cut(): Promise<void> {
    const old = this.#active;
    if (old.dirty) await this.#sync();
    await this.#preparing;
    await this.#next?.filling;
    this.#next ??= await this.#prepareNow();
    const next = this.#next;
    const sequence = old.segment.sequence + 1;
    const segment: SegmentName = {
      name: segmentName(sequence, this.#writtenLastIndex + 1),
      sequence,
      lastIndexBefore: this.#writtenLastIndex,
    };
    const head: SegmentHead = {
      ...this.metadata,
      segmentBytes: this.#segmentBytes,
      hardState: this.#writtenHardState,
      snapshot: this.#writtenSnapshot,
    };
    this.#encoder.start(headPayloadBytes(head));
    this.#encoder.head(head);
    const chain = this.#crc;
    const { bytes, crc } = this.#encoder.finish({
      type: "head",
      seed: this.#seed,
      previousCrc: chain,
      position: { segment: sequence, offset: 0 },
      synced: this.#synced,
      lastIndex: this.#writtenLastIndex,
      lastTerm: this.#writtenLastTerm,
    });
    const start = bytes.byteLength;
    next.file.writeNow(0, bytes);
    await this.#timed(next.file);
    await this.#disk.rename(`${this.#directory}/${next.name}`, `${this.#directory}/${segment.name}`);
    await this.#syncDirectory();
    const oldSynced = this.#synced;
    this.#crc = crc;
    this.#synced = { segment: sequence, offset: start };
    this.#active = { segment, file: next.file, start, offset: start, dirty: false };
    this.#next = undefined;
    this.#segments.push(segment);
    this.bytesWritten += start;
    await this.#sealing;
    this.#sealing = this.#seal(old, chain, oldSynced);
    this.#preparing = this.#prepare();
    this.#logger.debug({ segment: segment.name }, "began a log segment");
  }

  /** Writes behind the last record of a finished segment that there is a next one. Nothing depends on it but the detection of a lost file. */
  async #seal(old: Active, previousCrc: number, synced: WalPosition): Promise<void> {
    const encoder = new RecordEncoder();
    encoder.start(0);
    const { bytes } = encoder.finish({
      type: "seal",
      seed: this.#seed,
      previousCrc,
      position: { segment: old.segment.sequence, offset: old.offset },
      synced,
      lastIndex: this.#writtenLastIndex,
      lastTerm: this.#writtenLastTerm,
    });
    try {
      await old.file.write(old.offset, bytes);
      await old.file.sync();
      this.bytesWritten += bytes.byteLength;
    } catch (error) {
      this.#logger.warn({ error, segment: old.segment.name }, "could not seal a finished log segment");
    }
    await closeQuietly(old.file, this.#logger);
  }

  /** Errors only cost time: the cut prepares again and then fails by itself. */
  async #prepare(): Promise<void> {
    try {
      this.#next = await this.#prepareNow();
    } catch (error) {
      this.#logger.warn({ error }, "could not prepare the next log segment");
    }
  }

  async #prepareNow(): Promise<Prepared> {
    const name = temporaryName(this.#active.segment.sequence + 1);
    const path = `${this.#directory}/${name}`;
    await this.#disk.remove(path);
    const file = await this.#disk.open(path, { create: true });
    try {
      await file.truncate(this.#segmentBytes);
      await file.sync();
    } catch (error) {
      await closeQuietly(file, this.#logger);
      throw error;
    }
    return { name, file, filledBytes: 0, filling: undefined };
  }

  /** Allocates the next segment's blocks as far as the active one is used, in the background. */
  #fillNext(): void {
    const next = this.#next;
    if (next === undefined || next.filling !== undefined || this.#closing !== undefined) return;
    if (next.filledBytes >= this.#active.offset || next.filledBytes >= this.#segmentBytes) return;
    next.filling = this.#fill(next);
  }

  async #fill(prepared: Prepared): Promise<void> {
    const bytes = Math.min(FILL_BYTES, this.#segmentBytes - prepared.filledBytes);
    try {
      await prepared.file.write(prepared.filledBytes, FILL_ZEROS.subarray(0, bytes));
      await prepared.file.sync();
      prepared.filledBytes += bytes;
    } catch (error) {
      // A file with a failed write or sync is not used (catalogue BW19). The cut makes another one, and fails if that cannot be done.
      this.#logger.warn({ error }, "could not fill the next log segment");
      this.#next = undefined;
      await closeQuietly(prepared.file, this.#logger);
    }
    prepared.filling = undefined;
  }

  async #purge(index: LogIndex, keepSegments: number): Promise<void> {
    for (;;) {
      const [oldest, next] = this.#segments;
      // Never while closing or failed (catalogue BW8): a successor may be reading the directory.
      if (oldest === undefined || next === undefined || this.#closing !== undefined || this.#failure !== undefined) return;
      if (this.#segments.length <= Math.max(1, keepSegments)) return;
      // The log from `next` on must be complete by itself: everything before it lies at or below a marker that is on disk.
      if (next.lastIndexBefore > Math.min(index, this.#durableSnapshotIndex)) return;
      await this.#sealing;
      await this.#disk.remove(`${this.#directory}/${oldest.name}`);
      // One at a time, so that a crash never leaves a hole in the sequence.
      await this.#syncDirectory();
      this.#segments.shift();
      this.#logger.info({ segment: oldest.name, index }, "purged a log segment");
    }
  }

  async #syncDirectory(): Promise<void> {
    if (!this.#mutants.has(DROP_DIRECTORY_SYNC)) await this.#disk.syncDirectory(this.#directory);
  }

  async #close(): Promise<void> {
    // Let `#closing` be set before anything is looked at.
    await Promise.resolve();
    while (this.#loop !== undefined) await this.#loop;
    await this.#purging;
    await this.#sealing;
    await this.#preparing;
    const active = this.#active;
    if (this.#failure === undefined && active.dirty) {
      try {
        await active.file.sync();
      } catch (error) {
        // Nothing that was acknowledged as durable depends on it: only marks and commit indices.
        this.#logger.warn({ error }, "the last sync of the log failed");
      }
    }
    await closeQuietly(active.file, this.#logger);
    await this.#next?.filling;
    const next = this.#next;
    if (next === undefined) return;
    await closeQuietly(next.file, this.#logger);
    try {
      await this.#disk.remove(`${this.#directory}/${next.name}`);
    } catch (error) {
      this.#logger.warn({ error, name: next.name }, "could not remove a prepared log segment");
    }
  }

  #deliver(group: readonly Pending[], failure?: Error): void {
    for (const pending of group) {
      this.queuedBytes -= pending.bytes;
      try {
        pending.done(failure);
      } catch (error) {
        // Its effects are unknown, so the log must not go on; the other callbacks still get theirs.
        this.#logger.error({ error }, "a callback of the log threw");
        this.#fail(error);
      }
    }
  }

  #fail(error: unknown): Error {
    if (this.#failure === undefined) {
      this.#failure = error instanceof WalFailedError ? error : new WalFailedError(error);
      this.#logger.error({ error }, "the log failed");
    }
    return this.#failure;
  }
}

interface WalState {
  readonly metadata: WalMetadata;
  readonly hardState: HardState;
  readonly snapshot: SnapshotMetadata;
  readonly entries: readonly Entry[];
  readonly crc: number;
  readonly active: Active;
  readonly segments: readonly SegmentName[];
}

function segmentBytesOf(options: WalOptions): number {
  const bytes = options.segmentBytes ?? SEGMENT_BYTES_DEFAULT;
  assert(Number.isSafeInteger(bytes) && bytes >= SEGMENT_BYTES_MIN && bytes <= SEGMENT_BYTES_MAX, "segmentBytes is out of range");
  return bytes;
}

function needsSync(pending: Pending): boolean {
  return pending.sync;
}

function payloadBytesOf(group: readonly Pending[]): number {
  let bytes = 0;
  let hardState = 0;
  for (const pending of group) {
    bytes += pending.bytes;
    if (pending.hardState !== undefined) hardState = hardStateBytes();
  }
  return bytes + hardState;
}

function contentsOf(recovered: Recovered): WalContents {
  const { replay, head, last } = recovered;
  const entries = replay.entries();
  assert(entries !== undefined, "recovery let a log with missing entries pass");
  const contents = {
    metadata: { memberId: head.memberId, clusterId: head.clusterId },
    hardState: replay.hardState,
    snapshot: replay.snapshot,
    entries,
  };
  if (last.dirtyEnd <= last.end) return contents;
  return { ...contents, repaired: { segment: last.segment.name, offset: last.end, droppedBytes: last.dirtyEnd - last.end } };
}

/**
 * Makes the last segment what it was read as. The bytes behind the last claim are written again before the sync: had their own sync
 * failed, the kernel would hold them as clean pages that are not on disk, and a sync alone would prove nothing (catalogue BW19). The
 * torn tail becomes zeros, so that none of it can reappear behind later records.
 */
async function settleTail(recovered: Recovered): Promise<void> {
  const { reader, last } = recovered;
  const { file } = reader;
  let changed = false;
  if (reader.sizeBytes < last.sizeMin) {
    await file.truncate(last.sizeMin);
    changed = true;
  }
  if (last.end > last.syncedTo) {
    await file.write(last.syncedTo, await reader.read(last.syncedTo, last.end - last.syncedTo));
    changed = true;
  }
  for (let at = last.end; at < last.dirtyEnd; at += FILL_BYTES) {
    await file.write(at, FILL_ZEROS.subarray(0, Math.min(FILL_BYTES, last.dirtyEnd - at)));
    changed = true;
  }
  if (changed) await file.sync();
}

/** Every directory that had to be made is durable in its parent afterwards. */
async function makeDirectories(disk: Disk, directory: string, sync: boolean): Promise<void> {
  const made: string[] = [];
  for (let path = directory; path !== "" && path !== "." && path !== "/" && !(await disk.exists(path)); path = parentOf(path))
    made.push(path);
  await disk.makeDirectory(directory);
  if (!sync) return;
  for (const path of made.reverse()) await disk.syncDirectory(parentOf(path));
}

function parentOf(path: string): string {
  const trimmed = path.replace(/\/+$/, "");
  const slash = trimmed.lastIndexOf("/");
  if (slash < 0) return ".";
  return slash === 0 ? "/" : trimmed.slice(0, slash);
}

async function closeQuietly(file: DiskFile, logger: Logger): Promise<void> {
  try {
    await file.close();
  } catch (error) {
    logger.warn({ error }, "could not close a log segment");
  }
}
