import { MemoryStorage, type SnapshotMetadata } from "../raft/index.ts";

/** Storage of the driver: what raft offers to a member that is too far behind is whatever snapshot is ready to be streamed. */
export class ServerStorage extends MemoryStorage {
  #offer: (() => SnapshotMetadata | undefined) | undefined;

  setSnapshotSource(offer: () => SnapshotMetadata | undefined): void {
    this.#offer = offer;
  }

  override snapshot(): SnapshotMetadata | undefined {
    return this.#offer === undefined ? super.snapshot() : this.#offer();
  }
}
