/** Numbers and booleans as Go's flag package reads them, with its words for what is wrong. */

/** A value that cannot be read. `message` is the part after the colon in etcd's `invalid value "x" for flag -y: message`. */
export class ValueError extends Error {}

export const INTEGER_RANGES = {
  uint: [0, Number.MAX_SAFE_INTEGER],
  uint32: [0, 2 ** 32 - 1],
  uint64: [0, Number.MAX_SAFE_INTEGER],
  int: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  int64: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
} as const;
export type GoInteger = keyof typeof INTEGER_RANGES;

// Base 0 of strconv: 0x, 0b, 0o, a leading 0 for octal, and single underscores between digits.
const DECIMAL = /^(0|[1-9](_?[0-9])*)$/;
const PREFIXED = /^0([xX](_?[0-9a-fA-F])+|[bB](_?[01])+|[oO](_?[0-7])+)$/;
const OLD_OCTAL = /^0(_?[0-7])+$/;

/**
 * An integer in Go's notation. Values beyond 2^53 count as out of range: what is configured here never needs them, and they could not be kept exactly.
 * Throws {@link ValueError}.
 */
export function parseInteger(text: string, type: GoInteger): number {
  // The one unsigned 32-bit flag is a type of its own in etcd, with strconv's words.
  const failure = (what: string): ValueError =>
    new ValueError(type === "uint32" ? `strconv.ParseUint: parsing ${JSON.stringify(text)}: ${what}` : what);
  const unsigned = type.startsWith("u");
  const sign = !unsigned && /^[+-]/.test(text) ? text.charAt(0) : "";
  const digits = text.slice(sign.length);
  if (!DECIMAL.test(digits) && !PREFIXED.test(digits) && !OLD_OCTAL.test(digits)) {
    throw failure(type === "uint32" ? "invalid syntax" : "parse error");
  }
  const bare = digits.replaceAll("_", "");
  const size = BigInt(OLD_OCTAL.test(digits) ? `0o${bare.slice(1)}` : bare);
  const [least, most] = INTEGER_RANGES[type];
  const value = sign === "-" ? -size : size;
  if (value < BigInt(least) || value > BigInt(most)) throw failure("value out of range");
  return Number(value);
}

const TRUE = new Set(["1", "t", "T", "TRUE", "true", "True"]);
const FALSE = new Set(["0", "f", "F", "FALSE", "false", "False"]);

/** Undefined for anything that Go's strconv would refuse. */
export function parseBoolean(text: string): boolean | undefined {
  if (TRUE.has(text)) return true;
  return FALSE.has(text) ? false : undefined;
}
