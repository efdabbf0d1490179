/** The gRPC skin over stub services: what reaches the services, and what comes back, on either transport. */
import { gunzipSync, gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import * as api from "../../src/api/index.ts";
import { createHttp2Transport } from "../../src/server/grpc/http2/http2-transport.ts";
import type { CallContext } from "../../src/server/services/services.contract.ts";
import { createNodeHttp2Transport } from "../support/node-http2-transport.ts";
import { STUB_HEADER, type StubWatch } from "../support/stub-services.ts";
import { type Answer, grpcFrame, H2Client } from "./h2-client.ts";
import { eventually, settle, testGrpc } from "./support.ts";

const PUT = "/etcdserverpb.KV/Put";
const WATCH = "/etcdserverpb.Watch/Watch";
const KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive";
const OBSERVE = "/v3electionpb.Election/Observe";

const put = api.PutRequest.encode(api.PutRequest.create({ key: Buffer.from("k"), value: Buffer.from("v") }));
const create = (key: string): Uint8Array =>
  api.WatchRequest.encode(api.WatchRequest.create({ createRequest: api.WatchCreateRequest.create({ key: Buffer.from(key) }) }));
const renew = (id: bigint): Uint8Array => api.LeaseKeepAliveRequest.encode(api.LeaseKeepAliveRequest.create({ id }));

/** A promise that the test settles. */
function later<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: unknown) => void } {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: unknown) => void = () => undefined;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

const statusOf = ({ status, message }: Answer): string => `${status} ${message}`;

for (const [name, transport] of [
  ["our own HTTP/2", createHttp2Transport],
  ["node:http2", createNodeHttp2Transport],
] as const) {
  describe(`${name}: methods`, () => {
    it("are all served, by the function of their name", async () => {
      await using server = await testGrpc({ transport });
      await using client = new H2Client(server.port);
      const health = new Set(Object.values(api.HealthService).map(({ path }) => path));
      for (const method of api.ALL_METHODS) {
        const request = method.request.encode(method.request.create());
        const id = client.open(method.path);
        client.data(id, grpcFrame(request), { endStream: true });
        const open = method.path === WATCH || method.path === "/grpc.health.v1.Health/Watch";
        if (open) await client.until(() => (method.path === WATCH ? server.watches.length === 1 : client.answer(id).messages.length === 1));
        else {
          const answer = await client.finished(id);
          expect([method.path, statusOf(answer)]).toEqual([method.path, "0 "]);
          expect(answer.messages.length).toBe(1);
          expect(method.response.decode(answer.messages[0]?.bytes ?? Buffer.alloc(0))).toBeDefined();
        }
        if (!open && !health.has(method.path)) expect(server.services.calls.at(-1)?.method).toBe(method.path);
      }
      expect(server.bugs).toEqual([]);
    });

    it("get the request, the credentials and the wishes of the caller", async () => {
      await using server = await testGrpc({ transport });
      await using client = new H2Client(server.port);
      await client.unary(PUT, put, { token: "Bearer t.1", authorization: "other", hasleader: "true", "client-api-version": "3.7" });
      await client.unary(PUT, put, { authorization: "Bearer t.2", hasleader: "yes" });
      await client.unary(PUT, put);
      const [one, two, three] = server.services.calls as { request: object; context: CallContext }[];
      expect(one?.request).toMatchObject({ key: Buffer.from("k"), value: Buffer.from("v") });
      expect(one?.context).toMatchObject({ token: "t.1", requireLeader: true, clientApiVersion: "3.7", commonName: undefined });
      expect(two?.context).toMatchObject({ token: "t.2", requireLeader: false, clientApiVersion: undefined });
      expect(three?.context.token).toBeUndefined();
      expect(three?.context.signal?.aborted).toBe(false);
    });

    it("answer with the errors of the services", async () => {
      await using server = await testGrpc({
        transport,
        overrides: {
          kv: {
            put: () => Promise.reject(api.rpcError("lease-not-found")),
            range: () => {
              throw api.rpcError("no-leader");
            },
          },
        },
      });
      await using client = new H2Client(server.port);
      expect(statusOf(await client.unary(PUT, put))).toBe("5 etcdserver: requested lease not found");
      expect(statusOf(await client.unary("/etcdserverpb.KV/Range", Buffer.alloc(0)))).toBe("14 etcdserver: no leader");
      expect(server.bugs).toEqual([]);
    });

    it("that break tell nothing to the client, and everything to the owner", async () => {
      const bug = new TypeError("secret");
      await using server = await testGrpc({ transport, overrides: { kv: { put: () => Promise.reject(bug) } } });
      await using client = new H2Client(server.port);
      expect(statusOf(await client.unary(PUT, put))).toBe("13 internal error");
      expect(server.bugs).toEqual([bug]);
    });
  });

  describe(`${name}: the end of a call`, () => {
    it("by its deadline is told to both sides", async () => {
      const never = later<api.PutResponse>();
      const contexts: CallContext[] = [];
      await using server = await testGrpc({
        transport,
        overrides: {
          kv: {
            put: (_request, context) => {
              contexts.push(context);
              void context.signal;
              return never.promise;
            },
          },
        },
      });
      await using client = new H2Client(server.port);
      expect(statusOf(await client.unary(PUT, put, { "grpc-timeout": "30m" }))).toBe("4 context deadline exceeded");
      expect(contexts[0]?.signal?.aborted).toBe(true);
      expect(contexts[0]?.signal?.reason).toMatchObject({ reason: "deadline-exceeded" });
      expect(statusOf(await client.unary(PUT, put, { "grpc-timeout": "0S" }))).toBe("4 context deadline exceeded");
      expect(statusOf(await client.finished(client.open(PUT, { "grpc-timeout": "10m" })))).toBe("4 context deadline exceeded");
      expect(contexts.length).toBe(1);
      // Too late: nothing happens.
      never.resolve(api.PutResponse.create());
      await settle();
      expect(server.bugs).toEqual([]);
    });

    it("by the client aborts what runs for it", async () => {
      const contexts: CallContext[] = [];
      await using server = await testGrpc({
        transport,
        overrides: {
          lock: {
            lock: (_request, context) => {
              contexts.push(context);
              return new Promise((_resolve, reject) => {
                context.signal?.addEventListener("abort", () => reject(api.rpcError("canceled")));
              });
            },
          },
        },
      });
      await using client = new H2Client(server.port);
      const id = client.call("/v3lockpb.Lock/Lock", Buffer.alloc(0));
      await eventually(() => contexts.length === 1);
      client.reset(id);
      await eventually(() => contexts[0]?.signal?.aborted === true);
      client.call("/v3lockpb.Lock/Lock", Buffer.alloc(0));
      await eventually(() => contexts.length === 2);
      client.socket.destroy();
      await eventually(() => contexts[1]?.signal?.aborted === true);
      const lock = server.metrics.rpc(api.LockService.lock);
      await eventually(() => lock.handled[1] === 2);
      expect(server.bugs).toEqual([]);
    });

    it("asked for after it has come is seen at once", async () => {
      const contexts: CallContext[] = [];
      const answer = later<api.PutResponse>();
      await using server = await testGrpc({
        transport,
        overrides: {
          kv: {
            put: (_request, context) => {
              contexts.push(context);
              return answer.promise;
            },
          },
        },
      });
      await using client = new H2Client(server.port);
      client.reset(client.call(PUT, put));
      await eventually(() => contexts.length === 1);
      const rpc = server.metrics.rpc(api.KvService.put);
      await eventually(() => rpc.handled[1] === 1);
      expect(contexts[0]?.signal?.aborted).toBe(true);
      answer.resolve(api.PutResponse.create());
    });
  });

  describe(`${name}: metrics`, () => {
    it("count calls, messages, bytes and codes", async () => {
      const bytes = api.PutResponse.byteLength(api.PutResponse.create({ header: STUB_HEADER }));
      await using server = await testGrpc({ transport });
      await using client = new H2Client(server.port);
      const { metrics } = server;
      await client.unary(PUT, put, { "client-api-version": "3.7" });
      await client.unary(PUT, Buffer.from([0xff]));
      await client.unary(PUT, put, { "client-api-version": "\xff" });
      const rpc = metrics.rpc(api.KvService.put);
      expect([rpc.started, rpc.received, rpc.sent, rpc.handled[0], rpc.handled[13]]).toEqual([1, 1, 1, 1, 0]);
      expect(metrics.clientReceivedBytes.value).toBe(put.byteLength);
      expect(metrics.clientSentBytes.value).toBe(bytes);
      const watch = client.open(WATCH);
      client.data(watch, Buffer.concat([grpcFrame(create("a")), grpcFrame(create("b"))]));
      await client.until(() => client.answer(watch).messages.length === 2);
      const watchRpc = metrics.rpc(api.WatchService.watch);
      expect([watchRpc.started, watchRpc.received, watchRpc.sent, watchRpc.handled.every((count) => count === 0)]).toEqual([1, 2, 2, true]);
      client.reset(watch);
      await eventually(() => watchRpc.handled[1] === 1);
      const text = await metrics.text();
      expect(text).toContain('etcd_server_client_requests_total{client_api_version="3.7",type="unary"} 1');
      expect(text).toContain('etcd_server_client_requests_total{client_api_version="unknown",type="stream"} 1');
      expect(text).toContain('grpc_server_handling_seconds_count{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1');
    });
  });

  describe(`${name}: compression`, () => {
    it("of requests is answered with compression, also of streams", async () => {
      await using server = await testGrpc({ transport });
      await using client = new H2Client(server.port);
      const id = client.open(PUT, { "grpc-encoding": "gzip" });
      client.data(id, grpcFrame(gzipSync(put), 1), { endStream: true });
      const answer = await client.finished(id);
      expect(answer.headers?.["grpc-encoding"]).toBe("gzip");
      expect(answer.messages[0]?.flag).toBe(1);
      expect(api.PutResponse.decode(gunzipSync(answer.messages[0]?.bytes ?? Buffer.alloc(0))).header?.revision).toBe(2);
      const watch = client.open(WATCH, { "grpc-encoding": "gzip" });
      // Compressed and plain messages in one piece keep their order.
      const many = Array.from({ length: 20 }, (_, i) =>
        i % 3 === 0 ? grpcFrame(create(`k${i}`)) : grpcFrame(gzipSync(create(`k${i}`)), 1),
      );
      client.data(watch, Buffer.concat(many), { endStream: true });
      await client.until(() => client.answer(watch).messages.length === 20);
      const keys = server.watches[0]?.requests.map(({ createRequest }) => Buffer.from(createRequest?.key ?? []).toString());
      expect(keys).toEqual(Array.from({ length: 20 }, (_, i) => `k${i}`));
      expect(client.answer(watch).messages.every(({ flag }) => flag === 1)).toBe(true);
      const renewals = client.open(KEEP_ALIVE, { "grpc-encoding": "gzip" });
      client.data(renewals, Buffer.concat([1n, 2n, 3n, 4n].map((lease) => grpcFrame(gzipSync(renew(lease)), 1))), { endStream: true });
      const renewed = await client.finished(renewals);
      expect(renewed.messages.map(({ bytes }) => api.LeaseKeepAliveResponse.decode(gunzipSync(bytes)).id)).toEqual([1n, 2n, 3n, 4n]);
      expect(statusOf(renewed)).toBe("0 ");
    });

    it("that would grow without end stops at the limit", async () => {
      await using server = await testGrpc({ transport, maxRequestBytes: 1_000_000 });
      await using client = new H2Client(server.port);
      const id = client.open(PUT, { "grpc-encoding": "gzip" });
      client.data(id, grpcFrame(gzipSync(Buffer.alloc(50_000_000)), 1), { endStream: true });
      expect(statusOf(await client.finished(id))).toBe("8 grpc: received message after decompression larger than max 1524288");
      expect(server.services.calls.length).toBe(0);
    });
  });

  describe(`${name}: watch streams`, () => {
    it("outlive the client's half of the stream, and end with the call", async () => {
      await using server = await testGrpc({ transport });
      await using client = new H2Client(server.port);
      const id = client.open(WATCH);
      client.data(id, grpcFrame(create("a")), { endStream: true });
      await client.until(() => client.answer(id).messages.length === 1);
      const session = server.watches[0] as StubWatch;
      session.push({ watchId: 0n, events: [api.Event.create({})] });
      await client.until(() => client.answer(id).messages.length === 2);
      expect(session.closed).toBe(false);
      client.reset(id);
      await eventually(() => session.closed);
      expect(session.context.signal?.aborted).toBe(true);
    });

    it("that are refused, or end with an error, say so", async () => {
      let refuse = true;
      await using server = await testGrpc({
        transport,
        overrides: {
          watch: {
            watch: () => {
              if (refuse) throw api.rpcError("no-leader");
              return {
                send: () => {
                  throw api.rpcError("too-many-requests");
                },
                next: () => new Promise(() => undefined),
                close: () => undefined,
              };
            },
          },
        },
      });
      await using client = new H2Client(server.port);
      expect(statusOf(await client.finished(client.open(WATCH, { hasleader: "true" })))).toBe("14 etcdserver: no leader");
      refuse = false;
      expect(statusOf(await client.unary(WATCH, create("a")))).toBe("2 etcdserver: too many requests");
      await using ending = await testGrpc({ transport });
      await using other = new H2Client(ending.port);
      const id = other.open(WATCH);
      await eventually(() => ending.watches.length === 1);
      ending.watches[0]?.fail(api.rpcError("no-leader"));
      expect(statusOf(await other.finished(id))).toBe("14 etcdserver: no leader");
      expect(ending.watches[0]?.closed).toBe(true);
      const orderly = other.open(WATCH);
      await eventually(() => ending.watches.length === 2);
      ending.watches[1]?.close();
      expect(statusOf(await other.finished(orderly))).toBe("0 ");
    });

    it("read no more requests while the session is congested", async () => {
      const sent: api.WatchRequest[] = [];
      const waiting: { resolve: (responses: readonly api.WatchResponse[]) => void }[] = [];
      let congested = false;
      await using server = await testGrpc({
        transport,
        overrides: {
          watch: {
            watch: () => ({
              send: (request) => {
                sent.push(request);
                if (sent.length === 3) congested = true;
              },
              next: () => new Promise((resolve) => waiting.push({ resolve })),
              get congested() {
                return congested;
              },
              close: () => undefined,
            }),
          },
        },
      });
      await using client = new H2Client(server.port);
      const id = client.open(WATCH);
      client.data(id, Buffer.concat(Array.from({ length: 10 }, (_, i) => grpcFrame(create(`k${i}`)))));
      await eventually(() => sent.length === 3);
      await settle();
      expect(sent.length).toBe(3);
      congested = false;
      waiting[0]?.resolve([api.WatchResponse.create({ header: STUB_HEADER, created: true })]);
      await eventually(() => sent.length === 10);
      expect(sent.map(({ createRequest }) => Buffer.from(createRequest?.key ?? []).toString())).toEqual(
        Array.from({ length: 10 }, (_, i) => `k${i}`),
      );
    });

    it("take no more from the session than the client reads", async () => {
      await using server = await testGrpc({ transport });
      await using client = new H2Client(server.port, { autoWindow: false });
      const id = client.open(WATCH);
      client.data(id, grpcFrame(create("a")));
      await client.until(() => client.answer(id).messages.length === 1);
      const session = server.watches[0] as StubWatch;
      const value = Buffer.alloc(10_000);
      for (let i = 0; i < 300; i++) {
        session.push({
          watchId: 0n,
          events: [api.Event.create({ kv: api.KeyValue.create({ key: Buffer.from("k"), value, modRevision: i + 1 }) })],
        });
      }
      await settle();
      // The window, a batch on its way, and what lies in the system's buffers: not all of the three megabytes.
      expect(session.backlog).toBeGreaterThan(200);
      client.windowUpdate(0, 10_000_000);
      client.windowUpdate(id, 10_000_000);
      await client.until(() => client.answer(id).messages.length === 301);
      const revisions = client
        .answer(id)
        .messages.slice(1)
        .map(({ bytes }) => api.WatchResponse.decode(bytes).events[0]?.kv?.modRevision);
      expect(revisions).toEqual(Array.from({ length: 300 }, (_, i) => i + 1));
    });

    it("end when something comes that cannot be read", async () => {
      await using server = await testGrpc({ transport });
      await using client = new H2Client(server.port);
      const id = client.open(WATCH);
      client.data(id, Buffer.concat([grpcFrame(create("a")), grpcFrame(Buffer.from([0xff])), grpcFrame(create("b"))]));
      const answer = await client.finished(id);
      expect(statusOf(answer)).toBe("13 grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data");
      expect(server.watches[0]?.requests.length).toBe(1);
      expect(server.watches[0]?.closed).toBe(true);
      expect(await server.metrics.text()).toContain('etcd_network_server_stream_failures_total{API="watch",Type="receive"} 1');
    });
  });

  describe(`${name}: renewals`, () => {
    it("are answered in their order, one at a time, and then the stream ends well", async () => {
      const running: { id: bigint; resolve: (response: api.LeaseKeepAliveResponse) => void }[] = [];
      await using server = await testGrpc({
        transport,
        overrides: {
          lease: {
            leaseKeepAlive: ({ id }) =>
              new Promise((resolve) => {
                running.push({ id, resolve });
              }),
          },
        },
      });
      await using client = new H2Client(server.port);
      const id = client.open(KEEP_ALIVE);
      client.data(id, Buffer.concat(Array.from({ length: 300 }, (_, i) => grpcFrame(renew(BigInt(i + 1))))), { endStream: true });
      for (let i = 0; i < 300; i++) {
        await eventually(() => running.length === i + 1);
        running[i]?.resolve(api.LeaseKeepAliveResponse.create({ header: STUB_HEADER, id: running[i]?.id ?? 0n, ttl: 5 }));
      }
      const answer = await client.finished(id);
      expect(statusOf(answer)).toBe("0 ");
      expect(answer.messages.map(({ bytes }) => api.LeaseKeepAliveResponse.decode(bytes).id)).toEqual(
        Array.from({ length: 300 }, (_, i) => BigInt(i + 1)),
      );
    });

    it("that fail end the stream, and leave earlier answers", async () => {
      await using server = await testGrpc({
        transport,
        overrides: {
          lease: {
            leaseKeepAlive: async ({ id }) => {
              if (id === 3n) throw api.rpcError("no-leader");
              return api.LeaseKeepAliveResponse.create({ header: STUB_HEADER, id, ttl: 5 });
            },
          },
        },
      });
      await using client = new H2Client(server.port);
      const id = client.open(KEEP_ALIVE);
      client.data(id, Buffer.concat([1n, 2n, 3n, 4n].map((one) => grpcFrame(renew(one)))));
      const answer = await client.finished(id);
      expect(answer.messages.length).toBe(2);
      expect(answer.trailers).toEqual({ "grpc-status": "14", "grpc-message": "etcdserver: no leader" });
    });
  });

  describe(`${name}: server streams`, () => {
    it("send all there is, as fast as the client reads, and stop their source when nobody wants more", async () => {
      let produced = 0;
      let stopped = 0;
      await using server = await testGrpc({
        transport,
        overrides: {
          election: {
            async *observe(request) {
              try {
                for (let i = 0; i < 500; i++) {
                  produced++;
                  yield api.LeaderResponse.create({ kv: api.KeyValue.create({ key: request.name, value: Buffer.alloc(5000, i % 256) }) });
                }
              } finally {
                stopped++;
              }
            },
          },
        },
      });
      const request = api.LeaderRequest.encode(api.LeaderRequest.create({ name: Buffer.from("e") }));
      await using client = new H2Client(server.port, { autoWindow: false });
      const id = client.call(OBSERVE, request);
      await client.until(() => client.answer(id).bytes.byteLength >= 65_535);
      await settle();
      expect(produced).toBeLessThan(100);
      client.windowUpdate(0, 10_000_000);
      client.windowUpdate(id, 10_000_000);
      const answer = await client.finished(id);
      expect(answer.messages.length).toBe(500);
      expect(statusOf(answer)).toBe("0 ");
      expect(stopped).toBe(1);
      produced = 0;
      const second = client.call(OBSERVE, request);
      await client.until(() => client.answer(second).bytes.byteLength > 0);
      client.reset(second);
      await eventually(() => stopped === 2);
      expect(produced).toBeLessThan(500);
    });

    it("want one request, and the end of it", async () => {
      await using server = await testGrpc({ transport });
      await using client = new H2Client(server.port);
      const two = client.open(OBSERVE);
      client.data(two, Buffer.concat([grpcFrame(Buffer.alloc(0)), grpcFrame(Buffer.alloc(0))]), { endStream: true });
      expect(statusOf(await client.finished(two))).toBe(
        "13 cardinality violation: received multiple request messages for non-client-streaming RPC",
      );
      const none = client.open(OBSERVE, {}, { endStream: true });
      expect(statusOf(await client.finished(none))).toBe(
        "13 cardinality violation: received no request message from non-client-streaming RPC",
      );
      const open = client.open(OBSERVE);
      client.data(open, grpcFrame(Buffer.alloc(0)));
      await settle();
      expect(server.services.calls.length).toBe(0);
      client.data(open, Buffer.alloc(0), { endStream: true });
      expect(statusOf(await client.finished(open))).toBe("0 ");
    });
  });

  describe(`${name}: health`, () => {
    const CHECK = "/grpc.health.v1.Health/Check";
    const named = (service: string): Uint8Array => api.HealthCheckRequest.encode(api.HealthCheckRequest.create({ service }));
    const statusIn = (answer: Answer): number => api.HealthCheckResponse.decode(answer.messages[0]?.bytes ?? Buffer.alloc(0)).status;

    it("is told of the one service there is", async () => {
      await using server = await testGrpc({ transport });
      await using client = new H2Client(server.port);
      expect(statusIn(await client.unary(CHECK, named("")))).toBe(api.ServingStatus.SERVING);
      expect(statusOf(await client.unary(CHECK, named("etcdserverpb.KV")))).toBe("5 unknown service");
      const list = await client.unary("/grpc.health.v1.Health/List", Buffer.alloc(0));
      expect([...api.HealthListResponse.decode(list.messages[0]?.bytes ?? Buffer.alloc(0)).statuses]).toEqual([["", { status: 1 }]]);
      const watch = client.call("/grpc.health.v1.Health/Watch", named(""));
      const unknown = client.call("/grpc.health.v1.Health/Watch", named("x"));
      await client.until(() => client.answer(watch).messages.length === 1 && client.answer(unknown).messages.length === 1);
      expect([statusIn(client.answer(watch)), statusIn(client.answer(unknown))]).toEqual([1, 3]);
      expect(client.answer(watch).over || client.answer(unknown).over).toBe(false);
      client.reset(watch);
      await eventually(() => server.metrics.rpc(api.HealthService.watch).handled[1] === 1);
    });

    it("is told of an outage, and of its end", async () => {
      let outage: string | undefined = "out of space";
      await using server = await testGrpc({ transport, overrides: { health: { outage: () => outage } } });
      await using client = new H2Client(server.port);
      expect(statusIn(await client.unary(CHECK, named("")))).toBe(api.ServingStatus.NOT_SERVING);
      const watch = client.call("/grpc.health.v1.Health/Watch", named(""));
      await client.until(() => client.answer(watch).messages.length === 1);
      expect(statusIn(client.answer(watch))).toBe(api.ServingStatus.NOT_SERVING);
      outage = undefined;
      expect(statusIn(await client.unary(CHECK, named("")))).toBe(api.ServingStatus.SERVING);
      await client.until(() => client.answer(watch).messages.length === 2);
      expect(api.HealthCheckResponse.decode(client.answer(watch).messages[1]?.bytes ?? Buffer.alloc(0)).status).toBe(
        api.ServingStatus.SERVING,
      );
    });

    it("is refused where every call is refused", async () => {
      let [learner, leader] = [true, 7n];
      await using server = await testGrpc({ transport, overrides: { health: { isLearner: () => learner, leader: () => leader } } });
      await using client = new H2Client(server.port);
      expect(statusOf(await client.unary(CHECK, named("")))).toBe("9 etcdserver: rpc not supported for learner");
      expect(statusOf(await client.unary(PUT, put, { "client-api-version": "\xff" }))).toBe("9 etcdserver: rpc not supported for learner");
      [learner, leader] = [false, 0n];
      expect(statusOf(await client.unary(CHECK, named("")))).toBe("0 ");
      expect(statusOf(await client.unary(CHECK, named(""), { hasleader: "true" }))).toBe("14 etcdserver: no leader");
    });
  });

  describe(`${name}: closing`, () => {
    it("ends streams at once and lets unary calls end by themselves", async () => {
      const answer = later<api.PutResponse>();
      await using server = await testGrpc({ transport, overrides: { kv: { put: () => answer.promise } } });
      await using client = new H2Client(server.port);
      const unary = client.call(PUT, put);
      const watch = client.open(WATCH);
      const renewals = client.open(KEEP_ALIVE);
      await eventually(() => server.watches.length === 1);
      const closed = server.grpc.close({ graceMs: 5000 });
      expect(statusOf(await client.finished(watch))).toBe("14 etcdserver: server stopped");
      expect(statusOf(await client.finished(renewals))).toBe("14 etcdserver: server stopped");
      expect(server.watches[0]?.closed).toBe(true);
      answer.resolve(api.PutResponse.create({ header: STUB_HEADER }));
      expect(statusOf(await client.finished(unary))).toBe("0 ");
      client.socket.end();
      await closed;
      expect(server.grpc.connections).toBe(0);
    });
  });
}
