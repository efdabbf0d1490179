/** Keys that nobody else has, in the form of etcd's own recipes: nanoseconds since 1970, in decimal. */
import type { Clock } from "../../base/clock.ts";

/** What each clock gave last. */
const lastOf = new WeakMap<Clock, bigint>();

/** Ascending for each clock; the last digits are random, because clocks are not as fine as that. */
export function uniqueNanos(clock: Clock): string {
  const now = BigInt(Math.floor(clock.wallMs())) * 1_000_000n + BigInt(Math.floor(Math.random() * 1_000_000));
  const last = lastOf.get(clock) ?? 0n;
  const unique = now > last ? now : last + 1n;
  lastOf.set(clock, unique);
  return String(unique);
}
