import { EtcdError, GrpcCode } from "../../base/errors.ts";

/** Bytes that are no state snapshot, or one that was altered, cut short or is another one than announced. Nothing of it is used. */
export class SnapshotCorruptError extends EtcdError {
  constructor(problem: string) {
    super("snapshot-corrupt", GrpcCode.DataLoss, `snapshot refused: ${problem}`);
    this.name = "SnapshotCorruptError";
  }
}

/** Another snapshot is being received or installed. The sender may come again. */
export class SnapshotBusyError extends EtcdError {
  constructor() {
    super("snapshot-busy", GrpcCode.Unavailable, "another snapshot is being received or installed");
    this.name = "SnapshotBusyError";
  }
}

/** The store's directories are in a state that no crash can have left behind: nothing is touched, somebody has to look. */
export class SnapshotSwapError extends EtcdError {
  constructor(problem: string) {
    super("snapshot-swap", GrpcCode.DataLoss, `cannot finish the installation of a snapshot: ${problem}`);
    this.name = "SnapshotSwapError";
  }
}
