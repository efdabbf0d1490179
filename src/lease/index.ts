/** Leases: which exist, which keys hang on them, and, on the leader, when they end. */
export {
  CorruptLeaseRowError,
  decodeLeaseRow,
  encodeLeaseRow,
  LEASE_ROWS,
  LEASE_TTL_SECONDS_MAX,
  type LeaseRow,
  leaseRowKey,
} from "./lease-row.ts";
export type { LeaseCheckpointItem, LessorFace } from "./lessor.contract.ts";
export { LEASE_MUTANTS, Lessor, type LessorOptions, minimumTtlSeconds } from "./lessor.ts";
