/**
 * The replicated state of one member: everything that applying the log changes, opened from one backend and closed with it. A snapshot from the
 * leader replaces the whole object.
 */
import { AUTH_ROWS, AuthStore, CorruptAuthRowError } from "../../auth/index.ts";
import { type Backend, type BackendRange, type BackendRow, RowSpace } from "../../backend/index.ts";
import { type KeyString, utf8Bytes, utf8Text } from "../../base/bytes.ts";
import type { LeaseId, LogIndex, MemberId, Term } from "../../base/ids.ts";
import { CorruptLeaseRowError, decodeLeaseRow, LEASE_ROWS, type LeaseRow, Lessor, minimumTtlSeconds } from "../../lease/index.ts";
import { MvccStore } from "../../mvcc/index.ts";
import type { ConfState } from "../../raft/index.ts";
import { ALARM_ROWS, Alarms } from "../alarms.ts";
import { type BackendPosition, BackendWriter, readPosition } from "../backend-writer.ts";
import { BackendBrokenError, openRow, sealRow } from "../checked-row.ts";
import { MEMBER_ROWS, Membership } from "../membership.ts";
import { APPLIED_KEY, CHECKPOINT_KEY, CLUSTER_VERSION_KEY, CONF_STATE_KEY, DOWNGRADE_KEY, SIZE_KEY } from "../meta-rows.ts";

export interface DowngradeInfo {
  readonly enabled: boolean;
  /** Empty when no downgrade runs. */
  readonly targetVersion: string;
}

export { BackendBrokenError } from "../checked-row.ts";

export interface StateOptions {
  readonly backend: Backend;
  readonly valueCacheBytes: number;
  readonly electionMs: number;
  readonly heartbeatMs: number;
  readonly learnersMax: number;
  readonly yieldNow: () => Promise<void>;
  readonly nowMs: () => number;
  readonly onProgress?: (rows: number) => void;
  readonly onBackendFailed: (error: Error) => void;
  readonly onCommitMs?: (milliseconds: number) => void;
  readonly mutants?: ReadonlySet<string> | undefined;
}

/** Pending write bytes beyond which applying waits for the backend. */
const PENDING_BYTES_MAX = 64 * 1024 * 1024;
/** What every store needs before the first key: so that a fresh member reports a size like etcd's. */
const BASE_SIZE_BYTES = 16_384;

export const EMPTY_CONF_STATE: ConfState = { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };

export class State {
  readonly backend: Backend;
  readonly writer: BackendWriter;
  readonly store: MvccStore;
  readonly lessor: Lessor;
  readonly membership: Membership;
  readonly alarms: Alarms;
  readonly auth: AuthStore;
  appliedIndex: LogIndex;
  appliedTerm: Term;
  confState: ConfState;
  /** `3.7.0`; undefined until the leader has decided it. */
  clusterVersion: string | undefined;
  downgrade: DowngradeInfo;
  #sizeHighWater: number;

  private constructor(
    backend: Backend,
    writer: BackendWriter,
    store: MvccStore,
    lessor: Lessor,
    membership: Membership,
    alarms: Alarms,
    auth: AuthStore,
    position: BackendPosition,
    more: { confState: ConfState; clusterVersion: string | undefined; downgrade: DowngradeInfo; sizeHighWater: number },
  ) {
    this.backend = backend;
    this.writer = writer;
    this.store = store;
    this.lessor = lessor;
    this.membership = membership;
    this.alarms = alarms;
    this.auth = auth;
    this.appliedIndex = position.index;
    this.appliedTerm = position.term;
    this.confState = more.confState;
    this.clusterVersion = more.clusterVersion;
    this.downgrade = more.downgrade;
    this.#sizeHighWater = more.sizeHighWater;
  }

  /**
   * Reads everything back; takes time in proportion to the keys.
   * @throws BackendBrokenError when the chain of batches has a hole or a row is altered.
   */
  static async open(options: StateOptions): Promise<State> {
    const { backend } = options;
    const read = await readPosition(backend);
    if ("broken" in read) throw new BackendBrokenError(read.broken);
    const attachments: (readonly [KeyString, LeaseId])[] = [];
    const store = await MvccStore.open({
      backend,
      onAttachment: (key, lease) => attachments.push([key, lease]),
      cacheBytesMax: options.valueCacheBytes,
      yieldNow: options.yieldNow,
      nowMs: options.nowMs,
      ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
      ...(options.mutants === undefined ? {} : { mutants: options.mutants }),
    });
    const membership = new Membership({ learnersMax: options.learnersMax });
    membership.load(await allRows(backend, MEMBER_ROWS));
    const alarms = new Alarms();
    alarms.load(await allRows(backend, ALARM_ROWS));
    const auth = await openAuth(backend);
    const leaseRows = await readLeases(backend);
    const lessor = new Lessor({
      minTtlSeconds: minimumTtlSeconds(Math.floor(options.electionMs / options.heartbeatMs), options.heartbeatMs),
      ...(options.mutants === undefined ? {} : { mutants: options.mutants }),
    });
    lessor.restore(leaseRows, attachments);
    const confState = decodeConfState(await backend.get(CONF_STATE_KEY));
    const versionBytes = await backend.get(CLUSTER_VERSION_KEY);
    const sizeBytes = await backend.get(SIZE_KEY);
    const checkpoint = await backend.get(CHECKPOINT_KEY);
    const writer = new BackendWriter({
      backend,
      position: read.position,
      onWritten: (batch) => store.written(batch),
      onFailed: options.onBackendFailed,
      pendingBytesMax: PENDING_BYTES_MAX,
      nowMs: options.nowMs,
      ...(options.onCommitMs === undefined ? {} : { onCommitMs: options.onCommitMs }),
    });
    if (checkpoint !== undefined) writer.resumeBehindCheckpoint(checkpoint);
    return new State(backend, writer, store, lessor, membership, alarms, auth, read.position, {
      confState,
      clusterVersion: decodeClusterVersion(versionBytes),
      downgrade: decodeDowngrade(await backend.get(DOWNGRADE_KEY)),
      sizeHighWater: sizeBytes === undefined ? 0 : Number(utf8Text(openRow(SIZE_KEY, sizeBytes, "the size"))),
    });
  }

  setConfState(confState: ConfState): void {
    this.confState = confState;
    this.writer.batch.put(CONF_STATE_KEY, encodeConfState(confState));
  }

  setClusterVersion(version: string): void {
    this.clusterVersion = version;
    this.writer.batch.put(CLUSTER_VERSION_KEY, sealRow(CLUSTER_VERSION_KEY, utf8Bytes(version)));
  }

  setDowngrade(info: DowngradeInfo): void {
    this.downgrade = info;
    this.writer.batch.put(DOWNGRADE_KEY, sealRow(DOWNGRADE_KEY, utf8Bytes(JSON.stringify(info))));
  }

  /** Logical bytes really used. */
  get sizeInUse(): number {
    return BASE_SIZE_BYTES + this.store.bytesInUse;
  }

  /**
   * Logical bytes allocated: like etcd's file it only grows, until a defragmentation. This, not the size on disk, is what the quota looks at, so
   * that a local compaction of the storage engine never changes an answer (failure catalogue BV6).
   */
  get sizeAllocated(): number {
    const inUse = this.sizeInUse;
    if (inUse > this.#sizeHighWater) this.#sizeHighWater = inUse + 4096;
    return this.#sizeHighWater;
  }

  /** Rewrites the backend and lets the allocated size fall to what is in use. */
  async defragment(): Promise<void> {
    await this.backend.defragment();
    this.#sizeHighWater = this.sizeInUse + 4096;
    this.saveSize();
  }

  /** Remembers the high-water mark across restarts; called at checkpoints. */
  saveSize(): void {
    this.writer.batch.put(SIZE_KEY, sealRow(SIZE_KEY, utf8Bytes(String(this.sizeAllocated))));
    this.writer.touch();
  }

  /** Writes what is pending and closes the backend. */
  async close(): Promise<void> {
    await this.writer.close();
    await this.backend.close();
  }
}

/** Read at once, so that no request is served before users and roles are known (failure catalogue BA3). */
async function openAuth(backend: Backend): Promise<AuthStore> {
  try {
    return AuthStore.open(await allRows(backend, AUTH_ROWS));
  } catch (error) {
    if (error instanceof CorruptAuthRowError) throw new BackendBrokenError(error.message);
    throw error;
  }
}

async function readLeases(backend: Backend): Promise<LeaseRow[]> {
  try {
    return (await allRows(backend, LEASE_ROWS)).map(([key, value]) => decodeLeaseRow(key, value));
  } catch (error) {
    if (error instanceof CorruptLeaseRowError) throw new BackendBrokenError(error.message);
    throw error;
  }
}

export async function allRows(backend: Backend, range: BackendRange): Promise<BackendRow[]> {
  const rows: BackendRow[] = [];
  const iterator = backend.iterate(range);
  try {
    for (let slice = await iterator.next(1000); slice.length > 0; slice = await iterator.next(1000)) rows.push(...slice);
  } finally {
    await iterator.close();
  }
  return rows;
}

/** JSON with decimal ids, and its checksum. */
export function encodeConfState(confState: ConfState): Uint8Array {
  const ids = (list: readonly MemberId[]): string[] => list.map(String);
  const json = JSON.stringify({
    voters: ids(confState.voters),
    votersOutgoing: ids(confState.votersOutgoing),
    learners: ids(confState.learners),
    learnersNext: ids(confState.learnersNext),
    autoLeave: confState.autoLeave,
  });
  return sealRow(CONF_STATE_KEY, utf8Bytes(json));
}

/** @throws BackendBrokenError when it is not what was written. */
export function decodeConfState(bytes: Uint8Array | undefined): ConfState {
  if (bytes === undefined) return EMPTY_CONF_STATE;
  const parsed = JSON.parse(utf8Text(openRow(CONF_STATE_KEY, bytes, "the configuration of the members"))) as {
    voters: string[];
    votersOutgoing: string[];
    learners: string[];
    learnersNext: string[];
    autoLeave: boolean;
  };
  const ids = (list: string[]): MemberId[] => list.map((id) => BigInt(id) as MemberId);
  return {
    voters: ids(parsed.voters),
    votersOutgoing: ids(parsed.votersOutgoing),
    learners: ids(parsed.learners),
    learnersNext: ids(parsed.learnersNext),
    autoLeave: parsed.autoLeave,
  };
}

/** @throws BackendBrokenError when it is not what was written. */
export function decodeDowngrade(bytes: Uint8Array | undefined): DowngradeInfo {
  if (bytes === undefined) return { enabled: false, targetVersion: "" };
  return JSON.parse(utf8Text(openRow(DOWNGRADE_KEY, bytes, "the state of the downgrade"))) as DowngradeInfo;
}

/** Undefined until the leader has decided it. @throws BackendBrokenError when it is not what was written. */
export function decodeClusterVersion(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : utf8Text(openRow(CLUSTER_VERSION_KEY, bytes, "the version of the cluster"));
}

/** Rows a state snapshot for another member carries: everything but the chain and this member's own positions. */
export function belongsToSnapshot(key: Uint8Array): boolean {
  return key[0] !== RowSpace.chain && !sameKey(key, APPLIED_KEY) && !sameKey(key, CHECKPOINT_KEY);
}

function sameKey(a: Uint8Array, b: Uint8Array): boolean {
  if (a.byteLength !== b.byteLength) return false;
  for (let i = 0; i < a.byteLength; i++) if (a[i] !== b[i]) return false;
  return true;
}
