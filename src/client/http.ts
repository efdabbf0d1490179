/**
 * The way over HTTP/JSON, with nothing but the standard `fetch`: it works in browsers, on the edge, in Deno, Bun and Node. It is half duplex: a watch is one
 * request whose answer goes on and on, a renewal of a lease one request with one answer.
 */
import * as api from "../api/index.ts";
import { utf8Bytes } from "../base/bytes.ts";
import { EtcdError } from "../base/errors.ts";
import { BadAnswerError, canceledError, errorOfAnswer, InvalidUseError, UnavailableError } from "./errors.ts";
import { lines } from "./lines.ts";
import type { CallContext, Channel, Transport, WatchSession } from "./transport.ts";

/** What is used of the platform's `fetch`. */
export type Fetch = (
  url: string,
  init: { method: "POST"; headers: Record<string, string>; body: string; signal: AbortSignal; cache: "no-store" },
) => Promise<FetchResponse>;

interface FetchResponse {
  readonly status: number;
  readonly body: { getReader(): ByteReader } | null;
  arrayBuffer(): Promise<ArrayBuffer>;
}

export interface ByteReader {
  read(): Promise<{ done: false; value: Uint8Array } | { done: true; value?: Uint8Array | undefined }>;
  cancel(): Promise<void>;
}

declare const fetch: Fetch;

export interface HttpJsonOptions {
  /** In place of the platform's, for example one with a proxy or with client certificates. */
  readonly fetch?: Fetch | undefined;
  /** Sent with every request. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Longest message of a stream in bytes. Default 16 MiB. */
  readonly messageBytesMax?: number | undefined;
}

const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

/** Endpoints are URLs of members, `http://` or `https://`; a path in front of `/v3` is possible. */
export function httpJson(options: HttpJsonOptions = {}): Transport {
  return {
    local: false,
    connect: (endpoint) => new HttpChannel(endpoint, options),
  };
}

class HttpChannel implements Channel {
  readonly endpoint: string;
  readonly fullDuplex = false;
  readonly #base: string;
  readonly #options: HttpJsonOptions;
  readonly #messageBytesMax: number;

  constructor(endpoint: string, options: HttpJsonOptions) {
    if (!/^https?:\/\/[^/?#]+/.test(endpoint))
      throw new InvalidUseError(`an endpoint is a URL such as http://127.0.0.1:2379, not ${endpoint}`);
    this.endpoint = endpoint;
    this.#base = endpoint.replace(/\/+$/, "");
    this.#options = options;
    this.#messageBytesMax = options.messageBytesMax ?? MESSAGE_BYTES_MAX;
  }

  async unary<Request extends object, Response extends object>(
    method: api.MethodDescriptor<Request, Response>,
    request: Request,
    context: CallContext,
  ): Promise<Response> {
    const { signal, release } = ownSignal(context.signal);
    try {
      const response = await this.#post(method, method.request.printJson(request), context, signal);
      const body = await this.#whole(response, signal);
      if (response.status !== 200) throw refusal(response.status, body);
      return parse(method.response, body);
    } finally {
      release();
    }
  }

  async *stream<Request extends object, Response extends object>(
    method: api.MethodDescriptor<Request, Response>,
    request: Request,
    context: CallContext,
  ): AsyncGenerator<Response, void, undefined> {
    const { signal, release, abort } = ownSignal(context.signal);
    try {
      const response = await this.#post(method, method.request.printJson(request), context, signal);
      yield* this.#results(method.response, response, signal);
    } finally {
      // Leaving the loop early ends the request.
      abort();
      release();
    }
  }

  watch(context: CallContext): WatchSession {
    const open: OpenWatch = (request, signal) => this.stream(api.WatchService.watch, request, { ...context, signal, timeoutMs: undefined });
    return new HttpWatch(open, context.signal);
  }

  async keepAlive(request: api.LeaseKeepAliveRequest, context: CallContext): Promise<api.LeaseKeepAliveResponse> {
    for await (const response of this.stream(api.LeaseService.leaseKeepAlive, request, context)) return response;
    throw new BadAnswerError("a renewal was not answered");
  }

  /** Every request has a signal of its caller, who has ended it by now. */
  close(): void {}

  async #post(
    method: Pick<api.MethodDescriptor<object, object>, "name" | "service" | "httpPaths">,
    body: string,
    context: CallContext,
    signal: AbortSignal,
  ): Promise<FetchResponse> {
    const path = method.httpPaths[0];
    if (path === undefined) throw api.unknownRpcMethod(method.name, method.service);
    const headers: Record<string, string> = { "content-type": "application/json", ...this.#options.headers };
    if (context.token !== undefined) headers.authorization = context.token;
    if (context.requireLeader === true) headers["grpc-metadata-hasleader"] = "true";
    if (context.timeoutMs !== undefined) headers["grpc-timeout"] = `${Math.max(1, Math.ceil(context.timeoutMs))}m`;
    try {
      // Looked up at each call: a program may put another one in its place.
      return await (this.#options.fetch ?? fetch)(this.#base + path, { method: "POST", headers, body, signal, cache: "no-store" });
    } catch (error) {
      throw this.#broken(error, signal);
    }
  }

  async #whole(response: FetchResponse, signal: AbortSignal): Promise<Uint8Array> {
    try {
      return new Uint8Array(await response.arrayBuffer());
    } catch (error) {
      throw this.#broken(error, signal);
    }
  }

  async *#results<Response extends object>(
    type: api.MessageType<Response>,
    response: FetchResponse,
    signal: AbortSignal,
  ): AsyncGenerator<Response, void, undefined> {
    const { body } = response;
    if (body === null) throw new BadAnswerError("a stream was answered without a body");
    const reader = body.getReader();
    try {
      for await (const line of lines(reader, this.#messageBytesMax)) {
        if (response.status !== 200) throw refusal(response.status, line);
        const result = resultIn(line);
        if (result === undefined) throw refusal(response.status, line);
        yield parse(type, result);
      }
    } catch (error) {
      throw EtcdError.is(error) ? error : this.#broken(error, signal);
    }
    if (response.status !== 200) throw refusal(response.status, new Uint8Array(0));
  }

  #broken(error: unknown, signal: AbortSignal): EtcdError {
    if (EtcdError.is(error)) return error;
    if (signal.aborted) return canceledError(signal);
    const requestSent = !neverLeft(error);
    const message = `${this.endpoint} cannot be reached: ${describe(error)}`;
    return new UnavailableError({ endpoint: this.endpoint, requestSent, message }, { cause: error });
  }
}

type OpenWatch = (request: api.WatchRequest, signal: AbortSignal) => AsyncGenerator<api.WatchResponse, void, undefined>;

/** A watch request, and nothing after it. */
class HttpWatch implements WatchSession {
  readonly #open: OpenWatch;
  readonly #controller = new AbortController();
  readonly #release: () => void;
  #responses: AsyncGenerator<api.WatchResponse, void, undefined> | undefined;
  #waiting: (() => void) | undefined;
  #closed = false;

  constructor(open: OpenWatch, signal: AbortSignal | undefined) {
    this.#open = open;
    const onAbort = (): void => this.#controller.abort(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#release = () => signal?.removeEventListener("abort", onAbort);
    if (signal?.aborted === true) onAbort();
  }

  send(request: api.WatchRequest): void {
    if (request.createRequest === undefined || this.#responses !== undefined || this.#closed) return;
    this.#responses = this.#open(request, this.#controller.signal);
    this.#waiting?.();
  }

  async next(): Promise<readonly api.WatchResponse[] | undefined> {
    if (this.#responses === undefined && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    const responses = this.#responses;
    if (responses === undefined || this.#closed) return undefined;
    try {
      const { done, value } = await responses.next();
      return done === true || this.#closed ? undefined : [value];
    } catch (error) {
      if (this.#closed) return undefined;
      throw error;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#release();
    this.#controller.abort(new api.RpcError("canceled"));
    this.#waiting?.();
  }
}

/** A signal that ends with the caller's, and that can be ended by itself. Safer than handing on the caller's, which may live for long. */
function ownSignal(source: AbortSignal | undefined): { signal: AbortSignal; release: () => void; abort: () => void } {
  const controller = new AbortController();
  const onAbort = (): void => controller.abort(source?.reason);
  source?.addEventListener("abort", onAbort, { once: true });
  if (source?.aborted === true) onAbort();
  return {
    signal: controller.signal,
    release: () => source?.removeEventListener("abort", onAbort),
    abort: () => controller.abort(new api.RpcError("canceled")),
  };
}

function parse<Message extends object>(type: api.MessageType<Message>, body: Uint8Array): Message {
  try {
    return api.parseJson(type, body);
  } catch (error) {
    throw new BadAnswerError(`an answer is not a ${type.typeName}`, { cause: error });
  }
}

const RESULT = utf8Bytes('{"result":');
const SPACE = 0x20;
const CLOSE = 0x7d;

/** What a line of a stream wraps; undefined if it is not a result. */
function resultIn(line: Uint8Array): Uint8Array | undefined {
  let from = 0;
  for (const byte of RESULT) {
    while (line[from] === SPACE) from += 1;
    if (line[from] !== byte) return undefined;
    from += 1;
  }
  let to = line.length;
  while (to > from && line[to - 1] !== CLOSE) to -= 1;
  return line.subarray(from, to - 1);
}

/** The error in a body: `{"code":…,"message":…}`, alone or as `{"error":{…}}`. */
function refusal(status: number, body: Uint8Array): EtcdError {
  const text = new TextDecoder().decode(body);
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = undefined; // Not of a member: a proxy, or something else altogether.
  }
  const inner = field(parsed, "error");
  const fields = typeof inner === "object" ? inner : parsed;
  const code = field(fields, "code") ?? field(fields, "grpc_code");
  const message = field(fields, "message");
  if (typeof code === "number" && typeof message === "string") return errorOfAnswer(code, message);
  const what = `HTTP status ${status}: ${text.slice(0, 200)}`;
  // Nobody behind the proxy, or the member on its way down.
  if (status === 502 || status === 503 || status === 504) return new UnavailableError({ endpoint: "", requestSent: true, message: what });
  return new BadAnswerError(what);
}

declare const TextDecoder: new () => { decode(bytes: Uint8Array): string };

function field(object: unknown, name: string): unknown {
  return typeof object === "object" && object !== null ? (object as Readonly<Record<string, unknown>>)[name] : undefined;
}

/** Codes with which Node says that there was no connection, so that no request can have left. Other runtimes do not say. */
const NO_CONNECTION: ReadonlySet<unknown> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "UND_ERR_CONNECT_TIMEOUT",
  "ConnectionRefused",
]);

function neverLeft(error: unknown): boolean {
  const causes = [error, field(error, "cause"), ...((field(field(error, "cause"), "errors") as unknown[] | undefined) ?? [])];
  return causes.some((cause) => NO_CONNECTION.has(field(cause, "code")));
}

function describe(error: unknown): string {
  const cause = field(error, "cause");
  const detail = field(cause, "message") ?? field(cause, "code");
  const text = error instanceof Error ? error.message : String(error);
  return typeof detail === "string" && detail !== "" ? `${text} (${detail})` : text;
}
