/** The types that others program against. The class is in `store.ts`. */
import type { KeyValue } from "../api/index.ts";
import type { Backend } from "../backend/backend.ts";
import type { KeyString } from "../base/bytes.ts";
import type { LeaseId, Revision } from "../base/ids.ts";
import type { RevisionPosition } from "./revision.ts";

/** One change, as watchers need it. */
export interface MvccEvent {
  readonly type: "put" | "delete";
  readonly key: KeyString;
  /** The pair put; of a delete only key and modRevision. May be made on first use, so ask for it only where it is needed. */
  readonly kv: KeyValue;
  /**
   * Where the pair stands that a read at `kv.modRevision - 1` sees; undefined for a creation, or if that revision is compacted. So two
   * changes of a key in one revision have the same `previous`.
   */
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

/** What this root needs of an AbortSignal; any AbortSignal fits. */
export interface CancelSignal {
  readonly aborted: boolean;
  readonly reason: unknown;
}

export interface ReadOptions {
  /** Ends a long read at its next slice; it then fails with the signal's reason. */
  readonly signal?: CancelSignal | undefined;
}

export interface MvccOptions {
  readonly backend: Backend;
  /** Bytes of recently used values kept in memory. */
  readonly cacheBytesMax: number;
  /** Lets a long synchronous walk yield to the event loop: resolves in a later turn. */
  readonly yieldNow: () => Promise<void>;
  /** Milliseconds, monotonic; to cut slices by time. */
  readonly nowMs: () => number;
  /** While opening: rows read so far. */
  readonly onProgress?: ((rowsRead: number) => void) | undefined;
  /** After opening, for every living key that has a lease, in no order: how the lessor gets its attachments back. */
  readonly onAttachment?: ((key: KeyString, lease: LeaseId) => void) | undefined;
  readonly mutants?: ReadonlySet<string> | undefined;
}
