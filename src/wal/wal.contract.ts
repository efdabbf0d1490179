/**
 * The face of the write-ahead log, which is the only truth of a member: what is not here was never acknowledged.
 * `wal.ts` implements it; when both agree this file is folded into it.
 */
import type { ClusterId, LogIndex, MemberId } from "../base/ids.ts";
import type { Entry, HardState, SnapshotMetadata } from "../raft/entry.ts";

export interface WalMetadata {
  readonly memberId: MemberId;
  readonly clusterId: ClusterId;
}

/** What one `append` makes durable together. */
export interface WalAppend {
  readonly hardState?: HardState | undefined;
  readonly entries: readonly Entry[];
  /** A snapshot marker: the state machine is durable up to here, replay may start behind it. Always synced. */
  readonly snapshot?: SnapshotMetadata | undefined;
  readonly mustSync: boolean;
}

export interface WalContents {
  readonly metadata: WalMetadata;
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
   * append fails with it too, nothing is retried, and the owner must stop (catalogue BW19).
   */
  append(append: WalAppend, done: (error?: Error) => void): void;
  /** Deletes segments whose entries all lie at or below `index`, keeping at least `keepSegments` and everything needed from the last marker on. */
  purge(index: LogIndex, keepSegments: number): Promise<void>;
  /** Flushes what is queued, then closes. Idempotent. */
  close(): Promise<void>;
  /** Bytes written since open, for metrics. */
  readonly bytesWritten: number;
}
