/**
 * The backend port: an ordered, atomic key-value store that holds the state machine's rows as a rebuildable view of the WAL.
 * Keys compare as unsigned bytes. Two implementations, `level.ts` and `memory.ts`, pass one contract suite (test/support/backend.contract.ts).
 *
 * Durability: a batch is atomic and ordered (a crash keeps a prefix of the batches), but nothing is synced until `checkpoint`.
 * After any write error the backend is poisoned: every call fails with BackendFailedError until it is closed and opened again
 * (catalogue BW14, BW15).
 */
export interface Backend {
  get(key: Uint8Array): Promise<Uint8Array | undefined>;
  /** Blocks the thread (about 9 us in level). For a few keys on the synchronous apply path only. */
  getSync(key: Uint8Array): Uint8Array | undefined;
  /** Answers in the order of `keys`. */
  getMany(keys: readonly Uint8Array[]): Promise<(Uint8Array | undefined)[]>;
  /** An ordered walk over [gte, lt), to be read in slices. Sees the store as of the call (or as of `snapshot`). Close it soon: it pins files. */
  iterate(range: BackendRange): BackendIterator;
  /** A consistent view of now. Bounded in number and life by the caller. */
  snapshot(): BackendSnapshot;
  /** Atomic. Resolves when the write is in the store (in the OS for `level`), not when it is on disk. Calls must not overlap. */
  write(batch: BackendBatch): Promise<void>;
  /** Resolves when everything written before the call survives power loss. */
  checkpoint(): Promise<void>;
  /** Rewrites the store compactly; content unchanged. Reads and writes go on. */
  defragment(): Promise<void>;
  /** Estimated bytes on disk (or in memory). */
  sizeBytes(): Promise<number>;
  close(): Promise<void>;
}

export interface BackendRange {
  readonly gte: Uint8Array;
  /** Exclusive; undefined = to the end. */
  readonly lt?: Uint8Array | undefined;
  readonly reverse?: boolean | undefined;
  readonly snapshot?: BackendSnapshot | undefined;
  /** Leave the values out (they come as empty bytes). */
  readonly keysOnly?: boolean | undefined;
}

export interface BackendIterator {
  /** The next rows, at most `limit` and about `bytesMax` bytes; an empty list means the end. */
  next(limit: number, bytesMax?: number): Promise<readonly BackendRow[]>;
  close(): Promise<void>;
}

export interface BackendSnapshot {
  close(): Promise<void>;
}

export type BackendRow = readonly [key: Uint8Array, value: Uint8Array];

/** Rows collected for one atomic write; applied in the order of the calls. */
export interface BackendBatch {
  put(key: Uint8Array, value: Uint8Array): void;
  delete(key: Uint8Array): void;
  readonly operations: readonly BackendOperation[];
  readonly bytes: number;
}

export type BackendOperation =
  | { readonly type: "put"; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly type: "del"; readonly key: Uint8Array };
