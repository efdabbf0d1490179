/** One run of the server's command: from the words on the command line to the way the process ends. Everything around it comes in as arguments. */
import type { Clock, Timer } from "../base/clock.ts";
import { EtcdError } from "../base/errors.ts";
import {
  ADVERTISE_REQUIRED,
  ConfigError,
  type ConfigProblem,
  type EtcdConfig,
  parseConfigFile,
  type ResolvedConfig,
  resolveConfig,
  type SettingName,
  toConfig,
  withEtcdAdvertiseDefaults,
} from "../embed/index.ts";
import { parseCommandLine, readEnvironment, UsageError } from "./flags.ts";
import { helpText } from "./help.ts";
import { createLogger, type ProcessLogger } from "./log.ts";

export type EndingSignal = "SIGINT" | "SIGTERM";

/** How the process ends: by a status, or by the signal that it was stopped with (so that a shell sees 130 or 143). */
export type Ending = { readonly status: number } | { readonly signal: EndingSignal };

/** The process, as far as a run needs it. */
export interface ProcessFace {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** Four lines for `--version`. */
  readonly versionText: string;
  stdout(text: string): void;
  stderr(text: string): void;
  /** Opens where logs go: "stderr", "stdout" or the path of a file. Throws the system's error. */
  logStream(output: string): { write(text: string): void };
  /** Throws the system's error. */
  readFile(path: string): string;
  /** Calls `handler` for every SIGINT and SIGTERM from now on. */
  onSignal(handler: (signal: EndingSignal) => void): void;
  /** Ends the process at once. */
  end(ending: Ending): void;
}

/** Why a server ended by itself. */
export type Failure = Error & {
  /** "removed" when the member was removed from the cluster, which is no error of its own. */
  readonly failure?: string;
};

/** What a run needs of a started server. */
export interface RunningServer {
  /** Resolves when it serves clients. */
  readonly ready: Promise<void>;
  /** Resolves when it can no longer do its work. */
  readonly failed: Promise<Failure>;
  /** Where it listens for clients, with the ports really bound. */
  readonly clientUrls: readonly string[];
  readonly peerUrls: readonly string[];
  close(): Promise<void>;
}

export interface RunParts {
  startEtcd(config: EtcdConfig): Promise<RunningServer>;
}

/** A terminal's Ctrl-C reaches the process directly and once more from npm or whoever started it, perhaps as another signal: within this time it is one. */
const SAME_REQUEST_MS = 500;
/** On top of the longest wait for requests that are under way. */
const CLOSE_GRACE_MS = 5000;
const REMOVED_TEXT = "the member has been permanently removed from the cluster";

/** Runs until the server has ended. Never rejects because of what the user or the server did wrong. */
export async function runCli(words: readonly string[], face: ProcessFace, parts: RunParts): Promise<Ending> {
  const early = createLogger({
    level: "info",
    format: "json",
    streams: [{ write: (text) => face.stderr(text) }],
    wallMs: () => face.clock.wallMs(),
  });
  let settings: { config: EtcdConfig; resolved: ResolvedConfig };
  let log: ProcessLogger;
  try {
    const read = readSettings(words, face, early);
    if ("status" in read) return read;
    const resolved = resolveConfig(read.config, { problems: read.problems });
    settings = { config: read.config, resolved };
    log = openLog(resolved, face);
  } catch (error) {
    if (error instanceof UsageError) {
      face.stderr(`${error.message}\n`);
      return { status: 2 };
    }
    if (!ConfigError.is(error)) throw error;
    reportConfig(error, early);
    return { status: 1 };
  }
  log.info({ args: ["holdfast", ...words] }, "Running: ");
  return serve(settings.config, settings.resolved, log, face, parts);
}

/** From flags, variables or a file to a configuration; or the end of the run, when that was all. */
function readSettings(
  words: readonly string[],
  face: ProcessFace,
  early: ProcessLogger,
): { config: EtcdConfig; problems: readonly ConfigProblem[] } | { status: number } {
  const [first] = words;
  if (first === "gateway" || first === "grpc-proxy") throw new UsageError(`holdfast has no ${JSON.stringify(first)} command`);
  const line = parseCommandLine(words);
  if (line.help) {
    face.stdout(helpText());
    return { status: 0 };
  }
  if (line.positional !== undefined)
    throw new ConfigError([{ setting: line.positional, message: `${JSON.stringify(line.positional)} is not a valid flag` }]);
  if (line.version) {
    face.stdout(face.versionText);
    return { status: 0 };
  }
  const file = line.configFile === "" ? (face.environment.ETCD_CONFIG_FILE ?? "") : line.configFile;
  return file === "" ? fromFlags(line, face, early) : fromFile(file, face, early);
}

function fromFile(path: string, face: ProcessFace, early: ProcessLogger): { config: EtcdConfig; problems: readonly ConfigProblem[] } {
  let text: string;
  try {
    text = face.readFile(path);
  } catch (error) {
    throw new ConfigError([{ setting: "config-file", message: systemText(error, path) }]);
  }
  const { config, unknownKeys } = parseConfigFile(text);
  for (const key of unknownKeys) early.warn({ path, key }, "ignored unknown key in the configuration file");
  early.info(
    { path },
    "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided",
  );
  return { config, problems: [] };
}

function fromFlags(
  line: ReturnType<typeof parseCommandLine>,
  face: ProcessFace,
  early: ProcessLogger,
): { config: EtcdConfig; problems: readonly ConfigProblem[] } | { status: number } {
  const version = face.environment.ETCD_VERSION;
  if (version !== undefined && version !== "")
    early.warn({ key: "ETCD_VERSION", value: version }, "cannot set special environment variable");
  const environment = readEnvironment(face.environment, line.values);
  const [conflict] = environment.conflicts;
  if (conflict !== undefined) {
    early.fatal(
      { "environment-variable": conflict },
      "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))",
    );
    return { status: 1 };
  }
  if (environment.problems.length > 0) throw new ConfigError(environment.problems);
  for (const { variable, value } of environment.used) {
    const shown = variable.includes("PASSWORD") ? "***" : value;
    early.info({ "variable-name": variable, "variable-value": shown }, "recognized and used environment variable");
  }
  for (const variable of environment.unknown) early.warn({ "environment-variable": variable }, "unrecognized environment variable");
  for (const { flag, successor } of line.outdated)
    early.warn({ flag: `--${flag}`, successor }, "flag is outdated and was taken for its successor");

  const values = new Map<SettingName, unknown>([...environment.values, ...line.values]);
  const problems: ConfigProblem[] = [];
  if (values.has("listen-client-urls") && !values.has("advertise-client-urls")) {
    problems.push({ setting: "advertise-client-urls", message: ADVERTISE_REQUIRED });
  }
  return { config: withEtcdAdvertiseDefaults(toConfig(values)), problems };
}

function reportConfig(error: ConfigError, log: ProcessLogger): void {
  // etcd finds these only when it starts, and its (historical) words for that are others.
  if (error.problems.every((problem) => problem.stage === "start")) log.fatal({ error: error.message }, "discovery failed");
  else log.warn({ error: error.message }, "failed to verify flags");
}

function openLog(resolved: ResolvedConfig, face: ProcessFace): ProcessLogger {
  const streams = resolved.log.outputs.map((output) => {
    try {
      return face.logStream(output);
    } catch (error) {
      throw new ConfigError([{ setting: "log-outputs", message: `open sink ${JSON.stringify(output)}: ${systemText(error, output)}` }]);
    }
  });
  return createLogger({ ...resolved.log, streams, wallMs: () => face.clock.wallMs() });
}

async function serve(
  config: EtcdConfig,
  resolved: ResolvedConfig,
  log: ProcessLogger,
  face: ProcessFace,
  parts: RunParts,
): Promise<Ending> {
  let server: RunningServer;
  try {
    server = await parts.startEtcd({ ...config, logger: log });
  } catch (error) {
    log.fatal({ error: startText(error) }, "discovery failed");
    return { status: 1 };
  }
  // A start that fails later is told by `failed`.
  void server.ready.then(
    () => {
      if (face.environment.HOLDFAST_GREETING === "1") face.stdout(greeting(server, resolved));
    },
    (error: unknown) => log.debug({ error }, "never became ready"),
  );
  const stopped = firstSignal(log, face);
  const first = await Promise.race([stopped, server.failed.then((error) => ({ error }))]);
  if ("error" in first) return endAfterFailure(first.error, server, resolved, log, face);
  await closeWithin(server, resolved, log, face);
  return first;
}

/** Resolves with the first signal; a second one, unless it is the echo of the first, ends the process at once. */
function firstSignal(log: ProcessLogger, face: ProcessFace): Promise<{ signal: EndingSignal }> {
  return new Promise((resolve) => {
    let first: { atMs: number } | undefined;
    face.onSignal((signal) => {
      const nowMs = face.clock.monotonicMs();
      if (first === undefined) {
        first = { atMs: nowMs };
        log.info({ signal: signal === "SIGINT" ? "interrupt" : "terminated" }, "received signal; shutting down");
        resolve({ signal });
      } else if (nowMs - first.atMs > SAME_REQUEST_MS) face.end({ signal });
    });
  });
}

async function endAfterFailure(
  error: Failure,
  server: RunningServer,
  resolved: ResolvedConfig,
  log: ProcessLogger,
  face: ProcessFace,
): Promise<Ending> {
  const removed = error.failure === "removed";
  if (removed) {
    log.warn({ error: REMOVED_TEXT }, "server error");
    log.warn({ "data-dir": resolved.server.dataDirectory }, "data-dir used by this member must be removed");
  } else log.fatal({ error }, "server failed");
  await closeWithin(server, resolved, log, face);
  return { status: removed ? 0 : 1 };
}

/** Waits for the orderly end, but not forever: what is committed is safe either way. */
async function closeWithin(server: RunningServer, resolved: ResolvedConfig, log: ProcessLogger, face: ProcessFace): Promise<void> {
  const requestTimeoutMs = 5000 + 2 * resolved.server.electionMs;
  let timer: Timer | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = face.clock.timer(requestTimeoutMs + CLOSE_GRACE_MS, () => resolve("late"));
  });
  const closed = server.close().then(
    () => "closed" as const,
    (error: unknown) => {
      log.error({ error }, "closing failed");
      return "closed" as const;
    },
  );
  if ((await Promise.race([closed, late])) === "late")
    log.warn({ "waited-ms": requestTimeoutMs + CLOSE_GRACE_MS }, "closing took too long; leaving");
  timer?.cancel();
}

/** What went wrong at the start, in one line and in etcd's words where it has some. */
function startText(error: unknown): string {
  const { code, syscall, address, port } = error as { code?: string; syscall?: string; address?: string; port?: number };
  const reason = code === undefined ? undefined : SYSTEM_TEXTS[code];
  if (syscall === "listen" && reason !== undefined && address !== undefined) {
    const place = port === undefined ? `unix ${address}` : `tcp ${address.includes(":") ? `[${address}]` : address}:${port}`;
    return `listen ${place}: bind: ${reason}`;
  }
  if (!(error instanceof Error)) return String(error);
  const text = EtcdError.is(error) || error.message !== "" ? error.message : error.name;
  return text.replace(/\s*\n\s*/g, " ");
}

const SYSTEM_TEXTS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EADDRINUSE: "address already in use",
  EADDRNOTAVAIL: "cannot assign requested address",
  EISDIR: "is a directory",
  ENOENT: "no such file or directory",
  ENOTDIR: "not a directory",
};

/** Go's way to say why a file could not be opened. */
function systemText(error: unknown, path: string): string {
  const { code } = error as { code?: string };
  const reason = code === undefined ? undefined : SYSTEM_TEXTS[code];
  if (reason === undefined) return (error as Error).message;
  return `${code === "EISDIR" ? "read" : "open"} ${path}: ${reason}`;
}

/** For somebody who has just typed `npm start`. */
function greeting(server: RunningServer, resolved: ResolvedConfig): string {
  const url = server.clientUrls.find((candidate) => candidate.startsWith("http://"));
  const lines = ["", "holdfast is ready.", `  clients  ${server.clientUrls.join(", ")}`, `  members  ${server.peerUrls.join(", ")}`];
  if (!resolved.server.inMemory) lines.push(`  data     ${resolved.server.dataDirectory}`);
  if (url !== undefined) {
    lines.push(
      "Try (keys and values are base64):",
      `  curl ${url}/v3/kv/put -d '{"key": "Zm9v", "value": "YmFy"}'`,
      `  curl ${url}/v3/kv/range -d '{"key": "Zm9v"}'`,
    );
  }
  return `${[...lines, "Stop with Ctrl-C.", ""].join("\n")}\n`;
}
