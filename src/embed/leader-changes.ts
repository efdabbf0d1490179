/** Changes of leaders as an async iterable: for programs that follow them in a loop. */

/**
 * Hex ids of leaders, the present one first if there is one, then each new one. Who reads slowly misses those in between, never the newest. Each loop over it is
 * its own; all end when the member is closed.
 */
export class LeaderChanges implements AsyncIterable<string> {
  readonly #current: () => string | undefined;
  readonly #readers = new Set<() => void>();
  #last: string | undefined;
  #number = 0;
  #ended = false;

  /** @param current the leader of now */
  constructor(current: () => string | undefined) {
    this.#current = current;
  }

  /** For the member. */
  changed(leader: string): void {
    this.#last = leader;
    this.#number += 1;
    this.#wake();
  }

  /** For the member. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    let seen = this.#number;
    const now = this.#current();
    if (now !== undefined && !this.#ended) yield now;
    for (;;) {
      if (this.#ended) return;
      if (seen !== this.#number) {
        seen = this.#number;
        if (this.#last !== undefined) yield this.#last;
        continue;
      }
      await new Promise<void>((resolve) => this.#readers.add(resolve));
    }
  }

  #wake(): void {
    const readers = [...this.#readers];
    this.#readers.clear();
    for (const wake of readers) wake();
  }
}
