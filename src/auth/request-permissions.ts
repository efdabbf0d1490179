/**
 * Which rights a request needs (api-semantics.md section 16.5): every key it names or discloses, in both branches of transactions and at any depth, whether
 * taken or not. Each function returns or throws what the rights' checks throw.
 */
import type { DeleteRangeRequest, PutRequest, RequestOp, TxnRequest } from "../api/index.ts";
import { EMPTY_BYTES, type KeyString } from "../base/bytes.ts";
import type { LeaseId } from "../base/ids.ts";
import type { Rights } from "./rights.ts";

/** What has to be known about leases. */
export interface AttachedKeys {
  /** Keys attached to the lease, in no order; none when it does not exist. */
  attachedKeys(id: LeaseId): Iterable<KeyString>;
}

export function requireRange(rights: Rights, request: { readonly key: Uint8Array; readonly rangeEnd: Uint8Array }): void {
  rights.requireRead(request.key, request.rangeEnd);
}

/** Attaching a key to a lease gives whoever ends that lease power over it, and the other way round: all its keys must be writable. */
export function requirePut(rights: Rights, request: PutRequest, leases: AttachedKeys): void {
  if (rights.unlimited) return;
  rights.requireWrite(request.key, EMPTY_BYTES);
  requireLeaseWrite(rights, request.lease as LeaseId, leases);
  if (request.prevKv) rights.requireRead(request.key, EMPTY_BYTES);
}

export function requireDeleteRange(rights: Rights, request: DeleteRangeRequest): void {
  rights.requireWrite(request.key, request.rangeEnd);
  if (request.prevKv) rights.requireRead(request.key, request.rangeEnd);
}

export function requireTxn(rights: Rights, request: TxnRequest, leases: AttachedKeys): void {
  if (rights.unlimited) return;
  for (const { key, rangeEnd } of request.compare) rights.requireRead(key, rangeEnd);
  for (const op of request.success) requireOp(rights, op, leases);
  for (const op of request.failure) requireOp(rights, op, leases);
}

function requireOp(rights: Rights, op: RequestOp, leases: AttachedKeys): void {
  // Not "else if": an operation is one of them, but nothing may slip through if it were two.
  if (op.requestRange !== undefined) requireRange(rights, op.requestRange);
  if (op.requestPut !== undefined) requirePut(rights, op.requestPut, leases);
  if (op.requestDeleteRange !== undefined) requireDeleteRange(rights, op.requestDeleteRange);
  if (op.requestTxn !== undefined) requireTxn(rights, op.requestTxn, leases);
}

/** For revoking and renewing, and for attaching. */
export function requireLeaseWrite(rights: Rights, id: LeaseId, leases: AttachedKeys): void {
  if (rights.unlimited) return;
  for (const key of leases.attachedKeys(id)) rights.requireWriteKey(key);
}

/** For showing which keys are attached, or that there are some. */
export function requireLeaseRead(rights: Rights, id: LeaseId, leases: AttachedKeys): void {
  if (rights.unlimited) return;
  for (const key of leases.attachedKeys(id)) rights.requireReadKey(key);
}
