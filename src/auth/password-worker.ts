import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { rpcError } from "../api/index.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { PasswordHasher } from "./passwords.ts";

/** At the default cost about six seconds of work; by then callers have given up. */
const WAITING_MAX = 100;

/**
 * Runs in the worker: plain JavaScript, as text, because a file of its own would have to be found from sources and from the built package alike. Anything
 * that is no hash fits no password.
 */
const WORKER = `
const { parentPort, workerData } = require("node:worker_threads");
const { hashSync, compareSync } = require(workerData);
parentPort.on("message", ({ kind, password, text }) => {
  let answer = false;
  try {
    answer = kind === "hash" ? hashSync(password, text) : compareSync(password, text);
  } catch (error) {
    if (kind === "hash") throw error;
  }
  parentPort.postMessage(answer);
});
`;

interface Job {
  readonly message: { readonly kind: "hash" | "verify"; readonly password: string; readonly text: string };
  readonly resolve: (answer: string | boolean) => void;
  readonly reject: (error: unknown) => void;
  readonly signal: AbortSignal | undefined;
  readonly onAbort: () => void;
}

/** One worker thread, started by the first job, one job at a time. It does not keep the process running. */
export function passwordWorker(): PasswordHasher {
  return new WorkerHasher();
}

class WorkerHasher implements PasswordHasher {
  #worker: Worker | undefined;
  #running: Job | undefined;
  #waiting: Job[] = [];
  #closed = false;

  async hash(password: string, salt: string, signal?: AbortSignal): Promise<string> {
    return (await this.#enqueue({ kind: "hash", password, text: salt }, signal)) as string;
  }

  async verify(password: string, hash: string, signal?: AbortSignal): Promise<boolean> {
    return (await this.#enqueue({ kind: "verify", password, text: hash }, signal)) as boolean;
  }

  async close(): Promise<void> {
    this.#closed = true;
    const jobs = this.#running === undefined ? this.#waiting : [this.#running, ...this.#waiting];
    this.#running = undefined;
    this.#waiting = [];
    for (const job of jobs) settle(job).reject(rpcError("server-stopped"));
    await this.#terminate();
  }

  #enqueue(message: Job["message"], signal: AbortSignal | undefined): Promise<string | boolean> {
    if (this.#closed) return Promise.reject(rpcError("server-stopped"));
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    if (this.#waiting.length >= WAITING_MAX) return Promise.reject(rpcError("too-many-requests"));
    return new Promise((resolve, reject) => {
      const job: Job = { message, resolve, reject, signal, onAbort: () => this.#abort(job) };
      signal?.addEventListener("abort", job.onAbort, { once: true });
      this.#waiting.push(job);
      this.#next();
    });
  }

  #next(): void {
    if (this.#running !== undefined || this.#closed) return;
    const job = this.#waiting.shift();
    if (job === undefined) return;
    this.#running = job;
    this.#worker ??= this.#start();
    this.#worker.postMessage(job.message);
  }

  #start(): Worker {
    const worker = new Worker(WORKER, {
      eval: true,
      name: "passwords",
      workerData: createRequire(import.meta.url).resolve("bcryptjs"),
      // Nothing of what the process was started with concerns it.
      env: {},
      argv: [],
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 32, stackSizeMb: 2 },
    });
    worker.unref();
    worker.on("message", (answer: string | boolean) => {
      if (worker !== this.#worker) return;
      const job = this.#running;
      this.#running = undefined;
      if (job !== undefined) settle(job).resolve(answer);
      this.#next();
    });
    const onEnd = (cause: unknown): void => {
      if (worker !== this.#worker) return;
      this.#worker = undefined;
      const job = this.#running;
      this.#running = undefined;
      if (job !== undefined)
        settle(job).reject(new EtcdError("password-worker", GrpcCode.Internal, "hashing the password failed", { cause }));
      this.#next();
    };
    worker.on("error", onEnd);
    worker.on("exit", (code) => onEnd(new Error(`the worker ended with ${code}`)));
    return worker;
  }

  /** The caller is gone. What nobody waits for must not hold up the others: a hash can be of a cost that takes hours. */
  #abort(job: Job): void {
    if (job === this.#running) {
      this.#running = undefined;
      void this.#terminate();
    } else {
      this.#waiting = this.#waiting.filter((one) => one !== job);
    }
    job.reject(job.signal?.reason);
    this.#next();
  }

  async #terminate(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }
}

function settle(job: Job): Job {
  job.signal?.removeEventListener("abort", job.onAbort);
  return job;
}
