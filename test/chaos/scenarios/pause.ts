/** Members that stand still for a while (SIGSTOP) and go on as if nothing had happened. */
import { sleep } from "../../support/server-process.ts";
import type { Cluster, Member } from "../cluster.ts";
import type { Operation } from "../history.ts";
import { InsistentReaders } from "../insistent-readers.ts";
import type { LeaseLoad } from "../lease-load.ts";
import type { Scenario, Stage } from "../scenario.ts";

/** A key that is still there after this stays for good. */
const LEASES_GONE_MS = 60_000;

/** Waits for what should come; that it comes is judged elsewhere. */
async function untilOr(ms: number, check: () => boolean): Promise<void> {
  const end = performance.now() + ms;
  while (performance.now() < end && !check()) await sleep(50);
}

function others(cluster: Cluster, member: Member): Member[] {
  return cluster.list.filter((one) => one !== member);
}

async function pauseLeaders(stage: Stage, pausesMs: readonly number[]): Promise<void> {
  const cluster = stage.cluster(3, { proxies: true });
  await cluster.startAll();
  let leases: LeaseLoad | undefined;
  const load = stage.load(cluster, {
    clients: 12,
    deadlineMs: 5000,
    onEvent: (event, receivedAt) => leases?.onEvent(event, receivedAt),
  });
  const history: Operation[] = load.workload.history;
  const { list } = cluster;
  const endpoint = (holder: number) => (list[holder % list.length] ?? cluster.member("n1")).endpoint;
  leases = stage.leaseLoad({ holders: 6, history, endpoint });
  let leaders = 0;
  let readsWaiting = 0;
  for (const [number, ms] of pausesMs.entries()) {
    await load.progress(100);
    const leader = await cluster.leader();
    cluster.pause(leader);
    const readers = new InsistentReaders(leader, history);
    // Every other time what the others said meanwhile does not reach it either.
    if (number % 2 === 1) cluster.partition([leader], others(cluster, leader), { kind: "silent" });
    await sleep(ms);
    cluster.resume(leader);
    // It may still believe that it leads: this is when it would answer with what is old.
    await sleep(200 + stage.random.below(500));
    cluster.healLinks();
    const reading = readers.stop();
    if ((await cluster.leader()) !== leader) leaders += 1;
    readsWaiting += (await reading).filter(({ outcome }) => outcome === "yes").length;
  }
  await leases.stop();
  // Nothing is renewed any more: every key must go within its time, and as long again for each change of leaders.
  const stopped = performance.now();
  await untilOr(LEASES_GONE_MS, () => leases.attachedLeft === 0);
  stage.requireWithin("the last lease ended", performance.now() - stopped, leases.longestEndMs * 2 + 4000);
  stage.note(`${pausesMs.length} pauses, ${leaders} changes of leaders; ${leases.count} leases, ${leases.ended} ended`);
  stage.note(`${readsWaiting} linearizable reads that were asked of a leader that stood still were answered`);
  const verdict = await load.verdict();
  stage.requireGood({ ...verdict, violations: [...verdict.violations, ...leases.violations()] });
  stage.require(leases.ended > 0, "no lease has ended");
}

export const PAUSE_SCENARIOS: readonly Scenario[] = [
  {
    name: "leader-paused",
    about:
      "three members: the leader stands still for 0.3 to 4 s (0.1 to 20 s in the long run) under readers and lease holders, now and then cut off as well; nothing stale is read, no lease ends early",
    quick: true,
    async run(stage) {
      const quick = [300, 1500, 4000];
      await pauseLeaders(stage, stage.long ? [100, 700, ...quick, 5000, 10_000, 200, 20_000, 1000, 1200, 3000, 900, 1100, 1300] : quick);
    },
  },
  {
    name: "members-strobed",
    about: "three members: each stands still for moments again and again, all at different times",
    quick: false,
    async run(stage) {
      const cluster = stage.cluster(3);
      await cluster.startAll();
      const load = stage.load(cluster, { clients: 9, deadlineMs: 5000 });
      const end = performance.now() + 40_000;
      await Promise.all(
        cluster.list.map(async (member) => {
          while (performance.now() < end) {
            cluster.pause(member);
            await sleep(10 + stage.random.below(800));
            cluster.resume(member);
            await sleep(50 + stage.random.below(1500));
          }
        }),
      );
      stage.requireGood(await load.verdict());
    },
  },
];
