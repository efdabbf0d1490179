/** What calls answer with. */
import type * as api from "../api/index.ts";
import type { Coding, KeyInfo, KeyValue } from "./coding.ts";

/** Who answered, and at which revision of the store. */
export interface ResponseHeader {
  readonly clusterId: bigint;
  readonly memberId: bigint;
  readonly revision: number;
  readonly raftTerm: number;
}

export interface PutResult<V = string, K = string> {
  /** Of the store after the put. */
  readonly revision: number;
  /** The pair before, if it was asked for and there was one. */
  readonly previous: KeyValue<V, K> | undefined;
  readonly header: ResponseHeader;
}

export interface RangeResult<V = string, K = string> {
  readonly kvs: readonly KeyValue<V, K>[];
  /** All keys of the range, also those beyond the limit or the revision filters. */
  readonly count: number;
  /** The limit cut something off. */
  readonly more: boolean;
  /** Of the store when it was read, also for a read of an older revision. */
  readonly revision: number;
  readonly header: ResponseHeader;
}

/** As {@link RangeResult}, without values. */
export interface KeysResult<K = string> extends Omit<RangeResult<unknown, K>, "kvs"> {
  readonly keys: readonly KeyInfo<K>[];
}

export interface DeleteResult<V = string, K = string> {
  readonly deleted: number;
  /** The pairs before, in key order, if they were asked for. */
  readonly previous: readonly KeyValue<V, K>[];
  readonly revision: number;
  readonly header: ResponseHeader;
}

const NO_HEADER: ResponseHeader = Object.freeze({ clusterId: 0n, memberId: 0n, revision: 0, raftTerm: 0 });

export function headerOf(message: { header: api.ResponseHeader | undefined }): ResponseHeader {
  return message.header ?? NO_HEADER;
}

export function putResult<V, K>(coding: Coding<V, K>, response: api.PutResponse): PutResult<V, K> {
  const header = headerOf(response);
  return { revision: header.revision, previous: coding.pairOrNone(response.prevKv), header };
}

export function rangeResult<V, K>(coding: Coding<V, K>, response: api.RangeResponse): RangeResult<V, K> {
  const header = headerOf(response);
  return {
    kvs: response.kvs.map((kv) => coding.pair(kv)),
    count: response.count,
    more: response.more,
    revision: header.revision,
    header,
  };
}

export function keysResult<V, K>(coding: Coding<V, K>, response: api.RangeResponse): KeysResult<K> {
  const header = headerOf(response);
  return {
    keys: response.kvs.map(({ key, createRevision, modRevision, version }) => ({
      key: coding.keyOf(key),
      createRevision,
      modRevision,
      version,
    })),
    count: response.count,
    more: response.more,
    revision: header.revision,
    header,
  };
}

export function deleteResult<V, K>(coding: Coding<V, K>, response: api.DeleteRangeResponse): DeleteResult<V, K> {
  const header = headerOf(response);
  return { deleted: response.deleted, previous: response.prevKvs.map((kv) => coding.pair(kv)), revision: header.revision, header };
}
