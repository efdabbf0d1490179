/**
 * Telling a torn tail, which is dropped, from damage, which must never be: the heart of the log's promise (failure catalogue BW3, BW4,
 * BW20).
 *
 * What a crash can do. The log is written in groups; a group is one record, and the next group is not written before the sync of the
 * one before it has returned (records that carry only a commit index are written without a sync, so one group may have a few of those
 * in front of it). At a power loss any subset of the blocks written since the last sync reaches the disk. Segments are made of zeros
 * that are on disk before the first record, so what did not reach the disk reads as zeros (or, in the block that was already partly
 * used, as what was there: earlier records, then zeros). Damage of that kind lies behind everything that was ever acknowledged.
 *
 * What proves that a place had been synced. Every record carries a claim: "everything before (segment, offset) was on disk when I was
 * written". Claims are true by construction (a sync had returned), so one intact header anywhere behind a bad record, with a claim
 * beyond it, proves that the bad record had been synced and perhaps acknowledged. Three kinds of record carry the claim for a group:
 * the next group; a mark, 64 bytes written without a sync as soon as a group is synced and nothing else waits; the head of the next
 * segment. So by the time an acknowledgement can have any effect outside of this turn of the event loop, a claim for it is in the file
 * (in the page cache at least, which survives the death of the process), and the next sync or the kernel's own write-back puts it on
 * disk. `close` syncs a last mark. A seal behind the last record of a finished segment claims that there is a next segment.
 *
 * What the shape of the damage proves. The last byte of a header and the last byte of a record are never zero, and a sector that did
 * not reach the disk, or only up to some byte, ends in a zero. So if every sector of a bad record ends in something else, all of it
 * reached the disk and it was changed afterwards: that is damage, also without a claim. Bytes that are nothing like our record (fewer
 * than three of its five known fields) are taken for stale contents of a fresh block, which some mount options expose after a crash.
 *
 * Not detected: power was lost (not just the process) after a group was acknowledged and before its claim reached the disk (no later
 * sync, and less than the kernel's write-back time, commonly 30 s), and that very group is damaged so that a sector ends in zero, or is
 * gone entirely. A disk that drops or reverts synced blocks at the very end of the log together with the claims behind them is not
 * detected either; nothing inside the log could.
 */
import { equalBytes } from "../base/bytes.ts";
import {
  decodeHeader,
  HEADER_BYTES,
  isBefore,
  MAGIC,
  type RecordHeader,
  recordBytes,
  resemblesHeader,
  type WalPosition,
} from "./record.ts";
import type { SegmentReader } from "./segment.ts";

const SECTOR_BYTES = 512;
const CHUNK_BYTES = 256 << 10;
const ZEROS = new Uint8Array(CHUNK_BYTES);

type TailVerdict =
  /** The log ends here. Whatever is behind was never acknowledged; `dirtyEnd` is the end of the bytes that are not zero (= offset for none). */
  | { readonly kind: "end"; readonly dirtyEnd: number }
  | {
      readonly kind: "damage";
      readonly damage: "damaged-record" | "misplaced-record" | "truncated-segment" | "missing-segment";
      readonly what: string;
    };

/**
 * Judges what lies at `offset` of the last segment, where reading stopped. `sizeMin` is the size the segment was made with, `previousCrc`
 * the checksum of the last good record.
 */
export async function judgeTail(
  reader: SegmentReader,
  at: { sequence: number; offset: number; sizeMin: number; previousCrc: number; seed: number },
): Promise<TailVerdict> {
  const position: WalPosition = { segment: at.sequence, offset: at.offset };
  const bytes = await reader.read(at.offset, HEADER_BYTES);
  const header = decodeHeader(bytes, at.seed);

  const claim = await findClaim(reader, at);
  if (claim.header !== undefined) {
    return {
      kind: "damage",
      damage: "damaged-record",
      what: `a later record proves that it had been synced; entries up to index ${claim.header.lastIndex} were in the log`,
    };
  }
  if (reader.sizeBytes < at.sizeMin && !(bytes.byteLength >= 8 && isZero(bytes))) {
    return {
      kind: "damage",
      damage: "truncated-segment",
      what: `${reader.sizeBytes} of ${at.sizeMin} bytes are left, cut inside the records`,
    };
  }
  if (isZero(bytes)) return { kind: "end", dirtyEnd: Math.max(at.offset, claim.dirtyEnd) };

  if (header === undefined) {
    if (!sectorMissing(bytes, at.offset) && resemblesHeader(bytes, { previousCrc: at.previousCrc, position })) {
      return { kind: "damage", damage: "damaged-record", what: "a record's header was changed after it had been written completely" };
    }
    return { kind: "end", dirtyEnd: claim.dirtyEnd };
  }
  if (header.position.segment !== at.sequence || header.position.offset !== at.offset || header.previousCrc !== at.previousCrc) {
    return {
      kind: "damage",
      damage: "misplaced-record",
      what: `there is a record made for segment ${header.position.segment} offset ${header.position.offset}, or behind another one`,
    };
  }
  const whole = await reader.read(at.offset, recordBytes(header.payloadBytes));
  if (whole.byteLength === recordBytes(header.payloadBytes) && !sectorMissing(whole, at.offset)) {
    return { kind: "damage", damage: "damaged-record", what: "a record was changed after it had been written completely" };
  }
  return { kind: "end", dirtyEnd: claim.dirtyEnd };
}

/** True when some sector that `bytes` (at `offset` of the file) touches may not have reached the disk to its end. */
function sectorMissing(bytes: Uint8Array, offset: number): boolean {
  for (let end = SECTOR_BYTES - (offset % SECTOR_BYTES); ; end += SECTOR_BYTES) {
    if (bytes[Math.min(end, bytes.byteLength) - 1] === 0) return true;
    if (end >= bytes.byteLength) return false;
  }
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** Looks behind `at.offset` for an intact header with a claim beyond it, and for the last byte that is not zero. */
async function findClaim(
  reader: SegmentReader,
  at: { sequence: number; offset: number; seed: number },
): Promise<{ header: RecordHeader | undefined; dirtyEnd: number }> {
  const position: WalPosition = { segment: at.sequence, offset: at.offset };
  let dirtyEnd = at.offset;
  for (let start = at.offset; start < reader.sizeBytes; start += CHUNK_BYTES) {
    // A header may begin in one chunk and end in the next.
    const bytes = await reader.read(start, CHUNK_BYTES + HEADER_BYTES);
    const chunk = bytes.subarray(0, CHUNK_BYTES);
    if (equalBytes(chunk, ZEROS.subarray(0, chunk.byteLength))) continue;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < chunk.byteLength; i += 8) {
      if (i + HEADER_BYTES > bytes.byteLength || view.getUint32(i, true) !== MAGIC) continue;
      // The place is compared before the checksum: an entry's data may hold a copy of some other record, or of another log.
      if (view.getUint32(i + 24, true) !== at.sequence || view.getUint32(i + 28, true) !== start + i) continue;
      const header = decodeHeader(bytes.subarray(i, i + HEADER_BYTES), at.seed);
      if (header !== undefined && isBefore(position, header.synced)) return { header, dirtyEnd };
    }
    let last = chunk.byteLength - 1;
    while (chunk[last] === 0) last -= 1;
    dirtyEnd = start + last + 1;
  }
  return { header: undefined, dirtyEnd };
}
