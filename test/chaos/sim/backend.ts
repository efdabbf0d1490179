/**
 * The store of a simulated machine: the memory backend, whose writes take time, on directories of the model disk. Each store directory holds one file that
 * names the storage, so that renaming, removing and losing the directory does to the store what it does to a real one.
 */
import type { Backend, BackendBatch, BackendIterator, BackendRange, BackendSnapshot } from "../../../src/backend/backend.ts";
import { MemoryBackend, MemoryStorage } from "../../../src/backend/memory.ts";
import { RowSpace } from "../../../src/backend/row-spaces.ts";
import { utf8Bytes, utf8Text } from "../../../src/base/bytes.ts";
import type { Disk } from "../../../src/base/disk.ts";
import type { Random } from "../../../src/base/random.ts";

const NAME = "STORE";
const NO_MUTANTS: ReadonlySet<string> = new Set();

/** All stores that one machine ever had. */
export class StoreRack {
  readonly #stores = new Map<string, MemoryStorage>();
  #made = 0;

  /** Those with something in them. */
  get all(): MemoryStorage[] {
    return [...this.#stores.values()];
  }

  kill(): void {
    for (const storage of this.#stores.values()) storage.kill();
  }

  powerLoss(random: Random): void {
    for (const storage of this.#stores.values()) storage.powerLoss(random);
  }

  clear(): void {
    this.#stores.clear();
  }

  async open(disk: Disk, directory: string, delay: BackendDelay, mutants: ReadonlySet<string> = NO_MUTANTS): Promise<SimBackend> {
    await disk.makeDirectory(directory);
    const path = `${directory}/${NAME}`;
    const storage = await this.#find(disk, path);
    if (storage !== undefined) {
      // The life before may have ended in the middle of this, or with a failed sync; LevelDB, too, writes its current file anew at every start.
      await this.#name(disk, path, directory, storage.id);
      return new SimBackend(storage.storage, disk, directory, delay, mutants);
    }
    this.#made += 1;
    const id = `store-${String(this.#made).padStart(8, "0")}`;
    const made = new MemoryStorage();
    this.#stores.set(id, made);
    await this.#name(disk, path, directory, id);
    return new SimBackend(made, disk, directory, delay, mutants);
  }

  async #name(disk: Disk, path: string, directory: string, id: string): Promise<void> {
    const file = await disk.open(path, { create: true });
    try {
      await file.write(0, utf8Bytes(id));
      await file.sync();
    } finally {
      await file.close();
    }
    await disk.syncDirectory(directory);
    await disk.syncDirectory(directory.slice(0, directory.lastIndexOf("/")));
  }

  async #find(disk: Disk, path: string): Promise<{ readonly id: string; readonly storage: MemoryStorage } | undefined> {
    if (!(await disk.exists(path))) return undefined;
    const file = await disk.open(path);
    const id = utf8Text(await file.read(0, 64));
    await file.close();
    // Torn while it was being made: nothing had been promised.
    const storage = this.#stores.get(id);
    return storage === undefined ? undefined : { id, storage };
  }
}

/** Resolves when the disk of the machine has done that; undefined for at once. */
export type BackendDelay = (what: "write" | "checkpoint" | "read") => Promise<void> | undefined;

export class SimBackend implements Backend {
  readonly #inner: MemoryBackend;
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #delay: BackendDelay;
  readonly #storage: MemoryStorage;
  /** Mutant: a write that failed counts as done. */
  readonly #ignoreErrors: boolean;
  /** Mutant: positions are written before the effects, by themselves (BW1). */
  readonly #positionApart: boolean;

  constructor(storage: MemoryStorage, disk: Disk, directory: string, delay: BackendDelay, mutants: ReadonlySet<string>) {
    this.#storage = storage;
    this.#ignoreErrors = mutants.has("ignore-backend-error");
    this.#positionApart = mutants.has("position-in-separate-batch");
    this.#inner = new MemoryBackend(storage);
    this.#disk = disk;
    this.#directory = directory;
    this.#delay = delay;
  }

  async get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return this.#inner.getSync(key);
  }

  getSync(key: Uint8Array): Uint8Array | undefined {
    return this.#inner.getSync(key);
  }

  async getMany(keys: readonly Uint8Array[]): Promise<(Uint8Array | undefined)[]> {
    const values = await this.#inner.getMany(keys);
    const wait = this.#delay("read");
    if (wait !== undefined) await wait;
    return values;
  }

  iterate(range: BackendRange): BackendIterator {
    return this.#inner.iterate(range);
  }

  snapshot(): BackendSnapshot {
    return this.#inner.snapshot();
  }

  /** What a process that dies meanwhile leaves is the store before the write or after it. */
  async write(batch: BackendBatch): Promise<void> {
    const wait = this.#delay("write");
    if (wait !== undefined) await wait;
    if (this.#ignoreErrors && this.#storage.failNextWrite !== undefined) {
      this.#storage.failNextWrite = undefined;
      return;
    }
    if (this.#positionApart) {
      const isPosition = (key: Uint8Array): boolean => key[0] === RowSpace.meta || key[0] === RowSpace.chain;
      await this.#inner.write({ ...batch, operations: batch.operations.filter(({ key }) => isPosition(key)) });
      await this.#delay("checkpoint");
      return this.#inner.write({ ...batch, operations: batch.operations.filter(({ key }) => !isPosition(key)) });
    }
    return this.#inner.write(batch);
  }

  async checkpoint(): Promise<void> {
    const wait = this.#delay("checkpoint");
    if (wait !== undefined) await wait;
    await this.#inner.checkpoint();
    await this.#disk.syncDirectory(this.#directory);
  }

  defragment(): Promise<void> {
    return this.#inner.defragment();
  }

  sizeBytes(): Promise<number> {
    return this.#inner.sizeBytes();
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
