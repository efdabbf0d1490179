/** What a client sees while members die under load: every way, the same demands. */
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { grpc } from "../../src/client/grpc/index.ts";
import { createClient, type EtcdClient, mayHaveHappened } from "../../src/client/index.ts";
import { startTestCluster, type TestCluster } from "../../src/testing/index.ts";
import { eventually } from "./support.ts";
import { TcpProxy } from "./tcp-proxy.ts";

const KILLS = 2;
const WRITERS = 4;

interface ClusterWay {
  readonly name: string;
  connect(cluster: TestCluster, endpoints: readonly string[]): EtcdClient;
}

const WAYS: readonly ClusterWay[] = [
  { name: "in process", connect: (cluster) => cluster.newClient() },
  { name: "gRPC", connect: (_, endpoints) => createClient({ endpoints, transport: grpc(), watchSilenceMs: 1000 }) },
  { name: "HTTP/JSON", connect: (_, endpoints) => createClient({ endpoints, watchSilenceMs: 1000 }) },
];

describe.each(WAYS)("when leaders die under load, $name", ({ connect }) => {
  it("watches miss nothing and repeat nothing, writes are done once or told to be in doubt", async () => {
    await using cluster = await startTestCluster({ listen: true });
    // Members that start anew get other ports; the addresses that a client was given stay.
    const proxies = await Promise.all(
      cluster.names.map((name) => TcpProxy.to(() => (running(cluster, name) ? cluster.member(name).clientUrls[0] : undefined))),
    );
    const endpoints = proxies.map(({ url }) => url);
    const client = connect(cluster, endpoints);
    const watch = client.watch("load/", { prefix: true });
    const seen: string[] = [];
    const watching = (async () => {
      for await (const { events, revision } of watch) {
        expect(events.every((event) => event.revision <= revision)).toBe(true);
        for (const event of events) seen.push(`${event.revision} ${event.type} ${event.key}`);
      }
    })();
    const view = client.view("load/");
    await Promise.all([watch.ready, view.ready]);

    let stop = false;
    const done: string[] = [];
    const doubtful: string[] = [];
    const writers = Array.from({ length: WRITERS }, async (_, writer) => {
      for (let i = 0; !stop; i += 1) {
        // Each key is written once, so that a write that was done twice shows as version 2.
        const key = `load/${writer}-${i}`;
        try {
          await client.put(key, "x", { timeoutMs: 2000 });
          done.push(key);
        } catch (error) {
          if (mayHaveHappened(error)) doubtful.push(key);
          await sleep(5);
        }
      }
    });
    for (let kill = 0; kill < KILLS; kill += 1) {
      const before = done.length;
      await eventually("writes go through", () => done.length > before + 50);
      const leader = await cluster.leader();
      await cluster.kill(leader);
      await cluster.leader();
      const after = done.length;
      await eventually("writes go through again", () => done.length > after + 50);
      await cluster.restart(leader);
    }
    stop = true;
    await Promise.all(writers);

    const { kvs, revision } = await client.range("load/", { prefix: true, timeoutMs: 20_000 });
    await view.atLeast(revision, { timeoutMs: 20_000 });
    expect(view.list()).toEqual(kvs);
    expect(kvs.filter(({ version }) => version !== 1)).toEqual([]);
    const stored = new Set(kvs.map(({ key }) => key));
    expect(done.filter((key) => !stored.has(key))).toEqual([]);
    const known = new Set([...done, ...doubtful]);
    expect([...stored].filter((key) => !known.has(key))).toEqual([]);
    const expected = [...kvs].sort((a, b) => a.modRevision - b.modRevision).map((kv) => `${kv.modRevision} put ${kv.key}`);
    await eventually("the watch has seen the last write", () => seen.length >= expected.length);
    expect(seen).toEqual(expected);
    watch.close();
    await watching;
    client.close();
    await Promise.all(proxies.map((proxy) => proxy.close()));
  }, 90_000);
});

function running(cluster: TestCluster, name: string): boolean {
  try {
    return cluster.member(name).status === "ready";
  } catch {
    return false; // It is down.
  }
}
