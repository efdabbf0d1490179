/**
 * What can go wrong on the client's side, and how answers of servers become the same errors that a member in this process throws. Every rejection of the client
 * is an `EtcdError`: branch on `reason` (or `grpcCode`), recognise with `EtcdError.is`.
 */
import { RPC_ERRORS, RpcError, type RpcErrorReason, rpcError } from "../api/index.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";

/** Reasons of the client itself, beside those of the API (`RpcErrorReason`). */
export type ClientErrorReason =
  | "client-closed"
  | "invalid-use"
  | "undecodable"
  | "bad-answer"
  | "unavailable"
  | "lease-lost"
  | "lock-lost"
  | "lock-busy"
  | "election-lost"
  | "barrier-held"
  | "too-many-clients"
  | "already-queued"
  | "stm-conflict"
  | "unknown-rpc-error";

/** Errors of the client's own making. */
export class ClientError extends EtcdError {
  declare readonly reason: ClientErrorReason;

  constructor(reason: ClientErrorReason, code: GrpcCode, message: string, options?: { cause?: unknown }) {
    super(reason, code, message, options);
    this.name = "ClientError";
  }
}

/** The client (or a watch, a view, a session of it) was closed; nothing was sent. */
export class ClosedError extends ClientError {
  constructor(what = "the client") {
    super("client-closed", GrpcCode.Canceled, `${what} is closed`);
    this.name = "ClosedError";
  }
}

/** The call itself makes no sense; nothing was sent. */
export class InvalidUseError extends ClientError {
  constructor(message: string) {
    super("invalid-use", GrpcCode.InvalidArgument, message);
    this.name = "InvalidUseError";
  }
}

/** Stored bytes that the codec in use cannot read. They are intact on the server: read them with `client.raw()`. */
export class UndecodableError extends ClientError {
  constructor(what: "key" | "value", options?: { cause?: unknown; key?: string }) {
    super(
      "undecodable",
      GrpcCode.DataLoss,
      `the ${what}${options?.key === undefined ? "" : ` of ${options.key}`} cannot be decoded`,
      options,
    );
    this.name = "UndecodableError";
  }
}

/** An answer that is not of the protocol, for example from a proxy. Whether a write took place is unknown. */
export class BadAnswerError extends ClientError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("bad-answer", GrpcCode.Internal, message, options);
    this.name = "BadAnswerError";
  }
}

/** No endpoint could be reached, or the connection broke. */
export class UnavailableError extends ClientError {
  /** Of the endpoint that failed; empty if there was none to try. */
  readonly endpoint: string;
  /** False: the request certainly never left, so nothing can have happened. */
  readonly requestSent: boolean;

  constructor(facts: { endpoint: string; requestSent: boolean; message: string }, options?: { cause?: unknown }) {
    super("unavailable", GrpcCode.Unavailable, facts.message, options);
    this.name = "UnavailableError";
    this.endpoint = facts.endpoint;
    this.requestSent = facts.requestSent;
  }
}

/** The call's signal was aborted; the signal's reason is the `cause`. */
export function canceledError(signal: AbortSignal): EtcdError {
  const reason: unknown = signal.reason;
  return EtcdError.is(reason) ? reason : rpcError("canceled", { cause: reason });
}

/** True for a deadline that passed, the caller's or the client's default. */
export function isDeadlineExceeded(error: unknown): boolean {
  return EtcdError.is(error) && error.grpcCode === GrpcCode.DeadlineExceeded;
}

/** True for a call that its own signal ended. */
export function isCanceled(error: unknown): boolean {
  return EtcdError.is(error) && error.reason === "canceled";
}

const REASON_OF_TEXT: ReadonlyMap<string, RpcErrorReason> = new Map(
  (Object.keys(RPC_ERRORS) as RpcErrorReason[]).map((reason) => [RPC_ERRORS[reason][1], reason]),
);

/** The error of an answer's code and text: the very reason which a member in this process gives. */
export function errorOfAnswer(code: number, message: string): EtcdError {
  const reason = REASON_OF_TEXT.get(message);
  const known = isGrpcCode(code) ? code : GrpcCode.Unknown;
  if (reason === undefined) {
    if (message.startsWith("grpc: received message larger than max")) return new EtcdError("message-too-large", known, message);
    return new ClientError("unknown-rpc-error", known, message);
  }
  if (RPC_ERRORS[reason][0] === known) return new RpcError(reason);
  return new EtcdError(reason, known, message);
}

/** What stands in `cancel_reason` of a refused watch: a plain text, or `rpc error: code = X desc = text`. */
export function errorOfCancelReason(text: string): EtcdError {
  const parts = /^rpc error: code = (\w+) desc = ([\s\S]*)$/.exec(text);
  if (parts === null) {
    const reason = REASON_OF_TEXT.get(text);
    return reason === undefined ? new ClientError("unknown-rpc-error", GrpcCode.InvalidArgument, text) : new RpcError(reason);
  }
  const code = (GrpcCode as Readonly<Record<string, GrpcCode>>)[parts[1] as string];
  return errorOfAnswer(code ?? GrpcCode.Unknown, parts[2] as string);
}

function isGrpcCode(code: number): code is GrpcCode {
  return Number.isInteger(code) && code >= GrpcCode.OK && code <= GrpcCode.Unauthenticated;
}

/** Refused before anything was proposed, though the code does not say so. */
const CERTAINLY_NOT_DONE: ReadonlySet<string> = new Set([
  "client-closed",
  "invalid-use",
  "no-leader",
  "too-many-requests",
  "not-enough-started-members",
  "unhealthy-cluster",
  "not-primary-lessor",
  "raft-proposal-dropped",
  "password-too-long",
  "no-password-user",
  "unknown-method",
]);

/** Codes which may come after the deed was done. */
const UNCERTAIN_CODES: ReadonlySet<number> = new Set([
  GrpcCode.Canceled,
  GrpcCode.Unknown,
  GrpcCode.DeadlineExceeded,
  GrpcCode.Aborted,
  GrpcCode.Internal,
  GrpcCode.Unavailable,
  GrpcCode.DataLoss,
]);

/**
 * Whether a write that failed with `error` may nevertheless have taken place, or may still do so. The client never repeats such a write by itself; read back
 * what counts, or ask for the repetition with `retry: "always"` where twice is as good as once.
 */
export function mayHaveHappened(error: unknown): boolean {
  if (!EtcdError.is(error)) return true;
  if (CERTAINLY_NOT_DONE.has(error.reason)) return false;
  if (error.reason === "unavailable") return (error as UnavailableError).requestSent;
  // Exceeding the quota is also told when it was noticed while the write was applied.
  if (error.reason === "no-space") return true;
  if (error.reason === "corrupt-cluster") return false;
  return UNCERTAIN_CODES.has(error.grpcCode);
}
