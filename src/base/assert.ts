/**
 * Assertions that stay on in production. A failed one means that this instance's state can no longer be trusted:
 * the owner of the instance stops it (no more sends, pending calls rejected) and never guesses on.
 */
export class InvariantError extends Error {
  readonly facts: Readonly<Record<string, unknown>>;

  constructor(message: string, facts: Readonly<Record<string, unknown>> = {}) {
    super(`invariant violated: ${message}${describe(facts)}`);
    this.name = "InvariantError";
    this.facts = facts;
  }
}

function describe(facts: Readonly<Record<string, unknown>>): string {
  const parts = Object.entries(facts).map(([name, value]) => `${name}=${String(value)}`);
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`;
}

/**
 * Throws {@link InvariantError} unless `condition` holds. `facts` go into the message.
 * Pass facts only where they cost nothing to build: the object is made on every call.
 */
export function assert(condition: unknown, message: string, facts?: Readonly<Record<string, unknown>>): asserts condition {
  if (!condition) throw new InvariantError(message, facts);
}

/** For the default branch of a switch over a closed union. */
export function unreachable(value: never, what: string): never {
  throw new InvariantError(`unexpected ${what}`, { value });
}

let verifying = false;

/** Turns the costly checks behind {@link verify} on or off for the whole process; every test and the simulator turn them on. */
export function setVerify(on: boolean): void {
  verifying = on;
}

/** A check too costly for production. Runs only after `setVerify(true)`. */
export function verify(check: () => void): void {
  if (verifying) check();
}
