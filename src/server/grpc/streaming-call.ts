/** Calls with streams: requests are read one by one, answers go out as fast as the client takes them, and neither piles up. */
import { type LeaseKeepAliveRequest, rpcError, undecodableStreamMessage, type WatchRequest } from "../../api/index.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { WatchSession } from "../services/services.contract.ts";
import { compress, decompress } from "./compression.ts";
import { framed, MessageReader } from "./message-reader.ts";
import type { Method } from "./methods.ts";
import type { GrpcParts } from "./parts.ts";
import { RunningCall } from "./running-call.ts";
import type { GrpcCall, RequestHead } from "./transport.ts";

/** About how much is taken from a watch at a time, in bytes. */
const WATCH_BATCH_BYTES = 256 * 1024;
/** Renewals that may wait in one stream before no more are read. */
const KEEPALIVE_QUEUE_MAX = 64;

export abstract class StreamingCall extends RunningCall {
  private readonly reader: MessageReader;
  /** What was read from the transport and not yet looked at; defined while the input is paused. */
  private held: { readonly bytes: Uint8Array; readonly at: number; readonly to: number } | undefined;
  private inputOver = false;
  /** A message is being decompressed; what follows it has to wait. */
  private inflating = false;
  private whenWritable: (() => void) | undefined;

  constructor(parts: GrpcParts, method: Method, call: GrpcCall, head: RequestHead, gzip: boolean) {
    super(parts, method, call, head, gzip);
    this.reader = new MessageReader(parts.messageBytesMax, parts.budget);
  }

  /** Begins the work that needs no request. */
  start(): void {
    if (this.over) return;
    try {
      this.begin(true);
      this.opened();
    } catch (error) {
      this.fail(error);
    }
  }

  override data(bytes: Uint8Array, from: number, to: number): void {
    if (!this.inputOver && !this.over) this.consume(bytes, from, to);
  }

  override ended(): void {
    if (this.inputOver || this.over) return;
    this.inputOver = true;
    if (this.reader.position === "in-message") this.broken(rpcError("stream-message-cut-off"));
    else this.inputEnded();
  }

  override drained(): void {
    const resolve = this.whenWritable;
    this.whenWritable = undefined;
    resolve?.();
  }

  override closing(): void {
    this.fail(rpcError("server-stopped"));
  }

  protected abstract opened(): void;
  /** One request of the client. May throw what ends the call. */
  protected abstract request(message: object): void;
  /** No more requests: the client has ended its side. */
  protected abstract inputEnded(): void;
  /** True while no more requests should be read. Whoever makes it false calls {@link readOn}. */
  protected abstract readonly full: boolean;

  protected override release(): void {
    this.reader.close();
    this.held = undefined;
    this.drained();
  }

  /** Reads requests again, after {@link full} was true. */
  protected readOn(): void {
    if (this.held === undefined || this.inflating || this.over) return;
    const { bytes, at, to } = this.held;
    this.held = undefined;
    this.consume(bytes, at, to);
    if (this.held === undefined && !this.over) this.call.resume();
  }

  /** Sends answers, and waits if the client is slow. False if the call is over. */
  protected async sendAll(responses: readonly object[]): Promise<boolean> {
    if (this.over) return false;
    const { response: type } = this.method.descriptor;
    let writable = true;
    if (this.gzip) {
      for (const response of responses) {
        const message = type.encode(response);
        const frame = message.byteLength === 0 ? framed(message, 0) : framed(await compress(message), 1);
        if (this.over) return false;
        this.sent(1, message.byteLength);
        writable = this.call.send(frame, true);
      }
    } else {
      writable = this.parts.send(this.call, type, responses, (bytes) => this.sent(responses.length, bytes));
    }
    if (!writable && !this.over) {
      await new Promise<void>((resolve) => {
        this.whenWritable = resolve;
      });
    }
    return !this.over;
  }

  protected succeeded(): void {
    if (this.end(GrpcCode.OK, undefined)) this.call.finish(GrpcCode.OK, "");
  }

  /** The client has sent something that cannot be read. */
  protected broken(error: unknown): void {
    const api = this.method.kind === "watch" ? "watch" : this.method.kind === "keepalive" ? "lease-keepalive" : undefined;
    if (api !== undefined) this.parts.metrics.streamFailures.series(api, "receive").inc();
    this.inputOver = true;
    this.fail(error);
  }

  private consume(bytes: Uint8Array, from: number, to: number): void {
    const { reader } = this;
    let at = from;
    try {
      while (at < to) {
        const before = reader.missing;
        at = reader.read(bytes, at, to);
        if (!reader.complete) {
          if (before === 0 && reader.missing > 0) this.call.expect(reader.missing);
          return;
        }
        const message = reader.bytes.subarray(reader.from, reader.to);
        if (reader.flag === 0) {
          this.decoded(message);
          if (this.over) return;
        } else if (this.gzip) {
          this.hold(bytes, at, to);
          void this.inflate(message);
          return;
        } else {
          throw rpcError("compressed-without-encoding");
        }
        if (this.full) {
          this.hold(bytes, at, to);
          return;
        }
      }
    } catch (error) {
      this.broken(error);
    }
  }

  private hold(bytes: Uint8Array, at: number, to: number): void {
    this.held = { bytes, at, to };
    this.call.pause();
  }

  private decoded(message: Uint8Array): void {
    let request: object;
    try {
      request = this.method.descriptor.request.decode(message);
    } catch (error) {
      throw EtcdError.is(error) ? undecodableStreamMessage(error) : error;
    }
    this.received(message.byteLength);
    this.request(request);
  }

  private async inflate(message: Uint8Array): Promise<void> {
    this.inflating = true;
    try {
      const inflated = await decompress(message, this.parts.messageBytesMax);
      this.inflating = false;
      if (this.over) return;
      this.decoded(inflated);
      if (!this.full) this.readOn();
    } catch (error) {
      this.broken(error);
    }
  }
}

/** A watch: goes on until the client hangs up, whatever becomes of its requests. */
export class WatchCall extends StreamingCall {
  private session: WatchSession | undefined;

  get incomplete(): boolean {
    return false;
  }

  protected override get full(): boolean {
    return this.session?.congested === true;
  }

  protected override opened(): void {
    this.session = this.parts.services.watch.watch(this);
    void this.pump(this.session);
  }

  protected override request(message: object): void {
    this.session?.send(message as WatchRequest);
  }

  protected override inputEnded(): void {
    // The watchers live on.
  }

  protected override release(): void {
    super.release();
    this.session?.close();
  }

  private async pump(session: WatchSession): Promise<void> {
    try {
      for (;;) {
        const responses = await session.next(WATCH_BATCH_BYTES);
        if (responses === undefined) break;
        if (!(await this.sendAll(responses))) return;
        if (!this.full) this.readOn();
      }
      this.succeeded();
    } catch (error) {
      this.fail(error);
    }
  }
}

/** Renewals, answered one after the other; over when all are answered and no more can come. */
export class KeepAliveCall extends StreamingCall {
  private readonly queue: object[] = [];
  private noMore = false;
  private running = false;

  get incomplete(): boolean {
    return false;
  }

  protected override get full(): boolean {
    return this.queue.length >= KEEPALIVE_QUEUE_MAX;
  }

  protected override opened(): void {
    // The first request starts the work.
  }

  protected override request(message: object): void {
    this.queue.push(message);
    this.run();
  }

  protected override inputEnded(): void {
    this.noMore = true;
    this.run();
  }

  protected override release(): void {
    super.release();
    this.queue.length = 0;
  }

  private run(): void {
    if (this.running) return;
    this.running = true;
    void this.work();
  }

  private async work(): Promise<void> {
    try {
      for (let request = this.queue.shift(); request !== undefined; request = this.queue.shift()) {
        const response = await this.method.unary(request as LeaseKeepAliveRequest, this);
        if (!(await this.sendAll([response]))) return;
        if (!this.full) this.readOn();
      }
      this.running = false;
      if (this.noMore) this.succeeded();
    } catch (error) {
      this.fail(error);
    }
  }
}

/** One request, many answers. The work begins when the client has said that the request was all. */
export class ServerStreamCall extends StreamingCall {
  private message: object | undefined;
  private begun = false;

  get incomplete(): boolean {
    return !this.begun && !this.over;
  }

  protected override get full(): boolean {
    return false;
  }

  protected override opened(): void {
    // Waits for the request.
  }

  protected override request(message: object): void {
    if (this.message !== undefined) throw rpcError("several-requests");
    this.message = message;
  }

  protected override inputEnded(): void {
    if (this.message === undefined) {
      this.fail(rpcError("no-request"));
      return;
    }
    this.begun = true;
    try {
      void this.pump(this.method.serverStream(this.message, this));
    } catch (error) {
      this.fail(error);
    }
    this.message = undefined;
  }

  private async pump(responses: AsyncIterable<object>): Promise<void> {
    try {
      for await (const response of responses) if (!(await this.sendAll([response]))) return;
      this.succeeded();
    } catch (error) {
      this.fail(error);
    }
  }
}
