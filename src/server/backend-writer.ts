/**
 * The one place that writes to the backend. Effects of applied entries and of compaction collect in an open batch; while one write runs, everything that
 * arrives joins the next one, so the batch size follows the load. Every batch carries the applied index it reaches and a link of a
 * chain: LevelDB can lose a batch in the middle silently (failure catalogue BW13), and a missing link shows it at the next open.
 *
 * Durability does not depend on these writes: the WAL is the truth, and it is cut only behind a checkpoint.
 */
import { type Backend, type BackendBatch, BackendClosedError, type BackendSnapshot, createBatch, RowSpace } from "../backend/index.ts";
import { assert } from "../base/assert.ts";
import { crc32 } from "../base/bytes.ts";
import type { LogIndex, Term } from "../base/ids.ts";
import { APPLIED_KEY, CHECKPOINT_KEY, CONF_STATE_KEY } from "./meta-rows.ts";

/** Where the backend stands: everything up to `index` is in it. */
export interface BackendPosition {
  readonly index: LogIndex;
  readonly term: Term;
  /** Number of the last batch of the chain; 0 before the first. */
  readonly sequence: number;
  /** CRC over the chain up to that batch. */
  readonly link: number;
}

export const EMPTY_POSITION: BackendPosition = { index: 0, term: 0, sequence: 0, link: 0 };

const POSITION_BYTES = 28;

export function encodePosition(position: BackendPosition): Uint8Array {
  const bytes = new Uint8Array(POSITION_BYTES);
  const view = new DataView(bytes.buffer);
  writeUint64(view, 0, position.index);
  writeUint64(view, 8, position.term);
  writeUint64(view, 16, position.sequence);
  view.setUint32(24, position.link);
  return bytes;
}

export function decodePosition(bytes: Uint8Array): BackendPosition | undefined {
  if (bytes.byteLength !== POSITION_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { index: readUint64(view, 0), term: readUint64(view, 8), sequence: readUint64(view, 16), link: view.getUint32(24) };
}

function writeUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value % 2 ** 32);
}

function readUint64(view: DataView, at: number): number {
  return view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
}

export function chainKey(sequence: number): Uint8Array {
  const bytes = new Uint8Array(9);
  bytes[0] = RowSpace.chain;
  writeUint64(new DataView(bytes.buffer), 1, sequence);
  return bytes;
}

/** The link behind `previous` for a batch that reaches (index, term). */
function nextLink(previous: BackendPosition, index: LogIndex, term: Term): number {
  return crc32(encodePosition({ index, term, sequence: previous.sequence + 1, link: previous.link }));
}

/**
 * Checks the chain from the last checkpoint to the applied row.
 * Returns the position, or the reason why the backend cannot be trusted.
 */
export async function readPosition(backend: Backend): Promise<{ position: BackendPosition } | { broken: string }> {
  const appliedBytes = await backend.get(APPLIED_KEY);
  const checkpointBytes = await backend.get(CHECKPOINT_KEY);
  const checkpoint = checkpointBytes === undefined ? EMPTY_POSITION : decodePosition(checkpointBytes);
  if (checkpoint === undefined) return { broken: "the checkpoint row is malformed" };
  const applied = appliedBytes === undefined ? EMPTY_POSITION : decodePosition(appliedBytes);
  if (applied === undefined) return { broken: "the applied row is malformed" };
  if (applied.sequence < checkpoint.sequence)
    return { broken: `the applied row is at batch ${applied.sequence}, before the checkpoint at ${checkpoint.sequence}` };

  let at = checkpoint;
  const rows = backend.iterate({ gte: chainKey(checkpoint.sequence + 1), lt: new Uint8Array([RowSpace.chain + 1]) });
  try {
    for (let slice = await rows.next(1000); slice.length > 0; slice = await rows.next(1000)) {
      for (const [key, value] of slice) {
        const link = decodePosition(value);
        if (link === undefined) return { broken: `the chain row behind batch ${at.sequence} is malformed` };
        const sequence = readUint64(new DataView(key.buffer, key.byteOffset, key.byteLength), 1);
        if (sequence !== at.sequence + 1 || link.sequence !== sequence) return { broken: `batch ${at.sequence + 1} is missing` };
        if (link.link !== nextLink(at, link.index, link.term)) return { broken: `batch ${sequence} does not continue the chain` };
        at = link;
      }
    }
  } finally {
    await rows.close();
  }
  if (at.sequence !== applied.sequence || at.link !== applied.link || at.index !== applied.index) {
    return { broken: `the chain ends at batch ${at.sequence}, the applied row says ${applied.sequence}` };
  }
  return { position: applied };
}

export interface BackendWriterOptions {
  readonly backend: Backend;
  readonly position: BackendPosition;
  /** The batch is in the store now. */
  readonly onWritten: (batch: BackendBatch) => void;
  /** The backend is poisoned; called once. */
  readonly onFailed: (error: Error) => void;
  /** Batches of more than this many bytes make `applyMayProceed` false until written. */
  readonly pendingBytesMax: number;
  readonly onCommitMs?: (milliseconds: number) => void;
  readonly nowMs: () => number;
}

interface Waiter {
  readonly needsIdle: boolean;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class BackendWriter {
  readonly #options: BackendWriterOptions;
  #open: BackendBatch = createBatch();
  /** What the open batch reaches. */
  #target: BackendPosition;
  #written: BackendPosition;
  #inFlight: BackendBatch | undefined;
  #failed: Error | undefined;
  #waiters: Waiter[] = [];
  /** Work that wants the store to stand still, and whether some is running. */
  #boundary: { run: () => Promise<void>; fail: (error: Error) => void }[] = [];
  #holding = false;

  constructor(options: BackendWriterOptions) {
    this.#options = options;
    this.#target = options.position;
    this.#written = options.position;
  }

  /** Rows put here are written together with the next position. */
  get batch(): BackendBatch {
    return this.#open;
  }

  /** Everything up to here is in the store (not necessarily on disk). */
  get written(): BackendPosition {
    return this.#written;
  }

  get pendingBytes(): number {
    return this.#open.bytes + (this.#inFlight?.bytes ?? 0);
  }

  get applyMayProceed(): boolean {
    return this.pendingBytes <= this.#options.pendingBytesMax;
  }

  /** The open batch now also carries everything up to (index, term). Starts writing unless a write runs. */
  advance(index: LogIndex, term: Term): void {
    assert(index >= this.#target.index, "the applied index never goes back", { index, target: this.#target.index });
    this.#target = { ...this.#target, index, term };
    this.#kick();
  }

  /** Rows were added that belong to no new entry (compaction). */
  touch(): void {
    this.#kick();
  }

  /** Resolves when less than half of the bound is pending. */
  drained(): Promise<void> {
    return this.#wait(false);
  }

  /** Resolves when everything handed in so far is in the store; rejects when the backend failed. */
  idle(): Promise<void> {
    return this.#wait(true);
  }

  /**
   * Runs `work` between two writes, when the store holds exactly the position it is given. No write starts before it has ended.
   * Rejects with what `work` rejects with, or with the backend's failure.
   */
  atBoundary<T>(work: (position: BackendPosition) => Promise<T> | T): Promise<T> {
    if (this.#failed !== undefined) return Promise.reject(this.#failed);
    return new Promise<T>((resolve, reject) => {
      this.#boundary.push({
        run: async () => {
          try {
            resolve(await work(this.#written));
          } catch (error) {
            reject(error);
          }
        },
        fail: reject,
      });
      this.#runBoundary();
    });
  }

  /**
   * Makes everything written so far durable. Returns the position that survives power loss from now on, and the conf state row as of it.
   */
  async checkpoint(): Promise<{ position: BackendPosition; confState: Uint8Array | undefined }> {
    const at = await this.atBoundary(async (position) => ({ position, confState: await this.#options.backend.get(CONF_STATE_KEY) }));
    await this.#options.backend.checkpoint();
    // The rows of the chain up to here have done their work. They go with the next batch, together with the new starting point.
    for (let sequence = this.#firstChainSequence; sequence <= at.position.sequence; sequence++) this.#open.delete(chainKey(sequence));
    this.#firstChainSequence = at.position.sequence + 1;
    this.#open.put(CHECKPOINT_KEY, encodePosition(at.position));
    this.#kick();
    return at;
  }

  /** A snapshot of the store together with the position it shows. */
  snapshot(): Promise<{ snapshot: BackendSnapshot; position: BackendPosition; confState: Uint8Array | undefined }> {
    return this.atBoundary(async (position) => {
      const confState = await this.#options.backend.get(CONF_STATE_KEY);
      return { snapshot: this.#options.backend.snapshot(), position, confState };
    });
  }

  /** After opening: rows of the chain up to the stored checkpoint are gone already. `bytes` is the checkpoint row. */
  resumeBehindCheckpoint(bytes: Uint8Array): void {
    const checkpoint = decodePosition(bytes);
    assert(checkpoint !== undefined, "the checkpoint row was read before");
    this.#firstChainSequence = checkpoint.sequence + 1;
  }
  #firstChainSequence = 1;

  get failed(): Error | undefined {
    return this.#failed;
  }

  /** Writes what is open, then stops. Never rejects: at close the WAL still has everything. */
  async close(): Promise<void> {
    try {
      await this.idle();
    } catch (error) {
      assert(this.#failed !== undefined, "only a failed backend rejects", { error });
    }
    this.#failed ??= new BackendClosedError();
  }

  /**
   * Nothing is written any more, for the open batch holds half of an entry's effects: were it written, the rest of it and the entry itself would come on top of
   * them after a restart. The log has everything.
   */
  abandon(error: Error): void {
    this.#failed ??= error;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(this.#failed);
    const boundary = this.#boundary;
    this.#boundary = [];
    for (const work of boundary) work.fail(this.#failed);
  }

  #wait(needsIdle: boolean): Promise<void> {
    if (this.#failed !== undefined) return Promise.reject(this.#failed);
    return new Promise((resolve, reject) => {
      this.#waiters.push({ needsIdle, resolve, reject });
      this.#wake();
    });
  }

  #wake(): void {
    if (this.#waiters.length === 0) return;
    const idle = this.#inFlight === undefined && this.#open.operations.length === 0 && this.#target.index === this.#written.index;
    const low = this.pendingBytes * 2 <= this.#options.pendingBytesMax;
    const rest: Waiter[] = [];
    for (const waiter of this.#waiters) {
      if (waiter.needsIdle ? idle : low) waiter.resolve();
      else rest.push(waiter);
    }
    this.#waiters = rest;
    if (rest.length > 0) this.#kick();
  }

  #runBoundary(): void {
    if (this.#inFlight !== undefined || this.#holding || this.#boundary.length === 0) return;
    this.#holding = true;
    const work = this.#boundary;
    this.#boundary = [];
    void (async () => {
      for (const item of work) await item.run();
      this.#holding = false;
      this.#runBoundary();
      this.#kick();
    })();
  }

  #kick(): void {
    if (this.#inFlight !== undefined || this.#holding || this.#failed !== undefined) return;
    if (this.#open.operations.length === 0 && this.#target.index === this.#written.index) return;
    const batch = this.#open;
    const { index, term } = this.#target;
    const position: BackendPosition = { index, term, sequence: this.#written.sequence + 1, link: nextLink(this.#written, index, term) };
    const encoded = encodePosition(position);
    batch.put(APPLIED_KEY, encoded);
    batch.put(chainKey(position.sequence), encoded);
    this.#inFlight = batch;
    this.#open = createBatch();
    const started = this.#options.nowMs();
    this.#options.backend.write(batch).then(
      () => {
        this.#options.onCommitMs?.(this.#options.nowMs() - started);
        this.#inFlight = undefined;
        this.#written = position;
        this.#target = { ...this.#target, sequence: position.sequence, link: position.link };
        this.#options.onWritten(batch);
        this.#wake();
        this.#runBoundary();
        this.#kick();
      },
      (error: unknown) => {
        this.#inFlight = undefined;
        const failure = error instanceof Error ? error : new Error(String(error));
        this.abandon(failure);
        this.#options.onFailed(failure);
      },
    );
  }
}
