/** The way to one member over gRPC. */
import type { ClientHttp2Session } from "node:http2";
import * as api from "../../api/index.ts";
import { unlessAborted } from "../deadline.ts";
import { BadAnswerError } from "../errors.ts";
import type { CallContext, Channel, WatchSession } from "../transport.ts";
import { Connection, type ConnectionOptions, type Target } from "./connection.ts";
import { GrpcCall } from "./grpc-call.ts";
import { frameOf } from "./messages.ts";

const USER_AGENT = "holdfast-client";
/** `grpc-timeout` has eight digits at most. */
const TIMEOUT_MS_MAX = 99_999_999;

export class GrpcChannel implements Channel {
  readonly endpoint: string;
  readonly fullDuplex = true;
  readonly #connection: Connection;
  readonly #messageBytesMax: number;
  readonly #headers: Readonly<Record<string, string>>;

  constructor(target: Target, options: ConnectionOptions, messageBytesMax: number, headers: Readonly<Record<string, string>>) {
    this.endpoint = target.endpoint;
    this.#connection = new Connection(target, options);
    this.#messageBytesMax = messageBytesMax;
    this.#headers = headers;
  }

  async unary<Request extends object, Response extends object>(
    method: api.MethodDescriptor<Request, Response>,
    request: Request,
    context: CallContext,
  ): Promise<Response> {
    const frame = frameOf(method.request, request);
    const session = this.#connection.ready ?? (await this.#connected(context.signal));
    const call = this.#open(session, method, context);
    call.end(frame);
    let response: Response | undefined;
    // To the end: only the status behind the answer says that it is one.
    for (;;) {
      const messages = await call.next();
      if (messages === undefined) break;
      response = messages[0];
    }
    if (response === undefined) throw new BadAnswerError("a call ended well, but without an answer");
    return response;
  }

  async *stream<Request extends object, Response extends object>(
    method: api.MethodDescriptor<Request, Response>,
    request: Request,
    context: CallContext,
  ): AsyncGenerator<Response, void, undefined> {
    const call = this.#open(await this.#connected(context.signal), method, context);
    try {
      call.end(frameOf(method.request, request));
      for (;;) {
        const messages = await call.next();
        if (messages === undefined) return;
        yield* messages;
      }
    } finally {
      // Leaving the loop early ends the call.
      call.cancel();
    }
  }

  watch(context: CallContext): WatchSession {
    return new GrpcWatch(async () => {
      const session = await this.#connected(context.signal);
      return this.#open(session, api.WatchService.watch, { ...context, timeoutMs: undefined });
    });
  }

  async keepAlive(request: api.LeaseKeepAliveRequest, context: CallContext): Promise<api.LeaseKeepAliveResponse> {
    for await (const response of this.stream(api.LeaseService.leaseKeepAlive, request, context)) return response;
    throw new BadAnswerError("a renewal was not answered");
  }

  close(): void {
    this.#connection.close();
  }

  #connected(signal: AbortSignal | undefined): Promise<ClientHttp2Session> {
    return unlessAborted(this.#connection.connect(), signal);
  }

  #open<Response extends object>(
    session: ClientHttp2Session,
    method: Pick<api.MethodDescriptor<object, Response>, "path" | "response">,
    context: CallContext,
  ): GrpcCall<Response> {
    const { token, timeoutMs } = context;
    const headers: Record<string, string> = {
      ":method": "POST",
      ":scheme": this.#connection.scheme,
      ":authority": this.#connection.authority,
      ":path": method.path,
      te: "trailers",
      "content-type": "application/grpc",
      "user-agent": USER_AGENT,
      ...this.#headers,
    };
    if (token !== undefined) headers.token = token;
    if (context.requireLeader === true) headers.hasleader = "true";
    if (timeoutMs !== undefined) headers["grpc-timeout"] = `${Math.min(Math.max(1, Math.ceil(timeoutMs)), TIMEOUT_MS_MAX)}m`;
    let stream: ReturnType<ClientHttp2Session["request"]>;
    try {
      stream = session.request(headers, { endStream: false });
    } catch (error) {
      // The connection ended in this very moment.
      throw this.#connection.unavailable("the connection is closing", false, error);
    }
    return new GrpcCall(stream, this.#connection, {
      type: method.response,
      messageBytesMax: this.#messageBytesMax,
      signal: context.signal,
    });
  }
}

/** A stream of watches. What is sent before the connection stands waits for it. */
class GrpcWatch implements WatchSession {
  readonly #opening: Promise<GrpcCall<api.WatchResponse>>;
  #call: GrpcCall<api.WatchResponse> | undefined;
  #early: Uint8Array[] = [];
  #closed = false;
  /** Called by `close` while the connection is still to come. */
  #stopWaiting: (() => void) | undefined;

  constructor(open: () => Promise<GrpcCall<api.WatchResponse>>) {
    this.#opening = open().then((call) => {
      this.#call = call;
      if (this.#closed) call.cancel();
      for (const frame of this.#early) call.write(frame);
      this.#early = [];
      return call;
    });
    // Told by `next`.
    this.#opening.catch(() => undefined);
  }

  send(request: api.WatchRequest): void {
    if (this.#closed) return;
    const frame = frameOf(api.WatchService.watch.request, request);
    if (this.#call === undefined) this.#early.push(frame);
    else this.#call.write(frame);
  }

  async next(): Promise<readonly api.WatchResponse[] | undefined> {
    try {
      const call = this.#call ?? (await Promise.race([this.#opening, this.#closing()]));
      if (call === undefined) return undefined;
      const responses = await call.next();
      return this.#closed ? undefined : responses;
    } catch (error) {
      if (this.#closed) return undefined;
      throw error;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#call?.cancel();
    this.#stopWaiting?.();
  }

  #closing(): Promise<undefined> {
    return new Promise((resolve) => {
      this.#stopWaiting = () => resolve(undefined);
      if (this.#closed) resolve(undefined);
    });
  }
}
