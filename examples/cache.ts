/** A cache that forgets what has changed: reads are answered from memory until a watch says that somebody has written. */
import assert from "node:assert/strict";
import { startEtcd } from "holdfast";
import type { EtcdClient } from "holdfast/client";

class Cache {
  hits = 0;
  misses = 0;
  readonly #client: EtcdClient;
  readonly #prefix: string;
  readonly #values = new Map<string, string | undefined>();
  /** How far the watch has told; what is read at an older revision may be old, and is not kept. */
  #revision = 0;
  readonly #stop = new AbortController();
  readonly #following: Promise<void>;
  #wake: (() => void)[] = [];

  constructor(client: EtcdClient, prefix: string, fromRevision: number) {
    this.#client = client;
    this.#prefix = prefix;
    this.#revision = fromRevision - 1;
    this.#following = this.#follow(fromRevision);
  }

  async get(key: string): Promise<string | undefined> {
    if (this.#values.has(key)) {
      this.hits += 1;
      return this.#values.get(key);
    }
    this.misses += 1;
    const { kvs, revision } = await this.#client.range(this.#prefix + key);
    const value = kvs[0]?.value;
    if (revision >= this.#revision) this.#values.set(key, value);
    return value;
  }

  /** Resolves when everything up to that revision is known here. */
  async atLeast(revision: number): Promise<void> {
    while (this.#revision < revision) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#following;
  }

  async #follow(fromRevision: number): Promise<void> {
    const { signal } = this.#stop;
    try {
      for await (const { events, revision } of this.#client.watch(this.#prefix, { prefix: true, fromRevision, signal })) {
        for (const event of events) this.#values.delete((event.type === "put" ? event.kv.key : event.key).slice(this.#prefix.length));
        this.#revision = revision;
        for (const wake of this.#wake.splice(0)) wake();
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}

await using server = await startEtcd({ inMemory: true, listenClientUrls: [], listenPeerUrls: [] });
await server.ready;
const { client } = server;

const { revision } = await client.put("user/1", "Anna");
const cache = new Cache(client, "user/", revision + 1);

assert.equal(await cache.get("1"), "Anna");
for (let i = 0; i < 999; i += 1) assert.equal(await cache.get("1"), "Anna");
assert.equal(await cache.get("2"), undefined);
assert.deepEqual([cache.hits, cache.misses], [999, 2]);
console.log(`1001 reads, ${cache.misses} of them asked the store`);

// Somebody else writes.
const written = await client.put("user/1", "Anna Maria");
await cache.atLeast(written.revision);
assert.equal(await cache.get("1"), "Anna Maria");
const removed = await client.delete("user/1");
await cache.atLeast(removed.revision);
assert.equal(await cache.get("1"), undefined);
assert.deepEqual([cache.hits, cache.misses], [999, 4]);
console.log("what has changed was read again, nothing else");

// Where the whole prefix fits into memory, a view does all of this.
await using view = client.view("user/");
await view.ready;
const last = await client.put("user/3", "Carla");
await view.atLeast(last.revision);
assert.equal(view.get("user/3")?.value, "Carla");
console.log("a view of the same prefix:", [...view].map(({ key, value }) => `${key}=${value}`).join(" "));
await cache.close();
