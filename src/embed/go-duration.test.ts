import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatDurationMs, parseDurationMs, parseDurationNs } from "./go-duration.ts";

describe("parseDurationMs", () => {
  it.each([
    ["0", 0],
    ["+0", 0],
    ["0s", 0],
    ["300ms", 300],
    ["1.5s", 1500],
    [".5s", 500],
    ["1.s", 1000],
    ["1h30m", 5_400_000],
    ["1h15m30.918273645s", 4_530_918.273645],
    ["-5s", -5000],
    ["2us", 0.002],
    ["2\u00b5s", 0.002],
    ["2\u03bcs", 0.002],
    ["100ns", 0.0001],
    ["0.3333333333333333333h", 1_199_999.999999],
  ])("%s", (text, milliseconds) => {
    expect(parseDurationMs(text)).toBeCloseTo(milliseconds, 6);
  });

  it.each([
    ["", 'time: invalid duration ""'],
    ["foo", 'time: invalid duration "foo"'],
    ["-", 'time: invalid duration "-"'],
    [".s", 'time: invalid duration ".s"'],
    ["5", 'time: missing unit in duration "5"'],
    ["-5", 'time: missing unit in duration "-5"'],
    ["1.5", 'time: missing unit in duration "1.5"'],
    ["3d", 'time: unknown unit "d" in duration "3d"'],
    ["1h 2m", 'time: unknown unit "h " in duration "1h 2m"'],
    ["9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'],
    ["3000000h", 'time: invalid duration "3000000h"'],
  ])("refuses %j as Go does", (text, message) => {
    expect(() => parseDurationMs(text)).toThrow(message);
  });

  it("takes the whole signed 64-bit range", () => {
    expect(parseDurationNs("9223372036854775807ns")).toBe(2n ** 63n - 1n);
    expect(parseDurationNs("-9223372036854775808ns")).toBe(-(2n ** 63n));
  });
});

describe("formatDurationMs", () => {
  it.each([
    [0, "0s"],
    [0.000001, "1ns"],
    [0.0011, "1.1\u00b5s"],
    [2.2, "2.2ms"],
    [300, "300ms"],
    [3300, "3.3s"],
    [60_000, "1m0s"],
    [245_000, "4m5s"],
    [600_000, "10m0s"],
    [7_200_000, "2h0m0s"],
    [18_367_001, "5h6m7.001s"],
    [-1500, "-1.5s"],
  ])("%d is %s", (milliseconds, text) => {
    expect(formatDurationMs(milliseconds)).toBe(text);
  });

  it("prints what it can read back", () => {
    fc.assert(
      fc.property(fc.integer({ min: -1_000_000_000, max: 1_000_000_000 }), (microseconds) => {
        const milliseconds = microseconds / 1000;
        expect(parseDurationMs(formatDurationMs(milliseconds))).toBeCloseTo(milliseconds, 6);
      }),
    );
  });
});
