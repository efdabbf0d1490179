import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MaintenanceService } from "../../src/api/index.ts";
import { compare, type EtcdClient, EtcdError, GrpcCode, json, op, utf8 } from "../../src/client/index.ts";
import { useTestEtcd } from "../../src/testing/index.ts";
import { failureOf, WAYS } from "./support.ts";

describe.each(WAYS)("keys and values, $name", ({ connect }) => {
  const etcd = useTestEtcd({ before: beforeAll, after: afterAll }, { listen: true });
  let connected: EtcdClient;
  let spaces = 0;
  beforeAll(() => {
    connected = connect(etcd());
  });
  afterAll(() => connected.close());
  /** Keys of its own for each test. */
  const fresh = (): EtcdClient => {
    spaces += 1;
    return connected.namespace(`${spaces}/`);
  };

  it("puts, gets and deletes", async () => {
    const client = fresh();
    expect(await client.get("a")).toBeUndefined();
    const first = await client.put("a", "ä 1");
    expect(first.previous).toBeUndefined();
    expect(first.header).toMatchObject({ revision: first.revision, memberId: expect.any(BigInt) });
    expect(await client.get("a")).toEqual({
      key: "a",
      value: "ä 1",
      createRevision: first.revision,
      modRevision: first.revision,
      version: 1,
      lease: 0n,
    });
    const second = await client.put("a", "2", { previous: true });
    expect(second.previous?.value).toBe("ä 1");
    expect((await client.get("a", { revision: first.revision }))?.value).toBe("ä 1");
    expect(await client.delete("a", { previous: true })).toMatchObject({ deleted: 1, previous: [{ value: "2", version: 2 }] });
    expect(await client.delete("a")).toMatchObject({ deleted: 0, revision: second.revision + 1 });
    expect(await client.get("a", { serializable: true })).toBeUndefined();
  });

  it("selects ranges", async () => {
    const client = fresh();
    for (const key of ["a", "b/1", "b/2", "b/3", "c"]) await client.put(key, key);
    const keys = async (...args: Parameters<EtcdClient["range"]>): Promise<string[]> =>
      (await client.range(...args)).kvs.map((kv) => kv.key);
    expect(await keys("b/", { prefix: true })).toEqual(["b/1", "b/2", "b/3"]);
    expect(await keys("", { prefix: true })).toEqual(["a", "b/1", "b/2", "b/3", "c"]);
    expect(await keys("b/2", { fromKey: true })).toEqual(["b/2", "b/3", "c"]);
    expect(await keys("a", { end: "b/2" })).toEqual(["a", "b/1"]);
    expect(await keys("b/", { prefix: true, limit: 1, sort: { by: "key", order: "descending" } })).toEqual(["b/3"]);
    expect(await client.range("b/", { prefix: true, limit: 2 })).toMatchObject({
      count: 3,
      more: true,
      kvs: [{ key: "b/1" }, { key: "b/2" }],
    });
    const info = await client.keys("b/", { prefix: true, limit: 1 });
    expect(info.keys).toEqual([{ key: "b/1", createRevision: expect.any(Number), modRevision: expect.any(Number), version: 1 }]);
    expect(info).toMatchObject({ count: 3, more: true });
    expect(await client.count("b/", { prefix: true })).toBe(3);
    expect((await client.delete("b/", { prefix: true })).deleted).toBe(3);
    expect(await keys("", { prefix: true })).toEqual(["a", "c"]);
  });

  it("reads a large range in pages, all at one revision", async () => {
    const client = fresh();
    const names = Array.from({ length: 95 }, (_, i) => `k${String(i).padStart(3, "0")}`);
    await Promise.all(names.map((name) => client.put(name, name)));
    const pages: number[] = [];
    const revisions = new Set<number>();
    const seen: string[] = [];
    for await (const page of client.pages("k", { prefix: true, pageSize: 20 })) {
      pages.push(page.kvs.length);
      seen.push(...page.kvs.map((kv) => kv.key));
      revisions.add(page.count);
      // Neither shows in the pages that follow.
      await client.delete("k090");
      await client.put(`k${seen.length}x`, "new");
    }
    expect(pages).toEqual([20, 20, 20, 20, 15]);
    expect(seen).toEqual(names);
    const backwards: string[] = [];
    for await (const kv of client.entries("k0", { prefix: true, pageSize: 7, descending: true, revision: 0 })) backwards.push(kv.key);
    expect(backwards).toEqual([...backwards].sort().reverse());
    expect(backwards.length).toBeGreaterThan(90);
  });

  it("runs transactions", async () => {
    const client = fresh();
    const first = await client.txn().if(compare.absent("a")).do(op.put("a", "1"), op.get("a")).else(op.get("a")).commit();
    expect(first.succeeded).toBe(true);
    if (first.succeeded) {
      expect(first.results[0].revision).toBe(first.revision);
      expect(first.results[1]?.value).toBe("1");
    }
    const second = await client
      .txn()
      .if(compare.exists("a"), compare.value("a", "=", "other"))
      .do(op.delete("a", { previous: true }))
      .else(op.get("a"), op.range("", { prefix: true, countOnly: true }))
      .commit();
    expect(second.succeeded).toBe(false);
    if (!second.succeeded) {
      expect(second.results[0]?.value).toBe("1");
      expect(second.results[1].count).toBe(1);
    }
    const nested = await client
      .txn()
      .if(
        compare.version("a", "=", 1),
        compare.createRevision("a", ">", 0),
        compare.modRevision("a", "<", 1e9),
        compare.lease("a", "=", 0n),
      )
      .do(op.txn({ if: [compare.version("b", "=", 0)], do: [op.put("b", "2"), op.delete("a", { previous: true })], else: [op.get("b")] }))
      .commit();
    expect(nested.succeeded).toBe(true);
    if (nested.succeeded) {
      const [inner] = nested.results;
      expect(inner.succeeded).toBe(true);
      if (inner.succeeded) expect(inner.results[1].previous[0]?.value).toBe("1");
    }
    expect((await client.range("", { prefix: true })).kvs.map((kv) => kv.key)).toEqual(["b"]);
    expect((await client.txn().commit()).succeeded).toBe(true);
  });

  it("is no promise before it is committed", async () => {
    const client = fresh();
    const builder = client.txn().do(op.put("never", "sent"));
    expect("then" in builder).toBe(false);
    expect(await builder).toBe(builder);
    expect(await client.get("never")).toBeUndefined();
  });

  it("sees only its namespace", async () => {
    const outer = fresh();
    const inner = outer.namespace("in/");
    await inner.put("k", "v");
    await outer.put("in", "beside");
    await outer.put("in0", "behind");
    expect((await outer.get("in/k"))?.value).toBe("v");
    expect((await inner.range("", { prefix: true })).kvs.map((kv) => kv.key)).toEqual(["k"]);
    expect((await inner.range("a", { fromKey: true })).kvs.map((kv) => kv.key)).toEqual(["k"]);
    expect((await inner.range("a", { end: "z" })).kvs.map((kv) => kv.key)).toEqual(["k"]);
    expect((await failureOf(inner.get(""))).reason).toBe("key-not-provided");
    expect((await failureOf(inner.put("", "x"))).reason).toBe("key-not-provided");
    expect((await inner.delete("", { prefix: true })).deleted).toBe(1);
    expect((await outer.range("", { prefix: true })).kvs.map((kv) => kv.key)).toEqual(["in", "in0"]);
  });

  it("speaks bytes and codecs", async () => {
    const client = fresh();
    const raw = client.raw();
    const key = Uint8Array.of(0xff, 0, 0xfe);
    const value = Uint8Array.of(0, 1, 0x80, 0xff);
    await raw.put(key, value);
    const pair = await raw.get(key);
    expect([...(pair?.key ?? [])]).toEqual([...key]);
    expect([...(pair?.value ?? [])]).toEqual([...value]);
    // What was read is a copy: changing it changes nothing.
    pair?.value.fill(7);
    expect([...((await raw.get(key))?.value ?? [])]).toEqual([...value]);
    expect(await failureOf(client.range("", { prefix: true }))).toMatchObject({ reason: "undecodable", name: "UndecodableError" });

    const settings = client.namespace("j/").withValues(json<{ n: number; s: string }>());
    await settings.put("a", { n: 1, s: "ü" });
    expect((await settings.get("a"))?.value).toEqual({ n: 1, s: "ü" });
    await settings.put("raw", new TextEncoder().encode('{"n":2,"s":""}'));
    expect((await settings.get("raw"))?.value.n).toBe(2);

    const byNumber = client.namespace("n/").withKeys({
      encode: (n: number) => utf8.encode(String(n).padStart(6, "0")),
      decode: (stored) => Number(utf8.decode(stored)),
    });
    for (const n of [10, 9, 100]) await byNumber.put(n, String(n));
    expect((await byNumber.range("", { prefix: true })).kvs.map((kv) => kv.key)).toEqual([9, 10, 100]);
    expect((await byNumber.range(10, { fromKey: true })).kvs.map((kv) => kv.value)).toEqual(["10", "100"]);
  });

  it("touches a key", async () => {
    const client = fresh();
    expect((await failureOf(client.touch("a"))).reason).toBe("key-not-found");
    const lease = await client.lease({ ttlSeconds: 60 });
    await client.put("a", "kept");
    await client.touch("a", { lease: lease.id });
    expect(await client.get("a")).toMatchObject({ value: "kept", version: 2, lease: lease.id });
    await client.put("a", "other", { keepLease: true });
    expect(await client.get("a")).toMatchObject({ value: "other", lease: lease.id });
    await lease.close();
    expect(await client.get("a")).toBeUndefined();
  });

  it("fails with the same reasons and codes on every way", async () => {
    const client = fresh();
    const { revision } = await client.put("a", "1");
    const cases: [() => Promise<unknown>, string, number][] = [
      [() => client.get("a", { revision: revision + 1000 }), "future-revision", GrpcCode.OutOfRange],
      [() => client.put("a", "1", { lease: 4711n }), "lease-not-found", GrpcCode.NotFound],
      [() => client.get(""), "key-not-provided", GrpcCode.InvalidArgument],
      [() => client.txn().do(op.put("a", "1"), op.put("a", "2")).commit(), "duplicate-key", GrpcCode.InvalidArgument],
      [() => client.leases.revoke(4711n), "lease-not-found", GrpcCode.NotFound],
      [() => client.range("a", { prefix: true, fromKey: true }), "invalid-use", GrpcCode.InvalidArgument],
      [() => client.range("a", { limit: -1 }), "invalid-use", GrpcCode.InvalidArgument],
      [() => client.put("a", "x".repeat(2_000_000)), "request-too-large", GrpcCode.InvalidArgument],
      [() => client.cluster.removeMember(1n), "member-not-found", GrpcCode.NotFound],
    ];
    for (const [call, reason, code] of cases) {
      const error = await failureOf(call());
      expect(EtcdError.is(error)).toBe(true);
      expect([error.reason, error.grpcCode]).toEqual([reason, code]);
    }
  });

  it("compacts", async () => {
    const client = fresh();
    const { revision } = await client.put("a", "1");
    await client.put("a", "2");
    await client.compact(revision + 1, { physical: true });
    expect(await failureOf(client.get("a", { revision }))).toMatchObject({ reason: "compacted", grpcCode: GrpcCode.OutOfRange });
    expect((await client.get("a", { revision: revision + 1 }))?.value).toBe("2");
    expect(await client.revision()).toBe(revision + 1);
  });

  it("ends a call with its signal", async () => {
    const client = fresh();
    const signal = AbortSignal.abort(new Error("no more"));
    for (const call of [() => client.get("a", { signal }), () => client.put("a", "1", { signal })]) {
      expect(await failureOf(call())).toMatchObject({ reason: "canceled", grpcCode: GrpcCode.Canceled });
    }
  });

  it("asks about the cluster, members and anything else of the API", async () => {
    const client = fresh();
    const members = await client.cluster.members();
    expect(members.map(({ name }) => name)).toEqual(["test"]);
    expect(await client.maintenance.status()).toMatchObject({ version: "3.7.1", leader: members[0]?.id });
    expect(await client.maintenance.alarms()).toEqual([]);
    expect((await client.maintenance.hashKv()).hash).toEqual(expect.any(Number));
    const status = await client.call(MaintenanceService.status, {}, { endpoint: client.endpoints[0] });
    expect(status.raftTerm).toBeGreaterThan(1);
    expect((await failureOf(client.maintenance.status({ endpoint: "http://nobody" }))).reason).toBe("invalid-use");
    let bytes = 0;
    for await (const blob of client.maintenance.snapshot()) bytes += blob.length;
    expect(bytes).toBeGreaterThan(1000);
  });

  it("is over once it is closed", async () => {
    const client = connect(etcd());
    await client.put("closing", "1");
    const watch = client.watch("closing");
    const next = failureOf(watch.next());
    client.close();
    client.close();
    expect((await next).reason).toBe("client-closed");
    for (const call of [client.get("a"), client.put("a", "1"), client.lease({ ttlSeconds: 5 }), client.txn().commit()]) {
      expect((await failureOf(call)).reason).toBe("client-closed");
    }
    expect(() => client.watch("a")).toThrowError("closed");
  });
});
