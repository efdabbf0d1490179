/** Streaming calls over chunked HTTP/1.1. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { httpStatusOf, parseJson, printStreamError } from "../../api/index.ts";
import type { EtcdError } from "../../base/errors.ts";
import { type FlatHeaders, quietKeepAlive } from "./answers.ts";
import type { Connection, RunningCall } from "./connections.ts";
import { metadataOf, timeoutMsOf } from "./gateway-call.ts";
import type { GatewayParts } from "./gateway-parts.ts";
import type { BidiRoute, ServerStreamRoute, StreamRoute } from "./gateway-routes.ts";
import { bidiCall, ServerStreamCall, type StreamCall, type StreamInput, StreamRequests, type StreamSink } from "./gateway-streams.ts";
import { answerGatewayError, BodyReader, tooManyBytesHeld } from "./gateway-unary.ts";

const JSON_TYPE: FlatHeaders = ["Content-Type", "application/json"];
const JSON_FROM_RPC: FlatHeaders = [...JSON_TYPE, "Grpc-Metadata-Content-Type", "application/grpc"];
/** While answers are held back: this much body, or this much answer, and they are not held back any longer. */
const HOLD_BYTES_MAX = 256 * 1024;

/** Lines as chunks of one response, each flushed by itself. */
class HttpSink implements StreamSink {
  readonly #connection: Connection;
  readonly #req: IncomingMessage;
  readonly #res: ServerResponse;
  readonly #cors: FlatHeaders;
  #held: string[] | undefined;
  #heldBytes = 0;
  #waiting: (() => void) | undefined;
  #ended = false;

  /** `hold`: nothing leaves before {@link HttpSink.letGo}. */
  constructor(connection: Connection, req: IncomingMessage, res: ServerResponse, cors: FlatHeaders, hold: boolean) {
    this.#connection = connection;
    this.#req = req;
    this.#res = res;
    this.#cors = cors;
    this.#held = hold ? [] : undefined;
    const wake = (): void => this.#wake();
    res.on("drain", wake);
    res.on("close", wake);
    // A write may meet a socket that was destroyed a moment ago; the connection tells of that.
    res.on("error", wake);
  }

  get closed(): boolean {
    return this.#connection.gone || this.#res.destroyed;
  }

  send(line: string): boolean {
    if (this.closed || this.#ended) return true;
    if (this.#held !== undefined) {
      this.#held.push(line);
      this.#heldBytes += line.length;
      if (this.#heldBytes < HOLD_BYTES_MAX) return true;
      return this.letGo();
    }
    this.#begin(200, JSON_FROM_RPC);
    return this.#res.write(`${line}\n`);
  }

  drained(): Promise<void> {
    if (this.closed || !this.#res.writableNeedDrain) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  /** Sends what was held back. False if that was more than the client takes at once. */
  letGo(): boolean {
    const held = this.#held;
    this.#held = undefined;
    let taken = true;
    if (held !== undefined) for (const line of held) taken = this.send(line);
    return taken;
  }

  fail(error: EtcdError): void {
    this.letGo();
    if (this.closed || this.#ended) return;
    this.#begin(httpStatusOf(error.grpcCode), JSON_TYPE);
    this.#ended = true;
    this.#res.end(`${printStreamError(error)}\n`);
  }

  end(): void {
    this.letGo();
    if (this.closed || this.#ended) return;
    this.#begin(200, []);
    this.#ended = true;
    this.#res.end();
  }

  #begin(status: number, headers: FlatHeaders): void {
    if (this.#res.headersSent) return;
    quietKeepAlive(this.#req, this.#res);
    this.#res.writeHead(status, [...this.#cors, ...headers]);
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.();
  }
}

/** Serves one streaming request. */
export function serveStream(
  parts: GatewayParts,
  route: StreamRoute,
  connection: Connection,
  req: IncomingMessage,
  res: ServerResponse,
  cors: FlatHeaders,
): void {
  let timeoutMs: number | undefined;
  try {
    timeoutMs = timeoutMsOf(req.headers);
  } catch (error) {
    req.resume();
    answerGatewayError(req, res, cors, parts.asEtcdError(error));
    return;
  }
  if (route.kind === "server-stream") serveServerStream(parts, route, connection, req, res, cors, timeoutMs);
  else serveBidi(parts, route, connection, req, res, cors, timeoutMs);
}

const NO_INPUT: StreamInput = { pause: () => undefined, resume: () => undefined };

function serveServerStream(
  parts: GatewayParts,
  route: ServerStreamRoute,
  connection: Connection,
  req: IncomingMessage,
  res: ServerResponse,
  cors: FlatHeaders,
  timeoutMs: number | undefined,
): void {
  new BodyReader(connection, req, parts.limits, (body, refusal) => {
    const sink = new HttpSink(connection, req, res, cors, false);
    if (refusal !== undefined) sink.fail(refusal);
    if (body === undefined) return;
    try {
      // What cannot be read never becomes a stream: its error has the form of a unary call's.
      parseJson(route.method.request, body);
    } catch (error) {
      answerGatewayError(req, res, cors, parts.asEtcdError(error));
      return;
    }
    const call = new ServerStreamCall(parts, route, sink, NO_INPUT, metadataOf(req.headers));
    connection.running(call);
    call.start(timeoutMs);
    call.value(body);
  });
}

/**
 * HTTP/1.1 as Go serves it: on a connection that is to be kept open, the whole body is read before the answer begins. The requests in it are carried
 * out as they come. With `Connection: close` both directions flow at once.
 */
function serveBidi(
  parts: GatewayParts,
  route: BidiRoute,
  connection: Connection,
  req: IncomingMessage,
  res: ServerResponse,
  cors: FlatHeaders,
  timeoutMs: number | undefined,
): void {
  const sink = new HttpSink(connection, req, res, cors, res.shouldKeepAlive);
  const input: StreamInput = {
    pause: () => {
      if (!call.over) req.pause();
    },
    resume: () => {
      req.resume();
    },
  };
  const call: StreamCall = bidiCall(parts, route, sink, input, metadataOf(req.headers));
  const body = new BidiBody(connection, new StreamRequests(parts.limits, call), call, sink, input);
  connection.running(new Both(call, input));
  req.on("data", (chunk: Buffer) => body.push(chunk));
  req.on("end", () => body.end());
  call.start(timeoutMs);
}

/** A call that was paused must let the rest of its request flow when it is over. */
class Both implements RunningCall {
  readonly #call: StreamCall;
  readonly #input: StreamInput;

  constructor(call: StreamCall, input: StreamInput) {
    this.#call = call;
    this.#input = input;
  }

  disconnected(): void {
    this.#call.disconnected();
    this.#input.resume();
  }
}

/** The request body of a stream in both directions. */
class BidiBody {
  readonly #connection: Connection;
  readonly #requests: StreamRequests;
  readonly #call: StreamCall;
  readonly #sink: HttpSink;
  readonly #input: StreamInput;
  #bytes = 0;

  constructor(connection: Connection, requests: StreamRequests, call: StreamCall, sink: HttpSink, input: StreamInput) {
    this.#connection = connection;
    this.#requests = requests;
    this.#call = call;
    this.#sink = sink;
    this.#input = input;
  }

  push(chunk: Buffer): void {
    this.#bytes += chunk.byteLength;
    this.#requests.push(chunk);
    if (!this.#connection.hold(this.#requests.pendingBytes)) this.#call.failed(tooManyBytesHeld());
    if (this.#call.over) this.#input.resume();
    if (this.#bytes >= HOLD_BYTES_MAX) this.#sink.letGo();
  }

  end(): void {
    this.#requests.end();
    this.#sink.letGo();
  }
}
