/** Helpers for work that is too long for one turn of the event loop. */
import { rpcError } from "../api/index.ts";
import type { CancelSignal } from "./types.ts";

/** Longest stretch without giving way, in ms. */
const SLICE_MS = 4;

/** Cuts long work by time. One per piece of work. */
export class Slicer {
  readonly #nowMs: () => number;
  readonly #yieldNow: () => Promise<void>;
  readonly #signal: CancelSignal | undefined;
  #startMs: number;

  constructor(options: { nowMs: () => number; yieldNow: () => Promise<void>; signal?: CancelSignal | undefined }) {
    this.#nowMs = options.nowMs;
    this.#yieldNow = options.yieldNow;
    this.#signal = options.signal;
    this.#startMs = options.nowMs();
  }

  /** True when it is time for `pause`. */
  get due(): boolean {
    return this.#nowMs() - this.#startMs >= SLICE_MS;
  }

  /** Gives way. @throws the signal's reason */
  async pause(): Promise<void> {
    this.throwIfAborted();
    await this.#yieldNow();
    this.throwIfAborted();
    this.#startMs = this.#nowMs();
  }

  /** After waiting for something else: a new slice begins. @throws the signal's reason */
  resumed(): void {
    this.throwIfAborted();
    this.#startMs = this.#nowMs();
  }

  throwIfAborted(): void {
    if (this.#signal?.aborted === true) throw this.#signal.reason ?? rpcError("canceled");
  }
}

/** Which reads are under way, by the revision they see, so that a compaction does not take rows away from them. */
export class Readers {
  /** Revision to number of reads. */
  readonly #open = new Map<number, number>();
  #waiting: { readonly revision: number; readonly resolve: () => void }[] = [];

  enter(revision: number): void {
    this.#open.set(revision, (this.#open.get(revision) ?? 0) + 1);
  }

  leave(revision: number): void {
    const left = (this.#open.get(revision) ?? 0) - 1;
    if (left > 0) {
      this.#open.set(revision, left);
      return;
    }
    this.#open.delete(revision);
    if (this.#waiting.length === 0) return;
    const lowest = this.#lowest();
    const ready = this.#waiting.filter((waiter) => waiter.revision <= lowest);
    this.#waiting = this.#waiting.filter((waiter) => waiter.revision > lowest);
    for (const waiter of ready) waiter.resolve();
  }

  /** Resolves when no read below `revision` is under way. */
  noneBelow(revision: number): Promise<void> {
    if (this.#lowest() >= revision) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting.push({ revision, resolve });
    });
  }

  get count(): number {
    let count = 0;
    for (const n of this.#open.values()) count += n;
    return count;
  }

  #lowest(): number {
    let lowest = Number.POSITIVE_INFINITY;
    for (const revision of this.#open.keys()) if (revision < lowest) lowest = revision;
    return lowest;
  }
}
