/**
 * The backend on LevelDB, through `level`.
 *
 * Durability. Writes go to LevelDB's log without a sync; `checkpoint` makes them durable. A synced write would not do: it syncs the present
 * log file only, and rows of an older log, whose memtable is still being written out, stay behind. But a compaction, of whatever range,
 * first makes LevelDB write out the memtable and waits until its table is synced and entered in the synced manifest (db_impl.cc:
 * CompactRange calls TEST_CompactMemTable before it looks at the range; version_set.cc: LogAndApply syncs directory and manifest). It
 * does not report errors, though; a synced write behind it does, because LevelDB refuses writes after a failed table.
 *
 * Settings, measured (test/bench/backend.bench.ts): compression off, which reads a third faster for a fifth of the CPU time of writing, at
 * the cost of disk space (values carry their own checksums, so nothing is lost in detection); tables of 8 MiB, so that a store of some
 * gigabytes stays below the limit of open files; the write buffer as it is (4 MiB), larger ones made the slowest writes slower.
 */
import { mkdir, open, readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Level } from "level";
import { assert } from "../base/assert.ts";
import { EMPTY_BYTES } from "../base/bytes.ts";
import type { Backend, BackendBatch, BackendIterator, BackendRange, BackendRow, BackendSnapshot } from "./backend.ts";
import { BackendClosedError, BackendCorruptError, BackendFailedError, BackendReadError, DataDirectoryLockedError } from "./errors.ts";

const ENCODINGS = { keyEncoding: "buffer", valueEncoding: "buffer" } as const;
const OPTIONS = { ...ENCODINGS, compression: false, maxFileSize: 8 << 20 } as const;
/** Keys per job of the thread pool, so that neither it nor the conversion on this thread takes long. */
const GET_SLICE = 1000;
const ITERATE_SLICE_BYTES = 512 << 10;
const ITERATE_SLICE_ROWS = 4000;
const DEFRAGMENT_SLICE_BYTES = 64 << 20;
/** An option that the universal face of `level` does not know. */
const SYNC: object = { sync: true };
/** Behind every key of ours: no row space begins with 0xff. */
const END_OF_KEYS: Uint8Array = new Uint8Array(16).fill(0xff);

/** What `level` gives on Node beyond its typed, universal face. */
interface LevelOnDisk extends Level<Uint8Array, Uint8Array> {
  compactRange(start: Uint8Array, end: Uint8Array): Promise<void>;
  approximateSize(start: Uint8Array, end: Uint8Array): Promise<number>;
}

type LevelSnapshot = ReturnType<Level["snapshot"]>;
type LevelIterator = ReturnType<Level<Uint8Array, Uint8Array>["iterator"]>;

export interface LevelBackendOptions {
  /** Created with mode 0700 when absent. Its lock is the lock of the data directory. */
  readonly directory: string;
}

export class LevelBackend implements Backend {
  readonly #db: LevelOnDisk;
  readonly #directory: string;
  #failure: BackendFailedError | undefined;
  #writing = false;
  #closing: Promise<void> | undefined;

  private constructor(db: LevelOnDisk, directory: string) {
    this.#db = db;
    this.#directory = directory;
  }

  /** Throws DataDirectoryLockedError, BackendCorruptError, BackendFailedError with LevelDB's error, or the platform's when the directory cannot be made. */
  static async open(options: LevelBackendOptions): Promise<LevelBackend> {
    const { directory } = options;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const db = new Level<Uint8Array, Uint8Array>(directory, OPTIONS) as LevelOnDisk;
    try {
      await db.open();
      // LevelDB syncs its own directory with each manifest, but not the directory's name.
      await syncDirectory(dirname(directory));
    } catch (error) {
      await db.close();
      const code = codeOf(error);
      if (code === "LEVEL_LOCKED") throw new DataDirectoryLockedError(directory, error);
      throw code === "LEVEL_CORRUPTION" || lacksFile(error) ? new BackendCorruptError(error) : new BackendFailedError(error);
    }
    return new LevelBackend(db, directory);
  }

  async get(key: Uint8Array): Promise<Uint8Array | undefined> {
    this.#assertUsable();
    try {
      return await this.#db.get(key);
    } catch (error) {
      throw this.#readError(error);
    }
  }

  getSync(key: Uint8Array): Uint8Array | undefined {
    this.#assertUsable();
    try {
      return this.#db.getSync(key);
    } catch (error) {
      throw this.#readError(error);
    }
  }

  async getMany(keys: readonly Uint8Array[]): Promise<(Uint8Array | undefined)[]> {
    this.#assertUsable();
    let snapshot: LevelSnapshot | undefined;
    try {
      if (keys.length <= GET_SLICE) return await this.#db.getMany(keys as Uint8Array[]);
      // One view for all slices: writes go on in between.
      snapshot = this.#db.snapshot();
      const values: (Uint8Array | undefined)[] = [];
      for (let i = 0; i < keys.length; i += GET_SLICE) {
        for (const value of await this.#db.getMany(keys.slice(i, i + GET_SLICE), { snapshot })) values.push(value);
      }
      return values;
    } catch (error) {
      throw this.#readError(error);
    } finally {
      await snapshot?.close();
    }
  }

  iterate(range: BackendRange): BackendIterator {
    this.#assertUsable();
    const snapshot = range.snapshot === undefined ? undefined : (range.snapshot as LevelBackendSnapshot).native;
    const iterator = this.#db.iterator({
      gte: range.gte,
      ...(range.lt === undefined ? {} : { lt: range.lt }),
      ...(snapshot === undefined ? {} : { snapshot }),
      reverse: range.reverse ?? false,
      values: range.keysOnly !== true,
      highWaterMarkBytes: ITERATE_SLICE_BYTES,
    });
    return new LevelBackendIterator(iterator, (error) => this.#readError(error));
  }

  snapshot(): BackendSnapshot {
    this.#assertUsable();
    return new LevelBackendSnapshot(this.#db.snapshot());
  }

  async write(batch: BackendBatch): Promise<void> {
    this.#assertUsable();
    assert(!this.#writing, "writes to the backend overlap");
    const { operations } = batch;
    if (operations.length === 0) return;
    this.#writing = true;
    try {
      // Half the cost per row of an array batch on this thread.
      const chained = this.#db.batch();
      for (const operation of operations) {
        if (operation.type === "put") chained.put(operation.key, operation.value);
        else chained.del(operation.key);
      }
      await chained.write();
    } catch (error) {
      throw this.#poison(error);
    } finally {
      this.#writing = false;
    }
  }

  async checkpoint(): Promise<void> {
    this.#assertUsable();
    try {
      // An empty range: nothing is compacted, the memtable is written out all the same. See above.
      await this.#db.compactRange(EMPTY_BYTES, EMPTY_BYTES);
      // The empty key is never a row, so deleting it changes nothing; it tells whether the memtable really got out.
      await this.#db.del(EMPTY_BYTES, SYNC);
    } catch (error) {
      throw this.#poison(error);
    }
  }

  async defragment(): Promise<void> {
    this.#assertUsable();
    try {
      const ranges: [Uint8Array, Uint8Array][] = [[EMPTY_BYTES, END_OF_KEYS]];
      for (let range = ranges.pop(); range !== undefined; range = ranges.pop()) {
        // One call over everything would hold a thread of the pool for the whole time.
        this.#assertUsable();
        const [from, to] = range;
        const middle = middleOf(from, to);
        if (middle !== undefined && (await this.#db.approximateSize(from, to)) > DEFRAGMENT_SLICE_BYTES) {
          ranges.push([middle, to], [from, middle]);
        } else {
          await this.#db.compactRange(from, to);
        }
      }
      await this.#db.del(EMPTY_BYTES, SYNC);
    } catch (error) {
      if (error instanceof BackendClosedError || error instanceof BackendFailedError) throw error;
      throw this.#poison(error);
    }
  }

  async sizeBytes(): Promise<number> {
    this.#assertUsable();
    try {
      let bytes = await this.#db.approximateSize(EMPTY_BYTES, END_OF_KEYS);
      for (const name of await readdir(this.#directory)) {
        // Rows that are not in tables yet.
        if (name.endsWith(".log")) bytes += await sizeOf(join(this.#directory, name));
      }
      return bytes;
    } catch (error) {
      throw this.#readError(error);
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#db.close();
    return this.#closing;
  }

  #assertUsable(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#closing !== undefined) throw new BackendClosedError();
  }

  #poison(error: unknown): Error {
    if (this.#closing !== undefined) return new BackendClosedError();
    this.#failure ??= new BackendFailedError(error);
    return this.#failure;
  }

  #readError(error: unknown): Error {
    if (this.#failure !== undefined) return this.#failure;
    if (this.#closing !== undefined) return new BackendClosedError();
    return codeOf(error) === "LEVEL_CORRUPTION" ? new BackendCorruptError(error) : new BackendReadError(error);
  }
}

class LevelBackendSnapshot implements BackendSnapshot {
  readonly native: LevelSnapshot;

  constructor(native: LevelSnapshot) {
    this.native = native;
  }

  close(): Promise<void> {
    return this.native.close();
  }
}

class LevelBackendIterator implements BackendIterator {
  readonly #iterator: LevelIterator;
  readonly #wrap: (error: unknown) => Error;
  /** Read, but not handed out yet. */
  #rest: BackendRow[] = [];
  #reading = false;

  constructor(iterator: LevelIterator, wrap: (error: unknown) => Error) {
    this.#iterator = iterator;
    this.#wrap = wrap;
  }

  async next(limit: number, bytesMax = Number.POSITIVE_INFINITY): Promise<readonly BackendRow[]> {
    assert(limit > 0 && !this.#reading, "an iterator is read by one caller at a time, with a positive limit");
    this.#reading = true;
    try {
      let rows: BackendRow[] = [];
      let bytes = 0;
      for (;;) {
        const slice = this.#rest.length > 0 ? this.#rest : await this.#slice(limit - rows.length);
        this.#rest = [];
        if (slice.length === 0) return rows;
        let taken = 0;
        while (taken < slice.length && rows.length + taken < limit && bytes < bytesMax) {
          const [key, value] = slice[taken] as BackendRow;
          bytes += key.byteLength + value.byteLength;
          taken += 1;
        }
        if (taken < slice.length) this.#rest = slice.slice(taken);
        const part = taken < slice.length ? slice.slice(0, taken) : slice;
        rows = rows.length === 0 ? part : rows.concat(part);
        if (rows.length >= limit || bytes >= bytesMax) return rows;
      }
    } catch (error) {
      throw this.#wrap(error);
    } finally {
      this.#reading = false;
    }
  }

  async close(): Promise<void> {
    this.#rest = [];
    await this.#iterator.close();
  }

  /** Up to 512 KiB of rows in one job of the thread pool; empty at the end. */
  async #slice(limit: number): Promise<BackendRow[]> {
    const rows = (await this.#iterator.nextv(Math.min(limit, ITERATE_SLICE_ROWS))) as [Uint8Array, Uint8Array | undefined][];
    for (const row of rows) row[1] ??= EMPTY_BYTES;
    return rows as [Uint8Array, Uint8Array][];
  }
}

/** The directory was made before, so what is not there is one of the store's own files: damage (failure catalogue BW18), in contrast to a disk that fails. */
function lacksFile(error: unknown): boolean {
  return error instanceof Error && error.cause instanceof Error && /No such file or directory/.test(error.cause.message);
}

function codeOf(error: unknown): string | undefined {
  // An error at open hides LevelDB's own behind "not open".
  for (let e = error as { code?: string; cause?: unknown } | undefined; e !== undefined; e = e.cause as typeof e) {
    if (e.code !== undefined && e.code !== "LEVEL_DATABASE_NOT_OPEN") return e.code;
  }
  return undefined;
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    // Deleted since it was listed.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw error;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const MIDDLE_BYTES = 6;

/** A key halfway between two others, taken as fractions; undefined when they differ by less than can be told from six bytes. */
function middleOf(from: Uint8Array, to: Uint8Array): Uint8Array | undefined {
  let common = 0;
  while (common < to.byteLength && (from[common] ?? 0) === to[common]) common += 1;
  const number = (bytes: Uint8Array): number => {
    let value = 0;
    for (let i = 0; i < MIDDLE_BYTES; i++) value = value * 256 + (bytes[common + i] ?? 0);
    return value;
  };
  let half = Math.floor((number(from) + number(to)) / 2);
  if (half <= number(from)) return undefined;
  const middle = new Uint8Array(common + MIDDLE_BYTES);
  middle.set(to.subarray(0, common));
  for (let i = MIDDLE_BYTES - 1; i >= 0; i--) {
    middle[common + i] = half % 256;
    half = Math.floor(half / 256);
  }
  return middle;
}
