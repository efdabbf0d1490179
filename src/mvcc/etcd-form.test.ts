import { describe, expect, it } from "vitest";
import { hexText, keyStringOf, utf8Bytes } from "../base/bytes.ts";
import { EtcdRows, parseRevisionKey, revisionKey } from "./etcd-form.ts";
import { rowKey, tombstoneKey } from "./revision.ts";
import { encodePut, encodeTombstone, RowArena } from "./row.ts";

const arena = new RowArena();

describe("rows in etcd's form", () => {
  it("have its revision keys", () => {
    expect(hexText(revisionKey(2, 1, false))).toBe("00000000000000025f0000000000000001");
    expect(hexText(revisionKey(2 ** 40, 0, true))).toBe("00000100000000005f000000000000000074");
    expect(parseRevisionKey(revisionKey(2 ** 52 + 1, 7, true))).toEqual({ main: 2 ** 52 + 1, sub: 7, tombstone: true });
  });

  it("go there and back", () => {
    const { row } = encodePut(arena, utf8Bytes("key"), 3, 5, 4, 2, utf8Bytes("value"), -7n);
    const rows = new EtcdRows();
    const [key, value] = rows.toEtcd(rowKey(5, 4), encodePut(arena, utf8Bytes("key"), 3, 5, 4, 2, utf8Bytes("value"), -7n).row.slice());
    expect(value).toEqual(row.slice(4));
    expect([rows.main, rows.sub, rows.tombstone, rows.lease]).toEqual([5, 4, false, -7n]);
    const back = rows.fromEtcd(key, value);
    expect(back[0]).toEqual(rowKey(5, 4));
    expect(rows.toEtcd(back[0], back[1])[1]).toEqual(value);
    const deadRow = encodeTombstone(arena, keyStringOf(utf8Bytes("key")), 6, 0);
    const [deadKey, deadValue] = rows.toEtcd(tombstoneKey(6, 0), deadRow);
    expect(hexText(deadKey)).toBe("00000000000000065f000000000000000074");
    expect(rows.fromEtcd(deadKey, deadValue)[0]).toEqual(tombstoneKey(6, 0));
  });

  it("are refused when anything is wrong with them", () => {
    const rows = new EtcdRows();
    const row = encodePut(arena, utf8Bytes("key"), 3, 5, 0, 2, utf8Bytes("value"), 0n).row.slice();
    const [key, value] = rows.toEtcd(rowKey(5, 0), row);
    for (let at = 0; at < row.length; at++) {
      const altered = row.slice();
      altered[at] = (altered[at] as number) ^ 1;
      expect(() => rows.toEtcd(rowKey(5, 0), altered)).toThrow();
    }
    expect(() => rows.toEtcd(rowKey(5, 1), row)).toThrow();
    // Another revision than the message's, a message that ends early or goes on, a deletion with a value, no message at all.
    expect(() => rows.fromEtcd(revisionKey(6, 0, false), value)).toThrow("not the row of its position");
    expect(() => rows.fromEtcd(key, value.subarray(0, value.length - 1))).toThrow();
    expect(() => rows.fromEtcd(key, new Uint8Array([...value, 0]))).toThrow();
    expect(() => rows.fromEtcd(revisionKey(5, 0, true), value)).toThrow();
    expect(() => rows.fromEtcd(key, new Uint8Array(0))).toThrow();
    // Keys that are none.
    for (const odd of [key.subarray(0, 16), new Uint8Array(17), new Uint8Array([...key, 0x75]), new Uint8Array([...key, 0x74, 0])])
      expect(() => rows.fromEtcd(odd, value)).toThrow("odd key");
    const huge = key.slice();
    huge[0] = 0x7f;
    expect(parseRevisionKey(huge)).toBeUndefined();
  });
});
