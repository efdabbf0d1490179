import { type ResponseHeader, rpcError, type WatchCreateRequest, type WatchResponse } from "../api/index.ts";
import { assert } from "../base/assert.ts";
import { type KeyString, keyStringOf } from "../base/bytes.ts";
import type { Revision } from "../base/ids.ts";
import { varintBytes } from "./encoded-size.ts";
import type { WatchStreamFace } from "./hub.contract.ts";
import { OPEN_END } from "./interval-tree.ts";
import { headerOf, isCaughtUp, NO_WATCH_ID, periodEnds, response } from "./progress.ts";
import type { SharedEvent } from "./watch-event.ts";
import { Watcher, WatchOption } from "./watcher.ts";

/** What a response costs beside its events: its share of the budget must not be nothing, or empty ones were unbounded. */
const RESPONSE_BYTES = 96;
/** Encoded header and watch id, at most: added to the events when a response is measured for fragmenting. */
const ENVELOPE_BYTES = 40;
/** From this many unread answers to requests on, the stream asks its owner not to read requests. */
const CONTROL_UNREAD_CONGESTED = 1024;
/** Beyond this many the owner did not listen, and further requests are refused. */
const CONTROL_UNREAD_MAX = 65_536;

const TOO_MANY_WATCHERS = "etcdserver: too many requests";
const COMPACTED = "etcdserver: mvcc: required revision has been compacted";
const EMPTY_RANGE = "mvcc: watcher range is empty";
const DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream";

const FilterNumber = { noPut: 0, noDelete: 1 } as const;

/** The hub, as its streams see it. */
export interface StreamHost {
  readonly streamBytesMax: number;
  readonly fragmentBytes: number;
  readonly watchersPerStreamMax: number;
  readonly progressBypassesQueue: boolean;
  /** The last notified revision: everything up to it was queued for the synced watchers. */
  notified(): Revision;
  /** The store's revision: at or, while a notification is on its way, above `notified`. */
  current(): Revision;
  /** A watcher was made: index it, and serve it. */
  add(watcher: Watcher): void;
  /** A watcher that is not `compacted` goes away. */
  remove(watcher: Watcher): void;
  /** The stream's queue was read: its stalled watchers can go on. */
  resume(stream: WatchStream): void;
  /** Something is readable; its owner is told at the next `flush`. */
  readable(stream: WatchStream): void;
  flush(): void;
  countPending(events: number): void;
  closed(stream: WatchStream): void;
}

/** One client's stream: its watchers and the queue of what it has not read yet. */
export class WatchStream implements WatchStreamFace {
  readonly #host: StreamHost;
  readonly #onReadable: () => void;
  readonly #watchers = new Map<bigint, Watcher>();
  #nextId = 0n;
  /** Watchers that could not be given something because the queue was full, longest waiting first. */
  readonly stalled = new Set<Watcher>();
  /** Those of #watchers that are not synced. */
  unsynced = 0;

  /** Responses from #head on are unread, #sizes parallel to them. */
  #queue: WatchResponse[] = [];
  #sizes: number[] = [];
  #head = 0;
  #bytes = 0;
  #controlUnread = 0;
  /** The owner found nothing at its last look: tell it when there is something. */
  #awaited = true;
  #closed = false;

  constructor(host: StreamHost, onReadable: () => void) {
    this.#host = host;
    this.#onReadable = onReadable;
  }

  // -- requests --------------------------------------------------------------------------------------------------------------------------

  /** @throws RpcError too-many-requests when the owner goes on sending requests without reading answers; end the stream then. */
  create(request: WatchCreateRequest): void {
    if (!this.#admit()) return;
    const host = this.#host;
    const start = request.key.length === 0 ? ("\0" as KeyString) : keyStringOf(request.key);
    const end = endOf(request.rangeEnd);
    const { startRevision } = request;
    const reason = this.#reasonAgainst(start, end, startRevision, request.watchId);
    if (reason !== undefined) {
      this.#answerRefusal(reason);
      return;
    }
    const id = request.watchId !== 0n ? request.watchId : this.#pickId();
    const current = host.current();
    const first = startRevision === 0 ? current + 1 : startRevision;
    const watcher = new Watcher(this, id, start, end, startRevision, first, optionsOf(request));
    this.#watchers.set(id, watcher);
    const created = response(id, headerOf(current));
    created.created = true;
    this.#pushControl(created);
    host.add(watcher);
    host.flush();
  }

  /** @throws RpcError as `create`. */
  cancel(watchId: bigint): void {
    const watcher = this.#watchers.get(watchId);
    if (watcher === undefined || !this.#admit()) return;
    this.#watchers.delete(watchId);
    if (watcher.state !== "compacted") this.#host.remove(watcher);
    else this.unsynced -= 1;
    watcher.state = "closed";
    const canceled = response(watchId, headerOf(this.#host.current()));
    canceled.canceled = true;
    this.#pushControl(canceled);
    this.#host.flush();
  }

  /** @throws RpcError as `create`. */
  refuse(reason: string): void {
    if (!this.#admit()) return;
    this.#answerRefusal(reason);
  }

  requestProgress(): void {
    if (this.#closed || this.#watchers.size === 0 || this.unsynced > 0) return;
    const notified = this.#host.notified();
    for (const watcher of this.#watchers.values()) if (!isCaughtUp(watcher, notified)) return;
    this.#pushProgress(NO_WATCH_ID, notified);
    this.#host.flush();
  }

  notifyProgress(): void {
    if (this.#closed) return;
    const notified = this.#host.notified();
    for (const watcher of this.#watchers.values()) if (periodEnds(watcher, notified)) this.#pushProgress(watcher.id, notified);
    this.#host.flush();
  }

  // -- the owner reads ---------------------------------------------------------------------------------------------------------------------

  take(bytesMax: number): WatchResponse[] {
    const taken: WatchResponse[] = [];
    if (this.#head === this.#queue.length) {
      this.#awaited = !this.#closed;
      return taken;
    }
    let bytes = 0;
    let events = 0;
    while (this.#head < this.#queue.length && (taken.length === 0 || bytes < bytesMax)) {
      const one = this.#queue[this.#head] as WatchResponse;
      bytes += this.#sizes[this.#head] as number;
      if (one.events.length === 0) this.#controlUnread -= 1;
      else events += one.events.length;
      taken.push(one);
      this.#head += 1;
    }
    this.#bytes -= bytes;
    this.#host.countPending(-events);
    if (this.#head === this.#queue.length) this.#emptyQueue();
    else if (this.#head >= 1024 && this.#head * 2 >= this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#sizes = this.#sizes.slice(this.#head);
      this.#head = 0;
    }
    // Not at the first free byte: then every response would cost a read of the store.
    if (this.stalled.size > 0 && this.#bytes * 2 <= this.#host.streamBytesMax) this.#host.resume(this);
    return taken;
  }

  get watcherCount(): number {
    return this.#watchers.size;
  }

  /** True when the owner should stop reading requests until it has read answers. */
  get congested(): boolean {
    return this.#controlUnread >= CONTROL_UNREAD_CONGESTED;
  }

  /** Bytes waiting unread. */
  get queuedBytes(): number {
    return this.#bytes;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const watcher of this.#watchers.values()) {
      if (watcher.state !== "compacted") this.#host.remove(watcher);
      watcher.state = "closed";
    }
    this.#watchers.clear();
    this.unsynced = 0;
    let events = 0;
    for (let at = this.#head; at < this.#queue.length; at += 1) events += (this.#queue[at] as WatchResponse).events.length;
    this.#host.countPending(-events);
    this.#emptyQueue();
    this.#bytes = 0;
    this.#controlUnread = 0;
    this.#awaited = false;
    this.#host.closed(this);
  }

  // -- the hub writes ----------------------------------------------------------------------------------------------------------------------

  get watchers(): Iterable<Watcher> {
    return this.#watchers.values();
  }

  /** Calls the owner back, unless the stream was closed meanwhile. */
  tell(): void {
    if (!this.#closed) this.#onReadable();
  }

  /** True when the stream has so much unread that nothing at all fits. */
  get full(): boolean {
    return !this.nothingUnread && this.roomBytes <= 0;
  }

  /** Nothing waits: then a response may be as large as it has to be. */
  get nothingUnread(): boolean {
    return this.#head === this.#queue.length;
  }

  /** Bytes of events that still fit into a response within the budget; may be negative. */
  get roomBytes(): number {
    return this.#host.streamBytesMax - this.#bytes - RESPONSE_BYTES;
  }

  /** Whether a response with that many bytes of events may be queued. */
  hasRoom(eventBytes: number): boolean {
    return this.nothingUnread || eventBytes <= this.roomBytes;
  }

  /** Queues events, complete revisions, for one watcher. `eventBytes` is the sum of their responseBytes. `header` and `events` are kept. */
  pushEvents(watcher: Watcher, header: ResponseHeader, events: SharedEvent[], eventBytes: number): void {
    assert(events.length > 0 && !this.#closed, "events are queued on open streams");
    watcher.quiet = false;
    this.#host.countPending(events.length);
    const { fragmentBytes } = this.#host;
    if (watcher.has(WatchOption.fragment) && events.length > 1 && ENVELOPE_BYTES + eventBytes >= fragmentBytes) {
      this.#pushFragments(watcher, header, events);
      return;
    }
    const one = response(watcher.id, header);
    one.events = events;
    this.#push(one, RESPONSE_BYTES + eventBytes);
  }

  /** Tells that the watcher's history is compacted. */
  pushCompacted(watcher: Watcher, compactRevision: Revision): void {
    const canceled = response(watcher.id, headerOf(0));
    canceled.canceled = true;
    canceled.compactRevision = compactRevision;
    this.#pushControl(canceled);
  }

  #pushFragments(watcher: Watcher, header: ResponseHeader, events: readonly SharedEvent[]): void {
    let piece: SharedEvent[] = [];
    let bytes = 0;
    for (const event of events) {
      if (piece.length > 0 && ENVELOPE_BYTES + bytes + event.responseBytes >= this.#host.fragmentBytes) {
        this.#pushPiece(watcher, header, piece, bytes, true);
        piece = [];
        bytes = 0;
      }
      piece.push(event);
      bytes += event.responseBytes;
    }
    this.#pushPiece(watcher, header, piece, bytes, false);
  }

  #pushPiece(watcher: Watcher, header: ResponseHeader, events: SharedEvent[], bytes: number, more: boolean): void {
    const one = response(watcher.id, header);
    one.events = events;
    one.fragment = more;
    this.#push(one, RESPONSE_BYTES + bytes);
  }

  #reasonAgainst(start: KeyString, end: KeyString | undefined, startRevision: Revision, watchId: bigint): string | undefined {
    if (startRevision < 0) return COMPACTED;
    if (end !== undefined && end <= start) return EMPTY_RANGE;
    if (this.#watchers.size >= this.#host.watchersPerStreamMax) return TOO_MANY_WATCHERS;
    return watchId !== 0n && this.#watchers.has(watchId) ? DUPLICATE_ID : undefined;
  }

  #answerRefusal(reason: string): void {
    const refusal = response(NO_WATCH_ID, headerOf(this.#host.current()));
    refusal.created = true;
    refusal.canceled = true;
    refusal.cancelReason = reason;
    this.#pushControl(refusal);
    this.#host.flush();
  }

  #pushControl(control: WatchResponse): void {
    this.#controlUnread += 1;
    this.#push(control, RESPONSE_BYTES + varintBytes(control.cancelReason.length) + control.cancelReason.length);
  }

  /** Behind all events of the queue, or not at all: a progress that overtakes an event makes a resuming client miss it (catalogue BT1). */
  #pushProgress(watchId: bigint, notified: Revision): void {
    if (!this.hasRoom(0) || this.congested) return;
    const progress = response(watchId, headerOf(notified));
    if (this.#host.progressBypassesQueue && this.#head < this.#queue.length) {
      this.#queue.splice(this.#head, 0, progress);
      this.#sizes.splice(this.#head, 0, RESPONSE_BYTES);
      this.#bytes += RESPONSE_BYTES;
      this.#controlUnread += 1;
      return;
    }
    this.#pushControl(progress);
  }

  #push(one: WatchResponse, bytes: number): void {
    this.#queue.push(one);
    this.#sizes.push(bytes);
    this.#bytes += bytes;
    if (this.#awaited) {
      this.#awaited = false;
      this.#host.readable(this);
    }
  }

  #emptyQueue(): void {
    this.#queue = [];
    this.#sizes = [];
    this.#head = 0;
  }

  /** False when closed. Answers to requests cannot be dropped, so requests are refused when too many of them lie unread. */
  #admit(): boolean {
    if (this.#closed) return false;
    if (this.#controlUnread >= CONTROL_UNREAD_MAX) throw rpcError("too-many-requests");
    return true;
  }

  /** The counter never goes back, so an id freed by a cancel is not given out again by itself. */
  #pickId(): bigint {
    while (this.#watchers.has(this.#nextId)) this.#nextId += 1n;
    const id = this.#nextId;
    this.#nextId += 1n;
    return id;
  }
}

/** Undefined for a single key; everything from the key on when the end is one zero byte. */
function endOf(rangeEnd: Uint8Array): KeyString | undefined {
  if (rangeEnd.length === 0) return undefined;
  return rangeEnd.length === 1 && rangeEnd[0] === 0 ? OPEN_END : keyStringOf(rangeEnd);
}

/** Filters with unknown numbers are ignored. */
function optionsOf(request: WatchCreateRequest): number {
  let options = 0;
  for (const filter of request.filters) {
    if (filter === FilterNumber.noPut) options |= WatchOption.noPut;
    else if (filter === FilterNumber.noDelete) options |= WatchOption.noDelete;
  }
  if (request.prevKv) options |= WatchOption.prevKv;
  if (request.fragment) options |= WatchOption.fragment;
  if (request.progressNotify) options |= WatchOption.progressNotify;
  return options;
}
