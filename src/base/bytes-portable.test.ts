import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as fast from "./bytes.ts";
import * as portable from "./bytes-portable.ts";

const bytes = fc.uint8Array({ maxLength: 64 });
const longBytes = fc.uint8Array({ maxLength: 40_000, size: "max" });
/** Any string, with unpaired surrogates. */
const anyText = fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)) });

describe("portable bytes", () => {
  it("read latin1 as Node does", () => {
    fc.assert(
      fc.property(fc.oneof(bytes, longBytes), (input) => {
        expect(portable.latin1TextIn(input, 0, input.length)).toBe(fast.latin1Text(input));
        const from = Math.min(3, input.length);
        expect(portable.latin1TextIn(input, from, input.length)).toBe(fast.keyStringIn(input, from, input.length));
      }),
      { numRuns: 200 },
    );
  });

  it("write latin1 as Node does", () => {
    fc.assert(
      fc.property(bytes, (input) => {
        expect([...portable.latin1Bytes(fast.latin1Text(input))]).toEqual([...input]);
      }),
    );
  });

  it("write UTF-8 as Node does, broken surrogates included", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect([...portable.utf8Bytes(text)]).toEqual([...fast.utf8Bytes(text)]);
      }),
    );
  });

  it("read UTF-8 as Node does, with a byte order mark and with broken sequences", () => {
    const broken = fc.array(
      fc.constantFrom(0xef, 0xbb, 0xbf, 0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xed, 0xa0, 0x41, 0xff),
    );
    fc.assert(
      fc.property(
        fc.oneof(
          bytes,
          broken.map((list) => Uint8Array.from(list)),
          anyText.map(fast.utf8Bytes),
        ),
        (input) => {
          expect(portable.utf8Text(input)).toBe(fast.utf8Text(input));
          expect(portable.utf8TextStrict(input)).toBe(fast.utf8TextStrict(input));
        },
      ),
      { numRuns: 500 },
    );
  });

  it("write and read base64 and hex as Node does", () => {
    fc.assert(
      fc.property(bytes, fc.string(), (input, noise) => {
        const text = fast.base64Text(input);
        expect(portable.base64Text(input)).toBe(text);
        expect([...portable.base64BytesLenient(text)]).toEqual([...input]);
        expect([...portable.base64BytesLenient(text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", ""))]).toEqual([...input]);
        expect(portable.hexText(input)).toBe(fast.hexText(input));
        // What is not base64 must show in the length, which is what callers look at.
        const odd = text + noise;
        expect(portable.base64BytesLenient(odd).length).toBe(fast.base64BytesLenient(odd).length);
      }),
      { numRuns: 500 },
    );
  });

  it("order, join and sum as Node does", () => {
    fc.assert(
      fc.property(bytes, bytes, fc.integer({ min: 0, max: 0xffffffff }), (a, b, seed) => {
        expect(portable.compareBytes(a, b)).toBe(fast.compareBytes(a, b));
        expect([...portable.concatBytes([a, b])]).toEqual([...fast.concatBytes([a, b])]);
        expect(portable.crc32(a, seed)).toBe(fast.crc32(a, seed));
      }),
    );
  });
});
