/**
 * Validation of requests by their fields alone, before anything is replicated (api-semantics 6, 7, 8.2, 8.3; order: api-errors 4.2).
 * Quota, sizes and permissions are checked elsewhere.
 */
import {
  type DeleteRangeRequest,
  type PutRequest,
  type RangeRequest,
  type RequestOp,
  rpcError,
  SortOrder,
  SortTarget,
  type TxnRequest,
} from "../api/index.ts";
import { type KeyString, keyStringOf } from "../base/bytes.ts";
import { NO_LEASE } from "../base/ids.ts";
import { KeyRanges } from "./key-ranges.ts";

/**
 * How deep transactions may nest, whatever the limit on operations allows. etcd has no such bound but that limit (128 by default, and
 * every level costs at least one), which the stack holds easily; this one only matters with a far larger setting.
 */
export const TXN_DEPTH_MAX = 1000;

/** @throws key-not-provided, invalid-sort-option */
export function checkRange(request: RangeRequest): void {
  if (request.key.length === 0) throw rpcError("key-not-provided");
  const { sortOrder, sortTarget } = request;
  if (sortOrder < SortOrder.NONE || sortOrder > SortOrder.DESCEND || sortTarget < SortTarget.KEY || sortTarget > SortTarget.VALUE) {
    throw rpcError("invalid-sort-option");
  }
}

/** @throws key-not-provided, value-provided, lease-provided */
export function checkPut(request: PutRequest): void {
  if (request.key.length === 0) throw rpcError("key-not-provided");
  if (request.ignoreValue && request.value.length !== 0) throw rpcError("value-provided");
  if (request.ignoreLease && request.lease !== NO_LEASE) throw rpcError("lease-provided");
}

/** @throws key-not-provided */
export function checkDeleteRange(request: DeleteRangeRequest): void {
  if (request.key.length === 0) throw rpcError("key-not-provided");
}

/** `opsMax` is the limit on operations per transaction. @throws too-many-ops, errors of the operations, key-not-found, duplicate-key */
export function checkTxn(request: TxnRequest, opsMax: number): void {
  checkShape(request, opsMax, 1);
  collectWrites(request.success);
  collectWrites(request.failure);
}

function checkShape(request: TxnRequest, opsMax: number, depth: number): void {
  const { compare, success, failure } = request;
  const ops = Math.max(compare.length, success.length, failure.length);
  if (ops > opsMax || depth > TXN_DEPTH_MAX) throw rpcError("too-many-ops");
  for (const { key } of compare) if (key.length === 0) throw rpcError("key-not-provided");
  for (const op of success) checkOp(op, opsMax - ops, depth);
  for (const op of failure) checkOp(op, opsMax - ops, depth);
}

function checkOp(op: RequestOp, opsMax: number, depth: number): void {
  if (op.requestRange !== undefined) checkRange(op.requestRange);
  else if (op.requestPut !== undefined) checkPut(op.requestPut);
  else if (op.requestDeleteRange !== undefined) checkDeleteRange(op.requestDeleteRange);
  else if (op.requestTxn !== undefined) checkShape(op.requestTxn, opsMax, depth + 1);
  // Sic: an operation without content is answered with this text.
  else throw rpcError("key-not-found");
}

interface Writes {
  puts: Set<KeyString>;
  deletes: KeyRanges;
}

/**
 * The duplicate-key rule for one list of operations, with the gaps that etcd has: a delete with an open end counts as the (empty) range
 * up to the key 0x00, and a delete is not held against puts of earlier nested transactions. `a ∩ b` and `a ∪ b` work on the smaller
 * side, so that deep nesting does not cost a pass over all keys per level.
 */
function collectWrites(ops: readonly RequestOp[]): Writes {
  const writes: Writes = { puts: new Set(), deletes: new KeyRanges() };
  for (const { requestDeleteRange } of ops) {
    if (requestDeleteRange === undefined) continue;
    const from = keyStringOf(requestDeleteRange.key);
    const { rangeEnd } = requestDeleteRange;
    writes.deletes.add(from, rangeEnd.length === 0 ? (`${from}\0` as KeyString) : keyStringOf(rangeEnd));
  }
  for (const { requestTxn } of ops) {
    if (requestTxn === undefined) continue;
    const then = collectWrites(requestTxn.success);
    const otherwise = collectWrites(requestTxn.failure);
    // Only one of the two branches runs, so they may put the same keys.
    for (const branch of [then, otherwise]) {
      refuseOverlap(branch.puts, writes.puts);
      refuseDeleted(branch.puts, writes.deletes);
    }
    for (const branch of [then, otherwise]) {
      writes.puts = union(writes.puts, branch.puts);
      writes.deletes = writes.deletes.union(branch.deletes);
    }
  }
  for (const { requestPut } of ops) {
    if (requestPut === undefined) continue;
    const key = keyStringOf(requestPut.key);
    if (writes.puts.has(key) || writes.deletes.has(key)) throw rpcError("duplicate-key");
    writes.puts.add(key);
  }
  return writes;
}

function refuseOverlap(a: ReadonlySet<KeyString>, b: ReadonlySet<KeyString>): void {
  const [small, large] = a.size < b.size ? [a, b] : [b, a];
  for (const key of small) if (large.has(key)) throw rpcError("duplicate-key");
}

function refuseDeleted(puts: ReadonlySet<KeyString>, deletes: KeyRanges): void {
  if (deletes.isEmpty) return;
  for (const key of puts) if (deletes.has(key)) throw rpcError("duplicate-key");
}

function union(a: Set<KeyString>, b: Set<KeyString>): Set<KeyString> {
  const [small, large] = a.size < b.size ? [a, b] : [b, a];
  for (const key of small) large.add(key);
  return large;
}
