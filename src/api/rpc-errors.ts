/**
 * The one place with the exact texts of the API's errors. Clients recognise errors by code and text, so both are part of the contract.
 * Codes are the ones that really go out: where etcd declares one code and sends another (marked below), the sent one is here.
 */
import { EtcdError, GrpcCode } from "../base/errors.ts";

const {
  Canceled,
  Unknown,
  InvalidArgument,
  DeadlineExceeded,
  NotFound,
  PermissionDenied,
  ResourceExhausted,
  FailedPrecondition,
  OutOfRange,
  Unimplemented,
  Internal,
  Unavailable,
  DataLoss,
  Unauthenticated,
} = GrpcCode;

/** Reason to code and text. The order is the one of the reference: KV and watch, lease, cluster, auth, server state, downgrade, others. */
export const RPC_ERRORS = {
  "key-not-provided": [InvalidArgument, "etcdserver: key is not provided"],
  "key-not-found": [InvalidArgument, "etcdserver: key not found"],
  "value-provided": [InvalidArgument, "etcdserver: value is provided"],
  "lease-provided": [InvalidArgument, "etcdserver: lease is provided"],
  "too-many-ops": [InvalidArgument, "etcdserver: too many operations in txn request"],
  "duplicate-key": [InvalidArgument, "etcdserver: duplicate key given in txn request"],
  "invalid-sort-option": [InvalidArgument, "etcdserver: invalid sort option"],
  "invalid-client-api-version": [InvalidArgument, "etcdserver: invalid client api version"],
  compacted: [OutOfRange, "etcdserver: mvcc: required revision has been compacted"],
  "future-revision": [OutOfRange, "etcdserver: mvcc: required revision is a future revision"],
  "no-space": [ResourceExhausted, "etcdserver: mvcc: database space exceeded"],
  "request-too-large": [InvalidArgument, "etcdserver: request is too large"],
  /** Declared as ResourceExhausted, sent as Unknown. */
  "too-many-requests": [Unknown, "etcdserver: too many requests"],
  "watch-canceled": [Canceled, "etcdserver: watch canceled"],

  "lease-not-found": [NotFound, "etcdserver: requested lease not found"],
  "lease-exists": [FailedPrecondition, "etcdserver: lease already exists"],
  "lease-ttl-too-large": [OutOfRange, "etcdserver: too large lease TTL"],

  "member-exists": [FailedPrecondition, "etcdserver: member ID already exist"],
  "peer-url-exists": [FailedPrecondition, "etcdserver: Peer URLs already exists"],
  /** Declared as FailedPrecondition, sent as Unknown. */
  "not-enough-started-members": [Unknown, "etcdserver: re-configuration failed due to not enough started members"],
  "bad-member-urls": [InvalidArgument, "etcdserver: given member URLs are invalid"],
  "member-not-found": [NotFound, "etcdserver: member not found"],
  "member-not-learner": [FailedPrecondition, "etcdserver: can only promote a learner member"],
  "learner-not-ready": [FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader"],
  "too-many-learners": [FailedPrecondition, "etcdserver: too many learner members in cluster"],
  "cluster-id-mismatch": [FailedPrecondition, "etcdserver: cluster ID mismatch"],
  "unhealthy-cluster": [Unavailable, "etcdserver: unhealthy cluster"],

  "root-user-not-exist": [FailedPrecondition, "etcdserver: root user does not exist"],
  "root-role-not-exist": [FailedPrecondition, "etcdserver: root user does not have root role"],
  "user-already-exists": [FailedPrecondition, "etcdserver: user name already exists"],
  "user-empty": [InvalidArgument, "etcdserver: user name is empty"],
  "user-not-found": [FailedPrecondition, "etcdserver: user name not found"],
  "role-already-exists": [FailedPrecondition, "etcdserver: role name already exists"],
  "role-not-found": [FailedPrecondition, "etcdserver: role name not found"],
  "role-empty": [InvalidArgument, "etcdserver: role name is empty"],
  "auth-failed": [InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"],
  "permission-not-given": [InvalidArgument, "etcdserver: permission not given"],
  "permission-denied": [PermissionDenied, "etcdserver: permission denied"],
  "role-not-granted": [FailedPrecondition, "etcdserver: role is not granted to the user"],
  "permission-not-granted": [FailedPrecondition, "etcdserver: permission is not granted to the role"],
  "auth-not-enabled": [FailedPrecondition, "etcdserver: authentication is not enabled"],
  "invalid-auth-token": [Unauthenticated, "etcdserver: invalid auth token"],
  "invalid-auth-management": [InvalidArgument, "etcdserver: invalid auth management"],
  "auth-old-revision": [InvalidArgument, "etcdserver: revision of auth store is old"],

  "no-leader": [Unavailable, "etcdserver: no leader"],
  "not-leader": [FailedPrecondition, "etcdserver: not leader"],
  "leader-changed": [Unavailable, "etcdserver: leader changed"],
  "not-capable": [FailedPrecondition, "etcdserver: not capable"],
  "server-stopped": [Unavailable, "etcdserver: server stopped"],
  timeout: [Unavailable, "etcdserver: request timed out"],
  "timeout-leader-failure": [Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"],
  "timeout-connection-lost": [Unavailable, "etcdserver: request timed out, possibly due to connection lost"],
  "timeout-waiting-applied": [Unavailable, "etcdserver: request timed out, waiting for the applied index took too long"],
  "corrupt-cluster": [DataLoss, "etcdserver: corrupt cluster"],
  "not-supported-for-learner": [FailedPrecondition, "etcdserver: rpc not supported for learner"],
  "bad-leader-transferee": [FailedPrecondition, "etcdserver: bad leader transferee"],
  "request-canceled": [Canceled, "etcdserver: request canceled"],
  /** Declared; a passed deadline really surfaces as `deadline-exceeded`. */
  "server-deadline-exceeded": [DeadlineExceeded, "etcdserver: context deadline exceeded"],

  "wrong-downgrade-version-format": [InvalidArgument, "etcdserver: wrong downgrade target version format"],
  "invalid-downgrade-target-version": [InvalidArgument, "etcdserver: invalid downgrade target version"],
  "cluster-version-not-found": [FailedPrecondition, "etcdserver: cluster version not found during downgrade"],
  "downgrade-in-process": [FailedPrecondition, "etcdserver: cluster has a downgrade job in progress"],
  "no-inflight-downgrade": [FailedPrecondition, "etcdserver: no inflight downgrade job"],

  "no-password-user": [Unknown, "auth: authentication failed, password was given for no password user"],
  "password-too-long": [Unknown, "bcrypt: password length exceeds 72 bytes"],
  "verify-only-key": [Unknown, "auth: token signing attempted with verify-only key"],
  "unknown-method": [Unknown, "etcdserver: unknown method"],
  "leader-transfer-timeout": [Unknown, "etcdserver: request timed out, leader transfer took too long"],
  "not-primary-lessor": [Unknown, "not a primary lessor"],
  "raft-proposal-dropped": [Unknown, "raft proposal dropped"],
  "raft-stopped": [Unknown, "raft: stopped"],
  "mutex-session-expired": [Unknown, "mutex: session is expired"],
  "mutex-lock-released": [Unknown, "mutex: lock has already been released"],
  "election-not-leader": [Unknown, "election: not leader"],
  "election-no-leader": [Unknown, "election: no leader"],
  "leader-field-required": [Unknown, '"leader" field must be provided'],
  "lost-watcher": [Unknown, "lost watcher waiting for delete"],
  "range-stream-sort": [Unimplemented, "RangeStream does not support custom sort orders"],
  "range-stream-filters": [Unimplemented, "RangeStream does not support revision filters"],
  "deadline-exceeded": [DeadlineExceeded, "context deadline exceeded"],
  canceled: [Canceled, "context canceled"],

  "unknown-health-service": [NotFound, "unknown service"],
  "compressed-without-encoding": [Internal, "grpc: compressed flag set with identity or empty encoding"],
  /** A unary call whose stream ended without a message. */
  "no-message": [Unknown, "EOF"],
  /** A unary call whose stream ended inside its message. */
  "message-cut-off": [Unknown, "unexpected EOF"],
  /** The same on a stream. */
  "stream-message-cut-off": [Internal, "unexpected EOF"],
  /** A call that takes one request got several, or none. */
  "several-requests": [Internal, "cardinality violation: received multiple request messages for non-client-streaming RPC"],
  "no-request": [Internal, "cardinality violation: received no request message from non-client-streaming RPC"],

  /** Gateway only. */
  "http-not-found": [NotFound, "Not Found"],
  /** Gateway only; its status is 501 as the code says, in spite of the text. */
  "http-method-not-allowed": [Unimplemented, "Method Not Allowed"],
} as const satisfies Readonly<Record<string, readonly [GrpcCode, string]>>;

/** What programs branch on. */
export type RpcErrorReason = keyof typeof RPC_ERRORS;

/** An error of the table. */
export class RpcError extends EtcdError {
  declare readonly reason: RpcErrorReason;

  constructor(reason: RpcErrorReason, options?: { cause?: unknown }) {
    const [code, text] = RPC_ERRORS[reason];
    super(reason, code, text, options);
    this.name = "RpcError";
  }
}

/** The error for `reason`, with its code and text from the table. */
export function rpcError(reason: RpcErrorReason, options?: { cause?: unknown }): RpcError {
  return new RpcError(reason, options);
}

/** True for an error of this reason, also one made by another copy of the package. */
export function isRpcError(value: unknown, reason: RpcErrorReason): value is RpcError {
  return EtcdError.is(value) && value.reason === reason;
}

/**
 * The same reason and text with code Unknown: how the lock and election services pass on what went wrong below them. An error that already
 * has that code is returned as it is.
 */
export function withUnknownCode(error: EtcdError): EtcdError {
  return error.grpcCode === Unknown ? error : new EtcdError(error.reason, Unknown, error.message, { cause: error });
}

/** A revision below what compaction has kept. */
export class CompactedError extends RpcError {
  readonly requested: number;
  readonly compacted: number;

  constructor(facts: { requested: number; compacted: number }) {
    super("compacted");
    this.name = "CompactedError";
    this.requested = facts.requested;
    this.compacted = facts.compacted;
  }
}

/** A revision above the current one. */
export class FutureRevisionError extends RpcError {
  readonly requested: number;
  readonly current: number;

  constructor(facts: { requested: number; current: number }) {
    super("future-revision");
    this.name = "FutureRevisionError";
    this.requested = facts.requested;
    this.current = facts.current;
  }
}

export class LeaseNotFoundError extends RpcError {
  readonly lease: bigint;

  constructor(facts: { lease: bigint }) {
    super("lease-not-found");
    this.name = "LeaseNotFoundError";
    this.lease = facts.lease;
  }
}

export class LeaseExistsError extends RpcError {
  readonly lease: bigint;

  constructor(facts: { lease: bigint }) {
    super("lease-exists");
    this.name = "LeaseExistsError";
    this.lease = facts.lease;
  }
}

export class MemberNotFoundError extends RpcError {
  readonly member: bigint;

  constructor(facts: { member: bigint }) {
    super("member-not-found");
    this.name = "MemberNotFoundError";
    this.member = facts.member;
  }
}

/** The encoded internal request is larger than `max-request-bytes`. Both in bytes. */
export class RequestTooLargeError extends RpcError {
  readonly size: number;
  readonly limit: number;

  constructor(facts: { size: number; limit: number }) {
    super("request-too-large");
    this.name = "RequestTooLargeError";
    this.size = facts.size;
    this.limit = facts.limit;
  }
}

/** Errors whose text names what was wrong; made by the transports. */
export type TransportErrorReason =
  | "message-too-large"
  | "undecodable-request"
  | "unknown-rpc-method"
  | "unknown-rpc-service"
  | "invalid-content-type"
  | "wrong-http-method"
  | "decompression-failed"
  | "no-decompressor"
  | "invalid-grpc-timeout"
  | "malformed-method"
  | "unknown-payload-format"
  | "malformed-timeout"
  | "answer-too-large";

export class TransportError extends EtcdError {
  declare readonly reason: TransportErrorReason;

  constructor(reason: TransportErrorReason, code: GrpcCode, message: string, options?: { cause?: unknown }) {
    super(reason, code, message, options);
    this.name = "TransportError";
  }
}

/** A message of `size` bytes where at most `limit` are received. */
export function messageTooLarge(size: number, limit: number): TransportError {
  return new TransportError("message-too-large", ResourceExhausted, `grpc: received message larger than max (${size} vs. ${limit})`);
}

/** Bytes that are not a message of the wanted type; `cause` is normally a ProtoDecodeError. */
export function undecodableRequest(cause: EtcdError): TransportError {
  return new TransportError("undecodable-request", Internal, `grpc: error unmarshalling request: ${cause.message}`, { cause });
}

/** The same on a stream. */
export function undecodableStreamMessage(cause: EtcdError): TransportError {
  const text = `grpc: failed to unmarshal the received message: ${cause.message}`;
  return new TransportError("undecodable-request", Internal, text, { cause });
}

/** A path that names no method at all. */
export function malformedMethod(path: string): TransportError {
  return new TransportError("malformed-method", Unimplemented, `malformed method name: ${JSON.stringify(path)}`);
}

/** A message whose first byte is neither 0 nor 1. */
export function unknownPayloadFormat(flag: number): TransportError {
  return new TransportError("unknown-payload-format", Internal, `grpc: received unexpected payload format ${flag}`);
}

/** A message that would grow beyond `limit` bytes when decompressed. */
export function decompressedTooLarge(limit: number): TransportError {
  const text = `grpc: received message after decompression larger than max ${limit}`;
  return new TransportError("message-too-large", ResourceExhausted, text);
}

/** A message that began as a compressed one and did not go on as one. */
export function decompressionBroken(cause: Error): TransportError {
  return new TransportError("decompression-failed", Internal, `grpc: failed to read decompressed data: ${cause.message}`, { cause });
}

/** HTTP status 400. A `grpc-timeout` that cannot be read; `detail` in the words of gRPC's library. */
export function malformedTimeout(detail: string): TransportError {
  return new TransportError("malformed-timeout", Internal, `malformed grpc-timeout: ${detail}`);
}

/** An answer that does not fit into a message. */
export function answerTooLarge(size: number, limit: number): TransportError {
  return new TransportError("answer-too-large", ResourceExhausted, `grpc: trying to send message larger than max (${size} vs. ${limit})`);
}

export function unknownRpcMethod(method: string, service: string): TransportError {
  return new TransportError("unknown-rpc-method", Unimplemented, `unknown method ${method} for service ${service}`);
}

export function unknownRpcService(service: string): TransportError {
  return new TransportError("unknown-rpc-service", Unimplemented, `unknown service ${service}`);
}

/** HTTP status 415. */
export function invalidContentType(contentType: string): TransportError {
  return new TransportError("invalid-content-type", InvalidArgument, `invalid gRPC request content-type "${contentType}"`);
}

/** HTTP status 405. */
export function wrongHttpMethod(method: string): TransportError {
  return new TransportError("wrong-http-method", Internal, `Received a HEADERS frame with :method "${method}" which should be POST`);
}

export function decompressionFailed(cause: Error): TransportError {
  return new TransportError("decompression-failed", Internal, `grpc: failed to decompress the message: ${cause.message}`, { cause });
}

export function noDecompressor(encoding: string): TransportError {
  return new TransportError("no-decompressor", Unimplemented, `grpc: Decompressor is not installed for grpc-encoding "${encoding}"`);
}

/** A `Grpc-Timeout` header that the gateway cannot read. */
export function invalidGrpcTimeout(value: string): TransportError {
  return new TransportError("invalid-grpc-timeout", InvalidArgument, `invalid grpc-timeout: ${value}`);
}

/** Indexed by gRPC code. */
const HTTP_STATUS: readonly number[] = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];

/** HTTP status with which the JSON gateway answers a gRPC code. Unauthenticated also wants a header `Www-Authenticate: <message>`. */
export function httpStatusOf(code: GrpcCode): number {
  return HTTP_STATUS[code] ?? 500;
}
