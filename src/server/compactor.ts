/** Physical compaction in the background, and the automatic compaction of the leader (api-semantics.md section 9, cluster-behaviour.md section 11). */
import * as api from "../api/index.ts";
import { rpcError } from "../api/rpc-errors.ts";
import type { Clock, Timer } from "../base/clock.ts";
import { EtcdError } from "../base/errors.ts";
import type { Revision } from "../base/ids.ts";
import type { Logger } from "../base/logger.ts";
import type { State } from "./apply/state.ts";
import { abortError } from "./proposals.ts";

export interface CompactionRunnerOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  state(): State;
  readonly batchRevisions: number;
  readonly sleepMs: number;
  onFatal(error: Error): void;
}

/** Removes compacted rows slice by slice, with pauses, so that other work goes on. */
export class CompactionRunner {
  readonly #options: CompactionRunnerOptions;
  #running = false;
  #stopped = false;
  #paused = false;
  /** The slice under way; never rejects. */
  #current: Promise<void> = Promise.resolve();
  #timer: Timer | undefined;
  #waiters: { resolve: () => void; reject: (error: EtcdError) => void }[] = [];

  constructor(options: CompactionRunnerOptions) {
    this.#options = options;
  }

  /** There may be something to remove. */
  kick(): void {
    if (this.#running || this.#stopped || this.#paused) return;
    if (!this.#options.state().store.compactionPending) {
      this.#finished();
      return;
    }
    this.#running = true;
    this.#slice();
  }

  /** Resolves when nothing is left to remove and the removal is in the store. */
  finished(signal: AbortSignal | undefined): Promise<void> {
    if (this.#stopped) return Promise.reject(rpcError("server-stopped"));
    if (!this.#running && !this.#options.state().store.compactionPending) return this.#options.state().writer.idle();
    return new Promise((resolve, reject) => {
      const waiter = {
        resolve: (): void => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
        reject,
      };
      const onAbort = (): void => {
        this.#waiters = this.#waiters.filter((one) => one !== waiter);
        reject(abortError(signal as AbortSignal));
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  /** Resolves when no slice runs; none begins until {@link resume}. For the replacement of the state. */
  async pause(): Promise<void> {
    this.#paused = true;
    this.#timer?.cancel();
    await this.#current;
    this.#running = false;
  }

  resume(): void {
    this.#paused = false;
    this.kick();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    for (const waiter of this.#waiters) waiter.reject(rpcError("server-stopped"));
    this.#waiters = [];
  }

  #slice(): void {
    const state = this.#options.state();
    this.#current = state.store
      .compactSlice(() => state.writer.batch, this.#options.batchRevisions)
      .then(
        (done) => {
          if (this.#stopped) return;
          state.writer.touch();
          if (this.#paused) return;
          if (!done) {
            this.#timer = this.#options.clock.timer(this.#options.sleepMs, () => this.#slice());
            return;
          }
          this.#running = false;
          state.writer.idle().then(
            () => this.kick(),
            // The writer's owner has heard of it.
            () => undefined,
          );
        },
        (error: unknown) => {
          if (!this.#stopped) this.#options.onFatal(error instanceof Error ? error : new Error(String(error)));
        },
      );
  }

  #finished(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.resolve();
  }
}

export interface AutoCompactorOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly mode: "periodic" | "revision";
  /** Milliseconds or revisions; 0 = off. */
  readonly retention: number;
  isLeader(): boolean;
  revision(): Revision;
  compact(request: api.CompactionRequest): Promise<unknown>;
}

const HOUR_MS = 3_600_000;
const REVISION_MODE_MS = 300_000;
const SAMPLES_PER_PERIOD = 10;

export class AutoCompactor {
  readonly #options: AutoCompactorOptions;
  readonly #intervalMs: number;
  #timer: Timer | undefined;
  #samples: Revision[] = [];
  #lastMs: number;
  #compacted = 0;
  #stopped = false;

  constructor(options: AutoCompactorOptions) {
    this.#options = options;
    this.#intervalMs = options.mode === "periodic" ? Math.min(options.retention, HOUR_MS) / SAMPLES_PER_PERIOD : REVISION_MODE_MS;
    this.#lastMs = options.clock.monotonicMs();
  }

  start(): void {
    if (this.#options.retention > 0) this.#arm();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #arm(): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.timer(this.#intervalMs, () => {
      const target = this.#options.mode === "periodic" ? this.#periodicTarget() : this.#options.revision() - this.#options.retention;
      this.#compact(target).then(
        () => this.#arm(),
        () => this.#arm(),
      );
    });
  }

  /** The revision seen one retention ago, once per period; 0 when it is not time. */
  #periodicTarget(): Revision {
    const { retention, clock } = this.#options;
    this.#samples.push(this.#options.revision());
    const kept = Math.floor(retention / this.#intervalMs) + 1;
    while (this.#samples.length > kept) this.#samples.shift();
    const now = clock.monotonicMs();
    const due = this.#compacted === 0 && this.#samples.length < kept ? retention : Math.min(retention, HOUR_MS);
    if (now - this.#lastMs < due || this.#samples.length < kept) return 0;
    return this.#samples[0] as Revision;
  }

  async #compact(target: Revision): Promise<void> {
    const { logger, clock } = this.#options;
    if (target <= 0 || target === this.#compacted || !this.#options.isLeader()) return;
    logger.info({ revision: target, "compact-mode": this.#options.mode }, "starting auto compaction");
    try {
      await this.#options.compact(api.CompactionRequest.create({ revision: target }));
    } catch (error) {
      if (!(EtcdError.is(error) && error.reason === "compacted")) {
        logger.warn({ revision: target, error: String(error) }, "failed auto compaction");
        return;
      }
    }
    this.#compacted = target;
    this.#lastMs = clock.monotonicMs();
    logger.info({ revision: target, "compact-mode": this.#options.mode }, "completed auto compaction");
  }
}
