/** The one who changes the cluster while it runs: members come, are promoted, go and are replaced; leadership is moved; stores are defragmented and hashed. */
import * as api from "../../../src/api/index.ts";
import type { MemberId } from "../../../src/base/ids.ts";
import type { CallContext, Services } from "../../../src/server/services/services.contract.ts";
import { Dice, seedFor } from "./dice.ts";
import type { Machine } from "./machine.ts";
import { MEMBERS_MAX, type OperatorAction, type Target } from "./plan.ts";
import type { CallResult, World } from "./world.ts";

const CALL_MS = 8000;
const GIVE_UP_MS = 20_000;

export class Operator {
  readonly #world: World;
  readonly #number: number;
  /** What was done, for the summary. */
  readonly counts: Record<string, number> = {};
  #urls = 0;

  /** Of several that work side by side, the one with this number. */
  constructor(world: World, number = 0) {
    this.#world = world;
    this.#number = number;
  }

  async run(): Promise<void> {
    const world = this.#world;
    const { operator, seed, operators = 1 } = world.plan;
    for (const action of operator) {
      if (action.at > world.now) await world.sleep(action.at - world.now);
      // What is left over for one is done while the members are healed; what is left over for several would never leave them in peace.
      if (world.stopping || (world.calm && operators > 1)) return;
      const dice = new Dice(seedFor(seed, 8, action.at + this.#number));
      const done = await this.#act(action, dice);
      if (done) this.counts[action.kind] = (this.counts[action.kind] ?? 0) + 1;
      world.trace("operator", `${action.kind}: ${done ? "done" : "not done"}`);
    }
  }

  #act(action: OperatorAction, dice: Dice): Promise<boolean> {
    const world = this.#world;
    world.trace("operator", action.kind);
    switch (action.kind) {
      case "add":
        return this.#add(dice, action.learner, action.startMs);
      case "promote":
        return this.#promote(dice);
      case "remove":
      case "replace":
        // One alone takes members out: two would wipe the machine that the other has just brought back.
        return this.#number === 0 ? this.#remove(dice, action.target, action.kind === "replace") : Promise.resolve(false);
      case "update-urls":
        return this.#updateUrls(dice, action.target);
      case "move-leader":
        return this.#moveLeader(dice, action.target);
      case "defragment":
        return this.#each(dice, action.target, (services) => services.maintenance.defragment(api.DefragmentRequest.create({}), {}));
      case "backup":
        return this.#each(dice, action.target, async (services, context) => {
          for await (const blob of services.maintenance.snapshot(api.SnapshotRequest.create({}), context)) void blob.remainingBytes;
        });
      case "hash":
        return checkHashes(world);
      default:
        return action satisfies never;
    }
  }

  #call<T>(dice: Dice, machine: Machine, work: (services: Services, context: CallContext) => Promise<T>): Promise<CallResult<T>> {
    return this.#world.call(dice, machine, CALL_MS, work);
  }

  async #each<T>(dice: Dice, target: Target, work: (services: Services, context: CallContext) => Promise<T>): Promise<boolean> {
    let done = false;
    for (const machine of this.#world.choose(target, dice)) done = (await this.#call(dice, machine, work)).ok || done;
    return done;
  }

  #members(): { id: MemberId; learner: boolean; machine: Machine | undefined }[] {
    const world = this.#world;
    const { conf } = world.oracle;
    const one = (learner: boolean) => (id: MemberId) => ({ id, learner, machine: world.byMember.get(id) });
    return [...conf.voters.map(one(false)), ...conf.learners.map(one(true))];
  }

  /** While a disk is damaged the only sensible thing is to take its member out. */
  #damaged(): Machine | undefined {
    return this.#members().find((member) => member.machine?.damaged === true)?.machine;
  }

  async #add(dice: Dice, learner: boolean, startMs: number): Promise<boolean> {
    const world = this.#world;
    if (this.#members().length >= MEMBERS_MAX || this.#damaged() !== undefined || world.machines.length > 40) return false;
    const machine = world.addMachine();
    machine.initialState = "existing";
    return this.#join(dice, machine, learner, startMs);
  }

  async #join(dice: Dice, machine: Machine, learner: boolean, startMs: number): Promise<boolean> {
    const world = this.#world;
    const request = api.MemberAddRequest.create({ peerUrls: [machine.url], isLearner: learner });
    const added = await this.#change(
      dice,
      (services, context) => services.cluster.memberAdd(request, context),
      (members) => members.some((member) => member.peerUrls.includes(machine.url)),
    );
    if (!added) return false;
    world.trace("operator", `${machine.name} is added`);
    world.refreshInitialCluster(machine);
    world.startIn(machine, startMs);
    return true;
  }

  async #promote(dice: Dice): Promise<boolean> {
    const learners = this.#members().filter((member) => member.learner);
    if (learners.length === 0 || this.#damaged() !== undefined) return false;
    const { id } = dice.pick(learners);
    const request = api.MemberPromoteRequest.create({ id });
    return this.#change(
      dice,
      (services, context) => services.cluster.memberPromote(request, context),
      (members) => members.some((member) => member.id === id && !member.isLearner),
    );
  }

  async #remove(dice: Dice, target: Target, replace: boolean): Promise<boolean> {
    const world = this.#world;
    const members = this.#members();
    const damaged = this.#damaged();
    // Any member, also one that is down; the leader and itself included.
    const [chosen] = world.choose(target, dice);
    if (members.length === 0) return false;
    const stranger = dice.percent(30) ? dice.pick(members).machine : undefined;
    const machine = damaged ?? stranger ?? chosen;
    const id = machine?.memberId;
    if (machine === undefined || id === undefined || !members.some((member) => member.id === id)) return false;
    if (members.filter((member) => !member.learner).length <= 1 && !members.some((member) => member.id === id && member.learner))
      return false;
    const request = api.MemberRemoveRequest.create({ id });
    const removed = await this.#change(
      dice,
      (services, context) => services.cluster.memberRemove(request, context),
      (list) => list.every((member) => member.id !== id),
    );
    if (!removed) return false;
    world.trace("operator", `${machine.name} is removed`);
    if (!replace && damaged === undefined) return true;
    // The machine comes back with an empty disk, as a new member.
    await world.sleep(dice.pick([0, 500, 3000]));
    if (world.stopping) return true;
    world.kill(machine, "kill");
    await machine.wipe();
    machine.memberId = undefined;
    machine.initialState = "existing";
    // The id of a new member is made of its URL and the second in which it is added.
    await world.sleep(1100);
    return world.stopping ? true : this.#join(dice, machine, dice.percent(60), dice.pick([0, 1000]));
  }

  async #updateUrls(dice: Dice, target: Target): Promise<boolean> {
    const [machine] = this.#world.choose(target, dice);
    const id = machine?.memberId;
    if (machine === undefined || id === undefined) return false;
    this.#urls += 1;
    const url = `http://${machine.name}-${this.#urls}.sim:2380`;
    const request = api.MemberUpdateRequest.create({ id, peerUrls: [url] });
    const updated = await this.#change(
      dice,
      (services, context) => services.cluster.memberUpdate(request, context),
      (members) => members.some((member) => member.id === id && member.peerUrls.includes(url)),
    );
    if (updated) machine.url = url;
    return updated;
  }

  async #moveLeader(dice: Dice, target: Target): Promise<boolean> {
    const world = this.#world;
    const { leader } = world;
    const [to] = world.choose(target, dice);
    const id = to?.memberId;
    if (leader === undefined || id === undefined) return false;
    const result = await this.#call(dice, leader, (services, context) =>
      services.maintenance.moveLeader(api.MoveLeaderRequest.create({ targetId: id }), context),
    );
    return result.ok;
  }

  /** Asks once; when the outcome is unknown, looks until it is known or time is up. */
  async #change<T>(
    dice: Dice,
    work: (services: Services, context: CallContext) => Promise<T>,
    happened: (members: readonly api.Member[]) => boolean,
  ): Promise<boolean> {
    const world = this.#world;
    const ask = (): Machine => world.pickServer(dice, undefined, 100);
    world.memberChangePending = true;
    const result = await this.#call(dice, ask(), work);
    if (result.ok) {
      world.memberChangePending = false;
      return true;
    }
    world.trace("operator", `was told: ${result.reason}`);
    const giveUp = world.now + GIVE_UP_MS;
    while (world.now < giveUp && !world.stopping) {
      const list = await this.#call(dice, ask(), (services, context) =>
        services.cluster.memberList(api.MemberListRequest.create({ linearizable: true }), context),
      );
      if (list.ok && happened(list.value.members)) {
        world.memberChangePending = false;
        return true;
      }
      // Not yet, or never: a proposal can still be on its way, so the flag stays up for as long as one may live.
      if (list.ok && isRefusal(result.reason)) break;
      await world.sleep(500);
    }
    if (isRefusal(result.reason)) world.memberChangePending = false;
    return false;
  }
}

/** Answers after which the change will not happen. */
function isRefusal(reason: string): boolean {
  return [
    "member-not-found",
    "member-exists",
    "peer-url-exists",
    "too-many-learners",
    "learner-not-ready",
    "member-not-learner",
    "not-enough-started-members",
    "unhealthy-cluster",
    "not-supported-for-learner",
    "conf-change-refused",
    "refused",
    "no-leader",
  ].includes(reason);
}

/** The hash of one revision on every member that has it. Equal positions in the compaction give equal hashes, or the oracle objects. */
export async function checkHashes(world: World): Promise<boolean> {
  const servers = world.machines.filter((machine) => machine.server !== undefined && !machine.damaged);
  if (servers.length === 0) return false;
  let revision = Number.POSITIVE_INFINITY;
  for (const { server } of servers) revision = Math.min(revision, server?.store.revision ?? 0);
  for (const machine of servers) {
    const { life } = machine;
    if (life?.server === undefined || life.dead || life.blockedUntil > world.now) continue;
    if (life.server.store.compactRevision > revision) continue;
    try {
      await world.oracle.checkHash(life.server.store, revision, machine.name);
    } catch {
      // Compacted or closed meanwhile.
    }
    if (life.dead) continue;
  }
  return true;
}
