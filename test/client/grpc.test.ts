/** What only the way over gRPC can do, or get wrong. */
import { readFileSync } from "node:fs";
import { createSecureServer, createServer, type Http2Server, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, createServer as createSocketServer } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { KvService, type PutRequest, PutResponse, RangeResponse } from "../../src/api/index.ts";
import { grpc } from "../../src/client/grpc/index.ts";
import { frameOf, MessageReader } from "../../src/client/grpc/messages.ts";
import { createClient, mayHaveHappened } from "../../src/client/index.ts";
import { useTestEtcd } from "../../src/testing/index.ts";
import { failureOf } from "./support.ts";
import { TcpProxy } from "./tcp-proxy.ts";

type Handler = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void;

async function http2Server(handler: Handler, server: Http2Server = createServer()) {
  server.on("stream", (stream, headers) => {
    stream.on("error", () => undefined);
    handler(stream, headers);
  });
  const sessions = new Set<{ destroy(): void }>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("error", () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      for (const session of sessions) session.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A whole answer, or a refusal, as gRPC has it. */
function answer(stream: ServerHttp2Stream, status: number, message = "", frame: Uint8Array = new Uint8Array(0)): void {
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": String(status), "grpc-message": message }));
  stream.end(frame);
}

describe("gRPC", () => {
  const etcd = useTestEtcd({ before: beforeAll, after: afterAll }, { listen: true });
  const endpoint = (): string => etcd().endpoints[0] as string;

  it("uses one connection for everything, and makes another when it breaks", async () => {
    const proxy = await TcpProxy.to(endpoint());
    const client = createClient({ endpoints: [proxy.url], transport: grpc() });
    const watches = Array.from({ length: 5 }, (_, i) => client.watch(`one/${i}`));
    await Promise.all([...watches.map(({ ready }) => ready), ...Array.from({ length: 20 }, (_, i) => client.put(`k${i}`, "v"))]);
    const lease = await client.lease({ ttlSeconds: 30 });
    await lease.renew();
    expect(proxy.connections).toBe(1);
    proxy.cut();
    await client.put("one/3", "x", { retry: "always" });
    expect((await watches[3]?.next())?.value?.events[0]?.key).toBe("one/3");
    expect(proxy.connections).toBe(2);
    await lease.close();
    client.close();
    await proxy.close();
  });

  it("goes on elsewhere when a connection is there but says nothing any more", async () => {
    const proxy = await TcpProxy.to(endpoint());
    const client = createClient({ endpoints: [proxy.url, endpoint()], watchSilenceMs: 400, timeoutMs: 10_000, transport: grpc() });
    const watches = [client.watch("frozen/", { prefix: true }), client.watch("frozen/", { prefix: true })];
    await Promise.all(watches.map((watch) => watch.ready));
    proxy.frozen = true;
    const { revision } = await etcd().client.put("frozen/1", "x");
    for (const watch of watches) expect((await watch.next()).value?.revision).toBe(revision);
    // Reads that were sent there are repeated at the other.
    for (let i = 0; i < 3; i += 1) expect((await client.get("frozen/1"))?.value).toBe("x");
    client.close();
    await proxy.close();
  });

  it("gives up a connection at whose other end nobody is, and finds back when somebody is", async () => {
    const proxy = await TcpProxy.to(endpoint());
    const client = createClient({ endpoints: [proxy.url], transport: grpc() });
    await client.put("k", "1");
    proxy.frozen = true;
    const error = await failureOf(client.put("k", "2", { timeoutMs: 100 }));
    expect(error.reason).toBe("deadline-exceeded");
    expect(mayHaveHappened(error)).toBe(true);
    // A new connection would work; the old one never will again.
    proxy.freezeOnly("present");
    expect((await client.get("k", { timeoutMs: 20_000 }))?.value).toBe("1");
    expect(proxy.connections).toBe(2);
    client.close();
    await proxy.close();
  }, 40_000);

  it("does not repeat a write whose answer was dropped on the way, and repeats what was never sent", async () => {
    const proxy = await TcpProxy.to(endpoint());
    const client = createClient({ endpoints: [proxy.url, endpoint()], transport: grpc() });
    for (let i = 0; i < 4; i += 1) await client.get("dropped");
    const before = await etcd().client.revision();
    proxy.dropAnswers = true;
    let unknown = 0;
    for (let i = 0; i < 6; i += 1) {
      const error = await client.put("dropped", "x").then(
        () => undefined,
        (reason: unknown) => reason,
      );
      if (error === undefined) continue;
      unknown += 1;
      expect(error).toMatchObject({ reason: "unavailable", requestSent: true });
    }
    expect(unknown).toBeGreaterThan(0);
    expect(await etcd().client.revision()).toBe(before + 6);
    client.close();
    await proxy.close();

    const gone = await http2Server(() => undefined);
    await gone.close();
    const other = createClient({ endpoints: [gone.url, endpoint()], transport: grpc() });
    for (let i = 0; i < 4; i += 1) await other.put("k", "1");
    other.close();
    const nobody = createClient({ endpoints: [gone.url], transport: grpc() });
    const refused = await failureOf(nobody.put("k", "x", { retry: "never" }));
    expect(refused).toMatchObject({ reason: "unavailable", requestSent: false });
    expect(refused.message).toContain("ECONNREFUSED");
    nobody.close();
  });

  it("does not wait for ever for one that takes connections and says nothing", async () => {
    const mute = createSocketServer((socket) => socket.on("error", () => socket.destroy()).resume());
    await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(mute.address() as AddressInfo).port}`;
    const client = createClient({ endpoints: [url], transport: grpc({ connectTimeoutMs: 100 }) });
    expect(await failureOf(client.put("k", "v", { retry: "never" }))).toMatchObject({ reason: "unavailable", requestSent: false });
    expect((await failureOf(client.get("k", { timeoutMs: 50 }))).reason).toBe("deadline-exceeded");
    const controller = new AbortController();
    const canceled = failureOf(client.get("k", { signal: controller.signal }));
    controller.abort();
    expect((await canceled).reason).toBe("canceled");
    const pending = [client.get("k"), client.watch("k").next(), client.lease({ ttlSeconds: 5 })].map(failureOf);
    client.close();
    for (const { reason } of await Promise.all(pending)) expect(reason).toBe("client-closed");
    await new Promise((resolve) => mute.close(resolve));
  });

  it("says what is wrong when something else answers", async () => {
    let handler: Handler = () => undefined;
    const other = await http2Server((stream, headers) => handler(stream, headers));
    const client = createClient({ endpoints: [other.url], transport: grpc() });
    const outcome = async (one: Handler) => {
      handler = one;
      return failureOf(client.put("k", "v", { retry: "never" }));
    };
    const status = (code: number): Handler => {
      return (stream) => {
        stream.respond({ ":status": code });
        stream.end("nobody here");
      };
    };
    expect(await outcome(status(503))).toMatchObject({ reason: "unavailable", requestSent: true });
    expect(await outcome(status(404))).toMatchObject({ reason: "bad-answer" });
    expect(await outcome((stream) => answer(stream, 0))).toMatchObject({ reason: "bad-answer" });
    expect(await outcome((stream) => answer(stream, 0, "", Uint8Array.of(0, 0, 0, 0, 9, 1)))).toMatchObject({
      reason: "bad-answer",
      message: "a call ended in the middle of a message",
    });
    expect(await outcome((stream) => answer(stream, 0, "", Uint8Array.of(1, 0, 0, 0, 0)))).toMatchObject({ reason: "bad-answer" });
    expect(await outcome((stream) => answer(stream, 0, "", Uint8Array.of(0, 0, 0, 0, 1, 255)))).toMatchObject({
      message: "an answer is not a etcdserverpb.PutResponse",
    });
    expect(await outcome((stream) => answer(stream, 13, "50%25 of %C3%A4, %zz"))).toMatchObject({
      grpcCode: 13,
      message: "50% of ä, %zz",
    });
    expect(await outcome((stream) => answer(stream, 3, "etcdserver: key is not provided"))).toMatchObject({
      reason: "key-not-provided",
    });
    expect(await outcome((stream) => stream.close(7))).toMatchObject({ reason: "unavailable", requestSent: false });
    expect(await outcome((stream) => stream.close(2))).toMatchObject({ reason: "unavailable", requestSent: true });
    expect(await outcome((stream) => stream.session?.destroy())).toMatchObject({ reason: "unavailable", requestSent: true });
    const ok = frameOf(PutResponse, PutResponse.create({}));
    const headers: unknown[] = [];
    handler = (stream, sent) => {
      headers.push(sent["grpc-timeout"], sent.hasleader, sent["x-more"]);
      answer(stream, 0, "", ok);
    };
    const more = createClient({ endpoints: [other.url], transport: grpc({ headers: { "x-more": "yes" } }) });
    await more.put("k", "v", { requireLeader: true, timeoutMs: 5000 });
    expect(headers).toEqual([expect.stringMatching(/^\d{4}m$/), "true", "yes"]);
    more.close();
    client.close();
    await other.close();
  });

  it("finishes what is under way when a server says goodbye, and goes elsewhere with what is new", async () => {
    let served = 0;
    const frame = frameOf(RangeResponse, RangeResponse.create({ header: { clusterId: 1n, memberId: 1n, revision: 3, raftTerm: 1 } }));
    const other = await http2Server((stream) => {
      served += 1;
      if (served === 1) stream.session?.goaway(0);
      setImmediate(() => answer(stream, 0, "", frame));
    });
    const client = createClient({ endpoints: [other.url], transport: grpc() });
    expect(await client.revision()).toBe(3);
    expect(await client.revision()).toBe(3);
    expect(served).toBe(2);
    client.close();
    await other.close();
  });

  it("carries large values and refuses what is too large", async () => {
    const client = createClient({ endpoints: etcd().endpoints, transport: grpc() });
    const value = "x".repeat(1_400_000);
    await using watch = client.watch("large");
    await watch.ready;
    await Promise.all(Array.from({ length: 12 }, (_, i) => client.put(`large${i}`, value)));
    await client.put("large", value);
    const [event] = (await watch.next()).value?.events ?? [];
    expect(event?.type === "put" && event.kv.value.length).toBe(value.length);
    expect((await client.range("large", { prefix: true })).kvs.map((kv) => kv.value.length)).toEqual(Array(13).fill(value.length));
    expect((await failureOf(client.put("large", value + value))).reason).toBe("message-too-large");
    client.close();
    const small = createClient({ endpoints: etcd().endpoints, transport: grpc({ messageBytesMax: 100_000 }) });
    expect(await failureOf(small.get("large"))).toMatchObject({ reason: "message-too-large", grpcCode: 8 });
    small.close();
  });

  it("streams backups without holding them", async () => {
    const client = createClient({ endpoints: etcd().endpoints, transport: grpc() });
    let bytes = 0;
    for await (const piece of client.maintenance.snapshot()) bytes += piece.length;
    expect(bytes).toBeGreaterThan(1_000_000);
    for await (const piece of client.maintenance.snapshot()) {
      expect(piece.length).toBeGreaterThan(0);
      break;
    }
    client.close();
  });

  it("knows endpoints by their URLs", async () => {
    for (const wrong of ["127.0.0.1:2379", "ftp://a", "http://", "http://[::1"]) {
      expect(() => createClient({ endpoints: [wrong], transport: grpc() })).toThrowError("URL");
    }
    const client = createClient({ endpoints: ["http://[::1]:2379", "unix:///run/etcd.sock", "https://a:2379/"], transport: grpc() });
    expect(client.endpoints).toHaveLength(3);
    client.close();
  });
});

describe("gRPC over TLS", () => {
  const certificates = JSON.parse(readFileSync(new URL("../golden/tls.json", import.meta.url), "utf8")) as Record<string, string>;
  const pem = (name: string): string => certificates[name] as string;

  it("trusts whom it is told to trust, and shows its certificate", async () => {
    const seen: unknown[] = [];
    const frame = frameOf(PutResponse, PutResponse.create({ header: { clusterId: 1n, memberId: 1n, revision: 3, raftTerm: 1 } }));
    const options = { key: pem("server-key"), cert: pem("server"), ca: pem("ca"), requestCert: true, rejectUnauthorized: true };
    const server = await http2Server(
      (stream) => {
        const socket = stream.session?.socket as unknown as { getPeerCertificate(): { subject?: { CN?: string } } };
        seen.push(socket.getPeerCertificate().subject?.CN);
        answer(stream, 0, "", frame);
      },
      createSecureServer(options) as unknown as Http2Server,
    );
    const url = `https://localhost:${server.port}`;
    const own = { cert: pem("client"), key: pem("client-key") };
    const put = async (tls?: Parameters<typeof grpc>[0]): Promise<unknown> => {
      const client = createClient({ endpoints: [url], transport: grpc(tls) });
      try {
        return (await client.put("k", "v", { retry: "never", timeoutMs: 5000 })).revision;
      } catch (error) {
        return (error as Error).message;
      } finally {
        client.close();
      }
    };
    expect(await put({ tls: { ...own, ca: pem("ca") } })).toBe(3);
    expect(seen).toEqual(["holdfast test client"]);
    expect(await put({ tls: own })).toMatch(/cannot be reached: .*(self-signed|unable to)/);
    expect(await put({ tls: { ...own, ca: pem("ca"), servername: "elsewhere" } })).toContain("cannot be reached");
    expect(await put({ tls: { ...own, rejectUnauthorized: false } })).toBe(3);
    // No certificate: the server hangs up.
    expect(await put({ tls: { ca: pem("ca") } })).toMatch(/cannot be reached|broke off/);
    await server.close();
  });
});

describe("messages", () => {
  it("come out as they went in, however they are cut", () => {
    const { request } = KvService.put;
    const values = [0, 1, 200, 3, 70_000].map((length) => new Uint8Array(length).fill(7));
    const wire = Buffer.concat(values.map((value) => frameOf(request, request.create({ value }))));
    for (const size of [1, 2, 4, 5, 6, 7, 100, 4096, wire.length]) {
      const reader = new MessageReader(request, 1 << 20);
      const messages: PutRequest[] = [];
      for (let at = 0; at < wire.length; at += size) reader.push(wire.subarray(at, at + size), messages);
      expect(messages.map(({ value }) => value.length)).toEqual(values.map(({ length }) => length));
      expect(reader.unfinished).toBe(false);
    }
  });
});
