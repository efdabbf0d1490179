/** The end of something that many wait for: like an abort signal, for any number of listeners (a runtime warns of signals with more than ten). */
import type { EtcdError } from "../base/errors.ts";

export class Ending {
  #error: EtcdError | undefined;
  readonly #listeners = new Set<(error: EtcdError) => void>();

  /** Undefined until it has ended. */
  get error(): EtcdError | undefined {
    return this.#error;
  }

  get over(): boolean {
    return this.#error !== undefined;
  }

  /** Calls `listener` once, when it ends. Not if it has ended: look first. Returns how to stop that. */
  onEnd(listener: (error: EtcdError) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The first error counts. */
  end(error: EtcdError): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const listener of listeners) listener(error);
  }
}
