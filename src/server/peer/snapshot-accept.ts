import { createHash } from "node:crypto";
import { equalBytes } from "../../base/bytes.ts";
import type { Timer } from "../../base/clock.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { MemberId } from "../../base/ids.ts";
import { PeerFrameError, PeerUnavailableError } from "./errors.ts";
import { FRAME_HEADER_BYTES, FrameKind, numberFrame, sealFrame, smallFrame } from "./frame.ts";
import type { FramedSocket } from "./framed-socket.ts";
import { decodeSnapshotOffer, encodeError } from "./message-codec.ts";
import { keepAlive } from "./snapshot-send.ts";
import type { PeerHandlers, SnapshotInfo } from "./transport.ts";
import type { TransportContext } from "./transport-context.ts";

/** Received bytes that the handler has not taken yet; above, the socket is paused. */
const BACKLOG_BYTES_MAX = 2 * 1024 * 1024;
/** Within this time any speed is accepted. */
const SLOW_START_MS = 60_000;

/** A snapshot larger than this member takes. */
export class SnapshotTooLargeError extends EtcdError {
  constructor(sizeBytes: number, limitBytes: number) {
    super("snapshot-too-large", GrpcCode.ResourceExhausted, `snapshot of ${sizeBytes} bytes refused: the limit is ${limitBytes}`);
    this.name = "SnapshotTooLargeError";
  }
}

/** The receiving end of one snapshot connection: see snapshot-send.ts for the conversation. */
export class SnapshotAcceptor {
  readonly from: MemberId;
  readonly #context: TransportContext;
  readonly #handlers: PeerHandlers;
  readonly #connection: FramedSocket;
  readonly #ready: () => Promise<void>;
  #info: SnapshotInfo | undefined;
  /** Bytes of the snapshot received so far, those held before included. */
  #position = 0;
  #receivedBytes = 0;
  #startedMs = 0;
  readonly #hash = createHash("sha256");
  #backlog: Uint8Array[] = [];
  #backlogBytes = 0;
  #paused = false;
  #complete = false;
  #failed: Error | undefined;
  #wake: () => void = () => undefined;
  #stopTicking: () => void;
  #offerTimer: Timer;
  /** The sender was told where to begin. */
  #accepting = false;
  /** Settles when the handler is through; never rejects. */
  finished: Promise<void> = Promise.resolve();

  /** `ready` is awaited before the handlers are asked: the owner ends an older connection of the same sender there. */
  constructor(context: TransportContext, handlers: PeerHandlers, from: MemberId, connection: FramedSocket, ready: () => Promise<void>) {
    this.from = from;
    this.#context = context;
    this.#handlers = handlers;
    this.#connection = connection;
    this.#ready = ready;
    this.#startedMs = context.clock.monotonicMs();
    this.#stopTicking = keepAlive(context, connection, { listening: () => !this.#paused, onTick: () => this.#demandSpeed() });
    this.#offerTimer = context.clock.timer(context.limits.readDeadlineMs, () => connection.destroy(new Error("no snapshot offer came")));
  }

  /** May throw: the connection then ends. */
  receive(kind: number, content: Uint8Array): void {
    this.#context.observer.received?.(this.from, FRAME_HEADER_BYTES + content.byteLength, 0);
    switch (kind) {
      case FrameKind.alive:
        return;
      case FrameKind.snapshotOffer:
        this.#offer(content);
        return;
      case FrameKind.snapshotChunk:
        this.#chunk(content);
        return;
      case FrameKind.snapshotEnd:
        if (this.#info === undefined || !this.#accepting || this.#complete || this.#position !== this.#info.sizeBytes)
          throw new PeerFrameError("snapshot cut short");
        if (!equalBytes(content, this.#hash.digest())) throw new PeerFrameError("snapshot digest mismatch");
        this.#complete = true;
        this.#wake();
        return;
      default:
        throw new PeerFrameError(`unexpected kind ${kind}`);
    }
  }

  /** The connection is over. */
  ended(reason: Error | undefined): void {
    this.#stopTicking();
    this.#offerTimer.cancel();
    if (!this.#complete) this.#failed ??= reason ?? new PeerUnavailableError(this.from, "the snapshot stream broke off");
    this.#wake();
  }

  destroy(reason: Error): void {
    this.#connection.destroy(reason);
  }

  #offer(content: Uint8Array): void {
    if (this.#info !== undefined) throw new PeerFrameError("second snapshot offer");
    const { info, message } = decodeSnapshotOffer(content);
    if (message.from !== this.from || message.to !== this.#context.identity.memberId)
      throw new PeerFrameError("snapshot of another sender or for another member");
    this.#info = info;
    this.#offerTimer.cancel();
    const { observer, limits, clock } = this.#context;
    const run = async (): Promise<void> => {
      const startedMs = clock.monotonicMs();
      observer.snapshotReceive?.(this.from, { type: "started" });
      try {
        if (info.sizeBytes > limits.snapshotBytesMax) throw new SnapshotTooLargeError(info.sizeBytes, limits.snapshotBytesMax);
        await this.#ready();
        const held = await this.#handlers.snapshotBytesHeld(info);
        if (!Number.isSafeInteger(held) || held < 0 || held > info.sizeBytes) throw new RangeError("bytes held out of range");
        if (this.#failed !== undefined) throw this.#failed;
        this.#position = held;
        this.#startedMs = clock.monotonicMs();
        this.#accepting = true;
        this.#connection.write(numberFrame(FrameKind.snapshotFrom, held));
        await this.#handlers.onSnapshot(message, this.#chunks(), info);
        this.#connection.write(smallFrame(FrameKind.snapshotDone, new Uint8Array(0)));
        observer.snapshotReceive?.(this.from, { type: "succeeded", ms: clock.monotonicMs() - startedMs, bytes: info.sizeBytes });
      } catch (error) {
        observer.snapshotReceive?.(this.from, { type: "failed", ms: clock.monotonicMs() - startedMs });
        this.#context.logger.warn({ error: String(error), "snapshot-id": info.id }, "receiving a snapshot failed");
        // After a broken connection this goes nowhere, and the sender comes again.
        this.#connection.write(sealFrame(encodeError(0, error, FRAME_HEADER_BYTES), FrameKind.failure));
      }
      this.#stopTicking();
      this.#connection.end();
    };
    this.finished = run();
  }

  #chunk(content: Uint8Array): void {
    const info = this.#info;
    if (info === undefined || !this.#accepting || this.#complete) throw new PeerFrameError("chunk out of place");
    this.#position += content.byteLength;
    this.#receivedBytes += content.byteLength;
    if (this.#position > info.sizeBytes) throw new PeerFrameError("snapshot longer than announced");
    this.#hash.update(content);
    this.#backlog.push(content);
    this.#backlogBytes += content.byteLength;
    if (this.#backlogBytes > BACKLOG_BYTES_MAX && !this.#paused) {
      this.#paused = true;
      this.#connection.pause();
    }
    this.#wake();
  }

  /** A peer that drips must not occupy the place for ever. */
  #demandSpeed(): void {
    if (!this.#accepting || this.#complete) return;
    const { clock, limits } = this.#context;
    const elapsedMs = clock.monotonicMs() - this.#startedMs;
    if (elapsedMs <= SLOW_START_MS || (this.#receivedBytes / elapsedMs) * 1000 >= limits.snapshotBytesPerSecondMin) return;
    this.#connection.destroy(new Error("the snapshot arrives too slowly"));
  }

  async *#chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    for (;;) {
      const next = this.#backlog.shift();
      if (next !== undefined) {
        this.#backlogBytes -= next.byteLength;
        if (this.#paused && this.#backlogBytes * 2 <= BACKLOG_BYTES_MAX) {
          this.#paused = false;
          this.#connection.resume();
        }
        yield next;
        continue;
      }
      if (this.#complete) return;
      if (this.#failed !== undefined) throw this.#failed;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
