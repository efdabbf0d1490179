import type { KeyString } from "../base/bytes.ts";

/** The end of an interval without one: greater than every key, because the chars of a key are below 0x100. */
export const OPEN_END = "\u0100" as KeyString;

/** Keys from `start` on, below `end`. */
export interface KeyInterval {
  readonly start: KeyString;
  readonly end: KeyString;
}

/** The interval that holds one key. */
export function pointInterval(key: KeyString): KeyInterval {
  return { start: key, end: `${key}\0` as KeyString };
}

/**
 * A set of keys as intervals, merged: those that overlap or touch are one. Immutable, and quick to ask. Example: [a, c), [c, e) and the key "e" make
 * [a, e\0).
 */
export class KeyIntervals {
  /** Ascending. Invariant: #starts[i] < #ends[i] < #starts[i + 1]. */
  readonly #starts: KeyString[] = [];
  readonly #ends: KeyString[] = [];

  /** In any order; empty and inverted ones hold nothing. */
  constructor(intervals: readonly KeyInterval[]) {
    const sorted = intervals.filter(({ start, end }) => start < end).sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
    for (const { start, end } of sorted) {
      const last = this.#ends.length - 1;
      const reached = this.#ends[last];
      if (reached === undefined || start > reached) {
        this.#starts.push(start);
        this.#ends.push(end);
      } else if (end > reached) {
        this.#ends[last] = end;
      }
    }
  }

  has(key: KeyString): boolean {
    const at = this.#lastFrom(key);
    return at >= 0 && key < (this.#ends[at] as KeyString);
  }

  /**
   * True when all of [start, end) is in the set. An empty or inverted interval selects nothing wherever it is asked for; it counts as the key it starts
   * with. (etcd's answer for those depends on the shape of its tree.)
   */
  covers(start: KeyString, end: KeyString): boolean {
    const at = this.#lastFrom(start);
    if (at < 0) return false;
    const reached = this.#ends[at] as KeyString;
    return start < reached && end <= reached;
  }

  /** Index of the last interval that starts at or before `key`; -1 when there is none. */
  #lastFrom(key: KeyString): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#starts[middle] as KeyString) <= key) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}
