/** The gRPC side. It is loaded when a port is served: a member without one does not need it. */
import type { GrpcServer, GrpcServerOptions } from "./grpc-server.ts";

export type { GrpcServer, GrpcServerOptions } from "./grpc-server.ts";
export type { GrpcTransport, PeerIdentity, TransportLimits, TransportOptions } from "./transport.ts";

/** See `grpc-server.ts`. */
export async function createGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  return (await import("./grpc-server.ts")).createGrpcServer(options);
}
