/** A property does not hold. `check` is its name in the failure catalogue (I*, J*, K*, W*, L*, X*), or what else went wrong. */
export class Violation extends Error {
  readonly check: string;

  constructor(check: string, detail: string, options?: { cause?: unknown }) {
    super(`${check}: ${detail}`, options);
    this.name = "Violation";
    this.check = check;
  }
}
