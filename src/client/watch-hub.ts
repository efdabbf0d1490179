/**
 * All watches of a client. Where the way is full duplex they share one stream, else each has its own. A stream that breaks, or that stays silent although it
 * was asked, is taken up again at another member, each watch at exactly the revision that comes next for it.
 *
 * What comes next is one more than the revision of the last event (never of the last header, which may be ahead of the events: that once made etcd's own client
 * deliver events twice), or of the last progress notification.
 */
import * as api from "../api/index.ts";
import type { Timer } from "../base/clock.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { Caller } from "./caller.ts";
import type { KeyRange } from "./coding.ts";
import { Deadline } from "./deadline.ts";
import { Ending } from "./ending.ts";
import { BadAnswerError, ClosedError, errorOfCancelReason } from "./errors.ts";
import type { CallContext, Channel, WatchSession } from "./transport.ts";

/** What a watch wants to be told. Called synchronously, in order; must not throw. */
export interface WatchSink {
  /** The watch exists on a member, for the first time or again. `revision`: of that member's store then. */
  onCreated(revision: number): void;
  /** All events of one or more whole revisions, ascending. Shared: not to be changed, bytes not to be kept without a copy. */
  onEvents(events: readonly api.Event[], revision: number): void;
  /** All matching events up to `revision` have been handed over. */
  onProgress(revision: number): void;
  /** The end; nothing comes after it. */
  onEnd(error: EtcdError): void;
}

export interface WatchRequestOptions extends KeyRange {
  /** 0: from now on. */
  readonly startRevision: number;
  readonly previous: boolean;
  readonly filters: readonly number[];
  readonly progressNotify: boolean;
  readonly requireLeader: boolean;
}

/** One watch, as its owner drives it. */
export interface WatchHandle {
  /** Revision of the first event still to come; 0 while "from now on" is not decided yet. */
  readonly position: number;
  /** Events below this need not come: they are known to change nothing. */
  advance(position: number): void;
  /** Stops the flow, without losing anything, until {@link resume}. */
  pause(): void;
  resume(): void;
  /** Asks for progress. False where that cannot be asked. May stay without an answer. */
  requestProgress(): boolean;
  /** Idempotent; nothing is called on the sink afterwards. */
  close(): void;
}

/** Of the silence that is tolerated: when to ask for progress, and when to ask for what must be answered. */
const ASK_AT = 0.4;
const INSIST_AT = 0.7;
/** Where nothing can be asked: when to take the watch up anew. */
const RENEW_AT = 0.5;
/** And when to begin to count the checks that saw no answer to that. */
const COUNT_AT = 0.8;
/**
 * Checks in a row without an answer to what must be answered; then it is time to leave, a tenth before the silence is over. Counted, not timed: if it was this
 * process that stood still, what came meanwhile is read between two checks.
 */
const UNANSWERED_MAX = 2;
const CHECK_PARTS = 10;
/** A progress request this old stays without an answer. */
const PROGRESS_FORGOTTEN_MS = 30_000;
const TOKENS_REFUSED_MAX = 3;
const PING_KEY = new Uint8Array(1);
const EMPTY = new Uint8Array(0);

export class WatchHub {
  readonly caller: Caller;
  readonly silenceMs: number;
  readonly #shared = new Map<boolean, Stream>();
  readonly #streams = new Set<Stream>();

  /** @param silenceMs how long a stream may stay silent before another member is tried. */
  constructor(caller: Caller, silenceMs: number) {
    this.caller = caller;
    this.silenceMs = silenceMs;
    caller.closing.onEnd((error) => {
      for (const stream of [...this.#streams]) stream.end(error);
    });
  }

  open(options: WatchRequestOptions, sink: WatchSink): WatchHandle {
    if (this.caller.closed) throw new ClosedError();
    const watch = new Watch(options, sink);
    this.#streamFor(watch).add(watch);
    return watch;
  }

  /** For streams: a stream without watches is over. */
  dropped(stream: Stream): void {
    this.#streams.delete(stream);
    for (const [requireLeader, shared] of this.#shared) if (shared === stream) this.#shared.delete(requireLeader);
  }

  #streamFor(watch: Watch): Stream {
    const { requireLeader } = watch.options;
    const duplex = this.caller.endpoints.fullDuplex;
    const shared = duplex ? this.#shared.get(requireLeader) : undefined;
    if (shared !== undefined) return shared;
    const stream = new Stream(this, requireLeader);
    this.#streams.add(stream);
    if (duplex) this.#shared.set(requireLeader, stream);
    return stream;
  }
}

class Watch implements WatchHandle {
  readonly options: WatchRequestOptions;
  readonly sink: WatchSink;
  stream: Stream | undefined;
  position: number;
  /** On the present session; undefined: not there. */
  id: bigint | undefined;
  /** Number of the progress requests that had been sent on the session when the creation was confirmed; undefined before. */
  createdAfter: number | undefined;
  /** Of a response that comes in fragments. */
  pieces: api.Event[] | undefined;
  paused = false;
  ended = false;

  constructor(options: WatchRequestOptions, sink: WatchSink) {
    this.options = options;
    this.sink = sink;
    this.position = options.startRevision;
  }

  advance(position: number): void {
    if (position > this.position) this.position = position;
  }

  pause(): void {
    if (this.paused || this.ended) return;
    this.paused = true;
    this.stream?.withdraw(this);
  }

  resume(): void {
    if (!this.paused || this.ended) return;
    this.paused = false;
    this.stream?.create(this);
  }

  requestProgress(): boolean {
    return this.stream?.requestProgress() ?? false;
  }

  close(): void {
    if (this.ended) return;
    this.ended = true;
    this.stream?.remove(this);
  }

  end(error: EtcdError): void {
    if (this.ended) return;
    this.ended = true;
    this.stream?.remove(this);
    this.sink.onEnd(error);
  }
}

class Stream {
  readonly #hub: WatchHub;
  readonly #requireLeader: boolean;
  readonly #watches = new Set<Watch>();
  readonly #byId = new Map<bigint, Watch>();
  readonly #over = new Ending();
  #session: WatchSession | undefined;
  #channel: Channel | undefined;
  #token: string | undefined;
  #tokensRefused = 0;
  #running = false;
  #lastId = 0n;
  /** Creations without an answer, in the order in which the answers come. `undefined` for a question whether anybody is there. */
  #creating: { readonly id: bigint; readonly watch: Watch | undefined }[] = [];
  #progressAsked = 0;
  /** Progress requests without an answer: number and time. The member drops those that it cannot answer. */
  #progressOpen: { readonly number: number; readonly atMs: number }[] = [];
  #heardMs = 0;
  #asked: "nothing" | "progress" | "anything" = "nothing";
  /** Checks without an answer, in a row. */
  #unanswered = 0;
  #checker: Timer | undefined;
  /** A watch was created on the present session. */
  #used = false;
  /** The session is to be replaced: by one at the same member, because of silence or for another reason, or by one at another. */
  #leave: "renew" | "again" | "move" | undefined;
  /** Called when there is something to watch again. */
  #wake: (() => void) | undefined;

  constructor(hub: WatchHub, requireLeader: boolean) {
    this.#hub = hub;
    this.#requireLeader = requireLeader;
  }

  add(watch: Watch): void {
    this.#watches.add(watch);
    watch.stream = this;
    if (this.#running) {
      this.create(watch);
      return;
    }
    this.#running = true;
    this.#run().catch((error: unknown) => this.end(EtcdError.is(error) ? error : new BadAnswerError(String(error), { cause: error })));
  }

  remove(watch: Watch): void {
    if (!this.#watches.delete(watch)) return;
    this.withdraw(watch);
    if (this.#watches.size === 0) this.#finish(new ClosedError("the watch"));
  }

  /** Ends every watch with `error`. */
  end(error: EtcdError): void {
    this.#finish(error);
    for (const watch of [...this.#watches]) watch.end(error);
  }

  create(watch: Watch): void {
    const session = this.#session;
    if (watch.paused) return;
    this.#wake?.();
    if (session === undefined) return;
    if (this.#used && this.#channel?.fullDuplex !== true) {
      this.#move("again");
      return;
    }
    this.#used = true;
    this.#lastId += 1n;
    const id = this.#lastId;
    watch.id = id;
    watch.createdAfter = undefined;
    watch.pieces = undefined;
    this.#byId.set(id, watch);
    this.#creating.push({ id, watch });
    const { key, rangeEnd, previous, filters, progressNotify } = watch.options;
    this.#send(session, {
      createRequest: {
        key,
        rangeEnd,
        startRevision: watch.position,
        progressNotify,
        filters: [...filters],
        prevKv: previous,
        watchId: id,
        fragment: true,
      },
    });
  }

  /** Takes a watch off the session; it may come back under another id. */
  withdraw(watch: Watch): void {
    const { id } = watch;
    if (id === undefined) return;
    watch.id = undefined;
    watch.pieces = undefined;
    this.#byId.delete(id);
    if (this.#channel?.fullDuplex === true) this.#cancel(id);
    else this.#move("again");
  }

  requestProgress(): boolean {
    const session = this.#session;
    if (session === undefined || this.#channel?.fullDuplex !== true) return false;
    const atMs = this.#hub.caller.clock.monotonicMs();
    while ((this.#progressOpen[0]?.atMs ?? atMs) < atMs - PROGRESS_FORGOTTEN_MS) this.#progressOpen.shift();
    this.#progressAsked += 1;
    this.#progressOpen.push({ number: this.#progressAsked, atMs });
    this.#send(session, { progressRequest: {} });
    return true;
  }

  // -- the life of a session -------------------------------------------------------------------------------------------------------------

  async #run(): Promise<void> {
    const { caller } = this.#hub;
    const over = this.#over;
    const deadline = new Deadline(caller.clock, 0, undefined, over);
    this.#check();
    let same: Channel | undefined;
    try {
      while (!over.over) {
        await this.#somethingToWatch();
        const picked = same === undefined ? caller.endpoints.pick() : { channel: same, waitMs: 0 };
        const { channel } = picked;
        if (picked.waitMs > 0) await deadline.pause(picked.waitMs);
        const renewing = this.#leave === "renew";
        same = undefined;
        let failure: unknown;
        try {
          const context = await caller.context(deadline, { requireLeader: this.#requireLeader });
          this.#token = context.token;
          if (!renewing) this.#heardMs = caller.clock.monotonicMs();
          await this.#serve(channel, context);
        } catch (error) {
          failure = error;
        }
        if (over.over) return;
        if (this.#leave === "renew" || this.#leave === "again") {
          same = channel;
          continue;
        }
        if (failure !== undefined && caller.tokenRefused(failure, this.#token) && this.#tokensRefused < TOKENS_REFUSED_MAX) {
          this.#tokensRefused += 1;
          continue;
        }
        if (failure !== undefined && !isPassing(failure)) throw failure;
        // Also when the member ended the stream without a word: whoever does that again and again must not be asked without pause.
        caller.endpoints.failed(channel);
      }
    } catch (error) {
      if (!over.over) throw error;
    } finally {
      deadline.done();
    }
  }

  /** Resolves at once unless every watch is paused. */
  #somethingToWatch(): Promise<void> | undefined {
    if (this.#over.over || [...this.#watches].some(({ paused }) => !paused)) return undefined;
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined;
        resolve();
      };
    });
  }

  /** One session, from the first request to its end. */
  async #serve(channel: Channel, context: CallContext): Promise<void> {
    this.#leave = undefined;
    const session = channel.watch(context);
    this.#session = session;
    this.#channel = channel;
    this.#used = false;
    this.#asked = "nothing";
    this.#unanswered = 0;
    this.#creating = [];
    this.#byId.clear();
    this.#progressOpen = [];
    try {
      for (const watch of [...this.#watches]) {
        watch.id = undefined;
        this.create(watch);
      }
      for (;;) {
        const responses = await session.next();
        if (responses === undefined) return;
        this.#heardMs = this.#hub.caller.clock.monotonicMs();
        this.#asked = "nothing";
        this.#unanswered = 0;
        for (const response of responses) this.#onResponse(response);
      }
    } finally {
      this.#session = undefined;
      this.#channel = undefined;
      session.close();
    }
  }

  #finish(error: EtcdError): void {
    if (this.#over.over) return;
    this.#over.end(error);
    this.#wake?.();
    this.#checker?.cancel();
    this.#session?.close();
    this.#hub.dropped(this);
  }

  /** Looks now and then whether anything was heard lately, asks when not, and leaves when there is no answer. */
  #check(): void {
    const { silenceMs, caller } = this.#hub;
    this.#checker = caller.clock.timer(silenceMs / CHECK_PARTS, () => {
      if (this.#over.over) return;
      this.#check();
      const session = this.#session;
      if (session === undefined) return;
      const silentMs = caller.clock.monotonicMs() - this.#heardMs;
      if (this.#channel?.fullDuplex !== true) {
        if (this.#creating.length === 0) {
          if (silentMs >= silenceMs * RENEW_AT) this.#move("renew");
        } else if (silentMs >= silenceMs * COUNT_AT) this.#unansweredOnce();
      } else if (silentMs >= silenceMs * INSIST_AT) {
        if (this.#asked === "anything") {
          this.#unansweredOnce();
          return;
        }
        this.#asked = "anything";
        this.#ping(session);
      } else if (silentMs >= silenceMs * ASK_AT && this.#asked === "nothing") {
        this.#asked = "progress";
        this.requestProgress();
      }
    });
  }

  #unansweredOnce(): void {
    this.#unanswered += 1;
    if (this.#unanswered >= UNANSWERED_MAX) this.#move("move");
  }

  /** A creation is answered in any case; a progress request is not while some watch lags or waits for a revision to come. */
  #ping(session: WatchSession): void {
    this.#lastId += 1n;
    this.#creating.push({ id: this.#lastId, watch: undefined });
    this.#send(session, {
      createRequest: {
        key: PING_KEY,
        rangeEnd: EMPTY,
        startRevision: 0,
        progressNotify: false,
        filters: [api.FilterType.NOPUT, api.FilterType.NODELETE],
        prevKv: false,
        watchId: this.#lastId,
        fragment: false,
      },
    });
  }

  #move(how: "renew" | "again" | "move"): void {
    this.#leave = how;
    this.#session?.close();
  }

  #cancel(id: bigint): void {
    const session = this.#session;
    if (session !== undefined && this.#channel?.fullDuplex === true) this.#send(session, { cancelRequest: { watchId: id } });
  }

  #send(session: WatchSession, request: Partial<api.WatchRequest>): void {
    session.send({ createRequest: undefined, cancelRequest: undefined, progressRequest: undefined, ...request });
  }

  // -- what comes in -----------------------------------------------------------------------------------------------------------------------

  #onResponse(response: api.WatchResponse): void {
    if (response.created) this.#onCreated(response);
    else if (response.canceled) this.#onCanceled(response);
    else if (response.events.length === 0 && !response.fragment) this.#onProgress(response);
    else this.#onEvents(response);
  }

  #onCreated(response: api.WatchResponse): void {
    const creation = this.#creating.shift();
    if (creation === undefined) throw new BadAnswerError("a watch was created that nobody asked for");
    const { id, watch } = creation;
    if (watch === undefined) {
      if (!response.canceled) this.#cancel(id);
      return;
    }
    // Withdrawn meanwhile; the cancel request is on its way.
    if (watch.id !== id || watch.ended) return;
    if (response.canceled) {
      this.#onRefused(watch, id, response);
      return;
    }
    if (response.watchId !== id) throw new BadAnswerError(`watch ${id} was asked for, ${response.watchId} created`);
    this.#tokensRefused = 0;
    if (this.#channel !== undefined) this.#hub.caller.endpoints.worked(this.#channel);
    watch.createdAfter = this.#progressAsked;
    const revision = response.header?.revision ?? 0;
    if (watch.position === 0) watch.position = revision + 1;
    watch.sink.onCreated(revision);
  }

  #onRefused(watch: Watch, id: bigint, response: api.WatchResponse): void {
    this.#byId.delete(id);
    watch.id = undefined;
    const error = errorOfCancelReason(response.cancelReason);
    // The session goes with its token; the next one comes with another.
    if (this.#hub.caller.tokenRefused(error, this.#token) && this.#tokensRefused < TOKENS_REFUSED_MAX) {
      this.#tokensRefused += 1;
      this.#move("again");
      return;
    }
    watch.end(error);
  }

  #onCanceled(response: api.WatchResponse): void {
    const watch = this.#byId.get(response.watchId);
    if (watch === undefined) return; // As asked.
    const { compactRevision, cancelReason } = response;
    if (compactRevision !== 0) {
      // The id stays taken until it is cancelled from this side, too.
      this.withdraw(watch);
      watch.end(new api.CompactedError({ requested: watch.position, compacted: compactRevision }));
      return;
    }
    this.#byId.delete(response.watchId);
    watch.id = undefined;
    if (cancelReason !== "") watch.end(errorOfCancelReason(cancelReason));
    else this.create(watch);
  }

  #onProgress(response: api.WatchResponse): void {
    const revision = response.header?.revision ?? 0;
    if (revision === 0) return;
    if (response.watchId !== -1n) {
      const watch = this.#byId.get(response.watchId);
      if (watch !== undefined) this.#progressed(watch, revision);
      return;
    }
    // Which request is answered is not said; the oldest one at the earliest. It speaks for the watches that existed when it was sent: a later one may have
    // overtaken it and still be on its way through the past.
    const request = this.#progressOpen.shift();
    if (request === undefined) return;
    for (const watch of [...this.#byId.values()]) {
      if (watch.createdAfter !== undefined && watch.createdAfter < request.number) this.#progressed(watch, revision);
    }
  }

  #progressed(watch: Watch, revision: number): void {
    if (watch.pieces !== undefined || revision + 1 < watch.position) return;
    watch.advance(revision + 1);
    watch.sink.onProgress(revision);
  }

  #onEvents(response: api.WatchResponse): void {
    const watch = this.#byId.get(response.watchId);
    if (watch === undefined) return; // Withdrawn; these come again when it comes back.
    let events: readonly api.Event[] = response.events;
    if (response.fragment || watch.pieces !== undefined) {
      watch.pieces ??= [];
      watch.pieces.push(...events);
      if (response.fragment) return;
      events = watch.pieces;
      watch.pieces = undefined;
    }
    const { position } = watch;
    let last = 0;
    let known = 0;
    for (const event of events) {
      const revision = event.kv?.modRevision ?? 0;
      if (revision < last || revision === 0) throw new BadAnswerError(`events came out of order: revision ${revision} after ${last}`);
      last = revision;
      if (revision < position) known += 1;
    }
    if (known > 0) events = events.slice(known);
    if (events.length === 0) return;
    watch.position = last + 1;
    watch.sink.onEvents(events, last);
  }
}

/** It may be over soon, or be different at another member. */
function isPassing(error: unknown): boolean {
  if (!EtcdError.is(error)) return false;
  if (error.reason === "not-supported-for-learner") return true;
  switch (error.grpcCode) {
    case GrpcCode.Unavailable:
    case GrpcCode.DeadlineExceeded:
    case GrpcCode.Canceled:
    case GrpcCode.Aborted:
    case GrpcCode.Internal:
    case GrpcCode.Unknown:
    case GrpcCode.ResourceExhausted:
      return error.reason !== "client-closed";
    default:
      return false;
  }
}
