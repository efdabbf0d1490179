/** A range of keys, held in memory and kept up to date by a watch: always one consistent revision, never a mixture. */
import * as api from "../api/index.ts";
import { compareBytes, copyBytes, type KeyString, keyStringOf } from "../base/bytes.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { Caller } from "./caller.ts";
import type { Coding, KeyInput, KeyRange, KeySelection, KeyValue } from "./coding.ts";
import { type CallOptions, Deadline, pause } from "./deadline.ts";
import { Ending } from "./ending.ts";
import { BadAnswerError, ClosedError, canceledError } from "./errors.ts";
import { rawPages } from "./pages.ts";
import { headerOf } from "./results.ts";
import { type WatchEvent, watchEvent } from "./watch.ts";
import type { WatchHandle, WatchHub } from "./watch-hub.ts";

/** Without a selection: all keys that begin with the key. */
export interface ViewOptions<K = string> extends KeySelection<K> {
  /** Default true: the view goes on at another member when this one loses its leader. */
  readonly requireLeader?: boolean | undefined;
  /** Closes the view. */
  readonly signal?: AbortSignal | undefined;
}

/** One step of a view: from one revision to the next. */
export interface ViewChange<V = string, K = string> {
  readonly events: readonly WatchEvent<V, K>[];
  readonly revision: number;
  /** The history in between was compacted away: these are the differences between two states, not everything that happened. */
  readonly resynchronized: boolean;
}

const PAGE_SIZE = 1000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 2000;
const NUDGE_FIRST_MS = 5;
const NUDGE_MAX_MS = 500;
/** Progress requests without an answer before the range is read instead. */
const NUDGES_BEFORE_READ = 3;

interface Entry<V, K> {
  readonly raw: Uint8Array;
  readonly kv: KeyValue<V, K>;
}

interface Waiter {
  readonly revision: number;
  resolve(): void;
  reject(error: EtcdError): void;
}

/**
 * A live copy of a range. It survives broken connections, members that fail and compaction. Reading it costs no request and waits for nothing; it may lag behind
 * the cluster: `await view.atLeast(revision)` where that matters, for example after an own put.
 */
export class View<V = string, K = string> implements Iterable<KeyValue<V, K>> {
  /** Resolves when the range has been read; rejects when it cannot be, and the view is closed. */
  readonly ready: Promise<void>;
  /** Resolves with the reason when the view has ended, be it by `close`. */
  readonly ended: Promise<EtcdError>;
  readonly #caller: Caller;
  readonly #hub: WatchHub;
  readonly #coding: Coding<V, K>;
  readonly #range: KeyRange;
  readonly #requireLeader: boolean;
  readonly #signal: AbortSignal | undefined;
  readonly #over = new Ending();
  readonly #reading = new AbortController();
  readonly #releaseClient: () => void;
  readonly #listeners = new Set<(change: ViewChange<V, K>) => void>();
  readonly #waiters = new Set<Waiter>();
  #entries = new Map<KeyString, Entry<V, K>>();
  #sorted: readonly KeyValue<V, K>[] | undefined;
  #revision = 0;
  #handle: WatchHandle | undefined;
  #nudging = false;
  #end: EtcdError | undefined;
  #settleEnded: (error: EtcdError) => void = () => undefined;

  constructor(hub: WatchHub, coding: Coding<V, K>, key: KeyInput<K>, options: ViewOptions<K> = {}) {
    this.ended = new Promise((resolve) => {
      this.#settleEnded = resolve;
    });
    this.#caller = hub.caller;
    this.#hub = hub;
    this.#coding = coding;
    // A view of a single key is possible (`prefix: false`), but what one wants a view of is normally a directory.
    const prefix = options.prefix ?? (options.end === undefined && options.fromKey !== true);
    this.#range = coding.range(key, { ...options, prefix });
    this.#requireLeader = options.requireLeader ?? true;
    this.#signal = options.signal;
    this.#signal?.addEventListener("abort", this.#onAbort, { once: true });
    this.#releaseClient = hub.caller.closing.onEnd((error) => this.#finish(error));
    if (this.#signal?.aborted === true) this.#onAbort();
    if (hub.caller.closing.error !== undefined) this.#finish(hub.caller.closing.error);
    this.ready = this.#begin();
    this.ready.catch(() => undefined);
  }

  /** Of the store, that the content is at. 0 before `ready`. */
  get revision(): number {
    return this.#revision;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** True until it is closed, by its owner or by an error. */
  get open(): boolean {
    return this.#end === undefined;
  }

  get(key: KeyInput<K>): KeyValue<V, K> | undefined {
    return this.#entries.get(keyStringOf(this.#coding.key(key)))?.kv;
  }

  has(key: KeyInput<K>): boolean {
    return this.#entries.has(keyStringOf(this.#coding.key(key)));
  }

  /** All pairs in key order, as they are now: what changes later does not show in this list. */
  list(): readonly KeyValue<V, K>[] {
    this.#sorted ??= [...this.#entries.values()].sort((a, b) => compareBytes(a.raw, b.raw)).map(({ kv }) => kv);
    return this.#sorted;
  }

  [Symbol.iterator](): IterableIterator<KeyValue<V, K>> {
    return this.list()[Symbol.iterator]();
  }

  /**
   * Resolves when the content is at least as new as `revision` (of a put's answer, say).
   * @throws what ended the view, `canceled`, `deadline-exceeded`
   */
  async atLeast(revision: number, options?: Pick<CallOptions, "signal" | "timeoutMs">): Promise<this> {
    if (this.#end !== undefined) throw this.#end;
    if (this.#revision >= revision) return this;
    const deadline = new Deadline(this.#caller.clock, options?.timeoutMs ?? 0, options?.signal, this.#over);
    try {
      await new Promise<void>((resolve, reject) => {
        const waiter: Waiter = { revision, resolve, reject };
        const give = (): void => {
          this.#waiters.delete(waiter);
          reject(deadline.error);
        };
        if (deadline.signal.aborted) return give();
        deadline.signal.addEventListener("abort", give, { once: true });
        this.#waiters.add(waiter);
        this.#nudge();
      });
    } finally {
      deadline.done();
    }
    return this;
  }

  /**
   * Resolves with what `condition` gives as soon as that is not undefined: now, or after a change.
   * @throws what ended the view, `canceled`, `deadline-exceeded`
   */
  async until<T>(condition: (view: this) => T | undefined, options?: Pick<CallOptions, "signal" | "timeoutMs">): Promise<T> {
    if (this.#end !== undefined) throw this.#end;
    const now = condition(this);
    if (now !== undefined) return now;
    const deadline = new Deadline(this.#caller.clock, options?.timeoutMs ?? 0, options?.signal, this.#over);
    let stop = (): void => undefined;
    try {
      return await new Promise<T>((resolve, reject) => {
        deadline.signal.addEventListener("abort", () => reject(deadline.error), { once: true });
        if (deadline.signal.aborted) reject(deadline.error);
        const check = (): void => {
          const value = condition(this);
          if (value !== undefined) resolve(value);
        };
        stop = this.onChange(check);
      });
    } finally {
      stop();
      deadline.done();
    }
  }

  /** Calls `listener` after each change, when the view already shows it. Returns how to stop that. What it throws becomes an unhandled rejection. */
  onChange(listener: (change: ViewChange<V, K>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Idempotent. */
  close(): void {
    this.#finish(new ClosedError("the view"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  // -- filling -----------------------------------------------------------------------------------------------------------------------------

  async #begin(): Promise<void> {
    try {
      const { entries, revision } = await this.#read();
      this.#install(entries, revision, false);
    } catch (error) {
      const failure = this.#end ?? asEtcdError(error);
      this.#finish(failure);
      throw failure;
    }
  }

  async #read(): Promise<{ entries: Map<KeyString, Entry<V, K>>; revision: number }> {
    const entries = new Map<KeyString, Entry<V, K>>();
    let revision = 0;
    const request = api.RangeRequest.create({ ...this.#range, limit: PAGE_SIZE });
    for (;;) {
      entries.clear();
      revision = 0;
      try {
        for await (const page of rawPages(this.#caller, request, false, { signal: this.#reading.signal })) {
          if (revision === 0) revision = headerOf(page).revision;
          for (const kv of page.kvs) entries.set(keyStringOf(kv.key), this.#entry(kv));
        }
        return { entries, revision };
      } catch (error) {
        // Compacted away between two pages: from the beginning.
        if (!api.isRpcError(error, "compacted")) throw error;
      }
    }
  }

  #entry(kv: api.KeyValue): Entry<V, K> {
    return { raw: copyBytes(kv.key), kv: this.#coding.pair(kv) };
  }

  #install(entries: Map<KeyString, Entry<V, K>>, revision: number, again: boolean): void {
    if (this.#end !== undefined) throw this.#end;
    const before = this.#entries;
    this.#entries = entries;
    this.#sorted = undefined;
    this.#revision = revision;
    this.#watch();
    if (again) this.#tell({ events: differences(before, entries, revision), revision, resynchronized: true });
    this.#settle();
  }

  #watch(): void {
    this.#handle = this.#hub.open(
      {
        ...this.#range,
        startRevision: this.#revision + 1,
        previous: false,
        filters: [],
        progressNotify: true,
        requireLeader: this.#requireLeader,
      },
      {
        onCreated: () => undefined,
        onEvents: (events, revision) => this.#onEvents(events, revision),
        onProgress: (revision) => this.#reached(revision),
        onEnd: (error) => this.#onWatchEnd(error),
      },
    );
  }

  #onWatchEnd(error: EtcdError): void {
    this.#handle = undefined;
    if (this.#end !== undefined) return;
    if (error.reason !== "compacted") {
      this.#finish(error);
      return;
    }
    this.#resynchronize().catch((failure: unknown) => this.#finish(asEtcdError(failure)));
  }

  async #resynchronize(): Promise<void> {
    for (let waitMs = RETRY_FIRST_MS; ; waitMs = Math.min(waitMs * 2, RETRY_MAX_MS)) {
      try {
        const { entries, revision } = await this.#read();
        this.#install(entries, revision, true);
        return;
      } catch (error) {
        if (this.#end !== undefined) return;
        if (!mayPass(error)) throw error;
      }
      await pause(this.#caller.clock, waitMs, this.#reading.signal);
    }
  }

  // -- changes -----------------------------------------------------------------------------------------------------------------------------

  #onEvents(events: readonly api.Event[], revision: number): void {
    const told: WatchEvent<V, K>[] = [];
    try {
      for (const event of events) {
        const kv = event.kv as api.KeyValue;
        // Known to have changed nothing in the end: see #confirm.
        if (kv.modRevision <= this.#revision) continue;
        const change = watchEvent(this.#coding, event);
        told.push(change);
        const name = keyStringOf(kv.key);
        if (change.type === "put") this.#entries.set(name, { raw: copyBytes(kv.key), kv: change.kv });
        else this.#entries.delete(name);
      }
    } catch (error) {
      this.#finish(asEtcdError(error));
      return;
    }
    if (told.length > 0) this.#sorted = undefined;
    if (revision > this.#revision) this.#revision = revision;
    if (told.length > 0) this.#tell({ events: told, revision: this.#revision, resynchronized: false });
    this.#settle();
  }

  #reached(revision: number): void {
    if (revision <= this.#revision) return;
    this.#revision = revision;
    this.#settle();
  }

  #tell(change: ViewChange<V, K>): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(change);
      } catch (error) {
        // The program's bug: told to the program, kept from whoever else shares the stream.
        void Promise.reject(error);
      }
    }
  }

  #settle(): void {
    for (const waiter of [...this.#waiters]) {
      if (waiter.revision > this.#revision) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  }

  // -- waiting for a revision that brings no event ----------------------------------------------------------------------------------------

  #nudge(): void {
    if (this.#nudging) return;
    this.#nudging = true;
    this.#nudgeWhileWaiting().then(
      () => {
        this.#nudging = false;
      },
      (error: unknown) => {
        this.#nudging = false;
        if (this.#end === undefined) this.#finish(asEtcdError(error));
      },
    );
  }

  async #nudgeWhileWaiting(): Promise<void> {
    let waitMs = NUDGE_FIRST_MS;
    let asked = 0;
    while (this.#waiters.size > 0 && this.#end === undefined) {
      if (this.#handle !== undefined && (asked >= NUDGES_BEFORE_READ || !this.#handle.requestProgress())) await this.#confirm();
      asked += 1;
      if (this.#waiters.size === 0 || this.#end !== undefined) return;
      await pause(this.#caller.clock, waitMs, this.#reading.signal);
      waitMs = Math.min(waitMs * 2, NUDGE_MAX_MS);
    }
  }

  /**
   * Asks whether the range looks as it does here: no key that was changed later, and as many keys. Then the content here is also that of the revision of the
   * answer; events up to there, if any, cancel each other out and must not be shown any more.
   */
  async #confirm(): Promise<void> {
    const before = this.#revision;
    const handle = this.#handle;
    const request = api.RangeRequest.create({ ...this.#range, limit: 1, keysOnly: true, minModRevision: before + 1 });
    let response: api.RangeResponse;
    try {
      response = await this.#caller.unary(api.KvService.range, request, { signal: this.#reading.signal }, "read");
    } catch (error) {
      if (mayPass(error)) return; // Next time.
      throw error;
    }
    if (this.#end !== undefined || this.#revision !== before || this.#handle !== handle) return;
    const { revision } = headerOf(response);
    if (response.kvs.length > 0 || response.count !== this.#entries.size || revision < before) return;
    handle?.advance(revision + 1);
    this.#reached(revision);
  }

  // -- the end -----------------------------------------------------------------------------------------------------------------------------

  readonly #onAbort = (): void => this.#finish(canceledError(this.#signal as AbortSignal));

  #finish(error: EtcdError): void {
    if (this.#end !== undefined) return;
    this.#end = error;
    this.#signal?.removeEventListener("abort", this.#onAbort);
    this.#releaseClient?.();
    this.#handle?.close();
    this.#handle = undefined;
    this.#over.end(error);
    this.#reading.abort(error);
    this.#listeners.clear();
    this.#settleEnded(error);
  }
}

/** Members may be away for a while. */
function mayPass(error: unknown): boolean {
  return EtcdError.is(error) && (error.grpcCode === GrpcCode.Unavailable || error.grpcCode === GrpcCode.DeadlineExceeded);
}

function asEtcdError(error: unknown): EtcdError {
  return EtcdError.is(error) ? error : new BadAnswerError(String(error), { cause: error });
}

/** What leads from one state to another, as if it had happened at `revision`. */
function differences<V, K>(
  before: ReadonlyMap<KeyString, Entry<V, K>>,
  after: ReadonlyMap<KeyString, Entry<V, K>>,
  revision: number,
): WatchEvent<V, K>[] {
  const events: WatchEvent<V, K>[] = [];
  for (const [name, { kv }] of after) {
    const old = before.get(name)?.kv;
    if (old?.modRevision === kv.modRevision) continue;
    const created = old?.createRevision !== kv.createRevision;
    events.push({ type: "put", key: kv.key, revision: kv.modRevision, kv, created, previous: old });
  }
  for (const [name, { kv }] of before) {
    if (!after.has(name)) events.push({ type: "delete", key: kv.key, revision, previous: kv });
  }
  return events;
}
