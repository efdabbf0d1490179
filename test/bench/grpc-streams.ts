/**
 * What open gRPC streams cost: many connections with several watch streams each, opened, used once, closed, and all of that again.
 *
 *   npm run bench:grpc [-- --against /path/to/etcd] [--connections N] [--streams N] [--rounds N] [--port P]
 *
 * Prints resident memory per stream. Fails when the server still counts a watcher or stream after the close, when an event is lost, or when memory after the
 * close grows from round to round. Closes with `N passed, N failed`.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as api from "../../src/api/index.ts";
import { grpcFrame, H2Client } from "../grpc/h2-client.ts";
import {
  etcdKind,
  holdfastKind,
  memberFlags,
  residentBytes,
  type ServerKind,
  ServerProcess,
  sleep,
  until,
  untilServing,
} from "../support/server-process.ts";

const { values: options } = parseArgs({
  options: {
    server: { type: "string" },
    against: { type: "string" },
    connections: { type: "string", default: "1000" },
    streams: { type: "string", default: "10" },
    rounds: { type: "string", default: "5" },
    port: { type: "string", default: "22480" },
  },
});
const CONNECTIONS = Number(options.connections);
const STREAMS = Number(options.streams);
const ROUNDS = Number(options.rounds);
/** Connections that are made at the same time. */
const AT_ONCE = 50;
const SETTLE_MS = 3000;
/** Memory after the last close may exceed that after the second by this much: collectors do not give back everything at once. */
const GROWTH_MAX = 1.1;
const MIB = 1024 * 1024;

let passed = 0;
let failed = 0;

function verdict(name: string, ok: boolean, note: string): void {
  if (ok) passed++;
  else failed++;
  console.log(`${ok ? "PASS" : "FAIL"} ${name} (${note})`);
}

function keyOf(connection: number, stream: number): Buffer {
  return Buffer.from(`streams/${connection}/${stream}`);
}

interface Open {
  readonly client: H2Client;
  readonly ids: readonly number[];
}

async function open(port: number, connection: number): Promise<Open> {
  const client = new H2Client(port);
  client.keepFrames = false;
  const ids = Array.from({ length: STREAMS }, (_, stream) => {
    const id = client.open(api.WatchService.watch.path);
    const createRequest = api.WatchCreateRequest.create({ key: keyOf(connection, stream) });
    client.data(id, grpcFrame(api.WatchRequest.encode(api.WatchRequest.create({ createRequest }))));
    return id;
  });
  await client.until(() => client.closed || ids.every((id) => client.answer(id).messages.length > 0));
  if (client.closed) throw new Error("a connection was closed");
  return { client, ids };
}

/** Values of the server's metrics by name. */
async function metric(port: number, name: string): Promise<number> {
  const text = await new Promise<string>((resolve, reject) => {
    const get = request({ port, host: "127.0.0.1", path: "/metrics", agent: false }, (answer) => {
      let body = "";
      answer.setEncoding("utf8");
      answer.on("data", (part: string) => {
        body += part;
      });
      answer.on("end", () => resolve(body));
      answer.on("error", reject);
    });
    get.on("error", reject);
    get.end();
  });
  return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1] ?? Number.NaN);
}

async function measure(kind: ServerKind, port: number): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), `holdfast-streams-${kind.name}-`));
  const spec = {
    name: "one",
    clientUrl: `http://127.0.0.1:${port}`,
    peerUrl: `http://127.0.0.1:${port + 1}`,
    dataDir: join(directory, "data"),
  };
  const flags = memberFlags(spec, { token: "streams", initialCluster: `one=${spec.peerUrl}`, state: "new" });
  const server = new ServerProcess(kind, [...flags, "--log-level", "error"], join(directory, "log"));
  const counts = ["etcd_debugging_mvcc_watch_stream_total", "etcd_debugging_mvcc_watcher_total"];
  const after: number[] = [];
  try {
    await untilServing(server, spec.clientUrl);
    for (let round = 1; round <= ROUNDS; round++) {
      const before = residentBytes(server.pid);
      const all: Open[] = [];
      for (let i = 0; i < CONNECTIONS; i += AT_ONCE) {
        const some = Array.from({ length: Math.min(AT_ONCE, CONNECTIONS - i) }, (_, n) => open(port, i + n));
        all.push(...(await Promise.all(some)));
      }
      await sleep(SETTLE_MS);
      const during = residentBytes(server.pid);
      const lost = await eventsLost(port, all);
      for (const { client } of all) client.socket.destroy();
      await until("the server has let go of all streams", 30_000, async () => {
        for (const name of counts) if ((await metric(port, name)) !== 0) return false;
        return true;
      }).then(
        () => verdict(`${kind.name} round ${round}: no stream is left`, true, "0 streams, 0 watchers"),
        (error: unknown) => verdict(`${kind.name} round ${round}: no stream is left`, false, String(error)),
      );
      verdict(`${kind.name} round ${round}: events`, lost === 0, `${lost} lost`);
      await sleep(SETTLE_MS);
      after.push(residentBytes(server.pid));
      const each = (during - before) / (CONNECTIONS * STREAMS);
      console.log(
        `${kind.name.padEnd(8)} round ${round}: ${CONNECTIONS} connections x ${STREAMS} streams: before ${mib(before)}, open ${mib(during)}, ` +
          `closed ${mib(after.at(-1) ?? 0)}; ${(each / 1024).toFixed(2)} KiB per stream`,
      );
    }
    const [second = 0, last = 0] = [after[1], after.at(-1)];
    const note = after.map(mib).join(", ");
    if (kind.name === "holdfast") verdict(`${kind.name}: no growth after close`, last <= second * GROWTH_MAX, note);
    else console.log(`${kind.name}: after each close ${note}`);
  } finally {
    await server.kill();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** One write to a stream of every connection; each must come. */
async function eventsLost(port: number, all: readonly Open[]): Promise<number> {
  const writer = new H2Client(port);
  writer.keepFrames = false;
  try {
    for (let i = 0; i < all.length; i++) {
      const put = api.PutRequest.encode(api.PutRequest.create({ key: keyOf(i, i % STREAMS), value: Buffer.from("event") }));
      const answer = await writer.unary(api.KvService.put.path, put);
      if (answer.status !== "0") throw new Error(`a put was refused: ${answer.status} ${answer.message}`);
    }
    const missing = (): number => all.filter(({ client, ids }, i) => client.answer(ids[i % STREAMS] as number).messages.length < 2).length;
    await until("all events have come", 20_000, () => missing() === 0).catch(() => undefined);
    return missing();
  } finally {
    writer.socket.destroy();
  }
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}

if (options.server === undefined) {
  console.error("npm run bench:grpc");
  process.exit(2);
}
await measure(holdfastKind(options.server), Number(options.port));
if (options.against !== undefined) await measure(etcdKind(options.against), Number(options.port) + 4);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
