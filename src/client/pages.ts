/** Large ranges, page by page, all at the revision of the first page. */
import { KvService, type RangeRequest, type RangeResponse } from "../api/index.ts";
import type { Caller } from "./caller.ts";
import type { Coding, KeyInput, KeySelection } from "./coding.ts";
import type { CallOptions } from "./deadline.ts";
import { InvalidUseError } from "./errors.ts";
import { counter, rangeRequest } from "./requests.ts";
import { headerOf, type RangeResult, rangeResult } from "./results.ts";

export interface PageOptions<K = string> extends CallOptions, KeySelection<K> {
  /** Pairs per page. Default 1000. */
  readonly pageSize?: number | undefined;
  /** As of this past revision; 0 or absent: the newest when the first page is read. */
  readonly revision?: number | undefined;
  readonly serializable?: boolean | undefined;
  /** From the last key to the first. */
  readonly descending?: boolean | undefined;
}

const PAGE_SIZE = 1000;

/** The raw pages. @throws RpcError `compacted` when the pinned revision is compacted away meanwhile. */
export async function* rawPages(
  caller: Caller,
  first: RangeRequest,
  descending: boolean,
  options: CallOptions | undefined,
): AsyncGenerator<RangeResponse> {
  const request = { ...first };
  for (;;) {
    const response = await caller.unary(KvService.range, request, options, "read");
    if (request.revision === 0) request.revision = headerOf(response).revision;
    const last = response.kvs.at(-1)?.key;
    yield response;
    if (!response.more || last === undefined) return;
    if (descending) {
      request.rangeEnd = last;
    } else {
      const next = new Uint8Array(last.length + 1);
      next.set(last);
      request.key = next;
    }
  }
}

export async function* pages<V, K>(
  coding: Coding<V, K>,
  caller: Caller,
  key: KeyInput<K>,
  options: PageOptions<K>,
): AsyncGenerator<RangeResult<V, K>> {
  const { pageSize = PAGE_SIZE, descending = false } = options;
  if (counter(pageSize, "pageSize") === 0) throw new InvalidUseError("pageSize must be at least 1");
  const request = rangeRequest(coding, key, {
    ...options,
    limit: pageSize,
    sort: descending ? { by: "key", order: "descending" } : undefined,
  });
  for await (const response of rawPages(caller, request, descending, options)) yield rangeResult(coding, response);
}
