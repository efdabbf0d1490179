/** The two servers that are compared: this one and a real etcd, as processes with fresh directories, spoken to over the JSON API. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface RawAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

const READY_MS = 30_000;
const ANSWER_MS = 20_000;

export class ServerUnderTest {
  readonly label: string;
  readonly port: number;
  readonly #command: readonly string[];
  readonly #directory: string;
  #agent = new Agent({ keepAlive: true, maxSockets: 16 });
  #child: ChildProcess | undefined;
  #log = "";

  /** `command` is the program and its first arguments; the flags of both servers are the same. */
  constructor(label: string, command: readonly string[], port: number, flags: readonly string[]) {
    this.label = label;
    this.port = port;
    this.#directory = mkdtempSync(join(tmpdir(), `holdfast-diff-${label}-`));
    const client = `http://127.0.0.1:${port}`;
    const peer = `http://127.0.0.1:${port + 1}`;
    this.#command = [
      ...command,
      ...["--name", "one", "--data-dir", join(this.#directory, "data"), "--unsafe-no-fsync"],
      ...["--listen-client-urls", client, "--advertise-client-urls", client],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", `one=${peer}`],
      ...flags,
    ];
  }

  async start(): Promise<void> {
    const [program, ...args] = this.#command as [string, ...string[]];
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
    child.stderr?.on("data", (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString()).slice(-20_000);
    });
    this.#child = child;
    const deadline = performance.now() + READY_MS;
    for (;;) {
      const healthy = await this.send("/version", undefined, "GET").then(
        (answer) => answer.status === 200,
        () => false,
      );
      if (healthy) return;
      if (child.exitCode !== null || performance.now() > deadline)
        throw new Error(`${this.label} does not start:\n${this.#log.slice(-3000)}`);
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  }

  /** True while the process lives. */
  get running(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null;
  }

  get log(): string {
    return this.#log;
  }

  async restart(): Promise<void> {
    await this.#end("SIGTERM");
    await this.start();
  }

  async stop(): Promise<void> {
    await this.#end("SIGTERM");
    this.#agent.destroy();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    // Connections of this life must not be used in the next.
    this.#agent.destroy();
    this.#agent = new Agent({ keepAlive: true, maxSockets: 16 });
    const exited = once(child, "exit");
    child.kill(signal);
    const hard = setTimeout(() => child.kill("SIGKILL"), 15_000);
    await exited;
    clearTimeout(hard);
  }

  send(path: string, body: string | undefined, method = "POST"): Promise<RawAnswer> {
    return new Promise((resolve, reject) => {
      const request = httpRequest(
        {
          host: "127.0.0.1",
          port: this.port,
          path,
          method,
          agent: this.#agent,
          headers: body === undefined ? {} : { "content-type": "application/json" },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on("data", (chunk: Buffer) => chunks.push(chunk));
          response.on("end", () =>
            resolve({
              status: response.statusCode ?? 0,
              contentType: response.headers["content-type"] ?? "",
              body: Buffer.concat(chunks).toString("utf8"),
            }),
          );
          response.on("error", reject);
        },
      );
      request.setTimeout(ANSWER_MS, () => request.destroy(new Error(`${this.label} did not answer ${path} within ${ANSWER_MS} ms`)));
      request.on("error", (error) =>
        reject(new Error(`${this.label} ${method} ${path} ${body?.slice(0, 300) ?? ""}: ${error.message}`, { cause: error })),
      );
      request.end(body);
    });
  }

  /** Opens a watch with these requests and gathers its lines until closed. */
  watch(body: string): WatchLines {
    return new WatchLines(this.port, body);
  }
}

/** A watch over one HTTP request: its lines as they come. */
export class WatchLines {
  readonly lines: string[] = [];
  readonly #request: ReturnType<typeof httpRequest>;
  #rest = "";
  #closed = false;

  constructor(port: number, body: string) {
    this.#request = httpRequest({ host: "127.0.0.1", port, path: "/v3/watch", method: "POST", agent: false }, (response) => {
      response.setEncoding("utf8");
      response.on("data", (text: string) => {
        this.#rest += text;
        const parts = this.#rest.split("\n");
        this.#rest = parts.pop() ?? "";
        this.lines.push(...parts);
      });
      response.on("error", () => this.close());
    });
    this.#request.on("error", () => this.close());
    this.#request.end(body);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#request.destroy();
  }
}
