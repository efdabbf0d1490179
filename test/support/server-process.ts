/**
 * Members as real processes: holdfast's or another program that takes etcd's flags. Used by the benchmarks and by the chaos scenarios.
 * What a member prints goes into a file; nothing is read from pipes, so that a stopped reader never stops a member.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { request } from "node:http";

/** How to run a member: the program and its first arguments. */
export interface ServerKind {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
}

/** holdfast's own built command; `nodeFlags` go to the runtime. */
export function holdfastKind(script: string, nodeFlags: readonly string[] = []): ServerKind {
  return { name: "holdfast", command: [process.execPath, ...nodeFlags, script] };
}

export function etcdKind(binary: string): ServerKind {
  return { name: "etcd", command: [binary] };
}

export interface MemberSpec {
  readonly name: string;
  /** Where clients are served, and what is advertised to them. */
  readonly clientUrl: string;
  /** What the member advertises to its peers. */
  readonly peerUrl: string;
  /** Where it listens for peers, when a proxy stands between. */
  readonly peerListenUrl?: string;
  readonly dataDir: string;
}

export interface ClusterSpec {
  readonly token: string;
  readonly initialCluster: string;
  readonly state: "new" | "existing";
}

/** The flags that every member needs. */
export function memberFlags(member: MemberSpec, cluster: ClusterSpec): string[] {
  return [
    ...["--name", member.name, "--data-dir", member.dataDir],
    ...["--listen-client-urls", member.clientUrl, "--advertise-client-urls", member.clientUrl],
    ...["--listen-peer-urls", member.peerListenUrl ?? member.peerUrl, "--initial-advertise-peer-urls", member.peerUrl],
    ...["--initial-cluster", cluster.initialCluster, "--initial-cluster-token", cluster.token],
    ...["--initial-cluster-state", cluster.state],
  ];
}

export interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Whatever happens to this process, its members end with it. */
const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

export class ServerProcess {
  readonly #child: ChildProcess;
  readonly #logFile: string;
  readonly #logFrom: number;
  readonly ended: Promise<Ending>;
  #ending: Ending | undefined;

  /** Starts it; what it prints is appended to `logFile`. */
  constructor(kind: ServerKind, flags: readonly string[], logFile: string, environment: NodeJS.ProcessEnv = process.env) {
    this.#logFile = logFile;
    this.#logFrom = existsSync(logFile) ? readFileSync(logFile).length : 0;
    const out = openSync(logFile, "a");
    const [program, ...first] = kind.command;
    this.#child = spawn(program, [...first, ...flags], { stdio: ["ignore", out, out], env: environment });
    closeSync(out);
    running.add(this.#child);
    this.ended = new Promise((resolve) => {
      const settle = (ending: Ending): void => {
        running.delete(this.#child);
        this.#ending ??= ending;
        resolve(this.#ending);
      };
      this.#child.on("exit", (code, signal) => settle({ code, signal }));
      this.#child.on("error", () => settle({ code: -1, signal: null }));
    });
  }

  /** 0 when it could not be started. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** How it ended; undefined while it runs. */
  get ending(): Ending | undefined {
    return this.#ending;
  }

  /** What this run of the member has printed so far. */
  output(): string {
    return readFileSync(this.#logFile).subarray(this.#logFrom).toString("utf8");
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#ending === undefined) this.#child.kill(signal);
  }

  /** SIGKILL, and waits for its end. */
  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.ended;
  }

  /** SIGTERM; SIGKILL if that takes too long. True if it ended by itself. */
  async stop(deadlineMs = 20_000): Promise<boolean> {
    this.signal("SIGTERM");
    const timer = setTimeout(() => this.signal("SIGKILL"), deadlineMs);
    const { signal } = await this.ended;
    clearTimeout(timer);
    return signal !== "SIGKILL";
  }
}

/** Processor time of a process so far, in milliseconds, user and system together; 0 if it is gone or the system does not tell. */
export function processorMs(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // Fields 14 and 15 of the line, in hundredths of a second.
    return (Number(fields[11]) + Number(fields[12])) * 10;
  } catch {
    return 0;
  }
}

/** Resident memory of a process in bytes; 0 if it is gone or the system does not tell. */
export function residentBytes(pid: number): number {
  try {
    const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1];
    return Number(kilobytes ?? 0) * 1024;
  } catch {
    return 0;
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until `check` gives something but undefined or false; a check that throws counts as false. */
export async function until<T>(
  what: string,
  deadlineMs: number,
  check: () => T | undefined | false | Promise<T | undefined | false>,
  everyMs = 25,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await check();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      last = error;
    }
    if (performance.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`, { cause: last });
    await sleep(everyMs);
  }
}

/** One POST with a JSON body, on a connection of its own. Rejects when there is no whole answer within the deadline. */
export function postJson(url: string, path: string, body: unknown, deadlineMs = 10_000): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const call = request(`${url}${path}`, { method: "POST", agent: false }, (answer) => {
      const parts: Buffer[] = [];
      answer.on("data", (part: Buffer) => parts.push(part));
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(parts).toString("utf8") }));
      answer.on("error", reject);
    });
    const timer = setTimeout(() => call.destroy(new Error(`no answer within ${deadlineMs} ms`)), deadlineMs);
    call.on("error", reject);
    call.on("close", () => clearTimeout(timer));
    call.end(JSON.stringify(body));
  });
}

/** Waits until the member answers a linearizable read. */
export async function untilServing(server: ServerProcess, clientUrl: string, deadlineMs = 30_000): Promise<void> {
  await until(`${clientUrl} serves`, deadlineMs, async () => {
    if (server.ending !== undefined) return "ended";
    return (await postJson(clientUrl, "/v3/kv/range", { key: "AA==" }, 2000)).status === 200;
  });
  if (server.ending !== undefined) throw new Error(`the member ended at start:\n${server.output().slice(-2000)}`);
}
