/** What every backend must do. Run it with a factory in a test file: `describeBackend("memory", async () => new MemoryBackend())`. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Backend, BackendClosedError, type BackendRange, type BackendRow, createBatch } from "../../src/backend/index.ts";
import { seededRandom } from "../../src/base/random.ts";

const key = (text: string): Uint8Array => Buffer.from(text, "latin1");
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

async function put(backend: Backend, rows: Record<string, string | undefined>): Promise<void> {
  const batch = createBatch();
  for (const [name, value] of Object.entries(rows)) {
    if (value === undefined) batch.delete(key(name));
    else batch.put(key(name), key(value));
  }
  await backend.write(batch);
}

async function rowsOf(
  backend: Backend,
  range: Omit<BackendRange, "gte"> & { gte?: Uint8Array } = {},
  limit = 100,
  bytesMax?: number,
): Promise<string[]> {
  const iterator = backend.iterate({ gte: key(""), ...range });
  const rows: BackendRow[] = [];
  for (let slice = await iterator.next(limit, bytesMax); slice.length > 0; slice = await iterator.next(limit, bytesMax))
    rows.push(...slice);
  expect(await iterator.next(limit)).toEqual([]);
  await iterator.close();
  return rows.map(([name, value]) => `${text(name)}=${text(value)}`);
}

export function describeBackend(name: string, open: () => Promise<Backend>): void {
  describe(`backend contract: ${name}`, () => {
    let backend: Backend;

    beforeEach(async () => {
      backend = await open();
    });

    afterEach(async () => {
      await backend.close();
    });

    test("put, get, delete; absent rows are undefined", async () => {
      await put(backend, { a: "1", b: "2", empty: "" });
      expect(text((await backend.get(key("a"))) ?? key("?"))).toBe("1");
      expect(text(backend.getSync(key("b")) ?? key("?"))).toBe("2");
      expect((await backend.get(key("empty")))?.byteLength).toBe(0);
      expect(await backend.get(key("c"))).toBeUndefined();
      expect(backend.getSync(key("c"))).toBeUndefined();
      await put(backend, { a: undefined, c: "3" });
      expect(await backend.get(key("a"))).toBeUndefined();
      expect(await rowsOf(backend)).toEqual(["b=2", "c=3", "empty="]);
    });

    test("a batch takes effect in the order of its calls", async () => {
      const batch = createBatch();
      batch.put(key("a"), key("1"));
      batch.delete(key("a"));
      batch.put(key("b"), key("1"));
      batch.put(key("b"), key("2"));
      batch.delete(key("never there"));
      await backend.write(batch);
      expect(await rowsOf(backend)).toEqual(["b=2"]);
      expect(batch.operations).toHaveLength(5);
      expect(batch.bytes).toBe(2 + 1 + 2 + 2 + 11);
    });

    test("an empty batch is nothing, an empty key is refused", async () => {
      await backend.write(createBatch());
      expect(await rowsOf(backend)).toEqual([]);
      expect(() => createBatch().put(new Uint8Array(0), key("x"))).toThrow();
      expect(() => createBatch().delete(new Uint8Array(0))).toThrow();
    });

    test("getMany answers in the order of the keys, also many of them", async () => {
      const batch = createBatch();
      for (let i = 0; i < 3000; i++) batch.put(key(`k${i}`), key(`v${i}`));
      await backend.write(batch);
      const asked = Array.from({ length: 5000 }, (_, i) => key(`k${(i * 7919) % 6000}`));
      const values = await backend.getMany(asked);
      expect(values).toHaveLength(5000);
      values.forEach((value, i) => {
        const n = (i * 7919) % 6000;
        expect(value === undefined ? undefined : text(value)).toBe(n < 3000 ? `v${n}` : undefined);
      });
      expect(await backend.getMany([])).toEqual([]);
    });

    test("keys compare as unsigned bytes", async () => {
      const keys = [
        [0],
        [0, 0],
        [0, 255],
        [1],
        [127],
        [128],
        [195, 191],
        [239, 191, 189],
        [240, 159, 152, 128],
        [255],
        [255, 0],
        [255, 255],
      ];
      const batch = createBatch();
      for (const bytes of [...keys].reverse()) batch.put(Uint8Array.from(bytes), key("x"));
      await backend.write(batch);
      const iterator = backend.iterate({ gte: Uint8Array.of(0) });
      const found = await iterator.next(100);
      await iterator.close();
      expect(found.map(([bytes]) => [...bytes])).toEqual(keys);
    });

    test("ranges: from, below, both, reversed, in slices by rows and by bytes, keys only", async () => {
      await put(backend, { a: "1", b: "2", c: "3", d: "4", e: "5" });
      expect(await rowsOf(backend, { gte: key("b"), lt: key("d") })).toEqual(["b=2", "c=3"]);
      expect(await rowsOf(backend, { gte: key("bb") })).toEqual(["c=3", "d=4", "e=5"]);
      expect(await rowsOf(backend, { lt: key("b") })).toEqual(["a=1"]);
      expect(await rowsOf(backend, { gte: key("d"), lt: key("b") })).toEqual([]);
      expect(await rowsOf(backend, { gte: key("f") })).toEqual([]);
      expect(await rowsOf(backend, { gte: key("b"), lt: key("d"), reverse: true })).toEqual(["c=3", "b=2"]);
      expect(await rowsOf(backend, { reverse: true }, 2)).toEqual(["e=5", "d=4", "c=3", "b=2", "a=1"]);
      expect(await rowsOf(backend, {}, 1)).toEqual(["a=1", "b=2", "c=3", "d=4", "e=5"]);
      expect(await rowsOf(backend, {}, 100, 1)).toEqual(["a=1", "b=2", "c=3", "d=4", "e=5"]);
      expect(await rowsOf(backend, { keysOnly: true })).toEqual(["a=", "b=", "c=", "d=", "e="]);
      const iterator = backend.iterate({ gte: key("") });
      expect((await iterator.next(100, 4)).length).toBe(2);
      expect((await iterator.next(2)).length).toBe(2);
      expect((await iterator.next(100)).length).toBe(1);
      await iterator.close();
    });

    test("a large walk in slices of some bytes", async () => {
      const batch = createBatch();
      for (let i = 0; i < 5000; i++) batch.put(key(`k${String(i).padStart(5, "0")}`), Buffer.alloc(500, i % 251));
      await backend.write(batch);
      for (const reverse of [false, true]) {
        const iterator = backend.iterate({ gte: key("k"), reverse });
        let seen = 0;
        for (let slice = await iterator.next(10_000, 64 << 10); slice.length > 0; slice = await iterator.next(10_000, 64 << 10)) {
          expect(slice.length).toBeLessThan(200);
          for (const [name, value] of slice) {
            const i = reverse ? 4999 - seen : seen;
            expect(text(name)).toBe(`k${String(i).padStart(5, "0")}`);
            expect(value[0]).toBe(i % 251);
            seen += 1;
          }
        }
        expect(seen).toBe(5000);
        await iterator.close();
      }
      const all = backend.iterate({ gte: key("k") });
      expect((await all.next(100_000)).length).toBe(5000);
      await all.close();
    });

    test("an iterator shows the store as of its call, a snapshot as of its own", async () => {
      await put(backend, { a: "1", b: "2" });
      const snapshot = backend.snapshot();
      const iterator = backend.iterate({ gte: key("") });
      await put(backend, { a: "changed", b: undefined, c: "3" });
      expect((await iterator.next(10)).map(([name, value]) => `${text(name)}=${text(value)}`)).toEqual(["a=1", "b=2"]);
      await iterator.close();
      expect(await rowsOf(backend, { snapshot })).toEqual(["a=1", "b=2"]);
      expect(await rowsOf(backend)).toEqual(["a=changed", "c=3"]);
      await snapshot.close();
      await snapshot.close();
    });

    test("getMany over many keys is one view although writes go on", async () => {
      const all = Array.from({ length: 4000 }, (_, i) => key(`k${i}`));
      const fill = createBatch();
      for (const name of all) fill.put(name, key("old"));
      await backend.write(fill);
      const reading = backend.getMany(all);
      const change = createBatch();
      for (const name of all) change.put(name, key("new"));
      await backend.write(change);
      const values = new Set((await reading).map((value) => text(value ?? key("?"))));
      expect(values.size).toBe(1);
    });

    test("bytes handed in may be reused once the write has resolved", async () => {
      const name = Buffer.from("name");
      const value = Buffer.from("value");
      const batch = createBatch();
      batch.put(name, value);
      await backend.write(batch);
      name.fill(0x78);
      value.fill(0x78);
      expect(await rowsOf(backend)).toEqual(["name=value"]);
    });

    test("writes that overlap are a mistake of the caller", async () => {
      const one = createBatch();
      one.put(key("a"), key("1"));
      const first = backend.write(one);
      await expect(backend.write(one)).rejects.toThrow(/overlap/);
      await first;
      expect(await rowsOf(backend)).toEqual(["a=1"]);
    });

    test("checkpoint, defragment and size change nothing that can be read", async () => {
      const batch = createBatch();
      for (let i = 0; i < 2000; i++) batch.put(key(`k${i}`), Buffer.alloc(200, 1));
      await backend.write(batch);
      const before = await rowsOf(backend, {}, 1000);
      await backend.checkpoint();
      await backend.checkpoint();
      expect(await backend.sizeBytes()).toBeGreaterThan(100_000);
      const defragmenting = backend.defragment();
      await put(backend, { zz: "written meanwhile" });
      await defragmenting;
      expect(await rowsOf(backend, {}, 1000)).toEqual([...before, "zz=written meanwhile"]);
    });

    test("close is idempotent; it ends iterators and snapshots, and what comes later fails with a typed error", async () => {
      await put(backend, { a: "1" });
      const iterator = backend.iterate({ gte: key("") });
      const snapshot = backend.snapshot();
      const pending = backend.get(key("a")).then(
        () => "value",
        (error: unknown) => (error instanceof BackendClosedError ? "closed" : error),
      );
      await Promise.all([backend.close(), backend.close()]);
      expect(["value", "closed"]).toContain(await pending);
      expect(() => backend.getSync(key("a"))).toThrow(BackendClosedError);
      expect(() => backend.iterate({ gte: key("") })).toThrow(BackendClosedError);
      expect(() => backend.snapshot()).toThrow(BackendClosedError);
      await expect(backend.get(key("a"))).rejects.toThrow(BackendClosedError);
      await expect(backend.getMany([key("a")])).rejects.toThrow(BackendClosedError);
      await expect(put(backend, { b: "2" })).rejects.toThrow(BackendClosedError);
      await expect(backend.checkpoint()).rejects.toThrow(BackendClosedError);
      await expect(backend.defragment()).rejects.toThrow(BackendClosedError);
      await expect(backend.sizeBytes()).rejects.toThrow(BackendClosedError);
      await expect(iterator.next(1)).rejects.toThrow(BackendClosedError);
      await iterator.close();
      await snapshot.close();
    });

    test("close while reads, a write and a defragmentation run does no harm", async () => {
      const batch = createBatch();
      for (let i = 0; i < 3000; i++) batch.put(key(`k${i}`), Buffer.alloc(300, 2));
      await backend.write(batch);
      const iterators = Array.from({ length: 20 }, () => backend.iterate({ gte: key("") }));
      const running: Promise<unknown>[] = iterators.map((iterator) => iterator.next(1000));
      running.push(
        backend.getMany(Array.from({ length: 3000 }, (_, i) => key(`k${i}`))),
        backend.write(batch),
        backend.defragment(),
        backend.checkpoint(),
      );
      const outcomes = Promise.allSettled(running);
      await backend.close();
      for (const outcome of await outcomes) {
        if (outcome.status === "rejected") expect(outcome.reason).toBeInstanceOf(BackendClosedError);
      }
    });

    test("random batches, ranges and snapshots against a plain sorted array", async () => {
      const random = seededRandom(42);
      const model = new Map<string, string>();
      const snapshots: { snapshot: ReturnType<Backend["snapshot"]>; model: Map<string, string> }[] = [];
      const name = (): string => {
        const length = 1 + random.below(4);
        return Array.from({ length }, () =>
          String.fromCharCode(random.chance({ of: 1, outOf: 5 }) ? random.below(256) : 97 + random.below(4)),
        ).join("");
      };
      const inRange = (from: Map<string, string>, gte: string, lt: string | undefined, reverse: boolean): string[] => {
        const rows = [...from].filter(([k]) => k >= gte && (lt === undefined || k < lt)).sort(([a], [b]) => (a < b ? -1 : 1));
        return (reverse ? rows.reverse() : rows).map(([k, v]) => `${k}=${v}`);
      };
      for (let round = 0; round < 300; round++) {
        const batch = createBatch();
        for (let i = random.below(30); i >= 0; i--) {
          const k = name();
          if (random.chance({ of: round % 50 > 30 ? 7 : 2, outOf: 10 })) {
            batch.delete(key(k));
            model.delete(k);
          } else {
            const v = `${round}.${i}`;
            batch.put(key(k), key(v));
            model.set(k, v);
          }
        }
        await backend.write(batch);
        if (random.chance({ of: 1, outOf: 10 }) && snapshots.length < 5)
          snapshots.push({ snapshot: backend.snapshot(), model: new Map(model) });
        const view = snapshots.length > 0 && random.chance({ of: 1, outOf: 3 }) ? snapshots[random.below(snapshots.length)] : undefined;
        const gte = random.chance({ of: 1, outOf: 4 }) ? "" : name();
        const lt = random.chance({ of: 1, outOf: 2 }) ? name() : undefined;
        const reverse = random.chance({ of: 1, outOf: 2 });
        const found = await rowsOf(
          backend,
          { gte: key(gte), lt: lt === undefined ? undefined : key(lt), reverse, snapshot: view?.snapshot },
          1 + random.below(40),
          random.chance({ of: 1, outOf: 3 }) ? 1 + random.below(100) : undefined,
        );
        expect(found).toEqual(inRange(view?.model ?? model, gte, lt, reverse));
        if (random.chance({ of: 1, outOf: 20 })) await snapshots.shift()?.snapshot.close();
        if (random.chance({ of: 1, outOf: 40 })) await (random.chance({ of: 1, outOf: 2 }) ? backend.checkpoint() : backend.defragment());
      }
      for (const { snapshot } of snapshots) await snapshot.close();
    });
  });
}
