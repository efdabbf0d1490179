/** npm's `etcd3`, a client written by others over grpc-js, against a whole member: what it can do, it can do here. */
import { Etcd3, type IKeyValue, type Lease, type Watcher } from "etcd3";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestMember, testMember } from "./member.ts";
import { eventually } from "./support.ts";

let member: TestMember;
let client: Etcd3;

beforeAll(async () => {
  member = await testMember(24668);
  client = new Etcd3({ hosts: member.url });
});

afterAll(async () => {
  client.close();
  await member[Symbol.asyncDispose]();
});

describe("etcd3", () => {
  it("puts, gets and deletes", async () => {
    await client.put("kv/a").value("1");
    await client.put("kv/b").value(Buffer.from([0, 255, 1]));
    expect(await client.get("kv/a").string()).toBe("1");
    expect(await client.get("kv/b").buffer()).toEqual(Buffer.from([0, 255, 1]));
    expect(await client.get("kv/none").string()).toBeNull();
    await client.put("kv/c").value("3");
    expect(await client.getAll().prefix("kv/").keys()).toEqual(["kv/a", "kv/b", "kv/c"]);
    expect(await client.getAll().prefix("kv/").limit(1).sort("Key", "Descend").strings()).toEqual({ "kv/c": "3" });
    const replaced = await client.put("kv/a").value("2").getPrevious();
    expect((replaced as IKeyValue & { value: Buffer }).value.toString()).toBe("1");
    expect((await client.delete().prefix("kv/")).deleted).toBe("3");
    expect(await client.getAll().prefix("kv/").count()).toBe(0);
  });

  it("reads an older revision, and is told when that is compacted", async () => {
    const { header } = await client.put("old").value("first");
    await client.put("old").value("second");
    expect(await client.get("old").revision(header.revision).string()).toBe("first");
    const current = (await client.get("old").exec()).header.revision;
    await client.kv.compact({ revision: current });
    await expect(client.get("old").revision(header.revision).string()).rejects.toThrow("mvcc: required revision has been compacted");
  });

  it("carries values of a megabyte", async () => {
    const value = Buffer.alloc(1_000_000, "large");
    await client.put("large").value(value);
    expect((await client.get("large").buffer())?.equals(value)).toBe(true);
    await expect(client.put("larger").value(Buffer.alloc(1_600_000)).exec()).rejects.toThrow("request is too large");
    await client.delete().key("large");
  });

  it("runs transactions", async () => {
    await client.put("txn").value("before");
    const taken = await client.if("txn", "Value", "==", "before").then(client.put("txn").value("after")).else(client.get("txn")).commit();
    expect(taken.succeeded).toBe(true);
    const other = await client.if("txn", "Value", "==", "before").then(client.put("txn").value("again")).else(client.get("txn")).commit();
    expect(other.succeeded).toBe(false);
    expect(other.responses[0]?.response_range?.kvs[0]?.value.toString()).toBe("after");
  });

  it("runs software transactions that all count", async () => {
    await client.put("counter").value(0);
    await Promise.all(
      Array.from({ length: 8 }, () =>
        client.stm({ retries: 200 }).transact(async (tx) => {
          const value = Number(await tx.get("counter").string());
          await tx.put("counter").value(value + 1);
        }),
      ),
    );
    expect(await client.get("counter").number()).toBe(8);
  });

  it("watches, from now and from before", async () => {
    const seen: string[] = [];
    const watcher: Watcher = await client.watch().prefix("watch/").create();
    watcher.on("put", ({ key, value }) => seen.push(`put ${key} ${value}`));
    watcher.on("delete", ({ key }) => seen.push(`delete ${key}`));
    const { header } = await client.put("watch/a").value("1");
    await client.put("watch/b").value("2");
    await client.put("other").value("3");
    await client.delete().key("watch/a");
    await eventually(() => seen.length === 3);
    expect(seen).toEqual(["put watch/a 1", "put watch/b 2", "delete watch/a"]);
    const again: string[] = [];
    const late = await client.watch().prefix("watch/").startRevision(header.revision).create();
    late.on("put", ({ key }) => again.push(`put ${key}`));
    late.on("delete", ({ key }) => again.push(`delete ${key}`));
    await eventually(() => again.length === 3);
    expect(again).toEqual(["put watch/a", "put watch/b", "delete watch/a"]);
    await watcher.cancel();
    await client.put("watch/c").value("4");
    await eventually(() => again.length === 4);
    expect(seen.length).toBe(3);
    await late.cancel();
  });

  it("keeps many watchers on one stream", async () => {
    const counts = new Array<number>(50).fill(0);
    const watchers = await Promise.all(
      counts.map(async (_, i) => {
        const watcher = await client.watch().key(`many/${i}`).create();
        watcher.on("put", () => {
          counts[i] = (counts[i] ?? 0) + 1;
        });
        return watcher;
      }),
    );
    await Promise.all(counts.map((_, i) => client.put(`many/${i}`).value("x")));
    await eventually(() => counts.every((count) => count === 1));
    await Promise.all(watchers.map((watcher) => watcher.cancel()));
  });

  it("holds leases, keeps them alive, and lets them go", async () => {
    const lease: Lease = client.lease(5, { autoKeepAlive: false });
    await lease.put("leased").value("here");
    expect((await client.leaseClient.leaseTimeToLive({ ID: await lease.grant(), keys: true })).keys.map(String)).toEqual(["leased"]);
    const { TTL } = await lease.keepaliveOnce();
    expect(Number(TTL)).toBe(5);
    const { leases } = await client.leaseClient.leaseLeases();
    expect(leases.length).toBe(1);
    await lease.revoke();
    expect(await client.get("leased").string()).toBeNull();
    const lasting = client.lease(2);
    await lasting.put("lasting").value("x");
    let renewed = 0;
    lasting.on("keepaliveSucceeded", () => {
      renewed++;
    });
    await eventually(() => renewed >= 2);
    expect(await client.get("lasting").string()).toBe("x");
    await lasting.revoke();
  });

  it("locks", async () => {
    const order: string[] = [];
    let holders = 0;
    await Promise.all(
      ["one", "two", "three"].map(async (name) => {
        for (;;) {
          const lock = client.lock("lock");
          try {
            await lock.acquire();
          } catch {
            // etcd3's lock does not wait.
            await new Promise((resolve) => setTimeout(resolve, 5));
            continue;
          }
          holders++;
          expect(holders).toBe(1);
          order.push(name);
          await new Promise((resolve) => setTimeout(resolve, 10));
          holders--;
          await lock.release();
          return;
        }
      }),
    );
    expect(order.toSorted()).toEqual(["one", "three", "two"]);
  });

  it("elects", async () => {
    const election = client.election("election", 5);
    const observer = await election.observe();
    const seen: (string | undefined)[] = [];
    observer.on("change", (leader) => seen.push(leader));
    const first = election.campaign("first");
    await first.wait();
    await eventually(() => seen.includes("first"));
    const second = client.election("election", 5).campaign("second");
    await first.resign();
    await second.wait();
    await eventually(() => seen.at(-1) === "second");
    expect(await election.leader()).toBe("second");
    await second.resign();
    await observer.cancel();
  });

  it("asks for members and state", async () => {
    const { members } = await client.cluster.memberList({});
    expect(members.map(({ name }) => name)).toEqual(["one"]);
    const status = await client.maintenance.status();
    expect(status.version).toBe("3.7.1");
    expect(status.leader).toBe(members[0]?.ID);
    expect((await client.maintenance.alarm({ action: "Get" } as never)).alarms).toEqual([]);
  });
});
