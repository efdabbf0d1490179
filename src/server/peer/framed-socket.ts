import type { Socket } from "node:net";
import type { Clock } from "../../base/clock.ts";
import { FrameDecoder } from "./frame.ts";

/** Longest wait for a peer to take the last bytes. */
const LINGER_MS = 2000;

export interface FramedSocketHandlers {
  /** What it throws ends the connection with that reason; nothing escapes into the event loop. */
  onFrame(kind: number, content: Uint8Array): void;
  /** Once, when the connection is over, whoever ended it. `reason` is undefined for an orderly end by the other side. */
  onClose(reason: Error | undefined): void;
}

/** A connection after its upgrade: frames in, bytes out, one end. */
export class FramedSocket {
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #handlers: FramedSocketHandlers;
  readonly #decoder: FrameDecoder;
  #open = true;
  /** Monotonic ms of the last bytes received. */
  lastReceivedMs: number;
  bytesReceived = 0;

  /** `head` are bytes that came together with the upgrade; they are decoded in a later turn, when the owner is ready. */
  constructor(socket: Socket, head: Uint8Array, options: { clock: Clock; frameBytesMax: number; handlers: FramedSocketHandlers }) {
    this.#socket = socket;
    this.#clock = options.clock;
    this.#handlers = options.handlers;
    this.#decoder = new FrameDecoder(options.frameBytesMax, (kind, content) => {
      this.#handlers.onFrame(kind, content);
      return this.#open;
    });
    this.lastReceivedMs = options.clock.monotonicMs();
    // The HTTP layer's idle timer must not end a connection that has its own.
    socket.setTimeout(0);
    socket.setNoDelay(true);
    // Before the first listener, so that it is not handed out from in here.
    if (head.byteLength > 0) socket.unshift(head);
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("end", () => {
      this.#finish(undefined);
      // After an orderly `end` of ours the other side's end completes it.
      socket.destroy();
    });
    socket.on("error", (error) => this.#finish(error));
    socket.on("close", () => this.#finish(undefined));
  }

  get open(): boolean {
    return this.#open;
  }

  /** Bytes handed to `write` and not yet taken by the kernel. */
  get bufferedBytes(): number {
    return this.#socket.writableLength;
  }

  /** `onFlushed` is called when the kernel has taken the bytes; never after the end of the connection. */
  write(bytes: Uint8Array, onFlushed?: () => void): void {
    if (!this.#open) return;
    if (onFlushed === undefined) this.#socket.write(bytes);
    else {
      this.#socket.write(bytes, (error) => {
        if ((error === undefined || error === null) && this.#open) onFlushed();
      });
    }
  }

  /** Two pieces that belong together, in one system call where possible. */
  writePair(first: Uint8Array, second: Uint8Array, onFlushed: () => void): void {
    if (!this.#open) return;
    this.#socket.cork();
    this.write(first);
    this.write(second, onFlushed);
    this.#socket.uncork();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Ends at once, what is buffered is lost. A no-op after the end. */
  destroy(reason?: Error): void {
    this.#finish(reason);
  }

  /** Ends after what is buffered has been sent; nothing is received any more. */
  end(): void {
    if (!this.#open) return;
    this.#open = false;
    const socket = this.#socket;
    // A peer that does not read must not keep the socket.
    const linger = this.#clock.timer(LINGER_MS, () => socket.destroy());
    socket.once("close", () => linger.cancel());
    // Closing with unread bytes would reset the connection, and the peer could lose what was written last: read on and drop.
    socket.end();
    socket.resume();
    this.#handlers.onClose(undefined);
  }

  #receive(chunk: Buffer): void {
    if (!this.#open) return;
    this.lastReceivedMs = this.#clock.monotonicMs();
    this.bytesReceived += chunk.byteLength;
    try {
      this.#decoder.push(chunk);
    } catch (error) {
      this.#finish(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #finish(reason: Error | undefined): void {
    if (!this.#open) return;
    this.#open = false;
    this.#socket.destroy();
    this.#handlers.onClose(reason);
  }
}
