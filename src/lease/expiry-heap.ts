import { assert } from "../base/assert.ts";

const CAPACITY_START = 64;
const OUTSIDE = -1;

/**
 * A binary min-heap of deadlines over small integers ("slots"). A slot's deadline in the heap may be earlier than its real one: whoever
 * renews it need not move it, but looks again when it comes up. It must never be later than the real one. Typed arrays, because the
 * objects of a million leases made at a leader change would keep the collector, and so the heartbeats, busy for a second.
 */
export class ExpiryHeap {
  /** Slots in heap order; the first #size count. */
  #slots = new Int32Array(CAPACITY_START);
  /** Parallel to #slots, so that sifting compares numbers which lie side by side. */
  #dueMs = new Float64Array(CAPACITY_START);
  /** Per slot its index in #slots, or OUTSIDE. */
  #places = new Int32Array(CAPACITY_START).fill(OUTSIDE);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The slot with the earliest deadline; -1 when empty. */
  get top(): number {
    return this.#size === 0 ? OUTSIDE : (this.#slots[0] as number);
  }

  /** Deadline of `top`; Infinity when empty. */
  get topDueMs(): number {
    return this.#size === 0 ? Number.POSITIVE_INFINITY : (this.#dueMs[0] as number);
  }

  has(slot: number): boolean {
    return slot < this.#places.length && (this.#places[slot] as number) !== OUTSIDE;
  }

  /** Deadline of a slot that is in the heap. */
  dueMs(slot: number): number {
    return this.#dueMs[this.#placeOf(slot)] as number;
  }

  push(slot: number, dueMs: number): void {
    this.#append(slot, dueMs);
    this.#siftUp(this.#size - 1);
  }

  /** Appends a slot whose deadline is not before any other in the heap: no sifting. */
  appendLatest(slot: number, dueMs: number): void {
    // In an ascending array every parent is at most its children, so appending the maximum keeps the heap.
    assert(this.#size === 0 || (this.#dueMs[(this.#size - 1) >> 1] as number) <= dueMs, "appended in ascending order");
    this.#append(slot, dueMs);
  }

  /** Changes the deadline of a slot in the heap. */
  move(slot: number, dueMs: number): void {
    const place = this.#placeOf(slot);
    const before = this.#dueMs[place] as number;
    this.#dueMs[place] = dueMs;
    if (dueMs < before) this.#siftUp(place);
    else this.#siftDown(place);
  }

  remove(slot: number): void {
    const place = this.#placeOf(slot);
    const due = this.#dueMs[place] as number;
    this.#places[slot] = OUTSIDE;
    this.#size -= 1;
    const last = this.#size;
    if (place === last) return;
    const lastDue = this.#dueMs[last] as number;
    this.#slots[place] = this.#slots[last] as number;
    this.#dueMs[place] = lastDue;
    this.#places[this.#slots[place] as number] = place;
    if (lastDue < due) this.#siftUp(place);
    else this.#siftDown(place);
  }

  /** Makes room for slots below `slots` at once. */
  reserve(slots: number): void {
    if (slots > this.#slots.length) this.#grow(slots);
  }

  /** For tests: every parent is due before its children, every slot knows its place. */
  check(): void {
    for (let place = 0; place < this.#size; place += 1) {
      assert(this.#places[this.#slots[place] as number] === place, "a slot knows its place");
      assert(
        (this.#dueMs[(place - 1) >> 1] ?? Number.NEGATIVE_INFINITY) <= (this.#dueMs[place] as number),
        "a parent is due before its children",
      );
    }
  }

  #placeOf(slot: number): number {
    const place = slot < this.#places.length ? (this.#places[slot] as number) : OUTSIDE;
    assert(place !== OUTSIDE, "the slot is in the heap");
    return place;
  }

  #append(slot: number, dueMs: number): void {
    if (slot >= this.#slots.length) this.#grow(Math.max(slot + 1, 2 * this.#slots.length));
    assert(this.#places[slot] === OUTSIDE, "a slot is in the heap once");
    const place = this.#size;
    this.#size += 1;
    this.#slots[place] = slot;
    this.#dueMs[place] = dueMs;
    this.#places[slot] = place;
  }

  /** There are never more entries than slots, so one capacity serves all three. */
  #grow(capacity: number): void {
    const slots = new Int32Array(capacity);
    slots.set(this.#slots);
    this.#slots = slots;
    const dueMs = new Float64Array(capacity);
    dueMs.set(this.#dueMs);
    this.#dueMs = dueMs;
    const places = new Int32Array(capacity).fill(OUTSIDE);
    places.set(this.#places);
    this.#places = places;
  }

  #siftUp(from: number): void {
    const slots = this.#slots;
    const dueMs = this.#dueMs;
    const places = this.#places;
    const slot = slots[from] as number;
    const due = dueMs[from] as number;
    let place = from;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      const parentDue = dueMs[parent] as number;
      if (parentDue <= due) break;
      const parentSlot = slots[parent] as number;
      slots[place] = parentSlot;
      dueMs[place] = parentDue;
      places[parentSlot] = place;
      place = parent;
    }
    slots[place] = slot;
    dueMs[place] = due;
    places[slot] = place;
  }

  #siftDown(from: number): void {
    const slots = this.#slots;
    const dueMs = this.#dueMs;
    const places = this.#places;
    const size = this.#size;
    const slot = slots[from] as number;
    const due = dueMs[from] as number;
    let place = from;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= size) break;
      if (child + 1 < size && (dueMs[child + 1] as number) < (dueMs[child] as number)) child += 1;
      const childDue = dueMs[child] as number;
      if (childDue >= due) break;
      const childSlot = slots[child] as number;
      slots[place] = childSlot;
      dueMs[place] = childDue;
      places[childSlot] = place;
      place = child;
    }
    slots[place] = slot;
    dueMs[place] = due;
    places[slot] = place;
  }
}
