/** gRPC over any transport: what a request is, who serves it, and how it is refused. */
import type { Duplex } from "node:stream";
import { invalidContentType, noDecompressor, wrongHttpMethod } from "../../api/index.ts";
import type { Clock } from "../../base/clock.ts";
import type { EtcdError } from "../../base/errors.ts";
import type { Logger } from "../../base/logger.ts";
import type { ServerMetrics } from "../metrics.ts";
import type { Services } from "../services/services.contract.ts";
import { GZIP } from "./compression.ts";
import { createGrpcHealth } from "./health.ts";
import { createHttp2Transport } from "./http2/http2-transport.ts";
import { type Method, MethodTable } from "./methods.ts";
import { GrpcParts } from "./parts.ts";
import { KeepAliveCall, ServerStreamCall, WatchCall } from "./streaming-call.ts";
import { timeoutMsOf } from "./timeout.ts";
import {
  type CallHandler,
  DEFAULT_TRANSPORT_LIMITS,
  type GrpcCall,
  type GrpcTransport,
  type PeerIdentity,
  RECEIVE_BYTES_MAX,
  ReceiveBudget,
  type RequestHead,
  type TransportLimits,
  type TransportOptions,
} from "./transport.ts";
import { UnaryCall } from "./unary-call.ts";

export interface GrpcServerOptions {
  readonly services: Services;
  readonly metrics: ServerMetrics;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Largest replicated request; messages may be 512 KiB larger. */
  readonly maxRequestBytes: number;
  readonly limits?: Partial<TransportLimits> | undefined;
  /** Bytes of unfinished requests that are held, over all connections. */
  readonly receiveBytesMax?: number | undefined;
  /** Something that is no expected error: the instance cannot be trusted any more. */
  readonly onBug: (error: unknown) => void;
  /** The default is our own HTTP/2. */
  readonly transport?: ((options: TransportOptions) => GrpcTransport) | undefined;
}

/** A running gRPC server. Connections are handed to it. */
export interface GrpcServer {
  handle(socket: Duplex, peer?: PeerIdentity): void;
  readonly connections: number;
  /** Streams end at once with Unavailable "etcdserver: server stopped"; unary calls may end by themselves for `graceMs`. */
  close(options: { graceMs: number }): Promise<void>;
}

/** What a gRPC message may be longer than the largest request that is replicated. */
const OVERHEAD_BYTES = 512 * 1024;
const CONTENT_TYPE = "application/grpc";

export function createGrpcServer(options: GrpcServerOptions): GrpcServer {
  const { services, metrics, clock, logger, onBug } = options;
  const budget = new ReceiveBudget(options.receiveBytesMax ?? RECEIVE_BYTES_MAX);
  const messageBytesMax = options.maxRequestBytes + OVERHEAD_BYTES;
  const parts = new GrpcParts({ services, metrics, clock, logger, messageBytesMax, budget, onBug });
  const methods = new MethodTable(services, createGrpcHealth(services.health, clock), metrics);
  const transport = (options.transport ?? createHttp2Transport)({
    open: (call, head) => openCall(parts, methods, call, head),
    clock,
    logger,
    limits: { ...DEFAULT_TRANSPORT_LIMITS, ...options.limits },
    budget,
    onBug,
  });
  return {
    handle: (socket, peer) => transport.handle(socket, peer),
    get connections() {
      return transport.connections;
    },
    async close(how) {
      await transport.close(how);
      parts.deadlines.close();
    },
  };
}

/** Of calls that ended before they began. */
const OVER: CallHandler = {
  incomplete: false,
  data: nothing,
  ended: nothing,
  gone: nothing,
  drained: nothing,
  closing: nothing,
};

function nothing(): void {
  // The call is over.
}

/** Checks in the order of gRPC's Go library. */
function openCall(parts: GrpcParts, methods: MethodTable, call: GrpcCall, head: RequestHead): CallHandler {
  let timeoutMs: number | undefined;
  let method: Method | undefined;
  let gzip = false;
  try {
    const contentType = answerTypeOf(head.contentType);
    if (contentType === undefined) return refuse(call, 415, invalidContentType(head.contentType ?? ""));
    try {
      if (head.timeout !== undefined) timeoutMs = timeoutMsOf(head.timeout);
    } catch (error) {
      return refuse(call, 400, parts.asEtcdError(error));
    }
    if (head.method !== "POST") return refuse(call, 405, wrongHttpMethod(head.method));
    const { encoding } = head;
    gzip = encoding === GZIP;
    if (gzip || contentType !== CONTENT_TYPE) call.setAnswer(contentType, undefined);
    method = methods.get(head.path);
    if (method === undefined) throw methods.errorFor(head.path);
    if (encoding !== undefined && !gzip && encoding !== "" && encoding !== "identity") throw noDecompressor(encoding);
    if (gzip) call.setAnswer(contentType, GZIP);
  } catch (error) {
    const reason = parts.asEtcdError(error);
    call.finish(reason.grpcCode, reason.message);
    return OVER;
  }
  if (method.kind === "unary") {
    const running = new UnaryCall(parts, method, call, head, gzip);
    if (timeoutMs !== undefined) running.startDeadline(timeoutMs);
    return running;
  }
  const Kind = method.kind === "watch" ? WatchCall : method.kind === "keepalive" ? KeepAliveCall : ServerStreamCall;
  const running = new Kind(parts, method, call, head, gzip);
  if (timeoutMs !== undefined) running.startDeadline(timeoutMs);
  running.start();
  return running;
}

function refuse(call: GrpcCall, httpStatus: number, error: EtcdError): CallHandler {
  call.refuse(httpStatus, error.grpcCode, error.message);
  return OVER;
}

/** The content type of the answer: the request's, in gRPC's spelling. Undefined if the request is no gRPC. */
function answerTypeOf(contentType: string | undefined): string | undefined {
  if (contentType === CONTENT_TYPE) return CONTENT_TYPE;
  if (contentType?.startsWith(CONTENT_TYPE) !== true) return undefined;
  const next = contentType.charAt(CONTENT_TYPE.length);
  if (next !== "+" && next !== ";") return undefined;
  const subtype = contentType.slice(CONTENT_TYPE.length + 1);
  return subtype === "" ? CONTENT_TYPE : `${CONTENT_TYPE}+${subtype}`;
}
