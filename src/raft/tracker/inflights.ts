import { assert } from "../../base/assert.ts";
import type { LogIndex } from "../../base/ids.ts";

/**
 * The window of append messages sent to one follower and not yet acknowledged: last index and payload bytes of each, oldest first.
 * Full when it holds `max` messages or at least `bytesMax` bytes (the last message may pass the byte limit, so that one always goes).
 *
 * A ring; its arrays grow with use, because most followers never come near `max`.
 */
export class Inflights {
  readonly #max: number;
  readonly #bytesMax: number;
  #start = 0;
  #count = 0;
  #bytes = 0;
  #lastIndexes: LogIndex[] = [];
  #sizes: number[] = [];
  readonly #leak: boolean;

  /** `leak` is a mutant. */
  constructor(max: number, bytesMax: number, leak = false) {
    assert(max >= 1 && bytesMax >= 1, "in-flight limits are positive", { max, bytesMax });
    this.#max = max;
    this.#bytesMax = bytesMax;
    this.#leak = leak;
  }

  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#bytes;
  }

  full(): boolean {
    return this.#count === this.#max || this.#bytes >= this.#bytesMax;
  }

  /** A message whose last entry is `lastIndex` was sent. Indices increase from call to call; not to be called when full. */
  add(lastIndex: LogIndex, bytes: number): void {
    assert(!this.full(), "a full in-flight window takes no more");
    if (this.#count === this.#lastIndexes.length) this.#grow();
    let at = this.#start + this.#count;
    if (at >= this.#lastIndexes.length) at -= this.#lastIndexes.length;
    this.#lastIndexes[at] = lastIndex;
    this.#sizes[at] = bytes;
    this.#count += 1;
    this.#bytes += bytes;
  }

  /** Everything up to `index` is acknowledged: frees each message that lies wholly at or below it. */
  freeTo(index: LogIndex): void {
    while (this.#count > 0 && (this.#lastIndexes[this.#start] as LogIndex) <= index) {
      if (!this.#leak) this.#bytes -= this.#sizes[this.#start] as number;
      this.#count -= 1;
      this.#start += 1;
      if (this.#start === this.#lastIndexes.length) this.#start = 0;
    }
    if (this.#count === 0) this.#start = 0;
  }

  reset(): void {
    this.#start = 0;
    this.#count = 0;
    this.#bytes = 0;
  }

  /** Recomputes the counters (failure catalogue I13, BR21) and checks the order. Costly. */
  check(): void {
    let bytes = 0;
    let before = -1;
    let bytesBeforeLast = 0;
    for (let i = 0; i < this.#count; i++) {
      const at = (this.#start + i) % this.#lastIndexes.length;
      const index = this.#lastIndexes[at] as LogIndex;
      assert(index > before, "in-flight messages are in index order", { before, index });
      before = index;
      bytesBeforeLast = bytes;
      bytes += this.#sizes[at] as number;
    }
    assert(bytes === this.#bytes, "in-flight bytes equal the recomputed sum", { counted: this.#bytes, recomputed: bytes });
    assert(this.#count <= this.#max && (this.#count === 0 || bytesBeforeLast < this.#bytesMax), "in-flight window within its limits");
  }

  #grow(): void {
    const capacity = Math.min(this.#max, Math.max(8, this.#lastIndexes.length * 2));
    const lastIndexes = new Array<LogIndex>(capacity).fill(0);
    const sizes = new Array<number>(capacity).fill(0);
    for (let i = 0; i < this.#count; i++) {
      const at = (this.#start + i) % this.#lastIndexes.length;
      lastIndexes[i] = this.#lastIndexes[at] as LogIndex;
      sizes[i] = this.#sizes[at] as number;
    }
    this.#start = 0;
    this.#lastIndexes = lastIndexes;
    this.#sizes = sizes;
  }
}
