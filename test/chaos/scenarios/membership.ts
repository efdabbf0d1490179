/** Clusters that grow, shrink and replace their members under load. */
import type * as api from "../../../src/api/index.ts";
import { postJson, sleep, until } from "../../support/server-process.ts";
import { type Cluster, type Member, removeMember } from "../cluster.ts";
import type { Scenario, Stage } from "../scenario.ts";
import type { Load } from "../verify.ts";

async function listed(cluster: Cluster): Promise<api.Member[]> {
  return until("a member list", 30_000, () => {
    const [member] = cluster.running.filter(({ paused }) => !paused);
    return member === undefined ? undefined : cluster.memberList(member, 3000);
  });
}

function anyRunning(stage: Stage, cluster: Cluster, but?: Member): Member {
  const running = cluster.running.filter((member) => member !== but && !member.paused);
  const member = running[stage.random.below(running.length)];
  if (member === undefined) throw new Error("nobody is running");
  return member;
}

/** `disturb` is called between the request and the start of the new member. */
async function grow(stage: Stage, cluster: Cluster, load: Load, disturb: () => Promise<void> = () => Promise.resolve()): Promise<Member> {
  const adding = until("a member is added", 60_000, () => cluster.add(anyRunning(stage, cluster)), 300);
  const [member] = await Promise.all([adding, disturb()]);
  await cluster.start(member);
  load.watch(member);
  return member;
}

async function shrink(stage: Stage, cluster: Cluster, load: Load, member: Member): Promise<void> {
  await removeMember(cluster, member, () => anyRunning(stage, cluster, member));
  const { process } = member;
  if (process !== undefined) {
    const ending = await Promise.race([process.ended, sleep(60_000)]);
    stage.require(ending !== undefined, `${member.name} is removed and still runs`);
    if (stage.kind.name === "holdfast")
      stage.require(ending?.code === 0, `${member.name} was removed and ended with ${JSON.stringify(ending)}, not with 0`);
  }
  await load.unwatch(member);
  await cluster.dismiss(member);
}

/** Adds a member without a vote and starts it. */
async function addLearner(stage: Stage, cluster: Cluster): Promise<Member> {
  const learner = await until("a learner is added", 60_000, () => cluster.add(anyRunning(stage, cluster), true), 300);
  cluster.launch(learner);
  await until(`${learner.name} knows that it is a learner`, 60_000, async () => (await cluster.status(learner)).isLearner);
  const { status, text } = await postJson(learner.spec.clientUrl, "/v3/kv/range", { key: "AA==" });
  stage.require(status !== 200 && text.includes("learner"), `a learner answers a linearizable read: ${status} ${text}`);
  return learner;
}

/** Asks for the vote until it has it: first it must have caught up. */
async function promote(stage: Stage, cluster: Cluster, learner: Member): Promise<void> {
  await until(
    `${learner.name} is promoted`,
    60_000,
    async () => {
      const asked = anyRunning(stage, cluster, learner);
      const own = (await cluster.memberList(asked)).find(({ peerUrls }) => peerUrls.includes(learner.spec.peerUrl));
      if (own === undefined) throw new Error(`${learner.name} is not in the list`);
      if (own.isLearner) await cluster.call(asked, "/v3/cluster/member/promote", { ID: own.id.toString() });
      return true;
    },
    200,
  );
}

export const MEMBERSHIP_SCENARIOS: readonly Scenario[] = [
  {
    name: "members-replaced",
    about:
      "three members become five, seven and three again under load; every original one is replaced, leaders are killed in the middle of changes",
    quick: true,
    async run(stage) {
      const cluster = stage.cluster(3, { flags: ["--snapshot-count", "200", "--snapshot-catchup-entries", "50"] });
      await cluster.startAll();
      const originals = cluster.list;
      const load = stage.load(cluster, { clients: 9 });
      await load.progress(200);
      await grow(stage, cluster, load);
      await grow(stage, cluster, load);
      stage.require((await listed(cluster)).length === 5, "five members");
      await load.progress(100);
      const leader = await cluster.leader();
      await grow(stage, cluster, load, async () => {
        await sleep(stage.random.below(30));
        await cluster.kill(leader);
      });
      await cluster.start(leader);
      await grow(stage, cluster, load);
      stage.require((await listed(cluster)).length === 7, "seven members");
      await load.progress(100);
      for (const original of originals) {
        await shrink(stage, cluster, load, original);
        await load.progress(50);
      }
      const [other] = cluster.list;
      const last = await cluster.leader();
      if (other !== undefined) {
        // The leader dies while the seventh change is under way.
        const removing = shrink(stage, cluster, load, other === last ? (cluster.list[1] ?? other) : other);
        await sleep(stage.random.below(20));
        await cluster.kill(last);
        await removing;
        await cluster.start(last);
      }
      stage.require((await listed(cluster)).length === 3, "three members");
      await load.progress(100);
      stage.note(`members at the end: ${cluster.list.map(({ name }) => name).join(", ")}`);
      stage.requireGood(await load.verdict());
    },
  },
  {
    name: "learners",
    about:
      "learners join under load, read and vote only when promoted, and replace the members one by one; leaders are killed while they are promoted",
    quick: false,
    async run(stage) {
      const cluster = stage.cluster(3, { flags: ["--snapshot-count", "200", "--snapshot-catchup-entries", "50"] });
      await cluster.startAll();
      const load = stage.load(cluster, { clients: 9 });
      for (const original of cluster.list) {
        await load.progress(200);
        const learner = await addLearner(stage, cluster);
        const leader = await cluster.leader();
        const promoting = promote(stage, cluster, learner);
        await sleep(stage.random.below(200));
        await cluster.kill(leader);
        await promoting;
        await cluster.start(leader);
        await cluster.untilServing();
        load.watch(learner);
        await shrink(stage, cluster, load, original);
      }
      await load.progress(100);
      stage.note(`members at the end: ${cluster.list.map(({ name }) => name).join(", ")}`);
      stage.requireGood(await load.verdict());
    },
  },
];
