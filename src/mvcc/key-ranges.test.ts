import { describe, expect, it } from "vitest";
import type { KeyString } from "../base/bytes.ts";
import { seededRandom } from "../base/random.ts";
import { KeyRanges } from "./key-ranges.ts";

describe("KeyRanges", () => {
  it("equals a list of ranges", () => {
    const random = seededRandom(6);
    const key = (): KeyString => String.fromCharCode(97 + random.below(20)).repeat(1 + random.below(2)) as KeyString;
    for (let round = 0; round < 300; round += 1) {
      const naive: [KeyString, KeyString | undefined][] = [];
      const build = (): KeyRanges => {
        const ranges = new KeyRanges();
        for (let n = random.below(12); n > 0; n -= 1) {
          const from = key();
          const to = random.below(12) === 0 ? undefined : random.below(3) === 0 ? (`${from}\0` as KeyString) : key();
          ranges.add(from, to);
          naive.push([from, to]);
        }
        return ranges;
      };
      let ranges = build();
      for (let n = random.below(3); n > 0; n -= 1) ranges = ranges.union(build());
      expect(ranges.isEmpty).toBe(!naive.some(([from, to]) => to === undefined || from < to));
      for (let n = 0; n < 40; n += 1) {
        const one = key();
        expect(ranges.has(one)).toBe(naive.some(([from, to]) => one >= from && (to === undefined || one < to)));
      }
    }
  });
});
