import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ALL_METHODS, JsonError, parseJson } from "../../src/api/index.ts";

/**
 * One line per request body: where it was sent, the body with one char per byte, and the JSON error that etcd 3.7.1 answered, or null if
 * it accepted the body as JSON. Its library puts a no-break space behind `proto:` in some builds; recorded with a normal one.
 */
interface Recorded {
  readonly path: string;
  readonly body: string;
  readonly error: string | null;
}

const recorded = readFileSync(new URL("./json-gateway.jsonl", import.meta.url), "utf8")
  .trimEnd()
  .split("\n")
  .map((line) => JSON.parse(line) as Recorded);

function errorOf(entry: Recorded): string | null {
  const method = ALL_METHODS.find((candidate) => candidate.httpPaths.includes(entry.path));
  if (method === undefined) throw new Error(`no method at ${entry.path}`);
  try {
    parseJson(method.request, Buffer.from(entry.body, "latin1"));
    return null;
  } catch (error) {
    if (error instanceof JsonError) return error.message;
    throw error;
  }
}

describe("request bodies recorded with etcd", () => {
  test("there are many of either kind", () => {
    expect(recorded.length).toBeGreaterThan(500);
    expect(recorded.filter((entry) => entry.error === null).length).toBeGreaterThan(100);
  });

  test("each gets the same answer", () => {
    const differing = recorded.filter((entry) => errorOf(entry) !== entry.error).map((entry) => ({ ...entry, ours: errorOf(entry) }));
    expect(differing).toEqual([]);
  });
});
