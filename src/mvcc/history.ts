/** Reading changes in order of revisions: the history for watchers, and the hash over it. */

import type { Backend } from "../backend/backend.ts";
import { bytesOfKey, type KeyString } from "../base/bytes.ts";
import type { Revision } from "../base/ids.ts";
import { ChangeEvent } from "./change-event.ts";
import { HistoryHash } from "./hash.ts";
import { isTombstoneKey, mainOf, rowKeyFrom, subOf } from "./revision.ts";
import { CHECKSUM_BYTES, tombstoneWire } from "./row.ts";
import type { Rows } from "./rows.ts";
import type { Slicer } from "./slices.ts";
import type { TreeIndex } from "./tree-index.ts";
import type { MvccEvent } from "./types.ts";

/** Rows and bytes per read from the backend. */
const READ_ROWS = 512;
const READ_BYTES = 1024 * 1024;
/** Leaves per step when looking for any living key at a past revision. */
const COUNT_LEAVES = 64;

export interface HistoryParts {
  readonly backend: Backend;
  readonly index: TreeIndex;
  readonly rows: Rows;
}

export interface HistoryLimits {
  readonly revisionsMax: number;
  readonly bytesMax: number;
}

export interface HistoryPage {
  readonly events: readonly MvccEvent[];
  /** The first revision not read. */
  readonly next: Revision;
}

/** Collects complete revisions until a limit is reached. */
class Page {
  readonly events: ChangeEvent[] = [];
  readonly #limits: HistoryLimits;
  #revisions = 0;
  #bytes = 0;
  #last = 0;

  constructor(limits: HistoryLimits) {
    this.#limits = limits;
  }

  /** True if the revision, of which nothing was added yet, does not fit any more. */
  isFullFor(main: number): boolean {
    return (
      main !== this.#last && this.#revisions > 0 && (this.#revisions >= this.#limits.revisionsMax || this.#bytes >= this.#limits.bytesMax)
    );
  }

  add(main: number, event: ChangeEvent): void {
    if (main !== this.#last) {
      this.#last = main;
      this.#revisions += 1;
    }
    this.#bytes += event.pair?.wireLength ?? event.key.length;
    this.events.push(event);
  }
}

/**
 * Events of complete revisions in [from, upTo], oldest first. `compacted` is the compacted revision at the time of the call; of the
 * changes exactly at it, those that the compaction keeps are seen, whether or not it has removed the others yet. The caller pins `from`.
 */
export async function readHistory(
  parts: HistoryParts,
  from: Revision,
  upTo: Revision,
  compacted: Revision,
  limits: HistoryLimits,
  slicer: Slicer,
): Promise<HistoryPage> {
  const { index, rows } = parts;
  const page = new Page(limits);
  let next = from;
  while (next <= upTo) {
    const events = rows.recent.events(next);
    if (events === undefined) {
      const end = Math.min(upTo, rows.recent.firstRevision - 1);
      const reached = await readRows(parts, next, end, compacted, page, slicer);
      if (reached <= end) return { events: page.events, next: reached };
      next = reached;
      continue;
    }
    if (page.isFullFor(next)) break;
    for (let sub = 0; sub < events.length; sub += 1) {
      const event = events[sub] as ChangeEvent;
      if (next > compacted || index.isKept(event.key, next, sub, compacted)) page.add(next, event);
    }
    next += 1;
    if (slicer.due) await slicer.pause();
  }
  return { events: page.events, next };
}

/** The part that is only in the backend. Returns the first revision not added; above `upTo` if all were. */
async function readRows(
  parts: HistoryParts,
  from: Revision,
  upTo: Revision,
  compacted: Revision,
  page: Page,
  slicer: Slicer,
): Promise<Revision> {
  const { backend, index, rows } = parts;
  const { reader } = rows;
  const walk = backend.iterate({ gte: rowKeyFrom(from), lt: rowKeyFrom(upTo + 1) });
  try {
    for (;;) {
      const chunk = await walk.next(READ_ROWS, READ_BYTES);
      if (chunk.length === 0) return upTo + 1;
      for (const [rowKey, value] of chunk) {
        const main = mainOf(rowKey);
        const sub = subOf(rowKey);
        if (page.isFullFor(main)) return main;
        const tombstone = isTombstoneKey(rowKey);
        reader.read(value, main, sub, tombstone);
        const key = reader.keyString(value);
        if (main <= compacted && !index.isKept(key, main, sub, compacted)) continue;
        const isCreation = !tombstone && reader.version === 1;
        const previous = isCreation ? undefined : previousOf(index, key, main, compacted);
        page.add(main, new ChangeEvent(key, main, tombstone ? undefined : reader.pair(value, main), previous));
      }
      if (slicer.due) await slicer.pause();
      else slicer.throwIfAborted();
    }
  } finally {
    await walk.close();
  }
}

function previousOf(index: TreeIndex, key: KeyString, main: number, compacted: number): { main: number; sub: number } | undefined {
  return main - 1 >= compacted && index.findAt(key, main - 1) ? { main: index.main, sub: index.sub } : undefined;
}

/**
 * The hash over everything up to `upTo`, a revision not below `compacted`. The caller pins `upTo`.
 *
 * Of the changes at or below the compacted revision only those count that are visible at `upTo`. (Quirk: if nothing at all is visible
 * there, then whatever the compaction has left; a key that a transaction deleted and put again in revision `upTo` is not seen by this
 * question.) A deletion exactly at the compacted revision never counts.
 */
export async function hashHistory(parts: HistoryParts, upTo: Revision, compacted: Revision, slicer: Slicer): Promise<number> {
  const { backend, index, rows } = parts;
  const { reader, recent } = rows;
  const hash = new HistoryHash();
  // The backend may get more rows while we read it; they count from here.
  const written = Math.min(upTo, recent.writtenUpTo);
  const unwritten: (readonly ChangeEvent[])[] = [];
  for (let main = written + 1; main <= upTo; main += 1) unwritten.push(recent.events(main) ?? []);
  const walk = backend.iterate({ gte: rowKeyFrom(0), lt: rowKeyFrom(written + 1) });
  try {
    const anyVisible = await areMoreVisible(index, upTo, await countReborn(parts, upTo, slicer), slicer);
    const counts = (key: KeyString, main: number, sub: number, tombstone: boolean): boolean => {
      if (main > compacted) return true;
      if (tombstone && main === compacted) return false;
      if (!anyVisible) return index.isKept(key, main, sub, compacted);
      return index.findAt(key, upTo) && index.main === main && index.sub === sub;
    };
    for (;;) {
      const chunk = await walk.next(READ_ROWS, READ_BYTES);
      if (chunk.length === 0) break;
      for (const [rowKey, value] of chunk) {
        const main = mainOf(rowKey);
        const sub = subOf(rowKey);
        const tombstone = isTombstoneKey(rowKey);
        reader.read(value, main, sub, tombstone);
        if (main > compacted || counts(reader.keyString(value), main, sub, tombstone))
          hash.add(main, sub, tombstone, value.subarray(CHECKSUM_BYTES));
      }
      if (slicer.due) await slicer.pause();
      else slicer.throwIfAborted();
    }
    for (const events of unwritten) {
      for (let sub = 0; sub < events.length; sub += 1) {
        const { key, revision, pair } = events[sub] as ChangeEvent;
        if (!counts(key, revision, sub, pair === undefined)) continue;
        hash.add(revision, sub, pair === undefined, pair?.wireBytes ?? tombstoneWire(bytesOfKey(key)));
      }
      if (slicer.due) await slicer.pause();
    }
  } finally {
    await walk.close();
  }
  return hash.value;
}

/** True if more than `count` keys are visible at the revision. */
async function areMoreVisible(index: TreeIndex, revision: Revision, count: number, slicer: Slicer): Promise<boolean> {
  let next: KeyString | undefined = "" as KeyString;
  let visible = 0;
  while (next !== undefined) {
    index.counted = 0;
    next = index.countSlice(next, undefined, revision, COUNT_LEAVES);
    visible += index.counted;
    if (visible > count) return true;
    if (slicer.due) await slicer.pause();
  }
  return false;
}

/** How many keys revision `main` deleted and put again: its new keys that were there right before it. */
async function countReborn({ backend, index, rows }: HistoryParts, main: Revision, slicer: Slicer): Promise<number> {
  const { reader, recent } = rows;
  let count = 0;
  const held = recent.events(main);
  if (held !== undefined) {
    for (const { key, pair } of held) if (pair?.version === 1 && index.findAt(key, main - 1)) count += 1;
    return count;
  }
  const walk = backend.iterate({ gte: rowKeyFrom(main), lt: rowKeyFrom(main + 1) });
  try {
    for (;;) {
      const chunk = await walk.next(READ_ROWS, READ_BYTES);
      if (chunk.length === 0) return count;
      for (const [rowKey, value] of chunk) {
        if (isTombstoneKey(rowKey)) continue;
        reader.read(value, main, subOf(rowKey), false);
        if (reader.version === 1 && index.findAt(reader.keyString(value), main - 1)) count += 1;
      }
      if (slicer.due) await slicer.pause();
      else slicer.throwIfAborted();
    }
  } finally {
    await walk.close();
  }
}
