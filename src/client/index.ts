/** `holdfast/client`: a client of any etcd v3 cluster. Nothing here needs Node. */
import type { Clock } from "../base/clock.ts";
import { clientOver, type EtcdClient } from "./client.ts";
import type { CallOptions } from "./deadline.ts";
import { httpJson } from "./http.ts";
import type { Credentials } from "./tokens.ts";
import type { Transport } from "./transport.ts";

export { CompactedError, RpcError, type RpcErrorReason } from "../api/index.ts";
export type { Clock, Timer } from "../base/clock.ts";
export { EtcdError, GrpcCode } from "../base/errors.ts";
export type { AlarmName, KeyChoice, MemberCallOptions, PermissionName } from "./admin.ts";
export { AuthClient, ClusterClient, MaintenanceClient } from "./admin.ts";
export { EtcdClient } from "./client.ts";
export { bytes, type Codec, json, utf8 } from "./codec.ts";
export type { KeyInfo, KeyInput, KeySelection, KeyValue, ValueInput } from "./coding.ts";
export type { CallOptions } from "./deadline.ts";
export {
  BadAnswerError,
  ClientError,
  type ClientErrorReason,
  ClosedError,
  InvalidUseError,
  isCanceled,
  isDeadlineExceeded,
  mayHaveHappened,
  UnavailableError,
  UndecodableError,
} from "./errors.ts";
export { type Fetch, type HttpJsonOptions, httpJson } from "./http.ts";
export { inProcess, type LocalMember, type LocalServices } from "./in-process.ts";
export { type GrantOptions, Lease, LeaseClient, type LeaseEnd, LeaseLostError, type LeaseOptions, type TimeToLive } from "./lease.ts";
export { type LocalClientOptions, localClient } from "./local.ts";
export type { PageOptions } from "./pages.ts";
export type { DeleteOptions, GetOptions, PutOptions, RangeOptions, SortBy } from "./requests.ts";
export type { DeleteResult, KeysResult, PutResult, RangeResult, ResponseHeader } from "./results.ts";
export type { Credentials } from "./tokens.ts";
export type { CallContext, Channel, Transport, WatchSession } from "./transport.ts";
export { type Compare, compare, type Op, type OpResult, op, type Relation, type TxnBuilder, type TxnResult } from "./txn.ts";
export { View, type ViewChange, type ViewOptions } from "./view.ts";
export { type DeleteEvent, type PutEvent, type WatchBatch, type WatchEvent, Watcher, type WatchOptions } from "./watch.ts";

export interface ConnectOptions {
  /** URLs of members, such as `http://10.0.0.1:2379`. They are used in turn; failed ones are left alone for a while. */
  readonly endpoints: readonly string[];
  /** Default: HTTP/JSON. */
  readonly transport?: Transport | undefined;
  /** User and password; the token is fetched and renewed as needed. */
  readonly credentials?: Credentials | undefined;
  /** Deadline of calls that have none of their own: see {@link CallOptions}. Default 15,000; 0: none. */
  readonly timeoutMs?: CallOptions["timeoutMs"];
  /** How long a watch may stay silent, although asked, before another member is tried. Default 5000. */
  readonly watchSilenceMs?: number | undefined;
  /** Default: the runtime's. */
  readonly clock?: Clock | undefined;
}

/** A client over the network. Nothing is connected before the first call; close it when done. */
export function createClient(options: ConnectOptions): EtcdClient {
  return clientOver({ ...options, transport: options.transport ?? httpJson() });
}
