import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import * as api from "../../src/api/index.ts";
import { rpcError } from "../../src/api/index.ts";
import { GrpcCode } from "../../src/base/errors.ts";
import type { CallContext } from "../../src/server/services/services.contract.ts";
import { STUB_HEADER, type StubWatch } from "../support/stub-services.ts";
import { ask, eventually, RawClient, settle, type TestApp, testApp } from "./support.ts";

const CREATE = '{"create_request":{"key":"YQ=="}}';
const HEADER = '"header":{"cluster_id":"10144879847569953045","member_id":"12428976124636271536","revision":"2","raft_term":"2"}';

let t: TestApp;
beforeAll(async () => {
  t = await testApp();
});
afterAll(async () => {
  await t[Symbol.asyncDispose]();
});

class Client implements AsyncDisposable {
  readonly ws: WebSocket;
  readonly messages: string[] = [];
  binary = 0;
  closeCode: number | undefined;
  failure: string | undefined;

  constructor(port: number, path: string, options: { protocols?: string[]; headers?: Record<string, string> } = {}) {
    this.ws = new WebSocket(`ws://127.0.0.1:${port}${path}`, options.protocols, { headers: options.headers ?? {} });
    this.ws.on("message", (data, isBinary) => {
      if (isBinary) this.binary++;
      this.messages.push(String(data));
    });
    this.ws.on("close", (code) => {
      this.closeCode = code;
    });
    this.ws.on("error", (error) => {
      this.failure = error.message;
    });
  }

  async opened(): Promise<this> {
    await once(this.ws, "open");
    return this;
  }

  async until(count: number): Promise<string[]> {
    await eventually(
      () => this.messages.length >= count,
      () => `messages: ${this.messages.join("|")}, failure ${this.failure}`,
    );
    return this.messages;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.ws.readyState === WebSocket.CLOSED) return;
    const closed = once(this.ws, "close");
    this.ws.terminate();
    await closed;
  }
}

function lastWatch(app: TestApp): StubWatch {
  return app.watches.at(-1) as StubWatch;
}

describe("watch", () => {
  test.each(["/v3/watch", "/v3beta/watch", "/v3/watch?x=1"])("%s is full duplex", async (path) => {
    await using client = await new Client(t.port, path).opened();
    client.ws.send(CREATE);
    expect(await client.until(1)).toEqual([`{"result":{${HEADER},"created":true}}`]);
    client.ws.send(CREATE);
    await client.until(2);
    client.ws.send('{"cancel_request":{"watch_id":"1"}}');
    expect((await client.until(3)).slice(1)).toEqual([
      `{"result":{${HEADER},"watch_id":"1","created":true}}`,
      `{"result":{${HEADER},"watch_id":"1","canceled":true}}`,
    ]);
    expect(client.binary).toBe(0);
  });

  test("requests in pieces, two in one message, and as binary", async () => {
    await using client = await new Client(t.port, "/v3/watch").opened();
    client.ws.send('{"create_request"');
    client.ws.send(':{"key":"YQ=="}}');
    client.ws.send(CREATE + CREATE);
    client.ws.send(Buffer.from(CREATE));
    await client.until(4);
    expect(lastWatch(t).requests.length).toBe(4);
  });

  test("a request that cannot be read ends the requests", async () => {
    await using client = await new Client(t.port, "/v3/watch").opened();
    const before = t.watches.length;
    client.ws.send("{bad");
    client.ws.send(CREATE);
    client.ws.ping();
    await once(client.ws, "pong");
    expect(client.messages).toEqual([]);
    expect(t.watches.length).toBe(before);
    expect(lastWatch(t).requests.length).toBe(0);
  });

  test("leaving closes the session, politely or not", async () => {
    for (const leave of [(ws: WebSocket) => ws.close(1000), (ws: WebSocket) => ws.terminate()]) {
      await using client = await new Client(t.port, "/v3/watch").opened();
      client.ws.send(CREATE);
      await client.until(1);
      const watch = lastWatch(t);
      leave(client.ws);
      await eventually(() => watch.closed && client.closeCode !== undefined);
      expect(watch.context.signal?.aborted).toBe(true);
    }
    await eventually(() => t.app.connections === 0);
  });

  test("the end of the session closes the socket, an error is told before", async () => {
    await using client = await new Client(t.port, "/v3/watch").opened();
    client.ws.send(CREATE);
    await client.until(1);
    await settle();
    lastWatch(t).fail(rpcError("no-leader"));
    expect((await client.until(2))[1]).toBe('{"error":{"code":14,"message":"etcdserver: no leader"}}');
    await eventually(() => client.closeCode === 1000);
  });

  test("a client that does not read stops the flow", async () => {
    await using client = await new Client(t.port, "/v3/watch").opened();
    client.ws.send(CREATE);
    await client.until(1);
    const watch = lastWatch(t);
    client.ws.pause();
    const kv = api.KeyValue.create({ key: Buffer.from("a"), value: Buffer.alloc(75_000) });
    for (let i = 0; i < 300; i++) watch.push({ events: [api.Event.create({ kv })] });
    let last = 300;
    let same = 0;
    await eventually(() => {
      same = watch.backlog === last && last < 300 ? same + 1 : 0;
      last = watch.backlog;
      return same > 30;
    });
    expect(watch.backlog).toBeGreaterThan(100);
    client.ws.resume();
    await client.until(301);
  });

  test("a message that is too long ends the connection", async () => {
    await using app = await testApp({ maxRequestBytes: 30_000 });
    await using client = await new Client(app.port, "/v3/watch").opened();
    client.ws.send(" ".repeat(4 * 554_288 + 65_537));
    await eventually(() => client.closeCode === 1009);
    await eventually(() => lastWatch(app).closed && app.app.connections === 0);
  });
});

describe("other calls", () => {
  test("keepalive", async () => {
    await using client = await new Client(t.port, "/v3/lease/keepalive").opened();
    client.ws.send('{"ID":5}');
    client.ws.send('{"ID":6}');
    expect(await client.until(2)).toEqual([`{"result":{${HEADER},"ID":"5","TTL":"600"}}`, `{"result":{${HEADER},"ID":"6","TTL":"600"}}`]);
    expect(client.closeCode).toBeUndefined();
  });

  test("snapshot ends the connection when it is over", async () => {
    await using client = await new Client(t.port, "/v3/maintenance/snapshot").opened();
    client.ws.send("{}");
    await eventually(() => client.closeCode === 1000);
    expect(client.messages.length).toBe(1);
  });

  test("unary calls are answered once", async () => {
    await using client = await new Client(t.port, "/v3/kv/put").opened();
    client.ws.send('{"key":');
    client.ws.send('"YQ=="}{"key":"Yg=="}');
    await eventually(() => client.closeCode === 1000);
    expect(client.messages).toEqual([`{${HEADER}}`]);
    await using bad = await new Client(t.port, "/v3/kv/put").opened();
    bad.ws.send('{"key":1}');
    expect(await bad.until(1)).toEqual(['{"code":3,"message":"proto: (line 1:8): invalid value for bytes field key: 1"}']);
  });

  test("a unary call is cancelled when the client leaves, and counted once", async () => {
    let context: CallContext | undefined;
    const lock = (_request: object, given: CallContext): Promise<never> => {
      context = given;
      return new Promise((_, reject) => given.signal?.addEventListener("abort", () => reject(given.signal?.reason)));
    };
    await using app = await testApp({ overrides: { lock: { lock } } });
    await using client = await new Client(app.port, "/v3/lock/lock").opened();
    client.ws.send("{}");
    await eventually(() => context !== undefined);
    client.ws.terminate();
    await eventually(() => context?.signal?.aborted === true);
    await eventually(() => app.metrics.rpc(api.LockService.lock).handled[GrpcCode.Canceled] === 1);
  });

  test("an unknown path", async () => {
    await using client = new Client(t.port, "/v3/nope");
    await eventually(() => client.closeCode !== undefined);
    expect(client.messages).toEqual(['{"code":5,"message":"Not Found"}']);
  });
});

describe("credentials", () => {
  test.each([
    [{ protocols: ["Bearer", "tok.1"] }, "tok.1", "Bearer"],
    [{ protocols: ["Bearer"] }, undefined, "Bearer"],
    [{ headers: { Cookie: "a=b; token=tok.2" } }, "tok.2", ""],
    [{ headers: { Cookie: 'token="tok.2"' }, protocols: ["Bearer", "tok.1"] }, "tok.2", "Bearer"],
    [{ headers: { Authorization: "tok.3", "Grpc-Metadata-Token": "tok.3" } }, undefined, ""],
  ])("%j", async (options, token, protocol) => {
    await using client = await new Client(t.port, "/v3/watch", options).opened();
    client.ws.send(CREATE);
    await client.until(1);
    expect(lastWatch(t).context.token).toBe(token);
    expect(lastWatch(t).context.commonName).toBeUndefined();
    expect(client.ws.protocol).toBe(protocol);
  });
});

describe("what is no WebSocket to the gateway", () => {
  const UPGRADE = {
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
  };

  test("other paths are served as if nothing had been offered", async () => {
    const health = await ask(t.port, { method: "GET", path: "/health", headers: UPGRADE });
    expect([health.status, health.text]).toEqual([200, '{"health":"true","reason":""}']);
    const untidy = await ask(t.port, { method: "GET", path: "/v3//watch", headers: UPGRADE });
    expect([untidy.status, untidy.headers.location]).toEqual([307, "/v3/watch"]);
    await using without = await testApp({ enableGateway: false });
    expect((await ask(without.port, { method: "GET", path: "/v3/watch", headers: UPGRADE })).status).toBe(404);
  });

  test("a refused host is told so", async () => {
    await using app = await testApp({ hostWhitelist: ["good.example"] });
    const answer = await ask(app.port, { method: "GET", path: "/v3/watch", headers: UPGRADE });
    expect(answer.status).toBe(421);
    expect(app.watches.length).toBe(0);
  });

  test("an offer of HTTP/2 is not taken up; the call is served, and the next on that connection", async () => {
    await using client = new RawClient(t.port);
    const body = '{"key":"YQ=="}';
    client.request("POST /v3/kv/put", body, {
      Connection: "Upgrade, HTTP2-Settings",
      Upgrade: "h2c",
      "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA",
    });
    await client.until("raft_term");
    expect(t.services.calls.at(-1)?.request).toMatchObject({ key: Buffer.from("a") });
    client.text = "";
    await client.request("GET /version").until("etcdserver");
  });

  test("an offer of HTTP/2 with a long body in pieces", async () => {
    await using client = new RawClient(t.port);
    const value = Buffer.alloc(300_000, 1).toString("base64");
    const body = `{"key":"YQ==","value":"${value}"}`;
    client.request("POST /v3/kv/put", undefined, { Connection: "Upgrade", Upgrade: "h2c", "Content-Length": String(body.length) });
    for (let at = 0; at < body.length; at += 100_000) {
      client.write(body.slice(at, at + 100_000));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await client.until("raft_term");
    const request = t.services.calls.at(-1)?.request as api.PutRequest | undefined;
    expect(request?.value.byteLength).toBe(300_000);
  });

  test.each([
    ["no key", { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13" }],
    ["an odd version", { ...UPGRADE, "Sec-WebSocket-Version": "1" }],
    ["a garbage key", { ...UPGRADE, "Sec-WebSocket-Key": "x" }],
  ])("a handshake with %s is refused", async (_what, headers) => {
    await using client = new RawClient(t.port);
    client.request("GET /v3/watch", undefined, headers as Record<string, string>);
    await client.untilClosed();
    expect(client.text).toMatch(/^HTTP\/1\.1 4\d\d /);
    await eventually(() => t.app.connections === 0);
  });

  test("garbage after the handshake ends the connection", async () => {
    await using client = new RawClient(t.port);
    await client.request("GET /v3/watch", undefined, UPGRADE).until("101 Switching Protocols");
    client.write(Buffer.alloc(1000, 0xff));
    await client.untilClosed();
    await eventually(() => lastWatch(t).closed);
    client.socket.end();
    await eventually(() => t.app.connections === 0);
  });

  test("the header does not say more than it must", async () => {
    await using client = new RawClient(t.port);
    await client.request("GET /v3/watch", undefined, UPGRADE).until("\r\n\r\n");
    expect(client.text.split("\r\n").slice(0, 4)).toEqual([
      "HTTP/1.1 101 Switching Protocols",
      "Upgrade: websocket",
      "Connection: Upgrade",
      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    ]);
  });
});

test("answers carry the header of the stub", () => {
  expect(STUB_HEADER.revision).toBe(2);
});
