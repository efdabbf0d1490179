import type { LogIndex, Term } from "../base/ids.ts";
import type { ConfState, Entry, HardState, SnapshotMetadata } from "./entry.ts";

/**
 * What raft reads of the durable log: synchronous, from memory. The driver keeps it filled with exactly what is durable: it puts
 * an append (snapshot first, then entries, which may replace a suffix) here before it calls `appended` for it.
 * First index = snapshot index + 1; entries are contiguous.
 */
export interface RaftStorage {
  /** `confState` as of `RaftConfig.applied`, not as of the log's end. Asked once, by the constructor. */
  initialState(): { hardState: HardState; confState: ConfState };
  /** Entries in [from, to), at least one, cut when the payload passes `bytesMax`. Throws InvariantError outside [firstIndex, lastIndex + 1]. */
  entries(from: LogIndex, to: LogIndex, bytesMax: number): readonly Entry[];
  /** Term of an entry in [firstIndex - 1, lastIndex]; undefined outside (compacted or not there yet). */
  term(index: LogIndex): Term | undefined;
  firstIndex(): LogIndex;
  lastIndex(): LogIndex;
  /** The newest snapshot that may be sent to a follower, at `from` or behind it; undefined while one is being made (raft asks again later). */
  snapshot(from: LogIndex): SnapshotMetadata | undefined;
}
