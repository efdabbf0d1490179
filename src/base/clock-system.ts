import { performance } from "node:perf_hooks";
import type { Clock } from "./clock.ts";

const TIMER_MS_MAX = 2 ** 31 - 1;

/** The process's clock. Timers keep the process alive unless `unref` is asked for. */
export function systemClock(options: { unref?: boolean } = {}): Clock {
  return {
    monotonicMs: () => performance.now(),
    wallMs: () => Date.now(),
    timer(ms, fn) {
      // Node fires a timer of more than 2^31-1 ms after 1 ms, so cap it here, once.
      const handle = setTimeout(fn, Math.min(Math.max(ms, 0), TIMER_MS_MAX));
      if (options.unref === true) handle.unref();
      return { cancel: () => clearTimeout(handle) };
    },
  };
}
