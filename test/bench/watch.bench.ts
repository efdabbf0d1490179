/**
 * What watching costs: memory of an idle watcher, deliveries per second when a put matches many watchers, puts that match few, catching up.
 * Run: node --expose-gc --import tsx test/bench/watch.bench.ts [watchers] [streams] [matching]
 */
import { KeyValue, type WatchCreateRequest, WatchResponse } from "../../src/api/index.ts";
import { bytesOfKey, type KeyString, utf8Bytes } from "../../src/base/bytes.ts";
import type { MvccEvent } from "../../src/mvcc/index.ts";
import type { WatchSource } from "../../src/watch/hub.contract.ts";
import { WatchHub } from "../../src/watch/hub.ts";

const watchers = Number(process.argv[2] ?? 10_000);
const streams = Number(process.argv[3] ?? 100);
const matching = Number(process.argv[4] ?? 1000);
const HISTORY = 20_000;

function put(revision: number, key: string): MvccEvent {
  const kv = KeyValue.create({
    key: bytesOfKey(key as KeyString),
    createRevision: revision,
    modRevision: revision,
    version: 1,
    value: new Uint8Array(256),
  });
  return { type: "put", key: key as KeyString, kv, previous: undefined };
}

/** A store in which every revision puts one key. */
const source = {
  revision: 1,
  compactRevision: -1,
  async history(from: number, upTo: number, limits: { revisionsMax: number }) {
    const next = Math.min(upTo + 1, from + limits.revisionsMax);
    const events: MvccEvent[] = [];
    for (let revision = Math.max(from, 2); revision < next; revision += 1) events.push(put(revision, `/events/${revision % 100}`));
    return { events, next };
  },
  rowAt: () => undefined,
  rowsAt: async () => [],
} satisfies WatchSource;

function request(key: string, end: string, startRevision = 0): WatchCreateRequest {
  return {
    key: utf8Bytes(key),
    rangeEnd: utf8Bytes(end),
    startRevision,
    progressNotify: false,
    filters: [],
    prevKv: false,
    watchId: 0n,
    fragment: false,
  };
}

function heapBytes(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}

function drain(): number {
  let events = 0;
  for (const stream of open)
    for (let some = stream.take(1 << 20); some.length > 0; some = stream.take(1 << 20)) for (const one of some) events += one.events.length;
  return events;
}

const hub = new WatchHub({
  source,
  streamBytesMax: 16 << 20,
  fragmentBytes: 2 << 20,
  catchUpRevisionsMax: 1000,
  watchersPerStreamMax: 1_000_000,
  yieldNow: () => new Promise((resolve) => setImmediate(resolve)),
});
const open = Array.from({ length: streams }, () => hub.openStream(() => undefined));

const before = heapBytes();
for (let n = 0; n < watchers; n += 1) {
  // Most watch one key each; the matching ones a prefix.
  const stream = open[n % streams] as (typeof open)[number];
  if (n < matching) stream.create(request("/hot/", "/hot0"));
  else stream.create(request(`/registry/pods/default/pod-${n}`, ""));
}
drain();
const idle = (heapBytes() - before) / watchers;

function notify(count: number, key: (n: number) => string): { ms: number; delivered: number } {
  let delivered = 0;
  let ms = 0;
  for (let n = 0; n < count; n += 1) {
    source.revision += 1;
    const events = [put(source.revision, key(n))];
    const start = performance.now();
    hub.notify(source.revision, events);
    if (n % 20 === 19) delivered += drain();
    ms += performance.now() - start;
  }
  delivered += drain();
  return { ms, delivered };
}

notify(1000, (n) => `/hot/${n % 10}`);
const hot = notify(3000, (n) => `/hot/${n % 10}`);
const single = notify(100_000, (n) => `/registry/pods/default/pod-${matching + (n % (watchers - matching))}`);
const none = notify(100_000, (n) => `/nobody/${n}`);

for (const stream of open) stream.close();
const late = hub.openStream(() => undefined);
open.length = 0;
open.push(late);
source.revision = Math.max(source.revision, HISTORY);
hub.restore(source);
for (let n = 0; n < 100; n += 1) late.create(request(`/events/${n}`, "", source.revision - HISTORY + 1));
const start = performance.now();
let caughtUp = 0;
while (hub.lagging) {
  await hub.catchUp();
  caughtUp += drain();
}
const catchUpMs = performance.now() - start;

const shared = (() => {
  const stream = hub.openStream(() => undefined);
  for (let n = 0; n < 1000; n += 1) stream.create(request("/hot/", "/hot0"));
  stream.take(1 << 30);
  const rounds = 200;
  let ms = 0;
  for (let n = 0; n < rounds; n += 1) {
    source.revision += 1;
    hub.notify(source.revision, [put(source.revision, "/hot/1")]);
    const responses = stream.take(1 << 30);
    const begin = performance.now();
    for (const response of responses) WatchResponse.encode(response);
    ms += performance.now() - begin;
  }
  return (ms / rounds / 1000) * 1e6;
})();

console.log(
  JSON.stringify({
    watchers,
    streams,
    matching,
    bytesPerIdleWatcher: Math.round(idle),
    deliveriesPerSecond: Math.round((hot.delivered / hot.ms) * 1000),
    putsPerSecondOneMatch: Math.round((100_000 / single.ms) * 1000),
    putsPerSecondNoMatch: Math.round((100_000 / none.ms) * 1000),
    catchUpEvents: caughtUp,
    catchUpEventsPerSecond: Math.round((caughtUp / catchUpMs) * 1000),
    encodeSharedResponseNs: Math.round(shared),
  }),
);
