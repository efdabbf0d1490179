import fc from "fast-check";
import { Unpackr } from "msgpackr";
import { describe, expect, test } from "vitest";
import { InvariantError } from "../../base/assert.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { MemberId } from "../../base/ids.ts";
import type { Message } from "../../raft/index.ts";
import { PeerFrameError } from "./errors.ts";
import {
  decodeError,
  decodeMessages,
  decodeRequest,
  decodeSnapshotOffer,
  encodeError,
  encodeMessages,
  encodeRequest,
  encodeSnapshotOffer,
  messageBytesMax,
  RECORDS,
} from "./message-codec.ts";

const U64_MAX = 2n ** 64n - 1n;

/** Counters up to 2^53 - 1, with the encoding's borders more often. */
const counter = fc.oneof(
  fc.constantFrom(0, 1, 63, 64, 127, 128, 255, 256, 65535, 65536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1),
  fc.maxSafeNat(),
);
const id64 = fc.oneof(fc.constantFrom(1n, 2n ** 31n, 2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 63n, U64_MAX), fc.bigInt(1n, U64_MAX));
const member = id64.map((id) => id as MemberId);
/** Long ones without randomness inside: making them is what takes the time. */
const longData = fc.integer({ min: 200, max: 70_000 }).map((length) => new Uint8Array(length).fill(length));
const data = fc.oneof({ weight: 4, arbitrary: fc.uint8Array({ maxLength: 40 }) }, { weight: 1, arbitrary: longData });
const ids = fc.uniqueArray(member, { maxLength: 5 }).map((list) => list.sort((a, b) => (a < b ? -1 : 1)));
const head = { from: member, to: member };

const message: fc.Arbitrary<Message> = fc.oneof(
  fc.record({
    type: fc.constant("vote-request" as const),
    ...head,
    term: counter,
    pre: fc.boolean(),
    lastIndex: counter,
    lastTerm: counter,
    commit: counter,
    commitTerm: counter,
    transfer: fc.boolean(),
  }),
  fc.record({
    type: fc.constant("vote-response" as const),
    ...head,
    term: counter,
    pre: fc.boolean(),
    granted: fc.boolean(),
    commit: counter,
    commitTerm: counter,
  }),
  fc
    .record({
      ...head,
      terms: fc.array(fc.integer({ min: 1, max: 2 ** 40 }), { minLength: 2, maxLength: 6 }),
      prevIndex: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2 ** 53 - 100 })),
      commit: counter,
      entries: fc.array(fc.record({ type: fc.constantFrom("normal" as const, "conf-change" as const), data }), { maxLength: 20 }),
    })
    .map(({ from, to, terms, prevIndex, commit, entries }): Message => {
      const sorted = [...terms].sort((a, b) => a - b);
      const last = sorted.length - 1;
      return {
        type: "append-request",
        from,
        to,
        term: sorted[last] as number,
        prevIndex,
        prevTerm: prevIndex === 0 ? 0 : (sorted[0] as number),
        commit,
        entries: entries.map((entry, i) => ({
          term: sorted[Math.min(i, last)] as number,
          index: prevIndex + 1 + i,
          type: entry.type,
          data: entry.data,
        })),
      };
    }),
  fc.record({
    type: fc.constant("append-response" as const),
    ...head,
    term: counter,
    rejected: fc.boolean(),
    index: counter,
    hintIndex: counter,
    hintTerm: counter,
  }),
  fc.record({ type: fc.constant("heartbeat" as const), ...head, term: counter, commit: counter, round: counter }),
  fc.record({ type: fc.constant("heartbeat-response" as const), ...head, term: counter, round: counter }),
  fc
    .record({
      ...head,
      a: fc.integer({ min: 1 }),
      b: fc.integer({ min: 1 }),
      index: fc.integer({ min: 1, max: 2 ** 40 }),
      voters: ids,
      votersOutgoing: ids,
      learners: ids,
      learnersNext: ids,
      autoLeave: fc.boolean(),
    })
    .map(
      ({ from, to, a, b, index, ...confState }): Message => ({
        type: "snapshot",
        from,
        to,
        term: Math.max(a, b),
        snapshot: { metadata: { index, term: Math.min(a, b), confState } },
      }),
    ),
  fc.record({
    type: fc.constant("propose" as const),
    ...head,
    term: counter,
    entries: fc.array(fc.record({ type: fc.constantFrom("normal" as const, "conf-change" as const), data }), { maxLength: 5 }),
  }),
  fc.record({ type: fc.constant("read-index-request" as const), ...head, term: counter, context: fc.bigInt(0n, U64_MAX) }),
  fc.record({ type: fc.constant("read-index-response" as const), ...head, term: counter, context: fc.bigInt(0n, U64_MAX), index: counter }),
  fc.record({ type: fc.constant("transfer-leader" as const), ...head, term: counter, transferee: member }),
  fc.record({ type: fc.constant("timeout-now" as const), ...head, term: counter }),
);

/** Buffers and plain arrays of bytes are the same here. */
function plain(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_key, item: unknown) => {
      if (typeof item === "bigint") return `${item}n`;
      if (item instanceof Uint8Array) return Buffer.from(item).toString("hex");
      if (typeof item === "object" && item !== null && (item as { type?: unknown }).type === "Buffer")
        return Buffer.from((item as { data: number[] }).data).toString("hex");
      return item;
    }),
  );
}

/** A message as its record has it. */
function fieldsOf(one: Message): object {
  const { type, ...fields } = one;
  if (one.type === "append-request")
    return { ...fields, entries: one.entries.flatMap((entry) => [entry.type === "normal" ? 0 : 1, entry.term, entry.data]) };
  if (one.type === "propose") return { ...fields, entries: one.entries.flatMap((entry) => [entry.type === "normal" ? 0 : 1, entry.data]) };
  if (one.type === "snapshot") {
    const { index, term, confState } = one.snapshot.metadata;
    return { from: one.from, to: one.to, term: one.term, index, indexTerm: term, ...confState };
  }
  return fields;
}

describe("raft messages", () => {
  test("every message survives, exactly", () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 8 }), (messages) => {
        const decoded = decodeMessages(encodeMessages(messages));
        expect(plain(decoded)).toEqual(plain(messages));
      }),
      { numRuns: 300 },
    );
  });

  test("msgpackr itself reads the same fields", () => {
    const unpackr = new Unpackr({ structures: RECORDS.map((fields) => [...fields]), int64AsType: "bigint" });
    fc.assert(
      fc.property(fc.array(message, { maxLength: 8 }), (messages) => {
        const records: unknown = unpackr.unpack(Buffer.from(encodeMessages(messages)));
        expect(plain(records)).toEqual(plain(messages.map(fieldsOf)));
      }),
      { numRuns: 200 },
    );
  });

  test("the size bound holds", () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 4 }), (messages) => {
        const bound = messages.reduce((sum, one) => sum + messageBytesMax(one), 8);
        expect(encodeMessages(messages).byteLength).toBeLessThanOrEqual(bound);
      }),
      { numRuns: 300 },
    );
  });

  test("the bytes are MessagePack with msgpackr's records, without definitions inside", () => {
    const one: Message = { type: "heartbeat", from: 1n as MemberId, to: 2n as MemberId, term: 3, commit: 70, round: 2 ** 33 };
    const bytes = encodeMessages([one]);
    expect(Buffer.from(bytes).toString("hex")).toBe(
      // array of 1, record 4 (0x44), id 1, id 2, term 3, commit 70 (uint8), round as a double
      ["91", "44", "d30000000000000001", "d30000000000000002", "03", "cc46", "cb4200000000000000"].join(""),
    );
    const structures: string[][] = [[], [], [], [], ["from", "to", "term", "commit", "round"]];
    const unpackr = new Unpackr({ structures, int64AsType: "bigint" });
    expect(unpackr.unpack(Buffer.from(bytes))).toEqual([{ from: 1n, to: 2n, term: 3, commit: 70, round: 2 ** 33 }]);
  });

  test("the proposer's context does not travel", () => {
    const entry = { term: 1, index: 1, type: "normal" as const, data: new Uint8Array([1]), context: { secret: true } };
    const one: Message = {
      type: "append-request",
      from: 1n as MemberId,
      to: 2n as MemberId,
      term: 1,
      prevIndex: 0,
      prevTerm: 0,
      commit: 0,
      entries: [entry],
    };
    const [decoded] = decodeMessages(encodeMessages([one]));
    expect(decoded?.type === "append-request" && decoded.entries[0]).toEqual({ term: 1, index: 1, type: "normal", data: Buffer.from([1]) });
    expect(decoded?.type === "append-request" && "context" in (decoded.entries[0] ?? {})).toBe(false);
  });

  test("a gap in an append never leaves, nor an impossible number", () => {
    const base = { from: 1n as MemberId, to: 2n as MemberId, term: 1 };
    const entry = { term: 1, index: 3, type: "normal" as const, data: new Uint8Array(0) };
    expect(() => encodeMessages([{ type: "append-request", ...base, prevIndex: 1, prevTerm: 1, commit: 0, entries: [entry] }])).toThrow(
      InvariantError,
    );
    expect(() => encodeMessages([{ type: "heartbeat", ...base, commit: -1, round: 0 }])).toThrow(InvariantError);
    expect(() => encodeMessages([{ type: "heartbeat", ...base, commit: 2 ** 53, round: 0 }])).toThrow(InvariantError);
    expect(() => encodeMessages([{ type: "read-index-request", ...base, context: 2n ** 64n }])).toThrow(InvariantError);
    // The encoder is still usable after a refusal.
    expect(decodeMessages(encodeMessages([{ type: "timeout-now", ...base }]))).toEqual([{ type: "timeout-now", ...base }]);
  });

  test("BR22: altered bytes give a typed error or a valid message, never anything else", () => {
    fc.assert(
      fc.property(
        fc.array(message, { minLength: 1, maxLength: 3 }),
        fc.array(fc.record({ at: fc.nat(), value: fc.nat(255) }), { minLength: 1, maxLength: 4 }),
        fc.option(fc.nat()),
        (messages, edits, cut) => {
          const bytes = new Uint8Array(encodeMessages(messages));
          for (const { at, value } of edits) bytes[at % bytes.byteLength] = value;
          const body = cut === null ? bytes : bytes.subarray(0, cut % (bytes.byteLength + 1));
          try {
            // What still decodes must be something that could have been sent.
            encodeMessages(decodeMessages(body));
          } catch (error) {
            expect(error).toBeInstanceOf(PeerFrameError);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("random bytes give a typed error", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        for (const decode of [decodeMessages, decodeRequest, decodeError, decodeSnapshotOffer]) {
          try {
            decode(bytes);
          } catch (error) {
            expect(error).toBeInstanceOf(PeerFrameError);
          }
        }
      }),
      { numRuns: 2000 },
    );
  });

  test.each([
    ["in-band record definition", "91d4724091a1610f"],
    ["string bundle", "91d662000000ff"],
    ["regular expression", "91d4780092a128a0"],
    ["map", "9181a16101"],
    ["deep nesting", "91".repeat(100_000)],
    ["huge array", "ddffffffff"],
    ["huge bytes", "9147d30000000000000001d3000000000000000201920" + "0c6ffffffff"],
    ["undefined", "91d40000"],
    ["negative id", "914bd3ffffffffffffffffd3000000000000000201"],
    ["member id 0", "914bd30000000000000000d3000000000000000201"],
    ["term as a fraction", "914bd30000000000000001d30000000000000002cb3ff8000000000000"],
    ["term as 2^53", "914bd30000000000000001d30000000000000002cb4340000000000000"],
    ["term as NaN", "914bd30000000000000001d30000000000000002cb7ff8000000000000"],
    ["term as a small double", "914bd30000000000000001d30000000000000002cb3ff0000000000000"],
    ["something behind the end", "9000"],
    ["a request among the messages", "914c01" + "00c400"],
    ["nothing", ""],
  ])("refuses %s", (_name, hex) => {
    expect(() => decodeMessages(Buffer.from(hex, "hex"))).toThrow(PeerFrameError);
  });

  test("refuses entries whose terms go back or pass the leader's", () => {
    const make = (terms: number[], prevTerm: number, term: number): Uint8Array =>
      encodeMessages([
        {
          type: "append-request",
          from: 1n as MemberId,
          to: 2n as MemberId,
          term,
          prevIndex: 4,
          prevTerm,
          commit: 0,
          entries: terms.map((t, i) => ({ term: t, index: 5 + i, type: "normal", data: new Uint8Array(0) })),
        },
      ]);
    expect(decodeMessages(make([2, 2, 3], 2, 3))).toHaveLength(1);
    expect(() => decodeMessages(make([3, 2], 2, 3))).toThrow(PeerFrameError);
    expect(() => decodeMessages(make([1], 2, 3))).toThrow(PeerFrameError);
    expect(() => decodeMessages(make([4], 2, 3))).toThrow(PeerFrameError);
    expect(() => decodeMessages(make([], 4, 3))).toThrow(PeerFrameError);
    expect(() => decodeMessages(make([0], 0, 3))).toThrow(PeerFrameError);
  });
});

describe("requests, errors and offers", () => {
  test("survive", () => {
    fc.assert(
      fc.property(counter, data, (sequence, body) => {
        expect(plain(decodeRequest(encodeRequest(sequence, "hash-kv", body)))).toEqual(plain({ sequence, kind: "hash-kv", body }));
      }),
    );
    const { sequence, error } = decodeError(
      encodeError(7, new EtcdError("lease-not-found", GrpcCode.NotFound, "etcdserver: requested lease not found – ü")),
    );
    expect(sequence).toBe(7);
    expect(EtcdError.is(error)).toBe(true);
    expect([error.reason, error.grpcCode, error.message]).toEqual([
      "lease-not-found",
      GrpcCode.NotFound,
      "etcdserver: requested lease not found – ü",
    ]);
  });

  test("an error that is not ours does not leak its text", () => {
    const { error } = decodeError(encodeError(1, new TypeError("/secret/path is broken")));
    expect(error.reason).toBe("internal");
    expect(error.message).not.toContain("secret");
  });

  test("a kind which this build does not know is told apart from garbage", () => {
    const bytes = new Uint8Array(encodeRequest(1, "lease-renew", new Uint8Array(0)));
    // record, sequence, kind
    expect(bytes[2]).toBe(0);
    bytes[2] = 0x3f;
    expect(decodeRequest(bytes).kind).toBeUndefined();
  });

  test("a snapshot offer keeps id, size and message", () => {
    const metadata = {
      index: 12,
      term: 3,
      confState: {
        voters: [1n as MemberId, 2n as MemberId],
        votersOutgoing: [],
        learners: [3n as MemberId],
        learnersNext: [],
        autoLeave: false,
      },
    };
    const request = { type: "snapshot", from: 1n as MemberId, to: 2n as MemberId, term: 4, snapshot: { metadata } } as const;
    const offer = decodeSnapshotOffer(encodeSnapshotOffer({ id: "000c-ab", sizeBytes: 2 ** 40 }, request));
    expect(offer).toEqual({ info: { id: "000c-ab", sizeBytes: 2 ** 40 }, message: request });
  });
});
