/**
 * Identifiers are 64 opaque bits that others may choose: branded bigints, never computed with.
 * Counters (revision, index, term, version, TTL seconds) are plain numbers: we count them ourselves and assert that they stay below 2^53.
 */
declare const brand: unique symbol;
type Id<Name extends string> = bigint & { readonly [brand]: Name };

/** Unsigned 64-bit; 0n is reserved for "none". */
export type MemberId = Id<"MemberId">;
/** Unsigned 64-bit. */
export type ClusterId = Id<"ClusterId">;
/** Signed 64-bit, negative values are legal; 0n means "no lease". */
export type LeaseId = Id<"LeaseId">;
/** Unsigned 64-bit, unique per request among live members: see the request id generator in the server. */
export type RequestId = Id<"RequestId">;

export const NO_MEMBER = 0n as MemberId;
export const NO_LEASE = 0n as LeaseId;

export type Revision = number;
export type LogIndex = number;
export type Term = number;

/** Lower-case hexadecimal without leading zeros, as etcd prints ids. Negative ids print their two's complement. */
export function hexId(id: bigint): string {
  return BigInt.asUintN(64, id).toString(16);
}

/** Ascending order of ids, for `sort`. */
export function compareIds(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
