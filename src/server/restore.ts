/**
 * A member's data directory out of a backup file, of holdfast or of etcd (cluster-behaviour section 20): all keys with all revisions, leases,
 * alarms, users and roles, under the identity of a new cluster. Everything is checked before the first byte is written, and what was written is read back before the log
 * makes a member of it, so that a directory that this leaves behind is one that a member boots from.
 */
import { AlarmMember } from "../api/index.ts";
import { type AuthImage, authImageRows } from "../auth/index.ts";
import { type Backend, createBatch } from "../backend/index.ts";
import { assert } from "../base/assert.ts";
import { equalBytes } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import { type ClusterId, compareIds, hexId, type LeaseId, type MemberId, NO_LEASE, NO_MEMBER, type Revision } from "../base/ids.ts";
import type { Logger } from "../base/logger.ts";
import { encodeLeaseRow, LEASE_TTL_SECONDS_MAX, type LeaseRow, leaseRowKey } from "../lease/index.ts";
import { compactionMarks, EtcdRows, parseRevisionKey } from "../mvcc/index.ts";
import { type ConfState, type Entry, encodeConfChange } from "../raft/index.ts";
import { Wal } from "../wal/index.ts";
import { advertisedUrlsMismatch } from "./advertised-urls.ts";
import { Alarms } from "./alarms.ts";
import { EMPTY_CONF_STATE, encodeConfState, State } from "./apply/state.ts";
import { EMPTY_POSITION, encodePosition } from "./backend-writer.ts";
import { BackupRefusedError, checkDigest, compactionOf, SMALL_BUCKET_BYTES_MAX } from "./backup/backup-file.ts";
import { BoltFile, type BoltSource } from "./backup/bolt-reader.ts";
import { BUCKETS, type BucketName, decodeLease, META_KEYS, type Pair, readAuthBuckets } from "./backup/etcd-records.ts";
import type { ServerConfig } from "./config.ts";
import { clusterIdOf, memberIdOf } from "./identity.ts";
import { encodeMemberChange, type MemberRecord, Membership } from "./membership.ts";
import { APPLIED_KEY, CHECKPOINT_KEY, CONF_STATE_KEY } from "./meta-rows.ts";

export interface RestoreOptions
  extends Pick<
    ServerConfig,
    "name" | "dataDirectory" | "walDirectory" | "initialCluster" | "initialClusterToken" | "initialAdvertisePeerUrls"
  > {
  readonly source: BoltSource;
  /** Also take a file without a digest, or with a wrong one: a database copied out of etcd's data directory has none. */
  readonly skipHashCheck: boolean;
  /** Added to the newest revision, so that no revision that clients may have seen comes again with other content (failure catalogue BS8). */
  readonly bumpRevision: number;
  /** Marks everything up to the (bumped) newest revision as compacted, so that watchers of older revisions notice. */
  readonly markCompacted: boolean;

  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly openBackend: (directory: string) => Promise<Backend>;
  readonly defer: (fn: () => void) => void;
}

export interface Restored {
  readonly memberId: MemberId;
  readonly clusterId: ClusterId;
  readonly members: readonly MemberRecord[];
  readonly revision: Revision;
  readonly keyCount: number;
}

/** The restore was refused; nothing was written. */
export class RestoreRefusedError extends EtcdError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("restore-refused", GrpcCode.FailedPrecondition, message, options);
    this.name = "RestoreRefusedError";
  }
}

const BATCH_BYTES = 1024 * 1024;
const BATCH_ROWS = 4096;
/** The term in which a cluster is founded. */
const TERM = 1;

/**
 * @throws RestoreRefusedError for options that do not fit or directories in use; BackupRefusedError and BoltCorruptError for a file that is no
 * (intact) backup; the disk's error. Directories that it made are removed again when it fails.
 */
export async function restoreBackup(options: RestoreOptions): Promise<Restored> {
  const founders = await foundersOf(options);
  const { disk, dataDirectory, walDirectory } = options;
  await refuseUsedDirectory(disk, dataDirectory, `data-dir "${dataDirectory}" not empty or could not be read`);
  await refuseUsedDirectory(disk, walDirectory, `wal-dir "${walDirectory}" exists`);
  if (!options.skipHashCheck) await checkDigest(options.source, { required: true });
  const file = await BoltFile.open(options.source);
  const survey = await surveyOf(file, options);
  try {
    await writeStore(file, survey, founders, options);
    await readBack(survey, founders, options);
    await writeLog(founders, options);
  } catch (error) {
    // Both were empty or absent before, so everything in them is ours.
    await removeContents(options.disk, options.walDirectory);
    await removeContents(options.disk, options.dataDirectory);
    throw error;
  }
  const { own, clusterId, members } = founders;
  return { memberId: own.id, clusterId, members, revision: survey.revision, keyCount: survey.keyCount };
}

// -- before anything is written ---------------------------------------------------------------------------------------------------------------

interface Founders {
  readonly own: MemberRecord;
  /** Ascending by id. */
  readonly members: readonly MemberRecord[];
  readonly clusterId: ClusterId;
  readonly confState: ConfState;
}

/** Who the members of the new cluster are: computed from the options alone, so that each member's restore arrives at the same. */
async function foundersOf(options: RestoreOptions): Promise<Founders> {
  const { initialCluster, initialClusterToken, name } = options;
  const members = initialCluster
    .map(({ name, urls }) => {
      const peerUrls = [...urls].sort();
      return { id: memberIdOf(peerUrls, initialClusterToken), name, peerUrls, clientUrls: [], isLearner: false };
    })
    .sort((a, b) => compareIds(a.id, b.id));
  const own = members.find((member) => member.name === name);
  if (own === undefined) throw new RestoreRefusedError(`couldn't find local name "${name}" in the initial cluster configuration`);
  const urls = members.flatMap((member) => member.peerUrls);
  if (new Set(urls).size < urls.length) {
    const text = initialCluster.flatMap((member) => member.urls.map((url) => `${member.name}=${url}`)).sort();
    throw new RestoreRefusedError(`initial cluster ${text.join(",")} has duplicate url`);
  }
  const mismatch = await advertisedUrlsMismatch(options, { clock: options.clock });
  if (mismatch !== undefined) throw new RestoreRefusedError(mismatch);
  const ids = members.map((member) => member.id);
  return { own, members, clusterId: clusterIdOf(ids), confState: { ...EMPTY_CONF_STATE, voters: ids } };
}

/** An empty directory is as good as none. */
async function refuseUsedDirectory(disk: Disk, directory: string, refusal: string): Promise<void> {
  let names: readonly string[];
  try {
    names = (await disk.list(directory)) ?? [];
  } catch (error) {
    throw new RestoreRefusedError(refusal, { cause: error });
  }
  if (names.length > 0) throw new RestoreRefusedError(refusal);
}

/** What is in the file, as far as it fits into memory, and what must be found again when it is restored. */
interface Survey {
  readonly leases: readonly LeaseRow[];
  readonly alarms: readonly AlarmMember[];
  readonly auth: AuthImage;
  /** Of the result: bumped. */
  readonly revision: Revision;
  readonly compactAsked: Revision;
  readonly compactFinished: Revision;
  readonly rows: number;
  readonly keyCount: number;
}

/** Reads the whole file and checks all of it. */
async function surveyOf(file: BoltFile, options: RestoreOptions): Promise<Survey> {
  const { bumpRevision, markCompacted, logger, defer } = options;
  if (!file.bucketNames.includes("key") || !file.bucketNames.includes("meta"))
    throw new BackupRefusedError("the file is a database, but not etcd's");
  const unknown = file.bucketNames.filter((name) => !(BUCKETS as readonly string[]).includes(name));
  if (unknown.length > 0) logger.warn({ buckets: unknown }, "buckets that are not known are left out");
  const meta = await file.pairs("meta", SMALL_BUCKET_BYTES_MAX);
  const asked = compactionOf(meta, META_KEYS.scheduledCompaction);
  const finished = compactionOf(meta, META_KEYS.finishedCompaction);
  if (finished > asked) throw new BackupRefusedError(`compaction ${finished} is finished, but only ${asked} was asked for`);

  const auth = await authOf(file);
  const alarms = (await file.pairs("alarm", SMALL_BUCKET_BYTES_MAX)).map(([key]) => AlarmMember.decode(key.slice()));
  const leases = new Map<LeaseId, LeaseRow>();
  for await (const { keys, values } of file.leaves("lease")) {
    for (let i = 0; i < keys.length; i += 1) {
      const row = decodeLease(keys[i] as Uint8Array, values[i] as Uint8Array);
      leases.set(row.id, row);
    }
    await new Promise<void>(defer);
  }

  const etcdRows = new EtcdRows();
  /** Living keys and what they hang on. */
  const alive = new Map<string, LeaseId>();
  let newest = 1;
  let rows = 0;
  for await (const { keys, values } of file.leaves("key")) {
    for (let i = 0; i < keys.length; i += 1) {
      const value = values[i] as Uint8Array;
      if (isBumpRecord(value)) {
        const main = parseRevisionKey(keys[i] as Uint8Array)?.main;
        if (main === undefined || main > asked) throw new BackupRefusedError(`the record of revision ${main} has no key`);
        continue;
      }
      const [, row] = etcdRows.fromEtcd(keys[i] as Uint8Array, value);
      const key = etcdRows.keyString(row);
      if (etcdRows.tombstone) alive.delete(key);
      else alive.set(key, etcdRows.lease);
      newest = etcdRows.main;
      rows += 1;
    }
    await new Promise<void>(defer);
  }
  for (const lease of alive.values()) {
    if (lease === NO_LEASE || leases.has(lease)) continue;
    // In etcd such a key simply stays. Here a key's lease must exist, so it gets one that never ends.
    logger.warn({ "lease-id": hexId(lease) }, "keys are attached to a lease that does not exist; it is created with the longest TTL");
    leases.set(lease, { id: lease, ttlSeconds: LEASE_TTL_SECONDS_MAX, remainingTtlSeconds: 0 });
  }
  const revision = Math.max(newest, asked) + bumpRevision;
  if (!Number.isSafeInteger(revision)) throw new RestoreRefusedError(`revision ${revision} is too large`);
  return {
    leases: [...leases.values()],
    alarms,
    auth,
    revision,
    compactAsked: markCompacted ? revision : asked,
    compactFinished: finished,
    rows,
    keyCount: alive.size,
  };
}

/** etcd's restore writes a record without any content at the bumped revision. What it says is in the compaction's mark, too. */
function isBumpRecord(value: Uint8Array): boolean {
  return value.byteLength === 0;
}

async function authOf(file: BoltFile): Promise<AuthImage> {
  const pairs = (name: BucketName): Promise<readonly Pair[]> => file.pairs(name, SMALL_BUCKET_BYTES_MAX);
  return readAuthBuckets(await pairs("auth"), await pairs("authUsers"), await pairs("authRoles"));
}

async function removeContents(disk: Disk, directory: string): Promise<void> {
  for (const name of (await disk.list(directory)) ?? []) await disk.removeTree(`${directory}/${name}`);
}

// -- writing ------------------------------------------------------------------------------------------------------------------------------------

function storeDirectory(options: RestoreOptions): string {
  return `${options.dataDirectory}/member/snap/db`;
}

async function writeStore(file: BoltFile, survey: Survey, founders: Founders, options: RestoreOptions): Promise<void> {
  const { disk, defer } = options;
  await disk.makeDirectory(`${options.dataDirectory}/member/snap`);
  const backend = await options.openBackend(storeDirectory(options));
  try {
    let batch = createBatch();
    const write = async (): Promise<void> => {
      await backend.write(batch);
      batch = createBatch();
    };
    const etcdRows = new EtcdRows();
    let rows = 0;
    for await (const { keys, values } of file.leaves("key")) {
      for (let i = 0; i < keys.length; i += 1) {
        const value = values[i] as Uint8Array;
        if (isBumpRecord(value)) continue;
        batch.put(...etcdRows.fromEtcd(keys[i] as Uint8Array, value));
        rows += 1;
      }
      if (batch.bytes >= BATCH_BYTES || batch.operations.length >= BATCH_ROWS) await write();
      await new Promise<void>(defer);
    }
    if (rows !== survey.rows) throw new BackupRefusedError("the file changed while it was read");

    for (const lease of survey.leases) {
      batch.put(leaseRowKey(lease.id), encodeLeaseRow(lease));
      if (batch.operations.length >= BATCH_ROWS) await write();
    }
    const alarms = new Alarms();
    for (const alarm of survey.alarms) alarms.activate(alarm, batch);
    for (const [key, value] of authImageRows(survey.auth)) batch.put(key, value);
    const membership = new Membership({ learnersMax: 0 });
    for (const member of founders.members) membership.apply({ action: "add", member, requestId: 0n }, batch);
    const { askedKey, finishedKey, encode } = compactionMarks;
    if (survey.compactAsked >= 0) batch.put(askedKey, encode(survey.compactAsked));
    if (survey.compactFinished >= 0) batch.put(finishedKey, encode(survey.compactFinished));
    batch.put(CONF_STATE_KEY, encodeConfState(founders.confState));
    // The cluster's version is left out: the first leader decides it, as in every new cluster.
    const position = encodePosition({ ...EMPTY_POSITION, index: founders.members.length, term: TERM, sequence: 1 });
    batch.put(APPLIED_KEY, position);
    batch.put(CHECKPOINT_KEY, position);
    await write();
    await backend.checkpoint();
  } finally {
    await backend.close();
  }
}

/** Opens the store as a starting member does and compares. */
async function readBack(survey: Survey, founders: Founders, options: RestoreOptions): Promise<void> {
  const { defer, clock } = options;
  const backend = await options.openBackend(storeDirectory(options));
  let rows = 0;
  let state: State;
  try {
    state = await State.open({
      backend,
      valueCacheBytes: 0,
      electionMs: 1000,
      heartbeatMs: 100,
      learnersMax: 1,
      yieldNow: () => new Promise<void>(defer),
      nowMs: () => clock.monotonicMs(),
      onProgress: (count) => {
        rows = count;
      },
      onBackendFailed: () => undefined,
    });
  } catch (error) {
    await backend.close();
    throw error;
  }
  try {
    const { store, lessor, membership, alarms, auth, appliedIndex, confState } = state;
    assert(rows === survey.rows, "all changes were restored", { restored: rows, expected: survey.rows });
    assert(store.keyCount === survey.keyCount, "all keys were restored", { restored: store.keyCount, expected: survey.keyCount });
    assert(store.revision === survey.revision, "the revision was restored", { restored: store.revision, expected: survey.revision });
    assert(store.compactRevision === survey.compactAsked, "the compacted revision was restored");
    assert(lessor.size === survey.leases.length, "all leases were restored");
    assert(alarms.list().length === survey.alarms.length, "all alarms were restored");
    assert(auth.enabled === survey.auth.enabled && auth.revision === survey.auth.revision, "the auth switch was restored");
    assert(auth.userNames().length === survey.auth.users.length, "all users were restored");
    assert(auth.roleNames().length === survey.auth.roles.length, "all roles were restored");
    assert(membership.size === founders.members.length && appliedIndex === founders.members.length, "all members were entered");
    assert(equalBytes(encodeConfState(confState), encodeConfState(founders.confState)), "the configuration was entered");
  } finally {
    await state.close();
  }
}

/** The log of a member whose cluster has just been founded, and which has applied that: what its store holds, no entry can give again. */
async function writeLog(founders: Founders, options: RestoreOptions): Promise<void> {
  const { disk, clock, logger, walDirectory } = options;
  const { members, own, clusterId, confState } = founders;
  const index = members.length;
  for (const directory of ["/member/snap", "/member", ""]) await disk.syncDirectory(`${options.dataDirectory}${directory}`);
  const wal = await Wal.create({ disk, clock, logger, directory: walDirectory, metadata: { memberId: own.id, clusterId } });
  try {
    const entries: Entry[] = members.map((member, at) => ({
      term: TERM,
      index: at + 1,
      type: "conf-change",
      data: encodeConfChange({
        steps: [{ kind: "add-voter", memberId: member.id }],
        context: encodeMemberChange({ action: "add", member, requestId: 0n }),
      }),
    }));
    const append = (part: Parameters<Wal["append"]>[0]): Promise<void> =>
      new Promise((resolve, reject) => wal.append(part, (error) => (error === undefined ? resolve() : reject(error))));
    await append({ hardState: { term: TERM, vote: NO_MEMBER, commit: index }, entries, mustSync: true });
    // Whoever joins later must get the store, not these entries.
    await append({ snapshot: { index, term: TERM, confState }, entries: [], mustSync: true });
  } finally {
    await wal.close();
  }
}
