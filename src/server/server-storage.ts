import type { LogIndex } from "../base/ids.ts";
import { MemoryStorage, type SnapshotMetadata } from "../raft/index.ts";

/** Storage of the driver: what raft offers to a member that is too far behind is whatever snapshot is ready to be streamed. */
export class ServerStorage extends MemoryStorage {
  #offer: ((from: LogIndex) => SnapshotMetadata | undefined) | undefined;

  setSnapshotSource(offer: (from: LogIndex) => SnapshotMetadata | undefined): void {
    this.#offer = offer;
  }

  override snapshot(from: LogIndex): SnapshotMetadata | undefined {
    return this.#offer === undefined ? super.snapshot(from) : this.#offer(from);
  }
}
