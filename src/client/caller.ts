/**
 * Gets one request to some member and its answer back: which member, how long, with which token, and what to do when it fails. The rule of repetition: what only
 * reads is repeated until the deadline; a write only if it certainly did not reach the cluster, unless its caller asks for more.
 */
import { type MethodDescriptor, rpcError } from "../api/index.ts";
import type { Clock } from "../base/clock.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import { type CallOptions, Deadline } from "./deadline.ts";
import { Ending } from "./ending.ts";
import type { Endpoints } from "./endpoints.ts";
import { ClosedError, canceledError, mayHaveHappened, type UnavailableError } from "./errors.ts";
import { type Credentials, Tokens, wantsNewToken } from "./tokens.ts";
import type { CallContext, Channel } from "./transport.ts";

export interface CallerOptions {
  readonly clock: Clock;
  readonly endpoints: Endpoints;
  /** Default deadline of calls; 0: none. */
  readonly timeoutMs: number;
  /** Members in this process: they have deadlines of their own. */
  readonly local: boolean;
  readonly credentials: Credentials | undefined;
}

/** How long an attempt of a call that may be repeated waits for an answer before another member is asked. */
const ATTEMPT_MS = 5000;
/** A call without a deadline is not repeated forever. */
const REPEAT_MS = 15_000;
const PLAIN: CallContext = {};

export type Kind = "read" | "write";

export class Caller {
  readonly clock: Clock;
  readonly endpoints: Endpoints;
  readonly #timeoutMs: number;
  readonly #local: boolean;
  readonly #tokens: Tokens | undefined;
  /** Of the client. */
  readonly closing = new Ending();
  /** Taken without detours: the only way there is, and no token to fetch. */
  readonly #direct: Channel | undefined;

  constructor(options: CallerOptions) {
    this.clock = options.clock;
    this.endpoints = options.endpoints;
    this.#timeoutMs = options.timeoutMs;
    this.#local = options.local;
    const { credentials } = options;
    this.#tokens =
      credentials === undefined
        ? undefined
        : new Tokens(credentials, (method, request) => this.#attempts(method, request, undefined, true, false, undefined));
    this.#direct = options.local && credentials === undefined ? options.endpoints.single : undefined;
  }

  get closed(): boolean {
    return this.closing.over;
  }

  close(): void {
    if (this.closed) return;
    this.closing.end(new ClosedError());
    this.endpoints.close();
  }

  unary<Request extends object, Response extends object>(
    method: MethodDescriptor<Request, Response>,
    request: Request,
    options: CallOptions | undefined,
    kind: Kind,
  ): Promise<Response> {
    const signal = options?.signal;
    if (signal?.aborted === true) return Promise.reject(canceledError(signal));
    const repeatable = kind === "read" ? options?.retry !== "never" : options?.retry === "always";
    const direct = this.#direct;
    if (direct === undefined || this.closed || (options?.timeoutMs ?? 0) > 0) {
      return this.#attempts(method, request, options, repeatable, true, signal);
    }
    const context = options === undefined ? PLAIN : { signal, requireLeader: options.requireLeader };
    const answer = direct.unary(method, request, context);
    if (!repeatable) return answer;
    return answer.catch((error: unknown) => {
      if (signal?.aborted === true || !worthRepeating(error, true)) throw error;
      return this.#attempts(method, request, options, true, true, signal);
    });
  }

  /** To one endpoint only, once. */
  async unaryAt<Request extends object, Response extends object>(
    endpoint: string,
    method: MethodDescriptor<Request, Response>,
    request: Request,
    options: CallOptions | undefined,
  ): Promise<Response> {
    const channel = this.endpoints.named(endpoint);
    const deadline = this.#deadline(options, options?.signal);
    try {
      return await channel.unary(method, request, await this.context(deadline, options));
    } catch (error) {
      throw deadline.error ?? error;
    } finally {
      deadline.done();
    }
  }

  /** What goes with a request now. Fetches a token if there is none. */
  async context(deadline: Deadline, options: CallOptions | undefined): Promise<CallContext> {
    const token = await this.token();
    deadline.throwIfOver();
    return {
      signal: deadline.signal,
      timeoutMs: deadline.leftMs,
      ...(token === undefined || token === "" ? {} : { token }),
      ...(options?.requireLeader === true ? { requireLeader: true } : {}),
    };
  }

  /** Undefined without credentials; empty while authentication is off. */
  token(): Promise<string | undefined> {
    return this.#tokens === undefined ? Promise.resolve(undefined) : this.#tokens.get();
  }

  /** True if it is worth trying again with another token. */
  tokenRefused(error: unknown, token: string | undefined): boolean {
    if (this.#tokens === undefined || !wantsNewToken(error)) return false;
    this.#tokens.refused(token ?? "");
    return true;
  }

  #deadline(options: CallOptions | undefined, signal: AbortSignal | undefined): Deadline {
    const standard = this.#local ? 0 : this.#timeoutMs;
    return new Deadline(this.clock, options?.timeoutMs ?? standard, signal, this.closing);
  }

  async #attempts<Request extends object, Response extends object>(
    method: MethodDescriptor<Request, Response>,
    request: Request,
    options: CallOptions | undefined,
    repeatable: boolean,
    withToken: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    if (this.closed) throw new ClosedError();
    const { clock } = this;
    const deadline = this.#deadline(options, signal);
    // Where there is a deadline it alone decides, so that a call that outlasts it always ends the same way.
    const givesUpMs = deadline.leftMs === undefined ? clock.monotonicMs() + REPEAT_MS : Number.POSITIVE_INFINITY;
    let tokensRefused = 0;
    let tried = false;
    let lastFailure: unknown;
    try {
      for (;;) {
        deadline.throwIfOver();
        const { channel, waitMs } = this.endpoints.pick();
        // All of them failed lately. Yet a call that has no time to wait is tried once.
        if (waitMs > 0 && (tried || waitMs < (deadline.leftMs ?? Number.POSITIVE_INFINITY))) await deadline.pause(waitMs);
        tried = true;
        const context: CallContext = withToken
          ? await this.context(deadline, options)
          : { signal: deadline.signal, timeoutMs: deadline.leftMs };
        let failure: unknown;
        try {
          const response = await this.#attempt(channel, method, request, context, repeatable);
          this.endpoints.worked(channel);
          return response;
        } catch (error) {
          failure = error;
        }
        const { error } = deadline;
        if (error === undefined) lastFailure = failure;
        if (this.tokenRefused(failure, context.token)) {
          tokensRefused += 1;
          if (tokensRefused <= 2) continue;
        }
        // Also when it was the caller's patience that ended; not when the caller changed its mind.
        if (isTroubled(error ?? failure)) this.endpoints.failed(channel, isSlow(error ?? failure));
        if (error !== undefined) throw error;
        if (options?.retry === "never" || !worthRepeating(failure, repeatable) || clock.monotonicMs() >= givesUpMs) throw failure;
      }
    } catch (error) {
      // Time ran out: what stood in the way until then is worth knowing.
      if (lastFailure !== undefined && error === deadline.error && isOwnDeadline(error))
        throw rpcError("deadline-exceeded", { cause: lastFailure });
      throw error;
    } finally {
      deadline.done();
    }
  }

  async #attempt<Request extends object, Response extends object>(
    channel: Channel,
    method: MethodDescriptor<Request, Response>,
    request: Request,
    context: CallContext,
    repeatable: boolean,
  ): Promise<Response> {
    // A member that does not answer at all must not use up the patience for the others.
    if (!repeatable || this.endpoints.count === 1) return channel.unary(method, request, context);
    const attempt = new Deadline(this.clock, ATTEMPT_MS, context.signal);
    try {
      return await channel.unary(method, request, { ...context, signal: attempt.signal });
    } finally {
      attempt.done();
    }
  }
}

function isOwnDeadline(error: unknown): boolean {
  return EtcdError.is(error) && error.reason === "deadline-exceeded" && error.cause === undefined;
}

/** The member, or the way to it, is not well: others first, for a while. */
function isTroubled(error: unknown): boolean {
  if (!EtcdError.is(error)) return false;
  if (error.reason === "not-supported-for-learner" || error.reason === "too-many-requests") return true;
  return error.grpcCode === GrpcCode.Unavailable || error.grpcCode === GrpcCode.DeadlineExceeded;
}

/** It took its time to fail: the next call should not have to go through that, too. */
function isSlow(error: unknown): boolean {
  return EtcdError.is(error) && (error.grpcCode === GrpcCode.DeadlineExceeded || error.reason.startsWith("timeout"));
}

/**
 * Whether another attempt makes sense and is allowed.
 * @param repeatable the request may be executed twice
 */
function worthRepeating(error: unknown, repeatable: boolean): boolean {
  if (!EtcdError.is(error)) return false;
  if (error.reason === "unavailable") return repeatable || !(error as UnavailableError).requestSent;
  // Refused at the door, by a member that cannot serve it.
  if (error.reason === "not-supported-for-learner" || error.reason === "no-leader") return true;
  // An overloaded member says so to slow writers down: they are told.
  if (error.reason === "too-many-requests") return repeatable;
  if (error.grpcCode !== GrpcCode.Unavailable && error.grpcCode !== GrpcCode.DeadlineExceeded) return false;
  return repeatable || !mayHaveHappened(error);
}
