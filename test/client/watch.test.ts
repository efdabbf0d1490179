import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clientOver } from "../../src/client/client.ts";
import { type EtcdClient, UnavailableError, type WatchBatch, type Watcher } from "../../src/client/index.ts";
import { startTestEtcd, useTestCluster, useTestEtcd } from "../../src/testing/index.ts";
import { eventually, type Faults, failureOf, faultyMembers, WAYS } from "./support.ts";

/** Batches until `count` events have come. */
async function take(watcher: Watcher, count: number): Promise<WatchBatch[]> {
  const batches: WatchBatch[] = [];
  for (let events = 0; events < count; ) {
    const { done, value } = await watcher.next();
    if (done === true) throw new Error("the watch ended early");
    batches.push(value);
    events += value.events.length;
  }
  return batches;
}

const eventsOf = (batches: readonly WatchBatch[]): string[] =>
  batches.flatMap(({ events }) => events.map((event) => `${event.revision} ${event.type} ${event.key}`));

describe.each(WAYS)("watches, $name", ({ connect }) => {
  const etcd = useTestEtcd({ before: beforeAll, after: afterAll }, { listen: true });
  let connected: EtcdClient;
  let spaces = 0;
  beforeAll(() => {
    connected = connect(etcd());
  });
  afterAll(() => connected.close());
  const fresh = (): EtcdClient => {
    spaces += 1;
    return connected.namespace(`${spaces}/`);
  };

  it("give what happens from now on", async () => {
    const client = fresh();
    await client.put("a", "before");
    await using watch = client.watch("a", { prefix: true, previous: true });
    const { revision } = await client.put("b", "elsewhere");
    expect(await watch.ready).toBeGreaterThanOrEqual(revision - 1);
    await client.put("a", "1");
    const made = await client.put("a2", "2");
    await client.delete("a");
    const events = (await take(watch, 3)).flatMap((batch) => batch.events);
    expect(events).toMatchObject([
      { type: "put", key: "a", kv: { value: "1", version: 2 }, created: false, previous: { value: "before" } },
      { type: "put", key: "a2", revision: made.revision, created: true, previous: undefined },
      { type: "delete", key: "a", revision: made.revision + 1, previous: { value: "1" } },
    ]);
    expect(watch.position).toBe(made.revision + 2);
  });

  it("give the past, filtered, whole revisions at a time", async () => {
    const client = fresh();
    const { revision } = await client.put("k", "1");
    const { op } = await import("../../src/client/index.ts");
    await client.txn().do(op.put("k1", "1"), op.put("k2", "2"), op.put("other", "3")).commit();
    await client.delete("k", { prefix: true });
    await using all = client.watch("k", { prefix: true, fromRevision: revision });
    const batches = await take(all, 6);
    expect(eventsOf(batches)).toEqual([
      `${revision} put k`,
      `${revision + 1} put k1`,
      `${revision + 1} put k2`,
      `${revision + 2} delete k`,
      `${revision + 2} delete k1`,
      `${revision + 2} delete k2`,
    ]);
    await using puts = client.watch("k", { prefix: true, fromRevision: revision + 1, only: "puts" });
    expect(eventsOf(await take(puts, 2))).toEqual([`${revision + 1} put k1`, `${revision + 1} put k2`]);
    await using deletes = client.watch("k1", { fromRevision: revision, only: "deletes" });
    expect(eventsOf(await take(deletes, 1))).toEqual([`${revision + 2} delete k1`]);
  });

  it("end when their loop is left", async () => {
    const client = fresh();
    const watch = client.watch("k", { prefix: true });
    await watch.ready;
    await client.put("k", "1");
    for await (const { events } of watch) {
      expect(events).toHaveLength(1);
      break;
    }
    expect(await watch.next()).toEqual({ done: true, value: undefined });
  });

  it("end with their signal, with the reason of a refusal, and with `compacted`", async () => {
    const client = fresh();
    const controller = new AbortController();
    const watch = client.watch("k", { signal: controller.signal });
    const next = failureOf(watch.next());
    controller.abort();
    expect((await next).reason).toBe("canceled");
    expect((await failureOf(watch.next())).reason).toBe("canceled");

    expect(await failureOf(client.watch("b", { end: "a" }).next())).toMatchObject({ message: "mvcc: watcher range is empty" });

    const { revision } = await client.put("k", "1");
    await client.put("k", "2");
    const latest = await client.put("k", "3");
    await client.compact(latest.revision);
    const old = client.watch("k", { fromRevision: revision });
    expect(await failureOf(old.next())).toMatchObject({ reason: "compacted", requested: revision, compacted: latest.revision });
    await using still = client.watch("k", { fromRevision: latest.revision });
    expect(eventsOf(await take(still, 1))).toEqual([`${latest.revision} put k`]);
  });

  it("lose nothing when their consumer is slow", async () => {
    const client = fresh();
    const { revision } = await client.put("k", "0");
    await using watch = client.watch("k", { fromRevision: revision, bufferedEventsMax: 10 });
    await watch.ready;
    for (let i = 1; i <= 200; i += 1) await client.put("k", String(i));
    const batches = await take(watch, 201);
    expect(batches.flatMap(({ events }) => events.map((event) => (event.type === "put" ? event.kv.value : "")))).toEqual(
      Array.from({ length: 201 }, (_, i) => String(i)),
    );
  });

  it("bring large revisions in one piece", async () => {
    const client = fresh();
    const { op } = await import("../../src/client/index.ts");
    const value = "x".repeat(20_000);
    const { revision } = await client
      .txn()
      .do(...Array.from({ length: 60 }, (_, i) => op.put(`k${i}`, value)))
      .commit();
    await client
      .txn()
      .do(...Array.from({ length: 60 }, (_, i) => op.put(`k${i}`, value)))
      .commit();
    await using watch = client.watch("k", { prefix: true, fromRevision: revision, previous: true });
    const batches = await take(watch, 120);
    for (const batch of batches) {
      const revisions = new Map<number, number>();
      for (const event of batch.events) revisions.set(event.revision, (revisions.get(event.revision) ?? 0) + 1);
      expect([...revisions.values()].every((count) => count === 60)).toBe(true);
    }
  });

  it("keep views up to date", async () => {
    const client = fresh();
    for (let i = 0; i < 30; i += 1) await client.put(`v/${i}`, String(i));
    await using view = client.view("v/");
    await view.ready;
    expect(view.size).toBe(30);
    expect(view.list().map((kv) => kv.key)).toEqual([...view.list()].map((kv) => kv.key).sort());
    const changes: string[] = [];
    view.onChange(({ events }) => {
      changes.push(...events.map((event) => `${event.type} ${event.key}`));
      // The view shows the change already.
      for (const event of events) expect(view.has(event.key)).toBe(event.type === "put");
    });
    await client.put("v/new", "1");
    const { revision } = await client.delete("v/0");
    await view.atLeast(revision);
    expect(changes).toEqual(["put v/new", "delete v/0"]);
    expect(view.get("v/new")?.value).toBe("1");
    expect(view.get("v/0")).toBeUndefined();
    // Revisions that bring nothing for the view.
    const elsewhere = await client.put("w", "1");
    expect((await view.atLeast(elsewhere.revision)).revision).toBeGreaterThanOrEqual(elsewhere.revision);
    expect(view.size).toBe(30);
    const late = failureOf(view.atLeast(elsewhere.revision + 1000, { timeoutMs: 50 }));
    expect((await late).reason).toBe("deadline-exceeded");
    view.close();
    expect((await view.ended).reason).toBe("client-closed");
    expect((await failureOf(view.atLeast(1))).reason).toBe("client-closed");
  });
});

describe("a watch that is cut again and again", () => {
  it("gives every event exactly once, wherever it is cut", async () => {
    await using etcd = await startTestEtcd();
    const faults: Faults = {};
    let left = 0;
    let sessions = 0;
    faults.onWatch = () => {
      sessions += 1;
    };
    // After the creation, then after one, two, three more responses, and so on, round and round.
    faults.breakWatchAfter = () => {
      left = (left + 1) % 7;
      return left + 1;
    };
    const client = clientOver({
      endpoints: ["test"],
      transport: faultyMembers([{ name: "test", services: () => etcd.server.services }], faults),
    });
    await using watch = client.watch("k", { prefix: true });
    await using view = client.view("k");
    await Promise.all([watch.ready, view.ready]);
    const written: string[] = [];
    const writer = (async () => {
      for (let i = 0; i < 300; i += 1) {
        const { revision } = await etcd.client.put(`k${i % 5}`, String(i));
        written.push(`${revision} put k${i % 5}`);
        // Now and then everything is idle, so that the cut comes between two events.
        if (i % 10 === 0) await eventually("a few sessions", () => sessions > i / 10);
      }
    })();
    const batches = await take(watch, 300);
    await writer;
    expect(eventsOf(batches)).toEqual(written);
    const { revision } = await etcd.client.put("end", "");
    await view.atLeast(revision);
    expect(view.list().map((kv) => kv.value)).toEqual(["295", "296", "297", "298", "299"]);
    expect(sessions).toBeGreaterThanOrEqual(30);
    client.close();
  });

  it("survives compaction with a typed signal, a view with a new reading", async () => {
    await using etcd = await startTestEtcd();
    const faults: Faults = {};
    let cut = false;
    faults.refuse = () => cut;
    const members = [{ name: "test", services: () => etcd.server.services }];
    const client = clientOver({ endpoints: ["test"], transport: faultyMembers(members, faults), watchSilenceMs: 200 });
    await etcd.client.put("k1", "1");
    await etcd.client.put("k2", "2");
    const watch = client.watch("k", { prefix: true });
    await using view = client.view("k");
    await Promise.all([watch.ready, view.ready]);
    const changes: unknown[] = [];
    view.onChange(({ events, resynchronized }) =>
      changes.push({ resynchronized, events: events.map((event) => `${event.type} ${event.key}`) }),
    );
    let silent = true;
    faults.silent = () => silent;
    cut = true;
    await etcd.client.put("k1", "changed");
    await etcd.client.delete("k2");
    await etcd.client.put("k3", "3");
    const { revision } = await etcd.client.put("elsewhere", "");
    await etcd.client.compact(revision);
    // The member answers nothing until the client has left it.
    const failing = failureOf(watch.next());
    await new Promise((resolve) => setTimeout(resolve, 300));
    silent = false;
    cut = false;
    expect(await failing).toMatchObject({ reason: "compacted", compacted: revision });
    await view.atLeast(revision);
    expect(view.list().map((kv) => `${kv.key}=${kv.value}`)).toEqual(["k1=changed", "k3=3"]);
    expect(changes).toEqual([{ resynchronized: true, events: ["put k1", "put k3", "delete k2"] }]);
    client.close();
  });
});

describe("a watch on a cluster", () => {
  const cluster = useTestCluster({ before: beforeAll, after: afterAll });

  it("shares one stream with the others of its client", async () => {
    let sessions = 0;
    const members = cluster().names.map((name) => ({ name, services: () => cluster().member(name).services }));
    const client = clientOver({
      endpoints: cluster().names,
      transport: faultyMembers(members, {
        onWatch: () => {
          sessions += 1;
        },
      }),
    });
    const watches = Array.from({ length: 50 }, (_, i) => client.watch(`shared/${i}`));
    await Promise.all(watches.map((watch) => watch.ready));
    expect(sessions).toBe(1);
    await client.put("shared/7", "x");
    expect((await (watches[7] as Watcher).next()).value?.events).toHaveLength(1);
    for (const watch of watches) watch.close();
    await eventually("no watcher is left", () => cluster().names.every((name) => cluster().member(name).server.hub.stats.watchers === 0));
    client.close();
  });

  it("leaves a member that has gone silent", async () => {
    const quiet = new Set<string>();
    const opened: string[] = [];
    const members = cluster().names.map((name) => ({ name, services: () => cluster().member(name).services }));
    const client = clientOver({
      endpoints: cluster().names,
      transport: faultyMembers(members, { silent: (endpoint) => quiet.has(endpoint), onWatch: (endpoint) => opened.push(endpoint) }),
      watchSilenceMs: 300,
    });
    await using watch = client.watch("silent", { prefix: true });
    await watch.ready;
    const [first = ""] = opened;
    // Silence alone is no reason as long as questions are answered.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect(opened).toEqual([first]);
    quiet.add(first);
    const { revision } = await client.put("silent/1", "x");
    expect((await watch.next()).value?.revision).toBe(revision);
    expect(opened.length).toBeGreaterThan(1);
    expect(opened.at(-1)).not.toBe(first);
    client.close();
  });

  it("asks what must be answered when progress cannot be told", async () => {
    const opened: string[] = [];
    const members = cluster().names.map((name) => ({ name, services: () => cluster().member(name).services }));
    const client = clientOver({
      endpoints: cluster().names,
      transport: faultyMembers(members, { onWatch: (endpoint) => opened.push(endpoint) }),
      watchSilenceMs: 600,
    });
    // A revision far in the future: progress requests stay without an answer.
    await using watch = client.watch("future", { fromRevision: 1_000_000 });
    await watch.ready;
    await using other = client.watch("now");
    await using view = client.view("view/");
    await Promise.all([other.ready, view.ready]);
    await new Promise((resolve) => setTimeout(resolve, 2000));
    expect(opened).toHaveLength(1);
    const { revision } = await client.put("elsewhere", "x");
    expect((await view.atLeast(revision)).revision).toBeGreaterThanOrEqual(revision);
    client.close();
  });

  it("leaves a member without a leader and goes on without a gap", async () => {
    const lonely = await cluster().follower();
    const majority = cluster().names.filter((name) => name !== lonely);
    const client = cluster().newClient(...majority);
    const other = cluster().newClient(lonely, ...majority);
    await using watch = other.watch("p/", { prefix: true });
    await watch.ready;
    const written: string[] = [];
    for (let i = 0; i < 20; i += 1) {
      if (i === 5) cluster().partition([lonely], majority);
      await client.put(`p/${i}`, "x");
      written.push(`p/${i}`);
    }
    const seen = new Set<string>();
    while (seen.size < 20) for (const event of (await watch.next()).value?.events ?? []) seen.add(event.key);
    expect([...seen]).toEqual(written);
    cluster().heal();
  });

  it("goes on when its member is killed", async () => {
    const { client } = cluster();
    await cluster().leader();
    await using watch = client.watch("kill/", { prefix: true });
    await using view = client.view("kill/");
    await Promise.all([watch.ready, view.ready]);
    const revisions: number[] = [];
    for (const [i, name] of cluster().names.entries()) {
      await cluster().kill(name);
      await cluster().leader();
      const { revision } = await client.put(`kill/${i}`, name, { retry: "always", timeoutMs: 20_000 });
      revisions.push(revision);
      await cluster().restart(name);
      await cluster().leader();
    }
    const seen: string[] = [];
    while (seen.length < 3)
      for (const event of (await watch.next()).value?.events ?? []) if (!seen.includes(event.key)) seen.push(event.key);
    expect(seen).toEqual(["kill/0", "kill/1", "kill/2"]);
    await view.atLeast(Math.max(...revisions));
    expect(view.list().map((kv) => kv.value)).toEqual([...cluster().names]);
  });
});

describe("a watch that is refused", () => {
  it("does not try forever what cannot succeed", async () => {
    await using etcd = await startTestEtcd();
    const members = [{ name: "test", services: () => etcd.server.services }];
    const transport = faultyMembers(members, {});
    const refusing = {
      ...transport,
      connect: (endpoint: string) => {
        const channel = transport.connect(endpoint);
        channel.watch = () => {
          throw new UnavailableError({ endpoint, requestSent: false, message: "gone" });
        };
        return channel;
      },
    };
    const client = clientOver({ endpoints: ["test"], transport: refusing });
    const watch = client.watch("k");
    const next = failureOf(watch.next());
    await new Promise((resolve) => setTimeout(resolve, 200));
    client.close();
    expect((await next).reason).toBe("client-closed");
  });
});
