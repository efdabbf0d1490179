/** Negative controls (failure catalogue E7): the checker must object to each fault with exactly the rule that it breaks. */
import { describe, expect, it } from "vitest";
import { Event, KeyValue, WatchResponse } from "../../src/api/index.ts";
import { utf8Bytes } from "../../src/base/bytes.ts";
import { checkConcatenation, checkWatchStream, StreamRecord, type WatchRule } from "../support/watch-checker.ts";
import { createRequest, HubHarness, type WatchAsk } from "../support/watch-harness.ts";

/** A good run: one watcher on everything with previous pairs and progress, ten revisions, some with several changes. */
function run(ask: WatchAsk = { end: "\0", prevKv: true, progress: true }): { harness: HubHarness; responses: WatchResponse[] } {
  const harness = new HubHarness();
  const stream = harness.open();
  stream.create(ask);
  for (let n = 0; n < 10; n += 1) {
    harness.apply({ put: "a", value: `${n}` }, { put: "b" }, n % 3 === 2 ? { delete: "c" } : { put: "c" });
    if (n % 4 === 3) stream.stream.requestProgress();
  }
  return { harness, responses: stream.drain() };
}

function rules(harness: HubHarness, responses: readonly WatchResponse[], ask?: WatchAsk, liveUpTo?: number): WatchRule[] {
  const record = new StreamRecord();
  record.create(createRequest(ask ?? { end: "\0", prevKv: true, progress: true }));
  for (const response of responses) record.response(response);
  const violations = checkWatchStream(harness.history.model, record, liveUpTo === undefined ? {} : { liveUpTo });
  return [...new Set(violations.map(({ rule }) => rule))];
}

function copy(response: WatchResponse): WatchResponse {
  return WatchResponse.create({
    ...response,
    header: response.header === undefined ? undefined : { ...response.header },
    events: [...response.events],
  });
}

/** The responses with one of them changed. `at` counts responses with events, from 0. */
function altered(responses: readonly WatchResponse[], at: number, change: (response: WatchResponse) => WatchResponse[]): WatchResponse[] {
  let seen = -1;
  return responses.flatMap((response) => {
    if (response.events.length > 0) seen += 1;
    return response.events.length > 0 && seen === at ? change(copy(response)) : [response];
  });
}

describe("the watch checker", () => {
  it("accepts a good run", () => {
    const { harness, responses } = run();
    expect(rules(harness, responses, undefined, 11)).toEqual([]);
    expect(responses.some((response) => response.watchId === -1n)).toBe(true);
  });

  it("sees a dropped event", () => {
    const { harness, responses } = run();
    const faulty = altered(responses, 4, (response) => [{ ...response, events: response.events.slice(1) }]);
    expect(rules(harness, faulty)).toEqual(["W4-reliable"]);
  });

  it("sees a dropped response", () => {
    const { harness, responses } = run();
    expect(
      rules(
        harness,
        altered(responses, 5, () => []),
      ),
    ).toEqual(["W4-reliable"]);
    expect(
      rules(
        harness,
        altered(responses, 9, () => []),
        undefined,
        11,
      ),
    ).toEqual(["W11-live"]);
  });

  it("sees a duplicated event", () => {
    const { harness, responses } = run();
    const faulty = altered(responses, 4, (response) => [{ ...response, events: [response.events[0] as Event, ...response.events] }]);
    expect(rules(harness, faulty)).toEqual(["W2-unique"]);
  });

  it("sees two swapped responses", () => {
    const { harness, responses } = run();
    const [first] = responses.filter((response) => response.events.length > 0).slice(4, 5) as [WatchResponse];
    const without = altered(responses, 4, () => []);
    expect(
      rules(
        harness,
        altered(without, 4, (response) => [response, first]),
      ),
    ).toEqual(["W1-ordered"]);
  });

  it("sees swapped events of one revision", () => {
    const { harness, responses } = run();
    const faulty = altered(responses, 4, (response) => [{ ...response, events: [...response.events].reverse() }]);
    expect(rules(harness, faulty)).toEqual(["W1-ordered"]);
  });

  it("sees a split revision, unless it is in fragments", () => {
    const { harness, responses } = run();
    const split = (fragment: boolean): WatchResponse[] =>
      altered(responses, 4, (response) => [
        { ...response, events: response.events.slice(0, 1), fragment },
        { ...response, events: response.events.slice(1) },
      ]);
    expect(rules(harness, split(false))).toEqual(["W3-atomic"]);
    expect(rules(harness, split(true))).toEqual(["W3-atomic"]);
    expect(rules(harness, split(true), { end: "\0", prevKv: true, fragment: true })).toEqual([]);
  });

  it("sees a lowered bookmark", () => {
    const { harness, responses } = run();
    let progress = 0;
    const faulty = responses.map((response) => {
      if (response.watchId === -1n) progress += 1;
      return response.watchId === -1n && progress === 2
        ? { ...copy(response), header: { clusterId: 0n, memberId: 0n, revision: 4, raftTerm: 0 } }
        : response;
    });
    expect(rules(harness, faulty)).toEqual(["W6-bookmarkable"]);
  });

  it("sees a progress before its events, and one for a start in the future", () => {
    const { harness, responses } = run();
    const early = altered(responses, 4, (response) => [WatchResponse.create({ header: response.header, watchId: 0n }), response]);
    expect(rules(harness, early)).toEqual(["W6-bookmarkable"]);
    const ask = { key: "a", from: 100, progress: true };
    const future = [
      responses[0] as WatchResponse,
      WatchResponse.create({ header: { clusterId: 0n, memberId: 0n, revision: 11, raftTerm: 0 } }),
    ];
    expect(rules(harness, future, ask)).toEqual(["W6-bookmarkable"]);
  });

  it("sees an event before the start, and one that was not asked for", () => {
    const { harness, responses } = run();
    expect(rules(harness, responses, { end: "\0", prevKv: true, from: 5 })).toEqual(["W5-resumable"]);
    expect(rules(harness, responses, { key: "a", end: "c", prevKv: true })).toEqual(["W8-filter"]);
    expect(rules(harness, responses, { end: "\0", prevKv: true, filters: [1] })).toEqual(["W8-filter"]);
  });

  it("sees wrong, missing and unwanted previous pairs", () => {
    const { harness, responses } = run();
    const withPrevious = (prevKv: KeyValue | undefined): WatchResponse[] =>
      altered(responses, 4, (response) => {
        const [first, ...rest] = response.events as [Event, ...Event[]];
        return [{ ...response, events: [Event.create({ type: first.type, kv: first.kv, prevKv }), ...rest] }];
      });
    expect(rules(harness, withPrevious(KeyValue.create({ key: utf8Bytes("a"), modRevision: 2 })))).toEqual(["W7-previous"]);
    expect(rules(harness, withPrevious(undefined))).toEqual(["W7-previous"]);
    expect(rules(harness, responses, { end: "\0" })).toEqual(["W7-previous"]);
  });

  it("sees altered content and an event that never was", () => {
    const { harness, responses } = run();
    const other = (kv: Partial<KeyValue>): WatchResponse[] =>
      altered(responses, 4, (response) => {
        const [first, ...rest] = response.events as [Event, ...Event[]];
        return [
          {
            ...response,
            events: [
              Event.create({ type: first.type, kv: { ...(first.kv as KeyValue), ...kv, wire: undefined }, prevKv: first.prevKv }),
              ...rest,
            ],
          },
        ];
      });
    expect(rules(harness, other({ value: utf8Bytes("?") }))).toEqual(["content"]);
    expect(rules(harness, other({ key: utf8Bytes("aa") }))).toEqual(["W4-reliable"]);
  });

  it("sees an event that came before its request", () => {
    const { harness, responses } = run();
    const record = new StreamRecord();
    record.create(createRequest({ end: "\0", prevKv: true }));
    responses.forEach((response, at) => {
      record.response(response, at * 10);
    });
    const { model } = harness.history;
    expect(checkWatchStream(model, record)).toEqual([]);
    const change = model.changes[9];
    if (change === undefined) throw new Error("there are more changes");
    model.changes[9] = { ...change, calledAt: 1000 };
    expect(checkWatchStream(model, record).map(({ rule }) => rule)).toEqual(["W9-causal"]);
  });

  it("sees answers without requests, unasked cancels and compaction cancels without reason", () => {
    const { harness, responses } = run();
    const [created] = responses as [WatchResponse];
    expect(rules(harness, [...responses, created])).toEqual(["protocol"]);
    const canceled = WatchResponse.create({ header: created.header, canceled: true });
    expect(rules(harness, [...responses, canceled])).toEqual(["protocol"]);
    const compacted = WatchResponse.create({
      header: { clusterId: 0n, memberId: 0n, revision: 0, raftTerm: 0 },
      canceled: true,
      compactRevision: 5,
    });
    harness.history.model.compactions.push(5);
    expect(rules(harness, [...responses, compacted])).toEqual(["W5-resumable"]);
    expect(rules(harness, [...responses, { ...compacted, watchId: 7n }])).toEqual(["protocol"]);
  });

  it("compares what was resumed over several streams with the whole", () => {
    const { harness, responses } = run();
    const { model } = harness.history;
    const request = createRequest({ end: "\0" });
    const events = responses.flatMap((response) => response.events);
    expect(checkConcatenation(model, request, events, 2, 11)).toEqual([]);
    expect(checkConcatenation(model, request, events.slice(1), 2, 11)[0]?.rule).toBe("W4-reliable");
    expect(checkConcatenation(model, request, [...events, events[0] as Event], 2, 11)[0]?.rule).toBe("W2-unique");
  });
});
