import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createClient, httpJson, mayHaveHappened } from "../../src/client/index.ts";
import { useTestEtcd } from "../../src/testing/index.ts";
import { eventually, failureOf } from "./support.ts";
import { TcpProxy } from "./tcp-proxy.ts";

async function httpServer(
  handler: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<{ url: string; close(): Promise<void> }> {
  const server = createHttpServer(handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

describe("HTTP/JSON", () => {
  const etcd = useTestEtcd({ before: beforeAll, after: afterAll }, { listen: true });
  const endpoint = (): string => etcd().endpoints[0] as string;

  it("goes on elsewhere when a connection is there but says nothing any more", async () => {
    const proxy = await TcpProxy.to(endpoint());
    // Only one way at first, so that the watch takes it.
    const client = createClient({ endpoints: [proxy.url, endpoint()], watchSilenceMs: 400, timeoutMs: 10_000 });
    const watches = [client.watch("frozen/", { prefix: true }), client.watch("frozen/", { prefix: true })];
    await Promise.all(watches.map((watch) => watch.ready));
    proxy.frozen = true;
    const { revision } = await etcd().client.put("frozen/1", "x");
    for (const watch of watches) expect((await watch.next()).value?.revision).toBe(revision);
    client.close();
    await proxy.close();
  });

  it("does not repeat a write whose answer was dropped on the way", async () => {
    const proxy = await TcpProxy.to(endpoint());
    const client = createClient({ endpoints: [proxy.url, endpoint()] });
    proxy.dropAnswers = true;
    const before = await etcd().client.revision();
    let unknown = 0;
    for (let i = 0; i < 6; i += 1) {
      const error = await client.put("dropped", "x").then(
        () => undefined,
        (reason: unknown) => reason,
      );
      if (error === undefined) continue;
      unknown += 1;
      expect(error).toMatchObject({ reason: "unavailable", requestSent: true });
      expect(mayHaveHappened(error)).toBe(true);
    }
    expect(unknown).toBeGreaterThan(0);
    expect(await etcd().client.revision()).toBe(before + 6);
    expect((await client.get("dropped"))?.value).toBe("x");
    client.close();
    await proxy.close();
  });

  it("takes another endpoint when nobody listens at one", async () => {
    const gone = await httpServer(() => undefined);
    await gone.close();
    const client = createClient({ endpoints: [gone.url, endpoint()] });
    for (let i = 0; i < 4; i += 1) await client.put("k", String(i));
    expect((await client.get("k"))?.version).toBe(4);
    client.close();
    const nobody = createClient({ endpoints: [gone.url], timeoutMs: 200 });
    const error = await failureOf(nobody.put("k", "x", { retry: "never" }));
    expect(error).toMatchObject({ reason: "unavailable", requestSent: false });
    expect(mayHaveHappened(error)).toBe(false);
    expect((await failureOf(nobody.get("k"))).reason).toBe("deadline-exceeded");
    nobody.close();
  });

  it("says what is wrong when something else answers", async () => {
    let answer: (response: ServerResponse) => void = () => undefined;
    const paths: (string | undefined)[] = [];
    const headers: IncomingMessage["headers"][] = [];
    const other = await httpServer((request, response) => {
      paths.push(request.url);
      headers.push(request.headers);
      answer(response);
    });
    const client = createClient({
      endpoints: [`${other.url}/etcd/`],
      transport: httpJson({ headers: { "x-tenant": "a" } }),
      timeoutMs: 3000,
    });
    answer = (response) => response.writeHead(200, { "content-type": "text/html" }).end("<html>");
    expect((await failureOf(client.put("k", "x"))).reason).toBe("bad-answer");
    answer = (response) => response.writeHead(404).end("404 page not found\n");
    expect((await failureOf(client.get("k"))).message).toContain("404 page not found");
    answer = (response) => response.writeHead(503).end("no server is available");
    expect(await failureOf(client.put("k", "x"))).toMatchObject({ reason: "unavailable", requestSent: true });
    answer = (response) => response.writeHead(401).end('{"code":16,"message":"etcdserver: invalid auth token"}');
    expect(await failureOf(client.get("k"))).toMatchObject({ reason: "invalid-auth-token", grpcCode: 16 });
    answer = (response) => response.writeHead(500).end('{"code":2,"message":"something new"}');
    expect(await failureOf(client.get("k"))).toMatchObject({ reason: "unknown-rpc-error", grpcCode: 2, message: "something new" });
    // As servers before 3.6 put it.
    answer = (response) => response.writeHead(400).end('{"error":"x","message":"etcdserver: key is not provided","code":3}');
    expect((await failureOf(client.get("k"))).reason).toBe("key-not-provided");
    answer = () => undefined;
    expect((await failureOf(client.put("k", "x", { timeoutMs: 100 }))).reason).toBe("deadline-exceeded");
    expect(paths[0]).toBe("/etcd/v3/kv/put");
    expect(headers.at(-1)).toMatchObject({ "x-tenant": "a", "grpc-timeout": "100m", "content-type": "application/json" });
    client.close();
    await other.close();
  });

  it("reads streams however they are cut", async () => {
    const json = (text: string): string => Buffer.from(text).toString("base64");
    const lines = [
      '{"result":{"header":{"revision":"7"},"watch_id":"1","created":true}}\n',
      `{"result": {"header":{"revision":"8"},"watch_id":"1","events":[{"kv":{"key":"${json("ä")}","mod_revision":"8","create_revision":"8","version":"1","value":"${json("\u0000ü")}"}}]}}\n\n`,
      `{"result":{"header":{"revision":"9"},"watch_id":"1","events":[{"type":"DELETE","kv":{"key":"${json("ä")}","mod_revision":"9"}}]}}`,
    ].join("");
    for (const size of [1, 2, 3, 7, 50, 10_000]) {
      const other = await httpServer((_, response) => {
        response.writeHead(200);
        let at = 0;
        const more = (): void => {
          if (at >= lines.length) return;
          response.write(lines.slice(at, at + size));
          at += size;
          setImmediate(more);
        };
        more();
      });
      const client = createClient({ endpoints: [other.url] });
      const watch = client.watch("ä");
      expect((await watch.next()).value?.events[0]).toMatchObject({ type: "put", key: "ä", kv: { value: "\u0000ü" } });
      client.close();
      await other.close();
    }
  });

  it("carries large events and values", async () => {
    const client = createClient({ endpoints: etcd().endpoints });
    const value = "x".repeat(1_400_000);
    await using watch = client.watch("large");
    await watch.ready;
    await client.put("large", value);
    const [event] = (await watch.next()).value?.events ?? [];
    expect(event?.type === "put" && event.kv.value.length).toBe(value.length);
    expect((await client.get("large"))?.value).toBe(value);
    client.close();
    const small = createClient({ endpoints: etcd().endpoints, transport: httpJson({ messageBytesMax: 100_000 }) });
    // A message that it will not hold is not read again and again without end.
    const tooLarge = small.watch("large", { fromRevision: 1, signal: AbortSignal.timeout(300) });
    expect((await failureOf(tooLarge.next())).reason).toBe("canceled");
    small.close();
  });

  it("uses the fetch that it is given, and the one of now", async () => {
    const seen: string[] = [];
    const client = createClient({
      endpoints: etcd().endpoints,
      transport: httpJson({
        fetch: (url, init) => {
          seen.push(url);
          return fetch(url, init);
        },
      }),
    });
    await client.put("k", "v");
    expect(seen).toEqual([`${endpoint()}/v3/kv/put`]);
    client.close();
    expect(() => createClient({ endpoints: ["127.0.0.1:2379"] })).toThrowError("URL");
    expect(() => createClient({ endpoints: [] })).toThrowError("at least one endpoint");
  });

  it("ends what is under way when it is closed", async () => {
    const other = await httpServer(() => undefined);
    const client = createClient({ endpoints: [other.url] });
    const calls = [client.get("k"), client.put("k", "v"), client.watch("k").next(), client.leases.keepAliveOnce(1n)].map(failureOf);
    await eventually("they are under way", () => true);
    client.close();
    expect((await Promise.all(calls)).map(({ reason }) => reason)).toEqual(Array(4).fill("client-closed"));
    await other.close();
  });
});

describe("credentials", () => {
  it("are turned into a token, once for all, and again when it is refused", async () => {
    let token = "";
    let asked = 0;
    let enabled = true;
    const server = await httpServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        if (request.url === "/v3/auth/authenticate") {
          asked += 1;
          if (!enabled) return response.writeHead(400).end('{"code":9,"message":"etcdserver: authentication is not enabled"}');
          const { name, password } = JSON.parse(Buffer.concat(chunks).toString()) as { name: string; password: string };
          if (name !== "root" || password !== "secret") {
            return response.writeHead(400).end('{"code":3,"message":"etcdserver: authentication failed, invalid user ID or password"}');
          }
          token = `token.${asked}`;
          return response.end(JSON.stringify({ token }));
        }
        if (enabled && request.headers.authorization === undefined) {
          return response.writeHead(400).end('{"code":3,"message":"etcdserver: user name is empty"}');
        }
        if (enabled && request.headers.authorization !== token) {
          return response.writeHead(401).end('{"code":16,"message":"etcdserver: invalid auth token"}');
        }
        return response.end("{}");
      });
    });
    const client = createClient({ endpoints: [server.url], credentials: { username: "root", password: "secret" } });
    await Promise.all(Array.from({ length: 10 }, () => client.put("k", "v")));
    expect(asked).toBe(1);
    token = "restarted";
    await Promise.all(Array.from({ length: 10 }, () => client.put("k", "v")));
    expect(asked).toBe(2);
    client.close();
    const wrong = createClient({ endpoints: [server.url], credentials: { username: "root", password: "guess" } });
    expect((await failureOf(wrong.put("k", "v"))).reason).toBe("auth-failed");
    wrong.close();
    // Configured before it is turned on.
    enabled = false;
    const early = createClient({ endpoints: [server.url], credentials: { username: "root", password: "secret" } });
    await early.put("k", "v");
    enabled = true;
    await early.put("k", "v");
    early.close();
    await server.close();
  });
});
