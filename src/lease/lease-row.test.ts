import { describe, expect, it } from "vitest";
import { hexText } from "../base/bytes.ts";
import type { LeaseId } from "../base/ids.ts";
import { seededRandom } from "../base/random.ts";
import { CorruptLeaseRowError, decodeLeaseRow, encodeLeaseRow, LEASE_ROWS, LEASE_TTL_SECONDS_MAX, leaseRowKey } from "./lease-row.ts";

const id = (n: bigint): LeaseId => n as LeaseId;

describe("lease rows", () => {
  it("come back as they were written, for every id and TTL", () => {
    const random = seededRandom(1);
    for (let n = 0; n < 2000; n += 1) {
      const ttlSeconds = random.chance({ of: 1, outOf: 4 }) ? LEASE_TTL_SECONDS_MAX - random.below(3) : 1 + random.below(2 ** 31);
      const row = {
        id: id(BigInt.asIntN(64, random.bits64())),
        ttlSeconds,
        remainingTtlSeconds: random.below(Math.min(ttlSeconds, 2 ** 31)),
      };
      const key = leaseRowKey(row.id);
      const value = encodeLeaseRow(row);
      expect(decodeLeaseRow(key, value)).toEqual(row);
      // Rows are read back as views into larger buffers.
      const padded = Uint8Array.from([9, ...key, 9, ...value, 9]);
      expect(decodeLeaseRow(padded.subarray(1, 10), padded.subarray(11, 32))).toEqual(row);
    }
  });

  it("have this layout", () => {
    const key = leaseRowKey(id(-2n));
    const value = encodeLeaseRow({ id: id(-2n), ttlSeconds: LEASE_TTL_SECONDS_MAX, remainingTtlSeconds: 300 });
    expect(hexText(key)).toBe("6cfffffffffffffffe");
    expect(hexText(value)).toBe("010000000218711a00000000000000012c15ca8b9d");
    expect(LEASE_ROWS).toEqual({ gte: Uint8Array.of(0x6c), lt: Uint8Array.of(0x6d) });
  });

  it("keep a checkpoint within the TTL", () => {
    const row = { id: id(5n), ttlSeconds: 10, remainingTtlSeconds: 0 };
    for (const [given, kept] of [
      [11, 10],
      [10, 10],
      [-1, 0],
    ] as const) {
      const value = encodeLeaseRow({ ...row, remainingTtlSeconds: given });
      expect(decodeLeaseRow(leaseRowKey(row.id), value).remainingTtlSeconds).toBe(kept);
    }
  });

  it("BW16: a change of any bit is noticed", () => {
    const key = leaseRowKey(id(0x0102030405060708n));
    const value = encodeLeaseRow({ id: id(0x0102030405060708n), ttlSeconds: 600, remainingTtlSeconds: 0 });
    const row = Uint8Array.from([...key, ...value]);
    for (let bit = 0; bit < row.length * 8; bit += 1) {
      const damaged = row.slice();
      damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
      expect(() => decodeLeaseRow(damaged.subarray(0, 9), damaged.subarray(9))).toThrow(CorruptLeaseRowError);
    }
    for (let length = 0; length < value.length; length += 1) {
      expect(() => decodeLeaseRow(key, value.subarray(0, length))).toThrow(CorruptLeaseRowError);
    }
  });
});
