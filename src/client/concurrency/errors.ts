import { GrpcCode } from "../../base/errors.ts";
import { ClientError } from "../errors.ts";

/**
 * The lock (or the leadership) is not held any more: its lease ended, or somebody deleted its key. Thrown by guarded transactions, which then changed nothing,
 * and by `withLock` when it finds so at the end.
 */
export class LockLostError extends ClientError {
  /** The key whose existence is the lock. */
  readonly key: string;

  constructor(facts: { key: string }, options?: { cause?: unknown }) {
    super("lock-lost", GrpcCode.FailedPrecondition, `the lock ${facts.key} is lost`, options);
    this.name = "LockLostError";
    this.key = facts.key;
  }
}

/** A barrier is up already. */
export class BarrierHeldError extends ClientError {
  constructor(name: string) {
    super("barrier-held", GrpcCode.FailedPrecondition, `the barrier ${name} is held already`);
    this.name = "BarrierHeldError";
  }
}

/** A double barrier has as many participants as it takes. */
export class TooManyClientsError extends ClientError {
  constructor(name: string) {
    super("too-many-clients", GrpcCode.FailedPrecondition, `the barrier ${name} has enough participants already`);
    this.name = "TooManyClientsError";
  }
}

/** A transaction ran into conflicts again and again. */
export class StmConflictError extends ClientError {
  readonly attempts: number;

  constructor(attempts: number) {
    super("stm-conflict", GrpcCode.Aborted, `the transaction met conflicts in ${attempts} attempts`);
    this.name = "StmConflictError";
    this.attempts = attempts;
  }
}
