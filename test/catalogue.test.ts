/** docs/CATALOGUE.md against the files: every row is there, with a test or a reason, and every test that it names exists. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const table = readFileSync(join(ROOT, "docs/CATALOGUE.md"), "utf8");

/** How many rows each part has; they are numbered from 1. */
const COUNTS = {
  ...{ BR: 28, BM: 13, BW: 22, BS: 10, BV: 12, BT: 11, BL: 10, BA: 12, BG: 10, BH: 2 },
  ...{ K: 12, W: 11, L: 8, X: 4, C: 7, I: 20, J: 11, E: 8 },
} as const;
const FAULTS = 25;

interface Row {
  readonly id: string;
  readonly what: string;
  readonly where: string;
}

const rows: Row[] = table
  .split("\n")
  .filter((line) => line.startsWith("| ") && !line.startsWith("| ---"))
  .map((line) => {
    const [id = "", what = "", where = ""] = line.slice(2, -2).split(" | ");
    return { id, what, where };
  });
const isHeading = ({ id }: Row): boolean => id === "id" || id === "fault";
const listed = rows.filter((row) => !isHeading(row));

interface Reference {
  readonly id: string;
  readonly path: string;
  readonly name: string | undefined;
}

const references: Reference[] = listed.flatMap(({ id, where }) =>
  [...where.matchAll(/`((?:src|test)\/[^`]+)`(?: "([^"]+)")?/g)].map(([, path = "", name]) => ({ id, path, name })),
);

function textOf(path: string): string {
  return existsSync(join(ROOT, path)) ? readFileSync(join(ROOT, path), "utf8") : "";
}

describe("the table of the failure catalogue", () => {
  it("has every row, once", () => {
    const wanted = Object.entries(COUNTS).flatMap(([part, count]) => Array.from({ length: count }, (_, i) => `${part}${i + 1}`));
    const numbered = listed.map(({ id }) => id).filter((id) => /^[A-Z]+[0-9]+$/.test(id));
    expect([...numbered].sort()).toEqual([...wanted].sort());
    expect(listed.length - numbered.length).toBe(FAULTS);
    expect(listed.filter(({ what }) => what.length < 10).map(({ id }) => id)).toEqual([]);
  });

  it("gives each a test, or says why there is none", () => {
    const without = listed.filter(({ id }) => !references.some((reference) => reference.id === id));
    expect(without.filter(({ where }) => !/^(cannot happen here|not tested|not built)\b.{20}/.test(where)).map(({ id }) => id)).toEqual([]);
  });

  it("names files that exist, and tests that are in them", () => {
    expect(references.length).toBeGreaterThan(250);
    const missing = references.filter(({ path, name }) => {
      const text = textOf(path);
      return text === "" || (name !== undefined && !text.includes(name)) || (name === undefined && /\.test\.ts$/.test(path));
    });
    expect(missing).toEqual([]);
  });

  it("knows every row that some test carries in its name", () => {
    const known = new Set(listed.map(({ id }) => id));
    const files = ["src", "test"].flatMap((root) =>
      readdirSync(join(ROOT, root), { recursive: true, encoding: "utf8" })
        .filter((path) => path.endsWith(".test.ts"))
        .map((path) => `${root}/${path}`),
    );
    const strange = files.flatMap((path) =>
      textOf(path)
        .split("\n")
        .filter((line) => /^\s*(?:it|test|describe)\b/.test(line))
        .flatMap((line) => [...line.matchAll(/\bB[A-Z][0-9]+\b/g)].map(([id]) => id))
        .filter((id) => !known.has(id))
        .map((id) => `${path}: ${id}`),
    );
    expect(strange).toEqual([]);
  });
});
