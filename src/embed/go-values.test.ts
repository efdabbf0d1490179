import { describe, expect, it } from "vitest";
import { parseBoolean, parseInteger } from "./go-values.ts";

describe("parseInteger", () => {
  it.each([
    ["0", 0],
    ["10000", 10_000],
    ["0x10", 16],
    ["0b101", 5],
    ["0o17", 15],
    ["017", 15],
    ["1_000", 1000],
    ["0x_ff", 255],
  ])("%s", (text, value) => {
    expect(parseInteger(text, "uint64")).toBe(value);
  });

  it.each(["", "abc", "1__0", "_1", "1_", "1.5", "-1", "+1", "09", "0x", " 1", "1e3"])("refuses %j", (text) => {
    expect(() => parseInteger(text, "uint")).toThrow(/^parse error$/);
  });

  it("takes signs where the type has them", () => {
    expect([parseInteger("-5", "int"), parseInteger("+5", "int64"), parseInteger("-0x10", "int")]).toEqual([-5, 5, -16]);
  });

  it("tells what is too large from what is no number", () => {
    expect(() => parseInteger("99999999999999999999", "uint")).toThrow(/^value out of range$/);
    expect(() => parseInteger("4294967296", "uint32")).toThrow('strconv.ParseUint: parsing "4294967296": value out of range');
    expect(() => parseInteger("x", "uint32")).toThrow('strconv.ParseUint: parsing "x": invalid syntax');
    expect(parseInteger("4294967295", "uint32")).toBe(4_294_967_295);
  });
});

describe("parseBoolean", () => {
  it("knows Go's words and no others", () => {
    expect(["1", "t", "T", "TRUE", "true", "True"].map(parseBoolean)).toEqual(Array(6).fill(true));
    expect(["0", "f", "F", "FALSE", "false", "False"].map(parseBoolean)).toEqual(Array(6).fill(false));
    expect(["", "yes", "tRUE", "2"].map(parseBoolean)).toEqual(Array(4).fill(undefined));
  });
});
