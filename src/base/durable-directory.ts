import type { Disk } from "./disk.ts";

/** Codes of a directory that is not ours to open: whoever made it has to vouch for it. */
const NOT_OURS: ReadonlySet<string> = new Set(["EACCES", "EPERM", "EROFS", "EINVAL"]);

/**
 * Makes a directory and its parents, and their names durable, all the way up: a parent that exists may have been made by a start that died before it could
 * sync it, and everything below would vanish with it in a power loss (failure catalogue BW5). Rejects with the disk's error.
 */
export async function makeDurableDirectory(disk: Disk, path: string): Promise<void> {
  await disk.makeDirectory(path);
  for (let at = parentOf(path); at !== undefined; at = parentOf(at)) {
    try {
      await disk.syncDirectory(at);
    } catch (error) {
      if (!NOT_OURS.has((error as { code?: string }).code ?? "")) throw error;
    }
  }
}

/** Undefined above the root, and above the working directory of a relative path. */
function parentOf(path: string): string | undefined {
  const trimmed = path.replace(/\/+$/, "");
  if (trimmed === "" || trimmed === ".") return undefined;
  const slash = trimmed.lastIndexOf("/");
  if (slash < 0) return ".";
  return slash === 0 ? "/" : trimmed.slice(0, slash);
}
