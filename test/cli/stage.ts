/** A process to run the command in, without a process. */
import type { Clock, Timer } from "../../src/base/clock.ts";
import { type Ending, type EndingSignal, type Failure, type ProcessFace, type RunningServer, runCli } from "../../src/cli/run.ts";
import type { EtcdConfig } from "../../src/embed/index.ts";

export class ManualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<{ atMs: number; fn: () => void }>();

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return Date.UTC(2026, 0, 2, 3, 4, 5, 123) + this.#nowMs;
  }

  timer(ms: number, fn: () => void): Timer {
    const entry = { atMs: this.#nowMs + ms, fn };
    this.#timers.add(entry);
    return { cancel: () => void this.#timers.delete(entry) };
  }

  get pending(): number {
    return this.#timers.size;
  }

  advance(ms: number): void {
    this.#nowMs += ms;
    for (const entry of [...this.#timers]) {
      if (entry.atMs > this.#nowMs) continue;
      this.#timers.delete(entry);
      entry.fn();
    }
  }
}

function deferred<Value>(): { promise: Promise<Value>; resolve: (value: Value) => void } {
  let resolve: (value: Value) => void = () => undefined;
  const promise = new Promise<Value>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

export class StubServer implements RunningServer {
  readonly clientUrls = ["http://127.0.0.1:2379"];
  readonly peerUrls = ["http://127.0.0.1:2380"];
  closes = 0;
  readonly ready: Promise<void>;
  readonly failed: Promise<Failure>;
  readonly becomeReady: () => void;
  readonly fail: (error: Failure) => void;
  /** Settled at once unless a test replaces it. */
  closing: Promise<void> = Promise.resolve();

  constructor() {
    const ready = deferred<void>();
    const failed = deferred<Failure>();
    this.ready = ready.promise;
    this.failed = failed.promise;
    this.becomeReady = () => ready.resolve();
    this.fail = failed.resolve;
  }

  close(): Promise<void> {
    this.closes += 1;
    return this.closing;
  }
}

export interface Stage {
  readonly ending: Promise<Ending>;
  readonly clock: ManualClock;
  readonly server: StubServer;
  /** What startEtcd was called with. */
  readonly started: readonly EtcdConfig[];
  readonly stdout: () => string;
  readonly stderr: () => string;
  /** The log lines on stderr, parsed. */
  readonly log: () => Record<string, unknown>[];
  readonly files: Map<string, string>;
  readonly ended: readonly Ending[];
  signal(signal: EndingSignal): void;
  /** Until the run waits for a signal. */
  readonly listening: Promise<void>;
}

export interface StageOptions {
  readonly environment?: Record<string, string>;
  readonly files?: Record<string, string>;
  readonly startFails?: unknown;
}

export function perform(words: readonly string[], options: StageOptions = {}): Stage {
  const clock = new ManualClock();
  const server = new StubServer();
  const started: EtcdConfig[] = [];
  const files = new Map(Object.entries(options.files ?? {}));
  const ended: Ending[] = [];
  let stdout = "";
  let stderr = "";
  let handler: ((signal: EndingSignal) => void) | undefined;
  const listening = deferred<void>();
  const face: ProcessFace = {
    environment: options.environment ?? {},
    clock,
    versionText: "etcd Version: 3.7.1\n",
    stdout: (text) => {
      stdout += text;
    },
    stderr: (text) => {
      stderr += text;
    },
    logStream(output) {
      if (output === "stderr") return { write: face.stderr };
      if (output === "stdout") return { write: face.stdout };
      if (output.startsWith("/nowhere/")) throw Object.assign(new Error("ENOENT"), { code: "ENOENT" });
      return { write: (text) => void files.set(output, (files.get(output) ?? "") + text) };
    },
    readFile(path) {
      const text = files.get(path);
      if (text === undefined) throw Object.assign(new Error("ENOENT"), { code: "ENOENT" });
      return text;
    },
    onSignal: (listener) => {
      handler = listener;
      listening.resolve();
    },
    end: (ending) => void ended.push(ending),
  };
  const ending = runCli(words, face, {
    startEtcd: async (config) => {
      started.push(config);
      if (options.startFails !== undefined) throw options.startFails;
      return server;
    },
  });
  return {
    ending,
    clock,
    server,
    started,
    stdout: () => stdout,
    stderr: () => stderr,
    log: () => stderr.split("\n").flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as Record<string, unknown>] : [])),
    files,
    ended,
    signal: (signal) => handler?.(signal),
    listening: listening.promise,
  };
}
