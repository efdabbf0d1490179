import type { PasswordHasher, TokenProvider } from "../auth/index.ts";
import type { Backend } from "../backend/backend.ts";
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import type { Logger } from "../base/logger.ts";
import type { Random } from "../base/random.ts";

/**
 * What one member runs with: resolved, validated and frozen by `embed/config.ts` (all problems reported together), so nothing here is checked
 * again. Units are in the names.
 */
export interface ServerConfig {
  readonly name: string;
  /** Absolute. Ignored when `inMemory`. */
  readonly dataDirectory: string;
  /** Absolute; `<dataDirectory>/member/wal` unless set apart. */
  readonly walDirectory: string;
  readonly inMemory: boolean;

  readonly initialCluster: readonly { readonly name: string; readonly urls: readonly string[] }[];
  readonly initialClusterState: "new" | "existing";
  readonly initialClusterToken: string;
  /** Sorted. */
  readonly initialAdvertisePeerUrls: readonly string[];
  /** Sorted. */
  readonly advertiseClientUrls: readonly string[];

  readonly heartbeatMs: number;
  readonly electionMs: number;
  readonly initialElectionTickAdvance: boolean;
  readonly preVote: boolean;
  readonly strictReconfigCheck: boolean;
  readonly forceNewCluster: boolean;
  readonly maxLearners: number;

  readonly snapshotCount: number;
  readonly snapshotCatchUpEntries: number;
  readonly maxWals: number;
  /** 0 = the default of 2 GiB; negative = no quota. */
  readonly quotaBackendBytes: number;
  readonly maxRequestBytes: number;
  readonly maxTxnOps: number;

  readonly autoCompactionMode: "periodic" | "revision";
  /** Periodic: milliseconds; revision: number of revisions; 0 = off. */
  readonly autoCompactionRetention: number;
  readonly compactionBatchLimit: number;
  readonly compactionSleepMs: number;
  readonly watchProgressNotifyMs: number;
  readonly warningApplyMs: number;
  readonly leaseCheckpoint: boolean;

  /** Of new password hashes: each step doubles the work. */
  readonly bcryptCost: number;
  /** How long a simple token lives after its last use. */
  readonly authTokenTtlMs: number;
  /** Verified client certificates name their users. */
  readonly clientCertAuth: boolean;

  /** Bytes of recently used values kept in memory. */
  readonly valueCacheBytes: number;
  readonly unsafeNoFsync: boolean;
  /** Other bounds than the ones built in, so that tests reach them with little; undefined in production. */
  readonly limits?: Partial<ServerLimits> | undefined;
  /** Test-only breakages; undefined in production. */
  readonly mutants?: ReadonlySet<string> | undefined;
}

/** Bounds that no flag sets. Their defaults are in `server.ts` and, for the log, in `wal.ts`. */
export interface ServerLimits {
  readonly walSegmentBytes: number;
  readonly appendBytesMax: number;
  readonly inflightMessagesMax: number;
  readonly inflightBytesMax: number;
  readonly uncommittedBytesMax: number;
  readonly committedBytesMax: number;
  readonly watchStreamBytesMax: number;
  readonly catchUpRevisionsMax: number;
}

export interface DirectoryLock {
  close(): Promise<void>;
}

/** The world around one member, passed in. */
export interface ServerPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly logger: Logger;
  /** Keeps other processes off that directory until closed; rejects with DataDirectoryLockedError when one is there. The system releases it at death. */
  readonly lockDirectory: (directory: string) => Promise<DirectoryLock>;
  /** Opens (creating it when absent) the store in that directory; one opener at a time. */
  readonly openBackend: (directory: string) => Promise<Backend>;
  /** Calls `fn` in a later turn of the event loop, after pending I/O had a chance (setImmediate). Calls keep their order. */
  readonly defer: (fn: () => void) => void;
  /** Closed with the member. Default: a worker thread of its own, started by the first password. */
  readonly passwords?: PasswordHasher | undefined;
  /** Default: simple tokens. */
  readonly tokens?: TokenProvider<AbortSignal> | undefined;
}

/** Version strings where clients look at them: those of the etcd release whose behaviour this is. */
export const SERVER_VERSION = "3.7.1";
export const CLUSTER_VERSION = "3.7.0";
export const STORAGE_VERSION = "3.7.0";
