import { describe, expect, it } from "vitest";
import { KeyValue } from "../api/index.ts";
import { bytesOfKey, type KeyString, keyStringOf } from "../base/bytes.ts";
import { seededRandom } from "../base/random.ts";
import { RowCorruptError } from "./errors.ts";
import { hashedKey, isRowKey, isTombstoneKey, mainOf, rowKey, subOf, tombstoneKey } from "./revision.ts";
import { encodePut, encodeTombstone, RowArena, RowReader, tombstoneWire } from "./row.ts";

const arena = new RowArena();
const reader = new RowReader({ verifyChecksum: true });

describe("row values", () => {
  it("are the message that the API's codec writes, and come back the same", () => {
    const random = seededRandom(3);
    const numbers = [1, 127, 128, 16_383, 16_384, 2 ** 28 - 1, 2 ** 28, 2 ** 31, 2 ** 32 + 5, 2 ** 35, 2 ** 53 - 1];
    const leases = [0n, 1n, -1n, 127n, 128n, 2n ** 63n - 1n, -(2n ** 63n), 7587862094236862466n];
    for (let i = 0; i < 1000; i += 1) {
      const main = numbers[random.below(numbers.length)] ?? 1;
      const create = Math.min(main, numbers[random.below(numbers.length)] ?? 1);
      const version = numbers[random.below(numbers.length)] ?? 1;
      const key = Uint8Array.from({ length: 1 + random.below(random.chance({ of: 1, outOf: 10 }) ? 400 : 20) }, () => random.below(256));
      const value = Uint8Array.from({ length: random.below(random.chance({ of: 1, outOf: 100 }) ? 9000 : 40) }, () => random.below(256));
      const lease = leases[random.below(leases.length)] ?? 0n;
      const sub = random.below(2 ** 32);
      const { row, pair } = encodePut(arena, key, create, main, sub, version, value, lease);
      const plain = { key, createRevision: create, modRevision: main, version, value, lease };
      expect(pair.toKeyValue()).toEqual({ ...plain, wire: KeyValue.encode(KeyValue.create(plain)) });
      reader.read(row, main, sub, false);
      expect(reader.pair(row, main).toKeyValue()).toEqual(pair.toKeyValue());
      expect(pair.unslabbed(new RowArena()).toKeyValue()).toEqual(pair.toKeyValue());
      expect(pair.keyString).toBe(keyStringOf(key));
      expect(reader.keyString(row)).toBe(keyStringOf(key));
    }
  });

  it("of deletions hold only the key", () => {
    for (const length of [1, 127, 128, 5000]) {
      const key = "\xe9\x00".repeat(length).slice(0, length) as KeyString;
      const row = encodeTombstone(arena, key, 9, 2);
      const bytes = bytesOfKey(key);
      expect(row.subarray(4)).toEqual(KeyValue.encode(KeyValue.create({ key: bytes })));
      expect(tombstoneWire(bytes)).toEqual(row.subarray(4));
      reader.read(row, 9, 2, true);
      expect(reader.keyString(row)).toBe(key);
    }
  });

  it("BW16: any altered byte, any other position and any cut is found", () => {
    const { row } = encodePut(arena, new Uint8Array([97, 98]), 3, 5, 1, 2, new Uint8Array([1, 2, 3]), 9n);
    const tombstone = encodeTombstone(arena, "ab" as KeyString, 5, 1);
    for (const [bytes, deletion] of [
      [row, false],
      [tombstone, true],
    ] as const) {
      expect(() => reader.read(bytes, 5, 1, deletion)).not.toThrow();
      for (let i = 0; i < bytes.length * 8; i += 1) {
        const altered = bytes.slice();
        altered[i >> 3] = (altered[i >> 3] as number) ^ (1 << (i & 7));
        expect(() => reader.read(altered, 5, 1, deletion)).toThrow(RowCorruptError);
      }
      for (let end = 0; end < bytes.length; end += 1)
        expect(() => reader.read(bytes.slice(0, end), 5, 1, deletion)).toThrow(RowCorruptError);
      expect(() => reader.read(bytes, 5, 0, deletion)).toThrow(RowCorruptError);
      expect(() => reader.read(bytes, 6, 1, deletion)).toThrow(RowCorruptError);
      expect(() => reader.read(bytes, 5 + 2 ** 32, 1, deletion)).toThrow(RowCorruptError);
      expect(() => reader.read(bytes, 5, 1, !deletion)).toThrow(RowCorruptError);
    }
  });

  it("random bytes with a right checksum are refused without reading outside", () => {
    const lenient = new RowReader({ verifyChecksum: false });
    const random = seededRandom(8);
    let refused = 0;
    for (let i = 0; i < 10_000; i += 1) {
      const { row } = encodePut(arena, new Uint8Array([97, 98]), 3, 5, 1, 2, new Uint8Array([1, 2, 3]), -5n);
      const altered = row.slice(0, row.length - random.below(3));
      for (let n = 1 + random.below(3); n > 0; n -= 1) altered[4 + random.below(altered.length - 4)] = random.below(256);
      try {
        lenient.read(altered, 5, 1, false);
        const kv = lenient.pair(altered, 5).toKeyValue();
        expect(kv.key.length + kv.value.length).toBeLessThan(altered.length);
      } catch (error) {
        expect(error).toBeInstanceOf(RowCorruptError);
        refused += 1;
      }
    }
    expect(refused).toBeGreaterThan(1000);
  });
});

describe("row keys", () => {
  it("sort as the changes do", () => {
    const positions = [
      [2, 0],
      [2, 1],
      [2, 256],
      [3, 0],
      [255, 0],
      [256, 4_294_967_295],
      [2 ** 32, 0],
      [2 ** 40 + 7, 3],
      [2 ** 53 - 1, 9],
    ] as const;
    const keys = positions.flatMap(([main, sub]) => [rowKey(main, sub), tombstoneKey(main, sub)]);
    expect([...keys].sort(Buffer.compare)).toEqual(keys);
    for (const [i, [main, sub]] of positions.entries()) {
      for (const key of [keys[2 * i], keys[2 * i + 1]]) {
        expect(key === undefined ? undefined : [mainOf(key), subOf(key), isRowKey(key)]).toEqual([main, sub, true]);
      }
    }
    expect(isTombstoneKey(rowKey(2, 0))).toBe(false);
    expect(isTombstoneKey(tombstoneKey(2, 0))).toBe(true);
    expect(isRowKey(tombstoneKey(2, 0).fill(0x75, 13))).toBe(false);
  });

  it("have etcd's form for the hash", () => {
    const bytes = new Uint8Array(18);
    expect(Buffer.from(hashedKey(bytes, 258, 3, false)).toString("hex")).toBe("00000000000001025f0000000000000003");
    expect(Buffer.from(hashedKey(bytes, 258, 3, true)).toString("hex")).toBe("00000000000001025f000000000000000374");
  });
});
