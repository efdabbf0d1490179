import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { BackendRow } from "../../backend/backend.ts";
import type { ClusterId, MemberId } from "../../base/ids.ts";
import { SnapshotCorruptError } from "./errors.ts";
import { isSnapshotId, SnapshotEncoder, type SnapshotHeader, SnapshotReader, snapshotId } from "./format.ts";

const header: SnapshotHeader = {
  clusterId: 0xffff_ffff_ffff_fff1n as ClusterId,
  index: 2 ** 40 + 5,
  term: 7,
  confState: {
    voters: [1n as MemberId, (2n ** 63n) as MemberId],
    votersOutgoing: [9n as MemberId],
    learners: [3n as MemberId],
    learnersNext: [4n as MemberId],
    autoLeave: true,
  },
};

function encode(rows: readonly BackendRow[], of: SnapshotHeader = header): { bytes: Buffer; digest: Uint8Array } {
  const encoder = new SnapshotEncoder();
  const pieces = [encoder.begin(of)];
  for (const [key, value] of rows) {
    const closed = encoder.row(key, value);
    if (closed !== undefined) pieces.push(closed);
  }
  const last = encoder.flush();
  if (last !== undefined) pieces.push(last);
  const { bytes, digest } = encoder.finish();
  return { bytes: Buffer.concat([...pieces, bytes]), digest };
}

function decode(bytes: Uint8Array, pieceBytes = bytes.byteLength): { rows: BackendRow[]; header: SnapshotHeader; digest: Uint8Array } {
  const rows: BackendRow[] = [];
  const reader = new SnapshotReader({ rows: (some) => rows.push(...some) });
  for (let at = 0; at < bytes.byteLength; at += pieceBytes) reader.push(bytes.subarray(at, at + pieceBytes));
  const end = reader.end();
  expect(reader.position).toBe(bytes.byteLength);
  expect(end.rows).toBe(rows.length);
  return { rows, header: end.header, digest: end.digest };
}

const rowsOf = (count: number, valueBytes: number): BackendRow[] =>
  Array.from({ length: count }, (_, i) => [Buffer.from(`key-${String(i).padStart(6, "0")}`), Buffer.alloc(valueBytes, i)]);

const plain = (rows: readonly BackendRow[]): string[][] =>
  rows.map(([key, value]) => [Buffer.from(key).toString("hex"), Buffer.from(value).toString("hex")]);

describe("the snapshot format", () => {
  test("keeps any rows, read in pieces of any size", () => {
    const row = fc.tuple(
      fc.uint8Array({ minLength: 1, maxLength: 40 }),
      fc.oneof(fc.uint8Array({ maxLength: 60 }), fc.constant(new Uint8Array(70_000).fill(5))),
    );
    fc.assert(
      fc.property(fc.array(row, { maxLength: 12 }), fc.integer({ min: 1, max: 5000 }), (given, pieceBytes) => {
        const unique = new Map(given.map(([key, value]) => [Buffer.from(key).toString("latin1"), [key, value] as BackendRow]));
        const rows = [...unique.values()].sort(([a], [b]) => Buffer.compare(a, b));
        const { bytes, digest } = encode(rows);
        const read = decode(bytes, pieceBytes);
        expect(plain(read.rows)).toEqual(plain(rows));
        expect(read.header).toEqual(header);
        expect(Buffer.from(read.digest)).toEqual(Buffer.from(digest));
      }),
      { numRuns: 200 },
    );
  });

  test("is the same bytes for the same state, and has another name for another", () => {
    const one = encode(rowsOf(100, 10));
    const same = encode(rowsOf(100, 10));
    const other = encode(rowsOf(100, 11));
    expect(one.bytes.equals(same.bytes)).toBe(true);
    expect(snapshotId(5, one.digest)).toBe(snapshotId(5, same.digest));
    expect(snapshotId(5, one.digest)).not.toBe(snapshotId(5, other.digest));
    expect(isSnapshotId(snapshotId(2 ** 53 - 1, one.digest))).toBe(true);
    for (const name of ["", "../x", `${snapshotId(5, one.digest)}/`, `x${snapshotId(5, one.digest)}`])
      expect(isSnapshotId(name)).toBe(false);
  });

  test("golden bytes of a small one", () => {
    const { bytes } = encode([[Buffer.from("a"), Buffer.from("1")]], {
      clusterId: 1n as ClusterId,
      index: 2,
      term: 3,
      confState: { voters: [4n as MemberId], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
    });
    expect(bytes.toString("hex")).toBe(
      [
        "4846534e41503031", // HFSNAP01
        "0000002cf95982c001", // 44 bytes, checksum, header block
        "0001000000000000000100000000000000020000000000000003", // version, cluster, index, term
        "0001000000000000000400000000000000", // one voter, three empty lists, no auto leave
        "0000000bb966337202", // 11 bytes, checksum, rows
        "00000001000000016131", // key and value lengths, key, value
        "00000031e12dacb403", // 49 bytes, checksum, trailer
        "00000000000000010000000000000002", // one row of two bytes
        "f2cdf896381e4f6245c6085d032b00e8f0136e3bd024aa93630c3f4c9208afd3", // SHA-256 of everything before the trailer
      ].join(""),
    );
  });

  test("BS7: cut anywhere it is refused, and so is one byte more", () => {
    const { bytes } = encode(rowsOf(20, 30));
    for (let length = 0; length < bytes.byteLength; length++)
      expect(() => decode(bytes.subarray(0, length), 100)).toThrow(SnapshotCorruptError);
    expect(() => decode(Buffer.concat([bytes, Buffer.alloc(1)]))).toThrow(SnapshotCorruptError);
  });

  test("one altered bit anywhere is found, with and without looking at the rows", () => {
    const { bytes } = encode(rowsOf(10, 30));
    for (let bit = 0; bit < bytes.byteLength * 8; bit++) {
      const altered = Buffer.from(bytes);
      altered[bit >> 3] = (altered[bit >> 3] as number) ^ (1 << (bit & 7));
      expect(() => decode(altered), `bit ${bit}`).toThrow(SnapshotCorruptError);
      const reader = new SnapshotReader();
      expect(() => {
        reader.push(altered);
        reader.end();
      }, `bit ${bit}`).toThrow(SnapshotCorruptError);
    }
  });

  test("blocks swapped or doubled are found by the digest", () => {
    const rows = rowsOf(4, 50_000);
    const { bytes } = encode(rows);
    const blockBytes = 8 + 1 + 8 + 10 + 50_000;
    const first = bytes.byteLength - 57 - 4 * blockBytes;
    const block = (i: number): Buffer => bytes.subarray(first + i * blockBytes, first + (i + 1) * blockBytes);
    expect(
      decode(Buffer.concat([bytes.subarray(0, first), block(0), block(1), block(2), block(3), bytes.subarray(-57)])).rows,
    ).toHaveLength(4);
    for (const order of [
      [1, 0, 2, 3],
      [0, 0, 2, 3],
      [0, 1, 2],
      [0, 1, 2, 3, 3],
    ]) {
      const mixed = Buffer.concat([bytes.subarray(0, first), ...order.map(block), bytes.subarray(-57)]);
      expect(() => decode(mixed)).toThrow(SnapshotCorruptError);
      const reader = new SnapshotReader();
      expect(() => {
        reader.push(mixed);
        reader.end();
      }).toThrow(SnapshotCorruptError);
    }
  });

  test("random bytes and random edits give a typed error and no memory for what was only announced", () => {
    const { bytes } = encode(rowsOf(50, 20));
    fc.assert(
      fc.property(
        fc.array(fc.record({ at: fc.nat(), value: fc.nat(255) }), { minLength: 1, maxLength: 6 }),
        fc.uint8Array({ maxLength: 50 }),
        (edits, tail) => {
          const altered = Buffer.concat([bytes, tail]);
          for (const { at, value } of edits) altered[at % altered.byteLength] = value;
          if (altered.equals(bytes)) return;
          for (const events of [{}, { rows: () => undefined }]) {
            const reader = new SnapshotReader(events);
            try {
              reader.push(altered);
              reader.end();
              throw new Error("accepted");
            } catch (error) {
              expect(error).toBeInstanceOf(SnapshotCorruptError);
            }
          }
        },
      ),
      { numRuns: 1000 },
    );
    const before = process.memoryUsage().arrayBuffers;
    const reader = new SnapshotReader({ rows: () => undefined });
    const announced = Buffer.from("0fffffff0000000002aa", "hex");
    reader.push(Buffer.concat([bytes.subarray(0, 8 + 8 + bytes.readUInt32BE(8)), announced]));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * 1024 * 1024);
  });

  test("rows out of order are not written", () => {
    const encoder = new SnapshotEncoder();
    encoder.begin(header);
    encoder.row(Buffer.from("b"), Buffer.from("1"));
    expect(() => encoder.row(Buffer.from("a"), Buffer.from("1"))).toThrow(/key order/);
    expect(() => encoder.row(Buffer.from("b"), Buffer.from("1"))).toThrow(/key order/);
  });
});
