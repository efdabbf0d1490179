import type { Disk } from "../base/disk.ts";
import type { Logger } from "../base/logger.ts";
import { WalCorruptError, type WalDamage, WalMissingError } from "./errors.ts";
import {
  decodeHead,
  decodeHeader,
  decodeItems,
  HEADER_BYTES,
  isBefore,
  MalformedError,
  PAYLOAD_BYTES_MAX,
  payloadMatches,
  type RecordHeader,
  type RecordType,
  recordBytes,
  type SegmentHead,
  seedOfHead,
} from "./record.ts";
import { judgeTail } from "./repair.ts";
import { Replay } from "./replay.ts";
import { type SegmentName, SegmentReader, sortSegments } from "./segment.ts";

/** A log as read, nothing changed yet. The owner closes `reader`. */
export interface Recovered {
  readonly head: SegmentHead;
  readonly seed: number;
  readonly replay: Replay;
  /** All segments present, also those too old to matter. */
  readonly segments: readonly SegmentName[];
  readonly temporary: readonly string[];
  /** The last segment, still open. */
  readonly reader: SegmentReader;
  readonly last: {
    readonly segment: SegmentName;
    readonly sizeMin: number;
    /** End of the segment's head. */
    readonly start: number;
    /** Where the next record goes. */
    readonly end: number;
    /** End of the bytes behind `end` that are not zero; `end` for none. */
    readonly dirtyEnd: number;
    /** Some record claims that everything before this offset was on disk. */
    readonly syncedTo: number;
    readonly crc: number;
    readonly type: RecordType;
  };
}

interface Head {
  readonly header: RecordHeader;
  readonly head: SegmentHead;
  readonly seed: number;
}

/** Reads the log from the segment that the newest snapshot marker makes sufficient. Throws WalMissingError, WalCorruptError or the disk's error. */
export async function recover(disk: Disk, directory: string, logger: Logger): Promise<Recovered> {
  const names = await disk.list(directory);
  const { segments, temporary, foreign } = sortSegments(names ?? []);
  if (foreign.length > 0) logger.warn({ directory, names: foreign.slice(0, 10) }, "ignored foreign files in the log directory");
  const newest = segments[segments.length - 1];
  if (newest === undefined) throw new WalMissingError(directory);

  const newestReader = await SegmentReader.open(disk, directory, newest.name);
  try {
    const newestHead = await readHead(newestReader, newest);
    const from = firstNeeded(segments, newestHead.head.snapshot.index);
    let chain: Chain | undefined;
    for (let i = from; i < segments.length; i++) {
      const segment = segments[i] as SegmentName;
      const reader = segment === newest ? newestReader : await SegmentReader.open(disk, directory, segment.name);
      try {
        const head = segment === newest ? newestHead : await readHead(reader, segment);
        if (head.seed !== newestHead.seed)
          throw corrupt("misplaced-record", segment, 0, chain?.replay, "the segment belongs to another member's log");
        if (chain !== undefined && head.header.previousCrc !== chain.crc) {
          throw corrupt("damaged-record", chain.segment, chain.end, chain.replay, "the next segment proves that it had been synced");
        }
        chain = await readSegment(reader, segment, head, chain?.replay);
      } finally {
        if (reader !== newestReader) await reader.close();
      }
    }
    // The loop ran at least once, for the newest segment.
    return await finish(chain as Chain, newestHead, newestReader, segments, temporary);
  } catch (error) {
    await newestReader.close();
    throw error;
  }
}

/** Whose log it is, as the newest segment says whose head can be read; undefined when none can. For logs that cannot be opened. */
export async function readOwner(disk: Disk, directory: string): Promise<Pick<SegmentHead, "memberId" | "clusterId"> | undefined> {
  const names = (await disk.list(directory)) ?? [];
  for (const name of names.toReversed()) {
    try {
      const [segment] = sortSegments([name]).segments;
      if (segment === undefined) continue;
      const reader = await SegmentReader.open(disk, directory, name);
      try {
        const { memberId, clusterId } = (await readHead(reader, segment)).head;
        return { memberId, clusterId };
      } finally {
        await reader.close();
      }
    } catch (error) {
      if (!(error instanceof WalCorruptError)) throw error;
    }
  }
  return undefined;
}

async function finish(
  chain: Chain,
  newestHead: Head,
  reader: SegmentReader,
  segments: readonly SegmentName[],
  temporary: readonly string[],
): Promise<Recovered> {
  const { replay, segment } = chain;
  if (chain.sealed) throw corrupt("missing-segment", segment, chain.end, replay, "the segment was finished and the one behind it is gone");
  const sizeMin = newestHead.head.segmentBytes;
  const verdict = await judgeTail(reader, {
    sequence: segment.sequence,
    offset: chain.end,
    sizeMin,
    previousCrc: chain.crc,
    seed: newestHead.seed,
  });
  if (verdict.kind === "damage") throw corrupt(verdict.damage, segment, chain.end, replay, verdict.what);
  if (replay.entries() === undefined) {
    throw corrupt(
      "missing-segment",
      segments[0] as SegmentName,
      0,
      undefined,
      `entries behind snapshot ${replay.snapshot.index} are in segments that are gone`,
    );
  }
  return {
    head: newestHead.head,
    seed: newestHead.seed,
    replay,
    segments,
    temporary,
    reader,
    last: {
      segment,
      sizeMin,
      start: recordBytes(newestHead.header.payloadBytes),
      end: chain.end,
      dirtyEnd: verdict.dirtyEnd,
      syncedTo: chain.syncedTo,
      crc: chain.crc,
      type: chain.type,
    },
  };
}

/**
 * The newest segment from which on the log is complete: everything before it lies at or below the snapshot. Falls back to the oldest,
 * because a newer marker may stand in the newest segment's body; the reader checks at the end.
 */
function firstNeeded(segments: readonly SegmentName[], snapshotIndex: number): number {
  let needed = segments.length - 1;
  while (needed > 0 && (segments[needed] as SegmentName).lastIndexBefore > snapshotIndex) {
    const here = segments[needed] as SegmentName;
    const before = segments[needed - 1] as SegmentName;
    if (before.sequence !== here.sequence - 1) {
      // Purging goes oldest first and syncs each removal, so a hole is never ours. It matters only if what is missing is needed.
      if (before.sequence === here.sequence)
        throw corrupt("misplaced-record", before, 0, undefined, "two segments with one sequence number");
      break;
    }
    needed -= 1;
  }
  return needed;
}

function corrupt(damage: WalDamage, segment: SegmentName, offset: number, replay: Replay | undefined, what: string): WalCorruptError {
  return new WalCorruptError({ damage, segment: segment.name, offset, lastGoodIndex: replay?.lastIndex ?? 0, what });
}

async function readHead(reader: SegmentReader, segment: SegmentName): Promise<Head> {
  const bad = (what: string): WalCorruptError => corrupt("damaged-head", segment, 0, undefined, what);
  const bytes = await reader.read(0, HEADER_BYTES);
  if (bytes.byteLength < HEADER_BYTES) throw bad("the file is too short");
  // The checksum's seed stands in the payload, so that is read by a length nobody has vouched for yet; the file's size bounds it.
  const payloadBytes = new DataView(bytes.buffer, bytes.byteOffset).getUint32(16, true);
  if (payloadBytes > PAYLOAD_BYTES_MAX || payloadBytes < 16) throw bad("the head is damaged");
  const payload = await reader.read(HEADER_BYTES, payloadBytes);
  const seed = seedOfHead(payload);
  const header = decodeHeader(bytes, seed);
  if (header === undefined || header.type !== "head" || !payloadMatches(header, payload)) throw bad("the head is damaged");
  if (header.position.segment !== segment.sequence || header.position.offset !== 0) throw bad("the head belongs to another segment");
  if (header.lastIndex !== segment.lastIndexBefore) throw bad("the head contradicts the first index in the file's name");
  try {
    return { header, head: decodeHead(payload), seed };
  } catch (error) {
    if (error instanceof MalformedError) throw bad(error.message);
    throw error;
  }
}

/** How far the records were read. */
interface Chain {
  readonly segment: SegmentName;
  readonly replay: Replay;
  readonly end: number;
  readonly crc: number;
  readonly type: RecordType;
  readonly syncedTo: number;
  readonly sealed: boolean;
}

async function readSegment(reader: SegmentReader, segment: SegmentName, head: Head, earlier: Replay | undefined): Promise<Chain> {
  const last = { index: head.header.lastIndex, term: head.header.lastTerm };
  const replay = earlier ?? new Replay(head.head, last);
  if (replay.lastIndex !== last.index) throw corrupt("inconsistent", segment, 0, replay, `the segment begins behind index ${last.index}`);
  let end = recordBytes(head.header.payloadBytes);
  let crc = head.header.crc;
  let type: RecordType = "head";
  let syncedTo = end;
  for (;;) {
    const bytes = reader.peek(end, HEADER_BYTES) ?? (await reader.read(end, HEADER_BYTES));
    const header = decodeHeader(bytes, head.seed);
    if (header === undefined || header.previousCrc !== crc || header.type === "head") break;
    if (header.position.segment !== segment.sequence || header.position.offset !== end) break;
    if (header.type === "seal") return { segment, replay, end, crc, type, syncedTo, sealed: true };
    if (header.payloadBytes > 0) {
      const payload = reader.peek(end + HEADER_BYTES, header.payloadBytes) ?? (await reader.read(end + HEADER_BYTES, header.payloadBytes));
      if (!payloadMatches(header, payload)) break;
      apply(replay, header, payload, segment);
    } else if (header.type !== "mark") {
      throw corrupt("inconsistent", segment, end, replay, "an empty group");
    }
    if (header.lastIndex !== replay.lastIndex || header.lastTerm !== replay.lastTerm) {
      throw corrupt(
        "inconsistent",
        segment,
        end,
        replay,
        `the record says that the log ends at ${header.lastIndex}, its entries say ${replay.lastIndex}`,
      );
    }
    if (isBefore(header.position, header.synced))
      throw corrupt("inconsistent", segment, end, replay, "a record claims more than is before it");
    if (header.synced.segment === segment.sequence) syncedTo = Math.max(syncedTo, header.synced.offset);
    end += recordBytes(header.payloadBytes);
    crc = header.crc;
    type = header.type;
  }
  return { segment, replay, end, crc, type, syncedTo, sealed: false };
}

function apply(replay: Replay, header: RecordHeader, payload: Uint8Array, segment: SegmentName): void {
  try {
    decodeItems(header, payload, replay);
  } catch (error) {
    if (error instanceof MalformedError) throw corrupt("inconsistent", segment, header.position.offset, replay, error.message);
    throw error;
  }
}
