/** A unary call: one message in, one out. The hot path, so it avoids everything that can be avoided. */
import { rpcError, undecodableRequest } from "../../api/index.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import { compress, decompress } from "./compression.ts";
import { framed, lengthIn, MessageReader, PREFIX_BYTES } from "./message-reader.ts";
import { RunningCall } from "./running-call.ts";

export class UnaryCall extends RunningCall {
  /** Only for a message that comes in pieces. */
  private reader: MessageReader | undefined;
  /** The message is complete; what else comes is ignored. */
  private complete = false;

  get incomplete(): boolean {
    return !this.complete && !this.over;
  }

  override data(bytes: Uint8Array, from: number, to: number): void {
    if (this.complete || this.over) return;
    if (this.reader === undefined && to - from >= PREFIX_BYTES && bytes[from] === 0) {
      const length = lengthIn(bytes, from);
      const begin = from + PREFIX_BYTES;
      if (length <= to - begin && length <= this.parts.messageBytesMax) {
        this.complete = true;
        this.run(bytes.subarray(begin, begin + length));
        return;
      }
    }
    this.readOn(bytes, from, to);
  }

  override ended(): void {
    if (this.complete || this.over) return;
    this.fail(rpcError(this.reader?.position === "in-message" ? "message-cut-off" : "no-message"));
  }

  override drained(): void {
    // There is nothing to send but the one answer.
  }

  override closing(): void {
    // Its answer is on its way.
  }

  protected override release(): void {
    this.reader?.close();
    this.reader = undefined;
  }

  private readOn(bytes: Uint8Array, from: number, to: number): void {
    try {
      const first = this.reader === undefined || this.reader.missing === 0;
      this.reader ??= new MessageReader(this.parts.messageBytesMax, this.parts.budget);
      const { reader } = this;
      reader.read(bytes, from, to);
      if (!reader.complete) {
        if (first && reader.missing > 0) this.call.expect(reader.missing);
        return;
      }
      this.complete = true;
      const message = reader.bytes.subarray(reader.from, reader.to);
      if (reader.flag === 0) this.run(message);
      else if (this.gzip) void this.inflateAndRun(message);
      else this.fail(rpcError("compressed-without-encoding"));
    } catch (error) {
      this.fail(error);
    }
  }

  private async inflateAndRun(message: Uint8Array): Promise<void> {
    try {
      const inflated = await decompress(message, this.parts.messageBytesMax);
      if (!this.over) this.run(inflated);
    } catch (error) {
      this.fail(error);
    }
  }

  private run(message: Uint8Array): void {
    const { method } = this;
    if (this.wheelSlot >= 0 && this.deadlineMs <= this.parts.clock.monotonicMs()) {
      this.deadlinePassed();
      return;
    }
    let request: object;
    try {
      request = method.descriptor.request.decode(message);
    } catch (error) {
      this.fail(EtcdError.is(error) ? undecodableRequest(error) : error);
      return;
    }
    try {
      this.begin(false);
      this.received(message.byteLength);
      method.unary(request, this).then(this.succeed, this.reject);
    } catch (error) {
      this.fail(error);
    }
  }

  private readonly succeed = (response: object): void => {
    if (this.over) return;
    try {
      if (this.gzip) {
        void this.respondCompressed(response);
        return;
      }
      const bytes = this.parts.respond(this.call, this.method.descriptor.response, response);
      this.sent(1, bytes);
    } catch (error) {
      this.fail(error);
      return;
    }
    this.end(GrpcCode.OK, undefined);
  };

  private readonly reject = (error: unknown): void => {
    this.fail(error);
  };

  private async respondCompressed(response: object): Promise<void> {
    try {
      const message = this.method.descriptor.response.encode(response);
      const frame = message.byteLength === 0 ? framed(message, 0) : framed(await compress(message), 1);
      if (this.over) return;
      this.sent(1, message.byteLength);
      this.call.respond(frame, true);
      this.end(GrpcCode.OK, undefined);
    } catch (error) {
      this.fail(error);
    }
  }
}
