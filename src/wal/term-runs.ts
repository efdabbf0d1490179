import { assert } from "../base/assert.ts";
import type { LogIndex, Term } from "../base/ids.ts";
import type { Entry, SnapshotMetadata } from "../raft/entry.ts";

/**
 * The terms of a log without its entries: terms rarely change, so a run (first index, term) covers many entries. Example: snapshot (10, 2),
 * entries 11 and 12 of term 2, 13 to 20 of term 5: base 10 of term 2, runs (11, 2) and (13, 5), last index 20.
 */
export class TermRuns {
  #base: LogIndex;
  #baseTerm: Term;
  /** Ascending, the first one is `base + 1`; same length as `#terms`. */
  #starts: LogIndex[] = [];
  #terms: Term[] = [];
  #lastIndex: LogIndex;
  #lastTerm: Term;

  constructor(snapshot: SnapshotMetadata, entries: readonly Entry[]) {
    this.#base = snapshot.index;
    this.#baseTerm = snapshot.term;
    this.#lastIndex = snapshot.index;
    this.#lastTerm = snapshot.term;
    for (const entry of entries) this.append(entry.index, entry.term);
  }

  get lastIndex(): LogIndex {
    return this.#lastIndex;
  }

  get lastTerm(): Term {
    return this.#lastTerm;
  }

  /** Undefined outside of [base, last]. */
  termAt(index: LogIndex): Term | undefined {
    if (index < this.#base || index > this.#lastIndex) return undefined;
    for (let i = this.#starts.length - 1; i >= 0; i--) {
      if ((this.#starts[i] as number) <= index) return this.#terms[i];
    }
    return this.#baseTerm;
  }

  /** Entry `index` replaces everything from there on. */
  append(index: LogIndex, term: Term): void {
    if (index !== this.#lastIndex + 1) this.#truncate(index);
    if (term !== this.#lastTerm || this.#starts.length === 0) {
      assert(Number.isSafeInteger(term) && term >= 1 && term >= this.#lastTerm, "terms must not go back along the log");
      this.#starts.push(index);
      this.#terms.push(term);
      this.#lastTerm = term;
    }
    this.#lastIndex = index;
  }

  /** Everything up to `index` is in a snapshot; with `replacesLog` nothing is left behind it either. */
  mark(index: LogIndex, term: Term, replacesLog: boolean): void {
    if (replacesLog) {
      this.#starts = [];
      this.#terms = [];
      this.#lastIndex = index;
      this.#lastTerm = term;
    } else {
      let covered = 0;
      while (covered < this.#starts.length && (this.#starts[covered + 1] ?? this.#lastIndex + 1) <= index + 1) covered += 1;
      this.#starts.splice(0, covered);
      this.#terms.splice(0, covered);
      if (this.#starts.length > 0) this.#starts[0] = index + 1;
    }
    this.#base = index;
    this.#baseTerm = term;
  }

  #truncate(index: LogIndex): void {
    assert(Number.isSafeInteger(index) && index > this.#base && index <= this.#lastIndex, "an append leaves a gap in the log");
    while ((this.#starts[this.#starts.length - 1] ?? 0) >= index) {
      this.#starts.pop();
      this.#terms.pop();
    }
    this.#lastIndex = index - 1;
    this.#lastTerm = this.#terms[this.#terms.length - 1] ?? this.#baseTerm;
  }
}
