/**
 * The store as a file, for `Maintenance.Snapshot`: a bbolt database with etcd's buckets, so that etcd's tools can check and restore it, as of one
 * position of the log, and then its SHA-256. Formats: docs/FORMATS.md, "Backup".
 */
import { createHash } from "node:crypto";
import { decodeConfState, type State } from "./apply/state.ts";
import type { BoltSource } from "./backup/bolt-reader.ts";
import { BoltWriter, HEAD_BYTES } from "./backup/bolt-writer.ts";
import { writeContents } from "./backup/contents.ts";
import { abortError } from "./proposals.ts";
import type { SpoolFile, SpoolStorage } from "./snapshot/index.ts";

export interface BackupOptions {
  readonly state: State;
  readonly storage: SpoolStorage;
  /** Tells this backup apart from others under way: `[0-9a-z]{1,32}`. */
  readonly tag: string;
  readonly defer: (fn: () => void) => void;
  readonly signal: AbortSignal;
}

const BLOB_BYTES = 32_768;
/** Bytes of finished pages that are held before they go to the spool. */
const PENDING_BYTES_MAX = 256 * 1024;
const READ_BYTES = 8 * BLOB_BYTES;

/** A whole backup in the spool, without its digest. Remove it. */
export interface SpooledBackup extends BoltSource {
  remove(): Promise<void>;
}

/**
 * Writes the backup into the spool, from where it can be read in any order: its head names the root of its trees, which is known last. Rejects, leaving
 * nothing behind, with the store's or the spool's error or the signal's reason.
 */
export async function spoolBackup(options: BackupOptions): Promise<SpooledBackup> {
  const { snapshot, position, confState } = await options.state.writer.snapshot();
  const name = `${position.index.toString(16).padStart(16, "0")}-${options.tag}.snap.out.tmp`;
  let file: SpoolFile | undefined;
  try {
    const spoolFile = await options.storage.create(name);
    file = spoolFile;
    const heads = await spool(options, { snapshot, position, confState: decodeConfState(confState) }, spoolFile);
    return {
      sizeBytes: HEAD_BYTES + spoolFile.sizeBytes,
      read: async (at, length) => {
        if (at >= HEAD_BYTES) return spoolFile.read(at - HEAD_BYTES, length);
        const head = heads.subarray(at, at + length);
        return length <= head.byteLength ? head : Buffer.concat([head, await spoolFile.read(0, length - head.byteLength)]);
      },
      remove: () => spoolFile.remove(),
    };
  } catch (error) {
    await file?.remove();
    throw error;
  } finally {
    await snapshot.close();
  }
}

/**
 * Blobs of at most 32 KiB; the last one is the digest of all others. `remainingBytes` counts what is still to come, without the digest. Rejects, leaving
 * nothing behind, with the store's or the spool's error or the signal's reason.
 */
export async function* writeBackup(options: BackupOptions): AsyncGenerator<{ blob: Uint8Array; remainingBytes: number }> {
  const { signal } = options;
  const backup = await spoolBackup(options);
  try {
    const digest = createHash("sha256");
    let remaining = backup.sizeBytes;
    for (let at = 0; at < backup.sizeBytes; ) {
      const bytes = await backup.read(at, READ_BYTES);
      if (bytes.byteLength === 0) throw new Error("the spooled backup became shorter");
      at += bytes.byteLength;
      for (let from = 0; from < bytes.byteLength; from += BLOB_BYTES) {
        if (signal.aborted) throw abortError(signal);
        const blob = bytes.subarray(from, from + BLOB_BYTES);
        digest.update(blob);
        remaining -= blob.byteLength;
        yield { blob, remainingBytes: remaining };
      }
    }
    yield { blob: digest.digest(), remainingBytes: 0 };
  } finally {
    await backup.remove();
  }
}

/** Writes all pages but the heads into the file; returns the heads. */
async function spool(
  options: BackupOptions,
  view: Pick<Parameters<typeof writeContents>[0], "snapshot" | "position" | "confState">,
  file: SpoolFile,
): Promise<Uint8Array> {
  const { state, defer, signal } = options;
  const writer = new BoltWriter();
  const flush = async (): Promise<void> => {
    await file.append(Buffer.concat(writer.take()));
  };
  await writeContents({
    ...view,
    backend: state.backend,
    writer,
    onSlice: async () => {
      if (signal.aborted) throw abortError(signal);
      if (writer.pendingBytes >= PENDING_BYTES_MAX) await flush();
      await new Promise<void>(defer);
    },
  });
  const heads = writer.finish();
  await flush();
  return heads;
}
