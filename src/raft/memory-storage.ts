import { assert } from "../base/assert.ts";
import { type LogIndex, NO_MEMBER, type Term } from "../base/ids.ts";
import { EMPTY_CONF } from "./confchange/change.ts";
import type { ConfState, Entry, HardState, SnapshotMetadata } from "./entry.ts";
import type { RaftStorage } from "./storage.ts";

export const EMPTY_HARD_STATE: HardState = Object.freeze({ term: 0, vote: NO_MEMBER, commit: 0 });
export const EMPTY_SNAPSHOT: SnapshotMetadata = Object.freeze({ index: 0, term: 0, confState: EMPTY_CONF });

/** The durable log in memory: what the driver keeps beside the WAL, and the whole storage of tests. */
export class MemoryStorage implements RaftStorage {
  #hardState: HardState = EMPTY_HARD_STATE;
  #confState: ConfState = EMPTY_CONF;
  #snapshot: SnapshotMetadata | undefined;
  /** Position of the entry before the first one: the compaction point, whose term is still known. */
  #baseIndex: LogIndex = 0;
  #baseTerm: Term = 0;
  #entries: Entry[] = [];

  /** Starts empty, or behind `snapshot`, whose configuration becomes the initial one. */
  constructor(snapshot: SnapshotMetadata = EMPTY_SNAPSHOT) {
    if (snapshot.index > 0) this.applySnapshot(snapshot);
    else this.#confState = snapshot.confState;
  }

  initialState(): { hardState: HardState; confState: ConfState } {
    return { hardState: this.#hardState, confState: this.#confState };
  }

  entries(from: LogIndex, to: LogIndex, bytesMax: number): readonly Entry[] {
    const start = from - this.#baseIndex - 1;
    const end = to - this.#baseIndex - 1;
    if (start < 0 || end > this.#entries.length || start >= end) {
      assert(false, "log read within [first, last]", { from, to, first: this.firstIndex(), last: this.lastIndex() });
    }
    return this.#entries.slice(start, cutByBytes(this.#entries, start, end, bytesMax));
  }

  term(index: LogIndex): Term | undefined {
    if (index === this.#baseIndex) return this.#baseTerm;
    return this.#entries[index - this.#baseIndex - 1]?.term;
  }

  firstIndex(): LogIndex {
    return this.#baseIndex + 1;
  }

  lastIndex(): LogIndex {
    return this.#baseIndex + this.#entries.length;
  }

  snapshot(from: LogIndex = 0): SnapshotMetadata | undefined {
    return this.#snapshot === undefined || this.#snapshot.index < from ? undefined : this.#snapshot;
  }

  setHardState(hardState: HardState): void {
    this.#hardState = hardState;
  }

  /** What `initialState` answers from now on; call it with the state machine's configuration before a restart. */
  setConfState(confState: ConfState): void {
    this.#confState = confState;
  }

  /** Appends contiguous entries. The first may lie inside the log: everything from its index on is replaced. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) return;
    const at = first.index - this.#baseIndex - 1;
    assert(at >= 0 && at <= this.#entries.length, "an append leaves no gap and touches nothing compacted");
    assert((entries[entries.length - 1] as Entry).index === first.index + entries.length - 1, "appended entries are contiguous");
    if (at < this.#entries.length) this.#entries.length = at;
    for (const entry of entries) this.#entries.push(entry);
  }

  /** Forgets entries at or below `index`. A no-op when that is done already. */
  compact(index: LogIndex): void {
    if (index <= this.#baseIndex) return;
    const term = this.term(index);
    assert(term !== undefined, "compaction stays within the log");
    this.#entries.splice(0, index - this.#baseIndex);
    this.#baseIndex = index;
    this.#baseTerm = term;
  }

  /** The whole log is replaced by the snapshot's position. */
  applySnapshot(snapshot: SnapshotMetadata): void {
    assert(snapshot.index > this.#baseIndex, "a snapshot is installed only beyond the compaction point");
    this.#snapshot = snapshot;
    this.#confState = snapshot.confState;
    this.#baseIndex = snapshot.index;
    this.#baseTerm = snapshot.term;
    this.#entries = [];
  }

  /** From now on a snapshot at `index`, which is applied, may be sent to followers. An older one than before is ignored. */
  createSnapshot(index: LogIndex, confState: ConfState): SnapshotMetadata {
    const term = this.term(index);
    assert(term !== undefined, "a snapshot lies within the log");
    const snapshot = { index, term, confState };
    if (this.#snapshot === undefined || this.#snapshot.index < index) this.#snapshot = snapshot;
    return snapshot;
  }
}

/** End of the longest run of `entries` from `start` (at least one entry) that ends by `end` and keeps within `bytesMax` of payload. */
export function cutByBytes(entries: readonly Entry[], start: number, end: number, bytesMax: number): number {
  let bytes = 0;
  let at = start;
  while (at < end) {
    bytes += (entries[at] as Entry).data.byteLength;
    if (bytes > bytesMax && at > start) break;
    at += 1;
  }
  return at;
}

export function payloadBytes(entries: readonly Entry[]): number {
  let bytes = 0;
  for (const entry of entries) bytes += entry.data.byteLength;
  return bytes;
}
