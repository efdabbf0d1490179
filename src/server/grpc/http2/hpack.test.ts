import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AnswerHeaders } from "./answer-headers.ts";
import { ConnectionError } from "./errors.ts";
import { HpackDecoder } from "./hpack.ts";
import { huffmanDecode } from "./huffman.ts";

class Reader {
  fields: [string, string][] = [];
  readonly decoder = new HpackDecoder({
    kindOf: () => 0,
    field: ({ name, value }) => this.fields.push([name, value]),
  });

  read(block: string | Uint8Array): [string, string][] {
    const bytes = typeof block === "string" ? Buffer.from(block.replaceAll(" ", ""), "hex") : block;
    this.fields = [];
    this.decoder.decode(bytes, 0, bytes.byteLength);
    return this.fields;
  }
}

const REQUESTS: readonly (readonly [string, string])[][] = [
  [
    [":method", "GET"],
    [":scheme", "http"],
    [":path", "/"],
    [":authority", "www.example.com"],
  ],
  [
    [":method", "GET"],
    [":scheme", "http"],
    [":path", "/"],
    [":authority", "www.example.com"],
    ["cache-control", "no-cache"],
  ],
  [
    [":method", "GET"],
    [":scheme", "https"],
    [":path", "/index.html"],
    [":authority", "www.example.com"],
    ["custom-key", "custom-value"],
  ],
];

describe("the examples of RFC 7541", () => {
  it("C.3, requests", () => {
    const reader = new Reader();
    const blocks = [
      "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
      "8286 84be 5808 6e6f 2d63 6163 6865",
      "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    expect(blocks.map((block) => reader.read(block))).toEqual(REQUESTS);
    expect(reader.decoder.tableSize).toBe(3);
  });

  it("C.4, requests with Huffman codes", () => {
    const reader = new Reader();
    const blocks = [
      "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
      "8286 84be 5886 a8eb 1064 9cbf",
      "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    expect(blocks.map((block) => reader.read(block))).toEqual(REQUESTS);
  });

  it("C.6, responses with Huffman codes and a table that overflows", () => {
    const reader = new Reader();
    // The example's table has 256 bytes.
    const first = `3fe1 01 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3`;
    expect(reader.read(first)).toEqual([
      [":status", "302"],
      ["cache-control", "private"],
      ["date", "Mon, 21 Oct 2013 20:13:21 GMT"],
      ["location", "https://www.example.com"],
    ]);
    expect(reader.read("4883 640e ffc1 c0bf")[0]).toEqual([":status", "307"]);
    const third =
      "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07";
    expect(reader.read(third)).toEqual([
      [":status", "200"],
      ["cache-control", "private"],
      ["date", "Mon, 21 Oct 2013 20:13:22 GMT"],
      ["location", "https://www.example.com"],
      ["content-encoding", "gzip"],
      ["set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"],
    ]);
    expect(reader.decoder.tableSize).toBe(3);
  });
});

describe("the table", () => {
  it("is emptied by an entry that is larger than it, and that is no error", () => {
    const reader = new Reader();
    reader.read("4001 6101 62");
    expect(reader.decoder.tableSize).toBe(1);
    const large = Buffer.concat([Buffer.from("4001617f8120", "hex"), Buffer.alloc(127 + 1 + 32 * 128, "x")]);
    expect(reader.read(large)[0]?.[1].length).toBe(4224);
    expect(reader.decoder.tableSize).toBe(0);
  });

  it("holds as many of the smallest entries as fit, for ever", () => {
    const reader = new Reader();
    for (let i = 0; i < 1000; i++) reader.read(Buffer.from([0x40, 0, 0]));
    expect(reader.decoder.tableSize).toBe(128);
    expect(reader.read(Buffer.from([0xff, 0x80 + ((61 + 128 - 127) & 127), ((61 + 128 - 127) >> 7) & 127]))).toEqual([["", ""]]);
  });
});

/** A second, slow way to the same code: the codes one by one, from nothing but the decoder's answers to short inputs. */
function encode(codes: readonly (readonly [code: bigint, bits: number])[], symbols: readonly number[]): Buffer {
  let bits = "";
  for (const symbol of symbols) {
    const [code, length] = codes[symbol] as readonly [bigint, number];
    bits += code.toString(2).padStart(length, "0");
  }
  bits += "1".repeat((8 - (bits.length % 8)) % 8);
  return Buffer.from(bits.match(/.{8}/g)?.map((byte) => Number.parseInt(byte, 2)) ?? []);
}

/** By value of the byte, from the appendix B of the RFC; a sample of each length. */
const SAMPLE: readonly (readonly [symbol: number, code: bigint, bits: number])[] = [
  [48, 0x0n, 5],
  [97, 0x3n, 5],
  [116, 0x9n, 5],
  [32, 0x14n, 6],
  [58, 0x5cn, 7],
  [38, 0xf8n, 8],
  [33, 0x3f8n, 10],
  [39, 0x7fan, 11],
  [35, 0xffan, 12],
  [0, 0x1ff8n, 13],
  [94, 0x3ffcn, 14],
  [60, 0x7ffcn, 15],
  [92, 0x7fff0n, 19],
  [128, 0xfffe6n, 20],
  [153, 0x1fffdcn, 21],
  [129, 0x3fffd2n, 22],
  [1, 0x7fffd8n, 23],
  [9, 0xffffean, 24],
  [199, 0x1ffffecn, 25],
  [192, 0x3ffffe0n, 26],
  [203, 0x7ffffden, 27],
  [2, 0xfffffe2n, 28],
  [10, 0x3ffffffcn, 30],
  [22, 0x3ffffffen, 30],
];

describe("Huffman codes", () => {
  const out = new Uint8Array(4096);
  const decode = (bytes: Uint8Array): number[] | undefined => {
    const length = huffmanDecode(bytes, 0, bytes.byteLength, out);
    return length < 0 ? undefined : Array.from(out.subarray(0, length));
  };

  it("are those of the RFC, in any order", () => {
    const codes: [bigint, number][] = [];
    for (const [symbol, code, bits] of SAMPLE) codes[symbol] = [code, bits];
    const symbols = SAMPLE.map(([symbol]) => symbol);
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...symbols), { maxLength: 60 }), (text) => {
        expect(decode(encode(codes, text))).toEqual(text);
      }),
    );
  });

  it("must be padded with less than a byte of ones, and must not hold the end marker", () => {
    expect(decode(Buffer.from([0b00000_111]))).toEqual([48]);
    expect(decode(Buffer.from([0b00000_110]))).toBeUndefined();
    expect(decode(Buffer.from([0b00000_111, 0xff]))).toBeUndefined();
    expect(decode(Buffer.from([0xff]))).toBeUndefined();
    expect(decode(Buffer.from([0xff, 0xff, 0xff, 0xff]))).toBeUndefined();
    expect(decode(Buffer.alloc(0))).toEqual([]);
  });
});

describe("header blocks that are none", () => {
  it("break the connection, and nothing else", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        const reader = new Reader();
        try {
          reader.read(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(ConnectionError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("headers of answers", () => {
  const PLAIN = [
    [":status", "200"],
    ["content-type", "application/grpc"],
  ];
  const OK = [
    ["grpc-status", "0"],
    ["grpc-message", ""],
  ];

  it("are short when they are the usual ones, and always say the same", () => {
    const reader = new Reader();
    const answers = new AnswerHeaders();
    for (let i = 0; i < 4; i++) {
      expect(reader.read(answers.headers("application/grpc", undefined))).toEqual(PLAIN);
      expect(reader.read(answers.okTrailers())).toEqual(OK);
    }
    expect(answers.headers("application/grpc", undefined).byteLength).toBe(2);
    expect(answers.okTrailers().byteLength).toBe(2);
  });

  it("say the same whatever comes in between", () => {
    const step = fc.oneof(
      fc.constant("headers" as const),
      fc.constant("trailers" as const),
      fc.constant("other" as const),
      fc.constant("failed" as const),
      fc.constant("only" as const),
      fc.constantFrom(0, 10, 100, 147, 148, 500, 4096, 100_000),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const reader = new Reader();
        const answers = new AnswerHeaders();
        for (const what of steps) {
          if (typeof what === "number") answers.setTableSize(what);
          else if (what === "headers") expect(reader.read(answers.headers("application/grpc", undefined))).toEqual(PLAIN);
          else if (what === "trailers") expect(reader.read(answers.okTrailers())).toEqual(OK);
          else if (what === "other") {
            expect(reader.read(answers.headers("application/grpc+proto", "gzip"))).toEqual([
              [":status", "200"],
              ["content-type", "application/grpc+proto"],
              ["grpc-encoding", "gzip"],
            ]);
          } else if (what === "failed") {
            expect(reader.read(answers.trailers(13, "größer"))).toEqual([
              ["grpc-status", "13"],
              ["grpc-message", "gr%C3%B6%C3%9Fer"],
            ]);
          } else {
            expect(reader.read(answers.trailersOnly(415, "application/grpc", 3, "x".repeat(300)))).toEqual([
              [":status", "415"],
              ["content-type", "application/grpc"],
              ["grpc-status", "3"],
              ["grpc-message", "x".repeat(300)],
            ]);
          }
        }
      }),
    );
  });
});
