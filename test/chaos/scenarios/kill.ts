/** Members that are killed at once, one, the leader, or all. */
import { sleep } from "../../support/server-process.ts";
import { median } from "../medians.ts";
import type { Scenario, Stage } from "../scenario.ts";
import type { Load } from "../verify.ts";

/** After the death of a leader the others must go on within this. */
const TAKE_OVER_MS = 3000;
/** What a member logs that was given a whole state. */
const RECEIVED_SNAPSHOT = '"msg":"applied snapshot"';

/** Kills the leader and tells how long nobody could write. */
async function killLeader(stage: Stage, cluster: ReturnType<Stage["cluster"]>, load: Load): Promise<{ name: string; ms: number }> {
  const leader = await cluster.leader();
  await load.progress(50);
  const others = cluster.list.filter((member) => member !== leader);
  const before = load.workload.history.length;
  await cluster.kill(leader);
  const killedAt = performance.now();
  const asked = new Set(others.map(({ name }) => name));
  const wentOn = (): number | undefined =>
    load.workload.history
      .slice(before)
      .find(({ outcome, member, call, exchange }) => outcome === "yes" && asked.has(member) && call >= killedAt && exchange.kind === "put")
      ?.ret;
  const until = performance.now() + 60_000;
  for (;;) {
    const at = wentOn();
    if (at !== undefined) return { name: leader.name, ms: at - killedAt };
    stage.require(performance.now() < until, "the others do not go on without their leader within 60 s");
    await sleep(20);
  }
}

/** `away`: what happens before the killed one returns, by round. */
async function leaderKilled(
  stage: Stage,
  rounds: number,
  flags: readonly string[],
  away: (load: Load, round: number) => Promise<void>,
): Promise<void> {
  const cluster = stage.cluster(3, { flags });
  await cluster.startAll();
  const load = stage.load(cluster, { clients: 9 });
  const times: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await load.progress(150);
    const { name, ms } = await killLeader(stage, cluster, load);
    times.push(ms);
    await away(load, round);
    await cluster.start(cluster.member(name));
  }
  stage.note(`writes went on after ${times.map((ms) => Math.round(ms)).join(", ")} ms`);
  const snapshots = cluster.list.reduce((sum, member) => sum + cluster.output(member).split(RECEIVED_SNAPSHOT).length - 1, 0);
  stage.note(`${snapshots} snapshots received`);
  stage.requireGood(await load.verdict());
  if (flags.length > 0 && stage.kind.name === "holdfast") stage.require(snapshots > 0, "nobody needed a snapshot: nothing was tried");
  stage.requireWithin("the others went on", median(times), TAKE_OVER_MS);
}

export const KILL_SCENARIOS: readonly Scenario[] = [
  {
    name: "leader-killed",
    about: "three members: the leader is killed under load, the others go on within 3 s, it returns at once and catches up from the log",
    quick: false,
    run: (stage) => leaderKilled(stage, 8, [], () => Promise.resolve()),
  },
  {
    name: "leader-killed-snapshot",
    about: "the same with a short log: who returns at once catches up from the log, who returns later needs the leader's state",
    quick: true,
    async run(stage) {
      const flags = ["--snapshot-count", "60", "--snapshot-catchup-entries", "20"];
      await leaderKilled(stage, stage.rounds(2, 8), flags, (load, round) => (round % 2 === 1 ? Promise.resolve() : load.progress(250)));
    },
  },
  {
    name: "all-killed",
    about: "three members: all are killed at once under load, again and again; every acknowledged write is there afterwards",
    quick: true,
    async run(stage) {
      const cluster = stage.cluster(3, { flags: stage.random.chance({ of: 1, outOf: 2 }) ? ["--snapshot-count", "100"] : [] });
      await cluster.startAll();
      const load = stage.load(cluster, { clients: 9, compactEvery: 800 });
      for (let round = 0; round < stage.rounds(2, 10); round += 1) {
        await load.progress(200 + stage.random.below(200));
        await Promise.all(cluster.list.map((member) => cluster.kill(member)));
        for (const member of cluster.list) {
          cluster.launch(member);
          await sleep(stage.random.below(300));
        }
        await cluster.untilServing();
      }
      stage.requireGood(await load.verdict());
    },
  },
  {
    name: "one-member-killed",
    about: "a lone member is killed under load many times, also while it starts; torn ends lose nothing that was acknowledged",
    quick: true,
    async run(stage) {
      const cluster = stage.cluster(1, { flags: ["--snapshot-count", "300"] });
      await cluster.startAll();
      const [member] = cluster.list;
      if (member === undefined) return;
      const load = stage.load(cluster, { clients: 12, compactEvery: 1500, padding: 3000, pauseMs: 1 });
      for (let round = 0; round < stage.rounds(8, 40); round += 1) {
        await load.progress(30 + stage.random.below(200));
        await cluster.kill(member);
        if (stage.random.chance({ of: 1, outOf: 3 })) {
          // Again while it recovers.
          cluster.launch(member);
          await sleep(stage.random.below(400));
          await cluster.kill(member);
        }
        await cluster.start(member);
      }
      stage.requireGood(await load.verdict());
    },
  },
];
