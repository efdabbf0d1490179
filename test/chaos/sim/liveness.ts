/**
 * The liveness phase (J11): no new faults, a random majority is healed, the rest is healed, isolated, stopped or paused; then there must be one leader soon, and the
 * same one for long, everything asked must be answered, and the healed must come to the same state. At last everybody is healed, and everybody must.
 */
import * as api from "../../../src/api/index.ts";
import type { MemberId } from "../../../src/base/ids.ts";
import { Dice } from "./dice.ts";
import { perform } from "./kv-client.ts";
import type { Machine } from "./machine.ts";
import { bytesOf } from "./model.ts";
import { checkHashes } from "./operator.ts";
import { isQuorum } from "./oracle.ts";
import type { World } from "./world.ts";

/** Election timeouts within which a healed majority has a leader, when members have to be started, replay their log and perhaps take over the state first. */
const RECOVERY_WITHIN = 40;

/** The number of the client that writes at the end. */
const WRITER = 900;
/** A member that has just joined catches up first. */
const READY_WITHIN_MS = 60_000;

export class Liveness {
  readonly #world: World;
  readonly #dice: Dice;
  readonly #core = new Set<Machine>();
  finished = false;
  #writes = 0;
  #isFrozen = false;

  constructor(world: World) {
    this.#world = world;
    this.#dice = new Dice(world.plan.liveness.seed);
  }

  get #electionMs(): number {
    return this.#world.plan.settings.electionMs;
  }

  async run(): Promise<void> {
    const world = this.#world;
    const { plan } = world;
    world.trace("world", "the faults end");
    world.calm = true;
    world.links.calmDown();
    this.#growCore();
    this.#freezeRest();
    world.trace("world", `core: ${[...this.#core].map((machine) => machine.name).join(" ")}; the rest: ${plan.liveness.rest}`);

    // A change of the members that was under way may need more of them.
    world.every(200, () => {
      if (!this.finished) this.#growCore();
    });
    if (!(await this.#waitForLeader())) return;
    // The clients go on for a while, then everything that they asked must be answered.
    await world.sleep(3 * this.#electionMs);
    world.stopping = true;
    if (!(await this.#oneMoreWrite())) return;
    if (!(await this.#converged("the core", () => this.#coreVoters()))) return;
    if (!(await this.#calm())) return;
    for (const machine of world.machines) this.#heal(machine);
    world.links.calmDown();
    if (!(await this.#converged("everybody", () => this.#members()))) return;
    await checkHashes(world);
    await world.oracle.checkDurability();
    // Watchers have what their members have.
    await world.sleep(Math.max(2000, 2 * plan.settings.electionMs));
    this.finished = true;
  }

  /** Members of the present configuration, with their machines as far as they have one that can run. */
  #members(): Machine[] {
    const { conf } = this.#world.oracle;
    return [...conf.voters, ...conf.learners]
      .map((id) => this.#machineOf(id))
      .filter((machine): machine is Machine => machine !== undefined);
  }

  /** Not one that was never added, nor one that does not know yet that it was removed. */
  #isMember(machine: Machine): boolean {
    return this.#world.oracle.conf.voters.length === 0 || this.#members().includes(machine);
  }

  /** Also of one that was added but never started: then its URL is all that is known of it. */
  #machineOf(id: MemberId): Machine | undefined {
    const world = this.#world;
    const known = world.byMember.get(id);
    let machine = known?.memberId === id ? known : undefined;
    if (machine === undefined) {
      const urls = world.leaderOrAny?.state.membership.get(id)?.peerUrls ?? [];
      machine = world.machines.find((one) => one.memberId === undefined && urls.includes(one.url));
    }
    return machine === undefined || machine.damaged || machine.retired !== undefined ? undefined : machine;
  }

  /** The voters that are in the core. */
  #coreVoters(): Machine[] {
    const { conf } = this.#world.oracle;
    return conf.voters
      .map((id) => this.#machineOf(id))
      .filter((machine): machine is Machine => machine !== undefined && this.#core.has(machine));
  }

  /** Adds random members until the core is a majority of the configuration, which may still change by what is under way. */
  #growCore(): boolean {
    const world = this.#world;
    const { conf } = world.oracle;
    const has = (id: MemberId): boolean => {
      const machine = this.#machineOf(id);
      return machine !== undefined && this.#core.has(machine);
    };
    const voters = conf.voters.length === 0 ? world.machines.slice(0, world.plan.members) : conf.voters.map((id) => this.#machineOf(id));
    let grew = false;
    for (const machine of this.#dice.shuffled(voters)) {
      if (conf.voters.length > 0 && isQuorum(conf, has)) break;
      if (machine === undefined || this.#core.has(machine)) continue;
      if (this.#isFrozen) this.#connect(machine);
      this.#core.add(machine);
      this.#heal(machine);
      grew = true;
    }
    return grew;
  }

  /** One that was isolated until now. */
  #connect(machine: Machine): void {
    const { links, plan } = this.#world;
    if (plan.liveness.rest !== "isolate") return;
    for (const other of this.#core) {
      links.unblock(machine.index, other.index);
      links.unblock(other.index, machine.index);
    }
  }

  #heal(machine: Machine): void {
    const world = this.#world;
    machine.disk.faults.freeBytes = undefined;
    machine.disk.faults.syncError = undefined;
    machine.disk.dieAt(Number.POSITIVE_INFINITY);
    machine.nextDeath = undefined;
    for (const storage of machine.stores.all) storage.failNextWrite = undefined;
    machine.slowSyncMs = 0;
    machine.clientsCut = "no";
    machine.clock.thaw();
    machine.clock.setRate((world.plan.clockPercent[machine.index % world.plan.clockPercent.length] ?? 100) / 100);
    if (machine.life !== undefined) world.scheduler.unblock(machine.life, true);
    else if (machine.starting === undefined && this.#isMember(machine)) world.startIn(machine, 10);
  }

  #freezeRest(): void {
    const world = this.#world;
    this.#isFrozen = true;
    const { rest } = world.plan.liveness;
    for (const machine of world.machines) {
      if (this.#core.has(machine)) continue;
      switch (rest) {
        case "heal":
          this.#heal(machine);
          break;
        case "isolate":
          for (const other of world.machines) {
            if (other === machine) continue;
            world.links.block(machine.index, other.index, false);
            world.links.block(other.index, machine.index, false);
          }
          break;
        case "stop":
          if (machine.running) world.kill(machine, "kill");
          machine.starting?.cancel();
          machine.starting = undefined;
          break;
        case "pause":
          if (machine.life !== undefined) world.scheduler.block(machine.life, 100_000_000, true);
          machine.starting?.cancel();
          machine.starting = undefined;
          break;
        default:
          rest satisfies never;
      }
    }
  }

  /** The time begins anew when the agreed configuration turns out to need more members. */
  async #waitForLeader(): Promise<boolean> {
    const world = this.#world;
    const { rest } = world.plan.liveness;
    const slowest = 100 / Math.min(...world.plan.clockPercent);
    const bound = this.#electionMs * RECOVERY_WITHIN * slowest + 20_000;
    let end = world.now + bound;
    while (world.now < end) {
      if (this.#growCore()) {
        world.trace("world", `core: ${[...this.#core].map((machine) => machine.name).join(" ")}`);
        end = world.now + bound;
      }
      const { leader } = world;
      if (leader !== undefined && (rest === "heal" || this.#core.has(leader)) && this.#followed(leader)) return true;
      await world.sleep(100);
    }
    world.violate("J11", `a healed majority has no leader after ${bound} ms: ${this.#describe()}`);
    return false;
  }

  #followed(leader: Machine): boolean {
    const id = leader.memberId;
    return this.#coreVoters().every((machine) => machine.server?.leader === id) && leader.life?.ready === true;
  }

  /** A write through every member of the core. */
  async #oneMoreWrite(): Promise<boolean> {
    const world = this.#world;
    for (const machine of this.#coreVoters()) {
      let written = false;
      let reason = "";
      // Clients are let in when a member has come so far as to know itself.
      await world.until(() => machine.life?.ready === true || !this.#coreVoters().includes(machine), READY_WITHIN_MS);
      for (let attempt = 0; attempt < 4 && !written; attempt++) {
        this.#writes += 1;
        const nonce = `${WRITER}.${this.#writes};`;
        const request = api.DeleteRangeRequest.create({ key: bytesOf("nothing"), rangeEnd: bytesOf(`nothing\0${nonce}`) });
        const at = { client: WRITER, machine, timeoutMs: 30_000 };
        const op = await perform(world, this.#dice, at, { kind: "delete", request, nonce }, (services, context) =>
          services.kv.deleteRange(request, context),
        );
        written = op.outcome === "ok" || op.reason === "not-supported-for-learner";
        reason = op.reason;
      }
      // Its removal was still under way.
      if (written || !this.#coreVoters().includes(machine)) continue;
      world.violate("J11", `${machine.name} of a healed majority does not write: ${reason}: ${this.#describe()}`);
      return false;
    }
    return true;
  }

  async #converged(who: string, machines: () => readonly Machine[]): Promise<boolean> {
    const world = this.#world;
    const same = (): boolean => {
      const list = machines();
      const target = world.oracle.log.length;
      return list.length > 0 && list.every((machine) => machine.server !== undefined && machine.server.appliedIndex === target);
    };
    const bound = 60 * this.#electionMs + 150_000;
    if (await world.until(same, bound, 100)) return true;
    const where = machines().map((machine) => `${machine.name} at ${machine.server?.appliedIndex ?? "no server"}`);
    world.violate(
      "J11",
      `${who} did not come to entry ${world.oracle.log.length} within ${bound} ms: ${where.join(", ")}; ${this.#describe()}`,
    );
    return false;
  }

  /** One leader, one term, for long. */
  async #calm(): Promise<boolean> {
    const world = this.#world;
    const { calmTimeouts } = world.plan.liveness;
    const before = world.leader;
    const term = before?.server?.term;
    const end = world.now + calmTimeouts * this.#electionMs;
    // Loss has ended, but late duplicates still come, and removed or isolated members still campaign.
    while (world.now < end) {
      await world.sleep(this.#electionMs);
      const { leader } = world;
      if (leader === before && leader?.server?.term === term) continue;
      world.violate(
        "J11",
        `the leader changed in calm: ${before?.name} of term ${term}, then ${leader?.name ?? "nobody"} of term ${leader?.server?.term ?? "none"}`,
      );
      return false;
    }
    return true;
  }

  #describe(): string {
    const world = this.#world;
    return world.machines
      .map((machine) => {
        const { server, life } = machine;
        const state =
          server === undefined
            ? (machine.retired ?? (life === undefined ? "down" : "starting"))
            : `${server.isLeader ? "leader" : "member"} term ${server.term} commit ${server.commitIndex} applied ${server.appliedIndex}`;
        return `${machine.name}${this.#core.has(machine) ? "*" : ""} ${state}`;
      })
      .join("; ");
  }
}
