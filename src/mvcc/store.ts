/**
 * The multi-version store: every change of every key, at its revision. The index of all keys is in memory, the pairs are rows of the
 * backend with a bounded cache of recent ones in front (layout of the rows: docs/FORMATS.md, "MVCC rows").
 *
 * Writes are synchronous and come from the applier alone, in the order of the log: they return the answer, the events for watchers, and
 * put rows into the batch that the applier writes with everything else of its round. Until `written(batch)` those rows are served from
 * memory. Reads are small and at once (`rangeNow`) or sliced (`range`), always at one fixed revision: the index keeps the past until a
 * compaction removes it, and a compaction waits for the reads that still see it.
 */
import {
  CompactedError,
  type CompactionRequest,
  type DeleteRangeRequest,
  type DeleteRangeResponse,
  FutureRevisionError,
  type KeyValue,
  type PutRequest,
  type PutResponse,
  type RangeRequest,
  type RangeResponse,
  type RequestOp,
  type ResponseOp,
  type TxnRequest,
  type TxnResponse,
} from "../api/index.ts";
import type { BackendBatch } from "../backend/backend.ts";
import { RowSpace } from "../backend/row-spaces.ts";
import { assert } from "../base/assert.ts";
import { type KeyString, keyStringOf } from "../base/bytes.ts";
import { type LeaseId, NO_LEASE, type Revision } from "../base/ids.ts";
import type { ChangeEvent } from "./change-event.ts";
import { checkDeleteRange, checkPut, checkRange, checkTxn } from "./checks.ts";
import { COMPACT_ASKED_KEY, COMPACT_FINISHED_KEY, Compactor, decodeMark, encodeMark } from "./compaction.ts";
import { allHold, allHoldNow, compareNeeds } from "./compare.ts";
import { executionError, RowCorruptError } from "./errors.ts";
import { checkTxnRevision, Execution, type ExecutionParts, rowBytes } from "./execution.ts";
import { CompactionHashes, HistoryHash, type RevisionHash } from "./hash.ts";
import { type HistoryLimits, type HistoryPage, type HistoryParts, hashHistory, readHistory } from "./history.ts";
import { PositionList } from "./position-list.ts";
import { endOf, RangeRead, rangeSingle, responseHeader } from "./range.ts";
import { RecentChanges } from "./recent-changes.ts";
import { isRowKey, isTombstoneKey, mainOf, type RevisionPosition, subOf } from "./revision.ts";
import { RowArena, type StoredPair } from "./row.ts";
import { LOAD_CHUNK_ROWS, missing, type PinnedRows, Rows } from "./rows.ts";
import { Readers, Slicer } from "./slices.ts";
import { NEWEST, TreeIndex } from "./tree-index.ts";
import type { LeaseView, MvccOptions, ReadOptions, WriteOutcome } from "./types.ts";
import { ValueCache } from "./value-cache.ts";

/** An empty store is at this revision. */
const FIRST_REVISION = 1;
/** Rows and bytes per read from the backend while opening. */
const OPEN_ROWS = 2048;
const OPEN_BYTES = 4 * 1024 * 1024;
/** Rows between two looks at the clock. */
const OPEN_SLICE_ROWS = 128;
/** Written changes kept as events: for watchers a little behind. Bytes are a share of the cache's. */
const RECENT_REVISIONS_MAX = 2048;
const RECENT_SHARE = 8;

/** Rows held for a group of requests that is about to be executed. */
export interface Prefetched {
  /** Lets the rows go; call it when the group was executed, or will not be. */
  release(): void;
}

/** What opening finds in the backend. */
interface Opened {
  readonly index: TreeIndex;
  readonly revision: Revision;
  readonly compactRevision: Revision;
  readonly compactFinished: Revision;
  readonly bytesInUse: number;
}

export class MvccStore {
  readonly #index: TreeIndex;
  readonly #rows: Rows;
  readonly #recent: RecentChanges;
  readonly #parts: ExecutionParts;
  readonly #history: HistoryParts;
  readonly #readers = new Readers();
  readonly #hashes = new CompactionHashes();
  readonly #compactor: Compactor;
  readonly #nowMs: () => number;
  readonly #yieldNow: () => Promise<void>;
  readonly #ignoreFutureCheck: boolean;
  #revision: Revision;
  #compactRevision: Revision;
  #bytesInUse: number;

  /** Reads the whole store once, in order of revisions, and builds the index from it. @throws RowCorruptError */
  static async open(options: MvccOptions): Promise<MvccStore> {
    return new MvccStore(options, await readAll(options));
  }

  private constructor(options: MvccOptions, opened: Opened) {
    const mutants = options.mutants ?? new Set<string>();
    this.#index = opened.index;
    this.#revision = opened.revision;
    this.#compactRevision = opened.compactRevision;
    this.#bytesInUse = opened.bytesInUse;
    this.#nowMs = options.nowMs;
    this.#yieldNow = options.yieldNow;
    this.#recent = new RecentChanges(opened.revision, {
      bytesMax: options.cacheBytesMax / RECENT_SHARE,
      revisionsMax: RECENT_REVISIONS_MAX,
    });
    this.#rows = new Rows({
      backend: options.backend,
      cache: new ValueCache(options.cacheBytesMax),
      recent: this.#recent,
      verifyChecksum: !mutants.has("skip-row-checksum"),
    });
    this.#ignoreFutureCheck = mutants.has("ignore-future-check");
    this.#parts = {
      index: this.#index,
      rows: this.#rows,
      arena: new RowArena(),
      mutants: {
        stripTxnRanges: mutants.has("strip-txn-ranges"),
        ignoreFutureCheck: this.#ignoreFutureCheck,
        deleteRangeSkipsLast: mutants.has("delete-range-skips-last"),
        nestedCompareSeesWrites: mutants.has("nested-compare-sees-writes"),
      },
    };
    this.#history = { backend: options.backend, index: this.#index, rows: this.#rows };
    this.#compactor = new Compactor({
      backend: options.backend,
      index: this.#index,
      rows: this.#rows,
      readers: this.#readers,
      hashes: this.#hashes,
      nowMs: options.nowMs,
      yieldNow: options.yieldNow,
      ignoreReaders: mutants.has("compaction-ignores-readers"),
    });
    if (opened.compactRevision > opened.compactFinished) this.#compactor.add(opened.compactRevision, opened.compactFinished, true);
  }

  /** 1 for an empty store. */
  get revision(): Revision {
    return this.#revision;
  }

  /** -1 when never compacted. */
  get compactRevision(): Revision {
    return this.#compactRevision;
  }

  /** Keys alive now. */
  get keyCount(): number {
    return this.#index.live;
  }

  /**
   * Bytes of all rows (key, value, a fixed overhead each), also of those not yet written. Exact, also after a restart, and equal on all
   * members at the same applied index as long as no physical compaction is pending.
   */
  get bytesInUse(): number {
    return this.#bytesInUse;
  }

  /** Reads under way; 0 when idle. */
  get readerCount(): number {
    return this.#readers.count;
  }

  // -- reads ----------------------------------------------------------------------------------------------------------------------------

  /** Field validation, without state. @throws key-not-provided, invalid-sort-option */
  checkRange(request: RangeRequest): void {
    checkRange(request);
  }

  /**
   * The answer if it needs no disk and little time (small, in memory); undefined: use `range`. The header has only `revision`.
   * @throws FutureRevisionError, CompactedError
   */
  rangeNow(request: RangeRequest): RangeResponse | undefined {
    const revision = this.#readRevision(request.revision);
    if (request.rangeEnd.length === 0) return rangeSingle(this.#index, this.#rows, request, revision, this.#revision, false);
    return new RangeRead(this.#index, this.#rows, request, revision).peek(this.#revision);
  }

  /**
   * The same answer in slices of a few ms, at one fixed revision, whatever is written or compacted meanwhile. The header has only
   * `revision`: the current one when the read began.
   * @throws FutureRevisionError, CompactedError, RowCorruptError, the signal's reason
   */
  async range(request: RangeRequest, options: ReadOptions = {}): Promise<RangeResponse> {
    const revision = this.#readRevision(request.revision);
    const headerRevision = this.#revision;
    const slicer = this.#slicer(options);
    slicer.throwIfAborted();
    this.#readers.enter(revision);
    try {
      return await new RangeRead(this.#index, this.#rows, request, revision).sliced(headerRevision, slicer);
    } finally {
      this.#readers.leave(revision);
    }
  }

  /** As `rangeNow`, for a transaction whose operations are all ranges: one view for compares and operations. */
  readOnlyTxnNow(request: TxnRequest): TxnResponse | undefined {
    const revision = this.#revision;
    const succeeded = allHoldNow(this.#index, this.#rows, request.compare, revision, false);
    if (succeeded === undefined) return undefined;
    const ops = succeeded ? request.success : request.failure;
    this.#checkReadOps(ops);
    const responses: ResponseOp[] = [];
    for (const { requestRange } of ops) {
      assert(requestRange !== undefined, "a read-only transaction has only ranges");
      const at = requestRange.revision > 0 ? Math.min(requestRange.revision, revision) : revision;
      const response =
        requestRange.rangeEnd.length === 0
          ? rangeSingle(this.#index, this.#rows, requestRange, at, revision, false)
          : new RangeRead(this.#index, this.#rows, requestRange, at).peek(revision);
      if (response === undefined) return undefined;
      responses.push(rangeOp(response));
    }
    return { header: responseHeader(revision), succeeded, responses };
  }

  /** As `range`, for a transaction whose operations are all ranges: one view for compares and operations. */
  async readOnlyTxn(request: TxnRequest, options: ReadOptions = {}): Promise<TxnResponse> {
    const revision = this.#revision;
    const compacted = this.#compactRevision;
    const slicer = this.#slicer(options);
    slicer.throwIfAborted();
    // Past revisions that the operations ask for are pinned too; which of them are read is not known before the compares.
    const lowest = Math.max(compacted, lowestRevision(request, revision));
    this.#readers.enter(lowest);
    try {
      const succeeded = await allHold(this.#index, this.#rows, request.compare, revision, slicer);
      const ops = succeeded ? request.success : request.failure;
      for (const { requestRange } of ops) {
        if (requestRange !== undefined) checkTxnRevision(requestRange.revision, revision, compacted, this.#parts.mutants);
      }
      const responses: ResponseOp[] = [];
      for (const { requestRange } of ops) {
        assert(requestRange !== undefined, "a read-only transaction has only ranges");
        const at = requestRange.revision > 0 ? Math.min(requestRange.revision, revision) : revision;
        responses.push(rangeOp(await new RangeRead(this.#index, this.#rows, requestRange, at).sliced(revision, slicer)));
      }
      return { header: responseHeader(revision), succeeded, responses };
    } finally {
      this.#readers.leave(lowest);
    }
  }

  /**
   * The pair put at that position, from memory or, blocking the thread briefly, from the disk. Undefined if it was compacted away
   * (decided by the compacted revision, not by how far the removal has come). @throws RowCorruptError
   */
  rowAt(position: RevisionPosition): KeyValue | undefined {
    const { main, sub } = position;
    return this.#unlessCompacted(this.#rows.tryLoadNow(main, sub), main, sub);
  }

  /** The same for many, in their order, in slices. @throws RowCorruptError */
  async rowsAt(positions: readonly RevisionPosition[]): Promise<(KeyValue | undefined)[]> {
    const slicer = this.#slicer({});
    const result: (KeyValue | undefined)[] = [];
    for (let from = 0; from < positions.length; from += LOAD_CHUNK_ROWS) {
      const some = positions.slice(from, from + LOAD_CHUNK_ROWS);
      const rows = await this.#rows.tryLoadMany(
        some.map((position) => position.main),
        some.map((position) => position.sub),
        true,
      );
      some.forEach(({ main, sub }, i) => {
        result.push(this.#unlessCompacted(rows[i], main, sub));
      });
      if (slicer.due) await slicer.pause();
    }
    return result;
  }

  /**
   * History for watchers: events of complete revisions in [from, upTo], oldest first, at most `revisionsMax` revisions and about
   * `bytesMax` bytes (at least one revision). `next` is the first revision not read; above `upTo`, or above the current revision, when
   * nothing is left. @throws CompactedError when `from` is below the compacted revision
   */
  async history(from: Revision, upTo: Revision, limits: HistoryLimits): Promise<HistoryPage> {
    if (from < this.#compactRevision) throw new CompactedError({ requested: from, compacted: this.#compactRevision });
    const end = Math.min(upTo, this.#revision);
    const begin = Math.max(from, FIRST_REVISION + 1);
    if (begin > end) return { events: [], next: Math.max(from, end + 1) };
    this.#readers.enter(from);
    try {
      return await readHistory(this.#history, begin, end, this.#compactRevision, limits, this.#slicer({}));
    } finally {
      this.#readers.leave(from);
    }
  }

  // -- writes: synchronous, called by the applier only ------------------------------------------------------------------------------------

  /** Field validation before replication. @throws key-not-provided, value-provided, lease-provided */
  checkPut(request: PutRequest): void {
    checkPut(request);
  }

  /** Field validation before replication. @throws key-not-provided */
  checkDeleteRange(request: DeleteRangeRequest): void {
    checkDeleteRange(request);
  }

  /** Field validation before replication, both branches, recursively. @throws too-many-ops, those of the operations, duplicate-key */
  checkTxn(request: TxnRequest, opsMax: number): void {
    checkTxn(request, opsMax);
  }

  /**
   * Loads what executing these requests will read and memory lacks; undefined when nothing is missing. Loaded rows stay until
   * `release()`. What it fails to foresee (because an earlier request of the group changes the picture) execution reads by itself,
   * blocking. @throws RowCorruptError
   */
  prefetch(requests: readonly (PutRequest | DeleteRangeRequest | TxnRequest)[]): Promise<Prefetched> | undefined {
    const mains: number[] = [];
    const subs: number[] = [];
    for (const request of requests) {
      if ("compare" in request) this.#txnNeeds(request, mains, subs);
      else if ("rangeEnd" in request) this.#deleteNeeds(request, mains, subs);
      else this.#putNeeds(request, mains, subs);
    }
    if (mains.length === 0) return undefined;
    const absentMains: number[] = [];
    const absentSubs: number[] = [];
    const seen = new Map<number, Set<number>>();
    for (let i = 0; i < mains.length; i += 1) {
      const main = mains[i] as number;
      const sub = subs[i] as number;
      if (this.#rows.peek(main, sub) !== undefined) continue;
      const known = seen.get(main);
      if (known?.has(sub) === true) continue;
      if (known === undefined) seen.set(main, new Set([sub]));
      else known.add(sub);
      absentMains.push(main);
      absentSubs.push(sub);
    }
    return absentMains.length === 0 ? undefined : this.#load(absentMains, absentSubs);
  }

  /** Executes at revision + 1. @throws lease-not-found, key-not-found (before any change); ExecutionFailedError: stop the instance */
  put(request: PutRequest, leases: LeaseView, batch: BackendBatch): WriteOutcome<PutResponse> {
    const execution = this.#execution(leases, batch);
    try {
      execution.checkPut(request);
      return this.#commit(execution, execution.put(request), batch);
    } catch (error) {
      throw executionError(error);
    }
  }

  /** Executes at revision + 1; without a match nothing changes and no revision is consumed. @throws ExecutionFailedError: stop the instance */
  deleteRange(request: DeleteRangeRequest, batch: BackendBatch): WriteOutcome<DeleteRangeResponse> {
    const execution = this.#execution(undefined, batch);
    try {
      return this.#commit(execution, execution.deleteRange(request), batch);
    } catch (error) {
      throw executionError(error);
    }
  }

  /**
   * Executes at revision + 1. @throws future-revision, compacted, lease-not-found, key-not-found (before any change);
   * ExecutionFailedError: stop the instance
   */
  txn(request: TxnRequest, leases: LeaseView, batch: BackendBatch): WriteOutcome<TxnResponse> {
    const execution = this.#execution(leases, batch);
    this.#rows.openMain = this.#revision + 1;
    this.#rows.open = execution;
    try {
      return this.#commit(execution, execution.txn(request), batch);
    } catch (error) {
      throw executionError(error);
    } finally {
      this.#rows.open = undefined;
    }
  }

  /** Deletes exactly these keys (a lease's, ascending) in one revision; absent ones are skipped. */
  deleteKeys(keys: readonly KeyString[], batch: BackendBatch): WriteOutcome<undefined> {
    const execution = this.#execution(undefined, batch);
    for (const key of keys) execution.deleteKey(key);
    return this.#commit(execution, undefined, batch);
  }

  /**
   * The backend has this batch, and with it all before. Until then its rows are served from memory. Call it for every batch that was
   * given to one of the functions above, in order.
   */
  written(batch: BackendBatch): void {
    const recent = this.#recent;
    for (let main = recent.written(batch); main <= recent.writtenUpTo; main += 1) {
      const events = recent.events(main) ?? [];
      for (let sub = 0; sub < events.length; sub += 1) {
        const { pair } = events[sub] as ChangeEvent;
        if (pair !== undefined) this.#rows.cache.add(main, sub, pair);
      }
    }
    recent.trim();
  }

  // -- compaction -------------------------------------------------------------------------------------------------------------------------

  /** Logical: from now on reads below fail. The mark goes into `batch`. @throws CompactedError, FutureRevisionError */
  compact(request: Pick<CompactionRequest, "revision">, batch: BackendBatch): void {
    const { revision } = request;
    if (revision <= this.#compactRevision) throw new CompactedError({ requested: revision, compacted: this.#compactRevision });
    if (revision > this.#revision) throw new FutureRevisionError({ requested: revision, current: this.#revision });
    const previous = this.#compactRevision;
    this.#compactRevision = revision;
    batch.put(COMPACT_ASKED_KEY, encodeMark(revision));
    this.#compactor.add(revision, previous, false);
  }

  /** True while rows of a recorded compaction are still to be removed (also after a restart). */
  get compactionPending(): boolean {
    return this.#compactor.pending;
  }

  /**
   * One slice of the physical removal of the oldest pending compaction: looks at up to `revisionsMax` rows; deletions, and at the end the
   * mark that it is finished, go into the batch that `batch` gives. It is asked once, after everything that waits, so that it can name
   * the batch that is open then: rows and marks reach the backend in the order in which they were removed, or a deleted key could come
   * back. Waits for readers below the compaction to end; does nothing while rows that it must see are not written. Returns true when no
   * compaction is pending any more. The caller pauses between slices and does not run two at once. @throws RowCorruptError
   */
  async compactSlice(batch: () => BackendBatch, revisionsMax: number): Promise<boolean> {
    this.#bytesInUse -= await this.#compactor.slice(batch, Math.max(1, revisionsMax));
    return !this.#compactor.pending;
  }

  // -- hash -------------------------------------------------------------------------------------------------------------------------------

  /** HashKV (api-semantics 15.5), in slices; 0 is the current revision. @throws CompactedError, FutureRevisionError, RowCorruptError */
  async hashByRevision(revision: Revision): Promise<RevisionHash> {
    const kept = this.#hashes.at(revision);
    if (kept !== undefined) return kept;
    const compactRevision = this.#compactRevision;
    if (revision < 0) return { hash: new HistoryHash().value, compactRevision, hashRevision: revision };
    const hashRevision = revision === 0 ? this.#revision : revision;
    if (hashRevision < compactRevision) throw new CompactedError({ requested: revision, compacted: compactRevision });
    if (hashRevision > this.#revision) throw new FutureRevisionError({ requested: revision, current: this.#revision });
    this.#readers.enter(hashRevision);
    try {
      return { hash: await hashHistory(this.#history, hashRevision, compactRevision, this.#slicer({})), compactRevision, hashRevision };
    } finally {
      this.#readers.leave(hashRevision);
    }
  }

  /** Checks the whole index against itself; for tests. */
  checkIndex(): void {
    this.#index.check();
  }

  // -- helpers ----------------------------------------------------------------------------------------------------------------------------

  /** The revision that a read outside transactions sees. @throws FutureRevisionError, CompactedError */
  #readRevision(requested: Revision): Revision {
    const current = this.#revision;
    if (requested <= 0) return current;
    if (requested > current) {
      if (this.#ignoreFutureCheck) return current;
      throw new FutureRevisionError({ requested, current });
    }
    if (requested < this.#compactRevision) throw new CompactedError({ requested, compacted: this.#compactRevision });
    return requested;
  }

  #checkReadOps(ops: readonly RequestOp[]): void {
    for (const { requestRange } of ops) {
      if (requestRange !== undefined) checkTxnRevision(requestRange.revision, this.#revision, this.#compactRevision, this.#parts.mutants);
    }
  }

  #slicer(options: ReadOptions): Slicer {
    return new Slicer({ nowMs: this.#nowMs, yieldNow: this.#yieldNow, signal: options.signal });
  }

  #execution(leases: LeaseView | undefined, batch: BackendBatch): Execution {
    return new Execution(this.#parts, leases, batch, this.#revision, this.#compactRevision);
  }

  #commit<Response>(execution: Execution, response: Response, batch: BackendBatch): WriteOutcome<Response> {
    const { events } = execution;
    if (events.length > 0) {
      this.#revision += 1;
      this.#bytesInUse += execution.bytes;
      this.#recent.push(this.#revision, events, batch);
    }
    return { response, events, revision: this.#revision };
  }

  #unlessCompacted(pair: StoredPair | undefined, main: number, sub: number): KeyValue | undefined {
    if (main > this.#compactRevision) return (pair ?? missing(main, sub)).keyValue;
    if (pair === undefined) return undefined;
    return this.#index.isKept(pair.keyString, main, sub, this.#compactRevision) ? pair.keyValue : undefined;
  }

  #putNeeds(request: PutRequest, mains: number[], subs: number[]): void {
    if (!request.prevKv && !request.ignoreValue && !request.ignoreLease) return;
    const index = this.#index;
    if (!index.find(keyStringOf(request.key)) || index.version === 0) return;
    mains.push(index.main);
    subs.push(index.sub);
  }

  #deleteNeeds(request: DeleteRangeRequest, mains: number[], subs: number[]): void {
    if (!request.prevKv) return;
    const from = keyStringOf(request.key);
    const positions = new PositionList();
    this.#index.collectSlice(from, endOf(request.rangeEnd, from), NEWEST, positions, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);
    positions.appendTo(mains, subs);
  }

  /** What the compares need, and the branches that they choose now; if they cannot be evaluated yet, both. */
  #txnNeeds(request: TxnRequest, mains: number[], subs: number[]): void {
    for (const compare of request.compare) compareNeeds(this.#index, compare, NEWEST, mains, subs);
    const succeeded = allHoldNow(this.#index, this.#rows, request.compare, NEWEST, false);
    if (succeeded !== false) this.#opsNeed(request.success, mains, subs);
    if (succeeded !== true) this.#opsNeed(request.failure, mains, subs);
  }

  #opsNeed(ops: readonly RequestOp[], mains: number[], subs: number[]): void {
    for (const { requestRange, requestPut, requestDeleteRange, requestTxn } of ops) {
      if (requestPut !== undefined) this.#putNeeds(requestPut, mains, subs);
      else if (requestDeleteRange !== undefined) this.#deleteNeeds(requestDeleteRange, mains, subs);
      else if (requestTxn !== undefined) this.#txnNeeds(requestTxn, mains, subs);
      else if (requestRange !== undefined) {
        const { revision } = requestRange;
        // What will be refused reads nothing.
        if (revision > this.#revision || (revision !== 0 && revision < this.#compactRevision)) continue;
        new RangeRead(this.#index, this.#rows, requestRange, revision > 0 ? revision : NEWEST).needs(mains, subs);
      }
    }
  }

  async #load(mains: readonly number[], subs: readonly number[]): Promise<Prefetched> {
    const pinned: PinnedRows = new Map();
    const slicer = this.#slicer({});
    for (let from = 0; from < mains.length; from += LOAD_CHUNK_ROWS) {
      const to = Math.min(from + LOAD_CHUNK_ROWS, mains.length);
      const rows = await this.#rows.tryLoadMany(mains.slice(from, to), subs.slice(from, to), true);
      for (let i = from; i < to; i += 1) {
        // Gone by now: a compaction has passed it, and execution will refuse to read it.
        const pair = rows[i - from];
        if (pair === undefined) continue;
        const main = mains[i] as number;
        let bySub = pinned.get(main);
        if (bySub === undefined) {
          bySub = new Map();
          pinned.set(main, bySub);
        }
        bySub.set(subs[i] as number, pair);
      }
      if (slicer.due) await slicer.pause();
    }
    this.#rows.pin(pinned);
    return { release: () => this.#rows.unpin(pinned) };
  }
}

function rangeOp(response: RangeResponse): ResponseOp {
  return { responseRange: response, responsePut: undefined, responseDeleteRange: undefined, responseTxn: undefined };
}

/** The lowest past revision that an operation of either branch asks for, or `current`. */
function lowestRevision(request: TxnRequest, current: Revision): Revision {
  let lowest = current;
  for (const ops of [request.success, request.failure]) {
    for (const { requestRange } of ops) {
      if (requestRange !== undefined && requestRange.revision > 0 && requestRange.revision < lowest) lowest = requestRange.revision;
    }
  }
  return lowest;
}

/** One ordered scan over all rows. */
async function readAll(options: MvccOptions): Promise<Opened> {
  const { backend, onAttachment, onProgress } = options;
  const mutants = options.mutants ?? new Set<string>();
  const compactRevision = decodeMark(await backend.get(COMPACT_ASKED_KEY));
  const compactFinished = decodeMark(await backend.get(COMPACT_FINISHED_KEY));
  const index = new TreeIndex({ tombstoneStays: !mutants.has("compaction-removes-tombstone-at-c") });
  const rows = new Rows({
    backend,
    cache: new ValueCache(0),
    recent: new RecentChanges(0, { bytesMax: 0, revisionsMax: 0 }),
    verifyChecksum: !mutants.has("skip-row-checksum"),
  });
  const { reader } = rows;
  const slicer = new Slicer(options);
  const attachments = onAttachment === undefined ? undefined : new Map<KeyString, LeaseId>();
  let revision = FIRST_REVISION;
  let bytesInUse = 0;
  let count = 0;
  const walk = backend.iterate({ gte: Uint8Array.of(RowSpace.revision), lt: Uint8Array.of(RowSpace.revision + 1) });
  // The backend reads the next rows while these are looked at.
  let reading = walk.next(OPEN_ROWS, OPEN_BYTES);
  try {
    for (let chunk = await reading; chunk.length > 0; chunk = await reading) {
      reading = walk.next(OPEN_ROWS, OPEN_BYTES);
      for (const [rowKey, value] of chunk) {
        const main = mainOf(rowKey);
        const sub = subOf(rowKey);
        if (!isRowKey(rowKey) || main < revision) throw new RowCorruptError({ main, sub, problem: "has no place in the order" });
        const tombstone = isTombstoneKey(rowKey);
        reader.read(value, main, sub, tombstone);
        const key = reader.keyString(value);
        index.restore(key, main, sub, reader.create, reader.version);
        if (attachments !== undefined) {
          if (reader.lease !== NO_LEASE) attachments.set(key, reader.lease as LeaseId);
          else attachments.delete(key);
        }
        revision = main;
        bytesInUse += rowBytes(rowKey.length, value.length);
        count += 1;
        if (count % OPEN_SLICE_ROWS === 0 && slicer.due) await slicer.pause();
      }
      onProgress?.(count);
    }
  } finally {
    await Promise.allSettled([reading]);
    await walk.close();
  }
  if (onAttachment !== undefined && attachments !== undefined) {
    for (const [key, lease] of attachments) {
      onAttachment(key, lease);
      if (slicer.due) await slicer.pause();
    }
  }
  // A compaction may have removed the newest rows; its revision was reached all the same (BV1).
  if (!mutants.has("revision-from-rows-only")) revision = Math.max(revision, compactRevision);
  return { index, revision, compactRevision, compactFinished, bytesInUse };
}

/** What the store offers, without the class: for those who stand a fake in its place. */
export type MvccStoreFace = Pick<MvccStore, keyof MvccStore>;
