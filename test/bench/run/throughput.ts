/** Callers against clusters: the servers of all kinds run at the same time and are asked in turns, so that what the machine does hits all alike. */

import type { OperationName } from "./operations.ts";
import type { BenchOptions } from "./options.ts";
import type { ProtocolName } from "./protocols.ts";
import type { Report } from "./report.ts";
import { type LoadResult, median } from "./samples.ts";
import { Embedded, Loader, Target } from "./targets.ts";

interface Round {
  readonly load: LoadResult;
  readonly processorMs: number;
}

interface Summary {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly microsEach: number;
  readonly failures: number;
}

const HEAD = ["", "ops/s", "p50 ms", "p99 ms", "CPU us/op", "RSS MB", "failed", "ops ratio", "p99 ratio", "CPU ratio"];

export async function networkSuite(protocol: ProtocolName, options: BenchOptions, report: Report): Promise<void> {
  for (const size of options.sizes) {
    const loader = new Loader();
    const targets = options.kinds.map((kind, n) => new Target(kind, size, options.portBase + 8 * n));
    try {
      for (const target of targets) await target.start();
      for (const target of targets) await fill(loader, target, options);
      for (const target of targets) await warmUp(loader, target, protocol, options);
      const table = report.table(`${protocol}, ${size} member${size === 1 ? "" : "s"}`, HEAD);
      for (const operation of options.operations) {
        for (const callers of options.callers) {
          const rounds = targets.map((): Round[] => []);
          for (let round = 0; round < options.rounds; round += 1) {
            for (const [n, target] of targets.entries()) {
              const job = { protocol, operation, urls: target.urls, callers, ...shape(options) };
              rounds[n]?.push(await loader.run(job, () => target.processorMs()));
            }
          }
          const [ours, theirs] = rounds.map(summarize);
          if (ours === undefined) continue;
          const memory = targets.map((target) => target.residentBytes() / 1e6);
          row(table, `${operation} x${callers} holdfast`, ours, memory[0], theirs);
          if (theirs !== undefined) row(table, `${operation} x${callers} etcd`, theirs, memory[1], undefined);
        }
      }
    } finally {
      loader.close();
      for (const target of targets) await target.remove();
    }
  }
}

function shape(options: BenchOptions): { keys: number; valueBytes: number; warmUpMs: number; durationMs: number } {
  return { keys: options.keys, valueBytes: options.valueBytes, warmUpMs: options.seconds * 250, durationMs: options.seconds * 1000 };
}

/** Writes every key once. */
async function fill(loader: Loader, target: Target, options: BenchOptions): Promise<void> {
  await loader.load(target.urls, 0, options.keys, options.valueBytes);
}

/** So that no measurement pays for compiling what a server runs. */
async function warmUp(loader: Loader, target: Target, protocol: ProtocolName, options: BenchOptions): Promise<void> {
  for (const operation of options.operations) {
    await loader.run({ protocol, operation, urls: target.urls, callers: 64, ...shape(options), warmUpMs: 1000, durationMs: 100 }, () => 0);
  }
}

function summarize(rounds: readonly Round[]): Summary {
  return {
    perSecond: median(rounds.map(({ load }) => (load.operations * 1000) / load.elapsedMs)),
    p50Ms: median(rounds.map(({ load }) => load.p50Ms)),
    p99Ms: median(rounds.map(({ load }) => load.p99Ms)),
    microsEach: median(rounds.map(({ load, processorMs }) => (processorMs * 1000) / Math.max(1, load.operations))),
    failures: rounds.reduce((total, { load }) => total + load.failures, 0),
  };
}

function row(
  table: ReturnType<Report["table"]>,
  name: string,
  one: Summary,
  memoryMb: number | undefined,
  other: Summary | undefined,
): void {
  table.row([
    name,
    Math.round(one.perSecond),
    one.p50Ms,
    one.p99Ms,
    one.microsEach,
    memoryMb === undefined ? undefined : Math.round(memoryMb),
    one.failures,
    ...(other === undefined ? [] : [one.perSecond / other.perSecond, one.p99Ms / other.p99Ms, one.microsEach / other.microsEach]),
  ]);
}

/** A member inside the callers' own process; of a larger cluster, the others are processes of their own and the embedded one leads. */
export async function embeddedSuite(options: BenchOptions, report: Report): Promise<void> {
  const [ours, theirs] = options.kinds;
  if (ours === undefined) return;
  for (const size of options.sizes) {
    const target = new Target(ours, size, options.portBase);
    const reference = theirs === undefined ? undefined : new Target(theirs, size, options.portBase + 8);
    const embedded = new Embedded(options.nodeFlags);
    const loader = new Loader();
    try {
      const [own] = target.members;
      if (own === undefined) continue;
      if (reference !== undefined) {
        await reference.start();
        await fill(loader, reference, options);
      }
      await target.start({ without: [own.name] });
      await embedded.ask({
        kind: "start",
        module: options.module,
        config: {
          name: own.name,
          dataDir: own.dataDir,
          listenClientUrls: [],
          advertiseClientUrls: [own.clientUrl],
          listenPeerUrls: [own.peerUrl],
          initialAdvertisePeerUrls: [own.peerUrl],
          initialCluster: target.initialCluster,
          initialClusterToken: "bench-holdfast",
        },
      });
      await target.untilServing();
      await embedded.lead(target);
      await embedded.ask({ kind: "load", from: 0, upTo: options.keys, valueBytes: options.valueBytes });
      const title = `in process, ${size} member${size === 1 ? "" : "s"} (CPU: callers and this member; etcd: JSON, server only)`;
      const table = report.table(title, HEAD);
      for (const operation of options.operations) {
        for (const callers of options.callers) {
          const [mine, other]: [Round[], Round[]] = [[], []];
          for (let round = 0; round < options.rounds; round += 1) {
            mine.push(await runEmbedded(embedded, operation, callers, options));
            if (reference === undefined) continue;
            const job = { protocol: "json", operation, urls: reference.urls, callers, ...shape(options) } as const;
            other.push(await loader.run(job, () => reference.processorMs()));
          }
          const second = other.length === 0 ? undefined : summarize(other);
          row(table, `${operation} x${callers} in process`, summarize(mine), embedded.residentBytes() / 1e6, second);
          if (second !== undefined) row(table, `${operation} x${callers} etcd JSON`, second, undefined, undefined);
        }
      }
    } finally {
      embedded.close();
      loader.close();
      await target.remove();
      await reference?.remove();
    }
  }
}

async function runEmbedded(embedded: Embedded, operation: OperationName, callers: number, options: BenchOptions): Promise<Round> {
  const answer = await embedded.ask({ kind: "run", operation, callers, ...shape(options) });
  if (answer.kind !== "run") throw new Error("unexpected answer");
  return { load: answer.result, processorMs: answer.processorMs };
}
