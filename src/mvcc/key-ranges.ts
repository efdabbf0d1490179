import type { KeyString } from "../base/bytes.ts";

/** Disjoint ranges, ascending: [froms[i], tos[i]); `tos[i]` undefined has no end. */
interface Run {
  readonly froms: KeyString[];
  readonly tos: (KeyString | undefined)[];
}

/**
 * A growing set of key ranges that answers whether a key lies in one of them. Sorted runs whose lengths halve from one to the next, so
 * that adding n ranges costs n log n in all and a question costs a search in each of log n runs: one request may hold a hundred
 * thousand deletes in nested transactions.
 */
export class KeyRanges {
  #runs: Run[] = [];
  #size = 0;

  get isEmpty(): boolean {
    return this.#runs.length === 0;
  }

  /** Adds [from, to); an empty or inverted range adds nothing. */
  add(from: KeyString, to: KeyString | undefined): void {
    if (to !== undefined && to <= from) return;
    this.#push({ froms: [from], tos: [to] });
  }

  has(key: KeyString): boolean {
    for (const { froms, tos } of this.#runs) {
      let low = 0;
      let high = froms.length;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if ((froms[middle] as KeyString) <= key) low = middle + 1;
        else high = middle;
      }
      if (low === 0) continue;
      const to = tos[low - 1];
      if (to === undefined || key < to) return true;
    }
    return false;
  }

  /** The ranges of both; the two given ones must not be used any more. */
  union(other: KeyRanges): KeyRanges {
    const [small, large] = this.#size < other.#size ? [this, other] : [other, this];
    for (const run of small.#runs) large.#push(run);
    return large;
  }

  #push(run: Run): void {
    this.#runs.push(run);
    this.#size += run.froms.length;
    for (let n = this.#runs.length; n > 1; n -= 1) {
      const a = this.#runs[n - 2] as Run;
      const b = this.#runs[n - 1] as Run;
      if (a.froms.length >= 2 * b.froms.length) break;
      const joined = join(a, b);
      this.#size += joined.froms.length - a.froms.length - b.froms.length;
      this.#runs.splice(n - 2, 2, joined);
    }
  }
}

/** One run with the ranges of both; those that touch become one. */
function join(a: Run, b: Run): Run {
  const froms: KeyString[] = [];
  const tos: (KeyString | undefined)[] = [];
  let i = 0;
  let j = 0;
  while (i < a.froms.length || j < b.froms.length) {
    const takeA = j === b.froms.length || (i < a.froms.length && (a.froms[i] as KeyString) <= (b.froms[j] as KeyString));
    const from = (takeA ? a.froms[i] : b.froms[j]) as KeyString;
    const to = takeA ? a.tos[i] : b.tos[j];
    if (takeA) i += 1;
    else j += 1;
    const last = tos.length - 1;
    if (last >= 0) {
      const end = tos[last];
      if (end === undefined || from <= end) {
        if (end !== undefined && (to === undefined || to > end)) tos[last] = to;
        continue;
      }
    }
    froms.push(from);
    tos.push(to);
  }
  return { froms, tos };
}
