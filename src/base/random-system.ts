import { randomBytes, randomInt } from "node:crypto";
import type { Random } from "./random.ts";

/** Randomness from the operating system. */
export function systemRandom(): Random {
  return {
    below: (n) => (n === 1 ? 0 : randomInt(n)),
    chance: ({ of, outOf }) => of > 0 && (outOf === 1 ? 0 : randomInt(outOf)) < of,
    bits64: () => randomBytes(8).readBigUInt64BE(0),
  };
}
