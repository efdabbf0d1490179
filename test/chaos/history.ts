/** What clients asked and what came of it, with the times of one monotonic clock: everything that is needed to judge a run afterwards. */
import type * as api from "../../src/api/index.ts";

/** A request and, if it was answered, the answer. */
export type Exchange =
  | { readonly kind: "put"; readonly request: api.PutRequest; response?: api.PutResponse }
  | { readonly kind: "delete"; readonly request: api.DeleteRangeRequest; response?: api.DeleteRangeResponse }
  | { readonly kind: "txn"; readonly request: api.TxnRequest; response?: api.TxnResponse }
  | { readonly kind: "range"; readonly request: api.RangeRequest; response?: api.RangeResponse }
  | { readonly kind: "compact"; readonly request: api.CompactionRequest; response?: api.CompactionResponse };

/**
 * "yes": acknowledged. "no": refused before it was proposed, so it never takes effect. "unknown": timed out, connection broken, leader changed: it takes effect at
 * most once, at any time after its call, or never.
 */
export type Outcome = "yes" | "no" | "unknown";

export interface Operation {
  readonly client: number;
  /** The member that was asked, and which run of it. */
  readonly member: string;
  readonly run: number;
  readonly exchange: Exchange;
  readonly call: number;
  /** Infinity while nothing is known. */
  ret: number;
  /** When the client gave up or had its answer. */
  ended: number;
  outcome: Outcome;
  /** What was said when it was not acknowledged. */
  why: string;
}

/** The time of all records of a run, in milliseconds. */
export function now(): number {
  return performance.now();
}

/** The revision of an acknowledged operation's header; 0 for the others. */
export function revisionOf(operation: Operation): number {
  return operation.exchange.response?.header?.revision ?? 0;
}

/** True for an acknowledged operation that consumed a revision. */
export function hasEffect({ exchange }: Operation): boolean {
  if (exchange.response === undefined) return false;
  switch (exchange.kind) {
    case "put":
      return true;
    case "delete":
      return exchange.response.deleted > 0;
    case "txn":
      return hasEffects(exchange.response);
    case "range":
    case "compact":
      return false;
    default:
      return exchange satisfies never;
  }
}

function hasEffects(response: api.TxnResponse): boolean {
  return response.responses.some(
    ({ responsePut, responseDeleteRange, responseTxn }) =>
      responsePut !== undefined || (responseDeleteRange?.deleted ?? 0) > 0 || (responseTxn !== undefined && hasEffects(responseTxn)),
  );
}

/** True when it could change something. */
export function isMutation({ kind, request }: Exchange): boolean {
  if (kind === "put" || kind === "delete") return true;
  return kind === "txn" && [...request.success, ...request.failure].some((op) => op.requestRange === undefined);
}

/** True for operations that must fit into the order of all others in real time. */
export function isLinearizable({ kind, request }: Exchange): boolean {
  return !(kind === "range" && request.serializable) && kind !== "compact";
}

/** Values that only this operation writes. */
export function valuesOf(exchange: Exchange): string[] {
  if (exchange.kind === "put") return [Buffer.from(exchange.request.value).toString("latin1")];
  if (exchange.kind !== "txn") return [];
  return [...exchange.request.success, ...exchange.request.failure].flatMap(({ requestPut }) =>
    requestPut === undefined ? [] : [Buffer.from(requestPut.value).toString("latin1")],
  );
}
