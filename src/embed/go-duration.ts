/**
 * Durations as operators type them for etcd: Go's notation ("300ms", "1h30m", "1.5s"). Inside holdfast a duration is a number of milliseconds; nanoseconds
 * appear only here and in configuration files.
 */

const NANOSECONDS_PER: Readonly<Record<string, bigint>> = {
  ns: 1n,
  us: 1_000n,
  "\u00b5s": 1_000n, // micro sign
  "\u03bcs": 1_000n, // Greek mu
  ms: 1_000_000n,
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
};

const INT64_MAX = 2n ** 63n - 1n;
const TERM = /^(\d*)(\.(\d*))?/;
const UNIT = /^[^\d.]+/;

/** Why a text is no duration; the message is Go's. */
export class DurationError extends Error {}

/**
 * Nanoseconds of a duration in Go's notation. Throws {@link DurationError} with Go's text for anything else ("5" has no unit, so it is refused; "0" is not).
 */
export function parseDurationNs(text: string): bigint {
  const invalid = (): DurationError => new DurationError(`time: invalid duration ${JSON.stringify(text)}`);
  let rest = text;
  const negative = rest.startsWith("-");
  if (negative || rest.startsWith("+")) rest = rest.slice(1);
  if (rest === "0") return 0n;
  if (rest === "") throw invalid();
  const limit = negative ? INT64_MAX + 1n : INT64_MAX;
  let total = 0n;
  while (rest !== "") {
    const [term, whole = "", , fraction = ""] = TERM.exec(rest) ?? [""];
    if (whole === "" && fraction === "") throw invalid();
    rest = rest.slice(term.length);
    const unit = UNIT.exec(rest)?.[0];
    if (unit === undefined) throw new DurationError(`time: missing unit in duration ${JSON.stringify(text)}`);
    const scale = NANOSECONDS_PER[unit];
    if (scale === undefined) throw new DurationError(`time: unknown unit ${JSON.stringify(unit)} in duration ${JSON.stringify(text)}`);
    rest = rest.slice(unit.length);
    // A fraction of a nanosecond is cut, as Go does.
    total +=
      BigInt(whole === "" ? "0" : whole) * scale + (BigInt(fraction === "" ? "0" : fraction) * scale) / 10n ** BigInt(fraction.length);
    if (total > limit) throw invalid();
  }
  return negative ? -total : total;
}

/** Milliseconds (fractional below 1 ms) of a duration in Go's notation. Throws {@link DurationError}. */
export function parseDurationMs(text: string): number {
  return Number(parseDurationNs(text)) / 1e6;
}

/** Go's way to print a duration: "1m0s", "1.5s", "300ms", "0s". */
export function formatDurationMs(milliseconds: number): string {
  const ns = BigInt(Math.round(milliseconds * 1e6));
  if (ns === 0n) return "0s";
  const sign = ns < 0n ? "-" : "";
  const size = ns < 0n ? -ns : ns;
  if (size < 1_000n) return `${sign}${size}ns`;
  if (size < 1_000_000n) return `${sign}${decimal(size, 1_000n)}\u00b5s`;
  if (size < 1_000_000_000n) return `${sign}${decimal(size, 1_000_000n)}ms`;
  const minutes = size / 60_000_000_000n;
  const seconds = `${decimal(size % 60_000_000_000n, 1_000_000_000n)}s`;
  if (minutes === 0n) return sign + seconds;
  const hours = minutes / 60n;
  return hours === 0n ? `${sign}${minutes}m${seconds}` : `${sign}${hours}h${minutes % 60n}m${seconds}`;
}

/** `value / scale` without trailing zeros; `scale` is a power of ten. */
function decimal(value: bigint, scale: bigint): string {
  const fraction = String(value % scale).padStart(String(scale).length - 1, "0");
  const digits = fraction.replace(/0+$/, "");
  return digits === "" ? String(value / scale) : `${value / scale}.${digits}`;
}
