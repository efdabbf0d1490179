/**
 * From what a program, a command line or a file says to what a member runs with: defaults filled in, etcd's rules checked, all problems reported together,
 * the result frozen. Nothing here touches the data directory or the network.
 */
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { resolve } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { LogFields, Logger } from "../base/logger.ts";
import type { Random } from "../base/random.ts";
import type { PeerTransport, ServerConfig, ServerPorts } from "../server/index.ts";
import { type FeatureGates, missingFeatures, resolveFeatureGates } from "./feature-gates.ts";
import { DurationError, formatDurationMs, parseDurationMs } from "./go-duration.ts";
import { ValueError } from "./go-values.ts";
import {
  DEFAULT_CLIENT_URL,
  DEFAULT_INITIAL_CLUSTER,
  DEFAULT_NAME,
  DEFAULT_PEER_URL,
  environmentVariableOf,
  isDefault,
  keyOf,
  readSettingInput,
  SETTING_NAMES,
  SETTINGS,
  type SettingInputs,
  type SettingName,
  type SettingValues,
  settingSpec,
} from "./settings.ts";
import { isBindable, isSecure, isSocketFile, type ParsedUrl, parseUrl, parseUrls, withAddress } from "./urls.ts";

/**
 * Settings of one member. Every flag of etcd in camelCase (`listenClientUrls` for `--listen-client-urls`, see the table in `settings.ts`), durations in
 * milliseconds or as text ("1m30s"), plus what only a program can give. All are optional; the defaults are etcd's, so that an empty config serves on the
 * ports 2379 and 2380 and keeps its data in `default.etcd` below the working directory.
 *
 * Differences from the flags: an empty list of URLs means none (no port is opened); port 0 lets the system choose; advertised URLs that are not given are
 * those that the member listens on.
 */
export interface EtcdConfig extends SettingInputs {
  /** Keeps everything in memory: nothing is read or written below the data directory, everything is gone at the end. */
  readonly inMemory?: boolean | undefined;
  /** Default: nothing is logged. */
  readonly logger?: Logger | undefined;
  /** Default: the system's. */
  readonly clock?: Clock | undefined;
  /** Default: the system's. */
  readonly random?: Random | undefined;
  /** Default: the system's. */
  readonly disk?: Disk | undefined;
  /** How members reach each other. Default: over the peer URLs. */
  readonly transport?: PeerTransport | undefined;
  /** Default: `setImmediate`. */
  readonly defer?: ServerPorts["defer"] | undefined;
  /** Breakages for tests that prove that a test would notice. */
  readonly mutants?: ReadonlySet<string> | undefined;
}

/** A place to listen on. */
export type ListenUrl =
  | { readonly kind: "tcp"; readonly url: string; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly url: string; readonly path: string };

export const LOG_LEVELS = ["debug", "info", "warn", "error", "dpanic", "panic", "fatal"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Something the operator should know. Log these once, when the member starts. */
export interface ConfigNotice {
  readonly level: "info" | "warn";
  readonly message: string;
  readonly fields: LogFields;
}

export interface ResolvedConfig {
  readonly server: ServerConfig;
  readonly listen: {
    readonly peer: readonly ListenUrl[];
    /** gRPC, and HTTP too while `clientHttp` is empty. */
    readonly client: readonly ListenUrl[];
    readonly clientHttp: readonly ListenUrl[];
    readonly metrics: readonly ListenUrl[];
  };
  /** Origins, or just "*". */
  readonly cors: readonly string[];
  /** Host names, or just "*". */
  readonly hostWhitelist: readonly string[];
  readonly enableGrpcGateway: boolean;
  readonly grpc: {
    readonly keepaliveMinTimeMs: number;
    /** 0: the server does not ping. */
    readonly keepaliveIntervalMs: number;
    /** 0: an unanswered ping does not end the connection. */
    readonly keepaliveTimeoutMs: number;
    readonly maxConcurrentStreams: number;
    /** Bytes of the largest message taken: requests, their wrapping and some room. */
    readonly receiveBytesMax: number;
  };
  readonly log: {
    readonly level: LogLevel;
    readonly format: "json" | "console";
    /** "stderr", "stdout" or paths of files. */
    readonly outputs: readonly string[];
  };
  readonly featureGates: FeatureGates;
  readonly notices: readonly ConfigNotice[];
  /** What the program injected; absent parts are the system's. */
  readonly injected: {
    readonly logger?: Logger | undefined;
    readonly clock?: Clock | undefined;
    readonly random?: Random | undefined;
    readonly disk?: Disk | undefined;
    readonly transport?: PeerTransport | undefined;
    readonly defer?: ServerPorts["defer"] | undefined;
  };
}

export interface ConfigProblem {
  /** The flag's name, for example "listen-client-urls". */
  readonly setting: string;
  /** One line; etcd's text where etcd has one. */
  readonly message: string;
  /** etcd finds some problems only when it starts and then logs another line. Default: "verify". */
  readonly stage?: "verify" | "start";
}

/** Everything that is wrong with a configuration. `message` is one line: the problems' messages, separated by "; ". */
export class ConfigError extends EtcdError {
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[]) {
    super("invalid-config", GrpcCode.InvalidArgument, problems.map((problem) => problem.message).join("; "));
    this.name = "ConfigError";
    this.problems = Object.freeze([...problems]);
  }

  static override is(value: unknown): value is ConfigError {
    return EtcdError.is(value) && value.reason === "invalid-config";
  }
}

export interface ResolveOptions {
  /** Problems found before (in flags or a file), reported together with those found here. */
  readonly problems?: readonly ConfigProblem[];
  /** Base of relative paths. Default: the working directory. */
  readonly workingDirectory?: string;
  /** Address of the interface with the default route, if it can be told. Default: asks the system. */
  readonly defaultHost?: () => string | undefined;
}

const MIB = 2 ** 20;
const REQUEST_BYTES_RECOMMENDED_MAX = 10 * MIB;
const QUOTA_BYTES_RECOMMENDED_MAX = 8 * 2 ** 30;
/** Room for what wraps a request on the wire (etcd's number). */
const GRPC_OVERHEAD_BYTES = 512 * 1024;
const ELECTION_MS_MAX = 50_000;
const PORT_MAX = 65_535;

const INJECTED = ["inMemory", "logger", "clock", "random", "disk", "transport", "defer", "mutants"] as const;

/**
 * Checks and completes a configuration. Throws {@link ConfigError} with every problem at once. Resolving what was resolved from gives the same again.
 */
export function resolveConfig(input: EtcdConfig = {}, options: ResolveOptions = {}): ResolvedConfig {
  const problems: ConfigProblem[] = [];
  const notices: ConfigNotice[] = [];
  const { values, given } = readInputs(input, problems);
  const isGiven = (name: SettingName): boolean => given.has(name);
  const problem = (setting: SettingName, message: string, stage?: "start"): void => {
    problems.push(stage === undefined ? { setting, message } : { setting, message, stage });
  };
  const warn = (message: string, fields: LogFields = {}): void => {
    notices.push({ level: "warn", message, fields });
  };
  const inMemory = input.inMemory === true;

  // The order is etcd's, so that the first problem named is the one that etcd would name.
  const log = resolveLog(values, problem);

  const listenPeer = bindUrls("listen-peer-urls", values["listen-peer-urls"], problem);
  const listenClient = bindUrls("listen-client-urls", values["listen-client-urls"], problem);
  const listenClientHttp = bindUrls("listen-client-http-urls", values["listen-client-http-urls"], problem);
  const listenMetrics = bindUrls("listen-metrics-urls", values["listen-metrics-urls"], problem);
  if (listenClient.length > 0 && listenClientHttp.length === 0) {
    warn("Running http and grpc server on single port. This is not recommended for production.");
  }
  checkListenTls(listenPeer, listenClient, listenClientHttp, listenMetrics, problem);
  for (const url of listenClientHttp) {
    if (listenClient.some((other) => other.host === url.host && other.port === url.port && (url.port !== 0 || isSocketFile(url)))) {
      problem(
        "listen-client-http-urls",
        `cannot bind both --listen-client-urls and --listen-client-http-urls on the same url ${url.text}`,
        "start",
      );
    }
  }

  const advertisedPeer = advertisedUrls(
    isGiven("initial-advertise-peer-urls"),
    values["initial-advertise-peer-urls"],
    listenPeer,
    isGiven("listen-peer-urls"),
  );
  const advertisedClient = advertisedUrls(
    isGiven("advertise-client-urls"),
    values["advertise-client-urls"],
    listenClient,
    isGiven("listen-client-urls"),
  );
  // The peer URL stays even if there is no listener: the member's id is made of it.
  if (listenClient.length === 0 && !isGiven("advertise-client-urls")) advertisedClient.urls = [];
  const host = replaceDefaultHosts(advertisedPeer, listenPeer, advertisedClient, listenClient, options.defaultHost ?? defaultRouteAddress);
  if (host !== undefined) notices.push({ level: "info", message: "detected default host for advertise", fields: { host } });
  checkAdvertised(advertisedPeer.urls, advertisedClient, problem);

  const initialCluster = resolveInitialCluster(values, isGiven, advertisedPeer, problem);
  if (listenPeer.length === 0 && input.transport === undefined && initialCluster.some((member) => member.name !== values.name)) {
    problem("listen-peer-urls", "--listen-peer-urls must not be empty when --initial-cluster names other members");
  }

  checkDiscovery(values, isGiven, problem);
  checkTiming(values, problem);
  const retention = resolveRetention(values, problem);
  const featureGates = resolveFeatureGates(values["feature-gates"]);
  if (featureGates.LeaseCheckpointPersist && !featureGates.LeaseCheckpoint) {
    problem("feature-gates", "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint");
  }
  for (const { gate, missing } of missingFeatures(featureGates)) {
    problem("feature-gates", `feature gate ${gate} is on, but holdfast has no ${missing} yet`);
  }
  if (values["compact-hash-check-time"] <= 0) {
    problem(
      "compact-hash-check-time",
      `--compact-hash-check-time must be >0 (set to ${formatDurationMs(values["compact-hash-check-time"])})`,
    );
  }
  if (values.name === DEFAULT_NAME && !inMemory) {
    warn(
      "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same " +
        "default name",
      { name: values.name },
    );
  }
  checkTls(values, problem);
  checkAmounts(values, problem);
  checkAuth(values, problem);
  checkTracing(values, problem);
  refuseMissing(values, problems);

  const maxRequestBytes = values["max-request-bytes"];
  if (maxRequestBytes > REQUEST_BYTES_RECOMMENDED_MAX) {
    warn("exceeded recommended request limit", {
      "max-request-bytes": maxRequestBytes,
      "recommended-request-bytes": REQUEST_BYTES_RECOMMENDED_MAX,
    });
  }
  if (values["quota-backend-bytes"] > QUOTA_BYTES_RECOMMENDED_MAX) {
    warn("quota exceeds the maximum value", {
      "quota-name": "v3-applier",
      "quota-size-bytes": values["quota-backend-bytes"],
      "quota-maximum-size-bytes": QUOTA_BYTES_RECOMMENDED_MAX,
    });
  }
  const dataDirectoryName = values["data-dir"] === "" ? `${values.name}.etcd` : values["data-dir"];
  if (values["data-dir"] === "" && !inMemory) warn("'data-dir' was empty; using default", { "data-dir": dataDirectoryName });
  noteSettings(values, given, notices);

  const all = [...problems, ...(options.problems ?? [])];
  if (all.length > 0) throw new ConfigError(all);

  const workingDirectory = options.workingDirectory ?? process.cwd();
  const dataDirectory = resolve(workingDirectory, dataDirectoryName);
  return {
    ...freeze({
      server: {
        name: values.name,
        dataDirectory,
        walDirectory: values["wal-dir"] === "" ? resolve(dataDirectory, "member", "wal") : resolve(workingDirectory, values["wal-dir"]),
        inMemory,
        initialCluster,
        initialClusterState: values["initial-cluster-state"],
        initialClusterToken: values["initial-cluster-token"],
        initialAdvertisePeerUrls: advertisedPeer.urls.map((url) => url.text).sort(),
        advertiseClientUrls: advertisedClient.urls.map((url) => url.text).sort(),
        heartbeatMs: values["heartbeat-interval"],
        electionMs: values["election-timeout"],
        initialElectionTickAdvance: values["initial-election-tick-advance"],
        preVote: values["pre-vote"],
        strictReconfigCheck: values["strict-reconfig-check"],
        forceNewCluster: values["force-new-cluster"],
        maxLearners: values["max-learners"],
        snapshotCount: values["snapshot-count"],
        snapshotCatchUpEntries: values["snapshot-catchup-entries"],
        maxWals: values["max-wals"],
        quotaBackendBytes: values["quota-backend-bytes"],
        maxRequestBytes,
        maxTxnOps: values["max-txn-ops"],
        autoCompactionMode: values["auto-compaction-mode"] === "revision" ? ("revision" as const) : ("periodic" as const),
        autoCompactionRetention: retention,
        compactionBatchLimit: values["compaction-batch-limit"] === 0 ? 1000 : values["compaction-batch-limit"],
        compactionSleepMs: values["compaction-sleep-interval"] === 0 ? 10 : values["compaction-sleep-interval"],
        watchProgressNotifyMs:
          values["watch-progress-notify-interval"] === 0 ? 600_000 : Math.max(values["watch-progress-notify-interval"], 100),
        warningApplyMs: values["warning-apply-duration"],
        leaseCheckpoint: featureGates.LeaseCheckpoint,
        valueCacheBytes: values["value-cache-bytes"],
        unsafeNoFsync: values["unsafe-no-fsync"],
        mutants: input.mutants,
      },
      listen: {
        peer: listenPeer.map(toListenUrl),
        client: listenClient.map(toListenUrl),
        clientHttp: listenClientHttp.map(toListenUrl),
        metrics: listenMetrics.map(toListenUrl),
      },
      cors: values.cors,
      hostWhitelist: values["host-whitelist"].some((name) => name === "" || name === "*") ? ["*"] : values["host-whitelist"],
      enableGrpcGateway: values["enable-grpc-gateway"],
      grpc: {
        keepaliveMinTimeMs: values["grpc-keepalive-min-time"],
        keepaliveIntervalMs: values["grpc-keepalive-interval"],
        keepaliveTimeoutMs: values["grpc-keepalive-timeout"],
        maxConcurrentStreams: values["max-concurrent-streams"],
        receiveBytesMax: maxRequestBytes + GRPC_OVERHEAD_BYTES,
      },
      log,
      featureGates,
      notices,
    }),
    injected: {
      logger: input.logger,
      clock: input.clock,
      random: input.random,
      disk: input.disk,
      transport: input.transport,
      defer: input.defer,
    },
  };
}

/**
 * The configuration with the ports that the system chose: advertised URLs with port 0 get the port of the listener with the same host (or the first one), also
 * in the initial cluster. Call it after binding and before the member's identity is computed. `bound` are the URLs really listened on.
 */
export function withBoundPorts(
  config: ResolvedConfig,
  bound: { readonly peer: readonly string[]; readonly client: readonly string[] },
): ResolvedConfig {
  const fill = (urls: readonly string[], listeners: readonly string[]): readonly string[] => {
    const parsed = listeners.map(parseUrl);
    return urls
      .map((text) => {
        const url = parseUrl(text);
        if (isSocketFile(url) || url.port !== 0) return text;
        const listener = parsed.find((candidate) => candidate.host === url.host) ?? parsed[0];
        return listener === undefined ? text : withAddress(url, { port: listener.port }).text;
      })
      .sort();
  };
  const server: ServerConfig = {
    ...config.server,
    initialAdvertisePeerUrls: fill(config.server.initialAdvertisePeerUrls, bound.peer),
    advertiseClientUrls: fill(config.server.advertiseClientUrls, bound.client),
    initialCluster: config.server.initialCluster.map((member) =>
      member.name === config.server.name ? { name: member.name, urls: fill(member.urls, bound.peer) } : member,
    ),
  };
  return { ...config, server: freeze(server) };
}

type Problem = (setting: SettingName, message: string, stage?: "start") => void;
type Values = { -readonly [Name in SettingName]: SettingValues[Name] };

function readInputs(input: EtcdConfig, problems: ConfigProblem[]): { values: SettingValues; given: ReadonlySet<SettingName> } {
  const values = {} as Record<SettingName, unknown>;
  const given = new Set<SettingName>();
  const known = new Set<string>(INJECTED);
  for (const name of SETTING_NAMES) {
    const key = keyOf(name);
    known.add(key);
    values[name] = SETTINGS[name].default;
    const raw: unknown = input[key];
    if (raw === undefined) continue;
    given.add(name);
    try {
      values[name] = readSettingInput(name, raw);
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      problems.push({ setting: name, message: wrongValue(name, raw, error.message) });
    }
  }
  for (const key of Object.keys(input)) {
    if (!known.has(key)) problems.push({ setting: key, message: `unknown setting ${JSON.stringify(key)}` });
  }
  return { values: values as unknown as Values, given };
}

function wrongValue(name: SettingName, raw: unknown, why: string): string {
  // The only choice that a configuration file or a program can get wrong and etcd has a text for.
  if (name === "initial-cluster-state") return `unexpected clusterState ${JSON.stringify(raw)}`;
  if (name === "feature-gates") return why;
  const shown = Array.isArray(raw) ? raw.join(",") : String(raw);
  return `invalid value ${JSON.stringify(shown)} for --${name}: ${why}`;
}

function resolveLog(values: SettingValues, problem: Problem): ResolvedConfig["log"] {
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

function bindUrls(setting: SettingName, texts: readonly string[], problem: Problem): ParsedUrl[] {
  const urls = parseUrls(texts);
  for (const url of urls) {
    if (!isBindable(url)) problem(setting, `expected IP in URL for binding (${url.text})`);
    else if (isSocketFile(url) && url.host === "") problem(setting, `socket file is missing in URL for binding (${url.text})`);
    else if (url.port > PORT_MAX) problem(setting, `listen tcp: address ${url.port}: invalid port`, "start");
  }
  return urls;
}

function checkListenTls(
  peer: readonly ParsedUrl[],
  client: readonly ParsedUrl[],
  clientHttp: readonly ParsedUrl[],
  metrics: readonly ParsedUrl[],
  problem: Problem,
): void {
  for (const url of peer) {
    if (!isSecure(url)) {
      checkPeerScheme("listen-peer-urls", url, url.text, problem);
      continue;
    }
    const address = isSocketFile(url) ? url.host : `${url.host.includes(":") ? `[${url.host}]` : url.host}:${url.port}`;
    problem("listen-peer-urls", `cannot listen on TLS for ${address}: KeyFile and CertFile are not presented`, "start");
  }
  const clients = [
    ...client.map((url) => ["listen-client-urls", url] as const),
    ...clientHttp.map((url) => ["listen-client-http-urls", url] as const),
  ];
  for (const [setting, url] of clients) {
    if (isSecure(url))
      problem(setting, `TLS key/cert (--cert-file, --key-file) must be provided for client url ${url.text} with HTTPS scheme`, "start");
  }
  if (metrics.some(isSecure)) {
    problem("listen-metrics-urls", "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url", "start");
  }
}

/** Members reach each other over plain HTTP; `shown` is how the URL was given. */
function checkPeerScheme(setting: SettingName, url: ParsedUrl, shown: string, problem: Problem): void {
  const missing = isSecure(url) ? "TLS between members" : isSocketFile(url) ? "socket files between members" : undefined;
  if (missing !== undefined) problem(setting, `holdfast has no ${missing} yet (--${setting} ${shown})`);
}

interface Advertised {
  urls: ParsedUrl[];
  /** Taken from what the member listens on, because nothing was given. */
  readonly fromListeners: boolean;
}

/** What is advertised: what was given, else what is listened on (as given), else the default. */
function advertisedUrls(given: boolean, texts: readonly string[], listen: readonly ParsedUrl[], listenGiven: boolean): Advertised {
  const fromListeners = !given && listenGiven && listen.length > 0;
  return { urls: fromListeners ? [...listen] : parseUrls(texts), fromListeners };
}

/** etcd's way out for "listen on 0.0.0.0, advertise the default": the machine's address. Gives the address if it was used. */
function replaceDefaultHosts(
  peer: Advertised,
  listenPeer: readonly ParsedUrl[],
  client: Advertised,
  listenClient: readonly ParsedUrl[],
  defaultHost: () => string | undefined,
): string | undefined {
  let used: string | undefined;
  const pairs = [
    [peer, listenPeer, DEFAULT_PEER_URL],
    [client, listenClient, DEFAULT_CLIENT_URL],
  ] as const;
  for (const [advertised, listen, defaultUrl] of pairs) {
    const first = listen[0];
    const untouched = advertised.fromListeners || (advertised.urls.length === 1 && advertised.urls[0]?.text === defaultUrl);
    if (first === undefined || first.host !== "0.0.0.0" || !untouched) continue;
    const host = defaultHost();
    if (host === undefined) continue;
    used = host;
    advertised.urls = advertised.fromListeners
      ? advertised.urls.map((url) => (url.host === "0.0.0.0" ? withAddress(url, { host }) : url))
      : advertised.urls.map((url) => withAddress(url, { host, port: first.port }));
  }
  return used;
}

function checkAdvertised(peer: readonly ParsedUrl[], client: Advertised, problem: Problem): void {
  const emptyPeer = peer.find((url) => !isSocketFile(url) && url.host === "");
  if (emptyPeer !== undefined) {
    problem(
      "initial-advertise-peer-urls",
      `--initial-advertise-peer-urls ${JSON.stringify(joined(peer))} must be "host:port" (unexpected empty host (${emptyPeer.text}))`,
    );
  }
  for (const url of peer) checkPeerScheme("initial-advertise-peer-urls", url, url.text, problem);
  const emptyClient = client.urls.find((url) => !isSocketFile(url) && url.host === "");
  if (emptyClient !== undefined) {
    problem(
      "advertise-client-urls",
      `--advertise-client-urls ${JSON.stringify(joined(client.urls))} must be in the format "host:port", "unix:/path/to/socket" or ` +
        `"unixs:/path/to/socket" (unexpected empty host (${emptyClient.text}))`,
    );
  }
  // Nobody can dial "every interface", and the machine's own address could not be told.
  if (client.fromListeners && client.urls.some((url) => url.host === "0.0.0.0" || url.host === "::")) {
    problem("advertise-client-urls", ADVERTISE_REQUIRED);
  }
}

/** etcd's text when clients would not know where to go. */
export const ADVERTISE_REQUIRED = "--advertise-client-urls is required when --listen-client-urls is set explicitly";

function resolveInitialCluster(
  values: SettingValues,
  isGiven: (name: SettingName) => boolean,
  advertised: Advertised,
  problem: Problem,
): ServerConfig["initialCluster"] {
  let text = values["initial-cluster"];
  const untouched = text === DEFAULT_INITIAL_CLUSTER;
  const discovered = values["discovery-srv"] !== "" || values["discovery-srv-name"] !== "" || values["discovery-endpoints"].length > 0;
  if (discovered && !isGiven("initial-cluster")) return [];
  if (untouched && (values.name !== DEFAULT_NAME || advertised.fromListeners)) {
    text = advertised.urls.map((url) => `${values.name === "" ? DEFAULT_NAME : values.name}=${url.text}`).join(",");
  }
  const members = new Map<string, string[]>();
  for (const part of text.split(",")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const name = equals < 0 ? part : part.slice(0, equals);
    const raw = equals < 0 ? "" : part.slice(equals + 1);
    const urls = members.get(name) ?? [];
    members.set(name, urls);
    try {
      const url = parseUrl(raw);
      checkPeerScheme("initial-cluster", url, part, problem);
      urls.push(url.text);
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      problem("initial-cluster", `error setting up initial cluster: ${error.message}`, "start");
    }
  }
  return [...members].map(([name, urls]) => ({ name, urls: urls.sort() }));
}

function checkDiscovery(values: SettingValues, isGiven: (name: SettingName) => boolean, problem: Problem): void {
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

function checkTiming(values: SettingValues, problem: Problem): void {
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
function resolveRetention(values: SettingValues, problem: Problem): number {
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

function checkTls(values: SettingValues, problem: Problem): void {
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
function checkAmounts(values: SettingValues, problem: Problem): void {
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

function checkAuth(values: SettingValues, problem: Problem): void {
  const kind = values["auth-token"].split(",", 1)[0];
  if (kind !== "simple" && kind !== "jwt" && kind !== "") problem("auth-token", "auth: invalid auth options", "start");
}

function checkTracing(values: SettingValues, problem: Problem): void {
  if (!values["enable-distributed-tracing"]) return;
  const rate = values["distributed-tracing-sampling-rate"];
  const wrong =
    rate < 0 ? "tracing sampling rate must be positive" : rate > 1_000_000 ? "tracing sampling rate must be less than 1000000" : undefined;
  if (wrong !== undefined) problem("distributed-tracing-sampling-rate", `distributed tracing configurition is not valid: (${wrong})`);
}

/** One line for each setting that asks for what holdfast lacks, unless something else is wrong with it already. */
function refuseMissing(values: SettingValues, problems: ConfigProblem[]): void {
  const blamed = new Set(problems.map((problem) => problem.setting));
  for (const name of SETTING_NAMES) {
    const { missing } = settingSpec(name);
    if (missing === undefined || blamed.has(name) || isHarmless(name, values)) continue;
    problems.push({ setting: name, message: `--${name} is set, but holdfast has no ${missing} yet` });
  }
}

function isHarmless(name: SettingName, values: SettingValues): boolean {
  if (isDefault(name, values[name])) return true;
  // Go decides the lowest version when none is named, and a simple token takes no options.
  if (name === "tls-min-version") return values["tls-min-version"] === "";
  if (name === "auth-token") return values["auth-token"] === "" || values["auth-token"].startsWith("simple,");
  return false;
}

function noteSettings(values: SettingValues, given: ReadonlySet<SettingName>, notices: ConfigNotice[]): void {
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

function toListenUrl(url: ParsedUrl): ListenUrl {
  if (isSocketFile(url)) return { kind: "unix", url: url.text, path: url.host };
  // Go binds `localhost` on IPv4; Node would take whatever the resolver names first.
  return { kind: "tcp", url: url.text, host: url.host === "localhost" ? "127.0.0.1" : url.host, port: url.port };
}

/** The IPv4 address of the interface that the default route goes through. Linux only; undefined elsewhere and when there is none. */
function defaultRouteAddress(): string | undefined {
  let routes: string;
  try {
    routes = readFileSync("/proc/net/route", "utf8");
  } catch {
    return undefined; // Not Linux, or a sandbox: then the default stays, as it does in etcd.
  }
  const line = routes.split("\n").find((candidate) => candidate.split("\t")[1] === "00000000");
  const name = line?.split("\t")[0];
  return name === undefined ? undefined : networkInterfaces()[name]?.find((address) => address.family === "IPv4")?.address;
}

function joined(urls: readonly ParsedUrl[]): string {
  return urls.map((url) => url.text).join(",");
}

function freeze<Value>(value: Value): Value {
  if (typeof value !== "object" || value === null || value instanceof Set) return value;
  for (const part of Object.values(value)) freeze(part);
  return Object.freeze(value);
}
