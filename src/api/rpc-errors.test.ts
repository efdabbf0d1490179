import { describe, expect, test } from "vitest";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import {
  CompactedError,
  FutureRevisionError,
  httpStatusOf,
  invalidContentType,
  invalidGrpcTimeout,
  isRpcError,
  LeaseNotFoundError,
  messageTooLarge,
  noDecompressor,
  ProtoDecodeError,
  RequestTooLargeError,
  RPC_ERRORS,
  type RpcErrorReason,
  rpcError,
  undecodableRequest,
  unknownRpcMethod,
  unknownRpcService,
  withUnknownCode,
  wrongHttpMethod,
} from "./index.ts";

const reasons = Object.keys(RPC_ERRORS) as RpcErrorReason[];

describe("the table", () => {
  test("every reason makes an error with its code and text", () => {
    for (const reason of reasons) {
      const error = rpcError(reason);
      expect([error.grpcCode, error.message, error.reason]).toEqual([...RPC_ERRORS[reason], reason]);
      expect(EtcdError.is(error) && isRpcError(error, reason)).toBe(true);
    }
  });

  test("no two reasons share code and text", () => {
    expect(new Set(reasons.map((reason) => RPC_ERRORS[reason].join(" "))).size).toBe(reasons.length);
  });

  test("codes where etcd sends another one than it declares", () => {
    expect(rpcError("too-many-requests").grpcCode).toBe(GrpcCode.Unknown);
    expect(rpcError("not-enough-started-members").grpcCode).toBe(GrpcCode.Unknown);
  });
});

test("errors with facts", () => {
  const compacted = new CompactedError({ requested: 3, compacted: 9 });
  expect(compacted).toMatchObject({ requested: 3, compacted: 9, grpcCode: 11, reason: "compacted" });
  expect(compacted.message).toBe("etcdserver: mvcc: required revision has been compacted");
  expect(isRpcError(compacted, "compacted")).toBe(true);
  expect(isRpcError(compacted, "future-revision")).toBe(false);
  expect(isRpcError(new Error("x"), "compacted")).toBe(false);
  expect(new FutureRevisionError({ requested: 9, current: 3 })).toMatchObject({ current: 3, reason: "future-revision" });
  expect(new LeaseNotFoundError({ lease: -5n })).toMatchObject({ lease: -5n, grpcCode: 5 });
  expect(new RequestTooLargeError({ size: 9, limit: 3 })).toMatchObject({ size: 9, limit: 3, message: "etcdserver: request is too large" });
});

test("texts with something in them", () => {
  const said = [
    messageTooLarge(700007, 554288),
    undecodableRequest(new ProtoDecodeError("invalid-wire-format")),
    undecodableRequest(new ProtoDecodeError("invalid-utf8")),
    unknownRpcMethod("Nope", "etcdserverpb.KV"),
    unknownRpcService("a.B"),
    invalidContentType("text/plain"),
    wrongHttpMethod("GET"),
    noDecompressor("br"),
    invalidGrpcTimeout("5x"),
    withUnknownCode(rpcError("lease-not-found")),
  ].map((error) => `${error.grpcCode} ${error.message}`);
  expect(said).toEqual([
    "8 grpc: received message larger than max (700007 vs. 554288)",
    "13 grpc: error unmarshalling request: proto: cannot parse invalid wire-format data",
    "13 grpc: error unmarshalling request: string field contains invalid UTF-8",
    "12 unknown method Nope for service etcdserverpb.KV",
    "12 unknown service a.B",
    '3 invalid gRPC request content-type "text/plain"',
    '13 Received a HEADERS frame with :method "GET" which should be POST',
    '12 grpc: Decompressor is not installed for grpc-encoding "br"',
    "3 invalid grpc-timeout: 5x",
    "2 etcdserver: requested lease not found",
  ]);
});

test("HTTP statuses", () => {
  const statuses = Object.fromEntries(Object.entries(GrpcCode).map(([name, code]) => [name, httpStatusOf(code)]));
  expect(statuses).toEqual({
    OK: 200,
    Canceled: 499,
    Unknown: 500,
    InvalidArgument: 400,
    DeadlineExceeded: 504,
    NotFound: 404,
    AlreadyExists: 409,
    PermissionDenied: 403,
    ResourceExhausted: 429,
    FailedPrecondition: 400,
    Aborted: 409,
    OutOfRange: 400,
    Unimplemented: 501,
    Internal: 500,
    Unavailable: 503,
    DataLoss: 500,
    Unauthenticated: 401,
  });
});
