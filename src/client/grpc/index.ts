/** `holdfast/grpc`: the client's way over gRPC, for Node: `createClient({ endpoints, transport: grpc() })`. */
import type { Transport } from "../transport.ts";
import { type ConnectionOptions, type GrpcTls, targetOf } from "./connection.ts";
import { GrpcChannel } from "./grpc-channel.ts";

export type { GrpcTls } from "./connection.ts";

export interface GrpcOptions {
  /** Certificates for endpoints with `https://`; without it the system's authorities are trusted and no certificate is shown. */
  readonly tls?: GrpcTls | undefined;
  /** How long it may take until a connection stands. Default 5000. */
  readonly connectTimeoutMs?: number | undefined;
  /** Longest message that is accepted, bytes. Default 2^31 - 1, as etcd's own client has it. */
  readonly messageBytesMax?: number | undefined;
  /** Sent with every request. Lower-case names. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

const CONNECT_TIMEOUT_MS = 5000;
const MESSAGE_BYTES_MAX = 2 ** 31 - 1;

/**
 * Endpoints are `http://host:port`, `https://host:port`, or `unix://path` and `unixs://path` for sockets of the file system. One connection per endpoint, made
 * with the first call and made again when it breaks; all watches share one stream. A connection keeps its process alive until the client is closed.
 */
export function grpc(options: GrpcOptions = {}): Transport {
  const connection: ConnectionOptions = { tls: options.tls, connectTimeoutMs: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS };
  const messageBytesMax = options.messageBytesMax ?? MESSAGE_BYTES_MAX;
  return {
    local: false,
    connect: (endpoint) => new GrpcChannel(targetOf(endpoint), connection, messageBytesMax, options.headers ?? {}),
  };
}
