/**
 * The gateway over WebSockets, which is full duplex: each message of the client is (a part of) one JSON request, each line of the answer one text
 * message. Any gateway path may be called so; a unary one is answered by one message.
 */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { type RawData, type WebSocket, WebSocketServer } from "ws";
import { JsonSplitter, messageTooLarge, parseJson, printError, printJson, printStreamError, rpcError } from "../../api/index.ts";
import { type EtcdError, GrpcCode } from "../../base/errors.ts";
import type { RunningCall } from "./connections.ts";
import { type CallMetadata, GatewayCall } from "./gateway-call.ts";
import type { GatewayParts } from "./gateway-parts.ts";
import type { Route, StreamRoute, UnaryRoute } from "./gateway-routes.ts";
import { StreamRequests, type StreamSink, streamCall } from "./gateway-streams.ts";

/** Unsent bytes of a socket from which on its sender waits. */
const BUFFERED_BYTES_MAX = 256 * 1024;
const BEARER = "Bearer";

export class WebSocketGateway {
  readonly #parts: GatewayParts;
  readonly #server: WebSocketServer;

  constructor(parts: GatewayParts) {
    this.#parts = parts;
    this.#server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: parts.limits.jsonBytes,
      handleProtocols: (_offered, request) => (offersBearer(request) ? BEARER : false),
    });
  }

  /** Completes the handshake and serves the call; `attach` is given what to tell when the client goes away. `route` is undefined for an unknown path. */
  upgrade(req: IncomingMessage, socket: Duplex, head: Buffer, route: Route | undefined, attach: (call: RunningCall) => void): void {
    this.#server.handleUpgrade(req, socket, head, (ws) => {
      const wire = new Wire(ws);
      const metadata = credentialsOf(req);
      const call = route === undefined ? new NoCall(wire) : this.#serve(wire, route, metadata);
      attach(call);
      const gone = (): void => call.disconnected();
      ws.on("close", gone);
      // Broken frames, messages that are too long: the socket says so and closes by itself, but the call need not wait for that.
      ws.on("error", gone);
    });
  }

  #serve(wire: Wire, route: Route, metadata: CallMetadata): RunningCall {
    return route.kind === "unary" ? new UnaryOverWebSocket(this.#parts, route, wire, metadata) : this.#stream(wire, route, metadata);
  }

  #stream(wire: Wire, route: StreamRoute, metadata: CallMetadata): RunningCall {
    const call = streamCall(this.#parts, route, new WebSocketSink(wire), wire, metadata);
    const requests = new StreamRequests(this.#parts.limits, call);
    wire.onMessage((piece) => requests.push(piece));
    call.start(undefined);
    return call;
  }
}

function offersBearer(req: IncomingMessage): boolean {
  return req.headers["sec-websocket-protocol"]?.startsWith(BEARER) ?? false;
}

/** Of the request's headers only these count: the sub-protocol `Bearer, <token>` and the cookie `token`, which goes first. */
function credentialsOf(req: IncomingMessage): CallMetadata {
  const protocol = req.headers["sec-websocket-protocol"];
  const at = protocol?.indexOf(`${BEARER},`) ?? -1;
  const fromProtocol = protocol === undefined || at < 0 ? undefined : protocol.slice(at + BEARER.length + 1).trim();
  return { token: tokenCookie(req.headers.cookie) ?? fromProtocol, requireLeader: false, clientApiVersion: undefined };
}

function tokenCookie(cookies: string | undefined): string | undefined {
  for (const cookie of cookies?.split(";") ?? []) {
    const [name, value] = cookie.trim().split("=", 2);
    if (name === "token" && value !== undefined) return value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value;
  }
  return undefined;
}

const LINE_END = Buffer.from("\n");

/** A WebSocket with back-pressure in both directions. */
class Wire {
  readonly #ws: WebSocket;
  #waiting: (() => void) | undefined;
  #buffered = false;

  constructor(ws: WebSocket) {
    this.#ws = ws;
    ws.on("close", () => this.#wake());
  }

  onMessage(each: (piece: Uint8Array) => void): void {
    this.#ws.on("message", (data: RawData) => {
      each(data as Buffer);
      // Messages are separate values, even numbers.
      each(LINE_END);
    });
  }

  get closed(): boolean {
    return this.#ws.readyState !== this.#ws.OPEN;
  }

  send(text: string): boolean {
    if (this.closed) return true;
    this.#ws.send(text, { binary: false }, () => {
      if (this.#buffered && this.#ws.bufferedAmount < BUFFERED_BYTES_MAX) {
        this.#buffered = false;
        this.#wake();
      }
    });
    this.#buffered = this.#ws.bufferedAmount >= BUFFERED_BYTES_MAX;
    return !this.#buffered;
  }

  drained(): Promise<void> {
    if (this.closed || !this.#buffered) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  end(): void {
    this.#ws.close(1000);
  }

  pause(): void {
    this.#ws.pause();
  }

  resume(): void {
    this.#ws.resume();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.();
  }
}

class WebSocketSink implements StreamSink {
  readonly #wire: Wire;

  constructor(wire: Wire) {
    this.#wire = wire;
  }

  get closed(): boolean {
    return this.#wire.closed;
  }

  send(line: string): boolean {
    return this.#wire.send(line);
  }

  drained(): Promise<void> {
    return this.#wire.drained();
  }

  fail(error: EtcdError): void {
    this.#wire.send(printStreamError(error));
    this.#wire.end();
  }

  end(): void {
    this.#wire.end();
  }
}

/** An unknown path. */
class NoCall implements RunningCall {
  constructor(wire: Wire) {
    wire.send(printError(rpcError("http-not-found")));
    wire.end();
  }

  disconnected(): void {
    return;
  }
}

/** A unary call. The first complete value is its request; etcd would wait for the end of the connection and then have nobody to answer to. */
class UnaryOverWebSocket implements RunningCall {
  readonly #parts: GatewayParts;
  readonly #route: UnaryRoute;
  readonly #wire: Wire;
  readonly #call: GatewayCall;
  #begun = false;
  #over = false;

  constructor(parts: GatewayParts, route: UnaryRoute, wire: Wire, metadata: CallMetadata) {
    this.#parts = parts;
    this.#route = route;
    this.#wire = wire;
    this.#call = new GatewayCall(metadata);
    const splitter = new JsonSplitter(parts.limits.jsonBytes);
    wire.onMessage((piece) => {
      if (this.#begun || this.#over) return;
      try {
        splitter.push(piece, (value) => this.#begin(value));
      } catch (error) {
        this.#fail(error);
      }
    });
  }

  disconnected(): void {
    this.#call.giveUp(rpcError("canceled"));
  }

  #begin(value: Uint8Array): void {
    if (this.#begun) return;
    this.#begun = true;
    void this.#run(value);
  }

  async #run(value: Uint8Array): Promise<void> {
    const { method, rpc, invoke } = this.#route;
    const { metrics, limits } = this.#parts;
    let called = false;
    try {
      const request = parseJson(method.request, value);
      const size = method.request.byteLength(request);
      if (size > limits.messageBytes) throw messageTooLarge(size, limits.messageBytes);
      metrics.clientReceivedBytes.value += size;
      metrics.clientRequest(false, undefined);
      rpc.started++;
      rpc.received++;
      called = true;
      const response = await invoke(request, this.#call);
      const text = printJson(method.response, response);
      rpc.sent++;
      metrics.clientSentBytes.value += method.response.byteLength(response);
      rpc.finish(GrpcCode.OK);
      this.#over = true;
      this.#wire.send(text);
      this.#wire.end();
    } catch (error) {
      const reason = this.#fail(error);
      if (called) rpc.finish(reason.grpcCode);
    }
  }

  #fail(error: unknown): EtcdError {
    const reason = this.#parts.asEtcdError(error);
    if (!this.#over) {
      this.#over = true;
      this.#wire.send(printError(reason));
      this.#wire.end();
    }
    return reason;
  }
}
