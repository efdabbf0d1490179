/**
 * The watch hub. The applier notifies each revision once; watchers that have everything before it get their events at once, synchronously.
 * The others (started in the past, or their stream's reader was slow) are served from the store in stretches until they have caught up.
 * A watcher's position says exactly what it has: nothing is skipped when a queue is full, when a snapshot replaces the store, or when
 * compaction overtakes it (it is then told so). Rules of etcd's server/storage/mvcc/watchable_store.go; differences: queues are bounded
 * in bytes per stream, catching up is fair between watchers of different positions, and all responses of a stream go through one queue.
 */
import type { KeyValue, ResponseHeader } from "../api/index.ts";
import { assert } from "../base/assert.ts";
import { EtcdError } from "../base/errors.ts";
import type { Revision } from "../base/ids.ts";
import type { MvccEvent } from "../mvcc/index.ts";
import { HistoryBatch, previousMissing, RecentRevisions } from "./catch-up.ts";
import type { WatchHubFace, WatchHubOptions, WatchSource } from "./hub.contract.ts";
import { type Bucket, WatchIndex } from "./interval-tree.ts";
import { headerOf } from "./progress.ts";
import { type Selection, Selections } from "./selection.ts";
import { type StreamHost, WatchStream } from "./stream.ts";
import { type SharedEvent, WatchEvent } from "./watch-event.ts";
import { type Watcher, WatchOption } from "./watcher.ts";

/** Reads of the store in one call of `catchUp`. */
const READS_PER_ROUND = 16;
/** About so many bytes are read from the store at once. Not less, or long histories come in smaller responses than etcd's. */
const HISTORY_BYTES = 4 * 1024 * 1024;
/** For a slow reader: what does not fit into its queue would be read again and again. */
const HISTORY_BYTES_MIN = 256 * 1024;
/** A watcher may want only a part of what is read. */
const HISTORY_BYTES_PER_ROOM = 4;
/** Last revisions kept in memory, at most so many bytes (and `catchUpRevisionsMax` revisions). */
const RECENT_BYTES = 8 * 1024 * 1024;
/** Work between two pauses while catching up: events handed out plus watchers looked at, about 2 ms. */
const SLICE_WORK = 2000;
/** Up to so many previous pairs are looked up in between; more of them are read together, without blocking. */
const PREVIOUS_NOW_MAX = 32;

/** Deliberate faults, to prove that the tests and the simulator find them (failure catalogue, mutants). */
export const WATCH_MUTANTS: readonly string[] = [
  "progress-bypasses-queue",
  "watcher-reset-on-snapshot",
  "lagging-watcher-advanced-on-full-queue",
  "future-start-lowered-on-snapshot",
];

export class WatchHub implements WatchHubFace {
  readonly #options: WatchHubOptions;
  #source: WatchSource;
  readonly #streams = new Set<WatchStream>();
  /** All watchers but the compacted ones. */
  readonly #index = new WatchIndex<Watcher>();
  /** Watchers in state lagging, the one whose turn is next first. */
  readonly #lagging = new Set<Watcher>();
  #stalledCount = 0;
  /** All revisions up to here were notified. Invariant: at most the source's revision. */
  #notified: Revision;
  readonly #recent: RecentRevisions;
  readonly #host: StreamHost;
  #readableStreams: WatchStream[] = [];
  #catchingUp: Promise<void> | undefined;
  /** Changes when the source is replaced: what was read before is not used afterwards. */
  #generation = 0;
  #pendingEvents = 0;
  #eventsTotal = 0;
  #closed = false;
  /** Emptied and reused by each notification. */
  readonly #buckets: Bucket<Watcher>[] = [];

  readonly #mutantReset: boolean;
  readonly #mutantAdvance: boolean;
  readonly #mutantLowerStart: boolean;

  constructor(options: WatchHubOptions) {
    assert(options.streamBytesMax > 0 && options.fragmentBytes > 0 && options.catchUpRevisionsMax > 0, "the hub's limits are positive");
    this.#options = options;
    this.#source = options.source;
    this.#notified = options.source.revision;
    this.#recent = new RecentRevisions(options.catchUpRevisionsMax, RECENT_BYTES, this.#notified + 1);
    this.#mutantReset = options.mutants?.has("watcher-reset-on-snapshot") === true;
    this.#mutantAdvance = options.mutants?.has("lagging-watcher-advanced-on-full-queue") === true;
    this.#mutantLowerStart = options.mutants?.has("future-start-lowered-on-snapshot") === true;
    this.#host = this.#makeHost(options.mutants?.has("progress-bypasses-queue") === true);
  }

  // -- the applier -------------------------------------------------------------------------------------------------------------------------

  notify(revision: Revision, events: readonly MvccEvent[]): void {
    if (this.#closed) return;
    assert(revision === this.#notified + 1, "every revision is notified once, in order", { revision, notified: this.#notified });
    assert(events.length > 0, "a revision has events", { revision });
    this.#notified = revision;
    if (this.#index.size === 0) {
      this.#recent.clear(revision + 1);
      return;
    }
    const changes: WatchEvent[] = [];
    for (const event of events) {
      assert(event.kv.modRevision === revision, "events are of the notified revision", { revision, event: event.kv.modRevision });
      changes.push(new WatchEvent(event));
    }
    this.#handOutRevision(changes, revision);
    this.#recent.push(revision, changes);
    this.#flush();
  }

  restore(source: WatchSource): void {
    assert(source.revision >= this.#notified, "a snapshot does not go back", { from: this.#notified, to: source.revision });
    const everyoneHas = this.#notified;
    this.#source = source;
    this.#generation += 1;
    this.#notified = source.revision;
    this.#recent.clear(this.#notified + 1);
    for (const stream of this.#streams) {
      for (const watcher of stream.watchers) {
        if (watcher.state !== "synced") continue;
        if (watcher.next <= everyoneHas) watcher.next = everyoneHas + 1;
        if (this.#mutantReset) watcher.next = watcher.firstRevision;
        if (this.#mutantLowerStart) watcher.next = Math.min(watcher.next, this.#notified);
        if (watcher.next <= this.#notified) this.#lag(watcher);
      }
    }
    this.#flush();
  }

  // -- streams -----------------------------------------------------------------------------------------------------------------------------

  /** `onReadable` is called from within the hub, at the end of whatever made something readable; it may use the stream, and must not throw. */
  openStream(onReadable: () => void): WatchStream {
    const stream = new WatchStream(this.#host, onReadable);
    if (this.#closed) stream.close();
    else this.#streams.add(stream);
    return stream;
  }

  get stats(): WatchHubFace["stats"] {
    return {
      streams: this.#streams.size,
      watchers: this.#index.size,
      slowWatchers: this.#lagging.size + this.#stalledCount,
      pendingEvents: this.#pendingEvents,
      eventsTotal: this.#eventsTotal,
    };
  }

  /** For tests: every watcher is where its state says, and all counts are right. */
  check(): void {
    let indexed = 0;
    let stalled = 0;
    let lagging = 0;
    for (const stream of this.#streams) {
      let unsynced = 0;
      for (const watcher of stream.watchers) {
        if (watcher.state !== "compacted") indexed += 1;
        if (watcher.state !== "synced") unsynced += 1;
        if (watcher.state === "lagging") lagging += 1;
        assert(watcher.state === "lagging" || !this.#lagging.has(watcher), "only lagging watchers wait for their turn");
        assert((watcher.state === "stalled") === stream.stalled.has(watcher), "stalled watchers wait at their stream");
        assert(watcher.state !== "stalled" || !stream.nothingUnread, "who waits for a reader waits for something that can be read");
        assert(
          (watcher.state !== "lagging" && watcher.state !== "stalled") || watcher.next <= this.#notified,
          "who lags has something to get",
        );
      }
      assert(stream.unsynced === unsynced, "unsynced watchers are counted", { counted: stream.unsynced, are: unsynced });
      stalled += stream.stalled.size;
    }
    assert(this.#index.size === indexed && this.#lagging.size === lagging && this.#stalledCount === stalled, "watchers are counted");
    this.#index.check();
  }

  /** Closes all streams; nothing is queued any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#generation += 1;
    for (const stream of [...this.#streams]) stream.close();
    this.#recent.clear(this.#notified + 1);
    this.#readableStreams = [];
  }

  // -- catching up -------------------------------------------------------------------------------------------------------------------------

  /** Watchers whose stream is full are not counted: they go on when it is read. */
  get lagging(): boolean {
    return this.#lagging.size > 0;
  }

  /** Calls that overlap share one round. Rejects when the store cannot be read; the watchers stay where they are. */
  catchUp(): Promise<void> {
    this.#catchingUp ??= this.#round().finally(() => {
      this.#catchingUp = undefined;
    });
    return this.#catchingUp;
  }

  async #round(): Promise<void> {
    for (let reads = 0; reads < READS_PER_ROUND; reads += 1) {
      const generation = this.#generation;
      // Those near the present first: they cost no read, and need not wait for those far behind.
      if (this.#someAreRecent()) {
        await this.#serve(this.#recent.batch(), generation, true);
        if (this.#generation !== generation) return;
      }
      const head = this.#nextInTurn();
      if (head === undefined) return;
      if (!this.#recent.covers(head.next)) {
        const batch = await this.#read(head.next, head.stream.roomBytes);
        if (this.#generation !== generation) return;
        if (batch !== undefined) await this.#serve(batch, generation, false);
        if (this.#generation !== generation) return;
      }
      await this.#options.yieldNow();
    }
  }

  #someAreRecent(): boolean {
    for (const watcher of this.#lagging) if (this.#recent.covers(watcher.next)) return true;
    return false;
  }

  /** The first lagging watcher that can be served. Those before it are cancelled (compacted) or set aside (their stream is full). */
  #nextInTurn(): Watcher | undefined {
    for (const watcher of this.#lagging) {
      if (watcher.next < this.#source.compactRevision) this.#cancelCompacted(watcher);
      else if (watcher.stream.full) this.#stall(watcher);
      else {
        this.#flush();
        return watcher;
      }
    }
    this.#flush();
    return undefined;
  }

  /** Reads a stretch of history. Undefined when it was compacted meanwhile. */
  async #read(from: Revision, roomBytes: number): Promise<HistoryBatch | undefined> {
    const source = this.#source;
    const generation = this.#generation;
    const upTo = this.#notified;
    try {
      const { events, next } = await source.history(from, upTo, {
        revisionsMax: this.#options.catchUpRevisionsMax,
        bytesMax: Math.min(HISTORY_BYTES, Math.max(HISTORY_BYTES_MIN, HISTORY_BYTES_PER_ROOM * roomBytes)),
      });
      assert(next <= upTo + 1, "history ends where it was told to", { next, upTo });
      return new HistoryBatch(
        events.map((event) => new WatchEvent(event)),
        from,
        next,
      );
    } catch (error) {
      // The store was closed because another took its place, or with the hub: what it could not read is not wanted any more.
      if (this.#generation !== generation) return undefined;
      if (!EtcdError.is(error) || error.reason !== "compacted") throw error;
      // The next turn cancels the watcher by the compaction that made the read fail.
      assert(source.compactRevision > from, "history is refused only below the compaction", { from });
      return undefined;
    }
  }

  /** Serves all lagging watchers which are within the stretch. */
  async #serve(batch: HistoryBatch, generation: number, recent: boolean): Promise<void> {
    const waiting: Watcher[] = [];
    for (const watcher of this.#lagging) if (batch.covers(watcher)) waiting.push(watcher);
    let work = 0;
    let at = 0;
    while (at < waiting.length) {
      const watcher = waiting[at] as Watcher;
      if (watcher.state !== "lagging" || !batch.covers(watcher)) {
        at += 1;
        continue;
      }
      const matching = batch.matching(watcher);
      const missing = previousMissing(watcher, matching);
      if (missing.length > PREVIOUS_NOW_MAX) {
        this.#flush();
        await this.#lookUpPrevious(missing);
        if (this.#generation !== generation) return;
        work = 0;
        // Kept revisions go on while we wait: only a new look at them brings a watcher to the present.
        if (recent && batch.next <= this.#notified) return;
        continue;
      }
      this.#handOutHistory(watcher, matching, batch.next);
      at += 1;
      work += 1 + matching.length;
      if (work >= SLICE_WORK) {
        this.#flush();
        await this.#options.yieldNow();
        if (this.#generation !== generation || (recent && batch.next <= this.#notified)) return;
        work = 0;
      }
    }
    this.#flush();
  }

  /** Queues as many complete revisions as the stream has room for, and moves the watcher on behind them. */
  #handOutHistory(watcher: Watcher, matching: readonly WatchEvent[], batchNext: Revision): void {
    const { stream } = watcher;
    const wantsPrevious = watcher.has(WatchOption.prevKv);
    const { roomBytes } = stream;
    const events: SharedEvent[] = [];
    let bytes = 0;
    /** The first revision that has to wait. */
    let waits: Revision | undefined;
    for (let at = 0; at < matching.length && waits === undefined; ) {
      const begin = at;
      const { revision } = matching[at] as WatchEvent;
      let revisionBytes = 0;
      for (; at < matching.length && (matching[at] as WatchEvent).revision === revision; at += 1) {
        const event = matching[at] as WatchEvent;
        const shared = wantsPrevious ? this.#lookUpOne(event) : event.plain;
        shared.uses += 1;
        events.push(shared);
        revisionBytes += shared.responseBytes;
      }
      if (bytes + revisionBytes <= roomBytes || (begin === 0 && stream.nothingUnread)) {
        bytes += revisionBytes;
      } else {
        events.length -= at - begin;
        waits = revision;
      }
    }
    if (events.length > 0) {
      stream.pushEvents(watcher, headerOf(this.#notified), events, bytes);
      this.#eventsTotal += events.length;
    }
    const next = waits === undefined || this.#mutantAdvance ? batchNext : waits;
    assert(next >= watcher.next, "a watcher's position does not go back");
    watcher.next = next;
    this.#lagging.delete(watcher);
    if (watcher.next > this.#notified) this.#sync(watcher);
    else if (waits !== undefined && events.length === 0 && !this.#mutantAdvance) this.#setAside(watcher);
    else this.#lagging.add(watcher);
  }

  async #lookUpPrevious(missing: readonly WatchEvent[]): Promise<void> {
    const generation = this.#generation;
    const allowed = missing.filter((event) => this.#previousKept(event));
    const positions = allowed.map((event) => event.previousToLookUp);
    let rows: (KeyValue | undefined)[];
    try {
      rows = await this.#source.rowsAt(positions.filter((position) => position !== undefined));
    } catch (error) {
      if (this.#generation !== generation) return;
      throw error;
    }
    if (this.#generation !== generation) return;
    allowed.forEach((event, at) => {
      event.setPrevious(rows[at]);
    });
    for (const event of missing) if (event.previousToLookUp !== undefined) event.setPrevious(undefined);
  }

  #previousNow(event: WatchEvent): ReturnType<WatchSource["rowAt"]> {
    const position = event.previousToLookUp;
    return position === undefined || !this.#previousKept(event) ? undefined : this.#source.rowAt(position);
  }

  /** The previous pair is the one visible a revision earlier, and that revision must not be compacted. */
  #previousKept(event: WatchEvent): boolean {
    return event.revision - 1 >= this.#source.compactRevision;
  }

  // -- handing out what was notified ---------------------------------------------------------------------------------------------------------

  #handOutRevision(events: readonly WatchEvent[], revision: Revision): void {
    const header = headerOf(revision);
    const buckets = this.#buckets;
    if (events.length === 1) {
      this.#index.collect((events[0] as WatchEvent).key, buckets);
      const selections = new Selections(events);
      for (const bucket of buckets) this.#handOutTo(bucket, selections, header);
      buckets.length = 0;
      return;
    }
    // All watchers of a bucket match the same events, so these are gathered per bucket, not per watcher.
    const gathered = new Map<Bucket<Watcher>, WatchEvent[]>();
    for (const event of events) {
      this.#index.collect(event.key, buckets);
      for (const bucket of buckets) {
        const matching = gathered.get(bucket);
        if (matching === undefined) gathered.set(bucket, [event]);
        else matching.push(event);
      }
      buckets.length = 0;
    }
    for (const [bucket, matching] of gathered) this.#handOutTo(bucket, new Selections(matching), header);
  }

  #handOutTo(bucket: Bucket<Watcher>, selections: Selections, header: ResponseHeader): void {
    for (const watcher of bucket.items) {
      if (watcher.state !== "synced" || watcher.next > header.revision) continue;
      const selection = selections.of(watcher) ?? selections.select(watcher, this.#lookUpOne);
      if (selection.events.length > 0) this.#handOut(watcher, header, selection);
    }
  }

  /** The event with its previous pair, looked up now if it was not before. */
  readonly #lookUpOne = (event: WatchEvent): SharedEvent => event.withPrevious ?? event.setPrevious(this.#previousNow(event));

  #handOut(watcher: Watcher, header: ResponseHeader, selection: Selection): void {
    const { stream } = watcher;
    if (stream.hasRoom(selection.bytes)) {
      selection.use();
      stream.pushEvents(watcher, header, selection.events, selection.bytes);
      this.#eventsTotal += selection.events.length;
      return;
    }
    if (this.#mutantAdvance) return;
    // A slow reader. This revision and what follows will come from the store, so nothing is lost.
    watcher.next = header.revision;
    stream.unsynced += 1;
    this.#setAside(watcher);
  }

  // -- states of watchers ----------------------------------------------------------------------------------------------------------------------

  #lag(watcher: Watcher): void {
    const idle = this.#lagging.size === 0;
    watcher.state = "lagging";
    watcher.stream.unsynced += 1;
    this.#lagging.add(watcher);
    if (idle) this.#options.onLagging?.();
  }

  #sync(watcher: Watcher): void {
    watcher.state = "synced";
    watcher.stream.unsynced -= 1;
  }

  #stall(watcher: Watcher): void {
    this.#lagging.delete(watcher);
    this.#setAside(watcher);
  }

  #setAside(watcher: Watcher): void {
    watcher.state = "stalled";
    watcher.stream.stalled.add(watcher);
    this.#stalledCount += 1;
  }

  #cancelCompacted(watcher: Watcher): void {
    this.#lagging.delete(watcher);
    this.#index.remove(watcher);
    watcher.state = "compacted";
    watcher.stream.pushCompacted(watcher, this.#source.compactRevision);
  }

  #makeHost(progressBypassesQueue: boolean): StreamHost {
    const { streamBytesMax, fragmentBytes, watchersPerStreamMax } = this.#options;
    return {
      streamBytesMax,
      fragmentBytes,
      watchersPerStreamMax,
      progressBypassesQueue,
      notified: () => this.#notified,
      current: () => this.#source.revision,
      add: (watcher) => {
        this.#index.add(watcher, watcher.start, watcher.end);
        if (watcher.next < this.#source.compactRevision) {
          watcher.stream.unsynced += 1;
          this.#cancelCompacted(watcher);
        } else if (watcher.next <= this.#notified) this.#lag(watcher);
      },
      remove: (watcher) => {
        this.#index.remove(watcher);
        if (watcher.state !== "synced") watcher.stream.unsynced -= 1;
        this.#lagging.delete(watcher);
        if (watcher.stream.stalled.delete(watcher)) this.#stalledCount -= 1;
      },
      resume: (stream) => {
        const idle = this.#lagging.size === 0;
        for (const watcher of stream.stalled) {
          watcher.state = "lagging";
          this.#lagging.add(watcher);
        }
        this.#stalledCount -= stream.stalled.size;
        stream.stalled.clear();
        if (idle && this.#lagging.size > 0) this.#options.onLagging?.();
      },
      readable: (stream) => this.#readableStreams.push(stream),
      flush: () => this.#flush(),
      countPending: (events) => {
        this.#pendingEvents += events;
      },
      closed: (stream) => this.#streams.delete(stream),
    };
  }

  /** Tells the owners of streams that became readable. Last, because they may come back with requests. */
  #flush(): void {
    while (this.#readableStreams.length > 0) {
      const streams = this.#readableStreams;
      this.#readableStreams = [];
      for (const stream of streams) stream.tell();
    }
  }
}
