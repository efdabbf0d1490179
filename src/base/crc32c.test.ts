import { describe, expect, it } from "vitest";
import { utf8Bytes } from "./bytes.ts";
import { crc32c } from "./crc32c.ts";
import { seededRandom } from "./random.ts";

/** The definition, bit by bit. */
function naive(bytes: Uint8Array, seed: number): number {
  let sum = ~seed;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = (sum & 1) !== 0 ? (sum >>> 1) ^ 0x82f63b78 : sum >>> 1;
  }
  return ~sum >>> 0;
}

describe("crc32c", () => {
  it("gives the check value of the catalogue of CRCs and the vectors of RFC 3720", () => {
    expect(crc32c(utf8Bytes("123456789"))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(crc32c(new Uint8Array(0))).toBe(0);
  });

  it("is HashKV's value of an empty store for the three bytes it starts with", () => {
    expect(crc32c(utf8Bytes("key"))).toBe(1084519789);
  });

  it("equals the bitwise definition for every length, and continues from a seed", () => {
    const random = seededRandom(7);
    for (let length = 0; length < 70; length += 1) {
      const bytes = Uint8Array.from({ length }, () => random.below(256));
      const seed = random.below(2 ** 32);
      expect(crc32c(bytes, seed)).toBe(naive(bytes, seed));
      const cut = random.below(length + 1);
      expect(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut)))).toBe(crc32c(bytes));
    }
  });
});
