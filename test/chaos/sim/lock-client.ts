/** Clients of the lock and election services, with fenced writes: what only the holder should do, guarded by the create revision of its key. */
import * as api from "../../../src/api/index.ts";
import { Dice } from "./dice.ts";
import { perform } from "./kv-client.ts";
import type { Machine } from "./machine.ts";
import { bytesOf, latin1 } from "./model.ts";
import type { ClientPlan } from "./plan.ts";
import type { World } from "./world.ts";

export const LOCK_NAME = "lock";
export const ELECTION_NAME = "election";
/** Written by holders only, its value is `<create revision of the holder's key>;<mark>`. */
export const GUARDED_KEY = "guarded/lock";

abstract class Holder {
  protected readonly world: World;
  protected readonly number: number;
  protected readonly plan: ClientPlan;
  protected readonly dice: Dice;
  protected count = 0;
  #machine: Machine | undefined;

  constructor(world: World, number: number, plan: ClientPlan) {
    this.world = world;
    this.number = number;
    this.plan = plan;
    this.dice = new Dice(plan.seed);
  }

  async run(): Promise<void> {
    await this.world.sleep(this.dice.between(0, 1000));
    while (!this.world.stopping) {
      await this.turn();
      await this.world.sleep(this.dice.exponential(this.plan.thinkMs));
    }
  }

  protected abstract turn(): Promise<void>;

  protected place(timeoutMs = this.plan.timeoutMs): { client: number; machine: Machine; timeoutMs: number } {
    this.#machine = this.world.pickServer(this.dice, this.#machine, this.plan.roamPercent);
    return { client: this.number, machine: this.#machine, timeoutMs };
  }

  protected async lease(ttl: number): Promise<bigint | undefined> {
    this.count += 1;
    const id = BigInt(this.number + 1) * 1_000_000n + BigInt(this.count);
    const request = api.LeaseGrantRequest.create({ id, ttl });
    const op = await perform(this.world, this.dice, this.place(), { kind: "grant", request }, (services, context) =>
      services.lease.leaseGrant(request, context),
    );
    return op.outcome === "ok" ? id : undefined;
  }

  protected async renew(id: bigint): Promise<void> {
    const request = api.LeaseKeepAliveRequest.create({ id });
    await perform(this.world, this.dice, this.place(), { kind: "keepalive", request }, (services, context) =>
      services.lease.leaseKeepAlive(request, context),
    );
  }

  protected async revoke(id: bigint): Promise<void> {
    const request = api.LeaseRevokeRequest.create({ id });
    await perform(this.world, this.dice, this.place(), { kind: "revoke", request }, (services, context) =>
      services.lease.leaseRevoke(request, context),
    );
  }

  /** The create revision of a key; undefined when it is gone or nobody says. */
  protected async createRevision(key: string): Promise<number | undefined> {
    const request = api.RangeRequest.create({ key: bytesOf(key) });
    const op = await perform(this.world, this.dice, this.place(), { kind: "range", request }, (services, context) =>
      services.kv.range(request, context),
    );
    return op.response?.kvs[0]?.createRevision;
  }
}

export class LockClient extends Holder {
  protected async turn(): Promise<void> {
    const { dice, world } = this;
    const lease = await this.lease(dice.pick([2, 3, 10]));
    if (lease === undefined) return;
    const request = api.LockRequest.create({ name: bytesOf(LOCK_NAME), lease });
    const op = await perform(world, dice, this.place(dice.pick([2000, 6000])), { kind: "lock", request }, (services, context) =>
      services.lock.lock(request, context),
    );
    if (op.response !== undefined) {
      const key = latin1(op.response.key);
      const token = await this.createRevision(key);
      for (let writes = dice.between(0, 3); writes > 0 && token !== undefined && !world.stopping; writes--) {
        await this.#guardedWrite(key, token);
        await world.sleep(dice.exponential(dice.pick([50, 500, 3000])));
        if (dice.percent(50)) await this.renew(lease);
      }
      if (dice.percent(60)) {
        const unlock = api.UnlockRequest.create({ key: op.response.key });
        await perform(world, dice, this.place(), { kind: "unlock", request: unlock }, (services, context) =>
          services.lock.unlock(unlock, context),
        );
      }
    }
    if (dice.percent(50)) await this.revoke(lease);
  }

  async #guardedWrite(key: string, token: number): Promise<void> {
    this.count += 1;
    const nonce = `${this.number}.${this.count};`;
    const request = api.TxnRequest.create({
      compare: [
        api.Compare.create({
          key: bytesOf(key),
          target: api.CompareTarget.CREATE,
          result: api.CompareResult.EQUAL,
          createRevision: token,
        }),
      ],
      success: [
        api.RequestOp.create({
          requestPut: api.PutRequest.create({ key: bytesOf(GUARDED_KEY), value: bytesOf(`${nonce}${token};`) }),
        }),
      ],
    });
    await perform(this.world, this.dice, this.place(), { kind: "txn", request, nonce }, (services, context) =>
      services.kv.txn(request, context),
    );
  }
}

export class ElectionClient extends Holder {
  #streams = 0;

  override async run(): Promise<void> {
    void this.#observe();
    await super.run();
  }

  protected async turn(): Promise<void> {
    const { dice, world } = this;
    const lease = await this.lease(dice.pick([2, 3, 10]));
    if (lease === undefined) return;
    const request = api.CampaignRequest.create({ name: bytesOf(ELECTION_NAME), lease, value: bytesOf(`by ${this.number}`) });
    const op = await perform(world, dice, this.place(dice.pick([2000, 6000])), { kind: "campaign", request }, (services, context) =>
      services.election.campaign(request, context),
    );
    const leader = op.response?.leader;
    if (leader !== undefined) {
      await world.sleep(dice.exponential(500));
      if (dice.percent(50)) await this.renew(lease);
      if (dice.percent(60)) {
        const resign = api.ResignRequest.create({ leader });
        await perform(world, dice, this.place(), { kind: "resign", request: resign }, (services, context) =>
          services.election.resign(resign, context),
        );
      }
    }
    if (dice.percent(50)) await this.revoke(lease);
  }

  /** One observer at a time, on one member after another. */
  async #observe(): Promise<void> {
    const { world, dice } = this;
    while (!world.stopping) {
      const machine = dice.pick(world.machines);
      const { life } = machine;
      if (life?.server === undefined || life.blockedUntil > world.now) {
        await world.sleep(500);
        continue;
      }
      this.#streams += 1;
      const stream = this.#streams;
      const controller = new AbortController();
      const stop = world.after(dice.pick([2000, 10_000]), () => world.deliver(machine, () => controller.abort()));
      const gone = new Promise<void>((resolve) => life.onDeath.add(resolve));
      const responses = life.server.services.election.observe(api.LeaderRequest.create({ name: bytesOf(ELECTION_NAME) }), {
        signal: controller.signal,
      });
      const reading = (async (): Promise<void> => {
        for await (const response of responses) {
          if (life.dead || response.kv === undefined) return;
          world.observed.push({
            client: this.number,
            stream,
            at: world.now,
            name: latin1(response.kv.key),
            createRevision: response.kv.createRevision,
          });
        }
      })();
      // Whatever ends it: another one begins.
      await Promise.race([reading.catch(() => undefined), gone]);
      stop.cancel();
      await world.sleep(dice.exponential(300));
    }
  }
}

export function ownershipPrefix(name: string): string {
  return `${name}/`;
}
