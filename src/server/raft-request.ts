/**
 * Requests as they travel through the log. On the wire this is etcd's InternalRaftRequest (api-messages.md section 14), so that its size is the one the
 * request limit of etcd looks at; in memory it is a small object with a kind instead of some forty optional fields.
 */
import * as api from "../api/index.ts";
import { Reader } from "../api/wire/reader.ts";
import { Writer } from "../api/wire/writer.ts";
import type { Term } from "../base/ids.ts";

interface Bodies {
  put: api.PutRequest;
  "delete-range": api.DeleteRangeRequest;
  txn: api.TxnRequest;
  compaction: api.CompactionRequest;
  "lease-grant": api.LeaseGrantRequest;
  "lease-revoke": api.LeaseRevokeRequest;
  "lease-checkpoint": api.LeaseCheckpointRequest;
  alarm: api.AlarmRequest;
  "cluster-version-set": api.ClusterVersionSetRequest;
  "member-attributes-set": api.ClusterMemberAttrSetRequest;
  "downgrade-info-set": api.DowngradeInfoSetRequest;
  "auth-enable": api.AuthEnableRequest;
  "auth-disable": api.AuthDisableRequest;
  "auth-status": api.AuthStatusRequest;
  authenticate: api.InternalAuthenticateRequest;
  "auth-user-add": api.AuthUserAddRequest;
  "auth-user-delete": api.AuthUserDeleteRequest;
  "auth-user-get": api.AuthUserGetRequest;
  "auth-user-change-password": api.AuthUserChangePasswordRequest;
  "auth-user-grant-role": api.AuthUserGrantRoleRequest;
  "auth-user-revoke-role": api.AuthUserRevokeRoleRequest;
  "auth-user-list": api.AuthUserListRequest;
  "auth-role-list": api.AuthRoleListRequest;
  "auth-role-add": api.AuthRoleAddRequest;
  "auth-role-delete": api.AuthRoleDeleteRequest;
  "auth-role-get": api.AuthRoleGetRequest;
  "auth-role-grant-permission": api.AuthRoleGrantPermissionRequest;
  "auth-role-revoke-permission": api.AuthRoleRevokePermissionRequest;
}

export type RaftRequestKind = keyof Bodies;

export type RaftRequest = { [Kind in RaftRequestKind]: RaftRequestOf<Kind> }[RaftRequestKind];

export interface RaftRequestOf<Kind extends RaftRequestKind> {
  readonly kind: Kind;
  readonly body: Bodies[Kind];
  /** 0n until it is proposed. */
  id: bigint;
  /** Who asks, filled in when it is proposed; empty without authentication. */
  username: string;
  /** The auth revision at which that was established; 0 when nobody asks. */
  authRevision: number;
  /**
   * Set on what a leader decides by its own clock (lease expiry): the term it leads in. An entry of another term is dropped when applied, so that a deposed
   * leader's proposal, forwarded or late, cannot end a lease that the new leader has just extended (failure catalogue BL1). 0 otherwise.
   */
  readonly leaderTerm: Term;
}

export function raftRequest<Kind extends RaftRequestKind>(
  kind: Kind,
  body: Bodies[Kind],
  more: { leaderTerm?: Term } = {},
): RaftRequestOf<Kind> {
  return { kind, body, id: 0n, username: "", authRevision: 0, leaderTerm: more.leaderTerm ?? 0 };
}

interface KindCodec {
  readonly kind: RaftRequestKind;
  readonly field: number;
  readonly type: api.MessageType<object>;
}

function codec<Kind extends RaftRequestKind>(kind: Kind, field: number, type: api.MessageType<Bodies[Kind]>): KindCodec {
  return { kind, field, type: type as unknown as api.MessageType<object> };
}

const CODECS: readonly KindCodec[] = [
  codec("put", 4, api.PutRequest),
  codec("delete-range", 5, api.DeleteRangeRequest),
  codec("txn", 6, api.TxnRequest),
  codec("compaction", 7, api.CompactionRequest),
  codec("lease-grant", 8, api.LeaseGrantRequest),
  codec("lease-revoke", 9, api.LeaseRevokeRequest),
  codec("alarm", 10, api.AlarmRequest),
  codec("lease-checkpoint", 11, api.LeaseCheckpointRequest),
  codec("auth-enable", 1000, api.AuthEnableRequest),
  codec("auth-disable", 1011, api.AuthDisableRequest),
  codec("authenticate", 1012, api.InternalAuthenticateRequest),
  codec("auth-status", 1013, api.AuthStatusRequest),
  codec("auth-user-add", 1100, api.AuthUserAddRequest),
  codec("auth-user-delete", 1101, api.AuthUserDeleteRequest),
  codec("auth-user-get", 1102, api.AuthUserGetRequest),
  codec("auth-user-change-password", 1103, api.AuthUserChangePasswordRequest),
  codec("auth-user-grant-role", 1104, api.AuthUserGrantRoleRequest),
  codec("auth-user-revoke-role", 1105, api.AuthUserRevokeRoleRequest),
  codec("auth-user-list", 1106, api.AuthUserListRequest),
  codec("auth-role-list", 1107, api.AuthRoleListRequest),
  codec("auth-role-add", 1200, api.AuthRoleAddRequest),
  codec("auth-role-delete", 1201, api.AuthRoleDeleteRequest),
  codec("auth-role-get", 1202, api.AuthRoleGetRequest),
  codec("auth-role-grant-permission", 1203, api.AuthRoleGrantPermissionRequest),
  codec("auth-role-revoke-permission", 1204, api.AuthRoleRevokePermissionRequest),
  codec("cluster-version-set", 1300, api.ClusterVersionSetRequest),
  codec("member-attributes-set", 1301, api.ClusterMemberAttrSetRequest),
  codec("downgrade-info-set", 1302, api.DowngradeInfoSetRequest),
];
const BY_KIND = new Map(CODECS.map((one) => [one.kind, one]));
const BY_FIELD = new Map(CODECS.map((one) => [one.field, one]));

const HEADER_FIELD = 100;
/** Our own addition, outside the numbers that etcd uses. */
const LEADER_TERM_FIELD = 20_000;

const LENGTH_DELIMITED = 2;

const scratch = new Writer(65_536);

/** The writer works back to front. */
export function encodeRaftRequest(request: RaftRequest): Uint8Array {
  const one = BY_KIND.get(request.kind) as KindCodec;
  scratch.reset();
  if (request.leaderTerm !== 0) scratch.number(LEADER_TERM_FIELD * 8, request.leaderTerm);
  const headerEnd = scratch.length;
  if (request.authRevision !== 0) scratch.number(3 * 8, request.authRevision);
  if (request.username !== "") scratch.string(2 * 8 + LENGTH_DELIMITED, request.username);
  scratch.bigint(1 * 8, request.id);
  scratch.close(HEADER_FIELD * 8 + LENGTH_DELIMITED, headerEnd);
  const bodyEnd = scratch.length;
  one.type.encodeTo(scratch, request.body);
  scratch.close(one.field * 8 + LENGTH_DELIMITED, bodyEnd);
  return scratch.copy();
}

/** @throws ProtoDecodeError, also for a request that this version does not know. */
export function decodeRaftRequest(bytes: Uint8Array): RaftRequest {
  const reader = new Reader(bytes);
  const end = bytes.byteLength;
  let id = 0n;
  let username = "";
  let authRevision = 0;
  let leaderTerm = 0;
  let kind: RaftRequestKind | undefined;
  let body: object | undefined;
  while (reader.pos < end) {
    const tag = reader.tag(end);
    const field = tag >>> 3;
    const one = BY_FIELD.get(field);
    if (one !== undefined && (tag & 7) === LENGTH_DELIMITED) {
      kind = one.kind;
      body = one.type.decode(reader.view(end));
    } else if (field === HEADER_FIELD && (tag & 7) === LENGTH_DELIMITED) {
      const header = api.RequestHeader.decode(reader.view(end));
      id = header.id;
      username = header.username;
      authRevision = header.authRevision;
    } else if (tag === LEADER_TERM_FIELD * 8) {
      leaderTerm = reader.counterUnsigned(end);
    } else {
      reader.skip(tag, end);
    }
  }
  if (kind === undefined || body === undefined) throw new api.ProtoDecodeError("invalid-wire-format");
  return { kind, body, id, username, authRevision, leaderTerm } as RaftRequest;
}
