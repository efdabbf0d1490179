/**
 * The disk port. `wal`, snapshot files and bootstrap use nothing else of the file system, so that the simulator can put its own
 * disk below them (un-synced blocks lost in any subset, un-synced directory entries lost, errors, short writes).
 * Paths are absolute or relative to the process; separators are `/`.
 *
 * Errors are the platform's (`code` such as ENOSPC, EIO, ENOENT). A failed `sync` must never be retried by the caller: the kernel
 * may have dropped the dirty pages, so a second call that succeeds proves nothing (failure catalogue BW19).
 */
export interface Disk {
  /** Creates the directory and its parents with mode 0700; a no-op when it exists. Durable only after `syncDirectory` of the parent. */
  makeDirectory(path: string): Promise<void>;
  /** Names (not paths) in byte order; an absent directory gives `undefined`. */
  list(path: string): Promise<string[] | undefined>;
  /** Opens for reading and writing; `create` makes an absent file with mode 0600 (fails with ENOENT otherwise). */
  open(path: string, options?: { create?: boolean }): Promise<DiskFile>;
  rename(from: string, to: string): Promise<void>;
  /** A no-op when absent. */
  remove(path: string): Promise<void>;
  /** Removes a directory and everything below it; a no-op when absent. */
  removeTree(path: string): Promise<void>;
  /** Makes creations, renames and removals in that directory durable. */
  syncDirectory(path: string): Promise<void>;
  exists(path: string): Promise<boolean>;
}

export interface DiskFile {
  /** Bytes at `position`; shorter than asked only at the end of the file. */
  read(position: number, length: number): Promise<Uint8Array>;
  /** Writes everything (short writes are retried inside). The bytes may be reused once the promise has settled. */
  write(position: number, bytes: Uint8Array): Promise<void>;
  /**
   * Same, but on the calling thread where the platform can do so cheaply (page cache). Used for the WAL's hot path, where a hop to
   * the thread pool costs more than the copy.
   */
  writeNow(position: number, bytes: Uint8Array): void;
  /** fdatasync: contents and the size needed to read them are durable when it resolves. */
  sync(): Promise<void>;
  /** Same, on the calling thread. */
  syncNow(): void;
  sizeBytes(): Promise<number>;
  /** Sets the size; growing fills with zeros. */
  truncate(sizeBytes: number): Promise<void>;
  close(): Promise<void>;
}
