/**
 * The store as a sequential model: fed with the committed requests in order, it says what each must have answered, and what any read of any revision must
 * show. Written from the description of the API, independent of src/mvcc; every version of every key is kept for ever, which makes the past easy.
 * Keys and values are latin1 strings.
 */
import * as api from "../../../src/api/index.ts";
import { bytesOfKey, type KeyString, keyStringOf } from "../../../src/base/bytes.ts";
import type { RaftRequest } from "../../../src/server/raft-request.ts";

/** One state of one key; version 0 is a deletion. */
export interface Version {
  readonly key: string;
  readonly main: number;
  readonly sub: number;
  readonly create: number;
  readonly version: number;
  readonly value: string;
  readonly lease: bigint;
}

export interface RangeAnswer {
  readonly pairs: readonly Version[];
  readonly count: number;
  readonly more: boolean;
  readonly keysOnly: "no" | "value" | "value-and-lease";
}

export type OpAnswer =
  | { readonly type: "put"; readonly previous: Version | undefined }
  | { readonly type: "delete"; readonly deleted: number; readonly previous: readonly Version[] }
  | { readonly type: "range"; readonly range: RangeAnswer }
  | { readonly type: "txn"; readonly succeeded: boolean; readonly answers: readonly OpAnswer[] };

export type Answer = OpAnswer | { readonly type: "done" } | { readonly type: "granted"; readonly id: bigint };

export type Outcome = { readonly error: string } | { readonly answer: Answer };

/** A refusal; the message is the reason. */
class Refusal extends Error {}

export class KvModel {
  revision = 1;
  /** 0 before the first compaction. */
  compacted = 0;
  /** By revision: when it was compacted to. */
  readonly compactions: number[] = [];
  readonly leases = new Map<bigint, number>();
  readonly #versions = new Map<string, Version[]>();
  /** Every key that ever was, in order. */
  readonly #keys: string[] = [];
  /** All changes, in order. */
  readonly changes: Version[] = [];
  readonly #noSpace = new Set<bigint>();
  #current: Version[] = [];

  /** Executes a committed request of an entry of that term. */
  apply(request: RaftRequest, term: number): Outcome {
    if (request.leaderTerm !== 0 && request.leaderTerm !== term) return { error: "not-leader" };
    try {
      return { answer: this.#dispatch(request) };
    } catch (error) {
      this.#current = [];
      if (error instanceof Refusal) return { error: error.message };
      throw error;
    }
  }

  #dispatch(request: RaftRequest): Answer {
    const full = this.#noSpace.size > 0;
    switch (request.kind) {
      case "put": {
        if (full) throw new Refusal("no-space");
        this.#checkPut(request.body);
        const answer = this.#put(request.body);
        this.#commit();
        return answer;
      }
      case "delete-range": {
        const answer = this.#delete(request.body);
        this.#commit();
        return answer;
      }
      case "txn": {
        if (full && hasPut(request.body)) throw new Refusal("no-space");
        const answer = this.#txn(request.body);
        this.#commit();
        return answer;
      }
      case "compaction": {
        const { revision } = request.body;
        if (revision <= this.compacted) throw new Refusal("compacted");
        if (revision > this.revision) throw new Refusal("future-revision");
        this.compacted = revision;
        this.compactions.push(revision);
        return { type: "done" };
      }
      case "lease-grant": {
        if (full) throw new Refusal("no-space");
        const { id, ttl } = request.body;
        if (ttl > 9_000_000_000) throw new Refusal("lease-ttl-too-large");
        if (id === 0n) throw new Refusal("lease-not-found");
        if (this.leases.has(id)) throw new Refusal("lease-exists");
        this.leases.set(id, ttl);
        return { type: "granted", id };
      }
      case "lease-revoke": {
        const { id } = request.body;
        if (!this.leases.has(id)) throw new Refusal("lease-not-found");
        for (const key of this.keysOfLease(id)) this.#record(key, undefined);
        this.leases.delete(id);
        this.#commit();
        return { type: "done" };
      }
      case "alarm": {
        const { action, alarm, memberId } = request.body;
        if (alarm === api.AlarmType.NOSPACE && action === api.AlarmAction.ACTIVATE) this.#noSpace.add(memberId);
        if (alarm === api.AlarmType.NOSPACE && action === api.AlarmAction.DEACTIVATE) this.#noSpace.delete(memberId);
        return { type: "done" };
      }
      default:
        // Nothing that shows in keys or leases.
        return { type: "done" };
    }
  }

  /** Of the newest state, in key order. */
  keysOfLease(id: bigint): string[] {
    return this.#keys.filter((key) => {
      const pair = this.#newest(key);
      return pair !== undefined && pair.lease === id;
    });
  }

  // -- reading -----------------------------------------------------------------------------------------------------------------------------

  /** The pair as of a revision; undefined when absent then. */
  at(key: string, revision: number): Version | undefined {
    const versions = this.#versions.get(key);
    if (versions === undefined) return undefined;
    for (let i = versions.length - 1; i >= 0; i--) {
      const version = versions[i] as Version;
      if (version.main <= revision) return version.version === 0 ? undefined : version;
    }
    return undefined;
  }

  #newest(key: string): Version | undefined {
    const versions = this.#versions.get(key);
    const last = versions?.[versions.length - 1];
    return last === undefined || last.version === 0 ? undefined : last;
  }

  /** All pairs as of a revision. */
  pairsAt(from: string, end: string, revision: number): Version[] {
    if (end === "") {
      const one = this.at(from, revision);
      return one === undefined ? [] : [one];
    }
    const pairs: Version[] = [];
    const keys = this.#keys;
    for (let i = lowerBound(keys, from); i < keys.length; i++) {
      const key = keys[i] as string;
      if (end !== "\0" && key >= end) break;
      const pair = this.at(key, revision);
      if (pair !== undefined) pairs.push(pair);
    }
    return pairs;
  }

  /** What a range must answer; `revision` is the one that is read at. */
  range(request: api.RangeRequest, revision: number): RangeAnswer {
    const all = this.pairsAt(latin1(request.key), latin1(request.rangeEnd), revision);
    const count = all.length;
    if (request.countOnly) return { pairs: [], count, more: false, keysOnly: "no" };
    const { minModRevision, maxModRevision, minCreateRevision, maxCreateRevision, limit, sortOrder, sortTarget } = request;
    let pairs = all;
    if (minModRevision !== 0) pairs = pairs.filter((pair) => pair.main >= minModRevision);
    if (maxModRevision !== 0) pairs = pairs.filter((pair) => pair.main <= maxModRevision);
    if (minCreateRevision !== 0) pairs = pairs.filter((pair) => pair.create >= minCreateRevision);
    if (maxCreateRevision !== 0) pairs = pairs.filter((pair) => pair.create <= maxCreateRevision);
    const isFiltered = minModRevision !== 0 || maxModRevision !== 0 || minCreateRevision !== 0 || maxCreateRevision !== 0;
    // Without an order only as many are looked at as are wanted, and one more.
    if (sortOrder === api.SortOrder.NONE && !isFiltered && limit > 0) pairs = pairs.slice(0, limit + 1);
    if (sortTarget !== api.SortTarget.KEY || sortOrder === api.SortOrder.DESCEND) pairs = sorted(pairs, sortTarget, sortOrder);
    const more = limit > 0 && pairs.length > limit;
    if (more) pairs = pairs.slice(0, limit);
    const keysOnly = !request.keysOnly ? "no" : sortTarget === api.SortTarget.VALUE ? "value" : "value-and-lease";
    return { pairs, count, more, keysOnly };
  }

  /** A transaction of nothing but ranges, as of a revision. */
  readOnlyTxn(request: api.TxnRequest, revision: number): OpAnswer {
    const succeeded = request.compare.every((compare) => this.#holds(compare, revision));
    const answers = (succeeded ? request.success : request.failure).map((op): OpAnswer => {
      const range = op.requestRange as api.RangeRequest;
      return { type: "range", range: this.range(range, range.revision > 0 ? range.revision : revision) };
    });
    return { type: "txn", succeeded, answers };
  }

  // -- writing -----------------------------------------------------------------------------------------------------------------------------

  #record(key: string, pair: Pick<Version, "value" | "lease"> | undefined): void {
    const before = this.#newest(key);
    const main = this.revision + 1;
    const version: Version = {
      key,
      main,
      sub: this.#current.length,
      create: pair === undefined ? 0 : (before?.create ?? main),
      version: pair === undefined ? 0 : (before?.version ?? 0) + 1,
      value: pair?.value ?? "",
      lease: pair?.lease ?? 0n,
    };
    this.#current.push(version);
    const versions = this.#versions.get(key);
    if (versions === undefined) {
      this.#versions.set(key, [version]);
      this.#keys.splice(lowerBound(this.#keys, key), 0, key);
    } else versions.push(version);
  }

  #commit(): void {
    if (this.#current.length === 0) return;
    this.revision += 1;
    for (const version of this.#current) this.changes.push(version);
    this.#current = [];
  }

  #checkPut(request: api.PutRequest): void {
    if (request.lease !== 0n && !this.leases.has(request.lease)) throw new Refusal("lease-not-found");
    if (!request.ignoreValue && !request.ignoreLease) return;
    if (this.at(latin1(request.key), this.revision) === undefined) throw new Refusal("key-not-found");
  }

  #put(request: api.PutRequest): OpAnswer {
    const key = latin1(request.key);
    const before = this.#newest(key);
    this.#record(key, {
      value: request.ignoreValue ? (before?.value ?? "") : latin1(request.value),
      lease: request.ignoreLease ? (before?.lease ?? 0n) : request.lease,
    });
    return { type: "put", previous: request.prevKv ? before : undefined };
  }

  #delete(request: api.DeleteRangeRequest): OpAnswer {
    const pairs = this.pairsAt(latin1(request.key), latin1(request.rangeEnd), Number.POSITIVE_INFINITY);
    for (const { key } of pairs) this.#record(key, undefined);
    return { type: "delete", deleted: pairs.length, previous: request.prevKv ? pairs : [] };
  }

  #txn(request: api.TxnRequest): OpAnswer {
    // Every transaction of the tree is decided on the state before the first operation.
    const decisions = new Map<api.TxnRequest, boolean>();
    const decide = (txn: api.TxnRequest): void => {
      decisions.set(
        txn,
        txn.compare.every((compare) => this.#holds(compare, this.revision)),
      );
      for (const op of txn.success) if (op.requestTxn !== undefined) decide(op.requestTxn);
      for (const op of txn.failure) if (op.requestTxn !== undefined) decide(op.requestTxn);
    };
    decide(request);
    const taken = (txn: api.TxnRequest): readonly api.RequestOp[] => (decisions.get(txn) === true ? txn.success : txn.failure);
    const deleted: api.DeleteRangeRequest[] = [];
    let keepsDeleted = false;
    const check = (txn: api.TxnRequest): void => {
      for (const op of taken(txn)) {
        if (op.requestRange !== undefined && op.requestRange.revision !== 0) {
          if (op.requestRange.revision > this.revision) throw new Refusal("future-revision");
          if (op.requestRange.revision < this.compacted) throw new Refusal("compacted");
        }
        if (op.requestDeleteRange !== undefined) deleted.push(op.requestDeleteRange);
        if (op.requestPut !== undefined) {
          this.#checkPut(op.requestPut);
          const key = latin1(op.requestPut.key);
          if (op.requestPut.ignoreValue || op.requestPut.ignoreLease)
            keepsDeleted ||= deleted.some((range) => covers(latin1(range.key), latin1(range.rangeEnd), key));
        }
        if (op.requestTxn !== undefined) check(op.requestTxn);
      }
    };
    check(request);
    // Only of transactions that nothing else refuses.
    if (keepsDeleted) throw new Refusal("key-not-found");
    const run = (txn: api.TxnRequest): OpAnswer[] =>
      taken(txn).map((op): OpAnswer => {
        if (op.requestRange !== undefined) {
          const { revision } = op.requestRange;
          return { type: "range", range: this.range(op.requestRange, revision > 0 ? revision : Number.POSITIVE_INFINITY) };
        }
        if (op.requestPut !== undefined) return this.#put(op.requestPut);
        if (op.requestDeleteRange !== undefined) return this.#delete(op.requestDeleteRange);
        const nested = op.requestTxn as api.TxnRequest;
        return { type: "txn", succeeded: decisions.get(nested) === true, answers: run(nested) };
      });
    return { type: "txn", succeeded: decisions.get(request) === true, answers: run(request) };
  }

  #holds(compare: api.Compare, revision: number): boolean {
    const pairs = this.pairsAt(latin1(compare.key), latin1(compare.rangeEnd), revision);
    if (pairs.length > 0) return pairs.every((pair) => relates(compare, pair));
    if (compare.target === api.CompareTarget.VALUE) return false;
    return relates(compare, ABSENT);
  }
}

const ABSENT: Version = { key: "", main: 0, sub: 0, create: 0, version: 0, value: "", lease: 0n };

function relates(compare: api.Compare, pair: Version): boolean {
  const [stored, given] = ((): [number | string | bigint, number | string | bigint] => {
    switch (compare.target) {
      case api.CompareTarget.VERSION:
        return [pair.version, compare.version ?? 0];
      case api.CompareTarget.CREATE:
        return [pair.create, compare.createRevision ?? 0];
      case api.CompareTarget.MOD:
        return [pair.main, compare.modRevision ?? 0];
      case api.CompareTarget.VALUE:
        return [pair.value, compare.value === undefined ? "" : latin1(compare.value)];
      default:
        return [pair.lease, compare.lease ?? 0n];
    }
  })();
  switch (compare.result) {
    case api.CompareResult.EQUAL:
      return stored === given;
    case api.CompareResult.GREATER:
      return stored > given;
    case api.CompareResult.LESS:
      return stored < given;
    default:
      return stored !== given;
  }
}

function sorted(pairs: readonly Version[], target: number, order: number): Version[] {
  const field = (pair: Version): number | string => {
    switch (target) {
      case api.SortTarget.VERSION:
        return pair.version;
      case api.SortTarget.CREATE:
        return pair.create;
      case api.SortTarget.MOD:
        return pair.main;
      case api.SortTarget.VALUE:
        return pair.value;
      default:
        return pair.key;
    }
  };
  const sign = order === api.SortOrder.DESCEND ? -1 : 1;
  return [...pairs].sort((a, b) => {
    const [x, y] = [field(a), field(b)];
    return x === y ? (a.key < b.key ? -1 : 1) : x < y ? -sign : sign;
  });
}

function hasPut(txn: api.TxnRequest): boolean {
  const puts = (op: api.RequestOp): boolean => op.requestPut !== undefined || (op.requestTxn !== undefined && hasPut(op.requestTxn));
  return txn.success.some(puts) || txn.failure.some(puts);
}

function covers(from: string, end: string, key: string): boolean {
  if (end === "") return key === from;
  return key >= from && (end === "\0" || key < end);
}

function lowerBound(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((keys[middle] as string) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function latin1(bytes: Uint8Array): string {
  return bytes.length === 0 ? "" : keyStringOf(bytes);
}

export function bytesOf(text: string): Uint8Array {
  return bytesOfKey(text as KeyString);
}

// -- comparing with what came over the API -------------------------------------------------------------------------------------------------

function samePair(pair: Version, kv: api.KeyValue, keysOnly: RangeAnswer["keysOnly"]): boolean {
  return (
    pair.main === kv.modRevision &&
    pair.create === kv.createRevision &&
    pair.version === kv.version &&
    pair.key === latin1(kv.key) &&
    (keysOnly === "no" ? pair.value : "") === latin1(kv.value) &&
    (keysOnly === "value-and-lease" ? 0n : pair.lease) === kv.lease
  );
}

function describePair(pair: Version): string {
  return `${pair.key}=${pair.value.slice(0, 24)} (create ${pair.create}, mod ${pair.main}, version ${pair.version}, lease ${pair.lease})`;
}

function describeKv(kv: api.KeyValue): string {
  const value = latin1(kv.value).slice(0, 24);
  return `${latin1(kv.key)}=${value} (create ${kv.createRevision}, mod ${kv.modRevision}, version ${kv.version}, lease ${kv.lease})`;
}

/** Why the answer is not the expected one; undefined when it is. Sorting by anything but the key leaves the order of equals open. */
export function rangeDifference(expected: RangeAnswer, actual: api.RangeResponse): string | undefined {
  if (expected.count !== actual.count) return `count ${actual.count}, expected ${expected.count}`;
  if (expected.more !== actual.more) return `more ${actual.more}, expected ${expected.more}`;
  if (expected.pairs.length !== actual.kvs.length) return `${actual.kvs.length} pairs, expected ${expected.pairs.length}`;
  for (let i = 0; i < expected.pairs.length; i++) {
    const pair = expected.pairs[i] as Version;
    const kv = actual.kvs[i] as api.KeyValue;
    if (!samePair(pair, kv, expected.keysOnly)) return `${describeKv(kv)}, expected ${describePair(pair)}`;
  }
  return undefined;
}

function previousDifference(expected: Version | undefined, actual: api.KeyValue | undefined): string | undefined {
  if (expected === undefined || actual === undefined) {
    return expected === actual ? undefined : `previous ${actual === undefined ? "none" : describeKv(actual)}`;
  }
  return samePair(expected, actual, "no") ? undefined : `previous ${describeKv(actual)}, expected ${describePair(expected)}`;
}

export function putDifference(expected: OpAnswer & { type: "put" }, actual: api.PutResponse): string | undefined {
  return previousDifference(expected.previous, actual.prevKv);
}

export function deleteDifference(expected: OpAnswer & { type: "delete" }, actual: api.DeleteRangeResponse): string | undefined {
  if (expected.deleted !== actual.deleted) return `deleted ${actual.deleted}, expected ${expected.deleted}`;
  if (expected.previous.length !== actual.prevKvs.length) return `${actual.prevKvs.length} previous, expected ${expected.previous.length}`;
  for (let i = 0; i < expected.previous.length; i++) {
    const difference = previousDifference(expected.previous[i], actual.prevKvs[i]);
    if (difference !== undefined) return difference;
  }
  return undefined;
}

export function txnDifference(expected: OpAnswer & { type: "txn" }, actual: api.TxnResponse): string | undefined {
  if (expected.succeeded !== actual.succeeded) return `succeeded ${actual.succeeded}, expected ${expected.succeeded}`;
  if (expected.answers.length !== actual.responses.length) return `${actual.responses.length} answers, expected ${expected.answers.length}`;
  for (let i = 0; i < expected.answers.length; i++) {
    const difference = opDifference(expected.answers[i] as OpAnswer, actual.responses[i] as api.ResponseOp);
    if (difference !== undefined) return `operation ${i}: ${difference}`;
  }
  return undefined;
}

function opDifference(expected: OpAnswer, actual: api.ResponseOp): string | undefined {
  switch (expected.type) {
    case "put":
      return actual.responsePut === undefined ? "not a put" : putDifference(expected, actual.responsePut);
    case "delete":
      return actual.responseDeleteRange === undefined ? "not a delete" : deleteDifference(expected, actual.responseDeleteRange);
    case "range":
      return actual.responseRange === undefined ? "not a range" : rangeDifference(expected.range, actual.responseRange);
    case "txn":
      return actual.responseTxn === undefined ? "not a transaction" : txnDifference(expected, actual.responseTxn);
    default:
      return expected satisfies never;
  }
}
