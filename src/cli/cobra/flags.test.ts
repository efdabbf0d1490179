import { describe, expect, it } from "vitest";
import { FlagSet, type FlagSpec, parseInteger } from "./flags.ts";

const SPECS: readonly FlagSpec[] = [
  { name: "name", short: "n", kind: "string", default: "none", help: "" },
  { name: "prefix", short: "p", kind: "bool", help: "" },
  { name: "rev", kind: "int", help: "" },
  { name: "wait", kind: "duration", default: "5s", help: "" },
  { name: "hosts", kind: "strings", default: ["a"], help: "" },
];

function parsed(...words: string[]): { flags: FlagSet; words: string[]; dash: number } {
  const flags = new FlagSet(SPECS);
  return { flags, ...flags.parse(words) };
}

describe("flags", () => {
  it("stand anywhere before two dashes", () => {
    const { flags, words, dash } = parsed("x", "--name", "v", "y", "-p", "--", "--rev", "1");
    expect([words, dash, flags.string("name"), flags.bool("prefix"), flags.integer("rev")]).toEqual([
      ["x", "y", "--rev", "1"],
      2,
      "v",
      true,
      0n,
    ]);
    expect(parsed("-", "--").words).toEqual(["-"]);
  });

  it("have values behind an equals sign, behind a blank, and letters also at once", () => {
    expect(parsed("--name=a=b").flags.string("name")).toBe("a=b");
    expect(parsed("-nx").flags.string("name")).toBe("x");
    expect(parsed("-n=x").flags.string("name")).toBe("x");
    expect(parsed("-pn", "x").flags.string("name")).toBe("x");
    expect(parsed("--prefix=false").flags.bool("prefix")).toBe(false);
    expect(parsed("--prefix", "false").words).toEqual(["false"]);
  });

  it("have defaults, and know whether they were given", () => {
    const { flags } = parsed("--rev=-9223372036854775808", "--wait", "1m30s", "--hosts", 'b,"c,d"', "--hosts=e");
    expect([flags.string("name"), flags.has("name"), flags.has("rev")]).toEqual(["none", false, true]);
    expect(flags.integer("rev")).toBe(-(2n ** 63n));
    expect(flags.durationMs("wait")).toBe(90_000);
    expect(flags.strings("hosts")).toEqual(["b", "c,d", "e"]);
    expect(parsed().flags.strings("hosts")).toEqual(["a"]);
    expect(parsed().flags.durationMs("wait")).toBe(5000);
  });

  it("say what is wrong in the words that scripts know", () => {
    const wrong: [string[], string][] = [
      [["--nope"], "unknown flag: --nope"],
      [["-x"], "unknown shorthand flag: 'x' in -x"],
      [["--name"], "flag needs an argument: --name"],
      [["-n"], "flag needs an argument: 'n' in -n"],
      [["--=x"], "bad flag syntax: --=x"],
      [["--rev=x"], 'invalid argument "x" for "--rev" flag: strconv.ParseInt: parsing "x": invalid syntax'],
      [["--rev=9223372036854775808"], 'parsing "9223372036854775808": value out of range'],
      [["-p=maybe"], 'invalid argument "maybe" for "-p, --prefix" flag: strconv.ParseBool: parsing "maybe": invalid syntax'],
      [["--wait=x"], 'time: invalid duration "x"'],
      [["--hosts", '"x'], 'extraneous or missing "'],
    ];
    for (const [words, text] of wrong) expect(() => parsed(...words)).toThrow(text);
  });
});

describe("integers", () => {
  it("are exact for 64 bits, in the bases of Go", () => {
    expect(parseInteger("18446744073709551615", { signed: false, base: 10 })).toBe(2n ** 64n - 1n);
    expect(parseInteger("ffffffffffffffff", { signed: false, base: 16 })).toBe(2n ** 64n - 1n);
    expect(parseInteger("-7fffffffffffffff", { signed: true, base: 16 })).toBe(1n - 2n ** 63n);
    expect(["0x1F", "0b101", "0o17", "017", "1_000", "+5"].map((text) => parseInteger(text, { signed: true, base: 0 }))).toEqual([
      31n,
      5n,
      15n,
      15n,
      1000n,
      5n,
    ]);
    for (const text of ["", "0x", "1__0", "1_", "089", "1e3", " 1", "-"])
      expect(() => parseInteger(text, { signed: true, base: 0 }), text).toThrow("invalid syntax");
    expect(() => parseInteger("-1", { signed: false, base: 10 })).toThrow("invalid syntax");
    expect(() => parseInteger("8000000000000000", { signed: true, base: 16 })).toThrow("value out of range");
  });
});
