/** Requests of the key-value service, from options. */
import * as api from "../api/index.ts";
import { EMPTY_BYTES } from "../base/bytes.ts";
import type { Coding, KeyInput, KeySelection, ValueInput } from "./coding.ts";
import type { CallOptions } from "./deadline.ts";
import { InvalidUseError } from "./errors.ts";

export interface GetOptions extends CallOptions {
  /** As of this past revision; 0 or absent: the newest. */
  readonly revision?: number | undefined;
  /** From the member that is asked, without asking a majority: faster, possibly stale. */
  readonly serializable?: boolean | undefined;
}

export type SortBy = "key" | "version" | "createRevision" | "modRevision" | "value";

export interface RangeOptions<K = string> extends GetOptions, KeySelection<K> {
  /** Most pairs to return; 0 or absent: all. */
  readonly limit?: number | undefined;
  /** Default: ascending by key. */
  readonly sort?: { readonly by: SortBy; readonly order?: "ascending" | "descending" | undefined } | undefined;
  readonly countOnly?: boolean | undefined;
  /** Only pairs whose last change is not older than this. */
  readonly minModRevision?: number | undefined;
  readonly maxModRevision?: number | undefined;
  readonly minCreateRevision?: number | undefined;
  readonly maxCreateRevision?: number | undefined;
}

export interface PutOptions extends CallOptions {
  /** Id of the lease to attach; absent: none, and one that was attached is detached. */
  readonly lease?: bigint | undefined;
  /** Return the pair before. */
  readonly previous?: boolean | undefined;
  /** Keep the lease as it is. The key must exist. */
  readonly keepLease?: boolean | undefined;
}

export interface DeleteOptions<K = string> extends CallOptions, KeySelection<K> {
  /** Return the pairs before. */
  readonly previous?: boolean | undefined;
}

const SORT_TARGETS: Readonly<Record<SortBy, number>> = {
  key: api.SortTarget.KEY,
  version: api.SortTarget.VERSION,
  createRevision: api.SortTarget.CREATE,
  modRevision: api.SortTarget.MOD,
  value: api.SortTarget.VALUE,
};

/** A revision, limit or the like. */
export function counter(value: number | undefined, what: string): number {
  if (value === undefined) return 0;
  if (!Number.isSafeInteger(value) || value < 0) throw new InvalidUseError(`${what} must be a whole number, not ${value}`);
  return value;
}

export function getRequest<V, K>(coding: Coding<V, K>, key: KeyInput<K>, options: GetOptions | undefined): api.RangeRequest {
  return {
    key: coding.key(key),
    rangeEnd: EMPTY_BYTES,
    limit: 0,
    revision: options === undefined ? 0 : counter(options.revision, "revision"),
    sortOrder: api.SortOrder.NONE,
    sortTarget: api.SortTarget.KEY,
    serializable: options?.serializable === true,
    keysOnly: false,
    countOnly: false,
    minModRevision: 0,
    maxModRevision: 0,
    minCreateRevision: 0,
    maxCreateRevision: 0,
  };
}

export function rangeRequest<V, K>(coding: Coding<V, K>, key: KeyInput<K>, options: RangeOptions<K> = {}): api.RangeRequest {
  const request = coding.range(key, options);
  const { sort } = options;
  const by = sort?.by ?? "key";
  const target = SORT_TARGETS[by];
  if (target === undefined) throw new InvalidUseError(`cannot sort by ${by}`);
  return {
    key: request.key,
    rangeEnd: request.rangeEnd,
    limit: counter(options.limit, "limit"),
    revision: counter(options.revision, "revision"),
    sortOrder: sort === undefined ? api.SortOrder.NONE : sort.order === "descending" ? api.SortOrder.DESCEND : api.SortOrder.ASCEND,
    sortTarget: target,
    serializable: options.serializable === true,
    keysOnly: false,
    countOnly: options.countOnly === true,
    minModRevision: counter(options.minModRevision, "minModRevision"),
    maxModRevision: counter(options.maxModRevision, "maxModRevision"),
    minCreateRevision: counter(options.minCreateRevision, "minCreateRevision"),
    maxCreateRevision: counter(options.maxCreateRevision, "maxCreateRevision"),
  };
}

export function putRequest<V, K>(
  coding: Coding<V, K>,
  key: KeyInput<K>,
  value: ValueInput<V>,
  options: PutOptions | undefined,
): api.PutRequest {
  return {
    key: coding.key(key),
    value: coding.value(value),
    lease: options?.lease ?? 0n,
    prevKv: options?.previous === true,
    ignoreValue: false,
    ignoreLease: options?.keepLease === true,
  };
}

export function deleteRequest<V, K>(coding: Coding<V, K>, key: KeyInput<K>, options: DeleteOptions<K> | undefined): api.DeleteRangeRequest {
  const { key: first, rangeEnd } = coding.range(key, options);
  return { key: first, rangeEnd, prevKv: options?.previous === true };
}

/** A put that changes only the lease (or nothing but the revision): the value stays. The key must exist. */
export function touchRequest<V, K>(coding: Coding<V, K>, key: KeyInput<K>, lease: bigint | undefined): api.PutRequest {
  return {
    key: coding.key(key),
    value: EMPTY_BYTES,
    lease: lease ?? 0n,
    prevKv: false,
    ignoreValue: true,
    ignoreLease: lease === undefined,
  };
}
