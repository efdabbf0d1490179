/** Unary calls of the JSON gateway: one body in, one answer out. The hot path of the HTTP side, so it avoids everything that can be avoided. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { httpStatusOf, messageTooLarge, parseJson, printError, printJson, rpcError } from "../../api/index.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import { type FlatHeaders, quietKeepAlive } from "./answers.ts";
import type { Connection, RunningCall } from "./connections.ts";
import { GatewayCall, metadataOf, timeoutMsOf } from "./gateway-call.ts";
import type { GatewayLimits } from "./gateway-limits.ts";
import type { GatewayParts } from "./gateway-parts.ts";
import type { UnaryRoute } from "./gateway-routes.ts";
import { isLargeRange, type LargeRange, printLargeRange, writePieces } from "./large-answers.ts";

const JSON_TYPE: FlatHeaders = ["Content-Type", "application/json"];
const JSON_FROM_RPC: FlatHeaders = [...JSON_TYPE, "Grpc-Metadata-Content-Type", "application/grpc"];
/** Answers longer than this are counted by estimate instead of being encoded once more. */
const EXACT_COUNT_CHARS_MAX = 1 << 20;
/** Bodies longer than this take long to read; there is a turn of the event loop for each. */
const HEAVY_BODY_BYTES = 256 * 1024;
/** What is read and thrown away of a body after its call has been refused, so that clients that read late see the answer. */
const DISCARD_BYTES_MAX = 64 * 1024 * 1024;

/** Header values may not hold line breaks or wide characters. */
const NOT_IN_HEADERS = /[^\t\x20-\x7e\x80-\xff]/g;

/** The response headers of an error. */
export function errorHeaders(error: EtcdError): FlatHeaders {
  if (error.grpcCode !== GrpcCode.Unauthenticated) return JSON_TYPE;
  return [...JSON_TYPE, "Www-Authenticate", error.message.replace(NOT_IN_HEADERS, "")];
}

/** Answers a gateway error that has nothing to do with a call. */
export function answerGatewayError(req: IncomingMessage, res: ServerResponse, cors: FlatHeaders, error: EtcdError): void {
  writeWhole(req, res, httpStatusOf(error.grpcCode), [...cors, ...errorHeaders(error)], printError(error), false);
}

/** Unary answers are chunked for clients that accept trailers, so that trailers may follow. */
function acceptsTrailers(req: IncomingMessage): boolean {
  const te = req.headers.te;
  return te !== undefined && String(te).toLowerCase().includes("trailers");
}

function writeWhole(req: IncomingMessage, res: ServerResponse, status: number, headers: string[], body: string, failedRpc: boolean): void {
  quietKeepAlive(req, res);
  if (acceptsTrailers(req) && req.method !== "HEAD") {
    if (failedRpc) headers.push("Trailer", "Grpc-Trailer-Content-Type");
    res.writeHead(status, headers);
    res.write(body);
    if (failedRpc) res.addTrailers([["Grpc-Trailer-Content-Type", "application/grpc"]]);
    res.end();
    return;
  }
  headers.push("Content-Length", String(Buffer.byteLength(body)));
  res.writeHead(status, headers);
  res.end(body);
}

/** Reads the whole body of one request, up to a limit. Just enough of a stream reader; there is one per call. */
export class BodyReader {
  readonly #req: IncomingMessage;
  readonly #connection: Connection;
  readonly #limits: GatewayLimits;
  readonly #done: (body: Uint8Array | undefined, refusal: EtcdError | undefined) => void;
  #first: Buffer | undefined;
  #more: Buffer[] | undefined;
  #bytes = 0;
  #over = false;

  /** `done` gets the body, or why it is not read: it is too long, or there is no room for it. Not called if the client goes away. */
  constructor(
    connection: Connection,
    req: IncomingMessage,
    limits: GatewayLimits,
    done: (body: Uint8Array | undefined, refusal: EtcdError | undefined) => void,
  ) {
    this.#req = req;
    this.#connection = connection;
    this.#limits = limits;
    this.#done = done;
    const announced = Number(req.headers["content-length"] ?? 0);
    connection.readingBody(true);
    req.on("data", (chunk: Buffer) => this.#data(chunk));
    req.on("end", () => this.#end());
    if (announced > limits.jsonBytes) this.#refuse(messageTooLarge(announced, limits.messageBytes));
  }

  #data(chunk: Buffer): void {
    this.#bytes += chunk.byteLength;
    if (this.#over) {
      if (this.#bytes > this.#limits.jsonBytes + DISCARD_BYTES_MAX) this.#connection.socket.destroy();
    } else if (this.#bytes > this.#limits.jsonBytes) {
      this.#refuse(messageTooLarge(this.#bytes, this.#limits.messageBytes));
    } else if (this.#first === undefined) {
      this.#first = chunk;
    } else {
      this.#more ??= [this.#first];
      this.#more.push(chunk);
      // One piece is what nearly all bodies are, and as much as the socket keeps anyway.
      if (!this.#connection.hold(this.#bytes)) this.#refuse(tooManyBytesHeld());
    }
  }

  #end(): void {
    if (this.#over) return;
    this.#connection.readingBody(false);
    this.#done(this.#more === undefined ? (this.#first ?? NOTHING) : Buffer.concat(this.#more, this.#bytes), undefined);
  }

  #refuse(refusal: EtcdError): void {
    this.#over = true;
    this.#first = undefined;
    this.#more = undefined;
    this.#connection.hold(0);
    this.#done(undefined, refusal);
    // What still comes is thrown away. The client may be slow, but not for ever: the connection goes on watching the body.
    this.#req.resume();
  }
}

const NOTHING = new Uint8Array(0);

/** The bodies of all connections together are more than is kept. */
export function tooManyBytesHeld(): EtcdError {
  return new EtcdError("too-many-requests", GrpcCode.ResourceExhausted, "etcdserver: too many requests");
}

/** One unary call from its headers to its answer. */
export class UnaryExchange implements RunningCall {
  readonly #parts: GatewayParts;
  readonly #route: UnaryRoute;
  readonly #connection: Connection;
  readonly #req: IncomingMessage;
  readonly #res: ServerResponse;
  readonly #cors: FlatHeaders;
  #call: GatewayCall | undefined;
  #answered = false;
  #startedMs = 0;

  constructor(
    parts: GatewayParts,
    route: UnaryRoute,
    connection: Connection,
    req: IncomingMessage,
    res: ServerResponse,
    cors: FlatHeaders,
  ) {
    this.#parts = parts;
    this.#route = route;
    this.#connection = connection;
    this.#req = req;
    this.#res = res;
    this.#cors = cors;
  }

  /** `ignoreBody`: the body was consumed by somebody else, the message is the empty one. */
  start(ignoreBody: boolean): void {
    new BodyReader(this.#connection, this.#req, this.#parts.limits, (body, refusal) => {
      if (refusal !== undefined) this.#fail(refusal, false);
      else if (body !== undefined && body.byteLength > HEAVY_BODY_BYTES)
        this.#parts.heavyWork.add(() => this.#run(ignoreBody ? NOTHING : body));
      else this.#run(ignoreBody || body === undefined ? NOTHING : body);
    });
  }

  /** Does not wait for the service: whoever has only closed one side is answered at once, and nothing keeps the connection. */
  disconnected(): void {
    const reason = rpcError("canceled");
    this.#call?.giveUp(reason);
    this.#fail(reason, true);
  }

  #run(body: Uint8Array): void {
    if (this.#connection.gone) return;
    const { metrics, limits, clock } = this.#parts;
    const { method, rpc } = this.#route;
    const headers = this.#req.headers;
    let request: object;
    try {
      const call = new GatewayCall(metadataOf(headers));
      this.#call = call;
      const timeoutMs = timeoutMsOf(headers);
      request = parseJson(method.request, body);
      const size = method.request.byteLength(request);
      if (size > limits.messageBytes) throw messageTooLarge(size, limits.messageBytes);
      metrics.clientReceivedBytes.value += size;
      rpc.started++;
      rpc.received++;
      metrics.clientRequest(false, call.clientApiVersion);
      if (rpc.seconds !== undefined) this.#startedMs = clock.monotonicMs();
      if (timeoutMs !== undefined) call.startDeadline(clock, timeoutMs, (reason) => this.#fail(reason, true));
      if (this.#answered) return;
      this.#connection.running(this);
      this.#route.invoke(request, call).then(this.#succeed, this.#reject);
    } catch (error) {
      this.#fail(this.#parts.asEtcdError(error), false);
    }
  }

  readonly #succeed = (response: object): void => {
    if (this.#answered) return;
    if (isLargeRange(response)) {
      void this.#succeedInSlices(response);
      return;
    }
    let text: string;
    try {
      text = printJson(this.#route.method.response, response);
    } catch (error) {
      this.#fail(this.#parts.asEtcdError(error), true);
      return;
    }
    const { metrics } = this.#parts;
    this.#route.rpc.sent++;
    metrics.clientSentBytes.value +=
      text.length <= EXACT_COUNT_CHARS_MAX ? this.#route.method.response.byteLength(response) : Math.floor(text.length * 0.75);
    this.#finish(GrpcCode.OK);
    if (this.#connection.gone) return;
    writeWhole(this.#req, this.#res, 200, [...this.#cors, ...JSON_FROM_RPC], text, false);
    this.#connection.awaitTaken();
  };

  /** A large answer must not hold up everybody else while it is printed. */
  async #succeedInSlices(response: LargeRange): Promise<void> {
    try {
      const printed = await printLargeRange(response, () => this.#answered);
      if (printed === undefined || this.#answered) return;
      this.#route.rpc.sent++;
      this.#parts.metrics.clientSentBytes.value += Math.floor(printed.bytes * 0.75);
      this.#finish(GrpcCode.OK);
      if (this.#connection.gone) return;
      quietKeepAlive(this.#req, this.#res);
      const length = acceptsTrailers(this.#req) ? [] : ["Content-Length", String(printed.bytes)];
      this.#res.writeHead(200, [...this.#cors, ...JSON_FROM_RPC, ...length]);
      await writePieces(this.#res, printed.pieces, () => this.#connection.awaitTaken());
    } catch (error) {
      this.#fail(this.#parts.asEtcdError(error), true);
    }
  }

  readonly #reject = (error: unknown): void => {
    this.#fail(this.#parts.asEtcdError(error), true);
  };

  /** `called`: the error is the outcome of the call, not of getting there. */
  #fail(error: EtcdError, called: boolean): void {
    if (this.#answered) return;
    if (called) this.#finish(error.grpcCode);
    else {
      this.#answered = true;
      this.#call?.finish();
    }
    if (this.#connection.gone) return;
    const headers = [...this.#cors, ...errorHeaders(error)];
    writeWhole(this.#req, this.#res, httpStatusOf(error.grpcCode), headers, printError(error), called);
  }

  #finish(code: number): void {
    const { rpc } = this.#route;
    this.#answered = true;
    this.#call?.finish();
    this.#connection.finished();
    rpc.finish(code);
    if (rpc.seconds !== undefined) rpc.seconds.observe((this.#parts.clock.monotonicMs() - this.#startedMs) / 1000);
  }
}
