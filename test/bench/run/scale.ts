/** Much of everything: a million keys, ten thousand watchers, a hundred thousand leases, and how long the event loop is held up by work over all of it. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { postJson, type ServerKind } from "../../support/server-process.ts";
import { LOOP_WORK } from "./embedded-process.ts";
import type { BenchOptions } from "./options.ts";
import type { Report } from "./report.ts";
import { median } from "./samples.ts";
import type { ScaleAnswer, ScaleJob } from "./scale-process.ts";
import { Embedded, Loader, Target } from "./targets.ts";

const SCALE_PROCESS = fileURLToPath(new URL("scale-process.ts", import.meta.url));
const MILLION = 1_000_000;
const EVERYTHING = { key: "AA==", range_end: "AA==" };
/** More than any suite stores. */
const QUOTA = ["--quota-backend-bytes", "8000000000"];

class ScaleClient {
  readonly #child: ChildProcess = fork(SCALE_PROCESS, [], { execArgv: ["--import", "tsx"] });

  ask<Kind extends ScaleAnswer["kind"]>(job: ScaleJob, kind: Kind, deadlineMs = 300_000): Promise<ScaleAnswer & { kind: Kind }> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the client process does not answer")), deadlineMs);
      this.#child.once("message", (answer: ScaleAnswer) => {
        clearTimeout(timer);
        if (answer.kind === kind) resolve(answer as ScaleAnswer & { kind: Kind });
        else reject(new Error(answer.kind === "failed" ? answer.reason : `unexpected answer ${answer.kind}`));
      });
      this.#child.send(job);
    });
  }

  close(): void {
    this.#child.kill();
  }
}

/** Rows of one figure for every server, and their ratio. */
function compared(report: Report, title: string, options: BenchOptions): (name: string, values: readonly number[]) => void {
  const table = report.table(title, ["", ...options.kinds.map(({ name }) => name), "ratio"]);
  return (name, values) => {
    const [ours, theirs] = values;
    table.row([name, ...values, ours !== undefined && theirs ? ours / theirs : undefined]);
  };
}

async function inTurns<T>(kinds: readonly ServerKind[], one: (kind: ServerKind, n: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  for (const [n, kind] of kinds.entries()) results.push(await one(kind, n));
  return results;
}

// -- keys ------------------------------------------------------------------------------------------------------------------------------------

interface KeyFigures {
  readonly loadPerSecond: number;
  readonly smallPutMs: number;
  readonly putMs: number;
  readonly residentMb: number;
  readonly countMs: number;
  readonly restartMs: number;
  readonly residentAfterMb: number;
}

export async function scaleKeys(options: BenchOptions, report: Report): Promise<void> {
  const keys = Math.round(MILLION * options.scale);
  const figures = await inTurns(options.kinds, (kind, n) => measureKeys(kind, n, keys, options));
  const row = compared(report, `${keys} keys of 16 bytes, values of ${options.valueBytes} bytes, 1 member`, options);
  const all = (name: string, of: (one: KeyFigures) => number): void => row(name, figures.map(of));
  all("keys stored per s", (one) => one.loadPerSecond);
  all("put p50 ms with 1,000 keys", (one) => one.smallPutMs);
  all("put p50 ms with all keys", (one) => one.putMs);
  all("  all / 1,000", (one) => one.putMs / one.smallPutMs);
  all("count-only range over all, ms", (one) => one.countMs);
  all("restart to serving, ms", (one) => one.restartMs);
  all("resident MB", (one) => one.residentMb);
  all("resident MB after the restart", (one) => one.residentAfterMb);
}

async function measureKeys(kind: ServerKind, n: number, keys: number, options: BenchOptions): Promise<KeyFigures> {
  const target = new Target(kind, 1, options.portBase + 8 * n, QUOTA);
  const loader = new Loader();
  const put = async (existing: number): Promise<number> => {
    const times: number[] = [];
    for (let round = 0; round < options.rounds; round += 1) {
      const job = {
        protocol: "json",
        operation: "put",
        urls: target.urls,
        callers: 16,
        keys: existing,
        valueBytes: options.valueBytes,
        warmUpMs: 1000,
        durationMs: options.seconds * 1000,
      } as const;
      times.push((await loader.run(job, () => 0)).load.p50Ms);
    }
    return median(times);
  };
  try {
    await target.start();
    await loader.load(target.urls, 0, 1000, options.valueBytes);
    const smallPutMs = await put(1000);
    const loading = performance.now();
    await loader.load(target.urls, 1000, keys, options.valueBytes);
    const loadPerSecond = (keys * 1000) / (performance.now() - loading);
    const putMs = await put(keys);
    const residentMb = target.residentBytes() / 1e6;
    const countMs = await timed(9, () => count(target, keys));
    await target.stop();
    const restarting = performance.now();
    await target.start();
    const restartMs = performance.now() - restarting;
    await count(target, keys);
    return { loadPerSecond, smallPutMs, putMs, residentMb, countMs, restartMs, residentAfterMb: target.residentBytes() / 1e6 };
  } finally {
    loader.close();
    await target.remove();
  }
}

async function timed(times: number, work: () => Promise<void>): Promise<number> {
  const all: number[] = [];
  for (let i = 0; i < times; i += 1) {
    const start = performance.now();
    await work();
    all.push(performance.now() - start);
  }
  return median(all);
}

async function count(target: Target, keys: number): Promise<void> {
  const { text } = await postJson(target.urls[0] ?? "", "/v3/kv/range", { ...EVERYTHING, count_only: true }, 60_000);
  const found = (JSON.parse(text) as { count?: string }).count;
  if (found !== String(keys)) throw new Error(`${found} keys instead of ${keys}: ${text}`);
}

// -- watchers --------------------------------------------------------------------------------------------------------------------------------

export async function scaleWatch(options: BenchOptions, report: Report): Promise<void> {
  const watchers = Math.max(100, Math.round(10_000 * options.scale));
  const matching = Math.max(10, Math.round(1000 * options.scale));
  const targets = options.kinds.map((kind, n) => new Target(kind, 1, options.portBase + 8 * n));
  const clients = targets.map(() => new ScaleClient());
  try {
    const bytesEach = await inTurns(options.kinds, async (_, n) => {
      const [target, client] = [targets[n] as Target, clients[n] as ScaleClient];
      await target.start();
      const before = target.residentBytes();
      await client.ask({ kind: "watch", url: target.urls[0] ?? "", streams: 100, watchers, matching }, "watching");
      return (target.residentBytes() - before) / watchers;
    });
    const rates = targets.map((): number[] => []);
    for (let round = 0; round <= options.rounds; round += 1) {
      for (const [n, client] of clients.entries()) {
        const { events, elapsedMs } = await client.ask({ kind: "deliver", puts: 500, valueBytes: options.valueBytes }, "delivered");
        // The first round warms up.
        if (round > 0) rates[n]?.push((events * 1000) / elapsedMs);
      }
    }
    const row = compared(report, `${watchers} watchers over 100 streams, ${matching} of them see each put`, options);
    row("events delivered per s", rates.map(median));
    row("resident bytes per idle watcher", bytesEach);
  } finally {
    for (const client of clients) client.close();
    for (const target of targets) await target.remove();
  }
}

// -- leases ----------------------------------------------------------------------------------------------------------------------------------

export async function scaleLeases(options: BenchOptions, report: Report): Promise<void> {
  const leases = Math.round(100_000 * options.scale);
  const figures = await inTurns(options.kinds, async (kind, n) => {
    const target = new Target(kind, 3, options.portBase + 8 * n);
    const client = new ScaleClient();
    try {
      await target.start();
      const before = target.residentBytes();
      const elections = await leaderChanges(target);
      const [url = ""] = target.urls;
      const job = { kind: "lease", url, leases, ttl: 60, durationMs: 60_000, expiring: 1000 } as const;
      const { result } = await client.ask(job, "leased");
      return { ...result, elections: (await leaderChanges(target)) - elections, bytes: (target.residentBytes() - before) / (3 * leases) };
    } finally {
      client.close();
      await target.remove();
    }
  });
  const row = compared(
    report,
    `${leases} leases of 60 s, each renewed three times in that time, and 1000 of 5 s that are not; 3 members`,
    options,
  );
  type Figures = (typeof figures)[number];
  const all = (name: string, of: (one: Figures) => number): void => row(name, figures.map(of));
  all("grants per s", (one) => one.grantsPerSecond);
  all("renewals", (one) => one.renewals);
  all("refused renewals", (one) => one.refusedRenewals);
  all("slowest renewal, ms", (one) => one.slowestRenewalMs);
  all("elections meanwhile", (one) => one.elections);
  all("expiry after its time, median ms", (one) => one.medianExpiryMs);
  all("expiry after its time, latest ms", (one) => one.latestExpiryMs);
  all("ended early", (one) => one.early);
  all("resident bytes per lease and member", (one) => one.bytes);
}

async function leaderChanges(target: Target): Promise<number> {
  const texts = await Promise.all(target.urls.map(async (url) => (await fetch(`${url}/metrics`)).text()));
  return Math.max(...texts.map((text) => Number(/^etcd_server_leader_changes_seen_total (\d+)/m.exec(text)?.[1] ?? 0)));
}

// -- the event loop --------------------------------------------------------------------------------------------------------------------------

/** How long an embedding program's event loop is held up while its member works, with so many keys. */
export async function eventLoop(keys: number, options: BenchOptions, report: Report): Promise<void> {
  const [ours] = options.kinds;
  if (ours === undefined) return;
  const target = new Target(ours, 1, options.portBase);
  const embedded = new Embedded(options.nodeFlags);
  try {
    const [own] = target.members;
    const config = { name: own?.name, dataDir: own?.dataDir, listenClientUrls: [], listenPeerUrls: [], quotaBackendBytes: 8e9 };
    await embedded.ask({ kind: "start", module: options.module, config });
    const shape = { keys, valueBytes: options.valueBytes };
    await embedded.ask({ kind: "load", from: 0, upTo: keys, valueBytes: options.valueBytes }, 600_000);
    const table = report.table(`event loop held up, ${keys} keys (delay of a timer of 1 ms)`, [
      "",
      "max ms",
      "p99.9 ms",
      "p99 ms",
      "times",
      "each ms",
    ]);
    for (const work of LOOP_WORK) {
      // Something to remove: every key once more.
      if (work === "compact") await embedded.ask({ kind: "load", from: 0, upTo: keys, valueBytes: options.valueBytes }, 600_000);
      const answer = await embedded.ask({ kind: "watch-loop", work, durationMs: options.seconds * 1000, ...shape }, 600_000);
      if (answer.kind !== "loop") throw new Error("unexpected answer");
      const { maxMs, p999Ms, p99Ms, times, eachMs } = answer.result;
      table.row([work, maxMs, p999Ms, p99Ms, times, eachMs]);
    }
  } finally {
    embedded.close();
    await target.remove();
  }
}
