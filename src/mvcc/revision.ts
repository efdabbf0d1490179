/**
 * Keys of the rows (layout: docs/FORMATS.md, "MVCC rows"):
 *
 *     "k", main revision (8 bytes, big endian), sub revision (4 bytes, big endian)            a put
 *     the same, "t"                                                                           a deletion
 *
 * so that the order of the keys is the order of the changes. And the form of the same key that etcd stores and hashes:
 *
 *     main (8 bytes, big endian), "_", sub (8 bytes, big endian), "t" for a deletion
 */

import { RowSpace } from "../backend/row-spaces.ts";
import type { Revision } from "../base/ids.ts";

/** Position of one change: revision and its number inside the revision. */
export interface RevisionPosition {
  readonly main: Revision;
  readonly sub: number;
}

const TWO_32 = 0x100000000;
const TOMBSTONE_MARK = 0x74; // "t"

export const ROW_KEY_BYTES = 13;
export const TOMBSTONE_KEY_BYTES = 14;
/** A sub revision takes four bytes. */
export const SUB_MAX = TWO_32 - 1;

function writePosition(key: Uint8Array, main: number, sub: number): void {
  key[0] = RowSpace.revision;
  writeUint64(key, 1, main);
  writeUint32(key, 9, sub);
}

function writeUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** `value` is a whole number in [0, 2^53). */
export function writeUint64(bytes: Uint8Array, at: number, value: number): void {
  writeUint32(bytes, at, Math.floor(value / TWO_32));
  writeUint32(bytes, at + 4, value);
}

export function readUint32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) << 24) | ((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number)) >>> 0
  );
}

export function readUint64(bytes: Uint8Array, at: number): number {
  return readUint32(bytes, at) * TWO_32 + readUint32(bytes, at + 4);
}

export function rowKey(main: number, sub: number): Uint8Array {
  const key = new Uint8Array(ROW_KEY_BYTES);
  writePosition(key, main, sub);
  return key;
}

export function tombstoneKey(main: number, sub: number): Uint8Array {
  const key = new Uint8Array(TOMBSTONE_KEY_BYTES);
  writePosition(key, main, sub);
  key[ROW_KEY_BYTES] = TOMBSTONE_MARK;
  return key;
}

/** The first key that the changes from `main` on can have. */
export function rowKeyFrom(main: number): Uint8Array {
  return rowKey(main, 0);
}

/** True if `key` is a row key of either kind. */
export function isRowKey(key: Uint8Array): boolean {
  return (
    key[0] === RowSpace.revision &&
    (key.length === ROW_KEY_BYTES || (key.length === TOMBSTONE_KEY_BYTES && key[ROW_KEY_BYTES] === TOMBSTONE_MARK))
  );
}

export function mainOf(key: Uint8Array): number {
  return readUint64(key, 1);
}

export function subOf(key: Uint8Array): number {
  return readUint32(key, 9);
}

export function isTombstoneKey(key: Uint8Array): boolean {
  return key.length === TOMBSTONE_KEY_BYTES;
}

/** The key of a change as etcd stores it: what HashKV hashes. `into` must have 18 bytes; the result is a view of it. */
export function hashedKey(into: Uint8Array, main: number, sub: number, tombstone: boolean): Uint8Array {
  writeUint64(into, 0, main);
  into[8] = 0x5f; // "_"
  writeUint64(into, 9, sub);
  if (!tombstone) return into.subarray(0, 17);
  into[17] = TOMBSTONE_MARK;
  return into.subarray(0, 18);
}
