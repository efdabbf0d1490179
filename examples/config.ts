/** Configuration by publish and subscribe: services follow the settings of a prefix as they change, each in the way that suits it. */
import assert from "node:assert/strict";
import { op, startEtcd } from "holdfast";
import { json } from "holdfast/client";

interface Setting {
  readonly limit: number;
}

await using server = await startEtcd({ inMemory: true, listenClientUrls: [], listenPeerUrls: [] });
await server.ready;
const settings = server.client.namespace("config/").withValues(json<Setting>());

await settings.put("uploads", { limit: 10 });

// One service keeps a live copy and looks into it whenever it needs a value.
await using current = settings.view("");
await current.ready;
assert.deepEqual(current.get("uploads")?.value, { limit: 10 });

// Another one wants to see every change, from where it stopped reading.
const { revision } = await settings.range("", { prefix: true });
const changes: string[] = [];
const stop = new AbortController();
const following = (async () => {
  for await (const batch of settings.watch("", { prefix: true, fromRevision: revision + 1, signal: stop.signal })) {
    for (const event of batch.events) {
      changes.push(event.type === "put" ? `${event.kv.key} = ${event.kv.value.limit}` : `${event.key} is gone`);
    }
    if (changes.length === 5) return;
  }
})();

// The publisher. What belongs together is published together, so that nobody sees half of it.
await settings.put("uploads", { limit: 20 });
await settings
  .txn()
  .do(op.put("uploads", { limit: 30 }), op.put("downloads", { limit: 300 }))
  .commit();
await settings.put("downloads", { limit: 301 });
const last = await settings.delete("uploads");

await following;
assert.deepEqual(changes, ["uploads = 20", "uploads = 30", "downloads = 300", "downloads = 301", "uploads is gone"]);
console.log(changes.join("\n"));

// The copy has everything that had happened by then.
await current.atLeast(last.revision);
assert.equal(current.get("uploads"), undefined);
assert.deepEqual(current.get("downloads")?.value, { limit: 301 });
console.log("the live copy:", JSON.stringify([...current].map(({ key, value }) => [key, value])));
stop.abort();
