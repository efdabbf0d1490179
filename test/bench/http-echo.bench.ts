/**
 * What the HTTP side costs without a server behind it: JSON puts and ranges against stub services, one request at a time per connection, the client
 * on the same machine. The server runs in a process of its own, so that its processor time per request can be told apart.
 * Run: node --import tsx test/bench/http-echo.bench.ts [seconds] ; with SERVER_ARGS="--cpu-prof --cpu-prof-dir=..." to profile the server.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import * as api from "../../src/api/index.ts";
import { systemClock } from "../../src/base/clock-system.ts";
import { silentLogger } from "../../src/base/logger.ts";
import { buildHttpApp } from "../../src/server/http/http-app.ts";
import { ServerMetrics } from "../../src/server/metrics.ts";
import { STUB_HEADER, stubServices } from "../support/stub-services.ts";

const VALUE = Buffer.alloc(256, "v");
const KEY = Buffer.from("bench/key/000001");

async function serve(): Promise<void> {
  const kv = api.KeyValue.create({ key: KEY, createRevision: 2, modRevision: 2, version: 1, value: VALUE });
  const range = api.RangeResponse.create({ header: STUB_HEADER, kvs: [kv], count: 1 });
  const services = stubServices({ kv: { range: async () => range } }, { record: false });
  const app = await buildHttpApp({
    services,
    metrics: new ServerMetrics(),
    clock: systemClock(),
    logger: silentLogger,
    enableGateway: true,
    maxRequestBytes: 1_572_864,
    requestTimeoutMs: 7000,
    cors: ["*"],
    hostWhitelist: ["*"],
    clientCertAuth: false,
    authEnabled: () => false,
  });
  const server = createServer({ noDelay: true }, (socket) => app.handle(socket));
  server.listen(0, "127.0.0.1", () => {
    const address = server.address();
    process.send?.({ port: typeof address === "object" ? address?.port : 0 });
  });
  process.on("message", (message) => {
    if (message === "cpu") {
      process.send?.(process.cpuUsage());
      return;
    }
    server.close();
    void app.close({ graceMs: 100 }).then(() => process.exit(0));
  });
}

function request(path: string, body: string): Buffer {
  return Buffer.from(
    `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
}

const REQUESTS: Readonly<Record<string, Buffer>> = {
  put: request("/v3/kv/put", JSON.stringify({ key: KEY.toString("base64"), value: VALUE.toString("base64") })),
  range: request("/v3/kv/range", JSON.stringify({ key: KEY.toString("base64") })),
};

async function ask<T>(child: ChildProcess, question: string): Promise<T> {
  const answer = once(child, "message");
  child.send(question);
  return (await answer)[0] as T;
}

async function measure(child: ChildProcess, port: number, what: string, connections: number, seconds: number): Promise<void> {
  const bytes = REQUESTS[what] as Buffer;
  let answers = 0;
  const sockets: Socket[] = [];
  for (let i = 0; i < connections; i++) {
    const socket = connect(port, "127.0.0.1");
    socket.setNoDelay(true);
    // Answers are small: one segment each.
    socket.on("data", () => {
      answers++;
      socket.write(bytes);
    });
    await once(socket, "connect");
    sockets.push(socket);
    socket.write(bytes);
  }
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const [answersBefore, cpuBefore, start] = [answers, await ask<NodeJS.CpuUsage>(child, "cpu"), performance.now()];
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const [answersAfter, cpuAfter, end] = [answers, await ask<NodeJS.CpuUsage>(child, "cpu"), performance.now()];
  for (const socket of sockets) socket.destroy();
  const done = answersAfter - answersBefore;
  const cpu = cpuAfter.user + cpuAfter.system - cpuBefore.user - cpuBefore.system;
  console.log(
    JSON.stringify({
      what,
      connections,
      perSecond: Math.round((done * 1000) / (end - start)),
      serverMicrosEach: Math.round((cpu / done) * 10) / 10,
    }),
  );
}

async function main(): Promise<void> {
  const seconds = Number(process.argv[2] ?? 5);
  const child = fork(new URL(import.meta.url), ["serve"], {
    execArgv: [...process.execArgv, ...(process.env.SERVER_ARGS?.split(" ") ?? [])],
  });
  const [{ port }] = (await once(child, "message")) as [{ port: number }];
  for (const what of Object.keys(REQUESTS)) for (const connections of [64, 256]) await measure(child, port, what, connections, seconds);
  child.send("stop");
  await once(child, "exit");
}

await (process.argv[2] === "serve" ? serve() : main());
