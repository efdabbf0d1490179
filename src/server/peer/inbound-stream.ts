import { RpcError } from "../../api/rpc-errors.ts";
import { allocateBytes } from "../../base/bytes.ts";
import type { Timer } from "../../base/clock.ts";
import { hexId, type MemberId } from "../../base/ids.ts";
import type { Message } from "../../raft/index.ts";
import { PeerFrameError, PeerTransportClosedError } from "./errors.ts";
import { FRAME_HEADER_BYTES, FrameKind, numberContent, numberFrame, sealFrame, smallFrame } from "./frame.ts";
import type { FramedSocket } from "./framed-socket.ts";
import { decodeMessages, decodeRequest, encodeError } from "./message-codec.ts";
import type { PeerHandlers } from "./transport.ts";
import type { TransportContext } from "./transport-context.ts";

/** Requests of one peer that run here at the same time. */
const REQUESTS_MAX = 1024;
/** Answers that a peer has not taken; more and the connection ends. */
const ANSWER_BACKLOG_BYTES_MAX = 64 * 1024 * 1024;

/** The accepting end of a peer's connection: its raft messages and requests come in here. */
export class InboundStream {
  readonly from: MemberId;
  readonly #context: TransportContext;
  readonly #handlers: PeerHandlers;
  readonly #connection: FramedSocket;
  readonly #requests = new Map<number, AbortController>();
  readonly #running: Set<Promise<void>>;
  #tickTimer: Timer | undefined;
  #lastTickMs: number;

  /** `running` collects the requests' handlers, so that a closing transport can wait for them. */
  constructor(context: TransportContext, handlers: PeerHandlers, from: MemberId, connection: FramedSocket, running: Set<Promise<void>>) {
    this.from = from;
    this.#context = context;
    this.#handlers = handlers;
    this.#connection = connection;
    this.#running = running;
    this.#lastTickMs = context.clock.monotonicMs();
    this.#tickTimer = context.clock.timer(context.limits.keepaliveMs, () => this.#tick());
  }

  /** May throw: the connection then ends. */
  receive(kind: number, content: Uint8Array): void {
    const { observer } = this.#context;
    const bytes = FRAME_HEADER_BYTES + content.byteLength;
    switch (kind) {
      case FrameKind.messages: {
        // Not inside the call: without an observer its arguments are not evaluated.
        const count = this.#messages(content);
        observer.received?.(this.from, bytes, count);
        return;
      }
      case FrameKind.ping:
        observer.received?.(this.from, bytes, 0);
        if (content.byteLength !== 8) throw new PeerFrameError("ping of another size");
        this.#answer(smallFrame(FrameKind.pong, content));
        return;
      case FrameKind.request:
        observer.received?.(this.from, bytes, 0);
        this.#request(content);
        return;
      case FrameKind.cancel:
        this.#requests.get(numberContent(content, { counter: true }))?.abort(new RpcError("canceled"));
        return;
      case FrameKind.alive:
        return;
      default:
        throw new PeerFrameError(`unexpected kind ${kind}`);
    }
  }

  /** The connection is over. */
  ended(): void {
    this.#tickTimer?.cancel();
    for (const controller of this.#requests.values()) controller.abort(new PeerTransportClosedError());
    this.#requests.clear();
  }

  destroy(reason: Error): void {
    this.#connection.destroy(reason);
  }

  /** All messages are decoded before the first one is handed out. Returns how many there were. */
  #messages(content: Uint8Array): number {
    const messages = decodeMessages(content);
    // Removed meanwhile: it learns so when it dials again.
    if (this.#handlers.isRemoved(this.from)) throw new Error("the sender was removed");
    const self = this.#context.identity.memberId;
    for (const message of messages) {
      // The peer's URL may belong to a replaced member now, or somebody forges (failure catalogue BM10, I14).
      if (message.from !== this.from || message.to !== self) {
        this.#context.observer.receiveFailed?.(this.from);
        continue;
      }
      if (!this.#connection.open) break;
      this.#deliver(message);
    }
    return messages.length;
  }

  #deliver(message: Message): void {
    try {
      this.#handlers.onMessage(message);
    } catch (error) {
      // Not the peer's fault. The owner stops if it has to; here only this connection ends.
      this.#context.logger.error(
        { "remote-peer-id": hexId(this.from), type: message.type, error: String(error) },
        "failed to process raft message",
      );
      throw error;
    }
  }

  #request(content: Uint8Array): void {
    const { sequence, kind, body } = decodeRequest(content);
    if (this.#requests.has(sequence)) throw new PeerFrameError("request sequence in use");
    if (kind === undefined) {
      this.#fail(sequence, new RpcError("unknown-method"));
      return;
    }
    if (body.byteLength > this.#context.limits.requestBytesMax) {
      this.#fail(sequence, new RpcError("request-too-large"));
      return;
    }
    if (this.#requests.size >= REQUESTS_MAX) {
      this.#fail(sequence, new RpcError("too-many-requests"));
      return;
    }
    const controller = new AbortController();
    this.#requests.set(sequence, controller);
    const run = async (): Promise<void> => {
      try {
        const answer = await this.#handlers.onRequest(this.from, kind, body, { signal: controller.signal });
        if (controller.signal.aborted) return;
        const frame = allocateBytes(FRAME_HEADER_BYTES + 8 + answer.byteLength);
        new DataView(frame.buffer, frame.byteOffset + FRAME_HEADER_BYTES, 8).setFloat64(0, sequence);
        frame.set(answer, FRAME_HEADER_BYTES + 8);
        if (frame.byteLength > this.#context.limits.frameBytesMax) throw new RpcError("request-too-large");
        this.#answer(sealFrame(frame, FrameKind.response));
      } catch (error) {
        if (!controller.signal.aborted) this.#fail(sequence, error);
      } finally {
        this.#requests.delete(sequence);
      }
    };
    const task = run();
    this.#running.add(task);
    void task.finally(() => this.#running.delete(task));
  }

  #fail(sequence: number, error: unknown): void {
    this.#context.logger.debug({ "remote-peer-id": hexId(this.from), error: String(error) }, "request of remote peer failed");
    this.#answer(sealFrame(encodeError(sequence, error, FRAME_HEADER_BYTES), FrameKind.failure));
  }

  #answer(frame: Uint8Array): void {
    if (this.#connection.bufferedBytes > ANSWER_BACKLOG_BYTES_MAX) {
      this.#connection.destroy(new Error("the peer does not take its answers"));
      return;
    }
    this.#connection.write(frame);
    this.#context.observer.sent?.(this.from, frame.byteLength, 0);
  }

  #tick(): void {
    const { clock, limits } = this.#context;
    const now = clock.monotonicMs();
    const stalled = now - this.#lastTickMs > 2 * limits.keepaliveMs;
    this.#lastTickMs = now;
    if (!stalled && now - this.#connection.lastReceivedMs > limits.readDeadlineMs) {
      this.#connection.destroy(new Error(`nothing received for ${limits.readDeadlineMs} ms`));
      return;
    }
    this.#connection.write(numberFrame(FrameKind.alive, 0));
    this.#tickTimer = clock.timer(limits.keepaliveMs, () => this.#tick());
  }
}
