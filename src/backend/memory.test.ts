import { describe, expect, test } from "vitest";
import { describeBackend } from "../../test/support/backend.contract.ts";
import type { KeyString } from "../base/bytes.ts";
import { seededRandom } from "../base/random.ts";
import { type Backend, BackendClosedError, BackendFailedError, createBatch, MemoryBackend, MemoryStorage } from "./index.ts";
import { MemoryTree, TreeCursor, type TreeSnapshot, treeGet } from "./memory-tree.ts";

describeBackend("memory", async () => new MemoryBackend());
describeBackend("memory with a storage", async () => new MemoryBackend(new MemoryStorage()));

async function write(backend: Backend, number: number): Promise<void> {
  const batch = createBatch();
  batch.put(Buffer.from("number"), Buffer.from(String(number)));
  batch.put(Buffer.from(`row ${number}`), Buffer.from("x"));
  await backend.write(batch);
}

async function numberIn(backend: Backend): Promise<number> {
  return Number(Buffer.from((await backend.get(Buffer.from("number"))) ?? Buffer.from("0")).toString());
}

describe("memory storage", () => {
  test("a dead process loses nothing, and its backend is dead", async () => {
    const storage = new MemoryStorage();
    const backend = new MemoryBackend(storage);
    for (let i = 1; i <= 10; i++) await write(backend, i);
    expect(() => new MemoryBackend(storage)).toThrow(/in use/);
    storage.kill();
    const next = new MemoryBackend(storage);
    expect(await numberIn(next)).toBe(10);
    await expect(write(backend, 11)).rejects.toThrow(BackendClosedError);
    await backend.close();
    await write(next, 11);
    await next.close();
    expect(await numberIn(new MemoryBackend(storage))).toBe(11);
  });

  test("a power loss leaves a prefix of the batches behind the last checkpoint", async () => {
    const seen = new Set<number>();
    for (let seed = 1; seed <= 200; seed++) {
      const storage = new MemoryStorage();
      const backend = new MemoryBackend(storage);
      for (let i = 1; i <= 30; i++) {
        await write(backend, i);
        if (i === 20) await backend.checkpoint();
      }
      storage.powerLoss(seededRandom(seed));
      const next = new MemoryBackend(storage);
      const left = await numberIn(next);
      seen.add(left);
      expect(left).toBeGreaterThanOrEqual(20);
      const iterator = next.iterate({ gte: Buffer.from("row ") });
      expect(await iterator.next(100)).toHaveLength(left);
      await iterator.close();
      await write(next, 99);
      expect(await numberIn(next)).toBe(99);
    }
    expect(seen.size).toBe(11);
  });

  test("many batches without a checkpoint keep a bounded number of versions, the checkpoint among them", async () => {
    const storage = new MemoryStorage();
    const backend = new MemoryBackend(storage);
    for (let i = 1; i <= 1000; i++) await write(backend, i);
    expect(storage.versions.length).toBeLessThanOrEqual(64);
    let zero = 0;
    for (let seed = 1; seed <= 300; seed++) {
      const copy = new MemoryStorage();
      copy.versions = storage.versions;
      copy.powerLoss(seededRandom(seed));
      if ((await numberIn(new MemoryBackend(copy))) === 0) zero += 1;
    }
    expect(zero).toBeGreaterThan(0);
  });

  test("BW14: a failed write poisons the backend until it is opened again", async () => {
    const storage = new MemoryStorage();
    const backend = new MemoryBackend(storage);
    await write(backend, 1);
    storage.failNextWrite = new Error("no space");
    await expect(write(backend, 2)).rejects.toThrow(BackendFailedError);
    await expect(write(backend, 3)).rejects.toThrow(/no space/);
    expect(() => backend.getSync(Buffer.from("number"))).toThrow(BackendFailedError);
    await backend.close();
    const next = new MemoryBackend(storage);
    expect(await numberIn(next)).toBe(1);
    await write(next, 2);
  });
});

describe("memory tree", () => {
  const value = Buffer.from("v");
  const k = (n: number): KeyString => String(n).padStart(8, "0") as KeyString;

  function keysOf(snapshot: TreeSnapshot): string[] {
    const cursor = new TreeCursor(snapshot);
    const keys: string[] = [];
    for (; cursor.key !== undefined; cursor.next()) keys.push(cursor.key);
    return keys;
  }

  test("filled in order, then emptied in every order, with snapshots that never change", () => {
    const orders: ((n: number) => number)[] = [(n) => n, (n) => 9999 - n, (n) => (n * 7919) % 10_000];
    for (const order of orders) {
      const tree = new MemoryTree();
      for (let i = 0; i < 10_000; i++) tree.put(k(i), value);
      expect(tree.size).toBe(10_000);
      expect(tree.bytes).toBe(90_000);
      const full = tree.snapshot();
      for (let i = 0; i < 10_000; i++) {
        tree.delete(k(order(i)));
        if (i % 1000 === 0) expect(keysOf(tree.snapshot())).toHaveLength(9999 - i);
      }
      expect(tree.size).toBe(0);
      expect(tree.bytes).toBe(0);
      expect(keysOf(tree.snapshot())).toEqual([]);
      expect(keysOf(full)).toHaveLength(10_000);
      tree.put(k(5), value);
      expect(keysOf(tree.snapshot())).toEqual([k(5)]);
    }
  });

  test("against a plain map, old snapshots included", () => {
    const random = seededRandom(3);
    const tree = new MemoryTree();
    const model = new Map<string, Uint8Array>();
    const kept: { snapshot: TreeSnapshot; keys: string[] }[] = [];
    for (let step = 0; step < 60_000; step++) {
      const key = k(random.below(3000));
      if (random.chance({ of: step % 20_000 > 12_000 ? 8 : 3, outOf: 10 })) {
        tree.delete(key);
        model.delete(key);
      } else {
        const fresh = Buffer.alloc(random.below(10));
        tree.put(key, fresh);
        model.set(key, fresh);
      }
      if (step % 5000 === 0) kept.push({ snapshot: tree.snapshot(), keys: [...model.keys()].sort() });
    }
    for (const { snapshot, keys } of kept) expect(keysOf(snapshot)).toEqual(keys);
    const now = tree.snapshot();
    for (let i = 0; i < 3000; i++) expect(treeGet(now.root, k(i))).toBe(model.get(k(i)));
    expect(tree.bytes).toBe([...model].reduce((sum, [key, bytes]) => sum + key.length + bytes.byteLength, 0));
    const cursor = new TreeCursor(now);
    const sorted = [...model.keys()].sort();
    for (let i = 0; i < 3000; i += 7) {
      cursor.seek(k(i));
      expect(cursor.key).toBe(sorted.find((key) => key >= k(i)));
      cursor.seekBelow(k(i));
      expect(cursor.key).toBe(sorted.findLast((key) => key < k(i)));
    }
  });
});
