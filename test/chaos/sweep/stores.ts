/**
 * The stores of a modelled machine: memory backends on directories of the model disk. Each directory holds one file that names its store, so that renaming,
 * removing and losing the directory does to the store what it does to a real one; and all of them can be copied as they are at an instant.
 */
import type { Backend, BackendBatch, BackendIterator, BackendRange, BackendSnapshot } from "../../../src/backend/backend.ts";
import { MemoryBackend, MemoryStorage } from "../../../src/backend/memory.ts";
import { MemoryTree, TreeCursor } from "../../../src/backend/memory-tree.ts";
import { bytesOfKey, keyStringOf, utf8Bytes, utf8Text } from "../../../src/base/bytes.ts";
import type { Disk } from "../../../src/base/disk.ts";
import type { Random } from "../../../src/base/random.ts";

const NAME = "STORE";

/** Told before a batch is written or a checkpoint made; what it gives is waited for. */
export type StoreHook = (kind: "batch" | "checkpoint" | "defragment", path: string) => Promise<void> | undefined;

export class Stores {
  readonly #stores = new Map<string, MemoryStorage>();
  #made = 0;

  clone(): Stores {
    const copy = new Stores();
    copy.#made = this.#made;
    for (const [id, storage] of this.#stores) copy.#stores.set(id, copyOf(storage));
    return copy;
  }

  /** Of the store that is used most: there is one, except in the middle of a change. */
  get #main(): MemoryStorage {
    const [largest] = [...this.#stores.values()].sort((a, b) => b.tree.size - a.tree.size);
    if (largest === undefined) throw new Error("there is no store");
    return largest;
  }

  /** All rows, in order. */
  rows(): [Uint8Array, Uint8Array][] {
    const { tree } = this.#main;
    const cursor = new TreeCursor(tree.snapshot());
    const rows: [Uint8Array, Uint8Array][] = [];
    cursor.seek(keyStringOf(new Uint8Array(0)));
    for (; cursor.key !== undefined; cursor.next()) rows.push([bytesOfKey(cursor.key), cursor.value]);
    return rows;
  }

  /** As if the medium had changed it. */
  putRow(key: Uint8Array, value: Uint8Array): void {
    this.#main.tree.put(keyStringOf(key), value);
  }

  /** Equal for equal contents, as long as they are copies of one machine's. */
  signature(): string {
    return [...this.#stores].map(([id, { tree }]) => `${id}:${identityOf(tree.snapshot().root)}`).join(",");
  }

  crash(how: "kill" | "power-loss", random: Random): void {
    for (const storage of this.#stores.values()) {
      if (how === "kill") storage.kill();
      else storage.powerLoss(random);
    }
  }

  async open(disk: Disk, directory: string, hook: StoreHook): Promise<Backend> {
    await disk.makeDirectory(directory);
    const path = `${directory}/${NAME}`;
    const found = await this.#find(disk, path);
    if (found !== undefined) return new HookedBackend(found, directory, hook);
    const id = `store-${this.#made}`;
    this.#made += 1;
    const storage = new MemoryStorage();
    this.#stores.set(id, storage);
    const file = await disk.open(path, { create: true });
    await file.truncate(0);
    await file.write(0, utf8Bytes(id));
    await file.sync();
    await file.close();
    await disk.syncDirectory(directory);
    await disk.syncDirectory(directory.slice(0, directory.lastIndexOf("/")));
    return new HookedBackend(storage, directory, hook);
  }

  async #find(disk: Disk, path: string): Promise<MemoryStorage | undefined> {
    if (!(await disk.exists(path))) return undefined;
    const file = await disk.open(path);
    const id = utf8Text(await file.read(0, 64));
    await file.close();
    // Torn while it was being made: nothing had been promised.
    return this.#stores.get(id);
  }
}

const identities = new WeakMap<object, number>();
let identitiesGiven = 0;

/** Trees share their nodes: equal roots are equal contents. */
function identityOf(root: object): number {
  let identity = identities.get(root);
  if (identity === undefined) {
    identitiesGiven += 1;
    identity = identitiesGiven;
    identities.set(root, identity);
  }
  return identity;
}

function copyOf(storage: MemoryStorage): MemoryStorage {
  const copy = new MemoryStorage();
  const { tree } = storage;
  copy.tree = MemoryTree.of(tree.snapshot(), { bytes: tree.bytes, size: tree.size });
  copy.versions = [...storage.versions];
  return copy;
}

class HookedBackend implements Backend {
  readonly #inner: MemoryBackend;
  readonly #directory: string;
  readonly #hook: StoreHook;

  constructor(storage: MemoryStorage, directory: string, hook: StoreHook) {
    this.#inner = new MemoryBackend(storage);
    this.#directory = directory;
    this.#hook = hook;
  }

  async get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return this.#inner.getSync(key);
  }

  getSync(key: Uint8Array): Uint8Array | undefined {
    return this.#inner.getSync(key);
  }

  getMany(keys: readonly Uint8Array[]): Promise<(Uint8Array | undefined)[]> {
    return this.#inner.getMany(keys);
  }

  iterate(range: BackendRange): BackendIterator {
    return this.#inner.iterate(range);
  }

  snapshot(): BackendSnapshot {
    return this.#inner.snapshot();
  }

  /** What a process that dies meanwhile leaves is the store before the write or after it. */
  async write(batch: BackendBatch): Promise<void> {
    const wait = this.#hook("batch", this.#directory);
    if (wait !== undefined) await wait;
    return this.#inner.write(batch);
  }

  async checkpoint(): Promise<void> {
    const wait = this.#hook("checkpoint", this.#directory);
    if (wait !== undefined) await wait;
    return this.#inner.checkpoint();
  }

  async defragment(): Promise<void> {
    const wait = this.#hook("defragment", this.#directory);
    if (wait !== undefined) await wait;
    return this.#inner.defragment();
  }

  sizeBytes(): Promise<number> {
    return this.#inner.sizeBytes();
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
