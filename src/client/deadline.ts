/** One end for a call: its own signal, its deadline, or the end of the client, whichever comes first. */
import { rpcError } from "../api/index.ts";
import type { Clock, Timer } from "../base/clock.ts";
import type { EtcdError } from "../base/errors.ts";
import type { Ending } from "./ending.ts";
import { canceledError } from "./errors.ts";

/** What every call that waits can be given. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds after which the call rejects with `deadline-exceeded`. Default: the client's `timeoutMs`; 0: none. */
  readonly timeoutMs?: number | undefined;
  /**
   * What to do when an attempt fails. "safe" (the default): repeat what only reads, and what certainly did not reach the cluster. "always": repeat in any case,
   * so a write may take place twice. "never": tell at once.
   */
  readonly retry?: "safe" | "always" | "never" | undefined;
  /** The member refuses the call at once while it knows no leader, instead of waiting for one. */
  readonly requireLeader?: boolean | undefined;
}

export class Deadline {
  /** Aborted with the error that ends the call. */
  readonly signal: AbortSignal;
  readonly #clock: Clock;
  readonly #controller = new AbortController();
  readonly #endsMs: number;
  readonly #timer: Timer | undefined;
  readonly #source: AbortSignal | undefined;
  readonly #release: readonly (() => void)[];

  /** @param timeoutMs 0 or less: no deadline. Call {@link done} in any case. */
  constructor(clock: Clock, timeoutMs: number, source: AbortSignal | undefined, ...endings: readonly Ending[]) {
    this.#clock = clock;
    this.signal = this.#controller.signal;
    this.#source = source;
    this.#endsMs = timeoutMs > 0 ? clock.monotonicMs() + timeoutMs : Number.POSITIVE_INFINITY;
    this.#timer = timeoutMs > 0 ? clock.timer(timeoutMs, () => this.#controller.abort(rpcError("deadline-exceeded"))) : undefined;
    if (source?.aborted === true) this.#onAbort();
    else source?.addEventListener("abort", this.#onAbort);
    for (const { error } of endings) if (error !== undefined) this.#controller.abort(error);
    this.#release = endings.map((ending) => ending.onEnd((error) => this.#controller.abort(error)));
  }

  /** Undefined: none. */
  get leftMs(): number | undefined {
    return this.#endsMs === Number.POSITIVE_INFINITY ? undefined : Math.max(0, this.#endsMs - this.#clock.monotonicMs());
  }

  /** The error that ended the call, if it has ended. */
  get error(): EtcdError | undefined {
    return this.signal.aborted ? canceledError(this.signal) : undefined;
  }

  throwIfOver(): void {
    const { error } = this;
    if (error !== undefined) throw error;
  }

  /** Resolves after `ms`; rejects when the call ends before. */
  pause(ms: number): Promise<void> {
    return pause(this.#clock, ms, this.signal);
  }

  /** Lets go of the timer and the signals. */
  done(): void {
    this.#timer?.cancel();
    this.#source?.removeEventListener("abort", this.#onAbort);
    for (const release of this.#release) release();
  }

  readonly #onAbort = (): void => this.#controller.abort(canceledError(this.#source as AbortSignal));
}

/** A signal that is aborted with the first of `signals`, for its reason. Call `done` when nobody listens any more. */
export function linked(...signals: readonly (AbortSignal | undefined)[]): { readonly signal: AbortSignal; done(): void } {
  const controller = new AbortController();
  const releases: (() => void)[] = [];
  for (const signal of signals) {
    if (signal === undefined) continue;
    const onAbort = (): void => controller.abort(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    releases.push(() => signal.removeEventListener("abort", onAbort));
  }
  return {
    signal: controller.signal,
    done: () => {
      for (const release of releases) release();
    },
  };
}

/** Resolves after `ms`; rejects with the signal's error when that is aborted before. */
export function pause(clock: Clock, ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(canceledError(signal));
      return;
    }
    const onAbort = (): void => {
      timer.cancel();
      reject(canceledError(signal as AbortSignal));
    };
    const timer = clock.timer(ms, () => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    });
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** What `promise` gives, or the signal's error if that is aborted before. The promise goes on; what becomes of it then is of no interest. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(canceledError(signal));
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    promise.then(
      (value) => {
        signal.removeEventListener("abort", onAbort);
        resolve(value);
      },
      (error: unknown) => {
        signal.removeEventListener("abort", onAbort);
        reject(error);
      },
    );
  });
}
