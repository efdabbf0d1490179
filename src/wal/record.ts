/**
 * The bytes of one record. The layout is documented byte by byte in docs/FORMATS.md; keep the two in step.
 *
 * A record is a 64-byte header, a payload, and 1 to 8 bytes of padding whose last byte is not zero. The header describes itself: it names
 * its own place (segment and offset), the checksum of the record before it (the chain), and the place up to which everything was
 * on disk when it was written (the claim, see repair.ts). So it can be judged on its own, also behind a damaged one.
 *
 * Why not a general serializer: docs/adr/0003-wal-layout.md.
 */
import { crc32 } from "../base/bytes.ts";
import type { ClusterId, LogIndex, MemberId, Term } from "../base/ids.ts";
import type { ConfState, Entry, HardState, SnapshotMetadata } from "../raft/entry.ts";

export const HEADER_BYTES = 64;
/** "HFW1", little-endian: the format's version is the digit. */
export const MAGIC = 0x31574648;
/** Last word of a header, and last byte of a record: not zero, so that a sector that never reached the disk shows. */
const END_OF_HEADER = 0xa5a5a5a5;
const END_OF_RECORD = 0xa5;
const ITEM_HEAD_BYTES = 8;
const ENTRY_FIXED_BYTES = ITEM_HEAD_BYTES + 16;
const HARD_STATE_BYTES = ITEM_HEAD_BYTES + 24;
const CONF_STATE_FIXED_BYTES = 24;
const SNAPSHOT_FIXED_BYTES = 16 + CONF_STATE_FIXED_BYTES;
const HEAD_FIXED_BYTES = 48;
/** A payload's length is a u32; this bound leaves room and keeps one allocation below what V8 allows for a typed array everywhere. */
export const PAYLOAD_BYTES_MAX = 1 << 30;
export const SEGMENT_BYTES_MAX = 1 << 30;

const HIGH = 0x100000000;

export type RecordType = "head" | "group" | "mark" | "seal";
const TYPE_CODES: Readonly<Record<RecordType, number>> = { head: 1, group: 2, mark: 3, seal: 4 };
const TYPES: readonly (RecordType | undefined)[] = [undefined, "head", "group", "mark", "seal"];

const ITEM_NORMAL = 1;
const ITEM_CONF_CHANGE = 2;
const ITEM_HARD_STATE = 3;
const ITEM_SNAPSHOT = 4;
const FLAG_REPLACES_LOG = 1;

/** A place in the log: segments count up, offsets are bytes from the start of the segment. */
export interface WalPosition {
  readonly segment: number;
  readonly offset: number;
}

export function isBefore(a: WalPosition, b: WalPosition): boolean {
  return a.segment < b.segment || (a.segment === b.segment && a.offset < b.offset);
}

export interface RecordHeader {
  readonly type: RecordType;
  /** CRC-32 of this header, which covers the payload's: the next record's `previousCrc`. */
  readonly crc: number;
  readonly previousCrc: number;
  readonly payloadCrc: number;
  readonly payloadBytes: number;
  readonly position: WalPosition;
  /** Everything before this place was on disk when the record was written. */
  readonly synced: WalPosition;
  /** Last index and term of the log after this record; 0 when empty. */
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
  readonly items: number;
}

/** What a head repeats, so that the log is readable without the segments before it. */
export interface SegmentHead {
  readonly clusterId: ClusterId;
  readonly memberId: MemberId;
  /** Size the segment was preallocated to; a shorter file was cut. */
  readonly segmentBytes: number;
  readonly hardState: HardState;
  readonly snapshot: SnapshotMetadata;
}

/** Takes the items of a group in the order in which they were written. */
export interface ItemVisitor {
  entry(entry: Entry): void;
  hardStateItem(state: HardState): void;
  /** With `replacesLog` the snapshot came from the leader and nothing before it counts; otherwise the log goes on across it. */
  snapshotMarker(snapshot: SnapshotMetadata, replacesLog: boolean): void;
}

/** Bytes of header, payload and padding together; a multiple of 8. */
export function recordBytes(payloadBytes: number): number {
  return payloadBytes === 0 ? HEADER_BYTES : HEADER_BYTES + Math.ceil((payloadBytes + 1) / 8) * 8;
}

/** Every checksum of a log starts from this, so that another member's record never passes (failure catalogue BW21). */
export function logSeed(clusterId: ClusterId, memberId: MemberId): number {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, clusterId, true);
  view.setBigUint64(8, memberId, true);
  return crc32(bytes);
}

export function entryBytes(entry: Entry): number {
  return ENTRY_FIXED_BYTES + entry.data.byteLength;
}

export function hardStateBytes(): number {
  return HARD_STATE_BYTES;
}

export function snapshotBytes(snapshot: SnapshotMetadata): number {
  return ITEM_HEAD_BYTES + SNAPSHOT_FIXED_BYTES + confStateIds(snapshot.confState) * 8;
}

export function headPayloadBytes(head: SegmentHead): number {
  return HEAD_FIXED_BYTES + SNAPSHOT_FIXED_BYTES + confStateIds(head.snapshot.confState) * 8;
}

function confStateIds(state: ConfState): number {
  return state.voters.length + state.votersOutgoing.length + state.learners.length + state.learnersNext.length;
}

/** Where a record goes and what its header says. */
interface RecordPlace {
  readonly type: RecordType;
  readonly seed: number;
  readonly previousCrc: number;
  readonly position: WalPosition;
  readonly synced: WalPosition;
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
}

const KEPT_BYTES_MAX = 2 << 20;

/** Builds one record at a time in a buffer that is reused: `start`, items, then `finish`, whose bytes are valid until the next `start`. */
export class RecordEncoder {
  #bytes = new Uint8Array(64 << 10);
  #view = new DataView(this.#bytes.buffer);
  #at = HEADER_BYTES;
  #items = 0;

  /** `payloadBytes` must be the exact sum of the items' bytes. */
  start(payloadBytes: number): void {
    const needed = recordBytes(payloadBytes);
    if (needed > this.#bytes.byteLength || (this.#bytes.byteLength > KEPT_BYTES_MAX && needed <= KEPT_BYTES_MAX)) {
      this.#bytes = new Uint8Array(Math.max(64 << 10, 2 ** Math.ceil(Math.log2(needed))));
      this.#view = new DataView(this.#bytes.buffer);
    }
    this.#at = HEADER_BYTES;
    this.#items = 0;
  }

  entry(entry: Entry): void {
    const data = entry.data;
    const at = this.#at;
    const view = this.#view;
    view.setUint32(at, data.byteLength + 16, true);
    view.setUint32(at + 4, entry.type === "normal" ? ITEM_NORMAL : ITEM_CONF_CHANGE, true);
    setCounter(view, at + 8, entry.index);
    setCounter(view, at + 16, entry.term);
    if (data.byteLength > 0) this.#bytes.set(data, at + ENTRY_FIXED_BYTES);
    this.#at = at + ENTRY_FIXED_BYTES + data.byteLength;
    this.#items += 1;
  }

  hardState(state: HardState): void {
    const view = this.#view;
    view.setUint32(this.#at, HARD_STATE_BYTES - ITEM_HEAD_BYTES, true);
    view.setUint32(this.#at + 4, ITEM_HARD_STATE, true);
    this.#at += ITEM_HEAD_BYTES;
    this.#rawHardState(state);
    this.#items += 1;
  }

  snapshot(snapshot: SnapshotMetadata, replacesLog: boolean): void {
    const view = this.#view;
    view.setUint32(this.#at, snapshotBytes(snapshot) - ITEM_HEAD_BYTES, true);
    view.setUint32(this.#at + 4, ITEM_SNAPSHOT | ((replacesLog ? FLAG_REPLACES_LOG : 0) << 8), true);
    this.#at += ITEM_HEAD_BYTES;
    this.#rawSnapshot(snapshot);
    this.#items += 1;
  }

  /** The payload of a head record, which has no items. */
  head(head: SegmentHead): void {
    const view = this.#view;
    view.setBigUint64(this.#at, head.clusterId, true);
    view.setBigUint64(this.#at + 8, head.memberId, true);
    setCounter(view, this.#at + 16, head.segmentBytes);
    this.#at += 24;
    this.#rawHardState(head.hardState);
    this.#rawSnapshot(head.snapshot);
  }

  /** Completes the header; the record's checksum is at offset 4 of the result and is returned beside it. */
  finish(place: RecordPlace): { readonly bytes: Uint8Array; readonly crc: number } {
    const bytes = this.#bytes;
    const view = this.#view;
    const payloadBytes = this.#at - HEADER_BYTES;
    const total = recordBytes(payloadBytes);
    if (payloadBytes > 0) {
      bytes.fill(0, this.#at, total - 1);
      bytes[total - 1] = END_OF_RECORD;
    }
    view.setUint32(0, MAGIC, true);
    view.setUint32(8, place.previousCrc, true);
    view.setUint32(12, payloadBytes === 0 ? 0 : crc32(bytes.subarray(HEADER_BYTES, this.#at)), true);
    view.setUint32(16, payloadBytes, true);
    view.setUint32(20, TYPE_CODES[place.type], true);
    view.setUint32(24, place.position.segment, true);
    view.setUint32(28, place.position.offset, true);
    view.setUint32(32, place.synced.segment, true);
    view.setUint32(36, place.synced.offset, true);
    setCounter(view, 40, place.lastIndex);
    setCounter(view, 48, place.lastTerm);
    view.setUint32(56, this.#items, true);
    view.setUint32(60, END_OF_HEADER, true);
    const crc = crc32(bytes.subarray(8, HEADER_BYTES), place.seed);
    view.setUint32(4, crc, true);
    return { bytes: bytes.subarray(0, total), crc };
  }

  #rawHardState(state: HardState): void {
    const view = this.#view;
    setCounter(view, this.#at, state.term);
    view.setBigUint64(this.#at + 8, state.vote, true);
    setCounter(view, this.#at + 16, state.commit);
    this.#at += 24;
  }

  #rawSnapshot(snapshot: SnapshotMetadata): void {
    const view = this.#view;
    const state = snapshot.confState;
    setCounter(view, this.#at, snapshot.index);
    setCounter(view, this.#at + 8, snapshot.term);
    view.setUint32(this.#at + 16, state.voters.length, true);
    view.setUint32(this.#at + 20, state.votersOutgoing.length, true);
    view.setUint32(this.#at + 24, state.learners.length, true);
    view.setUint32(this.#at + 28, state.learnersNext.length, true);
    view.setUint32(this.#at + 32, state.autoLeave ? 1 : 0, true);
    view.setUint32(this.#at + 36, 0, true);
    this.#at += SNAPSHOT_FIXED_BYTES;
    for (const ids of [state.voters, state.votersOutgoing, state.learners, state.learnersNext]) {
      for (const id of ids) {
        view.setBigUint64(this.#at, id, true);
        this.#at += 8;
      }
    }
  }
}

function setCounter(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, value < HIGH ? 0 : Math.floor(value / HIGH), true);
}

/** Throws {@link MalformedError} above 2^53 - 1. */
function getCounter(view: DataView, at: number): number {
  const high = view.getUint32(at + 4, true);
  if (high >= 1 << 21) throw new MalformedError("a counter above 2^53");
  return high * HIGH + view.getUint32(at, true);
}

/** The checksums match but the contents are not what this version writes. Never leaves this root: recovery turns it into a WalCorruptError. */
export class MalformedError extends Error {}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * The header at the start of `bytes`, or undefined when there is no intact one. Does not look at the payload and does not compare the
 * place; the caller does.
 */
export function decodeHeader(bytes: Uint8Array, seed: number): RecordHeader | undefined {
  if (bytes.byteLength < HEADER_BYTES) return undefined;
  const view = viewOf(bytes);
  if (view.getUint32(0, true) !== MAGIC || view.getUint32(60, true) !== END_OF_HEADER) return undefined;
  const crc = view.getUint32(4, true);
  if (crc32(bytes.subarray(8, HEADER_BYTES), seed) !== crc) return undefined;
  const type = TYPES[view.getUint32(20, true)];
  const payloadBytes = view.getUint32(16, true);
  if (type === undefined || payloadBytes > PAYLOAD_BYTES_MAX) return undefined;
  if (view.getUint32(44, true) >= 1 << 21 || view.getUint32(52, true) >= 1 << 21) return undefined;
  return {
    type,
    crc,
    previousCrc: view.getUint32(8, true),
    payloadCrc: view.getUint32(12, true),
    payloadBytes,
    position: { segment: view.getUint32(24, true), offset: view.getUint32(28, true) },
    synced: { segment: view.getUint32(32, true), offset: view.getUint32(36, true) },
    lastIndex: getCounter(view, 40),
    lastTerm: getCounter(view, 48),
    items: view.getUint32(56, true),
  };
}

/** True when the 64 bytes, though not an intact header, are plainly this record with some bits changed rather than zeros or foreign bytes. */
export function resemblesHeader(bytes: Uint8Array, expected: { previousCrc: number; position: WalPosition }): boolean {
  if (bytes.byteLength < HEADER_BYTES) return false;
  const view = viewOf(bytes);
  let matches = 0;
  if (view.getUint32(0, true) === MAGIC) matches += 1;
  if (view.getUint32(8, true) === expected.previousCrc) matches += 1;
  if (view.getUint32(24, true) === expected.position.segment) matches += 1;
  if (view.getUint32(28, true) === expected.position.offset) matches += 1;
  if (view.getUint32(60, true) === END_OF_HEADER) matches += 1;
  return matches >= 3;
}

export function payloadMatches(header: RecordHeader, payload: Uint8Array): boolean {
  return payload.byteLength === header.payloadBytes && (header.payloadBytes === 0 || crc32(payload) === header.payloadCrc);
}

/** The log's seed as told by a head's own payload, before anything of it is verified. */
export function seedOfHead(payload: Uint8Array): number {
  return crc32(payload.subarray(0, 16));
}

export function decodeHead(payload: Uint8Array): SegmentHead {
  if (payload.byteLength < HEAD_FIXED_BYTES + SNAPSHOT_FIXED_BYTES) throw new MalformedError("a head that is too short");
  const view = viewOf(payload);
  const segmentBytes = getCounter(view, 16);
  if (segmentBytes > SEGMENT_BYTES_MAX) throw new MalformedError("a head with an impossible segment size");
  return {
    clusterId: view.getBigUint64(0, true) as ClusterId,
    memberId: view.getBigUint64(8, true) as MemberId,
    segmentBytes,
    hardState: readHardState(view, 24),
    snapshot: readSnapshot(view, HEAD_FIXED_BYTES, payload.byteLength),
  };
}

/**
 * Hands each item of a group's payload to `visitor`, in order. Entries' data are views of `payload`. Allocates no more than the payload's
 * own size, whatever the bytes say (failure catalogue BW10). Throws {@link MalformedError}.
 */
export function decodeItems(header: RecordHeader, payload: Uint8Array, visitor: ItemVisitor): void {
  const view = viewOf(payload);
  let at = 0;
  let items = 0;
  while (at < payload.byteLength) {
    if (at + ITEM_HEAD_BYTES > payload.byteLength) throw new MalformedError("an item's head cut short");
    const length = view.getUint32(at, true);
    const kind = view.getUint32(at + 4, true);
    at += ITEM_HEAD_BYTES;
    const end = at + length;
    if (end > payload.byteLength) throw new MalformedError("an item longer than its record");
    switch (kind & 0xff) {
      case ITEM_NORMAL:
      case ITEM_CONF_CHANGE: {
        if (length < 16 || kind > 0xff) throw new MalformedError("a malformed entry");
        visitor.entry({
          term: getCounter(view, at + 8),
          index: getCounter(view, at),
          type: kind === ITEM_NORMAL ? "normal" : "conf-change",
          data: payload.subarray(at + 16, end),
        });
        break;
      }
      case ITEM_HARD_STATE:
        if (length !== 24 || kind > 0xff) throw new MalformedError("a malformed hard state");
        visitor.hardStateItem(readHardState(view, at));
        break;
      case ITEM_SNAPSHOT:
        if (kind >> 9 !== 0) throw new MalformedError("unknown flags on a snapshot marker");
        visitor.snapshotMarker(readSnapshot(view, at, end), kind >> 8 === FLAG_REPLACES_LOG);
        break;
      default:
        throw new MalformedError(`an item of unknown kind ${kind & 0xff}`);
    }
    at = end;
    items += 1;
  }
  if (items !== header.items) throw new MalformedError("another number of items than its header says");
}

function readHardState(view: DataView, at: number): HardState {
  return { term: getCounter(view, at), vote: view.getBigUint64(at + 8, true) as MemberId, commit: getCounter(view, at + 16) };
}

function readSnapshot(view: DataView, at: number, end: number): SnapshotMetadata {
  if (end - at < SNAPSHOT_FIXED_BYTES) throw new MalformedError("a snapshot marker that is too short");
  const counts = [0, 1, 2, 3].map((i) => view.getUint32(at + 16 + i * 4, true));
  const autoLeave = view.getUint32(at + 32, true);
  const ids = counts.reduce((sum, count) => sum + count, 0);
  if (end - at - SNAPSHOT_FIXED_BYTES !== ids * 8 || autoLeave > 1) throw new MalformedError("a snapshot marker whose lists do not fit");
  let from = at + SNAPSHOT_FIXED_BYTES;
  const lists = counts.map((count) => {
    const list: MemberId[] = [];
    for (let i = 0; i < count; i++, from += 8) list.push(view.getBigUint64(from, true) as MemberId);
    return list;
  });
  const [voters = [], votersOutgoing = [], learners = [], learnersNext = []] = lists;
  return {
    index: getCounter(view, at),
    term: getCounter(view, at + 8),
    confState: { voters, votersOutgoing, learners, learnersNext, autoLeave: autoLeave === 1 },
  };
}
