/** The system's disk, which fails when it is told to. LevelDB does not write through it. */
import type { Disk, DiskFile } from "../../src/base/disk.ts";
import { systemDisk } from "../../src/base/disk-system.ts";

export class FailingDisk implements Disk {
  /** Every write fails for want of space. */
  full = false;
  /** After so many changes it is full. */
  fullAfter = Number.POSITIVE_INFINITY;
  /** Code with which the next sync of a file fails; later ones succeed, as kernels do. */
  nextSyncFails: string | undefined;
  /** After so many changes all further operations fail, as if the process had died then. */
  diesAfter = Number.POSITIVE_INFINITY;
  /** Syncs of files so far. */
  syncs = 0;
  readonly #disk = systemDisk();

  async makeDirectory(path: string): Promise<void> {
    this.#change("mkdir");
    this.#needsSpace("mkdir");
    await this.#disk.makeDirectory(path);
  }
  list(path: string): Promise<string[] | undefined> {
    return this.#disk.list(path);
  }
  async open(path: string, options?: { create?: boolean }): Promise<DiskFile> {
    const file = await this.#disk.open(path, options);
    return {
      read: (position, length) => file.read(position, length),
      write: async (position, bytes) => {
        this.#change("write");
        this.#needsSpace("write");
        await file.write(position, bytes);
      },
      writeNow: (position, bytes) => {
        this.#change("write");
        if (this.full) file.writeNow(position, bytes.subarray(0, bytes.byteLength >> 1));
        this.#needsSpace("write");
        file.writeNow(position, bytes);
      },
      sync: async () => {
        this.#beforeSync();
        await file.sync();
      },
      syncNow: () => {
        this.#beforeSync();
        file.syncNow();
      },
      sizeBytes: () => file.sizeBytes(),
      truncate: async (sizeBytes) => {
        this.#change("ftruncate");
        await file.truncate(sizeBytes);
      },
      close: () => file.close(),
    };
  }
  async rename(from: string, to: string): Promise<void> {
    this.#change("rename");
    await this.#disk.rename(from, to);
  }
  async remove(path: string): Promise<void> {
    this.#change("unlink");
    await this.#disk.remove(path);
  }
  async removeTree(path: string): Promise<void> {
    this.#change("unlink");
    await this.#disk.removeTree(path);
  }
  syncDirectory(path: string): Promise<void> {
    return this.#disk.syncDirectory(path);
  }
  exists(path: string): Promise<boolean> {
    return this.#disk.exists(path);
  }

  #change(syscall: string): void {
    this.diesAfter -= 1;
    this.fullAfter -= 1;
    if (this.fullAfter < 0) this.full = true;
    if (this.diesAfter < 0) throw systemError("EIO", syscall);
  }

  #needsSpace(syscall: string): void {
    if (this.full) throw systemError("ENOSPC", syscall);
  }

  #beforeSync(): void {
    this.syncs += 1;
    const code = this.nextSyncFails;
    this.nextSyncFails = undefined;
    if (code !== undefined) throw systemError(code, "fdatasync");
  }
}

function systemError(code: string, syscall: string): Error {
  return Object.assign(new Error(`${code}: ${syscall} failed`), { code, syscall });
}
