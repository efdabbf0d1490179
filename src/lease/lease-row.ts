/**
 * How a lease is stored: one row per lease, written in the batch of the entry that granted or checkpointed it and deleted in the batch of
 * the entry that revoked it. Attached keys are not stored here: the keys' own rows name their lease.
 *
 * key    RowSpace.lease, id (8 bytes, two's complement, big-endian)
 * value  version (1 byte, 1), TTL seconds (8), checkpointed remaining seconds or 0 (8), CRC-32 of key and the bytes before it (4)
 */

import { RowSpace } from "../backend/row-spaces.ts";
import { assert } from "../base/assert.ts";
import { crc32 } from "../base/bytes.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import { hexId, type LeaseId } from "../base/ids.ts";

const KEY_BYTES = 9;
const VALUE_VERSION = 1;
const CHECKED_BYTES = 17;
const VALUE_BYTES = CHECKED_BYTES + 4;
const TWO_32 = 4294967296;

/** Longest TTL that can be granted, in seconds. In milliseconds it is still far below 2^53. */
export const LEASE_TTL_SECONDS_MAX = 9_000_000_000;

export interface LeaseRow {
  readonly id: LeaseId;
  readonly ttlSeconds: number;
  /** The leader's last checkpoint of the time left; 0 when there is none. */
  readonly remainingTtlSeconds: number;
}

/** A stored lease whose bytes are not what was written: the backend must be rebuilt. */
export class CorruptLeaseRowError extends EtcdError {
  constructor(what: string) {
    super("corrupt-lease-row", GrpcCode.DataLoss, `stored lease is damaged: ${what}`);
    this.name = "CorruptLeaseRowError";
  }
}

/** Where the rows of all leases lie; fits the backend's `iterate`. */
export const LEASE_ROWS: { readonly gte: Uint8Array; readonly lt: Uint8Array } = {
  gte: Uint8Array.of(RowSpace.lease),
  lt: Uint8Array.of(RowSpace.lease + 1),
};

export function leaseRowKey(id: LeaseId): Uint8Array {
  const key = new Uint8Array(KEY_BYTES);
  key[0] = RowSpace.lease;
  new DataView(key.buffer).setBigInt64(1, id);
  return key;
}

/** The value of the row; its key is {@link leaseRowKey}, which the checksum covers too. */
export function encodeLeaseRow(row: LeaseRow): Uint8Array {
  assert(validSeconds(row.ttlSeconds) && row.ttlSeconds > 0, "a stored lease has a TTL", { ttlSeconds: row.ttlSeconds });
  const value = new Uint8Array(VALUE_BYTES);
  const view = new DataView(value.buffer);
  value[0] = VALUE_VERSION;
  setSeconds(view, 1, row.ttlSeconds);
  // Cut as the lessor cuts it: a checkpoint comes out of the log.
  setSeconds(view, 9, Math.min(Math.max(row.remainingTtlSeconds, 0), row.ttlSeconds));
  view.setUint32(CHECKED_BYTES, checksum(leaseRowKey(row.id), value));
  return value;
}

/** @throws CorruptLeaseRowError when any byte of key or value is not as written. */
export function decodeLeaseRow(key: Uint8Array, value: Uint8Array): LeaseRow {
  if (key.length !== KEY_BYTES || key[0] !== RowSpace.lease) throw new CorruptLeaseRowError("not a lease's key");
  const id = new DataView(key.buffer, key.byteOffset, KEY_BYTES).getBigInt64(1) as LeaseId;
  if (value.length !== VALUE_BYTES || value[0] !== VALUE_VERSION) throw new CorruptLeaseRowError(`format of lease ${hexId(id)}`);
  const view = new DataView(value.buffer, value.byteOffset, VALUE_BYTES);
  if (view.getUint32(CHECKED_BYTES) !== checksum(key, value)) throw new CorruptLeaseRowError(`checksum of lease ${hexId(id)}`);
  const ttlSeconds = getSeconds(view, 1);
  const remainingTtlSeconds = getSeconds(view, 9);
  if (!validSeconds(ttlSeconds) || ttlSeconds === 0 || remainingTtlSeconds > ttlSeconds)
    throw new CorruptLeaseRowError(`TTL of lease ${hexId(id)}`);
  return { id, ttlSeconds, remainingTtlSeconds };
}

function validSeconds(seconds: number): boolean {
  return Number.isInteger(seconds) && seconds >= 0 && seconds <= LEASE_TTL_SECONDS_MAX;
}

function setSeconds(view: DataView, at: number, seconds: number): void {
  view.setUint32(at, Math.floor(seconds / TWO_32));
  view.setUint32(at + 4, seconds % TWO_32);
}

function getSeconds(view: DataView, at: number): number {
  return view.getUint32(at) * TWO_32 + view.getUint32(at + 4);
}

function checksum(key: Uint8Array, value: Uint8Array): number {
  return crc32(value.subarray(0, CHECKED_BYTES), crc32(key));
}
