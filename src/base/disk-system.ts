import * as fs from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import type { Disk, DiskFile } from "./disk.ts";

/** The real file system. */
export function systemDisk(): Disk {
  return {
    async makeDirectory(path) {
      await mkdir(path, { recursive: true, mode: 0o700 });
    },
    async list(path) {
      try {
        return (await readdir(path)).sort();
      } catch (error) {
        if (isAbsent(error)) return undefined;
        throw error;
      }
    },
    async open(path, options = {}) {
      const flags = fs.constants.O_RDWR | (options.create === true ? fs.constants.O_CREAT : 0);
      return new SystemFile(await open(path, flags, 0o600));
    },
    async rename(from, to) {
      await rename(from, to);
    },
    async remove(path) {
      await rm(path, { force: true });
    },
    async removeTree(path) {
      await rm(path, { recursive: true, force: true });
    },
    async syncDirectory(path) {
      const handle = await open(path, "r");
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    },
    async exists(path) {
      try {
        await stat(path);
        return true;
      } catch (error) {
        if (isAbsent(error)) return false;
        throw error;
      }
    },
  };
}

function isAbsent(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT";
}

class SystemFile implements DiskFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async read(position: number, length: number): Promise<Uint8Array> {
    const buffer = Buffer.allocUnsafe(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await this.#handle.read(buffer, done, length - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return buffer.subarray(0, done);
  }

  async write(position: number, bytes: Uint8Array): Promise<void> {
    let done = 0;
    while (done < bytes.byteLength) {
      // A nearly full disk stores a part and reports no error (failure catalogue BW22).
      const { bytesWritten } = await this.#handle.write(bytes, done, bytes.byteLength - done, position + done);
      done += bytesWritten;
    }
  }

  writeNow(position: number, bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.byteLength) {
      done += fs.writeSync(this.#handle.fd, bytes, done, bytes.byteLength - done, position + done);
    }
  }

  async sync(): Promise<void> {
    await this.#handle.datasync();
  }

  syncNow(): void {
    fs.fdatasyncSync(this.#handle.fd);
  }

  async sizeBytes(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  async truncate(sizeBytes: number): Promise<void> {
    await this.#handle.truncate(sizeBytes);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}
