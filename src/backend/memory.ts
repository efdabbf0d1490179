/** The backend in memory: for members that keep nothing, and for the simulator, whose {@link MemoryStorage} outlives crashes. */
import { assert } from "../base/assert.ts";
import { bytesOfKey, copyBytes, EMPTY_BYTES, type KeyString, keyStringOf } from "../base/bytes.ts";
import type { Random } from "../base/random.ts";
import type { Backend, BackendBatch, BackendIterator, BackendRange, BackendRow, BackendSnapshot } from "./backend.ts";
import { BackendClosedError, BackendFailedError } from "./errors.ts";
import { MemoryTree, TreeCursor, type TreeSnapshot } from "./memory-tree.ts";

interface Version {
  readonly snapshot: TreeSnapshot;
  readonly bytes: number;
  readonly size: number;
}

const VERSIONS_MAX = 64;

/**
 * What a {@link MemoryBackend} leaves behind: open another one on it after a crash. A process that dies loses nothing; after `powerLoss` a
 * prefix of the batches since the last checkpoint is left, as LevelDB promises.
 */
export class MemoryStorage {
  /** @internal */ tree = new MemoryTree();
  /** @internal States that a power loss may leave, oldest (the last checkpoint) first; thinned out when there are many. */
  versions: Version[] = [];
  /** @internal The backend that has it open; older ones are dead. */
  holder: object | undefined;
  /** Thrown by the next write, which then has no effect; for fault injection. */
  failNextWrite: Error | undefined;

  constructor() {
    this.versions.push(this.#version());
  }

  /** The machine died: as `kill`, and a prefix of what was written since the last checkpoint is left. */
  powerLoss(random: Random): void {
    const left = this.versions[random.below(this.versions.length)] as Version;
    this.tree = MemoryTree.of(left.snapshot, left);
    this.versions = [this.#version()];
    this.holder = undefined;
  }

  /** The process died: its backend is dead and the lock free; nothing is lost. */
  kill(): void {
    this.holder = undefined;
  }

  /** @internal */
  written(): void {
    if (this.versions.length >= VERSIONS_MAX) this.versions = this.versions.filter((_, i) => i === 0 || i % 2 === 1);
    this.versions.push(this.#version());
  }

  /** @internal */
  checkpointed(): void {
    this.versions = [this.#version()];
  }

  #version(): Version {
    return { snapshot: this.tree.snapshot(), bytes: this.tree.bytes, size: this.tree.size };
  }
}

export class MemoryBackend implements Backend {
  readonly #storage: MemoryStorage | undefined;
  readonly #tree: MemoryTree;
  #failure: BackendFailedError | undefined;
  #closed = false;
  #writing = false;

  /** With a `storage` each write keeps what a crash may leave, which costs some microseconds; without one nothing outlives this object. */
  constructor(storage?: MemoryStorage) {
    assert(storage?.holder === undefined, "the storage is in use");
    this.#storage = storage;
    this.#tree = storage?.tree ?? new MemoryTree();
    if (storage !== undefined) storage.holder = this;
  }

  async get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return this.getSync(key);
  }

  getSync(key: Uint8Array): Uint8Array | undefined {
    this.#assertUsable();
    return this.#tree.get(keyStringOf(key));
  }

  async getMany(keys: readonly Uint8Array[]): Promise<(Uint8Array | undefined)[]> {
    this.#assertUsable();
    return keys.map((key) => this.#tree.get(keyStringOf(key)));
  }

  iterate(range: BackendRange): BackendIterator {
    this.#assertUsable();
    const snapshot = range.snapshot === undefined ? this.#tree.snapshot() : (range.snapshot as MemoryBackendSnapshot).tree;
    return new MemoryBackendIterator(snapshot, range, () => this.#assertUsable());
  }

  snapshot(): BackendSnapshot {
    this.#assertUsable();
    return new MemoryBackendSnapshot(this.#tree.snapshot());
  }

  async write(batch: BackendBatch): Promise<void> {
    this.#assertUsable();
    assert(!this.#writing, "writes to the backend overlap");
    const storage = this.#storage;
    if (storage?.failNextWrite !== undefined) {
      this.#failure = new BackendFailedError(storage.failNextWrite);
      storage.failNextWrite = undefined;
      throw this.#failure;
    }
    const tree = this.#tree;
    for (const operation of batch.operations) {
      if (operation.type === "put") tree.put(keyStringOf(operation.key), copyBytes(operation.value));
      else tree.delete(keyStringOf(operation.key));
    }
    storage?.written();
    // Nothing can overlap here; the turn is given away only so that a caller's mistake shows with this backend too.
    this.#writing = true;
    await Promise.resolve();
    this.#writing = false;
  }

  async checkpoint(): Promise<void> {
    this.#assertUsable();
    this.#storage?.checkpointed();
  }

  async defragment(): Promise<void> {
    this.#assertUsable();
  }

  async sizeBytes(): Promise<number> {
    this.#assertUsable();
    return this.#tree.bytes;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#storage?.holder === this) this.#storage.holder = undefined;
  }

  #assertUsable(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#closed || (this.#storage !== undefined && this.#storage.holder !== this)) throw new BackendClosedError();
  }
}

class MemoryBackendSnapshot implements BackendSnapshot {
  #tree: TreeSnapshot | undefined;

  constructor(tree: TreeSnapshot) {
    this.#tree = tree;
  }

  get tree(): TreeSnapshot {
    assert(this.#tree !== undefined, "the snapshot is closed");
    return this.#tree;
  }

  async close(): Promise<void> {
    this.#tree = undefined;
  }
}

class MemoryBackendIterator implements BackendIterator {
  readonly #cursor: TreeCursor;
  readonly #from: KeyString;
  readonly #to: KeyString | undefined;
  readonly #reverse: boolean;
  readonly #keysOnly: boolean;
  readonly #assertUsable: () => void;
  #closed = false;

  constructor(snapshot: TreeSnapshot, range: BackendRange, assertUsable: () => void) {
    this.#cursor = new TreeCursor(snapshot);
    this.#from = keyStringOf(range.gte);
    this.#to = range.lt === undefined ? undefined : keyStringOf(range.lt);
    this.#reverse = range.reverse === true;
    this.#keysOnly = range.keysOnly === true;
    this.#assertUsable = assertUsable;
    if (this.#reverse) this.#cursor.seekBelow(this.#to);
    else this.#cursor.seek(this.#from);
  }

  async next(limit: number, bytesMax = Number.POSITIVE_INFINITY): Promise<readonly BackendRow[]> {
    this.#assertUsable();
    assert(limit > 0 && !this.#closed, "an iterator is read before it is closed, with a positive limit");
    const cursor = this.#cursor;
    const rows: BackendRow[] = [];
    let bytes = 0;
    while (rows.length < limit && bytes < bytesMax) {
      const { key } = cursor;
      if (key === undefined || (this.#reverse ? key < this.#from : this.#to !== undefined && key >= this.#to)) break;
      const value = this.#keysOnly ? EMPTY_BYTES : cursor.value;
      rows.push([bytesOfKey(key), value]);
      bytes += key.length + value.byteLength;
      if (this.#reverse) cursor.previous();
      else cursor.next();
    }
    return rows;
  }

  async close(): Promise<void> {
    this.#closed = true;
  }
}
