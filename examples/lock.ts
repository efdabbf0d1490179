/** A lock that several processes share: one at a time is inside, and one that lost the lock cannot do harm any more. */
import assert from "node:assert/strict";
import { EtcdError, op, startEtcd } from "holdfast";
import { openSession, withLock } from "holdfast/concurrency";

await using server = await startEtcd({ inMemory: true, listenClientUrls: [], listenPeerUrls: [] });
await server.ready;
const { client } = server;

// Eight workers; each one comes with its own session, as if it were a process.
let inside = 0;
const tokens: number[] = [];
await client.put("balance", "0");
await Promise.all(
  Array.from({ length: 8 }, (_, worker) =>
    withLock(client, "account", async ({ token, txn, signal }) => {
      inside += 1;
      assert.equal(inside, 1, "somebody else is inside");
      tokens.push(token);
      const balance = Number((await client.get("balance"))?.value);
      // Work that takes long looks at the signal from time to time: it is aborted before anybody else can have the lock.
      signal.throwIfAborted();
      await txn()
        .do(op.put("balance", String(balance + 10)))
        .commit();
      inside -= 1;
      console.log(`worker ${worker} was inside with token ${token}`);
    }),
  ),
);
assert.equal((await client.get("balance"))?.value, "80");
assert.deepEqual(
  tokens,
  [...tokens].sort((a, b) => a - b),
);

// A holder that the cluster has given up, though it does not know yet.
const session = await openSession(client, { ttlSeconds: 10 });
const outcome = await session
  .withLock("account", async ({ txn }) => {
    await client.leases.revoke(session.lease.id);
    await withLock(client, "account", async (next) => {
      await next.txn().do(op.put("balance", "100")).commit();
    });
    // The guard refuses what comes too late.
    await txn().do(op.put("balance", "-1")).commit();
  })
  .catch((error: unknown) => error);
assert.ok(EtcdError.is(outcome));
assert.equal(outcome.reason, "lock-lost");
assert.equal((await client.get("balance"))?.value, "100");
console.log(`who lost the lock is told: ${outcome.message.replace(/[0-9a-f]{8,}/, "<lease>")}`);

// Impatient callers leave no trace.
const held = await (await openSession(client)).mutex("account").lock();
const impatient = await openSession(client);
const late = await impatient
  .mutex("account")
  .lock({ timeoutMs: 50 })
  .catch((error: unknown) => error);
assert.ok(EtcdError.is(late) && late.reason === "deadline-exceeded");
assert.equal(await impatient.mutex("account").tryLock(), undefined);
await held.unlock();
await (await impatient.mutex("account").lock()).unlock();
await impatient.close();
console.log("and who gave up waiting comes in another time");
