/**
 * What tools do with a member's data directory while no member runs on it: hashing, backing up and defragmenting its store, and looking into its
 * log. The store's lock keeps them and a running member apart; the log is only read.
 */
import type * as api from "../api/index.ts";
import type { Backend } from "../backend/index.ts";
import { latin1Text } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import { hexId, type Revision } from "../base/ids.ts";
import type { Logger } from "../base/logger.ts";
import type { RevisionHash } from "../mvcc/index.ts";
import { decodeConfChange, type Entry } from "../raft/index.ts";
import { Wal, type WalContents } from "../wal/index.ts";
import { State } from "./apply/state.ts";
import { type SpooledBackup, spoolBackup } from "./backup.ts";
import { decodeMemberChange } from "./membership.ts";
import { decodeRaftRequest, type RaftRequest } from "./raft-request.ts";
import { diskSpool } from "./snapshot/index.ts";

export interface OfflineStoreOptions {
  /** The store itself: `<data directory>/member/snap/db`. */
  readonly directory: string;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly openBackend: (directory: string) => Promise<Backend>;
  readonly defer: (fn: () => void) => void;
}

/** There is no store in the directory, or none that may be used. */
export class StoreUnusableError extends EtcdError {
  constructor(message: string) {
    super("store-unusable", GrpcCode.FailedPrecondition, message);
    this.name = "StoreUnusableError";
  }
}

/** What LevelDB's directory always holds. Looked for first, because opening makes a store where there is none. */
const STORE_MARK = "CURRENT";
/** A snapshot from the leader that the member has decided to take over at its next start: until then the old store is void. */
const SWITCH_MARK = "db.switch";

/** @throws StoreUnusableError; DataDirectoryLockedError while somebody uses it; the backend's error */
async function openStore({ directory, disk, openBackend }: OfflineStoreOptions): Promise<Backend> {
  if (!(await disk.exists(`${directory}/${STORE_MARK}`))) throw new StoreUnusableError(`${directory} holds no store`);
  if (await disk.exists(`${directory}/../${SWITCH_MARK}`)) {
    throw new StoreUnusableError(`${directory} is about to be replaced by a snapshot of the leader; start the member once`);
  }
  return openBackend(directory);
}

async function withState<T>(options: OfflineStoreOptions, work: (state: State) => Promise<T>): Promise<T> {
  const backend = await openStore(options);
  let state: State;
  try {
    state = await State.open({
      backend,
      valueCacheBytes: 0,
      electionMs: 1000,
      heartbeatMs: 100,
      learnersMax: 1,
      yieldNow: () => new Promise<void>(options.defer),
      nowMs: () => options.clock.monotonicMs(),
      onBackendFailed: () => undefined,
    });
  } catch (error) {
    await backend.close();
    throw error;
  }
  try {
    return await work(state);
  } finally {
    await state.close();
  }
}

/**
 * HashKV of the store, as of what it holds: the log may be ahead of it. 0 is the newest revision.
 * @throws StoreUnusableError, CompactedError, FutureRevisionError; BackendBrokenError and its like for a damaged store
 */
export function storeHashKv(options: OfflineStoreOptions, revision: Revision): Promise<RevisionHash> {
  return withState(options, ({ store }) => store.hashByRevision(revision));
}

/** The store as a backup file without a digest, beside the store until it is removed. `tag` tells it from others. @throws as storeHashKv */
export function storeBackup(options: OfflineStoreOptions, tag: string): Promise<SpooledBackup> {
  const { disk, directory, defer } = options;
  return withState(options, (state) => {
    const storage = diskSpool(disk, `${directory}/..`);
    return spoolBackup({ state, storage, tag, defer, signal: new AbortController().signal });
  });
}

export interface Defragmented {
  readonly beforeBytes: number;
  readonly afterBytes: number;
}

/** @throws StoreUnusableError, the backend's error */
export async function defragmentStore(options: OfflineStoreOptions): Promise<Defragmented> {
  const backend = await openStore(options);
  try {
    const beforeBytes = await backend.sizeBytes();
    await backend.defragment();
    await backend.checkpoint();
    return { beforeBytes, afterBytes: await backend.sizeBytes() };
  } finally {
    await backend.close();
  }
}

// -- the log ------------------------------------------------------------------------------------------------------------------------------------

export interface WalInspection extends WalContents {
  readonly directory: string;
  /** Files of the directory, in order, with their sizes. */
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
}

/** Reads and checks a whole log without changing it. @throws WalMissingError, WalCorruptError, the disk's error */
export async function inspectWal(options: {
  readonly disk: Disk;
  readonly directory: string;
  readonly logger: Logger;
}): Promise<WalInspection> {
  const { disk, directory } = options;
  const contents = await Wal.read(options);
  const files: { name: string; bytes: number }[] = [];
  for (const name of (await disk.list(directory)) ?? []) {
    const file = await disk.open(`${directory}/${name}`);
    files.push({ name, bytes: await file.sizeBytes() });
    await file.close();
  }
  return { ...contents, directory, files };
}

/** What an entry asks for, in one line. Values are told by their length, secrets not at all. */
export function describeEntry(entry: Entry): string {
  if (entry.data.byteLength === 0) return "";
  try {
    return entry.type === "conf-change" ? describeConfChange(entry.data) : describeRequest(decodeRaftRequest(entry.data));
  } catch (error) {
    if (!EtcdError.is(error) && !(error instanceof Error)) throw error;
    return `unknown (${error.message})`;
  }
}

function describeConfChange(data: Uint8Array): string {
  const decoded = decodeConfChange(data);
  if (decoded instanceof Error) throw decoded;
  const change = decodeMemberChange(decoded.context);
  const parts = decoded.steps.map((step) => `method=${step.kind} id=${hexId(step.memberId)}`);
  if (change !== undefined) parts.push(`member=${change.action}`, ...change.member.peerUrls.map((url) => `peer-url=${url}`));
  return parts.join(" ");
}

function describeRequest(request: RaftRequest): string {
  const who = request.username === "" ? "" : ` user=${JSON.stringify(request.username)}`;
  return `${request.kind}${detailsOf(request)}${who}`;
}

function detailsOf(request: RaftRequest): string {
  switch (request.kind) {
    case "put": {
      const { key, value, lease } = request.body;
      return ` key=${text(key)} value-bytes=${value.byteLength}${lease === 0n ? "" : ` lease=${hexId(lease)}`}`;
    }
    case "delete-range":
      return rangeText(request.body);
    case "txn":
      return ` compares=${request.body.compare.length} success=${request.body.success.length} failure=${request.body.failure.length}`;
    case "compaction":
      return ` revision=${request.body.revision}`;
    case "lease-grant":
      return ` id=${hexId(request.body.id)} ttl=${request.body.ttl}`;
    case "lease-revoke":
      return ` id=${hexId(request.body.id)}`;
    case "lease-checkpoint":
      return ` leases=${request.body.checkpoints.length}`;
    case "cluster-version-set":
      return ` version=${request.body.ver}`;
    default:
      return "";
  }
}

function rangeText({ key, rangeEnd }: Pick<api.DeleteRangeRequest, "key" | "rangeEnd">): string {
  return ` key=${text(key)}${rangeEnd.byteLength === 0 ? "" : ` range-end=${text(rangeEnd)}`}`;
}

/** Bytes that are no printable ASCII as escapes. */
function text(bytes: Uint8Array): string {
  return JSON.stringify(latin1Text(bytes)).replace(/[^\x20-\x7e]/g, (byte) => `\\u${byte.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
