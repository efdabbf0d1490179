import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as api from "../../src/api/index.ts";
import { rpcError } from "../../src/api/index.ts";
import { EtcdError, GrpcCode } from "../../src/base/errors.ts";
import type { CallContext } from "../../src/server/services/services.contract.ts";
import { STUB_HEADER } from "../support/stub-services.ts";
import { ask, eventually, ManualClock, RawClient, settle, type TestApp, testApp } from "./support.ts";

const CORS = {
  "Access-Control-Allow-Headers": "accept, content-type, authorization",
  "Access-Control-Allow-Methods": "POST, GET, OPTIONS, PUT, DELETE",
  "Access-Control-Allow-Origin": "*",
};
const HEADER = '{"header":{"cluster_id":"10144879847569953045","member_id":"12428976124636271536","revision":"2","raft_term":"2"}';
const PUT = JSON.stringify({ key: "YQ==", value: "MQ==" });

/** Header names and values as sent, without the date. */
function sentHeaders(rawHeaders: readonly string[]): Record<string, string> {
  const sent: Record<string, string> = {};
  for (let i = 0; i < rawHeaders.length; i += 2) if (rawHeaders[i] !== "Date") sent[rawHeaders[i] ?? ""] = rawHeaders[i + 1] ?? "";
  return sent;
}

/** Headers of the first answer of a raw connection, as sent. */
function headOf(text: string): string[] {
  return (text.split("\r\n\r\n")[0] ?? "").split("\r\n").filter((line) => !line.startsWith("Date: "));
}

let t: TestApp;
beforeAll(async () => {
  t = await testApp();
});
afterAll(async () => {
  await t[Symbol.asyncDispose]();
});

describe("headers", () => {
  test("unary success, byte for byte", async () => {
    await using client = new RawClient(t.port);
    await client.request("POST /v3/kv/put", PUT).until("raft_term");
    expect(client.text).toMatch(/\r\nDate: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n/);
    expect(headOf(client.text)).toEqual([
      "HTTP/1.1 200 OK",
      ...Object.entries(CORS).map(([name, value]) => `${name}: ${value}`),
      "Content-Type: application/json",
      "Grpc-Metadata-Content-Type: application/grpc",
      `Content-Length: ${HEADER.length + 1}`,
    ]);
    expect(client.text.endsWith(`${HEADER}}`)).toBe(true);
  });

  test("the connection stays open and serves more", async () => {
    await using client = new RawClient(t.port);
    await client.request("POST /v3/kv/put", PUT).until("raft_term");
    client.text = "";
    await client.request("GET /version").until("etcdserver");
    expect(client.ended).toBe(false);
  });

  test("error", async () => {
    const answer = await ask(t.port, { path: "/v3/kv/put", body: '{"key":"YQ="}' });
    expect(answer.status).toBe(400);
    expect(answer.text).toBe('{"code":3,"message":"proto: (line 1:8): invalid value for bytes field key: \\"YQ=\\""}');
    expect(sentHeaders(answer.rawHeaders)).toEqual({
      ...CORS,
      "Content-Type": "application/json",
      "Content-Length": String(answer.text.length),
      Connection: "close",
    });
  });

  test("Connection: close is answered in kind", async () => {
    await using client = new RawClient(t.port);
    client.request("POST /v3/kv/put", PUT, { Connection: "close" });
    await client.untilClosed();
    expect(headOf(client.text)).toContain("Connection: close");
  });

  test("HTTP/1.0, with and without keep-alive", async () => {
    await using once = new RawClient(t.port);
    once.write(`POST /v3/kv/put HTTP/1.0\r\nContent-Length: ${PUT.length}\r\n\r\n${PUT}`);
    await once.untilClosed();
    expect(once.text).toContain("200 OK");
    await using kept = new RawClient(t.port);
    kept.write(`POST /v3/kv/put HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: ${PUT.length}\r\n\r\n${PUT}`);
    await kept.until("raft_term");
    expect(headOf(kept.text)).toContain("Connection: keep-alive");
    expect(kept.ended).toBe(false);
  });

  test("no compression", async () => {
    const answer = await ask(t.port, { path: "/v3/kv/put", body: PUT, headers: { "Accept-Encoding": "gzip" } });
    expect(answer.headers["content-encoding"]).toBeUndefined();
    expect(answer.text).toBe(`${HEADER}}`);
  });

  test("TE: trailers makes unary answers chunked, with a trailer if the call failed", async () => {
    const good = await ask(t.port, { path: "/v3/kv/put", body: PUT, headers: { TE: "trailers" } });
    expect([good.headers["transfer-encoding"], good.headers["content-length"], good.text]).toEqual(["chunked", undefined, `${HEADER}}`]);
    const bad = await ask(t.port, { path: "/v3/kv/put", body: "[", headers: { TE: "Trailers" } });
    expect([bad.status, bad.headers["transfer-encoding"], bad.headers.trailer]).toEqual([400, "chunked", undefined]);
    await using failing = await testApp({ overrides: { kv: { put: () => Promise.reject(rpcError("no-leader")) } } });
    const failed = await ask(failing.port, { path: "/v3/kv/put", body: PUT, headers: { TE: "trailers" } });
    expect([failed.status, failed.headers.trailer, failed.trailers]).toEqual([
      503,
      "Grpc-Trailer-Content-Type",
      { "grpc-trailer-content-type": "application/grpc" },
    ]);
  });
});

describe("every path", () => {
  const routed = api.ALL_METHODS.flatMap((method) => method.httpPaths.map((path) => ({ path, method })));

  test("there are as many as in the specification", () => {
    expect(routed.length).toBe(51);
  });

  for (const { path, method } of routed.filter(({ method }) => !method.clientStreaming)) {
    test(path, async () => {
      const answer = await ask(t.port, { path, body: "{}" });
      expect(answer.status).toBe(200);
      expect(t.services.calls.at(-1)?.method).toBe(method.path);
      expect(t.services.calls.at(-1)?.request).toEqual(method.request.create());
      const fields = method.response.fields.some(({ name }) => name === "header") ? `${HEADER}}` : "{}";
      expect(answer.text).toBe(method.serverStreaming ? `{"result":${fields}}\n` : fields);
      const beta = await ask(t.port, { path: path.replace("/v3/", "/v3beta/"), body: "{}" });
      expect(beta.text).toBe(answer.text);
    });
  }
});

describe("routing", () => {
  const NOT_FOUND = '{"code":5,"message":"Not Found"}';
  const NOT_ALLOWED = '{"code":12,"message":"Method Not Allowed"}';
  const PAGE = "404 page not found\n";
  const OK = `${HEADER}}`;

  test.each([
    ["POST", "/v3/kv/put?x=1", 200, OK],
    ["POST", "/v3/kv%2Fput", 200, OK],
    ["POST", "/v3/kv/p%75t", 200, OK],
    ["POST", "/v3beta/kv/put?x", 200, OK],
    ["POST", "/v3beta/kv/p%75t", 200, OK],
    ["POST", "/v3/kv/put/", 404, NOT_FOUND],
    ["POST", "/v3/kv", 404, NOT_FOUND],
    ["POST", "/v3/", 404, NOT_FOUND],
    ["POST", "/v3beta/", 404, NOT_FOUND],
    ["POST", "/v3/KV/put", 404, NOT_FOUND],
    ["POST", "/v3/kv/put%20", 404, NOT_FOUND],
    ["POST", "/v3/kv/put:count", 404, NOT_FOUND],
    ["POST", "/v3/v3/kv/put", 404, NOT_FOUND],
    ["POST", "/v3/kv%2F%2Fput", 404, NOT_FOUND],
    ["POST", "/v3/__proto__", 404, NOT_FOUND],
    ["GET", "/v3/nothing", 404, NOT_FOUND],
    ["GET", "/v3/kv/put", 501, NOT_ALLOWED],
    ["GET", "/v3/kv/put?key=YQ==", 501, NOT_ALLOWED],
    ["PUT", "/v3/kv/put", 501, NOT_ALLOWED],
    ["DELETE", "/v3/kv/put", 501, NOT_ALLOWED],
    ["PATCH", "/v3/kv/put", 501, NOT_ALLOWED],
    ["PROPFIND", "/v3/kv/put", 501, NOT_ALLOWED],
    ["GET", "/v3/watch", 501, NOT_ALLOWED],
    ["GET", "/v3/maintenance/snapshot", 501, NOT_ALLOWED],
    ["HEAD", "/v3/kv/put", 501, ""],
    ["POST", "/V3/kv/put", 404, PAGE],
    ["POST", "/v3alpha/kv/put", 404, PAGE],
    ["POST", "/v3beta", 404, PAGE],
    ["POST", "/v2/keys/a", 404, PAGE],
    ["POST", "/etcdserverpb.KV/Put", 404, PAGE],
    ["POST", "/", 404, PAGE],
    ["POST", "/index.html", 404, PAGE],
    ["GET", "/members", 404, PAGE],
    ["GET", "/debug", 404, PAGE],
    ["GET", "/debug/pprof/", 404, PAGE],
    ["GET", "/health/", 404, PAGE],
    ["GET", "/constructor", 404, PAGE],
    ["GET", "http://elsewhere/v3/kv/put", 501, NOT_ALLOWED],
  ])("%s %s is %i", async (method, path, status, text) => {
    const answer = await ask(t.port, { method, path, body: method === "GET" || method === "HEAD" ? undefined : PUT } as never);
    expect([answer.status, answer.text]).toEqual([status, text]);
    const isPage = text === PAGE;
    expect(answer.headers["content-type"]).toBe(isPage ? "text/plain; charset=utf-8" : "application/json");
    expect(answer.headers["x-content-type-options"]).toBe(isPage ? "nosniff" : undefined);
    expect(answer.headers["access-control-allow-origin"]).toBe("*");
    expect(answer.headers.allow).toBeUndefined();
  });

  test.each([
    ["/v3", "/v3/"],
    ["/v3?a=b", "/v3/?a=b"],
    ["//v3/kv/put", "/v3/kv/put"],
    ["/v3//kv/put", "/v3/kv/put"],
    ["/v3beta//kv/put", "/v3/kv/put"],
    ["/v3/kv/../kv/put", "/v3/kv/put"],
    ["/v3/kv/./put", "/v3/kv/put"],
    ["/v3/../health", "/health"],
    ["/v3//kv%2Fput?a=b", "/v3/kv%252Fput?a=b"],
    ["/../../x/", "/x/"],
    ["/v3//", "/v3/"],
  ])("%s is redirected to %s", async (path, location) => {
    const post = await ask(t.port, { path, body: PUT });
    expect([post.status, post.headers.location, post.text, post.headers["content-type"]]).toEqual([307, location, "", undefined]);
    const get = await ask(t.port, { method: "GET", path });
    expect([get.status, get.headers["content-type"]]).toEqual([307, "text/html; charset=utf-8"]);
    expect(get.text).toBe(`<a href="${location.replace("&", "&amp;")}">Temporary Redirect</a>.\n\n`);
  });

  test.each(["/v3/kv/put", "/nowhere", "/v3//x", "/health"])("OPTIONS %s is 200 and empty", async (path) => {
    const answer = await ask(t.port, { method: "OPTIONS", path });
    expect([answer.status, answer.text]).toEqual([200, ""]);
    expect(sentHeaders(answer.rawHeaders)).toEqual({ ...CORS, "Content-Length": "0", Connection: "close" });
  });

  test("OPTIONS *", async () => {
    const answer = await ask(t.port, { method: "OPTIONS", path: "*" });
    expect([answer.status, answer.headers["access-control-allow-origin"]]).toEqual([200, undefined]);
  });

  test.each(["/v3/kv/%zz", "/%", "nothing"])("%s cannot be understood", async (path) => {
    await using client = new RawClient(t.port);
    client.request(`GET ${path}`);
    await client.untilClosed();
    expect(client.text).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
    expect(client.text.endsWith("400 Bad Request")).toBe(true);
  });

  test("a form may name another method, which is never allowed; naming POST costs it its body", async () => {
    const form = { "Content-Type": "application/x-www-form-urlencoded" };
    const get = await ask(t.port, { path: "/v3/kv/put", body: PUT, headers: { ...form, "X-HTTP-Method-Override": "GET" } });
    expect([get.status, get.text]).toEqual([501, NOT_ALLOWED]);
    const post = await ask(t.port, { path: "/v3/kv/put", body: PUT, headers: { ...form, "X-HTTP-Method-Override": "post" } });
    expect(post.status).toBe(200);
    expect(t.services.calls.at(-1)?.request).toEqual(api.PutRequest.create());
    const json = await ask(t.port, { path: "/v3/kv/put", body: PUT, headers: { "X-HTTP-Method-Override": "GET" } });
    expect(json.status).toBe(200);
  });

  test("without a gateway its paths do not exist", async () => {
    await using without = await testApp({ enableGateway: false });
    for (const [method, path] of [
      ["POST", "/v3/kv/put"],
      ["GET", "/v3/kv/put"],
      ["POST", "/v3/"],
      ["POST", "/v3"],
    ] as const) {
      const answer = await ask(without.port, { method, path });
      expect([answer.status, answer.text]).toEqual([404, PAGE]);
    }
    expect((await ask(without.port, { method: "GET", path: "/version" })).status).toBe(200);
  });
});

describe("bodies", () => {
  test.each([
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/grpc",
    "multipart/form-data; boundary=x",
    "nonsense",
    "",
  ])("content type %j is ignored", async (type) => {
    const answer = await ask(t.port, {
      path: "/v3/kv/put",
      body: PUT,
      headers: { "Content-Type": type, "Content-Encoding": "gzip", Accept: "text/html" },
    });
    expect([answer.status, answer.headers["content-type"]]).toEqual([200, "application/json"]);
    expect(t.services.calls.at(-1)?.request).toMatchObject({ key: Buffer.from("a"), value: Buffer.from("1") });
  });

  test.each([
    ["", 200],
    ["   ", 200],
    ['{"key":"YQ=="} trailing', 200],
    ['{"key":"YQ=="}{"key":"Yg=="}', 200],
    ["null", 400],
    ["[]", 400],
    ["hello", 400],
    ['{"key":"YQ=="', 400],
    ['\ufeff{"key":"YQ=="}', 400],
  ])("%j is %i", async (body, status) => {
    expect((await ask(t.port, { path: "/v3/kv/put", body })).status).toBe(status);
  });

  test("in many pieces", async () => {
    await using client = new RawClient(t.port);
    client.open("POST /v3/kv/put");
    for (const piece of PUT) {
      client.chunk(piece);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await client.endChunks().until("raft_term");
    expect(t.services.calls.at(-1)?.request).toMatchObject({ key: Buffer.from("a"), value: Buffer.from("1") });
  });

  test("waits for 100 Continue", async () => {
    await using client = new RawClient(t.port);
    client.write(`POST /v3/kv/put HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: ${PUT.length}\r\n\r\n`);
    await client.until("HTTP/1.1 100 Continue\r\n\r\n");
    await client.write(PUT).until("raft_term");
  });

  test("no prototype is polluted", async () => {
    await ask(t.port, { path: "/v3/kv/put", body: '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"key":"YQ=="}' });
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
  });
});

describe("sizes", () => {
  const LIMIT = 30_000 + 524_288;
  const bodyOf = (bytes: number): string => JSON.stringify({ key: "YQ==", value: Buffer.alloc(bytes).toString("base64") });

  test("the message is measured, not its JSON", async () => {
    await using small = await testApp({ maxRequestBytes: 30_000 });
    // Two bytes of tag and length for a key of one byte, four for a value of this length.
    const overhead = 3 + 4;
    const fits = await ask(small.port, { path: "/v3/kv/put", body: bodyOf(LIMIT - overhead) });
    expect(fits.status).toBe(200);
    const over = await ask(small.port, { path: "/v3/kv/put", body: bodyOf(LIMIT - overhead + 1) });
    expect([over.status, over.text]).toEqual([
      429,
      `{"code":8,"message":"grpc: received message larger than max (${LIMIT + 1} vs. ${LIMIT})"}`,
    ]);
    const escaped = `{"key":"YQ==","value":"${"\\u0041".repeat(400_000)}"}`;
    expect((await ask(small.port, { path: "/v3/kv/put", body: escaped })).status).toBe(429);
  });

  test("far too much is refused before it is read, and the connection goes on", async () => {
    await using small = await testApp({ maxRequestBytes: 30_000 });
    const max = 4 * LIMIT + 65_536;
    await using client = new RawClient(small.port);
    client.write(`POST /v3/kv/put HTTP/1.1\r\nHost: test\r\nContent-Length: ${max + 1}\r\n\r\n`);
    await client.until(`(${max + 1} vs. ${LIMIT})`);
    expect(client.text).toMatch(/^HTTP\/1\.1 429 Too Many Requests\r\n/);
    client.text = "";
    client.write(Buffer.alloc(max + 1, " "));
    await client.request("POST /v3/kv/put", PUT).until("raft_term");
  });

  test("chunked uploads are cut where they become too long", async () => {
    await using small = await testApp({ maxRequestBytes: 30_000 });
    await using client = new RawClient(small.port);
    client.open("POST /v3/kv/put");
    const piece = " ".repeat(65_536);
    for (let i = 0; i < 40; i++) client.chunk(piece);
    await client.until("429 Too Many Requests");
    expect(small.services.calls.length).toBe(0);
  });
});

describe("memory", () => {
  test("bodies of all connections together are bounded", async () => {
    await using app = await testApp({ limits: { heldBytes: 250_000 } });
    const value = "QUFB".repeat(50_000);
    const body = `{"key":"YQ==","value":"${value}"}`;
    await using greedy = new RawClient(app.port);
    greedy.request("POST /v3/kv/put", undefined, { "Content-Length": String(body.length) }).write(body.slice(0, 100_000));
    await settle();
    greedy.write(body.slice(100_000, 180_000));
    await settle();
    await using other = new RawClient(app.port);
    other.request("POST /v3/kv/put", undefined, { "Content-Length": "190000" }).write(body.slice(0, 60_000));
    await settle();
    other.write(body.slice(60_000, 140_000));
    await other.until('{"code":8,"message":"etcdserver: too many requests"}');
    await using stream = new RawClient(app.port);
    stream.open("POST /v3/watch").chunk(`{"create_request":{"key":"${"A".repeat(150_000)}`);
    await stream.until('{"error":{"code":8,"message":"etcdserver: too many requests"}}');
    greedy.socket.destroy();
    await eventually(() => app.app.connections === 2);
    await using later = new RawClient(app.port);
    later.request("POST /v3/kv/put", undefined, { "Content-Length": String(body.length) }).write(body.slice(0, 100_000));
    await settle();
    await later.write(body.slice(100_000)).until("raft_term");
    // What was answered is not kept any more, though its connection stays.
    await using last = new RawClient(app.port);
    last.request("POST /v3/kv/put", undefined, { "Content-Length": String(body.length) }).write(body.slice(0, 100_000));
    await settle();
    await last.write(body.slice(100_000)).until("raft_term");
  });

  test("requests of one connection do not add up", async () => {
    await using app = await testApp({ limits: { heldBytes: 1_000_000 } });
    await using client = new RawClient(app.port);
    const body = `{"key":"YQ==","value":"${"QUFB".repeat(100_000)}"}`;
    for (let i = 1; i <= 10; i++) {
      client.request("POST /v3/kv/put", body);
      await eventually(() => client.text.split("HTTP/1.1 200 OK").length === i + 1);
    }
  });
});

describe("large answers", () => {
  const large = (count: number): api.RangeResponse =>
    api.RangeResponse.create({
      header: STUB_HEADER,
      kvs: Array.from({ length: count }, (_, i) =>
        api.KeyValue.create({ key: Buffer.from(`key${i}`), value: Buffer.alloc(1000, i), modRevision: i + 2 }),
      ),
      count: count + 5,
      more: true,
    });

  test("come whole", async () => {
    const response = large(10_000);
    await using app = await testApp({ overrides: { kv: { range: async () => response } } });
    const answer = await ask(app.port, { path: "/v3/kv/range", body: "{}" });
    const expected = api.printJson(api.RangeResponse, response);
    expect([answer.status, answer.headers["content-length"], answer.text === expected]).toEqual([200, String(expected.length), true]);
    const chunked = await ask(app.port, { path: "/v3/kv/range", body: "{}", headers: { TE: "trailers" } });
    expect([chunked.headers["transfer-encoding"], chunked.text === expected]).toEqual(["chunked", true]);
    const rpc = app.metrics.rpc(api.KvService.range);
    expect([rpc.started, rpc.sent, rpc.handled[0]]).toEqual([2, 2, 2]);
  });

  test("are not sent on to clients that have left, nor after the deadline", async () => {
    const response = large(50_000);
    const clock = new ManualClock();
    let asked = 0;
    const range = async (): Promise<api.RangeResponse> => {
      asked++;
      return response;
    };
    await using app = await testApp({ clock, overrides: { kv: { range } } });
    await using client = new RawClient(app.port);
    client.request("POST /v3/kv/range", "{}");
    await eventually(() => asked === 1);
    client.socket.resetAndDestroy();
    await eventually(() => app.app.connections === 0);
    await using late = new RawClient(app.port);
    late.request("POST /v3/kv/range", "{}", { "Grpc-Timeout": "1S" });
    await eventually(() => asked === 2);
    clock.advance(1000);
    await late.until("context deadline exceeded");
    expect(app.metrics.rpc(api.KvService.range).handled.reduce((a, b) => a + b)).toBe(2);
  });
});

describe("metadata", () => {
  async function contextOf(headers: Record<string, string>): Promise<CallContext> {
    expect((await ask(t.port, { path: "/v3/kv/put", body: PUT, headers })).status).toBe(200);
    return t.services.calls.at(-1)?.context as CallContext;
  }

  test.each([
    [{}, undefined],
    [{ Authorization: "tok.1" }, "tok.1"],
    [{ Authorization: "Bearer tok.1" }, "tok.1"],
    [{ "Grpc-Metadata-Token": "tok.2" }, "tok.2"],
    [{ "Grpc-Metadata-Token": "Bearer tok.2", Authorization: "tok.1" }, "tok.2"],
    [{ "Grpc-Metadata-Authorization": "tok.3" }, "tok.3"],
    [{ Token: "tok.4" }, undefined],
    [{ Cookie: "token=tok.5" }, undefined],
    [{ Authorization: "t\u00f6k" }, undefined],
  ])("token of %j", async (headers, token) => {
    const context = await contextOf(headers as Record<string, string>);
    expect(context.token).toBe(token);
    expect(context.commonName).toBeUndefined();
  });

  test("leader wish and version", async () => {
    expect((await contextOf({ "Grpc-Metadata-Hasleader": "true" })).requireLeader).toBe(true);
    expect((await contextOf({ "grpc-metadata-hasleader": "TRUE" })).requireLeader).toBe(false);
    expect((await contextOf({ Hasleader: "true" })).requireLeader).toBe(false);
    expect((await contextOf({ "Grpc-Metadata-Client-Api-Version": "3.7" })).clientApiVersion).toBe("3.7");
  });
});

describe("errors of calls", () => {
  test.each([
    ["canceled", 499],
    ["deadline-exceeded", 504],
    ["key-not-provided", 400],
    ["lease-not-found", 404],
    ["permission-denied", 403],
    ["no-space", 429],
    ["not-leader", 400],
    ["compacted", 400],
    ["range-stream-sort", 501],
    ["compressed-without-encoding", 500],
    ["no-leader", 503],
    ["corrupt-cluster", 500],
    ["unknown-method", 500],
    ["invalid-auth-token", 401],
  ] as const)("%s is %i", async (reason, status) => {
    const error = rpcError(reason);
    await using failing = await testApp({ overrides: { kv: { put: () => Promise.reject(error) } } });
    const answer = await ask(failing.port, { path: "/v3/kv/put", body: PUT });
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.text)).toEqual({ code: error.grpcCode, message: error.message });
    expect(answer.headers["grpc-metadata-content-type"]).toBeUndefined();
    expect(answer.headers["www-authenticate"]).toBe(status === 401 ? "etcdserver: invalid auth token" : undefined);
  });

  test("a text that cannot stand in a header", async () => {
    const error = new EtcdError("x", GrpcCode.Unauthenticated, "no\r\nSet-Cookie: a\u4e2d");
    await using failing = await testApp({ overrides: { kv: { put: () => Promise.reject(error) } } });
    const answer = await ask(failing.port, { path: "/v3/kv/put", body: PUT });
    expect([answer.status, answer.headers["www-authenticate"], answer.headers["set-cookie"]]).toEqual([401, "noSet-Cookie: a", undefined]);
  });

  test("a bug is reported and not shown", async () => {
    await using failing = await testApp({ overrides: { kv: { put: () => Promise.reject(new TypeError("secret of line 7")) } } });
    const answer = await ask(failing.port, { path: "/v3/kv/put", body: PUT });
    expect([answer.status, answer.text]).toEqual([500, '{"code":13,"message":"internal error"}']);
    expect(String(failing.bugs)).toContain("secret of line 7");
  });

  test("a service that throws at once", async () => {
    await using failing = await testApp({
      overrides: {
        kv: {
          put: () => {
            throw rpcError("too-many-requests");
          },
        },
      },
    });
    const answer = await ask(failing.port, { path: "/v3/kv/put", body: PUT });
    expect([answer.status, answer.text]).toEqual([500, '{"code":2,"message":"etcdserver: too many requests"}']);
  });

  test("an answer that does not fit into a string", async () => {
    const tooLong = (): never => {
      throw new RangeError("Invalid string length");
    };
    const response = Object.defineProperty(api.PutResponse.create(), "header", { get: tooLong });
    await using failing = await testApp({ overrides: { kv: { put: async () => response } } });
    const answer = await ask(failing.port, { path: "/v3/kv/put", body: PUT });
    expect([answer.status, JSON.parse(answer.text).code, failing.bugs]).toEqual([429, 8, []]);
  });
});

/** A lock call that never ends by itself, as long as nobody cancels it. */
function waitingLock(): { overrides: NonNullable<Parameters<typeof testApp>[0]>["overrides"]; reasons: unknown[] } {
  const reasons: unknown[] = [];
  const lock = (_request: object, context: CallContext): Promise<never> =>
    new Promise((_, reject) => {
      context.signal?.addEventListener("abort", () => {
        reasons.push(context.signal?.reason);
        reject(rpcError("canceled"));
      });
    });
  return { overrides: { lock: { lock } }, reasons };
}

describe("timeouts", () => {
  test("the deadline answers, also when the service does not", async () => {
    const clock = new ManualClock();
    await using slow = await testApp({ clock, overrides: { kv: { put: () => new Promise<never>(() => undefined) } } });
    await using client = new RawClient(slow.port);
    client.request("POST /v3/kv/put", PUT, { "Grpc-Timeout": "500m" });
    await eventually(() => slow.services.calls.length === 1);
    clock.advance(499);
    await settle();
    expect(client.text).toBe("");
    clock.advance(1);
    await client.until('{"code":4,"message":"context deadline exceeded"}');
    expect(client.text).toMatch(/^HTTP\/1\.1 504 Gateway Timeout\r\n/);
  });

  test("the service learns of it", async () => {
    const clock = new ManualClock();
    const { overrides, reasons } = waitingLock();
    await using slow = await testApp({ clock, overrides: overrides ?? {} });
    await using client = new RawClient(slow.port);
    client.request("POST /v3/lock/lock", "{}", { "Grpc-Timeout": "2S" });
    await eventually(() => slow.services.calls.length === 1);
    clock.advance(2000);
    await client.until("context deadline exceeded");
    expect(reasons).toMatchObject([{ reason: "deadline-exceeded" }]);
  });

  test("no timer is left of a call in time", async () => {
    const clock = new ManualClock();
    await using app = await testApp({ clock });
    expect((await ask(app.port, { path: "/v3/kv/put", body: PUT, headers: { "Grpc-Timeout": "1H" } })).status).toBe(200);
    await eventually(() => app.app.connections === 0);
    clock.advance(1000);
    expect(clock.pending).toBe(0);
  });

  test.each(["-5S", "99999999H", "-1n"])("%s has passed already", async (timeout) => {
    const before = t.services.calls.length;
    const answer = await ask(t.port, { path: "/v3/kv/put", body: PUT, headers: { "Grpc-Timeout": timeout } });
    expect([answer.status, answer.text]).toEqual([504, '{"code":4,"message":"context deadline exceeded"}']);
    expect(t.services.calls.length).toBe(before);
  });

  test.each(["0S", "+5S", "1H", "123456789S", "4294967295m"])("%s is accepted", async (timeout) => {
    expect((await ask(t.port, { path: "/v3/kv/put", body: PUT, headers: { "Grpc-Timeout": timeout } })).status).toBe(200);
  });

  test.each(["1", "S", "1x", "1.5S", "1S2", "9999999999999999999S", "0x1S", "1 S"])("%s is malformed", async (timeout) => {
    const answer = await ask(t.port, { path: "/v3/kv/put", body: "[", headers: { "Grpc-Timeout": timeout } });
    expect([answer.status, answer.text]).toEqual([400, `{"code":3,"message":"invalid grpc-timeout: ${timeout}"}`]);
  });
});

describe("clients that go away", () => {
  test("the call is cancelled when the connection closes", async () => {
    const { overrides, reasons } = waitingLock();
    await using slow = await testApp({ overrides: overrides ?? {} });
    await using client = new RawClient(slow.port);
    client.request("POST /v3/lock/lock", "{}");
    await eventually(() => slow.services.calls.length === 1);
    client.socket.destroy();
    await eventually(() => reasons.length === 1);
    expect(reasons).toMatchObject([{ reason: "canceled" }]);
    await eventually(() => slow.app.connections === 0);
  });

  test("the call is cancelled, and answered, when the client closes its side", async () => {
    const { overrides, reasons } = waitingLock();
    await using slow = await testApp({ overrides: overrides ?? {} });
    await using client = new RawClient(slow.port);
    client.request("POST /v3/lock/lock", "{}");
    await eventually(() => slow.services.calls.length === 1);
    client.socket.end();
    await eventually(() => reasons.length === 1);
    await client.until('{"code":1,"message":"context canceled"}');
    await eventually(() => slow.app.connections === 0);
  });

  test("health is answered to clients that have closed their side", async () => {
    await using client = new RawClient(t.port);
    client.request("GET /health");
    client.socket.end();
    await client.until('{"health":"true","reason":""}');
    await client.untilClosed();
  });

  test("an aborted upload calls nothing", async () => {
    const before = t.services.calls.length;
    await using client = new RawClient(t.port);
    client.write('POST /v3/kv/put HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n{"key":');
    await settle();
    client.socket.destroy();
    await eventually(() => t.app.connections === 0);
    expect(t.services.calls.length).toBe(before);
  });
});

describe("pipelining", () => {
  test("requests of one connection are carried out one after the other", async () => {
    const begun: string[] = [];
    const waiting: (() => void)[] = [];
    const put = async (request: api.PutRequest): Promise<api.PutResponse> => {
      begun.push(Buffer.from(request.key).toString());
      await new Promise<void>((resolve) => waiting.push(resolve));
      return api.PutResponse.create();
    };
    await using app = await testApp({ overrides: { kv: { put } } });
    await using client = new RawClient(app.port);
    for (const key of ["a", "b", "c"]) client.request("POST /v3/kv/put", JSON.stringify({ key: Buffer.from(key).toString("base64") }));
    for (const expected of [["a"], ["a", "b"], ["a", "b", "c"]]) {
      await eventually(() => begun.length === expected.length);
      await settle();
      expect(begun).toEqual(expected);
      waiting.at(-1)?.();
    }
    await eventually(() => client.text.split("HTTP/1.1 200 OK").length === 4);
  });

  test("many requests at once are all answered", async () => {
    await using client = new RawClient(t.port);
    const one = `POST /v3/kv/put HTTP/1.1\r\nHost: test\r\nContent-Length: ${PUT.length}\r\n\r\n${PUT}`;
    client.write(one.repeat(1000));
    await eventually(() => client.text.split("HTTP/1.1 200 OK").length === 1001);
  });
});

describe("metrics of calls", () => {
  test("are counted as those of gRPC", async () => {
    await using app = await testApp({
      overrides: { kv: { deleteRange: () => Promise.reject(rpcError("no-leader")) } },
    });
    await ask(app.port, { path: "/v3/kv/put", body: PUT, headers: { "Grpc-Metadata-Client-Api-Version": "3.6" } });
    await ask(app.port, { path: "/v3/kv/put", body: "[" });
    await ask(app.port, { path: "/v3/kv/deleterange", body: "{}" });
    const put = app.metrics.rpc(api.KvService.put);
    expect([put.started, put.received, put.sent, put.handled[0], put.seconds?.count]).toEqual([1, 1, 1, 1, 1]);
    const del = app.metrics.rpc(api.KvService.deleteRange);
    expect([del.started, del.received, del.sent, del.handled[GrpcCode.Unavailable]]).toEqual([1, 1, 0, 1]);
    expect(app.metrics.clientReceivedBytes.value).toBe(6);
    expect(app.metrics.clientSentBytes.value).toBe(api.PutResponse.byteLength(api.PutResponse.create({ header: STUB_HEADER })));
    expect(await app.metrics.text()).toContain('etcd_server_client_requests_total{client_api_version="3.6",type="unary"} 1');
  });
});

describe("hosts and origins", () => {
  const HOSTS = { hostWhitelist: ["good.example", "::1", "127.0.0.1"], cors: ["http://good.example:80"] };

  test.each([
    ["good.example", 200],
    ["good.example:80", 200],
    ["good.example:", 200],
    ["[::1]:2379", 200],
    ["bad.example", 421],
    ["bad.example:80", 421],
    ["GOOD.example", 421],
    ["[::1]", 421],
    ["good.example:1:2", 421],
  ])("host %s is %i", async (host, status) => {
    await using app = await testApp(HOSTS);
    for (const [method, path] of [
      ["POST", "/v3/kv/put"],
      ["GET", "/health"],
      ["GET", "/nowhere?x"],
      ["OPTIONS", "/v3/kv/put"],
    ] as const) {
      const answer = await ask(app.port, { method, path, headers: { Host: host }, ...(method === "POST" ? { body: PUT } : {}) });
      expect(answer.status).toBe(path.startsWith("/nowhere") && status === 200 ? 404 : status);
    }
  });

  test("the text of a refused host", async () => {
    await using app = await testApp({ ...HOSTS, cors: ["*"] });
    const answer = await ask(app.port, { path: "/v3/kv/put", body: PUT, headers: { Host: "evil.com:80" } });
    expect(sentHeaders(answer.rawHeaders)).toEqual({
      "Content-Type": "text/plain; charset=utf-8",
      "X-Content-Type-Options": "nosniff",
      "Content-Length": "370",
      Connection: "close",
    });
    expect(answer.text).toBe(`
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist "evil.com"

This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).

`);
    expect(app.services.calls.length).toBe(0);
  });

  test.each([
    [undefined, undefined],
    ["http://good.example:80", "http://good.example:80"],
    ["http://good.example", undefined],
    ["null", undefined],
  ])("origin %s is allowed as %s, and served either way", async (origin, allowed) => {
    await using app = await testApp({ cors: ["http://good.example:80"] });
    const headers = origin === undefined ? {} : { Origin: origin };
    for (const [method, path, status] of [
      ["POST", "/v3/kv/put", 200],
      ["POST", "/v3/kv/put?x", 200],
      ["OPTIONS", "/v3/kv/put", 200],
      ["GET", "/health", 200],
      ["GET", "/nowhere", 404],
      ["GET", "/v3", 307],
    ] as const) {
      const answer = await ask(app.port, { method, path, headers, ...(method === "POST" ? { body: PUT } : {}) });
      expect(answer.status).toBe(status);
      expect(answer.headers["access-control-allow-origin"]).toBe(allowed);
      expect(answer.headers["access-control-allow-methods"]).toBe(allowed === undefined ? undefined : "POST, GET, OPTIONS, PUT, DELETE");
    }
  });
});
