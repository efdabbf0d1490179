/** What all calls of one gRPC server share. */
import { answerTooLarge, type MessageType, Writer } from "../../api/index.ts";
import type { Clock } from "../../base/clock.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { Logger } from "../../base/logger.ts";
import type { ServerMetrics } from "../metrics.ts";
import type { Services } from "../services/services.contract.ts";
import { DeadlineWheel } from "./deadline-wheel.ts";
import type { GrpcCall, ReceiveBudget } from "./transport.ts";

/** Largest message that is sent. */
const ANSWER_BYTES_MAX = 2_147_483_647;
/** Messages from this length on leave in the memory they were written to. */
const DETACH_BYTES = 32_768;

export class GrpcParts {
  readonly services: Services;
  readonly metrics: ServerMetrics;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Largest message that is received. */
  readonly messageBytesMax: number;
  readonly budget: ReceiveBudget;
  readonly deadlines: DeadlineWheel;
  readonly #onBug: (error: unknown) => void;
  /** Every answer is written here first, then copied to where its connection collects what it sends. */
  readonly #writer = new Writer(65_536);

  constructor(options: {
    services: Services;
    metrics: ServerMetrics;
    clock: Clock;
    logger: Logger;
    messageBytesMax: number;
    budget: ReceiveBudget;
    onBug: (error: unknown) => void;
  }) {
    this.services = options.services;
    this.metrics = options.metrics;
    this.clock = options.clock;
    this.logger = options.logger;
    this.messageBytesMax = options.messageBytesMax;
    this.budget = options.budget;
    this.deadlines = new DeadlineWheel(options.clock);
    this.#onBug = options.onBug;
  }

  /** What a client may be told about `error`. Anything but an EtcdError is a bug: it is reported, and its text stays here. */
  asEtcdError(error: unknown): EtcdError {
    if (EtcdError.is(error)) return error;
    this.logger.error({ error: String(error), stack: error instanceof Error ? error.stack : undefined }, "unexpected error in a gRPC call");
    this.#onBug(error);
    return new EtcdError("internal", GrpcCode.Internal, "internal error", { cause: error });
  }

  /**
   * Sends the whole answer of a unary call; returns the length of the message.
   * @throws TransportError when the message is too large.
   */
  respond(call: GrpcCall, type: MessageType<object>, message: object): number {
    const writer = this.#writer;
    writer.reset();
    const length = this.#write(type, message);
    if (length > DETACH_BYTES) call.respond(writer.detach(), true);
    else call.respond(writer.view(), false);
    return length;
  }

  /** Sends messages of a stream, in order, in one piece; returns what {@link GrpcCall.send} does. `sentBytes` gets their length added. */
  send(call: GrpcCall, type: MessageType<object>, messages: readonly object[], sent: (bytes: number) => void): boolean {
    const writer = this.#writer;
    writer.reset();
    let bytes = 0;
    // The writer fills its memory from the back.
    for (let i = messages.length - 1; i >= 0; i--) bytes += this.#write(type, messages[i] as object);
    sent(bytes);
    return writer.length > DETACH_BYTES ? call.send(writer.detach(), true) : call.send(writer.view(), false);
  }

  #write(type: MessageType<object>, message: object): number {
    const writer = this.#writer;
    const mark = writer.length;
    type.encodeTo(writer, message);
    const length = writer.length - mark;
    if (length > ANSWER_BYTES_MAX) throw answerTooLarge(length, ANSWER_BYTES_MAX);
    writer.uint32(length);
    writer.byte(0);
    return length;
  }
}
