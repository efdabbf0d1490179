import type { Clock } from "../base/clock.ts";

declare const performance: { now(): number };
declare const setTimeout: (fn: () => void, ms: number) => unknown;
declare const clearTimeout: (handle: unknown) => void;

const TIMER_MS_MAX = 2 ** 31 - 1;

/** The clock of any JavaScript runtime. A pending timer keeps a Node process alive, as it should: somebody waits for it. */
export const portableClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  timer(ms, fn) {
    const handle = setTimeout(fn, Math.min(Math.max(ms, 0), TIMER_MS_MAX));
    return { cancel: () => clearTimeout(handle) };
  },
};
