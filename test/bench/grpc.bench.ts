/**
 * gRPC: calls per second and processor time per call, with 100 and 1000 calls under way over a few connections. The client is a bare one, so that it costs little
 * beside the server; it runs in this process, each server in a process of its own.
 * - `stub`: the skin and its transport over services that answer from nothing; `stub-node`: the same over node:http2.
 * - `holdfast`: a whole member. - `etcd`: the real one, if HOLDFAST_ORACLE_ETCD names it.
 * Run: node --import tsx test/bench/grpc.bench.ts [seconds] [server,...] ; with SERVER_ARGS="--cpu-prof --cpu-prof-dir=..." to profile the server.
 */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as api from "../../src/api/index.ts";
import { systemClock } from "../../src/base/clock-system.ts";
import { silentLogger } from "../../src/base/logger.ts";
import { createGrpcServer } from "../../src/server/grpc/grpc-server.ts";
import { ServerMetrics } from "../../src/server/metrics.ts";
import { frameBytes, grpcFrame, hpackInteger, plainBlock } from "../grpc/h2-client.ts";
import { createNodeHttp2Transport } from "../support/node-http2-transport.ts";
import { STUB_HEADER, stubServices } from "../support/stub-services.ts";

const PORT = 24690;
const VALUE = Buffer.alloc(256, "v");
const KEY = Buffer.from("bench/key/000001");

// -- servers -------------------------------------------------------------------------------------------------------------------------------

function serveStub(node: boolean): void {
  const kv = api.KeyValue.create({ key: KEY, createRevision: 2, modRevision: 2, version: 1, value: VALUE });
  const range = api.RangeResponse.create({ header: STUB_HEADER, kvs: [kv], count: 1 });
  const grpc = createGrpcServer({
    services: stubServices({ kv: { range: async () => range } }, { record: false }),
    metrics: new ServerMetrics(),
    clock: systemClock(),
    logger: silentLogger,
    maxRequestBytes: 1_572_864,
    onBug: (error) => console.error(error),
    ...(node ? { transport: createNodeHttp2Transport } : {}),
  });
  const server = createServer({ noDelay: true }, (socket) => grpc.handle(socket));
  server.listen(PORT, "127.0.0.1", () => process.send?.("ready"));
}

async function serveMember(): Promise<void> {
  const { startEtcd } = await import("../../src/embed/start-etcd.ts");
  const directory = await mkdtemp(join(tmpdir(), "holdfast-grpc-bench-"));
  const url = `http://127.0.0.1:${PORT}`;
  const peer = `http://127.0.0.1:${PORT + 1}`;
  const member = await startEtcd({
    name: "bench",
    dataDir: directory,
    listenClientUrls: url,
    advertiseClientUrls: url,
    listenPeerUrls: peer,
    initialAdvertisePeerUrls: peer,
    initialCluster: `bench=${peer}`,
  } as Parameters<typeof startEtcd>[0]);
  await member.ready;
  process.on("message", (message) => {
    if (message === "stop") void member.close().then(() => rm(directory, { recursive: true }).then(() => process.exit(0)));
  });
  process.send?.("ready");
}

interface Served {
  readonly pid: number;
  stop(): Promise<void>;
}

async function startChild(role: string): Promise<Served> {
  const child: ChildProcess = fork(import.meta.filename, [role], {
    execArgv: ["--import", "tsx", ...(process.env.SERVER_ARGS?.split(" ") ?? [])],
  });
  await once(child, "message");
  return {
    pid: child.pid ?? 0,
    async stop() {
      const exited = once(child, "exit");
      child.send("stop");
      await exited;
    },
  };
}

async function startOracle(): Promise<Served | undefined> {
  const binary = process.env.HOLDFAST_ORACLE_ETCD;
  if (binary === undefined) {
    console.log("etcd: HOLDFAST_ORACLE_ETCD does not name it");
    return undefined;
  }
  const directory = await mkdtemp(join(tmpdir(), "holdfast-grpc-oracle-"));
  const url = `http://127.0.0.1:${PORT}`;
  const peer = `http://127.0.0.1:${PORT + 1}`;
  const child = spawn(
    binary,
    [
      ...["--data-dir", directory, "--log-level", "fatal", "--listen-client-urls", url, "--advertise-client-urls", url],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", `default=${peer}`],
    ],
    { stdio: "ignore" },
  );
  for (let left = 200; left > 0; left--) {
    const healthy = await fetch(`${url}/health`).then(
      (response) => response.ok,
      () => false,
    );
    if (healthy) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    pid: child.pid ?? 0,
    async stop() {
      const exited = once(child, "exit");
      child.kill("SIGTERM");
      await exited;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Processor seconds of a process so far, from /proc. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

// -- client --------------------------------------------------------------------------------------------------------------------------------

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
/** Fields of every request, put into the server's table by the first one and named by their place in it afterwards, as real clients do. */
const TABLE_FIELDS = ["content-type", "te", ":path", ":authority"];

function indexedBlock(path: string): { first: Buffer; later: Buffer } {
  const insert = (name: string, value: string): Buffer => {
    const plain = plainBlock([[name, value]]);
    plain[0] = 0x40;
    return plain;
  };
  const values: Record<string, string> = { "content-type": "application/grpc", te: "trailers", ":path": path, ":authority": "bench" };
  const pseudo = [":path", ":authority"];
  const order = [...pseudo, ...TABLE_FIELDS.filter((name) => !pseudo.includes(name))];
  return {
    first: Buffer.concat([Buffer.from([0x83, 0x86]), ...order.map((name) => insert(name, values[name] as string))]),
    later: Buffer.concat([Buffer.from([0x83, 0x86]), ...order.map((_, i) => hpackInteger(61 + order.length - i, 7, 0x80))]),
  };
}

class Connection {
  readonly #socket: Socket;
  readonly #block: { first: Buffer; later: Buffer };
  readonly #message: Buffer;
  #nextId = 1;
  #buffer: Buffer = Buffer.alloc(0);
  #unacknowledged = 0;
  readonly #started = new Map<number, number>();
  done = 0;
  failed = 0;
  running = true;
  readonly latencies: number[] = [];

  constructor(path: string, message: Uint8Array) {
    this.#block = indexedBlock(path);
    this.#message = grpcFrame(message);
    this.#socket = connect({ port: PORT, host: "127.0.0.1", noDelay: true });
    const window = Buffer.alloc(4);
    window.writeUInt32BE(1 << 30);
    this.#socket.write(Buffer.concat([PREFACE, frameBytes(4, 0, 0), frameBytes(8, 0, 0, window)]));
    this.#socket.on("data", (chunk: Buffer) => this.#read(chunk));
  }

  start(calls: number): void {
    const parts: Buffer[] = [];
    for (let i = 0; i < calls; i++) parts.push(this.#call());
    this.#socket.write(Buffer.concat(parts));
  }

  close(): void {
    this.#socket.destroy();
  }

  #call(): Buffer {
    const id = this.#nextId;
    this.#nextId += 2;
    this.#started.set(id, performance.now());
    const block = id === 1 ? this.#block.first : this.#block.later;
    return Buffer.concat([frameBytes(1, 4, id, block), frameBytes(0, 1, id, this.#message)]);
  }

  #read(chunk: Buffer): void {
    const bytes = this.#buffer.byteLength === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    let at = 0;
    const next: Buffer[] = [];
    while (bytes.byteLength - at >= 9) {
      const length = bytes.readUIntBE(at, 3);
      if (bytes.byteLength - at < 9 + length) break;
      const type = bytes[at + 3];
      const flags = bytes[at + 4] as number;
      if (type === 4 && (flags & 1) === 0) next.push(frameBytes(4, 1, 0));
      if (type === 6 && (flags & 1) === 0) next.push(frameBytes(6, 1, 0, bytes.subarray(at + 9, at + 17)));
      if (type === 0) this.#unacknowledged += length;
      if (type === 1 && (flags & 1) !== 0) {
        const id = bytes.readUInt32BE(at + 5);
        this.latencies.push(performance.now() - (this.#started.get(id) ?? 0));
        this.#started.delete(id);
        this.done += 1;
        // Trailers of a success are short.
        if (length > 80) this.failed += 1;
        if (this.running) next.push(this.#call());
      }
      at += 9 + length;
    }
    this.#buffer = bytes.subarray(at);
    if (this.#unacknowledged > 1 << 26) {
      const window = Buffer.alloc(4);
      window.writeUInt32BE(this.#unacknowledged);
      this.#unacknowledged = 0;
      next.push(frameBytes(8, 0, 0, window));
    }
    if (next.length > 0) this.#socket.write(Buffer.concat(next));
  }
}

const OPERATIONS = {
  put: ["/etcdserverpb.KV/Put", api.PutRequest.encode(api.PutRequest.create({ key: KEY, value: VALUE }))],
  range: ["/etcdserverpb.KV/Range", api.RangeRequest.encode(api.RangeRequest.create({ key: KEY }))],
} as const;

async function measure(server: string, pid: number, operation: keyof typeof OPERATIONS, calls: number, seconds: number): Promise<void> {
  const [path, message] = OPERATIONS[operation];
  const connections = Array.from({ length: Math.min(calls, 10) }, () => new Connection(path, message));
  for (const connection of connections) connection.start(calls / connections.length);
  const sum = (): number => connections.reduce((total, { done }) => total + done, 0);
  const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
  await wait(1000);
  for (const connection of connections) connection.latencies.length = 0;
  const [doneBefore, cpuBefore, timeBefore] = [sum(), cpuSeconds(pid), performance.now()];
  await wait(seconds * 1000);
  const [done, cpu, time] = [sum() - doneBefore, cpuSeconds(pid) - cpuBefore, (performance.now() - timeBefore) / 1000];
  const latencies = connections.flatMap((connection) => connection.latencies).sort((a, b) => a - b);
  const percentile = (p: number): string => (latencies[Math.floor(latencies.length * p)] ?? 0).toFixed(2);
  const failed = connections.reduce((total, connection) => total + connection.failed, 0);
  for (const connection of connections) {
    connection.running = false;
    connection.close();
  }
  console.log(
    `${server.padEnd(10)} ${operation.padEnd(6)} ${String(calls).padStart(5)} calls: ${Math.round(done / time)
      .toString()
      .padStart(
        6,
      )}/s  p50 ${percentile(0.5)} ms  p99 ${percentile(0.99)} ms  server ${((cpu / done) * 1e6).toFixed(1)} µs/call${failed > 0 ? `  FAILED ${failed}` : ""}`,
  );
}

async function main(): Promise<void> {
  const seconds = Number(process.argv[2] ?? 3);
  const servers = (process.argv[3] ?? "stub,stub-node,holdfast,etcd").split(",");
  for (const name of servers) {
    const server = name === "etcd" ? await startOracle() : await startChild(`serve-${name}`);
    if (server === undefined) continue;
    for (const operation of ["put", "range"] as const) {
      for (const calls of [1, 100, 1000]) await measure(name, server.pid, operation, calls, seconds);
    }
    await server.stop();
  }
}

const role = process.argv[2];
if (role === "serve-stub" || role === "serve-stub-node") {
  serveStub(role === "serve-stub-node");
  process.on("message", () => process.exit(0));
} else if (role === "serve-holdfast") await serveMember();
else await main();
