/** The clocks of one machine: monotonic time that may run fast or slow, or stand still with the machine, and wall time that may jump. */
import type { Clock, Timer } from "../../../src/base/clock.ts";
import type { Random } from "../../../src/base/random.ts";
import { Phase, type Process, type Scheduler } from "./scheduler.ts";

/** Some day in 2025. */
const WALL_START_MS = 1_750_000_000_000;

export class MachineClock {
  readonly #scheduler: Scheduler;
  /** At this simulated instant ... */
  #baseAt: number;
  /** ... the monotonic clock showed this. */
  #baseMs: number;
  #rate: number;
  #frozen = false;
  #wallOffsetMs = WALL_START_MS;

  constructor(scheduler: Scheduler, options: { startMs: number; rate: number }) {
    this.#scheduler = scheduler;
    this.#baseAt = scheduler.now;
    this.#baseMs = options.startMs;
    this.#rate = options.rate;
  }

  monotonicMs(): number {
    return this.#frozen ? this.#baseMs : this.#baseMs + (this.#scheduler.now - this.#baseAt) * this.#rate;
  }

  wallMs(): number {
    return this.monotonicMs() + this.#wallOffsetMs;
  }

  /** Simulated ms that pass while the monotonic clock moves on by `ms`. */
  realMs(ms: number): number {
    return ms / this.#rate;
  }

  setRate(rate: number): void {
    this.#rebase();
    this.#rate = rate;
  }

  /** As when a virtual machine is stopped. */
  freeze(): void {
    this.#rebase();
    this.#frozen = true;
  }

  thaw(): void {
    if (!this.#frozen) return;
    this.#frozen = false;
    this.#baseAt = this.#scheduler.now;
  }

  jumpWall(deltaMs: number): void {
    this.#wallOffsetMs += deltaMs;
  }

  /** A machine without a battery: at every boot the same time of day. */
  resetWall(): void {
    this.#wallOffsetMs = WALL_START_MS - this.monotonicMs();
  }

  #rebase(): void {
    this.#baseMs = this.monotonicMs();
    this.#baseAt = this.#scheduler.now;
  }
}

/** What one process sees of its machine's clocks. Its timers end with it. */
export class ProcessClock implements Clock {
  readonly #scheduler: Scheduler;
  readonly #clock: MachineClock;
  readonly #process: Process;
  readonly #random: Random;

  constructor(scheduler: Scheduler, clock: MachineClock, process: Process, random: Random) {
    this.#scheduler = scheduler;
    this.#clock = clock;
    this.#process = process;
    this.#random = random;
  }

  monotonicMs(): number {
    return this.#clock.monotonicMs();
  }

  wallMs(): number {
    return this.#clock.wallMs();
  }

  /** A whole number of milliseconds, and up to one more, as the platform's. */
  timer(ms: number, fn: () => void): Timer {
    const waitMs = Math.max(1, Math.floor(ms));
    return new ProcessTimer(this.#scheduler, this.#clock, this.#process, waitMs + this.#random.below(1024) / 1024, fn);
  }
}

class ProcessTimer implements Timer {
  readonly #scheduler: Scheduler;
  readonly #clock: MachineClock;
  readonly #process: Process;
  readonly #dueMs: number;
  #fn: (() => void) | undefined;
  readonly #fire = (): void => this.#onTime();
  #event: { cancel(): void };

  constructor(scheduler: Scheduler, clock: MachineClock, process: Process, waitMs: number, fn: () => void) {
    this.#scheduler = scheduler;
    this.#clock = clock;
    this.#process = process;
    this.#dueMs = clock.monotonicMs() + waitMs;
    this.#fn = fn;
    this.#event = scheduler.after(clock.realMs(waitMs), this.#fire, process, Phase.timer);
  }

  cancel(): void {
    this.#fn = undefined;
    this.#event.cancel();
  }

  #onTime(): void {
    const fn = this.#fn;
    if (fn === undefined) return;
    // The clock ran slower than thought, or stood still.
    const leftMs = this.#dueMs - this.#clock.monotonicMs();
    if (leftMs > 0.001) {
      this.#event = this.#scheduler.after(this.#clock.realMs(leftMs), this.#fire, this.#process, Phase.timer);
      return;
    }
    this.#fn = undefined;
    fn();
  }
}
