import { type Random, seededRandom } from "../../../src/base/random.ts";

/** Random with the words that plans and clients need. Integers only. */
export class Dice {
  readonly random: Random;

  constructor(seed: number | bigint | Random) {
    this.random = typeof seed === "object" ? seed : seededRandom(seed);
  }

  /** In [low, high], both included. */
  between(low: number, high: number): number {
    return low + this.random.below(high - low + 1);
  }

  percent(chance: number): boolean {
    return this.random.below(100) < chance;
  }

  below(n: number): number {
    return this.random.below(n);
  }

  pick<T>(list: readonly T[]): T {
    return list[this.random.below(list.length)] as T;
  }

  /** `weights` by name; 0 means never. */
  weighted<Name extends string>(weights: Readonly<Partial<Record<Name, number>>>): Name {
    let sum = 0;
    for (const name in weights) sum += weights[name] ?? 0;
    let at = this.random.below(sum);
    let last: Name | undefined;
    for (const name in weights) {
      last = name;
      at -= weights[name] ?? 0;
      if (at < 0) return name;
    }
    return last as Name;
  }

  shuffled<T>(list: readonly T[]): T[] {
    const copy = [...list];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = this.random.below(i + 1);
      const other = copy[j] as T;
      copy[j] = copy[i] as T;
      copy[i] = other;
    }
    return copy;
  }

  /** Exponentially distributed with that mean, at most 20 times the mean. Made from integers, so that it is the same everywhere. */
  exponential(mean: number): number {
    // -ln(u) by a table of 64 quantiles, with the place between two of them drawn uniformly.
    const slot = this.random.below(64);
    const low = QUANTILES[slot] as number;
    const high = QUANTILES[slot + 1] as number;
    return (mean * (low + ((high - low) * this.random.below(1024)) / 1024)) / 1000;
  }
}

/** 1000 * -ln(1 - i/64), the last one cut. */
const QUANTILES = [
  0, 16, 32, 48, 65, 81, 99, 116, 134, 152, 170, 189, 208, 227, 247, 267, 288, 309, 330, 352, 375, 398, 421, 445, 470, 495, 521, 548, 575,
  604, 633, 662, 693, 725, 758, 792, 827, 863, 901, 940, 981, 1023, 1068, 1114, 1163, 1214, 1269, 1326, 1386, 1451, 1520, 1594, 1674, 1761,
  1856, 1962, 2079, 2213, 2367, 2549, 2773, 3060, 3466, 4159, 6000,
];

/** One stream of chance per purpose, so that dropping one part of a plan leaves the others as they are. */
export function seedFor(seed: number, ...parts: readonly number[]): bigint {
  let x = BigInt.asUintN(64, BigInt(seed) * 0x9e3779b97f4a7c15n + 0x632be59bd9b4e019n);
  for (const part of parts) {
    x = BigInt.asUintN(64, (x ^ BigInt(part + 1)) * 0xbf58476d1ce4e5b9n);
    x ^= x >> 29n;
  }
  return x;
}
