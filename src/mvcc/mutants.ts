/**
 * Faults that can be planted to prove that the tests would find them (failure catalogue, "mutants"). Never set outside tests; read
 * once, in the constructor of the store.
 */
export const MVCC_MUTANTS = [
  /** Compaction to c drops a deletion exactly at c, which a watch from c must still see. */
  "compaction-removes-tombstone-at-c",
  /** Reads inside a write transaction are not checked, so that one member fails what another applies. */
  "strip-txn-ranges",
  /** A read above the current revision is answered instead of refused. */
  "ignore-future-check",
  /** After a restart the revision is taken from the rows alone and may go back behind a compaction. */
  "revision-from-rows-only",
  /** Rows come back from the backend without their checksum being looked at. */
  "skip-row-checksum",
  /** The physical part of a compaction does not wait for reads that began before it. */
  "compaction-ignores-readers",
  /** A delete of a range leaves out its last key. */
  "delete-range-skips-last",
  /** Compares of nested transactions are evaluated when they are reached, so they see earlier writes of the same request. */
  "nested-compare-sees-writes",
] as const;

export type MvccMutant = (typeof MVCC_MUTANTS)[number];
