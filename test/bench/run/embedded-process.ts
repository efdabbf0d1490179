/**
 * A process that embeds a member and calls its services: what using holdfast as a library costs, callers and server together. Also measures how long its
 * event loop is held up while the member works.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { pathToFileURL } from "node:url";
import type { Services } from "../../../src/server/index.ts";
import { type Call, loadCalls, makeCalls, type OperationName } from "./operations.ts";
import { Latencies, type LoadResult } from "./samples.ts";

export type EmbeddedRequest =
  /** `module` is the built package, `config` what its `startEtcd` takes. */
  | { readonly kind: "start"; readonly module: string; readonly config: object }
  | { readonly kind: "load"; readonly from: number; readonly upTo: number; readonly valueBytes: number }
  | {
      readonly kind: "run";
      readonly operation: OperationName;
      readonly callers: number;
      readonly keys: number;
      readonly valueBytes: number;
      readonly warmUpMs: number;
      readonly durationMs: number;
    }
  | {
      readonly kind: "watch-loop";
      readonly work: LoopWork;
      readonly durationMs: number;
      readonly keys: number;
      readonly valueBytes: number;
    }
  | { readonly kind: "identity" };

/** What the member does while its event loop is watched. "idle" shows what the machine itself adds. */
export const LOOP_WORK = ["idle", "puts", "range-all", "count-all", "compact", "hash", "hash-kv", "snapshot", "defragment"] as const;
export type LoopWork = (typeof LOOP_WORK)[number];

export interface LoopResult {
  readonly maxMs: number;
  readonly p999Ms: number;
  readonly p99Ms: number;
  /** How often the work was done, and how long it took on average. */
  readonly times: number;
  readonly eachMs: number;
}

export type EmbeddedAnswer =
  | { readonly kind: "done" }
  | { readonly kind: "run"; readonly result: LoadResult; readonly processorMs: number }
  | { readonly kind: "loop"; readonly result: LoopResult }
  | { readonly kind: "identity"; readonly id: string; readonly leader: string | undefined }
  | { readonly kind: "failed"; readonly reason: string };

/** As much of the package's surface as is used. The built package is loaded at run time, as an embedding program would. */
interface EmbeddedMember {
  readonly ready: Promise<void>;
  readonly services: Services;
  readonly id: string;
  readonly leader: string | undefined;
}

/** Callers let others run after so long. */
const TURN_MS = 5;

let member: EmbeddedMember | undefined;

function started(): EmbeddedMember {
  if (member === undefined) throw new Error("not started");
  return member;
}

function ask(services: Services, call: Call): Promise<unknown> {
  switch (call.method) {
    case "put":
      return services.kv.put(call.request, {});
    case "range":
      return services.kv.range(call.request, {});
    case "txn":
      return services.kv.txn(call.request, {});
    default:
      return call satisfies never;
  }
}

async function load(services: Services, from: number, upTo: number, valueBytes: number): Promise<void> {
  const calls = loadCalls(from, upTo, valueBytes);
  const worker = async (): Promise<void> => {
    for (const call of calls) await ask(services, call);
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}

async function run(services: Services, job: EmbeddedRequest & { kind: "run" }): Promise<EmbeddedAnswer> {
  const calls = makeCalls(job.operation, job);
  const latencies = new Latencies();
  let [measuring, over, failures, next] = [false, false, 0, 0];
  // Answers from memory come without a turn of the event loop: callers that only read would keep everything else from running.
  let turnSince = performance.now();
  let turn: Promise<void> | undefined;
  const caller = async (): Promise<void> => {
    while (!over) {
      if (performance.now() - turnSince > TURN_MS) {
        turn ??= pause(0).then(() => {
          turn = undefined;
          turnSince = performance.now();
        });
        await turn;
      }
      next = next + 1 === calls.length ? 0 : next + 1;
      const calledAt = performance.now();
      try {
        await ask(services, calls[next] as Call);
        if (measuring) latencies.add(performance.now() - calledAt);
      } catch {
        if (measuring) failures += 1;
      }
    }
  };
  const callers = Array.from({ length: job.callers }, caller);
  await pause(job.warmUpMs);
  measuring = true;
  const [start, usage] = [performance.now(), process.cpuUsage()];
  await pause(job.durationMs);
  measuring = false;
  const used = process.cpuUsage(usage);
  const elapsedMs = performance.now() - start;
  over = true;
  await Promise.all(callers);
  const [p50Ms = 0, p99Ms = 0] = latencies.percentiles(50, 99);
  return {
    kind: "run",
    result: { operations: latencies.count, failures, elapsedMs, p50Ms, p99Ms },
    processorMs: (used.user + used.system) / 1000,
  };
}

/** One piece of the work; false when it can be done only once. */
async function doWork(services: Services, work: LoopWork, keys: number, valueBytes: number): Promise<boolean> {
  const all = { key: Buffer.from([0]), rangeEnd: Buffer.from([0]) };
  const api = await import("../../../src/api/index.ts");
  switch (work) {
    case "idle":
      await pause(100);
      return true;
    case "puts": {
      const calls = makeCalls("put", { keys, valueBytes }, 512);
      await Promise.all(calls.map((call) => ask(services, call)));
      return true;
    }
    case "range-all":
      // The whole answer, as a stream, so that no skin's work is in it.
      for await (const _ of services.kv.rangeStream(api.RangeRequest.create(all), {})) await pause(0);
      return true;
    case "count-all":
      await services.kv.range(api.RangeRequest.create({ ...all, countOnly: true }), {});
      return true;
    case "compact": {
      // Something to remove: every key once more.
      const { header } = await services.maintenance.status(api.StatusRequest.create({}), {});
      await services.kv.compact(api.CompactionRequest.create({ revision: header?.revision ?? 0, physical: true }), {});
      return false;
    }
    case "hash":
      await services.maintenance.hash(api.HashRequest.create({}), {});
      return true;
    case "hash-kv":
      await services.maintenance.hashKv(api.HashKVRequest.create({}), {});
      return true;
    case "snapshot":
      for await (const _ of services.maintenance.snapshot(api.SnapshotRequest.create({}), {})) await pause(0);
      return true;
    case "defragment":
      await services.maintenance.defragment(api.DefragmentRequest.create({}), {});
      return true;
    default:
      return work satisfies never;
  }
}

async function watchLoop(services: Services, job: EmbeddedRequest & { kind: "watch-loop" }): Promise<LoopResult> {
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  const start = performance.now();
  let times = 0;
  do {
    times += 1;
    if (!(await doWork(services, job.work, job.keys, job.valueBytes))) break;
  } while (performance.now() - start < job.durationMs);
  const eachMs = (performance.now() - start) / times;
  histogram.disable();
  // The monitor is a timer of one millisecond: that much is not delay.
  const ms = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - 1);
  return { maxMs: ms(histogram.max), p999Ms: ms(histogram.percentile(99.9)), p99Ms: ms(histogram.percentile(99)), times, eachMs };
}

async function answer(request: EmbeddedRequest): Promise<EmbeddedAnswer> {
  switch (request.kind) {
    case "start": {
      const { startEtcd } = (await import(pathToFileURL(request.module).href)) as { startEtcd(config: object): Promise<EmbeddedMember> };
      member = await startEtcd(request.config);
      await member.ready;
      return { kind: "done" };
    }
    case "load":
      await load(started().services, request.from, request.upTo, request.valueBytes);
      return { kind: "done" };
    case "run":
      return run(started().services, request);
    case "watch-loop":
      return { kind: "loop", result: await watchLoop(started().services, request) };
    case "identity":
      return { kind: "identity", id: started().id, leader: started().leader };
    default:
      return request satisfies never;
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => (ms === 0 ? setImmediate(resolve) : setTimeout(resolve, ms)));
}

process.on("disconnect", () => process.exit());
process.on("message", (request: EmbeddedRequest) => {
  answer(request).then(
    (message) => process.send?.(message),
    (error: Error) => process.send?.({ kind: "failed", reason: error.stack ?? error.message } satisfies EmbeddedAnswer),
  );
});
