import { expect, test } from "vitest";
import { setVerify } from "../../src/base/assert.ts";
import type { Message } from "../../src/raft/index.ts";
import { entry, id, makeHand, only } from "./probes.ts";

setVerify(true);

const request = (term: number, lastIndex: number, lastTerm: number, pre = false): Message => ({
  type: "vote-request",
  from: id(2),
  to: id(1),
  term,
  pre,
  lastIndex,
  lastTerm,
  commit: 0,
  commitTerm: 0,
  transfer: false,
});

test("BR6: a vote, given or refused, leaves the log as it is, also when the candidate's is longer", () => {
  for (const [lastIndex, lastTerm] of [
    [3, 1],
    [9, 1],
    [3, 4],
    [1, 4],
    [2, 1],
  ] as const) {
    for (const pre of [false, true]) {
      const hand = makeHand({ terms: [1, 1, 1], commit: 1 });
      hand.node.step(request(5, lastIndex, lastTerm, pre));
      const ready = hand.take();
      expect(ready.append?.entries ?? []).toEqual([]);
      expect(ready.append?.snapshot).toBeUndefined();
      const answers = [...ready.messages, ...hand.persist(ready)];
      expect(only(answers, "vote-response")).toHaveLength(1);
      expect(hand.storage.lastIndex()).toBe(3);
      expect(hand.storage.entries(1, 4, 10_000)).toEqual([1, 2, 3].map((index) => entry(index, 1)));
    }
  }
});

test("BR9: the more complete log gets the vote, the less complete one never, whatever else the candidate says", () => {
  const terms = [1, 1, 2, 2];
  for (let lastTerm = 0; lastTerm <= 3; lastTerm++) {
    for (let lastIndex = 0; lastIndex <= 6; lastIndex++) {
      const hand = makeHand({ terms });
      hand.node.step(request(9, lastIndex, lastTerm));
      const ready = hand.take();
      const [answer] = only([...ready.messages, ...hand.persist(ready)], "vote-response");
      const isBehind = lastTerm < 2 || (lastTerm === 2 && lastIndex < 4);
      expect(answer?.granted, `candidate's log ends at ${lastIndex} of term ${lastTerm}`).toBe(!isBehind);
    }
  }
});
