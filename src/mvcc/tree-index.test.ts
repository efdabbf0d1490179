import { describe, expect, it } from "vitest";
import type { KeyString } from "../base/bytes.ts";
import { type Random, seededRandom } from "../base/random.ts";
import { PositionList } from "./position-list.ts";
import { NEWEST, TreeIndex } from "./tree-index.ts";

interface Change {
  readonly main: number;
  readonly sub: number;
  readonly create: number;
  readonly version: number;
}

/** The same index, slow and obvious: a sorted list of keys with all their changes. */
class NaiveIndex {
  readonly changes = new Map<KeyString, Change[]>();

  keys(): KeyString[] {
    return [...this.changes.keys()].sort();
  }

  at(key: KeyString, revision: number): Change | undefined {
    const change = this.changes
      .get(key)
      ?.filter((c) => c.main <= revision)
      .at(-1);
    return change === undefined || change.version === 0 ? undefined : change;
  }

  put(key: KeyString, main: number, sub: number): void {
    const before = this.at(key, NEWEST);
    const list = this.changes.get(key) ?? [];
    list.push({ main, sub, create: before?.create ?? main, version: (before?.version ?? 0) + 1 });
    this.changes.set(key, list);
  }

  remove(key: KeyString, main: number, sub: number): boolean {
    if (this.at(key, NEWEST) === undefined) return false;
    this.changes.get(key)?.push({ main, sub, create: 0, version: 0 });
    return true;
  }

  range(from: KeyString, to: KeyString | undefined, revision: number): [KeyString, Change][] {
    return this.keys()
      .filter((key) => key >= from && (to === undefined || key < to))
      .flatMap((key) => {
        const change = this.at(key, revision);
        return change === undefined ? [] : [[key, change] as [KeyString, Change]];
      });
  }

  isKept(key: KeyString, change: Change, revision: number): boolean {
    const newest = this.changes
      .get(key)
      ?.filter((c) => c.main <= revision)
      .at(-1);
    return newest === change && (change.version !== 0 || change.main === revision);
  }

  compact(revision: number): void {
    for (const key of this.keys()) {
      const left = this.changes.get(key)?.filter((c) => c.main > revision || this.isKept(key, c, revision)) ?? [];
      if (left.length === 0) this.changes.delete(key);
      else this.changes.set(key, left);
    }
  }
}

function listOf(positions: PositionList): [KeyString, Change][] {
  return Array.from({ length: positions.length }, (_, i) => [
    positions.keyAt(i),
    { main: positions.mainAt(i), sub: positions.subAt(i), create: positions.createAt(i), version: positions.versionAt(i) },
  ]);
}

function collect(index: TreeIndex, from: KeyString, to: KeyString | undefined, revision: number, keysMax: number): [KeyString, Change][] {
  const positions = new PositionList();
  for (let at: KeyString | undefined = from; at !== undefined; ) at = index.collectSlice(at, to, revision, positions, NEWEST, keysMax);
  return listOf(positions);
}

function countAt(index: TreeIndex, from: KeyString, to: KeyString | undefined, revision: number, leavesMax: number): number {
  index.counted = 0;
  for (let at: KeyString | undefined = from; at !== undefined; ) at = index.countSlice(at, to, revision, leavesMax);
  return index.counted;
}

function current(index: TreeIndex): Change {
  return { main: index.main, sub: index.sub, create: index.create, version: index.version };
}

function keyOf(n: number): KeyString {
  return `k${n.toString().padStart(6, "0")}` as KeyString;
}

/** Plays a random stream of changes and compactions on both, comparing as it goes. */
function play(
  seed: number,
  options: { steps: number; keys: number; everything: number; weights: { put: number; remove: number; range: number; compact: number } },
): void {
  const random: Random = seededRandom(seed);
  const index = new TreeIndex();
  const naive = new NaiveIndex();
  let revision = 1;
  let compacted = 0;
  const { put, remove, range, compact } = options.weights;
  const bounds = (): [KeyString, KeyString | undefined] => {
    const from = keyOf(random.below(options.keys));
    return [from, random.chance({ of: 1, outOf: 5 }) ? undefined : keyOf(random.below(options.keys))];
  };
  for (let step = 0; step < options.steps; step += 1) {
    const key = keyOf(random.below(options.keys));
    const dice = random.below(put + remove + range + compact);
    if (dice < put) {
      revision += 1;
      const before = naive.changes.get(key)?.at(-1);
      index.put(key, revision, 0);
      expect(current(index)).toEqual(before ?? { main: 0, sub: 0, create: 0, version: 0 });
      naive.put(key, revision, 0);
      expect([index.newCreate, index.newVersion]).toEqual([naive.at(key, NEWEST)?.create, naive.at(key, NEWEST)?.version]);
      // A second change of the same key in one revision.
      if (random.chance({ of: 1, outOf: 10 })) {
        expect(index.remove(key, revision, 1)).toBe(true);
        naive.remove(key, revision, 1);
      }
    } else if (dice < put + remove) {
      const expected = naive.remove(key, revision + 1, 0);
      expect(index.remove(key, revision + 1, 0)).toBe(expected);
      if (expected) revision += 1;
    } else if (dice < put + remove + range) {
      const [from, end] = bounds();
      const to = random.chance({ of: 1, outOf: 2 }) ? keyOf(Number(from.slice(1)) + random.below(20)) : end;
      const expected = naive.range(from, to, NEWEST);
      const before = new PositionList();
      expect(index.removeRange(from, to, revision + 1, 0, before)).toBe(expected.length);
      expect(listOf(before)).toEqual(expected);
      expected.forEach(([removed], sub) => {
        naive.remove(removed, revision + 1, sub);
      });
      if (expected.length > 0) revision += 1;
    } else if (compacted < revision) {
      compacted += 1 + random.below(revision - compacted);
      for (const [at, changes] of naive.changes) {
        for (const change of changes) {
          if (change.main <= compacted)
            expect(index.isKept(at, change.main, change.sub, compacted)).toBe(naive.isKept(at, change, compacted));
        }
      }
      for (const at of naive.keys()) index.prune(at, compacted);
      naive.compact(compacted);
    }

    const found = index.find(key);
    expect(found).toBe(naive.changes.has(key));
    if (found) expect(current(index)).toEqual(naive.changes.get(key)?.at(-1));
    const old = compacted + random.below(revision - compacted + 1);
    const visible = naive.at(key, old);
    expect(index.findAt(key, old)).toBe(visible !== undefined);
    if (visible !== undefined) expect(current(index)).toEqual(visible);

    if (step % options.everything === 0) {
      index.check();
      const [from, to] = bounds();
      expect(index.size).toBe(naive.changes.size);
      expect(index.live).toBe(naive.range("" as KeyString, undefined, NEWEST).length);
      for (const at of [NEWEST, old]) {
        const expected = naive.range(from, to, at);
        expect(collect(index, from, to, at, 1 + random.below(400))).toEqual(expected);
        expect(countAt(index, from, to, at, 1 + random.below(4))).toBe(expected.length);
        if (at === NEWEST) expect(index.count(from, to)).toBe(expected.length);
      }
    }
  }
  index.check();
}

describe("TreeIndex against its naive twin", () => {
  it.each([1, 2, 3])("grows and shrinks, seed %i", (seed) => {
    play(seed, { steps: 4000, keys: 1500, everything: 50, weights: { put: 70, remove: 15, range: 1, compact: 1 } });
  });

  it.each([4, 5, 6])("few keys with long histories, seed %i", (seed) => {
    play(seed, { steps: 3000, keys: 12, everything: 5, weights: { put: 60, remove: 25, range: 10, compact: 3 } });
  });

  it.each([7, 8])("many deletions, seed %i", (seed) => {
    play(seed, { steps: 3000, keys: 900, everything: 30, weights: { put: 60, remove: 30, range: 6, compact: 8 } });
  });
});

describe("TreeIndex", () => {
  it("keeps its shape while a hundred thousand keys come in order, out of order, and go again", () => {
    for (const order of ["ascending", "descending", "shuffled"] as const) {
      const random = seededRandom(11);
      const numbers = Array.from({ length: 100_000 }, (_, i) => i);
      if (order === "descending") numbers.reverse();
      if (order === "shuffled") numbers.sort(() => random.below(3) - 1);
      const index = new TreeIndex();
      let revision = 1;
      for (const n of numbers) {
        revision += 1;
        index.put(keyOf(n), revision, 0);
      }
      index.check();
      expect(index.live).toBe(100_000);
      expect(index.count(keyOf(10), keyOf(90_010))).toBe(90_000);
      const before = new PositionList();
      expect(index.removeRange(keyOf(10), keyOf(99_990), revision + 1, 0, before)).toBe(99_980);
      index.check();
      // The deletions go in the order of the keys, then in no order: both ends of the tree shrink.
      for (const n of numbers) index.prune(keyOf(n), revision + 2);
      index.check();
      expect(index.size).toBe(20);
      index.removeRange("" as KeyString, undefined, revision + 3, 0, new PositionList());
      for (const n of numbers) index.prune(keyOf(n), revision + 4);
      index.check();
      expect([index.size, index.live]).toEqual([0, 0]);
      index.put(keyOf(1), revision + 5, 0);
      expect(index.live).toBe(1);
    }
  });

  it("orders by bytes, shorter first", () => {
    const index = new TreeIndex();
    const keys = ["b", "a\xff", "a", "a\x00", "\xff\xff", "a\x00\x00", "\x00"] as KeyString[];
    keys.forEach((key, i) => {
      index.put(key, i + 2, 0);
    });
    expect(collect(index, "" as KeyString, undefined, NEWEST, 10).map(([key]) => key)).toEqual([
      "\x00",
      "a",
      "a\x00",
      "a\x00\x00",
      "a\xff",
      "b",
      "\xff\xff",
    ]);
    expect(collect(index, "b" as KeyString, "a" as KeyString, NEWEST, 10)).toEqual([]);
    expect(index.count("b" as KeyString, "a" as KeyString)).toBe(0);
  });

  it("a walk in slices sees its revision whatever is written between the slices", () => {
    const random = seededRandom(5);
    const index = new TreeIndex();
    let revision = 1;
    for (let n = 0; n < 3000; n += 1) {
      revision += 1;
      index.put(keyOf(n * 2), revision, 0);
    }
    const expected = collect(index, keyOf(0), undefined, revision, 100_000);
    const at = revision;
    const positions = new PositionList();
    for (let from: KeyString | undefined = keyOf(0); from !== undefined; ) {
      from = index.collectSlice(from, undefined, at, positions, NEWEST, 100);
      for (let i = 0; i < 200; i += 1) {
        revision += 1;
        const key = keyOf(random.below(6000));
        if (random.chance({ of: 1, outOf: 3 })) index.remove(key, revision, 0);
        else index.put(key, revision, 0);
      }
    }
    expect(listOf(positions)).toEqual(expected);
    expect(countAt(index, keyOf(0), undefined, at, 2)).toBe(3000);
    index.check();
  });
});
