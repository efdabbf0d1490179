/**
 * Which cluster does this process belong to, and from where does its log go on: the decision table of server-config.md section 10. Nothing is written before the
 * configuration is known to be right.
 */

import type { Backend } from "../backend/backend.ts";
import { assert } from "../base/assert.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { ClusterId, LogIndex, MemberId } from "../base/ids.ts";
import { hexId, NO_MEMBER } from "../base/ids.ts";
import { type Entry, encodeConfChange, type HardState, type SnapshotMetadata } from "../raft/index.ts";
import { Wal, type WalAppend, type WalContents, type WalFace } from "../wal/index.ts";
import { advertisedUrlsMismatch } from "./advertised-urls.ts";
import { BackendBrokenError, State, type StateOptions } from "./apply/state.ts";
import type { DirectoryLock, ServerConfig, ServerPorts } from "./config.ts";
import { clusterIdOf, memberIdOf } from "./identity.ts";
import { encodeMemberChange, type MemberRecord } from "./membership.ts";
import { MemoryWal } from "./memory-wal.ts";
import type { PeerAddress } from "./peer/index.ts";
import { ServerStorage } from "./server-storage.ts";
import { finishSwap } from "./snapshot/index.ts";

/** The configuration does not fit the data directory or the running cluster. The process must not start; nothing was changed. */
export class BootstrapError extends EtcdError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("bootstrap", GrpcCode.FailedPrecondition, message, options);
    this.name = "BootstrapError";
  }
}

export interface RemoteMembers {
  readonly clusterId: ClusterId;
  readonly members: readonly MemberRecord[];
}

export interface BootstrapOptions {
  readonly config: ServerConfig;
  readonly ports: ServerPorts;
  readonly stateOptions: Omit<StateOptions, "backend">;
  /** Asks running members for the list of members; undefined when none answers in time. */
  fetchMembers(urls: readonly string[], timeoutMs: number): Promise<RemoteMembers | undefined>;
  readonly walHooks: { readonly onSyncMs?: (milliseconds: number) => void };
}

export interface Booted {
  readonly memberId: MemberId;
  readonly clusterId: ClusterId;
  readonly wal: WalFace;
  readonly storage: ServerStorage;
  readonly state: State;
  readonly backend: Backend;
  /** Held until the member has closed everything. */
  readonly lock: DirectoryLock;
  /** Other members, as far as known before the log is applied. */
  readonly peers: readonly PeerAddress[];
  /** True when this start created the data. */
  readonly fresh: boolean;
}

const PROBE_MS = 1000;
const JOIN_MS = 10_000;

export function backendDirectory(config: ServerConfig): string {
  return `${snapshotDirectory(config)}/db`;
}

export function snapshotDirectory(config: ServerConfig): string {
  return `${config.dataDirectory}/member/snap`;
}

export async function bootstrap(options: BootstrapOptions): Promise<Booted> {
  const { config, ports } = options;
  if (config.inMemory) return found(options, NO_LOCK);
  await ports.disk.makeDirectory(snapshotDirectory(config));
  // Before anything is read or repaired: a second process on the same directory stops here.
  const lock = await ports.lockDirectory(`${config.dataDirectory}/member/lock`);
  try {
    const names = await ports.disk.list(config.walDirectory);
    const hasLog = names?.some((name) => name.endsWith(".wal")) === true;
    return hasLog ? await restart(options, lock) : await found(options, lock);
  } catch (error) {
    await lock.close();
    throw error;
  }
}

const NO_LOCK: DirectoryLock = { close: () => Promise.resolve() };

/** No log yet: a new cluster, or a seat in a running one. */
function found(options: BootstrapOptions, lock: DirectoryLock): Promise<Booted> {
  return options.config.initialClusterState === "existing" ? join(options, lock) : createNew(options, lock);
}

async function openFresh(options: BootstrapOptions): Promise<{ backend: Backend; state: State }> {
  const { config, ports } = options;
  const backend = await ports.openBackend(backendDirectory(config));
  try {
    const state = await State.open({ ...options.stateOptions, backend });
    if (state.appliedIndex > 0) throw new BootstrapError("the data directory holds a store but no log: write-ahead log is missing");
    return { backend, state };
  } catch (error) {
    await backend.close();
    throw error;
  }
}

async function restart(options: BootstrapOptions, lock: DirectoryLock): Promise<Booted> {
  const { config, ports } = options;
  const { wal, contents } = await Wal.open({
    disk: ports.disk,
    directory: config.walDirectory,
    clock: ports.clock,
    logger: ports.logger,
    ...segmentSize(config),
    ...(config.mutants === undefined ? {} : { mutants: config.mutants }),
    ...options.walHooks,
  });
  let backend: Backend | undefined;
  try {
    if (contents.repaired !== undefined) ports.logger.warn({ ...contents.repaired }, "dropped the torn end of the write-ahead log");
    // A received state counts from the moment its marker is in the log: without the marker the old store and the old log belong together.
    const swap = await finishSwap(ports.disk, snapshotDirectory(config), { isWanted: (index) => contents.snapshot.index >= index });
    if (swap.type !== "none") {
      ports.logger.info({ "snapshot-index": swap.index, outcome: swap.type }, "settled the interrupted installation of a snapshot");
    }
    backend = await ports.openBackend(backendDirectory(config));
    let state: State;
    try {
      state = await State.open({ ...options.stateOptions, backend });
    } catch (error) {
      if (!(error instanceof BackendBrokenError)) throw error;
      backend = await rebuildFromLog(options, backend, contents, error);
      state = await State.open({ ...options.stateOptions, backend });
    }
    if (isUntouched(contents) && state.appliedIndex === 0 && config.initialClusterState === "new") {
      // A crash came between the creation of the log and its first entries: nothing was promised to anybody yet.
      return await foundAgain(options, lock, { wal, contents, backend, state });
    }
    const { storage, marker } = restoreLog(contents, state, config);
    if (marker !== undefined) await appendToWal(wal, { entries: [], snapshot: marker, mustSync: true });
    const { memberId, clusterId } = contents.metadata;
    ports.logger.info(
      {
        "cluster-id": hexId(clusterId),
        "local-member-id": hexId(memberId),
        "commit-index": storage.initialState().hardState.commit,
        "applied-index": state.appliedIndex,
      },
      "restarting local member",
    );
    return { memberId, clusterId, wal, storage, state, backend, lock, peers: peersOf(state.membership.list(), memberId), fresh: false };
  } catch (error) {
    await wal.close();
    await backend?.close();
    throw error;
  }
}

function isUntouched({ hardState, snapshot, entries }: WalContents): boolean {
  return hardState.term === 0 && snapshot.index === 0 && entries.length === 0;
}

async function foundAgain(
  options: BootstrapOptions,
  lock: DirectoryLock,
  opened: { wal: WalFace; contents: WalContents; backend: Backend; state: State },
): Promise<Booted> {
  const members = configuredMembers(options.config);
  const own = ownEntry(options.config, members);
  const { memberId, clusterId } = opened.contents.metadata;
  if (own.id !== memberId || clusterIdOf(members.map((member) => member.id)) !== clusterId) {
    throw new BootstrapError("the data directory was begun with another initial cluster or token; remove it and start again");
  }
  const { wal, backend, state } = opened;
  return {
    memberId,
    clusterId,
    wal,
    storage: await beginLog(wal, members),
    state,
    backend,
    lock,
    peers: peersOf(members, own.id),
    fresh: true,
  };
}

function appendToWal(wal: WalFace, append: WalAppend): Promise<void> {
  return new Promise((resolve, reject) => {
    wal.append(append, (error) => (error === undefined ? resolve() : reject(error)));
  });
}

/** A store with holes is thrown away and made anew, if the log still begins at the beginning. */
async function rebuildFromLog(
  options: BootstrapOptions,
  backend: Backend,
  contents: WalContents,
  why: BackendBrokenError,
): Promise<Backend> {
  const { config, ports } = options;
  if (contents.snapshot.index > 0) {
    throw new BootstrapError(
      `${why.message}; the log begins behind index ${contents.snapshot.index}, so the store cannot be rebuilt from it. Remove this member, wipe its data and add it again, or restore a backup`,
      { cause: why },
    );
  }
  ports.logger.warn({ reason: why.message }, "rebuilding the store from the write-ahead log");
  await backend.close();
  await ports.disk.removeTree(backendDirectory(config));
  return ports.openBackend(backendDirectory(config));
}

/** The log in memory, and the marker that the log on disk needs before it can go on behind the store. */
function restoreLog(
  contents: WalContents,
  state: State,
  config: ServerConfig,
): { storage: ServerStorage; marker: SnapshotMetadata | undefined } {
  const storage = new ServerStorage();
  const { appliedIndex, appliedTerm, confState } = state;
  if (contents.snapshot.index > appliedIndex) {
    throw new BootstrapError(
      `the store reaches index ${appliedIndex}, but the log begins behind index ${contents.snapshot.index}: the store is older than the log. Remove this member, wipe its data and add it again, or restore a backup`,
    );
  }
  if (contents.snapshot.index > 0) storage.applySnapshot(contents.snapshot);
  if (contents.entries.length > 0) storage.append(contents.entries);
  let marker: SnapshotMetadata | undefined;
  if (appliedIndex > 0 && storage.term(appliedIndex) !== appliedTerm) {
    // The store got further than the log that survived, or past a point where this log was wrong (failure catalogue BS10): what is applied was
    // committed, so the log goes on behind it.
    marker = { index: appliedIndex, term: appliedTerm, confState };
    storage.applySnapshot(marker);
  }
  let { hardState } = contents;
  if (hardState.term < appliedTerm) hardState = { term: appliedTerm, vote: NO_MEMBER, commit: hardState.commit };
  // A commit index is not synced by itself; what is applied was committed.
  if (hardState.commit < appliedIndex) hardState = { ...hardState, commit: appliedIndex };
  assert(config.forceNewCluster || hardState.commit <= storage.lastIndex(), "the commit index lies inside the log", {
    commit: hardState.commit,
    last: storage.lastIndex(),
  });
  storage.setHardState(hardState);
  storage.setConfState(confState);
  return { storage, marker };
}

async function createNew(options: BootstrapOptions, lock: DirectoryLock): Promise<Booted> {
  const { config, ports } = options;
  const members = configuredMembers(config);
  const own = ownEntry(config, members);
  const mismatch = await advertisedUrlsMismatch(config, { clock: ports.clock });
  if (mismatch !== undefined) throw new BootstrapError(mismatch);
  await refuseIfRunning(options, members, own);
  const clusterId = clusterIdOf(members.map((member) => member.id));
  const metadata = { memberId: own.id, clusterId };
  const { backend, state } = await openFresh(options);
  let wal: WalFace | undefined;
  try {
    wal = await createWal(options, metadata);
    const storage = await beginLog(wal, members);
    ports.logger.info({ "cluster-id": hexId(clusterId), "local-member-id": hexId(own.id) }, "starting local member");
    return { ...metadata, wal, storage, state, backend, lock, peers: peersOf(members, own.id), fresh: true };
  } catch (error) {
    await wal?.close();
    await backend.close();
    throw error;
  }
}

/** The log of a new cluster begins with its members, one configuration change each, committed from the start: equal on all of them. */
async function beginLog(wal: WalFace, members: readonly MemberRecord[]): Promise<ServerStorage> {
  const sorted = [...members].sort((a, b) => (a.id < b.id ? -1 : 1));
  const entries: Entry[] = sorted.map((member, at) => ({
    term: 1,
    index: at + 1,
    type: "conf-change",
    data: encodeConfChange({
      steps: [{ kind: "add-voter", memberId: member.id }],
      context: encodeMemberChange({ action: "add", member: { ...member, name: "" }, requestId: 0n }),
    }),
  }));
  const hardState: HardState = { term: 1, vote: NO_MEMBER, commit: entries.length };
  await appendToWal(wal, { hardState, entries, mustSync: true });
  const storage = new ServerStorage();
  storage.append(entries);
  storage.setHardState(hardState);
  return storage;
}

async function join(options: BootstrapOptions, lock: DirectoryLock): Promise<Booted> {
  const { config, ports } = options;
  const members = configuredMembers(config);
  const own = ownEntry(config, members);
  const others = members.filter((member) => member.id !== own.id).flatMap((member) => member.peerUrls);
  const remote = await options.fetchMembers(others, JOIN_MS);
  if (remote === undefined) {
    throw new BootstrapError("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs");
  }
  const known = matchMembers(members, remote);
  const self = known.find((member) => member.name === config.name);
  assert(self !== undefined, "the local member was matched");
  const metadata = { memberId: self.id, clusterId: remote.clusterId };
  const { backend, state } = await openFresh(options);
  try {
    const wal = await createWal(options, metadata);
    ports.logger.info({ "cluster-id": hexId(remote.clusterId), "local-member-id": hexId(self.id) }, "starting local member");
    return { ...metadata, wal, storage: new ServerStorage(), state, backend, lock, peers: peersOf(known, self.id), fresh: true };
  } catch (error) {
    await backend.close();
    throw error;
  }
}

async function createWal(options: BootstrapOptions, metadata: { memberId: MemberId; clusterId: ClusterId }): Promise<WalFace> {
  const { config, ports } = options;
  if (config.inMemory) return new MemoryWal(ports.defer);
  await ports.disk.makeDirectory(config.walDirectory);
  return Wal.create({
    disk: ports.disk,
    directory: config.walDirectory,
    clock: ports.clock,
    metadata,
    logger: ports.logger,
    ...segmentSize(config),
    ...(config.mutants === undefined ? {} : { mutants: config.mutants }),
    ...options.walHooks,
  });
}

function segmentSize(config: ServerConfig): { segmentBytes?: number } {
  const bytes = config.limits?.walSegmentBytes;
  return bytes === undefined ? {} : { segmentBytes: bytes };
}

/** Members of `initial-cluster` with the ids they get in a new cluster. */
function configuredMembers(config: ServerConfig): MemberRecord[] {
  const members = config.initialCluster.map(({ name, urls }) => ({
    id: memberIdOf(urls, config.initialClusterToken),
    name,
    peerUrls: [...urls].sort(),
    clientUrls: [],
    isLearner: false,
  }));
  const seen = new Set<string>();
  for (const url of members.flatMap((member) => member.peerUrls)) {
    if (seen.has(url)) throw new BootstrapError(`initial cluster ${initialClusterText(config)} has duplicate url`);
    seen.add(url);
  }
  return members;
}

function initialClusterText(config: ServerConfig): string {
  return config.initialCluster.flatMap(({ name, urls }) => urls.map((url) => `${name}=${url}`)).join(",");
}

function ownEntry(config: ServerConfig, members: readonly MemberRecord[]): MemberRecord {
  const own = members.find((member) => member.name === config.name);
  if (own === undefined) throw new BootstrapError(`couldn't find local name "${config.name}" in the initial cluster configuration`);
  return own;
}

/** A data directory was emptied, but the cluster still knows this member as started: starting anew would forget its votes (failure catalogue BM11). */
async function refuseIfRunning(options: BootstrapOptions, members: readonly MemberRecord[], own: MemberRecord): Promise<void> {
  const others = members.filter((member) => member.id !== own.id).flatMap((member) => member.peerUrls);
  if (others.length === 0) return;
  const remote = await options.fetchMembers(others, PROBE_MS);
  const known = remote?.members.find((member) => member.id === own.id);
  if (known !== undefined && known.clientUrls.length > 0) throw new BootstrapError(`member ${hexId(own.id)} has already been bootstrapped`);
}

/** The configured members take over the ids of the running ones with the same URLs; the lists must be equally long. */
function matchMembers(configured: readonly MemberRecord[], remote: RemoteMembers): MemberRecord[] {
  const describe = (): string => {
    const list = remote.members.map((member) => `${hexId(member.id)}=${member.peerUrls.join(",")}`).join(" ");
    return `error validating peerURLs {ClusterID:${hexId(remote.clusterId)} Members:[${list}] RemovedMemberIDs:[]}`;
  };
  if (configured.length !== remote.members.length) throw new BootstrapError(`${describe()}: member count is unequal`);
  return remote.members.map((member) => {
    const urls = [...member.peerUrls].sort();
    const match = configured.find((one) => one.peerUrls.length === urls.length && one.peerUrls.every((url, at) => url === urls[at]));
    if (match === undefined) {
      throw new BootstrapError(`${describe()}: PeerURLs: no match found for existing member (${hexId(member.id)}, [${urls.join(" ")}])`);
    }
    return { ...member, name: match.name };
  });
}

function peersOf(members: readonly MemberRecord[], own: MemberId): PeerAddress[] {
  return members.filter((member) => member.id !== own).map((member) => ({ id: member.id, urls: member.peerUrls }));
}

/** Entries that may be dropped from memory up to here, keeping `keep` behind `index` for slow followers. */
export function catchUpFloor(index: LogIndex, keep: number): LogIndex {
  return Math.max(0, index - keep);
}
