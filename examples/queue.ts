/** Queues: producers put items in, consumers take each one out once, in order; urgent ones first in a priority queue. */
import assert from "node:assert/strict";
import { startEtcd } from "holdfast";
import { json } from "holdfast/client";
import { openSession, PriorityQueue, Queue } from "holdfast/concurrency";

interface Job {
  readonly from: string;
  readonly number: number;
}

await using server = await startEtcd({ inMemory: true, listenClientUrls: [], listenPeerUrls: [] });
await server.ready;
const client = server.client.withValues(json<Job>());

const PRODUCERS = ["anna", "bert"];
const CONSUMERS = 4;
const JOBS_EACH = 50;

const taken: Job[] = [];
const consumers = Array.from({ length: CONSUMERS }, async () => {
  // With a session, an item is not lost even if the answer to its taking is.
  await using session = await openSession(client, { ttlSeconds: 30 });
  const queue = new Queue(client, "jobs", { session });
  for (let i = 0; i < (PRODUCERS.length * JOBS_EACH) / CONSUMERS; i += 1) taken.push((await queue.dequeue()).value);
});
await Promise.all(
  PRODUCERS.map(async (from) => {
    const queue = new Queue(client, "jobs");
    for (let number = 1; number <= JOBS_EACH; number += 1) await queue.enqueue({ from, number });
  }),
);
await Promise.all(consumers);

const expected = PRODUCERS.flatMap((from) => Array.from({ length: JOBS_EACH }, (_, i) => `${from} ${i + 1}`)).sort();
assert.deepEqual(taken.map(({ from, number }) => `${from} ${number}`).sort(), expected);
assert.equal(await new Queue(client, "jobs").size(), 0);
console.log(`${taken.length} jobs of ${PRODUCERS.length} producers, each taken once by ${CONSUMERS} consumers`);

const urgent = new PriorityQueue(server.client, "tickets");
await urgent.enqueue("slow answer", 20);
await urgent.enqueue("typing error", 50);
await urgent.enqueue("all is down", 1);
await urgent.enqueue("disk is filling", 20);
const order: string[] = [];
while ((await urgent.size()) > 0) order.push((await urgent.dequeue()).value);
assert.deepEqual(order, ["all is down", "slow answer", "disk is filling", "typing error"]);
console.log("by urgency:", order.join(", "));
