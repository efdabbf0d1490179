/** While a simulation runs, the globals of the runtime that tell time and chance are its own, so that code which uses them is part of it. */
import type { Clock, Timer } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";

const realSetImmediate = setImmediate;

/** Lets everything happen that needs no time. */
export function realTurn(): Promise<void> {
  return new Promise((resolve) => {
    realSetImmediate(resolve);
  });
}

/** What `setTimeout` gives in Node, as far as programs use it. */
class SimTimeout {
  readonly #clock: Clock;
  readonly #ms: number;
  readonly #fn: () => void;
  readonly #repeated: boolean;
  #timer: Timer | undefined;

  constructor(clock: Clock, ms: number, fn: () => void, repeated: boolean) {
    this.#clock = clock;
    this.#ms = ms;
    this.#fn = fn;
    this.#repeated = repeated;
    this.refresh();
  }

  refresh(): this {
    this.#timer?.cancel();
    this.#timer = this.#clock.timer(this.#ms, () => {
      this.#timer = undefined;
      if (this.#repeated) this.refresh();
      this.#fn();
    });
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }

  close(): this {
    this.#timer?.cancel();
    this.#timer = undefined;
    return this;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Puts the simulation's time and chance in the place of the runtime's. Returns how to undo that. */
export function takeGlobals(clock: Clock, random: Random): () => void {
  const scope = globalThis as unknown as Record<string, unknown>;
  const real = { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, clearImmediate };
  const { random: realRandom } = Math;
  const { now: realDateNow } = Date;
  const { now: realPerformance } = performance;
  const start = (fn: (...args: unknown[]) => void, ms: unknown, args: unknown[], repeated: boolean): SimTimeout =>
    new SimTimeout(clock, Math.max(1, Number(ms) || 0), () => fn(...args), repeated);
  const stop =
    (inner: (handle: never) => void) =>
    (handle: unknown): void => {
      if (handle instanceof SimTimeout) handle.close();
      else inner(handle as never);
    };
  const replaced: Readonly<Record<keyof typeof real, unknown>> = {
    setTimeout: (fn: () => void, ms?: unknown, ...args: unknown[]) => start(fn, ms, args, false),
    setInterval: (fn: () => void, ms?: unknown, ...args: unknown[]) => start(fn, ms, args, true),
    setImmediate: (fn: (...args: unknown[]) => void, ...args: unknown[]) => new SimTimeout(clock, 0, () => fn(...args), false),
    clearTimeout: stop(real.clearTimeout),
    clearInterval: stop(real.clearInterval),
    clearImmediate: stop(real.clearImmediate),
  };
  Object.assign(scope, replaced);
  Math.random = () => (random.below(0x4000000) * 0x8000000 + random.below(0x8000000)) / 2 ** 53;
  Date.now = () => clock.wallMs();
  performance.now = () => clock.monotonicMs();
  return () => {
    Object.assign(scope, real);
    Math.random = realRandom;
    Date.now = realDateNow;
    performance.now = realPerformance;
  };
}
