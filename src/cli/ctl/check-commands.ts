/** check perf and check datascale: does a cluster bear a load? */
import { randomBytes } from "node:crypto";
import * as api from "../../api/index.ts";
import { type Command, ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import type { FlagSpec } from "../cobra/flags.ts";
import type { Client } from "./client.ts";
import { type Call, type Ctl, Status, withClient } from "./context.ts";
import { GrpcError } from "./grpc-error.ts";
import { keyOf, prefixRange } from "./key-ranges.ts";

const LOADS = {
  s: { perfRate: 150, perfClients: 50, keys: 10_000, clients: 50 },
  m: { perfRate: 1000, perfClients: 200, keys: 100_000, clients: 200 },
  l: { perfRate: 8000, perfClients: 500, keys: 1_000_000, clients: 500 },
  xl: { perfRate: 15_000, perfClients: 1000, keys: 3_000_000, clients: 1000 },
} as const;
type Load = (typeof LOADS)[keyof typeof LOADS];

const LOAD_NAMES: Readonly<Record<string, keyof typeof LOADS>> = {
  s: "s",
  small: "s",
  m: "m",
  medium: "m",
  l: "l",
  large: "l",
  xl: "xl",
  xLarge: "xl",
};

const KEY_BYTES = 256;
const VALUE_BYTES = 1024;
const PERF_SECONDS = 60;
/** Share of the load's rate that suffices. */
const RATE_SHARE = 0.9;
const SLOWEST_SECONDS = 0.5;
const DEVIATION_SECONDS = 0.1;
const CALL_MS = 5000;
/** For taking the keys away again, of which there may be millions. */
const DELETE_MS = 60_000;

function flags(what: string, prefix: string): readonly FlagSpec[] {
  return [
    { name: "load", kind: "string", default: "s", help: `The ${what}: s(small), m(medium), l(large), xl(xLarge)` },
    { name: "prefix", kind: "string", default: prefix, help: "The prefix of the keys that are written" },
    { name: "auto-compact", kind: "bool", help: "Compact up to the last revision at the end" },
    { name: "auto-defrag", kind: "bool", help: "Defragment at the end" },
  ];
}

function loadOf(call: Call): Load {
  const name = LOAD_NAMES[call.flags.string("load")];
  if (name === undefined) throw new ExitError(Status.badFeature, `unknown load option ${call.flags.string("load")}`);
  return LOADS[name];
}

async function refuseUsedPrefix(client: Client, prefix: string, timeoutMs: number): Promise<void> {
  const { kvs } = await client.call(
    api.KvService.range,
    api.RangeRequest.create({ ...prefixRange(keyOf(prefix)), limit: 1, keysOnly: true }),
    { timeoutMs },
  );
  if (kvs.length === 0) return;
  const text = `prefix ${JSON.stringify(prefix)} has keys. Delete with 'etcdctl del --prefix ${prefix}' first`;
  throw new ExitError(Status.invalidInput, text);
}

/** Takes the keys away again, and what that leaves behind if wished. */
async function cleanUp(client: Client, ctl: Ctl, call: Call): Promise<void> {
  const { stdout } = call.context;
  const options = { timeoutMs: DELETE_MS };
  const request = api.DeleteRangeRequest.create(prefixRange(keyOf(call.flags.string("prefix"))));
  const { header } = await client.call(api.KvService.deleteRange, request, options);
  if (call.flags.bool("auto-compact")) {
    const revision = header?.revision ?? 0;
    stdout(`Compacting with revision ${revision}\n`);
    await client.call(api.KvService.compact, api.CompactionRequest.create({ revision, physical: true }));
    stdout(`Compacted with revision ${revision}\n`);
  }
  if (call.flags.bool("auto-defrag")) {
    for (const endpoint of client.endpoints) {
      stdout(`Defragmenting ${JSON.stringify(endpoint)}\n`);
      const one = await ctl.connect([endpoint]);
      await one.call(api.MaintenanceService.defragment, api.DefragmentRequest.create());
      stdout(`Defragmented ${JSON.stringify(endpoint)}\n`);
    }
  }
}

interface Measured {
  /** Seconds, one for each write that was answered. */
  readonly latencies: number[];
  readonly errors: Map<string, number>;
}

/** Writes of several clients at once, no more of them per second than `rate`, until `enough` says so. */
async function write(
  clients: readonly Client[],
  parallel: number,
  rate: number | undefined,
  next: () => api.PutRequest | undefined,
  onTick: (measured: Measured) => void,
): Promise<Measured> {
  const measured: Measured = { latencies: [], errors: new Map() };
  const started = performance.now();
  let sent = 0;
  const tick = setInterval(() => onTick(measured), 1000);
  try {
    await Promise.all(
      Array.from({ length: parallel }, async (_, at) => {
        const client = clients[at % clients.length] as Client;
        for (;;) {
          if (rate !== undefined) {
            const dueMs = started + (sent * 1000) / rate;
            sent += 1;
            const waitMs = dueMs - performance.now();
            if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
          }
          const request = next();
          if (request === undefined) return;
          const begun = performance.now();
          try {
            await client.call(api.KvService.put, request, { timeoutMs: CALL_MS });
            measured.latencies.push((performance.now() - begun) / 1000);
          } catch (error) {
            if (!(error instanceof GrpcError)) throw error;
            measured.errors.set(error.message, (measured.errors.get(error.message) ?? 0) + 1);
          }
        }
      }),
    );
  } finally {
    clearInterval(tick);
  }
  return measured;
}

/** A line that is written over and over; only where somebody watches. */
function progress(ctl: Ctl, done: number, total: number): void {
  if (!ctl.face.stdin.isTerminal) return;
  const filled = Math.floor((done / total) * 40);
  ctl.face.stdout(`\r ${done} / ${total} [${"=".repeat(filled).padEnd(40)}] ${((done / total) * 100).toFixed(2)}%`);
  if (done >= total) ctl.face.stdout("\n");
}

const perf: Command<ToolFace> = {
  use: "perf [options]",
  short: "Check the performance of the etcd cluster",
  flags: flags("workload of the performance check", "/etcdctl-check-perf/"),
  run: async (call) => {
    const load = loadOf(call);
    const prefix = call.flags.string("prefix");
    await withClient(call, async (client, ctl) => {
      await refuseUsedPrefix(client, prefix, ctl.timeoutMs);
      const clients = [client];
      // Fewer connections than clients: streams share them.
      while (clients.length < Math.min(load.perfClients, 16)) clients.push(await ctl.connect());
      const value = Buffer.alloc(VALUE_BYTES, "v");
      const started = performance.now();
      const seconds = (): number => (performance.now() - started) / 1000;
      const measured = await write(
        clients,
        load.perfClients,
        load.perfRate,
        () =>
          seconds() >= PERF_SECONDS
            ? undefined
            : api.PutRequest.create({ key: Buffer.concat([keyOf(prefix), randomBytes(KEY_BYTES)]), value }),
        () => progress(ctl, Math.min(PERF_SECONDS, Math.round(seconds())), PERF_SECONDS),
      );
      const total = seconds();
      await cleanUp(client, ctl, call);
      judge(measured, total, load, call.context);
    });
  },
};

function judge({ latencies, errors }: Measured, seconds: number, load: Load, face: ToolFace): void {
  let good = true;
  const verdict = (pass: boolean, passText: string, failText: string): void => {
    good &&= pass;
    face.stdout(pass ? `PASS: ${passText}\n` : `FAIL: ${failText}\n`);
  };
  if (errors.size > 0) {
    face.stdout("FAIL: too many errors\n");
    for (const [text, count] of errors) face.stdout(`FAIL: ERROR(${text}) -> ${count}\n`);
    good = false;
  }
  const rate = latencies.length / seconds;
  const average = latencies.reduce((sum, one) => sum + one, 0) / Math.max(1, latencies.length);
  const slowest = latencies.reduce((most, one) => Math.max(most, one), 0);
  const deviation = Math.sqrt(latencies.reduce((sum, one) => sum + (one - average) ** 2, 0) / Math.max(1, latencies.length));
  const rateText = `${Math.floor(rate) + 1} writes/s`;
  verdict(rate >= load.perfRate * RATE_SHARE, `Throughput is ${rateText}`, `Throughput too low: ${rateText}`);
  verdict(
    slowest <= SLOWEST_SECONDS,
    `Slowest request took ${slowest.toFixed(6)}s`,
    `Slowest request took too long: ${slowest.toFixed(6)}s`,
  );
  verdict(deviation <= DEVIATION_SECONDS, `Stddev is ${deviation.toFixed(6)}s`, `Stddev too high: ${deviation.toFixed(6)}s`);
  face.stdout(good ? "PASS\n" : "FAIL\n");
  if (!good) throw new ExitError(Status.error);
}

/** Resident memory of the server, in bytes, as its metrics tell it. */
async function memoryOf(endpoint: string): Promise<number> {
  const url = /^https?:\/\//.test(endpoint) ? endpoint : `http://${endpoint}`;
  let text: string;
  try {
    const response = await fetch(`${url}/metrics`, { signal: AbortSignal.timeout(CALL_MS) });
    text = await response.text();
  } catch (error) {
    throw new ExitError(Status.error, `fetching metrics of ${endpoint}: ${String((error as Error).cause ?? error)}`);
  }
  const value = /^process_resident_memory_bytes (\S+)$/m.exec(text)?.[1];
  if (value === undefined) throw new ExitError(Status.error, `${endpoint} does not tell process_resident_memory_bytes`);
  return Number(value);
}

const dataScale: Command<ToolFace> = {
  use: "datascale [options]",
  short: "Check the memory usage of holding data for different workloads on a given server endpoint.",
  long: "Only the first endpoint is used.",
  flags: flags("workload of the datascale check", "/etcdctl-check-datascale/"),
  run: async (call) => {
    const load = loadOf(call);
    const prefix = call.flags.string("prefix");
    const { stdout } = call.context;
    await withClient(call, async (client, ctl) => {
      const [endpoint = ""] = client.endpoints;
      await refuseUsedPrefix(client, prefix, ctl.timeoutMs);
      const before = await memoryOf(endpoint);
      stdout(
        `Start data scale check for work load [${load.keys} key-value pairs, ${VALUE_BYTES} bytes per key-value, ${load.clients} concurrent clients].\n`,
      );
      const value = Buffer.alloc(VALUE_BYTES, "v");
      let written = 0;
      const measured = await write(
        [client],
        load.clients,
        undefined,
        () => {
          if (written >= load.keys) return undefined;
          written += 1;
          return api.PutRequest.create({ key: Buffer.concat([keyOf(prefix), randomBytes(KEY_BYTES)]), value });
        },
        () => progress(ctl, written, load.keys),
      );
      const after = await memoryOf(endpoint);
      await cleanUp(client, ctl, call);
      if (measured.errors.size > 0) {
        stdout("FAIL: too many errors\n");
        for (const [text, count] of measured.errors) stdout(`FAIL: ERROR(${text}) -> ${count}\n`);
        throw new ExitError(Status.error);
      }
      stdout(`PASS: Approximate system memory used : ${((after - before) / (1024 * 1024)).toFixed(2)} MB.\n`);
    });
  },
};

export const check: Command<ToolFace> = {
  use: "check",
  short: "commands for checking properties of the etcd cluster",
  commands: [perf, dataScale],
};
