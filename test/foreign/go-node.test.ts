/** A Go program with etcd's own recipes and a Node program contend for one lock, one election and one queue: nobody is in twice, no item is taken twice. */
import { expect, it } from "vitest";
import { openSession, Queue, type Session } from "../../src/client/concurrency/index.ts";
import { compare, createClient, type EtcdClient, op } from "../../src/client/index.ts";
import { startTestCluster } from "../../src/testing/index.ts";
import { goProgram, runGo } from "./go-program.ts";

const ROUNDS = 15;
const MINUTES = 60_000;

/** Holds a mark for a moment that nobody else may hold meanwhile. */
async function alone(client: EtcdClient, mark: string): Promise<void> {
  const entered = await client.txn().if(compare.absent(mark)).do(op.put(mark, "node")).commit();
  expect(entered.succeeded, `somebody is inside of ${mark} already`).toBe(true);
  await new Promise((resolve) => setTimeout(resolve, 2));
  const left = await client
    .txn()
    .if(compare.value(mark, "=", "node"))
    .do(op.delete(mark))
    .commit();
  expect(left.succeeded, `somebody came into ${mark} meanwhile`).toBe(true);
}

it(
  "Go and Node share a lock, an election and a queue",
  async () => {
    const found = goProgram({ download: false, name: "go-node" });
    if ("missing" in found) {
      console.log(`Go and Node do not contend: ${found.missing} (npm run foreign would fetch them)`);
      return;
    }
    await using cluster = await startTestCluster({ listen: true });
    const said = { mutex: [] as number[], election: [] as number[], queue: [] as string[] };
    const endpoints = cluster.endpoints.map((url) => url.replace("http://", "")).join(",");
    const go = runGo(found.program, ["contend", "-rounds", String(ROUNDS), "-endpoints", endpoints], (line) => {
      const [what = "", word = ""] = line.split(" ");
      if (what === "queue") said.queue.push(word);
      else if (what === "mutex" || what === "election") said[what].push(Number(word));
    });
    await using client = createClient({ endpoints: cluster.endpoints });
    const session: Session = await openSession(client, { ttlSeconds: 30 });
    const tokens = { mutex: [] as number[], election: [] as number[] };

    const locking = async (): Promise<void> => {
      for (let i = 0; i < ROUNDS; i += 1) {
        await session.withLock("shared/mutex", async ({ token }) => {
          tokens.mutex.push(token);
          await alone(client, "shared/in-mutex");
        });
      }
    };
    const leading = async (): Promise<void> => {
      const election = session.election("shared/election");
      for (let i = 0; i < ROUNDS; i += 1) {
        const leadership = await election.campaign("node");
        await leadership.proclaim(`node ${i}`);
        expect((await election.leader())?.value).toBe(`node ${i}`);
        tokens.election.push(leadership.token);
        await alone(client, "shared/in-election");
        await leadership.resign();
      }
    };
    const taken: string[] = [];
    const stop = new AbortController();
    const consuming = async (): Promise<void> => {
      const queue = new Queue(client, "shared/queue", { session });
      try {
        for (;;) taken.push((await queue.dequeue({ signal: stop.signal })).value);
      } catch (error) {
        if (!stop.signal.aborted) throw error;
      }
    };
    const producing = async (): Promise<void> => {
      const queue = new Queue(client, "shared/queue");
      for (let i = 0; i < ROUNDS; i += 1) await queue.enqueue(`node-${i}`);
    };
    const consumer = consuming();
    try {
      await Promise.all([locking(), leading(), producing(), go.line("DONE")]);
      const expected = ["go", "node"].flatMap((who) => Array.from({ length: ROUNDS }, (_, i) => `${who}-${i}`)).sort();
      await expect.poll(() => [...taken, ...said.queue].sort(), { timeout: 30_000 }).toEqual(expected);
    } finally {
      stop.abort();
      go.endInput();
    }
    await consumer;
    const { code, lines } = await go.ended;
    expect(lines.filter((line) => line.startsWith("FAIL"))).toEqual([]);
    expect(code).toBe(0);
    for (const what of ["mutex", "election"] as const) {
      // Every holder had a token of its own, and each side's grew.
      const all = [...tokens[what], ...said[what]];
      expect(new Set(all).size).toBe(2 * ROUNDS);
      for (const own of [tokens[what], said[what]]) expect(own).toEqual([...own].sort((a, b) => a - b));
    }
    await session.close();
    expect(await client.count("shared/", { prefix: true })).toBe(0);
  },
  10 * MINUTES,
);
