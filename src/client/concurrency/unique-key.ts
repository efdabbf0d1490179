/** Keys that nobody else has, in the form of etcd's own recipes: nanoseconds since 1970, in decimal. */
import type { Clock } from "../../base/clock.ts";

let last = 0n;

/** Ascending inside a process; the last digits are random, because clocks are not as fine as that. */
export function uniqueNanos(clock: Clock): string {
  const now = BigInt(Math.floor(clock.wallMs())) * 1_000_000n + BigInt(Math.floor(Math.random() * 1_000_000));
  last = now > last ? now : last + 1n;
  return String(last);
}
