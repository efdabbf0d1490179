/**
 * Backup files as operators hold them, of holdfast or of etcd: a database, usually with the SHA-256 of it at the end. What can be told about one
 * without a server, and the checks before anything is made from it.
 */
import { createHash } from "node:crypto";
import { equalBytes, keyStringOf, utf8Text } from "../../base/bytes.ts";
import { crc32c } from "../../base/crc32c.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { Revision } from "../../base/ids.ts";
import { HistoryHash, parseRevisionKey, type RevisionHash } from "../../mvcc/index.ts";
import { BoltFile, type BoltSource } from "./bolt-reader.ts";
import { META_KEYS } from "./etcd-records.ts";

const SECTOR_BYTES = 512;
const DIGEST_BYTES = 32;
const READ_BYTES = 1024 * 1024;
/** Of all buckets but those of keys and leases. Members, alarms, users and roles of a real cluster take a few kilobytes. */
export const SMALL_BUCKET_BYTES_MAX = 64 * 1024 * 1024;

/** The file is not what was saved, or it cannot be known. */
export class BackupRefusedError extends EtcdError {
  constructor(message: string) {
    super("backup-refused", GrpcCode.DataLoss, message);
    this.name = "BackupRefusedError";
  }
}

/** True when the file's length says that a digest follows the database: pages are multiples of a sector. */
export function hasDigest(source: BoltSource): boolean {
  return source.sizeBytes % SECTOR_BYTES === DIGEST_BYTES;
}

/**
 * Reads the whole file and compares it with its digest.
 * @throws BackupRefusedError when it is altered, or when it has no digest and must have one
 */
export async function checkDigest(source: BoltSource, options: { required: boolean }): Promise<void> {
  if (!hasDigest(source)) {
    if (options.required) throw new BackupRefusedError("snapshot missing hash but --skip-hash-check=false");
    return;
  }
  const end = source.sizeBytes - DIGEST_BYTES;
  const digest = createHash("sha256");
  for (let at = 0; at < end; ) {
    const bytes = await source.read(at, Math.min(READ_BYTES, end - at));
    if (bytes.byteLength === 0) throw new BackupRefusedError("the file became shorter");
    digest.update(bytes);
    at += bytes.byteLength;
  }
  const expected = await source.read(end, DIGEST_BYTES);
  const got = digest.digest();
  if (!equalBytes(expected, got)) throw new BackupRefusedError(`expected sha256 [${expected.join(" ")}], got [${got.join(" ")}]`);
}

export interface BackupStatus {
  /** CRC-32C over the names of all buckets and all their pairs, in order. */
  readonly hash: number;
  readonly revision: Revision;
  /** Keys that live at that revision. */
  readonly totalKey: number;
  /** Of the database, without the digest. */
  readonly totalSizeBytes: number;
  /** Storage version; empty when the file does not tell. */
  readonly version: string;
}

/** Reads and checks the whole file. @throws BoltCorruptError, BackupRefusedError when it has a digest that does not fit */
export async function backupStatus(source: BoltSource): Promise<BackupStatus> {
  await checkDigest(source, { required: false });
  const file = await BoltFile.open(source);
  let hash = 0;
  let revision = 0;
  let version = "";
  const alive = new Set<string>();
  for (const name of file.bucketNames) {
    hash = crc32c(Buffer.from(name, "latin1"), hash);
    for await (const { keys, values } of file.leaves(name)) {
      for (let i = 0; i < keys.length; i += 1) {
        const key = keys[i] as Uint8Array;
        const value = values[i] as Uint8Array;
        hash = crc32c(value, crc32c(key, hash));
        if (name === "meta" && equalBytes(key, META_KEYS.storageVersion)) version = utf8Text(value);
        if (name !== "key") continue;
        const change = changeOf(key, value);
        revision = change.main;
        if (change.tombstone) alive.delete(change.key);
        else alive.add(change.key);
      }
    }
  }
  return { hash, revision, totalKey: alive.size, totalSizeBytes: file.sizeBytes, version };
}

interface Change {
  readonly main: Revision;
  readonly sub: number;
  readonly tombstone: boolean;
  /** One char per byte. Empty for the record that etcd's restore writes when it bumps the revision. */
  readonly key: string;
}

const TAG_KEY = 10;

/** What a pair of the key bucket changes; its message is looked at as far as the key. */
function changeOf(revisionKey: Uint8Array, message: Uint8Array): Change {
  const revision = parseRevisionKey(revisionKey);
  if (revision === undefined) throw new BackupRefusedError("the key bucket holds something that is no revision");
  let at = 0;
  let length = 0;
  if (message[0] === TAG_KEY) {
    at = 1;
    let shift = 0;
    for (let byte = 0x80; byte >= 0x80 && shift < 32; shift += 7) {
      byte = message[at] ?? 0;
      at += 1;
      length += (byte & 0x7f) * 2 ** shift;
    }
  }
  if (at + length > message.byteLength) throw new BackupRefusedError(`the record of revision ${revision.main} is malformed`);
  return { ...revision, key: keyStringOf(message.subarray(at, at + length)) };
}

/** Revision of the last compaction that was asked for; -1 for none. @throws BackupRefusedError for a mark that is none */
export function compactionOf(meta: readonly (readonly [Uint8Array, Uint8Array])[], key: Uint8Array): Revision {
  const mark = meta.find(([one]) => equalBytes(one, key))?.[1];
  if (mark === undefined) return -1;
  const revision = parseRevisionKey(mark);
  if (revision === undefined) throw new BackupRefusedError(`${utf8Text(key)} is malformed`);
  return revision.main;
}

/**
 * HashKV of the file (api-semantics 15.5) as of a revision, 0 for the newest; what a server that runs on it would answer.
 * @throws BoltCorruptError; BackupRefusedError for a revision that is compacted or not reached, or a malformed file
 */
export async function backupHashKv(source: BoltSource, wanted: Revision): Promise<RevisionHash> {
  const file = await BoltFile.open(source);
  const meta = await file.pairs("meta", SMALL_BUCKET_BYTES_MAX);
  const asked = compactionOf(meta, META_KEYS.scheduledCompaction);
  const visible = await newestChanges(file, wanted === 0 ? Number.POSITIVE_INFINITY : wanted);
  const current = Math.max(1, visible.last, asked);
  const revision = wanted === 0 ? current : wanted;
  if (revision < asked) throw new BackupRefusedError("mvcc: required revision has been compacted");
  if (revision > current) throw new BackupRefusedError("mvcc: required revision is a future revision");
  // Of the changes at or below the compacted revision those count that are visible; when nothing is, those that the compaction has left.
  const counting = visible.changes.size > 0 ? visible : await newestChanges(file, asked);
  const hash = new HistoryHash();
  for await (const { keys, values } of file.leaves("key")) {
    for (let i = 0; i < keys.length; i += 1) {
      const value = values[i] as Uint8Array;
      const { main, sub, tombstone, key } = changeOf(keys[i] as Uint8Array, value);
      if (main > revision) break;
      if (main <= asked) {
        const last = counting.changes.get(key);
        if (tombstone || last?.main !== main || last.sub !== sub) continue;
      }
      hash.add(main, sub, tombstone, value);
    }
  }
  return { hash: hash.value, compactRevision: asked, hashRevision: revision };
}

/** The newest change of each key that lives at `upTo`, and the last revision of the whole bucket. */
async function newestChanges(file: BoltFile, upTo: Revision): Promise<{ changes: Map<string, Change>; last: Revision }> {
  const changes = new Map<string, Change>();
  let last = 0;
  for await (const { keys, values } of file.leaves("key")) {
    for (let i = 0; i < keys.length; i += 1) {
      const change = changeOf(keys[i] as Uint8Array, values[i] as Uint8Array);
      last = change.main;
      if (change.main > upTo) continue;
      if (change.tombstone) changes.delete(change.key);
      else changes.set(change.key, change);
    }
  }
  return { changes, last };
}
