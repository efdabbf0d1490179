/** What happened, as a number that tells two runs apart, and as text for whoever replays one. */

/** A rolling hash over all events. Not for anything but comparing runs. */
export class TraceHash {
  #a = 0x811c9dc5;
  #b = 0x9e3779b9;

  number(value: number): void {
    this.#a = Math.imul(this.#a ^ value, 0x01000193);
    this.#b = Math.imul((this.#b << 5) | (this.#b >>> 27), 0x85ebca6b) ^ this.#a;
  }

  event(at: number, owner: number, kind: number): void {
    // Microseconds, of which the lower 32 bits are enough.
    this.number(((at * 1000) % 4294967296) | 0);
    this.number(owner * 8 + kind);
  }

  text(value: string): void {
    for (let i = 0; i < value.length; i++) this.number(value.charCodeAt(i));
  }

  get value(): string {
    return (this.#a >>> 0).toString(16).padStart(8, "0") + (this.#b >>> 0).toString(16).padStart(8, "0");
  }
}

/** Lines for a reader: simulated ms, who, what. */
export type TraceLine = (now: number, who: string, what: string) => void;
