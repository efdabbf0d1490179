import type { WalAppend, WalFace } from "../wal/index.ts";

/** The log of a member that keeps nothing: appends are "durable" in the next turn of the event loop. For `inMemory` members only. */
export class MemoryWal implements WalFace {
  readonly bytesWritten = 0;
  readonly queuedBytes = 0;
  readonly #defer: (fn: () => void) => void;
  #queue: ((error?: Error) => void)[] = [];

  constructor(defer: (fn: () => void) => void) {
    this.#defer = defer;
  }

  append(_append: WalAppend, done: (error?: Error) => void): void {
    this.#queue.push(done);
    if (this.#queue.length > 1) return;
    this.#defer(() => {
      const queue = this.#queue;
      this.#queue = [];
      for (const one of queue) one();
    });
  }

  async purge(): Promise<void> {
    // Nothing is kept.
  }

  async close(): Promise<void> {
    // Nothing is open.
  }
}
