/**
 * What one run does, written out before it begins: everything that a seed decides, as plain data. A run is a function of its plan, so a plan can be
 * stored, replayed and made smaller by leaving parts out (shrink.ts). Times are simulated milliseconds.
 */
import { Dice, seedFor } from "./dice.ts";

/** Which machine; those by role are looked up when the time has come. */
export type Target = "leader" | "follower" | "any" | "all" | "majority" | number;

export type Fault =
  /** The process dies; `again` more times, each as soon as it has come back for so many disk operations. */
  | { readonly kind: "crash"; readonly at: number; readonly target: Target; readonly downMs: number; readonly again: number }
  | { readonly kind: "power-loss"; readonly at: number; readonly target: Target; readonly downMs: number; readonly again: number }
  /** Death in the middle of a disk operation, the `operations`th from now. */
  | {
      readonly kind: "die-at-disk";
      readonly at: number;
      readonly target: Target;
      readonly operations: number;
      readonly how: "kill" | "power-loss";
      readonly downMs: number;
    }
  /** Nothing of the process runs; `frozen` stops its clock as well (a virtual machine). */
  | {
      readonly kind: "pause";
      readonly at: number;
      readonly target: Target;
      readonly forMs: number;
      readonly frozen: boolean;
      readonly inputFirst: boolean;
    }
  /** Orderly stop with leadership hand-over, then start. */
  | { readonly kind: "restart"; readonly at: number; readonly target: Target; readonly downMs: number }
  /** Every machine gets a number; what is not allowed by the shape does not pass. `noticed`: connections break at once, else after some seconds. */
  | {
      readonly kind: "partition";
      readonly at: number;
      readonly forMs: number;
      readonly shape: "isolate" | "halves" | "ring" | "bridge" | "one-way" | "links";
      readonly target: Target;
      readonly noticed: boolean;
      readonly seed: number;
    }
  /** Clients do not reach that machine, or its answers do not reach them. */
  | { readonly kind: "clients-cut"; readonly at: number; readonly forMs: number; readonly target: Target; readonly answersOnly: boolean }
  | {
      readonly kind: "network";
      readonly at: number;
      readonly forMs: number;
      readonly lossPercent: number;
      readonly duplicatePercent: number;
      readonly delayMs: number;
    }
  | { readonly kind: "slow-disk"; readonly at: number; readonly forMs: number; readonly target: Target; readonly syncMs: number }
  | { readonly kind: "disk-full"; readonly at: number; readonly forMs: number; readonly target: Target; readonly freeBytes: number }
  | { readonly kind: "sync-error"; readonly at: number; readonly target: Target; readonly forMs: number; readonly forever: boolean }
  | { readonly kind: "backend-error"; readonly at: number; readonly target: Target }
  /** A bit of the log, of a table of the store, or of a file of snapshots, changes; see World for when that is allowed. */
  | {
      readonly kind: "bit-flip";
      readonly at: number;
      readonly target: Target;
      readonly where: "log" | "store" | "snapshot";
      readonly seed: number;
    }
  | { readonly kind: "clock-rate"; readonly at: number; readonly forMs: number; readonly target: Target; readonly ratePercent: number }
  | { readonly kind: "wall-jump"; readonly at: number; readonly target: Target; readonly deltaMs: number };

export type FaultKind = Fault["kind"];

export type OperatorAction =
  | { readonly kind: "add"; readonly at: number; readonly learner: boolean; readonly startMs: number }
  | { readonly kind: "promote"; readonly at: number }
  | { readonly kind: "remove"; readonly at: number; readonly target: Target }
  | { readonly kind: "update-urls"; readonly at: number; readonly target: Target }
  /** Remove, wipe, add under the same name. */
  | { readonly kind: "replace"; readonly at: number; readonly target: Target }
  | { readonly kind: "move-leader"; readonly at: number; readonly target: Target }
  | { readonly kind: "defragment"; readonly at: number; readonly target: Target }
  | { readonly kind: "hash"; readonly at: number }
  | { readonly kind: "backup"; readonly at: number; readonly target: Target };

export type ClientRole = "kv" | "watch" | "lease" | "lock" | "election" | "follower-watch";

export interface ClientPlan {
  readonly role: ClientRole;
  readonly seed: number;
  /** Mean pause between two operations. */
  readonly thinkMs: number;
  /** Percent of operations for which another member is chosen. */
  readonly roamPercent: number;
  readonly timeoutMs: number;
  /** Of the KV service: many nested transactions, which compare what the same request has written. */
  readonly nested?: boolean;
}

/** How the members are set up; the names are those of ServerConfig. */
export interface MemberSettings {
  readonly heartbeatMs: number;
  readonly electionMs: number;
  readonly preVote: boolean;
  readonly strictReconfigCheck: boolean;
  readonly initialElectionTickAdvance: boolean;
  readonly snapshotCount: number;
  readonly snapshotCatchUpEntries: number;
  readonly maxWals: number;
  readonly compactionBatchLimit: number;
  readonly compactionSleepMs: number;
  readonly autoCompactionRevisions: number;
  readonly watchProgressNotifyMs: number;
  readonly valueCacheBytes: number;
  readonly leaseCheckpoint: boolean;
  readonly quotaBackendBytes: number;
  readonly maxLearners: number;
  readonly walSegmentBytes: number;
  readonly appendBytesMax: number;
  readonly inflightMessagesMax: number;
  readonly committedBytesMax: number;
  readonly uncommittedBytesMax: number;
  readonly watchStreamBytesMax: number;
  readonly catchUpRevisionsMax: number;
}

export interface NetworkSettings {
  /** Mean of the exponential part of the delay. */
  readonly delayMs: number;
  readonly lossPerMille: number;
  readonly duplicatePerMille: number;
  /** Duplicates come up to this much later. */
  readonly lateMs: number;
  /** Messages may overtake each other on one link. */
  readonly reorder: boolean;
  readonly clientDelayMs: number;
  readonly clientLossPerMille: number;
}

export interface DiskSettings {
  /** Mean of the exponential part of a sync. */
  readonly syncMs: number;
  readonly backendWriteMs: number;
}

export interface LivenessSettings {
  /** What becomes of the members outside of the core. */
  readonly rest: "heal" | "isolate" | "stop" | "pause";
  readonly seed: number;
  /** In election timeouts; no leader change may happen for so long. */
  readonly calmTimeouts: number;
}

export interface Plan {
  readonly version: 1;
  readonly seed: number;
  readonly members: number;
  /** Length of the safety phase. */
  readonly durationMs: number;
  readonly keys: number;
  readonly valueBytesMax: number;
  /** By machine; the members that come later take over from the beginning. */
  readonly clockPercent: readonly number[];
  /** Every boot begins at the same time of day. */
  readonly noBattery: boolean;
  readonly settings: MemberSettings;
  readonly network: NetworkSettings;
  readonly disk: DiskSettings;
  readonly clients: readonly ClientPlan[];
  readonly faults: readonly Fault[];
  readonly operator: readonly OperatorAction[];
  /** So many do the same, not knowing of each other; one, when it is not said. */
  readonly operators?: number;
  readonly liveness: LivenessSettings;
}

export interface PlanOptions {
  readonly members?: number | undefined;
  /** Of the safety phase. */
  readonly durationMs?: number | undefined;
  /** These kinds of faults instead of those that the seed enables. */
  readonly faults?: readonly FaultKind[] | undefined;
  /** About so much time from one fault to the next. */
  readonly faultsEveryMs?: number | undefined;
  /** More clients of the KV service, which hardly pause. */
  readonly busy?: boolean | undefined;
  readonly operator?: "none" | "maintenance" | "members" | "leaders" | undefined;
  /** See Plan. */
  readonly operators?: number | undefined;
  /** About so much time from one action of the operator to the next. */
  readonly operatorEveryMs?: number | undefined;
  /** So many more clients of leases. */
  readonly leases?: number | undefined;
  /** See ClientPlan. */
  readonly nested?: boolean | undefined;
  /** See Plan. */
  readonly keys?: number | undefined;
  readonly settings?: Partial<MemberSettings> | undefined;
  readonly network?: Partial<NetworkSettings> | undefined;
}

/** The highest number of members that exist at a time. */
export const MEMBERS_MAX = 7;

export function makePlan(seed: number, options: PlanOptions = {}): Plan {
  const dice = new Dice(seedFor(seed, 1));
  const members = options.members ?? dice.weighted({ "1": 12, "2": 5, "3": 50, "4": 5, "5": 20, "6": 3, "7": 5 } as const);
  const count = Number(members);
  const durationMs = options.durationMs ?? dice.pick([20_000, 40_000, 60_000, 120_000]);
  const swarmed = swarm(dice);
  const enabled = options.faults === undefined ? swarmed : new Set(options.faults);
  const electionTicks = dice.pick([5, 10, 10, 10, 20]);
  const heartbeatMs = dice.pick([50, 100, 100, 100]);
  const reorder = dice.percent(40);
  return {
    version: 1,
    seed,
    members: count,
    durationMs,
    keys: options.keys ?? dice.pick([3, 8, 20, 40]),
    valueBytesMax: dice.pick([10, 60, 200, 200, 3000]),
    clockPercent: Array.from({ length: 16 }, () => (enabled.has("clock-rate") && dice.percent(50) ? dice.between(95, 105) : 100)),
    noBattery: enabled.has("wall-jump") && dice.percent(30),
    settings: { ...makeSettings(dice, heartbeatMs, heartbeatMs * electionTicks, reorder), ...options.settings },
    network: {
      delayMs: dice.pick([0, 1, 1, 2, 5, 20, 60]),
      lossPerMille: enabled.has("network") ? dice.pick([0, 1, 10, 50]) : 0,
      duplicatePerMille: enabled.has("network") ? dice.pick([0, 5, 50, 200]) : 0,
      lateMs: dice.pick([20, 1000, 120_000]),
      reorder,
      clientDelayMs: dice.pick([0, 1, 5, 20]),
      clientLossPerMille: enabled.has("clients-cut") ? dice.pick([0, 5, 30]) : 0,
      ...options.network,
    },
    disk: { syncMs: dice.pick([0, 1, 1, 3, 10]), backendWriteMs: dice.pick([0, 0, 1, 10]) },
    clients: makeClients(dice, options),
    faults: makeFaults(dice, enabled, durationMs, count, options.faultsEveryMs),
    operator: makeOperator(dice, durationMs, count, options),
    ...(options.operators === undefined ? {} : { operators: options.operators }),
    liveness: {
      rest: dice.pick(["heal", "isolate", "stop", "pause"] as const),
      seed: dice.random.below(2 ** 31),
      calmTimeouts: 100,
    },
  };
}

const KINDS: readonly FaultKind[] = [
  "crash",
  "power-loss",
  "die-at-disk",
  "pause",
  "restart",
  "partition",
  "clients-cut",
  "network",
  "slow-disk",
  "disk-full",
  "sync-error",
  "backend-error",
  "bit-flip",
  "clock-rate",
  "wall-jump",
];

/** Some kinds of faults, all, or none: rare combinations occur only when the rest is absent. */
function swarm(dice: Dice): Set<FaultKind> {
  const style = dice.weighted({ none: 4, one: 16, some: 60, all: 20 });
  if (style === "none") return new Set();
  if (style === "one") return new Set([dice.pick(KINDS)]);
  if (style === "all") return new Set(KINDS);
  return new Set(KINDS.filter(() => dice.percent(40)));
}

function makeSettings(dice: Dice, heartbeatMs: number, electionMs: number, reorder: boolean): MemberSettings {
  const tiny = dice.percent(60);
  const appendBytesMax = dice.percent(30) ? 1 : 1024 * 1024;
  const sometimes = <T>(small: T, usual: T): T => (dice.percent(30) ? small : usual);
  return {
    heartbeatMs,
    electionMs,
    preVote: dice.percent(85),
    strictReconfigCheck: dice.percent(60),
    initialElectionTickAdvance: dice.percent(70),
    snapshotCount: tiny ? dice.pick([5, 10, 30]) : dice.pick([100, 1000]),
    snapshotCatchUpEntries: tiny ? dice.pick([0, 1, 5, 20]) : 500,
    maxWals: dice.pick([1, 2, 5]),
    compactionBatchLimit: dice.pick([1, 3, 10, 1000]),
    compactionSleepMs: dice.pick([1, 10, 50]),
    autoCompactionRevisions: dice.percent(20) ? dice.pick([5, 50]) : 0,
    watchProgressNotifyMs: dice.pick([300, 1000, 10_000]),
    valueCacheBytes: dice.pick([0, 2000, 100_000, 16_000_000]),
    leaseCheckpoint: dice.percent(50),
    quotaBackendBytes: dice.percent(8) ? dice.pick([60_000, 200_000]) : 0,
    maxLearners: dice.pick([1, 1, 2]),
    walSegmentBytes: dice.pick([8192, 16_384, 16_384, 65_536]),
    appendBytesMax,
    // Hundreds of messages with an entry each that arrive in any order are refused one by one, and each refusal lets the leader send them all again.
    inflightMessagesMax: sometimes(1, reorder && appendBytesMax === 1 ? 8 : 512),
    committedBytesMax: sometimes(1, 4 * 1024 * 1024),
    uncommittedBytesMax: sometimes(2000, 64 * 1024 * 1024),
    watchStreamBytesMax: sometimes(400, 16 * 1024 * 1024),
    catchUpRevisionsMax: dice.pick([1, 3, 1000]),
  };
}

function makeClients(dice: Dice, { busy: isBusy = false, leases = 0, nested = false }: PlanOptions): ClientPlan[] {
  const clients: ClientPlan[] = [];
  const add = (role: ClientRole, count: number, thinkMs: () => number): void => {
    for (let i = 0; i < count; i++) {
      clients.push({
        role,
        seed: dice.random.below(2 ** 31),
        thinkMs: thinkMs(),
        roamPercent: dice.pick([0, 5, 30, 100]),
        timeoutMs: dice.pick([1500, 5000, 10_000]),
        ...(nested && role === "kv" ? { nested } : {}),
      });
    }
  };
  const pace = isBusy ? 40 : dice.pick([60, 150, 300, 600]);
  add("kv", isBusy ? 8 : dice.between(2, 5), () => dice.between(pace >> 1, pace * 2));
  add("watch", dice.between(0, 3), () => dice.between(500, 5000));
  add("follower-watch", 1, () => 100);
  if (dice.percent(60)) add("lease", dice.between(1, 3), () => dice.between(200, 1000));
  if (dice.percent(40)) add("lock", dice.between(2, 3), () => dice.between(100, 800));
  if (dice.percent(30)) add("election", dice.between(2, 3), () => dice.between(100, 800));
  if (leases > 0) add("lease", leases, () => dice.between(50, 300));
  return clients;
}

function makeFaults(
  dice: Dice,
  enabled: ReadonlySet<FaultKind>,
  durationMs: number,
  members: number,
  wantedMs: number | undefined,
): Fault[] {
  const faults: Fault[] = [];
  const kinds = KINDS.filter((kind) => enabled.has(kind));
  if (kinds.length === 0) return faults;
  const drawnMs = dice.pick([500, 2000, 5000, 10_000]);
  const everyMs = wantedMs ?? drawnMs;
  for (let at = dice.between(0, 3000); at < durationMs; at += dice.between(everyMs >> 1, everyMs * 2)) {
    faults.push(makeFault(dice, dice.pick(kinds), at, members));
  }
  return faults;
}

function makeFault(dice: Dice, kind: FaultKind, at: number, members: number): Fault {
  const target = (): Target => dice.weighted({ leader: 40, follower: 25, any: 35 });
  const many = (): Target => dice.weighted({ leader: 35, follower: 20, any: 25, majority: 8, all: 12 });
  const downMs = (): number => dice.pick([0, 10, 300, 1500, 5000, 12_000]);
  switch (kind) {
    case "crash":
    case "power-loss":
      return { kind, at, target: many(), downMs: downMs(), again: dice.percent(15) ? dice.between(1, 4) : 0 };
    case "die-at-disk":
      return {
        kind,
        at,
        target: target(),
        operations: dice.between(1, dice.pick([5, 60])),
        how: dice.pick(["kill", "power-loss"]),
        downMs: downMs(),
      };
    case "pause":
      return {
        kind,
        at,
        target: target(),
        forMs: dice.pick([20, 150, 400, 1200, 3000, 8000, 20_000]),
        frozen: dice.percent(30),
        inputFirst: dice.percent(50),
      };
    case "restart":
      return { kind, at, target: target(), downMs: downMs() };
    case "partition":
      return {
        kind,
        at,
        forMs: dice.pick([300, 1500, 4000, 10_000]),
        shape: dice.pick(["isolate", "isolate", "halves", "ring", "bridge", "one-way", "links"]),
        target: target(),
        noticed: dice.percent(50),
        seed: dice.random.below(2 ** 31),
      };
    case "clients-cut":
      return { kind, at, forMs: dice.pick([500, 3000, 8000]), target: target(), answersOnly: dice.percent(50) };
    case "network":
      return {
        kind,
        at,
        forMs: dice.pick([500, 2000, 6000]),
        lossPercent: dice.pick([0, 5, 30]),
        duplicatePercent: dice.pick([0, 10, 50]),
        delayMs: dice.pick([0, 20, 100, 500]),
      };
    case "slow-disk":
      return { kind, at, forMs: dice.pick([1000, 4000, 12_000]), target: target(), syncMs: dice.pick([20, 200, 1500, 6000]) };
    case "disk-full":
      return { kind, at, forMs: dice.pick([500, 3000, 8000]), target: target(), freeBytes: dice.between(0, dice.pick([100, 20_000])) };
    case "sync-error":
      return { kind, at, target: target(), forMs: dice.pick([500, 3000]), forever: dice.percent(40) };
    case "backend-error":
      return { kind, at, target: target() };
    case "bit-flip":
      return { kind, at, target: target(), where: dice.pick(["log", "log", "store", "snapshot"]), seed: dice.random.below(2 ** 31) };
    case "clock-rate":
      return { kind, at, forMs: dice.pick([2000, 10_000]), target: dice.between(0, members - 1), ratePercent: dice.between(95, 105) };
    case "wall-jump":
      return { kind, at, target: target(), deltaMs: dice.pick([-3_600_000, -1000, 1000, 3_600_000]) };
    default:
      return kind satisfies never;
  }
}

function makeOperator(dice: Dice, durationMs: number, members: number, options: PlanOptions): OperatorAction[] {
  const actions: OperatorAction[] = [];
  const drawn = dice.weighted({ none: 30, maintenance: 25, members: 45 });
  const style = options.operator ?? drawn;
  if (style === "none") return actions;
  const drawnMs = dice.pick([1000, 3000, 8000]);
  const everyMs = options.operatorEveryMs ?? drawnMs;
  const target = (): Target => (style === "leaders" ? "follower" : dice.weighted({ leader: 35, follower: 30, any: 35 }));
  const weights: Partial<Record<OperatorAction["kind"], number>> =
    style === "leaders"
      ? { "move-leader": 1 }
      : style === "maintenance"
        ? { "move-leader": 30, defragment: 20, hash: 25, backup: 15 }
        : {
            add: members < MEMBERS_MAX ? 22 : 5,
            promote: 22,
            remove: 14,
            replace: 10,
            "update-urls": 8,
            "move-leader": 10,
            defragment: 4,
            hash: 8,
            backup: 4,
          };
  for (let at = dice.between(500, 5000); at < durationMs; at += dice.between(everyMs >> 1, everyMs * 2)) {
    const kind = dice.weighted<OperatorAction["kind"]>(weights);
    switch (kind) {
      case "add":
        actions.push({ kind, at, learner: dice.percent(60), startMs: dice.pick([0, 100, 2000, 8000]) });
        break;
      case "promote":
      case "hash":
        actions.push({ kind, at });
        break;
      case "remove":
      case "update-urls":
      case "replace":
      case "move-leader":
      case "defragment":
      case "backup":
        actions.push({ kind, at, target: target() });
        break;
      default:
        kind satisfies never;
    }
  }
  return actions;
}
