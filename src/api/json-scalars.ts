/** Integers and bytes as Go's protojson reads them out of JSON. Texts are as they stand in the body, or unescaped. */
import { base64BytesLenient, EMPTY_BYTES } from "../base/bytes.ts";
import type { FieldPlan } from "./json-plan.ts";
import type { FieldDescriptor } from "./wire/message-type.ts";

/** Chars outside ASCII. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: the whole of ASCII is meant
export const NOT_ASCII = /[^\x00-\x7f]/;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
/** What Go's strings.TrimSpace takes away. */
const SPACE_AT_END =
  /^[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]|[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]$/;

export function isDigit(c: number): boolean {
  return c >= 0x30 && c <= 0x39;
}

/** The JSON number that begins at `at`, if there is one. */
export function numberAt(text: string, at: number): string | undefined {
  NUMBER.lastIndex = at;
  return NUMBER.exec(text)?.[0];
}

/** The number in a string: Go takes the first token of it and does not look behind that. */
export function quotedNumber(text: string): string | undefined {
  if (text === "" || SPACE_AT_END.test(text)) return undefined;
  const number = numberAt(text, 0);
  return number === undefined || /^[-+._0-9a-zA-Z]/.test(text.slice(number.length)) ? undefined : number;
}

/** Digits which a number holds without loss. */
export const SAFE_DIGITS = 15;

/** `value`, or undefined if the field cannot hold it. */
export function withinNumber(plan: FieldPlan, value: number): number | undefined {
  return value >= plan.minimumNumber && value <= plan.maximumNumber ? value : undefined;
}

/** A JSON number as an integer, or undefined if it is none or the field cannot hold it. */
export function integerWithin(plan: FieldPlan, number: string): bigint | undefined {
  const digits = normalizedInteger(number);
  if (digits === undefined) return undefined;
  const value = BigInt(digits);
  return value >= plan.minimum && value <= plan.maximum ? value : undefined;
}

/** Go's largest exponent here, that of a 32-bit integer. */
const EXPONENT_MAX = 2147483647;
/** A uint64 has no more. */
const DIGITS_MAX = 20;

/**
 * The digits of a JSON number that is an integer in spite of a fraction or exponent; undefined if it is none. Follows protojson, also in
 * what it refuses although it is an integer (`0.<22 zeros>1e23`: too many digits).
 */
function normalizedInteger(number: string): string | undefined {
  const parts = /^(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$/.exec(number);
  if (parts === null) return undefined;
  const sign = parts[1] as string;
  const whole = parts[2] === "0" ? "" : (parts[2] as string);
  const fraction = trimZeros(parts[3] ?? "");
  if (whole === "" && fraction === "") return "0";
  const exponent = Number(parts[4] ?? "0");
  if (exponent > EXPONENT_MAX || exponent < -EXPONENT_MAX - 1) return undefined;
  let digits: string;
  if (exponent >= 0) {
    if (fraction.length > exponent || whole.length + exponent > DIGITS_MAX) return undefined;
    digits = whole + fraction.padEnd(exponent, "0");
  } else {
    const kept = whole.length + exponent;
    if (fraction !== "" || kept <= 0 || /[^0]/.test(whole.slice(kept))) return undefined;
    digits = whole.slice(0, kept);
  }
  return digits.length > DIGITS_MAX ? undefined : sign + digits;
}

/** Without a regular expression: `0+$` takes quadratic time on long runs of zeros. */
function trimZeros(digits: string): string {
  let end = digits.length;
  while (end > 0 && digits.charCodeAt(end - 1) === 0x30) end -= 1;
  return digits.slice(0, end);
}

/** The integer in the form the field has: bigint for ids, saturated number for counters. */
export function integerOf(field: FieldDescriptor, value: number | bigint): number | bigint {
  if (field.kind === "int32" || field.kind === "uint32") return Number(value);
  if (!field.counter) return BigInt(value);
  if (typeof value === "number") return value;
  if (value > MAX_SAFE) return Number.MAX_SAFE_INTEGER;
  return value < -MAX_SAFE ? Number.MIN_SAFE_INTEGER : Number(value);
}

const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);

/** Go's base64 as protojson uses it; undefined if that refuses the text. */
export function base64Bytes(text: string): Uint8Array | undefined {
  // The platform would look at the low byte of each char only.
  if (NOT_ASCII.test(text)) return undefined;
  return base64PlainBytes(text) ?? base64WithLineEnds(text);
}

/** The same for a text that has nothing but base64 in it. */
export function base64PlainBytes(text: string): Uint8Array | undefined {
  if (text === "") return EMPTY_BYTES;
  const url = text.includes("-") || text.includes("_");
  if (url && (text.includes("+") || text.includes("/"))) return undefined;
  let digits = text.length;
  if (digits % 4 === 0) {
    if (text.charCodeAt(digits - 1) === 0x3d) digits -= text.charCodeAt(digits - 2) === 0x3d ? 2 : 1;
  }
  if (digits % 4 !== 1) {
    const bytes = base64BytesLenient(text);
    // The platform skips what is not base64, so the right length says that there was nothing else.
    if (bytes.length === Math.floor((digits * 3) / 4)) return bytes;
  }
  return undefined;
}

/** Line ends may stand anywhere, but count in the length that decides whether padding is due. */
function base64WithLineEnds(text: string): Uint8Array | undefined {
  const padded = text.length % 4 === 0;
  let digits = text.replace(/[\r\n]/g, "");
  const url = /[-_]/.test(digits);
  if (digits.length === text.length || (url && /[+/]/.test(digits))) return undefined;
  if (padded) {
    if (digits.length % 4 !== 0) return undefined;
    digits = digits.replace(/={1,2}$/, "");
  }
  if (digits.length % 4 === 1 || !/^[-_+/0-9A-Za-z]*$/.test(digits)) return undefined;
  return base64BytesLenient(digits);
}
