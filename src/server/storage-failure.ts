/** Telling a disk that is full, which passes, from a disk that fails, which does not. */
import { EtcdError, GrpcCode } from "../base/errors.ts";

/** What clients are told while there is no space: nothing that was acknowledged is lost, and nothing is acknowledged. */
export class OutOfSpaceError extends EtcdError {
  constructor(options?: { cause?: unknown }) {
    super("out-of-space", GrpcCode.Unavailable, "holdfast: the data directory is out of space; waiting for space", options);
    this.name = "OutOfSpaceError";
  }
}

const CODES: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT"]);
/** LevelDB tells only the text of the error. */
const TEXTS = /No space left on device|Disk quota exceeded/;
const CAUSES_MAX = 10;

/**
 * True when the first cause of the error is that something could not be written for want of space. Not when a sync said so: then pages that were written
 * before may be lost, and the kernel does not tell which (failure catalogue BW19).
 */
export function isOutOfSpace(error: unknown): boolean {
  let at = error;
  for (let i = 0; i < CAUSES_MAX && at instanceof Error; i++) {
    const { code, syscall } = at as { code?: unknown; syscall?: unknown };
    if (typeof code === "string" && CODES.has(code)) return syscall !== "fsync" && syscall !== "fdatasync";
    if (typeof code === "string" && code.startsWith("LEVEL_") && TEXTS.test(at.message)) return true;
    at = at.cause;
  }
  return false;
}
