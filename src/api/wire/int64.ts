/**
 * The two halves of a 64-bit integer, through one shared cell of memory: storing a bigint there truncates it to 64 bits, reading it back
 * makes exactly one bigint. Arithmetic on bigints would make several.
 */
const cell = new ArrayBuffer(8);
const words = new Uint32Array(cell);
const unsigned = new BigUint64Array(cell);
const signed = new BigInt64Array(cell);
const LOW = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1 ? 0 : 1;
const HIGH = 1 - LOW;

const TWO_32 = 4294967296;

/** Puts the two's complement of `value` into the cell, for {@link lowWord} and {@link highWord}. */
export function splitBigint(value: bigint): void {
  signed[0] = value;
}

/** Puts the two's complement of a safe integer into the cell. */
export function splitNumber(value: number): void {
  words[LOW] = value; // ToUint32 is modulo 2^32, also for negative integers
  words[HIGH] = Math.floor(value / TWO_32);
}

export function lowWord(): number {
  return words[LOW] as number;
}

export function highWord(): number {
  return words[HIGH] as number;
}

export function joinSigned(low: number, high: number): bigint {
  words[LOW] = low;
  words[HIGH] = high;
  return signed[0] as bigint;
}

export function joinUnsigned(low: number, high: number): bigint {
  words[LOW] = low;
  words[HIGH] = high;
  return unsigned[0] as bigint;
}

/** The signed value as a number that stops at ±(2^53 - 1). */
export function saturateSigned(low: number, high: number): number {
  const top = high | 0;
  if (top >= 0x200000) return Number.MAX_SAFE_INTEGER;
  if (top < -0x200000 || (top === -0x200000 && low === 0)) return Number.MIN_SAFE_INTEGER;
  return top * TWO_32 + low;
}

/** The unsigned value as a number that stops at 2^53 - 1. */
export function saturateUnsigned(low: number, high: number): number {
  return high >= 0x200000 ? Number.MAX_SAFE_INTEGER : high * TWO_32 + low;
}
