import { assert } from "../base/assert.ts";
import type { KeyString } from "../base/bytes.ts";
import type { LeaseId } from "../base/ids.ts";
import { CheckpointSchedule } from "./checkpoint.ts";
import { ExpiryHeap } from "./expiry-heap.ts";

export class Lease {
  readonly id: LeaseId;
  readonly ttlSeconds: number;
  /** The last checkpoint; 0 when there is none. Invariant: at most ttlSeconds. */
  remainingTtlSeconds: number;
  /** Attached keys. Most leases hold one key, and a set costs more than the whole lease. */
  keys: KeyString | Set<KeyString> | undefined = undefined;
  /** Where its clock is. Means something only if the clocks say that this slot is this lease's. */
  slot = -1;

  constructor(id: LeaseId, ttlSeconds: number, remainingTtlSeconds: number) {
    this.id = id;
    this.ttlSeconds = ttlSeconds;
    this.remainingTtlSeconds = remainingTtlSeconds;
  }
}

/** The leader's clocks of all leases: columns indexed by slot. */
export class LeaseClocks {
  /** Every used slot, by a time at or before its end, or, once offered, by the time of the next offer. */
  readonly heap = new ExpiryHeap();
  readonly leases: (Lease | undefined)[] = [];
  /** From here on the lease is over: never offered before, never renewed after. */
  #expiryMs = new Float64Array(64);
  /** A checkpoint is in the lease or on its way through the log: a renewal must be followed by a clearing one. */
  #clearNeeded = new Uint8Array(64);
  readonly #free: number[] = [];
  /** Made by the first `checkpointsDue` of this leadership. */
  checkpoints: CheckpointSchedule | undefined = undefined;

  constructor(capacity: number) {
    this.heap.reserve(capacity);
    this.#grow(capacity);
  }

  expiryMs(slot: number): number {
    return this.#expiryMs[slot] as number;
  }

  setExpiry(slot: number, expiryMs: number): void {
    this.#expiryMs[slot] = expiryMs;
  }

  clearNeeded(slot: number): boolean {
    return this.#clearNeeded[slot] === 1;
  }

  setClearNeeded(slot: number, needed: boolean): void {
    this.#clearNeeded[slot] = needed ? 1 : 0;
  }

  /** Takes a slot for the lease. The caller puts it into the heap. */
  add(lease: Lease, expiryMs: number, clearNeeded: boolean): number {
    const slot = this.#free.pop() ?? this.leases.length;
    if (slot === this.#expiryMs.length) this.#grow(2 * slot);
    this.leases[slot] = lease;
    lease.slot = slot;
    this.#expiryMs[slot] = expiryMs;
    this.#clearNeeded[slot] = clearNeeded ? 1 : 0;
    return slot;
  }

  has(lease: Lease): boolean {
    return this.leases[lease.slot] === lease;
  }

  remove(lease: Lease): void {
    const { slot } = lease;
    this.heap.remove(slot);
    this.checkpoints?.remove(slot);
    this.leases[slot] = undefined;
    this.#free.push(slot);
  }

  /** The lease whose clock this is. */
  at(slot: number): Lease {
    const lease = this.leases[slot];
    assert(lease !== undefined, "a running clock has a lease");
    return lease;
  }

  #grow(capacity: number): void {
    if (capacity <= this.#expiryMs.length) return;
    const expiryMs = new Float64Array(capacity);
    expiryMs.set(this.#expiryMs);
    this.#expiryMs = expiryMs;
    const clearNeeded = new Uint8Array(capacity);
    clearNeeded.set(this.#clearNeeded);
    this.#clearNeeded = clearNeeded;
  }
}

/** For a lease that was just granted or renewed, if checkpoints are in use at all. */
export function scheduleCheckpoint(clocks: LeaseClocks, slot: number, now: number): void {
  const schedule = clocks.checkpoints;
  if (schedule !== undefined && clocks.expiryMs(slot) - now > schedule.intervalMs) schedule.schedule(slot, now);
}

/** The schedule for that interval; the first call starts it. */
export function scheduleOf(clocks: LeaseClocks, intervalMs: number, now: number): CheckpointSchedule {
  const present = clocks.checkpoints;
  if (present !== undefined && present.intervalMs === intervalMs) return present;
  const schedule = new CheckpointSchedule(intervalMs);
  clocks.checkpoints = schedule;
  for (let slot = 0; slot < clocks.leases.length; slot += 1) if (clocks.leases[slot] !== undefined) scheduleCheckpoint(clocks, slot, now);
  return schedule;
}
