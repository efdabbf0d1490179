import { describe, expect, it } from "vitest";
import { seededRandom } from "../base/random.ts";
import { MergeSort } from "./merge-sort.ts";

describe("MergeSort", () => {
  it("sorts stably, whatever the length and however it is cut into steps", () => {
    const random = seededRandom(2);
    for (let length = 0; length < 200; length += 1) {
      const values = Array.from({ length }, () => random.below(10));
      const order = Uint32Array.from({ length }, (_, i) => i);
      const sort = new MergeSort(order, (a, b) => (values[a] as number) - (values[b] as number));
      const steps = 1 + random.below(20);
      let runs = 0;
      while (!sort.run(steps)) runs += 1;
      expect([...order]).toEqual([...values.keys()].sort((a, b) => (values[a] as number) - (values[b] as number) || a - b));
      expect(runs).toBeLessThan(length * 9 + 2);
    }
  });
});
