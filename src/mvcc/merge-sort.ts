/**
 * A stable sort that can stop and go on, because the platform's sort of a million entries blocks the event loop for a second.
 * Bottom-up merging of runs over two arrays of indexes.
 */
export class MergeSort {
  readonly #before: (a: number, b: number) => number;
  readonly #order: Uint32Array;
  #from: Uint32Array;
  #to: Uint32Array;
  /** Length of the sorted runs in `#from`. */
  #width = 1;
  /** Where the merge of the current pair of runs stands. */
  #low = 0;
  #left = 0;
  #right = 0;
  #out = 0;

  /** Sorts the indexes in `order`, in place once `run` has returned true. `compare` gets two of them. */
  constructor(order: Uint32Array, compare: (a: number, b: number) => number) {
    this.#order = order;
    this.#from = order;
    this.#to = new Uint32Array(order.length);
    this.#before = compare;
    this.#startPair(0);
  }

  /** Goes on for about `steps` comparisons; true when sorted. */
  run(steps: number): boolean {
    const length = this.#from.length;
    let left = steps;
    while (this.#width < length) {
      while (this.#low < length) {
        const middle = Math.min(this.#low + this.#width, length);
        const high = Math.min(middle + this.#width, length);
        const from = this.#from;
        const to = this.#to;
        while (this.#out < high) {
          if (left <= 0) return false;
          left -= 1;
          const takeLeft =
            this.#left < middle && (this.#right >= high || this.#before(from[this.#left] as number, from[this.#right] as number) <= 0);
          to[this.#out] = from[takeLeft ? this.#left : this.#right] as number;
          if (takeLeft) this.#left += 1;
          else this.#right += 1;
          this.#out += 1;
        }
        this.#startPair(high);
      }
      [this.#from, this.#to] = [this.#to, this.#from];
      this.#width *= 2;
      this.#startPair(0);
    }
    if (this.#from !== this.#order) {
      this.#order.set(this.#from);
      this.#from = this.#order;
    }
    return true;
  }

  #startPair(low: number): void {
    this.#low = low;
    this.#left = low;
    this.#right = low + this.#width;
    this.#out = low;
  }
}
