/** A pending timer. */
export interface Timer {
  /** Forgets the timer; a no-op when it has fired. */
  cancel(): void;
}

/** The only source of time. Implementations: `clock-system.ts` and the simulator's. */
export interface Clock {
  /** Milliseconds (fractional) from an arbitrary start; never goes backward, goes on during SIGSTOP and stalls. */
  monotonicMs(): number;
  /** Milliseconds since the Unix epoch; may jump. Only for ids, logs and metrics, never for deadlines. */
  wallMs(): number;
  /** Calls `fn` once, `ms` from now or later. `ms` up to 2^31-1; longer waits are cut to that, so re-check on wake-up. */
  timer(ms: number, fn: () => void): Timer;
}
