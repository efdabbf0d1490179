import { expect, test } from "vitest";
import { seededRandom } from "../../base/random.ts";
import { Inflights } from "./inflights.ts";

test("counts and bytes agree with a plain list whatever order acknowledgements come in (BR21)", () => {
  const random = seededRandom(2);
  for (let round = 0; round < 200; round++) {
    const max = 1 + random.below(20);
    const bytesMax = 1 + random.below(400);
    const inflights = new Inflights(max, bytesMax);
    let list: { index: number; bytes: number }[] = [];
    let index = 0;
    for (let step = 0; step < 200; step++) {
      const bytesHeld = list.reduce((sum, message) => sum + message.bytes, 0);
      expect(inflights.full()).toBe(list.length === max || bytesHeld >= bytesMax);
      if (random.chance({ of: 3, outOf: 5 }) && !inflights.full()) {
        index += 1 + random.below(5);
        const bytes = random.below(100);
        inflights.add(index, bytes);
        list.push({ index, bytes });
      } else if (random.chance({ of: 1, outOf: 50 })) {
        inflights.reset();
        list = [];
      } else {
        // Anything from a long known index to one in the middle of a message or beyond the last.
        const acked = Math.max(0, index - 10 + random.below(15));
        inflights.freeTo(acked);
        list = list.filter((message) => message.index > acked);
      }
      inflights.check();
      expect(inflights.count).toBe(list.length);
      expect(inflights.bytes).toBe(list.reduce((sum, message) => sum + message.bytes, 0));
    }
  }
});

test("a full window takes no more", () => {
  const byCount = new Inflights(1, 100);
  byCount.add(1, 0);
  expect(() => byCount.add(2, 0)).toThrow("takes no more");
  const byBytes = new Inflights(10, 100);
  byBytes.add(1, 99);
  byBytes.add(2, 1000);
  expect(byBytes.full()).toBe(true);
});

test("the recomputation finds leaked bytes", () => {
  const leaking = new Inflights(4, 100, true);
  leaking.add(1, 10);
  leaking.freeTo(1);
  expect(() => leaking.check()).toThrow("recomputed");
});
