import type * as api from "../../api/index.ts";
import { rpcError } from "../../api/rpc-errors.ts";
import { type Identity, requireRange } from "../../auth/index.ts";
import { copyBytes } from "../../base/bytes.ts";
import type { Timer } from "../../base/clock.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import { NO_MEMBER } from "../../base/ids.ts";
import type { WatchStream } from "../../watch/index.ts";
import { abortError } from "../proposals.ts";
import type { ServiceCore } from "./core.ts";
import type { CallContext, WatchService, WatchSession } from "./services.contract.ts";

/** Leaderless checks in a row, one per election timeout, after which a stream that requires a leader ends. */
const LEADERLESS_CHECKS = 3;
const TAKE_BYTES = 1024 * 1024;
/** Requests that may wait for one whose caller's token is being looked up. */
const HELD_MAX = 1024;
/** The first key: a watcher without one starts here. */
const FIRST_KEY = new Uint8Array(1);

/** The Watch service of api-semantics.md section 10: sessions over the hub. */
export function createWatchService(core: ServiceCore, progressJitter: () => number): WatchService & { stop(error: EtcdError): void } {
  const sessions = new Set<Session>();
  return {
    watch(context: CallContext): WatchSession {
      core.admit(context);
      const session = new Session(core, context, progressJitter(), (ended) => sessions.delete(ended));
      sessions.add(session);
      return session;
    },
    /** The member stops: every stream ends with `error`. */
    stop(error: EtcdError): void {
      for (const session of [...sessions]) session.end(error);
    },
  };
}

class Session implements WatchSession {
  readonly #core: ServiceCore;
  readonly #context: CallContext;
  readonly #stream: WatchStream;
  readonly #progressMs: number;
  #progressTimer: Timer | undefined;
  #leaderTimer: Timer | undefined;
  #leaderless = 0;
  #ended: EtcdError | "closed" | undefined;
  #waiter:
    | { resolve: (responses: readonly api.WatchResponse[] | undefined) => void; reject: (error: EtcdError) => void; bytes: number }
    | undefined;
  #wantsProgress = false;
  /** Requests behind one whose caller is not known yet; they are handled in order. */
  #held: api.WatchRequest[] | undefined;

  readonly #onEnd: (session: Session) => void;

  /** `jitter` is in [0, 1). */
  constructor(core: ServiceCore, context: CallContext, jitter: number, onEnd: (session: Session) => void) {
    this.#onEnd = onEnd;
    this.#core = core;
    this.#context = context;
    this.#stream = core.hub.openStream(() => this.#deliver());
    // Stretched by up to a tenth, fixed per stream, so that many streams do not report at the same moment.
    this.#progressMs = core.config.watchProgressNotifyMs * (1 + jitter / 10);
    context.signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (context.signal?.aborted === true) this.end(abortError(context.signal));
    if (context.requireLeader === true) this.#armLeaderCheck();
  }

  send(request: api.WatchRequest): void {
    if (this.#ended !== undefined) return;
    if (this.#held === undefined) this.#handle(request);
    else if (this.#held.length < HELD_MAX) this.#held.push(ownRequest(request));
    else throw rpcError("too-many-requests");
  }

  #handle(request: api.WatchRequest): void {
    if (request.createRequest !== undefined) {
      if (request.createRequest.progressNotify) this.#armProgress();
      // The stream refuses a negative start itself, before anybody asks who wants it.
      if (this.#core.access.enabled && request.createRequest.startRevision >= 0) this.#createIfAllowed(request.createRequest);
      else this.#stream.create(request.createRequest);
    } else if (request.cancelRequest !== undefined) {
      this.#stream.cancel(request.cancelRequest.watchId);
    } else if (request.progressRequest !== undefined) {
      this.#stream.requestProgress();
    }
  }

  /** Checked here and never again: a running watcher outlives its user (api-semantics.md section 10.9). */
  #createIfAllowed(request: api.WatchCreateRequest): void {
    let who: Identity | undefined | Promise<Identity>;
    try {
      who = this.#core.access.identify(this.#context);
    } catch (error) {
      this.#refuse(error);
      return;
    }
    if (who instanceof Promise) void this.#createLater(ownCreateRequest(request), who);
    else this.#createAs(request, who);
  }

  #createAs(request: api.WatchCreateRequest, who: Identity | undefined): void {
    const key = request.key.length === 0 ? FIRST_KEY : request.key;
    try {
      requireRange(this.#core.access.rightsOf(who), { key, rangeEnd: request.rangeEnd });
    } catch (error) {
      this.#refuse(error);
      return;
    }
    this.#stream.create(request);
  }

  async #createLater(request: api.WatchCreateRequest, who: Promise<Identity>): Promise<void> {
    this.#held = [];
    try {
      const known = await who.catch((error: unknown) => asEtcdError(error));
      const held = this.#held;
      this.#held = undefined;
      if (this.#ended !== undefined) return;
      if (EtcdError.is(known)) this.#refuse(known);
      else this.#createAs(request, known);
      for (const one of held) this.send(one);
    } catch (error) {
      this.end(EtcdError.is(error) ? error : rpcError("server-stopped", { cause: error }));
    }
  }

  #refuse(error: unknown): void {
    const { grpcCode, message } = asEtcdError(error);
    this.#stream.refuse(`rpc error: code = ${codeName(grpcCode)} desc = ${message}`);
  }

  next(bytesMax: number = TAKE_BYTES): Promise<readonly api.WatchResponse[] | undefined> {
    if (this.#ended !== undefined) return this.#ended === "closed" ? Promise.resolve(undefined) : Promise.reject(this.#ended);
    const ready = this.#take(bytesMax);
    if (ready.length > 0) return Promise.resolve(ready);
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject, bytes: bytesMax };
    });
  }

  get congested(): boolean {
    return this.#ended === undefined && (this.#held !== undefined || this.#stream.congested);
  }

  close(): void {
    this.end("closed");
  }

  readonly #onAbort = (): void => this.end(rpcError("watch-canceled"));

  #deliver(): void {
    const waiter = this.#waiter;
    if (waiter === undefined) return;
    const ready = this.#take(waiter.bytes);
    if (ready.length === 0) return;
    this.#waiter = undefined;
    waiter.resolve(ready);
  }

  #take(bytesMax: number): api.WatchResponse[] {
    const responses = this.#stream.take(bytesMax);
    for (const response of responses) {
      const header = this.#core.header(response.header?.revision ?? 0);
      response.header = header;
    }
    return responses;
  }

  #armProgress(): void {
    if (this.#wantsProgress) return;
    this.#wantsProgress = true;
    const tick = (): void => {
      this.#stream.notifyProgress();
      this.#progressTimer = this.#core.clock.timer(this.#progressMs, tick);
    };
    this.#progressTimer = this.#core.clock.timer(this.#progressMs, tick);
  }

  #armLeaderCheck(): void {
    this.#leaderTimer = this.#core.clock.timer(this.#core.config.electionMs, () => {
      this.#leaderless = this.#core.leader === NO_MEMBER ? this.#leaderless + 1 : 0;
      if (this.#leaderless >= LEADERLESS_CHECKS) this.end(rpcError("no-leader"));
      else this.#armLeaderCheck();
    });
  }

  end(how: EtcdError | "closed"): void {
    if (this.#ended !== undefined) return;
    this.#ended = how;
    this.#progressTimer?.cancel();
    this.#leaderTimer?.cancel();
    this.#context.signal?.removeEventListener("abort", this.#onAbort);
    this.#stream.close();
    this.#onEnd(this);
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (waiter === undefined) return;
    if (how === "closed") waiter.resolve(undefined);
    else waiter.reject(how);
  }
}

/** Anything else is a bug. */
function asEtcdError(error: unknown): EtcdError {
  if (!EtcdError.is(error)) throw error;
  return error;
}

/** What is kept for later must not be a view of a buffer that is used again. */
function ownRequest(request: api.WatchRequest): api.WatchRequest {
  return request.createRequest === undefined ? request : { ...request, createRequest: ownCreateRequest(request.createRequest) };
}

function ownCreateRequest(request: api.WatchCreateRequest): api.WatchCreateRequest {
  return { ...request, key: copyBytes(request.key), rangeEnd: copyBytes(request.rangeEnd) };
}

function codeName(code: GrpcCode): string {
  return Object.entries(GrpcCode).find(([, number]) => number === code)?.[0] ?? "Unknown";
}
