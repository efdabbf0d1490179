/**
 * Services: plain objects of functions over decoded requests. The JSON skin, the gRPC skin and the in-process client wrap these same
 * objects; nothing here knows a transport. Every function rejects with EtcdError only (other errors are bugs and stop the instance).
 * Implemented beside this file; the types stay here.
 */
import type * as api from "../../api/index.ts";

export interface CallContext {
  /** The caller went away or its deadline passed: the reason is an EtcdError (canceled / deadline exceeded) or anything else (treated as canceled). */
  readonly signal?: AbortSignal | undefined;
  /** Auth token as sent (metadata `token` or `authorization`, "Bearer " removed). */
  readonly token?: string | undefined;
  /** CommonName of a verified client certificate; never set for calls through the JSON gateway. */
  readonly commonName?: string | undefined;
  /** Metadata `hasleader: true`. */
  readonly requireLeader?: boolean | undefined;
  /** Metadata `client-api-version`, for metrics. */
  readonly clientApiVersion?: string | undefined;
}

export interface KvService {
  range(request: api.RangeRequest, context: CallContext): Promise<api.RangeResponse>;
  rangeStream(request: api.RangeRequest, context: CallContext): AsyncIterable<api.RangeStreamResponse>;
  put(request: api.PutRequest, context: CallContext): Promise<api.PutResponse>;
  deleteRange(request: api.DeleteRangeRequest, context: CallContext): Promise<api.DeleteRangeResponse>;
  txn(request: api.TxnRequest, context: CallContext): Promise<api.TxnResponse>;
  compact(request: api.CompactionRequest, context: CallContext): Promise<api.CompactionResponse>;
}

/** One bidirectional watch stream. */
export interface WatchSession {
  /** Requests are handled in the order of the calls. Never blocks; what cannot be taken is answered by a cancelled create. */
  send(request: api.WatchRequest): void;
  /**
   * Waits until there is something, then gives all that is ready (about `bytesMax` bytes at most, at least one response). Undefined: the stream has ended
   * orderly. Rejects with the EtcdError that ends the stream (no leader, canceled ...). One call at a time.
   */
  next(bytesMax?: number): Promise<readonly api.WatchResponse[] | undefined>;
  /** True while so many answers lie unread that no further request should be sent: read on first. Whoever goes on sending gets the stream ended. */
  readonly congested?: boolean;
  /** Removes all watchers; idempotent. Pending and later `next` calls give undefined. */
  close(): void;
}

export interface WatchService {
  /** Throws at once when the call is refused (no leader, learner). */
  watch(context: CallContext): WatchSession;
}

export interface LeaseService {
  leaseGrant(request: api.LeaseGrantRequest, context: CallContext): Promise<api.LeaseGrantResponse>;
  leaseRevoke(request: api.LeaseRevokeRequest, context: CallContext): Promise<api.LeaseRevokeResponse>;
  /** One renewal; the skins run a stream of them in order. A rejection ends the stream. */
  leaseKeepAlive(request: api.LeaseKeepAliveRequest, context: CallContext): Promise<api.LeaseKeepAliveResponse>;
  leaseTimeToLive(request: api.LeaseTimeToLiveRequest, context: CallContext): Promise<api.LeaseTimeToLiveResponse>;
  leaseLeases(request: api.LeaseLeasesRequest, context: CallContext): Promise<api.LeaseLeasesResponse>;
}

export interface ClusterService {
  memberAdd(request: api.MemberAddRequest, context: CallContext): Promise<api.MemberAddResponse>;
  memberRemove(request: api.MemberRemoveRequest, context: CallContext): Promise<api.MemberRemoveResponse>;
  memberUpdate(request: api.MemberUpdateRequest, context: CallContext): Promise<api.MemberUpdateResponse>;
  memberList(request: api.MemberListRequest, context: CallContext): Promise<api.MemberListResponse>;
  memberPromote(request: api.MemberPromoteRequest, context: CallContext): Promise<api.MemberPromoteResponse>;
}

export interface MaintenanceService {
  alarm(request: api.AlarmRequest, context: CallContext): Promise<api.AlarmResponse>;
  status(request: api.StatusRequest, context: CallContext): Promise<api.StatusResponse>;
  defragment(request: api.DefragmentRequest, context: CallContext): Promise<api.DefragmentResponse>;
  hash(request: api.HashRequest, context: CallContext): Promise<api.HashResponse>;
  hashKv(request: api.HashKVRequest, context: CallContext): Promise<api.HashKVResponse>;
  snapshot(request: api.SnapshotRequest, context: CallContext): AsyncIterable<api.SnapshotResponse>;
  moveLeader(request: api.MoveLeaderRequest, context: CallContext): Promise<api.MoveLeaderResponse>;
  downgrade(request: api.DowngradeRequest, context: CallContext): Promise<api.DowngradeResponse>;
}

export interface AuthService {
  authEnable(request: api.AuthEnableRequest, context: CallContext): Promise<api.AuthEnableResponse>;
  authDisable(request: api.AuthDisableRequest, context: CallContext): Promise<api.AuthDisableResponse>;
  authStatus(request: api.AuthStatusRequest, context: CallContext): Promise<api.AuthStatusResponse>;
  authenticate(request: api.AuthenticateRequest, context: CallContext): Promise<api.AuthenticateResponse>;
  userAdd(request: api.AuthUserAddRequest, context: CallContext): Promise<api.AuthUserAddResponse>;
  userGet(request: api.AuthUserGetRequest, context: CallContext): Promise<api.AuthUserGetResponse>;
  userList(request: api.AuthUserListRequest, context: CallContext): Promise<api.AuthUserListResponse>;
  userDelete(request: api.AuthUserDeleteRequest, context: CallContext): Promise<api.AuthUserDeleteResponse>;
  userChangePassword(request: api.AuthUserChangePasswordRequest, context: CallContext): Promise<api.AuthUserChangePasswordResponse>;
  userGrantRole(request: api.AuthUserGrantRoleRequest, context: CallContext): Promise<api.AuthUserGrantRoleResponse>;
  userRevokeRole(request: api.AuthUserRevokeRoleRequest, context: CallContext): Promise<api.AuthUserRevokeRoleResponse>;
  roleAdd(request: api.AuthRoleAddRequest, context: CallContext): Promise<api.AuthRoleAddResponse>;
  roleGet(request: api.AuthRoleGetRequest, context: CallContext): Promise<api.AuthRoleGetResponse>;
  roleList(request: api.AuthRoleListRequest, context: CallContext): Promise<api.AuthRoleListResponse>;
  roleDelete(request: api.AuthRoleDeleteRequest, context: CallContext): Promise<api.AuthRoleDeleteResponse>;
  roleGrantPermission(request: api.AuthRoleGrantPermissionRequest, context: CallContext): Promise<api.AuthRoleGrantPermissionResponse>;
  roleRevokePermission(request: api.AuthRoleRevokePermissionRequest, context: CallContext): Promise<api.AuthRoleRevokePermissionResponse>;
}

export interface LockService {
  lock(request: api.LockRequest, context: CallContext): Promise<api.LockResponse>;
  unlock(request: api.UnlockRequest, context: CallContext): Promise<api.UnlockResponse>;
}

export interface ElectionService {
  campaign(request: api.CampaignRequest, context: CallContext): Promise<api.CampaignResponse>;
  proclaim(request: api.ProclaimRequest, context: CallContext): Promise<api.ProclaimResponse>;
  leader(request: api.LeaderRequest, context: CallContext): Promise<api.LeaderResponse>;
  observe(request: api.LeaderRequest, context: CallContext): AsyncIterable<api.LeaderResponse>;
  resign(request: api.ResignRequest, context: CallContext): Promise<api.ResignResponse>;
}

/** What the health endpoints ask. */
export interface HealthService {
  /** Active alarms, by name and member. */
  alarms(): readonly { readonly memberId: bigint; readonly alarm: "NOSPACE" | "CORRUPT" | "UNKNOWN" }[];
  /** 0n when there is none. */
  leader(): bigint;
  isLearner(): boolean;
  /** Why this member serves nobody at present, although its listeners are open (out of space, being healed); undefined when it serves. */
  outage(): string | undefined;
  /** A range of limit 1, keys only, with root authority. Rejects with the error that a client would see. */
  probeRead(options: { serializable: boolean; signal?: AbortSignal }): Promise<void>;
  versions(): { readonly server: string; readonly cluster: string; readonly storage: string };
}

export interface Services {
  readonly kv: KvService;
  readonly watch: WatchService;
  readonly lease: LeaseService;
  readonly cluster: ClusterService;
  readonly maintenance: MaintenanceService;
  readonly auth: AuthService;
  readonly lock: LockService;
  readonly election: ElectionService;
  readonly health: HealthService;
}
