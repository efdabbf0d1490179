/** What the settings other than addresses must fulfil, and what the operator is told about them. */
import type { LogFields } from "../base/logger.ts";
import type { JwtMethod } from "../server/index.ts";
import type { ConfigProblem, Report } from "./config-error.ts";
import { DurationError, formatDurationMs, parseDurationMs } from "./go-duration.ts";
import { environmentVariableOf, isDefault, SETTING_NAMES, type SettingName, type SettingValues, settingSpec } from "./settings.ts";

const ELECTION_MS_MAX = 50_000;

export const LOG_LEVELS = ["debug", "info", "warn", "error", "dpanic", "panic", "fatal"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Something the operator should know. Log these once, when the member starts. */
export interface ConfigNotice {
  readonly level: "info" | "warn";
  readonly message: string;
  readonly fields: LogFields;
}

export interface LogConfig {
  readonly level: LogLevel;
  readonly format: "json" | "console";
  /** "stderr", "stdout" or paths of files. */
  readonly outputs: readonly string[];
}

export function resolveLog(values: SettingValues, problem: Report): LogConfig {
  if (values.logger === "capnslog") problem("logger", "--logger=capnslog is removed in v3.5");
  else if (values.logger !== "zap") problem("logger", `unknown logger option ${JSON.stringify(values.logger)}`);
  const given = values["log-outputs"];
  if (given.length > 1 && given.includes("default")) problem("log-outputs", 'multi logoutput for "default" is not supported yet');
  if (given.includes("systemd/journal"))
    problem("log-outputs", "--log-outputs has systemd/journal, but holdfast has no connection to journald yet");
  if (given.includes("")) problem("log-outputs", 'open sink "": open : no such file or directory');
  if (
    values["enable-log-rotation"] &&
    given.filter((output) => !["default", "stderr", "stdout", "systemd/journal"].includes(output)).length !== 1
  ) {
    problem("enable-log-rotation", "--log-outputs requires a single file path when --log-rotate-config-json is defined");
  }
  if (values["log-format"] !== "json" && values["log-format"] !== "console") {
    problem("log-format", `unknown log format: ${values["log-format"]}, supported values json, console`);
  }
  const level = readLogLevel(values["log-level"]);
  if (level === undefined) problem("log-level", `unrecognized level: ${JSON.stringify(values["log-level"])}`);
  return {
    level: level ?? "info",
    format: values["log-format"] === "console" ? "console" : "json",
    outputs: given.map((output) => (output === "default" ? "stderr" : output)),
  };
}

/** Lower or upper case; empty means info. Undefined for anything else. */
export function readLogLevel(text: string): LogLevel | undefined {
  if (text === "") return "info";
  return LOG_LEVELS.find((level) => level === text || level.toUpperCase() === text);
}

export function checkDiscovery(values: SettingValues, isGiven: (name: SettingName) => boolean, problem: Report): void {
  const endpoints = values["discovery-endpoints"];
  const initialCluster = isGiven("initial-cluster") && values["initial-cluster"] !== "";
  if ([initialCluster, values["discovery-srv"] !== "", endpoints.length > 0].filter(Boolean).length > 1) {
    problem(
      values["discovery-srv"] === "" ? "discovery-endpoints" : "discovery-srv",
      'multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"',
    );
  }
  if ((values["discovery-token"] !== "") !== endpoints.length > 0) {
    problem(
      endpoints.length > 0 ? "discovery-endpoints" : "discovery-token",
      "both --discovery-token and --discovery-endpoints must be set",
    );
  }
  if (endpoints.some((endpoint) => endpoint.trim() === ""))
    problem("discovery-endpoints", "--discovery-endpoints must not contain empty endpoints");
  if (values["discovery-fallback"] === "proxy") {
    problem("discovery-fallback", 'v2 proxy is deprecated, and --discovery-fallback can\'t be configured as "proxy"');
  }
}

export function checkTiming(values: SettingValues, problem: Report): void {
  const heartbeat = values["heartbeat-interval"];
  const election = values["election-timeout"];
  if (heartbeat === 0) problem("heartbeat-interval", "--heartbeat-interval must be >0 (set to 0ms)");
  if (election === 0) problem("election-timeout", "--election-timeout must be >0 (set to 0ms)");
  if (heartbeat === 0 || election === 0) return;
  if (5 * heartbeat > election) {
    problem("election-timeout", `--election-timeout[${election}ms] should be at least as 5 times as --heartbeat-interval[${heartbeat}ms]`);
  }
  if (election > ELECTION_MS_MAX) {
    problem("election-timeout", `--election-timeout[${election}ms] is too long, and should be set less than ${ELECTION_MS_MAX}ms`);
  }
}

/** Milliseconds or revisions, by the mode. */
export function resolveRetention(values: SettingValues, problem: Report): number {
  const mode = values["auto-compaction-mode"];
  if (mode === "") problem("auto-compaction-mode", "undefined auto-compaction-mode");
  else if (mode !== "periodic" && mode !== "revision")
    problem("auto-compaction-mode", `unknown auto-compaction-mode ${JSON.stringify(mode)}`);
  const text = values["auto-compaction-retention"];
  if (text === "") return 0;
  if (/^\+?\d+$/.test(text)) return mode === "revision" ? Number(text) : Number(text) * 3_600_000;
  try {
    const milliseconds = parseDurationMs(text);
    if (milliseconds < 0) {
      problem(
        "auto-compaction-retention",
        `--auto-compaction-retention must not be negative (set to ${formatDurationMs(milliseconds)})`,
        "start",
      );
    } else if (mode === "revision") {
      // etcd takes the duration's nanoseconds for a number of revisions, which can only be a slip.
      problem(
        "auto-compaction-retention",
        `--auto-compaction-retention must be a number of revisions in revision mode (set to ${text})`,
        "start",
      );
    }
    return milliseconds;
  } catch (error) {
    if (!(error instanceof DurationError)) throw error;
    problem("auto-compaction-retention", `error parsing CompactionRetention: ${error.message}`, "start");
    return 0;
  }
}

const TLS_VERSIONS = ["TLS1.2", "TLS1.3"];

export function checkTls(values: SettingValues, problem: Report): void {
  const least = values["tls-min-version"];
  const most = values["tls-max-version"];
  const wrong = (version: string): string => `unexpected TLS version ${JSON.stringify(version)} (must be one of: TLS1.2, TLS1.3)`;
  if (least !== "" && !TLS_VERSIONS.includes(least)) problem("tls-min-version", wrong(least));
  if (most !== "" && !TLS_VERSIONS.includes(most)) problem("tls-max-version", wrong(most));
  if (least === "TLS1.3" && most === "TLS1.2") problem("tls-max-version", `min version (${least}) is greater than max version (${most})`);
  if (least === "TLS1.3" && values["cipher-suites"].length > 0) {
    problem("cipher-suites", "cipher suites cannot be configured when only TLS1.3 is enabled");
  }
  const cns = values["peer-cert-allowed-cn"];
  const hostnames = values["peer-cert-allowed-hostname"];
  if (cns.length > 0 && hostnames.length > 0) {
    problem(
      "peer-cert-allowed-hostname",
      `AllowedCNs and AllowedHostnames are mutually exclusive (cns=[${cns.join(" ")}], hostnames=[${hostnames.join(" ")}])`,
    );
  }
}

/** Numbers that etcd takes and that leave a member which cannot work. */
export function checkAmounts(values: SettingValues, problem: Report): void {
  if (values["max-request-bytes"] === 0) problem("max-request-bytes", "--max-request-bytes must be >0 (set to 0)");
  if (values["max-learners"] < 0) problem("max-learners", "membership: too many learner members in cluster", "start");
  if (values["compaction-batch-limit"] < 0) {
    problem("compaction-batch-limit", `--compaction-batch-limit must not be negative (set to ${values["compaction-batch-limit"]})`);
  }
  const durations = [
    "compaction-sleep-interval",
    "watch-progress-notify-interval",
    "warning-apply-duration",
    "grpc-keepalive-min-time",
    "grpc-keepalive-interval",
    "grpc-keepalive-timeout",
  ] as const;
  for (const name of durations) {
    if (values[name] < 0) problem(name, `--${name} must not be negative (set to ${formatDurationMs(values[name])})`);
  }
}

/** How callers are known by tokens. Paths of key files are as they were given. */
export type AuthTokens =
  | { readonly kind: "simple" }
  | { readonly kind: "none" }
  | {
      readonly kind: "jwt";
      readonly method: JwtMethod;
      readonly publicKeyFile: string | undefined;
      readonly privateKeyFile: string | undefined;
      readonly ttlMs: number;
    };

/** All of them, as the type makes sure. */
const JWT_METHODS: Readonly<Record<JwtMethod, true>> = {
  ...{ RS256: true, RS384: true, RS512: true, PS256: true, PS384: true, PS512: true },
  ...{ ES256: true, ES384: true, ES512: true, EdDSA: true, HS256: true, HS384: true, HS512: true },
};
const JWT_OPTIONS = ["sign-method", "pub-key", "priv-key", "ttl"];
const JWT_TTL_MS_DEFAULT = 5 * 60_000;
const BCRYPT_COST_MIN = 4;
const BCRYPT_COST_MAX = 31;
const BCRYPT_COST_DEFAULT = 10;

export function resolveAuthTokens(values: SettingValues, problem: Report, notices: ConfigNotice[]): AuthTokens {
  const text = values["auth-token"];
  const refused = (message: string): AuthTokens => {
    problem("auth-token", message, "start");
    return { kind: "simple" };
  };
  // etcd takes this, too: then nobody can log in by password.
  if (text === "") return { kind: "none" };
  const [kind, ...parts] = text.split(",");
  const options = new Map<string, string>();
  for (const part of parts) {
    const [name = "", value, ...more] = part.split("=");
    if (value === undefined || more.length > 0 || options.has(name)) return refused("auth: invalid auth options");
    options.set(name, value);
  }
  if (kind === "simple") return { kind };
  if (kind !== "jwt") return refused("auth: invalid auth options");
  const method = (Object.keys(JWT_METHODS) as JwtMethod[]).find((one) => one === options.get("sign-method"));
  const ttlMs = readTtl(options.get("ttl"));
  if (method === undefined || ttlMs === undefined) return refused("auth: invalid auth options");
  const publicKeyFile = options.get("pub-key");
  const privateKeyFile = options.get("priv-key");
  if (privateKeyFile === undefined && (publicKeyFile === undefined || method.startsWith("HS"))) return refused("auth: missing key data");
  const unknown = [...options.keys()].filter((name) => !JWT_OPTIONS.includes(name));
  if (unknown.length > 0) notices.push({ level: "warn", message: "unknown JWT options", fields: { keys: unknown } });
  return { kind, method, publicKeyFile, privateKeyFile, ttlMs };
}

function readTtl(text: string | undefined): number | undefined {
  if (text === undefined) return JWT_TTL_MS_DEFAULT;
  try {
    return parseDurationMs(text);
  } catch (error) {
    if (!(error instanceof DurationError)) throw error;
    return undefined;
  }
}

/** Costs out of range are replaced by the default, as in etcd. */
export function resolveBcryptCost(values: SettingValues, notices: ConfigNotice[]): number {
  const cost = values["bcrypt-cost"];
  if (cost >= BCRYPT_COST_MIN && cost <= BCRYPT_COST_MAX) return cost;
  notices.push({
    level: "warn",
    message: "use default bcrypt cost instead of the invalid given cost",
    fields: { "min-cost": BCRYPT_COST_MIN, "max-cost": BCRYPT_COST_MAX, "default-cost": BCRYPT_COST_DEFAULT, "given-cost": cost },
  });
  return BCRYPT_COST_DEFAULT;
}

export function checkTracing(values: SettingValues, problem: Report): void {
  if (!values["enable-distributed-tracing"]) return;
  const rate = values["distributed-tracing-sampling-rate"];
  const wrong =
    rate < 0 ? "tracing sampling rate must be positive" : rate > 1_000_000 ? "tracing sampling rate must be less than 1000000" : undefined;
  if (wrong !== undefined) problem("distributed-tracing-sampling-rate", `distributed tracing configurition is not valid: (${wrong})`);
}

/** One line for each setting that asks for what holdfast lacks, unless something else is wrong with it already. */
export function refuseMissing(values: SettingValues, problems: ConfigProblem[]): void {
  const blamed = new Set(problems.map((problem) => problem.setting));
  for (const name of SETTING_NAMES) {
    const { missing } = settingSpec(name);
    if (missing === undefined || blamed.has(name) || isHarmless(name, values)) continue;
    problems.push({ setting: name, message: `--${name} is set, but holdfast has no ${missing} yet` });
  }
}

function isHarmless(name: SettingName, values: SettingValues): boolean {
  if (isDefault(name, values[name])) return true;
  // Go decides the lowest version when none is named.
  return name === "tls-min-version" && values["tls-min-version"] === "";
}

export function noteSettings(values: SettingValues, given: ReadonlySet<SettingName>, notices: ConfigNotice[]): void {
  for (const name of SETTING_NAMES) {
    if (!given.has(name)) continue;
    const { deprecated, noEffect } = settingSpec(name);
    if (deprecated !== undefined) notices.push({ level: "warn", message: deprecated, fields: {} });
    if (noEffect !== undefined && !isDefault(name, values[name])) {
      notices.push({
        level: "warn",
        message: "setting has no effect",
        fields: { setting: name, variable: environmentVariableOf(name), reason: noEffect },
      });
    }
  }
}
