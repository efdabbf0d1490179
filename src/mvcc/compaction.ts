/**
 * Compaction (api-semantics 9). The logical part, in `MvccStore.compact`, takes effect at once: reads below fail. The physical part here
 * removes rows and index entries that no read can see any more, in slices, in order of revisions, and hashes all rows on the way, as the
 * reference does. It may lag behind, stop and go on after a restart; nothing that can be observed depends on it but the size.
 *
 * Two marks in the store say where it stands: the revision of the newest compaction asked for, and of the newest one finished. After a
 * restart the difference is work to be done. The first one also keeps the revision from going back, whatever rows are left (BV1).
 */
import type { Backend, BackendBatch } from "../backend/backend.ts";
import { RowSpace } from "../backend/row-spaces.ts";
import { assert } from "../base/assert.ts";
import { concatBytes, crc32, type KeyString, utf8Bytes } from "../base/bytes.ts";
import type { Revision } from "../base/ids.ts";
import { RowCorruptError } from "./errors.ts";
import { rowBytes } from "./execution.ts";
import { type CompactionHashes, HistoryHash } from "./hash.ts";
import { isTombstoneKey, mainOf, readUint32, readUint64, rowKey, rowKeyFrom, subOf, writeUint64 } from "./revision.ts";
import { CHECKSUM_BYTES } from "./row.ts";
import type { Rows } from "./rows.ts";
import { type Readers, Slicer } from "./slices.ts";
import type { TreeIndex } from "./tree-index.ts";

function markKey(name: string): Uint8Array {
  return concatBytes([new Uint8Array([RowSpace.meta]), utf8Bytes(`v/${name}`)]);
}

/** Mark rows: 8 bytes revision, 4 bytes CRC-32 of them. */
export const COMPACT_ASKED_KEY = markKey("compact-asked");
export const COMPACT_FINISHED_KEY = markKey("compact-finished");

const MARK_BYTES = 12;
/** Rows per read from the backend inside a slice. */
const READ_ROWS = 512;
const READ_BYTES = 1024 * 1024;
/** Compactions that may wait. Beyond it the oldest one is merged into the next, which only loses its hash. */
const WAITING_MAX = 10;

export function encodeMark(revision: Revision): Uint8Array {
  const mark = new Uint8Array(MARK_BYTES);
  writeUint64(mark, 0, revision);
  const sum = crc32(mark.subarray(0, 8));
  for (let i = 0; i < 4; i += 1) mark[8 + i] = sum >>> (24 - 8 * i);
  return mark;
}

/** The revision of a mark; -1 if there is none. @throws RowCorruptError */
export function decodeMark(mark: Uint8Array | undefined): Revision {
  if (mark === undefined) return -1;
  if (mark.length !== MARK_BYTES || crc32(mark.subarray(0, 8)) !== readUint32(mark, 8)) {
    throw new RowCorruptError({ main: 0, sub: 0, problem: "of the compaction has a wrong checksum" });
  }
  return readUint64(mark, 0);
}

interface Job {
  readonly revision: Revision;
  /** The compaction before; -1 for none. */
  readonly previous: Revision;
  /** Undefined for a job that goes on after a restart: the rows already removed are missing from it. */
  readonly hash: HistoryHash | undefined;
  /** The next row to look at. */
  main: number;
  sub: number;
}

/** A row to be removed. */
interface Doomed {
  readonly rowKey: Uint8Array;
  readonly name: KeyString;
  readonly bytes: number;
}

export interface CompactorOptions {
  readonly backend: Backend;
  readonly index: TreeIndex;
  readonly rows: Rows;
  readonly readers: Readers;
  readonly hashes: CompactionHashes;
  readonly nowMs: () => number;
  readonly yieldNow: () => Promise<void>;
  readonly ignoreReaders: boolean;
}

export class Compactor {
  readonly #options: CompactorOptions;
  readonly #jobs: Job[] = [];
  #running = false;

  constructor(options: CompactorOptions) {
    this.#options = options;
  }

  get pending(): boolean {
    return this.#jobs.length > 0;
  }

  /** Notes the physical part of a compaction that has been recorded. */
  add(revision: Revision, previous: Revision, resumed: boolean): void {
    this.#jobs.push({ revision, previous, hash: resumed ? undefined : new HistoryHash(), main: 0, sub: 0 });
    if (this.#jobs.length <= WAITING_MAX) return;
    const begun = this.#running || (this.#jobs[0] as Job).main > 0;
    this.#jobs.splice(begun ? 1 : 0, 1);
  }

  /** See `MvccStore.compactSlice`. Returns the bytes of the rows removed. */
  async slice(batch: () => BackendBatch, rowsMax: number): Promise<number> {
    const job = this.#jobs[0];
    if (job === undefined) return 0;
    assert(!this.#running, "compaction slices do not overlap");
    this.#running = true;
    try {
      return await this.#slice(job, batch, rowsMax);
    } finally {
      this.#running = false;
    }
  }

  async #slice(job: Job, batch: () => BackendBatch, rowsMax: number): Promise<number> {
    const { backend, rows, readers, nowMs, yieldNow, ignoreReaders } = this.#options;
    if (rows.recent.writtenUpTo < job.revision) {
      // What is to be scanned is not in the backend yet. Waiting here could wait for the caller itself.
      await yieldNow();
      return 0;
    }
    if (!ignoreReaders) await readers.noneBelow(job.revision);
    const slicer = new Slicer({ nowMs, yieldNow });
    const walk = backend.iterate({ gte: rowKey(job.main, job.sub), lt: rowKeyFrom(job.revision + 1) });
    const doomed: Doomed[] = [];
    let left = rowsMax;
    let atEnd = false;
    try {
      while (left > 0 && !atEnd) {
        const chunk = await walk.next(Math.min(left, READ_ROWS), READ_BYTES);
        atEnd = chunk.length === 0;
        for (const [key, value] of chunk) this.#look(job, key, value, doomed);
        left -= chunk.length;
        if (slicer.due) await slicer.pause();
      }
    } finally {
      await walk.close();
    }
    // Nothing waits from here on: everything goes into one batch, together with what the index then says.
    const target = batch();
    let removedBytes = 0;
    for (const { rowKey: key, name, bytes } of doomed) {
      target.delete(key);
      this.#options.index.prune(name, job.revision);
      removedBytes += bytes;
    }
    if (atEnd) this.#finish(job, target);
    return removedBytes;
  }

  /** Hashes one row and notes whether it is to go. */
  #look(job: Job, key: Uint8Array, value: Uint8Array, doomed: Doomed[]): void {
    const { index, rows } = this.#options;
    const { reader } = rows;
    const main = mainOf(key);
    const sub = subOf(key);
    const tombstone = isTombstoneKey(key);
    reader.read(value, main, sub, tombstone);
    const name = reader.keyString(value);
    const kept = index.isKept(name, main, sub, job.revision);
    // Of what the compaction before left, only what this one leaves; of newer changes, all.
    if (job.hash !== undefined && (kept || main > job.previous)) {
      job.hash.add(main, sub, tombstone, value.subarray(CHECKSUM_BYTES));
    }
    job.main = main;
    job.sub = sub + 1;
    if (!kept) doomed.push({ rowKey: key, name, bytes: rowBytes(key.length, value.length) });
  }

  #finish(job: Job, batch: BackendBatch): void {
    batch.put(COMPACT_FINISHED_KEY, encodeMark(job.revision));
    if (job.hash !== undefined)
      this.#options.hashes.add({ hash: job.hash.value, compactRevision: job.previous, hashRevision: job.revision });
    this.#jobs.shift();
  }
}
