/**
 * The border between the gRPC skin and what carries it. A transport turns sockets into calls: it frames, compresses headers, controls flow and defends itself;
 * it knows neither messages nor methods. The skin knows nothing of connections. test/grpc/transport.contract.ts says what every transport has to do.
 */
import type { Duplex } from "node:stream";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/logger.ts";

/** The fields of a request that anybody looks at. Texts have one char per byte, as they came; an absent field is undefined. */
export interface RequestHead {
  readonly method: string;
  readonly path: string;
  readonly contentType: string | undefined;
  /** `grpc-encoding` */
  readonly encoding: string | undefined;
  /** `grpc-timeout` */
  readonly timeout: string | undefined;
  readonly token: string | undefined;
  readonly authorization: string | undefined;
  readonly hasLeader: string | undefined;
  readonly clientApiVersion: string | undefined;
  /** CommonName of the verified certificate of the client. */
  readonly commonName: string | undefined;
}

/** A call as the skin sees it: what it may do to it. After the end of the call every function does nothing. */
export interface GrpcCall {
  /** Content type and compression of the answer, where they are not `application/grpc` and none. Before anything is sent. */
  setAnswer(contentType: string, encoding: string | undefined): void;
  /**
   * The whole answer of a unary call: headers, one message, trailers that say OK. `frame` is the message behind its five bytes of prefix; unless `owned`, its
   * memory is used again after this.
   */
  respond(frame: Uint8Array, owned: boolean): void;
  /** One message of a stream; headers go before the first. False: enough is waiting, send more when {@link CallHandler.drained} is called. */
  send(frame: Uint8Array, owned: boolean): boolean;
  /** Ends the call, behind what was sent, with a status; `message` is any text. If nothing was sent the status is all there is ("trailers-only"). */
  finish(code: number, message: string): void;
  /** Ends the call as {@link finish}, with another HTTP status than 200; nothing was sent. */
  refuse(httpStatus: number, code: number, message: string): void;
  /** As {@link finish}, and tells the client not to send any more, because its time is over. */
  expire(code: number, message: string): void;
  /** A message of that many further bytes is on its way: lets the client send it without a pause. */
  expect(bytes: number): void;
  /** Hands over no more of the request, its end included, and gives the client no more room, until {@link resume}. What came is kept, bounded. */
  pause(): void;
  resume(): void;
}

/** What the skin wants to hear of a call. Functions must not throw. */
export interface CallHandler {
  /** True while the request of a call that takes one is not complete: not for ever. */
  readonly incomplete: boolean;
  /** Bytes `[from, to)` are the next of the request. The memory is not used again, but may be much larger than what is in it. */
  data(bytes: Uint8Array, from: number, to: number): void;
  /** The client has said everything. */
  ended(): void;
  /** The client cancelled the call or is gone; nothing can be sent any more. Not called after the call has ended. */
  gone(): void;
  /** More may be sent. */
  drained(): void;
  /** The transport closes, and calls are to end: those that end by themselves may do so, the others are ended now. */
  closing(): void;
}

/** What is known of a client by its connection. */
export interface PeerIdentity {
  /** CommonName of the verified certificate. */
  readonly commonName?: string | undefined;
}

/** Called for each request. May end the call at once. `head` is only good during the call. */
export type OpenCall = (call: GrpcCall, head: RequestHead) => CallHandler;

export interface GrpcTransport {
  /** Takes over a connection on which the client speaks HTTP/2 from the first byte on. */
  handle(socket: Duplex, peer?: PeerIdentity): void;
  /** Open connections. */
  readonly connections: number;
  /** Refuses new calls, lets running ones end for `graceMs`, then closes everything. Idempotent; resolves when no connection is left. */
  close(options: { graceMs: number }): Promise<void>;
}

/** What a transport is made of. */
export interface TransportOptions {
  readonly open: OpenCall;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits: TransportLimits;
  readonly budget: ReceiveBudget;
  /** Something that is no expected error. */
  readonly onBug: (error: unknown) => void;
}

export interface TransportLimits {
  /** Calls that one connection may have open. {@link UNLIMITED_STREAMS} is not announced to clients, and {@link STREAMS_MAX} holds. */
  readonly maxConcurrentStreams: number;
  /** Shortest interval between the pings of a client, ms. */
  readonly keepaliveMinTimeMs: number;
  /** Silence after which the client is asked whether it is still there, ms. 0: never. */
  readonly keepaliveIntervalMs: number;
  /** How long the answer to that may take, ms. 0: for ever. */
  readonly keepaliveTimeoutMs: number;
  /** Largest list of header fields, in bytes as HPACK counts them. */
  readonly headerListBytesMax: number;
  /** Time for the preface, and for a header block to become complete, ms. */
  readonly headersMs: number;
  /** Time for the request of a unary call to become complete, ms. */
  readonly requestMs: number;
}

/** The default of `--max-concurrent-streams`. */
export const UNLIMITED_STREAMS = 4_294_967_295;

/** Calls per connection when the configuration names no limit: enough for anything but abuse. */
export const STREAMS_MAX = 100_000;

export const DEFAULT_TRANSPORT_LIMITS: TransportLimits = {
  maxConcurrentStreams: UNLIMITED_STREAMS,
  keepaliveMinTimeMs: 5000,
  keepaliveIntervalMs: 7_200_000,
  keepaliveTimeoutMs: 20_000,
  headerListBytesMax: 16 * 1024 * 1024,
  headersMs: 10_000,
  requestMs: 300_000,
};

/**
 * Bytes of requests that all connections of a server together hold although nobody can work on them yet: messages of which a part is missing, and what waits for
 * calls that read slowly. Beyond the limit further calls are refused instead of memory being filled.
 */
export class ReceiveBudget {
  readonly bytesMax: number;
  used = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  /** False, and nothing taken, if that is too much. */
  take(bytes: number): boolean {
    if (this.used + bytes > this.bytesMax) return false;
    this.used += bytes;
    return true;
  }

  give(bytes: number): void {
    this.used -= bytes;
  }
}

export const RECEIVE_BYTES_MAX = 512 * 1024 * 1024;
