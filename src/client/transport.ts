/** What the client needs of the way to a member: in this process, over HTTP/JSON, or over gRPC. */
import type { LeaseKeepAliveRequest, LeaseKeepAliveResponse, MethodDescriptor, WatchRequest, WatchResponse } from "../api/index.ts";

/** Travels beside a request. */
export interface CallContext {
  readonly signal?: AbortSignal | undefined;
  readonly token?: string | undefined;
  /** The member refuses (or ends) the call while it knows no leader. */
  readonly requireLeader?: boolean | undefined;
  /** What is left of the caller's patience: the member may stop working then. */
  readonly timeoutMs?: number | undefined;
}

/** One stream of watch requests and responses. */
export interface WatchSession {
  /** Never blocks. */
  send(request: WatchRequest): void;
  /** All responses that have come; waits for the first. Undefined: the member ended the stream orderly. Rejects when it broke. One call at a time. */
  next(): Promise<readonly WatchResponse[] | undefined>;
  /** Ends it; a pending `next` gives undefined. Idempotent. */
  close(): void;
}

/** The way to one member. Every rejection is an EtcdError; `UnavailableError` for what the way itself is to blame for. */
export interface Channel {
  /** How users know it. */
  readonly endpoint: string;
  /** False: a watch session takes one create request and nothing after it, because the way is half duplex. */
  readonly fullDuplex: boolean;
  unary<Request extends object, Response extends object>(
    method: MethodDescriptor<Request, Response>,
    request: Request,
    context: CallContext,
  ): Promise<Response>;
  /** A stream of answers to one request. */
  stream<Request extends object, Response extends object>(
    method: MethodDescriptor<Request, Response>,
    request: Request,
    context: CallContext,
  ): AsyncIterable<Response>;
  watch(context: CallContext): WatchSession;
  keepAlive(request: LeaseKeepAliveRequest, context: CallContext): Promise<LeaseKeepAliveResponse>;
  /** Ends everything that is under way over it. Idempotent. */
  close(): void;
}

/** Opens ways. `connect` does no I/O yet and throws only for an endpoint that makes no sense. */
export interface Transport {
  /** True for a member in this process: calls need no deadline of the client's, the member has its own. */
  readonly local: boolean;
  connect(endpoint: string): Channel;
}
