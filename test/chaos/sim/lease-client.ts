/** A client of leases: grants, attaches keys, renews for a while, looks, and lets go in one way or another. */
import * as api from "../../../src/api/index.ts";
import { Dice } from "./dice.ts";
import type { OpFor } from "./history.ts";
import { perform } from "./kv-client.ts";
import type { Machine } from "./machine.ts";
import { bytesOf } from "./model.ts";
import type { ClientPlan } from "./plan.ts";
import type { World } from "./world.ts";

interface Place {
  readonly client: number;
  readonly machine: Machine;
  readonly timeoutMs: number;
}

export class LeaseClient {
  readonly #world: World;
  readonly #number: number;
  readonly #plan: ClientPlan;
  readonly #dice: Dice;
  #machine: Machine | undefined;
  #count = 0;

  constructor(world: World, number: number, plan: ClientPlan) {
    this.#world = world;
    this.#number = number;
    this.#plan = plan;
    this.#dice = new Dice(plan.seed);
  }

  async run(): Promise<void> {
    const world = this.#world;
    await world.sleep(this.#dice.between(0, 1000));
    while (!world.stopping) {
      await this.#oneLease();
      await world.sleep(this.#dice.exponential(this.#plan.thinkMs));
    }
  }

  #place(): Place {
    this.#machine = this.#world.pickServer(this.#dice, this.#machine, this.#plan.roamPercent);
    return { client: this.#number, machine: this.#machine, timeoutMs: this.#plan.timeoutMs };
  }

  async #oneLease(): Promise<void> {
    const world = this.#world;
    const dice = this.#dice;
    const id = this.#newId();
    const ttl = dice.pick([1, 2, 2, 3, 5, 10]);
    const granted = await this.#grant(id, ttl);
    if (granted.outcome === "no") return;
    const lease = granted.response?.id ?? id;
    if (lease === 0n) return;
    for (let keys = dice.between(0, 3); keys > 0 && !world.stopping; keys--) {
      this.#count += 1;
      const nonce = `${this.#number}.${this.#count};`;
      // Sometimes a key of another of this client's leases: it moves over.
      const request = api.PutRequest.create({
        key: bytesOf(`lease/${this.#number}/${dice.below(4)}`),
        value: bytesOf(nonce),
        lease,
      });
      await perform(world, dice, this.#place(), { kind: "put", request, nonce }, (services, context) => services.kv.put(request, context));
      await world.sleep(dice.exponential(100));
    }
    const end = world.now + dice.pick([0, 1000, 4000, 15_000]);
    while (world.now < end && !world.stopping) {
      await world.sleep((ttl * 1000 * dice.between(5, 70)) / 100);
      if (world.stopping) return;
      if (dice.percent(30)) await this.#timeToLive(lease);
      else if ((await this.#renew(lease)).response?.ttl === 0) return;
    }
    // What is not revoked runs out.
    if (dice.percent(40) && !world.stopping) await this.#revoke(lease);
  }

  /** Chosen by the client, so that it is found in the log; sometimes by the server. */
  #newId(): bigint {
    this.#count += 1;
    if (this.#dice.percent(15)) return 0n;
    return BigInt(this.#number + 1) * 1_000_000n + BigInt(this.#count);
  }

  #grant(id: bigint, ttl: number): Promise<OpFor<"grant">> {
    const request = api.LeaseGrantRequest.create({ id, ttl });
    return perform(this.#world, this.#dice, this.#place(), { kind: "grant", request }, (services, context) =>
      services.lease.leaseGrant(request, context),
    );
  }

  #renew(id: bigint): Promise<OpFor<"keepalive">> {
    const request = api.LeaseKeepAliveRequest.create({ id });
    return perform(this.#world, this.#dice, this.#place(), { kind: "keepalive", request }, (services, context) =>
      services.lease.leaseKeepAlive(request, context),
    );
  }

  #timeToLive(id: bigint): Promise<OpFor<"ttl">> {
    const request = api.LeaseTimeToLiveRequest.create({ id, keys: this.#dice.percent(50) });
    return perform(this.#world, this.#dice, this.#place(), { kind: "ttl", request }, (services, context) =>
      services.lease.leaseTimeToLive(request, context),
    );
  }

  #revoke(id: bigint): Promise<OpFor<"revoke">> {
    const request = api.LeaseRevokeRequest.create({ id });
    return perform(this.#world, this.#dice, this.#place(), { kind: "revoke", request }, (services, context) =>
      services.lease.leaseRevoke(request, context),
    );
  }
}
