import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rpcError } from "../../src/api/index.ts";
import type { HealthService } from "../../src/server/services/services.contract.ts";
import { type Answer, ask, eventually, ManualClock, RawClient, recordingLogger, type TestApp, testApp, testMetricsApp } from "./support.ts";

let t: TestApp;
beforeAll(async () => {
  t = await testApp();
});
afterAll(async () => {
  await t[Symbol.asyncDispose]();
});

const PLAIN = "text/plain; charset=utf-8";

function get(port: number, path: string): Promise<Answer> {
  return ask(port, { method: "GET", path });
}

function withHealth(health: Partial<HealthService>): Promise<TestApp> {
  return testApp({ overrides: { health } });
}

describe("/health", () => {
  const GOOD = '{"health":"true","reason":""}';
  const BAD = (reason: string): string => `{"health":"false","reason":"${reason}"}\n`;

  test.each([
    "",
    "?serializable=true",
    "?serializable=false",
    "?exclude=NOSPACE",
    "?exclude=NOSPACE&exclude=CORRUPT",
    "?exclude=PLAGUE",
    "?x=1",
  ])("healthy%s", async (query) => {
    const answer = await get(t.port, `/health${query}`);
    expect([answer.status, answer.headers["content-type"], answer.text]).toEqual([200, PLAIN, GOOD]);
    expect(answer.headers["access-control-allow-origin"]).toBe("*");
    expect(answer.headers["x-content-type-options"]).toBeUndefined();
  });

  test.each([
    ["NOSPACE", "", "ALARM NOSPACE"],
    ["CORRUPT", "", "ALARM CORRUPT"],
    ["UNKNOWN", "", "ALARM UNKNOWN"],
    ["NOSPACE", "?exclude=CORRUPT", "ALARM NOSPACE"],
    ["NOSPACE", "?exclude=nospace", "ALARM NOSPACE"],
    ["NOSPACE", "?exclude=NOSPACE", ""],
    ["CORRUPT", "?exclude=NOSPACE&exclude=CORRUPT&serializable=true", ""],
  ] as const)("alarm %s%s", async (alarm, query, reason) => {
    await using app = await withHealth({ alarms: () => [{ memberId: 1n, alarm }] });
    const answer = await get(app.port, `/health${query}`);
    expect([answer.status, answer.text]).toEqual(reason === "" ? [200, GOOD] : [503, BAD(reason)]);
    expect(answer.headers["x-content-type-options"]).toBe(reason === "" ? undefined : "nosniff");
    expect([app.metrics.healthSuccess.value, app.metrics.healthFailures.value]).toEqual(reason === "" ? [1, 0] : [0, 1]);
  });

  test("an excluded alarm does not hide the next", async () => {
    await using app = await withHealth({
      alarms: () => [
        { memberId: 1n, alarm: "NOSPACE" },
        { memberId: 1n, alarm: "CORRUPT" },
      ],
    });
    expect((await get(app.port, "/health?exclude=NOSPACE")).text).toBe(BAD("ALARM CORRUPT"));
  });

  test("no leader", async () => {
    await using app = await withHealth({ leader: () => 0n });
    expect((await get(app.port, "/health")).text).toBe(BAD("RAFT NO LEADER"));
    expect((await get(app.port, "/health?serializable=true")).text).toBe(GOOD);
    expect((await get(app.port, "/health?serializable=TRUE")).text).toBe(BAD("RAFT NO LEADER"));
  });

  test("a failing read", async () => {
    const asked: boolean[] = [];
    await using app = await withHealth({
      probeRead: ({ serializable }) => {
        asked.push(serializable);
        return Promise.reject(rpcError("timeout"));
      },
    });
    const answer = await get(app.port, "/health");
    expect([answer.status, answer.text]).toEqual([503, BAD("RANGE ERROR:etcdserver: request timed out")]);
    await get(app.port, "/health?serializable=true");
    expect(asked).toEqual([false, true]);
  });

  test("a read that takes too long", async () => {
    const clock = new ManualClock();
    let asked = false;
    const probeRead: HealthService["probeRead"] = ({ signal }) => {
      asked = true;
      return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
    };
    await using app = await testApp({ clock, requestTimeoutMs: 7000, overrides: { health: { probeRead } } });
    const answer = get(app.port, "/health");
    await eventually(() => asked);
    clock.advance(7000);
    expect((await answer).text).toBe(BAD("RANGE ERROR:context deadline exceeded"));
  });
});

describe("/livez and /readyz", () => {
  test.each([
    ["/livez", "ok\n"],
    ["/livez?verbose", "[+]serializable_read ok\nok\n"],
    ["/livez?verbose=false", "[+]serializable_read ok\nok\n"],
    ["/livez/serializable_read", "ok\n"],
    ["/livez/serializable_read?verbose", "[+]serializable_read ok\nok\n"],
    ["/readyz", "ok\n"],
    ["/readyz?verbose", "[+]data_corruption ok\n[+]linearizable_read ok\n[+]non_learner ok\n[+]serializable_read ok\nok\n"],
    ["/readyz/data_corruption?verbose", "[+]data_corruption ok\nok\n"],
    ["/readyz/serializable_read?verbose", "[+]serializable_read ok\nok\n"],
    ["/readyz/linearizable_read?verbose", "[+]linearizable_read ok\nok\n"],
    ["/readyz/non_learner?verbose", "[+]non_learner ok\nok\n"],
    ["/readyz?verbose&exclude=non_learner&exclude=data_corruption", "[+]linearizable_read ok\n[+]serializable_read ok\nok\n"],
    ["/readyz?verbose&exclude=nothing", "[+]data_corruption ok\n[+]linearizable_read ok\n[+]non_learner ok\n[+]serializable_read ok\nok\n"],
    ["/readyz?verbose&exclude=non_learner&exclude=data_corruption&exclude=serializable_read&exclude=linearizable_read", "ok\n"],
  ])("%s", async (path, text) => {
    const answer = await get(t.port, path);
    expect([answer.status, answer.headers["content-type"], answer.headers["x-content-type-options"]]).toEqual([200, PLAIN, "nosniff"]);
    // The order of checks is nobody's business.
    expect(answer.text.split("\n").sort()).toEqual(text.split("\n").sort());
    if (text !== "ok\n") expect(answer.text.endsWith("\nok\n")).toBe(true);
  });

  test.each(["/livez/nothing", "/livez/data_corruption", "/readyz/nothing", "/readyz/", "/livez/", "/readyz/non_learner/"])(
    "%s is not there",
    async (path) => {
      const answer = await get(t.port, path);
      expect([answer.status, answer.text]).toEqual([404, "404 page not found\n"]);
    },
  );

  test("failures are always shown in full", async () => {
    await using app = await withHealth({
      alarms: () => [{ memberId: 1n, alarm: "CORRUPT" }],
      isLearner: () => true,
      probeRead: ({ serializable }) => (serializable ? Promise.resolve() : Promise.reject(rpcError("leader-changed"))),
    });
    const answer = await get(app.port, "/readyz");
    expect([answer.status, answer.headers["content-type"]]).toEqual([503, PLAIN]);
    expect(answer.text.split("\n").sort()).toEqual([
      "",
      "",
      "[+]serializable_read ok",
      "[-]data_corruption failed: alarm activated: CORRUPT",
      "[-]linearizable_read failed: etcdserver: leader changed",
      "[-]non_learner failed: not supported for learner",
    ]);
    expect((await get(app.port, "/livez")).status).toBe(200);
    expect((await get(app.port, "/readyz?exclude=data_corruption&exclude=linearizable_read&exclude=non_learner")).text).toBe("ok\n");
    const metrics = await app.metrics.text();
    expect(metrics).toContain('etcd_server_healthcheck{name="linearizable_read",type="readyz"} 0\n');
    expect(metrics).toContain('etcd_server_healthcheck{name="serializable_read",type="livez"} 1\n');
    expect(metrics).toContain('etcd_server_healthchecks_total{name="non_learner",status="error",type="readyz"} 1\n');
  });

  test("a full disk is no reason", async () => {
    await using app = await withHealth({ alarms: () => [{ memberId: 1n, alarm: "NOSPACE" }] });
    expect((await get(app.port, "/readyz")).text).toBe("ok\n");
  });

  test("naming an unknown check to exclude is logged", async () => {
    const logger = recordingLogger();
    await using app = await testApp({ logger });
    await get(app.port, "/readyz?exclude=nothing");
    expect(logger.lines).toMatchObject([{ level: "warn", message: "some health checks cannot be excluded" }]);
  });

  test("a prober that hangs up ends the read", async () => {
    let signal: AbortSignal | undefined;
    await using app = await withHealth({
      probeRead: (options) => {
        signal = options.signal;
        return new Promise((_, reject) => options.signal?.addEventListener("abort", () => reject(options.signal?.reason)));
      },
    });
    await using client = new RawClient(app.port);
    client.request("GET /livez");
    await eventually(() => signal !== undefined);
    client.socket.resetAndDestroy();
    await eventually(() => signal?.aborted === true);
  });
});

describe("/version", () => {
  test("says what the services say", async () => {
    await using app = await withHealth({ versions: () => ({ server: "3.7.1", cluster: "not_decided", storage: "unknown" }) });
    const answer = await get(app.port, "/version");
    expect([answer.status, answer.headers["content-type"]]).toEqual([200, "application/json"]);
    expect(answer.text).toBe('{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}');
  });
});

describe("/metrics", () => {
  const TYPE = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

  test.each(["GET", "POST", "PUT"])("%s", async (method) => {
    const answer = await ask(t.port, { method, path: "/metrics" });
    expect([answer.status, answer.headers["content-type"]]).toEqual([200, TYPE]);
    expect(answer.text).toContain("\netcd_server_has_leader 0\n");
    expect(answer.text.startsWith("# HELP etcd_")).toBe(true);
  });

  test("HEAD", async () => {
    const answer = await ask(t.port, { method: "HEAD", path: "/metrics" });
    expect([answer.status, answer.headers["content-type"], answer.text]).toEqual([200, TYPE, ""]);
  });

  test("compressed for those who want it", async () => {
    await using client = new RawClient(t.port);
    const answer = await ask(t.port, { method: "GET", path: "/metrics", headers: { "Accept-Encoding": "gzip;q=0" } });
    expect(answer.headers["content-encoding"]).toBeUndefined();
    client.request("GET /metrics", undefined, { "Accept-Encoding": "deflate, gzip", Connection: "close" });
    await client.untilClosed();
    const [head, ...body] = client.text.split("\r\n\r\n");
    expect(head).toContain("Content-Encoding: gzip");
    expect(gunzipSync(Buffer.from(body.join("\r\n\r\n"), "latin1")).toString()).toContain("etcd_server_has_leader 0");
  });

  test("counts scrapes", async () => {
    await using app = await testApp();
    await get(app.port, "/metrics");
    const { text } = await get(app.port, "/metrics");
    expect(text).toContain('promhttp_metric_handler_requests_total{code="200"} 1\n');
    expect(text).toContain("promhttp_metric_handler_requests_in_flight 1\n");
  });

  test("a part that cannot be read is a 500", async () => {
    await using app = await testApp();
    app.metrics.bind({
      keys: () => {
        throw new Error("the store is closed");
      },
    });
    const answer = await get(app.port, "/metrics");
    expect([answer.status, answer.text.includes("closed")]).toEqual([500, false]);
  });
});

describe("/debug/vars", () => {
  test("shows the state of raft", async () => {
    await using app = await testApp({ raftStatus: () => ({ id: 0xf0a8n, term: 2, lead: 0n, raftState: "StateFollower" }) });
    const answer = await get(app.port, "/debug/vars");
    expect([answer.status, answer.headers["content-type"]]).toEqual([200, "application/json; charset=utf-8"]);
    const vars = JSON.parse(answer.text);
    expect(Object.keys(vars)).toEqual(["cmdline", "file_descriptor_limit", "memstats", "raft.status"]);
    expect(vars["raft.status"]).toEqual({ id: "f0a8", term: 2, lead: "0", raftState: "StateFollower" });
    expect(vars.file_descriptor_limit).toBeGreaterThan(0);
  });
});

describe("other methods", () => {
  const paths = ["/health", "/livez", "/readyz", "/readyz/non_learner", "/version", "/debug/vars"];
  for (const path of paths) {
    test.each(["POST", "PUT", "DELETE", "HEAD", "PROPFIND", "PATCH"])(`%s ${path}`, async (method) => {
      const answer = await ask(t.port, {
        method,
        path,
        ...(method === "HEAD" ? {} : { body: "<not json>", headers: { "Content-Type": "application/json" } }),
      });
      expect([answer.status, answer.headers.allow, answer.headers["content-type"]]).toEqual([405, "GET", PLAIN]);
      expect(answer.text).toBe(method === "HEAD" ? "" : "Method Not Allowed\n");
    });
  }
});

describe("the metrics listener", () => {
  test("serves metrics and health only", async () => {
    await using app = await testMetricsApp();
    const statuses = async (paths: readonly string[]): Promise<number[]> =>
      Promise.all(paths.map(async (path) => (await get(app.port, path)).status));
    expect(await statuses(["/metrics", "/health", "/livez", "/readyz", "/livez/serializable_read", "/readyz/non_learner"])).toEqual(
      Array(6).fill(200),
    );
    expect(await statuses(["/version", "/debug/vars", "/v3/", "/v3", "/", "/metrics/"])).toEqual(Array(6).fill(404));
    expect((await ask(app.port, { path: "/v3/kv/put", body: "{}" })).text).toBe("404 page not found\n");
    expect((await get(app.port, "//metrics")).headers.location).toBe("/metrics");
  });

  test("neither host check nor CORS", async () => {
    await using app = await testMetricsApp();
    const answer = await ask(app.port, { method: "GET", path: "/health", headers: { Host: "evil.com", Origin: "http://evil.com" } });
    expect([answer.status, answer.headers["access-control-allow-origin"]]).toEqual([200, undefined]);
    const options = await ask(app.port, { method: "OPTIONS", path: "/health" });
    expect([options.status, options.headers.allow]).toEqual([405, "GET"]);
  });
});

describe("routes of an embedding program", () => {
  test("come after the checks, and do not hide the rest", async () => {
    await using app = await testApp({
      hostWhitelist: ["127.0.0.1"],
      register: (fastify) => {
        fastify.get("/console", async () => ({ hello: "console" }));
        fastify.post("/console/echo", async (request) => request.body);
      },
    });
    const page = await get(app.port, "/console");
    expect([page.status, page.text, page.headers["access-control-allow-origin"]]).toEqual([200, '{"hello":"console"}', "*"]);
    const echo = await ask(app.port, { path: "/console/echo", body: '{"a":1}', headers: { "Content-Type": "application/json" } });
    expect(echo.text).toBe('{"a":1}');
    expect((await ask(app.port, { method: "GET", path: "/console", headers: { Host: "evil.com" } })).status).toBe(421);
    expect((await get(app.port, "/console//echo")).status).toBe(307);
    const missing = await ask(app.port, { path: "/elsewhere", body: "{", headers: { "Content-Type": "application/json" } });
    expect([missing.status, missing.text, missing.headers["access-control-allow-origin"]]).toEqual([404, "404 page not found\n", "*"]);
    expect((await get(app.port, "/version")).status).toBe(200);
  });
});
