export { createGrpcServer, type GrpcServer, type GrpcServerOptions } from "./grpc-server.ts";
export type { GrpcTransport, PeerIdentity, TransportLimits, TransportOptions } from "./transport.ts";
