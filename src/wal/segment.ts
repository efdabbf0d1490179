/**
 * Segment files: `<sequence, 16 hex digits>-<first index, 16 hex digits>.wal`, as etcd names them. The first index is the last index of
 * the log when the segment was begun, plus one (0 in the very first name); a follower that overwrites a suffix of its log may put lower
 * indices into it.
 */
import type { Disk, DiskFile } from "../base/disk.ts";
import type { LogIndex } from "../base/ids.ts";
import { WalCorruptError } from "./errors.ts";

export interface SegmentName {
  readonly name: string;
  readonly sequence: number;
  /** Last index of the log when the segment was begun. */
  readonly lastIndexBefore: LogIndex;
}

const SEGMENT_PATTERN = /^([0-9a-f]{16})-([0-9a-f]{16})\.wal$/;
/** A segment being prepared; never holds anything that counts. */
const TEMPORARY_PATTERN = /^[01]\.tmp$/;
const SEQUENCE_MAX = 2 ** 32 - 1;

export function segmentName(sequence: number, firstIndex: LogIndex): string {
  return `${sequence.toString(16).padStart(16, "0")}-${firstIndex.toString(16).padStart(16, "0")}.wal`;
}

export function temporaryName(sequence: number): string {
  return `${sequence % 2}.tmp`;
}

/** The segments of a directory in order, and our leftovers. Foreign files are neither listed nor touched. */
export function sortSegments(names: readonly string[]): { segments: SegmentName[]; temporary: string[]; foreign: string[] } {
  const segments: SegmentName[] = [];
  const temporary: string[] = [];
  const foreign: string[] = [];
  for (const name of names) {
    const match = SEGMENT_PATTERN.exec(name);
    if (match === null) {
      (TEMPORARY_PATTERN.test(name) ? temporary : foreign).push(name);
      continue;
    }
    const sequence = Number.parseInt(match[1] as string, 16);
    const firstIndex = Number.parseInt(match[2] as string, 16);
    if (sequence > SEQUENCE_MAX || firstIndex > Number.MAX_SAFE_INTEGER) {
      throw new WalCorruptError({
        damage: "damaged-head",
        segment: name,
        offset: 0,
        lastGoodIndex: 0,
        what: "no segment of ours has such a name",
      });
    }
    segments.push({ name, sequence, lastIndexBefore: Math.max(0, firstIndex - 1) });
  }
  segments.sort((a, b) => a.sequence - b.sequence);
  return { segments, temporary, foreign };
}

const WINDOW_BYTES = 1 << 20;

/** Reads a segment forward in windows of 1 MiB. What it returns are views of memory that is never written again. */
export class SegmentReader {
  readonly name: string;
  readonly file: DiskFile;
  readonly sizeBytes: number;
  #window: Uint8Array = new Uint8Array(0);
  #windowStart = 0;

  private constructor(name: string, file: DiskFile, sizeBytes: number) {
    this.name = name;
    this.file = file;
    this.sizeBytes = sizeBytes;
  }

  static async open(disk: Disk, directory: string, name: string): Promise<SegmentReader> {
    const file = await disk.open(`${directory}/${name}`);
    try {
      return new SegmentReader(name, file, await file.sizeBytes());
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** The same as {@link read} when the bytes are already there, else undefined: spares a promise per record. */
  peek(position: number, length: number): Uint8Array | undefined {
    const from = position - this.#windowStart;
    return from < 0 || from + length > this.#window.byteLength ? undefined : this.#window.subarray(from, from + length);
  }

  /** The bytes at [position, position + length), or fewer at the end of the file. Never allocates more than the file holds. */
  async read(position: number, length: number): Promise<Uint8Array> {
    const wanted = Math.min(length, Math.max(0, this.sizeBytes - position));
    const from = position - this.#windowStart;
    if (from < 0 || from + wanted > this.#window.byteLength) {
      const bytes = Math.min(Math.max(wanted, WINDOW_BYTES), Math.max(0, this.sizeBytes - position));
      this.#window = await this.file.read(position, bytes);
      this.#windowStart = position;
      return this.#window.subarray(0, Math.min(wanted, this.#window.byteLength));
    }
    return this.#window.subarray(from, from + wanted);
  }

  async close(): Promise<void> {
    this.#window = new Uint8Array(0);
    await this.file.close();
  }
}
