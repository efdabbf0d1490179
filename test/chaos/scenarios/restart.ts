/** Orderly restarts. */
import { isMutation } from "../history.ts";
import type { Scenario } from "../scenario.ts";

export const RESTART_SCENARIOS: readonly Scenario[] = [
  {
    name: "rolling-restart",
    about:
      "three members are restarted one after the other by SIGTERM, leaders too: each ends in an orderly way, and nothing acknowledged is lost",
    quick: true,
    async run(stage) {
      const cluster = stage.cluster(3);
      await cluster.startAll();
      const load = stage.load(cluster, { clients: 12 });
      const windows: { from: number; to: number }[] = [];
      for (let round = 0; round < stage.rounds(1, 6); round += 1) {
        for (const member of cluster.list) {
          await load.progress(60);
          const wasLeader = (await cluster.leader()) === member;
          const from = performance.now();
          const orderly = await cluster.stop(member);
          windows.push({ from, to: performance.now() });
          stage.require(orderly && member.process?.ending?.code !== 1, `${member.name} did not stop in an orderly way`);
          stage.note(`${member.name}${wasLeader ? ", the leader," : ""} stopped within ${Math.round(performance.now() - from)} ms`);
          await cluster.start(member);
        }
      }
      const verdict = await load.verdict();
      const mutations = load.workload.history.filter(({ exchange }) => isMutation(exchange));
      const unknown = mutations.filter(({ outcome }) => outcome === "unknown");
      const outside = unknown.filter(({ call, ended }) => !windows.some(({ from, to }) => call <= to && ended >= from));
      const longest = Math.max(...mutations.filter(({ outcome }) => outcome === "yes").map(({ call, ret }) => ret - call));
      stage.note(
        `the slowest acknowledged write took ${Math.round(longest)} ms; ${unknown.length} writes of unknown outcome, ${outside.length} of them while nobody was stopping`,
      );
      stage.requireGood(verdict);
    },
  },
];
