/**
 * The lock of a data directory: an empty LevelDB store, because its lock is the only one that the system releases at death and that Node can take. Nothing is kept in it.
 */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { BackendCorruptError } from "./errors.ts";
import { LevelBackend } from "./level.ts";

/** LevelDB takes its lock on this file before it looks at any other. */
const LOCK_FILE = "LOCK";

/** Held until `close`. Throws DataDirectoryLockedError when another process holds it, or what {@link LevelBackend.open} throws. */
export async function lockDirectory(directory: string): Promise<{ close(): Promise<void> }> {
  try {
    return await LevelBackend.open({ directory });
  } catch (error) {
    if (!(error instanceof BackendCorruptError)) throw error;
    // A power loss may leave any of its files empty (failure catalogue BW18), and none of them is worth anything.
    for (const name of await readdir(directory)) {
      if (name !== LOCK_FILE) await rm(join(directory, name), { recursive: true, force: true });
    }
    return LevelBackend.open({ directory });
  }
}
