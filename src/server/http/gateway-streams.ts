/**
 * Streaming calls of the JSON gateway, whatever carries them: chunked HTTP or a WebSocket. Requests come in as JSON values, answers leave as lines.
 * A client that does not read stops the flow: no more is taken from the service, and no more requests are read, until it does.
 */
import {
  JsonSplitter,
  type LeaseKeepAliveRequest,
  messageTooLarge,
  parseJson,
  printStreamResult,
  rpcError,
  type WatchRequest,
} from "../../api/index.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { WatchSession } from "../services/services.contract.ts";
import type { RunningCall } from "./connections.ts";
import { type CallMetadata, GatewayCall } from "./gateway-call.ts";
import type { GatewayLimits } from "./gateway-limits.ts";
import type { GatewayParts } from "./gateway-parts.ts";
import type { BidiRoute, ServerStreamRoute, StreamRoute } from "./gateway-routes.ts";

/** About how much is taken from a watch at a time, in bytes. */
const WATCH_BATCH_BYTES = 256 * 1024;
/** Renewals that may wait in one stream before no more are read. */
const KEEPALIVE_QUEUE_MAX = 64;

/** Where the lines of an answer go. */
export interface StreamSink {
  /** The client is gone; nothing arrives any more. */
  readonly closed: boolean;
  /** One line, without its end. False: the client is slow, wait for {@link StreamSink.drained} before sending more. */
  send(line: string): boolean;
  /** Resolves when more may be sent, or when the client is gone. */
  drained(): Promise<void>;
  /** The call failed: tells so in the last line. */
  fail(error: EtcdError): void;
  /** The call is over. */
  end(): void;
}

/** Lets the transport stop and go on reading requests. */
export interface StreamInput {
  pause(): void;
  resume(): void;
}

/** One streaming call. The transport tells it what comes in. */
export abstract class StreamCall implements RunningCall {
  protected readonly parts: GatewayParts;
  protected readonly route: StreamRoute;
  protected readonly sink: StreamSink;
  protected readonly input: StreamInput;
  protected readonly call: GatewayCall;
  readonly #startedMs: number;
  #over = false;

  constructor(parts: GatewayParts, route: StreamRoute, sink: StreamSink, input: StreamInput, metadata: CallMetadata) {
    this.parts = parts;
    this.route = route;
    this.sink = sink;
    this.input = input;
    this.call = new GatewayCall(metadata);
    this.#startedMs = parts.clock.monotonicMs();
    route.rpc.started++;
    parts.metrics.clientRequest(true, metadata.clientApiVersion);
  }

  /** Answered, failed or given up: nothing more will be sent. */
  get over(): boolean {
    return this.#over;
  }

  /** Begins; `timeoutMs` from now the call fails. */
  start(timeoutMs: number | undefined): void {
    if (timeoutMs !== undefined) this.call.startDeadline(this.parts.clock, timeoutMs, (reason) => this.failed(reason));
    if (!this.#over) this.begin();
  }

  protected abstract begin(): void;
  /** One request of the client, as JSON. */
  abstract value(json: Uint8Array): void;
  /** No more requests: the client has ended its side, or sent something that cannot be read. */
  abstract inputEnded(): void;
  /** Lets go of what the call holds. Called once, when it is over. */
  protected abstract release(): void;

  disconnected(): void {
    this.failed(rpcError("canceled"));
  }

  /** Ends the call with an error. Later ends change nothing. */
  failed(error: unknown): void {
    if (this.#over) return;
    const reason = this.parts.asEtcdError(error);
    this.#close(reason.grpcCode);
    this.call.giveUp(reason);
    this.sink.fail(reason);
  }

  protected succeeded(): void {
    if (this.#over) return;
    this.#close(GrpcCode.OK);
    this.sink.end();
  }

  /** Reads and checks one request. */
  protected requestOf(json: Uint8Array): object {
    const { request: type } = this.route.method;
    const request = parseJson(type, json);
    const size = type.byteLength(request);
    if (size > this.parts.limits.messageBytes) throw messageTooLarge(size, this.parts.limits.messageBytes);
    this.parts.metrics.clientReceivedBytes.value += size;
    this.route.rpc.received++;
    return request;
  }

  /** Sends one answer, and waits if the client is slow. False if the call is over. */
  protected async sendResult(response: object): Promise<boolean> {
    const { response: type } = this.route.method;
    const line = printStreamResult(type, response);
    if (this.#over || this.sink.closed) return false;
    this.route.rpc.sent++;
    this.parts.metrics.clientSentBytes.value += type.byteLength(response);
    if (!this.sink.send(line)) {
      this.input.pause();
      await this.sink.drained();
      this.input.resume();
    }
    return !this.#over && !this.sink.closed;
  }

  #close(code: number): void {
    if (this.#over) return;
    this.#over = true;
    this.call.finish();
    this.route.rpc.finish(code);
    this.route.rpc.seconds?.observe((this.parts.clock.monotonicMs() - this.#startedMs) / 1000);
    this.release();
  }
}

/** A watch: goes on until the client hangs up, whatever becomes of its requests. */
export class WatchCall extends StreamCall {
  #session: WatchSession | undefined;
  #inputOver = false;

  protected override begin(): void {
    try {
      this.#session = this.parts.services.watch.watch(this.call);
    } catch (error) {
      this.failed(error);
      return;
    }
    void this.#pump(this.#session);
  }

  override value(json: Uint8Array): void {
    if (this.#inputOver || this.over) return;
    let request: object;
    try {
      request = this.requestOf(json);
    } catch (error) {
      this.#inputOver = true;
      // What cannot be read ends the requests without a word, as in etcd; what is too large ends the call.
      if (!isUnreadable(error)) this.failed(error);
      return;
    }
    this.#session?.send(request as WatchRequest);
  }

  override inputEnded(): void {
    this.#inputOver = true;
  }

  protected override release(): void {
    this.#session?.close();
  }

  async #pump(session: WatchSession): Promise<void> {
    try {
      for (;;) {
        const responses = await session.next(WATCH_BATCH_BYTES);
        if (responses === undefined || this.over) break;
        for (const response of responses) if (!(await this.sendResult(response))) return;
      }
      this.succeeded();
    } catch (error) {
      this.failed(error);
    }
  }
}

/** Renewals, answered one after the other; over when all are answered and no more can come. */
export class KeepAliveCall extends StreamCall {
  readonly #queue: object[] = [];
  #inputOver = false;
  #running = false;

  protected override begin(): void {
    // The first request starts the work.
  }

  override value(json: Uint8Array): void {
    if (this.#inputOver || this.over) return;
    try {
      this.#queue.push(this.requestOf(json));
    } catch (error) {
      if (isUnreadable(error)) this.inputEnded();
      else this.failed(error);
      return;
    }
    if (this.#queue.length >= KEEPALIVE_QUEUE_MAX) this.input.pause();
    this.#run();
  }

  override inputEnded(): void {
    this.#inputOver = true;
    this.#run();
  }

  protected override release(): void {
    this.#queue.length = 0;
  }

  #run(): void {
    if (this.#running) return;
    this.#running = true;
    void this.#work();
  }

  async #work(): Promise<void> {
    try {
      for (let request = this.#queue.shift(); request !== undefined; request = this.#queue.shift()) {
        const response = await this.parts.services.lease.leaseKeepAlive(request as LeaseKeepAliveRequest, this.call);
        if (!(await this.sendResult(response))) return;
        if (this.#queue.length === KEEPALIVE_QUEUE_MAX - 1) this.input.resume();
      }
      this.#running = false;
      if (this.#inputOver) this.succeeded();
    } catch (error) {
      this.failed(error);
    }
  }
}

/** One request, many answers. Only the first value counts. */
export class ServerStreamCall extends StreamCall {
  readonly #invoke: ServerStreamRoute["invoke"];
  #begun = false;

  constructor(parts: GatewayParts, route: ServerStreamRoute, sink: StreamSink, input: StreamInput, metadata: CallMetadata) {
    super(parts, route, sink, input, metadata);
    this.#invoke = route.invoke;
  }

  protected override begin(): void {
    // Waits for the request.
  }

  override value(json: Uint8Array): void {
    if (this.#begun || this.over) return;
    this.#begun = true;
    try {
      void this.#pump(this.#invoke(this.requestOf(json), this.call));
    } catch (error) {
      this.failed(error);
    }
  }

  override inputEnded(): void {
    // No request at all is an empty one.
    this.value(NOTHING);
  }

  protected override release(): void {
    // The loop below notices by itself.
  }

  async #pump(responses: AsyncIterable<object>): Promise<void> {
    try {
      for await (const response of responses) if (!(await this.sendResult(response))) return;
      this.succeeded();
    } catch (error) {
      this.failed(error);
    }
  }
}

const NOTHING = new Uint8Array(0);

/** Not a message: JSON that is none, or none of this type. */
function isUnreadable(error: unknown): boolean {
  return EtcdError.is(error) && error.reason === "invalid-json";
}

/** Cuts what a client sends on a stream into requests, and hands them to the call. */
export class StreamRequests {
  readonly #limits: GatewayLimits;
  readonly #splitter: JsonSplitter;
  readonly #call: StreamCall;
  #over = false;

  constructor(limits: GatewayLimits, call: StreamCall) {
    this.#limits = limits;
    this.#splitter = new JsonSplitter(limits.jsonBytes);
    this.#call = call;
  }

  /** Bytes kept of a request that is not complete. */
  get pendingBytes(): number {
    return this.#over || this.#call.over ? 0 : this.#splitter.pendingBytes;
  }

  push(piece: Uint8Array): void {
    if (this.#over || this.#call.over) return;
    try {
      this.#splitter.push(piece, (value) => this.#call.value(value));
    } catch (error) {
      this.#broken(error);
    }
  }

  end(): void {
    if (this.#over || this.#call.over) return;
    this.#over = true;
    try {
      const last = this.#splitter.end();
      if (last !== undefined) this.#call.value(last);
    } catch (error) {
      this.#broken(error);
      return;
    }
    this.#call.inputEnded();
  }

  #broken(error: unknown): void {
    this.#over = true;
    if (isUnreadable(error)) this.#call.inputEnded();
    else if (EtcdError.is(error)) this.#call.failed(messageTooLarge(this.#limits.jsonBytes + 1, this.#limits.messageBytes));
    else this.#call.failed(error);
  }
}

export function streamCall(
  parts: GatewayParts,
  route: StreamRoute,
  sink: StreamSink,
  input: StreamInput,
  metadata: CallMetadata,
): StreamCall {
  if (route.kind === "server-stream") return new ServerStreamCall(parts, route, sink, input, metadata);
  return bidiCall(parts, route, sink, input, metadata);
}

export function bidiCall(parts: GatewayParts, route: BidiRoute, sink: StreamSink, input: StreamInput, metadata: CallMetadata): StreamCall {
  return route.kind === "watch"
    ? new WatchCall(parts, route, sink, input, metadata)
    : new KeepAliveCall(parts, route, sink, input, metadata);
}
