import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareBytes, keyStringOf, utf8Bytes } from "../../base/bytes.ts";
import { EtcdError } from "../../base/errors.ts";
import { seededRandom } from "../../base/random.ts";
import { encodeMetaPage, fnv1a64, PAGE_BYTES } from "./bolt-format.ts";
import { BoltFile, type BoltSource } from "./bolt-reader.ts";
import { BoltWriter } from "./bolt-writer.ts";

type Pair = readonly [Uint8Array, Uint8Array];
type Buckets = readonly (readonly [string, readonly Pair[]])[];

function write(buckets: Buckets): Uint8Array {
  const writer = new BoltWriter();
  for (const [name, pairs] of buckets) {
    writer.beginBucket(name);
    for (const [key, value] of pairs) writer.put(key, value);
    writer.endBucket();
  }
  const heads = writer.finish();
  return new Uint8Array(Buffer.concat([heads, ...writer.take()]));
}

function sourceOf(bytes: Uint8Array): BoltSource {
  return { sizeBytes: bytes.byteLength, read: async (at, length) => bytes.slice(at, at + length) };
}

async function read(bytes: Uint8Array): Promise<[string, string[][]][]> {
  const file = await BoltFile.open(sourceOf(bytes));
  const found: [string, string[][]][] = [];
  for (const name of file.bucketNames) {
    const pairs: string[][] = [];
    for await (const { keys, values } of file.leaves(name)) {
      keys.forEach((key, i) => {
        pairs.push([keyStringOf(key), keyStringOf(values[i] as Uint8Array)]);
      });
    }
    found.push([name, pairs]);
  }
  return found;
}

const sorted = (pairs: readonly Pair[]): Pair[] => [...pairs].sort(([a], [b]) => compareBytes(a, b));
const plain = (buckets: Buckets): [string, string[][]][] =>
  [...buckets]
    .sort(([a], [b]) => compareBytes(utf8Bytes(a), utf8Bytes(b)))
    .map(([name, pairs]) => [name, pairs.map(([key, value]) => [keyStringOf(key), keyStringOf(value)])]);

const numbered = (count: number, valueBytes: number): Pair[] =>
  Array.from({ length: count }, (_, i) => [utf8Bytes(`key-${String(i).padStart(7, "0")}`), new Uint8Array(valueBytes).fill(i)]);

describe("a bbolt file", () => {
  it("has heads with the checksum of FNV-1a", () => {
    // Values of the algorithm's authors.
    expect(fnv1a64(new Uint8Array(0))).toBe(0xcbf29ce484222325n);
    expect(fnv1a64(utf8Bytes("foobar"))).toBe(0x85944171f73967e8n);
    const head = encodeMetaPage(0, { pageBytes: 4096, root: 3, freelist: 2, pages: 4, transaction: 0 });
    // What bbolt 1.5 itself reads: magic, version and page size behind the page's header.
    expect(Buffer.from(head.subarray(0, 32)).toString("hex")).toBe("00000000000000000400000000000000edda0ced020000000010000000000000");
  });

  it("gives back what was written, whatever its size", async () => {
    const cases: Buckets[] = [
      [],
      [["empty", []]],
      [["one", numbered(1, 0)]],
      [
        ["inline", numbered(20, 20)],
        ["pages", numbered(1000, 40)],
        ["none", []],
      ],
      [["deep", numbered(60_000, 50)]],
      [["large", [...numbered(3, 5000), [utf8Bytes("z"), new Uint8Array(300_000).fill(9)] as Pair]]],
    ];
    for (const buckets of cases) expect(await read(write(buckets))).toEqual(plain(buckets));
  });

  it("gives back anything", async () => {
    const pair = fc.tuple(
      fc.uint8Array({ minLength: 1, maxLength: 600 }),
      fc.oneof(fc.uint8Array({ maxLength: 900 }), fc.constant(new Uint8Array(9000))),
    );
    const bucket = fc.tuple(
      fc.string({ minLength: 1, maxLength: 5, unit: "grapheme-ascii" }),
      fc.uniqueArray(pair, { maxLength: 60, selector: ([key]) => keyStringOf(key) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(bucket, { maxLength: 4, selector: ([name]) => name }), async (given) => {
        const buckets = given.map(([name, pairs]) => [name, sorted(pairs)] as const);
        expect(await read(write(buckets))).toEqual(plain(buckets));
      }),
      { numRuns: 100 },
    );
  });

  it("is written with few bytes in memory", () => {
    const writer = new BoltWriter();
    writer.beginBucket("key");
    let most = 0;
    for (const [key, value] of numbered(30_000, 100)) {
      writer.put(key, value);
      most = Math.max(most, writer.pendingBytes);
      if (writer.pendingBytes > 64 * 1024) writer.take();
    }
    expect(most).toBeLessThan(80 * 1024);
  });

  it("is refused when keys do not ascend", () => {
    const writer = new BoltWriter();
    writer.beginBucket("b");
    writer.put(utf8Bytes("b"), utf8Bytes(""));
    expect(() => writer.put(utf8Bytes("b"), utf8Bytes(""))).toThrow("keys ascend");
  });

  it("is read from the other head when one is damaged, and refused when both are", async () => {
    const buckets: Buckets = [["b", numbered(300, 30)]];
    const bytes = write(buckets);
    for (const at of [20, PAGE_BYTES + 20]) {
      const altered = bytes.slice();
      altered[at] = 0xff;
      expect(await read(altered)).toEqual(plain(buckets));
      altered[PAGE_BYTES + 20 - at + 20] = 0xff;
      await expect(read(altered)).rejects.toThrow(EtcdError);
    }
    await expect(read(new Uint8Array(0))).rejects.toThrow("invalid database");
    await expect(read(new Uint8Array(100_000))).rejects.toThrow("invalid database");
  });

  it("is refused when it was cut anywhere", async () => {
    const bytes = write([["b", numbered(100, 50)]]);
    for (let length = 0; length < bytes.byteLength; length += 97) await expect(read(bytes.subarray(0, length))).rejects.toThrow(EtcdError);
    await expect(read(bytes.subarray(0, bytes.byteLength - 1))).rejects.toThrow(EtcdError);
  });

  it("does no harm when it is made to", async () => {
    const good = write([
      ["a", numbered(10, 20)],
      ["b", numbered(3000, 30)],
      ["c", numbered(2, 9000)],
    ]);
    const random = seededRandom(20);
    let refused = 0;
    for (let run = 0; run < 1500; run += 1) {
      const bytes = good.slice();
      for (let n = random.below(4); n >= 0; n -= 1) {
        // Mostly where pages say what they are and where things lie.
        const page = 2 + random.below(bytes.byteLength / PAGE_BYTES - 2);
        const at = page * PAGE_BYTES + (random.below(3) === 0 ? random.below(PAGE_BYTES) : random.below(64));
        bytes[at] = [0, 1, 0x7f, 0xff, random.below(256)][random.below(5)] as number;
      }
      try {
        const found = await read(bytes);
        // No more pairs than the file has room for, each key once and in order.
        const total = found
          .flatMap(([, pairs]) => pairs.map(([key = "", value = ""]) => key.length + value.length))
          .reduce((a, b) => a + b, 0);
        expect(total).toBeLessThanOrEqual(bytes.byteLength);
      } catch (error) {
        expect(EtcdError.is(error), String(error)).toBe(true);
        refused += 1;
      }
    }
    expect(refused).toBeGreaterThan(500);
  });

  it("is refused when its trees run in circles, go too deep or name pages outside", async () => {
    const bytes = write([["b", numbered(2000, 30)]]);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const branch = Array.from({ length: bytes.byteLength / PAGE_BYTES }, (_, page) => page).find(
      (page) => page >= 2 && view.getUint16(page * PAGE_BYTES + 8, true) === 1,
    );
    const child = (branch ?? 0) * PAGE_BYTES + 16 + 8;
    for (const [page, text] of [
      [BigInt(branch ?? 0), "used twice"],
      [view.getBigUint64(child + 16, true), "used twice"],
      [0n, "outside"],
      [2n ** 60n, "outside"],
      [BigInt(bytes.byteLength / PAGE_BYTES), "outside"],
    ] as const) {
      const altered = bytes.slice();
      new DataView(altered.buffer).setBigUint64(child, page, true);
      await expect(read(altered)).rejects.toThrow(text);
    }
    const elements = bytes.slice();
    new DataView(elements.buffer).setUint16((branch ?? 0) * PAGE_BYTES + 10, 0xffff, true);
    await expect(read(elements)).rejects.toThrow("too many elements");
  });
});
