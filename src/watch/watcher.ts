import type { KeyString } from "../base/bytes.ts";
import type { Revision } from "../base/ids.ts";
import type { Bucket, IndexedItem } from "./interval-tree.ts";
import type { WatchStream } from "./stream.ts";

/**
 * - synced: gets each revision when it is notified, from `next` on.
 * - lagging: has to be served from the store, from `next` on.
 * - stalled: as lagging, but waits until its stream's queue is read.
 * - compacted: what it needed next is compacted. It was told so; its id stays taken until the client cancels it.
 * - closed: cancelled, or its stream is closed.
 */
export type WatcherState = "synced" | "lagging" | "stalled" | "compacted" | "closed";

/** Bits of {@link Watcher.options}. */
export const WatchOption = { noPut: 1, noDelete: 2, prevKv: 4, fragment: 8, progressNotify: 16 } as const;

export class Watcher implements IndexedItem<Watcher> {
  readonly stream: WatchStream;
  readonly id: bigint;
  readonly start: KeyString;
  /** Exclusive; undefined when the key `start` alone is watched. */
  readonly end: KeyString | undefined;
  /** As asked for: 0 means from creation on. */
  readonly startRevision: Revision;
  /** The first revision that could be delivered. */
  readonly firstRevision: Revision;
  /** Bits of {@link WatchOption}. */
  readonly options: number;
  state: WatcherState = "synced";
  /**
   * Every matching event below is in the stream's queue or was read. Never decreases (I18). While synced it is only a lower bound: all
   * notified revisions from there on were queued as well.
   */
  next: Revision;
  /** No events since the last periodic progress. */
  quiet = true;
  bucket: Bucket<Watcher> | undefined = undefined;
  bucketSlot = -1;

  constructor(
    stream: WatchStream,
    id: bigint,
    start: KeyString,
    end: KeyString | undefined,
    startRevision: Revision,
    firstRevision: Revision,
    options: number,
  ) {
    this.stream = stream;
    this.id = id;
    this.start = start;
    this.end = end;
    this.startRevision = startRevision;
    this.firstRevision = firstRevision;
    this.options = options;
    this.next = firstRevision;
  }

  has(option: number): boolean {
    return (this.options & option) !== 0;
  }

  /** False when the filters drop events of that type. */
  wants(isPut: boolean): boolean {
    return (this.options & (isPut ? WatchOption.noPut : WatchOption.noDelete)) === 0;
  }

  watches(key: KeyString): boolean {
    return this.end === undefined ? key === this.start : key >= this.start && key < this.end;
  }
}
