/**
 * Bytes at the border between the platform and the pure roots. This file and the `-system` files are the only ones under `base`
 * that touch the platform; the pure roots get these functions and never see `Buffer`.
 */
import { Buffer, isUtf8 } from "node:buffer";
import { crc32 as zlibCrc32 } from "node:zlib";

declare const keyBrand: unique symbol;
/** A key as a latin1 string, one char per byte: same order as the bytes, native compare and hash. */
export type KeyString = string & { readonly [keyBrand]: true };

export const EMPTY_BYTES: Uint8Array = new Uint8Array(0);

function view(bytes: Uint8Array): Buffer {
  return bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Works on any Uint8Array and spares the intermediate Buffer, which costs as much as the conversion. */
const { latin1Slice, base64Slice } = Buffer.prototype as unknown as Record<
  "latin1Slice" | "base64Slice",
  (this: Uint8Array, from: number, to: number) => string
>;

export function keyStringOf(bytes: Uint8Array): KeyString {
  return latin1Slice.call(bytes, 0, bytes.length) as KeyString;
}

/** The key in `bytes[from, to)`. */
export function keyStringIn(bytes: Uint8Array, from: number, to: number): KeyString {
  return latin1Slice.call(bytes, from, to) as KeyString;
}

/** A fresh copy of the key's bytes. */
export function bytesOfKey(key: KeyString): Uint8Array {
  return Buffer.from(key, "latin1");
}

export function utf8Bytes(text: string): Uint8Array {
  return Buffer.from(text, "utf8");
}

/** Lossy for invalid UTF-8 (U+FFFD); never use it for keys. */
export function utf8Text(bytes: Uint8Array): string {
  return view(bytes).toString("utf8");
}

/** The text, or undefined if `bytes` is not valid UTF-8. A byte order mark is kept. */
export function utf8TextStrict(bytes: Uint8Array): string | undefined {
  return isUtf8(bytes) ? view(bytes).toString("utf8") : undefined;
}

export function hexText(bytes: Uint8Array): string {
  return view(bytes).toString("hex");
}

/** One char per byte, so that indexes into the text are indexes into the bytes. */
export function latin1Text(bytes: Uint8Array): string {
  return latin1Slice.call(bytes, 0, bytes.length);
}

/** The inverse of {@link latin1Text}; every char must be below 0x100. */
export function latin1Bytes(text: string): Uint8Array {
  return Buffer.from(text, "latin1");
}

/** Decodes base64 of either alphabet and skips over what is not base64: the caller checks the length of the result. May be pooled memory. */
export function base64BytesLenient(text: string): Uint8Array {
  return Buffer.from(text, "base64");
}

/** Standard alphabet, padded. */
export function base64Text(bytes: Uint8Array): string {
  return base64Slice.call(bytes, 0, bytes.length);
}

/** Unsigned byte order, shorter first on a tie: negative, zero or positive. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  return Buffer.compare(a, b);
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === b.byteLength && Buffer.compare(a, b) === 0;
}

export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
}

/** A copy that owns its memory (not a view of a pooled or socket buffer). */
export function copyBytes(bytes: Uint8Array): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes);
}

/** Uninitialised memory of its own; the caller fills every byte. */
export function allocateBytes(length: number): Uint8Array {
  return Buffer.allocUnsafeSlow(length);
}

/** CRC-32 (IEEE), native. `seed` continues an earlier sum, which is how records are chained. */
export function crc32(bytes: Uint8Array, seed = 0): number {
  return zlibCrc32(bytes, seed);
}
