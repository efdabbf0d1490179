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
