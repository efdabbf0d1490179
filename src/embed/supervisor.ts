/**
 * Lives of one member. A member whose disk is full ends its present life, acknowledges nothing any more, and begins another one from the same data as soon as
 * that is possible; everything else that ends a life ends the member. What stands outside (listeners, metrics, the program) stays.
 */
import { rpcError } from "../api/index.ts";
import type { Clock, Timer } from "../base/clock.ts";
import type { EtcdError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";

/** What can be started again and again. */
export interface Life<Failure extends Error> {
  readonly ready: Promise<void>;
  readonly failed: Promise<Failure>;
  close(options?: { transfer?: boolean }): Promise<void>;
}

export interface SupervisorOptions<L extends Life<Failure>, Failure extends Error> {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Begins a life; leaves nothing behind when it rejects. */
  begin(): Promise<L>;
  /** A life has begun, and answers for itself from now on. It may not be ready yet. */
  onBegun(life: L): void;
  /** A life has ended, and there will be another one. */
  onOutage(outage: EtcdError): void;
  /** A life ended with this: undefined when that is for good, else what to tell clients until the next one. */
  passes(failure: Failure): EtcdError | undefined;
  /** `begin` rejected with this when there had been a life before: true to try again later. */
  mayRetry(error: unknown): boolean;
  /** As {@link Life.failed} for a `begin` that failed for good. */
  toFailure(error: unknown): Failure;
}

const PAUSE_MIN_MS = 1000;
const PAUSE_MAX_MS = 10_000;
/** Ready for so long, a life counts as a success, and the next pause is a short one again. */
const STEADY_MS = 60_000;

export class Supervisor<L extends Life<Failure>, Failure extends Error> {
  /** Resolves when a life is ready for the first time; rejects when the member ended for good before. */
  readonly ready: Promise<void>;
  /** Resolves when the member has ended by itself for good; stays pending otherwise. */
  readonly failed: Promise<Failure>;

  readonly #options: SupervisorOptions<L, Failure>;
  #settleReady: { resolve: () => void; reject: (error: unknown) => void } = { resolve: nothing, reject: nothing };
  #settleFailed: (failure: Failure) => void = nothing;
  #life: L | undefined;
  #outage: EtcdError | undefined;
  /** The log has been told of an outage, and not yet of its end. */
  #told = false;
  #pauseMs = PAUSE_MIN_MS;
  #readySinceMs: number | undefined;
  #pause: { timer: Timer; wake: () => void } | undefined;
  /** Ending one life and beginning the next. */
  #between: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: SupervisorOptions<L, Failure>) {
    this.#options = options;
    this.ready = new Promise((resolve, reject) => {
      this.#settleReady = { resolve, reject };
    });
    // Whoever waits for it sees the rejection; that nobody waits is no error.
    this.ready.catch(nothing);
    this.failed = new Promise((resolve) => {
      this.#settleFailed = resolve;
    });
  }

  /** The present life, or the last one; undefined before the first. */
  get life(): L | undefined {
    return this.#life;
  }

  /** Why nobody is served now; undefined when there is a life, which answers for itself. */
  get outage(): EtcdError | undefined {
    return this.#outage;
  }

  /** Begins the first life. That it cannot be begun is the caller's to hear. */
  async start(): Promise<void> {
    const life = await this.#options.begin();
    if (this.#closing === undefined) this.#live(life);
    else await life.close();
  }

  /** Ends the present life, in order, or the wait for the next. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    // Let `#closing` be set before anybody is woken.
    await Promise.resolve();
    this.#pause?.wake();
    await this.#between;
    await this.#life?.close();
    this.#settleReady.reject(rpcError("server-stopped"));
  }

  #live(life: L): void {
    const { clock, logger, onBegun } = this.#options;
    this.#life = life;
    this.#outage = undefined;
    this.#readySinceMs = undefined;
    onBegun(life);
    life.ready.then(
      () => {
        if (life !== this.#life || this.#closing !== undefined) return;
        this.#readySinceMs = clock.monotonicMs();
        this.#settleReady.resolve();
        if (!this.#told) return;
        this.#told = false;
        logger.info({}, "the member serves again");
      },
      // `failed` says why, and `close` needs no reason.
      nothing,
    );
    void life.failed.then((failure) => {
      if (life === this.#life && this.#closing === undefined) this.#ended(failure);
    });
  }

  #ended(failure: Failure): void {
    const { clock, logger, onOutage, passes } = this.#options;
    const outage = passes(failure);
    if (outage === undefined) {
      this.#giveUp(failure);
      return;
    }
    if (this.#readySinceMs !== undefined && clock.monotonicMs() - this.#readySinceMs >= STEADY_MS) this.#pauseMs = PAUSE_MIN_MS;
    if (!this.#told) logger.error({ error: failure.message }, outage.message);
    this.#told = true;
    this.#outage = outage;
    onOutage(outage);
    this.#between = this.#nextLife(failure.message).finally(() => {
      this.#between = undefined;
    });
  }

  async #nextLife(because: string): Promise<void> {
    const { logger, begin, mayRetry, toFailure } = this.#options;
    try {
      await this.#life?.close({ transfer: false });
    } catch (error) {
      // What it held may still be held, so nothing can follow it.
      this.#giveUp(toFailure(error));
      return;
    }
    let told = because;
    for (;;) {
      await this.#wait(this.#pauseMs);
      this.#pauseMs = Math.min(PAUSE_MAX_MS, 2 * this.#pauseMs);
      if (this.#closing !== undefined) return;
      try {
        // Closed meanwhile: `close` waits for this, and then ends that life.
        this.#live(await begin());
        return;
      } catch (error) {
        if (this.#closing !== undefined) return;
        if (!mayRetry(error)) {
          this.#giveUp(toFailure(error));
          return;
        }
        const text = error instanceof Error ? error.message : String(error);
        if (text !== told) logger.warn({ error: text }, "the member cannot be started yet");
        told = text;
      }
    }
  }

  #giveUp(failure: Failure): void {
    this.#settleReady.reject(failure);
    this.#settleFailed(failure);
  }

  #wait(ms: number): Promise<void> {
    if (this.#closing !== undefined) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#pause?.timer.cancel();
        this.#pause = undefined;
        resolve();
      };
      this.#pause = { timer: this.#options.clock.timer(ms, wake), wake };
    });
  }
}

function nothing(): void {
  // Somebody else is told.
}
