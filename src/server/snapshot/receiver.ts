/**
 * Takes in state snapshots. One at a time: a second one is refused until the first has been installed or given up (failure catalogue BS1).
 * Every byte is checked as it comes, so a broken stream can be continued where it ended, and what is stored is never in doubt.
 *
 *   receive ──► ReceivedSnapshot ──► installInto(a fresh backend) ──► discard
 */

import type { BackendRow } from "../../backend/backend.ts";
import { type Backend, createBatch } from "../../backend/index.ts";
import { assert } from "../../base/assert.ts";
import { type ClusterId, hexId } from "../../base/ids.ts";
import type { ConfState, SnapshotMetadata } from "../../raft/index.ts";
import type { SnapshotInfo } from "../peer/transport.ts";
import { SnapshotBusyError, SnapshotCorruptError } from "./errors.ts";
import { isSnapshotId, type SnapshotHeader, SnapshotReader, snapshotId } from "./format.ts";
import type { SpoolFile, SpoolStorage } from "./spool.ts";
import { isSpoolName } from "./write-spool.ts";

/** Small enough that parsing a piece, or handing a batch to the store (about 2 µs per row), does not hold the event loop for long. */
const READ_BYTES = 128 * 1024;
const BATCH_BYTES = 1024 * 1024;
const BATCH_ROWS = 1024;

export interface SnapshotReceiverOptions {
  readonly storage: SpoolStorage;
  readonly clusterId: ClusterId;
  /** Calls `fn` in a later turn of the event loop: ServerPorts.defer. */
  readonly defer: (fn: () => void) => void;
}

/** A snapshot that has arrived as a whole and is verified. */
export interface ReceivedSnapshot {
  readonly header: SnapshotHeader;
  readonly sizeBytes: number;
  /**
   * Writes all rows into a backend that must be empty, in batches; nothing is synced. Verifies everything once more on the way. When it
   * rejects, the backend holds a part and must be thrown away; the snapshot can be installed again.
   */
  installInto(backend: Backend): Promise<{ rows: number }>;
  /** Deletes the stored bytes and makes room for the next snapshot. Idempotent. */
  discard(): Promise<void>;
}

interface Partial {
  readonly info: SnapshotInfo;
  readonly file: SpoolFile;
  readonly reader: SnapshotReader;
}

export class SnapshotReceiver {
  readonly #options: SnapshotReceiverOptions;
  /** Bytes of a snapshot whose stream broke off. */
  #partial: Partial | undefined;
  /** A snapshot is coming in, or has come in and is not discarded yet. */
  #busy = false;
  #closed = false;

  constructor(options: SnapshotReceiverOptions) {
    this.#options = options;
  }

  /** Removes what an earlier life of this member left behind, received and sent; call it before the first snapshot. */
  async removeLeftovers(): Promise<void> {
    const { storage } = this.#options;
    for (const name of await storage.list()) {
      const isPart = name.endsWith(PART_SUFFIX) && isSnapshotId(name.slice(0, -PART_SUFFIX.length));
      if (isPart || isSpoolName(name)) await storage.remove(name);
    }
  }

  /** Bytes of that snapshot which are here already and need not be sent. */
  bytesHeld(info: SnapshotInfo): number {
    const partial = this.#partial;
    return !this.#busy && partial !== undefined && isSame(partial.info, info) ? partial.file.sizeBytes : 0;
  }

  /**
   * Stores `chunks`, which must begin at `bytesHeld(info)`. Rejects with SnapshotBusyError while another one is here, with
   * SnapshotCorruptError when the bytes are not the snapshot that `info` and `expected` announce (they are dropped then), with the
   * stream's error when it breaks off (what came is kept for the next attempt), or with the disk's error (dropped).
   */
  async receive(info: SnapshotInfo, chunks: AsyncIterable<Uint8Array>, expected: SnapshotMetadata): Promise<ReceivedSnapshot> {
    if (this.#busy || this.#closed) throw new SnapshotBusyError();
    this.#busy = true;
    try {
      const partial = await this.#continue(info);
      await this.#take(partial, chunks);
      return await this.#finish(partial, expected);
    } catch (error) {
      this.#busy = false;
      if (this.#closed) await this.#dropPartial();
      throw error;
    }
  }

  /**
   * Deletes a partial snapshot, now or when its stream ends, and takes no more. One that has been received is its owner's to discard.
   */
  async close(): Promise<void> {
    this.#closed = true;
    if (!this.#busy) await this.#dropPartial();
  }

  async #continue(info: SnapshotInfo): Promise<Partial> {
    if (!isSnapshotId(info.id)) throw new SnapshotCorruptError("it has no proper name");
    if (this.#partial !== undefined && isSame(this.#partial.info, info)) return this.#partial;
    await this.#dropPartial();
    const file = await this.#options.storage.create(`${info.id}${PART_SUFFIX}`);
    this.#partial = { info, file, reader: new SnapshotReader() };
    return this.#partial;
  }

  async #take(partial: Partial, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const { info, file, reader } = partial;
    for await (const chunk of chunks) {
      try {
        if (reader.position + chunk.byteLength > info.sizeBytes) throw new SnapshotCorruptError("longer than announced");
        reader.push(chunk);
        await file.append(chunk);
        assert(reader.position === file.sizeBytes, "everything checked is stored");
      } catch (error) {
        await this.#dropPartial();
        throw error;
      }
    }
  }

  async #finish(partial: Partial, expected: SnapshotMetadata): Promise<ReceivedSnapshot> {
    const { info, file, reader } = partial;
    try {
      if (reader.position !== info.sizeBytes) throw new SnapshotCorruptError("shorter than announced");
      const { header, digest } = reader.end();
      if (snapshotId(header.index, digest) !== info.id) throw new SnapshotCorruptError("another content than its name says");
      if (header.clusterId !== this.#options.clusterId) throw new SnapshotCorruptError(`it is of cluster ${hexId(header.clusterId)}`);
      if (header.index !== expected.index || header.term !== expected.term || !isSameConf(header.confState, expected.confState)) {
        throw new SnapshotCorruptError("its position or membership is not the one of its raft message");
      }
      this.#partial = undefined;
      let discarded = false;
      return {
        header,
        sizeBytes: info.sizeBytes,
        installInto: (backend) => install(this.#options, file, info, backend),
        discard: async () => {
          // Only the first call makes room: by the second one a newer snapshot may be here.
          if (discarded) return;
          discarded = true;
          try {
            await file.remove();
          } finally {
            this.#busy = false;
          }
        },
      };
    } catch (error) {
      await this.#dropPartial();
      throw error;
    }
  }

  async #dropPartial(): Promise<void> {
    const partial = this.#partial;
    this.#partial = undefined;
    await partial?.file.remove();
  }
}

const PART_SUFFIX = ".part";

function isSame(a: SnapshotInfo, b: SnapshotInfo): boolean {
  return a.id === b.id && a.sizeBytes === b.sizeBytes;
}

function isSameConf(a: ConfState, b: ConfState): boolean {
  return (
    isSameList(a.voters, b.voters) &&
    isSameList(a.votersOutgoing, b.votersOutgoing) &&
    isSameList(a.learners, b.learners) &&
    isSameList(a.learnersNext, b.learnersNext) &&
    a.autoLeave === b.autoLeave
  );
}

function isSameList(a: readonly bigint[], b: readonly bigint[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}

async function install(options: SnapshotReceiverOptions, file: SpoolFile, info: SnapshotInfo, backend: Backend): Promise<{ rows: number }> {
  const { defer } = options;
  await assertEmpty(backend);
  const pending: BackendRow[] = [];
  const reader = new SnapshotReader({
    rows: (rows) => {
      for (const row of rows) pending.push(row);
    },
  });
  let batch = createBatch();
  for (let at = 0; at < info.sizeBytes; ) {
    const bytes = await file.read(at, READ_BYTES);
    if (bytes.byteLength === 0) throw new SnapshotCorruptError("the stored file became shorter");
    at += bytes.byteLength;
    reader.push(bytes);
    for (const [key, value] of pending) {
      batch.put(key, value);
      if (batch.bytes >= BATCH_BYTES || batch.operations.length >= BATCH_ROWS) {
        await backend.write(batch);
        batch = createBatch();
      }
    }
    pending.length = 0;
    await new Promise<void>(defer);
  }
  const { header, digest, rows } = reader.end();
  if (snapshotId(header.index, digest) !== info.id) throw new SnapshotCorruptError("the stored file changed");
  if (batch.operations.length > 0) await backend.write(batch);
  return { rows };
}

async function assertEmpty(backend: Backend): Promise<void> {
  const rows = backend.iterate({ gte: new Uint8Array(0), keysOnly: true });
  try {
    const first = await rows.next(1);
    assert(first.length === 0, "a snapshot is installed into an empty store");
  } finally {
    await rows.close();
  }
}
