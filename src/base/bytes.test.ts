import { describe, expect, it } from "vitest";
import { crc32, EMPTY_BYTES, utf8Bytes } from "./bytes.ts";

describe("crc32", () => {
  it("continues the seed over no bytes, whatever memory they lie in", () => {
    // zlib answers 0 for a null pointer, which is what an empty ArrayBuffer has, and every empty array once its buffer was asked for.
    const asked = new Uint8Array(0);
    expect(asked.buffer.byteLength).toBe(0);
    for (const empty of [EMPTY_BYTES, asked, new Uint8Array(new ArrayBuffer(0)), new Uint8Array(9).subarray(4, 4), Buffer.alloc(0)]) {
      expect(crc32(empty, 0x12345678)).toBe(0x12345678);
      expect(crc32(empty)).toBe(0);
    }
    expect(crc32(utf8Bytes("56789"), crc32(utf8Bytes("1234")))).toBe(0xcbf43926);
  });
});
