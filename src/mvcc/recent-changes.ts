/**
 * The changes of the newest revisions, as events, in memory: all that the backend has not got yet, and some more, so that watchers a
 * little behind and `prev_kv` lookups do not go to the disk. Revisions are contiguous, so a position finds its change by subtraction.
 */

import type { BackendBatch } from "../backend/backend.ts";
import { assert } from "../base/assert.ts";
import type { ChangeEvent } from "./change-event.ts";

/** What an event costs besides the bytes of its pair, if its message was asked for. */
const EVENT_OVERHEAD_BYTES = 800;
/** Written revisions are dropped in lumps, because shifting an array costs its length. */
const TRIM_LUMP = 256;

interface PendingBatch {
  readonly batch: BackendBatch;
  lastMain: number;
}

export class RecentChanges {
  readonly #bytesMax: number;
  readonly #revisionsMax: number;
  /** `#items[i]` has the events of revision `#first + i`; `[#dropped, length)` is in use. */
  #items: (readonly ChangeEvent[])[] = [];
  #sizes: number[] = [];
  #first: number;
  #dropped = 0;
  #bytes = 0;
  /** Batches with revisions that were not reported written, in order. */
  readonly #pending: PendingBatch[] = [];
  #writtenUpTo: number;

  /** `revision` is the store's; what it and older ones changed is in the backend. Written revisions are kept within the two limits. */
  constructor(revision: number, options: { bytesMax: number; revisionsMax: number }) {
    this.#first = revision + 1;
    this.#writtenUpTo = revision;
    this.#bytesMax = options.bytesMax;
    this.#revisionsMax = options.revisionsMax;
  }

  /** The backend has every change up to this revision. */
  get writtenUpTo(): number {
    return this.#writtenUpTo;
  }

  /** The oldest revision held here; one above the newest if there is none. */
  get firstRevision(): number {
    return this.#first + this.#dropped;
  }

  /** The revision after the last one given must come next. */
  push(main: number, events: readonly ChangeEvent[], batch: BackendBatch): void {
    assert(main === this.#first + this.#items.length, "recent changes have no gap");
    let bytes = 0;
    for (const event of events) bytes += (event.pair?.wireLength ?? event.key.length) + EVENT_OVERHEAD_BYTES;
    this.#items.push(events);
    this.#sizes.push(bytes);
    this.#bytes += bytes;
    const last = this.#pending.at(-1);
    if (last !== undefined && last.batch === batch) last.lastMain = main;
    else this.#pending.push({ batch, lastMain: main });
  }

  /** The events of a revision held here. */
  events(main: number): readonly ChangeEvent[] | undefined {
    return main < this.firstRevision ? undefined : this.#items[main - this.#first];
  }

  /** The change at a position held here. */
  at(main: number, sub: number): ChangeEvent | undefined {
    return main < this.firstRevision ? undefined : this.#items[main - this.#first]?.[sub];
  }

  /** The batch, and so all before it, reached the backend. Returns the first revision that this was news for; up to `writtenUpTo`. */
  written(batch: BackendBatch): number {
    const from = this.#writtenUpTo + 1;
    const at = this.#pending.findIndex((entry) => entry.batch === batch);
    if (at < 0) return from;
    this.#writtenUpTo = (this.#pending[at] as PendingBatch).lastMain;
    this.#pending.splice(0, at + 1);
    return from;
  }

  /** Drops what is written and beyond the limits, oldest first. */
  trim(): void {
    while (
      this.firstRevision <= this.#writtenUpTo &&
      (this.#bytes > this.#bytesMax || this.#items.length - this.#dropped > this.#revisionsMax)
    ) {
      this.#bytes -= this.#sizes[this.#dropped] as number;
      this.#items[this.#dropped] = [];
      this.#dropped += 1;
    }
    if (this.#dropped >= TRIM_LUMP && this.#dropped * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#dropped);
      this.#sizes = this.#sizes.slice(this.#dropped);
      this.#first += this.#dropped;
      this.#dropped = 0;
    }
  }
}
