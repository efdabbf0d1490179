import { describe, expect, it } from "vitest";
import type { KeyString } from "../base/bytes.ts";
import { type Random, seededRandom } from "../base/random.ts";
import { type Bucket, type IndexedItem, OPEN_END, WatchIndex } from "./interval-tree.ts";

class Item implements IndexedItem<Item> {
  readonly start: KeyString;
  readonly end: KeyString | undefined;
  bucket: Bucket<Item> | undefined = undefined;
  bucketSlot = -1;

  constructor(start: KeyString, end: KeyString | undefined) {
    this.start = start;
    this.end = end;
  }

  watches(key: KeyString): boolean {
    return this.end === undefined ? key === this.start : this.start <= key && key < this.end;
  }
}

function found(index: WatchIndex<Item>, key: KeyString): Set<Item> {
  const buckets: Bucket<Item>[] = [];
  index.collect(key, buckets);
  const items = buckets.flatMap((bucket) => bucket.items);
  expect(new Set(items).size).toBe(items.length);
  return new Set(items);
}

function randomKey(random: Random): KeyString {
  let key = "";
  for (let n = 1 + random.below(3); n > 0; n -= 1) key += String.fromCharCode(random.below(8) === 0 ? 255 : 97 + random.below(5));
  return key as KeyString;
}

describe("the watch index", () => {
  it("finds what a search through all items finds, while items come and go", () => {
    for (let seed = 1; seed <= 5; seed += 1) {
      const random = seededRandom(seed);
      const index = new WatchIndex<Item>();
      const items: Item[] = [];
      for (let n = 0; n < 6000; n += 1) {
        // Grows, then shrinks to nothing.
        if (items.length === 0 || random.chance({ of: n < 3000 ? 6 : 3, outOf: 10 })) {
          const a = randomKey(random);
          const b = randomKey(random);
          const shape = random.below(10);
          const item =
            shape < 3 || a === b ? new Item(a, undefined) : shape < 5 ? new Item(a, OPEN_END) : a < b ? new Item(a, b) : new Item(b, a);
          index.add(item, item.start, item.end);
          items.push(item);
        } else {
          const [item] = items.splice(random.below(items.length), 1) as [Item];
          index.remove(item);
        }
        expect(index.size).toBe(items.length);
        if (n % 50 !== 0) continue;
        const ranges = new Set(items.filter((item) => item.end !== undefined).map((item) => `${item.start}|${item.end}`));
        expect(index.check()).toBe(ranges.size);
        for (let probe = 0; probe < 10; probe += 1) {
          const key = randomKey(random);
          expect(found(index, key)).toEqual(new Set(items.filter((item) => item.watches(key))));
        }
      }
      for (const item of items) index.remove(item);
      expect(index.check()).toBe(0);
    }
  });

  it("stays balanced when ranges come in order", () => {
    const index = new WatchIndex<Item>();
    const items = Array.from(
      { length: 5000 },
      (_, n) => new Item(`k${String(n).padStart(5, "0")}` as KeyString, `k${String(n + 3).padStart(5, "0")}` as KeyString),
    );
    for (const item of items) index.add(item, item.start, item.end);
    expect(index.check()).toBe(5000);
    expect(found(index, "k02500" as KeyString).size).toBe(3);
    for (const item of items) index.remove(item);
    expect(index.check()).toBe(0);
  });

  it("refuses empty ranges and items that are in it already", () => {
    const index = new WatchIndex<Item>();
    const item = new Item("a" as KeyString, "a" as KeyString);
    expect(() => index.add(item, item.start, item.end)).toThrow("a watched range is not empty");
    const other = new Item("a" as KeyString, undefined);
    index.add(other, other.start, other.end);
    expect(() => index.add(other, other.start, other.end)).toThrow("in the index once");
    index.remove(other);
    expect(() => index.remove(other)).toThrow("the item is in the index");
  });
});
