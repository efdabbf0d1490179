/** Integer-only randomness, passed in everywhere, so that a seed replays a run. */
export interface Random {
  /** Uniform integer in [0, n). `n` is a positive integer up to 2^32. */
  below(n: number): number;
  /** True `of` times out of `outOf`. */
  chance(ratio: { of: number; outOf: number }): boolean;
  /** 64 random bits as an unsigned bigint. */
  bits64(): bigint;
}

/** A small, fast, seeded generator (xoshiro128** over a splitmix32-expanded seed). Not for secrets. */
export function seededRandom(seed: number | bigint): Random {
  let x = BigInt.asUintN(64, BigInt(seed));
  const next = (): number => {
    // splitmix64, folded to 32 bits, only used to fill the state.
    x = BigInt.asUintN(64, x + 0x9e3779b97f4a7c15n);
    let z = x;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return Number(BigInt.asUintN(32, z ^ (z >> 31n)));
  };
  let a = next();
  let b = next();
  let c = next();
  let d = next() | 1;
  const u32 = (): number => {
    const r = Math.imul(rotl(Math.imul(b, 5), 7), 9) >>> 0;
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = rotl(d, 11);
    return r;
  };
  return {
    below(n) {
      // Rejection keeps it uniform.
      const limit = 0x100000000 - (0x100000000 % n);
      let v = u32();
      while (v >= limit) v = u32();
      return v % n;
    },
    chance({ of, outOf }) {
      return of > 0 && this.below(outOf) < of;
    },
    bits64() {
      return (BigInt(u32()) << 32n) | BigInt(u32());
    },
  };
}

function rotl(v: number, k: number): number {
  return (v << k) | (v >>> (32 - k));
}
