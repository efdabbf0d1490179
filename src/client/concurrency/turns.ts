/** Turns inside this process: one after the other, in the order of asking. */
import { unlessAborted } from "../deadline.ts";

export class Turns {
  readonly #last = new Map<string, Promise<void>>();

  /**
   * Resolves when it is this caller's turn for `name`, with the function that ends it.
   * @throws the signal's error; the turn is then given up
   */
  async take(name: string, signal: AbortSignal | undefined): Promise<() => void> {
    const before = this.#last.get(name);
    let end: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const all = before === undefined ? ended : before.then(() => ended);
    this.#last.set(name, all);
    void all.then(() => {
      if (this.#last.get(name) === all) this.#last.delete(name);
    });
    const leave = (): void => end();
    if (before === undefined) return leave;
    try {
      await unlessAborted(before, signal);
    } catch (error) {
      leave();
      throw error;
    }
    return leave;
  }
}
