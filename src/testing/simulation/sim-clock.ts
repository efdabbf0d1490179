/** Time that moves only when the simulation moves it: to the next timer, however far that is. */
import type { Clock, Timer } from "../../base/clock.ts";

/** Some day in 2025. */
const WALL_START_MS = 1_750_000_000_000;

class SimTimer implements Timer {
  readonly dueMs: number;
  readonly sequence: number;
  fn: (() => void) | undefined;

  constructor(dueMs: number, sequence: number, fn: () => void) {
    this.dueMs = dueMs;
    this.sequence = sequence;
    this.fn = fn;
  }

  cancel(): void {
    this.fn = undefined;
  }
}

/** Timers of one instant fire in the order in which they were set. */
export class SimClock implements Clock {
  #nowMs = 0;
  #sequence = 0;
  #fingerprint = 0x811c9dc5;
  /** A heap, the next one first. */
  readonly #heap: SimTimer[] = [];

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return WALL_START_MS + this.#nowMs;
  }

  timer(ms: number, fn: () => void): Timer {
    const timer = new SimTimer(this.#nowMs + Math.max(0, ms), this.#sequence, fn);
    this.#sequence += 1;
    this.#push(timer);
    return timer;
  }

  /** Of all that has happened in time so far: runs that differ in anything differ here, too. */
  get fingerprint(): string {
    return (this.#fingerprint >>> 0).toString(16).padStart(8, "0");
  }

  /** Moves to the next timer and fires it. False: there is none. */
  fireNext(): boolean {
    for (;;) {
      const timer = this.#pop();
      if (timer === undefined) return false;
      const { fn } = timer;
      if (fn === undefined) continue;
      this.#nowMs = Math.max(this.#nowMs, timer.dueMs);
      this.#mix(timer.sequence);
      this.#mix(Math.floor(timer.dueMs * 1000));
      timer.fn = undefined;
      fn();
      return true;
    }
  }

  /** FNV-1a over 32-bit words. */
  #mix(word: number): void {
    this.#fingerprint = Math.imul(this.#fingerprint ^ word, 0x01000193);
  }

  #push(timer: SimTimer): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(timer);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as SimTimer;
      if (!isBefore(timer, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = timer;
  }

  #pop(): SimTimer | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as SimTimer, heap[child] as SimTimer)) child += 1;
      const below = heap[child] as SimTimer;
      if (!isBefore(below, last)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: SimTimer, b: SimTimer): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.sequence < b.sequence);
}
