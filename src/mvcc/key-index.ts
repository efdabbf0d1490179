/**
 * The earlier changes of one key, kept only for keys that have some: a flat array of quads, oldest first,
 *
 *     main, sub, create revision, version
 *
 * where version 0 marks a deletion. The newest change is not in here but in the leaf of the tree (`tree-index.ts`), so a key that was
 * put once and never changed costs nothing here. One array per key instead of objects per life of the key keeps a million of them small.
 *
 * Worked example. Key "k": put at 4, put at 6, deleted at 9 (as the third change of that revision), put at 12.
 *
 *     history  [4, 0, 4, 1,   6, 0, 4, 2,   9, 2, 0, 0]        newest (in the leaf)  12, 0, 12, 1
 *
 *     read at 3   nothing at or below 3            absent
 *     read at 5   4/0                              created 4, version 1
 *     read at 8   6/0                              created 4, version 2
 *     read at 9   9/2, a deletion                  absent
 *     read at 20  the newest                       created 12, version 1
 *
 *     compacted at 5    4/0 stays: it is what a read at 5 sees
 *     compacted at 8    4/0 goes, 6/0 stays
 *     compacted at 9    4/0 and 6/0 go; the deletion stays, because it is exactly at 9 and a watch from 9 must still see it
 *     compacted at 10   the deletion goes too: the history is empty and dropped
 *     compacted at 12   only the newest stays
 */
export type KeyHistory = number[];

/** Numbers per change. */
export const QUAD = 4;

/** Offset of the newest change at or below `revision`, or -1. */
export function findChange(history: KeyHistory, revision: number): number {
  let low = 0;
  let high = history.length / QUAD;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((history[middle * QUAD] as number) <= revision) low = middle + 1;
    else high = middle;
  }
  return (low - 1) * QUAD;
}

/** True if a compaction at `revision` keeps the change at `main`, given that it is the newest of its key at or below `revision`. */
export function staysAtCompaction(main: number, version: number, revision: number, tombstoneStays: boolean): boolean {
  return version !== 0 || (tombstoneStays && main === revision);
}

/** What a compaction at `revision` leaves of the history of a key whose newest change is above `revision`; undefined for nothing. */
export function pruneHistory(history: KeyHistory, revision: number, tombstoneStays: boolean): KeyHistory | undefined {
  const at = findChange(history, revision);
  if (at < 0) return history;
  const stays = staysAtCompaction(history[at] as number, history[at + 3] as number, revision, tombstoneStays);
  const cut = stays ? at : at + QUAD;
  if (cut === 0) return history;
  return cut === history.length ? undefined : history.slice(cut);
}
