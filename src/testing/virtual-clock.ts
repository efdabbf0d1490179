/** Time that runs as usual and can also be put forward, so that leases end and elections happen when a test says so. */
import type { Clock, Timer } from "../base/clock.ts";
import { systemClock } from "../base/clock-system.ts";

const STEP_MS = 20;
const STEPS_MAX = 5000;

interface Alarm {
  readonly dueMs: number;
  readonly fn: () => void;
  real: Timer | undefined;
}

/**
 * Real time plus what it has been put forward by. Give it to a member (`startEtcd({ clock })`) and its client, and `await clock.advance(10_000)` makes both believe
 * that ten seconds have passed.
 */
export class VirtualClock implements Clock {
  readonly #real: Clock = systemClock();
  readonly #alarms = new Set<Alarm>();
  #aheadMs = 0;
  #advancing: Promise<void> = Promise.resolve();

  monotonicMs(): number {
    return this.#real.monotonicMs() + this.#aheadMs;
  }

  wallMs(): number {
    return this.#real.wallMs() + this.#aheadMs;
  }

  timer(ms: number, fn: () => void): Timer {
    const alarm: Alarm = { dueMs: this.monotonicMs() + Math.max(0, ms), fn, real: undefined };
    this.#alarms.add(alarm);
    this.#arm(alarm);
    return {
      cancel: () => {
        alarm.real?.cancel();
        this.#alarms.delete(alarm);
      },
    };
  }

  /**
   * Puts time forward, in steps of 20 ms (of a five-thousandth of the whole, if that is more) with turns of the event loop in between: so members hear each other
   * in time and their leader stays. Resolves when all timers up to there have fired; what they set in motion may still be under way.
   */
  advance(ms: number): Promise<void> {
    this.#advancing = this.#advancing.then(() => this.#advance(ms));
    return this.#advancing;
  }

  async #advance(ms: number): Promise<void> {
    const stepMs = Math.max(STEP_MS, ms / STEPS_MAX);
    for (let leftMs = ms; leftMs > 0; leftMs -= stepMs) {
      this.#aheadMs += Math.min(stepMs, leftMs);
      this.#fireDue();
      // Two turns: one for what the timers started, one for the answers to it.
      await turn();
      await turn();
    }
  }

  #fireDue(): void {
    const nowMs = this.monotonicMs();
    const due = [...this.#alarms].filter((alarm) => alarm.dueMs <= nowMs).sort((a, b) => a.dueMs - b.dueMs);
    // One of them may cancel another.
    for (const alarm of due) if (this.#alarms.has(alarm)) this.#fire(alarm);
  }

  #arm(alarm: Alarm): void {
    alarm.real = this.#real.timer(Math.max(0, alarm.dueMs - this.monotonicMs()), () => {
      // Timers may be early by a fraction, and long waits are cut.
      if (alarm.dueMs - this.monotonicMs() >= 1) this.#arm(alarm);
      else this.#fire(alarm);
    });
  }

  #fire(alarm: Alarm): void {
    alarm.real?.cancel();
    this.#alarms.delete(alarm);
    alarm.fn();
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
