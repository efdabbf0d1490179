/**
 * The lessor. Which leases exist and which keys hang on them is replicated: only the applier changes it, and it is equal on every member.
 * When leases end is known to the leader alone: the clocks exist between `promote` and `demote` and nowhere else, so that a follower can
 * neither expire a lease nor pays for heaps. Rules of etcd's server/lease/lessor.go; deliberate differences:
 * - `remainingTtl` never exceeds the granted TTL, although a new leader waits an election timeout longer (promise L7).
 * - The spreading after a leader change keeps the exact bound of 750 expiries in any second.
 * - A renewal that races a checkpoint on its way through the log also asks for a clearing checkpoint (promise L2).
 */
import { LeaseExistsError, LeaseNotFoundError, rpcError } from "../api/index.ts";
import { assert, verify } from "../base/assert.ts";
import type { KeyString } from "../base/bytes.ts";
import { type LeaseId, NO_LEASE } from "../base/ids.ts";
import { Lease, LeaseClocks, scheduleCheckpoint, scheduleOf } from "./lease-clocks.ts";
import { LEASE_TTL_SECONDS_MAX, type LeaseRow } from "./lease-row.ts";
import type { LeaseCheckpointItem, LessorFace } from "./lessor.contract.ts";

/** From this many leases on, a new leader spreads their ends. */
const SPREAD_FROM_LEASES = 1000;
/** Three quarters of the rate at which the leader revokes, so that ends which were piled up never use all of it. */
const EXPIRIES_PER_SECOND_MAX = 750;

/** Deliberate faults, to prove that the tests and the simulator find them (failure catalogue, mutants). */
export const LEASE_MUTANTS: readonly string[] = [
  "expire-leases-on-follower",
  "keep-old-leaders-expiry",
  "renew-without-recheck",
  "checkpoint-race-unseen",
];

const NO_KEYS: readonly KeyString[] = [];

export interface LessorOptions {
  /** Shorter grants are raised to this: {@link minimumTtlSeconds}. */
  readonly minTtlSeconds: number;
  readonly mutants?: ReadonlySet<string>;
}

/** ceil(1.5 election timeouts) in whole seconds, by etcd's integer arithmetic; 2 for ten ticks of 100 ms. */
export function minimumTtlSeconds(electionTicks: number, tickMs: number): number {
  return Math.ceil((Math.floor((3 * electionTicks) / 2) * tickMs) / 1000);
}

export class Lessor implements LessorFace {
  readonly #minTtlSeconds: number;
  readonly #leases = new Map<LeaseId, Lease>();
  /** Invariant (I19): key k is here with lease l exactly when l.keys holds k and l is in #leases. */
  readonly #leaseOf = new Map<KeyString, Lease>();
  /** Present exactly while this lessor is primary; then it has a slot for every lease. */
  #clocks: LeaseClocks | undefined;
  #primary = false;
  /** The latest time seen: callers take their times apart, but a lease that was over once must stay over. */
  #nowMs = Number.NEGATIVE_INFINITY;

  readonly #mutantExpireOnFollower: boolean;
  readonly #mutantKeepOldExpiry: boolean;
  readonly #mutantRenewUnchecked: boolean;
  readonly #mutantCheckpointRace: boolean;
  /** Only for the mutant. */
  readonly #keptExpiries = new Map<Lease, number>();

  constructor(options: LessorOptions) {
    assert(options.minTtlSeconds >= 1 && options.minTtlSeconds <= LEASE_TTL_SECONDS_MAX, "the minimum TTL is a TTL");
    this.#minTtlSeconds = options.minTtlSeconds;
    this.#mutantExpireOnFollower = options.mutants?.has("expire-leases-on-follower") === true;
    this.#mutantKeepOldExpiry = options.mutants?.has("keep-old-leaders-expiry") === true;
    this.#mutantRenewUnchecked = options.mutants?.has("renew-without-recheck") === true;
    this.#mutantCheckpointRace = options.mutants?.has("checkpoint-race-unseen") === true;
    this.#clocks = this.#mutantExpireOnFollower ? new LeaseClocks(0) : undefined;
  }

  // -- replicated state ------------------------------------------------------------------------------------------------------------------

  grant(id: LeaseId, ttlSeconds: number, nowMs: number): number {
    if (ttlSeconds > LEASE_TTL_SECONDS_MAX) throw rpcError("lease-ttl-too-large");
    // 0 means "no lease" everywhere; the proposer replaces it by a generated id. Refused, not asserted: it comes from the log.
    if (id === NO_LEASE) throw new LeaseNotFoundError({ lease: id });
    if (this.#leases.has(id)) throw new LeaseExistsError({ lease: id });
    const granted = Math.max(ttlSeconds, this.#minTtlSeconds);
    assert(Number.isInteger(granted), "a TTL is whole seconds", { ttlSeconds });
    const lease = new Lease(id, granted, 0);
    this.#leases.set(id, lease);
    const clocks = this.#clocks;
    if (clocks !== undefined) {
      const now = this.#advance(nowMs);
      const expiryMs = now + granted * 1000;
      const slot = clocks.add(lease, expiryMs, false);
      clocks.heap.push(slot, expiryMs);
      scheduleCheckpoint(clocks, slot, now);
    }
    return granted;
  }

  exists(id: LeaseId): boolean {
    return this.#leases.has(id);
  }

  keysOf(id: LeaseId): KeyString[] {
    const { keys } = this.#find(id);
    if (keys === undefined) return [];
    return typeof keys === "string" ? [keys] : [...keys].sort();
  }

  attachedKeys(id: LeaseId): Iterable<KeyString> {
    const keys = this.#leases.get(id)?.keys;
    if (keys === undefined) return NO_KEYS;
    return typeof keys === "string" ? [keys] : keys;
  }

  /** Throws lease-not-found. */
  revoke(id: LeaseId): void {
    const lease = this.#find(id);
    const { keys } = lease;
    if (typeof keys === "string") this.#leaseOf.delete(keys);
    else if (keys !== undefined) for (const key of keys) this.#leaseOf.delete(key);
    lease.keys = undefined;
    this.#leases.delete(id);
    if (this.#clocks?.has(lease)) this.#clocks.remove(lease);
  }

  /** Attaching to a lease that does not exist is a bug of the caller: the applier checks `exists` before it writes anything. */
  attach(key: KeyString, id: LeaseId): void {
    const before = this.#leaseOf.get(key);
    if (id === NO_LEASE) {
      if (before === undefined) return;
      removeKey(before, key);
      this.#leaseOf.delete(key);
      return;
    }
    if (before !== undefined && before.id === id) return;
    const lease = this.#leases.get(id);
    assert(lease !== undefined, "keys are attached to leases that exist", { id });
    if (before !== undefined) removeKey(before, key);
    addKey(lease, key);
    this.#leaseOf.set(key, lease);
  }

  leaseOf(key: KeyString): LeaseId {
    return this.#leaseOf.get(key)?.id ?? NO_LEASE;
  }

  checkpoint(item: LeaseCheckpointItem): void {
    const lease = this.#leases.get(item.id);
    if (lease === undefined) return;
    lease.remainingTtlSeconds = Math.min(Math.max(item.remainingTtlSeconds, 0), lease.ttlSeconds);
    if (lease.remainingTtlSeconds === 0 && this.#clocks?.has(lease)) this.#clocks.setClearNeeded(lease.slot, false);
  }

  grantedTtl(id: LeaseId): number | undefined {
    return this.#leases.get(id)?.ttlSeconds;
  }

  ids(): LeaseId[] {
    const clocks = this.#clocks;
    if (!this.#primary || clocks === undefined) return Array.from(BigInt64Array.from(this.#leases.keys()).sort()) as LeaseId[];
    const leases = [...this.#leases.values()];
    leases.sort((a, b) => clocks.expiryMs(a.slot) - clocks.expiryMs(b.slot) || (a.id < b.id ? -1 : 1));
    return leases.map((lease) => lease.id);
  }

  get size(): number {
    return this.#leases.size;
  }

  /** What is to be stored of a lease (`encodeLeaseRow`); undefined when unknown. */
  row(id: LeaseId): LeaseRow | undefined {
    const lease = this.#leases.get(id);
    return lease === undefined ? undefined : rowOf(lease);
  }

  /** All rows, in no particular order. */
  *rows(): Generator<LeaseRow, void, undefined> {
    for (const lease of this.#leases.values()) yield rowOf(lease);
  }

  /**
   * Forgets everything and takes over what was stored: at start and after a snapshot was installed. The lessor is not primary afterwards.
   * `attachments` are the stored keys that name a lease; more can follow through `attach`, so that a large store is read in slices.
   */
  restore(rows: Iterable<LeaseRow>, attachments: Iterable<readonly [KeyString, LeaseId]>): void {
    const stored = [...rows];
    this.demote();
    this.#leases.clear();
    this.#leaseOf.clear();
    for (const row of stored) {
      assert(row.id !== NO_LEASE && !this.#leases.has(row.id), "every stored lease has an id of its own", { id: row.id });
      this.#leases.set(row.id, new Lease(row.id, row.ttlSeconds, row.remainingTtlSeconds));
    }
    for (const [key, id] of attachments) this.attach(key, id);
  }

  // -- the leader's clock ----------------------------------------------------------------------------------------------------------------

  get primary(): boolean {
    return this.#primary;
  }

  promote(nowMs: number, extendMs: number): void {
    if (this.#primary) this.demote();
    const now = this.#advance(nowMs);
    // Remaining times are whole seconds and few different ones: sorting those sorts the leases.
    const byRemaining = new Map<number, Lease[]>();
    for (const lease of this.#leases.values()) {
      const seconds = lease.remainingTtlSeconds > 0 ? lease.remainingTtlSeconds : lease.ttlSeconds;
      const same = byRemaining.get(seconds);
      if (same === undefined) byRemaining.set(seconds, [lease]);
      else same.push(lease);
    }
    const clocks = new LeaseClocks(this.#leases.size);
    const spread = this.#leases.size >= SPREAD_FROM_LEASES;
    for (const seconds of [...byRemaining.keys()].sort((a, b) => a - b)) {
      const unspreadMs = now + seconds * 1000 + extendMs;
      for (const lease of byRemaining.get(seconds) as Lease[]) {
        let expiryMs = unspreadMs;
        if (spread && clocks.leases.length >= EXPIRIES_PER_SECOND_MAX) {
          // Slots are given out in order of the ends: a second after the end of the one 750 places back, or later.
          expiryMs = Math.max(expiryMs, clocks.expiryMs(clocks.leases.length - EXPIRIES_PER_SECOND_MAX) + 1000);
        }
        const slot = clocks.add(lease, expiryMs, lease.remainingTtlSeconds > 0);
        if (this.#mutantKeepOldExpiry) {
          clocks.setExpiry(slot, this.#keptExpiries.get(lease) ?? expiryMs);
          clocks.heap.push(slot, clocks.expiryMs(slot));
        } else {
          clocks.heap.appendLatest(slot, expiryMs);
        }
      }
    }
    this.#clocks = clocks;
    this.#primary = true;
    verify(() => clocks.heap.check());
  }

  demote(): void {
    if (this.#mutantKeepOldExpiry) {
      this.#keptExpiries.clear();
      for (const lease of this.#leases.values())
        if (this.#clocks?.has(lease)) this.#keptExpiries.set(lease, this.#clocks.expiryMs(lease.slot));
    }
    this.#primary = false;
    this.#clocks = this.#mutantExpireOnFollower ? new LeaseClocks(0) : undefined;
  }

  /**
   * The new deadline counts at once. With `checkpointed` the caller must replicate `{ id, remainingTtlSeconds: 0 }` and answer the client
   * only when that is applied and the lease still exists: otherwise the next leader would count from the old checkpoint.
   */
  renew(
    id: LeaseId,
    nowMs: number,
  ): { outcome: "renewed"; ttlSeconds: number; checkpointed: boolean } | { outcome: "unknown" | "expired" | "not-primary" } {
    const clocks = this.#clocks;
    if (!this.#primary || clocks === undefined) return NOT_PRIMARY;
    const lease = this.#leases.get(id);
    if (lease === undefined) return UNKNOWN;
    assert(clocks.has(lease), "a primary has a clock for every lease");
    const { slot } = lease;
    const now = this.#advance(nowMs);
    if (clocks.expiryMs(slot) <= now && !this.#mutantRenewUnchecked) return EXPIRED;
    const expiryMs = now + lease.ttlSeconds * 1000;
    clocks.setExpiry(slot, expiryMs);
    // Usually the deadline moves away and the heap finds out later. Only after a leader change, which grants more than the TTL, can it come closer.
    if (clocks.heap.dueMs(slot) > expiryMs) clocks.heap.move(slot, expiryMs);
    scheduleCheckpoint(clocks, slot, now);
    const checkpointed = lease.remainingTtlSeconds > 0 || (clocks.clearNeeded(slot) && !this.#mutantCheckpointRace);
    return { outcome: "renewed", ttlSeconds: lease.ttlSeconds, checkpointed };
  }

  remainingTtl(id: LeaseId, nowMs: number): number | undefined {
    const leftMs = this.remainingMs(id, nowMs);
    if (leftMs === undefined) return undefined;
    return Math.min(Math.floor(leftMs / 1000), this.#find(id).ttlSeconds);
  }

  /** Milliseconds until the deadline, 0 when it is past; undefined when unknown or not primary. Can exceed the granted TTL. */
  remainingMs(id: LeaseId, nowMs: number): number | undefined {
    const clocks = this.#clocks;
    const lease = this.#leases.get(id);
    if (clocks === undefined || lease === undefined) return undefined;
    if (!this.#primary && !(this.#mutantExpireOnFollower && clocks.has(lease))) return undefined;
    assert(clocks.has(lease), "a primary has a clock for every lease");
    return Math.max(clocks.expiryMs(lease.slot) - this.#advance(nowMs), 0);
  }

  /** Earliest first by deadline, or by the time of the repeated offer. */
  expired(nowMs: number, limit: number, retryMs: number): LeaseId[] {
    assert(retryMs > 0, "an offer is not repeated at once", { retryMs });
    const due: LeaseId[] = [];
    const clocks = this.#clocks;
    if (clocks === undefined) return due;
    const now = this.#advance(nowMs);
    const { heap } = clocks;
    while (due.length < limit && heap.topDueMs <= now) {
      const slot = heap.top;
      const expiryMs = clocks.expiryMs(slot);
      if (expiryMs > heap.topDueMs) {
        // Renewed since it was put here.
        heap.move(slot, expiryMs);
        continue;
      }
      assert(expiryMs <= now, "no lease is offered before its end");
      due.push(clocks.at(slot).id);
      heap.move(slot, now + retryMs);
    }
    return due;
  }

  checkpointsDue(nowMs: number, intervalMs: number, limit: number): LeaseCheckpointItem[] {
    const items: LeaseCheckpointItem[] = [];
    const clocks = this.#clocks;
    if (!this.#primary || clocks === undefined) return items;
    const now = this.#advance(nowMs);
    const schedule = scheduleOf(clocks, intervalMs, now);
    while (items.length < limit && schedule.firstDueMs <= now) {
      const slot = schedule.first;
      const leftMs = clocks.expiryMs(slot) - now;
      if (leftMs <= intervalMs) {
        schedule.remove(slot);
        continue;
      }
      schedule.schedule(slot, now);
      const lease = clocks.at(slot);
      // Rounded up: a successor must not count less than what is left.
      const leftSeconds = Math.ceil(leftMs / 1000);
      if (leftSeconds >= lease.ttlSeconds) continue;
      clocks.setClearNeeded(slot, true);
      items.push({ id: lease.id, remainingTtlSeconds: leftSeconds });
    }
    return items;
  }

  /** May be too early (a renewal does not move it), never too late. Counts checkpoints from the first `checkpointsDue` after a promotion on. */
  nextDeadlineMs(): number | undefined {
    const clocks = this.#clocks;
    if (!this.#primary || clocks === undefined) return undefined;
    const nextMs = Math.min(clocks.heap.topDueMs, clocks.checkpoints?.firstDueMs ?? Number.POSITIVE_INFINITY);
    return nextMs === Number.POSITIVE_INFINITY ? undefined : nextMs;
  }

  #find(id: LeaseId): Lease {
    const lease = this.#leases.get(id);
    if (lease === undefined) throw new LeaseNotFoundError({ lease: id });
    return lease;
  }

  #advance(nowMs: number): number {
    if (nowMs > this.#nowMs) this.#nowMs = nowMs;
    return this.#nowMs;
  }
}

const NOT_PRIMARY = { outcome: "not-primary" } as const;
const UNKNOWN = { outcome: "unknown" } as const;
const EXPIRED = { outcome: "expired" } as const;

function rowOf(lease: Lease): LeaseRow {
  return { id: lease.id, ttlSeconds: lease.ttlSeconds, remainingTtlSeconds: lease.remainingTtlSeconds };
}

function addKey(lease: Lease, key: KeyString): void {
  const { keys } = lease;
  if (keys === undefined) lease.keys = key;
  else if (typeof keys === "string") lease.keys = new Set([keys, key]);
  else keys.add(key);
}

function removeKey(lease: Lease, key: KeyString): void {
  const { keys } = lease;
  if (typeof keys === "string") {
    assert(keys === key, "the key hangs on the lease it names");
    lease.keys = undefined;
    return;
  }
  const removed = keys?.delete(key);
  assert(keys !== undefined && removed === true, "the key hangs on the lease it names");
  if (keys.size === 0) lease.keys = undefined;
}
