/** Clients that are slow, silent, rude or many; and the end of a server that has some. */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import * as api from "../../src/api/index.ts";
import { eventually, ManualClock, RawClient, settle, type TestApp, testApp } from "./support.ts";

const PUT = '{"key":"YQ==","value":"MQ=="}';
const CREATE = '{"create_request":{"key":"YQ=="}}';

/** A put that is answered when told so. */
function heldPut(): { put: (request: api.PutRequest) => Promise<api.PutResponse>; begun: () => number; answer: () => void } {
  const waiting: (() => void)[] = [];
  let begun = 0;
  return {
    put: async () => {
      begun++;
      await new Promise<void>((resolve) => waiting.push(resolve));
      return api.PutResponse.create();
    },
    begun: () => begun,
    answer: () => {
      for (const resolve of waiting.splice(0)) resolve();
    },
  };
}

async function withClock(): Promise<{ clock: ManualClock; app: TestApp }> {
  const clock = new ManualClock();
  const app = await testApp({
    clock,
    limits: { headersMs: 10_000, bodyPauseMs: 30_000, bodyMs: 300_000 },
  });
  return { clock, app };
}

/** Lets the sweep see what has happened until now, `ms` later. */
async function pass(clock: ManualClock, ms: number): Promise<void> {
  await settle();
  clock.advance(ms);
  await settle();
}

describe("slow clients", () => {
  test("one that says nothing is cut off", async () => {
    const { clock, app } = await withClock();
    await using _ = app;
    await using client = new RawClient(app.port);
    await eventually(() => app.app.connections === 1);
    await pass(clock, 9000);
    expect(client.closed || client.ended).toBe(false);
    await pass(clock, 3000);
    await client.untilClosed();
    await eventually(() => app.app.connections === 0);
    await pass(clock, 2000);
    expect(clock.pending).toBe(0);
  });

  test("headers that drip are cut off, also those of a later request", async () => {
    const { clock, app } = await withClock();
    await using _ = app;
    await using client = new RawClient(app.port);
    await client.request("GET /version").until("etcdserver");
    await pass(clock, 60_000);
    expect(client.ended).toBe(false);
    client.text = "";
    client.write("GET /version HTTP/1.1\r\nHost: a\r\n");
    for (let i = 0; i < 9; i++) {
      await pass(clock, 1000);
      client.write(`X-Header-${i}: 1\r\n`);
    }
    await pass(clock, 500);
    expect(client.ended || client.closed).toBe(false);
    await pass(clock, 3000);
    await client.untilClosed();
    expect(client.text).toBe("");
  });

  test("idle connections stay", async () => {
    const { clock, app } = await withClock();
    await using _ = app;
    await using client = new RawClient(app.port);
    await client.request("GET /version").until("etcdserver");
    for (let i = 0; i < 10; i++) await pass(clock, 60_000);
    client.text = "";
    await client.request("POST /v3/kv/put", PUT).until("raft_term");
  });

  test("a body that stops is cut off", async () => {
    const { clock, app } = await withClock();
    await using _ = app;
    await using client = new RawClient(app.port);
    client.write('POST /v3/kv/put HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n{"key":');
    await settle();
    for (let i = 0; i < 5; i++) {
      await pass(clock, 25_000);
      client.write(" ");
    }
    expect(client.ended || client.closed).toBe(false);
    await pass(clock, 1000);
    await pass(clock, 31_000);
    await client.untilClosed();
    expect(app.services.calls.length).toBe(0);
  });

  test("a body that drips for ever is cut off", async () => {
    const { clock, app } = await withClock();
    await using _ = app;
    await using client = new RawClient(app.port);
    client.write('POST /v3/kv/put HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n{"key":');
    await settle();
    for (let i = 0; i < 15; i++) {
      await pass(clock, 21_000);
      client.write(" ");
    }
    await client.untilClosed();
  });

  test("the open upload of a watch is no slow body", async () => {
    const { clock, app } = await withClock();
    await using _ = app;
    await using client = new RawClient(app.port);
    await client.open("POST /v3/watch", { Connection: "close" }).chunk(CREATE).until("created");
    for (let i = 0; i < 10; i++) await pass(clock, 60_000);
    await client.chunk(CREATE).until('"watch_id":"1"');
  });

  test("a call may take its time", async () => {
    const clock = new ManualClock();
    const held = heldPut();
    await using app = await testApp({ clock, overrides: { kv: { put: held.put } } });
    await using client = new RawClient(app.port);
    client.request("POST /v3/kv/put", PUT);
    await eventually(() => held.begun() === 1);
    for (let i = 0; i < 10; i++) await pass(clock, 60_000);
    held.answer();
    await client.until("200 OK");
  });

  const kv = api.KeyValue.create({ key: Buffer.from("a"), value: Buffer.alloc(60_000_000) });
  const range = async (): Promise<api.RangeResponse> => api.RangeResponse.create({ kvs: [kv] });
  const put = async (): Promise<api.PutResponse> => api.PutResponse.create({ prevKv: kv });

  test.each(["range", "put"])("an answer (of %s) that nobody takes is given up", async (what) => {
    await using app = await testApp({ limits: { answerPauseMs: 200 }, overrides: { kv: { range, put } } });
    const socket = connect({ port: app.port, host: "127.0.0.1" });
    socket.on("error", () => undefined);
    socket.pause();
    socket.write(`POST /v3/kv/${what} HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}`);
    await eventually(() => app.app.connections === 1);
    await eventually(() => app.app.connections === 0);
    socket.destroy();
  });

  test("an answer that is taken slowly is not", async () => {
    const kv = api.KeyValue.create({ key: Buffer.from("a"), value: Buffer.alloc(15_000_000) });
    const range = async (): Promise<api.RangeResponse> => api.RangeResponse.create({ kvs: [kv] });
    await using app = await testApp({ limits: { answerPauseMs: 1000 }, overrides: { kv: { range } } });
    await using client = new RawClient(app.port);
    client.request("POST /v3/kv/range", "{}");
    const pauses = setInterval(() => (client.socket.isPaused() ? client.socket.resume() : client.socket.pause()), 20);
    await eventually(() => client.text.length > 20_000_000);
    clearInterval(pauses);
    client.socket.resume();
    client.text = "";
    await client.request("GET /version").until("etcdserver");
  });
});

describe("rude clients", () => {
  test.each([
    ["nothing like HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400 Bad Request"],
    ["a broken header", "GET /health HTTP/1.1\r\nHost test\r\n\r\n", "400 Bad Request"],
    ["two lengths", "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "400 Bad Request"],
    [
      "a length and chunks",
      "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "400 Bad Request",
    ],
    ["headers without end", `GET /health HTTP/1.1\r\nHost: a\r\nX: ${"x".repeat(100_000)}`, "431 Request Header Fields Too Large"],
    ["no host", "GET /health HTTP/1.1\r\n\r\n", "400 Bad Request"],
    ["an unknown expectation", "GET /health HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\n\r\n", "417 Expectation Failed"],
  ])("%s", async (_what, text, status) => {
    await using app = await testApp();
    await using client = new RawClient(app.port);
    client.write(Buffer.from(text, "latin1"));
    await client.until(`HTTP/1.1 ${status}`);
    client.socket.end();
    await eventually(() => app.app.connections === 0);
  });

  test("a broken chunk in the middle of a body", async () => {
    await using app = await testApp();
    await using client = new RawClient(app.port);
    client.open("POST /v3/kv/put").chunk('{"key":').write("zz\r\n");
    await client.untilClosed();
    await eventually(() => app.app.connections === 0);
    expect(app.services.calls.length).toBe(0);
  });

  test("ten megabytes of JSON, 100000 levels deep", async () => {
    await using app = await testApp();
    await using big = new RawClient(app.port);
    big.request("POST /v3/kv/put", `{"key":"${"A".repeat(10_000_000)}"}`);
    await big.until("429 Too Many Requests");
    await using deep = new RawClient(app.port);
    deep.request("POST /v3/kv/txn", `${'{"success":[{"request_txn":'.repeat(100_000)}`);
    await deep.until("400 Bad Request");
    await using extra = new RawClient(app.port);
    extra.request("POST /v3/kv/put", `{"x":${"[".repeat(100_000)}${"]".repeat(100_000)}}`);
    await extra.until("400 Bad Request");
    expect(app.services.calls.length).toBe(0);
  });

  test("uploads that are aborted again and again leave nothing", async () => {
    await using app = await testApp();
    for (let round = 0; round < 50; round++) {
      const socket = connect({ port: app.port, host: "127.0.0.1" });
      socket.on("error", () => undefined);
      await once(socket, "connect");
      socket.write(`POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n${"x".repeat(round * 1000)}`);
      await new Promise((resolve) => setImmediate(resolve));
      if (round % 2 === 0) socket.destroy();
      else socket.resetAndDestroy();
    }
    await eventually(() => app.app.connections === 0);
    expect(app.services.calls.length).toBe(0);
  });

  test("a body that goes on after its refusal is read only for so long", async () => {
    await using app = await testApp({ maxRequestBytes: 1 });
    await using client = new RawClient(app.port);
    client.open("POST /v3/kv/put");
    const piece = Buffer.from(`100000\r\n${" ".repeat(0x100000)}\r\n`);
    let sent = 0;
    while (!client.closed && sent < 200) {
      sent++;
      client.write(piece);
      await eventually(() => client.closed || !client.socket.writableNeedDrain);
    }
    expect(client.text).toContain("429 Too Many Requests");
    expect(sent).toBeLessThan(200);
  });
});

describe("the end", () => {
  test("idle connections end at once, others with their answer, new ones are refused", async () => {
    const held = heldPut();
    await using app = await testApp({ overrides: { kv: { put: held.put } } });
    await using idle = new RawClient(app.port);
    await idle.request("GET /version").until("etcdserver");
    await using busy = new RawClient(app.port);
    busy.request("POST /v3/kv/put", PUT);
    await eventually(() => held.begun() === 1);
    const closed = app.app.close({ graceMs: 60_000 });
    await idle.untilClosed();
    expect(busy.ended).toBe(false);
    await using late = new RawClient(app.port);
    await late.untilClosed();
    held.answer();
    await busy.untilClosed();
    expect(busy.text).toContain("200 OK");
    expect(busy.text).toContain("Connection: close");
    await closed;
    expect(app.app.connections).toBe(0);
  });

  test("streams and waiting calls are cut when the grace is over", async () => {
    const clock = new ManualClock();
    const held = heldPut();
    await using app = await testApp({ clock, overrides: { kv: { put: held.put } } });
    await using watch = new RawClient(app.port);
    await watch.request("POST /v3/watch", CREATE).until("created");
    await using busy = new RawClient(app.port);
    busy.request("POST /v3/kv/put", PUT);
    const ws = new WebSocket(`ws://127.0.0.1:${app.port}/v3/watch`);
    await once(ws, "open");
    const wsClosed = once(ws, "close");
    await eventually(() => held.begun() === 1 && app.watches.length === 2);
    let done = false;
    const closed = app.app.close({ graceMs: 500 }).then(() => {
      done = true;
    });
    await pass(clock, 499);
    expect(done).toBe(false);
    clock.advance(1);
    await closed;
    await watch.untilClosed();
    await busy.untilClosed();
    await wsClosed;
    expect(app.watches.every(({ closed: gone }) => gone)).toBe(true);
    expect(clock.pending).toBe(0);
  });

  test("a stream that the service ends in time is not cut", async () => {
    await using app = await testApp();
    await using watch = new RawClient(app.port);
    await watch.request("POST /v3/watch", CREATE).until("created");
    const closed = app.app.close({ graceMs: 60_000 });
    app.watches[0]?.close();
    await closed;
    await watch.untilClosed();
    expect(watch.text.endsWith("0\r\n\r\n")).toBe(true);
  });

  test("closing twice, or with nothing open", async () => {
    await using app = await testApp();
    await Promise.all([app.app.close({ graceMs: 1000 }), app.app.close({ graceMs: 1000 })]);
  });

  test("many connections at once are all served and all forgotten", async () => {
    await using app = await testApp();
    const clients = Array.from({ length: 200 }, () => new RawClient(app.port));
    for (const client of clients) client.request("POST /v3/kv/put", PUT);
    await Promise.all(clients.map((client) => client.until("raft_term")));
    expect(app.app.connections).toBe(200);
    for (const client of clients) client.socket.destroy();
    await eventually(() => app.app.connections === 0);
  });
});

describe("a flood of requests on one connection", () => {
  test("is read only as far as it is answered", async () => {
    const held = heldPut();
    await using app = await testApp({ overrides: { kv: { put: held.put } } });
    const accepted: Socket[] = [];
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      accepted.push(socket);
      app.app.handle(socket);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    await using client = new RawClient(typeof address === "object" ? (address?.port ?? 0) : 0);
    const one = `POST /v3/kv/put HTTP/1.1\r\nHost: test\r\nContent-Length: ${PUT.length}\r\n\r\n${PUT}`;
    const count = 20_000;
    client.write(one.repeat(count));
    await eventually(() => held.begun() === 1);
    await settle();
    for (let i = 2; i < 30; i++) {
      held.answer();
      await eventually(() => held.begun() === i);
      await settle();
    }
    expect(accepted[0]?.bytesRead).toBeLessThan(300_000);
    const answering = setInterval(held.answer, 0);
    await eventually(() => client.text.split("HTTP/1.1 200 OK").length > 2000);
    clearInterval(answering);
    server.close();
  });
});

describe("sockets that were looked at", () => {
  test("bytes that were put back count", async () => {
    await using app = await testApp();
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      const look = (): void => {
        const head = socket.read() as Buffer | null;
        if (head === null) return;
        socket.off("readable", look);
        socket.unshift(head);
        app.app.handle(socket);
      };
      socket.on("readable", look);
      socket.read(0);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    await using client = new RawClient(typeof address === "object" ? (address?.port ?? 0) : 0);
    client.write("POST /v3/kv/put HTTP/1.1\r\nHo");
    await settle();
    client.write(`st: a\r\nContent-Length: ${PUT.length}\r\n\r\n${PUT}`);
    await client.until("raft_term");
    client.text = "";
    await client.request("GET /version").until("etcdserver");
    server.close();
  });
});
