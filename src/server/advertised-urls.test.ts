import { describe, expect, it } from "vitest";
import type { Clock } from "../base/clock.ts";
import { advertisedUrlsMismatch } from "./advertised-urls.ts";

/** Timers fire at once and move the time on. */
function hastyClock(): Clock {
  let nowMs = 0;
  return {
    monotonicMs: () => nowMs,
    wallMs: () => nowMs,
    timer: (ms, fn) => {
      const handle = setImmediate(() => {
        nowMs += ms;
        fn();
      });
      return { cancel: () => clearImmediate(handle) };
    },
  };
}

const HOSTS: Record<string, string[]> = { "a.example": ["10.0.0.1"], "a2.example": ["10.0.0.1"], "six.example": ["::1"] };

function mismatch(advertised: string[], configured: string[], options: Partial<Parameters<typeof advertisedUrlsMismatch>[1]> = {}) {
  const initialCluster = [
    { name: "n", urls: configured },
    { name: "other", urls: ["http://other:1"] },
  ];
  return advertisedUrlsMismatch(
    { name: "n", initialCluster, initialAdvertisePeerUrls: advertised },
    {
      clock: hastyClock(),
      resolveHost: async (host) => HOSTS[host] ?? Promise.reject(new Error(`lookup ${host}: no such host`)),
      ...options,
    },
  );
}

describe("advertisedUrlsMismatch", () => {
  it.each([
    [["http://h:1"], ["http://h:1"]],
    [
      ["http://h:2", "http://h:1"],
      ["http://h:1", "http://h:2"],
    ],
    [["http://a.example:1"], ["http://10.0.0.1:1"]],
    [["http://a.example:1"], ["http://a2.example:1"]],
    [["http://six.example:1"], ["http://[::1]:1"]],
  ])("%j fits %j", async (advertised, configured) => {
    expect(await mismatch(advertised, configured)).toBeUndefined();
  });

  // All seen on etcd 3.7.1.
  it.each([
    [
      ["http://127.0.0.1:24302"],
      ["http://127.0.0.1:24309"],
      '--initial-cluster has n=http://127.0.0.1:24309 but missing from --initial-advertise-peer-urls=http://127.0.0.1:24302 (resolved urls: "http://127.0.0.1:24302" != "http://127.0.0.1:24309")',
    ],
    [
      ["http://h:1"],
      ["http://h:2", "http://h:1"],
      '--initial-cluster has n=http://h:2 but missing from --initial-advertise-peer-urls=http://h:1 (len(["http://h:1"]) != len(["http://h:1" "http://h:2"]))',
    ],
    [
      ["http://h:1", "http://h:2"],
      ["http://h:1"],
      "--initial-advertise-peer-urls has http://h:2 but missing from --initial-cluster=n=http://h:1",
    ],
    [
      ["http://localhost:1"],
      ["http://127.0.0.1:1"],
      '--initial-cluster has n=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://localhost:1 (resolved urls: "http://localhost:1" != "http://127.0.0.1:1")',
    ],
    [
      ["http://nosuch.example:1"],
      ["http://127.0.0.1:1"],
      '--initial-cluster has n=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://nosuch.example:1 (failed to resolve "http://nosuch.example:1" (lookup nosuch.example: no such host))',
    ],
  ])("%j does not fit %j", async (advertised, configured, text) => {
    expect(await mismatch(advertised, configured)).toBe(text);
  });

  it("asks again while a name does not resolve yet, for as long as it was told to", async () => {
    let asked = 0;
    const late = async () => {
      asked += 1;
      return asked < 4 ? Promise.reject(new Error("not yet")) : ["10.0.0.1"];
    };
    expect(await mismatch(["http://late.example:1"], ["http://10.0.0.1:1"], { resolveHost: late })).toBeUndefined();
    expect(asked).toBe(4);
    asked = 0;
    expect(await mismatch(["http://late.example:1"], ["http://10.0.0.1:1"], { resolveHost: late, patienceMs: 2000 })).toContain("not yet");
    expect(asked).toBe(3);
  });

  it("stops asking when the start is called off", async () => {
    const abort = new AbortController();
    const waiting = mismatch(["http://nosuch.example:1"], ["http://10.0.0.1:1"], { signal: abort.signal });
    abort.abort(new Error("closed"));
    await expect(waiting).rejects.toThrow("closed");
  });
});
