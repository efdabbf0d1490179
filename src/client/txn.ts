/**
 * Transactions: comparisons, then one of two lists of operations, all at one revision. Built from plain descriptions; nothing is sent before `commit`, and a
 * builder is not a promise: awaiting one by mistake does nothing.
 */
import * as api from "../api/index.ts";
import type { Caller } from "./caller.ts";
import type { Coding, KeyInput, KeySelection, KeyValue, ValueInput } from "./coding.ts";
import type { CallOptions } from "./deadline.ts";
import { BadAnswerError } from "./errors.ts";
import {
  type DeleteOptions,
  deleteRequest,
  type GetOptions,
  getRequest,
  type PutOptions,
  putRequest,
  type RangeOptions,
  rangeRequest,
} from "./requests.ts";
import {
  type DeleteResult,
  deleteResult,
  headerOf,
  type PutResult,
  putResult,
  type RangeResult,
  type ResponseHeader,
  rangeResult,
} from "./results.ts";

export type Relation = "=" | "!=" | ">" | "<";
type Target = "version" | "createRevision" | "modRevision" | "value" | "lease";

/** One condition. On several keys it must hold for each. See {@link compare}. */
export interface Compare<V = unknown, K = unknown> {
  readonly target: Target;
  readonly key: KeyInput<K>;
  readonly relation: Relation;
  readonly to: number | bigint | ValueInput<V>;
  readonly selection: KeySelection<K> | undefined;
}

/** Text and bytes are keys for every client, and bytes values; anything else only for one with the right codec. */
type OwnValue<V> = V extends Uint8Array ? never : V;
type OwnKey<K> = K extends string | Uint8Array ? never : K;

/** Conditions of transactions. */
export const compare = {
  /** There is no such key (in a selection: none at all). */
  absent: <K>(key: KeyInput<K>, selection?: KeySelection<K>): Compare<never, OwnKey<K>> =>
    condition<never, K>("createRevision", key, "=", 0, selection),
  exists: <K>(key: KeyInput<K>): Compare<never, OwnKey<K>> => condition<never, K>("createRevision", key, "!=", 0, undefined),
  /** Of an absent key: 0. */
  version: <K>(key: KeyInput<K>, relation: Relation, to: number, selection?: KeySelection<K>): Compare<never, OwnKey<K>> =>
    condition<never, K>("version", key, relation, to, selection),
  /** Of an absent key: 0. */
  createRevision: <K>(key: KeyInput<K>, relation: Relation, to: number, selection?: KeySelection<K>): Compare<never, OwnKey<K>> =>
    condition<never, K>("createRevision", key, relation, to, selection),
  /** Of an absent key: 0. */
  modRevision: <K>(key: KeyInput<K>, relation: Relation, to: number, selection?: KeySelection<K>): Compare<never, OwnKey<K>> =>
    condition<never, K>("modRevision", key, relation, to, selection),
  /** Never true for an absent key, whatever the relation. */
  value: <V, K>(key: KeyInput<K>, relation: Relation, to: V, selection?: KeySelection<K>): Compare<OwnValue<V>, OwnKey<K>> =>
    condition("value", key, relation, to as ValueInput<OwnValue<V>>, selection),
  /** Of a key without a lease, and of an absent one: 0n. */
  lease: <K>(key: KeyInput<K>, relation: Relation, to: bigint, selection?: KeySelection<K>): Compare<never, OwnKey<K>> =>
    condition<never, K>("lease", key, relation, to, selection),
} as const;

function condition<V, K>(
  target: Target,
  key: KeyInput<K>,
  relation: Relation,
  to: number | bigint | ValueInput<V>,
  selection: KeySelection<K> | undefined,
): Compare<V, OwnKey<K>> {
  return { target, key, relation, to, selection } as Compare<V, OwnKey<K>>;
}

export interface GetOp<K = unknown> {
  readonly op: "get";
  readonly key: KeyInput<K>;
  readonly options: Omit<GetOptions, keyof CallOptions> | undefined;
}
export interface RangeOp<K = unknown> {
  readonly op: "range";
  readonly key: KeyInput<K>;
  readonly options: Omit<RangeOptions<K>, keyof CallOptions>;
}
export interface PutOp<V = unknown, K = unknown> {
  readonly op: "put";
  readonly key: KeyInput<K>;
  readonly value: ValueInput<V>;
  readonly options: Omit<PutOptions, keyof CallOptions> | undefined;
}
export interface DeleteOp<K = unknown> {
  readonly op: "delete";
  readonly key: KeyInput<K>;
  readonly options: Omit<DeleteOptions<K>, keyof CallOptions> | undefined;
}
/** Its lists hold operations; a type that contains itself cannot say so, {@link op} does. */
export interface TxnOp<S extends readonly unknown[] = readonly unknown[], F extends readonly unknown[] = readonly unknown[]> {
  readonly op: "txn";
  readonly if: readonly Compare[];
  readonly do: S;
  readonly else: F;
}
export type Op<V = unknown, K = unknown> = GetOp<K> | RangeOp<K> | PutOp<V, K> | DeleteOp<K> | TxnOp;

/** Operations of transactions. */
export const op = {
  get: <K>(key: KeyInput<K>, options?: GetOp["options"]): GetOp<OwnKey<K>> => ({ op: "get", key, options }) as GetOp<OwnKey<K>>,
  range: <K>(key: KeyInput<K>, options: RangeOp<K>["options"] = {}): RangeOp<OwnKey<K>> =>
    ({ op: "range", key, options }) as RangeOp<OwnKey<K>>,
  put: <V, K>(key: KeyInput<K>, value: V, options?: PutOp["options"]): PutOp<OwnValue<V>, OwnKey<K>> =>
    ({ op: "put", key, value: value as ValueInput<V>, options }) as unknown as PutOp<OwnValue<V>, OwnKey<K>>,
  delete: <K>(key: KeyInput<K>, options?: DeleteOp<K>["options"]): DeleteOp<OwnKey<K>> =>
    ({ op: "delete", key, options }) as DeleteOp<OwnKey<K>>,
  /** A transaction inside: its conditions, too, are judged on the state before the outermost one. */
  txn: <const S extends readonly Op[] = [], const F extends readonly Op[] = []>(inner: {
    readonly if?: readonly Compare[];
    readonly do?: S;
    readonly else?: F;
  }): TxnOp<S, F> => ({ op: "txn", if: inner.if ?? [], do: (inner.do ?? []) as unknown as S, else: (inner.else ?? []) as unknown as F }),
} as const;

/** What an operation answers with. */
export type OpResult<O, V, K> = O extends { readonly op: "get" }
  ? KeyValue<V, K> | undefined
  : O extends { readonly op: "range" }
    ? RangeResult<V, K>
    : O extends { readonly op: "put" }
      ? PutResult<V, K>
      : O extends { readonly op: "delete" }
        ? DeleteResult<V, K>
        : O extends {
              readonly op: "txn";
              readonly do: infer S extends readonly unknown[];
              readonly else: infer F extends readonly unknown[];
            }
          ? TxnResult<S, F, V, K>
          : never;
export type OpResults<List extends readonly unknown[], V, K> = { readonly [I in keyof List]: OpResult<List[I], V, K> };

/** Which list ran, and the answers of its operations in their order. */
export type TxnResult<S extends readonly unknown[], F extends readonly unknown[], V = string, K = string> = {
  /** Of the store after the transaction; 0 inside another one. */
  readonly revision: number;
  readonly header: ResponseHeader;
} & (
  | { readonly succeeded: true; readonly results: OpResults<S, V, K> }
  | { readonly succeeded: false; readonly results: OpResults<F, V, K> }
);

/** Puts a transaction together; see `client.txn()`. Each call returns a new one, so parts can be reused. */
export class TxnBuilder<V, K, S extends readonly Op<V, K>[] = [], F extends readonly Op<V, K>[] = []> {
  readonly #run: TxnRunner<V, K>;
  readonly #if: readonly Compare<V, K>[];
  readonly #do: S;
  readonly #else: F;

  constructor(run: TxnRunner<V, K>, conditions: readonly Compare<V, K>[], success: S, failure: F) {
    this.#run = run;
    this.#if = conditions;
    this.#do = success;
    this.#else = failure;
  }

  /** All conditions must hold; none means: always. */
  if(...conditions: readonly Compare<V, K>[]): TxnBuilder<V, K, S, F> {
    return new TxnBuilder(this.#run, [...this.#if, ...conditions], this.#do, this.#else);
  }

  /** What to do when the conditions hold. */
  do<const More extends readonly Op<V, K>[]>(...ops: More): TxnBuilder<V, K, [...S, ...More], F> {
    return new TxnBuilder<V, K, [...S, ...More], F>(this.#run, this.#if, [...this.#do, ...ops], this.#else);
  }

  /** What to do when they do not. */
  else<const More extends readonly Op<V, K>[]>(...ops: More): TxnBuilder<V, K, S, [...F, ...More]> {
    return new TxnBuilder<V, K, S, [...F, ...More]>(this.#run, this.#if, this.#do, [...this.#else, ...ops]);
  }

  /** Sends it. One that only reads may be repeated by the client; any other only when nothing can have happened, or with `retry: "always"`. */
  async commit(options?: CallOptions): Promise<TxnResult<S, F, V, K>> {
    return (await this.#run(this.#if, this.#do, this.#else, options)) as TxnResult<S, F, V, K>;
  }
}

export type AnyTxnResult<V, K> = TxnResult<readonly Op<V, K>[], readonly Op<V, K>[], V, K>;
export type TxnRunner<V, K> = (
  conditions: readonly Compare<V, K>[],
  success: readonly Op<V, K>[],
  failure: readonly Op<V, K>[],
  options: CallOptions | undefined,
) => Promise<AnyTxnResult<V, K>>;

/** Runs transactions of one client. */
export function txnRunner<V, K>(coding: Coding<V, K>, caller: Caller): TxnRunner<V, K> {
  return async (conditions, success, failure, options) => {
    const request = txnRequest(coding, conditions, success, failure);
    const kind = success.every(reads) && failure.every(reads) ? "read" : "write";
    const response = await caller.unary(api.KvService.txn, request, options, kind);
    return txnResult(coding, response, success, failure);
  };
}

function reads(operation: Op): boolean {
  if (operation.op === "txn") return (operation.do as Op[]).every(reads) && (operation.else as Op[]).every(reads);
  return operation.op === "get" || operation.op === "range";
}

export function txnRequest<V, K>(
  coding: Coding<V, K>,
  conditions: readonly Compare<V, K>[],
  success: readonly Op<V, K>[],
  failure: readonly Op<V, K>[],
): api.TxnRequest {
  return {
    compare: conditions.map((one) => compareMessage(coding, one)),
    success: success.map((one) => opMessage(coding, one)),
    failure: failure.map((one) => opMessage(coding, one)),
  };
}

const RESULTS: Readonly<Record<Relation, number>> = {
  "=": api.CompareResult.EQUAL,
  "!=": api.CompareResult.NOT_EQUAL,
  ">": api.CompareResult.GREATER,
  "<": api.CompareResult.LESS,
};
const TARGETS: Readonly<Record<Target, number>> = {
  version: api.CompareTarget.VERSION,
  createRevision: api.CompareTarget.CREATE,
  modRevision: api.CompareTarget.MOD,
  value: api.CompareTarget.VALUE,
  lease: api.CompareTarget.LEASE,
};

function compareMessage<V, K>(coding: Coding<V, K>, { target, key, relation, to, selection }: Compare<V, K>): api.Compare {
  return api.Compare.create({
    ...coding.range(key, selection),
    result: RESULTS[relation],
    target: TARGETS[target],
    [target]: target === "value" ? coding.value(to as ValueInput<V>) : to,
  });
}

function opMessage<V, K>(coding: Coding<V, K>, operation: Op<V, K>): api.RequestOp {
  const message: api.RequestOp = { requestRange: undefined, requestPut: undefined, requestDeleteRange: undefined, requestTxn: undefined };
  switch (operation.op) {
    case "get":
      message.requestRange = getRequest(coding, operation.key, operation.options);
      return message;
    case "range":
      message.requestRange = rangeRequest(coding, operation.key, operation.options);
      return message;
    case "put":
      message.requestPut = putRequest(coding, operation.key, operation.value, operation.options);
      return message;
    case "delete":
      message.requestDeleteRange = deleteRequest(coding, operation.key, operation.options);
      return message;
    case "txn":
      message.requestTxn = txnRequest(coding, operation.if as Compare<V, K>[], operation.do as Op<V, K>[], operation.else as Op<V, K>[]);
      return message;
    default:
      return operation satisfies never;
  }
}

function txnResult<V, K>(
  coding: Coding<V, K>,
  response: api.TxnResponse,
  success: readonly Op<V, K>[],
  failure: readonly Op<V, K>[],
): AnyTxnResult<V, K> {
  const ran = response.succeeded ? success : failure;
  if (response.responses.length !== ran.length)
    throw new BadAnswerError("a transaction was answered with another number of results than it has operations");
  const header = headerOf(response);
  return {
    succeeded: response.succeeded,
    results: response.responses.map((one, i) => opResult(coding, one, ran[i] as Op<V, K>)),
    revision: header.revision,
    header,
  };
}

function opResult<V, K>(coding: Coding<V, K>, response: api.ResponseOp, operation: Op<V, K>): OpResult<Op<V, K>, V, K> {
  const { responseRange, responsePut, responseDeleteRange, responseTxn } = response;
  switch (operation.op) {
    case "get":
      if (responseRange !== undefined) return coding.pairOrNone(responseRange.kvs[0]);
      break;
    case "range":
      if (responseRange !== undefined) return rangeResult(coding, responseRange);
      break;
    case "put":
      if (responsePut !== undefined) return putResult(coding, responsePut);
      break;
    case "delete":
      if (responseDeleteRange !== undefined) return deleteResult(coding, responseDeleteRange);
      break;
    case "txn":
      if (responseTxn !== undefined) {
        const inner: unknown = txnResult(coding, responseTxn, operation.do as Op<V, K>[], operation.else as Op<V, K>[]);
        return inner as OpResult<Op<V, K>, V, K>;
      }
      break;
    default:
      return operation satisfies never;
  }
  throw new BadAnswerError(`an operation of a transaction (${operation.op}) was not answered`);
}
