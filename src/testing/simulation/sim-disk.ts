/** A disk in memory that outlives the processes which write to it. */
import type { Disk, DiskFile } from "../../base/disk.ts";

const BLOCK_BYTES = 64 * 1024;

/** Blocks that nobody has written hold zeros and take no room. */
class Content {
  readonly blocks = new Map<number, Uint8Array>();
  sizeBytes = 0;

  read(position: number, length: number): Uint8Array {
    const bytes = new Uint8Array(Math.max(0, Math.min(length, this.sizeBytes - position)));
    for (let done = 0; done < bytes.length; ) {
      const at = position + done;
      const within = at % BLOCK_BYTES;
      const count = Math.min(BLOCK_BYTES - within, bytes.length - done);
      const block = this.blocks.get(Math.floor(at / BLOCK_BYTES));
      if (block !== undefined) bytes.set(block.subarray(within, within + count), done);
      done += count;
    }
    return bytes;
  }

  write(position: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const at = position + done;
      const within = at % BLOCK_BYTES;
      const count = Math.min(BLOCK_BYTES - within, bytes.length - done);
      const index = Math.floor(at / BLOCK_BYTES);
      let block = this.blocks.get(index);
      if (block === undefined) {
        block = new Uint8Array(BLOCK_BYTES);
        this.blocks.set(index, block);
      }
      block.set(bytes.subarray(done, done + count), within);
      done += count;
    }
    this.sizeBytes = Math.max(this.sizeBytes, position + bytes.length);
  }

  truncate(sizeBytes: number): void {
    for (const [index, block] of this.blocks) {
      const start = index * BLOCK_BYTES;
      if (start >= sizeBytes) this.blocks.delete(index);
      else if (start + BLOCK_BYTES > sizeBytes) block.fill(0, sizeBytes - start);
    }
    this.sizeBytes = sizeBytes;
  }
}

class NoSuchFileError extends Error {
  readonly code = "ENOENT";

  constructor(path: string) {
    super(`ENOENT: no such file or directory, '${path}'`);
    this.name = "NoSuchFileError";
  }
}

/** How a process does something on the disk: at once or late, or, once it is dead, never. */
export interface DiskUser {
  readonly dead: boolean;
  /** Resolves when the disk has done `what`; never for a dead process. */
  done(what: "write" | "sync" | "read"): Promise<void>;
}

export class SimDisk {
  readonly #files = new Map<string, Content>();
  readonly #directories = new Set<string>();

  /** The disk as one process sees it. */
  for(user: DiskUser): Disk {
    const files = this.#files;
    const directories = this.#directories;
    const write = async (act: () => void): Promise<void> => {
      if (!user.dead) act();
      await user.done("write");
    };
    return {
      makeDirectory: (path) =>
        write(() => {
          for (let at = path; at !== "" && at !== "/"; at = at.slice(0, at.lastIndexOf("/"))) directories.add(at);
        }),
      async list(path) {
        await user.done("read");
        if (!directories.has(path)) return undefined;
        const names = new Set<string>();
        for (const one of [...files.keys(), ...directories]) {
          if (one.startsWith(`${path}/`)) names.add(one.slice(path.length + 1).split("/")[0] as string);
        }
        return [...names].sort();
      },
      async open(path, options) {
        await user.done("read");
        let content = files.get(path);
        if (content === undefined) {
          if (options?.create !== true) throw new NoSuchFileError(path);
          content = new Content();
          if (!user.dead) files.set(path, content);
        }
        return new SimFile(content, user);
      },
      rename: (from, to) =>
        write(() => {
          const content = files.get(from);
          if (content !== undefined) {
            files.delete(from);
            files.set(to, content);
            return;
          }
          if (!directories.has(from)) throw new NoSuchFileError(from);
          const moved = (path: string): string | undefined =>
            path === from || path.startsWith(`${from}/`) ? to + path.slice(from.length) : undefined;
          for (const [path, one] of [...files]) {
            const target = moved(path);
            if (target === undefined) continue;
            files.delete(path);
            files.set(target, one);
          }
          for (const path of [...directories]) {
            const target = moved(path);
            if (target === undefined) continue;
            directories.delete(path);
            directories.add(target);
          }
        }),
      remove: (path) => write(() => files.delete(path)),
      removeTree: (path) =>
        write(() => {
          for (const one of [...files.keys()]) if (one === path || one.startsWith(`${path}/`)) files.delete(one);
          for (const one of [...directories]) if (one === path || one.startsWith(`${path}/`)) directories.delete(one);
        }),
      syncDirectory: () => user.done("sync"),
      async exists(path) {
        await user.done("read");
        return files.has(path) || directories.has(path);
      },
    };
  }
}

class SimFile implements DiskFile {
  readonly #content: Content;
  readonly #user: DiskUser;

  constructor(content: Content, user: DiskUser) {
    this.#content = content;
    this.#user = user;
  }

  async read(position: number, length: number): Promise<Uint8Array> {
    await this.#user.done("read");
    return this.#content.read(position, length);
  }

  write(position: number, bytes: Uint8Array): Promise<void> {
    this.writeNow(position, bytes);
    return this.#user.done("write");
  }

  writeNow(position: number, bytes: Uint8Array): void {
    if (!this.#user.dead) this.#content.write(position, bytes);
  }

  sync(): Promise<void> {
    return this.#user.done("sync");
  }

  syncNow(): void {
    // What is written survives the process: a simulated machine never loses its power.
  }

  async sizeBytes(): Promise<number> {
    return this.#content.sizeBytes;
  }

  truncate(sizeBytes: number): Promise<void> {
    if (!this.#user.dead) this.#content.truncate(sizeBytes);
    return this.#user.done("write");
  }

  async close(): Promise<void> {
    // Nothing is held open.
  }
}
