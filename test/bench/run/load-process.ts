/** The load generator, a process of its own: runs callers against servers as told by its parent, and reports. */
import { loadCalls, makeCalls, type OperationName } from "./operations.ts";
import { type Connection, PROTOCOLS, type ProtocolName } from "./protocols.ts";
import { Latencies, type LoadResult } from "./samples.ts";

/** Writes keys once, by large transactions over JSON. */
export interface FillJob {
  readonly kind: "fill";
  readonly urls: readonly string[];
  readonly from: number;
  readonly upTo: number;
  readonly valueBytes: number;
}

export interface LoadJob {
  readonly kind?: "run";
  readonly protocol: ProtocolName;
  readonly operation: OperationName;
  readonly urls: readonly string[];
  readonly callers: number;
  readonly keys: number;
  readonly valueBytes: number;
  readonly warmUpMs: number;
  readonly durationMs: number;
}

/** Messages to the parent: "measuring" when the warm-up is over, "measured" when the time is, then the result. */
export type LoadMessage =
  | { readonly kind: "measuring" }
  | { readonly kind: "measured" }
  | { readonly kind: "result"; readonly result: LoadResult }
  | { readonly kind: "failed"; readonly reason: string };

function tell(message: LoadMessage): void {
  process.send?.(message);
}

const NOTHING: LoadResult = { operations: 0, failures: 0, elapsedMs: 0, p50Ms: 0, p99Ms: 0 };

async function fill(job: FillJob): Promise<LoadResult> {
  const { json: protocol } = PROTOCOLS;
  const calls = loadCalls(job.from, job.upTo, job.valueBytes);
  const worker = async (at: number): Promise<void> => {
    const url = new URL(job.urls[at % job.urls.length] ?? "");
    const connection = await protocol.open(url.hostname, Number(url.port), url.host, "txn");
    for (const call of calls) {
      const request = protocol.encode(call, url.host);
      const succeeded = await new Promise<boolean>((resolve) => connection.send(request, resolve));
      if (!succeeded) throw new Error(`${url.host} refuses the data`);
    }
    connection.close();
  };
  await Promise.all([0, 1, 2, 3].map(worker));
  return NOTHING;
}

async function run(job: LoadJob): Promise<LoadResult> {
  const protocol = PROTOCOLS[job.protocol];
  const [first] = job.urls.map((url) => new URL(url).host);
  const calls = makeCalls(job.operation, job);
  const requests = calls.map((call) => protocol.encode(call, first ?? ""));
  const method = calls[0]?.method ?? "put";
  const connections: Connection[] = [];
  for (let at = 0; at < Math.ceil(job.callers / protocol.callersPerConnection); at += 1) {
    const url = new URL(job.urls[at % job.urls.length] ?? "");
    connections.push(await protocol.open(url.hostname, Number(url.port), url.host, method));
  }

  const latencies = new Latencies();
  let measuring = false;
  let over = false;
  let failures = 0;
  let next = 0;
  let running = job.callers;
  const ended = new Promise<void>((resolve) => {
    const caller = (connection: Connection): void => {
      let calledAt = 0;
      const send = (): void => {
        if (over) {
          running -= 1;
          if (running === 0) resolve();
          return;
        }
        next = next + 1 === requests.length ? 0 : next + 1;
        calledAt = performance.now();
        connection.send(requests[next] as Buffer, answered);
      };
      const answered = (succeeded: boolean): void => {
        if (measuring) {
          if (succeeded) latencies.add(performance.now() - calledAt);
          else failures += 1;
        }
        send();
      };
      send();
    };
    for (let n = 0; n < job.callers; n += 1) caller(connections[Math.floor(n / protocol.callersPerConnection)] as Connection);
  });
  await pause(job.warmUpMs);
  tell({ kind: "measuring" });
  measuring = true;
  const start = performance.now();
  await pause(job.durationMs);
  measuring = false;
  const elapsedMs = performance.now() - start;
  over = true;
  tell({ kind: "measured" });
  // Whoever still waits is cut off.
  await Promise.race([ended, pause(2000)]);
  for (const connection of connections) connection.close();
  const [p50Ms = 0, p99Ms = 0] = latencies.percentiles(50, 99);
  return { operations: latencies.count, failures, elapsedMs, p50Ms, p99Ms };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

process.on("disconnect", () => process.exit());
process.on("message", (job: LoadJob | FillJob) => {
  (job.kind === "fill" ? fill(job) : run(job)).then(
    (result) => tell({ kind: "result", result }),
    (error: Error) => tell({ kind: "failed", reason: error.stack ?? error.message }),
  );
});
