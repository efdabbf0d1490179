import type { Backend, BackendSnapshot } from "../../backend/backend.ts";
import { RowSpace } from "../../backend/row-spaces.ts";
import { assert } from "../../base/assert.ts";
import type { SnapshotInfo, SnapshotSource } from "../peer/transport.ts";
import { BLOCK_TARGET_BYTES, SnapshotEncoder, type SnapshotHeader, snapshotId } from "./format.ts";
import type { SpoolFile, SpoolStorage } from "./spool.ts";

const ROWS_PER_SLICE = 1024;
const READ_BYTES = 256 * 1024;

export interface WriteSpoolOptions {
  readonly backend: Backend;
  /** The view to write out. It stays the caller's, who closes it when this is done: it pins the store's files. */
  readonly snapshot: BackendSnapshot;
  readonly header: SnapshotHeader;
  readonly storage: SpoolStorage;
  /** Tells apart snapshots of one index that are under way at the same time, e.g. the receiver's id in hex: `[0-9a-z]{1,32}`. */
  readonly tag: string;
  /** Rows to take; by default all but those of RowSpace.chain, which belong to one member's store and not to the state. */
  readonly includes?: ((key: Uint8Array) => boolean) | undefined;
  /** Looks at each row before it is taken, and throws when it is damaged: what is damaged must not spread. */
  readonly check?: ((key: Uint8Array, value: Uint8Array) => void) | undefined;
  /** Calls `fn` in a later turn of the event loop: ServerPorts.defer. */
  readonly defer: (fn: () => void) => void;
  readonly signal?: AbortSignal | undefined;
}

const SPOOL_NAME = /^[0-9a-f]{16}-[0-9a-z]{1,32}\.snap\.out\.tmp$/;

export function isSpoolName(name: string): boolean {
  return SPOOL_NAME.test(name);
}

/**
 * Writes the state into the spool, so that its size and digest are known before the first byte leaves and any part can be read again.
 * Goes in slices of about 64 KiB and lets the event loop run between them; memory use does not depend on the size of the state.
 * The returned source owns the spooled file: `close` deletes it. Rejects, leaving nothing behind, with the store's or the disk's error or
 * the signal's reason.
 */
export async function writeSnapshotSpool(options: WriteSpoolOptions): Promise<SnapshotSource> {
  const { header, storage, tag } = options;
  const name = `${header.index.toString(16).padStart(16, "0")}-${tag}.snap.out.tmp`;
  assert(isSpoolName(name), "a tag is short and simple", { tag });
  const file = await storage.create(name);
  try {
    const encoder = new SnapshotEncoder();
    await file.append(encoder.begin(header));
    await writeRows(options, encoder, file);
    const { bytes, digest } = encoder.finish();
    await file.append(bytes);
    return new SpooledSource({ id: snapshotId(header.index, digest), sizeBytes: file.sizeBytes }, file);
  } catch (error) {
    await file.remove();
    throw error;
  }
}

async function writeRows(options: WriteSpoolOptions, encoder: SnapshotEncoder, file: SpoolFile): Promise<void> {
  const { backend, snapshot, signal, defer } = options;
  const includes = options.includes ?? belongsToState;
  const rows = backend.iterate({ gte: new Uint8Array(0), snapshot });
  try {
    for (;;) {
      signal?.throwIfAborted();
      const slice = await rows.next(ROWS_PER_SLICE, BLOCK_TARGET_BYTES);
      if (slice.length === 0) break;
      for (const [key, value] of slice) {
        if (!includes(key)) continue;
        options.check?.(key, value);
        const closed = encoder.row(key, value);
        if (closed !== undefined) await file.append(closed);
      }
      await new Promise<void>(defer);
    }
  } finally {
    await rows.close();
  }
  const last = encoder.flush();
  if (last !== undefined) await file.append(last);
}

function belongsToState(key: Uint8Array): boolean {
  return key[0] !== RowSpace.chain;
}

class SpooledSource implements SnapshotSource {
  readonly info: SnapshotInfo;
  readonly #file: SpoolFile;

  constructor(info: SnapshotInfo, file: SpoolFile) {
    this.info = info;
    this.#file = file;
  }

  async *read(offset: number): AsyncGenerator<Uint8Array, void, undefined> {
    for (let at = offset; at < this.info.sizeBytes; ) {
      const bytes = await this.#file.read(at, READ_BYTES);
      if (bytes.byteLength === 0) throw new Error("the spooled snapshot became shorter");
      yield bytes;
      at += bytes.byteLength;
    }
  }

  close(): Promise<void> {
    return this.#file.remove();
  }
}
