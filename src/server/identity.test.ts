import { describe, expect, it } from "vitest";
import { hexId } from "../base/ids.ts";
import { clusterIdOf, memberIdOf } from "./identity.ts";

// Observed on etcd 3.7.1.
const VECTORS = [
  { token: "etcd-cluster", urls: ["http://localhost:2380"], members: ["8e9e05c52164694d"], cluster: "cdf818194e3a8c32" },
  { token: "etcd-cluster", urls: ["http://127.0.0.1:23801"], members: ["bdae9bbc11dd390d"], cluster: "d1cfaf999eb97a2a" },
  {
    token: "tok",
    urls: ["http://127.0.0.1:23830", "http://127.0.0.1:23831", "http://127.0.0.1:23832"],
    members: ["adc7d500ba8ca42e", "2f47df6d4fdfda24", "50de061ac16ed3c4"],
    cluster: "211a49b56e9aac78",
  },
  { token: "t2", urls: ["http://127.0.0.1:23830"], members: ["23b0151d846781bc"], cluster: "cb037f2ad1a4ee75" },
  { token: "etcd-cluster", urls: ["http://127.0.0.1:24302"], members: ["a5c6ac602dd26190"], cluster: "6f6efea49388b935" },
];

describe("identity", () => {
  it.each(VECTORS)("gives etcd's ids for $urls and $token", ({ token, urls, members, cluster }) => {
    const ids = urls.map((url) => memberIdOf([url], token));
    expect(ids.map(hexId)).toEqual(members);
    expect(hexId(clusterIdOf(ids))).toBe(cluster);
    expect(hexId(clusterIdOf([...ids].reverse()))).toBe(cluster);
  });

  it("does not depend on the order of a member's URLs, and leaves the caller's arrays alone", () => {
    const urls = ["http://b:1", "http://a:1"];
    expect(memberIdOf(urls, "t")).toBe(memberIdOf(["http://a:1", "http://b:1"], "t"));
    expect(urls).toEqual(["http://b:1", "http://a:1"]);
    const ids = [2n, 1n].map((id) => id as ReturnType<typeof memberIdOf>);
    clusterIdOf(ids);
    expect(ids).toEqual([2n, 1n]);
  });

  it("gives another id one second later", () => {
    expect(memberIdOf(["http://a:1"], "1700000000")).not.toBe(memberIdOf(["http://a:1"], "1700000001"));
  });
});
