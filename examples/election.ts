/** Leader election: three candidates, one leads; it proclaims what it does, dies, and another one takes over. A job that runs on exactly one of them. */
import assert from "node:assert/strict";
import { op, startEtcd } from "holdfast";
import { observeLeader, openSession, runWhileLeader } from "holdfast/concurrency";

await using server = await startEtcd({ inMemory: true, listenClientUrls: [], listenPeerUrls: [] });
await server.ready;
const { client } = server;

// Somebody who only wants to know who leads.
const seen: string[] = [];
const stop = new AbortController();
const observing = (async () => {
  for await (const leader of observeLeader(client, "scheduler", { signal: stop.signal })) {
    seen.push(leader.value);
    console.log("observed:", leader.value);
  }
})().catch((error: unknown) => {
  if (!stop.signal.aborted) throw error;
});
const sawLast = async (value: string): Promise<void> => {
  const deadline = AbortSignal.timeout(20_000);
  while (seen.at(-1) !== value) {
    deadline.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

// The first one is going to die: its short lease is what the others will wait for.
const [first, second, third] = await Promise.all([3, 30, 30].map((ttlSeconds) => openSession(client, { ttlSeconds })));
assert.ok(first && second && third);

const reign = await first.election("scheduler").campaign("first");
await sawLast("first");
await reign.proclaim("first, busy");
await sawLast("first, busy");

// The others stand in line.
const secondReign = second.election("scheduler").campaign("second");
const thirdReign = third.election("scheduler").campaign("third");

// The leader dies: it does not renew its lease any more, and tells nobody.
first.lease.abandon();
const next = await secondReign;
await sawLast("second");
assert.ok(next.token > reign.token);
const late = await reign.proclaim("first, still here?").then(
  () => "accepted",
  () => "refused",
);
assert.equal(late, "refused");
console.log("what the dead leader proclaims is", late);

// The leader steps down.
await next.resign();
const last = await thirdReign;
await sawLast("third");
await last.resign();
for (const session of [second, third]) await session.close();
assert.deepEqual(seen, ["first", "first, busy", "second", "third"]);

// The same for a job that must run on exactly one instance. Every instance calls this.
const done: string[] = [];
const instances = ["a", "b", "c"].map((name) =>
  runWhileLeader(
    client,
    "job",
    async ({ txn, signal }) => {
      for (let step = 0; step < 3 && !signal.aborted; step += 1) {
        // Takes place only while this instance leads.
        await txn()
          .do(op.put("job/done", `${name} ${step}`))
          .commit();
        done.push(`${name}${step}`);
      }
    },
    { value: name },
  ),
);
await Promise.all(instances);
assert.equal(done.length, 9);
// One after the other, never mixed.
for (let i = 0; i < 9; i += 3)
  assert.deepEqual(
    done.slice(i, i + 3),
    [0, 1, 2].map((step) => `${done[i]?.[0]}${step}`),
  );
console.log("jobs done:", done.join(" "));
stop.abort();
await observing;
