import { assert } from "../../base/assert.ts";
import type { Disk, DiskFile } from "../../base/disk.ts";

/** Where snapshots wait as a whole, on their way out and in: the disk of a member, or its memory when it has no disk. */
export interface SpoolStorage {
  /** An empty file of that name; replaces an older one. */
  create(name: string): Promise<SpoolFile>;
  list(): Promise<readonly string[]>;
  remove(name: string): Promise<void>;
}

/** Grows at the end, is read anywhere. */
export interface SpoolFile {
  readonly sizeBytes: number;
  /** The bytes may be reused once the promise has settled, except in memory, where they are kept. Not to be called concurrently. */
  append(bytes: Uint8Array): Promise<void>;
  /** Shorter than asked only at the end. */
  read(position: number, length: number): Promise<Uint8Array>;
  /** Closes and deletes. Idempotent. */
  remove(): Promise<void>;
}

export function diskSpool(disk: Disk, directory: string): SpoolStorage {
  return {
    async create(name) {
      await disk.makeDirectory(directory);
      const path = `${directory}/${name}`;
      const file = await disk.open(path, { create: true });
      await file.truncate(0);
      return new DiskSpoolFile(disk, path, file);
    },
    async list() {
      return (await disk.list(directory)) ?? [];
    },
    async remove(name) {
      await disk.remove(`${directory}/${name}`);
    },
  };
}

class DiskSpoolFile implements SpoolFile {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #file: DiskFile;
  #sizeBytes = 0;
  #open = true;

  constructor(disk: Disk, path: string, file: DiskFile) {
    this.#disk = disk;
    this.#path = path;
    this.#file = file;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  async append(bytes: Uint8Array): Promise<void> {
    await this.#file.write(this.#sizeBytes, bytes);
    this.#sizeBytes += bytes.byteLength;
  }

  read(position: number, length: number): Promise<Uint8Array> {
    return this.#file.read(position, Math.max(0, Math.min(length, this.#sizeBytes - position)));
  }

  async remove(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
    await this.#disk.remove(this.#path);
  }
}

/** Snapshots of a member without a disk. */
export function memorySpool(): SpoolStorage {
  const files = new Map<string, MemorySpoolFile>();
  return {
    async create(name) {
      const file = new MemorySpoolFile(() => {
        if (files.get(name) === file) files.delete(name);
      });
      files.set(name, file);
      return file;
    },
    async list() {
      return [...files.keys()].sort();
    },
    async remove(name) {
      files.delete(name);
    },
  };
}

class MemorySpoolFile implements SpoolFile {
  readonly #onRemove: () => void;
  #pieces: Uint8Array[] = [];
  /** Position behind each piece. */
  #ends: number[] = [];

  constructor(onRemove: () => void) {
    this.#onRemove = onRemove;
  }

  get sizeBytes(): number {
    return this.#ends.at(-1) ?? 0;
  }

  async append(bytes: Uint8Array): Promise<void> {
    if (bytes.byteLength === 0) return;
    this.#ends.push(this.sizeBytes + bytes.byteLength);
    this.#pieces.push(bytes);
  }

  async read(position: number, length: number): Promise<Uint8Array> {
    assert(position >= 0 && length >= 0, "a range");
    // The piece that holds `position`: the first one that ends behind it.
    let low = 0;
    let high = this.#ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ends[middle] as number) > position) high = middle;
      else low = middle + 1;
    }
    const parts: Uint8Array[] = [];
    let left = length;
    for (let i = low; i < this.#pieces.length && left > 0; i++) {
      const piece = this.#pieces[i] as Uint8Array;
      const from = Math.max(0, position - ((this.#ends[i] as number) - piece.byteLength));
      const part = piece.subarray(from, from + left);
      left -= part.byteLength;
      parts.push(part);
    }
    return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
  }

  async remove(): Promise<void> {
    this.#pieces = [];
    this.#ends = [];
    this.#onRemove();
  }
}
