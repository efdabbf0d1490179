/** Lengths of wire forms without making them: for budgets and for cutting fragments. */
import type { KeyValue } from "../api/index.ts";

const TWO_28 = 268435456;
const TWO_32 = 4294967296;

/** Bytes of an unsigned varint below 2^53. */
export function varintBytes(value: number): number {
  if (value < 128) return 1;
  if (value < 16384) return 2;
  if (value < 2097152) return 3;
  if (value < TWO_28) return 4;
  let bytes = 5;
  for (let rest = Math.floor(value / (TWO_28 * 128)); rest > 0; rest = Math.floor(rest / 128)) bytes += 1;
  return bytes;
}

/** Bytes of tag, length and content of a length-delimited field with a number below 16. */
export function fieldBytes(contentBytes: number): number {
  return 1 + varintBytes(contentBytes) + contentBytes;
}

export function keyValueBytes(kv: KeyValue): number {
  if (kv.wire !== undefined) return kv.wire.length;
  let bytes = 0;
  if (kv.key.length !== 0) bytes += fieldBytes(kv.key.length);
  if (kv.createRevision !== 0) bytes += 1 + varintBytes(kv.createRevision);
  if (kv.modRevision !== 0) bytes += 1 + varintBytes(kv.modRevision);
  if (kv.version !== 0) bytes += 1 + varintBytes(kv.version);
  if (kv.value.length !== 0) bytes += fieldBytes(kv.value.length);
  if (kv.lease !== 0n) bytes += 1 + int64Bytes(kv.lease);
  return bytes;
}

/** Negative ids are written as ten bytes. */
function int64Bytes(value: bigint): number {
  const unsigned = BigInt.asUintN(64, value);
  const high = Number(unsigned >> 32n);
  if (high === 0) return varintBytes(Number(unsigned));
  return high < 0x200000 ? varintBytes(high * TWO_32 + Number(unsigned & 0xffffffffn)) : high < 0x1000000 ? 8 : high < 0x80000000 ? 9 : 10;
}
