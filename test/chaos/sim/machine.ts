/** A simulated machine: disk, clocks, and at most one process, which is a whole member. */

import type { Disk, DiskFile } from "../../../src/base/disk.ts";
import type { ClusterId, MemberId } from "../../../src/base/ids.ts";
import type { Logger } from "../../../src/base/logger.ts";
import { silentLogger } from "../../../src/base/logger.ts";
import { type Random, seededRandom } from "../../../src/base/random.ts";
import type { RemoteMembers } from "../../../src/server/bootstrap.ts";
import type { ServerConfig, ServerPorts } from "../../../src/server/config.ts";
import type { PeerTransport } from "../../../src/server/peer/index.ts";
import { Server, type ServerObserver } from "../../../src/server/server.ts";
import { DiskDeadError, ModelDisk } from "../../support/model-disk.ts";
import { type BackendDelay, StoreRack } from "./backend.ts";
import { MachineClock, ProcessClock } from "./clock.ts";
import { seedFor } from "./dice.ts";
import type { MemberSettings } from "./plan.ts";
import { Phase, type Process, type Scheduler, type SimEvent } from "./scheduler.ts";

export const DATA = "/data";
export const LOG = `${DATA}/member/wal`;
export const SNAPSHOTS = `${DATA}/member/snap`;

/** One run of a member's process. */
export class Life implements Process {
  readonly index: number;
  readonly number: number;
  readonly startedAt: number;
  readonly random: Random;
  dead = false;
  blockedUntil = 0;
  parked: SimEvent[] = [];
  inputFirst = false;
  server: Server | undefined;
  transport: PeerTransport | undefined;
  /** Something was done to its disk that may make it stop. */
  diskFaulted = false;
  ready = false;
  /** Told when the process dies, so that clients learn that their connections broke. */
  readonly onDeath = new Set<() => void>();
  // What the oracle saw last.
  term = 0;
  commit = 0;
  applied = 0;

  constructor(index: number, number: number, startedAt: number, random: Random) {
    this.index = index;
    this.number = number;
    this.startedAt = startedAt;
    this.random = random;
  }
}

export interface MachineOptions {
  readonly index: number;
  readonly seed: number;
  readonly scheduler: Scheduler;
  readonly settings: MemberSettings;
  readonly disk: { readonly syncMs: number; readonly backendWriteMs: number };
  readonly clockPercent: number;
  readonly noBattery: boolean;
  readonly mutants: ReadonlySet<string> | undefined;
  /** The process died in a disk operation. */
  onDiskDeath(machine: Machine): void;
}

export interface LifePorts {
  readonly transport: (clock: ProcessClock) => PeerTransport;
  fetchMembers(machine: Machine, urls: readonly string[], timeoutMs: number): Promise<RemoteMembers | undefined>;
  readonly observer: ServerObserver;
  readonly logger: Logger;
  onIdentity(life: Life, identity: { memberId: MemberId; clusterId: ClusterId }): void;
}

export class Machine {
  readonly index: number;
  readonly name: string;
  readonly clock: MachineClock;
  readonly disk: ModelDisk;
  readonly stores = new StoreRack();
  /** Its present peer URL. */
  url: string;
  life: Life | undefined;
  lives = 0;
  memberId: MemberId | undefined;
  /** How it joins when it has no data yet. */
  initialCluster: readonly { readonly name: string; readonly urls: readonly string[] }[] = [];
  initialState: "new" | "existing" = "new";
  /** Bits on its disk were flipped: it may refuse to start or stop at any time. */
  damaged = false;
  /** It refused to start, or was told that it is removed: only wiping helps. */
  retired: string | undefined;
  /** Syncs take that long, instead of what the plan says. */
  slowSyncMs = 0;
  /** Faults under way that make the disk fail. */
  diskFaults = 0;
  clientsCut: "no" | "all" | "answers" = "no";
  /** A start is scheduled. */
  starting: SimEvent | undefined;
  /** What the next death in a disk operation is. */
  nextDeath: { readonly how: "kill" | "power-loss"; readonly downMs: number } | undefined;

  readonly #options: MachineOptions;
  readonly #random: Random;

  constructor(options: MachineOptions) {
    this.#options = options;
    this.index = options.index;
    this.name = `m${options.index}`;
    this.url = `http://${this.name}.sim:2380`;
    this.#random = seededRandom(seedFor(options.seed, 2, options.index));
    this.clock = new MachineClock(options.scheduler, {
      startMs: this.#random.below(1_000_000) / 10,
      rate: options.clockPercent / 100,
    });
    this.disk = new ModelDisk({
      random: this.#random,
      onDeath: () => options.onDiskDeath(this),
      delay: (event) => (event.kind === "sync" || event.kind === "sync-directory" ? this.#syncDelay() : undefined),
    });
  }

  get running(): boolean {
    return this.life !== undefined;
  }

  get server(): Server | undefined {
    return this.life?.server;
  }

  /** Boots the member. The promise rejects with what `Server.start` rejects with. */
  async start(ports: LifePorts): Promise<Life> {
    const { scheduler, seed, settings, mutants, noBattery } = this.#options;
    this.lives += 1;
    const life = new Life(this.index, this.lives, scheduler.now, seededRandom(seedFor(seed, 3, this.index, this.lives)));
    this.life = life;
    if (noBattery) this.clock.resetWall();
    const clock = new ProcessClock(scheduler, this.clock, life, seededRandom(seedFor(seed, 4, this.index, this.lives)));
    const delay: BackendDelay = (what) => this.#backendDelay(life, what);
    const disk = diskOf(this.disk, life, mutants?.has("ignore-short-write") === true);
    const serverPorts: ServerPorts = {
      clock,
      random: life.random,
      disk,
      logger: ports.logger,
      lockDirectory: async () => ({ close: async () => undefined }),
      openBackend: (directory) => this.stores.open(disk, directory, delay, mutants),
      defer: (fn) => {
        scheduler.after(0, fn, life, Phase.deferred);
      },
    };
    const transport = ports.transport(clock);
    life.transport = transport;
    const server = await Server.start({
      config: this.#config(settings, mutants),
      ports: serverPorts,
      transport,
      fetchMembers: (urls, timeoutMs) => ports.fetchMembers(this, urls, timeoutMs),
      observer: ports.observer,
      onIdentity: (identity) => {
        if (!life.dead) ports.onIdentity(life, identity);
      },
    });
    life.server = server;
    return life;
  }

  /** True for every URL that it was ever given, also by a change that was only heard of as failed. */
  answersAt(url: string): boolean {
    return url.startsWith(`http://${this.name}.`) || url.startsWith(`http://${this.name}-`);
  }

  /** The process is gone; with "power-loss" so is everything that was not on the disk. */
  kill(how: "kill" | "power-loss"): void {
    const { life } = this;
    this.starting?.cancel();
    this.starting = undefined;
    if (life !== undefined) {
      life.dead = true;
      life.parked = [];
      this.life = undefined;
      void life.transport?.close();
    }
    this.disk.crash(how, this.#random);
    if (how === "power-loss") this.stores.powerLoss(this.#random);
    else this.stores.kill();
    if (life !== undefined) for (const told of [...life.onDeath]) told();
  }

  /** A new disk. */
  async wipe(): Promise<void> {
    await this.disk.removeTree(DATA);
    await this.disk.syncDirectory("/");
    this.stores.clear();
    this.damaged = false;
    this.retired = undefined;
  }

  #config(settings: MemberSettings, mutants: ReadonlySet<string> | undefined): ServerConfig {
    return {
      name: this.name,
      dataDirectory: DATA,
      walDirectory: LOG,
      inMemory: false,
      initialCluster: this.initialCluster,
      initialClusterState: this.initialState,
      initialClusterToken: "sim",
      initialAdvertisePeerUrls: [this.url],
      advertiseClientUrls: [`http://${this.name}.sim:2379`],
      heartbeatMs: settings.heartbeatMs,
      electionMs: settings.electionMs,
      initialElectionTickAdvance: settings.initialElectionTickAdvance,
      preVote: settings.preVote,
      strictReconfigCheck: settings.strictReconfigCheck,
      forceNewCluster: false,
      maxLearners: settings.maxLearners,
      snapshotCount: settings.snapshotCount,
      snapshotCatchUpEntries: settings.snapshotCatchUpEntries,
      maxWals: settings.maxWals,
      quotaBackendBytes: settings.quotaBackendBytes,
      maxRequestBytes: 1_572_864,
      maxTxnOps: 128,
      autoCompactionMode: "revision",
      autoCompactionRetention: settings.autoCompactionRevisions,
      compactionBatchLimit: settings.compactionBatchLimit,
      compactionSleepMs: settings.compactionSleepMs,
      watchProgressNotifyMs: settings.watchProgressNotifyMs,
      warningApplyMs: 100,
      leaseCheckpoint: settings.leaseCheckpoint,
      valueCacheBytes: settings.valueCacheBytes,
      unsafeNoFsync: false,
      bcryptCost: 4,
      authTokenTtlMs: 300_000,
      clientCertAuth: false,
      limits: {
        walSegmentBytes: settings.walSegmentBytes,
        appendBytesMax: settings.appendBytesMax,
        inflightMessagesMax: settings.inflightMessagesMax,
        committedBytesMax: settings.committedBytesMax,
        uncommittedBytesMax: settings.uncommittedBytesMax,
        watchStreamBytesMax: settings.watchStreamBytesMax,
        catchUpRevisionsMax: settings.catchUpRevisionsMax,
      },
      ...(mutants === undefined ? {} : { mutants }),
    };
  }

  #syncDelay(): Promise<void> | undefined {
    const { life } = this;
    if (life === undefined) return undefined;
    const { syncMs } = this.#options.disk;
    const ms = this.slowSyncMs > 0 ? (this.slowSyncMs * (50 + this.#random.below(100))) / 100 : this.#latency(syncMs);
    return this.#wait(life, ms);
  }

  #backendDelay(life: Life, what: "write" | "checkpoint" | "read"): Promise<void> | undefined {
    const { backendWriteMs, syncMs } = this.#options.disk;
    if (what === "checkpoint") return this.#wait(life, this.slowSyncMs + 2 * this.#latency(syncMs));
    if (what === "read") return this.#random.below(4) === 0 ? this.#wait(life, this.#latency(1)) : undefined;
    if (backendWriteMs === 0 && this.slowSyncMs === 0) return undefined;
    return this.#wait(life, this.#latency(backendWriteMs) + (this.#random.below(10) === 0 ? this.slowSyncMs : 0));
  }

  /** Around `meanMs`, never nothing. */
  #latency(meanMs: number): number {
    return 0.05 + (meanMs * this.#random.below(2048)) / 1024;
  }

  #wait(life: Life, ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#options.scheduler.after(ms, resolve, life, Phase.input);
    });
  }
}

/** The disk as one process sees it: what a dead one still tries has no effect. (Open files know by themselves that their process is gone.) */
function diskOf(disk: ModelDisk, life: Life, ignoreShortWrite: boolean): Disk {
  const alive = (): void => {
    if (life.dead) throw new DiskDeadError();
  };
  return {
    async makeDirectory(path) {
      alive();
      return disk.makeDirectory(path);
    },
    async list(path) {
      alive();
      return disk.list(path);
    },
    async open(path, options) {
      alive();
      const file = await disk.open(path, options);
      return ignoreShortWrite ? withoutShortWrites(file) : file;
    },
    async rename(from, to) {
      alive();
      return disk.rename(from, to);
    },
    async remove(path) {
      alive();
      return disk.remove(path);
    },
    async removeTree(path) {
      alive();
      return disk.removeTree(path);
    },
    async syncDirectory(path) {
      alive();
      return disk.syncDirectory(path);
    },
    async exists(path) {
      alive();
      return disk.exists(path);
    },
  };
}

/** Mutant: nobody looks how much of a write was stored (BW22). */
function withoutShortWrites(file: DiskFile): DiskFile {
  return new Proxy(file, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      const forgive = (error: unknown): void => {
        if (!(error instanceof Error && error.message.startsWith("ENOSPC"))) throw error;
      };
      if (name === "write") return (...words: Parameters<DiskFile["write"]>) => target.write(...words).catch(forgive);
      if (name !== "writeNow") return value.bind(target);
      return (...words: Parameters<DiskFile["writeNow"]>) => {
        try {
          target.writeNow(...words);
        } catch (error) {
          forgive(error);
        }
      };
    },
  });
}

export function machineLogger(trace: ((what: string) => void) | undefined): Logger {
  if (trace === undefined) return silentLogger;
  const line =
    (level: string) =>
    (fields: Readonly<Record<string, unknown>>, message: string): void => {
      const text = Object.entries(fields)
        .filter(([name]) => name !== "stack")
        .map(
          ([name, value]) => `${name}=${typeof value === "object" && value !== null ? JSON.stringify(value, plainNumbers) : String(value)}`,
        )
        .join(" ");
      trace(`${level} ${message}${text === "" ? "" : ` (${text})`}`);
    };
  const logger: Logger = { debug: line("debug"), info: line("info"), warn: line("warn"), error: line("error"), child: () => logger };
  return logger;
}

function plainNumbers(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return String(value);
  return value instanceof Error ? value.message : value;
}
