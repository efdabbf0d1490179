/**
 * The face of the multi-version store, for the applier, the services and the watch hub. `store.ts` implements it; when all agree
 * this file is folded into it. Message types are the decoded ones of src/api (RangeRequest, PutRequest, TxnRequest, KeyValue ...).
 */
import type { CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse } from "../api/index.ts";
import type { Backend, BackendBatch } from "../backend/backend.ts";
import type { KeyString } from "../base/bytes.ts";
import type { LeaseId, Revision } from "../base/ids.ts";

/** Position of one change: revision and its number inside the revision. */
export interface RevisionPosition {
  readonly main: Revision;
  readonly sub: number;
}

/** One change, as watchers need it. `kv` of a delete has only key and modRevision. */
export interface MvccEvent {
  readonly type: "put" | "delete";
  readonly key: KeyString;
  readonly kv: KeyValue;
  /** Where the value before this change stands; undefined for a creation. */
  readonly previous: RevisionPosition | undefined;
}

/** What the applier knows about leases while executing. */
export interface LeaseView {
  exists(id: LeaseId): boolean;
  /** NO_LEASE when the key has none. */
  leaseOf(key: KeyString): LeaseId;
}

/** Result of executing one request. Responses carry no cluster/member/term: the service adds them. */
export interface WriteOutcome<Response> {
  readonly response: Response;
  /** In execution order; empty when nothing changed (then no revision was consumed). All have revision `revision`. */
  readonly events: readonly MvccEvent[];
  readonly revision: Revision;
}

export interface MvccStoreFace {
  /** 1 for an empty store. */
  readonly revision: Revision;
  /** -1 when never compacted. */
  readonly compactRevision: Revision;
  /** Keys alive now. */
  readonly keyCount: number;
  /** Bytes of all rows (keys, values, a fixed overhead each), exact and equal on all members. */
  readonly bytesInUse: number;

  // -- reads -------------------------------------------------------------------------------------------------------------------
  /** Field validation, without state: throws key-not-provided, invalid-sort-option. */
  checkRange(request: RangeRequest): void;
  /** The answer if it needs no disk and little time (small, cached); undefined: use `range`. Throws Compacted/FutureRevision. */
  rangeNow(request: RangeRequest): RangeResponse | undefined;
  /** The same answer, in slices of at most a few ms, at one fixed revision, whatever is written or compacted meanwhile. Response.header has only `revision` = current at read time. */
  range(request: RangeRequest, options?: { signal?: AbortSignal }): Promise<RangeResponse>;
  /** Read-only txn (all ops are ranges) on one view. `readOnlyTxnNow` as `rangeNow`. */
  readOnlyTxn(request: TxnRequest, options?: { signal?: AbortSignal }): Promise<TxnResponse>;
  /** A row by position, from cache or disk, blocking the thread briefly; undefined when compacted away. */
  rowAt(position: RevisionPosition): KeyValue | undefined;
  rowsAt(positions: readonly RevisionPosition[]): Promise<(KeyValue | undefined)[]>;
  /** History for watchers: events of complete revisions in [from, upTo], oldest first, at most `revisionsMax` revisions and about `bytesMax` bytes (at least one revision). `next` is the first revision not read. Throws CompactedError when from < compactRevision. */
  history(from: Revision, upTo: Revision, limits: { revisionsMax: number; bytesMax: number }): Promise<{ events: readonly MvccEvent[]; next: Revision }>;

  // -- writes: synchronous, called by the applier only ------------------------------------------------------------------------------
  /** Field validation of api-semantics 6, 7, 8.2, 8.3, before replication. */
  checkPut(request: PutRequest): void;
  checkDeleteRange(request: DeleteRangeRequest): void;
  checkTxn(request: TxnRequest, opsMax: number): void;
  /** Loads what executing these requests will read and the cache lacks; undefined when nothing is missing. Loaded rows stay pinned until `release()`. */
  prefetch(requests: readonly (PutRequest | DeleteRangeRequest | TxnRequest)[]): Promise<{ release(): void }> | undefined;
  /** Execute at revision + 1. Throw an EtcdError (lease not found, key not found, compacted, future) before any change. Rows go into `batch`. */
  put(request: PutRequest, leases: LeaseView, batch: BackendBatch): WriteOutcome<PutResponse>;
  deleteRange(request: DeleteRangeRequest, batch: BackendBatch): WriteOutcome<DeleteRangeResponse>;
  txn(request: TxnRequest, leases: LeaseView, batch: BackendBatch): WriteOutcome<TxnResponse>;
  /** Deletes exactly these keys (a lease's, ascending) in one revision; absent ones are skipped. */
  deleteKeys(keys: readonly KeyString[], batch: BackendBatch): WriteOutcome<undefined>;
  /** Rows handed to `batch` are served from memory until the applier says that the write reached the backend. */
  written(batch: BackendBatch): void;

  // -- compaction --------------------------------------------------------------------------------------------------------------------
  /** Logical: from now on reads below fail. Throws Compacted / FutureRevision. The mark goes into `batch`. */
  compact(request: Pick<CompactionRequest, "revision">, batch: BackendBatch): void;
  /** True while rows of a recorded compaction are still to be removed (also after a restart). */
  readonly compactionPending: boolean;
  /**
   * One slice of the physical removal: prunes index and rows of up to `revisionsMax` revisions; deletions (and, at the end, the finished mark) go into
   * `batch`. Waits for readers below the compaction to end. Returns true when the compaction is finished. The caller writes each batch and pauses between slices.
   */
  compactSlice(batch: BackendBatch, revisionsMax: number): Promise<boolean>;

  // -- hash --------------------------------------------------------------------------------------------------------------------------
  /** HashKV of api-semantics 15.5, sliced. */
  hashByRevision(revision: Revision): Promise<{ hash: number; compactRevision: Revision; hashRevision: Revision }>;
}

export interface MvccOptions {
  readonly backend: Backend;
  /** Bytes of recently used values kept in memory. */
  readonly cacheBytesMax: number;
  /** Lets a long synchronous walk yield to the event loop: resolves in a later turn. */
  readonly yieldNow: () => Promise<void>;
  /** Milliseconds, monotonic; to cut slices by time. */
  readonly nowMs: () => number;
  readonly onProgress?: (rowsRead: number) => void;
  readonly mutants?: ReadonlySet<string>;
}
