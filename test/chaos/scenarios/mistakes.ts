/** What operators do by mistake: it must be refused clearly, and nothing may be touched. */
import { cpSync } from "node:fs";
import { join } from "node:path";
import { sleep, until } from "../../support/server-process.ts";
import { type Cluster, type Member, removeMember } from "../cluster.ts";
import type { Scenario, Stage } from "../scenario.ts";

/** The line that repeats the command says nothing about the refusal. */
const ARGUMENTS = '"args":';

/** Launches a member that must end by itself, with a status other than 0, and say why. */
async function mustRefuse(
  stage: Stage,
  cluster: Cluster,
  member: Member,
  what: string,
  says: RegExp,
  flags: readonly string[] = [],
): Promise<void> {
  const process = cluster.launch(member, flags);
  const ending = await Promise.race([process.ended, sleep(60_000)]);
  stage.require(ending !== undefined, `${what}: it runs`);
  stage.require(ending?.code !== 0 && ending?.signal === null, `${what}: ended with ${JSON.stringify(ending)}`);
  const output = process.output();
  const line = output.split("\n").find((text) => says.test(text) && !text.includes(ARGUMENTS));
  stage.require(line !== undefined, `${what}: no word of ${says}, but:\n${output.slice(-600)}`);
  const at = Math.max(0, (line?.search(says) ?? 0) - 60);
  stage.note(`${what}: ...${line?.slice(at, at + 160)}`);
}

export const MISTAKE_SCENARIOS: readonly Scenario[] = [
  {
    name: "mistakes",
    about:
      "a second process on the same data, a member on another's, a wiped member, joiners with a wrong list, a removed member: refused, the others go on",
    quick: true,
    async run(stage) {
      const isOurs = stage.kind.name === "holdfast";
      const cluster = stage.cluster(3);
      await cluster.startAll();
      const load = stage.load(cluster, { clients: 6 });
      await load.progress(100);
      const [first, second, third] = cluster.list;
      if (first === undefined || second === undefined || third === undefined) return;

      // Its own ports, the data of a running member.
      const spare = stage.cluster(1, { portBase: stage.portBase + 24 });
      const [twin] = spare.list;
      if (twin === undefined) return;
      // (The reference would wait for the lock.)
      if (isOurs)
        await mustRefuse(stage, spare, twin, "a second process on the same data", /data-dir|data directory|lock|in use/i, [
          "--data-dir",
          first.spec.dataDir,
        ]);
      await load.progress(50);

      await cluster.stop(third);
      const copy = join(stage.directory, "copy");
      cpSync(third.spec.dataDir, copy, { recursive: true });
      await cluster.start(third);
      await cluster.stop(second);
      // The reference would run both under one id.
      if (isOurs) await mustRefuse(stage, cluster, second, "the data of another member", /is that of member/, ["--data-dir", copy]);
      await cluster.start(second);
      await load.progress(50);

      await cluster.stop(third);
      cluster.wipe(third);
      await mustRefuse(stage, cluster, third, "a wiped member with its old identity", /already been bootstrapped/);
      // The reference lets it in with an empty log: what it has promised before is forgotten.
      if (isOurs)
        await mustRefuse(stage, cluster, third, "a wiped member that says that it joins", /Remove it from the cluster, add it again/, [
          ...["--initial-cluster-state", "existing"],
        ]);
      await load.progress(50);

      await removeMember(cluster, third, () => first);
      await load.unwatch(third);
      await cluster.dismiss(third);
      const fourth = await until("a member is added", 60_000, () => cluster.add(first), 300);
      const parts = fourth.initialCluster.split(",");
      const without = parts.filter((part) => !part.startsWith(`${second.name}=`)).join(",");
      await mustRefuse(stage, cluster, fourth, "a joiner with a member missing", /member count is unequal/, ["--initial-cluster", without]);
      const wrong = parts.map((part) => (part.startsWith(`${second.name}=`) ? `${second.name}=http://127.0.0.1:1` : part)).join(",");
      await mustRefuse(stage, cluster, fourth, "a joiner with a wrong URL", /no match found|unmatched member/, [
        "--initial-cluster",
        wrong,
      ]);
      await cluster.start(fourth);
      load.watch(fourth);
      await load.progress(50);

      await removeMember(cluster, fourth, () => first);
      const ending = await Promise.race([fourth.process?.ended, sleep(60_000)]);
      stage.require(ending !== undefined, "the removed member still runs");
      if (isOurs) stage.require(ending?.code === 0, `the removed member ended with ${JSON.stringify(ending)}`);
      await load.unwatch(fourth);
      const again = cluster.launch(fourth);
      const ended = await Promise.race([again.ended, sleep(60_000)]);
      stage.require(ended !== undefined, "the removed member was started again and runs");
      stage.note(
        `the removed member, started again: status ${ended?.code}, ${again
          .output()
          .split("\n")
          .find((line) => /removed/.test(line))
          ?.slice(0, 160)}`,
      );
      await cluster.dismiss(fourth);
      stage.requireGood(await load.verdict());
    },
  },
  {
    name: "foreign-token",
    about:
      "three members, one of them with another cluster token: it is not let in, the other two work, and it can join once its data is removed and its token right",
    quick: true,
    async run(stage) {
      const cluster = stage.cluster(3);
      const [first, second, third] = cluster.list;
      if (first === undefined || second === undefined || third === undefined) return;
      cluster.launch(first);
      cluster.launch(second);
      const foreign = cluster.launch(third, ["--initial-cluster-token", "another"]);
      await until(
        "two members serve",
        60_000,
        async () => (await cluster.status(first)).leader !== 0n && (await cluster.status(second)).leader !== 0n,
      );
      await until(
        "the foreign member is told",
        60_000,
        () => /cluster ID mismatch/i.test(foreign.output()) || foreign.ending !== undefined,
      );
      let serves = false;
      try {
        serves = (await cluster.status(third, 1000)).leader !== 0n;
      } catch {
        // Does not even listen: all the better.
      }
      stage.require(!serves, "the foreign member has a leader");
      await cluster.kill(third);
      cluster.wipe(third);
      cluster.launch(third);
      await cluster.untilServing();
      const load = stage.load(cluster, { clients: 6 });
      await load.progress(100);
      stage.requireGood(await load.verdict());
    },
  },
];
