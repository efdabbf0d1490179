import { assert, InvariantError } from "../base/assert.ts";
import type { LogIndex, MemberId, Term } from "../base/ids.ts";
import type { Entry, SnapshotMetadata } from "./entry.ts";
import { cutByBytes } from "./memory-storage.ts";
import type { RaftStorage } from "./storage.ts";
import { Unstable } from "./unstable.ts";

/** Breakages of the log for the mutant run; all false in production. */
export interface LogMutants {
  readonly keepConflicts: boolean;
  readonly truncateAlways: boolean;
  readonly acceptStaleAppend: boolean;
  readonly handOutBeforeDurable: boolean;
}

const NO_ENTRIES: readonly Entry[] = Object.freeze([]);

/**
 * The replicated log as raft acts on it: the durable part in storage, behind it the {@link Unstable} part.
 *
 *     compacted | first ............... offset .............. last
 *               |       storage         |      unstable       |
 *     applied <= handedOut <= committed <= last,  and handedOut <= durable
 */
export class RaftLog {
  readonly unstable: Unstable;
  readonly #storage: RaftStorage;
  readonly #mutants: LogMutants;
  /** Highest index known to be committed. Never decreases. */
  committed: LogIndex;
  /** The state machine has everything up to here. */
  applied: LogIndex;
  /** End of what was handed out to be applied. */
  handedOut: LogIndex;
  #last: LogIndex;
  /** Payload of what was handed out and is not applied, one element per hand-out, oldest first. */
  #outstanding: { readonly lastIndex: LogIndex; readonly bytes: number }[] = [];
  #outstandingBytes = 0;

  constructor(storage: RaftStorage, commit: LogIndex, applied: LogIndex, mutants: LogMutants) {
    this.#storage = storage;
    this.#mutants = mutants;
    const first = storage.firstIndex();
    const last = storage.lastIndex();
    assert(first >= 1 && last >= first - 1, "storage holds [first, last]", { first, last });
    // A commit index beyond the log means that this member has lost entries it had acknowledged (failure catalogue BR23, BM11).
    assert(commit <= last, "the stored commit index is within the log: entries that this member had acknowledged are missing", {
      commit,
      last,
    });
    assert(applied <= last, "the state machine is not ahead of the log: entries that this member had acknowledged are missing", {
      applied,
      last,
    });
    assert(applied >= first - 1, "the state machine is not behind the log's first entry", { applied, first });
    this.unstable = new Unstable(last, mutants.acceptStaleAppend);
    // What is applied was committed, also when the commit index was not stored in time (BS10).
    this.committed = Math.max(commit, applied);
    this.applied = applied;
    this.handedOut = applied;
    this.#last = last;
  }

  /** Last index, durable or not. */
  get last(): LogIndex {
    return this.#last;
  }

  get lastTerm(): Term {
    const term = this.term(this.#last);
    assert(term !== undefined, "the term of the last entry is known");
    return term;
  }

  get committedTerm(): Term {
    const term = this.term(this.committed);
    assert(term !== undefined, "the term of the commit index is known");
    return term;
  }

  /** The log up to here is durable on this member. */
  get durable(): LogIndex {
    return this.unstable.durable;
  }

  /** First index whose entry is available. */
  firstIndex(): LogIndex {
    const snapshot = this.unstable.snapshot;
    return snapshot === undefined ? this.#storage.firstIndex() : snapshot.index + 1;
  }

  /** Term of the entry at `index`; undefined when it is compacted or not there. The position before the first entry still has one. */
  term(index: LogIndex): Term | undefined {
    if (index > this.#last) return undefined;
    const unstable = this.unstable;
    if (index >= unstable.offset) return unstable.termAt(index);
    const snapshot = unstable.snapshot;
    if (snapshot !== undefined) return index === snapshot.index ? snapshot.term : undefined;
    return this.#storage.term(index);
  }

  /** A log ending in (lastIndex, lastTerm) is at least as complete as this one (Raft paper, 5.4.1). */
  isUpToDate(lastIndex: LogIndex, lastTerm: Term): boolean {
    const own = this.lastTerm;
    return lastTerm > own || (lastTerm === own && lastIndex >= this.#last);
  }

  /** Leader: one entry behind the last. */
  push(entry: Entry): void {
    assert(entry.index === this.#last + 1, "entries are contiguous");
    this.unstable.push(entry);
    this.#last = entry.index;
  }

  /**
   * Follower: takes over `entries` behind (prevIndex, prevTerm), where the logs agree. Entries already here are skipped; from the
   * first conflict on the log is replaced. Answers the index from which it was truncated, 0 when nothing was.
   */
  append(prevIndex: LogIndex, entries: readonly Entry[]): LogIndex {
    let at = 0;
    if (this.#mutants.truncateAlways && prevIndex >= this.committed && prevIndex < this.#last) {
      if (entries.length > 0) return this.#replace(entries);
    }
    while (at < entries.length) {
      const entry = entries[at] as Entry;
      if (entry.index > this.#last) break;
      const term = this.term(entry.index);
      if (term !== entry.term) {
        // Compacted here, hence committed, hence equal.
        if (term === undefined && entry.index < this.firstIndex()) {
          at += 1;
          continue;
        }
        if (entry.index <= this.committed) throw conflictWithCommitted(entry.index, term, entry.term);
        if (!this.#mutants.keepConflicts) break;
      }
      at += 1;
    }
    if (at === entries.length) return 0;
    return this.#replace(at === 0 ? entries : entries.slice(at));
  }

  /** The largest index at or below `index` whose term is at most `term` or no longer known; 0 at the log's beginning. */
  findByTerm(index: LogIndex, term: Term): LogIndex {
    let at = Math.min(index, this.#last);
    while (at > 0) {
      const own = this.term(at);
      if (own === undefined || own <= term) break;
      at -= 1;
    }
    return at;
  }

  /** False when that is no news. */
  commitTo(index: LogIndex): boolean {
    if (index <= this.committed) return false;
    // Only a member that lost acknowledged entries is told of a commit beyond its log (failure catalogue BR23, BM11).
    assert(index <= this.#last, "the commit index is within the log: entries that this member had acknowledged are missing", {
      commit: index,
      last: this.#last,
    });
    this.committed = index;
    return true;
  }

  /** The whole log is replaced by the snapshot's position. */
  restore(snapshot: SnapshotMetadata): void {
    assert(snapshot.index > this.committed, "a snapshot is restored only beyond the commit index");
    this.unstable.restore(snapshot);
    this.#last = snapshot.index;
    this.committed = snapshot.index;
    this.handedOut = snapshot.index;
  }

  /** Entries in [from, to), at least one, at most `bytesMax` of payload unless the first alone is larger; undefined when compacted. */
  slice(from: LogIndex, to: LogIndex, bytesMax: number): readonly Entry[] | undefined {
    assert(from < to && to <= this.#last + 1, "log read within [first, last]");
    if (from < this.firstIndex()) return undefined;
    const unstable = this.unstable;
    const offset = unstable.offset;
    if (from >= offset) {
      const end = cutByBytes(unstable.view(), from - offset, to - offset, bytesMax);
      return unstable.slice(from, offset + end);
    }
    const stored = this.#storage.entries(from, Math.min(to, offset), bytesMax);
    if (to <= offset || stored.length < offset - from) return stored;
    let left = bytesMax;
    for (const entry of stored) left -= entry.data.byteLength;
    const view = unstable.view();
    if (left < (view[0] as Entry).data.byteLength) return stored;
    const end = cutByBytes(view, 0, to - offset, left);
    return stored.concat(view.slice(0, end));
  }

  /** End of what may be handed out: committed, and durable here so that a restart cannot forget it (failure catalogue BW2). */
  get #available(): LogIndex {
    if (this.unstable.snapshot !== undefined) return 0;
    return this.#mutants.handOutBeforeDurable ? this.committed : Math.min(this.committed, this.unstable.durable);
  }

  hasCommitted(bytesMax: number): boolean {
    return this.#available > this.handedOut && this.#outstandingBytes < 2 * bytesMax;
  }

  /**
   * The next committed entries, at most `bytesMax` of payload (one at least), each handed out once. Empty while two such portions
   * are being applied: a slow state machine must not pile up entries here.
   */
  handOutCommitted(bytesMax: number): readonly Entry[] {
    if (!this.hasCommitted(bytesMax)) return NO_ENTRIES;
    const entries = this.slice(this.handedOut + 1, this.#available + 1, bytesMax);
    assert(entries !== undefined && entries.length > 0, "entries that are not applied are not compacted");
    const last = entries[entries.length - 1] as Entry;
    assert((entries[0] as Entry).index === this.handedOut + 1, "entries are handed out in order, each once");
    this.handedOut = last.index;
    let bytes = 0;
    for (const entry of entries) bytes += entry.data.byteLength;
    this.#outstanding.push({ lastIndex: last.index, bytes });
    this.#outstandingBytes += bytes;
    return entries;
  }

  /** The state machine has everything up to `index`. False when that is no news. */
  appliedTo(index: LogIndex): boolean {
    if (index <= this.applied) return false;
    assert(index <= this.handedOut, "only entries that were handed out are applied");
    this.#setApplied(index);
    return true;
  }

  /**
   * Appends up to `sequence` are durable, and storage has them. Answers the newest of them (undefined: it is old news); a snapshot
   * among them is in the state machine too.
   */
  completeAppend(sequence: number): { term: Term; vote: MemberId; stale: boolean; snapshot: SnapshotMetadata | undefined } | undefined {
    const done = this.unstable.complete(sequence);
    if (done === undefined) return undefined;
    const { record, snapshot } = done;
    // Two paths to the same fact: the driver must have filled storage before it says so.
    if (record.lastIndex > 0 && this.unstable.snapshot === undefined) {
      const stored = this.#storage.term(record.lastIndex);
      assert(
        this.#mutants.acceptStaleAppend || (stored !== undefined && stored === this.term(record.lastIndex)),
        "storage holds an append before it is reported durable",
        { index: record.lastIndex, stored },
      );
    }
    if (snapshot !== undefined && snapshot.index > this.applied) this.#setApplied(snapshot.index);
    return { term: record.term, vote: record.vote, stale: record.lastIndex < record.handedLastIndex, snapshot };
  }

  /** Cheap, after every step. */
  assertOrder(): void {
    if (this.applied <= this.handedOut && this.handedOut <= this.committed && this.committed <= this.#last) return;
    throw new InvariantError("applied <= handed out <= committed <= last", {
      applied: this.applied,
      handedOut: this.handedOut,
      committed: this.committed,
      last: this.#last,
    });
  }

  /** Costly. */
  check(): void {
    this.unstable.check();
    assert(this.#last === Math.max(this.unstable.lastIndex, 0), "the last index is the end of the unstable part");
    let before = this.term(this.firstIndex() - 1) ?? 0;
    for (let index = this.firstIndex(); index <= this.#last; index++) {
      const term = this.term(index);
      assert(term !== undefined && term >= before, "terms do not decrease along the log", { index, term, before });
      before = term;
    }
    let outstanding = 0;
    for (const portion of this.#outstanding) outstanding += portion.bytes;
    assert(outstanding === this.#outstandingBytes, "bytes being applied equal the recomputed sum");
  }

  #setApplied(index: LogIndex): void {
    this.applied = index;
    let done = 0;
    for (const portion of this.#outstanding) {
      if (portion.lastIndex > index) break;
      this.#outstandingBytes -= portion.bytes;
      done += 1;
    }
    if (done > 0) this.#outstanding.splice(0, done);
  }

  #replace(entries: readonly Entry[]): LogIndex {
    const from = (entries[0] as Entry).index;
    if (from <= this.committed) throw conflictWithCommitted(from, this.term(from), (entries[0] as Entry).term);
    const truncated = from <= this.#last ? from : 0;
    this.unstable.replaceFrom(entries);
    this.#last = from + entries.length - 1;
    return truncated;
  }
}

/** This log and the leader's differ within what is committed: one of them is broken, and going on would spread it. */
export function conflictWithCommitted(index: LogIndex, own: Term | undefined, theirs: Term): InvariantError {
  return new InvariantError("a committed entry conflicts with the leader's", { index, ownTerm: own, leaderTerm: theirs });
}
