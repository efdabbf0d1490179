import { describe, expect, test } from "vitest";
import { ALL_TYPES, type AnyType, randomMessage, toTwin, twinOf } from "../../test/support/api-twin.ts";
import { EtcdError } from "../base/errors.ts";
import { seededRandom } from "../base/random.ts";
import {
  AlarmRequest,
  AuthRoleGetResponse,
  AuthUserAddRequest,
  CompactedError,
  Compare,
  Event,
  HashKVResponse,
  HealthListResponse,
  JsonError,
  JsonSplitter,
  KeyValue,
  LeaseGrantRequest,
  LeaseKeepAliveRequest,
  LeaseLeasesResponse,
  LeaseTimeToLiveResponse,
  MESSAGE_DEPTH_MAX,
  MemberListResponse,
  MemberPromoteRequest,
  MemberUpdateRequest,
  type MessageType,
  PutRequest,
  PutResponse,
  parseJson,
  printError,
  printJson,
  printStreamError,
  printStreamResult,
  RangeRequest,
  RangeResponse,
  ResponseHeader,
  ResponseOp,
  rpcError,
  SortOrder,
  StatusResponse,
  TxnRequest,
  TxnResponse,
  WatchCreateRequest,
  WatchRequest,
  WatchResponse,
} from "./index.ts";

const ascii = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0));
const plain = (bytes: Uint8Array | undefined): Uint8Array => Uint8Array.from(bytes ?? []);

function errorOf(type: MessageType<object>, body: Uint8Array | string): string {
  try {
    parseJson(type, body);
    return "ok";
  } catch (error) {
    if (error instanceof JsonError) return error.message;
    throw error;
  }
}

/** Decoded bytes may be Buffers: the same bytes in the class that deep equality expects. */
function plainBytes(value: unknown): unknown {
  if (value instanceof Uint8Array) return plain(value);
  if (Array.isArray(value)) return value.map(plainBytes);
  if (value instanceof Map) return new Map(Array.from(value, ([key, item]) => [key, plainBytes(item)]));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plainBytes(item)]));
}

describe("reading", () => {
  test("both spellings of a name, in any mixture; nothing else", () => {
    const request = parseJson(RangeRequest, '{"key":"YQ==","rangeEnd":"Yg==","min_mod_revision":"3","maxModRevision":4}');
    expect(plainBytes(request)).toEqual(
      RangeRequest.create({ key: ascii("a"), rangeEnd: ascii("b"), minModRevision: 3, maxModRevision: 4 }),
    );
    expect(plainBytes(parseJson(RangeRequest, '{"KEY":"YQ==","Range_End":1,"limitt":2}'))).toEqual(RangeRequest.create());
    expect(parseJson(LeaseGrantRequest, '{"ttl":1,"id":2,"TTL":3}')).toEqual(LeaseGrantRequest.create({ ttl: 3 }));
  });

  test.each([
    ["1", 1n],
    ['"1"', 1n],
    ["-1", -1n],
    ["1.0", 1n],
    ["1e0", 1n],
    ['"1.0"', 1n],
    ['"1e1"', 10n],
    ["1E+2", 100n],
    ["1.5e1", 15n],
    ["1000e-3", 1n],
    ["-0", 0n],
    ["-0.0e-7", 0n],
    ["0e999999999999", 0n],
    ["9007199254740993", 9007199254740993n],
    ["9223372036854775807.0", 9223372036854775807n],
    ['"-9223372036854775808"', -9223372036854775808n],
    ["92233720368547758070e-1", 9223372036854775807n],
    ["999999999999999", 999999999999999n],
    ["-1000000000000000", -1000000000000000n],
    ['"\\u0031\\u0032"', 12n],
    // Go reads the first token of the string and does not look behind it.
    ['"1 2"', 1n],
    ['"1\\u0000"', 1n],
    ["null", 0n],
  ])("int64 %s", (text, expected) => {
    expect(parseJson(LeaseGrantRequest, `{"ID":${text}}`).id).toBe(expected);
  });

  test("uint64 to its end, and not below 0", () => {
    expect(parseJson(MemberPromoteRequest, '{"ID":18446744073709551615}').id).toBe(2n ** 64n - 1n);
    expect(parseJson(MemberPromoteRequest, '{"ID":"12428976124636271536"}').id).toBe(12428976124636271536n);
    expect(errorOf(MemberPromoteRequest, '{"ID":18446744073709551616}')).toBe(
      "proto: (line 1:7): invalid value for uint64 field ID: 18446744073709551616",
    );
    expect(errorOf(MemberPromoteRequest, '{"ID":"-1"}')).toBe('proto: (line 1:7): invalid value for uint64 field ID: "-1"');
  });

  test("counters saturate, and are never minus zero", () => {
    expect(parseJson(RangeRequest, '{"limit":"9223372036854775807"}').limit).toBe(Number.MAX_SAFE_INTEGER);
    expect(parseJson(RangeRequest, '{"limit":-9223372036854775808}').limit).toBe(Number.MIN_SAFE_INTEGER);
    expect(parseJson(RangeRequest, '{"limit":9007199254740991}').limit).toBe(Number.MAX_SAFE_INTEGER);
    for (const zero of ["-0", '"-0"', "-0.0", "-0e5"]) {
      expect(Object.is(parseJson(RangeRequest, `{"limit":${zero}}`).limit, 0)).toBe(true);
    }
  });

  test.each([
    ['"YWJj"', "abc"],
    ['"YQ=="', "a"],
    ['"YQ"', "a"],
    ['"YR=="', "a"],
    ['"YWI="', "ab"],
    ['"/+8="', "\xff\xef"],
    ['"_-8="', "\xff\xef"],
    ['"_-8"', "\xff\xef"],
    ['"YW-j"', "ao\xa3"],
    ['"YWJ\\/"', "ab\x7f"],
    ['"YWJj\\nYWJj"', "abcabc"],
    ['"YWI\\n=\\n\\n\\n"', "ab"],
    ['""', ""],
    ['"\\n"', ""],
  ])("base64 %s", (text, expected) => {
    expect(plain(parseJson(RangeRequest, `{"key":${text}}`).key)).toEqual(ascii(expected));
  });

  test.each(["YQ=", "Y", "YWJj=", "====", "=", "YQ==YQ==", "YWJj YWJj", "/-8=", "YWJ\u0141", "\u0141WJj", "YQ==\\n", "YW\\nI", "Y==="])(
    "not base64: %s",
    (text) => {
      expect(errorOf(RangeRequest, `{"key":"${text}"}`)).toBe(`proto: (line 1:8): invalid value for bytes field key: "${text}"`);
    },
  );

  test("enums by name and number; unknown names are ignored, unknown numbers are kept", () => {
    const orderOf = (text: string): number => parseJson(RangeRequest, `{"sort_order":${text}}`).sortOrder;
    expect(['"DESCEND"', "2", "2.0", "7", "-1", "null", '"descend"', '"2"', '"__proto__"', '"constructor"'].map(orderOf)).toEqual([
      SortOrder.DESCEND,
      2,
      2,
      7,
      -1,
      0,
      0,
      0,
      0,
      0,
    ]);
    expect(parseJson(WatchCreateRequest, '{"filters":["NODELETE","x",0,1]}').filters).toEqual([1, 0, 1]);
    expect(errorOf(RangeRequest, '{"sort_order":1.5}')).toBe("proto: (line 1:15): invalid value for enum field sortOrder: 1.5");
    expect(errorOf(AlarmRequest, '{"alarm":99999999999}')).toBe("proto: (line 1:10): invalid value for enum field alarm: 99999999999");
  });

  test("strings", () => {
    expect(parseJson(AuthUserAddRequest, '{"name":"h\\u00e9ä€\\ud83d\\ude00\\n\\/\u2028"}').name).toBe("héä€\u{1F600}\n/\u2028");
    expect(errorOf(AuthUserAddRequest, Buffer.from('{"name":"\xff"}', "latin1"))).toBe(
      "proto: syntax error (line 1:9): invalid UTF-8 in string",
    );
    expect(errorOf(AuthUserAddRequest, '{"name":"\\ud800","password":""}')).toBe(
      'proto: syntax error (line 1:9): invalid escape code "\\",\\"pas" in string',
    );
  });

  test("null is absence, but not in a list and not as the whole", () => {
    const txn = parseJson(TxnRequest, '{"compare":null,"success":[{"request_range":null,"request_put":{"key":null,"value":"YQ=="}}]}');
    expect(txn.compare).toEqual([]);
    expect(txn.success[0]?.requestRange).toBeUndefined();
    expect(plain(txn.success[0]?.requestPut?.value)).toEqual(ascii("a"));
    expect(errorOf(TxnRequest, '{"success":[null]}')).toBe("proto: syntax error (line 1:13): unexpected token null");
    expect(errorOf(MemberUpdateRequest, '{"peerURLs":[null]}')).toBe("proto: (line 1:14): invalid value for string field peerURLs: null");
    expect(errorOf(RangeRequest, "null")).toBe("proto: syntax error (line 1:1): unexpected token null");
  });

  test("a oneof member counts as set even with its default", () => {
    const parsed = parseJson(Compare, '{"version":"0"}');
    expect(parsed.version).toBe(0);
    expect(parsed.lease).toBeUndefined();
    expect(errorOf(Compare, '{"version":1,"lease":2}')).toBe(
      'proto: (line 1:14): error parsing "lease", oneof etcdserverpb.Compare.target_union is already set',
    );
    expect(parseJson(WatchRequest, '{"progress_request":{}}').progressRequest).toEqual({});
  });

  test("the first value wins; no value is an empty message", () => {
    expect(plain(parseJson(RangeRequest, '{"key":"YQ=="}{"key":"Yg=="}').key)).toEqual(ascii("a"));
    expect(plain(parseJson(RangeRequest, '{"key":"YQ=="} trailing').key)).toEqual(ascii("a"));
    for (const empty of ["", " \n\t\r"]) expect(parseJson(TxnRequest, empty)).toEqual(TxnRequest.create());
  });

  test("plain JSON comes first, wherever its error is", () => {
    expect(errorOf(RangeRequest, '{"key":123')).toBe("unexpected EOF");
    expect(errorOf(RangeRequest, '{"key":123,}')).toBe("invalid character '}' looking for beginning of object key string");
    expect(errorOf(RangeRequest, '{"key":123}')).toBe("proto: (line 1:8): invalid value for bytes field key: 123");
    expect(errorOf(RangeRequest, '\n\n {"key":\n  123}}}')).toBe("proto: (line 2:3): invalid value for bytes field key: 123");
  });

  test("the code is InvalidArgument", () => {
    expect(new JsonError("x")).toMatchObject({ grpcCode: 3, reason: "invalid-json" });
    expect(EtcdError.is(new JsonError("x"))).toBe(true);
  });

  test("names that mean something to JavaScript are names like any other", () => {
    const body = '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":1,"key":"YQ=="}';
    const request = parseJson(RangeRequest, body);
    expect(Object.getPrototypeOf(request)).toBe(Object.prototype);
    expect(Object.keys(request)).toEqual(Object.keys(RangeRequest.create()));
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
    const health = parseJson(HealthListResponse, '{"statuses":{"__proto__":{"status":"SERVING"}}}');
    expect(health.statuses.get("__proto__")).toEqual({ status: 1 });
  });
});

describe("size and depth", () => {
  test("a hundred thousand levels are a typed error", () => {
    for (const [open, close] of [
      ["[", "]"],
      ['{"a":', "}"],
    ] as const) {
      const deep = open.repeat(100_000) + (open === "[" ? "" : "1") + close.repeat(100_000);
      const expected = `invalid character '${open.charAt(0)}' exceeded max depth`;
      expect(errorOf(RangeRequest, `{"x":${deep}}`)).toBe(expected);
      expect(errorOf(RangeRequest, deep)).toBe(expected);
    }
    expect(errorOf(RangeRequest, "[".repeat(100_000))).toBe("invalid character '[' exceeded max depth");
    expect(errorOf(RangeRequest, "[".repeat(10_000))).toBe("unexpected EOF");
  });

  test("unknown values nest as deep as etcd lets them", () => {
    const body = (levels: number): string => `{"x":${"[".repeat(levels)}${"]".repeat(levels)},"limit":"x"}`;
    expect(errorOf(RangeRequest, body(9999))).toBe('proto: (line 1:20013): invalid value for int64 field limit: "x"');
    expect(errorOf(RangeRequest, body(10_000))).toBe("invalid character '[' exceeded max depth");
  });

  test("messages nest as deep as on the wire", () => {
    const nested = (levels: number): string => `${'{"success":[{"request_txn":'.repeat(levels)}{}${"}]}".repeat(levels)}`;
    expect(errorOf(TxnRequest, nested(MESSAGE_DEPTH_MAX / 2 - 1))).toBe("ok");
    expect(errorOf(TxnRequest, nested(MESSAGE_DEPTH_MAX / 2))).toBe("proto: exceeded max recursion depth");
    expect(errorOf(TxnRequest, nested(100_000))).toBe("invalid character '[' exceeded max depth");
    const deep = parseJson(TxnRequest, nested(499));
    expect(printJson(TxnRequest, deep)).toBe(nested(499));
  });

  test("ten megabytes there and back", () => {
    const value = new Uint8Array(10 << 20).fill(0xa7);
    const request = PutRequest.create({ key: ascii("k"), value });
    expect(Buffer.compare(parseJson(PutRequest, printJson(PutRequest, request)).value, value)).toBe(0);
  });

  test("large bodies of any kind end in time, whatever is wrong with them", () => {
    const many = 3 << 20;
    for (const [body, expected] of [
      [`{"x":"${"\\n".repeat(many / 2)}"}`, "ok"],
      [`{"x":[${"1,".repeat(many / 2)}1]}`, "ok"],
      [`{"x":${"9".repeat(many)}}`, "ok"],
      [`{"x":"${"a".repeat(many)}`, "unexpected EOF"],
      [`{${" ".repeat(many)}}`, "ok"],
      [`{"limit":1${"0".repeat(many)}}`, /^proto: \(line 1:10\): invalid value for int64 field limit: 10{100}/],
      [`{"limit":0.${"0".repeat(many)}}`, "ok"],
      [`{"limit":0.${"0".repeat(many)}1}`, /^proto: \(line 1:10\)/],
      [`{"limit":"1${" ".repeat(many)}1"}`, "ok"],
      [`{"key":"${"YWJj\\n".repeat(many / 6)}"}`, /^(ok|proto: \(line 1:8\))/],
      [`{${'"a":1,'.repeat(many / 6)}"limit":"x"}`, /^proto: \(line 1:3145\d+\): invalid value/],
      [`${"\n".repeat(many)}{"limit":"x"}`, 'proto: (line 1:10): invalid value for int64 field limit: "x"'],
    ] as const) {
      const got = errorOf(RangeRequest, body);
      if (typeof expected === "string") expect(got === expected).toBe(true);
      else expect(expected.test(got)).toBe(true);
    }
  });
});

describe("printing", () => {
  const header = ResponseHeader.create({ clusterId: 10144879847569953045n, memberId: 12428976124636271536n, revision: 2, raftTerm: 3 });
  const HEADER = '"header":{"cluster_id":"10144879847569953045","member_id":"12428976124636271536","revision":"2","raft_term":"3"}';
  const kv = KeyValue.create({ key: ascii("a"), createRevision: 2, modRevision: 3, version: 2, value: ascii("2") });
  const KV = '{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"2","value":"Mg=="}';

  test("as recorded from etcd", () => {
    const lines: [string, string][] = [
      [printJson(PutResponse, PutResponse.create({ header })), `{${HEADER}}`],
      [printJson(PutResponse, PutResponse.create({ header, prevKv: kv })), `{${HEADER},"prev_kv":${KV}}`],
      [
        printJson(RangeResponse, RangeResponse.create({ header, kvs: [kv, kv], more: true, count: 2 })),
        `{${HEADER},"kvs":[${KV},${KV}],"more":true,"count":"2"}`,
      ],
      [printJson(RangeResponse, RangeResponse.create({ count: 2 })), '{"count":"2"}'],
      [
        printJson(
          TxnResponse,
          TxnResponse.create({
            header,
            succeeded: true,
            responses: [ResponseOp.create({ responseTxn: TxnResponse.create({ header: ResponseHeader.create() }) })],
          }),
        ),
        `{${HEADER},"succeeded":true,"responses":[{"response_txn":{"header":{}}}]}`,
      ],
      [
        printJson(
          LeaseTimeToLiveResponse,
          LeaseTimeToLiveResponse.create({ id: 200n, ttl: -1, grantedTtl: 3600, keys: [ascii("srt/d"), ascii("")] }),
        ),
        '{"ID":"200","TTL":"-1","grantedTTL":"3600","keys":["c3J0L2Q=",""]}',
      ],
      [
        printJson(LeaseLeasesResponse, LeaseLeasesResponse.create({ leases: [{ id: 1418811981995149637n }, { id: -104n }] })),
        '{"leases":[{"ID":"1418811981995149637"},{"ID":"-104"}]}',
      ],
      [
        printJson(
          MemberListResponse,
          MemberListResponse.create({
            members: [{ id: 12428976124636271536n, name: "s1", peerUrls: ["http://127.0.0.1:23791"], clientUrls: [], isLearner: true }],
          }),
        ),
        '{"members":[{"ID":"12428976124636271536","name":"s1","peerURLs":["http://127.0.0.1:23791"],"isLearner":true}]}',
      ],
      [
        printJson(
          StatusResponse,
          StatusResponse.create({
            version: "3.7.1",
            dbSize: 20480,
            leader: 5n,
            raftIndex: 4,
            raftTerm: 2,
            downgradeInfo: { enabled: false, targetVersion: "" },
          }),
        ),
        '{"version":"3.7.1","dbSize":"20480","leader":"5","raftIndex":"4","raftTerm":"2","downgradeInfo":{}}',
      ],
      [
        printJson(HashKVResponse, HashKVResponse.create({ hash: 2342777648, compactRevision: -1, hashRevision: 25 })),
        '{"hash":2342777648,"compact_revision":"-1","hash_revision":"25"}',
      ],
      [
        printJson(
          AuthRoleGetResponse,
          AuthRoleGetResponse.create({
            perm: [
              { permType: 0, key: ascii("a/"), rangeEnd: ascii("a0") },
              { permType: 1, key: ascii("d"), rangeEnd: ascii("") },
              { permType: 9, key: ascii("x"), rangeEnd: ascii("\0") },
            ],
          }),
        ),
        '{"perm":[{"key":"YS8=","range_end":"YTA="},{"permType":"WRITE","key":"ZA=="},{"permType":9,"key":"eA==","range_end":"AA=="}]}',
      ],
      [
        printJson(
          WatchResponse,
          WatchResponse.create({
            watchId: -1n,
            canceled: true,
            events: [Event.create({ type: 1, kv: KeyValue.create({ key: ascii("hw"), modRevision: 40 }) })],
          }),
        ),
        '{"watch_id":"-1","canceled":true,"events":[{"type":"DELETE","kv":{"key":"aHc=","mod_revision":"40"}}]}',
      ],
      [printJson(Compare, Compare.create({ result: 1, target: 4, version: 0 })), '{"result":"GREATER","target":"LEASE","version":"0"}'],
      [printJson(WatchRequest, WatchRequest.create({ progressRequest: {} })), '{"progress_request":{}}'],
      [printJson(WatchCreateRequest, WatchCreateRequest.create({ filters: [1, 0, 5] })), '{"filters":["NODELETE","NOPUT",5]}'],
      [
        printJson(
          HealthListResponse,
          HealthListResponse.create({
            statuses: new Map([
              ["b", { status: 0 }],
              ["", { status: 1 }],
            ]),
          }),
        ),
        '{"statuses":{"":{"status":"SERVING"},"b":{}}}',
      ],
    ];
    for (const [printed, expected] of lines) expect(printed).toBe(expected);
  });

  test("strings are escaped as protojson does", () => {
    let name = "";
    for (let code = 0; code < 0x100; code += 1) name += String.fromCharCode(code);
    const printed = printJson(AuthUserAddRequest, AuthUserAddRequest.create({ name: `${name}\u2028\u{1F600}<>&'` }));
    expect(printed).toContain(
      '"\\u0000\\u0001\\u0002\\u0003\\u0004\\u0005\\u0006\\u0007\\b\\t\\n\\u000b\\f\\r\\u000e\\u000f\\u0010\\u0011\\u0012\\u0013\\u0014\\u0015\\u0016\\u0017\\u0018\\u0019\\u001a\\u001b\\u001c\\u001d\\u001e\\u001f !\\"#',
    );
    expect(printed).toContain("[\\\\]^");
    expect(printed).toContain("~\u007f\u0080");
    expect(printed.endsWith("ÿ\u2028\u{1F600}<>&'\"}")).toBe(true);
  });

  test("streams wrap each message, safe for HTML", () => {
    const response = WatchResponse.create({ watchId: -1n, created: true, cancelReason: "<a> & b\u2028\u2029" });
    expect(printStreamResult(WatchResponse, response)).toBe(
      '{"result":{"watch_id":"-1","created":true,"cancel_reason":"\\u003ca\\u003e \\u0026 b\\u2028\\u2029"}}',
    );
    expect(printStreamResult(WatchResponse, WatchResponse.create())).toBe('{"result":{}}');
  });

  test("errors", () => {
    expect(printError(rpcError("key-not-provided"))).toBe('{"code":3,"message":"etcdserver: key is not provided"}');
    expect(printError(new CompactedError({ requested: 1, compacted: 2 }))).toBe(
      '{"code":11,"message":"etcdserver: mvcc: required revision has been compacted"}',
    );
    expect(printError(new JsonError('a "b" <c>'))).toBe('{"code":3,"message":"a \\"b\\" <c>"}');
    expect(printStreamError(rpcError("no-leader"))).toBe('{"error":{"code":14,"message":"etcdserver: no leader"}}');
    expect(printStreamError(new JsonError("<"))).toBe('{"error":{"code":3,"message":"\\u003c"}}');
  });
});

describe("printing and reading against the twin", () => {
  test.each(ALL_TYPES.map((type) => [type.typeName, type] as const))("%s", (name, type) => {
    const random = seededRandom(BigInt(name.length * 104729));
    const twin = twinOf(type);
    for (let round = 0; round < 40; round += 1) {
      const message = randomMessage(type, random, 4);
      const printed = printJson(type, message);
      const expected = twin.toObject(twin.decode(type.encode(message)), { longs: String, enums: String, bytes: String });
      expect(JSON.parse(printed)).toEqual(JSON.parse(JSON.stringify(expected)));
      expect(plainBytes(parseJson(type, printed))).toEqual(message);
      // White space and the other spelling of names change nothing.
      const spaced = JSON.stringify(JSON.parse(printed), null, "\t");
      expect(plainBytes(parseJson(type, spaced))).toEqual(message);
    }
    expect(toTwin(type, type.create())).toEqual({});
  });

  test("noise gives the message or a typed error", () => {
    const random = seededRandom(5);
    const pieces = [
      '"',
      "\\",
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      "null",
      "1",
      "-",
      ".",
      "e",
      " ",
      "\n",
      "\\u",
      "\\ud800",
      "\x00",
      "\xff",
      "true",
    ];
    let accepted = 0;
    for (let round = 0; round < 30_000; round += 1) {
      const type = ALL_TYPES[random.below(ALL_TYPES.length)] as AnyType;
      let text = Buffer.from(printJson(type, randomMessage(type, random, 3)))
        .toString("latin1")
        .slice(0, 400);
      for (let hits = random.below(3); hits >= 0; hits -= 1) {
        const at = random.below(text.length + 1);
        text = text.slice(0, at) + (pieces[random.below(pieces.length)] as string) + text.slice(at + random.below(3));
      }
      if (errorOf(type, Buffer.from(text, "latin1")) === "ok") accepted += 1;
    }
    expect(accepted).toBeGreaterThan(1000);
  });
});

describe("splitter", () => {
  const split = (body: string, pieceBytes: number, valueBytesMax = 1000): string[] => {
    const splitter = new JsonSplitter(valueBytesMax);
    const values: string[] = [];
    const keep = (value: Uint8Array): void => {
      values.push(Buffer.from(value).toString("utf8"));
    };
    const bytes = Buffer.from(body);
    try {
      for (let at = 0; at < bytes.length; at += pieceBytes) splitter.push(bytes.subarray(at, at + pieceBytes), keep);
      const last = splitter.end();
      if (last !== undefined) keep(last);
    } catch (error) {
      if (!EtcdError.is(error)) throw error;
      values.push(`! ${error.message}`);
    }
    return values;
  };

  test.each([
    ["", []],
    [" \n\t ", []],
    ['{"ID":1}', ['{"ID":1}']],
    ['{"ID":1}{"ID":2}\n {"ID":"}{ä\\"€"}\r\n', ['{"ID":1}', '{"ID":2}', '{"ID":"}{ä\\"€"}']],
    ['1 2[3]"4"true false-5.0e1{}', ["1", "2", "[3]", '"4"', "true", "false", "-5.0e1", "{}"]],
    ['{"a":[1,{"b":[]}]} {"c', ['{"a":[1,{"b":[]}]}', "! unexpected EOF"]],
    ['{"a":1}}', ['{"a":1}', "! invalid character '}' looking for beginning of value"]],
    ['{"a":1} {"b":x} {"c":1}', ['{"a":1}', "! invalid character 'x' looking for beginning of value"]],
    ["12", ["12"]],
    ["1-", ["1", "! unexpected EOF"]],
    ["tru", ["! unexpected EOF"]],
  ])("%j", (body, expected) => {
    for (const pieceBytes of [1, 2, 3, 7, 1000]) expect(split(body, pieceBytes)).toEqual(expected);
  });

  test("a value is handed out as soon as it is complete", () => {
    const splitter = new JsonSplitter(100);
    const seen: string[] = [];
    const keep = (value: Uint8Array): void => {
      seen.push(Buffer.from(value).toString());
    };
    splitter.push(Buffer.from('{"ID":1}'), keep);
    expect(seen).toEqual(['{"ID":1}']);
    splitter.push(Buffer.from('{"ID":'), keep);
    expect(seen.length).toBe(1);
    splitter.push(Buffer.from("2}"), keep);
    expect(seen.map((value) => parseJson(LeaseKeepAliveRequest, value).id)).toEqual([1n, 2n]);
    expect(splitter.end()).toBeUndefined();
  });

  test("a value that grows beyond the limit is refused, white space between values is not kept", () => {
    expect(split(`{"a":"${"x".repeat(100)}"}`, 7, 50).at(-1)).toMatch(/^! grpc: received message larger than max \(\d+ vs\. 50\)$/);
    expect(split(`${" ".repeat(5000)}{}${" ".repeat(5000)}{}`, 100, 50)).toEqual(["{}", "{}"]);
  });

  test("ten megabytes in pieces of a network", () => {
    const body = `{"x":"${"y".repeat(10 << 20)}"}`;
    expect(split(body, 1400, 20 << 20)[0] === body).toBe(true);
  });
});
