/**
 * A cluster on simulated machines, its clients and everything that goes wrong, driven by one plan. Everything happens in events of the scheduler; nothing here
 * looks at real time. The safety phase lets the faults loose; then a majority is healed and must go on (liveness.ts).
 */

import { EtcdError } from "../../../src/base/errors.ts";
import type { MemberId } from "../../../src/base/ids.ts";
import { hexId } from "../../../src/base/ids.ts";
import { seededRandom } from "../../../src/base/random.ts";
import type { RemoteMembers } from "../../../src/server/bootstrap.ts";
import { MemoryNetwork, type Parcel } from "../../../src/server/peer/memory-transport.ts";
import type { Server } from "../../../src/server/server.ts";
import type { CallContext, Services } from "../../../src/server/services/services.contract.ts";
import { Dice, seedFor } from "./dice.ts";
import type { History, ObservedLeader, Op } from "./history.ts";
import { Links } from "./links.ts";
import { type Life, type LifePorts, Machine, machineLogger } from "./machine.ts";
import { isQuorum, Oracle } from "./oracle.ts";
import type { Plan, Target } from "./plan.ts";
import { Phase, Scheduler, type SimEvent } from "./scheduler.ts";
import { TraceHash, type TraceLine } from "./trace.ts";
import { Violation } from "./violation.ts";

export interface WorldOptions {
  readonly mutants?: ReadonlySet<string> | undefined;
  readonly trace?: TraceLine | undefined;
}

export type CallResult<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string };

const DURABILITY_CHECK_MS = 2500;
const START_RETRY_MS = 700;

/** Answers that mean that the process is gone; the world knows better what became of it. */
const DEATH_NAMES = new Set(["DiskDeadError", "BackendClosedError"]);

export class World implements History {
  readonly plan: Plan;
  readonly mutants: ReadonlySet<string>;
  readonly hash = new TraceHash();
  readonly scheduler = new Scheduler(this.hash);
  readonly oracle: Oracle;
  readonly links: Links;
  readonly network: MemoryNetwork;
  readonly machines: Machine[] = [];
  readonly ops: Op[] = [];
  readonly observed: ObservedLeader[] = [];
  readonly faultCounts: Record<string, number> = {};
  readonly byMember = new Map<MemberId, Machine>();
  violation: Violation | undefined;
  /** Clients and the operator end their work. */
  stopping = false;
  /** A change of the members was asked for, and its outcome is not known yet. */
  memberChangePending = false;
  /** The faults are over. */
  calm = false;
  readonly #trace: TraceLine | undefined;
  readonly #dice: Dice;
  readonly #mutantSet: ReadonlySet<string> | undefined;

  constructor(plan: Plan, options: WorldOptions = {}) {
    this.plan = plan;
    this.mutants = options.mutants ?? new Set();
    this.#mutantSet = options.mutants;
    this.#trace = options.trace;
    this.#dice = new Dice(seedFor(plan.seed, 5));
    this.links = new Links(plan, this.scheduler);
    this.oracle = new Oracle({
      now: () => this.scheduler.now,
      hash: this.hash,
      machines: this.machines,
      founders: plan.members,
      violate: (check, detail) => this.violate(check, detail),
    });
    this.network = new MemoryNetwork({
      // Every transport has its member's clock, and parcels are carried by the world.
      clock: { monotonicMs: () => this.scheduler.now, wallMs: () => 0, timer: () => ({ cancel: () => undefined }) },
      route: (parcel) => this.#route(parcel),
      carry: (parcel, delayMs, arrive) => this.#carry(parcel, delayMs, arrive),
    });
    this.links.onCut = (from, to, cut) => this.#cut(from, to, cut);
    for (let i = 0; i < plan.members; i++) this.addMachine();
    const cluster = this.machines.map((machine) => ({ name: machine.name, urls: [machine.url] }));
    for (const machine of this.machines) machine.initialCluster = cluster;
  }

  get log() {
    return this.oracle.log;
  }

  get steadyFrom(): number {
    return this.calm ? Math.max(this.oracle.lastLeaderAt, this.plan.durationMs) : Number.POSITIVE_INFINITY;
  }

  get now(): number {
    return this.scheduler.now;
  }

  // -- the run ----------------------------------------------------------------------------------------------------------------------------------

  begin(): void {
    for (const machine of this.machines) this.startIn(machine, this.#dice.between(0, 300));
    this.every(DURABILITY_CHECK_MS, () => void this.oracle.checkDurability());
  }

  /** Executes one event and looks at what it did. False when nothing is left before `until`. */
  step(until: number): boolean {
    const { scheduler } = this;
    let more: boolean;
    try {
      more = scheduler.step(until);
    } catch (error) {
      // An exception that reaches the event loop ends a real process.
      this.violate("uncaught", error instanceof Error ? (error.stack ?? error.message) : String(error), error);
      return false;
    }
    const { current } = scheduler;
    if (current !== undefined) this.oracle.afterEvent(current as Life);
    return more && this.violation === undefined;
  }

  violate(check: string, detail: string, cause?: unknown): void {
    if (this.violation !== undefined) return;
    this.violation = new Violation(check, detail, { cause });
    this.trace("world", `VIOLATION ${check}: ${detail}`);
  }

  /** A promise was rejected and nobody looked: ends a real process, unless it is one that died anyway. */
  onUnhandledRejection(reason: unknown): void {
    for (let error = reason; error instanceof Error; error = error.cause) if (DEATH_NAMES.has(error.name)) return;
    this.violate("unhandled-rejection", reason instanceof Error ? (reason.stack ?? reason.message) : String(reason), reason);
  }

  trace(who: string, what: string): void {
    this.#trace?.(this.scheduler.now, who, what);
  }

  get tracing(): boolean {
    return this.#trace !== undefined;
  }

  after(ms: number, run: () => void): SimEvent {
    return this.scheduler.after(ms, run);
  }

  /** Until the end of the run. */
  every(ms: number, run: () => void): void {
    this.after(ms, () => {
      run();
      this.every(ms, run);
    });
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.scheduler.after(ms, resolve);
    });
  }

  /** Waits until `check` holds, looking now and then; false when it did not in that time. */
  async until(check: () => boolean, withinMs: number, everyMs = 50): Promise<boolean> {
    const end = this.now + withinMs;
    while (!check()) {
      if (this.now >= end) return false;
      await this.sleep(everyMs);
    }
    return true;
  }

  // -- machines -----------------------------------------------------------------------------------------------------------------------------------

  addMachine(): Machine {
    const { plan } = this;
    const index = this.machines.length;
    const machine = new Machine({
      index,
      seed: plan.seed,
      scheduler: this.scheduler,
      settings: plan.settings,
      disk: plan.disk,
      clockPercent: plan.clockPercent[index % plan.clockPercent.length] ?? 100,
      noBattery: plan.noBattery,
      mutants: this.#mutantSet,
      onDiskDeath: (died) => this.#diskDeath(died),
    });
    this.machines.push(machine);
    return machine;
  }

  /** Starts it later, unless it is started or retired by then. */
  startIn(machine: Machine, ms: number): void {
    machine.starting?.cancel();
    machine.starting = this.after(ms, () => {
      machine.starting = undefined;
      this.start(machine);
    });
  }

  start(machine: Machine): void {
    if (machine.running || machine.retired !== undefined) return;
    const { index } = machine;
    this.trace(machine.name, `starts (life ${machine.lives + 1})`);
    const ports: LifePorts = {
      transport: (clock) => this.network.transport({ clock }),
      fetchMembers: (from, urls, timeoutMs) => this.#fetchMembers(from, urls, timeoutMs),
      observer: {
        onEntry: (entry, state) => {
          const { life } = machine;
          if (life !== undefined) this.oracle.applied(life, entry, state);
        },
        ...(this.#trace === undefined
          ? {}
          : { onLeaderChange: (leader: MemberId) => this.trace(machine.name, `follows ${this.nameOf(leader)}`) }),
      },
      logger: machineLogger(this.#trace === undefined ? undefined : (what) => this.trace(machine.name, what)),
      onIdentity: (_life, { memberId }) => {
        machine.memberId = memberId;
        this.byMember.set(memberId, machine);
      },
    };
    const starting = machine.start(ports);
    const life = machine.life as Life;
    life.diskFaulted = machine.diskFaults > 0 || machine.stores.all.some((storage) => storage.failNextWrite !== undefined);
    this.scheduler.current = life;
    starting.then(
      () => {
        if (life.dead) return;
        this.oracle.restarted(life, machine.damaged);
        const server = life.server as NonNullable<typeof life.server>;
        server.failed.then((error) => this.#failed(machine, life, error.failure, error.message), ignore);
        server.ready.then(() => {
          life.ready = true;
        }, ignore);
      },
      (error: unknown) => this.#startFailed(machine, life, error),
    );
    this.hash.number(index);
  }

  kill(machine: Machine, how: "kill" | "power-loss"): void {
    this.trace(machine.name, how === "kill" ? "dies" : "loses power");
    machine.kill(how);
  }

  nameOf(id: MemberId): string {
    if (id === 0n) return "nobody";
    return this.byMember.get(id)?.name ?? hexId(id);
  }

  get leader(): Machine | undefined {
    let best: Machine | undefined;
    for (const machine of this.machines) {
      const { server } = machine;
      if (server?.isLeader !== true) continue;
      if (best?.server === undefined || best.server.term < server.term) best = machine;
    }
    return best;
  }

  /** The leader's server, or the one that has applied most. */
  get leaderOrAny(): Server | undefined {
    let best = this.leader?.server;
    if (best !== undefined) return best;
    for (const { server } of this.machines) {
      if (server !== undefined && (best === undefined || best.appliedIndex < server.appliedIndex)) best = server;
    }
    return best;
  }

  /** Machines whose process is up and that are members as far as anybody knows. */
  get active(): Machine[] {
    return this.machines.filter((machine) => machine.running);
  }

  choose(target: Target, dice: Dice): Machine[] {
    if (typeof target === "number") return this.machines.filter((machine) => machine.index === target);
    const { leader } = this;
    const running = this.active;
    switch (target) {
      case "leader":
        return leader === undefined ? running.slice(0, 1) : [leader];
      case "follower": {
        const others = running.filter((machine) => machine !== leader);
        return others.length === 0 ? [] : [dice.pick(others)];
      }
      case "any":
        return running.length === 0 ? [] : [dice.pick(running)];
      case "all":
        return running;
      case "majority":
        return dice.shuffled(running).slice(0, Math.floor(running.length / 2) + 1);
      default:
        return target satisfies never;
    }
  }

  /** May this disk be damaged without more being lost than the members can bear? */
  mayDamage(machine: Machine): boolean {
    const { conf, confs } = this.oracle;
    if (machine.memberId === undefined || this.memberChangePending || this.calm) return false;
    // A change that is committed but not applied by everybody: wait.
    const last = confs[confs.length - 1];
    if (last === undefined || this.active.some((one) => (one.server?.appliedIndex ?? 0) < last.index)) return false;
    const damaged = (id: MemberId): boolean => id === machine.memberId || this.byMember.get(id)?.damaged === true;
    if (!conf.voters.includes(machine.memberId)) return false;
    return isQuorum(conf, (id) => !damaged(id)) && conf.voters.length > 2 && conf.votersOutgoing.length === 0;
  }

  #diskDeath(machine: Machine): void {
    const { life } = machine;
    if (life === undefined) return;
    // The rest of this event is the process's last breath: nothing of it gets out.
    life.dead = true;
    void life.transport?.close();
    machine.life = undefined;
    machine.stores.kill();
    for (const told of [...life.onDeath]) told();
    this.trace(machine.name, "dies in a disk operation");
    const { how, downMs } = machine.nextDeath ?? { how: "kill", downMs: 0 };
    machine.nextDeath = undefined;
    // Not before the operation has failed.
    this.after(0, () => {
      this.kill(machine, how);
      this.startIn(machine, downMs);
    });
  }

  /** The process will die in the disk operation that is so many away. */
  dieAtDisk(machine: Machine, operations: number, how: "kill" | "power-loss", downMs: number): void {
    machine.nextDeath = { how, downMs };
    machine.disk.dieAt(machine.disk.events + operations);
  }

  #failed(machine: Machine, life: Life, failure: string, message: string): void {
    if (life.dead) return;
    this.trace(machine.name, `ended by itself: ${failure}: ${message}`);
    if (failure === "removed") {
      const id = life.server?.memberId;
      const isMember = id !== undefined && [...this.oracle.conf.voters, ...this.oracle.conf.learners].includes(id);
      if (isMember) this.violate("C2", `${machine.name} believes that it was removed`);
      machine.retired = "removed";
      this.kill(machine, "kill");
      return;
    }
    const explained = machine.damaged || life.diskFaulted;
    if (!explained || (failure === "invariant" && !machine.damaged)) {
      this.violate(failure === "invariant" ? "assertion" : "stopped", `${machine.name} ended by itself: ${message}`);
      return;
    }
    this.kill(machine, "kill");
    this.startIn(machine, START_RETRY_MS);
  }

  #startFailed(machine: Machine, life: Life, error: unknown): void {
    if (life.dead) return;
    const name = error instanceof Error ? error.name : "";
    const text = error instanceof Error ? error.message : String(error);
    this.trace(machine.name, `did not start: ${name}: ${text}`);
    this.kill(machine, "kill");
    if (machine.diskFaults > 0 || life.diskFaulted) {
      this.startIn(machine, START_RETRY_MS);
      return;
    }
    if (machine.damaged) {
      machine.retired = text;
      return;
    }
    if (machine.initialState === "existing" && machine.memberId === undefined && name === "BootstrapError") {
      // It could not ask anybody, or its list of members was out of date.
      this.refreshInitialCluster(machine);
      this.startIn(machine, START_RETRY_MS);
      return;
    }
    this.violate("start", `${machine.name} does not start: ${name}: ${error instanceof Error ? error.stack : text}`, error);
  }

  /** As an operator would, from the list that a running member shows. */
  refreshInitialCluster(machine: Machine): void {
    let best: Machine | undefined;
    for (const one of this.machines) {
      if (one === machine || one.server === undefined) continue;
      if (best?.server === undefined || best.server.appliedIndex < one.server.appliedIndex) best = one;
    }
    if (best?.server === undefined) return;
    machine.initialCluster = best.server.state.membership.list().map((member) => ({
      name: this.machines.find((one) => member.peerUrls.some((url) => one.answersAt(url)))?.name ?? `unknown-${hexId(member.id)}`,
      urls: member.peerUrls,
    }));
  }

  async #fetchMembers(from: Machine, urls: readonly string[], timeoutMs: number): Promise<RemoteMembers | undefined> {
    const life = from.life as Life;
    const wait = (ms: number): Promise<void> =>
      new Promise((resolve) => {
        this.scheduler.after(ms, resolve, life);
      });
    const asked = this.machines.filter((machine) => machine !== from && urls.some((url) => machine.answersAt(url)));
    for (const machine of asked) {
      await wait(1);
      const { server } = machine;
      if (server === undefined || this.links.isBlocked(from.index, machine.index) || this.links.isBlocked(machine.index, from.index))
        continue;
      return { clusterId: server.clusterId, members: server.state.membership.list() };
    }
    await wait(timeoutMs);
    return undefined;
  }

  // -- network --------------------------------------------------------------------------------------------------------------------------------------

  #route(parcel: Parcel): readonly number[] {
    const from = this.byMember.get(parcel.from);
    const to = this.byMember.get(parcel.to);
    if (from === undefined || to === undefined) return [];
    if (parcel.type === "message") this.oracle.sent(parcel.message, from.life);
    // A forwarded proposal is not made twice by any transport: streams deliver once or break, and raft does not promise more.
    const once = parcel.type !== "message" || parcel.message.type === "propose";
    return this.links.route(from.index, to.index, once);
  }

  #carry(parcel: Parcel, delayMs: number, arrive: () => void): void {
    const machine = this.byMember.get(parcel.to);
    if (machine === undefined) return;
    this.scheduler.after(delayMs, () => this.deliver(machine, arrive));
  }

  /** Now, or when the process goes on. */
  deliver(machine: Machine, run: () => void): void {
    const { life } = machine;
    if (life === undefined) return;
    if (life.blockedUntil > this.now) {
      this.scheduler.after(0, run, life, Phase.input);
      return;
    }
    this.scheduler.current = life;
    run();
  }

  #cut(from: number, to: number, cut: boolean): void {
    const a = this.machines[from]?.memberId;
    const b = this.machines[to]?.memberId;
    if (a === undefined || b === undefined) return;
    if (cut) this.network.cut(a, b);
    else this.network.heal(a, b);
  }

  // -- clients --------------------------------------------------------------------------------------------------------------------------------------

  /**
   * A call of a client over a network: the request and the answer take time and can be lost; the process can die meanwhile. A result that is not ok says why;
   * only those of `isDefinite` mean that nothing happened.
   */
  call<T>(
    dice: Dice,
    machine: Machine,
    timeoutMs: number,
    work: (services: Services, context: CallContext) => Promise<T>,
  ): Promise<CallResult<T>> {
    const { network } = this.plan;
    const delay = (): number => 0.02 + (network.clientDelayMs === 0 ? 0 : dice.exponential(network.clientDelayMs));
    const isLost = (): boolean => network.clientLossPerMille > 0 && !this.calm && dice.random.below(1000) < network.clientLossPerMille;
    return new Promise((resolve) => {
      let settled = false;
      let life: Life | undefined;
      const controller = dice.percent(40) ? new AbortController() : undefined;
      const settle = (result: CallResult<T>): void => {
        if (settled) return;
        settled = true;
        timeout.cancel();
        life?.onDeath.delete(broken);
        resolve(result);
      };
      const broken = (): void => {
        this.after(delay(), () => settle({ ok: false, reason: "connection-lost" }));
      };
      const answer = (result: CallResult<T>): void => {
        if (settled || machine.clientsCut !== "no" || isLost()) return;
        this.after(delay(), () => settle(result));
      };
      const timeout = this.after(timeoutMs, () => {
        settle({ ok: false, reason: "client-timeout" });
        if (controller !== undefined && life !== undefined && !life.dead) this.scheduler.after(delay(), () => controller.abort(), life);
      });
      const run = (): void => {
        const { server } = machine;
        if (settled || server === undefined || machine.life === undefined || machine.life.dead) return;
        life = machine.life;
        life.onDeath.add(broken);
        const running = life;
        let promise: Promise<T>;
        try {
          promise = work(server.services, controller === undefined ? {} : { signal: controller.signal });
        } catch (error) {
          promise = Promise.reject(error);
        }
        promise.then(
          (value) => {
            if (!running.dead) answer({ ok: true, value });
          },
          (error: unknown) => {
            if (running.dead) return;
            if (!EtcdError.is(error)) this.#serviceBug(machine, running, error);
            answer({ ok: false, reason: EtcdError.is(error) ? error.reason : "bug" });
          },
        );
      };
      if (isLost() || machine.clientsCut === "all") return;
      this.after(delay(), () => {
        if (machine.server === undefined) answer({ ok: false, reason: "refused" });
        else this.deliver(machine, run);
      });
    });
  }

  #serviceBug(machine: Machine, life: Life, error: unknown): void {
    // A store that was damaged or has failed may say so in its own words; the member ends by itself.
    // The client's own doing.
    if (error instanceof Error && error.name === "AbortError") return;
    if (machine.damaged || life.diskFaulted || (error instanceof Error && DEATH_NAMES.has(error.name))) return;
    this.violate("service", `${machine.name} rejected a call with ${error instanceof Error ? error.stack : String(error)}`, error);
  }

  /** A machine for a client: the same as before, mostly. */
  pickServer(dice: Dice, previous: Machine | undefined, roamPercent: number): Machine {
    if (previous?.server !== undefined && !dice.percent(roamPercent)) return previous;
    const serving = this.machines.filter((machine) => machine.server !== undefined);
    return dice.pick(serving.length === 0 ? this.machines : serving);
  }

  random(purpose: number, part: number): Dice {
    return new Dice(seededRandom(seedFor(this.plan.seed, purpose, part)));
  }
}

function ignore(): void {
  // Whoever waits is told elsewhere.
}
