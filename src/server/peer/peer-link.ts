/**
 * The way to one other member: a persistent connection that this member dials, the bounded queue of raft messages for it, and the requests
 * that wait for its answers. Data flows from here to there; back come only answers, pongs and signs of life.
 */

import { RpcError } from "../../api/rpc-errors.ts";
import type { Timer } from "../../base/clock.ts";
import { hexId, type MemberId } from "../../base/ids.ts";
import type { Logger } from "../../base/logger.ts";
import type { Message } from "../../raft/index.ts";
import { dial } from "./dial.ts";
import { PeerFrameError, PeerRefusedError, PeerTransportClosedError, PeerUnavailableError } from "./errors.ts";
import { FRAME_HEADER_BYTES, FrameKind, numberContent, numberFrame, sealFrame } from "./frame.ts";
import { FramedSocket } from "./framed-socket.ts";
import { dialHeaders, RAFT_PATH, RAFT_PROTOCOL } from "./handshake.ts";
import { decodeError, encodeMessages, encodeRequest, messageBytesMax } from "./message-codec.ts";
import { MessageQueue } from "./message-queue.ts";
import type { PeerRequestKind } from "./transport.ts";
import type { TransportContext } from "./transport-context.ts";

/** Encoded bytes per frame of messages, and bytes that may wait in a socket before more are encoded. */
const FRAME_TARGET_BYTES = 1024 * 1024;
const SOCKET_BUFFER_BYTES_MAX = 1024 * 1024;
/** Requests to one peer that wait for their answers. */
const REQUESTS_MAX = 1024;
/** Bytes that may wait in the socket when another request is written. */
const REQUEST_BACKLOG_BYTES_MAX = 16 * 1024 * 1024;
const WARN_INTERVAL_MS = 5000;

type LinkState =
  /** Nothing to send yet (only for senders which are not members), or closed. */
  | "idle"
  | "dialling"
  | "connected"
  /** Between two attempts. */
  | "waiting";

interface PendingRequest {
  /** Until it is written; undefined afterwards. */
  frame: Uint8Array | undefined;
  resolve(body: Uint8Array): void;
  reject(error: unknown): void;
}

export class PeerLink {
  readonly id: MemberId;
  readonly #context: TransportContext;
  readonly #logger: Logger;
  readonly #queue: MessageQueue;
  #urls: readonly string[];
  /** Index into `#urls` of the next attempt. */
  #urlAt = 0;
  #connectedUrl: string | undefined;
  #state: LinkState = "idle";
  #closed = false;
  #connection: FramedSocket | undefined;
  /** Aborts the attempt under way. */
  #attempt: AbortController | undefined;
  #retryTimer: Timer | undefined;
  #backoffMs: number;
  #tickTimer: Timer | undefined;
  #lastTickMs = 0;
  #connectedSinceMs: number | undefined;
  #flushScheduled = false;
  /** The peer was reported and nothing has been sent since: report once per episode. */
  #reported = false;
  #requestSequence = 0;
  readonly #requests = new Map<number, PendingRequest>();
  #lastWarnMs = Number.NEGATIVE_INFINITY;

  readonly #flushed = (): void => this.#pump();

  constructor(context: TransportContext, id: MemberId, urls: readonly string[]) {
    this.id = id;
    this.#context = context;
    this.#urls = urls;
    this.#logger = context.logger.child({ "remote-peer-id": hexId(id) });
    this.#queue = new MessageQueue(context.limits.queueMessagesMax, context.limits.queueBytesMax);
    this.#backoffMs = context.limits.reconnectMinMs;
  }

  get urls(): readonly string[] {
    return this.#urls;
  }

  get connectedSinceMs(): number | undefined {
    return this.#connectedSinceMs;
  }

  /** Begins to dial and never stops before `close`. */
  start(): void {
    if (this.#state === "idle") this.#dial();
  }

  /** The peer showed that it is there: do not wait any longer. */
  kick(): void {
    if (this.#state !== "waiting") return;
    this.#retryTimer?.cancel();
    this.#backoffMs = this.#context.limits.reconnectMinMs;
    this.#dial();
  }

  setUrls(urls: readonly string[]): void {
    if (urls.length === this.#urls.length && urls.every((url, i) => url === this.#urls[i])) return;
    this.#urls = urls;
    this.#urlAt = 0;
    if (this.#state === "connected" && this.#connectedUrl !== undefined && urls.includes(this.#connectedUrl)) return;
    if (this.#state === "connected") this.#connection?.destroy(new Error("the peer's URLs changed"));
    else if (this.#state === "dialling") this.#attempt?.abort(new Error("the peer's URLs changed"));
    this.kick();
  }

  enqueue(message: Message): void {
    if (this.#closed) return;
    if (this.#state === "idle") this.start();
    if (this.#state === "waiting") {
      this.#drop(1, undefined);
      return;
    }
    if (messageBytesMax(message) > this.#context.limits.frameBytesMax) {
      this.#drop(1, "message is larger than a frame may be");
      return;
    }
    if (!this.#queue.push(message)) {
      this.#drop(1, "queue is full");
      return;
    }
    if (this.#state === "connected" && !this.#flushScheduled) {
      // Everything that is sent in this turn of the event loop shares frames and a system call.
      this.#flushScheduled = true;
      queueMicrotask(() => {
        this.#flushScheduled = false;
        this.#pump();
      });
    }
  }

  request(kind: PeerRequestKind, body: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    if (this.#closed) return Promise.reject(new PeerTransportClosedError());
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#state === "idle") this.start();
    if (this.#state === "waiting") return Promise.reject(new PeerUnavailableError(this.id, "not connected"));
    const backlog = this.#connection?.bufferedBytes ?? 0;
    if (this.#requests.size >= REQUESTS_MAX || backlog > REQUEST_BACKLOG_BYTES_MAX)
      return Promise.reject(new RpcError("too-many-requests"));
    if (body.byteLength > this.#context.limits.requestBytesMax) return Promise.reject(new RpcError("request-too-large"));
    const sequence = ++this.#requestSequence;
    const frame = sealFrame(encodeRequest(sequence, kind, body, FRAME_HEADER_BYTES), FrameKind.request);
    return new Promise<Uint8Array>((resolve, reject) => {
      const onAbort = (): void => {
        this.#connection?.write(numberFrame(FrameKind.cancel, sequence));
        settle();
        reject(signal.reason);
      };
      const settle = (): void => {
        this.#requests.delete(sequence);
        signal.removeEventListener("abort", onAbort);
      };
      signal.addEventListener("abort", onAbort);
      // While dialling it waits in the map and is written when the connection is there.
      this.#requests.set(sequence, {
        frame: this.#connection === undefined ? frame : undefined,
        resolve: (answer) => {
          settle();
          resolve(answer);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      });
      this.#connection?.write(frame);
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#retryTimer?.cancel();
    this.#attempt?.abort(new PeerTransportClosedError());
    this.#connection?.destroy();
    this.#state = "idle";
    this.#queue.clear();
    this.#failRequests(new PeerTransportClosedError());
  }

  #dial(): void {
    if (this.#closed) return;
    const { limits, identity, clock, advertisedPeerUrls, tlsClient } = this.#context;
    const url = this.#urls[this.#urlAt % Math.max(this.#urls.length, 1)];
    this.#urlAt++;
    if (url === undefined) {
      this.#retryLater(new Error("the peer has no URL"));
      return;
    }
    this.#state = "dialling";
    const attempt = new AbortController();
    this.#attempt = attempt;
    dial({
      url,
      path: RAFT_PATH,
      protocol: RAFT_PROTOCOL,
      headers: dialHeaders(identity, this.id, advertisedPeerUrls, RAFT_PROTOCOL),
      timeoutMs: limits.dialTimeoutMs,
      clock,
      signal: attempt.signal,
      tls: tlsClient,
    }).then(
      ({ socket, head }) => {
        if (this.#closed) {
          socket.destroy();
          return;
        }
        this.#context.track(socket);
        const connection = new FramedSocket(socket, head, {
          clock,
          frameBytesMax: limits.frameBytesMax,
          handlers: {
            onFrame: (kind, content) => this.#receive(kind, content),
            onClose: (reason) => this.#lost(connection, reason),
          },
        });
        this.#connected(connection, url);
      },
      (error: unknown) => {
        if (this.#closed) return;
        this.#refused(error);
        this.#retryLater(error);
      },
    );
  }

  #connected(connection: FramedSocket, url: string): void {
    const { clock, limits } = this.#context;
    this.#state = "connected";
    this.#connection = connection;
    this.#connectedUrl = url;
    this.#attempt = undefined;
    this.#backoffMs = limits.reconnectMinMs;
    this.#connectedSinceMs = clock.monotonicMs();
    this.#reported = false;
    this.#lastWarnMs = Number.NEGATIVE_INFINITY;
    this.#logger.info({ url }, "established connection to remote peer");
    this.#context.observer.active?.(this.id, true);
    for (const request of this.#requests.values()) {
      if (request.frame !== undefined) connection.write(request.frame);
      request.frame = undefined;
    }
    this.#lastTickMs = clock.monotonicMs();
    this.#tickTimer = clock.timer(limits.keepaliveMs, () => this.#tick(connection));
    connection.write(numberFrame(FrameKind.ping, clock.monotonicMs()));
    this.#pump();
  }

  /** Sends a sign of life and looks for the other side's. */
  #tick(connection: FramedSocket): void {
    if (connection !== this.#connection) return;
    const { clock, limits } = this.#context;
    const now = clock.monotonicMs();
    const stalled = now - this.#lastTickMs > 2 * limits.keepaliveMs;
    this.#lastTickMs = now;
    // After a stall of this process what the peer sent may still lie unread in the kernel: give it one more period.
    if (!stalled && now - connection.lastReceivedMs > limits.readDeadlineMs) {
      connection.destroy(new Error(`nothing received for ${limits.readDeadlineMs} ms`));
      return;
    }
    connection.write(numberFrame(FrameKind.ping, now));
    this.#tickTimer = clock.timer(limits.keepaliveMs, () => this.#tick(connection));
  }

  #receive(kind: number, content: Uint8Array): void {
    this.#context.observer.received?.(this.id, FRAME_HEADER_BYTES + content.byteLength, 0);
    switch (kind) {
      case FrameKind.alive:
        return;
      case FrameKind.pong: {
        const ms = this.#context.clock.monotonicMs() - numberContent(content, { counter: false });
        if (ms >= 0) this.#context.observer.roundTrip?.(this.id, ms);
        return;
      }
      case FrameKind.response:
        // An answer to a request that was given up meanwhile finds nobody.
        this.#requests.get(numberContent(content, { counter: true }))?.resolve(content.subarray(8));
        return;
      case FrameKind.failure: {
        const { sequence, error } = decodeError(content);
        this.#requests.get(sequence)?.reject(error);
        return;
      }
      default:
        throw new PeerFrameError(`unexpected kind ${kind}`);
    }
  }

  #pump(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    const { observer } = this.#context;
    while (this.#queue.length > 0 && connection.open && connection.bufferedBytes < SOCKET_BUFFER_BYTES_MAX) {
      const messages = this.#queue.take(FRAME_TARGET_BYTES);
      const frame = sealFrame(encodeMessages(messages, FRAME_HEADER_BYTES), FrameKind.messages);
      connection.write(frame, this.#flushed);
      observer.sent?.(this.id, frame.byteLength, messages.length);
    }
    if (this.#queue.length === 0) this.#reported = false;
  }

  #lost(connection: FramedSocket, reason: Error | undefined): void {
    if (connection !== this.#connection) return;
    this.#connection = undefined;
    this.#connectedUrl = undefined;
    this.#connectedSinceMs = undefined;
    this.#tickTimer?.cancel();
    this.#context.observer.active?.(this.id, false);
    if (this.#closed) return;
    // Not because of the URL: the next attempt starts with the one that worked.
    this.#urlAt = Math.max(this.#urlAt - 1, 0);
    this.#retryLater(reason ?? new Error("closed by the peer"));
  }

  #retryLater(error: unknown): void {
    const { limits, random, clock } = this.#context;
    this.#attempt = undefined;
    this.#state = "waiting";
    this.#warn(error);
    this.#drop(this.#queue.clear(), undefined);
    this.#reportUnreachable();
    this.#failRequests(new PeerUnavailableError(this.id, "connection lost", { cause: error }));
    // Between half and all of the current step, so that members do not dial each other in step.
    const half = Math.ceil(this.#backoffMs / 2);
    const delayMs = half + random.below(half + 1);
    this.#backoffMs = Math.min(this.#backoffMs * 2, limits.reconnectMaxMs);
    this.#retryTimer = clock.timer(delayMs, () => this.#dial());
  }

  #refused(error: unknown): void {
    if (!(error instanceof PeerRefusedError)) return;
    if (error.status === 410 && error.clusterId === hexId(this.#context.identity.clusterId)) this.#context.removed();
  }

  #failRequests(error: Error): void {
    for (const request of [...this.#requests.values()]) request.reject(error);
  }

  /** `why` is logged, once per episode. */
  #drop(count: number, why: string | undefined): void {
    if (count === 0) return;
    for (let i = 0; i < count; i++) this.#context.observer.sendFailed?.(this.id);
    if (why !== undefined && !this.#reported) {
      this.#logger.warn({ why, queued: this.#queue.length, bytes: this.#queue.bytes }, "dropped message to remote peer");
    }
    this.#reportUnreachable();
  }

  #reportUnreachable(): void {
    if (this.#reported) return;
    this.#reported = true;
    this.#context.unreachable(this.id);
  }

  /** An absent peer is normal for a while; say it at once and then now and again. */
  #warn(error: unknown): void {
    const now = this.#context.clock.monotonicMs();
    if (now - this.#lastWarnMs < WARN_INTERVAL_MS) return;
    this.#lastWarnMs = now;
    const text = error instanceof Error ? error.message : String(error);
    if (error instanceof PeerRefusedError && error.status === 412 && error.text === "cluster ID mismatch") {
      this.#logger.warn(
        { "remote-peer-cluster-id": error.clusterId },
        "request sent was ignored by remote peer due to cluster ID mismatch",
      );
    } else {
      this.#logger.warn({ error: text }, "lost connection to remote peer or could not establish it");
    }
  }
}
