import { describe, expect, it } from "vitest";
import { TxnRequest } from "../../src/api/index.ts";
import { createBatch } from "../../src/backend/index.ts";
import type { KeyString } from "../../src/base/bytes.ts";
import { EtcdError, GrpcCode } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import { ExecutionFailedError, RowCorruptError } from "../../src/mvcc/index.ts";
import {
  compareOf,
  deleteOf,
  deleteOp,
  MvccHarness,
  name,
  pairs,
  putOf,
  putOp,
  rangeOf,
  rangeOp,
  reasonOf,
  reasonOfAsync,
  txnOp,
} from "../support/mvcc-harness.ts";

describe("revisions", () => {
  it("BV1: the revision never goes back, whatever a compaction removed before the crash", async () => {
    // With the newest rows gone, which only the planted fault allows, the mark of the compaction must hold the revision.
    for (const mutants of [new Set<string>(), new Set(["compaction-removes-tombstone-at-c"])]) {
      for (const crashAfter of ["mark", "first slice", "all"] as const) {
        const h = await MvccHarness.open({ mutants });
        for (const key of ["a", "b", "c"]) h.put(key, "1");
        h.delete("a", "\0");
        expect(h.store.revision).toBe(5);
        await h.flush();
        h.compact(5);
        await h.flush();
        if (crashAfter === "first slice") await h.compactSlice(1);
        if (crashAfter === "all") await h.finishCompaction(1);
        await h.crash();
        expect(h.store.revision).toBeGreaterThanOrEqual(5);
        expect(h.store.compactRevision).toBe(5);
        await h.finishCompaction();
        await h.crash();
        expect([h.store.revision, h.store.keyCount]).toEqual([5, 0]);
        expect(h.put("a", "2").revision).toBe(6);
        expect(await h.all()).toEqual(["a 6 6 1 2"]);
      }
    }
  });

  it("the fault planted for BV1 is seen by that test", async () => {
    const h = await MvccHarness.open({ mutants: new Set(["compaction-removes-tombstone-at-c", "revision-from-rows-only"]) });
    h.put("a", "1");
    h.delete("a");
    await h.compactAll(3);
    await h.crash();
    expect(h.store.revision).toBe(1);
  });

  it("an empty store is at 1, never compacted; what changes nothing takes no revision", async () => {
    const h = await MvccHarness.open();
    expect([h.store.revision, h.store.compactRevision, h.store.keyCount, h.store.bytesInUse]).toEqual([1, -1, 0, 0]);
    expect(h.delete("a", "z")).toEqual({
      response: { header: { clusterId: 0n, memberId: 0n, revision: 1, raftTerm: 0 }, deleted: 0, prevKvs: [] },
      events: [],
      revision: 1,
    });
    expect(h.txn({ success: [deleteOp("a"), rangeOp("a")] }).revision).toBe(1);
    expect(h.store.deleteKeys(["a" as KeyString], h.batch).revision).toBe(1);
    expect(h.put("a").revision).toBe(2);
    expect(h.put("a").revision).toBe(3);
    expect(
      h
        .txn({ success: [putOp("b"), putOp("c"), deleteOp("a")] })
        .events.map((event) => `${event.type} ${event.key}@${event.kv.modRevision}`),
    ).toEqual(["put b@4", "put c@4", "delete a@4"]);
    expect(h.store.deleteKeys(["b", "nothing", "c"] as KeyString[], h.batch).events.map((event) => event.key)).toEqual(["b", "c"]);
    expect(h.store.revision).toBe(5);
  });
});

describe("transactions", () => {
  it("BV2: a read that cannot be answered fails the transaction on every member alike", async () => {
    const members = [await MvccHarness.open(), await MvccHarness.open({ cacheBytesMax: 0 })];
    const answers: string[][] = [];
    for (const h of members) {
      for (let i = 0; i < 5; i += 1) h.put("k", `${i}`);
      await h.compactAll(4);
      const tried = [0, -1, -2, 3, 4, 6, 7, Number.MAX_SAFE_INTEGER].map((revision) => {
        const before = h.store.revision;
        const result = reasonOf(() => h.txn({ success: [putOp("other", `${revision}`), rangeOp("k", "", { revision })] }));
        return `${revision} ${result} ${h.store.revision - before}`;
      });
      answers.push([...tried, JSON.stringify(await h.store.hashByRevision(0))]);
    }
    expect(answers[0]).toEqual(answers[1]);
    expect(answers[0]?.slice(0, -1)).toEqual([
      "0 accepted 1",
      "-1 compacted 0",
      "-2 compacted 0",
      "3 compacted 0",
      "4 accepted 1",
      "6 accepted 1",
      "7 accepted 1",
      `${Number.MAX_SAFE_INTEGER} future-revision 0`,
    ]);
  });

  it("BV3: a transaction that is refused late leaves nothing behind", async () => {
    const h = await MvccHarness.open({ leases: [5n] });
    h.put("a", "1", { lease: 5n });
    await h.flush();
    const { bytesInUse } = h.store;
    const last = {
      "future-revision": rangeOp("a", "", { revision: 3 }),
      compacted: rangeOp("a", "", { revision: -2 }),
      "lease-not-found": putOp("z", "", { lease: 6n }),
      "key-not-found": putOp("z", "", { ignoreValue: true }),
    };
    for (const [reason, op] of Object.entries(last)) {
      for (const wrapped of [
        op,
        txnOp({ success: [op] }),
        txnOp({ compare: [compareOf("nothing", { version: 1, result: 1 })], failure: [op] }),
      ]) {
        expect(reasonOf(() => h.txn({ success: [putOp("b", "2"), deleteOp("a"), wrapped] }))).toBe(reason);
        expect(h.batch.operations).toEqual([]);
        expect([h.store.revision, h.store.keyCount, h.store.bytesInUse]).toEqual([2, 1, bytesInUse]);
        expect(await h.all()).toEqual(["a 2 2 1 1 lease 5"]);
      }
      // In the branch that is not taken it does no harm.
      const taken = h.txn({ success: [rangeOp("a")], failure: [op] });
      expect(taken.response.succeeded).toBe(true);
    }
    h.store.checkIndex();
  });

  it("BV3: of several reasons the first operation's wins, and a lease is looked at before a key", async () => {
    const h = await MvccHarness.open();
    const badLease = putOp("x", "1", { lease: 99n });
    const badRead = rangeOp("k", "", { revision: 1000 });
    const badKey = putOp("y", "", { ignoreValue: true });
    expect(reasonOf(() => h.txn({ success: [badLease, badRead] }))).toBe("lease-not-found");
    expect(reasonOf(() => h.txn({ success: [badRead, badLease] }))).toBe("future-revision");
    expect(reasonOf(() => h.txn({ success: [badKey, badLease] }))).toBe("key-not-found");
    expect(reasonOf(() => h.put("y", "", { ignoreValue: true, lease: 99n }))).toBe("lease-not-found");
  });

  it("BV4: a read-only transaction sees one state, whatever is written while it reads", async () => {
    const h = await MvccHarness.open({ cacheBytesMax: 0 });
    for (let i = 0; i < 1500; i += 1) h.put(`k${`${i}`.padStart(5, "0")}`, "old");
    await h.flush();
    const { revision } = h.store;
    const request = TxnRequest.create({
      compare: [compareOf("k", { target: 3, value: Buffer.from("old") }, "l")],
      success: [rangeOp("k", "l"), rangeOp("k", "l", { sortOrder: 2, sortTarget: 3, limit: 700 }), rangeOp("k", "l", { countOnly: true })],
    });
    expect(h.store.readOnlyTxnNow(request)).toBeUndefined();
    let answered = false;
    const answer = h.store.readOnlyTxn(request).finally(() => {
      answered = true;
    });
    let writes = 0;
    while (!answered) {
      for (let i = 0; i < 10; i += 1, writes += 1) h.put(`k${`${writes % 1500}`.padStart(5, "0")}`, "new");
      h.delete(`k${`${(writes * 7) % 1500}`.padStart(5, "0")}`);
      await h.flush();
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(writes).toBeGreaterThan(50);
    const { header, succeeded, responses } = await answer;
    expect([header?.revision, succeeded, responses.length]).toEqual([revision, true, 3]);
    const [all, sorted, count] = responses.map((response) => response.responseRange);
    expect(all?.kvs.map((kv) => name(kv.value)).every((value) => value === "old")).toBe(true);
    expect([all?.count, sorted?.kvs.length, sorted?.more, count?.count]).toEqual([1500, 700, true, 1500]);
    expect(sorted?.kvs.every((kv) => kv.modRevision <= revision)).toBe(true);
    expect(h.store.readerCount).toBe(0);
  });

  it("BV5: put, delete and read before anything reaches the backend", async () => {
    const h = await MvccHarness.open({ cacheBytesMax: 0 });
    h.put("a", "1");
    h.put("b", "1");
    expect(await h.all()).toEqual(["a 2 2 1 1", "b 3 3 1 1"]);
    h.delete("a");
    expect(await h.all()).toEqual(["b 3 3 1 1"]);
    h.put("a", "2");
    expect(await h.all()).toEqual(["a 5 5 1 2", "b 3 3 1 1"]);
    expect(await h.all(3)).toEqual(["a 2 2 1 1", "b 3 3 1 1"]);
    expect(await h.all(4)).toEqual(["b 3 3 1 1"]);
    expect(pairs(h.store.rangeNow(rangeOf("a", "z")))).toEqual(["a 5 5 1 2", "b 3 3 1 1"]);
    expect(await h.events(2)).toEqual(["put a@2", "put b@3", "delete a@4 was @2", "put a@5"]);
    expect(h.backend.rows.size).toBe(0);
    await h.restart();
    expect(await h.all()).toEqual(["a 5 5 1 2", "b 3 3 1 1"]);
  });

  it("BV6: equal requests give equal answers, rows and hashes, with or without cache, prefetches, batches and restarts", async () => {
    const random = seededRandom(3);
    const members = [
      await MvccHarness.open({ leases: [1n] }),
      await MvccHarness.open({ leases: [1n], cacheBytesMax: 0 }),
      await MvccHarness.open({ leases: [1n], cacheBytesMax: 3000 }),
    ];
    for (let step = 0; step < 400; step += 1) {
      const key = `k${random.below(9)}`;
      const end = `k${random.below(9)}`;
      const kind = random.below(4);
      const answers: unknown[] = [];
      for (const [i, h] of members.entries()) {
        const request = putOf(key, `${step}`, { prevKv: true, lease: step % 7 === 0 ? 2n : BigInt(step % 2) });
        const pinned = i === 1 ? await h.store.prefetch([request]) : undefined;
        const run = (): unknown => {
          if (kind === 0) return h.store.put(request, h.leases, h.batch).response;
          if (kind === 1) return h.delete(key, end, { prevKv: true }).response;
          if (kind === 2) return h.put(key, "", { ignoreValue: true, prevKv: true }).response;
          return h.txn({
            compare: [compareOf(key, { target: 3, result: 3 })],
            success: [putOp(key, "x"), rangeOp("k", "l")],
            failure: [rangeOp(key)],
          }).response;
        };
        answers.push([reasonOf(() => answers.push(run())), h.store.revision]);
        pinned?.release();
        if (i === 1) await h.flush();
        if (i === 2 && step % 50 === 0) await h.restart();
      }
      const text = answers.map((answer) => JSON.stringify(answer, (_, value) => (typeof value === "bigint" ? `${value}` : value)));
      expect(new Set(text).size).toBeLessThanOrEqual(2);
    }
    const hashes = await Promise.all(members.map(async (h) => await h.store.hashByRevision(0)));
    expect(new Set(hashes.map((hash) => JSON.stringify(hash))).size).toBe(1);
    expect(new Set(members.map((h) => h.store.bytesInUse)).size).toBe(1);
    for (const h of members) await h.flush();
    const rows = members.map((h) => [...h.backend.rows.values()].map(([key, value]) => `${name(key)}=${name(value)}`).join("\n"));
    expect(new Set(rows).size).toBe(1);
  });

  it("BV11: equal transactions are executed each time, and every change is reported once", async () => {
    const h = await MvccHarness.open();
    const request = { success: [putOp("a", "1"), putOp("b", "1")] };
    expect(h.txn(request).events.map((event) => `${event.key}@${event.kv.modRevision}`)).toEqual(["a@2", "b@2"]);
    expect(h.txn(request).events.map((event) => `${event.key}@${event.kv.modRevision}`)).toEqual(["a@3", "b@3"]);
    await h.flush();
    expect(await h.events(2)).toEqual(["put a@2", "put b@2", "put a@3 was @2", "put b@3 was @2"]);
  });
});

describe("quirks that clients can see", () => {
  it("1: nested compares see the state before the whole request", async () => {
    const h = await MvccHarness.open();
    const nested = txnOp({ compare: [compareOf("a", { target: 0, version: 0, result: 0 })], success: [rangeOp("a")], failure: [] });
    const { response } = h.txn({ success: [putOp("a", "1"), nested] });
    expect(response.responses[1]?.responseTxn?.succeeded).toBe(true);
    expect(pairs(response.responses[1]?.responseTxn?.responses[0]?.responseRange)).toEqual(["a 2 2 1 1"]);
  });

  it("2: a missing key: a compare of values is false, all others compare with 0", async () => {
    const h = await MvccHarness.open();
    const holds = (more: Parameters<typeof compareOf>[1], end = ""): boolean =>
      h.txn({ compare: [compareOf("m", more, end)] }).response.succeeded;
    for (const end of ["", "n", "a", "\0"]) {
      for (const result of [0, 1, 2, 3, 9]) expect(holds({ target: 3, result }, end)).toBe(false);
      for (const target of [0, 1, 2, 4]) {
        expect([0, 1, 2, 3].map((result) => holds({ target, result }, end))).toEqual([true, false, false, false]);
      }
      expect(holds({ target: 2, modRevision: 5, result: 2 }, end)).toBe(true);
      expect(holds({ target: 0, version: 0, result: 1 }, end)).toBe(false);
    }
  });

  it("2: present keys: every one must satisfy it; odd numbers and foreign members of the oneof", async () => {
    const h = await MvccHarness.open({ leases: [7n] });
    h.put("a", "x", { lease: 7n });
    h.put("b", "y");
    h.put("b", "y");
    const holds = (key: string, more: Parameters<typeof compareOf>[1], end = ""): boolean =>
      h.txn({ compare: [compareOf(key, more, end)] }).response.succeeded;
    expect(holds("a", { target: 0, version: 2, result: 2 }, "c")).toBe(false);
    expect(holds("a", { target: 0, version: 3, result: 2 }, "c")).toBe(true);
    expect(holds("a", { target: 0, version: 3, result: 2 }, "\0")).toBe(true);
    expect(holds("a", { target: 3, value: Buffer.from("x"), result: 0 }, "c")).toBe(false);
    expect(holds("a", { target: 3, value: Buffer.from("w"), result: 1 }, "c")).toBe(true);
    expect(holds("a", { target: 4, lease: 7n, result: 0 })).toBe(true);
    expect(holds("b", { target: 4, lease: 0n, result: 0 })).toBe(true);
    expect(holds("b", { target: 4, result: 0 })).toBe(true);
    // The member of the oneof belongs to another target: the given value is 0 or empty.
    expect(holds("a", { target: 0, modRevision: 2, result: 1 })).toBe(true);
    expect(holds("a", { target: 3, version: 2, result: 1 })).toBe(true);
    // Unknown targets are equal, unknown relations hold.
    expect([0, 1, 2, 3, 4, 99].map((result) => holds("a", { target: 9, result }))).toEqual([true, false, false, false, true, true]);
    expect(holds("a", { target: 0, version: 77, result: 4 })).toBe(true);
  });

  it("4: negative revisions fail inside transactions and mean the newest outside", async () => {
    const h = await MvccHarness.open();
    h.put("a", "1");
    expect(pairs(await h.range("a", "", { revision: -7 }))).toEqual(["a 2 2 1 1"]);
    expect(pairs(h.txn({ success: [rangeOp("a", "", { revision: -1 }), putOp("b")] }).response.responses[0]?.responseRange)).toEqual([
      "a 2 2 1 1",
    ]);
    expect(reasonOf(() => h.txn({ success: [rangeOp("a", "", { revision: -2 })] }))).toBe("compacted");
    expect(reasonOf(() => h.store.readOnlyTxnNow(TxnRequest.create({ success: [rangeOp("a", "", { revision: -2 })] })))).toBe("compacted");
    await h.compactAll(0);
    expect(reasonOf(() => h.txn({ success: [rangeOp("a", "", { revision: -1 })] }))).toBe("compacted");
    expect(
      await reasonOfAsync(async () => await h.store.readOnlyTxn(TxnRequest.create({ success: [rangeOp("a", "", { revision: -1 })] }))),
    ).toBe("compacted");
    expect(pairs(await h.range("a", "", { revision: -1 }))).toEqual(["a 2 2 1 1"]);
  });

  it("5: an open-ended delete and a put in one transaction are executed in order", async () => {
    const h = await MvccHarness.open();
    h.put("k", "0");
    const { response, events } = h.txn({
      success: [putOp("k", "1", { prevKv: true }), deleteOp("a", "\0", { prevKv: true }), rangeOp("k")],
    });
    expect(events.map((event) => `${event.type} ${event.kv.modRevision} was ${event.previous?.main}/${event.previous?.sub}`)).toEqual([
      "put 3 was 2/0",
      "delete 3 was 2/0",
    ]);
    expect(response.responses[1]?.responseDeleteRange?.prevKvs.map((kv) => [kv.createRevision, kv.modRevision, kv.version])).toEqual([
      [2, 3, 2],
    ]);
    expect(response.responses[2]?.responseRange?.count).toBe(0);
    await h.flush();
    expect(await h.all(2)).toEqual(["k 2 2 1 0"]);
    // The other way round the key lives on, as a new one.
    h.put("k", "2");
    const again = h.txn({ success: [deleteOp("a", "\0"), putOp("k", "3", { prevKv: true })] });
    expect(again.events.map((event) => `${event.type} was ${event.previous?.main}`)).toEqual(["delete was 4", "put was undefined"]);
    expect(again.response.responses[1]?.responsePut?.prevKv).toBeUndefined();
    expect(await h.all()).toEqual(["k 5 5 1 3"]);
    // A compaction exactly here keeps what is visible (the reference loses it, and then dies when it is read).
    await h.compactAll(5, 1);
    await h.restart();
    expect(await h.all(5)).toEqual(["k 5 5 1 3"]);
  });

  it("5: nothing can be kept of a key that the same transaction has deleted before", async () => {
    const h = await MvccHarness.open();
    h.put("k", "0");
    expect(reasonOf(() => h.txn({ success: [deleteOp("a", "\0"), putOp("k", "", { ignoreValue: true })] }))).toBe("key-not-found");
    // What the reference, too, refuses comes first, wherever it stands.
    const later = putOp("z", "1", { lease: 99n });
    expect(reasonOf(() => h.txn({ success: [deleteOp("a", "\0"), putOp("k", "", { ignoreValue: true }), later] }))).toBe("lease-not-found");
    expect(reasonOf(() => h.txn({ success: [deleteOp("a", "\0"), putOp("k", "", { ignoreLease: true })] }))).toBe("key-not-found");
    expect(reasonOf(() => h.txn({ success: [putOp("k", "", { ignoreValue: true }), deleteOp("a", "\0")] }))).toBe("accepted");
    expect(await h.all()).toEqual([]);
  });

  it("6: headers inside a transaction: the revision as of the operation, nothing for a nested one", async () => {
    const h = await MvccHarness.open();
    h.put("a", "1");
    const { response } = h.txn({
      success: [
        rangeOp("a"),
        deleteOp("nothing"),
        putOp("b"),
        rangeOp("a", "", { revision: 2 }),
        deleteOp("nothing"),
        txnOp({ success: [rangeOp("a")] }),
      ],
    });
    const [first, nothing, put, past, after, nested] = response.responses;
    expect(response.header?.revision).toBe(3);
    expect(first?.responseRange?.header?.revision).toBe(2);
    expect(nothing?.responseDeleteRange?.header?.revision).toBe(2);
    expect(put?.responsePut?.header?.revision).toBe(3);
    expect(past?.responseRange?.header?.revision).toBe(3);
    expect(after?.responseDeleteRange?.header?.revision).toBe(3);
    expect(nested?.responseTxn?.header).toEqual({ clusterId: 0n, memberId: 0n, revision: 0, raftTerm: 0 });
    expect(nested?.responseTxn?.responses[0]?.responseRange?.header?.revision).toBe(3);
  });

  it("7: without an order a target sorts, but after cutting to limit + 1", async () => {
    const h = await MvccHarness.open();
    for (const [key, value] of ["a9", "b8", "c1", "d0"].map((pair) => [...pair])) h.put(key as string, value);
    const keys = async (more: object): Promise<string> => (await h.range("a", "z", more)).kvs.map((kv) => name(kv.key)).join("");
    expect(await keys({ sortTarget: 4, limit: 1 })).toBe("b");
    expect(await keys({ sortTarget: 4, sortOrder: 1, limit: 1 })).toBe("d");
    expect(await keys({ sortTarget: 4, limit: 2 })).toBe("cb");
    expect(await keys({ sortTarget: 4 })).toBe("dcba");
    // Filters make it look at everything.
    expect(await keys({ sortTarget: 4, limit: 1, minModRevision: 1 })).toBe("d");
    expect(await keys({ sortTarget: 3, sortOrder: 2, limit: 3 })).toBe("dcb");
    expect(await keys({ sortOrder: 2, limit: 3 })).toBe("dcb");
  });

  it("8: without values there are no leases either, but for a sort by value", async () => {
    const h = await MvccHarness.open({ leases: [7n] });
    h.put("a", "1", { lease: 7n });
    expect(pairs(await h.range("a", "", { keysOnly: true }))).toEqual(["a 2 2 1 "]);
    expect(pairs(await h.range("a", "z", { keysOnly: true }))).toEqual(["a 2 2 1 "]);
    expect(pairs(await h.range("a", "", { keysOnly: true, sortTarget: 4 }))).toEqual(["a 2 2 1  lease 7"]);
    expect(pairs(await h.range("a", "z", { keysOnly: true, sortTarget: 4 }))).toEqual(["a 2 2 1  lease 7"]);
    expect(pairs(await h.range("a", "z"))).toEqual(["a 2 2 1 1 lease 7"]);
  });

  it("9: the count ignores filters and limits", async () => {
    const h = await MvccHarness.open();
    for (const key of "abcd") h.put(key, key);
    const filtered = await h.range("a", "z", { minModRevision: 100, limit: 2 });
    expect([filtered.count, filtered.kvs.length, filtered.more]).toEqual([4, 0, false]);
    const limited = await h.range("a", "z", { limit: 2 });
    expect([limited.count, limited.kvs.length, limited.more]).toEqual([4, 2, true]);
    const onlyCount = await h.range("a", "z", {
      countOnly: true,
      limit: 1,
      sortOrder: 2,
      sortTarget: 4,
      minModRevision: 100,
      keysOnly: true,
    });
    expect([onlyCount.count, onlyCount.kvs.length, onlyCount.more]).toEqual([4, 0, false]);
    expect((await h.range("a", "z", { maxModRevision: -1 })).kvs).toEqual([]);
    expect((await h.range("a", "z", { minModRevision: -1, limit: -3 })).kvs.length).toBe(4);
  });

  it("19: revision 0 can be compacted once", async () => {
    const h = await MvccHarness.open();
    expect(reasonOf(() => h.compact(-1))).toBe("compacted");
    await h.compactAll(0);
    expect(h.store.compactRevision).toBe(0);
    expect(reasonOf(() => h.compact(0))).toBe("compacted");
    expect(await h.store.hashByRevision(0)).toEqual({ hash: 1084519789, compactRevision: -1, hashRevision: 0 });
    await h.restart();
    expect([h.store.compactRevision, h.store.compactionPending]).toEqual([0, false]);
    h.put("a");
    expect(await h.all(1)).toEqual([]);
  });
});

describe("validation", () => {
  it("BV10: unknown enum numbers are refused where they are checked", async () => {
    const { store } = await MvccHarness.open();
    for (const sortOrder of [-1, 3, 2 ** 31 - 1])
      expect(reasonOf(() => store.checkRange(rangeOf("a", "", { sortOrder })))).toBe("invalid-sort-option");
    for (const sortTarget of [-1, 5, -(2 ** 31)])
      expect(reasonOf(() => store.checkRange(rangeOf("a", "", { sortTarget })))).toBe("invalid-sort-option");
    expect(reasonOf(() => store.checkTxn(TxnRequest.create({ failure: [rangeOp("a", "", { sortTarget: 5 })] }), 128))).toBe(
      "invalid-sort-option",
    );
    expect(reasonOf(() => store.checkRange(rangeOf("", "", { sortTarget: 5 })))).toBe("key-not-provided");
  });

  it("puts and deletes", async () => {
    const { store } = await MvccHarness.open();
    expect(reasonOf(() => store.checkPut(putOf("", "v", { ignoreValue: true })))).toBe("key-not-provided");
    expect(reasonOf(() => store.checkPut(putOf("a", "v", { ignoreValue: true, ignoreLease: true, lease: 1n })))).toBe("value-provided");
    expect(reasonOf(() => store.checkPut(putOf("a", "", { ignoreLease: true, lease: -1n })))).toBe("lease-provided");
    expect(reasonOf(() => store.checkPut(putOf("a", "", { ignoreLease: true, ignoreValue: true })))).toBe("accepted");
    expect(reasonOf(() => store.checkDeleteRange(deleteOf("", "z")))).toBe("key-not-provided");
  });

  it("the limit on operations counts the longest list and shrinks with depth", async () => {
    const { store } = await MvccHarness.open();
    const check = (request: Partial<TxnRequest>, opsMax = 128): string =>
      reasonOf(() => store.checkTxn(TxnRequest.create(request), opsMax));
    const reads = (n: number): ReturnType<typeof rangeOp>[] => Array.from({ length: n }, () => rangeOp("a"));
    expect(check({ success: reads(128), failure: reads(128) })).toBe("accepted");
    expect(check({ success: reads(129) })).toBe("too-many-ops");
    expect(check({ compare: Array.from({ length: 129 }, () => compareOf("a", {})) })).toBe("too-many-ops");
    // Before any operation is looked at.
    expect(check({ success: [...reads(128), rangeOp("")] })).toBe("too-many-ops");
    expect(check({ success: [txnOp({ success: reads(127) })] })).toBe("accepted");
    expect(check({ success: [txnOp({ success: reads(128) })] })).toBe("too-many-ops");
    expect(check({ success: [txnOp({ success: reads(100) }), txnOp({ failure: reads(100) })] })).toBe("accepted");
    let deep = txnOp({});
    for (let i = 0; i < 127; i += 1) deep = txnOp({ success: [deep] });
    expect(check({ success: [deep] })).toBe("accepted");
    expect(check({ success: [txnOp({ success: [deep] })] })).toBe("too-many-ops");
    for (let i = 0; i < 3000; i += 1) deep = txnOp({ success: [deep] });
    expect(check({ success: [deep] }, 1_000_000)).toBe("too-many-ops");
  });

  it("shapes are looked at in order, before duplicates", async () => {
    const { store } = await MvccHarness.open();
    const check = (request: Partial<TxnRequest>): string => reasonOf(() => store.checkTxn(TxnRequest.create(request), 128));
    expect(check({ compare: [compareOf("", {})], success: [putOp("a", "v", { ignoreValue: true })] })).toBe("key-not-provided");
    expect(check({ success: [putOp("a", "v", { ignoreValue: true })], failure: [rangeOp("")] })).toBe("value-provided");
    expect(
      check({
        success: [txnOp({}), { requestRange: undefined, requestPut: undefined, requestDeleteRange: undefined, requestTxn: undefined }],
      }),
    ).toBe("key-not-found");
    expect(check({ success: [putOp("a"), putOp("a")], failure: [deleteOp("")] })).toBe("key-not-provided");
    expect(check({ success: [putOp("a"), putOp("a")], failure: [deleteOp("a")] })).toBe("duplicate-key");
  });

  it.each<[string, ReturnType<typeof putOp>[], string]>([
    ["two puts", [putOp("k"), putOp("k")], "duplicate-key"],
    ["put, delete", [putOp("k"), deleteOp("k")], "duplicate-key"],
    ["delete of a range, put", [deleteOp("a", "z"), putOp("k")], "duplicate-key"],
    ["delete up to the key", [deleteOp("a", "k"), putOp("k")], "accepted"],
    ["delete of an inverted range", [deleteOp("z", "a"), putOp("k")], "accepted"],
    ["open-ended delete", [deleteOp("a", "\0"), putOp("k")], "accepted"],
    ["two deletes", [deleteOp("a", "z"), deleteOp("k")], "accepted"],
    ["reads", [rangeOp("k"), putOp("k"), rangeOp("k")], "accepted"],
    ["both branches of a nested one", [txnOp({ success: [putOp("k")], failure: [putOp("k")] })], "accepted"],
    ["nested put, put", [txnOp({ success: [putOp("k")] }), putOp("k")], "duplicate-key"],
    ["put, nested put", [putOp("k"), txnOp({ failure: [putOp("k")] })], "duplicate-key"],
    ["nested put, sibling's put", [txnOp({ success: [putOp("k")] }), txnOp({ failure: [putOp("k")] })], "duplicate-key"],
    ["nested delete, sibling's put", [txnOp({ success: [deleteOp("k")] }), txnOp({ success: [putOp("k")] })], "duplicate-key"],
    ["nested delete, put", [putOp("k"), txnOp({ success: [deleteOp("k")] })], "duplicate-key"],
    ["nested put, delete", [txnOp({ success: [putOp("k")] }), deleteOp("k")], "duplicate-key"],
    ["nested put, sibling's delete", [txnOp({ success: [putOp("k")] }), txnOp({ success: [deleteOp("k")] })], "accepted"],
    ["put and delete in different branches", [txnOp({ success: [putOp("k")], failure: [deleteOp("k")] })], "accepted"],
    ["deep", [txnOp({ success: [txnOp({ failure: [txnOp({ success: [putOp("k")] })] })] }), putOp("k")], "duplicate-key"],
  ])("duplicate keys: %s", async (_, ops, expected) => {
    const { store } = await MvccHarness.open();
    for (const request of [{ success: ops }, { failure: ops }])
      expect(reasonOf(() => store.checkTxn(TxnRequest.create(request), 128))).toBe(expected);
    expect(reasonOf(() => store.checkTxn(TxnRequest.create({ success: [putOp("k")], failure: [putOp("k")] }), 128))).toBe("accepted");
  });

  it("a hundred thousand nested operations are checked in reasonable work", async () => {
    const { store } = await MvccHarness.open();
    let n = 0;
    const build = (depth: number): ReturnType<typeof putOp>[] =>
      Array.from({ length: 45 }, () => {
        n += 1;
        if (depth > 0) return txnOp({ success: build(depth - 1) });
        return n % 2 === 0 ? putOp(`p${n}`) : deleteOp(`d${n}`);
      });
    expect(reasonOf(() => store.checkTxn(TxnRequest.create({ success: build(2).slice(0, 38) }), 128))).toBe("accepted");
    expect(n).toBeGreaterThan(50_000);
  });
});

describe("reads", () => {
  it("BV12: limits, orders, filters and counts agree for all combinations (see also the comparison with the model)", async () => {
    const h = await MvccHarness.open({ cacheBytesMax: 1000 });
    const random = seededRandom(9);
    const values = new Map<string, { value: string; mod: number; create: number; version: number }>();
    for (let i = 0; i < 200; i += 1) {
      const key = `k${`${random.below(60)}`.padStart(2, "0")}`;
      const value = `${random.below(1000)}`;
      const { revision } = h.put(key, value);
      const before = values.get(key);
      values.set(key, { value, mod: revision, create: before?.create ?? revision, version: (before?.version ?? 0) + 1 });
    }
    await h.flush();
    const all = [...values].sort(([a], [b]) => (a < b ? -1 : 1));
    for (const sortTarget of [0, 1, 2, 3, 4]) {
      for (const sortOrder of [1, 2]) {
        for (const limit of [0, 1, 7, 1000]) {
          for (const [minModRevision, maxCreateRevision] of [
            [0, 0],
            [100, 0],
            [0, 60],
            [90, 50],
          ] as const) {
            const response = await h.range("k", "l", { sortTarget, sortOrder, limit, minModRevision, maxCreateRevision });
            const kept = all.filter(
              ([, pair]) => pair.mod >= minModRevision && (maxCreateRevision === 0 || pair.create <= maxCreateRevision),
            );
            const column = ([key, pair]: (typeof kept)[number]): string | number =>
              [key, pair.version, pair.create, pair.mod, pair.value][sortTarget] ?? "";
            const expected = kept.map(column).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
            if (sortOrder === 2) expected.reverse();
            const actual = response.kvs.map(
              (kv) => [name(kv.key), kv.version, kv.createRevision, kv.modRevision, name(kv.value)][sortTarget],
            );
            expect(actual).toEqual(limit === 0 ? expected : expected.slice(0, limit));
            expect([response.count, response.more]).toEqual([all.length, limit > 0 && kept.length > limit]);
          }
        }
      }
    }
  });

  it.each([
    ["k", "", "k"],
    ["k", "k", ""],
    ["k", "a", ""],
    ["k", "l", "k k\0 ka"],
    ["k", "\0", "k k\0 ka l"],
    ["\0", "\0", "a k k\0 ka l"],
    ["k", "\0\0", ""],
    ["k", "k\0", "k"],
  ])("range from %j to %j", async (key, end, expected) => {
    const h = await MvccHarness.open();
    for (const one of ["l", "ka", "k\0", "k", "a"]) h.put(one);
    const found = (await h.range(key, end)).kvs.map((kv) => name(kv.key));
    expect(found.join(" ")).toBe(expected);
    expect(h.store.rangeNow(rangeOf(key, end, { countOnly: true }))?.count).toBe(found.length);
    expect(h.delete(key, end).response.deleted).toBe(found.length);
    expect(h.store.keyCount).toBe(5 - found.length);
  });

  it("a past revision shows the fields as they were, and the current revision in the header", async () => {
    const h = await MvccHarness.open({ leases: [7n] });
    h.put("a", "1", { lease: 7n });
    h.put("a", "2");
    h.delete("a");
    h.put("a", "3");
    const at = async (revision: number): Promise<string[]> => pairs(await h.range("a", "", { revision }));
    expect(await Promise.all([1, 2, 3, 4, 5].map(at))).toEqual([[], ["a 2 2 1 1 lease 7"], ["a 2 3 2 2"], [], ["a 5 5 1 3"]]);
    expect((await h.range("a", "", { revision: 2 })).header?.revision).toBe(5);
    expect(reasonOf(() => h.store.rangeNow(rangeOf("a", "", { revision: 6, countOnly: true })))).toBe("future-revision");
    expect(await reasonOfAsync(async () => await h.range("a", "", { revision: 6 }))).toBe("future-revision");
    await h.compactAll(3);
    expect(await reasonOfAsync(async () => await h.range("a", "", { revision: 2 }))).toBe("compacted");
    expect(reasonOf(() => h.store.rangeNow(rangeOf("a", "", { revision: 2, countOnly: true })))).toBe("compacted");
    expect(await at(3)).toEqual(["a 2 3 2 2"]);
  });

  it.each([false, true])("K9: a long read at a fixed revision survives writes and a compaction; planted fault %s", async (planted) => {
    const mutants = new Set(planted ? ["compaction-ignores-readers"] : []);
    const h = await MvccHarness.open({ cacheBytesMax: 0, mutants });
    const keys = Array.from({ length: 12_000 }, (_, i) => `k${`${i}`.padStart(6, "0")}`);
    for (const key of keys) h.put(key, "old");
    const { revision } = h.store;
    for (const key of keys) h.put(key, "new");
    await h.flush();
    const reads = [
      h.range("k", "l", { revision }),
      h.range("k", "l", { revision, sortOrder: 2, sortTarget: 4 }),
      h.range("k", "l", { revision, countOnly: true }),
    ].map(async (read) => await read.catch((error: unknown) => error));
    h.compact(h.store.revision);
    await h.flush();
    let done = false;
    let slices = 0;
    const compaction = (async () => {
      while (!done) {
        done = await h.compactSlice(1000);
        slices += 1;
      }
    })();
    for (let i = 0; i < 50; i += 1) {
      h.delete(keys[i * 7] as string);
      h.put(`k${i}new`, "x");
      await h.flush();
    }
    const answers = (await Promise.all(reads)) as Awaited<ReturnType<typeof h.range>>[];
    await compaction;
    expect(slices).toBeGreaterThan(10);
    const intact =
      answers.every((answer) => !(answer instanceof Error) && answer.count === 12_000) &&
      answers.slice(0, 2).every((answer) => answer.kvs.length === 12_000 && answer.kvs.every((kv) => name(kv.value) === "old"));
    expect(intact).toBe(!planted);
    expect(h.store.readerCount).toBe(0);
    expect(await reasonOfAsync(async () => await h.range("k", "l", { revision }))).toBe("compacted");
    h.store.checkIndex();
  });

  it("a signal ends a long read with its reason", async () => {
    const h = await MvccHarness.open();
    for (let i = 0; i < 9000; i += 1) h.put(`k${i}`);
    const abort = new AbortController();
    const reading = h.store.range(rangeOf("k", "l"), { signal: abort.signal });
    abort.abort(new Error("enough"));
    await expect(reading).rejects.toThrow("enough");
    await expect(h.store.range(rangeOf("k", "l"), { signal: abort.signal })).rejects.toThrow("enough");
    await expect(h.store.readOnlyTxn(TxnRequest.create({ success: [rangeOp("k", "l")] }), { signal: abort.signal })).rejects.toThrow(
      "enough",
    );
    expect(h.store.readerCount).toBe(0);
  });

  it("rangeNow answers from memory or not at all", async () => {
    const h = await MvccHarness.open();
    for (let i = 0; i < 1200; i += 1) h.put(`k${`${i}`.padStart(4, "0")}`, "v");
    await h.flush();
    const now = (more: object, end = "l"): number | undefined => h.store.rangeNow(rangeOf("k", end, more))?.kvs.length;
    expect(now({ limit: 10 })).toBe(10);
    expect(now({ limit: 1000 })).toBeUndefined();
    expect(now({})).toBeUndefined();
    expect(now({ countOnly: true })).toBe(0);
    expect(h.store.rangeNow(rangeOf("k", "l", { limit: 10 }))?.count).toBe(1200);
    await h.restart();
    expect(now({ limit: 10 })).toBeUndefined();
    expect(now({ limit: 10, keysOnly: true })).toBe(10);
    expect(h.store.rangeNow(rangeOf("k0000"))).toBeUndefined();
    await h.range("k0000");
    expect(h.store.rangeNow(rangeOf("k0000"))?.count).toBe(1);
    expect(h.backend.syncReads).toBe(0);
  });
});

describe("rows", () => {
  it("a plain put and what the cache holds need no disk", async () => {
    const h = await MvccHarness.open();
    for (let i = 0; i < 100; i += 1) h.put("a", `${i}`);
    await h.restart();
    h.put("a", "x");
    h.delete("a");
    h.put("a", "y");
    h.txn({
      compare: [compareOf("a", { target: 2, modRevision: 0, result: 1 })],
      success: [putOp("a", "z", { prevKv: true }), rangeOp("a")],
    });
    expect([h.backend.syncReads, h.backend.manyReads]).toEqual([0, 0]);
  });

  it("a prefetch holds what execution will read, until it is released", async () => {
    const h = await MvccHarness.open({ cacheBytesMax: 0, leases: [7n] });
    for (const key of ["a", "b", "c", "d", "e", "f"]) h.put(key, `value of ${key}`, { lease: 7n });
    await h.flush();
    await h.restart();
    const requests = [
      putOf("a", "", { prevKv: true }),
      putOf("b", "", { ignoreValue: true }),
      putOf("f", "1", { ignoreLease: true }),
      deleteOf("c", "d\0", { prevKv: true }),
      TxnRequest.create({ compare: [compareOf("e", { target: 3, value: Buffer.from("value of e") })], success: [rangeOp("e")] }),
      putOf("plain"),
    ] as const;
    const pinned = await h.store.prefetch(requests);
    expect(pinned).toBeDefined();
    expect(h.backend.manyReads).toBe(6);
    const [a, b, f, cd, e] = requests;
    expect(name(h.store.put(a, h.leases, h.batch).response.prevKv?.value ?? new Uint8Array(0))).toBe("value of a");
    h.store.put(b, h.leases, h.batch);
    h.store.put(f, h.leases, h.batch);
    expect(h.store.deleteRange(cd, h.batch).response.prevKvs.map((kv) => name(kv.value))).toEqual(["value of c", "value of d"]);
    expect(h.store.txn(e, h.leases, h.batch).response.succeeded).toBe(true);
    expect(h.backend.syncReads).toBe(0);
    pinned?.release();
    expect(await h.all()).toEqual(["a 2 8 2 ", "b 3 9 2 value of b", "e 6 6 1 value of e lease 7", "f 7 10 2 1 lease 7"]);
    expect(h.store.prefetch([putOf("plain"), deleteOf("a", "z"), TxnRequest.create({ success: [putOp("x")] })])).toBeUndefined();
  });

  it("BW16: a row that comes back altered, moved or not at all is never answered", async () => {
    const damage: [string, (h: MvccHarness, key: string) => void, string[]][] = [
      [
        "altered",
        ({ backend }, key) => {
          const [rowKey, value] = backend.rows.get(key) ?? [new Uint8Array(0), new Uint8Array(0)];
          const altered = value.slice();
          altered[altered.length - 2] = (altered[altered.length - 2] as number) ^ 1;
          backend.rows.set(key, [rowKey, altered]);
        },
        ["range", "sync", "delete", "compare", "history", "hash", "compaction", "open"],
      ],
      [
        "moved",
        ({ backend }, key) => {
          const [rowKey] = backend.rows.get(key) ?? [new Uint8Array(0)];
          const other = [...backend.rows.values()].find(([k]) => name(k) !== key)?.[1] ?? new Uint8Array(0);
          backend.rows.set(key, [rowKey, other]);
        },
        ["range", "sync", "delete", "compare", "history", "hash", "compaction", "open"],
      ],
      ["missing", ({ backend }, key) => backend.rows.delete(key), ["range", "sync", "delete", "compare"]],
    ];
    for (const [what, apply, where] of damage) {
      const h = await MvccHarness.open({ cacheBytesMax: 0 });
      h.put("a", "value one");
      h.put("b", "value two");
      await h.flush();
      await h.restart();
      apply(h, [...h.backend.rows.keys()].sort()[1] as string);
      const reads: Record<string, () => Promise<unknown>> = {
        range: async () => await h.range("b"),
        sync: async () => h.store.put(putOf("b", "", { prevKv: true }), h.leases, createBatch()),
        delete: async () => h.store.deleteRange(deleteOf("a", "z", { prevKv: true }), createBatch()),
        compare: async () =>
          h.store.txn(
            TxnRequest.create({ compare: [compareOf("b", { target: 3, value: Buffer.from("value two") })], success: [putOp("c")] }),
            h.leases,
            createBatch(),
          ),
        history: async () => await h.store.history(2, 3, { revisionsMax: 10, bytesMax: 1000 }),
        hash: async () => await h.store.hashByRevision(3),
        compaction: async () => {
          h.compact(3);
          await h.compactSlice(10);
        },
        open: async () => await h.crash(),
      };
      for (const place of where) {
        const error = await (reads[place]?.() ?? Promise.resolve()).then(
          () => undefined,
          (thrown: unknown) => thrown,
        );
        if (["sync", "delete", "compare"].includes(place)) {
          // Nobody may take it for an answer: other members have executed the request.
          expect(error, `${what} ${place}`).toBeInstanceOf(ExecutionFailedError);
          expect(EtcdError.is(error)).toBe(false);
          expect((error as Error).cause).toBeInstanceOf(RowCorruptError);
        } else {
          expect(error, `${what} ${place}`).toBeInstanceOf(RowCorruptError);
          expect(EtcdError.is(error) && error.grpcCode).toBe(GrpcCode.DataLoss);
        }
      }
    }
  });

  it("BW16: the fault planted for it is seen: an altered value is answered", async () => {
    const h = await MvccHarness.open({ cacheBytesMax: 0, mutants: new Set(["skip-row-checksum"]) });
    h.put("a", "value");
    await h.flush();
    await h.restart();
    const [[key, value] = [new Uint8Array(0), new Uint8Array(0)]] = h.backend.rows.values();
    const altered = value.slice();
    altered[altered.length - 1] = 0x21;
    h.backend.rows.set(name(key), [key, altered]);
    expect(await h.all()).toEqual(["a 2 2 1 valu!"]);
  });

  it("bytes in use are those of the rows, before and after restarts and compactions", async () => {
    const h = await MvccHarness.open();
    const expected = (): number =>
      [...h.backend.rows.values()].reduce((sum, [key, value]) => (key[0] === 0x6b ? sum + key.length + value.length + 16 : sum), 0);
    for (let i = 0; i < 50; i += 1) {
      h.put(`k${i % 7}`, "v".repeat(i));
      if (i % 9 === 0) h.delete(`k${i % 7}`);
    }
    await h.flush();
    expect(h.store.bytesInUse).toBe(expected());
    h.compact(h.store.revision - 3);
    for (let done = false; !done; ) {
      await h.flush();
      done = await h.compactSlice(5);
      expect(h.store.bytesInUse).toBe(expected());
    }
    const { bytesInUse } = h.store;
    await h.restart();
    expect(h.store.bytesInUse).toBe(bytesInUse);
  });

  it("opening reports progress and the leases of living keys", async () => {
    const h = await MvccHarness.open({ leases: [7n, -9n] });
    h.put("a", "", { lease: 7n });
    h.put("b", "", { lease: -9n });
    h.put("c", "", { lease: 7n });
    h.put("c", "");
    h.put("d", "", { lease: 7n });
    h.delete("d");
    await h.flush();
    const attached: string[] = [];
    const progress: number[] = [];
    const { MvccStore } = await import("../../src/mvcc/index.ts");
    const again = await MvccStore.open({
      backend: h.backend,
      cacheBytesMax: 1000,
      yieldNow: () => Promise.resolve(),
      nowMs: () => 0,
      onProgress: (rows) => progress.push(rows),
      onAttachment: (key, lease) => attached.push(`${key} ${lease}`),
    });
    expect(attached.sort()).toEqual(["a 7", "b -9"]);
    expect(progress).toEqual([6]);
    expect(again.keyCount).toBe(3);
  });
});

describe("compaction", () => {
  it("K10: refuses what is compacted already, then what is in the future", async () => {
    const h = await MvccHarness.open();
    h.put("a");
    h.put("a");
    expect(reasonOf(() => h.compact(4))).toBe("future-revision");
    await h.compactAll(3);
    for (const revision of [3, 2, 0, -5]) expect(reasonOf(() => h.compact(revision))).toBe("compacted");
    expect(reasonOf(() => h.compact(4))).toBe("future-revision");
    expect(h.store.revision).toBe(3);
  });

  it("BT4: a watch from a compacted deletion sees it, one row at a time, with a restart at every step", async () => {
    for (const target of [3, 4, 5, 6, 7]) {
      for (let crashAt = 0; crashAt < 10; crashAt += 1) {
        const h = await MvccHarness.open();
        h.put("a", "1"); // 2
        h.delete("a"); // 3
        h.put("a", "2"); // 4
        h.put("b", "1"); // 5
        h.delete("a", "z"); // 6: a, b
        h.put("a", "3"); // 7
        const seen = await h.events(target);
        const states = await Promise.all([3, 4, 5, 6, 7].filter((r) => r >= target).map(async (r) => await h.all(r)));
        h.compact(target);
        await h.flush();
        for (let i = 0; i < crashAt; i += 1) if (await h.compactSlice(1)) break;
        await h.crash();
        await h.finishCompaction(1);
        const withoutPrevious = (events: string[]): string[] =>
          events.map((event) => (event.includes(`@${target} was`) ? event.slice(0, event.indexOf(" was")) : event));
        expect(await h.events(target)).toEqual(withoutPrevious(seen));
        expect(await Promise.all([3, 4, 5, 6, 7].filter((r) => r >= target).map(async (r) => await h.all(r)))).toEqual(states);
        h.store.checkIndex();
        await h.crash();
        expect(await h.events(target)).toEqual(withoutPrevious(seen));
        expect(h.store.compactionPending).toBe(false);
      }
    }
  });

  it("K10: keeps exactly the rows that are needed", async () => {
    const h = await MvccHarness.open();
    h.put("a", "1"); // 2
    h.put("a", "2"); // 3
    h.put("b", "1"); // 4
    h.delete("b"); // 5
    h.put("c", "1"); // 6
    h.delete("c"); // 7
    h.put("a", "3"); // 8
    await h.compactAll(7);
    const rows = [...h.backend.rows.keys()]
      .filter((key) => key.startsWith("k"))
      .map((key) => Number(Buffer.from(key, "latin1").readBigUInt64BE(1)));
    expect(rows.sort()).toEqual([3, 7, 8]);
    expect(await reasonOfAsync(async () => await h.store.history(6, 8, { revisionsMax: 9, bytesMax: 999 }))).toBe("compacted");
    expect(await h.events(7)).toEqual(["delete c@7", "put a@8 was @3"]);
    await h.compactAll(8);
    expect([...h.backend.rows.keys()].filter((key) => key.startsWith("k")).length).toBe(1);
  });

  it("a previous pair is there exactly if its revision is not compacted, whatever has been removed yet", async () => {
    const h = await MvccHarness.open();
    const { events } = {
      events: [...h.put("a", "1").events, ...h.put("a", "2").events, ...h.put("b", "1").events, ...h.put("a", "3").events],
    };
    const previous = events.map((event) => event.previous);
    const found = async (): Promise<(number | undefined)[]> => {
      const some = previous.filter((position) => position !== undefined);
      const many = await h.store.rowsAt(some);
      expect(some.map((position) => h.store.rowAt(position)?.modRevision)).toEqual(many.map((kv) => kv?.modRevision));
      return many.map((kv) => kv?.modRevision);
    };
    expect(await found()).toEqual([2, 3]);
    h.compact(4);
    expect(await found()).toEqual([undefined, 3]);
    await h.flush();
    await h.finishCompaction(1);
    expect(await found()).toEqual([undefined, 3]);
    await h.compactAll(5);
    expect(await found()).toEqual([undefined, undefined]);
  });

  it("does nothing while rows it must look at are unwritten, and several may wait", async () => {
    const h = await MvccHarness.open();
    for (let i = 0; i < 30; i += 1) h.put("a", `${i}`);
    for (let revision = 2; revision <= 26; revision += 1) h.compact(revision);
    expect(await h.store.compactSlice(() => createBatch(), 100)).toBe(false);
    await h.flush();
    await h.finishCompaction(7);
    expect([...h.backend.rows.keys()].filter((key) => key.startsWith("k")).length).toBe(6);
    // Too many waiting ones are merged; of the last ten the hashes are known.
    const plain = await MvccHarness.open();
    for (let i = 0; i < 30; i += 1) plain.put("a", `${i}`);
    for (let revision = 2; revision <= 26; revision += 1) await plain.compactAll(revision);
    for (let revision = 17; revision <= 26; revision += 1)
      expect(await h.store.hashByRevision(revision)).toEqual(await plain.store.hashByRevision(revision));
    expect(await reasonOfAsync(async () => await plain.store.hashByRevision(16))).toBe("compacted");
  });

  it("a slice puts everything into the batch that is open when it has waited, and a deletion never goes before what it deleted", async () => {
    const h = await MvccHarness.open();
    for (let i = 0; i < 40; i += 1) {
      h.put("a", `${i}`);
      h.delete("a");
    }
    h.compact(h.store.revision - 1);
    await h.flush();
    for (let done = false; !done; ) {
      const before = h.batch;
      const slice = h.store.compactSlice(() => h.batch, 7);
      // The batch that was open at the call is written and replaced while the slice reads.
      await h.flush();
      expect(before.operations.some((operation) => operation.type === "del")).toBe(false);
      done = await slice;
      // The process may die between any two batches: nothing that was deleted may come back.
      const store = await MvccHarness.open({}, h.backend);
      expect(store.store.keyCount).toBe(0);
      await h.flush();
    }
    // The put at the compacted revision, and the deletion after it.
    expect([...h.backend.rows.keys()].filter((key) => key.startsWith("k")).length).toBe(2);
  });

  it("BV9: nothing below what is compacted, also no negative revision, can be asked for", async () => {
    const h = await MvccHarness.open();
    for (const revision of [-1, -2, -Number.MAX_SAFE_INTEGER]) expect(reasonOf(() => h.compact(revision))).toBe("compacted");
    expect(h.store.compactionPending).toBe(false);
    expect(await h.store.compactSlice(() => createBatch(), 10)).toBe(true);
  });
});

describe("hashes", () => {
  it("BV7: a compaction under way does not change the hash of a revision", async () => {
    const h = await MvccHarness.open();
    const random = seededRandom(4);
    for (let i = 0; i < 300; i += 1) {
      if (random.below(4) === 0) h.delete(`k${random.below(20)}`);
      else h.put(`k${random.below(20)}`, `${i}`);
    }
    const { revision } = h.store;
    const target = revision - 40;
    const revisions = [target, target + 1, target + 20, revision - 1, revision, 0];
    h.compact(target);
    const before = await Promise.all(revisions.map(async (r) => await h.store.hashByRevision(r)));
    await h.flush();
    for (let done = false; !done; ) {
      expect(await Promise.all(revisions.map(async (r) => await h.store.hashByRevision(r)))).toEqual(before);
      const slice = h.compactSlice(17);
      expect(await Promise.all(revisions.slice(1).map(async (r) => await h.store.hashByRevision(r)))).toEqual(before.slice(1));
      done = await slice;
    }
    expect(await Promise.all(revisions.slice(1).map(async (r) => await h.store.hashByRevision(r)))).toEqual(before.slice(1));
    // The compaction's own: with the compacted revision before it.
    expect((await h.store.hashByRevision(target)).compactRevision).toBe(-1);
    await h.restart();
    expect(await Promise.all(revisions.map(async (r) => await h.store.hashByRevision(r)))).toEqual(before);
  });

  it("counts what the compaction left when only keys are visible that were deleted and put again in that very revision", async () => {
    const h = await MvccHarness.open();
    h.put("a", "1");
    h.put("b", "1");
    h.put("a", "2");
    await h.compactAll(4);
    h.txn({ success: [deleteOp("\0", "\0"), putOp("a", "3")] });
    h.put("c", "1");
    // Recorded from etcd 3.7.1.
    for (const written of [false, true]) {
      if (written) await h.flush();
      expect(await h.store.hashByRevision(5)).toEqual({ hash: 3506786933, compactRevision: 4, hashRevision: 5 });
      expect(await h.store.hashByRevision(6)).toEqual({ hash: 1302064738, compactRevision: 4, hashRevision: 6 });
    }
  });

  it("covers what is not written yet, and is the reference's for a known history", async () => {
    const h = await MvccHarness.open();
    expect(await h.store.hashByRevision(0)).toEqual({ hash: 1084519789, compactRevision: -1, hashRevision: 1 });
    for (const [key, value] of ["a1", "a2", "b1", "a3", "c1"].map((pair) => [...pair])) h.put(key as string, value);
    // Recorded from etcd 3.7.1.
    const expected = { hash: 3498867275, compactRevision: -1, hashRevision: 6 };
    expect(await h.store.hashByRevision(0)).toEqual(expected);
    await h.flush();
    expect(await h.store.hashByRevision(6)).toEqual(expected);
    expect((await h.store.hashByRevision(4)).hash).toBe(1662700350);
    expect(await h.store.hashByRevision(-5)).toEqual({ hash: 1084519789, compactRevision: -1, hashRevision: -5 });
    await h.compactAll(4);
    expect(await h.store.hashByRevision(0)).toEqual({ hash: 1047056777, compactRevision: 4, hashRevision: 6 });
    expect(await h.store.hashByRevision(5)).toEqual({ hash: 2948815330, compactRevision: 4, hashRevision: 5 });
    expect(await h.store.hashByRevision(4)).toEqual({ hash: 1662700350, compactRevision: -1, hashRevision: 4 });
    expect(await reasonOfAsync(async () => await h.store.hashByRevision(3))).toBe("compacted");
    expect(await reasonOfAsync(async () => await h.store.hashByRevision(7))).toBe("future-revision");
    h.put("b", "2");
    h.delete("a");
    expect((await h.store.hashByRevision(8)).hash).toBe(1939575090);
    await h.compactAll(6);
    expect([(await h.store.hashByRevision(0)).hash, (await h.store.hashByRevision(7)).hash]).toEqual([2194756540, 3680848278]);
    await h.restart();
    expect(await reasonOfAsync(async () => await h.store.hashByRevision(4))).toBe("compacted");
    h.delete("a", "z");
    expect((await h.store.hashByRevision(9)).hash).toBe(3353312686);
    await h.compactAll(9);
    expect([(await h.store.hashByRevision(0)).hash, (await h.store.hashByRevision(9)).hash]).toEqual([1084519789, 887168778]);
  });
});
