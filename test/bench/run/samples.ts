/** Latencies, and what is told about them. */

const SAMPLES_MAX = 4_000_000;

/** Milliseconds of single calls; beyond four million the oldest are overwritten. */
export class Latencies {
  #values = new Float64Array(65_536);
  #count = 0;

  add(ms: number): void {
    if (this.#count === this.#values.length && this.#count < SAMPLES_MAX) {
      const larger = new Float64Array(this.#count * 2);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.#count % this.#values.length] = ms;
    this.#count += 1;
  }

  get count(): number {
    return this.#count;
  }

  /** Not interpolated; 0 without any. */
  percentiles(...wanted: readonly number[]): number[] {
    const sorted = this.#values.slice(0, Math.min(this.#count, this.#values.length)).sort();
    return wanted.map((percent) => sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))] ?? 0);
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return 0;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

/** What one timed run of callers gives. */
export interface LoadResult {
  readonly operations: number;
  readonly failures: number;
  readonly elapsedMs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}
