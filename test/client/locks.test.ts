import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LockService } from "../../src/api/index.ts";
import { clientOver } from "../../src/client/client.ts";
import { LockLostError, openSession, type Session, withLock } from "../../src/client/concurrency/index.ts";
import { compare, type EtcdClient, op } from "../../src/client/index.ts";
import { startTestEtcd, useTestCluster, useTestEtcd } from "../../src/testing/index.ts";
import { eventually, failureOf, faultyMembers, WAYS } from "./support.ts";

async function keysOf(client: EtcdClient, prefix: string): Promise<string[]> {
  return (await client.range(prefix, { prefix: true })).kvs.map((kv) => kv.key);
}

describe.each(WAYS)("locks, $name", ({ connect }) => {
  const etcd = useTestEtcd({ before: beforeAll, after: afterAll }, { listen: true });
  let client: EtcdClient;
  let sessions: Session[];
  let names = 0;
  beforeAll(async () => {
    client = connect(etcd());
    sessions = await Promise.all([1, 2, 3].map(() => openSession(client, { ttlSeconds: 30 })));
  });
  afterAll(async () => {
    for (const session of sessions) await session.close();
    expect(await etcd().client.leases.list()).toEqual([]);
    client.close();
  });
  const fresh = (): string => {
    names += 1;
    return `lock-${names}`;
  };
  const session = (i: number): Session => sessions[i] as Session;

  it("let one in at a time, with growing tokens", async () => {
    const name = fresh();
    let inside = 0;
    const tokens: number[] = [];
    await Promise.all(
      Array.from({ length: 12 }, (_, i) =>
        session(i % 3).withLock(name, async ({ token, txn, signal }) => {
          inside += 1;
          expect(inside).toBe(1);
          expect(signal.aborted).toBe(false);
          tokens.push(token);
          const n = Number((await client.get(`${name}-n`))?.value ?? 0);
          await txn()
            .do(op.put(`${name}-n`, String(n + 1)))
            .commit();
          inside -= 1;
        }),
      ),
    );
    expect((await client.get(`${name}-n`))?.value).toBe("12");
    expect(tokens).toEqual([...tokens].sort((a, b) => a - b));
    expect(new Set(tokens).size).toBe(12);
    await eventually("no key is left", async () => (await keysOf(client, `${name}/`)).length === 0);
  });

  it("lie where etcd's own recipe puts them, and exclude the Lock service", async () => {
    const name = fresh();
    const held = await session(0).mutex(name).lock();
    expect(await keysOf(client, `${name}/`)).toEqual([`${name}/${session(0).suffix}`]);
    expect(held.key).toBe(`${name}/${session(0).lease.id.toString(16)}`);
    expect(await client.get(held.key)).toMatchObject({ value: "", createRevision: held.token, lease: session(0).lease.id });
    // The service waits until it is its turn, and a mutex waits for the service.
    const { id } = await client.leases.grant({ ttlSeconds: 30 });
    let served = false;
    const service = etcd()
      .client.call(LockService.lock, { name: new TextEncoder().encode(name), lease: id }, { timeoutMs: 20_000 })
      .then((answer) => {
        served = true;
        return answer;
      });
    await eventually("the service stands in line", async () => (await keysOf(client, `${name}/`)).length === 2);
    expect(served).toBe(false);
    const second = session(1).mutex(name).lock();
    await eventually("the second stands in line", async () => (await keysOf(client, `${name}/`)).length === 3);
    await held.unlock();
    const { key } = await service;
    expect(new TextDecoder().decode(key)).toBe(`${name}/${id.toString(16)}`);
    await etcd().client.call(LockService.unlock, { key });
    await (await second).unlock();
    await client.leases.revoke(id);
  });

  it("can be tried, and waited for with patience or without", async () => {
    const name = fresh();
    const first = await session(0).mutex(name).tryLock();
    expect(first).toBeDefined();
    expect(await session(1).mutex(name).tryLock()).toBeUndefined();
    await eventually("the attempt left no key", async () => (await keysOf(client, `${name}/`)).length === 1);
    expect((await failureOf(session(1).mutex(name).lock({ timeoutMs: 50 }))).reason).toBe("deadline-exceeded");
    const controller = new AbortController();
    const waiting = failureOf(session(1).mutex(name).lock({ signal: controller.signal }));
    await eventually("it stands in line", async () => (await keysOf(client, `${name}/`)).length === 2);
    controller.abort();
    expect((await waiting).reason).toBe("canceled");
    await eventually("no waiter left a key", async () => (await keysOf(client, `${name}/`)).length === 1);
    // Waiters of the same session, too.
    const own = failureOf(session(0).mutex(name).lock({ timeoutMs: 50 }));
    expect((await own).reason).toBe("deadline-exceeded");
    await first?.unlock();
    await (await session(0).mutex(name).lock({ timeoutMs: 5000 })).unlock();
    expect((await failureOf(session(0).mutex(name).lock({ signal: AbortSignal.abort() }))).reason).toBe("canceled");
  });

  it("complain about a second unlock, once", async () => {
    const held = await session(0).mutex(fresh()).lock();
    await held.unlock();
    expect(await failureOf(held.unlock())).toMatchObject({
      reason: "mutex-lock-released",
      message: "mutex: lock has already been released",
    });
    expect(await held.release()).toBe(false);
    expect(held.signal.aborted).toBe(true);
    expect((await failureOf(held.txn().do(op.put("x", "1")).commit())).reason).toBe("lock-lost");
    // Another one was not harmed by that.
    const name = fresh();
    const other = await session(0).mutex(name).lock();
    await failureOf(held.unlock());
    expect(await keysOf(client, `${name}/`)).toHaveLength(1);
    await other.unlock();
  });

  it("guard what is written when their key is gone", async () => {
    const name = fresh();
    const error = await failureOf(
      session(0).withLock(name, async ({ txn }) => {
        await txn()
          .do(op.put(`${name}-x`, "1"))
          .commit();
        // An operator, or a bug elsewhere.
        await client.delete(`${name}/`, { prefix: true });
        await client.put(`${name}/someone`, "else");
        expect(
          (
            await failureOf(
              txn()
                .do(op.put(`${name}-x`, "2"))
                .commit(),
            )
          ).reason,
        ).toBe("lock-lost");
        // Conditions of the program's own are another matter.
      }),
    );
    expect(error.reason).toBe("lock-lost");
    expect((await client.get(`${name}-x`))?.value).toBe("1");
    await client.delete(`${name}/`, { prefix: true });
    await session(0).withLock(name, async ({ txn }) => {
      const result = await txn()
        .if(compare.value(`${name}-x`, "=", "9"))
        .do(op.put(`${name}-x`, "9"))
        .else(op.get(`${name}-x`))
        .commit();
      expect(result.succeeded).toBe(false);
      if (!result.succeeded) expect(result.results[0]?.value).toBe("1");
      expect(result.revision).toBeGreaterThan(0);
    });
  });

  it("can be given back together with the last writes", async () => {
    const name = fresh();
    const held = await session(0).mutex(name).lock();
    const waiting = session(1).mutex(name).lock();
    const { revision } = await held.finish(op.put(`${name}-x`, "1"), op.put(`${name}-y`, "2"));
    expect(held.finished).toBe(true);
    expect(held.signal.aborted).toBe(true);
    expect((await client.get(`${name}-x`))?.modRevision).toBe(revision);
    expect(await failureOf(held.unlock())).toMatchObject({ reason: "mutex-lock-released" });
    expect(await failureOf(held.finish(op.put(`${name}-x`, "late")))).toMatchObject({ reason: "lock-lost" });
    const next = await waiting;
    expect(next.token).toBeGreaterThan(held.token);
    // Lost meanwhile: then nothing is written.
    await client.delete(next.key);
    expect(await failureOf(next.finish(op.put(`${name}-x`, "lost")))).toMatchObject({ reason: "lock-lost" });
    expect(next.finished).toBe(false);
    expect((await client.get(`${name}-x`))?.value).toBe("1");
    // Many callers of one session: each sees what the one before it wrote.
    await Promise.all(
      Array.from({ length: 20 }, () =>
        session(0).withLock(name, async ({ finish }) => {
          const n = Number((await client.get(`${name}-n`))?.value ?? 0);
          await finish(op.put(`${name}-n`, String(n + 1)));
        }),
      ),
    );
    expect((await client.get(`${name}-n`))?.value).toBe("20");
    expect(await keysOf(client, `${name}/`)).toEqual([]);
  });

  it("are released when the function throws", async () => {
    const name = fresh();
    const failure = new Error("of the program");
    await expect(
      session(0).withLock(name, () => {
        throw failure;
      }),
    ).rejects.toBe(failure);
    expect(await keysOf(client, `${name}/`)).toEqual([]);
    expect(await withLock(client, name, () => "result", { ttlSeconds: 10 })).toBe("result");
    expect(await keysOf(client, `${name}/`)).toEqual([]);
  });

  it("share reading and exclude writing", async () => {
    const name = fresh();
    const [a, b, c] = sessions.map((one) => one.rwMutex(name));
    if (a === undefined || b === undefined || c === undefined) throw new Error("three sessions");
    const reader1 = await a.readLock();
    const reader2 = await b.readLock();
    expect((await keysOf(client, `${name}/`)).every((key) => /\/read\/\d{19}$/.test(key))).toBe(true);
    let written = false;
    const writing = c.writeLock().then((held) => {
      written = true;
      return held;
    });
    await eventually("the writer stands in line", async () => (await keysOf(client, `${name}/write/`)).length === 1);
    // Who comes after the writer waits for it.
    expect((await failureOf(a.readLock({ timeoutMs: 50 }))).reason).toBe("deadline-exceeded");
    await reader1.unlock();
    expect(written).toBe(false);
    await reader2.unlock();
    const writer = await writing;
    expect((await failureOf(b.writeLock({ timeoutMs: 50 }))).reason).toBe("deadline-exceeded");
    const later = b.readLock();
    await writer.unlock();
    const held = await later;
    expect(held.token).toBeGreaterThan(writer.token);
    await held.unlock();
    await eventually("no key is left", async () => (await keysOf(client, `${name}/`)).length === 0);
  });
});

describe("locks and time", () => {
  it("tell their holder before somebody else can have them", async () => {
    await using etcd = await startTestEtcd();
    let away = false;
    const client = clientOver({
      endpoints: ["test"],
      clock: etcd.clock,
      transport: faultyMembers([{ name: "test", services: () => etcd.server.services }], { refuse: () => away }),
    });
    const transport = client as unknown as object;
    expect(transport).toBeDefined();
    const session = await openSession(client, { ttlSeconds: 5 });
    const other = await openSession(etcd.client, { ttlSeconds: 60 });
    let otherHas = false;
    let firstTold: boolean | undefined;
    const running = failureOf(
      session.withLock("lock", async ({ signal, txn }) => {
        void other
          .mutex("lock")
          .lock()
          .then(() => {
            otherHas = true;
          });
        session.lease.abandon();
        away = true;
        signal.addEventListener("abort", () => {
          firstTold = !otherHas;
        });
        if (signal.aborted) firstTold = !otherHas;
        await etcd.advance(10_000);
        await eventually("the other one has it", () => otherHas);
        away = false;
        // Whatever is guarded does not take place any more.
        expect((await failureOf(txn().do(op.put("guarded", "1")).commit())).reason).toBe("lock-lost");
      }),
    );
    expect((await running).reason).toBe("lock-lost");
    expect(firstTold).toBe(true);
    expect(await etcd.client.get("guarded")).toBeUndefined();
    client.close();
  });

  it("are not given to one whose lease ended while it waited", async () => {
    await using etcd = await startTestEtcd();
    const holder = await openSession(etcd.client, { ttlSeconds: 60 });
    const waiter = await openSession(etcd.client, { ttlSeconds: 60 });
    const held = await holder.mutex("lock").lock();
    const waiting = failureOf(waiter.mutex("lock").lock());
    await eventually("it stands in line", async () => (await keysOf(etcd.client, "lock/")).length === 2);
    // Ended by the cluster, and the waiter does not know.
    await etcd.client.delete(`lock/${waiter.suffix}`);
    await held.unlock();
    expect((await waiting).reason).toBe("lock-lost");
    const again = failureOf(
      waiter
        .mutex("lock")
        .lock({ timeoutMs: 5000 })
        .then((lock) => waiter.close().then(() => lock.unlock())),
    );
    expect((await again).reason).toBe("lock-lost");
    const last = failureOf(waiter.mutex("lock").lock());
    expect((await last).reason).toBe("lease-lost");
    await holder.close();
  });

  it("leave no key behind when the answer to the locking is lost", async () => {
    await using etcd = await startTestEtcd();
    let lose = 0;
    let refuse = 0;
    const client = clientOver({
      endpoints: ["test"],
      timeoutMs: 300,
      transport: faultyMembers([{ name: "test", services: () => etcd.server.services }], {
        loseAnswer: (path) => {
          if (!path.endsWith("Txn") || lose === 0) return false;
          lose -= 1;
          return true;
        },
        refuse: () => {
          if (refuse === 0) return false;
          refuse -= 1;
          return true;
        },
      }),
    });
    const session = await openSession(client, { ttlSeconds: 60 });
    // Found again by the same attempt.
    lose = 2;
    const held = await session.mutex("lock").lock();
    lose = 1;
    await held.unlock();
    await eventually("the key is gone", async () => (await keysOf(etcd.client, "lock/")).length === 0);
    // Given up, and cleaned up behind its back; who asks next waits for that.
    lose = 1;
    const giving = failureOf(session.mutex("lock").lock({ timeoutMs: 20 }));
    refuse = 1000;
    expect((await giving).reason).toBe("deadline-exceeded");
    const next = session.mutex("lock").lock();
    refuse = 0;
    const last = await next;
    expect(await keysOf(etcd.client, "lock/")).toEqual([last.key]);
    expect((await etcd.client.get(last.key))?.createRevision).toBe(last.token);
    await last.unlock();
    await session.close();
    client.close();
  });
});

describe("locks on a cluster that fails", () => {
  const cluster = useTestCluster({ before: beforeAll, after: afterAll });

  it("guarded writes never go back to an older holder", async () => {
    const { client } = cluster();
    const history: { token: number; revision: number }[] = [];
    let stop = false;
    const workers = Array.from({ length: 4 }, async (_, worker) => {
      for (let i = 0; i < 200 && !stop; i += 1) {
        try {
          await withLock(
            client,
            "shared",
            async ({ token, txn }) => {
              for (let step = 0; step < 3; step += 1) {
                const { revision } = await txn()
                  .do(op.put("register", `${token} ${worker}`))
                  .commit({ timeoutMs: 3000 });
                history.push({ token, revision });
              }
            },
            { ttlSeconds: 2, timeoutMs: 15_000 },
          );
        } catch (error) {
          // Lost, timed out, unreachable: all of that happens here.
          expect(error).toHaveProperty("reason");
        }
      }
    });
    for (let round = 0; round < 2; round += 1) {
      const leader = await cluster().leader();
      cluster().pause(leader);
      await cluster().leader();
      await cluster().advance(2500);
      cluster().resume(leader);
      await eventually("some progress", () => history.length > 10 * (round + 1));
      const next = await cluster().leader();
      await cluster().kill(next);
      await cluster().leader();
      await cluster().restart(next);
    }
    stop = true;
    await Promise.all(workers);
    // What really was written, in the order of the revisions.
    const tokens: number[] = [];
    await using watch = client.watch("register", { fromRevision: 1 });
    const end = await client.put("register", "end");
    for await (const { events, revision } of watch) {
      for (const event of events) if (event.type === "put" && event.kv.value !== "end") tokens.push(Number(event.kv.value.split(" ")[0]));
      if (revision >= end.revision) break;
    }
    expect(tokens.length).toBeGreaterThan(10);
    expect(tokens).toEqual([...tokens].sort((a, b) => a - b));
  }, 60_000);
});

describe("what a lock cannot do", () => {
  it("stop a holder that does not look: two write outside of the cluster, and only the token tells", async () => {
    await using etcd = await startTestEtcd();
    const outside: { writer: string; token: number }[] = [];
    let resume = (): void => undefined;
    const suspended = new Promise<void>((resolve) => {
      resume = resolve;
    });
    const slow = await openSession(etcd.client, { ttlSeconds: 5 });
    const first = failureOf(
      slow.withLock("lock", async ({ token }) => {
        // The machine is suspended: nothing renews the lease, nobody looks at the signal.
        slow.lease.abandon();
        await suspended;
        outside.push({ writer: "first", token });
      }),
    );
    await eventually("the first one has it", async () => (await keysOf(etcd.client, "lock/")).length === 1);
    const second = withLock(etcd.client, "lock", ({ token }) => {
      outside.push({ writer: "second", token });
      resume();
    });
    await etcd.advance(10_000);
    await second;
    expect(await first).toBeInstanceOf(LockLostError);
    // It did write after its successor. A resource that compares tokens would have refused it.
    expect(outside.map(({ writer }) => writer)).toEqual(["second", "first"]);
    expect(outside[1]?.token).toBeLessThan(outside[0]?.token ?? 0);
  });
});
