/** Negative controls (failure catalogue E7): a good history passes, and each kind of lie is flagged by the rule that is meant for it. */
import { describe, expect, it } from "vitest";
import * as api from "../../src/api/index.ts";
import { seededRandom } from "../../src/base/random.ts";
import { type ModelEvent, MvccModel } from "../support/mvcc-model.ts";
import { checkWatchStream, StreamRecord } from "../support/watch-checker.ts";
import { checkHistory, type HistoryInput } from "./check-history.ts";
import type { Exchange, Operation } from "./history.ts";
import { type Held, judgeLeases } from "./lease-load.ts";
import { checkHashes, mergeEvents } from "./same-everywhere.ts";
import { ExchangeMaker } from "./workload.ts";

interface Story {
  operations: Operation[];
  events: api.Event[];
  revision: number;
}

/** A perfect server under four clients; operation `n` takes effect at time 10 n and takes up to 30 before and after. */
function story(count = 600): Story {
  const random = seededRandom(7);
  const model = new MvccModel();
  const makers = [0, 1, 2, 3].map((client) => new ExchangeMaker(client, seededRandom(client), { keys: 8 }));
  const told: Story = { operations: [], events: [], revision: 1 };
  const leases = new Set<bigint>();
  const free = [0, 0, 0, 0];
  for (let n = 1; n <= count; n += 1) {
    const client = n % 4;
    const exchange = (makers[client] as ExchangeMaker).next(model.revision);
    if (exchange.kind === "range" && exchange.request.revision > model.revision) continue;
    const at = n * 10;
    const call = Math.max(free[client] ?? 0, at - random.below(30));
    const ret = at + random.below(20);
    free[client] = ret + 0.5;
    let events: ModelEvent[] = [];
    if (exchange.kind === "put") ({ response: exchange.response, events } = model.put(exchange.request, leases));
    if (exchange.kind === "delete") ({ response: exchange.response, events } = model.deleteRange(exchange.request));
    if (exchange.kind === "txn") ({ response: exchange.response, events } = model.txn(exchange.request, leases));
    if (exchange.kind === "range") exchange.response = model.range(exchange.request);
    const operation: Operation = { client, member: `n${client}`, run: 1, exchange, call, ret, ended: ret, outcome: "yes", why: "" };
    told.operations.push(operation);
    (makers[client] as ExchangeMaker).learn(operation);
    told.events.push(...events.map(toEvent));
  }
  told.revision = model.revision;
  return told;
}

function toEvent({ type, kv, prevKv }: ModelEvent): api.Event {
  return { type: type === "put" ? api.EventType.PUT : api.EventType.DELETE, kv, prevKv };
}

function rules(input: HistoryInput): string[] {
  return [...new Set(checkHistory(input).violations.map(({ rule }) => rule))];
}

function pick(told: Story, wanted: (operation: Operation) => boolean, from = 200): Operation {
  const found = told.operations.slice(from).find(wanted);
  if (found === undefined) throw new Error("no such operation in the story");
  return found;
}

const isPut = ({ exchange }: Operation): boolean => exchange.kind === "put";
const isRead = ({ exchange }: Operation, more: (request: api.RangeRequest, response: api.RangeResponse) => boolean = () => true): boolean =>
  exchange.kind === "range" && exchange.response !== undefined && more(exchange.request, exchange.response);

function forget(operation: Operation): void {
  delete (operation.exchange as { response?: unknown }).response;
  operation.outcome = "unknown";
  operation.ret = Number.POSITIVE_INFINITY;
}

describe("the checker of histories", () => {
  it("accepts a perfect server", () => {
    const told = story();
    expect(told.revision).toBeGreaterThan(200);
    expect(checkHistory(told).violations).toEqual([]);
  });

  it("finds out which unknown operations have happened", () => {
    const told = story();
    const lost = told.operations.filter((operation, n) => n % 5 === 0 && operation.exchange.kind !== "range");
    for (const operation of lost) forget(operation);
    const result = checkHistory(told);
    expect(result.violations).toEqual([]);
    expect(result.resolved).toBeGreaterThan(20);
  });

  it("lets unknown operations be without effect", () => {
    const told = story();
    const request = api.PutRequest.create({ key: Buffer.from("k/1"), value: Buffer.from("never") });
    told.operations.push({
      client: 9,
      member: "n1",
      run: 1,
      exchange: { kind: "put", request },
      call: 5,
      ret: Number.POSITIVE_INFINITY,
      ended: 20,
      outcome: "unknown",
      why: "",
    });
    expect(checkHistory(told).violations).toEqual([]);
  });

  it("K1: two operations with one revision", () => {
    const told = story();
    const one = pick(told, isPut);
    const copy: Exchange = { kind: "put", request: api.PutRequest.create({ key: Buffer.from("k/0"), value: Buffer.from("again") }) };
    copy.response = (one.exchange as typeof copy).response as api.PutResponse;
    told.operations.push({ ...one, exchange: copy });
    expect(rules(told)).toContain("K1-total-order");
  });

  it("K1: a revision that nobody made", () => {
    const told = story();
    const one = pick(told, isPut);
    told.operations.splice(told.operations.indexOf(one), 1);
    expect(rules(told)).toContain("K1-total-order");
  });

  it("K2: an effect where the model has none", () => {
    const told = story();
    const one = pick(told, ({ exchange }) => exchange.kind === "delete" && (exchange.response?.deleted ?? 0) > 0);
    if (one.exchange.kind !== "delete") throw new Error("unreachable");
    one.exchange.request.key = Buffer.from("k/nothing");
    one.exchange.request.rangeEnd = Buffer.alloc(0);
    expect(rules(told)).toContain("K2-effects-only");
  });

  it("K3: an operation that returned before one was called that precedes it", () => {
    const told = story();
    const one = pick(told, isPut, 400);
    one.ret = 11;
    (one as { call: number }).call = 10;
    expect(rules(told)).toContain("K3-real-time");
  });

  it("K3: a stale linearizable read", () => {
    const told = story();
    const one = pick(told, (operation) => isRead(operation, ({ serializable, revision }) => !serializable && revision === 0), 100);
    (one as { call: number }).call += 2000;
    one.ret += 2000;
    expect(rules(told)).toEqual(["K3-real-time"]);
  });

  it("K4: a wrong answer of a put, of a transaction, of a read", () => {
    for (const kind of ["put", "txn", "range"]) {
      const told = story();
      const one = pick(told, ({ exchange }) => {
        if (exchange.kind !== kind) return false;
        if (exchange.kind === "put") return exchange.response?.prevKv !== undefined;
        if (exchange.kind === "txn") return exchange.response?.succeeded === true;
        return (
          exchange.kind === "range" &&
          exchange.request.revision === 0 &&
          !exchange.request.serializable &&
          (exchange.response?.kvs.length ?? 0) > 0
        );
      });
      if (one.exchange.kind === "put" && one.exchange.response?.prevKv !== undefined) one.exchange.response.prevKv.version += 1;
      if (one.exchange.kind === "txn" && one.exchange.response !== undefined) one.exchange.response.succeeded = false;
      if (one.exchange.kind === "range") one.exchange.response?.kvs.pop();
      expect(rules(told), kind).toContain("K4-replay");
    }
  });

  it("K4: an event that is not what was written, a revision that is split", () => {
    const told = story();
    const event = told.events.find(({ kv, type }) => type === api.EventType.PUT && (kv?.modRevision ?? 0) > 50);
    if (event?.kv === undefined) throw new Error("unreachable");
    event.kv = { ...event.kv, version: event.kv.version + 1 };
    expect(rules(told)).toContain("K4-replay");

    const other = story();
    const split = other.events.findIndex(({ kv }, n) => n > 50 && kv?.modRevision === other.events[n + 1]?.kv?.modRevision);
    other.events.splice(split, 1);
    expect(rules(other)).toContain("K4-replay");
  });

  it("K5: an acknowledged write is lost with the end of the log", () => {
    const told = story();
    const last = told.revision;
    told.revision -= 1;
    told.events = told.events.filter(({ kv }) => kv?.modRevision !== last);
    expect(rules(told)).toContain("K5-durable");
  });

  it("K5: a read saw what is not there any more", () => {
    const told = story();
    const read = pick(told, (operation) => isRead(operation), 500);
    if (read.exchange.response?.header !== undefined)
      read.exchange.response.header = { ...read.exchange.response.header, revision: told.revision + 1 };
    expect(rules(told)).toContain("K5-durable");
  });

  it("K8: a serializable read that is wrong, or goes back", () => {
    const told = story();
    const read = pick(told, (operation) => isRead(operation, ({ serializable }, { kvs }) => serializable && kvs.length > 0));
    if (read.exchange.kind === "range") read.exchange.response?.kvs.pop();
    expect(rules(told)).toEqual(["K8-serializable"]);

    const back = story();
    const late = pick(back, (operation) => isRead(operation, ({ serializable }) => serializable), 100);
    const after = pick(back, (operation) => isRead(operation, ({ serializable }) => serializable) && operation.client === late.client, 400);
    (late as { call: number }).call = after.ret + 1;
    late.ret = after.ret + 2;
    expect(rules(back)).toEqual(["K8-serializable"]);
  });

  it("K9: a wrong past, a compacted past, a future that is not one", () => {
    const isPast = (operation: Operation): boolean => isRead(operation, ({ revision }, { kvs }) => revision > 1 && kvs.length > 0);
    const told = story();
    const read = pick(told, isPast);
    if (read.exchange.kind === "range") read.exchange.response?.kvs.pop();
    expect(rules(told)).toEqual(["K9-historic"]);

    const compacted = story();
    const late = pick(compacted, isPast);
    if (late.exchange.kind !== "range") throw new Error("unreachable");
    const request = api.CompactionRequest.create({ revision: late.exchange.request.revision + 1 });
    const response = api.CompactionResponse.create({ header: api.ResponseHeader.create({ revision: 2 }) });
    compacted.operations.push({ ...late, exchange: { kind: "compact", request, response }, call: 1, ret: 2 });
    expect(rules(compacted)).toEqual(["K9-historic"]);

    const future = story();
    const refused = pick(future, isPast);
    Object.assign(refused, { outcome: "no", why: "etcdserver: mvcc: required revision is a future revision" });
    if (refused.exchange.kind === "range") delete (refused.exchange as { response?: unknown }).response;
    expect(rules(future)).toEqual(["K9-historic"]);
  });

  it("K6: a read of a write that was lost with its member", () => {
    const told = story();
    const last = told.revision;
    const lost = told.operations.find(({ exchange }) => exchange.response?.header?.revision === last && exchange.kind !== "range");
    const reader = pick(told, (operation) => isRead(operation, ({ revision }) => revision === 0), 500);
    if (lost === undefined || reader.exchange.response?.header === undefined) throw new Error("unreachable");
    reader.exchange.response.header = { ...reader.exchange.response.header, revision: last };
    forget(lost);
    told.revision -= 1;
    told.events = told.events.filter(({ kv }) => kv?.modRevision !== last);
    expect(rules(told)).toContain("K5-durable");
  });

  it("K7: a read in the middle of a transaction", () => {
    const told = story();
    const putsOf = (exchange: Exchange): api.KeyValue[] =>
      told.events.flatMap(({ kv, type }) =>
        kv !== undefined && type === api.EventType.PUT && kv.modRevision === exchange.response?.header?.revision ? [kv] : [],
      );
    const txn = pick(told, ({ exchange }) => exchange.kind === "txn" && putsOf(exchange).length > 1);
    // At the transaction's revision, without its second put.
    const request = api.RangeRequest.create({ key: putsOf(txn.exchange)[1]?.key ?? Buffer.alloc(0) });
    const response = api.RangeResponse.create({ header: txn.exchange.response?.header });
    told.operations.push({ ...txn, exchange: { kind: "range", request, response } });
    expect(rules(told)).toEqual(["K4-replay"]);
  });

  it("K10: a compaction that took what must stay", () => {
    const told = story();
    const past = pick(told, (operation) => isRead(operation, ({ revision }, { kvs }) => revision > 1 && kvs.length > 1), 300);
    if (past.exchange.kind !== "range") throw new Error("unreachable");
    const { revision } = past.exchange.request;
    const request = api.CompactionRequest.create({ revision });
    const response = api.CompactionResponse.create({ header: api.ResponseHeader.create({ revision }) });
    told.operations.push({ ...past, exchange: { kind: "compact", request, response }, call: past.call - 2, ret: past.call - 1 });
    // Reads of what is older came after it; that is another rule's.
    told.operations = told.operations.filter(
      (one) => one === past || !isRead(one, (other) => other.revision > 0 && other.revision < revision),
    );
    // To read at exactly the compacted revision is allowed, and shows everything that was newest then.
    expect(rules(told)).toEqual([]);
    past.exchange.response?.kvs.shift();
    expect(rules(told)).toEqual(["K9-historic"]);
  });

  it("K11: members that say different things", () => {
    const same = { hash: 7, compactRevision: 3 };
    expect(
      checkHashes(9, [
        { name: "n1", ...same },
        { name: "n2", ...same },
      ]),
    ).toEqual([]);
    expect(
      checkHashes(9, [
        { name: "n1", ...same },
        { name: "n2", ...same, hash: 8 },
      ]),
    ).toHaveLength(1);
    expect(
      checkHashes(9, [
        { name: "n1", ...same },
        { name: "n2", ...same, compactRevision: 2 },
      ]),
    ).toHaveLength(1);

    const told = story();
    const late = told.events.slice(40);
    const violations: string[] = [];
    const merged = mergeEvents(
      [
        { member: "n1", events: told.events.slice(0, 80) },
        { member: "n2", events: late },
      ],
      told.revision,
      violations,
    );
    expect(violations).toEqual([]);
    expect(merged).toEqual(told.events);
    const other = late.map((event, n) => (n === 5 && event.kv !== undefined ? { ...event, kv: { ...event.kv, version: 99 } } : event));
    mergeEvents(
      [
        { member: "n1", events: told.events },
        { member: "n2", events: other },
      ],
      told.revision,
      violations,
    );
    expect(violations).toHaveLength(1);
    expect(violations[0]).toMatch(/^K11-same-everywhere: n2 says of /);
  });

  it("K12: what was refused is there all the same", () => {
    const told = story();
    const one = pick(told, isPut);
    forget(one);
    one.outcome = "no";
    expect(rules(told)).toContain("K12-unknown");
  });

  it("L4: a lease's end that leaves one of its keys", () => {
    const told: Story = { operations: [], events: [], revision: 1 };
    const model = new MvccModel();
    for (const key of ["a", "b"]) {
      const request = api.PutRequest.create({ key: Buffer.from(key), value: Buffer.from(`of ${key}`), lease: 5n });
      const { response, events } = model.put(request, new Set([5n]));
      const at = model.revision * 10;
      told.operations.push({
        client: 0,
        member: "n1",
        run: 1,
        exchange: { kind: "put", request, response },
        call: at,
        ret: at + 1,
        ended: at + 1,
        outcome: "yes",
        why: "",
      });
      told.events.push(...events.map(toEvent));
    }
    const both = { ...told, events: [...told.events, ...model.deleteKeys(["a", "b"]).events.map(toEvent)], revision: 4 };
    expect(checkHistory(both)).toMatchObject({ violations: [], leaseEnds: 1 });
    const one = { ...both, events: both.events.slice(0, -1) };
    expect(rules(one)).toEqual(["L4-lease-atomic"]);
  });
});

describe("the judge of leases", () => {
  /** Granted at 0 for five seconds, renewed at 4000, seen to end at 9100. */
  const held: Held = {
    key: "lease/1",
    ttlMs: 5000,
    grantCall: 0,
    renewals: [
      { call: 0, ret: 10 },
      { call: 4000, ret: 4010 },
    ],
    attached: true,
  };
  const judge = (seen: number | undefined, change: Partial<Held> = {}): string[] =>
    judgeLeases([{ ...held, ...change }], new Map(seen === undefined ? [] : [["lease/1", seen]])).map((text) => text.split(":")[0] ?? "");

  it("accepts an end in time, and a key that was perhaps never there", () => {
    expect(judge(9100)).toEqual([]);
    expect(judge(undefined, { attached: false })).toEqual([]);
  });

  it("L2: an end before the time that the last renewal gave", () => {
    expect(judge(8900)).toEqual(["L2-not-early"]);
    // Answered only after the end: it may have come too late.
    expect(judge(8900, { renewals: [held.renewals[0] as Held["renewals"][0], { call: 4000, ret: 8950 }] })).toEqual([]);
  });

  it("L3: a key that stays", () => {
    expect(judge(undefined)).toEqual(["L3-not-forever"]);
  });

  it("L6: a renewal after the end", () => {
    expect(judge(9100, { renewals: [...held.renewals, { call: 9200, ret: 9210 }] })).toEqual(["L6-renewal-truth"]);
  });
});

describe("the checker of watches, over a replayed history", () => {
  const told = story();
  const { changes } = checkHistory(told);
  const everything = { key: Buffer.from([0]), rangeEnd: Buffer.from([0]) };

  /** One response per revision. */
  function stream(change: (responses: api.WatchResponse[]) => void): string[] {
    const record = new StreamRecord();
    record.create(api.WatchCreateRequest.create({ ...everything, startRevision: 1, prevKv: true }));
    const header = (revision: number): api.ResponseHeader => api.ResponseHeader.create({ revision });
    record.response(api.WatchResponse.create({ header: header(told.revision), created: true }));
    const responses: api.WatchResponse[] = [];
    for (let revision = 2; revision <= told.revision; revision += 1) {
      const events = told.events.filter(({ kv }) => kv?.modRevision === revision);
      responses.push(api.WatchResponse.create({ header: header(told.revision), events }));
    }
    change(responses);
    for (const response of responses) record.response(response);
    return [...new Set(checkWatchStream(changes, record, { liveUpTo: told.revision }).map(({ rule }) => rule))];
  }

  it("accepts everything in order", () => {
    expect(stream(() => undefined)).toEqual([]);
  });

  it("W1, W2, W3, W4: swapped, doubled, split and lost", () => {
    expect(stream((all) => all.splice(50, 2, ...all.slice(50, 52).reverse()))).toContain("W1-ordered");
    expect(stream((all) => all.splice(50, 0, all[50] as api.WatchResponse))).toContain("W2-unique");
    const at = told.events.findIndex(({ kv }, n) => n > 50 && kv?.modRevision === told.events[n + 1]?.kv?.modRevision);
    const revision = told.events[at]?.kv?.modRevision ?? 0;
    expect(
      stream((all) => {
        const whole = all[revision - 2] as api.WatchResponse;
        all.splice(revision - 2, 1, { ...whole, events: whole.events.slice(0, 1) }, { ...whole, events: whole.events.slice(1) });
      }),
    ).toContain("W3-atomic");
    expect(stream((all) => all.splice(50, 1))).toContain("W4-reliable");
    expect(stream((all) => all.splice(-1, 1))).toContain("W11-live");
  });
});
