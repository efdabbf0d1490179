import { describe, expect, test } from "vitest";
import { ALL_TYPES, type AnyType, randomMessage, toTwin, twinOf } from "../../test/support/api-twin.ts";
import { seededRandom } from "../base/random.ts";
import {
  ALL_METHODS,
  Compare,
  Event,
  HealthListResponse,
  InternalRaftRequest,
  KeyValue,
  KvService,
  LeaseGrantRequest,
  LeaseService,
  MaintenanceService,
  MESSAGE_DEPTH_MAX,
  ProtoDecodeError,
  PutRequest,
  RangeRequest,
  RangeResponse,
  RequestOp,
  ResponseHeader,
  SortOrder,
  StatusResponse,
  TxnRequest,
  WatchCreateRequest,
  WatchResponse,
  Writer,
} from "./index.ts";

const bytesOf = (...bytes: number[]): Uint8Array => Uint8Array.from(bytes);
const ascii = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0));
const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

function reasonOf(type: AnyType | { decode(bytes: Uint8Array): object }, bytes: Uint8Array): string {
  try {
    type.decode(bytes);
    return "ok";
  } catch (error) {
    if (error instanceof ProtoDecodeError) return error.reason;
    throw error;
  }
}

describe("against protobufjs on the same proto files", () => {
  test.each(ALL_TYPES.map((type) => [type.typeName, type] as const))("%s", (name, type) => {
    const random = seededRandom(BigInt(name.length * 7919 + name.charCodeAt(name.length - 9)));
    const twin = twinOf(type);
    for (let round = 0; round < 60; round += 1) {
      const message = randomMessage(type, random, 4);
      const expected = Uint8Array.from(twin.encode(toTwin(type, message)).finish());
      const encoded = type.encode(message);
      expect(hexOf(encoded)).toBe(hexOf(expected));
      expect(type.byteLength(message)).toBe(expected.length);
      expect(type.decode(expected)).toEqual(message);
    }
  });

  test("no type is missing", () => {
    expect(ALL_TYPES.length).toBeGreaterThan(110);
    const used = ALL_METHODS.flatMap((method) => [method.request.typeName, method.response.typeName]);
    expect(used.filter((name) => !ALL_TYPES.some((type) => type.typeName === name))).toEqual([]);
  });
});

describe("numbers", () => {
  const revisionOf = (encoded: string): number => ResponseHeader.decode(hex(encoded)).revision;

  test("counters saturate at the largest safe integer on either side", () => {
    expect(revisionOf("18 ff ff ff ff ff ff ff 0f")).toBe(Number.MAX_SAFE_INTEGER);
    expect(revisionOf("18 80 80 80 80 80 80 80 10")).toBe(Number.MAX_SAFE_INTEGER);
    expect(revisionOf("18 ff ff ff ff ff ff ff ff 7f")).toBe(Number.MAX_SAFE_INTEGER);
    expect(revisionOf("18 81 80 80 80 80 80 80 f0 ff 01")).toBe(Number.MIN_SAFE_INTEGER);
    expect(revisionOf("18 80 80 80 80 80 80 80 f0 ff 01")).toBe(Number.MIN_SAFE_INTEGER);
    expect(revisionOf("18 80 80 80 80 80 80 80 80 80 01")).toBe(Number.MIN_SAFE_INTEGER);
    expect(revisionOf("18 ff ff ff ff ff ff ff ff ff 01")).toBe(-1);
    // Unsigned ones have no negative side.
    expect(ResponseHeader.decode(hex("20 ff ff ff ff ff ff ff ff ff 01")).raftTerm).toBe(Number.MAX_SAFE_INTEGER);
  });

  test("ids keep all 64 bits", () => {
    for (const id of [-1n, -(2n ** 63n), 2n ** 63n - 1n, 2n ** 53n + 1n, 7587862072907234561n]) {
      expect(LeaseGrantRequest.decode(LeaseGrantRequest.encode(LeaseGrantRequest.create({ id }))).id).toBe(id);
    }
    const memberId = 2n ** 64n - 1n;
    expect(ResponseHeader.decode(ResponseHeader.encode(ResponseHeader.create({ memberId }))).memberId).toBe(memberId);
  });

  test("a counter that is no safe integer is refused, not mangled", () => {
    expect(() => RangeRequest.encode(RangeRequest.create({ limit: 2 ** 53 }))).toThrow("safe integer");
    expect(() => RangeRequest.encode(RangeRequest.create({ limit: Number.NaN }))).toThrow("safe integer");
  });

  test("unknown enum numbers survive, in ten bytes if negative", () => {
    const encoded = RangeRequest.encode(RangeRequest.create({ sortOrder: -7 }));
    expect(encoded.length).toBe(11);
    expect(RangeRequest.decode(encoded).sortOrder).toBe(-7);
    // More than 32 bits are cut off, as protobuf prescribes.
    expect(RangeRequest.decode(hex("28 82 80 80 80 10")).sortOrder).toBe(SortOrder.DESCEND);
    // A bool is any number but 0, also if its low 32 bits are 0.
    expect(RangeRequest.decode(hex("38 80 80 80 80 10")).serializable).toBe(true);
  });
});

describe("messages", () => {
  test("every field is there after decoding nothing, in order of declaration", () => {
    expect(Object.keys(PutRequest.decode(bytesOf()))).toEqual(["key", "value", "lease", "prevKv", "ignoreValue", "ignoreLease"]);
    expect(PutRequest.encode(PutRequest.create()).length).toBe(0);
    expect(Object.keys(TxnRequest.create())).toEqual(["compare", "success", "failure"]);
  });

  test("a member of a oneof is written when set, even to its default", () => {
    expect(hexOf(Compare.encode(Compare.create({ version: 0 })))).toBe("2000");
    expect(hexOf(Compare.encode(Compare.create({ value: bytesOf() })))).toBe("3a00");
    expect(hexOf(Compare.encode(Compare.create({ lease: 0n })))).toBe("4000");
    expect(hexOf(Compare.encode(Compare.create()))).toBe("");
    expect(Compare.decode(hex("2000")).version).toBe(0);
    expect(Compare.decode(hex("")).version).toBeUndefined();
  });

  test("of several members of a oneof the last one counts", () => {
    const compare = Compare.decode(hex("20 05 3a 01 61 40 07"));
    expect([compare.version, compare.value, compare.lease]).toEqual([undefined, undefined, 7n]);
    const op = RequestOp.decode(hex("0a 03 0a 01 61 12 03 0a 01 62"));
    expect(op.requestRange).toBeUndefined();
    expect(op.requestPut?.key).toEqual(ascii("b"));
  });

  test("a message that comes twice is merged", () => {
    const op = RequestOp.decode(hex("12 03 0a 01 61 12 03 12 01 62"));
    expect(op.requestPut).toEqual(PutRequest.create({ key: ascii("a"), value: ascii("b") }));
  });

  test("a list of enums may come packed or not, and leaves packed", () => {
    expect(WatchCreateRequest.decode(hex("28 00 28 01 2a 02 01 00")).filters).toEqual([0, 1, 1, 0]);
    expect(hexOf(WatchCreateRequest.encode(WatchCreateRequest.create({ filters: [1, 0] })))).toBe("2a020100");
  });

  test("unknown fields of every wire type are skipped, and so are known ones of another wire type", () => {
    const unknown = "f8 06 96 01 f9 06 01 02 03 04 05 06 07 08 fa 06 03 01 02 03 fb 06 08 01 fb 07 fc 07 fc 06 fd 06 01 02 03 04";
    expect(RangeRequest.decode(hex(`0a 01 61 ${unknown} 18 05`))).toEqual(RangeRequest.create({ key: ascii("a"), limit: 5 }));
    expect(RangeRequest.decode(hex("08 05 1a 01 61"))).toEqual(RangeRequest.create());
  });

  test("decoded bytes are views into the input", () => {
    const input = hex("0a 01 61");
    const decoded = RangeRequest.decode(input);
    input[2] = 0x62;
    expect(decoded.key).toEqual(ascii("b"));
  });

  test("encoding copies", () => {
    const key = ascii("a");
    const encoded = RangeRequest.encode(RangeRequest.create({ key }));
    key[0] = 0x62;
    RangeRequest.encode(RangeRequest.create({ key: ascii("zzzz") }));
    expect(hexOf(encoded)).toBe("0a0161");
  });

  test("a map", () => {
    const statuses = new Map([
      ["", { status: 1 }],
      ["x", { status: 0 }],
    ]);
    const encoded = HealthListResponse.encode(HealthListResponse.create({ statuses }));
    expect(HealthListResponse.decode(encoded).statuses).toEqual(statuses);
  });
});

describe("stored pairs in wire form", () => {
  const kv = KeyValue.create({ key: ascii("k"), value: ascii("v"), modRevision: 7, createRevision: 5, version: 2, lease: -9n });
  const wire = KeyValue.encode(kv);

  test("are copied instead of encoded again", () => {
    // The fields say something else on purpose, to see which of the two is written.
    const other = KeyValue.create({ key: ascii("other"), wire });
    const response = RangeResponse.create({ kvs: [other, kv], count: 2 });
    expect(RangeResponse.decode(RangeResponse.encode(response)).kvs).toEqual([kv, kv]);
    expect(KeyValue.encode(other)).toEqual(wire);
  });

  test("events too, and a pair inside an event", () => {
    const event = Event.create({ type: 1, kv: KeyValue.create({ wire }) });
    const encoded = Event.encode(event);
    expect(Event.decode(encoded)).toEqual(Event.create({ type: 1, kv }));
    const response = WatchResponse.create({ watchId: -1n, events: [Event.create({ wire: encoded }), event] });
    expect(WatchResponse.decode(WatchResponse.encode(response)).events).toEqual([Event.decode(encoded), Event.decode(encoded)]);
  });

  test("decoding does not set it", () => {
    expect(KeyValue.decode(wire).wire).toBeUndefined();
  });
});

describe("what is not a message", () => {
  // Asked of etcd 3.7.1: which of these its library refuses, and how.
  test.each([
    ["field number 0", "00 01", "invalid-wire-format"],
    ["cut tag", "80", "invalid-wire-format"],
    ["tag of six bytes that fits", "8a 80 80 80 80 00 01 61", "ok"],
    ["field number above 2^29 - 1", "80 80 80 80 10 01", "invalid-wire-format"],
    ["largest field number", "f8 ff ff ff 0f 01", "ok"],
    ["varint of ten bytes", "18 ff ff ff ff ff ff ff ff ff 01", "ok"],
    ["varint with bit 64", "18 ff ff ff ff ff ff ff ff ff 02", "invalid-wire-format"],
    ["varint of eleven bytes", "18 ff ff ff ff ff ff ff ff ff 81 00", "invalid-wire-format"],
    ["cut varint", "18 ff ff", "invalid-wire-format"],
    ["missing varint", "18", "invalid-wire-format"],
    ["cut bytes", "0a 05 61", "invalid-wire-format"],
    ["length of 2^63", "0a ff ff ff ff ff ff ff ff 7f", "invalid-wire-format"],
    ["length of 2^32", "0a 80 80 80 80 10 61", "invalid-wire-format"],
    ["wire type 6", "7e", "invalid-wire-format"],
    ["wire type 7", "7f", "invalid-wire-format"],
    ["end of a group that did not begin", "7c", "invalid-wire-format"],
    ["group that does not end", "7b 08 01", "invalid-wire-format"],
    ["group that ends as another", "7b 84 01", "invalid-wire-format"],
    ["cut fixed32", "7d 01 02 03", "invalid-wire-format"],
    ["cut fixed64", "79 01 02 03 04 05 06 07", "invalid-wire-format"],
  ])("%s", (_, bytes, expected) => {
    expect(reasonOf(RangeRequest, hex(bytes))).toBe(expected);
  });

  test("texts and code", () => {
    const errorOf = (reason: "invalid-wire-format" | "invalid-utf8" | "recursion-depth"): string => new ProtoDecodeError(reason).message;
    expect(errorOf("invalid-wire-format")).toBe("proto: cannot parse invalid wire-format data");
    expect(errorOf("invalid-utf8")).toBe("string field contains invalid UTF-8");
    expect(errorOf("recursion-depth")).toBe("proto: exceeded maximum recursion depth");
    expect(new ProtoDecodeError("invalid-utf8").grpcCode).toBe(13);
  });

  test("strings must be UTF-8, short and long ones", () => {
    const status = (text: Uint8Array): Uint8Array => Uint8Array.of(0x12, text.length, ...text);
    for (const bad of ["ff", "c0 80", "ed a0 80", "f4 90 80 80", "e2 82"]) {
      expect(reasonOf(StatusResponse, status(hex(bad)))).toBe("invalid-utf8");
      expect(reasonOf(StatusResponse, status(hex(`${"61".repeat(60)} ${bad}`)))).toBe("invalid-utf8");
    }
    const good = StatusResponse.create({ version: "\ufeffä€\u{1F600}" });
    expect(StatusResponse.decode(StatusResponse.encode(good))).toEqual(good);
  });

  test("a sub-message cannot read beyond its length", () => {
    // The header claims 2 bytes, of which the second begins a field that would go on behind it.
    expect(reasonOf(RangeResponse, hex("0a 02 18 80 20 05"))).toBe("invalid-wire-format");
    expect(reasonOf(RangeResponse, hex("12 03 0a 05 61 62 63 64 65"))).toBe("invalid-wire-format");
  });

  test("no prefix of a message makes trouble other than a typed error", () => {
    const random = seededRandom(11);
    for (const type of ALL_TYPES) {
      const encoded = type.encode(randomMessage(type, random, 4));
      for (let length = 0; length < Math.min(encoded.length, 400); length += 1) reasonOf(type, encoded.subarray(0, length));
    }
  });

  test("no noise makes trouble other than a typed error, and what decodes encodes to what decodes the same", () => {
    const random = seededRandom(12);
    let accepted = 0;
    for (let round = 0; round < 20_000; round += 1) {
      const type = ALL_TYPES[random.below(ALL_TYPES.length)] as AnyType;
      const bytes = type.encode(randomMessage(type, random, 3));
      const noisy = Uint8Array.from(bytes);
      for (let hits = random.below(4); hits >= 0 && noisy.length > 0; hits -= 1) noisy[random.below(noisy.length)] = random.below(256);
      if (reasonOf(type, noisy) !== "ok") continue;
      accepted += 1;
      const decoded = type.decode(noisy);
      expect(type.decode(type.encode(decoded))).toEqual(decoded);
    }
    expect(accepted).toBeGreaterThan(2000);
  });
});

describe("depth", () => {
  /** Transactions inside transactions, made without recursion. */
  function nested(levels: number): Uint8Array {
    const writer = new Writer(64);
    for (let i = 0; i < levels; i += 1) {
      writer.close(34, 0);
      writer.close(18, 0);
    }
    return writer.copy();
  }

  test("transactions nest as deep as the limit says", () => {
    const levels = MESSAGE_DEPTH_MAX / 2 - 1;
    const decoded = TxnRequest.decode(nested(levels));
    expect(TxnRequest.encode(decoded)).toEqual(nested(levels));
    expect(reasonOf(TxnRequest, nested(levels + 1))).toBe("recursion-depth");
  });

  test("a hundred thousand levels are a typed error, not a stack overflow", () => {
    expect(reasonOf(TxnRequest, nested(100_000))).toBe("recursion-depth");
    const groups = new Uint8Array(200_000).fill(0x7b, 0, 100_000).fill(0x7c, 100_000);
    expect(reasonOf(RangeRequest, groups)).toBe("invalid-wire-format");
    expect(reasonOf(RangeRequest, groups.subarray(90_000, 110_000))).toBe("ok");
  });
});

describe("writer", () => {
  test("grows without losing anything", () => {
    const value = new Uint8Array(10 << 20).fill(7);
    const request = PutRequest.create({ key: ascii("k"), value });
    const decoded = PutRequest.decode(PutRequest.encode(request));
    expect(decoded.key).toEqual(ascii("k"));
    expect(Buffer.compare(decoded.value, value)).toBe(0);
    for (const capacity of [0, 1, 7, 64]) {
      const writer = new Writer(capacity);
      PutRequest.encodeTo(writer, PutRequest.create({ key: ascii("key"), value: ascii("value"), lease: -1n }));
      expect(writer.copy()).toEqual(PutRequest.encode(PutRequest.create({ key: ascii("key"), value: ascii("value"), lease: -1n })));
    }
  });

  test("puts in front of what is there", () => {
    const writer = new Writer();
    RangeRequest.encodeTo(writer, RangeRequest.create({ key: ascii("a") }));
    writer.uint32(writer.length);
    writer.byte(0);
    expect(hexOf(writer.view())).toBe("00000000030a0161");
    const detached = writer.detach();
    writer.byte(1);
    expect(hexOf(detached)).toBe("00000000030a0161");
    expect(hexOf(writer.copy())).toBe("01");
  });

  test("four bytes are big-endian", () => {
    const writer = new Writer(0);
    writer.uint32(0xfedcba98);
    expect(hexOf(writer.view())).toBe("fedcba98");
  });

  test("a failed encode leaves nothing behind for the next one", () => {
    expect(() => RangeRequest.encode(RangeRequest.create({ key: ascii("abc"), limit: 0.5 }))).toThrow();
    expect(hexOf(RangeRequest.encode(RangeRequest.create({ key: ascii("a") })))).toBe("0a0161");
  });
});

describe("services", () => {
  test("paths, streams and routes", () => {
    expect(KvService.range).toMatchObject({ path: "/etcdserverpb.KV/Range", clientStreaming: false, serverStreaming: false });
    expect(KvService.rangeStream).toMatchObject({ serverStreaming: true, httpPaths: [] });
    expect(LeaseService.leaseRevoke.httpPaths).toEqual(["/v3/lease/revoke", "/v3/kv/lease/revoke"]);
    expect(LeaseService.leaseKeepAlive).toMatchObject({ clientStreaming: true, serverStreaming: true });
    expect(MaintenanceService.hashKv.httpPaths).toEqual(["/v3/maintenance/hashkv"]);
    expect(ALL_METHODS.length).toBe(52);
    const paths = ALL_METHODS.flatMap((method) => method.httpPaths);
    expect(new Set(paths).size).toBe(paths.length);
  });

  test("the size that the request limit looks at is etcd's", () => {
    // 3 bytes for the id, 2 + 8 for the put.
    const put = PutRequest.create({ key: ascii("abc"), value: ascii("d") });
    expect(InternalRaftRequest.byteLength(InternalRaftRequest.create({ id: 300n, put }))).toBe(3 + 2 + 8);
  });
});
