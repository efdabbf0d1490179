/** The face of the lessor: which leases exist, which keys hang on them, and, on the leader only, when they end. `lessor.ts` implements it. */
import type { KeyString } from "../base/bytes.ts";
import type { LeaseId } from "../base/ids.ts";

export interface LeaseCheckpointItem {
  readonly id: LeaseId;
  readonly remainingTtlSeconds: number;
}

export interface LessorFace {
  // -- replicated state: changed by the applier only, equal on every member ------------------------------------------------------------
  /** Throws lease-ttl-too-large before lease-exists. Returns the granted TTL (raised to the minimum). `nowMs` monotonic. */
  grant(id: LeaseId, ttlSeconds: number, nowMs: number): number;
  exists(id: LeaseId): boolean;
  /** Keys attached, ascending; throws lease-not-found. */
  keysOf(id: LeaseId): KeyString[];
  /** The same without copy and order, for walking at once; nothing for an unknown lease. */
  attachedKeys(id: LeaseId): Iterable<KeyString>;
  /** Removes the lease and all its attachments. */
  revoke(id: LeaseId): void;
  /** Moves `key` to `id`; NO_LEASE detaches. */
  attach(key: KeyString, id: LeaseId): void;
  leaseOf(key: KeyString): LeaseId;
  /** Records the leader's view of the remaining time; 0 clears it. Unknown ids are ignored. */
  checkpoint(item: LeaseCheckpointItem): void;
  grantedTtl(id: LeaseId): number | undefined;
  /** All ids: on a primary soonest expiry first, else ascending. */
  ids(): LeaseId[];
  readonly size: number;

  // -- the leader's clock ----------------------------------------------------------------------------------------------------------------
  readonly primary: boolean;
  /** Every lease restarts at its full (or checkpointed) TTL + `extendMs`; from 1000 leases on expiries are spread to at most 750 a second. */
  promote(nowMs: number, extendMs: number): void;
  demote(): void;
  /** `expired`: past its deadline, not yet revoked: the caller waits for the revoke and answers TTL 0. `checkpointed`: a checkpoint must be cleared through the log first. */
  renew(
    id: LeaseId,
    nowMs: number,
  ): { outcome: "renewed"; ttlSeconds: number; checkpointed: boolean } | { outcome: "unknown" | "expired" | "not-primary" };
  /** Whole seconds left, truncated; undefined when unknown or not primary. */
  remainingTtl(id: LeaseId, nowMs: number): number | undefined;
  /** Leases due at `nowMs`, earliest first, at most `limit`; each is offered again only after `retryMs`. Empty unless primary. */
  expired(nowMs: number, limit: number, retryMs: number): LeaseId[];
  /** Leases whose remaining time should be replicated now (every `intervalMs`, those with more than that left), at most `limit`. */
  checkpointsDue(nowMs: number, intervalMs: number, limit: number): LeaseCheckpointItem[];
  /** When `expired` or `checkpointsDue` may next have something; undefined for never. */
  nextDeadlineMs(): number | undefined;
}
