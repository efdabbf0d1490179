/** Unique sequence numbers: 500 tasks take 10 numbers each from one counter, by transactions of each level that notices conflicts, and under a lock. */
import assert from "node:assert/strict";
import { op, startEtcd } from "holdfast";
import { type Isolation, openSession, stm } from "holdfast/concurrency";

const TASKS = 500;
const NUMBERS_EACH = 10;

await using server = await startEtcd({ inMemory: true, listenClientUrls: [], listenPeerUrls: [] });
await server.ready;
const { client } = server;

/** Lets all tasks take numbers at the same time, and checks that every number was taken once. */
async function takeAll(name: string, take: (task: number) => Promise<number>): Promise<void> {
  const began = performance.now();
  const taken = await Promise.all(
    Array.from({ length: TASKS }, async (_, task) => {
      const numbers: number[] = [];
      for (let i = 0; i < NUMBERS_EACH; i += 1) numbers.push(await take(task));
      // Each task sees its own numbers grow.
      assert.deepEqual(
        numbers,
        [...numbers].sort((a, b) => a - b),
      );
      return numbers;
    }),
  );
  const numbers = taken.flat().sort((a, b) => a - b);
  assert.deepEqual(
    numbers,
    Array.from({ length: TASKS * NUMBERS_EACH }, (_, i) => i + 1),
  );
  console.log(`${name}: ${numbers.length} numbers, each one once, in ${Math.round(performance.now() - began)} ms`);
}

for (const isolation of ["serializable-snapshot", "serializable", "repeatable-reads"] satisfies Isolation[]) {
  const key = `sequence/${isolation}`;
  await takeAll(`transactions, ${isolation}`, async () => {
    const { value } = await stm(
      client,
      async (tx) => {
        const next = Number((await tx.get(key)) ?? 0) + 1;
        tx.put(key, String(next));
        return next;
      },
      { isolation },
    );
    return value;
  });
}

// Ten sessions, as ten processes would have.
const sessions = await Promise.all(Array.from({ length: 10 }, () => openSession(client, { ttlSeconds: 30 })));
await takeAll("under a lock", (task) => {
  const session = sessions[task % sessions.length];
  assert.ok(session);
  return session.withLock("sequence/lock", async ({ txn }) => {
    const next = Number((await client.get("sequence/locked"))?.value ?? 0) + 1;
    // Takes place only while the lock is held.
    await txn()
      .do(op.put("sequence/locked", String(next)))
      .commit();
    return next;
  });
});
for (const session of sessions) await session.close();
