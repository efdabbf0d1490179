/** The public surface of the package. What is not exported here may change at any time. */
export type { Clock, Timer } from "./base/clock.ts";
export type { Disk, DiskFile } from "./base/disk.ts";
export { EtcdError, GrpcCode } from "./base/errors.ts";
export type { LogFields, Logger } from "./base/logger.ts";
export type { Random } from "./base/random.ts";
// What `server.client` needs at hand; everything else of the client is in `holdfast/client`.
export { compare, type EtcdClient, type KeyValue, mayHaveHappened, op, type View, type WatchBatch, type Watcher } from "./client/index.ts";
export { ConfigError, type ConfigProblem, type EtcdConfig } from "./embed/index.ts";
export { type EtcdServer, type EtcdStatus, startEtcd } from "./embed/start-etcd.ts";
