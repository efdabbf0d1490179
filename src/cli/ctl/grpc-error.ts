/** What a call can end with, and the words that etcd's tool has for it. */
import { GrpcCode } from "../../base/errors.ts";

const CODE_NAMES = new Map<number, string>(Object.entries(GrpcCode).map(([name, code]) => [code, name]));

export class GrpcError extends Error {
  readonly code: number;
  /** The server's words; ours where no server spoke. */
  readonly details: string;
  /** The request has certainly not reached a server, so it may be sent again whatever it does. */
  readonly unsent: boolean;

  constructor(code: number, details: string, options: { unsent?: boolean; cause?: unknown } = {}) {
    super(textOf(code, details), options);
    this.code = code;
    this.details = details;
    this.unsent = options.unsent ?? false;
  }

  /** The form that gRPC libraries log. */
  get rpcText(): string {
    return `rpc error: code = ${codeName(this.code)} desc = ${this.details}`;
  }
}

/** The caller's own deadline or cancellation, with Go's words. */
export class ContextError extends GrpcError {
  constructor(kind: "deadline" | "canceled", details?: string) {
    const text = kind === "deadline" ? "context deadline exceeded" : "context canceled";
    super(kind === "deadline" ? GrpcCode.DeadlineExceeded : GrpcCode.Canceled, details ?? text);
    this.message = text;
  }
}

export function codeName(code: number): string {
  return CODE_NAMES.get(code) ?? `Code(${code})`;
}

/** etcd's own errors are known by their texts and stand for themselves. */
function textOf(code: number, details: string): string {
  return details.startsWith("etcdserver: ") ? details : `rpc error: code = ${codeName(code)} desc = ${details}`;
}
