import { describe, expect, it } from "vitest";
import { KeyValue } from "../api/index.ts";
import { bytesOfKey, type KeyString } from "../base/bytes.ts";
import { seededRandom } from "../base/random.ts";
import { HistoryBatch, RecentRevisions } from "./catch-up.ts";
import { OPEN_END } from "./interval-tree.ts";
import type { WatchStream } from "./stream.ts";
import { WatchEvent } from "./watch-event.ts";
import { Watcher, WatchOption } from "./watcher.ts";

function event(revision: number, key: string, type: "put" | "delete" = "put", valueBytes = 0): WatchEvent {
  const kv = KeyValue.create({ key: bytesOfKey(key as KeyString), modRevision: revision, value: new Uint8Array(valueBytes) });
  return new WatchEvent({ type, key: key as KeyString, kv, previous: undefined });
}

function watcher(start: string, end: string | undefined, next: number, options = 0): Watcher {
  // A watcher's stream plays no part in matching.
  return new Watcher(undefined as unknown as WatchStream, 0n, start as KeyString, end as KeyString | undefined, next, next, options);
}

describe("a stretch of history", () => {
  it("gives each watcher what a look at every event gives, in order, by scanning and by its order of keys", () => {
    const random = seededRandom(3);
    for (let round = 0; round < 30; round += 1) {
      const events: WatchEvent[] = [];
      for (let revision = 10; revision < 60; revision += 1) {
        for (let n = random.below(4); n >= 0; n -= 1) {
          events.push(event(revision, `k${random.below(20)}`, random.below(3) === 0 ? "delete" : "put"));
        }
      }
      const batch = new HistoryBatch(events, 10, 60);
      for (let n = 0; n < 20; n += 1) {
        const start = random.below(6) === 0 ? "\0" : `k${random.below(20)}`;
        const end = random.below(3) === 0 ? undefined : random.below(3) === 0 ? OPEN_END : `${start}~`;
        const options = random.below(4) === 0 ? WatchOption.noPut : random.below(4) === 0 ? WatchOption.noDelete : 0;
        const one = watcher(start, end, 10 + random.below(50), options);
        const expected = events.filter(
          (candidate) => candidate.revision >= one.next && one.watches(candidate.key) && one.wants(candidate.isPut),
        );
        expect(batch.matching(one)).toEqual(expected);
        expect(batch.covers(one)).toBe(true);
      }
      expect(batch.covers(watcher("a", undefined, 9))).toBe(false);
      expect(batch.covers(watcher("a", undefined, 60))).toBe(false);
    }
  });

  it("refuses events outside of it", () => {
    expect(() => new HistoryBatch([], 5, 5)).toThrow("not empty");
    expect(() => new HistoryBatch([event(4, "a")], 5, 9)).toThrow("lie in their stretch");
    expect(() => new HistoryBatch([event(9, "a")], 5, 9)).toThrow("lie in their stretch");
  });
});

describe("recent revisions", () => {
  it("keeps the last ones, up to a number and up to so many bytes", () => {
    const recent = new RecentRevisions(10, 10_000, 5);
    expect(recent.covers(5)).toBe(false);
    for (let revision = 5; revision < 30; revision += 1) recent.push(revision, [event(revision, "a")]);
    expect([19, 20, 29, 30].map((revision) => recent.covers(revision))).toEqual([false, true, true, false]);
    expect(recent.batch().events.map((one) => one.revision)).toEqual([20, 21, 22, 23, 24, 25, 26, 27, 28, 29]);
    recent.push(30, [event(30, "a", "put", 9000)]);
    expect([26, 27, 30].map((revision) => recent.covers(revision))).toEqual([false, true, true]);
    expect(recent.bytes).toBeLessThanOrEqual(10_000);
    recent.push(31, [event(31, "a", "put", 20_000)]);
    expect([30, 31, 32].map((revision) => recent.covers(revision))).toEqual([false, false, false]);
    expect(recent.bytes).toBe(0);
    recent.push(32, [event(32, "a"), event(32, "b")]);
    expect(recent.batch().events.length).toBe(2);
    expect(() => recent.push(34, [])).toThrow("no gap");
    recent.clear(50);
    recent.push(50, [event(50, "a")]);
    expect([32, 49, 50].map((revision) => recent.covers(revision))).toEqual([false, false, true]);
  });
});
