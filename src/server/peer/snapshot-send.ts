/**
 * Streams a state snapshot to one member over a connection of its own:
 *
 *   sender                                receiver
 *   offer (id, size, raft message)  --->
 *                                   <---  from (bytes it already holds)
 *   chunk, chunk, ...               --->
 *   end (SHA-256 of these chunks)   --->
 *                                   <---  done (stored and handed to raft), or failure
 *
 * Both sides send signs of life meanwhile. A broken connection is dialled again and goes on where the receiver is; a failure that the
 * receiver pronounces is final.
 */
import { createHash } from "node:crypto";
import type { MemberId } from "../../base/ids.ts";
import type { SnapshotRequest } from "../../raft/index.ts";
import { type DialledConnection, dial } from "./dial.ts";
import { PeerFrameError, PeerUnavailableError } from "./errors.ts";
import { FRAME_HEADER_BYTES, FrameKind, frameHeader, numberContent, numberFrame, sealFrame, smallFrame } from "./frame.ts";
import { FramedSocket } from "./framed-socket.ts";
import { dialHeaders, SNAPSHOT_PATH, SNAPSHOT_PROTOCOL } from "./handshake.ts";
import { decodeError, encodeSnapshotOffer } from "./message-codec.ts";
import type { SnapshotSource } from "./transport.ts";
import type { TransportContext } from "./transport-context.ts";

const CHUNK_BYTES_MAX = 256 * 1024;
const SOCKET_BUFFER_BYTES_MAX = 1024 * 1024;

export interface SnapshotSendTarget {
  readonly peer: MemberId;
  /** Asked anew for every attempt: the member may move. */
  urls(): readonly string[];
}

/** How one connection ended. */
type Outcome =
  | { readonly type: "done" }
  /** Another attempt would end the same way. */
  | { readonly type: "final"; readonly error: unknown }
  | { readonly type: "broken"; readonly error: unknown };

/**
 * Resolves when the receiver has stored the snapshot and handed the message to raft. Rejects with the receiver's EtcdError, with
 * PeerUnavailableError after too many attempts without progress, or with the signal's reason. Does not close `source`.
 */
export async function sendSnapshot(
  context: TransportContext,
  target: SnapshotSendTarget,
  message: SnapshotRequest,
  source: SnapshotSource,
  signal: AbortSignal,
): Promise<void> {
  const { limits, random, logger } = context;
  let failures = 0;
  let furthestBytes = 0;
  let backoffMs = limits.reconnectMinMs;
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    const urls = target.urls();
    const url = urls[attempt % Math.max(urls.length, 1)];
    if (url === undefined) throw new PeerUnavailableError(target.peer, "it has no URL");
    const connection = new SnapshotSendConnection(context, target.peer, message, source, signal);
    const outcome = await connection.run(url);
    if (outcome.type === "done") return;
    signal.throwIfAborted();
    if (outcome.type === "final") throw outcome.error;
    logger.warn(
      { error: String(outcome.error), "held-bytes": connection.heldBytes, "size-bytes": source.info.sizeBytes },
      "sending a snapshot was interrupted",
    );
    if (connection.heldBytes > furthestBytes) {
      furthestBytes = connection.heldBytes;
      failures = 0;
      backoffMs = limits.reconnectMinMs;
    }
    if (++failures >= limits.snapshotAttemptsMax) {
      throw new PeerUnavailableError(target.peer, "the snapshot could not be sent", { cause: outcome.error });
    }
    const half = Math.ceil(backoffMs / 2);
    await pause(context, half + random.below(half + 1), signal);
    backoffMs = Math.min(backoffMs * 2, limits.reconnectMaxMs);
  }
}

/** Resolves early when aborted; the caller looks at the signal. */
function pause(context: TransportContext, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      timer.cancel();
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = context.clock.timer(ms, done);
    signal.addEventListener("abort", done);
  });
}

class SnapshotSendConnection {
  /** What the receiver said that it holds at the start of this connection. */
  heldBytes = 0;
  readonly #context: TransportContext;
  readonly #peer: MemberId;
  readonly #message: SnapshotRequest;
  readonly #source: SnapshotSource;
  readonly #signal: AbortSignal;
  #from: number | undefined;
  #outcome: Outcome | undefined;
  /** Wakes `run` after any change. */
  #wake: () => void = () => undefined;

  constructor(context: TransportContext, peer: MemberId, message: SnapshotRequest, source: SnapshotSource, signal: AbortSignal) {
    this.#context = context;
    this.#peer = peer;
    this.#message = message;
    this.#source = source;
    this.#signal = signal;
  }

  async run(url: string): Promise<Outcome> {
    const { clock, limits, identity, advertisedPeerUrls, tlsClient } = this.#context;
    let dialled: DialledConnection;
    try {
      dialled = await dial({
        url,
        path: SNAPSHOT_PATH,
        protocol: SNAPSHOT_PROTOCOL,
        headers: dialHeaders(identity, this.#peer, advertisedPeerUrls, SNAPSHOT_PROTOCOL),
        timeoutMs: limits.dialTimeoutMs,
        clock,
        signal: this.#signal,
        tls: tlsClient,
      });
    } catch (error) {
      return { type: "broken", error };
    }
    this.#context.track(dialled.socket);
    const socket = new FramedSocket(dialled.socket, dialled.head, {
      clock,
      frameBytesMax: limits.frameBytesMax,
      handlers: {
        onFrame: (kind, content) => this.#receive(kind, content),
        onClose: (reason) => this.#settle({ type: "broken", error: reason ?? new Error("closed by the receiver") }),
      },
    });
    const onAbort = (): void => socket.destroy(new Error("aborted"));
    this.#signal.addEventListener("abort", onAbort);
    if (this.#signal.aborted) onAbort();
    const stopTicking = keepAlive(this.#context, socket);
    try {
      return await this.#talk(socket);
    } finally {
      stopTicking();
      this.#signal.removeEventListener("abort", onAbort);
      socket.destroy();
    }
  }

  async #talk(socket: FramedSocket): Promise<Outcome> {
    const { info } = this.#source;
    socket.write(sealFrame(encodeSnapshotOffer(info, this.#message, FRAME_HEADER_BYTES), FrameKind.snapshotOffer));
    while (this.#outcome === undefined && this.#from === undefined) await this.#changed();
    if (this.#outcome !== undefined) return this.#outcome;
    const from = this.#from ?? 0;
    const hash = createHash("sha256");
    let sentBytes = from;
    try {
      for await (const piece of this.#source.read(from)) {
        sentBytes += piece.byteLength;
        if (sentBytes > info.sizeBytes) throw new Error("the snapshot source is longer than it said");
        for (let at = 0; at < piece.byteLength; at += CHUNK_BYTES_MAX) {
          const chunk = piece.subarray(at, at + CHUNK_BYTES_MAX);
          hash.update(chunk);
          socket.writePair(frameHeader(FrameKind.snapshotChunk, chunk), chunk, this.#changedNow);
          this.#context.observer.sent?.(this.#peer, FRAME_HEADER_BYTES + chunk.byteLength, 0);
          while (this.#outcome === undefined && socket.bufferedBytes > SOCKET_BUFFER_BYTES_MAX) await this.#changed();
          if (this.#outcome !== undefined) return this.#outcome;
        }
      }
      if (sentBytes !== info.sizeBytes) throw new Error("the snapshot source is shorter than it said");
    } catch (error) {
      return { type: "final", error };
    }
    socket.write(smallFrame(FrameKind.snapshotEnd, hash.digest()));
    while (this.#outcome === undefined) await this.#changed();
    return this.#outcome;
  }

  /** Bound once: passed with every chunk. */
  readonly #changedNow = (): void => this.#wake();

  #changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #receive(kind: number, content: Uint8Array): void {
    switch (kind) {
      case FrameKind.alive:
        return;
      case FrameKind.snapshotFrom: {
        const from = numberContent(content, { counter: true });
        if (this.#from !== undefined || from > this.#source.info.sizeBytes) throw new PeerFrameError("snapshot offset out of range");
        this.#from = from;
        this.heldBytes = from;
        this.#wake();
        return;
      }
      case FrameKind.snapshotDone:
        // Possibly before the end: the receiver may find that it needs no more.
        this.#settle({ type: "done" });
        return;
      case FrameKind.failure:
        this.#settle({ type: "final", error: decodeError(content).error });
        return;
      default:
        throw new PeerFrameError(`unexpected kind ${kind}`);
    }
  }

  #settle(outcome: Outcome): void {
    this.#outcome ??= outcome;
    this.#wake();
  }
}

/**
 * Sends a sign of life every third of the silence limit and ends the connection when the other side is silent for longer than it, not counting
 * the time when this side does not listen. Returns what stops it; to be called when the connection is over.
 */
export function keepAlive(
  context: TransportContext,
  socket: FramedSocket,
  options: { listening?: () => boolean; onTick?: () => void } = {},
): () => void {
  const { clock, limits } = context;
  const periodMs = limits.snapshotSilenceMs / 3;
  let lastTickMs = clock.monotonicMs();
  let heardMs = lastTickMs;
  const tick = (): void => {
    const now = clock.monotonicMs();
    const stalled = now - lastTickMs > 2 * periodMs;
    lastTickMs = now;
    heardMs = Math.max(heardMs, socket.lastReceivedMs);
    if (stalled || options.listening?.() === false) heardMs = now;
    if (now - heardMs > limits.snapshotSilenceMs) {
      socket.destroy(new Error(`nothing received for ${limits.snapshotSilenceMs} ms`));
      return;
    }
    options.onTick?.();
    socket.write(numberFrame(FrameKind.alive, 0));
    if (socket.open) timer = clock.timer(periodMs, tick);
  };
  let timer = clock.timer(periodMs, tick);
  return () => timer.cancel();
}
