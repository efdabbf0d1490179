/**
 * The store as a file, for `Maintenance.Snapshot`: the state snapshot of `snapshot/`, padded as clients of etcd expect it (a multiple of 512 bytes, then the
 * SHA-256 of all that), at one position of the log.
 */
import { createHash } from "node:crypto";
import type { ClusterId } from "../base/ids.ts";
import { belongsToSnapshot, decodeConfState, type State } from "./apply/state.ts";
import { abortError } from "./proposals.ts";
import { type SpoolStorage, writeSnapshotSpool } from "./snapshot/index.ts";

export interface BackupOptions {
  readonly state: State;
  readonly storage: SpoolStorage;
  readonly clusterId: ClusterId;
  /** Tells this backup apart from others under way. */
  readonly tag: string;
  readonly defer: (fn: () => void) => void;
  readonly signal: AbortSignal;
}

const BLOB_BYTES = 32_768;
const SECTOR_BYTES = 512;
const DIGEST_BYTES = 32;

/** Blobs of at most 32 KiB; the last one is the digest. `remainingBytes` counts what is still to come, without the digest. */
export async function* writeBackup(options: BackupOptions): AsyncGenerator<{ blob: Uint8Array; remainingBytes: number }> {
  const { state, storage, clusterId, defer, signal } = options;
  const { snapshot, position, confState } = await state.writer.snapshot();
  const source = await writeSnapshotSpool({
    backend: state.backend,
    snapshot,
    header: { clusterId, index: position.index, term: position.term, confState: decodeConfState(confState) },
    storage,
    tag: options.tag,
    includes: belongsToSnapshot,
    defer,
    signal,
  }).finally(() => snapshot.close());
  try {
    const padding = (SECTOR_BYTES - (source.info.sizeBytes % SECTOR_BYTES)) % SECTOR_BYTES;
    let remaining = source.info.sizeBytes + padding;
    const digest = createHash("sha256");
    for await (const chunk of source.read(0)) {
      for (let at = 0; at < chunk.byteLength; at += BLOB_BYTES) {
        if (signal.aborted) throw abortError(signal);
        const blob = chunk.subarray(at, at + BLOB_BYTES);
        digest.update(blob);
        remaining -= blob.byteLength;
        yield { blob, remainingBytes: remaining };
      }
    }
    if (padding > 0) {
      const blob = new Uint8Array(padding);
      digest.update(blob);
      yield { blob, remainingBytes: 0 };
    }
    const sum = digest.digest();
    if (sum.byteLength === DIGEST_BYTES) yield { blob: sum, remainingBytes: 0 };
  } finally {
    await source.close();
  }
}
