/** A watch as an async iterable of batches, each one or more whole revisions. */
import * as api from "../api/index.ts";
import { EtcdError } from "../base/errors.ts";
import type { Coding, KeyInput, KeySelection, KeyValue } from "./coding.ts";
import { BadAnswerError, canceledError } from "./errors.ts";
import { counter } from "./requests.ts";
import type { WatchHandle, WatchHub } from "./watch-hub.ts";

export interface WatchOptions<K = string> extends KeySelection<K> {
  /**
   * The first revision of interest, inclusive: `seen + 1` goes on without a gap. Absent or 0: from now on. One that is compacted away ends the watch with a
   * `CompactedError`.
   */
  readonly fromRevision?: number | undefined;
  /** Give the pair before each change, too, where the server still has it. */
  readonly previous?: boolean | undefined;
  readonly only?: "puts" | "deletes" | undefined;
  /** Also yield batches without events, whose `revision` says how far the watch is when nothing matches. Their rhythm is the server's (10 minutes by default). */
  readonly progress?: boolean | undefined;
  /** Default true: a member that loses its leader ends the stream, and the watch goes on elsewhere. */
  readonly requireLeader?: boolean | undefined;
  /** Events that may wait to be consumed before the flow is stopped; nothing is lost by that. Default 10,000. */
  readonly bufferedEventsMax?: number | undefined;
  /** Ends the watch with an error. */
  readonly signal?: AbortSignal | undefined;
}

export type WatchEvent<V = string, K = string> = PutEvent<V, K> | DeleteEvent<V, K>;

export interface PutEvent<V = string, K = string> {
  readonly type: "put";
  readonly key: K;
  /** At which it happened. */
  readonly revision: number;
  readonly kv: KeyValue<V, K>;
  /** The key did not exist before. */
  readonly created: boolean;
  readonly previous: KeyValue<V, K> | undefined;
}

/** By a delete, or because the key's lease ended. */
export interface DeleteEvent<V = string, K = string> {
  readonly type: "delete";
  readonly key: K;
  readonly revision: number;
  readonly previous: KeyValue<V, K> | undefined;
}

export interface WatchBatch<V = string, K = string> {
  /** Ascending revisions; all events of a revision are in one batch. */
  readonly events: readonly WatchEvent<V, K>[];
  /** Everything up to here has been delivered. */
  readonly revision: number;
}

export function watchEvent<V, K>(coding: Coding<V, K>, event: api.Event): WatchEvent<V, K> {
  const { kv } = event;
  if (kv === undefined) throw new BadAnswerError("an event without a pair");
  const previous = coding.pairOrNone(event.prevKv);
  const revision = kv.modRevision;
  if (event.type === api.EventType.DELETE) return { type: "delete", key: coding.keyOf(kv.key), revision, previous };
  const pair = coding.pair(kv);
  return { type: "put", key: pair.key, revision, kv: pair, created: kv.createRevision === revision, previous };
}

export function filtersOf(only: "puts" | "deletes" | undefined): readonly number[] {
  if (only === undefined) return [];
  return [only === "puts" ? api.FilterType.NODELETE : api.FilterType.NOPUT];
}

const BUFFERED_EVENTS_MAX = 10_000;

interface Waiting<V, K> {
  resolve(result: IteratorResult<WatchBatch<V, K>, undefined>): void;
  reject(error: unknown): void;
}

/**
 * A running watch. Iterate it once; `close` it (or leave the loop, or use `await using`) when done. It outlives broken connections and members: it goes on at
 * exactly the next revision. The iteration ends with an error when the watch cannot go on: `CompactedError` (read the range anew and watch from there),
 * a refusal such as `permission-denied`, its signal, or the client's end.
 */
export class Watcher<V = string, K = string> implements AsyncIterableIterator<WatchBatch<V, K>, undefined> {
  /** Resolves when a member has taken the watch, with the revision of its store then. */
  readonly ready: Promise<number>;
  readonly #coding: Coding<V, K>;
  readonly #handle: WatchHandle;
  readonly #signal: AbortSignal | undefined;
  readonly #eventsMax: number;
  #queue: { readonly events: readonly api.Event[]; readonly revision: number }[] = [];
  #queuedEvents = 0;
  #waiting: Waiting<V, K>[] = [];
  #stopped = false;
  #end: EtcdError | "closed" | undefined;
  #settleReady: { resolve: (revision: number) => void; reject: (error: EtcdError) => void } | undefined;

  constructor(hub: WatchHub, coding: Coding<V, K>, key: KeyInput<K>, options: WatchOptions<K> = {}) {
    this.#coding = coding;
    this.#eventsMax = Math.max(1, options.bufferedEventsMax ?? BUFFERED_EVENTS_MAX);
    const range = coding.range(key, options);
    const startRevision = counter(options.fromRevision, "fromRevision");
    this.ready = new Promise((resolve, reject) => {
      this.#settleReady = { resolve, reject };
    });
    // Nobody has to wait for it; whoever iterates gets the error.
    this.ready.catch(() => undefined);
    this.#handle = hub.open(
      {
        ...range,
        startRevision,
        previous: options.previous === true,
        filters: filtersOf(options.only),
        progressNotify: options.progress === true,
        requireLeader: options.requireLeader ?? true,
      },
      {
        onCreated: (revision) => this.#settleReady?.resolve(revision),
        onEvents: (events, revision) => this.#push(events, revision),
        onProgress: (revision) => {
          if (options.progress === true) this.#push([], revision);
        },
        onEnd: (error) => this.#finish(error),
      },
    );
    this.#signal = options.signal;
    if (this.#signal?.aborted === true) this.#onAbort();
    else this.#signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Revision of the first event that is still to be received from the server; 0 before the watch has begun. */
  get position(): number {
    return this.#handle.position;
  }

  next(): Promise<IteratorResult<WatchBatch<V, K>, undefined>> {
    const batch = this.#queue.shift();
    if (batch !== undefined) {
      this.#queuedEvents -= batch.events.length;
      if (this.#stopped && this.#queuedEvents <= this.#eventsMax / 2) {
        this.#stopped = false;
        this.#handle.resume();
      }
      return this.#deliver(batch);
    }
    if (this.#end === "closed") return Promise.resolve({ done: true, value: undefined });
    if (this.#end !== undefined) return Promise.reject(this.#end);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<WatchBatch<V, K>, undefined>> {
    this.close();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Ends the watch; what was received and not consumed is dropped. Idempotent. */
  close(): void {
    this.#queue = [];
    this.#queuedEvents = 0;
    this.#finish("closed");
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  readonly #onAbort = (): void => {
    this.#queue = [];
    this.#finish(canceledError(this.#signal as AbortSignal));
  };

  #push(events: readonly api.Event[], revision: number): void {
    const batch = { events, revision };
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) {
      this.#deliver(batch).then(waiting.resolve, waiting.reject);
      return;
    }
    this.#queue.push(batch);
    this.#queuedEvents += events.length;
    if (this.#queuedEvents <= this.#eventsMax || this.#stopped) return;
    this.#stopped = true;
    this.#handle.pause();
  }

  #deliver(batch: {
    readonly events: readonly api.Event[];
    readonly revision: number;
  }): Promise<IteratorResult<WatchBatch<V, K>, undefined>> {
    try {
      const events = batch.events.map((event) => watchEvent(this.#coding, event));
      return Promise.resolve({ done: false, value: { events, revision: batch.revision } });
    } catch (error) {
      this.#finish(EtcdError.is(error) ? error : new BadAnswerError(String(error), { cause: error }));
      return Promise.reject(error);
    }
  }

  #finish(how: EtcdError | "closed"): void {
    if (this.#end !== undefined) return;
    this.#end = how;
    this.#handle?.close();
    this.#signal?.removeEventListener("abort", this.#onAbort);
    const waiting = this.#waiting;
    this.#waiting = [];
    if (how === "closed") {
      this.#settleReady?.reject(new api.RpcError("canceled"));
      for (const one of waiting) one.resolve({ done: true, value: undefined });
    } else {
      this.#settleReady?.reject(how);
      for (const one of waiting) one.reject(how);
    }
  }
}
