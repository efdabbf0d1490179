import { assert } from "../base/assert.ts";

const CAPACITY_START = 64;
const NONE = -1;
/** In #previous: the slot is not scheduled. */
const OUTSIDE = -2;

/**
 * When to replicate the remaining time of which lease, by the slots of the leases. All leases have one interval and time does not run
 * backwards, so whatever is (re)scheduled is always the last: a doubly linked list in order of the due times, with everything in O(1),
 * also a renewal.
 */
export class CheckpointSchedule {
  readonly intervalMs: number;
  #dueMs = new Float64Array(CAPACITY_START);
  #next = new Int32Array(CAPACITY_START);
  #previous = new Int32Array(CAPACITY_START).fill(OUTSIDE);
  #first = NONE;
  #last = NONE;

  constructor(intervalMs: number) {
    assert(intervalMs > 0, "a checkpoint interval is positive", { intervalMs });
    this.intervalMs = intervalMs;
  }

  /** The slot that is due first; -1 when none is scheduled. */
  get first(): number {
    return this.#first;
  }

  /** When `first` is due; Infinity when none is scheduled. */
  get firstDueMs(): number {
    return this.#first === NONE ? Number.POSITIVE_INFINITY : (this.#dueMs[this.#first] as number);
  }

  /** Due one interval from `nowMs`, which is not before the time of any earlier call. */
  schedule(slot: number, nowMs: number): void {
    if (slot >= this.#dueMs.length) this.#grow(Math.max(slot + 1, 2 * this.#dueMs.length));
    this.remove(slot);
    const dueMs = nowMs + this.intervalMs;
    const last = this.#last;
    assert(last === NONE || (this.#dueMs[last] as number) <= dueMs, "checkpoints are scheduled in order");
    this.#dueMs[slot] = dueMs;
    this.#previous[slot] = last;
    this.#next[slot] = NONE;
    if (last === NONE) this.#first = slot;
    else this.#next[last] = slot;
    this.#last = slot;
  }

  /** A no-op for a slot that is not scheduled. */
  remove(slot: number): void {
    if (slot >= this.#dueMs.length) return;
    const previous = this.#previous[slot] as number;
    if (previous === OUTSIDE) return;
    const next = this.#next[slot] as number;
    if (previous === NONE) this.#first = next;
    else this.#next[previous] = next;
    if (next === NONE) this.#last = previous;
    else this.#previous[next] = previous;
    this.#previous[slot] = OUTSIDE;
  }

  #grow(capacity: number): void {
    const dueMs = new Float64Array(capacity);
    dueMs.set(this.#dueMs);
    this.#dueMs = dueMs;
    const next = new Int32Array(capacity);
    next.set(this.#next);
    this.#next = next;
    const previous = new Int32Array(capacity).fill(OUTSIDE);
    previous.set(this.#previous);
    this.#previous = previous;
  }
}
