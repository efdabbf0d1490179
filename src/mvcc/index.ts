/** The multi-version key-value store. */
export { TXN_DEPTH_MAX } from "./checks.ts";
export { ExecutionFailedError, RowCorruptError } from "./errors.ts";
export { compactionMarks, EtcdRows, parseRevisionKey, REVISION_ROWS, revisionKey } from "./etcd-form.ts";
export { HistoryHash, type RevisionHash } from "./hash.ts";
export type { HistoryLimits, HistoryPage } from "./history.ts";
export { MVCC_MUTANTS, type MvccMutant } from "./mutants.ts";
export type { RevisionPosition } from "./revision.ts";
export { MvccStore, type MvccStoreFace, type Prefetched } from "./store.ts";
export type { CancelSignal, LeaseView, MvccEvent, MvccOptions, ReadOptions, WriteOutcome } from "./types.ts";
