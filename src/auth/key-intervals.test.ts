import { describe, expect, it } from "vitest";
import type { KeyString } from "../base/bytes.ts";
import { seededRandom } from "../base/random.ts";
import { type KeyInterval, KeyIntervals, OPEN_END, pointInterval } from "./key-intervals.ts";

const key = (text: string): KeyString => text as KeyString;
const from = (start: string, end: string): KeyInterval => ({ start: key(start), end: key(end) });

describe("KeyIntervals", () => {
  it("joins what overlaps or touches", () => {
    const keys = new KeyIntervals([from("m", "n"), from("a", "c"), pointInterval(key("e")), from("c", "e"), from("b", "d")]);
    expect([keys.covers(key("a"), key("e")), keys.covers(key("a"), key("e\0")), keys.covers(key("a"), key("e\0\0"))]).toEqual([
      true,
      true,
      false,
    ]);
    expect([keys.has(key("e")), keys.has(key("e\0")), keys.has(key("")), keys.has(key("l\xff")), keys.has(key("m"))]).toEqual([
      true,
      false,
      false,
      false,
      true,
    ]);
  });

  it("has an open end only where it was given", () => {
    const keys = new KeyIntervals([from("q", OPEN_END), from("a", "\xff")]);
    expect(keys.covers(key("a"), OPEN_END)).toBe(true);
    expect(new KeyIntervals([from("a", "\xff\xff\xff")]).covers(key("a"), OPEN_END)).toBe(false);
    expect(new KeyIntervals([from("q", OPEN_END)]).covers(key("z"), OPEN_END)).toBe(true);
    expect(new KeyIntervals([from("q", OPEN_END)]).covers(key("p"), OPEN_END)).toBe(false);
  });

  it("answers for empty and inverted intervals as for the key they start with", () => {
    const keys = new KeyIntervals([from("m", "n"), from("n", "o")]);
    expect([keys.covers(key("m"), key("m")), keys.covers(key("n"), key("m")), keys.covers(key("o"), key("m"))]).toEqual([
      true,
      true,
      false,
    ]);
    expect(new KeyIntervals([from("c", "a")]).has(key("b"))).toBe(false);
    expect(new KeyIntervals([]).covers(key("a"), key("b"))).toBe(false);
  });

  it("agrees with a list of all keys", () => {
    const random = seededRandom(7);
    const alphabet = ["a", "b", "c", "d", "e", "f", "g", "h"].flatMap((one) => [one, `${one}\0`, `${one}a`]).map(key);
    const pick = (): KeyString => alphabet[random.below(alphabet.length)] as KeyString;
    for (let round = 0; round < 2000; round++) {
      const granted = Array.from({ length: random.below(6) }, () =>
        random.chance({ of: 1, outOf: 3 }) ? pointInterval(pick()) : from(pick(), random.chance({ of: 1, outOf: 6 }) ? OPEN_END : pick()),
      );
      const keys = new KeyIntervals(granted);
      const holds = (one: KeyString): boolean => granted.some(({ start, end }) => start <= one && one < end);
      // Between two neighbours of the alphabet there is a key that tells them apart: one zero byte behind the smaller.
      const witnesses = [...alphabet, ...alphabet.map((one) => key(`${one}\0`)), ...alphabet.map((one) => key(`${one}\0\0`)), key("i")];
      expect(witnesses.filter((one) => keys.has(one))).toEqual(witnesses.filter(holds));
      const start = pick();
      const end = random.chance({ of: 1, outOf: 6 }) ? OPEN_END : pick();
      const inside = witnesses.filter((one) => start <= one && one < end);
      const expected =
        start < end ? inside.every(holds) && (end !== OPEN_END || granted.some((one) => one.end === OPEN_END)) : holds(start);
      expect(keys.covers(start, end), JSON.stringify({ granted, start, end })).toBe(expected);
    }
  });
});
