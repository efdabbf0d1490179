/**
 * `npm run bench:embedded -- --against /path/to/etcd`: what a program gets that has its member inside, next to what a Go program gets from a real etcd over gRPC.
 * Both write durably to the same disk, in turns; ratios are of medians. `--directory` chooses the disk: one in memory leaves the waiting for disks out.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import type { EtcdClient } from "../../../src/client/index.ts";
import { goProgram, runGo } from "../../foreign/go-program.ts";
import { etcdKind, memberFlags, processorMs, ServerProcess, untilServing } from "../../support/server-process.ts";

const { values: options } = parseArgs({
  options: {
    module: { type: "string" },
    against: { type: "string" },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "3" },
    port: { type: "string", default: "23300" },
    directory: { type: "string", default: tmpdir() },
    callers: { type: "string", default: "500" },
    numbers: { type: "string", default: "10" },
  },
});
const rounds = Number(options.rounds);
const durationMs = Number(options.seconds) * 1000;
const callers = Number(options.callers);
const numbersEach = Number(options.numbers);
const VALUE = "v".repeat(256);
const IN_FLIGHT = 256;
const KEYS = 10_000;
const READS = 50_000;

type Package = typeof import("../../../src/index.ts");
type Concurrency = typeof import("../../../src/client/concurrency/index.ts");
const dist = options.module ?? "";
const { startEtcd, op } = (await import(pathToFileURL(join(dist, "index.js")).href)) as Package;
const { openSession } = (await import(pathToFileURL(join(dist, "client/concurrency/index.js")).href)) as Concurrency;

interface Row {
  readonly what: string;
  readonly unit: string;
  readonly figures: number[];
}
const rows = new Map<string, Row>();
function note(what: string, unit: string, figure: number): void {
  const row = rows.get(what) ?? { what, unit, figures: [] };
  row.figures.push(figure);
  rows.set(what, row);
  console.log(`${what}: ${figure.toFixed(figure < 100 ? 1 : 0)} ${unit}`);
}
function median(what: string): number | undefined {
  const { figures } = rows.get(what) ?? { figures: [] };
  return [...figures].sort((a, b) => a - b)[Math.floor(figures.length / 2)];
}

/** Processor time per piece of work in microseconds: it does not depend on what else the machine does. Of a Go client, nothing is counted. */
function notePrice(what: string, spentMs: number, pieces: number): void {
  note(`processor time: ${what}`, "us", (spentMs * 1000) / pieces);
}
function ownMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

async function withMember(work: (client: EtcdClient) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(options.directory, "holdfast-bench-"));
  const began = performance.now();
  const server = await startEtcd({ dataDir: directory, listenClientUrls: [], listenPeerUrls: [] });
  try {
    await server.ready;
    await server.client.put("first", "put");
    note("start to first put, embedded, empty directory", "ms", performance.now() - began);
    await work(server.client);
  } finally {
    await server.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function puts(client: EtcdClient): Promise<void> {
  let done = 0;
  let endMs = performance.now() + durationMs / 4;
  const load = (): Promise<unknown> =>
    Promise.all(
      Array.from({ length: IN_FLIGHT }, async (_, i) => {
        for (let n = 0; performance.now() < endMs; n += 1) {
          await client.put(`bench/${(i + n * IN_FLIGHT) % KEYS}`, VALUE);
          done += 1;
        }
      }),
    );
  await load();
  done = 0;
  const began = performance.now();
  const beforeMs = ownMs();
  endMs = began + durationMs;
  await load();
  note(`puts, embedded, ${IN_FLIGHT} in flight`, "/s", (done * 1000) / (performance.now() - began));
  notePrice("a put, embedded, all of it", ownMs() - beforeMs, done);
}

async function gets(client: EtcdClient): Promise<void> {
  await client.put("bench/read", VALUE);
  for (let i = 0; i < READS / 5; i += 1) await client.get("bench/read");
  const took = new Float64Array(READS);
  for (let i = 0; i < READS; i += 1) {
    const began = performance.now();
    await client.get("bench/read");
    took[i] = (performance.now() - began) * 1000;
  }
  took.sort();
  note("linearizable get, embedded, p50", "us", took[READS / 2] as number);
  note("linearizable get, embedded, p99", "us", took[Math.floor(READS * 0.99)] as number);
}

/**
 * Every caller draws numbers under the lock: read, write, unlock.
 * @param sessions 1: callers share one, and write and unlock at once, as a program inside of one process does; else each has its own, as in Go
 */
async function sequence(client: EtcdClient, sessions: number): Promise<void> {
  const key = `sequence/${sessions}`;
  await client.put(key, "0");
  const all = await Promise.all(Array.from({ length: sessions }, () => openSession(client, { ttlSeconds: 60 })));
  const began = performance.now();
  const beforeMs = ownMs();
  await Promise.all(
    Array.from({ length: callers }, async (_, i) => {
      const mutex = all[i % sessions]?.mutex(`lock/${sessions}`);
      for (let n = 0; n < numbersEach; n += 1) {
        const held = await mutex?.lock();
        const number = Number((await client.get(key))?.value) + 1;
        if (sessions === 1) await held?.finish(op.put(key, String(number)));
        else {
          await client.put(key, String(number));
          await held?.unlock();
        }
      }
    }),
  );
  const tookMs = performance.now() - began;
  const drawn = Number((await client.get(key))?.value);
  if (drawn !== callers * numbersEach) throw new Error(`${drawn} numbers instead of ${callers * numbersEach}`);
  const how = sessions === 1 ? "one session" : "a session per caller";
  note(`${drawn} numbers by Mutex, embedded, ${how}`, "ms", tookMs);
  notePrice(`a number by Mutex, embedded, ${how}, all of it`, ownMs() - beforeMs, drawn);
  await Promise.all(all.map((session) => session.close()));
}

/** What a Go program gets from a real etcd. */
async function withEtcd(binary: string, work: (endpoint: string, pid: number) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(options.directory, "holdfast-bench-"));
  const port = Number(options.port);
  const member = {
    name: "bench",
    clientUrl: `http://127.0.0.1:${port}`,
    peerUrl: `http://127.0.0.1:${port + 1}`,
    dataDir: join(directory, "data"),
  };
  const flags = memberFlags(member, { token: "bench", initialCluster: `bench=${member.peerUrl}`, state: "new" });
  const etcd = new ServerProcess(etcdKind(binary), [...flags, "--log-level", "error"], join(directory, "log"));
  try {
    await untilServing(etcd, member.clientUrl);
    await work(`127.0.0.1:${port}`, etcd.pid);
  } finally {
    await etcd.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

function built(name: "go-client" | "go-node"): string {
  const found = goProgram({ download: true, name });
  if ("missing" in found) throw new Error(found.missing);
  return found.program;
}

async function goPuts(endpoint: string, pid: number): Promise<void> {
  const words = ["bench", "-op", "put", "-clients", "1000", "-conns", "100", "-seconds", options.seconds, "-endpoints", endpoint];
  const beforeMs = processorMs(pid);
  const { lines } = await runGo(built("go-client"), words).ended;
  const perSecond = Number(/: (\d+)\/s/.exec(lines.join("\n"))?.[1]);
  note("puts, Go client, etcd, 1000 clients", "/s", perSecond);
  // It also puts during a second of warming up.
  notePrice("a put, etcd, the server alone", processorMs(pid) - beforeMs, perSecond * (Number(options.seconds) + 1));
}

async function goSequence(endpoint: string, pid: number): Promise<void> {
  const words = ["sequence", "-callers", options.callers, "-numbers", options.numbers, "-endpoints", endpoint];
  const beforeMs = processorMs(pid);
  const { lines } = await runGo(built("go-node"), words).ended;
  const [, drawn, ms] = /sequence (\d+) in (\d+) ms/.exec(lines.join("\n")) ?? [];
  if (Number(drawn) !== callers * numbersEach) throw new Error(`Go drew other numbers: ${lines.join("; ")}`);
  note(`${drawn} numbers by Mutex, Go client, etcd, a session per caller`, "ms", Number(ms));
  notePrice("a number by Mutex, etcd, the server alone", processorMs(pid) - beforeMs, Number(drawn));
}

for (let round = 1; round <= rounds; round += 1) {
  console.log(`-- round ${round} of ${rounds}`);
  const { against } = options;
  await withMember(puts);
  if (against !== undefined) await withEtcd(against, goPuts);
  await withMember(gets);
  await withMember((client) => sequence(client, callers));
  await withMember((client) => sequence(client, 1));
  if (against !== undefined) await withEtcd(against, goSequence);
}

console.log("\n| what | median | all |\n| --- | --- | --- |");
for (const { what, unit, figures } of rows.values()) {
  console.log(`| ${what} | ${(median(what) ?? 0).toFixed(1)} ${unit} | ${figures.map((one) => one.toFixed(0)).join(", ")} |`);
}
const ratio = (what: string, ours: string, theirs: string, more: boolean): void => {
  const [a, b] = [median(ours), median(theirs)];
  if (a !== undefined && b !== undefined) console.log(`${what}: ${(more ? a / b : b / a).toFixed(1)} x`);
};
const total = callers * numbersEach;
console.log("");
ratio("puts, to the Go client on etcd", `puts, embedded, ${IN_FLIGHT} in flight`, "puts, Go client, etcd, 1000 clients", true);
const goName = `${total} numbers by Mutex, Go client, etcd, a session per caller`;
ratio("numbers by Mutex, a session per caller", `${total} numbers by Mutex, embedded, a session per caller`, goName, false);
ratio("numbers by Mutex, one session", `${total} numbers by Mutex, embedded, one session`, goName, false);
