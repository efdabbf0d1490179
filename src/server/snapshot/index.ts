/** State snapshots between members: writing one, taking one in, and replacing the store by it. */
export { SnapshotBusyError, SnapshotCorruptError, SnapshotSwapError } from "./errors.ts";
export type { SnapshotHeader } from "./format.ts";
export { type ReceivedSnapshot, SnapshotReceiver, type SnapshotReceiverOptions } from "./receiver.ts";
export { diskSpool, memorySpool, type SpoolFile, type SpoolStorage } from "./spool.ts";
export { decideSwap, finishSwap, prepareIncoming, type SwapOutcome } from "./swap.ts";
export { type WriteSpoolOptions, writeSnapshotSpool } from "./write-spool.ts";
