/** A file system of a few megabytes in memory, to be filled to the last byte. Needs the right to mount. */
import { spawnSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";

export class SmallFileSystem {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Undefined when nothing can be mounted here. */
  static mount(path: string, megabytes: number): SmallFileSystem | undefined {
    mkdirSync(path, { recursive: true });
    const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m`, "tmpfs", path]);
    return status === 0 ? new SmallFileSystem(path) : undefined;
  }

  /** Takes every byte that is left. */
  fill(): void {
    const file = openSync(join(this.path, "filler"), "a");
    try {
      for (let size = 1 << 20; size >= 1; size >>= 1) {
        const block = Buffer.alloc(size);
        try {
          while (writeSync(file, block) === size);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
        }
      }
    } finally {
      closeSync(file);
    }
  }

  free(): void {
    rmSync(join(this.path, "filler"), { force: true });
  }

  unmount(): void {
    spawnSync("umount", ["-l", this.path]);
  }
}
