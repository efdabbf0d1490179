/**
 * The functions of `bytes.ts` where there is no Node: browsers, edge runtimes. Only what every JavaScript runtime has is used, so the client runs there too;
 * in Node these serve as the plain twin that the fast ones are compared with.
 */

/** The parts of the platform that are the same everywhere; the pure roots are checked without any platform's types. */
declare const TextEncoder: new () => { encode(text: string): Uint8Array };
declare const TextDecoder: new (label: string, options: { fatal: boolean; ignoreBOM: boolean }) => { decode(bytes: Uint8Array): string };

/** Arguments of one call are limited; long texts are put together from pieces. */
const PIECE = 0x2000;

const encoder = new TextEncoder();
const lossyDecoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });
const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export function latin1TextIn(bytes: Uint8Array, from: number, to: number): string {
  let text = "";
  for (let at = from; at < to; at += PIECE) text += String.fromCharCode(...bytes.subarray(at, Math.min(at + PIECE, to)));
  return text;
}

export function latin1Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return bytes;
}

export function utf8Bytes(text: string): Uint8Array {
  return encoder.encode(text);
}

export function utf8Text(bytes: Uint8Array): string {
  return lossyDecoder.decode(bytes);
}

export function utf8TextStrict(bytes: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    return undefined; // A TypeError, which here can only mean: not UTF-8.
  }
}

export function hexText(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += (byte < 16 ? "0" : "") + byte.toString(16);
  return text;
}

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/** By char code: the digit's value, or -1. Both alphabets. */
const BASE64_VALUES = new Int8Array(128).fill(-1);
for (let i = 0; i < 64; i += 1) BASE64_VALUES[BASE64.charCodeAt(i)] = i;
BASE64_VALUES[0x2d] = 62;
BASE64_VALUES[0x5f] = 63;
const PADDING = 0x3d;

export function base64Text(bytes: Uint8Array): string {
  const { length } = bytes;
  let text = "";
  for (let i = 0; i < length; i += 3) {
    const a = bytes[i] as number;
    const b = i + 1 < length ? (bytes[i + 1] as number) : 0;
    const c = i + 2 < length ? (bytes[i + 2] as number) : 0;
    text += BASE64.charAt(a >> 2) + BASE64.charAt(((a & 3) << 4) | (b >> 4));
    text += i + 1 < length ? BASE64.charAt(((b & 15) << 2) | (c >> 6)) : "=";
    text += i + 2 < length ? BASE64.charAt(c & 63) : "=";
  }
  return text;
}

export function base64BytesLenient(text: string): Uint8Array {
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4) + 1);
  let length = 0;
  let bits = 0;
  let held = 0;
  for (let i = 0; i < text.length; i += 1) {
    const code = text.charCodeAt(i);
    if (code === PADDING) break;
    const value = code < 128 ? (BASE64_VALUES[code] as number) : -1;
    if (value < 0) continue;
    held = ((held << 6) | value) & 0xfff;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes[length++] = held >> bits;
  }
  return bytes.subarray(0, length);
}

export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const common = Math.min(a.length, b.length);
  for (let i = 0; i < common; i += 1) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) return difference < 0 ? -1 : 1;
  }
  return Math.sign(a.length - b.length);
}

export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const CRC32_POLYNOMIAL = 0xedb88320;
const CRC32_TABLE = new Uint32Array(256).map((_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = (crc & 1) === 1 ? (crc >>> 1) ^ CRC32_POLYNOMIAL : crc >>> 1;
  return crc;
});

export function crc32(bytes: Uint8Array, seed: number): number {
  let crc = ~seed;
  for (const byte of bytes) crc = (CRC32_TABLE[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
  return ~crc >>> 0;
}
