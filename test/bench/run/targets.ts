/** The servers under measurement, and the processes that ask them. */
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  type MemberSpec,
  memberFlags,
  postJson,
  processorMs,
  residentBytes,
  type ServerKind,
  ServerProcess,
  until,
  untilServing,
} from "../../support/server-process.ts";
import type { EmbeddedAnswer, EmbeddedRequest } from "./embedded-process.ts";
import type { FillJob, LoadJob, LoadMessage } from "./load-process.ts";
import type { LoadResult } from "./samples.ts";

/** A cluster of one kind. */
export class Target {
  readonly kind: ServerKind;
  readonly members: readonly MemberSpec[];
  readonly #directory: string;
  readonly #flags: readonly string[];
  readonly #processes = new Map<string, ServerProcess>();
  readonly #initialCluster: string;

  constructor(kind: ServerKind, size: number, portBase: number, flags: readonly string[] = []) {
    this.kind = kind;
    this.#flags = flags;
    this.#directory = mkdtempSync(join(tmpdir(), `holdfast-bench-${kind.name}-`));
    this.members = Array.from({ length: size }, (_, n) => ({
      name: `n${n + 1}`,
      clientUrl: `http://127.0.0.1:${portBase + 2 * n}`,
      peerUrl: `http://127.0.0.1:${portBase + 2 * n + 1}`,
      dataDir: join(this.#directory, `n${n + 1}`),
    }));
    this.#initialCluster = this.members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
  }

  get urls(): string[] {
    return this.members.map(({ clientUrl }) => clientUrl);
  }

  /** Starts all members (or all but some) and waits until they serve. */
  async start({ without = [] as readonly string[] } = {}): Promise<void> {
    const starting = this.members.filter(({ name }) => !without.includes(name));
    for (const member of starting) {
      const flags = [
        ...memberFlags(member, { token: `bench-${this.kind.name}`, initialCluster: this.#initialCluster, state: "new" }),
        ...["--log-level", "warn"],
        ...this.#flags,
      ];
      this.#processes.set(member.name, new ServerProcess(this.kind, flags, join(this.#directory, `${member.name}.log`)));
    }
    if (without.length > 0) return;
    await this.untilServing();
  }

  async untilServing(): Promise<void> {
    for (const [name, process] of this.#processes) {
      await untilServing(process, this.members.find((member) => member.name === name)?.clientUrl ?? "", 120_000);
    }
  }

  get initialCluster(): string {
    return this.#initialCluster;
  }

  /** Orderly end of all members, data kept. */
  async stop(): Promise<void> {
    await Promise.all([...this.#processes.values()].map((process) => process.stop()));
    this.#processes.clear();
  }

  /** Ends everything and removes the data. */
  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  processorMs(): number {
    return sum([...this.#processes.values()].map(({ pid }) => processorMs(pid)));
  }

  residentBytes(): number {
    return sum([...this.#processes.values()].map(({ pid }) => residentBytes(pid)));
  }

  /** What the members have logged. */
  output(): string {
    return [...this.#processes.values()].map((process) => process.output()).join("\n");
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

const LOAD_PROCESS = fileURLToPath(new URL("load-process.ts", import.meta.url));
const EMBEDDED_PROCESS = fileURLToPath(new URL("embedded-process.ts", import.meta.url));

/** The load generator. */
export class Loader {
  readonly #child: ChildProcess = fork(LOAD_PROCESS, [], { execArgv: ["--import", "tsx"] });

  /** Writes the keys `from` to `upTo - 1`. */
  async load(urls: readonly string[], from: number, upTo: number, valueBytes: number): Promise<void> {
    await this.#ask({ kind: "fill", urls, from, upTo, valueBytes }, 60_000 + (upTo - from), () => 0);
  }

  /** Runs one job; `cpu` is read at both ends of the measured time. */
  run(job: LoadJob, cpu: () => number): Promise<{ load: LoadResult; processorMs: number }> {
    return this.#ask(job, job.warmUpMs + job.durationMs + 30_000, cpu);
  }

  async #ask(job: LoadJob | FillJob, deadlineMs: number, cpu: () => number): Promise<{ load: LoadResult; processorMs: number }> {
    let from = 0;
    let used = 0;
    const load = await new Promise<LoadResult>((resolve, reject) => {
      const timer = setTimeout(() => settle(new Error("the load generator does not answer")), deadlineMs);
      const settle = (outcome: LoadResult | Error): void => {
        clearTimeout(timer);
        this.#child.removeListener("message", listen);
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome);
      };
      const listen = (message: LoadMessage): void => {
        if (message.kind === "measuring") from = cpu();
        else if (message.kind === "measured") used = cpu() - from;
        else if (message.kind === "result") settle(message.result);
        else settle(new Error(message.reason));
      };
      this.#child.on("message", listen);
      this.#child.send(job);
    });
    return { load, processorMs: used };
  }

  close(): void {
    this.#child.kill();
  }
}

/** A process that embeds a member. */
export class Embedded {
  readonly #child: ChildProcess;

  constructor(nodeFlags: readonly string[] = []) {
    this.#child = fork(EMBEDDED_PROCESS, [], { execArgv: [...nodeFlags, "--import", "tsx"] });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Asks it one thing; nothing else may be under way. */
  ask(request: EmbeddedRequest, deadlineMs = 120_000): Promise<EmbeddedAnswer> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => settle(undefined, new Error("the embedding process does not answer")), deadlineMs);
      const settle = (answer: EmbeddedAnswer | undefined, error: Error): void => {
        clearTimeout(timer);
        this.#child.removeListener("message", listen);
        this.#child.removeListener("exit", exited);
        if (answer === undefined) reject(error);
        else resolve(answer);
      };
      const exited = (): void => settle(undefined, new Error("the embedding process has ended"));
      const listen = (answer: EmbeddedAnswer): void => {
        if (answer.kind === "failed") settle(undefined, new Error(answer.reason));
        else settle(answer, new Error("unreachable"));
      };
      this.#child.on("message", listen);
      this.#child.on("exit", exited);
      this.#child.send(request);
    });
  }

  residentBytes(): number {
    return residentBytes(this.pid);
  }

  /** Makes the embedded member the leader of its cluster. */
  async lead(target: Target): Promise<void> {
    await until("the embedded member leads", 30_000, async () => {
      const answer = await this.ask({ kind: "identity" });
      if (answer.kind !== "identity") return false;
      if (answer.leader === answer.id) return true;
      const targetID = BigInt(`0x${answer.id}`).toString();
      for (const url of target.urls.slice(1)) await postJson(url, "/v3/maintenance/transfer-leadership", { targetID });
      return false;
    });
  }

  /** Ends it as it is. */
  close(): void {
    this.#child.kill("SIGKILL");
  }
}
