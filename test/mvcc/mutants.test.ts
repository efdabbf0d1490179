import { describe, expect, it } from "vitest";
import { MVCC_MUTANTS } from "../../src/mvcc/index.ts";
import { MvccTwin } from "../support/mvcc-twin.ts";

/** Found by tests of their own, in `store.test.ts`. */
const ELSEWHERE = new Set(["compaction-ignores-readers", "skip-row-checksum", "revision-from-rows-only"]);

describe("planted faults are found by the comparison with the model", () => {
  it.each(MVCC_MUTANTS.filter((mutant) => !ELSEWHERE.has(mutant)))("%s", async (mutant) => {
    const weights = { compact: 3, history: 6, slowRange: 6 };
    let found: unknown;
    for (let seed = 1; seed <= 8 && found === undefined; seed += 1) {
      await new MvccTwin({ seed, steps: 3000, mutants: new Set([mutant]), weights }).run().catch((error: unknown) => {
        found = error;
      });
    }
    expect(found).toBeInstanceOf(Error);
  });
});
