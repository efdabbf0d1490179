/**
 * How users, roles and the switch are stored: rows written in the batch of the entry that changed them.
 *
 * key    RowSpace.auth, then `s` for the switch, `u` and a user's name, or `r` and a role's name (UTF-8)
 * value  the switch: 1 byte (on or off) and the auth revision (8 bytes, big-endian); a user: authpb.User; a role: authpb.Role (etcd's own forms); behind
 *        either the CRC-32 of the key and the bytes before it (4 bytes, big-endian)
 */
import { type MessageType, Role, User } from "../api/index.ts";
import type { BackendRow } from "../backend/backend.ts";
import { RowSpace } from "../backend/row-spaces.ts";
import { assert } from "../base/assert.ts";
import { copyBytes, crc32, utf8Bytes, utf8TextStrict } from "../base/bytes.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { Revision } from "../base/ids.ts";

/** Where all rows of this root lie; fits the backend's `iterate`. */
export const AUTH_ROWS: { readonly gte: Uint8Array; readonly lt: Uint8Array } = {
  gte: Uint8Array.of(RowSpace.auth),
  lt: Uint8Array.of(RowSpace.auth + 1),
};

/** A stored row whose bytes are not what was written: the backend must be rebuilt. */
export class CorruptAuthRowError extends EtcdError {
  constructor(what: string) {
    super("corrupt-auth-row", GrpcCode.DataLoss, `stored users and roles are damaged: ${what}`);
    this.name = "CorruptAuthRowError";
  }
}

export interface AuthSwitch {
  readonly enabled: boolean;
  readonly revision: Revision;
}

/** All that is stored. */
export interface AuthImage extends AuthSwitch {
  readonly users: readonly User[];
  readonly roles: readonly Role[];
}

/** Revision of a store in which nothing was ever changed. */
export const FIRST_AUTH_REVISION = 1;

const SWITCH = 0x73;
const USER = 0x75;
const ROLE = 0x72;
const PREFIX_BYTES = 2;
const CHECKSUM_BYTES = 4;
const SWITCH_BYTES = 9;
const TWO_32 = 4294967296;

function rowKey(tag: number, name: Uint8Array): Uint8Array {
  const key = new Uint8Array(PREFIX_BYTES + name.length);
  key[0] = RowSpace.auth;
  key[1] = tag;
  key.set(name, PREFIX_BYTES);
  return key;
}

const SWITCH_KEY = rowKey(SWITCH, new Uint8Array(0));

export function userRowKey(name: string): Uint8Array {
  return rowKey(USER, utf8Bytes(name));
}

export function roleRowKey(name: string): Uint8Array {
  return rowKey(ROLE, utf8Bytes(name));
}

function sealed(key: Uint8Array, content: Uint8Array): BackendRow {
  const value = new Uint8Array(content.length + CHECKSUM_BYTES);
  value.set(content);
  new DataView(value.buffer).setUint32(content.length, crc32(content, crc32(key)));
  return [key, value];
}

function opened([key, value]: BackendRow): Uint8Array {
  const length = value.length - CHECKSUM_BYTES;
  if (length < 0) throw new CorruptAuthRowError("a row is cut short");
  const content = value.subarray(0, length);
  const sum = new DataView(value.buffer, value.byteOffset, value.byteLength).getUint32(length);
  if (sum !== crc32(content, crc32(key))) throw new CorruptAuthRowError("a checksum is wrong");
  return content;
}

export function switchRow({ enabled, revision }: AuthSwitch): BackendRow {
  assert(Number.isSafeInteger(revision) && revision >= FIRST_AUTH_REVISION, "the auth revision is a counter", { revision });
  const content = new Uint8Array(SWITCH_BYTES);
  const view = new DataView(content.buffer);
  content[0] = enabled ? 1 : 0;
  view.setUint32(1, Math.floor(revision / TWO_32));
  view.setUint32(5, revision % TWO_32);
  return sealed(SWITCH_KEY, content);
}

export function userRow(user: User): BackendRow {
  return sealed(rowKey(USER, user.name), User.encode(user));
}

export function roleRow(role: Role): BackendRow {
  return sealed(rowKey(ROLE, role.name), Role.encode(role));
}

/** Rows of a whole store, for restoring a backup. */
export function authImageRows(image: AuthImage): BackendRow[] {
  return [switchRow(image), ...image.users.map(userRow), ...image.roles.map(roleRow)];
}

/** @throws CorruptAuthRowError when any byte is not as it was written. */
export function readAuthRows(rows: Iterable<BackendRow>): AuthImage {
  let enabled = false;
  let revision = FIRST_AUTH_REVISION;
  const users: User[] = [];
  const roles: Role[] = [];
  for (const row of rows) {
    const [key] = row;
    const content = opened(row);
    const name = utf8TextStrict(key.subarray(PREFIX_BYTES));
    if (key[0] !== RowSpace.auth || name === undefined) throw new CorruptAuthRowError("a key is none");
    switch (key[1]) {
      case SWITCH: {
        if (content.length !== SWITCH_BYTES || name !== "") throw new CorruptAuthRowError("the switch");
        const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
        enabled = content[0] === 1;
        revision = view.getUint32(1) * TWO_32 + view.getUint32(5);
        break;
      }
      case USER:
        users.push(decoded(User, content, key));
        break;
      case ROLE:
        roles.push(decoded(Role, content, key));
        break;
      default:
        throw new CorruptAuthRowError("a row of an unknown kind");
    }
  }
  return { enabled, revision, users, roles };
}

function decoded<Message extends { name: Uint8Array }>(type: MessageType<Message>, content: Uint8Array, key: Uint8Array): Message {
  let message: Message;
  try {
    // The message keeps views of what it is read from.
    message = type.decode(copyBytes(content));
  } catch (error) {
    if (!EtcdError.is(error)) throw error;
    throw new CorruptAuthRowError(error.message);
  }
  const { name } = message;
  if (name.length !== key.length - PREFIX_BYTES || name.some((byte, at) => byte !== key[at + PREFIX_BYTES]))
    throw new CorruptAuthRowError("a row lies at another's key");
  return message;
}
