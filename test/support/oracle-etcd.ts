/**
 * A real etcd as a child process, spoken to over its JSON gateway. HOLDFAST_ORACLE_ETCD names the binary; where it is not set, tests
 * that need it skip and say so.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type MessageType, parseJson, printJson } from "../../src/api/index.ts";

export const ORACLE_ETCD: string | undefined = process.env.HOLDFAST_ORACLE_ETCD;
export const ORACLE_MISSING = "HOLDFAST_ORACLE_ETCD does not name an etcd binary";

const START_DEADLINE_MS = 20_000;

/** A refusal of the server. */
export class OracleError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

export class OracleEtcd {
  readonly #url: string;
  readonly #arguments: readonly string[];
  readonly #directory: string;
  #child: ChildProcess | undefined;

  private constructor(directory: string, port: number, flags: readonly string[]) {
    this.#directory = directory;
    this.#url = `http://127.0.0.1:${port}`;
    const peer = `http://127.0.0.1:${port + 1}`;
    this.#arguments = [
      ...["--name", "oracle", "--data-dir", join(directory, "data"), "--log-level", "fatal", "--unsafe-no-fsync"],
      ...["--listen-client-urls", this.#url, "--advertise-client-urls", this.#url],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", `oracle=${peer}`],
      ...flags,
    ];
  }

  /** Uses `port` and the one above. */
  static async start(port: number, flags: readonly string[] = []): Promise<OracleEtcd> {
    const oracle = new OracleEtcd(await mkdtemp(join(tmpdir(), "holdfast-oracle-")), port, flags);
    await oracle.#launch();
    return oracle;
  }

  async restart(): Promise<void> {
    await this.#end();
    await this.#launch();
  }

  async stop(): Promise<void> {
    await this.#end();
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #launch(): Promise<void> {
    if (ORACLE_ETCD === undefined) throw new Error(ORACLE_MISSING);
    this.#child = spawn(ORACLE_ETCD, this.#arguments, { stdio: ["ignore", "ignore", "inherit"] });
    const deadline = performance.now() + START_DEADLINE_MS;
    for (;;) {
      const health = await fetch(`${this.#url}/health`).then(
        async (response) => await response.text(),
        () => "",
      );
      if (health.includes('"true"')) return;
      if (performance.now() > deadline || this.#child.exitCode !== null) throw new Error("the reference etcd does not start");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async #end(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    await exited;
  }

  /** One unary call. @throws OracleError */
  async call<Q extends object, A extends object>(path: string, request: MessageType<Q>, message: Q, answer: MessageType<A>): Promise<A> {
    const response = await fetch(`${this.#url}/v3/${path}`, { method: "POST", body: printJson(request, message) });
    const text = await response.text();
    if (response.ok) return parseJson(answer, text);
    const { code, message: reason } = JSON.parse(text) as { code: number; message: string };
    throw new OracleError(code, reason);
  }
}
