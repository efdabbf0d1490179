import { expect, test } from "vitest";
import type { MemberId } from "../base/ids.ts";
import { ReadOnly } from "./read-only.ts";

const A = 1n as MemberId;

test("requests waiting share the next round; later ones wait for the one after (BR15)", () => {
  const reads = new ReadOnly(10);
  reads.add(A, 1n);
  reads.add(A, 2n);
  expect(reads.start(1, 5)?.requests.length).toBe(2);
  reads.add(A, 3n);
  expect(reads.confirm(1).flatMap((round) => round.requests.map((r) => r.context))).toEqual([1n, 2n]);
  expect(reads.hasWaiting).toBe(true);
  expect(reads.confirm(9)).toEqual([]);
  expect(reads.start(2, 6)?.index).toBe(6);
  expect(reads.confirm(1)).toEqual([]);
  expect(reads.confirm(2)).toHaveLength(1);
  expect(reads.count).toBe(0);
});

test("a later round confirms the earlier ones, oldest first", () => {
  const reads = new ReadOnly(10);
  for (let round = 1; round <= 3; round++) {
    reads.add(A, BigInt(round));
    reads.start(round, round * 10);
  }
  expect(reads.confirm(2).map((round) => round.index)).toEqual([10, 20]);
  expect(reads.roundUnderWay).toBe(true);
});

test("it is bounded, and clearing says how many go unanswered", () => {
  const reads = new ReadOnly(2);
  expect([reads.add(A, 1n), reads.add(A, 2n), reads.add(A, 3n)]).toEqual([true, true, false]);
  reads.start(1, 1);
  expect(reads.add(A, 3n)).toBe(false);
  expect(reads.clear()).toBe(2);
  expect(reads.add(A, 3n)).toBe(true);
  expect(reads.start(2, 1)?.requests).toHaveLength(1);
});

test("nothing waiting starts nothing", () => {
  expect(new ReadOnly(1).start(1, 1)).toBeUndefined();
});
