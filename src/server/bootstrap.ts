/**
 * Which cluster does this process belong to, and from where does its log go on: the decision table of server-config.md section 10. Nothing is written before the
 * configuration is known to be right.
 */

import { ProtoDecodeError } from "../api/index.ts";
import type { Backend } from "../backend/backend.ts";
import { assert, InvariantError } from "../base/assert.ts";
import { makeDurableDirectory } from "../base/durable-directory.ts";
import type { ClusterId, LogIndex, MemberId } from "../base/ids.ts";
import { hexId, NO_MEMBER } from "../base/ids.ts";
import { type Entry, encodeConfChange, type HardState, type SnapshotMetadata } from "../raft/index.ts";
import { Wal, type WalAppend, type WalContents, type WalFace, type WalMetadata } from "../wal/index.ts";
import { advertisedUrlsMismatch } from "./advertised-urls.ts";
import { BackendBrokenError, State, type StateOptions } from "./apply/state.ts";
import { BootstrapError, DataDamagedError, isDamage } from "./bootstrap-error.ts";
import type { DirectoryLock, ServerConfig, ServerPorts } from "./config.ts";
import { soleMemberLog } from "./force-new-cluster.ts";
import { type DataPlaces, identityOfDamaged, nextAttempt, othersOf, setAside, whyNotHealable } from "./heal.ts";
import { type HealMarker, readHealMarker, removeHealMarker, writeHealMarker } from "./heal-marker.ts";
import { clusterIdOf, memberIdOf } from "./identity.ts";
import { type Identity, IdentityFile, readIdentity } from "./identity-file.ts";
import { encodeMemberChange, type MemberRecord } from "./membership.ts";
import { MemoryWal } from "./memory-wal.ts";
import type { PeerAddress } from "./peer/index.ts";
import { ServerStorage } from "./server-storage.ts";
import { finishSwap } from "./snapshot/index.ts";

export { BootstrapError, DataDamagedError } from "./bootstrap-error.ts";

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
  /** To be told of changes of the members; undefined for a member in memory. */
  readonly identity: IdentityFile | undefined;
  /** Present when this member lost what it had promised, and must not vote before the others have healed it. */
  readonly healing: Healing | undefined;
  /** By `forceNewCluster`: from this index on this member is the only one; nobody may be talked to before it is applied. 0 otherwise. */
  readonly soleMemberFrom: LogIndex;
}

export interface Healing {
  /** What was found, for people. */
  readonly reason: string;
  /** Healed: the next start is an ordinary one. Durable when it resolves. */
  finish(): Promise<void>;
}

const PROBE_MS = 1000;
const JOIN_MS = 10_000;

export function backendDirectory(config: ServerConfig): string {
  return `${snapshotDirectory(config)}/db`;
}

export function snapshotDirectory(config: ServerConfig): string {
  return `${memberDirectory(config)}/snap`;
}

function memberDirectory(config: ServerConfig): string {
  return `${config.dataDirectory}/member`;
}

function placesOf(config: ServerConfig): DataPlaces {
  return { member: memberDirectory(config), snap: snapshotDirectory(config), wal: config.walDirectory };
}

export async function bootstrap(options: BootstrapOptions): Promise<Booted> {
  const { config, ports } = options;
  if (config.inMemory) return found(options, NO_LOCK);
  // A log is made only in directories that are durable by then.
  await makeDurableDirectory(ports.disk, snapshotDirectory(config));
  await makeDurableDirectory(ports.disk, config.walDirectory);
  // Before anything is read or repaired: a second process on the same directory stops here.
  const lock = await ports.lockDirectory(`${memberDirectory(config)}/lock`);
  try {
    return await bootFromDirectory(options, lock);
  } catch (error) {
    await lock.close();
    throw error;
  }
}

async function bootFromDirectory(options: BootstrapOptions, lock: DirectoryLock): Promise<Booted> {
  const { config, ports } = options;
  const marker = await readHealMarker(ports.disk, memberDirectory(config));
  const known = await readIdentity(ports.disk, memberDirectory(config), ports.logger);
  if (marker !== undefined) return goOnHealing(options, lock, marker, known);
  const hasLog = await Wal.exists(ports.disk, config.walDirectory);
  if (!hasLog && known === undefined) {
    if (config.forceNewCluster)
      throw new BootstrapError("--force-new-cluster needs the data of a member, and there is none in the data directory");
    return found(options, lock);
  }
  try {
    if (!hasLog) throw new DataDamagedError(`the write-ahead log is missing in ${config.walDirectory}`);
    return await restart(options, lock, known);
  } catch (error) {
    if (!isDamage(error)) throw error;
    return heal(options, lock, known, error);
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

/** Log and store as they are on the disk, opened. */
interface Opened {
  readonly wal: Wal;
  readonly contents: WalContents;
  readonly backend: Backend;
  readonly state: State;
}

async function openExisting(options: BootstrapOptions): Promise<Opened> {
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
  try {
    // A received state counts from the moment its marker is in the log: without the marker the old store and the old log belong together.
    const swap = await finishSwap(ports.disk, snapshotDirectory(config), { isWanted: (index) => contents.snapshot.index >= index });
    if (swap.type !== "none") {
      ports.logger.info({ "snapshot-index": swap.index, outcome: swap.type }, "settled the interrupted installation of a snapshot");
    }
    let opened: { backend: Backend; state: State };
    try {
      opened = await openStore(options);
    } catch (error) {
      if (!isDamage(error) || contents.snapshot.index > 0) throw error;
      // The log still begins at the beginning: the store is only a view of it.
      ports.logger.warn({ reason: error.message }, "rebuilding the store from the write-ahead log");
      await ports.disk.removeTree(backendDirectory(config));
      opened = await openStore(options);
    }
    return { wal, contents, ...opened };
  } catch (error) {
    await wal.close();
    throw error;
  }
}

/** @throws an error that {@link isDamage} recognises when the store is not what was written. */
async function openStore(options: BootstrapOptions): Promise<{ backend: Backend; state: State }> {
  const backend = await options.ports.openBackend(backendDirectory(options.config));
  try {
    return { backend, state: await State.open({ ...options.stateOptions, backend }) };
  } catch (error) {
    await backend.close();
    // A row without a checksum that makes no sense.
    if (error instanceof InvariantError || error instanceof SyntaxError || error instanceof ProtoDecodeError) {
      throw new BackendBrokenError(error.message);
    }
    throw error;
  }
}

async function restart(options: BootstrapOptions, lock: DirectoryLock, known: Identity | undefined): Promise<Booted> {
  const { config, ports } = options;
  const opened = await openExisting(options);
  const { wal, contents, backend, state } = opened;
  try {
    if (isUntouched(contents) && state.appliedIndex === 0 && config.initialClusterState === "new" && known === undefined) {
      // A crash came between the creation of the log and its first entries: nothing was promised to anybody yet.
      return await foundAgain(options, lock, opened);
    }
    const { memberId, clusterId } = contents.metadata;
    const applied = state.membership.list();
    // One that joined and has heard nothing yet still knows whom it was to join.
    const members = applied.length > 0 ? applied : (known?.members ?? []);
    refuseForeignData(config, members, memberId);
    const { storage, marker } = restoreLog(contents, state, config);
    if (marker !== undefined) await appendToWal(wal, { entries: [], snapshot: marker, mustSync: true });
    const soleMemberFrom = config.forceNewCluster ? await forceNewCluster(options, { wal, storage, state, memberId }) : 0;
    ports.logger.info(
      {
        "cluster-id": hexId(clusterId),
        "local-member-id": hexId(memberId),
        "commit-index": storage.initialState().hardState.commit,
        "applied-index": state.appliedIndex,
      },
      soleMemberFrom > 0 ? "forcing restart member" : "restarting local member",
    );
    const identity = await keepIdentity(options, contents.metadata, members, known);
    const peers = config.forceNewCluster ? [] : peersOf(members, memberId);
    return { memberId, clusterId, wal, storage, state, backend, lock, peers, fresh: false, identity, healing: undefined, soleMemberFrom };
  } catch (error) {
    await wal.close();
    await state.close();
    throw error;
  }
}

/** The members as of now, beside log and store. */
async function keepIdentity(
  options: BootstrapOptions,
  ids: WalMetadata,
  members: readonly MemberRecord[],
  written: Identity | undefined,
): Promise<IdentityFile | undefined> {
  const { config, ports } = options;
  if (config.inMemory) return undefined;
  const file = new IdentityFile(ports.disk, memberDirectory(config), ports.logger, { ...ids, members }, written);
  if (members.length > 0) file.update(members);
  await file.settled();
  return file;
}

// -- damaged data ------------------------------------------------------------------------------------------------------------------------------

/** Something that had been promised is lost. In a larger cluster the others have it; a lone member refuses to start. */
async function heal(options: BootstrapOptions, lock: DirectoryLock, known: Identity | undefined, damage: Error): Promise<Booted> {
  const { config, ports } = options;
  const { disk, logger } = ports;
  if (config.forceNewCluster) {
    throw new DataDamagedError(
      `${damage.message}. --force-new-cluster needs a member whose data is undamaged: choose another one, or restore a backup`,
      {
        cause: damage,
      },
    );
  }
  const owner = await Wal.readMetadata(disk, config.walDirectory);
  const identity = identityOfDamaged(owner, known, configuredMembers(config), damage);
  const refusal = whyNotHealable(identity);
  if (refusal !== undefined) throw new DataDamagedError(`${damage.message}. ${refusal}`, { cause: damage });
  const places = placesOf(config);
  const marker: HealMarker = { identity, reason: damage.message, attempt: await nextAttempt(disk, places), phase: "set-aside" };
  logger.error(
    { reason: damage.message, "local-member-id": hexId(identity.memberId) },
    "the data of this member is damaged; the other members will heal it, and until then it neither votes nor serves",
  );
  await writeHealMarker(disk, places.member, marker);
  return beginAnew(options, lock, marker);
}

/** With the same ids, an empty log and an empty store. Called again after a crash it goes on where it was. */
async function beginAnew(options: BootstrapOptions, lock: DirectoryLock, marker: HealMarker): Promise<Booted> {
  const { config, ports } = options;
  const places = placesOf(config);
  const aside = await setAside(ports.disk, places, marker.attempt);
  ports.logger.warn({ places: aside }, "set the damaged data aside; nothing deletes it");
  const { backend, state } = await openFresh(options);
  let wal: WalFace | undefined;
  try {
    wal = await createWal(options, marker.identity);
    await writeHealMarker(ports.disk, places.member, { ...marker, phase: "healing" });
    return await bootedToHeal(options, lock, { wal, storage: new ServerStorage(), backend, state }, marker);
  } catch (error) {
    await wal?.close();
    await state.close();
    throw error;
  }
}

/** An earlier start began to heal. */
async function goOnHealing(
  options: BootstrapOptions,
  lock: DirectoryLock,
  marker: HealMarker | "unreadable",
  known: Identity | undefined,
): Promise<Booted> {
  const { config } = options;
  if (config.forceNewCluster) {
    throw new DataDamagedError(
      "this member's data was damaged and it was being healed, so it is incomplete. --force-new-cluster needs a member whose data is undamaged: choose another one, or restore a backup",
    );
  }
  // What is in place may be the damaged data or what was begun after it.
  if (marker === "unreadable")
    return heal(options, lock, known, new DataDamagedError("the note that this member is being healed is damaged"));
  if (marker.phase === "set-aside") return beginAnew(options, lock, marker);
  try {
    const { wal, contents, backend, state } = await openExisting(options);
    try {
      const restored = restoreLog(contents, state, config);
      if (restored.marker !== undefined) await appendToWal(wal, { entries: [], snapshot: restored.marker, mustSync: true });
      return await bootedToHeal(options, lock, { wal, storage: restored.storage, backend, state }, marker);
    } catch (error) {
      await wal.close();
      await state.close();
      throw error;
    }
  } catch (error) {
    if (isDamage(error) || (await Wal.exists(options.ports.disk, config.walDirectory)) === false) {
      return heal(options, lock, marker.identity, error as Error);
    }
    throw error;
  }
}

async function bootedToHeal(
  options: BootstrapOptions,
  lock: DirectoryLock,
  parts: { wal: WalFace; storage: ServerStorage; backend: Backend; state: State },
  marker: HealMarker,
): Promise<Booted> {
  const { disk } = options.ports;
  const { memberId, clusterId } = marker.identity;
  const members = parts.state.membership.list();
  const listed = members.some((member) => member.id === memberId);
  return {
    ...parts,
    memberId,
    clusterId,
    lock,
    peers: peersOf(listed ? members : othersOf(marker.identity), memberId),
    fresh: false,
    identity: await keepIdentity(options, marker.identity, listed ? members : marker.identity.members, undefined),
    healing: { reason: marker.reason, finish: () => removeHealMarker(disk, memberDirectory(options.config)) },
    soleMemberFrom: 0,
  };
}

// -- one member instead of many ----------------------------------------------------------------------------------------------------------------

/** Everybody but this member leaves, behind what is committed. Returns the index from which on it is alone; 0 when it is already. */
async function forceNewCluster(
  options: BootstrapOptions,
  opened: { wal: WalFace; storage: ServerStorage; state: State; memberId: MemberId },
): Promise<LogIndex> {
  const { config, ports } = options;
  const { wal, storage, state, memberId } = opened;
  const { hardState } = storage.initialState();
  const from = state.appliedIndex + 1;
  const known = from > storage.lastIndex() ? [] : storage.entries(from, storage.lastIndex() + 1, Number.MAX_SAFE_INTEGER);
  const log = soleMemberLog({
    memberId,
    peerUrls: config.initialAdvertisePeerUrls,
    term: hardState.term + 1,
    applied: { index: state.appliedIndex, confState: state.confState, membership: state.membership },
    entries: known,
    commit: hardState.commit,
  });
  if (log === undefined) {
    ports.logger.info({}, "--force-new-cluster has nothing to do: this member is alone already");
    return 0;
  }
  const last = log.entries[log.entries.length - 1];
  assert(last !== undefined, "somebody has to leave");
  ports.logger.warn(
    { "commit-index": log.commit, "dropped-entries": Math.max(0, storage.lastIndex() - log.commit), removed: log.removed.map(hexId) },
    "discarding uncommitted entries and all other members (--force-new-cluster); never start those members again",
  );
  const forced: HardState = { term: hardState.term + 1, vote: memberId, commit: last.index };
  await appendToWal(wal, { hardState: forced, entries: log.entries, mustSync: true });
  storage.append(log.entries);
  storage.setHardState(forced);
  return last.index;
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
    identity: await keepIdentity(options, { memberId, clusterId }, members, undefined),
    healing: undefined,
    soleMemberFrom: 0,
  };
}

function appendToWal(wal: WalFace, append: WalAppend): Promise<void> {
  return new Promise((resolve, reject) => {
    wal.append(append, (error) => (error === undefined ? resolve() : reject(error)));
  });
}

/**
 * The log in memory, and the marker that the log on disk needs before it can go on behind the store.
 * @throws DataDamagedError when log and store do not fit together: one of them has lost something.
 */
function restoreLog(
  contents: WalContents,
  state: State,
  config: ServerConfig,
): { storage: ServerStorage; marker: SnapshotMetadata | undefined } {
  const storage = new ServerStorage();
  const { appliedIndex, appliedTerm, confState } = state;
  if (contents.snapshot.index > appliedIndex) {
    throw new DataDamagedError(
      `the store reaches index ${appliedIndex}, but the log begins behind index ${contents.snapshot.index}: the store is older than the log`,
    );
  }
  if (contents.snapshot.index > 0) storage.applySnapshot(contents.snapshot);
  if (contents.entries.length > 0) storage.append(contents.entries);
  let marker: SnapshotMetadata | undefined;
  if (appliedIndex > 0 && storage.term(appliedIndex) !== appliedTerm) {
    // Nothing is applied before it is durable in the log (BW2), so the log has lost what it had promised to keep, and perhaps more than what the store shows.
    if (!config.unsafeNoFsync && !config.forceNewCluster) {
      throw new DataDamagedError(
        `the log ends at index ${storage.lastIndex()}, but the store has entry ${appliedIndex} of term ${appliedTerm}, which is not in it: the log has lost entries that were on disk`,
      );
    }
    // It was agreed that this may happen. What is applied was committed, so the log goes on behind it.
    marker = { index: appliedIndex, term: appliedTerm, confState };
    storage.applySnapshot(marker);
  }
  let { hardState } = contents;
  if (hardState.term < appliedTerm) hardState = { term: appliedTerm, vote: NO_MEMBER, commit: hardState.commit };
  // A commit index is not synced by itself; what is applied was committed.
  if (hardState.commit < appliedIndex) hardState = { ...hardState, commit: appliedIndex };
  assert(hardState.commit <= storage.lastIndex(), "the commit index lies inside the log", {
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
    const identity = await keepIdentity(options, metadata, members, undefined);
    const peers = peersOf(members, own.id);
    return { ...metadata, wal, storage, state, backend, lock, peers, fresh: true, identity, healing: undefined, soleMemberFrom: 0 };
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
  if (self.clientUrls.length > 0) {
    throw new BootstrapError(
      `member ${hexId(self.id)} has already been bootstrapped: its data is gone, and it must not go on without what it promised. ` +
        "Remove it from the cluster, add it again, and start it with an empty data directory",
    );
  }
  const metadata = { memberId: self.id, clusterId: remote.clusterId };
  const { backend, state } = await openFresh(options);
  try {
    const wal = await createWal(options, metadata);
    ports.logger.info({ "cluster-id": hexId(remote.clusterId), "local-member-id": hexId(self.id) }, "starting local member");
    const identity = await keepIdentity(options, metadata, known, undefined);
    const peers = peersOf(known, self.id);
    const storage = new ServerStorage();
    return { ...metadata, wal, storage, state, backend, lock, peers, fresh: true, identity, healing: undefined, soleMemberFrom: 0 };
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
  if (remote === undefined) return;
  const known = remote.members.find((member) => member.id === own.id);
  if (known !== undefined && known.clientUrls.length > 0) throw new BootstrapError(`member ${hexId(own.id)} has already been bootstrapped`);
  const clusterId = clusterIdOf(members.map((member) => member.id));
  if (remote.clusterId !== clusterId) {
    throw new BootstrapError(
      `cluster ID mismatch: the members that run at ${others.join(",")} are of cluster ${hexId(remote.clusterId)}, and this configuration makes ` +
        `cluster ${hexId(clusterId)}: check --initial-cluster and --initial-cluster-token, or join them with --initial-cluster-state existing`,
    );
  }
}

/** The data of one member under the name and the URLs of another one: both would run under one id. */
function refuseForeignData(config: ServerConfig, members: readonly MemberRecord[], memberId: MemberId): void {
  const owner = members.find((member) => member.id === memberId);
  const configured = members.find(({ id, name, peerUrls }) => id !== memberId && name === config.name && sameUrls(peerUrls, config));
  if (owner === undefined || configured === undefined || owner.name === config.name) return;
  throw new BootstrapError(
    `the data directory is that of member ${hexId(owner.id)} ("${owner.name}"), but name and peer URLs are those of member ${hexId(configured.id)} ("${config.name}")`,
  );
}

function sameUrls(urls: readonly string[], { initialAdvertisePeerUrls: own }: ServerConfig): boolean {
  return urls.length === own.length && urls.every((url) => own.includes(url));
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
