import { describe, expect, it } from "vitest";
import { hexEscaped, quoted, siBytes, table } from "./go-format.ts";

describe("texts of Go", () => {
  it("quote any bytes", () => {
    expect(quoted('a"b\\c\n\t\u0007')).toBe('"a\\"b\\\\c\\n\\t\\a"');
    expect(quoted("ü €\u{1f600}\u00a0\ufffd")).toBe('"ü €\u{1f600}\\u00a0\ufffd"');
    expect(quoted(Uint8Array.of(0, 0x7f, 0xff, 0xc3, 0x28, 0xe2, 0x82))).toBe('"\\x00\\x7f\\xff\\xc3(\\xe2\\x82"');
    expect(quoted("\u{e0001}\u200b")).toBe('"\\U000e0001\\u200b"');
    expect(hexEscaped(Uint8Array.of(0x66, 0, 0xff))).toBe("\\x66\\x00\\xff");
  });

  it("give sizes with two significant digits", () => {
    expect([0, 9, 10, 999, 1000, 1049, 9949, 9950, 20_480, 21_500, 24_576, 999_999, 2_147_483_648, 10_737_418_240].map(siBytes)).toEqual([
      "0 B",
      "9 B",
      "10 B",
      "999 B",
      "1.0 kB",
      "1.0 kB",
      "9.9 kB",
      "10 kB",
      "20 kB",
      "22 kB",
      "25 kB",
      "1000 kB",
      "2.1 GB",
      "11 GB",
    ]);
  });

  it("draw tables", () => {
    expect(table(["ID", "LONG NAME"], [["12345", "x"], ["1"]])).toBe(
      ["┌───────┬───────────┐", "│  ID   │ LONG NAME │", "├───────┼───────────┤", "│ 12345 │         x │", "│     1 │           │"]
        .concat("└───────┴───────────┘", "")
        .join("\n"),
    );
  });
});
