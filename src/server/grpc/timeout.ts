import { malformedTimeout } from "../../api/index.ts";

const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };
/** Eight digits and the unit. */
const LENGTH_MAX = 9;

/**
 * Milliseconds of a `grpc-timeout` field, fractional; 0 has passed already.
 * @throws TransportError with the texts of gRPC's Go library.
 */
export function timeoutMsOf(text: string): number {
  if (text.length < 2) throw malformedTimeout(`transport: timeout string is too short: ${JSON.stringify(text)}`);
  if (text.length > LENGTH_MAX) throw malformedTimeout(`transport: timeout string is too long: ${JSON.stringify(text)}`);
  const unit = UNIT_MS[text.charAt(text.length - 1)];
  if (unit === undefined) throw malformedTimeout(`transport: timeout unit is not recognized: ${JSON.stringify(text)}`);
  let count = 0;
  for (let i = 0; i < text.length - 1; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) {
      throw malformedTimeout(`strconv.ParseUint: parsing ${JSON.stringify(text.slice(0, -1))}: invalid syntax`);
    }
    count = count * 10 + digit;
  }
  return count * unit;
}
