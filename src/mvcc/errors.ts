import { RpcError } from "../api/index.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";

/**
 * A stored row is missing, or not what was written: its checksum, its position or its encoding is wrong. The state of this member can
 * no longer be trusted; the server treats it as corruption of the store and never answers from it (failure catalogue BW13, BW16).
 */
export class RowCorruptError extends EtcdError {
  readonly main: number;
  readonly sub: number;

  constructor(facts: { main: number; sub: number; problem: string }) {
    super("row-corrupt", GrpcCode.DataLoss, `mvcc: stored row ${facts.main}/${facts.sub} ${facts.problem}`);
    this.name = "RowCorruptError";
    this.main = facts.main;
    this.sub = facts.sub;
  }
}

/**
 * A committed request could not be executed on this member although it is valid: a row that it needs cannot be read. Other members may well
 * have executed it, so this one's state is behind the log or half changed, and the instance has to stop. Not an EtcdError, on purpose:
 * nobody may take it for an answer and go on.
 */
export class ExecutionFailedError extends Error {
  constructor(cause: unknown) {
    super(`a committed request cannot be executed: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.name = "ExecutionFailedError";
  }
}

/** What to throw for an error of the execution: refusals as they are, everything else as ExecutionFailedError. */
export function executionError(error: unknown): unknown {
  return error instanceof RpcError ? error : new ExecutionFailedError(error);
}
