import { describe, expect, it } from "vitest";
import { isBindable, parseUrl, parseUrls, withAddress } from "./urls.ts";

describe("parseUrl", () => {
  it.each([
    ["http://127.0.0.1:2379", { scheme: "http", host: "127.0.0.1", port: 2379 }],
    [" https://a.example:1 ", { scheme: "https", host: "a.example", port: 1, text: "https://a.example:1" }],
    ["HTTP://A:1", { text: "http://A:1", host: "A" }],
    ["http://[::1]:2379", { host: "::1", port: 2379, text: "http://[::1]:2379" }],
    ["http://:2379", { host: "", port: 2379 }],
    ["http://a:0", { port: 0 }],
    ["unix:///run/x.sock", { scheme: "unix", host: "/run/x.sock" }],
    ["unixs://localhost:5", { scheme: "unixs", host: "localhost:5" }],
  ])("%s", (text, expected) => {
    expect(parseUrl(text)).toMatchObject(expected);
  });

  // All seen on etcd 3.7.1.
  it.each([
    ["http://a.com", 'URL address does not have the form "host:port": http://a.com'],
    ["http://::1:2379", 'URL address does not have the form "host:port": http://::1:2379'],
    ["foo", "URL scheme must be http, https, unix, or unixs: foo"],
    ["", "URL scheme must be http, https, unix, or unixs: "],
    ["localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"],
    ["127.0.0.1:2379", 'parse "127.0.0.1:2379": first path segment in URL cannot contain colon'],
    ["http://127.0.0.1:2379/x", "URL must not contain a path: http://127.0.0.1:2379/x"],
    ["http://127.0.0.1:2379/", "URL must not contain a path: http://127.0.0.1:2379/"],
    ["http://127.0.0.1:abc", 'parse "http://127.0.0.1:abc": invalid port ":abc" after host'],
    ["ftp://a:1", "URL scheme must be http, https, unix, or unixs: ftp://a:1"],
  ])("refuses %j", (text, message) => {
    expect(() => parseUrl(text)).toThrow(new Error(message));
  });
});

it("parseUrls sorts and drops repetitions", () => {
  expect(parseUrls(["http://b:1", "http://a:10", "http://a:9", "http://b:1"]).map((url) => url.text)).toEqual([
    "http://a:10",
    "http://a:9",
    "http://b:1",
  ]);
});

it("only addresses and localhost can be bound", () => {
  const bindable = (text: string): boolean => isBindable(parseUrl(text));
  expect(["http://localhost:1", "http://0.0.0.0:1", "http://[::]:1", "unix:///x"].map(bindable)).toEqual([true, true, true, true]);
  expect(["http://example.com:1", "http://:1", "http://[fe80::1%eth0]:1", "http://1.2.3:1"].map(bindable)).toEqual([
    false,
    false,
    false,
    false,
  ]);
});

it("withAddress brackets IPv6", () => {
  expect(withAddress(parseUrl("http://a:1"), { host: "::1" }).text).toBe("http://[::1]:1");
  expect(withAddress(parseUrl("http://[::1]:0"), { port: 7 }).text).toBe("http://[::1]:7");
});
