/**
 * What messages cost: our generated codecs beside protobufjs (whose reflection compiles the same functions as its static code), and the
 * JSON mapping beside the bare JSON.parse. Nanoseconds per operation, the best of several rounds.
 * Run: node --import tsx test/bench/codec.bench.ts
 */
import {
  KeyValue,
  type MessageType,
  PutRequest,
  PutResponse,
  parseJson,
  printJson,
  RangeRequest,
  RangeResponse,
  ResponseHeader,
  Writer,
} from "../../src/api/index.ts";
import { toTwin, twinOf } from "../support/api-twin.ts";

const ROUNDS = 5;
const ROUND_MS = 150;

/** Keeps results alive, so that no work is optimised away. */
let sink: unknown;

function nanoseconds(work: () => unknown): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round += 1) {
    let done = 0;
    const start = performance.now();
    let elapsed = 0;
    do {
      for (let i = 0; i < 500; i += 1) sink = work();
      done += 500;
      elapsed = performance.now() - start;
    } while (elapsed < ROUND_MS);
    best = Math.min(best, (elapsed * 1e6) / done);
  }
  return Math.round(best);
}

const key = Buffer.from("/registry/pods/default/pod-000123");
const value = Buffer.alloc(256, 0xa7);
const header = ResponseHeader.create({
  clusterId: 14064829369057666914n,
  memberId: 7234835788977491870n,
  revision: 123_456,
  raftTerm: 3,
});
const pair = (n: number): KeyValue =>
  KeyValue.create({
    key: Buffer.from(`/registry/pods/default/pod-00012${n}`),
    value,
    createRevision: 100 + n,
    modRevision: 123_000 + n,
    version: 3,
  });
const pairs = Array.from({ length: 10 }, (_, n) => pair(n));
const put = PutRequest.create({ key, value, lease: 7587862072907234561n });
const putResponse = PutResponse.create({ header });
const range10 = RangeResponse.create({ header, kvs: pairs, count: 10 });
const range10Wire = RangeResponse.create({ header, kvs: pairs.map((kv) => ({ ...kv, wire: KeyValue.encode(kv) })), count: 10 });

const writer = new Writer(65_536);
function into<T extends object>(type: MessageType<T>, message: T): () => number {
  return () => {
    writer.reset();
    type.encodeTo(writer, message);
    return writer.length;
  };
}

function twinEncode(type: MessageType<object>, message: object): () => unknown {
  const twin = twinOf(type);
  const prepared = twin.fromObject(toTwin(type, message));
  return () => twin.encode(prepared).finish();
}

function twinDecode(type: MessageType<object>, bytes: Uint8Array): () => unknown {
  const twin = twinOf(type);
  return () => twin.decode(bytes);
}

const putBytes = Buffer.from(PutRequest.encode(put));
const rangeBytes = Buffer.from(RangeResponse.encode(range10));
const putJson = Buffer.from(printJson(PutRequest, put));
const rangeJson = Buffer.from(printJson(RangeRequest, RangeRequest.create({ key, rangeEnd: key, limit: 10 })));

const rows: Record<string, Record<string, () => unknown>> = {
  "put request, decode": { ours: () => PutRequest.decode(putBytes), protobufjs: twinDecode(PutRequest, putBytes) },
  "put response with header, encode": {
    ours: () => PutResponse.encode(putResponse),
    "ours into a writer": into(PutResponse, putResponse),
    protobufjs: twinEncode(PutResponse, putResponse),
  },
  "range response of 10, encode": {
    ours: () => RangeResponse.encode(range10),
    "ours into a writer": into(RangeResponse, range10),
    "ours, pairs in wire form, into a writer": into(RangeResponse, range10Wire),
    protobufjs: twinEncode(RangeResponse, range10),
  },
  "range response of 10, decode": { ours: () => RangeResponse.decode(rangeBytes), protobufjs: twinDecode(RangeResponse, rangeBytes) },
  "put request, from JSON": { ours: () => parseJson(PutRequest, putJson), "JSON.parse alone": () => JSON.parse(putJson.toString("utf8")) },
  "range request, from JSON": {
    ours: () => parseJson(RangeRequest, rangeJson),
    "JSON.parse alone": () => JSON.parse(rangeJson.toString("utf8")),
  },
  "put response, to JSON bytes": { ours: () => Buffer.from(printJson(PutResponse, putResponse)) },
  "range response of 10, to JSON bytes": { ours: () => Buffer.from(printJson(RangeResponse, range10)) },
};

for (const [what, candidates] of Object.entries(rows)) {
  const figures = Object.entries(candidates).map(([name, work]) => `${name} ${nanoseconds(work)}`);
  console.log(`${what.padEnd(38)} ${figures.join(" · ")}`);
}
if (sink === undefined) throw new Error("nothing was measured");
