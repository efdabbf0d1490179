/**
 * Values of the rows: a checksum (4 bytes, big endian), then the KeyValue message exactly as etcd stores it (fields in order of their
 * numbers, zero fields left out; of a deletion only the key), so that it can be copied into answers and HashKV is the same.
 *
 * The checksum is CRC-32 over the message, seeded with the position of the row, so that a row that came back from another place does
 * not pass either (failure catalogue BW16, BW21).
 */
import type { KeyValue } from "../api/index.ts";
import { allocateBytes, crc32, EMPTY_BYTES, type KeyString, keyStringIn } from "../base/bytes.ts";
import { NO_LEASE } from "../base/ids.ts";
import { RowCorruptError } from "./errors.ts";
import { readUint32 } from "./revision.ts";

/** Bytes of the checksum in front of the message. */
export const CHECKSUM_BYTES = 4;

const TAG_KEY = 10;
const TAG_CREATE = 16;
const TAG_MOD = 24;
const TAG_VERSION = 32;
const TAG_VALUE = 42;
const TAG_LEASE = 48;

const TWO_7 = 128;
const TWO_28 = 268435456;
const TWO_32 = 0x100000000;

function seedOf(main: number, sub: number, tombstone: boolean): number {
  const mixed = Math.imul(Math.floor(main / TWO_32) + 1, 0x9e3779b1) ^ (main >>> 0) ^ Math.imul(sub + 1, 0x85ebca6b);
  return (tombstone ? ~mixed : mixed) >>> 0;
}

function sizeOfNumber(value: number): number {
  let size = 1;
  for (let rest = value; rest >= TWO_7; rest = Math.floor(rest / TWO_7)) size += 1;
  return size;
}

/** Writes a varint and returns where it ends. */
function writeNumber(bytes: Uint8Array, at: number, value: number): number {
  let to = at;
  let rest = value;
  while (rest >= TWO_28) {
    bytes[to] = (rest % TWO_7) | 0x80;
    rest = Math.floor(rest / TWO_7);
    to += 1;
  }
  let small = rest | 0;
  while (small >= TWO_7) {
    bytes[to] = small | 0x80;
    small >>>= 7;
    to += 1;
  }
  bytes[to] = small;
  return to + 1;
}

function sizeOfLease(lease: bigint): number {
  let size = 1;
  for (let rest = BigInt.asUintN(64, lease); rest >= 128n; rest >>= 7n) size += 1;
  return size;
}

function writeLease(bytes: Uint8Array, at: number, lease: bigint): number {
  let to = at;
  let rest = BigInt.asUintN(64, lease);
  for (; rest >= 128n; rest >>= 7n) {
    bytes[to] = Number(rest & 127n) | 0x80;
    to += 1;
  }
  bytes[to] = Number(rest);
  return to + 1;
}

const SLAB_BYTES = 65_536;
/** Larger rows get memory of their own. */
const SLAB_ROW_MAX = 8192;

/**
 * Memory for rows, cut from slabs: an allocation of its own costs more than everything else that writing a small row takes. A slab lives
 * as long as any row in it, so whoever keeps rows long and few must copy them (see `ValueCache`).
 */
export class RowArena {
  /** What the last `reserve` gave: a buffer and an offset. */
  bytes: Uint8Array = EMPTY_BYTES;
  offset = 0;
  #slab: Uint8Array = EMPTY_BYTES;
  #used = 0;

  reserve(size: number): void {
    if (size > SLAB_ROW_MAX) {
      this.bytes = allocateBytes(size);
      this.offset = 0;
      return;
    }
    if (this.#used + size > this.#slab.length) {
      this.#slab = allocateBytes(SLAB_BYTES);
      this.#used = 0;
    }
    this.bytes = this.#slab;
    this.offset = this.#used;
    this.#used += size;
  }
}

/**
 * A stored pair as the store keeps it: where its message lies in some memory, and the numbers of it. The views that a KeyValue needs are
 * made when the pair is read: they cost more than most values, and most of what is written is not read soon. Not a KeyValue, on purpose,
 * not even in shape: answers are plain objects.
 */
export class StoredPair {
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  readonly lease: bigint;
  readonly #bytes: Uint8Array;
  readonly #from: number;
  readonly #to: number;
  readonly #keyFrom: number;
  readonly #keyTo: number;
  readonly #valueFrom: number;
  readonly #valueTo: number;
  #kv: KeyValue | undefined = undefined;

  /** The message is `bytes[from, to)`; the other places are inside it. Without a value, `valueFrom` is `valueTo`. */
  constructor(
    bytes: Uint8Array,
    from: number,
    to: number,
    keyFrom: number,
    keyTo: number,
    valueFrom: number,
    valueTo: number,
    createRevision: number,
    modRevision: number,
    version: number,
    lease: bigint,
  ) {
    this.createRevision = createRevision;
    this.modRevision = modRevision;
    this.version = version;
    this.lease = lease;
    this.#bytes = bytes;
    this.#from = from;
    this.#to = to;
    this.#keyFrom = keyFrom;
    this.#keyTo = keyTo;
    this.#valueFrom = valueFrom;
    this.#valueTo = valueTo;
  }

  get wireLength(): number {
    return this.#to - this.#from;
  }

  get wireBytes(): Uint8Array {
    return view(this.#bytes, this.#from, this.#to);
  }

  get keyBytes(): Uint8Array {
    return view(this.#bytes, this.#keyFrom, this.#keyTo);
  }

  get keyString(): KeyString {
    return keyStringIn(this.#bytes, this.#keyFrom, this.#keyTo);
  }

  get valueBytes(): Uint8Array {
    return this.#valueFrom === this.#valueTo ? EMPTY_BYTES : view(this.#bytes, this.#valueFrom, this.#valueTo);
  }

  /** The message for an answer: made once, because what is read is read again. Whoever gets it must not change it. */
  get keyValue(): KeyValue {
    this.#kv ??= this.toKeyValue();
    return this.#kv;
  }

  /** A message of one's own, with its wire form; views of the pair's memory. */
  toKeyValue(): KeyValue {
    return {
      key: this.keyBytes,
      createRevision: this.createRevision,
      modRevision: this.modRevision,
      version: this.version,
      value: this.valueBytes,
      lease: this.lease,
      wire: this.wireBytes,
    };
  }

  /** A copy in memory of the arena. Pairs too large for a slab have memory of their own and are returned as they are. */
  unslabbed(arena: RowArena): StoredPair {
    const size = this.wireLength;
    if (size + CHECKSUM_BYTES > SLAB_ROW_MAX) return this;
    arena.reserve(size);
    const { bytes, offset } = arena;
    bytes.set(this.wireBytes, offset);
    const moved = offset - this.#from;
    return new StoredPair(
      bytes,
      offset,
      offset + size,
      this.#keyFrom + moved,
      this.#keyTo + moved,
      this.#valueFrom + moved,
      this.#valueTo + moved,
      this.createRevision,
      this.modRevision,
      this.version,
      this.lease,
    );
  }
}

export interface PutRow {
  readonly row: Uint8Array;
  readonly pair: StoredPair;
}

/** A view; Uint8Array even where the memory is a platform buffer. */
function view(bytes: Uint8Array, from: number, to: number): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset + from, to - from);
}

function writeChecksum(bytes: Uint8Array, from: number, wire: Uint8Array, seed: number): void {
  const sum = crc32(wire, seed);
  bytes[from] = sum >>> 24;
  bytes[from + 1] = sum >>> 16;
  bytes[from + 2] = sum >>> 8;
  bytes[from + 3] = sum;
}

/** Encodes a put. Copies `key` and `value`; the result lives in the arena. */
export function encodePut(
  arena: RowArena,
  key: Uint8Array,
  createRevision: number,
  main: number,
  sub: number,
  version: number,
  value: Uint8Array,
  lease: bigint,
): PutRow {
  const keyLength = key.length;
  const valueLength = value.length;
  let size =
    CHECKSUM_BYTES + 4 + sizeOfNumber(keyLength) + keyLength + sizeOfNumber(createRevision) + sizeOfNumber(main) + sizeOfNumber(version);
  if (valueLength > 0) size += 1 + sizeOfNumber(valueLength) + valueLength;
  if (lease !== NO_LEASE) size += 1 + sizeOfLease(lease);
  arena.reserve(size);
  const { bytes, offset } = arena;
  const start = offset + CHECKSUM_BYTES;
  bytes[start] = TAG_KEY;
  const keyAt = writeNumber(bytes, start + 1, keyLength);
  bytes.set(key, keyAt);
  let at = keyAt + keyLength;
  bytes[at] = TAG_CREATE;
  at = writeNumber(bytes, at + 1, createRevision);
  bytes[at] = TAG_MOD;
  at = writeNumber(bytes, at + 1, main);
  bytes[at] = TAG_VERSION;
  at = writeNumber(bytes, at + 1, version);
  if (valueLength > 0) {
    bytes[at] = TAG_VALUE;
    at = writeNumber(bytes, at + 1, valueLength);
    bytes.set(value, at);
    at += valueLength;
  }
  const valueEnd = at;
  if (lease !== NO_LEASE) {
    bytes[at] = TAG_LEASE;
    at = writeLease(bytes, at + 1, lease);
  }
  writeChecksum(bytes, offset, view(bytes, start, at), seedOf(main, sub, false));
  return {
    row: view(bytes, offset, at),
    pair: new StoredPair(
      bytes,
      start,
      at,
      keyAt,
      keyAt + keyLength,
      valueEnd - valueLength,
      valueEnd,
      createRevision,
      main,
      version,
      lease,
    ),
  };
}

/** The row of a message that somebody else encoded. Copies; the message is not looked at. */
export function sealRow(wire: Uint8Array, main: number, sub: number, tombstone: boolean): Uint8Array {
  const row = new Uint8Array(CHECKSUM_BYTES + wire.length);
  row.set(wire, CHECKSUM_BYTES);
  writeChecksum(row, 0, view(row, CHECKSUM_BYTES, row.length), seedOf(main, sub, tombstone));
  return row;
}

/** Encodes a deletion, in the arena. One char of `key` is one byte. */
export function encodeTombstone(arena: RowArena, key: KeyString, main: number, sub: number): Uint8Array {
  const length = key.length;
  arena.reserve(CHECKSUM_BYTES + 1 + sizeOfNumber(length) + length);
  const { bytes, offset } = arena;
  const start = offset + CHECKSUM_BYTES;
  bytes[start] = TAG_KEY;
  const keyAt = writeNumber(bytes, start + 1, length);
  for (let i = 0; i < length; i += 1) bytes[keyAt + i] = key.charCodeAt(i);
  const end = keyAt + length;
  writeChecksum(bytes, offset, view(bytes, start, end), seedOf(main, sub, true));
  return view(bytes, offset, end);
}

/** The message of a deletion, as stored and hashed. */
export function tombstoneWire(key: Uint8Array): Uint8Array {
  const head = 1 + sizeOfNumber(key.length);
  const wire = new Uint8Array(head + key.length);
  wire[0] = TAG_KEY;
  writeNumber(wire, 1, key.length);
  wire.set(key, head);
  return wire;
}

/**
 * Reads rows that came back from the backend. Strict: anything but what `encodePut` and `encodeTombstone` write is corruption. The
 * fields of the reader hold the last row ("registers"), because a scan of millions of rows makes no objects that it does not keep.
 */
export class RowReader {
  /** Where the key stands in the row. */
  keyFrom = 0;
  keyTo = 0;
  create = 0;
  version = 0;
  valueFrom = 0;
  valueTo = 0;
  lease: bigint = NO_LEASE;

  readonly #verifyChecksum: boolean;
  #at = 0;

  constructor(options: { verifyChecksum: boolean }) {
    this.#verifyChecksum = options.verifyChecksum;
  }

  /** Checks and takes apart the value of the row at that position. @throws RowCorruptError */
  read(row: Uint8Array, main: number, sub: number, tombstone: boolean): void {
    if (row.length < CHECKSUM_BYTES + 3) this.#fail(main, sub, "is too short");
    if (this.#verifyChecksum && crc32(view(row, CHECKSUM_BYTES, row.length), seedOf(main, sub, tombstone)) !== readUint32(row, 0)) {
      this.#fail(main, sub, "has a wrong checksum");
    }
    const end = row.length;
    this.#at = CHECKSUM_BYTES;
    if (row[this.#at] !== TAG_KEY) this.#fail(main, sub, "has no key");
    this.#at += 1;
    const keyLength = this.#number(row);
    this.keyFrom = this.#at;
    this.keyTo = this.#at + keyLength;
    this.#at = this.keyTo;
    this.create = 0;
    this.version = 0;
    this.valueFrom = 0;
    this.valueTo = 0;
    this.lease = NO_LEASE;
    if (keyLength === 0 || this.keyTo > end) this.#fail(main, sub, "has no key");
    if (tombstone) {
      if (this.#at !== end) this.#fail(main, sub, "is a deletion with a value");
      return;
    }
    this.create = this.#field(row, TAG_CREATE);
    const modRevision = this.#field(row, TAG_MOD);
    this.version = this.#field(row, TAG_VERSION);
    if (modRevision !== main || this.create === 0 || this.create > main || this.version === 0)
      this.#fail(main, sub, "is not the row of its position");
    if (row[this.#at] === TAG_VALUE) {
      this.#at += 1;
      const length = this.#number(row);
      if (length === 0) this.#fail(main, sub, "has an odd value");
      this.valueFrom = this.#at;
      this.valueTo = this.#at + length;
      this.#at = this.valueTo;
    }
    if (row[this.#at] === TAG_LEASE) {
      this.#at += 1;
      this.lease = this.#readLease(row);
    }
    if (this.#at !== end) this.#fail(main, sub, "does not end where it should");
  }

  keyString(row: Uint8Array): KeyString {
    return keyStringIn(row, this.keyFrom, this.keyTo);
  }

  /** The pair of the row that was read last. It keeps `row` alive. */
  pair(row: Uint8Array, main: number): StoredPair {
    const { keyFrom, keyTo, valueFrom, valueTo, create, version, lease } = this;
    return new StoredPair(row, CHECKSUM_BYTES, row.length, keyFrom, keyTo, valueFrom, valueTo, create, main, version, lease);
  }

  #fail(main: number, sub: number, problem: string): never {
    throw new RowCorruptError({ main, sub, problem });
  }

  #field(row: Uint8Array, tag: number): number {
    if (row[this.#at] !== tag) return 0;
    this.#at += 1;
    return this.#number(row);
  }

  /** A varint below 2^53; 0, which no caller accepts, if it is none. */
  #number(row: Uint8Array): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 8; i += 1) {
      const byte = row[this.#at];
      if (byte === undefined) return 0;
      this.#at += 1;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value <= Number.MAX_SAFE_INTEGER ? value : 0;
      scale *= TWO_7;
    }
    return 0;
  }

  #readLease(row: Uint8Array): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = row[this.#at];
      if (byte === undefined) break;
      this.#at += 1;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(64, value);
    }
    this.#at = -1;
    return NO_LEASE;
  }
}
