/**
 * A gRPC client on Node's HTTP/2, for any etcd: calls by the table of methods, several endpoints with failover, deadlines, retries of what may be
 * repeated. One connection per endpoint; calls go round over those that stand.
 */
import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import { constants } from "node:http2";
import type { MethodDescriptor } from "../../api/index.ts";
import { GrpcCode } from "../../base/errors.ts";
import { type ConnectOptions, Endpoint } from "./connection.ts";
import { ContextError, GrpcError } from "./grpc-error.ts";
import { frameOf, messagesOf } from "./grpc-stream.ts";

export interface GrpcClientOptions extends ConnectOptions {
  /** At least one. */
  readonly endpoints: readonly string[];
  readonly maxSendBytes: number;
  readonly maxRecvBytes: number;
}

export interface CallOptions {
  /** From now on; undefined: for ever. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** The call changes nothing, or doing it twice does no harm: it is repeated on another server when one fails. */
  readonly repeatable?: boolean;
  /** Called for every attempt that failed. */
  readonly onFailure?: ((error: GrpcError, attempt: number) => void) | undefined;
}

/** A stream in both directions. Reading ends, or rejects with a GrpcError, when the call ends; leaving the loop ends the call. */
export interface DuplexCall<Request, Response> extends AsyncIterable<Response> {
  send(message: Request): void;
  /** No more requests. */
  end(): void;
  cancel(): void;
}

const RECONNECT_MS = 100;
const RECONNECT_MAX_MS = 3000;
const RECONNECT_GROWTH = 1.6;
const ATTEMPTS_MAX = 100;
const RETRY_MS = 25;
const USER_AGENT = "holdfastctl";

export class GrpcClient {
  readonly #options: GrpcClientOptions;
  readonly #endpoints: readonly Endpoint[];
  #turn = 0;

  constructor(options: GrpcClientOptions) {
    this.#options = options;
    this.#endpoints = options.endpoints.map((text) => new Endpoint(text, options));
  }

  close(): void {
    for (const endpoint of this.#endpoints) endpoint.close();
  }

  /** @throws GrpcError, ContextError */
  async unary<Request extends object, Response extends object>(
    method: MethodDescriptor<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): Promise<Response> {
    return this.#attempts(options, async (context) => {
      for await (const response of this.#responses(method, request, context)) return response;
      throw new GrpcError(GrpcCode.Internal, "the call ended without a response");
    });
  }

  /** The responses to one request. Never repeated once a response has come. @throws GrpcError, ContextError */
  async *serverStream<Request extends object, Response extends object>(
    method: MethodDescriptor<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): AsyncGenerator<Response, void, undefined> {
    const context = new CallContext(options);
    try {
      yield* this.#responses(method, request, context);
    } finally {
      context.end();
    }
  }

  /** Resolves when a server is reached. @throws GrpcError, ContextError */
  async duplex<Request extends object, Response extends object>(
    method: MethodDescriptor<Request, Response>,
    options: CallOptions = {},
  ): Promise<DuplexCall<Request, Response>> {
    const context = new CallContext(options);
    try {
      const stream = await this.#open(method, context);
      const { maxSendBytes, maxRecvBytes } = this.#options;
      return {
        send: (message) => void stream.write(frameOf(method.request, message, maxSendBytes)),
        end: () => void stream.end(),
        cancel: () => stream.close(constants.NGHTTP2_CANCEL),
        async *[Symbol.asyncIterator]() {
          try {
            yield* messagesOf(stream, method.response, maxRecvBytes);
          } catch (error) {
            throw context.error ?? error;
          } finally {
            context.end();
          }
        },
      };
    } catch (error) {
      context.end();
      throw error;
    }
  }

  async *#responses<Request extends object, Response extends object>(
    method: MethodDescriptor<Request, Response>,
    request: Request,
    context: CallContext,
  ): AsyncGenerator<Response, void, undefined> {
    const { maxSendBytes, maxRecvBytes } = this.#options;
    const frame = frameOf(method.request, request, maxSendBytes);
    const stream = await this.#open(method, context);
    stream.end(frame);
    try {
      yield* messagesOf(stream, method.response, maxRecvBytes);
    } catch (error) {
      throw context.error ?? error;
    }
  }

  async #attempts<T>(options: CallOptions, attempt: (context: CallContext) => Promise<T>): Promise<T> {
    const context = new CallContext(options);
    try {
      for (let count = 0; ; count += 1) {
        try {
          return await attempt(context);
        } catch (error) {
          if (!(error instanceof GrpcError)) throw error;
          options.onFailure?.(error, count);
          const mayRepeat = error.code === GrpcCode.Unavailable && (error.unsent || options.repeatable === true);
          if (context.error !== undefined || !mayRepeat || count + 1 >= ATTEMPTS_MAX) throw error;
          // The others first, at once; then a little patience.
          if ((count + 1) % this.#endpoints.length === 0) await context.pause(RETRY_MS);
        }
      }
    } finally {
      context.end();
    }
  }

  async #open(method: MethodDescriptor<object, object>, context: CallContext): Promise<ClientHttp2Stream> {
    const { endpoint, session } = await this.#session(context);
    let stream: ClientHttp2Stream;
    try {
      stream = session.request({
        ":method": "POST",
        ":path": method.path,
        ":scheme": endpoint.scheme,
        ":authority": endpoint.authority,
        te: "trailers",
        "content-type": "application/grpc",
        "user-agent": USER_AGENT,
        ...(context.remainingMs === undefined
          ? {}
          : { "grpc-timeout": `${Math.min(Math.max(1, Math.ceil(context.remainingMs)), 99_999_999)}m` }),
        ...context.options.headers,
      });
    } catch (error) {
      // The connection ended in this very moment.
      throw new GrpcError(GrpcCode.Unavailable, `the connection is closing: ${(error as Error).message}`, { unsent: true, cause: error });
    }
    // What went wrong is told by whoever reads.
    stream.on("error", () => undefined);
    context.onAbort(() => stream.close(constants.NGHTTP2_CANCEL));
    return stream;
  }

  /** The next connection that stands; waits until there is one. */
  async #session(context: CallContext): Promise<{ endpoint: Endpoint; session: ClientHttp2Session }> {
    let delayMs = RECONNECT_MS;
    for (;;) {
      context.throwIfEnded();
      const standing = this.#endpoints.filter((endpoint) => endpoint.ready !== undefined);
      const endpoint = standing[this.#turn % Math.max(1, standing.length)];
      const session = endpoint?.ready;
      if (endpoint !== undefined && session !== undefined) {
        this.#turn += 1;
        return { endpoint, session };
      }
      try {
        await context.race(Promise.any(this.#endpoints.map((one) => one.connect())));
      } catch (error) {
        if (error instanceof ContextError) throw error;
        const [first] = (error as AggregateError).errors as GrpcError[];
        context.lastFailure = first?.details;
        await context.pause(delayMs);
        delayMs = Math.min(delayMs * RECONNECT_GROWTH, RECONNECT_MAX_MS);
      }
    }
  }
}

/** Deadline and cancellation of one call. */
class CallContext {
  readonly options: CallOptions;
  /** Why no server could be reached. */
  lastFailure: string | undefined;
  error: ContextError | undefined;
  readonly #deadlineMs: number | undefined;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #onSignal: () => void;
  readonly #listeners = new Set<() => void>();

  constructor(options: CallOptions) {
    this.options = options;
    this.#onSignal = () => this.#finish("canceled");
    if (options.timeoutMs !== undefined) {
      this.#deadlineMs = performance.now() + options.timeoutMs;
      this.#timer = setTimeout(() => this.#finish("deadline"), Math.min(options.timeoutMs, 2 ** 31 - 1));
    }
    if (options.signal?.aborted === true) this.#finish("canceled");
    else options.signal?.addEventListener("abort", this.#onSignal, { once: true });
  }

  get remainingMs(): number | undefined {
    return this.#deadlineMs === undefined ? undefined : this.#deadlineMs - performance.now();
  }

  onAbort(listener: () => void): void {
    if (this.error !== undefined) listener();
    else this.#listeners.add(listener);
  }

  throwIfEnded(): void {
    if (this.error !== undefined) throw this.error;
  }

  /** `promise`, or the context's end if that comes first. */
  race<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const listener = (): void => reject(this.error);
      this.onAbort(listener);
      promise.then(resolve, reject).finally(() => this.#listeners.delete(listener));
    });
  }

  async pause(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    try {
      await this.race(
        new Promise<void>((resolve) => {
          timer = setTimeout(resolve, ms);
        }),
      );
    } finally {
      clearTimeout(timer);
    }
  }

  end(): void {
    clearTimeout(this.#timer);
    this.options.signal?.removeEventListener("abort", this.#onSignal);
    this.#listeners.clear();
  }

  #finish(kind: "deadline" | "canceled"): void {
    if (this.error !== undefined) return;
    this.error = new ContextError(kind, this.lastFailure === undefined ? undefined : `latest balancer error: ${this.lastFailure}`);
    for (const listener of [...this.#listeners]) listener();
  }
}
