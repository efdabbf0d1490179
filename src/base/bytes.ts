/**
 * Bytes at the border between the platform and everything else. This file and the `-system` files are the only ones under `base` that touch the platform; the
 * pure roots get these functions and never see `Buffer`. Where there is no Node (the client also runs in browsers and on the edge) the portable twins of
 * `bytes-portable.ts` take their place, chosen once, when this file is loaded.
 */
import type { Buffer as NodeBuffer } from "node:buffer";
import * as portable from "./bytes-portable.ts";

declare const keyBrand: unique symbol;
/** A key as a latin1 string, one char per byte: same order as the bytes, native compare and hash. */
export type KeyString = string & { readonly [keyBrand]: true };

export const EMPTY_BYTES: Uint8Array = new Uint8Array(0);

/** Asked for by name at run time, so that bundlers for other platforms find no import of Node here. */
function builtin<Module>(name: string): Module | undefined {
  const { process } = globalThis as { process?: { getBuiltinModule?: (name: string) => unknown } };
  return process?.getBuiltinModule?.(name) as Module | undefined;
}

const node = builtin<typeof import("node:buffer")>("node:buffer");
const zlib = builtin<typeof import("node:zlib")>("node:zlib");

/** Functions of Node over any Uint8Array; undefined elsewhere. */
const native = node?.Buffer === undefined ? undefined : nativeBytes(node.Buffer, node.isUtf8);

function nativeBytes(Buffer: typeof NodeBuffer, isUtf8: (bytes: Uint8Array) => boolean) {
  /** Works on any Uint8Array and spares the intermediate Buffer, which costs as much as the conversion. */
  const { latin1Slice, base64Slice } = Buffer.prototype as unknown as Record<
    "latin1Slice" | "base64Slice",
    (this: Uint8Array, from: number, to: number) => string
  >;
  const view = (bytes: Uint8Array): NodeBuffer =>
    bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    latin1TextIn: (bytes: Uint8Array, from: number, to: number): string => latin1Slice.call(bytes, from, to),
    latin1Bytes: (text: string): Uint8Array => Buffer.from(text, "latin1"),
    utf8Bytes: (text: string): Uint8Array => Buffer.from(text, "utf8"),
    utf8Text: (bytes: Uint8Array): string => view(bytes).toString("utf8"),
    utf8TextStrict: (bytes: Uint8Array): string | undefined => (isUtf8(bytes) ? view(bytes).toString("utf8") : undefined),
    hexText: (bytes: Uint8Array): string => view(bytes).toString("hex"),
    base64Text: (bytes: Uint8Array): string => base64Slice.call(bytes, 0, bytes.length),
    base64BytesLenient: (text: string): Uint8Array => Buffer.from(text, "base64"),
    compareBytes: (a: Uint8Array, b: Uint8Array): number => Buffer.compare(a, b),
    concatBytes: (parts: readonly Uint8Array[]): Uint8Array => Buffer.concat(parts),
    allocate: (length: number): Uint8Array => Buffer.allocUnsafeSlow(length),
  };
}

const latin1TextIn = native?.latin1TextIn ?? portable.latin1TextIn;

export function keyStringOf(bytes: Uint8Array): KeyString {
  return latin1TextIn(bytes, 0, bytes.length) as KeyString;
}

/** The key in `bytes[from, to)`. */
export const keyStringIn = latin1TextIn as (bytes: Uint8Array, from: number, to: number) => KeyString;

/** The inverse of {@link latin1Text}; every char must be below 0x100. */
export const latin1Bytes: (text: string) => Uint8Array = native?.latin1Bytes ?? portable.latin1Bytes;

/** A fresh copy of the key's bytes. */
export function bytesOfKey(key: KeyString): Uint8Array {
  return latin1Bytes(key);
}

export const utf8Bytes: (text: string) => Uint8Array = native?.utf8Bytes ?? portable.utf8Bytes;

/** Lossy for invalid UTF-8 (U+FFFD); never use it for keys. */
export const utf8Text: (bytes: Uint8Array) => string = native?.utf8Text ?? portable.utf8Text;

/** The text, or undefined if `bytes` is not valid UTF-8. A byte order mark is kept. */
export const utf8TextStrict: (bytes: Uint8Array) => string | undefined = native?.utf8TextStrict ?? portable.utf8TextStrict;

export const hexText: (bytes: Uint8Array) => string = native?.hexText ?? portable.hexText;

/** One char per byte, so that indexes into the text are indexes into the bytes. */
export function latin1Text(bytes: Uint8Array): string {
  return latin1TextIn(bytes, 0, bytes.length);
}

/** Decodes base64 of either alphabet and skips over what is not base64: the caller checks the length of the result. May be pooled memory. */
export const base64BytesLenient: (text: string) => Uint8Array = native?.base64BytesLenient ?? portable.base64BytesLenient;

/** Standard alphabet, padded. */
export const base64Text: (bytes: Uint8Array) => string = native?.base64Text ?? portable.base64Text;

/** Unsigned byte order, shorter first on a tie: negative, zero or positive. */
export const compareBytes: (a: Uint8Array, b: Uint8Array) => number = native?.compareBytes ?? portable.compareBytes;

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === b.byteLength && compareBytes(a, b) === 0;
}

const joinBytes = native?.concatBytes ?? portable.concatBytes;

export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? (parts[0] as Uint8Array) : joinBytes(parts);
}

/** A copy that owns its memory (not a view of a pooled or socket buffer). */
export function copyBytes(bytes: Uint8Array): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes);
}

/** Uninitialised memory of its own; the caller fills every byte. */
export const allocateBytes: (length: number) => Uint8Array = native?.allocate ?? ((length) => new Uint8Array(length));

const nativeCrc32 = zlib?.crc32 ?? portable.crc32;

/** CRC-32 (IEEE), native. `seed` continues an earlier sum, which is how records are chained. */
export function crc32(bytes: Uint8Array, seed = 0): number {
  // zlib takes the null pointer that empty memory may have for "start anew" and answers 0.
  return bytes.byteLength === 0 ? seed : nativeCrc32(bytes, seed);
}
