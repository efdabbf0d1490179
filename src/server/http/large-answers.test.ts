import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DeleteRangeResponse, KeyValue, printJson, RangeResponse, ResponseHeader } from "../../api/index.ts";
import { isLargeRange, printLargeRange } from "./large-answers.ts";

const header = fc.option(
  fc.record({ clusterId: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), revision: fc.nat() }).map((init) => ResponseHeader.create(init)),
  { nil: undefined },
);
const pair = fc
  .record({
    key: fc.uint8Array({ maxLength: 10 }),
    value: fc.uint8Array({ maxLength: 200_000 }),
    version: fc.nat(),
    lease: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  })
  .map((init) => KeyValue.create(init));
const pairs = fc.array(pair, { minLength: 1, maxLength: 20 });

describe("in slices", () => {
  test("a range reads as in one piece", async () => {
    await fc.assert(
      fc.asyncProperty(header, pairs, fc.boolean(), fc.nat(), async (someHeader, kvs, more, count) => {
        const response = RangeResponse.create({ header: someHeader, kvs, more, count });
        const printed = await printLargeRange(response, () => false);
        const text = printed?.pieces.join("") ?? "";
        expect(text).toBe(printJson(RangeResponse, response));
        expect(printed?.bytes).toBe(Buffer.byteLength(text));
      }),
      { numRuns: 50 },
    );
  });

  test("so does what was deleted", async () => {
    await fc.assert(
      fc.asyncProperty(header, pairs, fc.nat(), async (someHeader, prevKvs, deleted) => {
        const response = DeleteRangeResponse.create({ header: someHeader, prevKvs, deleted });
        const printed = await printLargeRange(response, () => false);
        expect(printed?.pieces.join("")).toBe(printJson(DeleteRangeResponse, response));
      }),
      { numRuns: 50 },
    );
  });

  test("others have their turn between slices, and may stop it", async () => {
    const kv = KeyValue.create({ key: Buffer.from("k"), value: Buffer.alloc(100_000) });
    const response = RangeResponse.create({ kvs: Array(100).fill(kv) });
    let turns = 0;
    const tick = (): void => {
      turns++;
      immediate = setImmediate(tick);
    };
    let immediate = setImmediate(tick);
    const printed = await printLargeRange(response, () => false);
    clearImmediate(immediate);
    expect(printed?.pieces.length).toBeGreaterThan(30);
    expect(turns).toBeGreaterThan(30);
    expect(await printLargeRange(response, () => true)).toBeUndefined();
  });
});

test("only what is large, and only pairs", () => {
  const small = KeyValue.create({ value: Buffer.alloc(1000) });
  expect(isLargeRange(RangeResponse.create())).toBe(false);
  expect(isLargeRange(RangeResponse.create({ kvs: Array(100).fill(small) }))).toBe(false);
  expect(isLargeRange(RangeResponse.create({ kvs: Array(1000).fill(small) }))).toBe(true);
  expect(isLargeRange(DeleteRangeResponse.create({ prevKvs: Array(1000).fill(small) }))).toBe(true);
  expect(isLargeRange(RangeResponse.create({ kvs: [KeyValue.create({ value: Buffer.alloc(1_000_000) })] }))).toBe(true);
  expect(isLargeRange({ members: Array(1000).fill({}) })).toBe(false);
});
