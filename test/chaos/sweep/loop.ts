/**
 * Simulated time for one process or several: it jumps to the next timer when nothing else is left to do, so nobody ever waits. What a process deferred and what its timers set
 * off runs in turns of the real event loop, one at a time, because only they let everything happen that hangs on promises. To end a process, drop its loop.
 */
import type { Clock, Timer } from "../../../src/base/clock.ts";

/** Some day in 2025. */
const WALL_START_MS = 1_750_000_000_000;

/** What a turn takes, so that one who defers again and again does not stop the time. */
const STEP_MS = 0.01;

interface Alarm {
  readonly dueMs: number;
  readonly sequence: number;
  fn: (() => void) | undefined;
}

/** Nothing is left that could ever happen, or what was waited for takes too long. */
export class StuckError extends Error {
  constructor(what: string) {
    super(what);
    this.name = "StuckError";
  }
}

export class Loop {
  #nowMs = 1000;
  #sequence = 0;
  #alarms: Alarm[] = [];
  #deferred: (() => void)[] = [];

  readonly clock: Clock = {
    monotonicMs: () => this.#nowMs,
    wallMs: () => WALL_START_MS + this.#nowMs,
    timer: (ms, fn) => this.#timer(ms, fn),
  };

  readonly defer = (fn: () => void): void => {
    this.#deferred.push(fn);
  };

  after(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#timer(ms, resolve));
  }

  /** Lets things happen until `done`. `between` is called when everything that the last step set off has happened. */
  async run(done: () => boolean, options: { withinMs?: number; between?: (() => Promise<void>) | undefined } = {}): Promise<void> {
    const { between, withinMs = 60_000 } = options;
    const end = this.#nowMs + withinMs;
    for (;;) {
      await turn();
      if (between !== undefined) await between();
      if (done()) return;
      this.#nowMs += STEP_MS;
      if (this.#nowMs > end) throw new StuckError(`not within ${withinMs} simulated ms`);
      const [alarm] = this.#alarms;
      const isDue = alarm !== undefined && alarm.dueMs <= this.#nowMs;
      const next = isDue ? undefined : this.#deferred.shift();
      if (next !== undefined) {
        next();
        continue;
      }
      if (alarm === undefined) throw new StuckError("nothing happens any more");
      this.#alarms.shift();
      this.#nowMs = Math.max(this.#nowMs, alarm.dueMs);
      alarm.fn?.();
    }
  }

  /** The outcome of `work`, which happens in this loop. */
  async finish<T>(work: Promise<T>, options: { withinMs?: number; between?: (() => Promise<void>) | undefined } = {}): Promise<T> {
    let settled = false;
    const note = (): void => {
      settled = true;
    };
    work.then(note, note);
    await this.run(() => settled, options);
    return work;
  }

  #timer(ms: number, fn: () => void): Timer {
    const alarm: Alarm = { dueMs: this.#nowMs + Math.max(0, ms), sequence: this.#sequence++, fn };
    let at = this.#alarms.length;
    while (at > 0 && (this.#alarms[at - 1] as Alarm).dueMs > alarm.dueMs) at -= 1;
    this.#alarms.splice(at, 0, alarm);
    return {
      cancel: () => {
        alarm.fn = undefined;
        const index = this.#alarms.indexOf(alarm);
        if (index >= 0) this.#alarms.splice(index, 1);
      },
    };
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
