/** Bad clients against a whole member: what they leave behind must be nothing, and others must not notice. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as api from "../../src/api/index.ts";
import { type Answer, Frame, grpcFrame, H2Client } from "./h2-client.ts";
import { type TestMember, testMember } from "./member.ts";

const PORT = 22620;
const W = api.WatchService.watch.path;

let member: TestMember;
let good: H2Client;

beforeAll(async () => {
  member = await testMember(PORT);
  good = new H2Client(PORT);
});

afterAll(async () => {
  good.socket.destroy();
  await member[Symbol.asyncDispose]();
});

async function ask<Q extends object, A extends object>(
  method: { readonly path: string; readonly request: api.MessageType<Q>; readonly response: api.MessageType<A> },
  request: Partial<Q>,
): Promise<A> {
  const answer = await good.unary(method.path, method.request.encode(method.request.create(request)));
  expect(answer.message ?? "").toBe("");
  return method.response.decode(answer.messages[0]?.bytes ?? Buffer.alloc(0));
}

async function put(key: string, value: string | Uint8Array, lease = 0n): Promise<number> {
  const { header } = await ask(api.KvService.put, { key: Buffer.from(key), value: Buffer.from(value), lease });
  return header?.revision ?? 0;
}

function watchFrame(key: string, startRevision = 0): Buffer {
  const createRequest = api.WatchCreateRequest.create({ key: Buffer.from(key), rangeEnd: Buffer.from(`${key}~`), startRevision });
  return grpcFrame(api.WatchRequest.encode(api.WatchRequest.create({ createRequest })));
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${member.url}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1] ?? Number.NaN);
}

async function eventuallyMetric(name: string, value: number): Promise<void> {
  const deadline = performance.now() + 10_000;
  let last = await metric(name);
  while (last !== value && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    last = await metric(name);
  }
  expect(last).toBe(value);
}

function eventsOf(answer: Answer): string[] {
  return answer.messages.flatMap(({ bytes }) =>
    api.WatchResponse.decode(bytes).events.map(({ kv }) => `${kv?.modRevision} ${Buffer.from(kv?.key ?? []).toString()}`),
  );
}

describe("a watch that is never read", () => {
  it("holds little, harms nobody, and gets everything when it is read at last", async () => {
    await using slow = new H2Client(PORT, { settings: [[4, 0]], autoWindow: false });
    await using quick = new H2Client(PORT, { settings: [[4, 0x7fffffff]], connectionWindow: 0x7fffffff - 65_535 });
    for (const client of [slow, quick]) client.keepFrames = false;
    const [id, other] = [slow.open(W), quick.open(W)];
    slow.data(id, watchFrame("slow/"));
    quick.data(other, watchFrame("slow/"));
    await eventuallyMetric("etcd_debugging_mvcc_watcher_total", 2);
    // 30 MB: a stream may hold 16.
    const value = Buffer.alloc(1_000_000, "v");
    const written: string[] = [];
    for (let i = 0; i < 30; i++) written.push(`${await put(`slow/${i % 3}`, value)} slow/${i % 3}`);
    await quick.until(() => quick.answer(other).byteLength > written.length * value.byteLength);
    expect(eventsOf(quick.answer(other))).toEqual(written);
    expect(slow.answer(id).messages.length).toBe(0);
    // It has fallen behind: it is served from history, not from memory.
    expect(await metric("etcd_debugging_mvcc_slow_watcher_total")).toBe(1);
    slow.windowUpdate(0, 0x7fffffff - 65_535);
    slow.windowUpdate(id, 0x7fffffff);
    await slow.until(() => slow.answer(id).byteLength > written.length * value.byteLength);
    expect(eventsOf(slow.answer(id))).toEqual(written);
  });
});

describe("calls that are reset in the middle", () => {
  it("of their request leave nothing", async () => {
    await using client = new H2Client(PORT);
    const message = grpcFrame(
      api.PutRequest.encode(api.PutRequest.create({ key: Buffer.from("reset/never"), value: Buffer.alloc(60_000) })),
    );
    for (let i = 0; i < 100; i++) {
      const id = client.open(api.KvService.put.path);
      client.data(id, message.subarray(0, 1 + ((i * 997) % (message.byteLength - 1))));
      client.reset(id);
      // Calls that are answered keep this from being a flood.
      await client.unary(api.KvService.range.path, api.RangeRequest.encode(api.RangeRequest.create({ key: Buffer.from("reset/never") })));
    }
    expect((await ask(api.KvService.range, { key: Buffer.from("reset/never") })).count).toBe(0);
  });

  it("while they wait for a lock give up their place", async () => {
    const name = Buffer.from("reset/lock");
    const [first, waiting] = [await ask(api.LeaseService.leaseGrant, { ttl: 60 }), await ask(api.LeaseService.leaseGrant, { ttl: 60 })];
    const held = await ask(api.LockService.lock, { name, lease: first.id });
    await using client = new H2Client(PORT);
    const id = client.call(api.LockService.lock.path, api.LockRequest.encode(api.LockRequest.create({ name, lease: waiting.id })));
    const contenders = async (): Promise<number> =>
      (await ask(api.KvService.range, { key: Buffer.from("reset/lock/"), rangeEnd: Buffer.from("reset/lock0"), countOnly: true })).count;
    const becomes = async (count: number): Promise<void> => {
      const deadline = performance.now() + 10_000;
      while ((await contenders()) !== count) {
        if (performance.now() > deadline) throw new Error(`never ${count} contenders`);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    };
    await becomes(2);
    client.reset(id);
    await becomes(1);
    await ask(api.LockService.unlock, { key: held.key });
  });

  it("or whose connections break, as streams of any kind, are all let go", async () => {
    for (let i = 0; i < 20; i++) await put(`streams/${i}`, Buffer.alloc(100_000));
    const { id: lease } = await ask(api.LeaseService.leaseGrant, { ttl: 60 });
    const all = { key: Buffer.from("streams/"), rangeEnd: Buffer.from("streams0") };
    const watches = await metric("etcd_debugging_mvcc_watch_stream_total");
    for (const how of ["reset", "cut"] as const) {
      const clients = Array.from({ length: 10 }, () => new H2Client(PORT, { autoWindow: false }));
      for (const client of clients) {
        const ids = [
          client.open(W),
          client.open(api.LeaseService.leaseKeepAlive.path),
          // More than the window: they stop in the middle.
          client.call(api.KvService.rangeStream.path, api.RangeRequest.encode(api.RangeRequest.create(all))),
          client.call(api.KvService.range.path, api.RangeRequest.encode(api.RangeRequest.create(all))),
          client.call(api.MaintenanceService.snapshot.path, Buffer.alloc(0)),
        ];
        client.data(ids[0] as number, watchFrame("streams/", 1));
        client.data(ids[1] as number, grpcFrame(api.LeaseKeepAliveRequest.encode(api.LeaseKeepAliveRequest.create({ id: lease }))));
        // Half a message.
        client.data(ids[1] as number, Buffer.from([0, 0, 0, 0, 9, 8]));
        await client.until(() => client.frames.filter(({ type }) => type === Frame.DATA).length >= 3);
        if (how === "cut") client.socket.resetAndDestroy();
        else for (const id of ids) client.reset(id);
      }
      await eventuallyMetric("etcd_debugging_mvcc_watch_stream_total", watches);
      for (const client of clients) client.socket.destroy();
    }
    expect((await ask(api.KvService.range, { ...all, countOnly: true })).count).toBe(20);
    await ask(api.LeaseService.leaseRevoke, { id: lease });
  });
});

describe("a client whose time is over before it asks", () => {
  it("has written nothing", async () => {
    await using client = new H2Client(PORT);
    const request = api.PutRequest.encode(api.PutRequest.create({ key: Buffer.from("late"), value: Buffer.from("x") }));
    for (const timeout of ["0S", "0n", "1n"]) {
      const answer = await client.unary(api.KvService.put.path, request, { "grpc-timeout": timeout });
      expect(answer.status).toBe("4");
    }
    expect((await ask(api.KvService.range, { key: Buffer.from("late") })).count).toBe(0);
  });
});

describe("connections that are only half there", () => {
  it("may end their side and still get their answers; then they are closed", async () => {
    const client = new H2Client(PORT);
    const id = client.call(api.KvService.range.path, api.RangeRequest.encode(api.RangeRequest.create({ key: Buffer.from("x") })));
    const watch = client.open(W);
    client.data(watch, watchFrame("x"));
    client.socket.end();
    await client.untilClosed();
    expect(client.answer(id).status === "0" || client.answer(id).headers === undefined).toBe(true);
    await eventuallyMetric("etcd_debugging_mvcc_watch_stream_total", 0);
  });
});
