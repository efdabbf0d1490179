/** The server root's face, for `embed` and `cli`. */
export {
  inThreadHasher,
  type JwtMethod,
  JwtTokens,
  noTokens,
  type PasswordHasher,
  type TokenProvider,
} from "../auth/index.ts";
export { DataDirectoryLockedError } from "../backend/index.ts";
export { BackendBrokenError } from "./apply/state.ts";
export { type BackupStatus, backupHashKv, backupStatus } from "./backup/backup-file.ts";
export type { BoltSource } from "./backup/bolt-reader.ts";
export { BootstrapError, DataDamagedError, type RemoteMembers } from "./bootstrap.ts";
export { ClientPort, type ClientPortOptions, type SocketHandler } from "./client-port.ts";
export { CLUSTER_VERSION, SERVER_VERSION, type ServerConfig, type ServerPorts, STORAGE_VERSION } from "./config.ts";
export { createGrpcServer, type GrpcServer } from "./grpc/index.ts";
export { buildHttpApp, buildMetricsApp, type HttpApp } from "./http/index.ts";
export { ServerMetrics } from "./metrics.ts";
export { bindMetrics, metricsObserver } from "./observe.ts";
export {
  type Defragmented,
  defragmentStore,
  describeEntry,
  inspectWal,
  type OfflineStoreOptions,
  StoreUnusableError,
  storeBackup,
  storeHashKv,
  type WalInspection,
} from "./offline.ts";
export {
  createHttpPeerTransport,
  fetchMembers,
  type HttpPeerTransport,
  MemoryNetwork,
  type PeerObserver,
  type PeerTransport,
} from "./peer/index.ts";
export { type Restored, restoreBackup } from "./restore.ts";
export { type FailureReason, Server, ServerFailedError, type ServerObserver, type ServerOptions } from "./server.ts";
export type { CallContext, Services, WatchSession } from "./services/services.contract.ts";
export { isOutOfSpace, OutOfSpaceError } from "./storage-failure.ts";
