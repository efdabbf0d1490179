/** The state of a member as the buckets of an etcd store, bit for bit as etcd 3.7 would hold it: its tools then read, verify and restore the file. */
import { AlarmMember } from "../../api/index.ts";
import { AUTH_ROWS, readAuthRows } from "../../auth/index.ts";
import { type Backend, type BackendRange, type BackendRow, type BackendSnapshot, RowSpace } from "../../backend/index.ts";
import { compareBytes, EMPTY_BYTES, equalBytes, utf8Bytes } from "../../base/bytes.ts";
import { decodeLeaseRow, LEASE_ROWS } from "../../lease/index.ts";
import { compactionMarks, EtcdRows, REVISION_ROWS, revisionKey } from "../../mvcc/index.ts";
import type { ConfState } from "../../raft/index.ts";
import { ALARM_ROWS, Alarms } from "../alarms.ts";
import { decodeClusterVersion, decodeDowngrade } from "../apply/state.ts";
import type { BackendPosition } from "../backend-writer.ts";
import { STORAGE_VERSION } from "../config.ts";
import { MEMBER_ROWS, Membership } from "../membership.ts";
import { CLUSTER_VERSION_KEY, DOWNGRADE_KEY } from "../meta-rows.ts";
import type { BoltWriter } from "./bolt-writer.ts";
import {
  authBuckets,
  type BucketName,
  CLUSTER_KEYS,
  confStateJson,
  downgradeJson,
  encodeLease,
  META_KEYS,
  memberJson,
  memberKey,
  type Pair,
  REMOVED_VALUE,
  uint64Bytes,
} from "./etcd-records.ts";

export interface ContentsOptions {
  readonly backend: Backend;
  /** The view to write out, and where in the log it stands. It stays the caller's. */
  readonly snapshot: BackendSnapshot;
  readonly position: BackendPosition;
  readonly confState: ConfState;
  readonly writer: BoltWriter;
  /** Takes finished pages from the writer; called between slices. May wait. */
  readonly onSlice: () => Promise<void>;
}

const ROWS_PER_SLICE = 1024;
/** A slice takes well below a millisecond. */
const SLICE_BYTES = 64 * 1024;
const META_ROWS: BackendRange = { gte: Uint8Array.of(RowSpace.meta), lt: Uint8Array.of(RowSpace.meta + 1) };

/** Writes all buckets. Rejects with RowCorruptError and its like when a row is not as it was written: such a state must not become a backup. */
export async function writeContents(options: ContentsOptions): Promise<void> {
  const { backend, snapshot, writer, position, confState, onSlice } = options;
  const slices = (range: BackendRange) => slicesOf(backend, { ...range, snapshot }, onSlice);
  const all = async (range: BackendRange): Promise<BackendRow[]> => {
    const rows: BackendRow[] = [];
    for await (const slice of slices(range)) rows.push(...slice);
    return rows;
  };
  const bucket = (name: BucketName, pairs: readonly Pair[]): void => {
    writer.beginBucket(name);
    for (const [key, value] of [...pairs].sort(([a], [b]) => compareBytes(a, b))) writer.put(key, value);
    writer.endBucket();
  };

  const alarms = new Alarms();
  alarms.load(await all(ALARM_ROWS));
  bucket(
    "alarm",
    alarms.list().map(({ memberId, alarm }) => [AlarmMember.encode(AlarmMember.create({ memberId, alarm })), EMPTY_BYTES]),
  );

  const auth = authBuckets(readAuthRows(await all(AUTH_ROWS)));
  bucket("auth", auth.marks);
  bucket("authRoles", auth.roles);
  bucket("authUsers", auth.users);

  const meta = await all(META_ROWS);
  const metaRow = (key: Uint8Array): Uint8Array | undefined => meta.find(([one]) => equalBytes(one, key))?.[1];
  const clusterVersion = metaRow(CLUSTER_VERSION_KEY);
  const downgrade = metaRow(DOWNGRADE_KEY);
  const cluster: Pair[] = [];
  if (clusterVersion !== undefined) cluster.push([CLUSTER_KEYS.version, utf8Bytes(decodeClusterVersion(clusterVersion) ?? "")]);
  if (downgrade !== undefined) cluster.push([CLUSTER_KEYS.downgrade, downgradeJson(decodeDowngrade(downgrade))]);
  bucket("cluster", cluster);

  writer.beginBucket("key");
  const rows = new EtcdRows();
  for await (const slice of slices(REVISION_ROWS)) {
    for (const [key, value] of slice) writer.put(...rows.toEtcd(key, value));
  }
  writer.endBucket();

  writer.beginBucket("lease");
  for await (const slice of slices(LEASE_ROWS)) {
    for (const [key, value] of slice) {
      const row = decodeLeaseRow(key, value);
      writer.put(uint64Bytes(row.id), encodeLease(row));
    }
  }
  writer.endBucket();

  const membership = new Membership({ learnersMax: Number.POSITIVE_INFINITY });
  membership.load(await all(MEMBER_ROWS));
  bucket(
    "members",
    membership.list().map((member) => [memberKey(member.id), memberJson(member)]),
  );
  bucket(
    "members_removed",
    membership.removedIds().map((id) => [memberKey(id), REMOVED_VALUE]),
  );

  const marks: Pair[] = [];
  const mark = (key: Uint8Array, row: Uint8Array): void => {
    const revision = compactionMarks.decode(metaRow(row));
    if (revision >= 0) marks.push([key, revisionKey(revision, 0, false)]);
  };
  mark(META_KEYS.scheduledCompaction, compactionMarks.askedKey);
  mark(META_KEYS.finishedCompaction, compactionMarks.finishedKey);
  bucket("meta", [
    ...marks,
    [META_KEYS.consistentIndex, uint64Bytes(position.index)],
    [META_KEYS.term, uint64Bytes(position.term)],
    [META_KEYS.confState, confStateJson(confState)],
    // etcd sets it as soon as the members have agreed on a version.
    ...(clusterVersion === undefined ? [] : [[META_KEYS.storageVersion, utf8Bytes(STORAGE_VERSION)] as const]),
  ]);
}

async function* slicesOf(
  backend: Backend,
  range: BackendRange,
  onSlice: () => Promise<void>,
): AsyncGenerator<readonly BackendRow[], void, undefined> {
  const rows = backend.iterate(range);
  try {
    for (let slice = await rows.next(ROWS_PER_SLICE, SLICE_BYTES); slice.length > 0; slice = await rows.next(ROWS_PER_SLICE, SLICE_BYTES)) {
      yield slice;
      await onSlice();
    }
  } finally {
    await rows.close();
  }
}
