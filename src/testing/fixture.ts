/** How test frameworks run something before and after the tests. */

/** `beforeAll` and `afterAll` of vitest and jest, `before` and `after` of node:test. */
export interface Hooks {
  readonly before: (fn: () => Promise<void>) => unknown;
  readonly after: (fn: () => Promise<void>) => unknown;
}

/** Starts `make` before the tests and closes it after them. What it gives is there while tests run. */
export function fixture<T extends { close(): Promise<void> }>(hooks: Hooks, make: () => Promise<T>): () => T {
  let running: T | undefined;
  hooks.before(async () => {
    running = await make();
  });
  hooks.after(async () => {
    const ended = running;
    running = undefined;
    await ended?.close();
  });
  return () => {
    if (running === undefined) throw new Error("the fixture is there only while tests run");
    return running;
  };
}
