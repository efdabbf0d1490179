/** A modelled machine: disk and stores, which can be copied as they are at any instant, and the boot of a whole member on them. */
import { crc32, utf8Bytes } from "../../../src/base/bytes.ts";
import type { Disk, DiskFile } from "../../../src/base/disk.ts";
import type { Logger } from "../../../src/base/logger.ts";
import { silentLogger } from "../../../src/base/logger.ts";
import { type Random, seededRandom } from "../../../src/base/random.ts";
import type { RemoteMembers } from "../../../src/server/bootstrap.ts";
import type { ServerConfig } from "../../../src/server/config.ts";
import type { MemoryNetwork } from "../../../src/server/peer/index.ts";
import { Server } from "../../../src/server/server.ts";
import { ModelDisk } from "../../support/model-disk.ts";
import type { Loop } from "./loop.ts";
import { Stores } from "./stores.ts";

export const DATA = "/data";
const SNAPSHOT_COUNT = 25;
export const LOG = `${DATA}/member/wal`;

/** A write that is about to happen. */
export interface PendingWrite {
  readonly position: number;
  readonly bytes: Uint8Array;
}

/** Something is about to change on the machine. */
export interface MachineEvent {
  readonly kind: string;
  readonly path: string;
  readonly write: PendingWrite | undefined;
}

/** What lies on the disk of a machine. */
export class Image {
  readonly disk: ModelDisk;
  readonly stores: Stores;

  constructor(disk: ModelDisk = new ModelDisk(), stores: Stores = new Stores()) {
    this.disk = disk;
    this.stores = stores;
  }

  clone(): Image {
    return new Image(this.disk.clone(), this.stores.clone());
  }

  crash(how: "kill" | "power-loss", random: Random): void {
    this.disk.crash(how, random);
    this.stores.crash(how, random);
  }

  /** Equal for equal contents. */
  signature(): string {
    let sum = 0;
    for (const path of this.disk.filesBelow(DATA)) sum = crc32(this.disk.peek(path), crc32(utf8Bytes(path), sum));
    return `${sum}/${this.stores.signature()}`;
  }
}

/** A machine that tells of each change before it happens, and takes time for its syncs. */
export function liveImage(loop: Loop, onEvent: (event: MachineEvent, image: Image) => void): { image: Image; disk: Disk } {
  const random = seededRandom(5);
  let write: PendingWrite | undefined;
  const model: ModelDisk = new ModelDisk({
    onEvent: (event) => {
      if (event.kind !== "read") onEvent({ kind: event.kind, path: event.path, write: event.kind === "write" ? write : undefined }, image);
    },
    delay: () => loop.after(random.below(200) / 100),
  });
  const image = new Image(model);
  const noting = (file: DiskFile): DiskFile => ({
    read: (position, length) => file.read(position, length),
    write: (position, bytes) => {
      write = { position, bytes };
      return file.write(position, bytes);
    },
    writeNow: (position, bytes) => {
      write = { position, bytes };
      file.writeNow(position, bytes);
    },
    sync: () => file.sync(),
    syncNow: () => file.syncNow(),
    sizeBytes: () => file.sizeBytes(),
    truncate: (sizeBytes) => file.truncate(sizeBytes),
    close: () => file.close(),
  });
  const disk: Disk = {
    makeDirectory: (path) => model.makeDirectory(path),
    list: (path) => model.list(path),
    open: async (path, options) => noting(await model.open(path, options)),
    rename: (from, to) => model.rename(from, to),
    remove: (path) => model.remove(path),
    removeTree: (path) => model.removeTree(path),
    syncDirectory: (path) => model.syncDirectory(path),
    exists: (path) => model.exists(path),
  };
  return { image, disk };
}

export interface BootOptions {
  readonly loop: Loop;
  readonly network: MemoryNetwork;
  readonly image: Image;
  /** Default: the image's own. */
  readonly disk?: Disk;
  readonly name: string;
  readonly names: readonly string[];
  readonly onEvent?: (event: MachineEvent, image: Image) => void;
  readonly mutants?: ReadonlySet<string> | undefined;
  readonly logger?: Logger;
  /** Entries between two checkpoints. */
  readonly snapshotCount?: number | undefined;
}

/** Every life has chances of its own. */
let boots = 0;

/** Boots a member; resolves when it runs, which is before it is ready. */
export async function bootMember(options: BootOptions): Promise<Server> {
  const { loop, network, image, name, names, onEvent, disk = image.disk } = options;
  boots += 1;
  const random = seededRandom(boots);
  return Server.start({
    config: configOf(name, names, options.mutants, options.snapshotCount ?? SNAPSHOT_COUNT),
    ports: {
      clock: loop.clock,
      random,
      disk,
      logger: options.logger ?? silentLogger,
      lockDirectory: async () => ({ close: async () => undefined }),
      openBackend: (directory) =>
        image.stores.open(disk, directory, (kind, path) => {
          if (onEvent === undefined) return undefined;
          onEvent({ kind, path, write: undefined }, image);
          return loop.after(random.below(200) / 100);
        }),
      defer: loop.defer,
    },
    transport: network.transport({ clock: loop.clock }),
    fetchMembers: async (): Promise<RemoteMembers | undefined> => undefined,
  });
}

export function urlOf(name: string): string {
  return `http://${name}.test:2380`;
}

/** Every threshold as small as it goes, so that a short workload crosses all of them often. */
function configOf(name: string, names: readonly string[], mutants: ReadonlySet<string> | undefined, snapshotCount: number): ServerConfig {
  return {
    name,
    dataDirectory: DATA,
    walDirectory: LOG,
    inMemory: false,
    initialCluster: names.map((one) => ({ name: one, urls: [urlOf(one)] })),
    initialClusterState: "new",
    initialClusterToken: "sweep",
    initialAdvertisePeerUrls: [urlOf(name)],
    advertiseClientUrls: [`http://${name}.test:2379`],
    heartbeatMs: 100,
    electionMs: 1000,
    initialElectionTickAdvance: true,
    preVote: true,
    strictReconfigCheck: false,
    forceNewCluster: false,
    maxLearners: 1,
    snapshotCount,
    snapshotCatchUpEntries: 5,
    maxWals: 2,
    quotaBackendBytes: 0,
    maxRequestBytes: 1_572_864,
    maxTxnOps: 128,
    autoCompactionMode: "revision",
    autoCompactionRetention: 0,
    compactionBatchLimit: 5,
    compactionSleepMs: 2,
    watchProgressNotifyMs: 600_000,
    warningApplyMs: 100,
    leaseCheckpoint: false,
    valueCacheBytes: 1 << 16,
    unsafeNoFsync: false,
    bcryptCost: 4,
    authTokenTtlMs: 300_000,
    clientCertAuth: false,
    limits: { walSegmentBytes: 8192 },
    ...(mutants === undefined ? {} : { mutants }),
  };
}
