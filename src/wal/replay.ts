import type { LogIndex, Term } from "../base/ids.ts";
import { NO_MEMBER } from "../base/ids.ts";
import type { ConfState, Entry, HardState, SnapshotMetadata } from "../raft/entry.ts";
import { type ItemVisitor, MalformedError, type SegmentHead } from "./record.ts";

const NO_CONF_STATE: ConfState = { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
export const NO_HARD_STATE: HardState = { term: 0, vote: NO_MEMBER, commit: 0 };
export const NO_SNAPSHOT: SnapshotMetadata = { index: 0, term: 0, confState: NO_CONF_STATE };

/**
 * Rebuilds the log from its records. Checks what the writer asserts (indices without gaps, terms and commit never going back, nothing
 * committed overwritten) and throws {@link MalformedError} otherwise: such a log was written by a bug or by somebody else.
 */
export class Replay implements ItemVisitor {
  hardState: HardState;
  snapshot: SnapshotMetadata;
  /** Index before the first of `entries`. Above the snapshot's index only while segments that are needed have not been seen. */
  #base: LogIndex;
  /** 0 when unknown. */
  #baseTerm: Term;
  readonly #entries: Entry[] = [];

  constructor(head: SegmentHead, last: { index: LogIndex; term: Term }) {
    this.hardState = atLeast(head.hardState, head.snapshot.index);
    this.snapshot = head.snapshot;
    this.#base = last.index;
    this.#baseTerm = last.term;
  }

  get lastIndex(): LogIndex {
    return this.#base + this.#entries.length;
  }

  get lastTerm(): Term {
    const last = this.#entries[this.#entries.length - 1];
    return last === undefined ? this.#baseTerm : last.term;
  }

  /** Entries behind the snapshot; undefined when some in between are not in the segments that were read. */
  entries(): readonly Entry[] | undefined {
    if (this.#base > this.snapshot.index) return undefined;
    return this.#base === this.snapshot.index ? this.#entries : this.#entries.slice(this.snapshot.index - this.#base);
  }

  entry(entry: Entry): void {
    const { index } = entry;
    if (index <= this.hardState.commit) throw new MalformedError(`entry ${index} overwrites what was committed`);
    if (index > this.lastIndex + 1) throw new MalformedError(`entry ${index} leaves a gap behind ${this.lastIndex}`);
    if (index <= this.#base) {
      this.#entries.length = 0;
      this.#base = index - 1;
      this.#baseTerm = 0;
    } else {
      this.#entries.length = index - this.#base - 1;
    }
    if (entry.term < Math.max(1, this.lastTerm))
      throw new MalformedError(`entry ${index} has term ${entry.term} behind term ${this.lastTerm}`);
    this.#entries.push(entry);
  }

  hardStateItem(state: HardState): void {
    const old = this.hardState;
    if (state.term < old.term) throw new MalformedError(`the term goes back from ${old.term} to ${state.term}`);
    if (state.term === old.term && old.vote !== NO_MEMBER && state.vote !== old.vote)
      throw new MalformedError("a vote was changed within a term");
    if (state.commit < old.commit) throw new MalformedError(`the commit index goes back from ${old.commit} to ${state.commit}`);
    if (state.commit > this.lastIndex)
      throw new MalformedError(`commit index ${state.commit} lies behind the last entry ${this.lastIndex}`);
    this.hardState = state;
  }

  snapshotMarker(snapshot: SnapshotMetadata, replacesLog: boolean): void {
    if (snapshot.index <= this.snapshot.index) throw new MalformedError(`snapshot marker ${snapshot.index} behind ${this.snapshot.index}`);
    if (replacesLog) {
      if (snapshot.index <= this.hardState.commit) throw new MalformedError(`snapshot ${snapshot.index} replaces what was committed`);
      this.#entries.length = 0;
      this.#base = snapshot.index;
      this.#baseTerm = snapshot.term;
    } else {
      if (snapshot.index > this.lastIndex) throw new MalformedError(`snapshot marker ${snapshot.index} lies behind the last entry`);
      const own = this.#entries[snapshot.index - this.#base - 1];
      if (own !== undefined && own.term !== snapshot.term)
        throw new MalformedError(`snapshot marker ${snapshot.index} has another term than its entry`);
    }
    this.snapshot = snapshot;
    this.hardState = atLeast(this.hardState, snapshot.index);
  }
}

/** A snapshot holds committed entries only, and the commit index is written lazily. */
function atLeast(state: HardState, commit: LogIndex): HardState {
  return state.commit < commit ? { ...state, commit } : state;
}
