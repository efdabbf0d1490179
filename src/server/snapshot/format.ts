/**
 * The state snapshot that members stream to each other: all rows of the backend as of one applied index. Layout (docs/FORMATS.md, "State
 * snapshot"), all numbers big-endian:
 *
 *   magic, then blocks: | 4 bytes: length of the body | 4 bytes: CRC-32 of the body | body: 1 byte kind, content |
 *   one header block    format version, cluster id, position, conf state
 *   row blocks          key length, value length, key, value; again and again; keys ascend over the whole snapshot
 *   one trailer block   number of rows, their bytes, SHA-256 of everything before this block
 *
 * The blocks' checksums find damage early and while the stream runs; the digest covers the whole and is part of the snapshot's name, so
 * two snapshots of one name are the same bytes.
 */
import { createHash, type Hash } from "node:crypto";
import type { BackendRow } from "../../backend/backend.ts";
import { assert } from "../../base/assert.ts";
import { allocateBytes, concatBytes, crc32, equalBytes, hexText } from "../../base/bytes.ts";
import type { ClusterId, LogIndex, MemberId, Term } from "../../base/ids.ts";
import type { ConfState } from "../../raft/index.ts";
import { SnapshotCorruptError } from "./errors.ts";

export interface SnapshotHeader {
  readonly clusterId: ClusterId;
  readonly index: LogIndex;
  readonly term: Term;
  readonly confState: ConfState;
}

const MAGIC = new Uint8Array([0x48, 0x46, 0x53, 0x4e, 0x41, 0x50, 0x30, 0x31]); // "HFSNAP01"
const FORMAT_VERSION = 1;
const PREFIX_BYTES = 8;
const DIGEST_BYTES = 32;

const BlockKind = { header: 1, rows: 2, trailer: 3 } as const;

/** Rows are gathered up to this size; a larger row has a block of its own. */
export const BLOCK_TARGET_BYTES = 64 * 1024;
/** No block may be larger: a row that is would not have come through the API. */
const BLOCK_BYTES_MAX = 256 * 1024 * 1024;
const HEADER_BYTES_MAX = 64 * 1024;
const TRAILER_BYTES = 1 + 8 + 8 + DIGEST_BYTES;
const ROW_PREFIX_BYTES = 8;

/** Names the content: applied index and digest. Safe as a file name. */
export function snapshotId(index: LogIndex, digest: Uint8Array): string {
  return `${index.toString(16).padStart(16, "0")}-${hexText(digest)}`;
}

const ID_PATTERN = /^[0-9a-f]{16}-[0-9a-f]{64}$/;

export function isSnapshotId(text: string): boolean {
  return ID_PATTERN.test(text);
}

/** Produces the bytes of a snapshot piece by piece: `begin`, `row`..., `finish`. */
export class SnapshotEncoder {
  readonly #hash: Hash = createHash("sha256");
  #block: Uint8Array = allocateBytes(PREFIX_BYTES + 1 + BLOCK_TARGET_BYTES);
  #at = PREFIX_BYTES + 1;
  #rows = 0;
  #rowBytes = 0;
  #lastKey: Uint8Array | undefined;

  begin(header: SnapshotHeader): Uint8Array {
    return this.#hashed(concatBytes([MAGIC, block(BlockKind.header, encodeHeader(header))]));
  }

  /** Adds a row; returns the block that had to be closed before it, if any. Keys must ascend. */
  row(key: Uint8Array, value: Uint8Array): Uint8Array | undefined {
    assert(key.byteLength > 0, "a row has a key");
    assert(this.#lastKey === undefined || Buffer.compare(this.#lastKey, key) < 0, "rows come in key order");
    this.#lastKey = key;
    const bytes = ROW_PREFIX_BYTES + key.byteLength + value.byteLength;
    assert(1 + bytes <= BLOCK_BYTES_MAX, "a row fits into a block");
    let closed: Uint8Array | undefined;
    if (this.#at + bytes > this.#block.byteLength) {
      closed = this.flush();
      if (this.#at + bytes > this.#block.byteLength) this.#block = allocateBytes(this.#at + bytes);
    }
    const view = new DataView(this.#block.buffer, this.#block.byteOffset + this.#at, ROW_PREFIX_BYTES);
    view.setUint32(0, key.byteLength);
    view.setUint32(4, value.byteLength);
    this.#block.set(key, this.#at + ROW_PREFIX_BYTES);
    this.#block.set(value, this.#at + ROW_PREFIX_BYTES + key.byteLength);
    this.#at += bytes;
    this.#rows++;
    this.#rowBytes += key.byteLength + value.byteLength;
    return closed;
  }

  /** Closes the open block, if it has rows. */
  flush(): Uint8Array | undefined {
    if (this.#at === PREFIX_BYTES + 1) return undefined;
    const closed = seal(this.#block.subarray(0, this.#at), BlockKind.rows);
    this.#block = allocateBytes(PREFIX_BYTES + 1 + BLOCK_TARGET_BYTES);
    this.#at = PREFIX_BYTES + 1;
    return this.#hashed(closed);
  }

  /** The trailer, after `flush`. Nothing may follow. */
  finish(): { bytes: Uint8Array; digest: Uint8Array; rows: number } {
    assert(this.#at === PREFIX_BYTES + 1, "rows are flushed before the end");
    const digest = this.#hash.digest();
    const content = allocateBytes(TRAILER_BYTES - 1);
    const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
    writeUint53(view, 0, this.#rows);
    writeUint53(view, 8, this.#rowBytes);
    content.set(digest, 16);
    return { bytes: block(BlockKind.trailer, content), digest, rows: this.#rows };
  }

  #hashed(bytes: Uint8Array): Uint8Array {
    this.#hash.update(bytes);
    return bytes;
  }
}

/** What a reader hands out. */
export interface SnapshotReaderEvents {
  header?(header: SnapshotHeader): void;
  /** Rows of one block, in order: views of memory that is not used again. Without this handler blocks are only checked, not gathered. */
  rows?(rows: readonly BackendRow[]): void;
}

/**
 * Checks the bytes of a snapshot as they come, in pieces of any size: structure, every block's checksum, and at the end the counts and
 * the digest. Throws {@link SnapshotCorruptError}; after that it must not be used any more. Without a `rows` handler it holds a few bytes only.
 */
export class SnapshotReader {
  readonly #events: SnapshotReaderEvents;
  readonly #hash: Hash = createHash("sha256");
  /** Bytes seen. */
  position = 0;
  header: SnapshotHeader | undefined;
  #digest: Uint8Array | undefined;
  #rows = 0;
  #rowBytes = 0;
  #lastKey: Uint8Array | undefined;
  #state: "magic" | "prefix" | "body" | "done" = "magic";
  /** Bytes gathered: the magic, a block's prefix with its kind, or a body that must be looked into. */
  #gathered: Uint8Array = allocateBytes(PREFIX_BYTES + 1);
  #held = 0;
  #kind = 0;
  #bodyLeft = 0;
  #crc = 0;
  #crcWanted = 0;
  #gathering = false;

  constructor(events: SnapshotReaderEvents = {}) {
    this.#events = events;
  }

  push(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.byteLength) {
      switch (this.#state) {
        case "magic":
          at += this.#gather(bytes, at, MAGIC.byteLength);
          if (this.#held === MAGIC.byteLength) this.#magic();
          break;
        case "prefix":
          at += this.#gather(bytes, at, PREFIX_BYTES + 1);
          if (this.#held === PREFIX_BYTES + 1) this.#prefix();
          break;
        case "body": {
          const piece = bytes.subarray(at, at + this.#bodyLeft);
          at += piece.byteLength;
          this.#body(piece);
          break;
        }
        default:
          throw new SnapshotCorruptError("bytes behind the end");
      }
    }
    this.position += bytes.byteLength;
  }

  /** To be called when all bytes are in: the digest, or an error when the end is missing. */
  end(): { header: SnapshotHeader; digest: Uint8Array; rows: number } {
    if (this.#state !== "done" || this.header === undefined || this.#digest === undefined) throw new SnapshotCorruptError("cut short");
    return { header: this.header, digest: this.#digest, rows: this.#rows };
  }

  #gather(bytes: Uint8Array, at: number, wanted: number): number {
    const piece = bytes.subarray(at, at + wanted - this.#held);
    this.#gathered.set(piece, this.#held);
    this.#held += piece.byteLength;
    return piece.byteLength;
  }

  #magic(): void {
    if (!equalBytes(this.#gathered.subarray(0, MAGIC.byteLength), MAGIC)) throw new SnapshotCorruptError("not a state snapshot");
    this.#hash.update(MAGIC);
    this.#held = 0;
    this.#state = "prefix";
  }

  #prefix(): void {
    const prefix = this.#gathered;
    const view = new DataView(prefix.buffer, prefix.byteOffset, prefix.byteLength);
    const length = view.getUint32(0);
    this.#crcWanted = view.getUint32(4);
    this.#kind = prefix[PREFIX_BYTES] as number;
    const isHeader = this.#kind === BlockKind.header;
    if (isHeader !== (this.header === undefined)) throw new SnapshotCorruptError("block out of place");
    if (
      isHeader ? length > HEADER_BYTES_MAX : this.#kind === BlockKind.trailer ? length !== TRAILER_BYTES : this.#kind !== BlockKind.rows
    ) {
      throw new SnapshotCorruptError("unknown block");
    }
    if (length < 2 || length > BLOCK_BYTES_MAX) throw new SnapshotCorruptError("block length out of range");
    if (this.#kind !== BlockKind.trailer) this.#hash.update(prefix.subarray(0, PREFIX_BYTES + 1));
    this.#crc = crc32(prefix.subarray(PREFIX_BYTES, PREFIX_BYTES + 1));
    this.#bodyLeft = length - 1;
    this.#gathering = this.#kind !== BlockKind.rows || this.#events.rows !== undefined;
    this.#gathered = this.#gathering ? allocateBytes(Math.min(this.#bodyLeft, 2 * BLOCK_TARGET_BYTES)) : this.#gathered;
    this.#held = 0;
    this.#state = "body";
  }

  #body(piece: Uint8Array): void {
    this.#crc = crc32(piece, this.#crc);
    if (this.#kind !== BlockKind.trailer) this.#hash.update(piece);
    if (this.#gathering) this.#grow(piece);
    this.#bodyLeft -= piece.byteLength;
    if (this.#bodyLeft > 0) return;
    if (this.#crc !== this.#crcWanted) throw new SnapshotCorruptError("checksum mismatch");
    const content = this.#gathered.subarray(0, this.#held);
    this.#gathered = this.#gathering ? allocateBytes(PREFIX_BYTES + 1) : this.#gathered;
    this.#held = 0;
    this.#state = "prefix";
    if (this.#kind === BlockKind.header) {
      this.header = decodeHeader(content);
      this.#events.header?.(this.header);
    } else if (this.#kind === BlockKind.trailer) {
      this.#trailer(content);
    } else if (this.#gathering) {
      this.#rowBlock(content);
    }
  }

  #grow(piece: Uint8Array): void {
    const needed = this.#held + piece.byteLength;
    if (needed > this.#gathered.byteLength) {
      // Grows with what has arrived, not with what was announced.
      const grown = allocateBytes(Math.min(needed + this.#bodyLeft, Math.max(needed, this.#gathered.byteLength * 2)));
      grown.set(this.#gathered.subarray(0, this.#held));
      this.#gathered = grown;
    }
    this.#gathered.set(piece, this.#held);
    this.#held = needed;
  }

  #rowBlock(content: Uint8Array): void {
    const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
    const rows: BackendRow[] = [];
    let at = 0;
    while (at < content.byteLength) {
      if (content.byteLength - at < ROW_PREFIX_BYTES) throw new SnapshotCorruptError("row cut short");
      const keyBytes = view.getUint32(at);
      const valueBytes = view.getUint32(at + 4);
      at += ROW_PREFIX_BYTES;
      if (keyBytes === 0) throw new SnapshotCorruptError("row without a key");
      if (keyBytes + valueBytes > content.byteLength - at) throw new SnapshotCorruptError("row longer than its block");
      const key = content.subarray(at, at + keyBytes);
      at += keyBytes;
      const value = content.subarray(at, at + valueBytes);
      at += valueBytes;
      if (this.#lastKey !== undefined && Buffer.compare(this.#lastKey, key) >= 0) throw new SnapshotCorruptError("rows out of order");
      this.#lastKey = key;
      this.#rows++;
      this.#rowBytes += keyBytes + valueBytes;
      rows.push([key, value]);
    }
    this.#events.rows?.(rows);
  }

  #trailer(content: Uint8Array): void {
    const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
    const rows = readUint53(view, 0);
    const rowBytes = readUint53(view, 8);
    if (this.#events.rows === undefined) this.#rows = rows;
    else if (rows !== this.#rows || rowBytes !== this.#rowBytes) throw new SnapshotCorruptError("row count mismatch");
    const digest = content.subarray(16, 16 + DIGEST_BYTES);
    if (!equalBytes(digest, this.#hash.digest())) throw new SnapshotCorruptError("digest mismatch");
    this.#digest = digest;
    this.#state = "done";
  }
}

function block(kind: number, content: Uint8Array): Uint8Array {
  const bytes = allocateBytes(PREFIX_BYTES + 1 + content.byteLength);
  bytes.set(content, PREFIX_BYTES + 1);
  return seal(bytes, kind);
}

function seal(bytes: Uint8Array, kind: number): Uint8Array {
  bytes[PREFIX_BYTES] = kind;
  const body = bytes.subarray(PREFIX_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, PREFIX_BYTES);
  view.setUint32(0, body.byteLength);
  view.setUint32(4, crc32(body));
  return bytes;
}

function encodeHeader(header: SnapshotHeader): Uint8Array {
  const { voters, votersOutgoing, learners, learnersNext, autoLeave } = header.confState;
  const lists = [voters, votersOutgoing, learners, learnersNext];
  const ids = lists.reduce((sum, list) => sum + list.length, 0);
  const bytes = allocateBytes(2 + 8 + 8 + 8 + lists.length * 2 + ids * 8 + 1);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  view.setUint16(0, FORMAT_VERSION);
  view.setBigUint64(2, header.clusterId);
  writeUint53(view, 10, header.index);
  writeUint53(view, 18, header.term);
  let at = 26;
  for (const list of lists) {
    view.setUint16(at, list.length);
    at += 2;
    for (const id of list) {
      view.setBigUint64(at, id);
      at += 8;
    }
  }
  view.setUint8(at, autoLeave ? 1 : 0);
  return bytes;
}

function decodeHeader(bytes: Uint8Array): SnapshotHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < 26) throw new SnapshotCorruptError("header cut short");
  if (view.getUint16(0) !== FORMAT_VERSION) throw new SnapshotCorruptError(`unknown format version ${view.getUint16(0)}`);
  const clusterId = view.getBigUint64(2) as ClusterId;
  const index = readUint53(view, 10);
  const term = readUint53(view, 18);
  let at = 26;
  const list = (): MemberId[] => {
    if (at + 2 > bytes.byteLength) throw new SnapshotCorruptError("header cut short");
    const count = view.getUint16(at);
    at += 2;
    if (at + count * 8 > bytes.byteLength) throw new SnapshotCorruptError("header cut short");
    const ids: MemberId[] = [];
    for (let i = 0; i < count; i++, at += 8) ids.push(view.getBigUint64(at) as MemberId);
    return ids;
  };
  const voters = list();
  const votersOutgoing = list();
  const learners = list();
  const learnersNext = list();
  if (at + 1 !== bytes.byteLength) throw new SnapshotCorruptError("header of another length");
  return { clusterId, index, term, confState: { voters, votersOutgoing, learners, learnersNext, autoLeave: view.getUint8(at) !== 0 } };
}

function writeUint53(view: DataView, at: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, "a counter is a non-negative safe integer");
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value % 2 ** 32);
}

function readUint53(view: DataView, at: number): number {
  const value = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
  if (value > Number.MAX_SAFE_INTEGER) throw new SnapshotCorruptError("number out of range");
  return value;
}
