import { describe, expect, it } from "vitest";
import { utf8Bytes } from "../base/bytes.ts";
import { seededRandom } from "../base/random.ts";
import { encodePut, RowArena, type StoredPair } from "./row.ts";
import { CACHED_PAIR_OVERHEAD_BYTES, ValueCache } from "./value-cache.ts";

const arena = new RowArena();

function nameOf(kv: StoredPair | undefined): string | undefined {
  return kv?.keyString;
}

function pair(main: number, sub: number, valueBytes = 10): StoredPair {
  return encodePut(arena, utf8Bytes(`key-${main}-${sub}`), main, main, sub, 1, new Uint8Array(valueBytes), 0n).pair;
}

describe("ValueCache", () => {
  it("finds by position, also several rows of one revision", () => {
    const cache = new ValueCache(1_000_000);
    for (let sub = 0; sub < 3; sub += 1) cache.add(7, sub, pair(7, sub));
    expect(nameOf(cache.get(7, 0))).toBe("key-7-0");
    expect(nameOf(cache.get(7, 2))).toBe("key-7-2");
    expect(cache.get(7, 3)).toBeUndefined();
    expect(cache.get(8, 0)).toBeUndefined();
  });

  it("never holds more bytes than it may, keeps what is used, forgets what is not", () => {
    const random = seededRandom(1);
    const bytesMax = 100 * (CACHED_PAIR_OVERHEAD_BYTES + 60);
    const cache = new ValueCache(bytesMax);
    cache.add(2, 0, pair(2, 0));
    for (let main = 3; main < 3000; main += 1) {
      cache.add(main, 0, pair(main, 0, random.below(60)));
      expect(cache.bytes).toBeLessThanOrEqual(bytesMax);
      expect(nameOf(cache.get(2, 0))).toBe("key-2-0");
      expect(cache.get(main, 0)?.modRevision).toBe(main);
    }
    expect(cache.get(3, 0)).toBeUndefined();
    expect(cache.get(2999, 0)).toBeDefined();
  });

  it("does not keep a pair larger than a generation", () => {
    const cache = new ValueCache(2000);
    cache.add(2, 0, pair(2, 0, 5000));
    expect(cache.get(2, 0)).toBeUndefined();
    expect(cache.bytes).toBe(0);
  });

  it("a pair that is used again does not hold the memory it came with", () => {
    const cache = new ValueCache(4 * (CACHED_PAIR_OVERHEAD_BYTES + 50));
    const first = pair(2, 0);
    cache.add(2, 0, first);
    for (let main = 3; main < 5; main += 1) cache.add(main, 0, pair(main, 0));
    const again = cache.get(2, 0);
    expect(again?.toKeyValue()).toEqual(first.toKeyValue());
    expect(again?.wireBytes.buffer).not.toBe(first.wireBytes.buffer);
  });
});
