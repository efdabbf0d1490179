export type { Backend, BackendBatch, BackendIterator, BackendOperation, BackendRange, BackendRow, BackendSnapshot } from "./backend.ts";
export { createBatch } from "./batch.ts";
export { lockDirectory } from "./directory-lock.ts";
export { BackendClosedError, BackendCorruptError, BackendFailedError, BackendReadError, DataDirectoryLockedError } from "./errors.ts";
export { LevelBackend, type LevelBackendOptions } from "./level.ts";
export { MemoryBackend, MemoryStorage } from "./memory.ts";
export { RowSpace } from "./row-spaces.ts";
