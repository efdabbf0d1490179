import { beforeAll, describe, expect, it } from "vitest";
import { Event, FilterType, WatchResponse } from "../../src/api/index.ts";
import { setVerify } from "../../src/base/assert.ts";
import { EtcdError } from "../../src/base/errors.ts";
import { HubHarness } from "../support/watch-harness.ts";

beforeAll(() => setVerify(true));

const COMPACTED = '"etcdserver: mvcc: required revision has been compacted"';

describe("creation", () => {
  it("answers with the store's revision, before anything else of that watcher", () => {
    const t = new HubHarness();
    t.put("a", "1");
    const s = t.open();
    s.create({ key: "a" });
    t.put("a", "2");
    expect(s.read()).toEqual(["0@2 created", "0@3 a=2"]);
  });

  it("BT8, 10.2: refuses with id -1 and leaves the stream and its other watchers alone", () => {
    const t = new HubHarness({ watchersPerStreamMax: 3 });
    const s = t.open();
    s.create({ key: "a" });
    s.create({ key: "a", from: -1 });
    s.create({ key: "z", end: "a" });
    s.create({ key: "a", end: "a" });
    s.create({ key: "a", id: 7n });
    s.create({ key: "b", id: 7n });
    s.stream.refuse("rpc error: code = PermissionDenied desc = etcdserver: permission denied");
    s.create({ key: "c" });
    s.create({ key: "d" });
    expect(s.read()).toEqual([
      "0@1 created",
      `-1@1 created canceled ${COMPACTED}`,
      '-1@1 created canceled "mvcc: watcher range is empty"',
      '-1@1 created canceled "mvcc: watcher range is empty"',
      "7@1 created",
      '-1@1 created canceled "mvcc: duplicate watch ID provided on the WatchStream"',
      '-1@1 created canceled "rpc error: code = PermissionDenied desc = etcdserver: permission denied"',
      "1@1 created",
      '-1@1 created canceled "etcdserver: too many requests"',
    ]);
    t.put("a", "1");
    expect(s.read()).toEqual(["0@2 a=1", "7@2 a=1"]);
  });

  it("10.2: picks ids by a counter that skips ids in use and never goes back", () => {
    const t = new HubHarness();
    const s = t.open();
    const ids = (): string[] => s.read().map((line) => line.split("@")[0] as string);
    s.create({});
    s.create({});
    s.create({ id: 5n });
    s.create({ id: 2n });
    for (let n = 0; n < 4; n += 1) s.create({});
    s.create({ id: -1n });
    s.create({ id: -3n });
    expect(ids()).toEqual(["0", "1", "5", "2", "3", "4", "6", "7", "-1", "-3"]);
    s.cancel(0n);
    s.cancel(3n);
    s.create({});
    s.create({ id: 3n });
    s.create({ id: -3n });
    expect(ids()).toEqual(["0", "3", "8", "3", "-1"]);
  });

  it("watches one key, a range, everything from a key on, and for an empty key the key 0x00", () => {
    const t = new HubHarness();
    const s = t.open();
    s.create({ key: "b" });
    s.create({ key: "b", end: "d" });
    s.create({ key: "c", end: "\0" });
    s.create({});
    s.create({ end: "\0" });
    s.drain();
    for (const key of ["\0", "a", "b", "bb", "c", "d", "e"]) t.put(key, "");
    const heard = s.read().map((line) => line.replace(/@\d+ /, " "));
    const of = (id: number): string[] => heard.filter((line) => line.startsWith(`${id} `)).map((line) => line.slice(2).replace("=", ""));
    expect(of(0)).toEqual(["b"]);
    expect(of(1)).toEqual(["b", "bb", "c"]);
    expect(of(2)).toEqual(["c", "d", "e"]);
    expect(of(3)).toEqual(["\0"]);
    expect(of(4)).toEqual(["\0", "a", "b", "bb", "c", "d", "e"]);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("a range end of 0x00 is open only when it is one byte", () => {
    const t = new HubHarness();
    const s = t.open();
    s.create({ key: "\0", end: "\0\0" });
    expect(s.read()).toEqual(["0@1 created"]);
    t.put("a");
    t.put("\0", "x");
    expect(s.read()).toEqual(["0@3 \0=x"]);
  });
});

describe("live events", () => {
  it("10.4: one response per revision with all its matching events in execution order", () => {
    const t = new HubHarness();
    t.put("b", "0");
    const s = t.open();
    s.create({ end: "\0" });
    s.create({ key: "a", end: "c" });
    s.drain();
    t.apply({ put: "c", value: "1" }, { put: "a", value: "1" }, { delete: "b" }, { put: "z", value: "1" });
    expect(s.read()).toEqual(["0@3 c=1 a=1 -b z=1", "1@3 a=1 -b"]);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("W8: filters drop puts, deletes or both; unknown ones are ignored; a response with nothing left is not sent", () => {
    const t = new HubHarness();
    const s = t.open();
    s.create({ key: "k", filters: [FilterType.NOPUT] });
    s.create({ key: "k", filters: [FilterType.NODELETE, FilterType.NODELETE] });
    s.create({ key: "k", filters: [FilterType.NOPUT, FilterType.NODELETE] });
    s.create({ key: "k", filters: [7, -1] });
    s.drain();
    t.put("k", "1");
    t.delete("k");
    expect(s.read()).toEqual(["1@2 k=1", "3@2 k=1", "0@3 -k", "3@3 -k"]);
  });

  it("W7: previous pairs come with changes and deletes, not with creations, and only to those who asked", () => {
    const t = new HubHarness();
    const s = t.open();
    s.create({ key: "k", prevKv: true });
    s.create({ key: "k" });
    s.drain();
    t.put("k", "1");
    t.put("k", "2");
    t.delete("k");
    t.put("k", "3");
    expect(s.read()).toEqual(["0@2 k=1", "1@2 k=1", "0@3 k=2(1)", "1@3 k=2", "0@4 -k(2)", "1@4 -k", "0@5 k=3", "1@5 k=3"]);
    // One look at the store per revision, however many want it.
    expect(t.member.rowsNow).toBe(2);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("one event object, encoded once, serves all watchers; a single one is encoded in its response", () => {
    const t = new HubHarness();
    const s = t.open();
    for (const prevKv of [false, false, true, true]) s.create({ key: "k", prevKv });
    s.create({ key: "l" });
    s.drain();
    t.put("k", "1");
    t.put("k", "2");
    t.put("l", "2");
    const events = s
      .drain()
      .slice(4)
      .map((response) => response.events[0] as Event);
    expect(events.length).toBe(5);
    const [first, second, third, fourth, alone] = events as [Event, Event, Event, Event, Event];
    expect(first).toBe(second);
    expect(third).toBe(fourth);
    expect(third).not.toBe(first);
    expect(alone.wire).toBeUndefined();
    for (const event of [first, third]) {
      expect(event.wire).toBe(event.wire);
      expect(event.wire).toEqual(Event.encode({ type: event.type, kv: event.kv, prevKv: event.prevKv }));
    }
    // Also in the middle of the encoding of a whole response.
    const response = WatchResponse.create({ watchId: 3n, events: [first, third, alone] });
    const decoded = WatchResponse.decode(WatchResponse.encode(response));
    expect(decoded.events.map((event) => event.prevKv?.modRevision)).toEqual([undefined, 2, undefined]);
  });

  it("events that are executed but not yet notified are not history for a new watcher (start 0)", () => {
    const t = new HubHarness();
    const events = t.history.apply({ put: "k", value: "1" });
    t.member.revision = t.history.revision;
    const s = t.open();
    s.create({ key: "k" });
    s.create({ key: "k", from: 2 });
    s.stream.requestProgress();
    t.hub.notify(2, events);
    s.stream.requestProgress();
    t.put("k", "2");
    expect(s.read()).toEqual(["0@2 created", "1@2 created", "1@2 k=1", "-1@2", "0@3 k=2", "1@3 k=2"]);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("asserts that every revision is notified once and in order", () => {
    const t = new HubHarness();
    const events = t.history.apply({ put: "k" });
    expect(() => t.hub.notify(3, events)).toThrow("every revision is notified once");
    t.hub.notify(2, events);
    expect(() => t.hub.notify(2, events)).toThrow("every revision is notified once");
    expect(() => t.hub.notify(3, [])).toThrow("a revision has events");
  });
});

describe("history", () => {
  it("10.3: replays from the start revision, then goes on live", async () => {
    const t = new HubHarness();
    for (let n = 2; n <= 6; n += 1) t.put(n % 2 === 0 ? "k" : "x", `${n}`);
    const s = t.open();
    s.create({ key: "k", from: 1 });
    s.create({ key: "k", from: 4 });
    s.create({ key: "k", from: 6 });
    s.create({ key: "k", from: 7 });
    s.create({ end: "\0", from: 5 });
    expect(t.hub.stats.slowWatchers).toBe(4);
    await t.settle();
    t.put("k", "7");
    expect(s.read()).toEqual([
      "0@6 created",
      "1@6 created",
      "2@6 created",
      "3@6 created",
      "4@6 created",
      "0@6 k=2 k=4 k=6",
      "1@6 k=4 k=6",
      "2@6 k=6",
      "4@6 x=5 k=6",
      "0@7 k=7",
      "1@7 k=7",
      "2@7 k=7",
      "3@7 k=7",
      "4@7 k=7",
    ]);
    // One read served all four, although they start at different revisions.
    expect(t.member.reads).toBeLessThanOrEqual(2);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("10.4: at most 1000 revisions in one response, none of them split", async () => {
    const t = new HubHarness();
    for (let n = 0; n < 1100; n += 1) t.apply({ put: "a", value: `${n}` }, { put: "b", value: `${n}` });
    const s = t.open();
    s.create({ end: "\0", from: 2 });
    await t.settle();
    const responses = s.drain().slice(1);
    expect(responses.map((response) => [response.header?.revision, response.events.length])).toEqual([
      [1101, 2000],
      [1101, 200],
    ]);
    expect(t.check(1101)).toEqual([]);
  });

  it("events that come while the store is read are neither lost nor sent twice", async () => {
    const t = new HubHarness();
    for (let n = 0; n < 50; n += 1) t.put("k", `${n}`);
    const s = t.open();
    s.create({ key: "k", from: 2 });
    t.member.gate = async () => {
      t.put("k", "during");
    };
    await t.hub.catchUp();
    t.put("k", "after");
    await t.settle();
    expect(s.drain().flatMap((response) => response.events).length).toBe(52);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("a watcher reaches the present although every read takes longer than the next write", async () => {
    const t = new HubHarness();
    const s = t.open();
    s.create({ key: "other" });
    for (let n = 0; n < 3000; n += 1) t.put("k", `${n}`);
    s.create({ key: "k", from: 2 });
    t.member.gate = async () => {
      for (let n = 0; n < 20; n += 1) t.put("k", "during");
    };
    for (let rounds = 0; rounds < 20 && t.hub.lagging; rounds += 1) await t.hub.catchUp();
    expect(t.hub.lagging).toBe(false);
    s.drain();
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("watchers of far apart positions take turns, and those near the present do not wait for them", async () => {
    const t = new HubHarness({ catchUpRevisionsMax: 10 });
    for (let n = 0; n < 2000; n += 1) t.put("k");
    const s = t.open();
    s.create({ key: "k", from: 2 });
    s.create({ key: "k", from: 1000 });
    t.put("k");
    s.create({ key: "k", from: 2001 });
    await t.hub.catchUp();
    const seen = new Map<bigint, number>();
    for (const response of s.drain()) for (const event of response.events) seen.set(response.watchId, event.kv?.modRevision ?? 0);
    expect(seen.get(2n)).toBe(2002);
    expect(seen.get(0n)).toBe(81);
    expect(seen.get(1n)).toBe(1069);
    await t.settle();
    s.drain();
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("looks previous pairs up together, and only where they are wanted", async () => {
    const t = new HubHarness();
    for (let n = 0; n < 200; n += 1) t.put(n % 2 === 0 ? "k" : "x", `${n}`);
    const s = t.open();
    s.create({ key: "k", from: 2 });
    await t.settle();
    expect(t.member.rowsLater + t.member.rowsNow).toBe(0);
    s.create({ key: "k", from: 2, prevKv: true });
    s.create({ key: "k", from: 2, prevKv: true });
    await t.settle();
    expect(t.member.rowsNow).toBe(0);
    expect(t.member.rowsLater).toBe(99);
    s.drain();
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("passes a failing read on and leaves the watchers where they are", async () => {
    const t = new HubHarness();
    t.put("k", "1");
    const s = t.open();
    s.create({ key: "k", from: 2 });
    t.member.gate = () => Promise.reject(new Error("disk"));
    await expect(t.hub.catchUp()).rejects.toThrow("disk");
    expect(t.hub.lagging).toBe(true);
    t.member.gate = () => Promise.resolve();
    await t.settle();
    expect(s.read()).toEqual(["0@2 created", "0@2 k=1"]);
  });
});

describe("W5: starts in the future", () => {
  it("delivers nothing below the start", () => {
    const t = new HubHarness();
    const s = t.open();
    s.create({ key: "k", from: 4 });
    for (let n = 2; n <= 5; n += 1) t.put("k", `${n}`);
    expect(s.read()).toEqual(["0@1 created", "0@4 k=4", "0@5 k=5"]);
    s.create({ key: "k", from: Number.MAX_SAFE_INTEGER });
    t.put("k");
    expect(s.read().length).toBe(2);
    expect(t.check(t.history.revision)).toEqual([]);
  });
});

describe("compaction", () => {
  it("10.3: a start below the compaction is created, then cancelled with header 0 and no reason; the rest goes on", async () => {
    const t = new HubHarness();
    for (let n = 2; n <= 5; n += 1) t.put("k", `${n}`);
    t.member.compact(4);
    const s = t.open();
    s.create({ key: "k", from: 3 });
    s.create({ key: "k", from: 4 });
    s.create({ key: "k", from: 1 });
    await t.settle();
    expect(s.read()).toEqual([
      "0@5 created",
      "0@0 canceled compacted=4",
      "1@5 created",
      "2@5 created",
      "2@0 canceled compacted=4",
      "1@5 k=4 k=5",
    ]);
    t.put("k", "6");
    expect(s.read()).toEqual(["1@6 k=6"]);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("10.3: the id stays taken, and progress requests unanswered, until the client cancels it too", () => {
    const t = new HubHarness();
    for (let n = 2; n <= 5; n += 1) t.put("k", `${n}`);
    t.member.compact(4);
    const s = t.open();
    s.create({ key: "k", id: 9n, from: 2 });
    s.drain();
    s.create({ key: "k", id: 9n });
    s.create({ key: "k" });
    s.stream.requestProgress();
    expect(s.read()).toEqual(['-1@5 created canceled "mvcc: duplicate watch ID provided on the WatchStream"', "0@5 created"]);
    s.cancel(9n);
    s.stream.requestProgress();
    s.create({ key: "k", id: 9n });
    s.cancel(9n);
    s.cancel(9n);
    expect(s.read()).toEqual(["9@5 canceled", "-1@5", "9@5 created", "9@5 canceled"]);
    expect(t.hub.stats.watchers).toBe(1);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("BT3: a watcher that lags and is overtaken is cancelled; the message is not lost behind a full queue, and its position not moved", async () => {
    const t = new HubHarness({ streamBytesMax: 400, catchUpRevisionsMax: 10 });
    const s = t.open();
    s.create({ key: "k" });
    for (let n = 0; n < 100; n += 1) t.put("k", `${n}`);
    expect(t.hub.stats.slowWatchers).toBe(1);
    expect(t.hub.lagging).toBe(false);
    await t.hub.catchUp();
    t.member.compact(90);
    await t.hub.catchUp();
    const before = s.drain();
    await t.settle();
    const after = s.read();
    expect(before.at(-1)?.events.length).toBe(1);
    expect(after).toEqual(["0@0 canceled compacted=90"]);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("a compaction that arrives while its history is being read cancels, it does not skip", async () => {
    const t = new HubHarness({ catchUpRevisionsMax: 2 });
    for (let n = 2; n <= 9; n += 1) t.put("k", `${n}`);
    const s = t.open();
    s.create({ key: "k", from: 2 });
    let reads = 0;
    t.member.gate = async () => {
      reads += 1;
      if (reads === 2) t.member.compact(8);
    };
    await t.settle();
    expect(s.read()).toEqual(["0@9 created", "0@9 k=2 k=3", "0@0 canceled compacted=8"]);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("10.4: no previous pair whose revision is compacted, the one at the compaction is there", async () => {
    const t = new HubHarness();
    for (let n = 2; n <= 5; n += 1) t.put("k", `${n}`);
    t.member.compact(4);
    const s = t.open();
    s.create({ key: "k", from: 4, prevKv: true });
    await t.settle();
    expect(s.read()).toEqual(["0@5 created", "0@5 k=4 k=5(4)"]);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("BT4: from each revision of a history with deletes on, compacted to each revision: complete or cancelled", async () => {
    for (let compaction = 2; compaction <= 9; compaction += 1) {
      const t = new HubHarness({ catchUpRevisionsMax: 1 });
      t.put("a");
      t.put("b");
      t.delete("a");
      t.put("a");
      t.apply({ delete: "a" }, { delete: "b" });
      t.put("b");
      t.put("b");
      t.delete("b");
      t.member.compact(compaction);
      const s = t.open();
      for (let from = 1; from <= 9; from += 1) s.create({ end: "\0", from, prevKv: from % 2 === 0 });
      await t.settle();
      const cancelled = s.drain().filter((response) => response.canceled).length;
      expect(cancelled).toBe(compaction - 1);
      expect(t.check(t.history.revision)).toEqual([]);
    }
  });
});

describe("progress", () => {
  it("10.6: a request is answered at once with id -1 when all are caught up, else dropped", async () => {
    const t = new HubHarness();
    const s = t.open();
    s.stream.requestProgress();
    expect(s.read()).toEqual([]);
    s.create({ key: "k" });
    t.put("x");
    s.stream.requestProgress();
    expect(s.read()).toEqual(["0@1 created", "-1@2"]);
    s.create({ key: "k", from: 5 });
    s.stream.requestProgress();
    expect(s.read()).toEqual(["1@2 created"]);
    t.put("x");
    t.put("x");
    s.stream.requestProgress();
    expect(s.read()).toEqual([]);
    t.put("x");
    s.stream.requestProgress();
    expect(s.read()).toEqual(["-1@5"]);
    s.cancel(0n);
    s.cancel(1n);
    s.stream.requestProgress();
    expect(s.read()).toEqual(["0@5 canceled", "1@5 canceled"]);
  });

  it("BT1: a request right after the creation of a watcher that has to catch up gets no answer", async () => {
    const t = new HubHarness();
    t.put("k", "1");
    const s = t.open();
    s.create({ key: "k", from: 1, progress: true });
    s.stream.requestProgress();
    s.stream.notifyProgress();
    expect(s.read()).toEqual(["0@2 created"]);
    await t.settle();
    s.stream.requestProgress();
    expect(s.read()).toEqual(["0@2 k=1", "-1@2"]);
  });

  it("BT6: reports periodically for quiet watchers that asked for it, also if they never had an event", () => {
    const t = new HubHarness();
    const s = t.open();
    s.create({ key: "quiet", progress: true });
    s.create({ key: "busy", progress: true });
    s.create({ key: "quiet" });
    s.create({ key: "quiet", progress: true, from: 4 });
    s.stream.notifyProgress();
    s.drain();
    t.put("busy");
    s.stream.notifyProgress();
    expect(s.read()).toEqual(["1@2 busy=busy@2", "0@2"]);
    s.stream.notifyProgress();
    expect(s.read()).toEqual(["0@2", "1@2"]);
    t.put("busy");
    t.put("busy");
    s.stream.notifyProgress();
    s.stream.notifyProgress();
    expect(s.read()).toEqual(["1@3 busy=busy@3", "1@4 busy=busy@4", "0@4", "3@4", "0@4", "1@4", "3@4"]);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("W6: never passes events that are still unread", () => {
    const t = new HubHarness();
    const s = t.open();
    s.create({ key: "k", progress: true });
    t.put("k", "1");
    s.stream.requestProgress();
    t.put("k", "2");
    s.stream.requestProgress();
    expect(s.read()).toEqual(["0@1 created", "0@2 k=1", "-1@2", "0@3 k=2", "-1@3"]);
  });
});

describe("slow readers", () => {
  it("W10: what is unread never exceeds the budget, nothing is lost, other streams do not notice", async () => {
    const t = new HubHarness({ streamBytesMax: 3000 });
    const slow = t.open();
    const quick = t.open();
    for (const key of ["a", "b", "c"]) slow.create({ key, progress: true });
    quick.create({ end: "\0" });
    const random = (n: number): string => ["a", "b", "c"][n % 3] as string;
    for (let n = 0; n < 500; n += 1) {
      t.put(random(n), "x".repeat(n % 70));
      quick.drain();
      if (n % 7 === 0) slow.take(200);
      slow.stream.requestProgress();
      slow.stream.notifyProgress();
      await t.hub.catchUp();
      expect(slow.stream.queuedBytes).toBeLessThanOrEqual(3000);
    }
    expect(quick.record.entries.length).toBe(502);
    while (t.hub.lagging || slow.take().length > 0) await t.hub.catchUp();
    expect(t.check(t.history.revision)).toEqual([]);
    expect(t.hub.stats.pendingEvents).toBe(0);
    expect(t.hub.stats.slowWatchers).toBe(0);
  });

  it("a response larger than the whole budget still goes out, alone", async () => {
    const t = new HubHarness({ streamBytesMax: 1000 });
    const s = t.open();
    s.create({ key: "k" });
    t.put("k", "x".repeat(5000));
    t.put("k", "y".repeat(5000));
    for (let n = 0; n < 10; n += 1) {
      s.take();
      await t.settle();
    }
    expect(s.taken.map((response) => response.events.length)).toEqual([0, 1, 1]);
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("does not read the store for a stream that nobody reads", async () => {
    const t = new HubHarness({ streamBytesMax: 1000 });
    const s = t.open();
    s.create({ key: "k" });
    for (let n = 0; n < 100; n += 1) t.put("k");
    expect(t.hub.lagging).toBe(false);
    for (let n = 0; n < 5; n += 1) await t.hub.catchUp();
    expect(t.member.reads).toBe(0);
    const lagged = t.lagged;
    s.take(1);
    expect(t.hub.lagging).toBe(false);
    s.drain();
    expect(t.hub.lagging).toBe(true);
    expect(t.lagged).toBe(lagged + 1);
  });

  it("the watchers of a full stream take turns", async () => {
    const t = new HubHarness({ streamBytesMax: 2000, catchUpRevisionsMax: 5 });
    for (let n = 0; n < 400; n += 1) t.put("k", `${n}`);
    const s = t.open();
    for (let n = 0; n < 4; n += 1) s.create({ key: "k", from: 2 });
    const furthest = new Map<bigint, number>();
    for (let n = 0; n < 30; n += 1) {
      for (const response of s.take()) {
        const last = response.events.at(-1)?.kv?.modRevision;
        if (last !== undefined) furthest.set(response.watchId, last);
      }
      await t.hub.catchUp();
    }
    const positions = [...furthest.values()];
    expect(positions.length).toBe(4);
    expect(Math.max(...positions) - Math.min(...positions)).toBeLessThan(100);
  });

  it("(f): asks its owner to stop reading requests when answers lie unread, and refuses at last", () => {
    const t = new HubHarness();
    const s = t.open();
    let refused: unknown;
    for (let n = 0; n < 100_000 && refused === undefined; n += 1) {
      try {
        s.stream.create({ ...WATCH_NOTHING });
        s.stream.cancel(BigInt(n));
      } catch (error) {
        refused = error;
      }
      if (n === 10) expect(s.stream.congested).toBe(false);
      if (n === 600) expect(s.stream.congested).toBe(true);
    }
    expect(EtcdError.is(refused) && refused.reason).toBe("too-many-requests");
    expect(s.stream.queuedBytes).toBeLessThan(10_000_000);
    s.drain();
    expect(s.stream.congested).toBe(false);
    s.create({ key: "k" });
    expect(s.read().length).toBe(1);
  });
});

const WATCH_NOTHING = {
  key: new Uint8Array(0),
  rangeEnd: new Uint8Array(0),
  startRevision: 0,
  progressNotify: false,
  filters: [],
  prevKv: false,
  watchId: 0n,
  fragment: false,
};

describe("fragments", () => {
  it("10.5: splits a large response for those who asked, at the limit, all pieces but the last marked", async () => {
    const t = new HubHarness({ fragmentBytes: 1000 });
    for (let n = 0; n < 5; n += 1) t.apply({ put: `k${n}`, value: "x".repeat(400) });
    t.put("k5", "x".repeat(3000));
    t.put("k6", "small");
    const s = t.open();
    s.create({ end: "\0", from: 2, fragment: true });
    s.create({ end: "\0", from: 2 });
    await t.settle();
    const responses = s.drain().filter((response) => response.events.length > 0);
    expect(responses.map((response) => [response.watchId, response.fragment, response.events.length])).toEqual([
      [0n, true, 2],
      [0n, true, 2],
      [0n, true, 1],
      [0n, true, 1],
      [0n, false, 1],
      [1n, false, 7],
    ]);
    for (const response of responses.slice(0, 5)) {
      if (response.events.length > 1) expect(WatchResponse.byteLength(response)).toBeLessThan(1000);
      expect(response.header?.revision).toBe(8);
    }
    expect(t.check(t.history.revision)).toEqual([]);
  });

  it("splits the events of one revision too, and leaves one large event whole", () => {
    const t = new HubHarness({ fragmentBytes: 1000 });
    const s = t.open();
    s.create({ end: "\0", fragment: true });
    s.drain();
    t.put("k", "x".repeat(2000));
    t.apply({ put: "a", value: "x".repeat(600) }, { put: "b", value: "x".repeat(600) });
    expect(s.drain().map((response) => [response.fragment, response.events.length])).toEqual([
      [false, 1],
      [true, 1],
      [false, 1],
    ]);
    expect(t.check(t.history.revision)).toEqual([]);
  });
});

describe("snapshot install", () => {
  it("BT2: synced, lagging and stalled watchers go on exactly where they were", async () => {
    const t = new HubHarness({ streamBytesMax: 800, catchUpRevisionsMax: 5 });
    for (let n = 2; n <= 30; n += 1) t.put("k", `${n}`);
    const synced = t.open();
    const lagging = t.open();
    const stalled = t.open();
    synced.create({ key: "k" });
    lagging.create({ key: "k", from: 2 });
    stalled.create({ key: "k" });
    for (let n = 31; n <= 50; n += 1) {
      t.put("k", `${n}`);
      synced.drain();
    }
    // This member hears nothing of the next revisions until the snapshot comes.
    for (let n = 51; n <= 80; n += 1) t.history.apply({ put: "k", value: `${n}` });
    t.installSnapshot();
    while (t.hub.lagging) {
      await t.hub.catchUp();
      for (const stream of t.streams) stream.drain();
    }
    t.put("k", "81");
    for (const stream of t.streams) stream.drain();
    expect(t.check(81)).toEqual([]);
    expect(synced.taken.flatMap((response) => response.events).length).toBe(51);
  });

  it("BT5: a watcher from a future revision gets neither older events nor progress", async () => {
    const t = new HubHarness();
    t.put("k", "2");
    const s = t.open();
    s.create({ key: "k", from: 52, progress: true });
    s.drain();
    for (let n = 3; n <= 40; n += 1) t.history.apply({ put: "k", value: `${n}` });
    t.installSnapshot();
    s.stream.requestProgress();
    s.stream.notifyProgress();
    expect(t.hub.lagging).toBe(false);
    expect(s.read()).toEqual([]);
    for (let n = 41; n <= 60; n += 1) t.history.apply({ put: "k", value: `${n}` });
    t.installSnapshot();
    await t.settle();
    expect(
      s
        .drain()
        .flatMap((response) => response.events)
        .map((event) => event.kv?.modRevision),
    ).toEqual([52, 53, 54, 55, 56, 57, 58, 59, 60]);
    expect(t.check(60)).toEqual([]);
  });

  it("cancels as compacted whoever the snapshot leaves without history", async () => {
    const t = new HubHarness();
    t.put("k", "2");
    const s = t.open();
    s.create({ key: "k" });
    s.create({ key: "k", from: 20 });
    s.drain();
    for (let n = 3; n <= 30; n += 1) t.history.apply({ put: "k", value: `${n}` });
    t.installSnapshot(15);
    await t.settle();
    expect(s.read()[0]).toBe("0@0 canceled compacted=15");
    expect(t.check(30)).toEqual([]);
  });

  it("what was read from the old store is not used after the install", async () => {
    const t = new HubHarness();
    for (let n = 2; n <= 10; n += 1) t.put("k", `${n}`);
    const s = t.open();
    s.create({ key: "k", from: 2 });
    t.member.gate = async () => t.installSnapshot();
    await t.hub.catchUp();
    expect(s.read()).toEqual(["0@10 created"]);
    await t.settle();
    s.drain();
    expect(t.check(10)).toEqual([]);
  });

  it("a read that fails because its store was closed for the new one is no error", async () => {
    const t = new HubHarness();
    for (let n = 2; n <= 100; n += 1) t.put("k", `${n}`);
    const s = t.open();
    const failing = async (): Promise<void> => {
      t.installSnapshot();
      throw new Error("the backend is closed");
    };
    s.create({ key: "k", from: 2 });
    t.member.gate = failing;
    await t.hub.catchUp();
    s.create({ key: "k", from: 2, prevKv: true });
    const { member } = t;
    let calls = 0;
    member.gate = async () => {
      calls += 1;
      // The history is read, its previous pairs are not.
      if (calls === 2) await failing();
    };
    await t.hub.catchUp();
    expect(calls).toBe(2);
    await t.settle();
    s.drain();
    expect(t.check(100)).toEqual([]);
  });

  it("refuses a snapshot from the past", () => {
    const t = new HubHarness();
    t.put("k");
    t.member.revision = 1;
    expect(() => t.hub.restore(t.member)).toThrow("a snapshot does not go back");
  });
});

describe("owners of streams", () => {
  it("are told once when there is something again after they found nothing", () => {
    const t = new HubHarness();
    const s = t.open();
    expect(s.readable).toBe(0);
    s.create({ end: "\0" });
    s.create({ end: "\0" });
    t.put("a");
    expect(s.readable).toBe(1);
    s.take(1);
    t.put("a");
    expect(s.readable).toBe(1);
    s.drain();
    t.put("a");
    t.put("a");
    expect(s.readable).toBe(2);
  });

  it("may come back with requests, reads and closes from within the call", () => {
    const t = new HubHarness();
    let told = 0;
    const first = t.hub.openStream(() => {
      told += 1;
      first.take(1 << 20);
      first.take(1 << 20);
      if (told === 2) {
        second.close();
        first.create({ ...WATCH_NOTHING, watchId: 50n });
      }
    });
    const second = t.hub.openStream(() => undefined);
    const all = { ...WATCH_NOTHING, rangeEnd: Uint8Array.of(0) };
    first.create(all);
    second.create(all);
    t.put("a");
    expect(told).toBe(3);
    expect(t.hub.stats).toMatchObject({ streams: 1, watchers: 2, pendingEvents: 0, slowWatchers: 0 });
  });

  it("get responses in portions of about the bytes they ask for, at least one", () => {
    const t = new HubHarness();
    const s = t.open();
    s.create({ key: "k" });
    for (let n = 0; n < 10; n += 1) t.put("k", "x".repeat(1000));
    expect(s.take(1).length).toBe(1);
    expect(s.take(1).length).toBe(1);
    expect(s.take(2500).length).toBe(3);
    expect(s.take(1 << 20).length).toBe(6);
    expect(s.take(1)).toEqual([]);
  });

  it("BT10, I20: after 100,000 random creations, cancels and closes nothing is left", async () => {
    const t = new HubHarness({ streamBytesMax: 4000 });
    let seed = 12345;
    const below = (n: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % n;
    };
    const streams = Array.from({ length: 20 }, () => t.hub.openStream(() => undefined));
    for (let n = 0; n < 100_000; n += 1) {
      const at = below(20);
      const stream = streams[at] as (typeof streams)[number];
      const dice = below(100);
      if (dice < 40)
        stream.create({
          ...WATCH_NOTHING,
          key: Uint8Array.of(97 + below(5)),
          rangeEnd: below(3) === 0 ? Uint8Array.of(0) : new Uint8Array(0),
          startRevision: below(3) === 0 ? 2 : 0,
        });
      else if (dice < 80) stream.cancel(BigInt(below(400)));
      else if (dice < 82) {
        stream.close();
        streams[at] = t.hub.openStream(() => undefined);
      } else if (dice < 84) t.put(String.fromCharCode(97 + below(5)));
      else if (dice < 85 && below(20) === 0) await t.hub.catchUp();
      else stream.take(1000);
    }
    for (const stream of streams) stream.close();
    await t.settle();
    expect(t.hub.stats).toMatchObject({ streams: 0, watchers: 0, pendingEvents: 0, slowWatchers: 0 });
    expect(t.hub.lagging).toBe(false);
  });

  it("find closed streams and a closed hub silent", async () => {
    const t = new HubHarness();
    t.put("k");
    const s = t.open();
    s.create({ key: "k", from: 1 });
    const round = t.hub.catchUp();
    t.hub.close();
    t.hub.close();
    await round;
    s.stream.create({ ...WATCH_NOTHING });
    s.stream.requestProgress();
    s.stream.notifyProgress();
    expect(s.stream.take(1000)).toEqual([]);
    t.put("k");
    t.hub.openStream(() => undefined).create({ ...WATCH_NOTHING });
    expect(t.hub.stats).toMatchObject({ streams: 0, watchers: 0, pendingEvents: 0, slowWatchers: 0 });
    await t.hub.catchUp();
  });
});
