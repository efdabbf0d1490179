/**
 * Feeds committed entries to the executor: in order, in slices short enough for the event loop, waiting only for rows that have to be read first and for a backend
 * that lags behind.
 */
import { rpcError } from "../api/rpc-errors.ts";
import type { Clock, Timer } from "../base/clock.ts";
import type { EtcdError } from "../base/errors.ts";
import type { LogIndex } from "../base/ids.ts";
import type { Logger } from "../base/logger.ts";
import type { Entry } from "../raft/index.ts";
import type { Executor } from "./apply/execute.ts";
import type { State } from "./apply/state.ts";
import { abortError } from "./proposals.ts";

export interface ApplierOptions {
  readonly executor: Executor;
  state(): State;
  readonly clock: Clock;
  readonly defer: (fn: () => void) => void;
  readonly logger: Logger;
  /** Slower slices are logged. */
  readonly warningMs: number;
  onApplied(index: LogIndex): void;
  onFatal(error: Error): void;
}

/** Entries per execute; between two of them the time is looked at. */
const CHUNK = 256;
/** After this long in one turn of the event loop other work gets its chance. */
const SLICE_MS = 8;

export class Applier {
  readonly #options: ApplierOptions;
  #queue: Entry[] = [];
  #at = 0;
  #busy = false;
  #scheduled = false;
  #closed = false;
  #paused = false;
  #idleWaiters: (() => void)[] = [];
  #indexWaiters: { index: LogIndex; resolve: () => void; reject: (error: EtcdError) => void }[] = [];

  constructor(options: ApplierOptions) {
    this.#options = options;
  }

  push(entries: readonly Entry[]): void {
    if (this.#closed) return;
    if (this.#at === this.#queue.length) {
      this.#queue = entries as Entry[];
      this.#at = 0;
    } else {
      this.#queue = this.#queue.slice(this.#at).concat(entries);
      this.#at = 0;
    }
    this.#run();
  }

  /** Resolves when the applied index has reached `index`; rejects with timeout-waiting-applied after `timeoutMs`. */
  waitFor(index: LogIndex, timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.#options.state().appliedIndex >= index) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const end = (error?: EtcdError): void => {
        timer.cancel();
        signal?.removeEventListener("abort", onAbort);
        this.#indexWaiters = this.#indexWaiters.filter((one) => one !== waiter);
        if (error === undefined) resolve();
        else reject(error);
      };
      const onAbort = (): void => end(abortError(signal as AbortSignal));
      const timer: Timer = this.#options.clock.timer(timeoutMs, () => end(rpcError("timeout-waiting-applied")));
      const waiter = { index, resolve: () => end(), reject: (error: EtcdError) => end(error) };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#indexWaiters.push(waiter);
    });
  }

  /** Stops at a slice's end and drops what lies at or below `index`: a snapshot brings it. Resolves when nothing runs. */
  async pauseAt(index: LogIndex): Promise<void> {
    this.#paused = true;
    await this.#idle();
    this.#queue = this.#queue.slice(this.#at).filter((entry) => entry.index > index);
    this.#at = 0;
  }

  resume(): void {
    this.#paused = false;
    this.#wakeIndexWaiters();
    this.#run();
  }

  /** Nothing is applied any more; resolves when nothing runs. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#queue = [];
    this.#at = 0;
    await this.#idle();
    for (const waiter of [...this.#indexWaiters]) waiter.reject(rpcError("server-stopped"));
  }

  #idle(): Promise<void> {
    return this.#busy ? new Promise((resolve) => this.#idleWaiters.push(resolve)) : Promise.resolve();
  }

  #run(): void {
    if (this.#busy || this.#scheduled || this.#paused || this.#closed) return;
    const { clock, executor, warningMs } = this.#options;
    const started = clock.monotonicMs();
    while (this.#at < this.#queue.length) {
      const state = this.#options.state();
      if (!state.writer.applyMayProceed) {
        this.#await(state.writer.drained());
        return;
      }
      const end = Math.min(this.#queue.length, this.#at + CHUNK);
      const entries = this.#at === 0 && end === this.#queue.length ? this.#queue : this.#queue.slice(this.#at, end);
      try {
        const requests = executor.decode(entries);
        const reads = executor.reads(requests);
        const loaded = reads.length === 0 ? undefined : state.store.prefetch(reads);
        if (loaded !== undefined) {
          this.#await(
            loaded.then((pinned) => {
              if (this.#closed) return;
              try {
                this.#execute(state, entries, requests);
              } finally {
                pinned.release();
              }
            }),
          );
          return;
        }
        this.#execute(state, entries, requests);
      } catch (error) {
        this.#fatal(error);
        return;
      }
      const took = clock.monotonicMs() - started;
      if (took > SLICE_MS) {
        if (took > warningMs)
          this.#options.logger.warn({ took: `${took.toFixed(1)}ms`, entries: entries.length }, "apply request took too long");
        if (this.#at < this.#queue.length) {
          this.#scheduled = true;
          this.#options.defer(() => {
            this.#scheduled = false;
            this.#run();
          });
          return;
        }
      }
    }
  }

  /** `entries` are the first that wait. Where they lie in the queue may have changed while rows were read: `push` moves them. */
  #execute(state: State, entries: readonly Entry[], requests: ReturnType<Executor["decode"]>): void {
    this.#options.executor.execute(state, entries, requests);
    this.#at += entries.length;
    if (this.#at === this.#queue.length) {
      this.#queue = [];
      this.#at = 0;
    }
    this.#options.onApplied(state.appliedIndex);
    this.#wakeIndexWaiters();
  }

  #await(work: Promise<unknown>): void {
    this.#busy = true;
    work.then(
      () => {
        this.#busy = false;
        const waiters = this.#idleWaiters;
        this.#idleWaiters = [];
        for (const wake of waiters) wake();
        this.#run();
      },
      (error: unknown) => {
        this.#busy = false;
        for (const wake of this.#idleWaiters.splice(0)) wake();
        this.#fatal(error);
      },
    );
  }

  #fatal(error: unknown): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.onFatal(error instanceof Error ? error : new Error(String(error)));
  }

  #wakeIndexWaiters(): void {
    if (this.#indexWaiters.length === 0) return;
    const { appliedIndex } = this.#options.state();
    for (const waiter of [...this.#indexWaiters]) if (waiter.index <= appliedIndex) waiter.resolve();
  }
}
