import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { cleanPath, encodePath, parseTarget } from "./request-path.ts";

describe("targets", () => {
  test.each([
    ["/a/b?c=d?e", { path: "/a/b", escapedPath: "/a/b", query: "c=d?e", host: undefined }],
    ["/a?", { path: "/a", escapedPath: "/a", query: "", host: undefined }],
    ["/a%2Fb", { path: "/a/b", escapedPath: "/a%2Fb", query: undefined, host: undefined }],
    ["/%C3%A9", { path: "/\u00c3\u00a9", escapedPath: "/%C3%A9", query: undefined, host: undefined }],
    ["http://h:80/a?b", { path: "/a", escapedPath: "/a", query: "b", host: "h:80" }],
    ["http://h", { path: "/", escapedPath: "/", query: undefined, host: "h" }],
    ["http://h?q", { path: "/", escapedPath: "/", query: "q", host: "h" }],
  ])("%s", (url, target) => {
    expect(parseTarget(url)).toEqual(target);
  });

  test.each(["", "a", "*", "/%", "/%g0", "/%0", "h:80"])("%j is malformed", (url) => {
    expect(parseTarget(url)).toBeUndefined();
  });
});

describe("tidy paths", () => {
  test.each([
    ["/", "/"],
    ["", "/"],
    ["//", "/"],
    ["/a/", "/a/"],
    ["/a//b", "/a/b"],
    ["/a/./b/.", "/a/b"],
    ["/a/../b/..", "/"],
    ["/../../a", "/a"],
    ["/a/../", "/"],
    ["/a/b/../", "/a/"],
    ["/.a/..b", "/.a/..b"],
  ])("%j becomes %j", (path, clean) => {
    expect(cleanPath(path)).toBe(clean);
  });

  test("what is tidy stays so, and nothing untidy is left", () => {
    const part = fc.constantFrom("", ".", "..", "a", "b.c", "%2F", "...");
    fc.assert(
      fc.property(fc.array(part, { maxLength: 8 }), (parts) => {
        const clean = cleanPath(`/${parts.join("/")}`);
        expect(cleanPath(clean)).toBe(clean);
        expect(clean.startsWith("/")).toBe(true);
        expect(clean === "/" ? [] : clean.slice(1).replace(/\/$/, "").split("/")).not.toEqual(
          expect.arrayContaining([expect.stringMatching(/^\.{0,2}$/)]),
        );
      }),
    );
  });
});

test("paths in headers", () => {
  expect(encodePath('/a b%\u00e9\r\n"<>:@,;=+$&~-._/')).toBe("/a%20b%25%E9%0D%0A%22%3C%3E:@,;=+$&~-._/");
});
