import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as api from "../../src/api/index.ts";
import { rpcError } from "../../src/api/index.ts";
import { GrpcCode } from "../../src/base/errors.ts";
import { STUB_HEADER, type StubWatch } from "../support/stub-services.ts";
import { ask, eventually, ManualClock, RawClient, settle, type TestApp, testApp } from "./support.ts";

const HEADER = '"header":{"cluster_id":"10144879847569953045","member_id":"12428976124636271536","revision":"2","raft_term":"2"}';
const CREATE = '{"create_request":{"key":"YQ=="}}';
const CREATED = `{"result":{${HEADER},"created":true}}\n`;

let t: TestApp;
beforeAll(async () => {
  t = await testApp();
});
afterAll(async () => {
  await t[Symbol.asyncDispose]();
});

/** The chunks of the first answer. */
function chunksOf(text: string): string[] {
  const chunks: string[] = [];
  let rest = text.slice(text.indexOf("\r\n\r\n") + 4);
  for (;;) {
    const end = rest.indexOf("\r\n");
    if (end < 0) return chunks;
    const size = Number.parseInt(rest.slice(0, end), 16);
    if (size === 0 || Number.isNaN(size)) return chunks;
    chunks.push(rest.slice(end + 2, end + 2 + size));
    rest = rest.slice(end + 2 + size + 2);
  }
}

function lastWatch(app: TestApp): StubWatch {
  return app.watches.at(-1) as StubWatch;
}

/** Waits until a number has left `start` and then stays as it is for a while. */
async function untilSteady(read: () => number, start: number): Promise<void> {
  let last = start;
  let same = 0;
  await eventually(() => {
    same = read() === last && last !== start ? same + 1 : 0;
    last = read();
    return same > 30;
  });
}

function event(value: string): Partial<api.WatchResponse> {
  return {
    events: [
      api.Event.create({ kv: api.KeyValue.create({ key: Buffer.from("a"), modRevision: 3, version: 1, value: Buffer.from(value) }) }),
    ],
  };
}

describe("watch", () => {
  test("one line per message, each a chunk of its own, sent at once", async () => {
    await using client = new RawClient(t.port);
    await client.request("POST /v3/watch", CREATE).until("created");
    expect(
      client.text
        .split("\r\n\r\n")[0]
        ?.split("\r\n")
        .filter((line) => !/^(Date|Access)/.test(line)),
    ).toEqual([
      "HTTP/1.1 200 OK",
      "Content-Type: application/json",
      "Grpc-Metadata-Content-Type: application/grpc",
      "Transfer-Encoding: chunked",
    ]);
    lastWatch(t).push(event("1"));
    lastWatch(t).push(event("<2>"));
    await eventually(() => chunksOf(client.text).length === 3);
    expect(chunksOf(client.text)).toEqual([
      CREATED,
      `{"result":{${HEADER},"events":[{"kv":{"key":"YQ==","mod_revision":"3","version":"1","value":"MQ=="}}]}}\n`,
      `{"result":{${HEADER},"events":[{"kv":{"key":"YQ==","mod_revision":"3","version":"1","value":"PDI+"}}]}}\n`,
    ]);
  });

  test("several requests in one body, with anything or nothing between them", async () => {
    await using client = new RawClient(t.port);
    client.request("POST /v3/watch", `${CREATE}${CREATE}\n \t${CREATE}{"progress_request":{}} {"cancel_request":{"watch_id":1}}`);
    await eventually(() => chunksOf(client.text).length === 5);
    expect(chunksOf(client.text).map((line) => JSON.parse(line).result)).toMatchObject([
      { created: true },
      { created: true, watch_id: "1" },
      { created: true, watch_id: "2" },
      { watch_id: "-1" },
      { watch_id: "1", canceled: true },
    ]);
    expect(client.ended).toBe(false);
  });

  test("on a connection that is kept, the answer begins when the body has ended; its requests do not wait", async () => {
    await using client = new RawClient(t.port);
    const before = t.watches.length;
    client.open("POST /v3/watch").chunk(CREATE);
    await eventually(() => t.watches.length > before && lastWatch(t).requests.length === 1);
    client.chunk(CREATE);
    await eventually(() => lastWatch(t).requests.length === 2);
    await settle();
    expect(client.text).toBe("");
    await client.endChunks().until("watch_id");
    expect(chunksOf(client.text).length).toBe(2);
    lastWatch(t).push(event("later"));
    await eventually(() => chunksOf(client.text).length === 3);
  });

  test("with Connection: close both directions flow at once", async () => {
    await using client = new RawClient(t.port);
    await client.open("POST /v3/watch", { Connection: "close" }).chunk(CREATE).until("created");
    await client.chunk(CREATE).until('"watch_id":"1"');
    await client.endChunks();
    lastWatch(t).push(event("later"));
    await client.until("bGF0ZXI=");
  });

  test("a body that does not end is held back for only so long", async () => {
    await using client = new RawClient(t.port);
    client.open("POST /v3/watch").chunk(CREATE);
    for (let i = 0; i < 5; i++) client.chunk(" ".repeat(60_000));
    await client.until("created");
  });

  test("as HTTP/1.0", async () => {
    await using client = new RawClient(t.port);
    client.write(`POST /v3/watch HTTP/1.0\r\nContent-Length: ${CREATE.length}\r\n\r\n${CREATE}`);
    await client.until("created");
    expect(client.text).not.toContain("chunked");
    expect(client.text.endsWith(`\r\n\r\n${CREATED}`)).toBe(true);
  });

  test.each([
    ["", 0],
    ["   ", 0],
    ["{", 0],
    ["hello", 0],
    ['{"create_request":{"key":"YQ="}}', 0],
    ["null", 0],
    [`{bad}${CREATE}`, 0],
    ['{"key":"YQ=="}', 1],
  ])("%j is never answered", async (body, requests) => {
    await using client = new RawClient(t.port);
    const before = t.watches.length;
    client.request("POST /v3/watch", body);
    await eventually(() => t.watches.length > before);
    await settle();
    expect(client.text).toBe("");
    expect(lastWatch(t).requests.length).toBe(requests);
    client.socket.destroy();
    await eventually(() => lastWatch(t).closed);
  });

  test("a later request that cannot be read ends the requests, not the watch", async () => {
    await using client = new RawClient(t.port);
    await client.request("POST /v3/watch", `${CREATE}{"create_request":{"key":1}}${CREATE}`).until("created");
    lastWatch(t).push(event("still here"));
    await eventually(() => chunksOf(client.text).length === 2);
    expect(lastWatch(t).requests.length).toBe(1);
  });

  test("refused at once", async () => {
    await using app = await testApp({
      overrides: {
        watch: {
          watch: () => {
            throw rpcError("not-supported-for-learner");
          },
        },
      },
    });
    const answer = await ask(app.port, { path: "/v3/watch", body: CREATE });
    expect([answer.status, answer.headers["content-type"], answer.headers["grpc-metadata-content-type"], answer.text]).toEqual([
      400,
      "application/json",
      undefined,
      '{"error":{"code":9,"message":"etcdserver: rpc not supported for learner"}}\n',
    ]);
  });

  test("an error later is the last line", async () => {
    const answer = ask(t.port, { path: "/v3/watch", body: CREATE, headers: { "Grpc-Metadata-Hasleader": "true" } });
    const before = t.watches.length;
    await eventually(() => t.watches.length > before && lastWatch(t).requests.length === 1 && lastWatch(t).backlog === 0);
    const watch = lastWatch(t);
    expect(watch.context.requireLeader).toBe(true);
    await settle();
    watch.fail(rpcError("no-leader"));
    expect(await answer).toMatchObject({ status: 200, text: `${CREATED}{"error":{"code":14,"message":"etcdserver: no leader"}}\n` });
    expect(watch.closed).toBe(true);
  });

  test("the end of the session ends the answer", async () => {
    await using client = new RawClient(t.port);
    await client.request("POST /v3/watch", CREATE).until("created");
    lastWatch(t).close();
    await client.until("\r\n0\r\n\r\n");
    expect(client.ended).toBe(false);
    client.text = "";
    await client.request("GET /version").until("etcdserver");
  });

  test.each([
    ["hangs up", (client: RawClient) => client.socket.destroy()],
    ["resets", (client: RawClient) => client.socket.resetAndDestroy()],
    ["closes its side", (client: RawClient) => client.socket.end()],
  ])("a client that %s closes the session", async (_what, leave) => {
    await using client = new RawClient(t.port);
    await client.request("POST /v3/watch", CREATE).until("created");
    const watch = lastWatch(t);
    leave(client);
    await eventually(() => watch.closed);
    expect(watch.context.signal?.aborted).toBe(true);
    await eventually(() => t.app.connections === 0);
  });

  test("the deadline ends it", async () => {
    const clock = new ManualClock();
    await using app = await testApp({ clock });
    await using client = new RawClient(app.port);
    await client.request("POST /v3/watch", CREATE, { "Grpc-Timeout": "100m" }).until("created");
    clock.advance(100);
    await client.until('{"error":{"code":4,"message":"context deadline exceeded"}}\n\r\n0\r\n\r\n');
    expect(lastWatch(app).closed).toBe(true);
    await using silent = new RawClient(app.port);
    silent.request("POST /v3/watch", "", { "Grpc-Timeout": "100m" });
    await eventually(() => app.watches.length === 2);
    clock.advance(100);
    await silent.until("HTTP/1.1 504 Gateway Timeout");
    const malformed = await ask(app.port, { path: "/v3/watch", body: CREATE, headers: { "Grpc-Timeout": "100" } });
    expect([malformed.status, malformed.text]).toEqual([400, '{"code":3,"message":"invalid grpc-timeout: 100"}']);
  });

  test("a request that is too large fails the stream", async () => {
    await using app = await testApp({ maxRequestBytes: 30_000 });
    const key = Buffer.alloc(600_000).toString("base64");
    const answer = await ask(app.port, { path: "/v3/watch", body: `{"create_request":{"key":"${key}"}}` });
    expect([answer.status, answer.text]).toEqual([
      429,
      '{"error":{"code":8,"message":"grpc: received message larger than max (600008 vs. 554288)"}}\n',
    ]);
    const huge = await ask(app.port, { path: "/v3/watch", body: `{"create_request":{"key":"${"A".repeat(2_400_000)}"}}` });
    expect([huge.status, JSON.parse(huge.text).error.code]).toEqual([429, 8]);
  });

  test("a response of some megabytes", async () => {
    await using client = new RawClient(t.port);
    await client.request("POST /v3/watch", CREATE).until("created");
    lastWatch(t).push(event("x".repeat(4_000_000)));
    await eventually(() => chunksOf(client.text).length === 2 && (chunksOf(client.text)[1]?.endsWith("}\n") ?? false));
    expect(JSON.parse(chunksOf(client.text)[1] as string).result.events[0].kv.value.length).toBe(5_333_336);
  });

  test("counts as gRPC does", async () => {
    await using app = await testApp();
    await using client = new RawClient(app.port);
    await client.request("POST /v3/watch", `${CREATE}${CREATE}`).until('"watch_id":"1"');
    const rpc = app.metrics.rpc(api.WatchService.watch);
    expect([rpc.started, rpc.received, rpc.sent, rpc.handled.reduce((a, b) => a + b)]).toEqual([1, 2, 2, 0]);
    client.socket.destroy();
    await eventually(() => rpc.handled[GrpcCode.Canceled] === 1);
    expect(await app.metrics.text()).toContain('etcd_server_client_requests_total{client_api_version="unknown",type="stream"} 1');
  });
});

describe("a client that does not read", () => {
  test("is not sent more than it takes, and gets everything in order when it reads", async () => {
    await using client = new RawClient(t.port);
    await client.request("POST /v3/watch", CREATE).until("created");
    const watch = lastWatch(t);
    client.socket.pause();
    const count = 300;
    // About 30 MB of JSON: far more than the buffers of both sockets.
    for (let i = 0; i < count; i++) watch.push(event(`${String(i).padStart(6, "0")}${"x".repeat(75_000)}`));
    await untilSteady(() => watch.backlog, count);
    // What has left the session is in the buffers of the sockets: a few megabytes each.
    expect(count - watch.backlog).toBeLessThan(200);
    const held = watch.backlog;
    await settle();
    expect(watch.backlog).toBe(held);
    client.socket.resume();
    await eventually(
      () => client.text.length > 30_000_000 && client.text.endsWith("}\n\r\n") && chunksOf(client.text).length === count + 1,
    );
    const order = chunksOf(client.text)
      .slice(1)
      .map((line) => Number(Buffer.from(JSON.parse(line).result.events[0].kv.value, "base64").toString().slice(0, 6)));
    expect(order).toEqual(Array.from({ length: count }, (_, i) => i));
  });

  test("and hangs up, lets go of its session", async () => {
    await using client = new RawClient(t.port);
    await client.request("POST /v3/watch", CREATE).until("created");
    const watch = lastWatch(t);
    client.socket.pause();
    for (let i = 0; i < 300; i++) watch.push(event("x".repeat(75_000)));
    await eventually(() => watch.backlog < 300);
    client.socket.destroy();
    await eventually(() => watch.closed);
  });
});

describe("keepalive", () => {
  const result = (id: number, ttl = 600): string => `{"result":{${HEADER},"ID":"${id}","TTL":"${ttl}"}}\n`;

  test.each([
    ['{"ID":1}', result(1)],
    ['{"ID":1}{"ID":2}\n{"ID":"3"}', result(1) + result(2) + result(3)],
    ["{}", `{"result":{${HEADER},"TTL":"600"}}\n`],
    ['{"ID":5}{"ID":"x"}{"ID":6}', result(5)],
    ['{"ID":5} [', result(5)],
  ])("%j", async (body, text) => {
    const answer = await ask(t.port, { path: "/v3/lease/keepalive", body });
    expect([answer.status, answer.headers["content-type"], answer.headers["transfer-encoding"], answer.text]).toEqual([
      200,
      "application/json",
      "chunked",
      text,
    ]);
  });

  test.each(["", '{"ID":"x"}', "{", "nonsense"])("%j is answered by nothing", async (body) => {
    const answer = await ask(t.port, { path: "/v3/lease/keepalive", body });
    expect([answer.status, answer.headers["content-type"], answer.headers["grpc-metadata-content-type"], answer.text]).toEqual([
      200,
      undefined,
      undefined,
      "",
    ]);
  });

  test("an open body, and its end", async () => {
    await using client = new RawClient(t.port);
    await client.open("POST /v3/lease/keepalive", { Connection: "close" }).chunk('{"ID":1}').until('"ID":"1"');
    await client.chunk('{"ID":2}').until('"ID":"2"');
    client.endChunks();
    await client.untilClosed();
    expect(client.text.endsWith("\r\n0\r\n\r\n")).toBe(true);
  });

  test("renewals of an upload that goes on are carried out as they come, the answers wait for its end", async () => {
    await using client = new RawClient(t.port);
    const before = t.services.calls.length;
    client.open("POST /v3/lease/keepalive").chunk('{"ID":1}');
    await eventually(() => t.services.calls.length === before + 1);
    client.chunk('{"ID":2}');
    await eventually(() => t.services.calls.length === before + 2);
    await settle();
    expect(client.text).toBe("");
    await client.endChunks().until("\r\n0\r\n\r\n");
    expect(chunksOf(client.text)).toEqual([result(1), result(2)]);
  });

  test("an error ends it, before and after the first answer", async () => {
    const leaseKeepAlive = async ({ id }: api.LeaseKeepAliveRequest): Promise<api.LeaseKeepAliveResponse> => {
      if (id === 12n) throw rpcError("permission-denied");
      return api.LeaseKeepAliveResponse.create({ header: STUB_HEADER, id, ttl: 600 });
    };
    await using app = await testApp({ overrides: { lease: { leaseKeepAlive } } });
    const error = '{"error":{"code":7,"message":"etcdserver: permission denied"}}\n';
    const first = await ask(app.port, { path: "/v3/lease/keepalive", body: '{"ID":12}{"ID":11}' });
    expect([first.status, first.text]).toEqual([403, error]);
    const later = await ask(app.port, { path: "/v3/lease/keepalive", body: '{"ID":11}{"ID":12}{"ID":11}' });
    expect([later.status, later.text]).toEqual([200, result(11) + error]);
    expect(app.services.calls.length).toBe(3);
  });

  test("many renewals, one after the other", async () => {
    let running = 0;
    let mostRunning = 0;
    const leaseKeepAlive = async ({ id }: api.LeaseKeepAliveRequest): Promise<api.LeaseKeepAliveResponse> => {
      mostRunning = Math.max(mostRunning, ++running);
      await new Promise((resolve) => setImmediate(resolve));
      running--;
      return api.LeaseKeepAliveResponse.create({ header: STUB_HEADER, id, ttl: 600 });
    };
    await using app = await testApp({ overrides: { lease: { leaseKeepAlive } } });
    const body = Array.from({ length: 5000 }, (_, i) => `{"ID":${i + 1}}`).join("");
    const answer = await ask(app.port, { path: "/v3/lease/keepalive", body });
    const ids = answer.text
      .trim()
      .split("\n")
      .map((line) => Number(JSON.parse(line).result.ID));
    expect(ids).toEqual(Array.from({ length: 5000 }, (_, i) => i + 1));
    expect(mostRunning).toBe(1);
  });
});

describe("streams of answers to one request", () => {
  test("snapshot", async () => {
    async function* snapshot(): AsyncGenerator<api.SnapshotResponse> {
      yield api.SnapshotResponse.create({ blob: Buffer.from("data"), remainingBytes: 32, version: "3.7.0" });
      yield api.SnapshotResponse.create({ blob: Buffer.from("hash"), version: "3.7.0" });
    }
    await using app = await testApp({ overrides: { maintenance: { snapshot } } });
    for (const body of ["{}", "", undefined]) {
      const answer = await ask(app.port, { path: "/v3/maintenance/snapshot", ...(body === undefined ? {} : { body }) });
      expect([answer.status, answer.headers["content-type"], answer.headers["grpc-metadata-content-type"]]).toEqual([
        200,
        "application/json",
        "application/grpc",
      ]);
      expect(answer.text).toBe(
        '{"result":{"remaining_bytes":"32","blob":"ZGF0YQ==","version":"3.7.0"}}\n{"result":{"blob":"aGFzaA==","version":"3.7.0"}}\n',
      );
    }
  });

  test("an error before and after the first line", async () => {
    async function* failing(request: api.LeaderRequest): AsyncGenerator<api.LeaderResponse> {
      if (request.name.length === 0) throw rpcError("permission-denied");
      yield api.LeaderResponse.create({ header: STUB_HEADER });
      throw rpcError("leader-changed");
    }
    await using app = await testApp({ overrides: { election: { observe: failing } } });
    const first = await ask(app.port, { path: "/v3/election/observe", body: "{}" });
    expect([first.status, first.text]).toEqual([403, '{"error":{"code":7,"message":"etcdserver: permission denied"}}\n']);
    const later = await ask(app.port, { path: "/v3/election/observe", body: '{"name":"YQ=="}' });
    expect([later.status, later.text]).toEqual([
      200,
      `{"result":{${HEADER}}}\n{"error":{"code":14,"message":"etcdserver: leader changed"}}\n`,
    ]);
  });

  test("a request that cannot be read is answered as by a unary call, one that is too large as by a stream", async () => {
    await using app = await testApp({ maxRequestBytes: 30_000 });
    const malformed = await ask(app.port, { path: "/v3/election/observe", body: "[]x" });
    expect([malformed.status, malformed.text]).toEqual([400, '{"code":3,"message":"proto: syntax error (line 1:1): unexpected token ["}']);
    const body = JSON.stringify({ name: Buffer.alloc(600_000).toString("base64") });
    const large = await ask(app.port, { path: "/v3/election/observe", body });
    expect([large.status, large.text]).toEqual([
      429,
      '{"error":{"code":8,"message":"grpc: received message larger than max (600004 vs. 554288)"}}\n',
    ]);
  });

  test("the service stops when the client hangs up, also one that does not read", async () => {
    let released = 0;
    async function* endless(): AsyncGenerator<api.SnapshotResponse> {
      try {
        for (;;) yield api.SnapshotResponse.create({ blob: Buffer.alloc(32_768) });
      } finally {
        released++;
      }
    }
    await using app = await testApp({ overrides: { maintenance: { snapshot: endless } } });
    await using client = new RawClient(app.port);
    client.socket.once("data", () => client.socket.pause());
    client.request("POST /v3/maintenance/snapshot", "{}");
    await eventually(() => client.text.length > 0);
    const rpc = app.metrics.rpc(api.MaintenanceService.snapshot);
    await untilSteady(() => rpc.sent, 0);
    expect(rpc.sent).toBeLessThan(1000);
    client.socket.destroy();
    await eventually(() => released === 1 && app.app.connections === 0);
  });
});
