/**
 * The multi-version store as a naive model, written from the description of the API alone: full history in plain arrays, every answer
 * computed from scratch. It shares no code with src/mvcc. Keys and values are latin1 strings.
 */
import type {
  Compare,
  DeleteRangeRequest,
  DeleteRangeResponse,
  KeyValue,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  RequestOp,
  ResponseHeader,
  ResponseOp,
  TxnRequest,
  TxnResponse,
} from "../../src/api/index.ts";

interface Pair {
  readonly key: string;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  readonly value: string;
  readonly lease: bigint;
}

/** One change; `pair` undefined is a deletion. */
interface Change {
  readonly key: string;
  readonly main: number;
  readonly sub: number;
  readonly pair: Pair | undefined;
}

export interface ModelEvent {
  readonly type: "put" | "delete";
  readonly kv: KeyValue;
  /** The pair at `modRevision - 1`, if there was one. */
  readonly prevKv: KeyValue | undefined;
}

/** A refusal; `message` is the reason as in the table of errors. */
export class ModelError extends Error {}

function refuse(reason: string): never {
  throw new ModelError(reason);
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1");
}

function bytes(value: string): Uint8Array {
  return new Uint8Array(Buffer.from(value, "latin1"));
}

function header(revision: number): ResponseHeader {
  return { clusterId: 0n, memberId: 0n, revision, raftTerm: 0 };
}

function toKeyValue(pair: Pair, strip: "nothing" | "value" | "value-and-lease" = "nothing"): KeyValue {
  return {
    key: bytes(pair.key),
    createRevision: pair.createRevision,
    modRevision: pair.modRevision,
    version: pair.version,
    value: strip === "nothing" ? bytes(pair.value) : new Uint8Array(0),
    lease: strip === "value-and-lease" ? 0n : pair.lease,
  };
}

function inRange(key: string, from: string, end: string): boolean {
  if (end === "") return key === from;
  return key >= from && (end === "\0" || key < end);
}

/** CRC-32C by its definition. */
function crc32c(data: Buffer): number {
  let sum = 0xffffffff;
  for (const byte of data) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = (sum & 1) === 1 ? (sum >>> 1) ^ 0x82f63b78 : sum >>> 1;
  }
  return (sum ^ 0xffffffff) >>> 0;
}

function varint(value: bigint): Buffer {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, value);
  do {
    out.push(Number(rest & 127n) | (rest > 127n ? 128 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Buffer.from(out);
}

/** The message as stored. */
function messageOf(change: Change): Buffer {
  const { key, pair } = change;
  const parts: Buffer[] = [Buffer.from([0x0a]), varint(BigInt(key.length)), Buffer.from(key, "latin1")];
  if (pair !== undefined) {
    const number = (tag: number, value: bigint): void => {
      if (value !== 0n) parts.push(Buffer.from([tag]), varint(value));
    };
    number(0x10, BigInt(pair.createRevision));
    number(0x18, BigInt(pair.modRevision));
    number(0x20, BigInt(pair.version));
    if (pair.value !== "") parts.push(Buffer.from([0x2a]), varint(BigInt(pair.value.length)), Buffer.from(pair.value, "latin1"));
    number(0x30, pair.lease);
  }
  return Buffer.concat(parts);
}

function storedKey(change: Change): Buffer {
  const key = Buffer.alloc(17);
  key.writeBigUInt64BE(BigInt(change.main), 0);
  key.write("_", 8);
  key.writeBigUInt64BE(BigInt(change.sub), 9);
  return change.pair === undefined ? Buffer.concat([key, Buffer.from("t")]) : key;
}

export class MvccModel {
  revision = 1;
  compactRevision = -1;
  /** Every change ever, by key, in order. */
  readonly #changes = new Map<string, Change[]>();
  /** What a store would still hold: all changes but those that compactions dropped. */
  #rows: Change[] = [];
  #hashes: { hash: number; compactRevision: number; hashRevision: number }[] = [];
  /** Changes of the request in execution. */
  #current: Change[] = [];

  // -- state ------------------------------------------------------------------------------------------------------------------------------

  #changeAt(key: string, revision: number): Change | undefined {
    const changes = this.#changes.get(key) ?? [];
    for (let i = changes.length - 1; i >= 0; i -= 1) {
      const change = changes[i];
      if (change !== undefined && change.main <= revision) return change;
    }
    return undefined;
  }

  #pairAt(key: string, revision: number): Pair | undefined {
    return this.#changeAt(key, revision)?.pair;
  }

  #pairsAt(from: string, end: string, revision: number): Pair[] {
    return [...this.#changes.keys()]
      .filter((key) => inRange(key, from, end))
      .sort()
      .flatMap((key) => this.#pairAt(key, revision) ?? []);
  }

  get keyCount(): number {
    return this.#pairsAt("", "\0", Number.POSITIVE_INFINITY).length;
  }

  #record(key: string, pair: Pair | undefined): void {
    const change = { key, main: this.revision + 1, sub: this.#current.length, pair };
    this.#current.push(change);
    const list = this.#changes.get(key);
    if (list === undefined) this.#changes.set(key, [change]);
    else list.push(change);
  }

  #eventOf(change: Change, compacted: number): ModelEvent {
    const { key, main, pair } = change;
    const isCreation = pair !== undefined && pair.version === 1;
    const before = isCreation || main - 1 < compacted ? undefined : this.#pairAt(key, main - 1);
    return {
      type: pair === undefined ? "delete" : "put",
      kv:
        pair === undefined
          ? { key: bytes(key), createRevision: 0, modRevision: main, version: 0, value: bytes(""), lease: 0n }
          : toKeyValue(pair),
      prevKv: before === undefined ? undefined : toKeyValue(before),
    };
  }

  /** Ends a request: the revision moves if anything changed. */
  #commit(): ModelEvent[] {
    const changes = this.#current;
    this.#current = [];
    if (changes.length > 0) this.revision += 1;
    this.#rows.push(...changes);
    return changes.map((change) => this.#eventOf(change, -1));
  }

  // -- checks -----------------------------------------------------------------------------------------------------------------------------

  checkRange(request: RangeRequest): void {
    if (request.key.length === 0) refuse("key-not-provided");
    if (![0, 1, 2].includes(request.sortOrder) || ![0, 1, 2, 3, 4].includes(request.sortTarget)) refuse("invalid-sort-option");
  }

  checkPut(request: PutRequest): void {
    if (request.key.length === 0) refuse("key-not-provided");
    if (request.ignoreValue && request.value.length > 0) refuse("value-provided");
    if (request.ignoreLease && request.lease !== 0n) refuse("lease-provided");
  }

  checkDeleteRange(request: DeleteRangeRequest): void {
    if (request.key.length === 0) refuse("key-not-provided");
  }

  checkTxn(request: TxnRequest, opsMax: number): void {
    this.#checkShape(request, opsMax);
    this.#duplicates(request.success);
    this.#duplicates(request.failure);
  }

  #checkShape(request: TxnRequest, opsMax: number): void {
    const n = Math.max(request.compare.length, request.success.length, request.failure.length);
    if (n > opsMax) refuse("too-many-ops");
    for (const compare of request.compare) if (compare.key.length === 0) refuse("key-not-provided");
    for (const op of [...request.success, ...request.failure]) {
      if (op.requestRange !== undefined) this.checkRange(op.requestRange);
      else if (op.requestPut !== undefined) this.checkPut(op.requestPut);
      else if (op.requestDeleteRange !== undefined) this.checkDeleteRange(op.requestDeleteRange);
      else if (op.requestTxn !== undefined) this.#checkShape(op.requestTxn, opsMax - n);
      else refuse("key-not-found");
    }
  }

  #duplicates(ops: readonly RequestOp[]): { puts: string[]; deletes: [string, string][] } {
    const puts: string[] = [];
    const deletes: [string, string][] = [];
    const isDeleted = (key: string): boolean => deletes.some(([from, end]) => (end === "" ? key === from : key >= from && key < end));
    for (const { requestDeleteRange } of ops) {
      if (requestDeleteRange !== undefined) deletes.push([text(requestDeleteRange.key), text(requestDeleteRange.rangeEnd)]);
    }
    for (const { requestTxn } of ops) {
      if (requestTxn === undefined) continue;
      const then = this.#duplicates(requestTxn.success);
      const otherwise = this.#duplicates(requestTxn.failure);
      for (const key of [...then.puts, ...otherwise.puts]) if (puts.includes(key) || isDeleted(key)) refuse("duplicate-key");
      puts.push(...then.puts, ...otherwise.puts);
      deletes.push(...then.deletes, ...otherwise.deletes);
    }
    for (const { requestPut } of ops) {
      if (requestPut === undefined) continue;
      const key = text(requestPut.key);
      if (puts.includes(key) || isDeleted(key)) refuse("duplicate-key");
      puts.push(key);
    }
    return { puts, deletes };
  }

  // -- reads ------------------------------------------------------------------------------------------------------------------------------

  range(request: RangeRequest): RangeResponse {
    if (request.revision > this.revision) refuse("future-revision");
    if (request.revision > 0 && request.revision < this.compactRevision) refuse("compacted");
    return this.#range(request, request.revision > 0 ? request.revision : this.revision, this.revision);
  }

  #range(request: RangeRequest, at: number, headerRevision: number): RangeResponse {
    const all = this.#pairsAt(text(request.key), text(request.rangeEnd), at);
    const answer: RangeResponse = { header: header(headerRevision), kvs: [], more: false, count: all.length };
    if (request.countOnly) return answer;
    const { limit, minModRevision, maxModRevision, minCreateRevision, maxCreateRevision, sortOrder, sortTarget } = request;
    const filtered = [minModRevision, maxModRevision, minCreateRevision, maxCreateRevision].some((bound) => bound !== 0);
    let pairs = all.filter(
      (pair) =>
        (minModRevision === 0 || pair.modRevision >= minModRevision) &&
        (maxModRevision === 0 || pair.modRevision <= maxModRevision) &&
        (minCreateRevision === 0 || pair.createRevision >= minCreateRevision) &&
        (maxCreateRevision === 0 || pair.createRevision <= maxCreateRevision),
    );
    if (sortOrder === 0 && !filtered && limit > 0) pairs = pairs.slice(0, limit + 1);
    const ascending = [...pairs].sort((a, b) => {
      if (sortTarget === 1) return a.version - b.version;
      if (sortTarget === 2) return a.createRevision - b.createRevision;
      if (sortTarget === 3) return a.modRevision - b.modRevision;
      if (sortTarget === 4) return a.value < b.value ? -1 : a.value > b.value ? 1 : 0;
      return a.key < b.key ? -1 : 1;
    });
    if (sortOrder === 2) {
      // Descending; equal ones stay in the order of their keys, which is one of the orders that are allowed.
      const before = (a: Pair, b: Pair): number => ascending.indexOf(a) - ascending.indexOf(b);
      const same = (a: Pair, b: Pair): boolean =>
        sortTarget === 1
          ? a.version === b.version
          : sortTarget === 2
            ? a.createRevision === b.createRevision
            : sortTarget === 3
              ? a.modRevision === b.modRevision
              : sortTarget === 4
                ? a.value === b.value
                : false;
      pairs = [...pairs].sort((a, b) => (same(a, b) ? (a.key < b.key ? -1 : 1) : before(b, a)));
    } else {
      pairs = ascending;
    }
    if (limit > 0 && pairs.length > limit) {
      answer.more = true;
      pairs = pairs.slice(0, limit);
    }
    const strip = !request.keysOnly ? "nothing" : sortTarget === 4 ? "value" : "value-and-lease";
    answer.kvs = pairs.map((pair) => toKeyValue(pair, strip));
    return answer;
  }

  /** Events of the complete revisions in [from, upTo]. */
  history(from: number, upTo: number): ModelEvent[] {
    if (from < this.compactRevision) refuse("compacted");
    return this.#rows.filter((row) => row.main >= from && row.main <= upTo).map((row) => this.#eventOf(row, this.compactRevision));
  }

  // -- writes -----------------------------------------------------------------------------------------------------------------------------

  put(request: PutRequest, leases: ReadonlySet<bigint>): { response: PutResponse; events: ModelEvent[] } {
    this.#checkPutState(request, leases);
    return { response: this.#put(request), events: this.#commit() };
  }

  #checkPutState(request: PutRequest, leases: ReadonlySet<bigint>): void {
    if (request.lease !== 0n && !leases.has(request.lease)) refuse("lease-not-found");
    if ((request.ignoreValue || request.ignoreLease) && this.#pairAt(text(request.key), this.revision) === undefined)
      refuse("key-not-found");
  }

  #put(request: PutRequest): PutResponse {
    const key = text(request.key);
    const before = this.#pairAt(key, Number.POSITIVE_INFINITY);
    this.#record(key, {
      key,
      createRevision: before?.createRevision ?? this.revision + 1,
      modRevision: this.revision + 1,
      version: (before?.version ?? 0) + 1,
      value: request.ignoreValue ? (before?.value ?? "") : text(request.value),
      lease: request.ignoreLease ? (before?.lease ?? 0n) : request.lease,
    });
    return { header: header(this.revision + 1), prevKv: request.prevKv && before !== undefined ? toKeyValue(before) : undefined };
  }

  deleteRange(request: DeleteRangeRequest): { response: DeleteRangeResponse; events: ModelEvent[] } {
    return { response: this.#deleteRange(request), events: this.#commit() };
  }

  #deleteRange(request: DeleteRangeRequest): DeleteRangeResponse {
    const pairs = this.#pairsAt(text(request.key), text(request.rangeEnd), Number.POSITIVE_INFINITY);
    for (const { key } of pairs) this.#record(key, undefined);
    return {
      header: header(this.#nowRevision),
      deleted: pairs.length,
      prevKvs: request.prevKv ? pairs.map((pair) => toKeyValue(pair)) : [],
    };
  }

  get #nowRevision(): number {
    return this.#current.length > 0 ? this.revision + 1 : this.revision;
  }

  deleteKeys(keys: readonly string[]): { events: ModelEvent[] } {
    for (const key of keys) if (this.#pairAt(key, Number.POSITIVE_INFINITY) !== undefined) this.#record(key, undefined);
    return { events: this.#commit() };
  }

  txn(request: TxnRequest, leases: ReadonlySet<bigint>): { response: TxnResponse; events: ModelEvent[] } {
    // Every transaction of the tree decides on the state before the first operation.
    const decisions = new Map<TxnRequest, boolean>();
    const visit = (txn: TxnRequest): void => {
      decisions.set(
        txn,
        txn.compare.every((compare) => this.#holds(compare)),
      );
      for (const op of [...txn.success, ...txn.failure]) if (op.requestTxn !== undefined) visit(op.requestTxn);
    };
    visit(request);
    const taken = (txn: TxnRequest): RequestOp[] => (decisions.get(txn) === true ? txn.success : txn.failure);
    const deletes: DeleteRangeRequest[] = [];
    let keepsDeleted = false;
    const check = (txn: TxnRequest): void => {
      for (const op of taken(txn)) {
        if (op.requestRange !== undefined && op.requestRange.revision !== 0) {
          if (op.requestRange.revision > this.revision) refuse("future-revision");
          if (op.requestRange.revision < this.compactRevision) refuse("compacted");
        }
        if (op.requestDeleteRange !== undefined) deletes.push(op.requestDeleteRange);
        if (op.requestPut !== undefined) {
          this.#checkPutState(op.requestPut, leases);
          const { ignoreValue, ignoreLease } = op.requestPut;
          const key = text(op.requestPut.key);
          if (ignoreValue || ignoreLease) keepsDeleted ||= deletes.some((del) => inRange(key, text(del.key), text(del.rangeEnd)));
        }
        if (op.requestTxn !== undefined) check(op.requestTxn);
      }
    };
    check(request);
    // Only of transactions that nothing else refuses.
    if (keepsDeleted) refuse("key-not-found");
    const run = (txn: TxnRequest): ResponseOp[] =>
      taken(txn).map((op) => {
        const answer: ResponseOp = {
          responseRange: undefined,
          responsePut: undefined,
          responseDeleteRange: undefined,
          responseTxn: undefined,
        };
        if (op.requestRange !== undefined) {
          const { revision } = op.requestRange;
          answer.responseRange = this.#range(op.requestRange, revision > 0 ? revision : Number.POSITIVE_INFINITY, this.#nowRevision);
        }
        if (op.requestPut !== undefined) answer.responsePut = this.#put(op.requestPut);
        if (op.requestDeleteRange !== undefined) answer.responseDeleteRange = this.#deleteRange(op.requestDeleteRange);
        if (op.requestTxn !== undefined) {
          answer.responseTxn = { header: header(0), succeeded: decisions.get(op.requestTxn) === true, responses: run(op.requestTxn) };
        }
        return answer;
      });
    const responses = run(request);
    const response = { header: header(this.#nowRevision), succeeded: decisions.get(request) === true, responses };
    return { response, events: this.#commit() };
  }

  #holds(compare: Compare): boolean {
    const pairs = this.#pairsAt(text(compare.key), text(compare.rangeEnd), this.revision);
    if (pairs.length > 0) return pairs.every((pair) => this.#relates(compare, pair));
    if (compare.target === 3) return false;
    return this.#relates(compare, { key: "", createRevision: 0, modRevision: 0, version: 0, value: "", lease: 0n });
  }

  #relates(compare: Compare, pair: Pair): boolean {
    const [stored, given] = ((): [string | number | bigint, string | number | bigint] => {
      if (compare.target === 0) return [pair.version, compare.version ?? 0];
      if (compare.target === 1) return [pair.createRevision, compare.createRevision ?? 0];
      if (compare.target === 2) return [pair.modRevision, compare.modRevision ?? 0];
      if (compare.target === 3) return [pair.value, compare.value === undefined ? "" : text(compare.value)];
      if (compare.target === 4) return [pair.lease, compare.lease ?? 0n];
      return [0, 0];
    })();
    if (compare.result === 0) return stored === given;
    if (compare.result === 1) return stored > given;
    if (compare.result === 2) return stored < given;
    if (compare.result === 3) return stored !== given;
    return true;
  }

  // -- compaction and hash ----------------------------------------------------------------------------------------------------------------

  /** True if the change is the newest of its key at `revision`. */
  #isNewest(change: Change, revision: number): boolean {
    return this.#changeAt(change.key, revision) === change;
  }

  compact(revision: number): void {
    if (revision <= this.compactRevision) refuse("compacted");
    if (revision > this.revision) refuse("future-revision");
    const previous = this.compactRevision;
    const stays = (row: Change): boolean =>
      row.main > revision || (this.#isNewest(row, revision) && (row.pair !== undefined || row.main === revision));
    const hash = this.#hashOf(this.#rows.filter((row) => row.main <= revision && (row.main > previous || stays(row))));
    this.#hashes.push({ hash, compactRevision: previous, hashRevision: revision });
    if (this.#hashes.length > 10) this.#hashes.shift();
    this.compactRevision = revision;
    this.#rows = this.#rows.filter(stays);
  }

  /** What a restart forgets. */
  restart(): void {
    this.#hashes = [];
  }

  /** The hash that the compaction to this revision would have kept is not known to a store that was restarted meanwhile. */
  forgetHash(revision: number): void {
    this.#hashes = this.#hashes.filter((hash) => hash.hashRevision !== revision);
  }

  hash(revision: number): { hash: number; compactRevision: number; hashRevision: number } {
    const kept = this.#hashes.find((hash) => hash.hashRevision === revision);
    if (kept !== undefined) return kept;
    const at = revision === 0 ? this.revision : revision;
    if (at > 0 && at < this.compactRevision) refuse("compacted");
    if (at > this.revision) refuse("future-revision");
    const anyVisible = this.#pairsAt("", "\0", at).length > 0;
    const rows = this.#rows.filter((row) => {
      if (row.main > at) return false;
      if (row.main > this.compactRevision) return true;
      if (row.pair === undefined && row.main === this.compactRevision) return false;
      return !anyVisible || (row.pair !== undefined && this.#isNewest(row, at));
    });
    return { hash: this.#hashOf(rows), compactRevision: this.compactRevision, hashRevision: at };
  }

  #hashOf(rows: readonly Change[]): number {
    return crc32c(Buffer.concat([Buffer.from("key"), ...rows.flatMap((row) => [storedKey(row), messageOf(row)])]));
  }

  /** Bytes of all rows held, by the store's formula: its row keys have 13 bytes (a deletion 14), its values a checksum of 4. */
  get bytesInUse(): number {
    return this.#rows.reduce((sum, row) => sum + (row.pair === undefined ? 14 : 13) + 4 + messageOf(row).length + 16, 0);
  }
}
