import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { LogIndex } from "../base/ids.ts";

/** What is wrong with a log that cannot be used. */
export type WalDamage =
  /** A record whose checksum does not match, although it had been synced. */
  | "damaged-record"
  /** A readable record that does not belong at its place (misdirected or stale write). */
  | "misplaced-record"
  /** The head of a segment is unreadable or contradicts the file's name. */
  | "damaged-head"
  /** A segment that must exist does not. */
  | "missing-segment"
  /** A segment is shorter than it was made, in the middle of its records. */
  | "truncated-segment"
  /** Checksums match, but the contents break a rule of the log (a gap, a term or commit index going back). */
  | "inconsistent";

/**
 * The log lost something that it had promised to keep, or may have: it is left exactly as it was found. A member with such a log
 * must not vote or acknowledge anything; it is replaced (removed, added again with an empty directory) or restored from a backup.
 */
export class WalCorruptError extends EtcdError {
  readonly damage: WalDamage;
  /** File name without the directory. */
  readonly segment: string;
  /** Byte offset in the segment. */
  readonly offset: number;
  /** Everything up to this log index was read without fault. */
  readonly lastGoodIndex: LogIndex;

  constructor(facts: { damage: WalDamage; segment: string; offset: number; lastGoodIndex: LogIndex; what: string }) {
    super(
      "wal-corrupt",
      GrpcCode.DataLoss,
      `wal: ${facts.damage} in ${facts.segment} at offset ${facts.offset}: ${facts.what}; the log is readable up to index ${facts.lastGoodIndex}` +
        "; nothing was changed; this member must not start with it (replace the member or restore a backup)",
    );
    this.name = "WalCorruptError";
    this.damage = facts.damage;
    this.segment = facts.segment;
    this.offset = facts.offset;
    this.lastGoodIndex = facts.lastGoodIndex;
  }
}

/** There is no log in the directory (no directory, or no segment in it). */
export class WalMissingError extends EtcdError {
  readonly directory: string;

  constructor(directory: string) {
    super("wal-missing", GrpcCode.NotFound, `wal: no log in ${directory}`);
    this.name = "WalMissingError";
    this.directory = directory;
  }
}

/** `Wal.create` found a log already there. */
export class WalExistsError extends EtcdError {
  readonly directory: string;

  constructor(directory: string) {
    super("wal-exists", GrpcCode.AlreadyExists, `wal: ${directory} already holds a log`);
    this.name = "WalExistsError";
    this.directory = directory;
  }
}

/**
 * A write or sync failed. Nothing was retried (the kernel may have dropped the dirty pages, so a second sync that succeeds proves
 * nothing) and nothing will be: the owner stops the member. `cause` is the platform's error.
 */
export class WalFailedError extends EtcdError {
  constructor(cause: unknown) {
    super("wal-failed", GrpcCode.Unavailable, `wal: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.name = "WalFailedError";
  }
}

/** An append after `close`. */
export class WalClosedError extends EtcdError {
  constructor() {
    super("wal-closed", GrpcCode.Unavailable, "wal: closed");
    this.name = "WalClosedError";
  }
}
