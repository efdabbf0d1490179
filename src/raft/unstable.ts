import { assert } from "../base/assert.ts";
import type { LogIndex, MemberId, Term } from "../base/ids.ts";
import type { Entry, SnapshotMetadata } from "./entry.ts";

/** What one handed-out append will have made durable when it completes. */
export interface AppendRecord {
  readonly sequence: number;
  /** Hard state that is durable with it (its own or an earlier append's). */
  readonly term: Term;
  readonly vote: MemberId;
  /** End of the log that is durable with it and still is the log: cut when a later append replaces the suffix. */
  lastIndex: LogIndex;
  /** The end as it was handed out. */
  readonly handedLastIndex: LogIndex;
  /** The snapshot it installs. */
  readonly snapshot: SnapshotMetadata | undefined;
}

/**
 * The end of the log that is not known to be durable yet, and the appends under way.
 *
 * Appends are pipelined: while some are being written, newer ones are handed out, and a newer one may replace entries of an older
 * one. The danger is the completion that comes late (etcd/raft, "ABA" in rawnode.go). Example, one follower:
 *
 * 1. leader of term 1 sends entry (5, t1): append #1 is handed out
 * 2. leader of term 2 replaces it by (5, t2): append #2
 * 3. leader of term 3 has the old entry and sends (5, t1) again: append #3
 * 4. #1 completes. Entry 5 in the log is (5, t1), just what #1 wrote, but #2 is about to overwrite it on disk. Counting it as
 *    durable would acknowledge an entry that a crash between #2 and #3 takes away.
 *
 * So it is not compared by index and term. Each append remembers how far it still counts, and replacing entry i cuts every append
 * under way to i - 1. In the example #1 and #2 are cut to 4, and only #3 makes entry 5 durable.
 */
export class Unstable {
  /** A snapshot that replaces the whole log and is not durable yet; `entries` are those behind it. */
  snapshot: SnapshotMetadata | undefined;
  /** Not known to be durable; contiguous from `offset`. */
  #entries: Entry[] = [];
  #offset: LogIndex;
  /** End of what appends have been handed out for. */
  #handedOut: LogIndex;
  #snapshotHandedOut = true;
  /** Under way, oldest first. lastIndex never decreases along the list. */
  #records: AppendRecord[] = [];
  #sequence = 0;
  readonly #acceptStale: boolean;

  /** `lastIndex` is the end of the durable log. `acceptStale` is a mutant. */
  constructor(lastIndex: LogIndex, acceptStale = false) {
    this.#offset = lastIndex + 1;
    this.#handedOut = lastIndex;
    this.#acceptStale = acceptStale;
  }

  /** First index held here. */
  get offset(): LogIndex {
    return this.#offset;
  }

  /** The log up to here is durable on this member. 0 while a snapshot is pending: what is on disk then is about to be replaced. */
  get durable(): LogIndex {
    return this.snapshot === undefined ? this.#offset - 1 : 0;
  }

  /** Last index, or offset - 1 when nothing is held. */
  get lastIndex(): LogIndex {
    return this.#offset + this.#entries.length - 1;
  }

  get hasWork(): boolean {
    return !this.#snapshotHandedOut || this.#handedOut < this.lastIndex;
  }

  get appendsUnderWay(): number {
    return this.#records.length;
  }

  /** `index` in [offset, lastIndex]. */
  termAt(index: LogIndex): Term {
    const entry = this.#entries[index - this.#offset];
    assert(entry !== undefined, "read within the unstable log");
    return entry.term;
  }

  /** One entry behind the last. The hot path of a leader. */
  push(entry: Entry): void {
    this.#entries.push(entry);
  }

  /** Entries from the first one's index on replace what is there; the first one's index leaves no gap. */
  replaceFrom(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) return;
    const from = first.index;
    assert(from <= this.lastIndex + 1, "an append leaves no gap");
    if (from <= this.lastIndex || from < this.#offset) this.#truncate(from);
    for (const entry of entries) this.#entries.push(entry);
  }

  restore(snapshot: SnapshotMetadata): void {
    this.snapshot = snapshot;
    this.#snapshotHandedOut = false;
    this.#entries = [];
    this.#offset = snapshot.index + 1;
    this.#handedOut = snapshot.index;
    if (!this.#acceptStale) for (const record of this.#records) record.lastIndex = 0;
  }

  /** Entries in [from, to), both within [offset, lastIndex + 1]; a copy of the list. */
  slice(from: LogIndex, to: LogIndex): Entry[] {
    return this.#entries.slice(from - this.#offset, to - this.#offset);
  }

  /** For reading without a copy: valid until the next change, element i has index offset + i. */
  view(): readonly Entry[] {
    return this.#entries;
  }

  /** Hands out everything that has not been handed out, with the hard state that the same append (or an earlier one) makes durable. */
  handOut(term: Term, vote: MemberId): { record: AppendRecord; entries: readonly Entry[]; snapshot: SnapshotMetadata | undefined } {
    const last = this.lastIndex;
    const entries = this.#handedOut < last ? this.slice(this.#handedOut + 1, last + 1) : NO_ENTRIES;
    const snapshot = this.#snapshotHandedOut ? undefined : this.snapshot;
    this.#handedOut = last;
    this.#snapshotHandedOut = true;
    this.#sequence += 1;
    const record: AppendRecord = {
      sequence: this.#sequence,
      term,
      vote,
      lastIndex: last,
      handedLastIndex: last,
      snapshot,
    };
    this.#records.push(record);
    return { record, entries, snapshot };
  }

  /**
   * The append `sequence` and all before it are durable. Drops what needs no memory here any more and answers the newest of them;
   * undefined when they had completed before. `snapshot` is the newest one installed by any of them.
   */
  complete(sequence: number): { record: AppendRecord; snapshot: SnapshotMetadata | undefined } | undefined {
    assert(sequence >= 1 && sequence <= this.#sequence, "only handed-out appends complete");
    const records = this.#records;
    let done = 0;
    let snapshot: SnapshotMetadata | undefined;
    let newest: AppendRecord | undefined;
    while (done < records.length) {
      const record = records[done] as AppendRecord;
      if (record.sequence > sequence) break;
      snapshot = record.snapshot ?? snapshot;
      newest = record;
      done += 1;
    }
    if (newest === undefined) return undefined;
    records.splice(0, done);
    // By identity: another one may have been accepted meanwhile.
    if (this.snapshot === snapshot) this.snapshot = undefined;
    if (this.snapshot === undefined && newest.lastIndex >= this.#offset) {
      const count = Math.min(newest.lastIndex - this.#offset + 1, this.#entries.length);
      this.#entries.splice(0, count);
      this.#offset += count;
    }
    return { record: newest, snapshot };
  }

  check(): void {
    assert(this.#handedOut <= this.lastIndex, "handed out within the log");
    assert(this.#handedOut >= this.#offset - 1, "nothing durable that was not handed out");
    let before = 0;
    for (const record of this.#records) {
      assert(this.#acceptStale || record.lastIndex >= before, "appends under way are in order");
      before = record.lastIndex;
    }
    for (let i = 0; i < this.#entries.length; i++) {
      assert((this.#entries[i] as Entry).index === this.#offset + i, "unstable entries are contiguous");
    }
  }

  #truncate(from: LogIndex): void {
    if (from <= this.#offset) {
      assert(this.snapshot === undefined || from === this.#offset, "a pending snapshot is not truncated");
      this.#entries = [];
      this.#offset = from;
    } else {
      this.#entries.length = from - this.#offset;
    }
    if (this.#handedOut >= from) this.#handedOut = from - 1;
    if (this.#acceptStale) return;
    for (const record of this.#records) if (record.lastIndex >= from) record.lastIndex = from - 1;
  }
}

const NO_ENTRIES: readonly Entry[] = Object.freeze([]);
