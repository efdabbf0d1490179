import { EtcdError, GrpcCode } from "../base/errors.ts";

/**
 * A write failed, now or earlier: nothing more can be trusted to reach the store in order, so every call fails until the store is closed
 * and opened again (failure catalogue BW14, BW15). `cause` is the first error.
 */
export class BackendFailedError extends EtcdError {
  constructor(cause: unknown) {
    super("backend-failed", GrpcCode.Unavailable, `backend: a write failed: ${textOf(cause)}`, { cause });
    this.name = "BackendFailedError";
  }
}

/** A read failed. The store is not poisoned by it. */
export class BackendReadError extends EtcdError {
  constructor(cause: unknown) {
    super("backend-read", GrpcCode.Unavailable, `backend: a read failed: ${textOf(cause)}`, { cause });
    this.name = "BackendReadError";
  }
}

/** The store is damaged (found at open or by a read). It is a view of the log: rebuild it, never repair it (failure catalogue BW17). */
export class BackendCorruptError extends EtcdError {
  constructor(cause: unknown) {
    super("backend-corrupt", GrpcCode.DataLoss, `backend: the store is damaged: ${textOf(cause)}`, { cause });
    this.name = "BackendCorruptError";
  }
}

/** A call after `close`, or one that `close` overtook. */
export class BackendClosedError extends EtcdError {
  constructor() {
    super("backend-closed", GrpcCode.Unavailable, "backend: closed");
    this.name = "BackendClosedError";
  }
}

/** Another process (or another part of this one) has the store open, and with it the data directory. */
export class DataDirectoryLockedError extends EtcdError {
  readonly directory: string;

  constructor(directory: string, cause: unknown) {
    super("data-directory-locked", GrpcCode.FailedPrecondition, `the data directory is in use by another process (lock on ${directory})`, {
      cause,
    });
    this.name = "DataDirectoryLockedError";
    this.directory = directory;
  }
}

/** LevelDB's own message is the innermost cause. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message : error.message;
}
