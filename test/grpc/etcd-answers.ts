/** Requests of every kind of right and wrong, byte by byte, whose answers by etcd are recorded in test/golden/grpc-answers.jsonl. */
import { gzipSync } from "node:zlib";
import * as api from "../../src/api/index.ts";
import { grpcFrame, type H2Client } from "./h2-client.ts";

const put = api.PutRequest.encode(api.PutRequest.create({ key: Buffer.from("k"), value: Buffer.from("v") }));
const range = api.RangeRequest.encode(api.RangeRequest.create({ key: Buffer.from("k") }));
const watchA = api.WatchRequest.encode(
  api.WatchRequest.create({ createRequest: api.WatchCreateRequest.create({ key: Buffer.from("a") }) }),
);
const lock = api.LockRequest.encode(api.LockRequest.create({ name: Buffer.from("l") }));
const NOTHING = Buffer.alloc(0);
const BAD = Buffer.from([0xff, 0xff]);

const P = "/etcdserverpb.KV/Put";
const R = "/etcdserverpb.KV/Range";
const RS = "/etcdserverpb.KV/RangeStream";
const W = "/etcdserverpb.Watch/Watch";
const KA = "/etcdserverpb.Lease/LeaseKeepAlive";

type Fields = Readonly<Record<string, string | undefined>>;

/** Sends bytes as the data of a call, and ends it or not. */
function raw(c: H2Client, path: string, bytes: Uint8Array, options: { fields?: Fields; endStream?: boolean } = {}): number {
  const id = c.open(path, options.fields ?? {});
  c.data(id, bytes, { endStream: options.endStream ?? true });
  return id;
}

function prefix(length: number, flag = 0): Buffer {
  const bytes = Buffer.alloc(5);
  bytes[0] = flag;
  bytes.writeUInt32BE(length, 1);
  return bytes;
}

const GZIP: Fields = { "grpc-encoding": "gzip" };

function gzip(c: H2Client, compressed: Uint8Array): number {
  return raw(c, R, grpcFrame(compressed, 1), { fields: GZIP });
}

function changed(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] as number) ^ 1;
  return copy;
}

/** Sends the request on a fresh connection and gives its stream. */
export type Send = (client: H2Client) => number;

export const REQUESTS: Readonly<Record<string, Send>> = {
  put: (c) => c.call(P, put),
  "put, not ended": (c) => raw(c, P, grpcFrame(put), { endStream: false }),
  "put, two messages": (c) => raw(c, P, Buffer.concat([grpcFrame(put), grpcFrame(put)])),
  "unknown service": (c) => c.call("/foo.Bar/Baz", put),
  "unknown service, not ended": (c) => c.open("/foo.Bar/Baz"),
  "unknown method": (c) => c.call("/etcdserverpb.KV/Baz", put),
  "no slash before the service": (c) => c.call("etcdserverpb.KV/Range", range),
  "no slash before the method": (c) => c.call("/etcdserverpb.KV", range),
  "empty method": (c) => c.call("/etcdserverpb.KV/", range),
  "a slash alone": (c) => c.call("/", range),
  "three parts": (c) => c.call("/etcdserverpb.KV/Range/x", range),
  "a query": (c) => c.call("/etcdserverpb.KV/Range?x=1", range),
  "a percent sign": (c) => c.call("/etcdserverpb.KV/R%61nge", range),
  "a percent sign in the service": (c) => c.call("/foo.B%r/x", range),
  reflection: (c) => c.call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", NOTHING),

  "content-type json": (c) => c.call(R, range, { "content-type": "application/json" }),
  "content-type json, not ended": (c) => c.open(R, { "content-type": "application/json" }),
  "content-type missing": (c) => c.call(R, range, { "content-type": undefined }),
  "content-type +proto": (c) => c.call(R, range, { "content-type": "application/grpc+proto" }),
  "content-type +json": (c) => c.call(R, range, { "content-type": "application/grpc+json" }),
  "content-type with a parameter": (c) => c.call(R, range, { "content-type": "application/grpc;charset=utf-8" }),
  "content-type grpcfoo": (c) => c.call(R, range, { "content-type": "application/grpcfoo" }),
  "content-type grpc-web": (c) => c.call(R, range, { "content-type": "application/grpc-web" }),
  "content-type in capitals": (c) => c.call(R, range, { "content-type": "Application/GRPC+Proto" }),
  "content-type with an empty subtype": (c) => c.call(R, range, { "content-type": "application/grpc+" }),
  "content-type +proto, refused": (c) => c.call("/x.Y/Z", range, { "content-type": "application/grpc+proto" }),
  GET: (c) => c.open(R, { ":method": "GET" }, { endStream: true }),
  PUT: (c) => c.call(R, range, { ":method": "PUT" }),
  "GET of text": (c) => c.open(R, { ":method": "GET", "content-type": "text/plain" }, { endStream: true }),
  "no te": (c) => c.call(R, range, { te: undefined }),
  "te: gzip": (c) => c.call(R, range, { te: "gzip" }),
  connection: (c) => c.call(R, range, { connection: "close" }),
  "no authority": (c) => c.call(R, range, { ":authority": undefined }),
  "no scheme": (c) => c.call(R, range, { ":scheme": undefined }),
  "no path": (c) => c.call(R, range, { ":path": undefined }),
  "no method": (c) => c.call(R, range, { ":method": undefined }),
  "a field in capitals": (c) => c.call(R, range, { "X-Foo": "a" }),
  "an unknown pseudo field": (c) => c.call(R, range, { ":foo": "a" }),
  "a line break in a value": (c) => c.call(R, range, { foo: "a\nb" }),
  "a byte above ASCII in a value": (c) => c.call(R, range, { foo: "a\xffb" }),
  "an unknown grpc- field": (c) => c.call(R, range, { "grpc-foo": "1" }),
  "binary metadata that is not base64": (c) => c.call(R, range, { "foo-bin": "!!!" }),
  "another host": (c) => c.call(R, range, { host: "other" }),

  "the end with the headers": (c) => c.open(R, {}, { endStream: true }),
  "the end without a message": (c) => raw(c, R, NOTHING),
  "the end in the prefix": (c) => raw(c, R, Buffer.from([0, 0, 0])),
  "the end in the message": (c) => raw(c, R, grpcFrame(range).subarray(0, 7)),
  "flag 2": (c) => raw(c, R, grpcFrame(range, 2)),
  "flag 2 and too large": (c) => raw(c, R, prefix(4_294_967_295, 2), { endStream: false }),
  "bad message": (c) => c.call(R, BAD),
  "bad message, not ended": (c) => raw(c, R, grpcFrame(BAD), { endStream: false }),
  "bad UTF-8": (c) => c.call("/etcdserverpb.Auth/UserGet", Buffer.from([0x0a, 2, 0xff, 0xff])),
  "a length of 4 GiB": (c) => raw(c, R, prefix(4_294_967_295), { endStream: false }),
  "a length one too large": (c) => raw(c, R, prefix(2_097_153), { endStream: false }),

  "compressed without encoding": (c) => raw(c, R, grpcFrame(range, 1)),
  "compressed with identity": (c) => raw(c, R, grpcFrame(range, 1), { fields: { "grpc-encoding": "identity" } }),
  "encoding identity": (c) => c.call(R, range, { "grpc-encoding": "identity" }),
  "encoding snappy, not used": (c) => c.call(R, range, { "grpc-encoding": "snappy" }),
  "encoding snappy": (c) => raw(c, R, grpcFrame(range, 1), { fields: { "grpc-encoding": "snappy" } }),
  "encoding empty": (c) => c.call(R, range, { "grpc-encoding": "" }),
  "encoding in capitals": (c) => c.call(R, range, { "grpc-encoding": "GZIP" }),
  "gzip, not used": (c) => c.call(R, range, GZIP),
  gzip: (c) => gzip(c, gzipSync(range)),
  "gzip, text": (c) => gzip(c, Buffer.from("hello world foo bar")),
  "gzip, cut off": (c) => gzip(c, gzipSync(range).subarray(0, 15)),
  "gzip, wrong checksum": (c) => gzip(c, changed(gzipSync(range), gzipSync(range).byteLength - 8)),
  "gzip, nothing": (c) => gzip(c, NOTHING),
  "gzip, three bytes": (c) => gzip(c, Buffer.from([1, 2, 3])),
  "gzip, more behind it": (c) => gzip(c, Buffer.concat([gzipSync(range), Buffer.from("xyz")])),
  "gzip, four megabytes": (c) => gzip(c, gzipSync(Buffer.alloc(4 << 20))),
  "gzip, a byte too much": (c) => gzip(c, gzipSync(Buffer.alloc(2_097_153))),
  "gzip, empty answer": (c) => c.call("/etcdserverpb.Maintenance/Defragment", NOTHING, GZIP),
  "gzip, refused": (c) => c.call(P, NOTHING, GZIP),
  "gzip accepted": (c) => c.call(R, range, { "grpc-accept-encoding": "gzip" }),

  "timeout 0S": (c) => c.call(P, put, { "grpc-timeout": "0S" }),
  "timeout 0n": (c) => c.call(P, put, { "grpc-timeout": "0n" }),
  "timeout 1n": (c) => c.call(P, put, { "grpc-timeout": "1n" }),
  "timeout without a message": (c) => c.open(P, { "grpc-timeout": "50m" }),
  "timeout of a bad unit": (c) => c.call(P, put, { "grpc-timeout": "abc" }),
  "timeout empty": (c) => c.call(P, put, { "grpc-timeout": "" }),
  "timeout too long": (c) => c.call(P, put, { "grpc-timeout": "123456789S" }),
  "timeout of eight digits": (c) => c.call(P, put, { "grpc-timeout": "99999999H" }),
  "timeout negative": (c) => c.call(P, put, { "grpc-timeout": "-1S" }),
  "timeout without a number": (c) => c.call(P, put, { "grpc-timeout": "S" }),
  "timeout with a plus": (c) => c.call(P, put, { "grpc-timeout": "+1S" }),
  "timeout of a bad unit, unknown service": (c) => c.call("/x.Y/z", put, { "grpc-timeout": "abc" }),
  "timeout of a bad unit, wrong content type": (c) => c.call(P, put, { "grpc-timeout": "abc", "content-type": "text/html" }),
  "lock with a timeout": (c) => c.call("/v3lockpb.Lock/Lock", lock, { "grpc-timeout": "1S" }),

  "client version not UTF-8": (c) => c.call(P, put, { "client-api-version": "\xff" }),
  "client version not UTF-8, stream": (c) => c.call(W, NOTHING, { "client-api-version": "\xff" }),
  "client version in UTF-8": (c) => c.call(P, put, { "client-api-version": "\xc3\xa9" }),
  "token without auth": (c) => c.call(P, put, { token: "foo.1" }),

  "health check": (c) => c.call("/grpc.health.v1.Health/Check", NOTHING),
  "health check of another": (c) => c.call("/grpc.health.v1.Health/Check", Buffer.from([0x0a, 1, 0x61])),
  "health list": (c) => c.call("/grpc.health.v1.Health/List", NOTHING),
  "health watch": (c) => c.call("/grpc.health.v1.Health/Watch", NOTHING),
  "health watch of another": (c) => c.call("/grpc.health.v1.Health/Watch", Buffer.from([0x0a, 1, 0x61])),

  "watch, nothing asked": (c) => c.open(W),
  "watch, created": (c) => raw(c, W, grpcFrame(watchA), { endStream: false }),
  "watch, created and ended": (c) => c.call(W, watchA),
  "watch, ended": (c) => c.open(W, {}, { endStream: true }),
  "watch, bad message": (c) => c.call(W, BAD),
  "watch, bad message, not ended": (c) => raw(c, W, grpcFrame(BAD), { endStream: false }),
  "watch, too large": (c) => raw(c, W, prefix(2_097_153), { endStream: false }),
  "watch, compressed without encoding": (c) => raw(c, W, grpcFrame(NOTHING, 1), { endStream: false }),
  "watch, ended in the message": (c) => raw(c, W, Buffer.from([0, 0, 0, 0, 9, 1])),
  "watch with a timeout": (c) => c.call(W, watchA, { "grpc-timeout": "100m" }),
  "watch with a timeout, nothing asked": (c) => c.open(W, { "grpc-timeout": "100m" }),
  "watch with gzip": (c) => raw(c, W, grpcFrame(watchA), { fields: GZIP, endStream: false }),

  renewal: (c) => c.call(KA, api.LeaseKeepAliveRequest.encode(api.LeaseKeepAliveRequest.create({ id: 5n }))),
  "renewals, ended with the headers": (c) => c.open(KA, {}, { endStream: true }),
  "renewals, not ended": (c) => raw(c, KA, grpcFrame(NOTHING), { endStream: false }),
  "renewals, bad message": (c) => c.call(KA, BAD),
  "renewals, bad message, not ended": (c) => raw(c, KA, grpcFrame(Buffer.from([255])), { endStream: false }),
  "renewals, too large": (c) => raw(c, KA, prefix(2_097_153), { endStream: false }),
  "renewals, ended in the message": (c) => raw(c, KA, Buffer.from([0, 0, 0, 0, 9, 1])),
  "renewals with a timeout": (c) => c.open(KA, { "grpc-timeout": "100m" }),
  "renewals with a timeout, one sent": (c) => raw(c, KA, grpcFrame(NOTHING), { fields: { "grpc-timeout": "100m" }, endStream: false }),

  "range stream": (c) => c.call(RS, range),
  "range stream, ended with the headers": (c) => c.open(RS, {}, { endStream: true }),
  "range stream, ended": (c) => raw(c, RS, NOTHING),
  "range stream, bad message": (c) => c.call(RS, BAD),
  "range stream, too large": (c) => raw(c, RS, prefix(2_097_153), { endStream: false }),
  "range stream, not ended": (c) => raw(c, RS, grpcFrame(range), { endStream: false }),
  "range stream, two messages": (c) => raw(c, RS, Buffer.concat([grpcFrame(range), grpcFrame(range)])),
  "range stream, no key": (c) => c.call(RS, NOTHING),
  "put, no key": (c) => c.call(P, NOTHING),
  "put, no key, not ended": (c) => raw(c, P, grpcFrame(NOTHING), { endStream: false }),
  "a content length that is wrong": (c) => c.call(R, range, { "content-length": "3" }),
};
