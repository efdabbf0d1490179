/** Small records of etcd's store: how they look in its buckets, in both directions. Names and forms are those of etcd 3.7. */
import { Role, User, Writer } from "../../api/index.ts";
import { type AuthImage, FIRST_AUTH_REVISION } from "../../auth/index.ts";
import { equalBytes, utf8Bytes, utf8TextStrict } from "../../base/bytes.ts";
import { hexId, type LeaseId, type MemberId } from "../../base/ids.ts";
import { LEASE_TTL_SECONDS_MAX, type LeaseRow } from "../../lease/index.ts";
import type { ConfState } from "../../raft/index.ts";
import type { MemberRecord } from "../membership.ts";
import { BoltCorruptError } from "./bolt-format.ts";

/** Buckets, in the order of their names. */
export const BUCKETS = [
  "alarm",
  "auth",
  "authRoles",
  "authUsers",
  "cluster",
  "key",
  "lease",
  "members",
  "members_removed",
  "meta",
] as const;
export type BucketName = (typeof BUCKETS)[number];

export const META_KEYS = {
  consistentIndex: utf8Bytes("consistent_index"),
  term: utf8Bytes("term"),
  confState: utf8Bytes("confState"),
  storageVersion: utf8Bytes("storageVersion"),
  scheduledCompaction: utf8Bytes("scheduledCompactRev"),
  finishedCompaction: utf8Bytes("finishedCompactRev"),
} as const;

export const CLUSTER_KEYS = { version: utf8Bytes("clusterVersion"), downgrade: utf8Bytes("downgrade") } as const;

export type Pair = readonly [Uint8Array, Uint8Array];

const AUTH_KEYS = { enabled: utf8Bytes("authEnabled"), revision: utf8Bytes("authRevision") } as const;

/** Users and roles, under their names, and the marks beside them. Like etcd's, a store that never had the switch on has no mark for it. */
export function authBuckets(image: AuthImage): { readonly marks: Pair[]; readonly users: Pair[]; readonly roles: Pair[] } {
  const marks: Pair[] = [[AUTH_KEYS.revision, uint64Bytes(image.revision)]];
  if (image.enabled) marks.push([AUTH_KEYS.enabled, Uint8Array.of(1)]);
  return {
    marks,
    users: image.users.map((user) => [user.name, User.encode(user)]),
    roles: image.roles.map((role) => [role.name, Role.encode(role)]),
  };
}

/** The inverse. @throws BoltCorruptError, ProtoDecodeError */
export function readAuthBuckets(marks: readonly Pair[], users: readonly Pair[], roles: readonly Pair[]): AuthImage {
  const mark = (key: Uint8Array): Uint8Array | undefined => marks.find(([one]) => equalBytes(one, key))?.[1];
  const enabled = mark(AUTH_KEYS.enabled);
  const revision = readUint64(mark(AUTH_KEYS.revision));
  return {
    enabled: enabled?.byteLength === 1 && enabled[0] === 1,
    // etcd older than 3.1 kept none, and starts counting then.
    revision: revision === undefined || revision === 0 ? FIRST_AUTH_REVISION : revision,
    users: users.map(([name, value]) => named(User.decode(value.slice()), name)),
    roles: roles.map(([name, value]) => named(Role.decode(value.slice()), name)),
  };
}

function named<Message extends { readonly name: Uint8Array }>(message: Message, name: Uint8Array): Message {
  if (!equalBytes(message.name, name) || utf8TextStrict(name) === undefined)
    throw new BoltCorruptError("a user or role lies at another's name");
  return message;
}

function readUint64(bytes: Uint8Array | undefined): number | undefined {
  if (bytes === undefined) return undefined;
  const value = bytes.byteLength === 8 ? new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0) : -1n;
  if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) throw new BoltCorruptError("the auth revision is none");
  return Number(value);
}

export const REMOVED_VALUE = utf8Bytes("removed");

export function uint64Bytes(value: number | bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(value)));
  return bytes;
}

export function memberKey(id: MemberId): Uint8Array {
  return utf8Bytes(hexId(id));
}

/** Ids are JSON numbers of 64 bits, which JSON.stringify cannot write. */
export function memberJson(member: MemberRecord): Uint8Array {
  const fields = [`"id":${member.id}`, `"peerURLs":${JSON.stringify(member.peerUrls)}`];
  if (member.isLearner) fields.push('"isLearner":true');
  if (member.name !== "") fields.push(`"name":${JSON.stringify(member.name)}`);
  if (member.clientUrls.length > 0) fields.push(`"clientURLs":${JSON.stringify(member.clientUrls)}`);
  return utf8Bytes(`{${fields.join(",")}}`);
}

export function confStateJson(confState: ConfState): Uint8Array {
  const list = (name: string, ids: readonly MemberId[]): string[] => (ids.length === 0 ? [] : [`"${name}":[${ids.join(",")}]`]);
  const fields = [
    ...list("voters", confState.voters),
    ...list("learners", confState.learners),
    ...list("voters_outgoing", confState.votersOutgoing),
    ...list("learners_next", confState.learnersNext),
    `"auto_leave":${confState.autoLeave}`,
  ];
  return utf8Bytes(`{${fields.join(",")}}`);
}

export function downgradeJson(info: { enabled: boolean; targetVersion: string }): Uint8Array {
  return utf8Bytes(JSON.stringify({ "target-version": info.targetVersion, enabled: info.enabled }));
}

/** The message `leasepb.Lease`: id 1, TTL 2, remaining TTL 3. */
export function encodeLease(row: LeaseRow): Uint8Array {
  const writer = new Writer(40);
  if (row.remainingTtlSeconds > 0) writer.number(0x18, row.remainingTtlSeconds);
  writer.number(0x10, row.ttlSeconds);
  writer.bigint(0x08, row.id);
  return writer.copy();
}

/** @throws BoltCorruptError */
export function decodeLease(key: Uint8Array, bytes: Uint8Array): LeaseRow {
  const fields = [0n, 0n, 0n, 0n];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at];
      at += 1;
      if (byte === undefined) break;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(64, value);
    }
    throw new BoltCorruptError("a lease is malformed");
  };
  while (at < bytes.byteLength) {
    const tag = Number(varint());
    const value = varint();
    if ((tag & 7) !== 0 || tag >>> 3 < 1 || tag >>> 3 > 3) throw new BoltCorruptError("a lease is malformed");
    fields[tag >>> 3] = value;
  }
  const [, id = 0n, ttl = 0n, remaining = 0n] = fields;
  if (id === 0n || key.byteLength !== 8 || new DataView(key.buffer, key.byteOffset, 8).getBigInt64(0) !== id) {
    throw new BoltCorruptError("a lease does not have the id of its key");
  }
  if (ttl <= 0n || ttl > BigInt(LEASE_TTL_SECONDS_MAX) || remaining < 0n || remaining > ttl) {
    throw new BoltCorruptError(`lease ${hexId(id)} has a wrong TTL`);
  }
  return { id: id as LeaseId, ttlSeconds: Number(ttl), remainingTtlSeconds: Number(remaining) };
}
