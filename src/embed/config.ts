/**
 * From what a program, a command line or a file says to what a member runs with: defaults filled in, etcd's rules checked, all problems reported together,
 * the result frozen. Nothing here touches the data directory or the network.
 */
import { resolve } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import type { LogFields, Logger } from "../base/logger.ts";
import type { Random } from "../base/random.ts";
import type { PeerTransport, ServerConfig, ServerPorts } from "../server/index.ts";
import {
  advertisedUrls,
  bindUrls,
  checkAdvertised,
  checkListenTls,
  checkOverlap,
  defaultRouteAddress,
  type ListenUrl,
  replaceDefaultHosts,
  resolveInitialCluster,
  toListenUrl,
} from "./config-addresses.ts";
import { ConfigError, type ConfigProblem } from "./config-error.ts";
import {
  type AuthTokens,
  type ConfigNotice,
  checkAmounts,
  checkDiscovery,
  checkTiming,
  checkTls,
  checkTracing,
  type LogConfig,
  noteSettings,
  refuseMissing,
  resolveAuthTokens,
  resolveBcryptCost,
  resolveLog,
  resolveRetention,
} from "./config-rules.ts";
import { type FeatureGates, missingFeatures, resolveFeatureGates } from "./feature-gates.ts";
import { formatDurationMs } from "./go-duration.ts";
import { ValueError } from "./go-values.ts";
import {
  DEFAULT_NAME,
  keyOf,
  readSettingInput,
  SETTING_NAMES,
  SETTINGS,
  type SettingInputs,
  type SettingName,
  type SettingValues,
} from "./settings.ts";
import { isSocketFile, parseUrl, withAddress } from "./urls.ts";

export type { ListenUrl } from "./config-addresses.ts";
export { ConfigError, type ConfigProblem } from "./config-error.ts";
export type { AuthTokens, ConfigNotice } from "./config-rules.ts";

/**
 * Settings of one member. Every flag of etcd in camelCase (`listenClientUrls` for `--listen-client-urls`, see the table in `settings-table.ts`), durations in
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
  /**
   * How members reach each other. Default: over the peer URLs. A function is asked again when the member begins another life (after its disk was full); with an
   * object such a member ends.
   */
  readonly transport?: PeerTransport | (() => PeerTransport) | undefined;
  /** Default: `setImmediate`. */
  readonly defer?: ServerPorts["defer"] | undefined;
  /** Where passwords are hashed. Default: a worker thread. */
  readonly passwords?: ServerPorts["passwords"];
  /** Breakages for tests that prove that a test would notice. */
  readonly mutants?: ReadonlySet<string> | undefined;
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
  readonly authTokens: AuthTokens;
  readonly log: LogConfig;
  readonly featureGates: FeatureGates;
  readonly notices: readonly ConfigNotice[];
  /** What the program injected; absent parts are the system's. */
  readonly injected: {
    readonly logger?: Logger | undefined;
    readonly clock?: Clock | undefined;
    readonly random?: Random | undefined;
    readonly disk?: Disk | undefined;
    readonly transport?: PeerTransport | (() => PeerTransport) | undefined;
    readonly defer?: ServerPorts["defer"] | undefined;
    readonly passwords?: ServerPorts["passwords"];
  };
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
const AUTH_TOKEN_TTL_SECONDS_DEFAULT = 300;

const INJECTED = ["inMemory", "logger", "clock", "random", "disk", "transport", "defer", "passwords", "mutants"] as const;

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
  checkOverlap(listenClient, listenClientHttp, problem);

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
  const authTokens = resolveAuthTokens(values, problem, notices);
  const bcryptCost = resolveBcryptCost(values, notices);
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
        bcryptCost,
        authTokenTtlMs: (values["auth-token-ttl"] === 0 ? AUTH_TOKEN_TTL_SECONDS_DEFAULT : values["auth-token-ttl"]) * 1000,
        clientCertAuth: values["client-cert-auth"],
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
      authTokens: withAbsolutePaths(authTokens, workingDirectory),
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
      passwords: input.passwords,
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

function withAbsolutePaths(tokens: AuthTokens, workingDirectory: string): AuthTokens {
  if (tokens.kind !== "jwt") return tokens;
  const absolute = (path: string | undefined): string | undefined => (path === undefined ? undefined : resolve(workingDirectory, path));
  return { ...tokens, publicKeyFile: absolute(tokens.publicKeyFile), privateKeyFile: absolute(tokens.privateKeyFile) };
}

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

function freeze<Value>(value: Value): Value {
  if (typeof value !== "object" || value === null || value instanceof Set) return value;
  for (const part of Object.values(value)) freeze(part);
  return Object.freeze(value);
}
