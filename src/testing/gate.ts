/** A member that does nothing for a while, as a stopped process or a suspended machine would. */
import type { Clock, Timer } from "../base/clock.ts";
import type { LocalServices, WatchSession } from "../client/index.ts";

/** Shut, it holds back everything that wants to go through; opened again, it lets it go, in order. */
export class Gate {
  #held: (() => void)[] | undefined;

  get shut(): boolean {
    return this.#held !== undefined;
  }

  close(): void {
    this.#held ??= [];
  }

  open(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const fn of held) fn();
  }

  /** Calls `fn` now, or when the gate is opened. */
  pass(fn: () => void): void {
    if (this.#held === undefined) fn();
    else this.#held.push(fn);
  }

  passed(): Promise<void> {
    return new Promise((resolve) => this.pass(resolve));
  }
}

/** A clock whose timers fire only while the gate is open. Time itself goes on, as it does for a stopped process. */
export function gatedClock(clock: Clock, gate: Gate): Clock {
  return {
    monotonicMs: () => clock.monotonicMs(),
    wallMs: () => clock.wallMs(),
    timer(ms, fn): Timer {
      let cancelled = false;
      const timer = clock.timer(ms, () =>
        gate.pass(() => {
          if (!cancelled) fn();
        }),
      );
      return {
        cancel: () => {
          cancelled = true;
          timer.cancel();
        },
      };
    },
  };
}

interface Context {
  readonly signal?: AbortSignal | undefined;
}
type Call = (request: unknown, context: Context) => unknown;

/** The services of a member as clients outside of it see them: no call goes in and no answer comes out while the gate is shut. */
export function gatedServices(services: LocalServices, gate: Gate): LocalServices {
  const gated: Record<string, object> = {};
  for (const [group, service] of Object.entries(services)) {
    if (group === "watch") continue;
    gated[group] = Object.fromEntries(
      Object.entries(service as Record<string, Call>).map(([name, call]) => [
        name,
        (request: unknown, context: Context) => gatedCall(call, gate, request, context),
      ]),
    );
  }
  return {
    ...(gated as Omit<LocalServices, "watch">),
    watch: { watch: (context) => new GatedSession(() => services.watch.watch(context), gate) },
  } as LocalServices;
}

function gatedCall(call: Call, gate: Gate, request: unknown, context: Context): unknown {
  if (!gate.shut) {
    const answer = call(request, context);
    if (!(answer instanceof Promise)) return answer;
    return unlessAborted(
      answer.finally(() => gate.passed()),
      context.signal,
    );
  }
  return unlessAborted(
    gate.passed().then(() => call(request, context)),
    context.signal,
  );
}

/** What `promise` gives, or the signal's reason if that is aborted before. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

class GatedSession implements WatchSession {
  readonly #gate: Gate;
  #session: WatchSession | undefined;
  #closed = false;
  readonly #close: { promise: Promise<undefined>; resolve: () => void };

  constructor(open: () => WatchSession, gate: Gate) {
    this.#gate = gate;
    let resolve = (): void => undefined;
    const promise = new Promise<undefined>((settle) => {
      resolve = () => settle(undefined);
    });
    this.#close = { promise, resolve };
    if (!gate.shut) this.#session = open();
    else
      gate.pass(() => {
        if (!this.#closed) this.#session = open();
      });
  }

  send(request: Parameters<WatchSession["send"]>[0]): void {
    this.#gate.pass(() => this.#session?.send(request));
  }

  next(): ReturnType<WatchSession["next"]> {
    return Promise.race([this.#next(), this.#close.promise]);
  }

  close(): void {
    this.#closed = true;
    this.#close.resolve();
    this.#gate.pass(() => this.#session?.close());
  }

  async #next(): ReturnType<WatchSession["next"]> {
    await this.#gate.passed();
    const responses = await this.#session?.next();
    await this.#gate.passed();
    return this.#closed ? undefined : responses;
  }
}
