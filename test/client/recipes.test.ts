import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ElectionService } from "../../src/api/index.ts";
import {
  Barrier,
  Counter,
  type Isolation,
  leaderOf,
  observeLeader,
  openSession,
  PriorityQueue,
  Queue,
  runWhileLeader,
  Sequence,
  ServiceRegistry,
  type Session,
  stm,
  type Transaction,
} from "../../src/client/concurrency/index.ts";
import { type EtcdClient, json, localClient, op } from "../../src/client/index.ts";
import { startTestEtcd, useTestCluster, useTestEtcd } from "../../src/testing/index.ts";
import { eventually, failureOf, WAYS } from "./support.ts";

async function keysOf(client: EtcdClient, prefix: string): Promise<string[]> {
  return (await client.range(prefix, { prefix: true })).kvs.map((kv) => kv.key);
}

describe.each(WAYS)("recipes, $name", ({ connect }) => {
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

  it("elect a leader who proclaims, resigns and is observed", async () => {
    const client = fresh();
    const [a, b] = await Promise.all([1, 2].map(() => openSession(client, { ttlSeconds: 30 })));
    if (a === undefined || b === undefined) throw new Error("two sessions");
    const seen: string[] = [];
    const stop = new AbortController();
    const observing = (async () => {
      for await (const { value } of observeLeader(client, "el", { signal: stop.signal })) seen.push(value);
    })();
    expect(await leaderOf(client, "el")).toBeUndefined();
    const first = await a.election("el").campaign("a");
    expect(await keysOf(client, "el/")).toEqual([`el/${a.suffix}`]);
    const second = b.election("el").campaign("b");
    await eventually("b stands for election", async () => (await keysOf(client, "el/")).length === 2);
    expect(await a.election("el").leader()).toMatchObject({ value: "a", token: first.token, lease: a.lease.id });
    await first.proclaim("a2");
    await eventually("the second value is seen", () => seen.at(-1) === "a2");
    await first.txn().do(op.put("work", "done")).commit();
    expect(await first.resign()).toBe(true);
    const won = await second;
    expect(won.token).toBeGreaterThan(first.token);
    await eventually("the second leader is seen", () => seen.at(-1) === "b");
    expect((await failureOf(first.proclaim("late"))).reason).toBe("lock-lost");
    expect((await failureOf(first.txn().do(op.put("work", "late")).commit())).reason).toBe("lock-lost");
    expect(await leaderOf(client, "el")).toMatchObject({ value: "b" });
    await b.close();
    expect(won.signal.aborted).toBe(true);
    expect(seen).toEqual(["a", "a2", "b"]);
    stop.abort();
    expect((await failureOf(observing)).reason).toBe("canceled");
    await a.close();
    expect(await keysOf(client, "el/")).toEqual([]);
  });

  it("share elections with the Election service", async () => {
    const client = connected;
    const name = new TextEncoder().encode("el-service");
    const { id } = await client.leases.grant({ ttlSeconds: 30 });
    const { leader } = await client.call(ElectionService.campaign, { name, lease: id, value: new TextEncoder().encode("service") });
    expect(await leaderOf(client, "el-service")).toMatchObject({ value: "service", token: leader?.rev });
    const session = await openSession(client, { ttlSeconds: 30 });
    const campaign = session.election("el-service").campaign("node");
    await eventually("it stands for election", async () => (await keysOf(client, "el-service/")).length === 2);
    await client.call(ElectionService.resign, { leader });
    await (await campaign).proclaim("now");
    const answer = await client.call(ElectionService.leader, { name });
    expect(new TextDecoder().decode(answer.kv?.value)).toBe("now");
    await session.close();
    await client.leases.revoke(id);
  });

  it("queue first in, first out, and by priority, each item once", async () => {
    const client = fresh();
    const queue = new Queue(client, "q");
    expect(await queue.tryDequeue()).toBeUndefined();
    const taken: string[] = [];
    const takers = Array.from({ length: 4 }, async (_, i) => {
      const own = i % 2 === 0 ? queue : new Queue(client, "q");
      for (let n = 0; n < 10; n += 1) taken.push((await own.dequeue()).value);
    });
    for (let i = 0; i < 40; i += 1) expect(await queue.enqueue(String(i))).toMatch(/^q\/\d{19}$/);
    await Promise.all(takers);
    expect([...taken].sort((a, b) => Number(a) - Number(b))).toEqual(Array.from({ length: 40 }, (_, i) => String(i)));
    expect(await queue.size()).toBe(0);
    expect((await failureOf(queue.dequeue({ timeoutMs: 30 }))).reason).toBe("deadline-exceeded");
    for (const value of ["a", "b", "c"]) await queue.enqueue(value);
    expect([(await queue.dequeue()).value, (await queue.dequeue()).value, (await queue.dequeue()).value]).toEqual(["a", "b", "c"]);

    const priorities = new PriorityQueue(client.withValues(json<{ n: number }>()), "pq");
    const keys = [];
    for (const [n, priority] of [
      [1, 500],
      [2, 3],
      [3, 500],
      [4, 0],
    ] as const) {
      keys.push(await priorities.enqueue({ n }, priority));
    }
    expect(keys).toEqual([
      "pq/00500/0000000000000000",
      "pq/00003/0000000000000000",
      "pq/00500/0000000000000001",
      "pq/00000/0000000000000000",
    ]);
    const order = [];
    for (let i = 0; i < 4; i += 1) order.push((await priorities.dequeue()).value.n);
    expect(order).toEqual([4, 2, 1, 3]);
    await Promise.all(Array.from({ length: 20 }, (_, n) => priorities.enqueue({ n }, 7)));
    expect(await priorities.size()).toBe(20);
    expect((await failureOf(priorities.enqueue({ n: 0 }, 70_000))).reason).toBe("invalid-use");
  });

  it("hold back and let through", async () => {
    const client = fresh();
    const barrier = new Barrier(client, "bar");
    await barrier.wait();
    await barrier.hold();
    expect((await failureOf(new Barrier(client, "bar").hold())).reason).toBe("barrier-held");
    expect((await failureOf(barrier.wait({ timeoutMs: 30 }))).reason).toBe("deadline-exceeded");
    const waiting = [1, 2, 3].map(() => new Barrier(client, "bar").wait());
    await barrier.release();
    await Promise.all(waiting);
    await barrier.release();
  });

  it("let a number of participants begin and end together", async () => {
    const client = fresh();
    const sessions = await Promise.all(Array.from({ length: 4 }, () => openSession(client, { ttlSeconds: 30 })));
    const [late, ...others] = sessions.map((session) => session.doubleBarrier("db", 4));
    if (late === undefined) throw new Error("four sessions");
    const steps: string[] = [];
    const running = others.map(async (barrier) => {
      await barrier.enter();
      steps.push("in");
      await barrier.leave();
      steps.push("out");
    });
    await eventually("three wait", async () => (await keysOf(client, "db/waiters/")).length === 3);
    expect(steps).toEqual([]);
    await late.enter();
    expect((await failureOf((sessions[0] as Session).doubleBarrier("db", 4).enter())).reason).toBe("too-many-clients");
    await eventually("all are in", () => steps.length === 3);
    expect(steps).toEqual(["in", "in", "in"]);
    await late.leave();
    await Promise.all(running);
    expect(steps.slice(3)).toEqual(["out", "out", "out"]);
    expect(await keysOf(client, "db/")).toEqual([]);
    // Giving up leaves no place taken; a participant that dies does not keep the others from leaving.
    expect((await failureOf(late.enter({ timeoutMs: 30 }))).reason).toBe("deadline-exceeded");
    await eventually("the place is free", async () => (await keysOf(client, "db/waiters/")).length === 0);
    await Promise.all([late, ...others].map((barrier) => barrier.enter()));
    await (sessions[0] as Session).close();
    await Promise.all(others.map((barrier) => barrier.leave()));
    for (const session of sessions) await session.close();
    expect((await failureOf(late.leave())).reason).toBe("lease-lost");
  });

  it("count, and give numbers out once", async () => {
    const client = fresh();
    const counter = new Counter(client, "n");
    expect(await counter.value()).toBe(0);
    await Promise.all(Array.from({ length: 20 }, () => new Counter(client, "n").add(2)));
    expect(await counter.add(-1)).toBe(39);
    expect((await failureOf(counter.add(0.5))).reason).toBe("invalid-use");
    const sequences = [new Sequence(client, "s"), new Sequence(client, "s", { block: 10 })];
    const numbers = await Promise.all(Array.from({ length: 100 }, (_, i) => sequences[i % 2]?.next()));
    expect(new Set(numbers).size).toBe(100);
    expect(await Promise.all([sequences[0]?.next(), sequences[0]?.next()])).toEqual([expect.any(Number), expect.any(Number)]);
    await client.put("n", "nonsense");
    expect((await failureOf(counter.add(1))).reason).toBe("bad-answer");
  });

  it("run transactions until they meet no conflict, at every level", async () => {
    const client = fresh();
    for (const isolation of ["serializable-snapshot", "serializable", "repeatable-reads"] as const) {
      const results = await Promise.all(
        Array.from({ length: 20 }, () =>
          stm(
            client,
            async (tx) => {
              const n = Number((await tx.get(isolation)) ?? 0) + 1;
              tx.put(isolation, String(n));
              // It sees its own writes.
              expect(await tx.get(isolation)).toBe(String(n));
              return n;
            },
            { isolation },
          ),
        ),
      );
      expect(results.map(({ value }) => value).sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
    }
    await stm(client, async (tx) => {
      // Of what is stored, not of what it is about to write.
      const { modRevision } = (await client.get("serializable")) ?? { modRevision: -1 };
      expect([await tx.revision("serializable"), await tx.revision("nothing")]).toEqual([modRevision, 0]);
      tx.put("serializable", "1");
      expect(await tx.revision("serializable")).toBe(modRevision);
    });
    await stm(client, (tx) => tx.delete("serializable"));
    expect(await client.get("serializable")).toBeUndefined();
    expect((await stm(client, (tx) => tx.get("nothing"))).value).toBeUndefined();
    await expect(
      stm(client, (tx) => {
        tx.put("never", "1");
        throw new Error("of the program");
      }),
    ).rejects.toThrow("of the program");
    expect(await client.get("never")).toBeUndefined();
    const error = await failureOf(
      stm(
        client,
        async (tx) => {
          await tx.get("contested");
          await client.put("contested", "somebody else");
          tx.put("contested", "mine");
        },
        { attemptsMax: 3 },
      ),
    );
    expect(error).toMatchObject({ reason: "stm-conflict", attempts: 3 });
  });

  it("read one revision, or the same again, by level", async () => {
    const client = fresh();
    const both = async (isolation: Isolation) => {
      await client.put("x", "0");
      await client.put("y", "0");
      let meddled = false;
      const { value, attempts } = await stm(
        client,
        async (tx) => {
          const x = await tx.get("x");
          if (!meddled) {
            meddled = true;
            await client.txn().do(op.put("x", "1"), op.put("y", "1")).commit();
          }
          return [x, await tx.get("y"), await tx.get("x")];
        },
        { isolation },
      );
      return { value, attempts };
    };
    expect(await both("serializable-snapshot")).toEqual({ value: ["0", "0", "0"], attempts: 1 });
    expect(await both("serializable")).toEqual({ value: ["0", "0", "0"], attempts: 1 });
    expect(await both("repeatable-reads")).toEqual({ value: ["1", "1", "1"], attempts: 2 });
    expect(await both("read-committed")).toEqual({ value: ["0", "1", "1"], attempts: 1 });
    // Who writes what another has read, and the other way round: one of them must run again.
    await client.put("x", "0");
    await client.put("y", "0");
    let other = 0;
    const { attempts } = await stm(client, async (tx) => {
      const y = await tx.get("y");
      if (other === 0) {
        other += 1;
        await stm(client, async (inner) => inner.put("y", String(Number(await inner.get("x")) + 1)));
      }
      tx.put("x", String(Number(y) + 1));
    });
    expect(attempts).toBe(2);
    expect([(await client.get("x"))?.value, (await client.get("y"))?.value]).toEqual(["2", "1"]);
  });

  it("announce services that are well, and find them", async () => {
    const client = fresh();
    const registry = new ServiceRegistry(client);
    let well = true;
    await using view = registry.discover("svc");
    await view.ready;
    expect(view.pick()).toBeUndefined();
    const waiting = view.waitForOne();
    const a = registry.register("svc", { address: "10.0.0.1:80", metadata: { weight: 1 } });
    const b = registry.register("svc", { id: "b", address: "10.0.0.2:80", health: () => well, healthEveryMs: 20 });
    await Promise.all([a.ready, b.ready]);
    expect((await waiting).address).toMatch(/^10\.0\.0\./);
    await eventually("both are found", () => view.list().length === 2);
    expect(await client.get("svc/b")).toMatchObject({ value: '{"Op":0,"Addr":"10.0.0.2:80","Metadata":null}' });
    expect(new Set([view.pick()?.id, view.pick()?.id])).toEqual(new Set(["10.0.0.1:80", "b"]));
    well = false;
    await eventually("the ill one is gone", () => view.list().length === 1);
    well = true;
    await eventually("it is back", () => view.list().length === 2);
    a.update({ weight: 2 });
    await eventually("the metadata is new", () => (view.list()[0]?.metadata as { weight: number } | undefined)?.weight === 2);
    await client.put("svc/other", "not of this form");
    await a.close();
    await b.close();
    await eventually("nobody is left", () => view.list().length === 0);
    expect(await etcd().client.leases.list()).toEqual([]);
  });
});

describe("recipes used wrongly", () => {
  const etcd = useTestEtcd({ before: beforeAll, after: afterAll });
  const unhandled: unknown[] = [];
  const onUnhandled = (reason: unknown): void => void unhandled.push(reason);
  beforeAll(() => void process.on("unhandledRejection", onUnhandled));
  afterAll(async () => {
    await new Promise((resolve) => setImmediate(resolve));
    process.removeListener("unhandledRejection", onUnhandled);
    expect(unhandled).toEqual([]);
    expect(await etcd().client.leases.list()).toEqual([]);
    expect(await etcd().client.count("", { prefix: true })).toBe(0);
  });

  it("say that their session is closed", async () => {
    const session = await openSession(etcd().client);
    const held = await session.mutex("m").lock();
    const leadership = await session.election("e").campaign("me");
    const inside = session.doubleBarrier("one", 1);
    await inside.enter();
    await session.close();
    await session.close();
    const after: Promise<unknown>[] = [
      session.mutex("m").lock(),
      session.mutex("m").tryLock(),
      session.rwMutex("rw").readLock(),
      session.rwMutex("rw").writeLock(),
      session.withLock("m", () => "never"),
      session.election("e").campaign("me"),
      session.doubleBarrier("db", 1).enter(),
      inside.leave(),
    ];
    for (const call of after) expect((await failureOf(call)).reason).toBe("lease-lost");
    expect((await failureOf(held.unlock())).reason).toBe("lock-lost");
    expect((await failureOf(leadership.proclaim("still"))).reason).toBe("lock-lost");
    expect(await leadership.resign()).toBe(false);
    await etcd().client.delete("one/", { prefix: true });
  });

  it("say that their client is closed", async () => {
    const client = localClient({ members: [{ name: "test", services: () => etcd().server.services }], clock: etcd().clock });
    const session = await openSession(client, { ttlSeconds: 5 });
    const held = await session.mutex("m").lock();
    const queue = new Queue(client, "q", { session });
    const view = new ServiceRegistry(client).discover("svc");
    await view.ready;
    const waiting = [queue.dequeue(), view.waitForOne(), session.doubleBarrier("db", 2).enter()].map(failureOf);
    await new Promise((resolve) => setImmediate(resolve));
    client.close();
    for (const { reason } of await Promise.all(waiting)) expect(["client-closed", "lease-lost"]).toContain(reason);
    const after: Promise<unknown>[] = [
      openSession(client),
      queue.enqueue("x"),
      queue.dequeue(),
      queue.tryDequeue(),
      new PriorityQueue(client, "pq").enqueue("x", 1),
      new Barrier(client, "b").hold(),
      new Barrier(client, "b").wait(),
      new Counter(client, "c").add(1),
      new Sequence(client, "s").next(),
      stm(client, (tx) => tx.get("x")),
      leaderOf(client, "e"),
      observeLeader(client, "e").next(),
      runWhileLeader(client, "e", () => "never"),
      new ServiceRegistry(client).register("svc", { address: "a" }).ready,
    ];
    for (const call of after) expect((await failureOf(call)).reason).toBe("client-closed");
    expect(held.signal.aborted).toBe(true);
    // Nobody gives the lease back any more: it ends by itself, and what hangs on it goes.
    await etcd().advance(10_000);
    await eventually("the lease has ended", async () => (await etcd().client.leases.list()).length === 0);
  });

  it("leave nothing behind when a wait is aborted", async () => {
    const { client } = etcd();
    const [first, second] = await Promise.all([openSession(client), openSession(client)]);
    const held = await first.mutex("m").lock();
    const leadership = await first.election("e").campaign("first");
    const write = await first.rwMutex("rw").writeLock();
    const barrier = new Barrier(client, "b");
    await barrier.hold();
    const stop = new AbortController();
    // One each: a runtime warns of signals that many listen to.
    const options = (): { signal: AbortSignal } => ({ signal: AbortSignal.any([stop.signal]) });
    const provider = new ServiceRegistry(client).discover("svc");
    const waiting = [
      second.mutex("m").lock(options()),
      second.withLock("m", () => "never", options()),
      second.rwMutex("rw").readLock(options()),
      second.rwMutex("rw").writeLock(options()),
      second.election("e").campaign("second", options()),
      second.doubleBarrier("db", 2).enter(options()),
      barrier.wait(options()),
      new Queue(client, "q").dequeue(options()),
      new PriorityQueue(client, "pq").dequeue(options()),
      provider.waitForOne(options()),
      runWhileLeader(client, "e", () => "never", options()),
    ].map(failureOf);
    await eventually("they wait", async () => (await client.count("", { prefix: true })) >= 9);
    stop.abort(new Error("of the program"));
    for (const error of await Promise.all(waiting)) expect(error).toMatchObject({ reason: "canceled" });
    provider.close();
    for (const one of [held, write]) await one.unlock();
    await leadership.resign();
    await barrier.release();
    await eventually("all keys are gone", async () => (await client.count("", { prefix: true })) === 0);
    await Promise.all([first.close(), second.close()]);
    await eventually("and all leases", async () => (await client.leases.list()).length === 0);
  });

  it("refuse what makes no sense", async () => {
    const { client } = etcd();
    const session = await openSession(client);
    const barrier = session.doubleBarrier("db", 1);
    expect((await failureOf(barrier.leave())).reason).toBe("invalid-use");
    await barrier.enter();
    expect((await failureOf(barrier.enter())).reason).toBe("invalid-use");
    await barrier.leave();
    expect(() => session.doubleBarrier("db", 0)).toThrow(/at least one/);
    expect(() => new Sequence(client, "s", { block: 0 })).toThrow(/at least one/);
    let kept: Transaction | undefined;
    await stm(client, (tx) => {
      kept = tx;
    });
    expect((await failureOf((kept as Transaction).get("x"))).reason).toBe("invalid-use");
    expect(() => kept?.put("x", "1")).toThrow(/is over/);
    expect(() => kept?.delete("x")).toThrow(/is over/);
    await session.close();
  });
});

describe("recipes and time", () => {
  it("a provider that dies disappears; one that lost its lease comes back", async () => {
    await using etcd = await startTestEtcd();
    const registry = new ServiceRegistry(etcd.client);
    const provider = registry.register("svc", { address: "a", ttlSeconds: 5 });
    await provider.ready;
    const [lease = 0n] = await etcd.client.leases.list();
    await etcd.client.leases.revoke(lease);
    await etcd.advance(10_000);
    await eventually("it is announced anew", async () => (await etcd.client.get("svc/a")) !== undefined);
    const session = await openSession(etcd.client, { ttlSeconds: 5 });
    await etcd.client.put("svc/dead", '{"Op":0,"Addr":"dead","Metadata":null}', { lease: session.lease.id });
    session.lease.abandon();
    await using view = registry.discover("svc");
    await view.ready;
    expect(view.list().map(({ id }) => id)).toEqual(["a", "dead"]);
    await etcd.advance(10_000);
    await eventually("the dead one is gone", () => view.list().length === 1);
    await provider.close();
  });

  it("leadership moves when a leader dies, and its work is told to stop before", async () => {
    await using etcd = await startTestEtcd();
    const log: string[] = [];
    const stop = new AbortController();
    const run = (name: string, client: EtcdClient): Promise<unknown> =>
      failureOf(
        runWhileLeader(
          client,
          "job",
          async ({ signal, txn, proclaim }) => {
            log.push(`${name} leads`);
            await txn().do(op.put("leader", name)).commit();
            await proclaim(`${name} at work`);
            await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
            log.push(`${name} stops`);
          },
          { value: name, ttlSeconds: 5, signal: stop.signal },
        ),
      );
    const first = run("first", etcd.client);
    await eventually("the first one leads", async () => (await leaderOf(etcd.client, "job"))?.value === "first at work");
    const second = run("second", etcd.client);
    await eventually("the second one is a candidate", async () => (await etcd.client.leases.list()).length === 2);
    const key = (await leaderOf(etcd.client, "job"))?.lease ?? 0n;
    // The cluster ends the leader's lease; it learns of that with its next renewal.
    await etcd.client.leases.revoke(key);
    await etcd.advance(10_000);
    await eventually("the second one leads", async () => (await leaderOf(etcd.client, "job"))?.value === "second at work");
    await eventually("the first one has stopped", () => log.includes("first stops"));
    expect(log.slice(0, 3).sort()).toEqual(["first leads", "first stops", "second leads"]);
    stop.abort();
    expect(await Promise.all([first, second])).toMatchObject([{ reason: "canceled" }, { reason: "canceled" }]);
    await eventually("nothing is left", async () => (await etcd.client.leases.list()).length === 0);
    expect(await leaderOf(etcd.client, "job")).toBeUndefined();
    // A function that is done ends it; one that throws, too.
    expect(await runWhileLeader(etcd.client, "job", ({ token }) => token > 0)).toBe(true);
    await expect(
      runWhileLeader(etcd.client, "job", () => {
        throw new Error("of the program");
      }),
    ).rejects.toThrow("of the program");
    expect(await etcd.client.leases.list()).toEqual([]);
  });
});

describe("recipes on a cluster that fails", () => {
  const cluster = useTestCluster({ before: beforeAll, after: afterAll });

  it("transfer money without losing any, whatever happens to the members", async () => {
    const { client } = cluster();
    const accounts = ["a", "b", "c", "d"];
    for (const account of accounts) await client.put(`account/${account}`, "100");
    let stop = false;
    let done = 0;
    const sums: number[] = [];
    const workers = Array.from({ length: 3 }, async (_, worker) => {
      for (let i = 0; !stop && i < 5000; i += 1) {
        const from = accounts[(i + worker) % 4];
        const to = accounts[(i * 3 + worker + 1) % 4];
        if (from === to) continue;
        try {
          await stm(
            client,
            async (tx) => {
              const [a, b] = await Promise.all([tx.get(`account/${from}`), tx.get(`account/${to}`)]);
              tx.put(`account/${from}`, String(Number(a) - 1));
              tx.put(`account/${to}`, String(Number(b) + 1));
            },
            { timeoutMs: 10_000 },
          );
          done += 1;
        } catch (error) {
          expect(error).toHaveProperty("reason");
        }
      }
    });
    const auditor = (async () => {
      while (!stop) {
        try {
          const { value } = await stm(client, async (tx) => Promise.all(accounts.map((account) => tx.get(`account/${account}`))), {
            timeoutMs: 10_000,
          });
          sums.push(value.reduce((sum, balance) => sum + Number(balance), 0));
        } catch (error) {
          expect(error).toHaveProperty("reason");
        }
      }
    })();
    for (let round = 0; round < 2; round += 1) {
      await eventually("some transfers", () => done > 20 * (round + 1));
      const leader = await cluster().leader();
      await cluster().kill(leader);
      await cluster().leader();
      await cluster().restart(leader);
    }
    const before = done;
    await eventually("more transfers", () => done > before + 20);
    stop = true;
    await Promise.all([...workers, auditor]);
    expect(new Set(sums)).toEqual(new Set([400]));
    let sum = 0;
    for (const account of accounts) sum += Number((await client.get(`account/${account}`))?.value);
    expect(sum).toBe(400);
  }, 60_000);
});

describe("a model of transactions", () => {
  it("agrees with the store whatever they read and write", async () => {
    await using etcd = await startTestEtcd();
    const step = fc.oneof(
      fc.record({ do: fc.constant("get" as const), key: fc.constantFrom("a", "b", "c") }),
      fc.record({ do: fc.constant("put" as const), key: fc.constantFrom("a", "b", "c"), value: fc.string() }),
      fc.record({ do: fc.constant("delete" as const), key: fc.constantFrom("a", "b", "c") }),
    );
    let run = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(step, { maxLength: 6 }), { maxLength: 6 }),
        fc.constantFrom<Isolation>("serializable-snapshot", "serializable", "repeatable-reads", "read-committed"),
        async (transactions, isolation) => {
          run += 1;
          const client = etcd.client.namespace(`model/${run}/`);
          const model = new Map<string, string>();
          for (const steps of transactions) {
            await stm(
              client,
              async (tx) => {
                for (const one of steps) {
                  if (one.do === "get") expect(await tx.get(one.key)).toBe(model.get(one.key));
                  else if (one.do === "put") {
                    tx.put(one.key, one.value);
                    model.set(one.key, one.value);
                  } else {
                    tx.delete(one.key);
                    model.delete(one.key);
                  }
                }
              },
              { isolation },
            );
          }
          const { kvs } = await client.range("", { prefix: true });
          expect(new Map(kvs.map((kv) => [kv.key, kv.value]))).toEqual(new Map([...model].sort()));
        },
      ),
      { numRuns: 60 },
    );
  });
});
