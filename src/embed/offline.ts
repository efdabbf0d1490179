/**
 * Work on files and data directories without a member: what `holdfastutl` does. Paths of backups may name a backup file, of
 * holdfast or of etcd, or the store in a data directory on which no member runs (`<data-dir>/member/snap/db`).
 */
import { open, stat } from "node:fs/promises";
import { LevelBackend } from "../backend/index.ts";
import { systemClock } from "../base/clock-system.ts";
import { systemDisk } from "../base/disk-system.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import {
  type BackupStatus,
  type BoltSource,
  backupHashKv,
  backupStatus,
  DataDirectoryLockedError,
  type Defragmented,
  defragmentStore,
  inspectWal,
  type OfflineStoreOptions,
  type Restored,
  restoreBackup,
  StoreUnusableError,
  storeBackup,
  storeHashKv,
  type WalInspection,
} from "../server/index.ts";
import { parseInitialCluster } from "./config-addresses.ts";
import { parseUrls } from "./urls.ts";

/** Somebody else kept the store for longer than one wanted to wait. */
export class StoreBusyError extends EtcdError {
  constructor(cause: DataDirectoryLockedError) {
    super("store-busy", GrpcCode.FailedPrecondition, `timeout: ${cause.message}`, { cause });
    this.name = "StoreBusyError";
  }
}

/** How long a store that somebody uses is waited for, in milliseconds; 0: for ever. */
export interface Patience {
  readonly lockTimeoutMs: number;
}

export interface RestoreSettings {
  readonly name: string;
  readonly dataDir: string;
  /** Default: `member/wal` in the data directory. */
  readonly walDir?: string | undefined;
  /** `name=url,name=url`, as etcd's flag. */
  readonly initialCluster: string;
  readonly initialClusterToken: string;
  readonly initialAdvertisePeerUrls: readonly string[];
  readonly skipHashCheck: boolean;
  readonly bumpRevision: number;
  readonly markCompacted: boolean;
  readonly logger: Logger;
}

const RETRY_MS = 100;

/**
 * HashKV, hash and counts of a backup. Reads and checks all of it.
 * @throws EtcdError for what is no backup, or an altered one; the system's error
 */
export function snapshotStatus(path: string, patience: Patience): Promise<BackupStatus> {
  return withBackup(path, patience, backupStatus);
}

/** The hash over keys and their history as of a revision; 0 is the newest. @throws as snapshotStatus, or that the revision is compacted or to come */
export async function offlineHashKv(
  path: string,
  revision: number,
  patience: Patience,
): Promise<{ hash: number; hashRevision: number; compactRevision: number }> {
  if ((await stat(path)).isDirectory()) return storeHashKv(storeOptions(path, patience), revision);
  return withBackup(path, patience, (source) => backupHashKv(source, revision));
}

/** Makes a data directory out of a backup. @throws as snapshotStatus; EtcdError for settings that do not fit. Then nothing was written */
export function restoreSnapshot(path: string, settings: RestoreSettings, patience: Patience): Promise<Restored> {
  const initialCluster = parseInitialCluster(settings.initialCluster, (_part, url) => {
    if (url instanceof Error) throw url;
  });
  const initialAdvertisePeerUrls = parseUrls(settings.initialAdvertisePeerUrls).map((url) => url.text);
  const { name, dataDir, initialClusterToken, skipHashCheck, bumpRevision, markCompacted, logger } = settings;
  return withBackup(path, patience, (source) =>
    restoreBackup({
      source,
      name,
      dataDirectory: dataDir,
      walDirectory: settings.walDir ?? `${dataDir}/member/wal`,
      initialCluster,
      initialClusterToken,
      initialAdvertisePeerUrls,
      skipHashCheck,
      bumpRevision,
      markCompacted,
      logger,
      disk: systemDisk(),
      clock: systemClock(),
      openBackend: (directory) => LevelBackend.open({ directory }),
      defer: setImmediate,
    }),
  );
}

/** Rewrites the store of a data directory compactly. @throws EtcdError when there is none or it is in use for too long */
export async function defragmentOffline(dataDir: string, patience: Patience): Promise<Defragmented> {
  const directory = storeOf(dataDir);
  if (!(await stat(directory)).isDirectory()) throw new StoreUnusableError(`${directory} is a database of etcd, not a store of holdfast`);
  return defragmentStore(storeOptions(directory, patience));
}

/** Reads and checks a log: a data directory, or the directory of its segments. @throws EtcdError */
export async function inspectLog(path: string, logger: Logger): Promise<WalInspection> {
  const disk = systemDisk();
  const inside = `${path}/member/wal`;
  return inspectWal({ disk, directory: (await disk.exists(inside)) ? inside : path, logger });
}

/** Where the store of a data directory is. */
export function storeOf(dataDir: string): string {
  return `${dataDir}/member/snap/db`;
}

async function withBackup<T>(path: string, patience: Patience, work: (source: BoltSource) => Promise<T>): Promise<T> {
  if ((await stat(path)).isDirectory()) {
    const backup = await storeBackup(storeOptions(path, patience), `offline${process.pid.toString(36)}`);
    try {
      return await work(backup);
    } finally {
      await backup.remove();
    }
  }
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const read = async (position: number, length: number): Promise<Uint8Array> => {
      const bytes = Buffer.allocUnsafeSlow(Math.max(0, Math.min(length, size - position)));
      let filled = 0;
      while (filled < bytes.byteLength) {
        const { bytesRead } = await file.read(bytes, filled, bytes.byteLength - filled, position + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return bytes.subarray(0, filled);
    };
    return await work({ sizeBytes: size, read });
  } finally {
    await file.close();
  }
}

function storeOptions(directory: string, { lockTimeoutMs }: Patience): OfflineStoreOptions {
  const clock = systemClock();
  return {
    directory,
    disk: systemDisk(),
    clock,
    defer: setImmediate,
    openBackend: async () => {
      const deadline = lockTimeoutMs === 0 ? Number.POSITIVE_INFINITY : clock.monotonicMs() + lockTimeoutMs;
      for (;;) {
        try {
          return await LevelBackend.open({ directory });
        } catch (error) {
          if (!(error instanceof DataDirectoryLockedError)) throw error;
          if (clock.monotonicMs() >= deadline) throw new StoreBusyError(error);
        }
        await new Promise<void>((resolve) => clock.timer(RETRY_MS, resolve));
      }
    },
  };
}
