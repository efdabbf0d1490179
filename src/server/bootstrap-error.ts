import { EtcdError, GrpcCode } from "../base/errors.ts";

/** The configuration does not fit the data directory or the running cluster. The process must not start; nothing was changed. */
export class BootstrapError extends EtcdError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("bootstrap", GrpcCode.FailedPrecondition, message, options);
    this.name = "BootstrapError";
  }
}

/** Log or store of this member are not what they must be, and nobody can heal them from here. The message says what is wrong and what to do; nothing was changed. */
export class DataDamagedError extends EtcdError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("data-damaged", GrpcCode.DataLoss, message, options);
    this.name = "DataDamagedError";
  }
}

const DAMAGE: ReadonlySet<string> = new Set([
  "data-damaged",
  "wal-corrupt",
  "backend-corrupt",
  "backend-broken",
  "row-corrupt",
  "snapshot-swap",
]);

/** What is on the disk is wrong, in contrast to a disk that cannot be read or written, or a configuration that does not fit. */
export function isDamage(error: unknown): error is EtcdError {
  return EtcdError.is(error) && DAMAGE.has(error.reason);
}
