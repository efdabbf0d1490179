/**
 * Executing one write request at one new revision: synchronous, all or nothing. Whatever can be refused is refused before the first
 * change (`precheck`); after that only a corrupt store can fail, and then the instance is stopped.
 */
import {
  CompactedError,
  type DeleteRangeRequest,
  type DeleteRangeResponse,
  FutureRevisionError,
  type KeyValue,
  LeaseNotFoundError,
  type PutRequest,
  type PutResponse,
  type RangeRequest,
  type RangeResponse,
  type RequestOp,
  type ResponseOp,
  rpcError,
  type TxnRequest,
  type TxnResponse,
} from "../api/index.ts";
import type { BackendBatch } from "../backend/backend.ts";
import { assert } from "../base/assert.ts";
import { EMPTY_BYTES, type KeyString, keyStringOf } from "../base/bytes.ts";
import { type LeaseId, NO_LEASE } from "../base/ids.ts";
import { ChangeEvent } from "./change-event.ts";
import { allHoldNow, decide } from "./compare.ts";
import { KeyRanges } from "./key-ranges.ts";
import { PositionList } from "./position-list.ts";
import { endOf, RangeRead, rangeSingle, responseHeader } from "./range.ts";
import { type RevisionPosition, ROW_KEY_BYTES, rowKey, SUB_MAX, TOMBSTONE_KEY_BYTES, tombstoneKey } from "./revision.ts";
import { encodePut, encodeTombstone, type RowArena } from "./row.ts";
import type { Rows } from "./rows.ts";
import { NEWEST, type TreeIndex } from "./tree-index.ts";
import type { LeaseView } from "./types.ts";

/** Counted for every row besides its key and value. */
export const ROW_OVERHEAD_BYTES = 16;

export function rowBytes(keyBytes: number, valueBytes: number): number {
  return keyBytes + valueBytes + ROW_OVERHEAD_BYTES;
}

/** What the mutants of this file switch. */
export interface ExecutionMutants {
  readonly stripTxnRanges: boolean;
  readonly ignoreFutureCheck: boolean;
  readonly deleteRangeSkipsLast: boolean;
  readonly nestedCompareSeesWrites: boolean;
}

const NOTHING: readonly ChangeEvent[] = Object.freeze([]);

export interface ExecutionParts {
  readonly index: TreeIndex;
  readonly rows: Rows;
  readonly arena: RowArena;
  readonly mutants: ExecutionMutants;
}

/** Refuses a revision that a read inside a transaction asks for (quirk 4: unlike outside, negative ones are looked at). */
export function checkTxnRevision(requested: number, current: number, compacted: number, mutants: ExecutionMutants): void {
  if (requested === 0 || mutants.stripTxnRanges) return;
  if (requested > current && !mutants.ignoreFutureCheck) throw new FutureRevisionError({ requested, current });
  if (requested < compacted) throw new CompactedError({ requested, compacted });
}

export class Execution {
  /** What has changed so far. Begins as a shared empty list: a list that grows from nothing takes room for many, and most requests change one key. */
  events: readonly ChangeEvent[] = NOTHING;
  /** Bytes of the rows written. */
  bytes = 0;

  readonly #parts: ExecutionParts;
  readonly #leases: LeaseView | undefined;
  readonly #batch: BackendBatch;
  /** The store's revision before this request; changes are made at the next one. */
  readonly #before: number;
  readonly #compacted: number;
  /** Decisions of the transaction tree, consumed in order. */
  #path: readonly boolean[] = [];
  #step = 0;
  /** What the operations that were checked so far will have deleted. */
  #deletes: KeyRanges | undefined;
  /**
   * A put is to keep the value or lease of a key that an earlier operation of the same request deletes, which the duplicate-key rule lets pass for open
   * ends: there is nothing to keep. The reference crashes there, on every member and again at every restart.
   */
  #keepsDeleted = false;

  constructor(parts: ExecutionParts, leases: LeaseView | undefined, batch: BackendBatch, before: number, compacted: number) {
    this.#parts = parts;
    this.#leases = leases;
    this.#batch = batch;
    this.#before = before;
    this.#compacted = compacted;
  }

  /** The revision as of now: the new one as soon as something has changed. */
  get revision(): number {
    return this.events.length === 0 ? this.#before : this.#before + 1;
  }

  // -- checks ---------------------------------------------------------------------------------------------------------------------------

  /** @throws lease-not-found, key-not-found, in this order */
  checkPut(request: PutRequest): void {
    const lease = request.lease as LeaseId;
    if (lease !== NO_LEASE && this.#leases?.exists(lease) !== true) throw new LeaseNotFoundError({ lease });
    if (!request.ignoreValue && !request.ignoreLease) return;
    const { index } = this.#parts;
    const key = keyStringOf(request.key);
    if (!index.find(key) || index.version === 0) throw rpcError("key-not-found");
    if (this.#deletes?.has(key) === true) this.#keepsDeleted = true;
  }

  /** Checks the operations that will run, in order. The branches not taken are not looked at. */
  #checkTaken(request: TxnRequest): void {
    for (const op of this.#taken(request)) {
      if (op.requestRange !== undefined) {
        checkTxnRevision(op.requestRange.revision, this.#before, this.#compacted, this.#parts.mutants);
      } else if (op.requestPut !== undefined) {
        this.checkPut(op.requestPut);
      } else if (op.requestDeleteRange !== undefined) {
        const from = keyStringOf(op.requestDeleteRange.key);
        this.#deletes ??= new KeyRanges();
        this.#deletes.add(from, endOf(op.requestDeleteRange.rangeEnd, from));
      } else if (op.requestTxn !== undefined) {
        this.#checkTaken(op.requestTxn);
      }
    }
  }

  /** The next decision of the path, as the branch that it means. */
  #taken(request: TxnRequest): readonly RequestOp[] {
    return this.#nextDecision() ? request.success : request.failure;
  }

  #nextDecision(): boolean {
    const taken = this.#path[this.#step];
    assert(taken !== undefined, "every transaction of the taken branches was decided");
    this.#step += 1;
    return taken;
  }

  // -- operations -----------------------------------------------------------------------------------------------------------------------

  put(request: PutRequest): PutResponse {
    const { index, rows, arena } = this.#parts;
    const key = keyStringOf(request.key);
    const main = this.#before + 1;
    const sub = this.events.length;
    let value = request.value;
    let lease = request.lease;
    let prevKv: KeyValue | undefined;
    if (request.prevKv || request.ignoreValue || request.ignoreLease) {
      const present = index.find(key) && index.version !== 0 ? rows.loadNow(index.main, index.sub) : undefined;
      if (request.prevKv) prevKv = present?.keyValue;
      if (request.ignoreValue) value = present?.valueBytes ?? EMPTY_BYTES;
      if (request.ignoreLease) lease = present?.lease ?? NO_LEASE;
    }
    index.put(key, main, sub);
    const { newCreate, newVersion } = index;
    const previous = newVersion === 1 ? undefined : this.#previous(key, main);
    const { row, pair } = encodePut(arena, request.key, newCreate, main, sub, newVersion, value, lease);
    this.#batch.put(rowKey(main, sub), row);
    this.bytes += rowBytes(ROW_KEY_BYTES, row.length);
    this.#report(new ChangeEvent(key, main, pair, previous));
    return { header: responseHeader(main), prevKv };
  }

  deleteRange(request: DeleteRangeRequest): DeleteRangeResponse {
    const { index, rows, mutants } = this.#parts;
    const main = this.#before + 1;
    const sub = this.events.length;
    const from = keyStringOf(request.key);
    const prevKvs: KeyValue[] = [];
    if (request.rangeEnd.length === 0) {
      if (request.prevKv && index.find(from) && index.version !== 0) prevKvs.push(rows.loadNow(index.main, index.sub).keyValue);
      const deleted = index.remove(from, main, sub);
      if (deleted) this.#bury(from, sub, this.#previous(from, main));
      return { header: responseHeader(this.revision), deleted: deleted ? 1 : 0, prevKvs };
    }
    const to = endOf(request.rangeEnd, from);
    if (request.prevKv) {
      // Before anything changes: a row that cannot be read must not leave a half.
      const present = new PositionList();
      index.collectSlice(from, to, NEWEST, present, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);
      for (let i = 0; i < present.length; i += 1) prevKvs.push(rows.loadNow(present.mainAt(i), present.subAt(i)).keyValue);
    }
    const before = new PositionList();
    index.removeRange(from, mutants.deleteRangeSkipsLast ? this.#lastKey(from, to) : to, main, sub, before);
    const { length } = before;
    assert(sub + length <= SUB_MAX, "a sub revision takes four bytes");
    for (let i = 0; i < length; i += 1) {
      const key = before.keyAt(i);
      const previous = { main: before.mainAt(i), sub: before.subAt(i) };
      this.#bury(key, sub + i, previous.main === main ? this.#visibleBefore(key, main) : previous);
    }
    return { header: responseHeader(this.revision), deleted: length, prevKvs };
  }

  /** Deletes one key if it is there. */
  deleteKey(key: KeyString): void {
    const { index } = this.#parts;
    const main = this.#before + 1;
    const sub = this.events.length;
    if (index.remove(key, main, sub)) this.#bury(key, sub, this.#previous(key, main));
  }

  range(request: RangeRequest): RangeResponse {
    const { index, rows } = this.#parts;
    const known = request.revision > 0 && request.revision <= this.#before;
    const revision = known ? request.revision : NEWEST;
    if (request.rangeEnd.length === 0) {
      const single = rangeSingle(index, rows, request, revision, this.revision, true);
      if (single !== undefined) return single;
    }
    return new RangeRead(index, rows, request, revision).now(this.revision);
  }

  /** Decides, checks and runs a whole transaction. @throws whatever refuses one of the operations that would run, before any change */
  txn(request: TxnRequest): TxnResponse {
    const { index, rows } = this.#parts;
    this.#path = decide(request, (compares) => allHoldNow(index, rows, compares, NEWEST, true) === true);
    this.#checkTaken(request);
    // After everything that the reference refuses, too.
    if (this.#keepsDeleted) throw rpcError("key-not-found");
    this.#step = 0;
    return this.#run(request, true);
  }

  #run(request: TxnRequest, isTop: boolean): TxnResponse {
    let succeeded = this.#nextDecision();
    if (!isTop && this.#parts.mutants.nestedCompareSeesWrites) {
      succeeded = allHoldNow(this.#parts.index, this.#parts.rows, request.compare, NEWEST, true) === true;
    }
    const responses: ResponseOp[] = [];
    for (const op of succeeded ? request.success : request.failure) responses.push(this.#runOp(op));
    // Sic: a nested answer has a header without a revision.
    return { header: responseHeader(isTop ? this.revision : 0), succeeded, responses };
  }

  #runOp(op: RequestOp): ResponseOp {
    const response: ResponseOp = {
      responseRange: undefined,
      responsePut: undefined,
      responseDeleteRange: undefined,
      responseTxn: undefined,
    };
    if (op.requestRange !== undefined) response.responseRange = this.range(op.requestRange);
    else if (op.requestPut !== undefined) response.responsePut = this.put(op.requestPut);
    else if (op.requestDeleteRange !== undefined) response.responseDeleteRange = this.deleteRange(op.requestDeleteRange);
    else if (op.requestTxn !== undefined) response.responseTxn = this.#run(op.requestTxn, false);
    return response;
  }

  // -- helpers --------------------------------------------------------------------------------------------------------------------------

  /** The row and the event of a deletion that the index has recorded already. */
  #bury(key: KeyString, sub: number, previous: RevisionPosition | undefined): void {
    const main = this.#before + 1;
    const row = encodeTombstone(this.#parts.arena, key, main, sub);
    this.#batch.put(tombstoneKey(main, sub), row);
    this.bytes += rowBytes(TOMBSTONE_KEY_BYTES, row.length);
    this.#report(new ChangeEvent(key, main, undefined, previous));
  }

  #report(event: ChangeEvent): void {
    if (this.events === NOTHING) this.events = [event];
    else (this.events as ChangeEvent[]).push(event);
  }

  /** After the index took a change of `key` at `main` (and its registers hold what was before): what a read at `main - 1` sees. */
  #previous(key: KeyString, main: number): RevisionPosition | undefined {
    const { index } = this.#parts;
    if (index.main === main) return this.#visibleBefore(key, main);
    return index.version === 0 ? undefined : { main: index.main, sub: index.sub };
  }

  #lastKey(from: KeyString, to: KeyString | undefined): KeyString {
    const present = new PositionList();
    this.#parts.index.collectSlice(from, to, NEWEST, present, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);
    return present.length === 0 ? from : present.keyAt(present.length - 1);
  }

  #visibleBefore(key: KeyString, main: number): RevisionPosition | undefined {
    const { index } = this.#parts;
    return index.findAt(key, main - 1) ? { main: index.main, sub: index.sub } : undefined;
  }
}
