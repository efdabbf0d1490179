/** What watchers that lag behind are served from: a stretch of history, read from the store or kept from the last notifications. */
import { assert } from "../base/assert.ts";
import type { Revision } from "../base/ids.ts";
import { OPEN_END } from "./interval-tree.ts";
import type { WatchEvent } from "./watch-event.ts";
import { type Watcher, WatchOption } from "./watcher.ts";

/** So many watchers are served by looking at every event; for more of them an order by key is worth making. */
const SCANS_MAX = 3;

/** All events of the revisions in [from, next), oldest first. */
export class HistoryBatch {
  readonly events: readonly WatchEvent[];
  readonly from: Revision;
  readonly next: Revision;
  #scans = 0;
  /** Positions in `events`, by key, then by position. */
  #byKey: number[] | undefined;

  constructor(events: readonly WatchEvent[], from: Revision, next: Revision) {
    assert(from < next, "a stretch of history is not empty", { from, next });
    assert(
      events.length === 0 || ((events[0] as WatchEvent).revision >= from && (events.at(-1) as WatchEvent).revision < next),
      "events lie in their stretch",
    );
    this.events = events;
    this.from = from;
    this.next = next;
  }

  /** True when the watcher's next revision lies in here. */
  covers(watcher: Watcher): boolean {
    return watcher.next >= this.from && watcher.next < this.next;
  }

  /** The events from the watcher's next revision on that it wants, in order. */
  matching(watcher: Watcher): WatchEvent[] {
    const { events } = this;
    const matching: WatchEvent[] = [];
    const begin = this.#position(watcher.next);
    if (this.#scans < SCANS_MAX || (watcher.start <= "\0" && watcher.end === OPEN_END)) {
      this.#scans += 1;
      for (let at = begin; at < events.length; at += 1) {
        const event = events[at] as WatchEvent;
        if (watcher.watches(event.key) && watcher.wants(event.isPut)) matching.push(event);
      }
      return matching;
    }
    this.#byKey ??= orderByKey(events);
    const positions: number[] = [];
    for (let n = this.#firstAtOrAfter(watcher.start, this.#byKey); n < this.#byKey.length; n += 1) {
      const at = this.#byKey[n] as number;
      const event = events[at] as WatchEvent;
      if (!watcher.watches(event.key)) break;
      if (at >= begin && watcher.wants(event.isPut)) positions.push(at);
    }
    positions.sort((a, b) => a - b);
    for (const at of positions) matching.push(events[at] as WatchEvent);
    return matching;
  }

  /** Position of the first event of `revision` or later. */
  #position(revision: Revision): number {
    if (revision <= this.from) return 0;
    let low = 0;
    let high = this.events.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.events[middle] as WatchEvent).revision < revision) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #firstAtOrAfter(key: string, byKey: readonly number[]): number {
    let low = 0;
    let high = byKey.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.events[byKey[middle] as number] as WatchEvent).key < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function orderByKey(events: readonly WatchEvent[]): number[] {
  const order = Array.from(events, (_, at) => at);
  order.sort((a, b) => {
    const left = (events[a] as WatchEvent).key;
    const right = (events[b] as WatchEvent).key;
    return left < right ? -1 : left > right ? 1 : a - b;
  });
  return order;
}

/** Events among `matching` whose previous pair this watcher wants and which was not looked up yet. */
export function previousMissing(watcher: Watcher, matching: readonly WatchEvent[]): WatchEvent[] {
  return watcher.has(WatchOption.prevKv) ? matching.filter((event) => event.previousToLookUp !== undefined) : [];
}

interface RecentRevision {
  readonly revision: Revision;
  readonly events: readonly WatchEvent[];
  readonly bytes: number;
}

/**
 * The last notified revisions. Reading the store takes time in which more is written; without these a watcher could run after the
 * present for ever. Most watchers that start a little in the past, and slow readers that come back soon, are served from here too.
 */
export class RecentRevisions {
  readonly #revisionsMax: number;
  readonly #bytesMax: number;
  readonly #entries: (RecentRevision | undefined)[];
  /** Invariant: entries of exactly the revisions in [#first, #next) are kept, each at its revision modulo #revisionsMax. */
  #first: Revision;
  #next: Revision;
  #bytes = 0;
  #batch: HistoryBatch | undefined;

  constructor(revisionsMax: number, bytesMax: number, next: Revision) {
    this.#revisionsMax = revisionsMax;
    this.#bytesMax = bytesMax;
    this.#entries = new Array<RecentRevision | undefined>(revisionsMax).fill(undefined);
    this.#first = next;
    this.#next = next;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** True when every revision from `revision` to the last notified one is kept, and there is at least one. */
  covers(revision: Revision): boolean {
    return revision >= this.#first && revision < this.#next;
  }

  /** The next revision. One that alone is over the budget is not kept, nor what came before it. */
  push(revision: Revision, events: readonly WatchEvent[]): void {
    assert(revision === this.#next, "recent revisions have no gap", { revision, expected: this.#next });
    let bytes = 0;
    for (const event of events) bytes += event.bytes;
    this.#batch = undefined;
    if (this.#next - this.#first === this.#revisionsMax) this.#dropFirst();
    this.#entries[revision % this.#revisionsMax] = { revision, events, bytes };
    this.#next = revision + 1;
    this.#bytes += bytes;
    while (this.#bytes > this.#bytesMax) this.#dropFirst();
  }

  /** Forgets everything; the next revision pushed is `next`. */
  clear(next: Revision): void {
    // Without watchers this runs for every revision: it must cost nothing when there is nothing.
    while (this.#first < this.#next) this.#dropFirst();
    this.#first = next;
    this.#next = next;
    this.#bytes = 0;
    this.#batch = undefined;
  }

  /** Everything kept; there must be something. */
  batch(): HistoryBatch {
    if (this.#batch === undefined) {
      const events: WatchEvent[] = [];
      for (let revision = this.#first; revision < this.#next; revision += 1) {
        const entry = this.#entries[revision % this.#revisionsMax];
        assert(entry !== undefined && entry.revision === revision, "recent revisions have no gap", { revision });
        for (const event of entry.events) events.push(event);
      }
      this.#batch = new HistoryBatch(events, this.#first, this.#next);
    }
    return this.#batch;
  }

  #dropFirst(): void {
    const at = this.#first % this.#revisionsMax;
    this.#bytes -= this.#entries[at]?.bytes ?? 0;
    this.#entries[at] = undefined;
    this.#first += 1;
  }
}
