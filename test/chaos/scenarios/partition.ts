/** Links between members that fail, in one direction or both. */
import { sleep, until } from "../../support/server-process.ts";
import { describe } from "../check-history.ts";
import type { Cluster, Member } from "../cluster.ts";
import { isLinearizable } from "../history.ts";
import { InsistentReaders } from "../insistent-readers.ts";
import type { LinkState } from "../peer-proxy.ts";
import type { Scenario, Stage } from "../scenario.ts";

const KINDS: readonly LinkState["kind"][] = ["cut", "silent"];

interface Effect {
  /** Through these writes must go on. */
  readonly together: readonly Member[];
  /** These must not acknowledge anything that they are asked while it lasts. */
  readonly alone: readonly Member[];
}

/** One fault at a time: what it is called, and what makes it. */
type Fault = readonly [name: string, make: (stage: Stage, cluster: Cluster, leader: Member) => Effect];

function others(cluster: Cluster, member: Member): Member[] {
  return cluster.list.filter((one) => one !== member);
}

function pick<T>(stage: Stage, of: readonly T[]): T {
  return of[stage.random.below(of.length)] as T;
}

const FAULTS: readonly Fault[] = [
  [
    "leader alone",
    (stage, cluster, leader) => {
      cluster.partition([leader], others(cluster, leader), { kind: pick(stage, KINDS) });
      return { together: others(cluster, leader), alone: [leader] };
    },
  ],
  [
    "follower alone",
    (stage, cluster, leader) => {
      const follower = pick(stage, others(cluster, leader));
      cluster.partition([follower], others(cluster, follower), { kind: pick(stage, KINDS) });
      return { together: others(cluster, follower), alone: [follower] };
    },
  ],
  [
    "leader is not heard",
    (stage, cluster, leader) => {
      for (const other of others(cluster, leader)) cluster.link(leader, other, { kind: pick(stage, KINDS) });
      return { together: others(cluster, leader), alone: [leader] };
    },
  ],
  [
    "leader does not hear",
    (stage, cluster, leader) => {
      for (const other of others(cluster, leader)) cluster.link(other, leader, { kind: pick(stage, KINDS) });
      return { together: others(cluster, leader), alone: [leader] };
    },
  ],
  [
    "one follower does not hear the leader",
    (stage, cluster, leader) => {
      const follower = pick(stage, others(cluster, leader));
      cluster.link(leader, follower, { kind: pick(stage, ["cut", "silent", "mute"] as const) });
      return { together: others(cluster, follower), alone: [follower] };
    },
  ],
  [
    "leader and one follower apart",
    (stage, cluster, leader) => {
      cluster.partition([leader], [pick(stage, others(cluster, leader))], { kind: pick(stage, KINDS) });
      return { together: [], alone: [] };
    },
  ],
  [
    "everything slow",
    (stage, cluster) => {
      cluster.partition(cluster.list, cluster.list, { kind: "open", delayMs: 20 + stage.random.below(80) });
      return { together: cluster.list, alone: [] };
    },
  ],
  [
    "everybody alone",
    (stage, cluster) => {
      const kind = pick(stage, KINDS);
      for (const member of cluster.list) cluster.partition([member], others(cluster, member), { kind });
      return { together: [], alone: cluster.list };
    },
  ],
];

const QUICK_FAULTS = FAULTS.filter(([name]) => /^(leader alone|leader is not heard|one follower)/.test(name));

async function partitions(stage: Stage, size: number, faults: readonly Fault[]): Promise<void> {
  const cluster = stage.cluster(size, { proxies: true });
  await cluster.startAll();
  const load = stage.load(cluster, { clients: 3 * size, deadlineMs: 6000 });
  await load.progress(100);
  for (const [name, make] of faults) {
    const leader = await cluster.leader();
    const { together, alone } = make(stage, cluster, leader);
    const from = performance.now();
    const readers = alone.map((member) => new InsistentReaders(member, load.workload.history));
    if (name.startsWith("leader ") && together.length > 0) {
      await until(`another leader after: ${name}`, 60_000, async () => {
        for (const member of together) {
          const { leader: id } = await cluster.status(member);
          if (id !== 0n && id.toString(16) !== leader.id) return true;
        }
        return false;
      });
    }
    if (together.length > size / 2) {
      const names = new Set(together.map((member) => member.name));
      await until(`writes go on with: ${name}`, 60_000, () =>
        load.workload.history.findLast(
          ({ outcome, member, call, exchange }) => outcome === "yes" && names.has(member) && call > from && exchange.kind === "put",
        ),
      );
    }
    await sleep(Math.max(0, from + 3000 + stage.random.below(2500) - performance.now()));
    const healed = performance.now();
    cluster.healLinks();
    const reading = readers.map((one) => one.stop());
    const impossible = load.workload.history.find(
      ({ outcome, member, call, ret, exchange }) =>
        outcome === "yes" && isLinearizable(exchange) && call > from && ret < healed && alone.some((one) => one.name === member),
    );
    stage.require(impossible === undefined, `${name}: ${impossible?.member} has answered ${impossible && describe(impossible)}`);
    await until(`everybody writes again after: ${name}`, 60_000, () =>
      cluster.list.every((member) =>
        load.workload.history.findLast(
          (one) => one.member === member.name && one.outcome === "yes" && one.call > healed && one.exchange.kind === "put",
        ),
      ),
    );
    await Promise.all(reading);
    stage.note(`${name}: all write again ${Math.round(performance.now() - healed)} ms after healing`);
  }
  stage.requireGood(await load.verdict());
}

export const PARTITION_SCENARIOS: readonly Scenario[] = [
  {
    name: "partitions",
    about:
      "three members behind a proxy for every directed link: the leader or a follower alone, one way only, half-open, slow; clients at all members",
    quick: true,
    run: (stage) => partitions(stage, 3, stage.long ? [...FAULTS, ...FAULTS] : QUICK_FAULTS),
  },
  {
    name: "partitions-five",
    about: "the same with five members",
    quick: false,
    run: (stage) => partitions(stage, 5, FAULTS),
  },
];
