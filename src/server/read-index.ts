/**
 * Linearizable reads: all readers that wait share one round, whose context is never used twice (failure catalogue BR15). A reader that arrives while a round
 * is under way joins the next one, because the running round may have been confirmed before it asked.
 */
import { rpcError } from "../api/rpc-errors.ts";
import type { Clock, Timer } from "../base/clock.ts";
import type { EtcdError } from "../base/errors.ts";
import type { LogIndex } from "../base/ids.ts";
import type { ReadState } from "../raft/index.ts";
import { abortError } from "./proposals.ts";
import type { RequestIdGenerator } from "./request-id.ts";

export interface ReadBarrierOptions {
  readonly clock: Clock;
  readonly ids: RequestIdGenerator;
  readonly requestTimeoutMs: number;
  /** Readers that may wait at once. */
  readonly waitersMax: number;
  requestReadIndex(context: bigint): void;
  appliedIndex(): LogIndex;
  onSlow?: () => void;
  onFailed?: () => void;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: EtcdError) => void;
  detach: (() => void) | undefined;
  done: boolean;
}

interface Round {
  readonly waiters: Waiter[];
  /** Any of the contexts sent for this round is good: all were sent after its last reader had arrived. */
  readonly contexts: bigint[];
  readonly startedMs: number;
  index: LogIndex | undefined;
  /** While confirmed: ends the wait for the applier. */
  timer: Timer | undefined;
}

const RETRY_MS = 500;

export class ReadBarrier {
  readonly #options: ReadBarrierOptions;
  #next: Waiter[] = [];
  /** Asked, not confirmed. */
  #round: Round | undefined;
  /** Confirmed, waiting for the applier; ascending by index. */
  #confirmed: Round[] = [];
  #timer: Timer | undefined;
  #stopped: EtcdError | undefined;
  #waiting = 0;

  constructor(options: ReadBarrierOptions) {
    this.#options = options;
  }

  /** Resolves when the local state includes everything that was committed when the call was made. */
  wait(signal?: AbortSignal): Promise<void> {
    if (this.#stopped !== undefined) return Promise.reject(this.#stopped);
    if (signal?.aborted === true) return Promise.reject(abortError(signal));
    if (this.#waiting >= this.#options.waitersMax) return Promise.reject(rpcError("too-many-requests"));
    return new Promise<void>((resolve, reject) => {
      const waiter: Waiter = { resolve, reject, detach: undefined, done: false };
      if (signal !== undefined) {
        const onAbort = (): void => this.#finish(waiter, abortError(signal));
        signal.addEventListener("abort", onAbort, { once: true });
        waiter.detach = () => signal.removeEventListener("abort", onAbort);
      }
      this.#waiting++;
      this.#next.push(waiter);
      if (this.#round === undefined) this.#begin();
    });
  }

  onReadStates(states: readonly ReadState[]): void {
    for (const state of states) {
      const round = this.#round;
      if (round === undefined || !round.contexts.includes(state.context)) {
        this.#options.onSlow?.();
        continue;
      }
      round.index = state.index;
      this.#round = undefined;
      this.#timer?.cancel();
      this.#confirmed.push(round);
      this.onApplied();
      if (this.#confirmed.includes(round)) {
        round.timer = this.#options.clock.timer(this.#options.requestTimeoutMs, () => this.#expireConfirmed(round));
      }
      if (this.#next.length > 0) this.#begin();
    }
  }

  /** The applier has moved on. */
  onApplied(): void {
    if (this.#confirmed.length === 0) return;
    const applied = this.#options.appliedIndex();
    this.#confirmed = this.#confirmed.filter((round) => {
      if ((round.index as LogIndex) > applied) return true;
      round.timer?.cancel();
      for (const waiter of round.waiters) this.#finish(waiter);
      return false;
    });
  }

  /** Leadership moved: a round that waits for confirmation may never get it, and its readers are told so at once (cluster-behaviour.md section 6). */
  onLeaderChanged(): void {
    const round = this.#round;
    if (round === undefined) return;
    this.#round = undefined;
    this.#timer?.cancel();
    this.#options.onFailed?.();
    for (const waiter of round.waiters) this.#finish(waiter, rpcError("leader-changed"));
    if (this.#next.length > 0) this.#begin();
  }

  /** The leader can answer now (it has committed in its term): ask again without waiting for the retry. */
  retryNow(): void {
    if (this.#round !== undefined) this.#ask(this.#round);
  }

  stop(error: EtcdError): void {
    if (this.#stopped !== undefined) return;
    this.#stopped = error;
    this.#timer?.cancel();
    for (const round of this.#confirmed) round.timer?.cancel();
    const all = [...this.#next, ...(this.#round?.waiters ?? []), ...this.#confirmed.flatMap((round) => round.waiters)];
    this.#next = [];
    this.#round = undefined;
    this.#confirmed = [];
    for (const waiter of all) this.#finish(waiter, error);
  }

  #begin(): void {
    const round: Round = {
      waiters: this.#next,
      contexts: [],
      startedMs: this.#options.clock.monotonicMs(),
      index: undefined,
      timer: undefined,
    };
    this.#next = [];
    this.#round = round;
    this.#ask(round);
  }

  #ask(round: Round): void {
    const context = this.#options.ids.next();
    round.contexts.push(context);
    this.#timer?.cancel();
    this.#timer = this.#options.clock.timer(RETRY_MS, () => this.#retry(round));
    this.#options.requestReadIndex(context);
  }

  #retry(round: Round): void {
    if (this.#round !== round) return;
    if (this.#options.clock.monotonicMs() - round.startedMs >= this.#options.requestTimeoutMs) {
      this.#round = undefined;
      this.#options.onFailed?.();
      for (const waiter of round.waiters) this.#finish(waiter, rpcError("timeout"));
      if (this.#next.length > 0) this.#begin();
      return;
    }
    this.#options.onSlow?.();
    this.#ask(round);
  }

  /** The applier is stuck: its readers must not wait for ever. */
  #expireConfirmed(round: Round): void {
    this.#confirmed = this.#confirmed.filter((one) => one !== round);
    this.#options.onFailed?.();
    for (const waiter of round.waiters) this.#finish(waiter, rpcError("timeout"));
  }

  #finish(waiter: Waiter, error?: EtcdError): void {
    if (waiter.done) return;
    waiter.done = true;
    waiter.detach?.();
    this.#waiting--;
    if (error === undefined) waiter.resolve();
    else waiter.reject(error);
  }
}
