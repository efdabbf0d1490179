import { describe, expect, it } from "vitest";
import { silentLogger } from "../base/logger.ts";
import { ConfigError, type EtcdConfig, resolveConfig, withBoundPorts } from "./config.ts";

const options = { workingDirectory: "/w", defaultHost: () => undefined };

function resolved(input: EtcdConfig = {}) {
  return resolveConfig(input, options);
}

function problems(input: EtcdConfig): string[] {
  try {
    resolveConfig(input, options);
  } catch (error) {
    if (ConfigError.is(error)) return error.problems.map((problem) => problem.message);
    throw error;
  }
  return [];
}

describe("defaults", () => {
  it("are etcd's", () => {
    const { server, listen, cors, hostWhitelist, grpc, log, enableGrpcGateway } = resolved();
    expect(server).toEqual({
      name: "default",
      dataDirectory: "/w/default.etcd",
      walDirectory: "/w/default.etcd/member/wal",
      inMemory: false,
      initialCluster: [{ name: "default", urls: ["http://localhost:2380"] }],
      initialClusterState: "new",
      initialClusterToken: "etcd-cluster",
      initialAdvertisePeerUrls: ["http://localhost:2380"],
      advertiseClientUrls: ["http://localhost:2379"],
      heartbeatMs: 100,
      electionMs: 1000,
      initialElectionTickAdvance: true,
      preVote: true,
      strictReconfigCheck: true,
      forceNewCluster: false,
      maxLearners: 1,
      snapshotCount: 10_000,
      snapshotCatchUpEntries: 5000,
      maxWals: 5,
      quotaBackendBytes: 0,
      maxRequestBytes: 1_572_864,
      maxTxnOps: 128,
      autoCompactionMode: "periodic",
      autoCompactionRetention: 0,
      compactionBatchLimit: 1000,
      compactionSleepMs: 10,
      watchProgressNotifyMs: 600_000,
      warningApplyMs: 100,
      leaseCheckpoint: false,
      bcryptCost: 10,
      authTokenTtlMs: 300_000,
      clientCertAuth: false,
      valueCacheBytes: 67_108_864,
      unsafeNoFsync: false,
      mutants: undefined,
    });
    expect(listen.client).toEqual([{ kind: "tcp", url: "http://localhost:2379", host: "127.0.0.1", port: 2379 }]);
    expect(listen.peer).toEqual([{ kind: "tcp", url: "http://localhost:2380", host: "127.0.0.1", port: 2380 }]);
    expect([listen.clientHttp, listen.metrics, cors, hostWhitelist, enableGrpcGateway]).toEqual([[], [], ["*"], ["*"], true]);
    expect(grpc).toEqual({
      keepaliveMinTimeMs: 5000,
      keepaliveIntervalMs: 7_200_000,
      keepaliveTimeoutMs: 20_000,
      maxConcurrentStreams: 4_294_967_295,
      receiveBytesMax: 2_097_152,
    });
    expect(log).toEqual({ level: "info", format: "json", outputs: ["stderr"] });
  });

  it("warn about what etcd warns about", () => {
    expect(resolved().notices.map((notice) => notice.message)).toEqual([
      "Running http and grpc server on single port. This is not recommended for production.",
      "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same default name",
      "'data-dir' was empty; using default",
    ]);
    expect(resolved({ name: "n1", inMemory: true, listenClientUrls: [] }).notices).toEqual([]);
  });

  it("are frozen, to the bottom, but not what was injected", () => {
    const config = resolved({ logger: silentLogger });
    expect(Object.isFrozen(config.server)).toBe(true);
    expect(Object.isFrozen(config.server.initialCluster[0])).toBe(true);
    expect(Object.isFrozen(config.listen.client[0])).toBe(true);
    expect(Object.isFrozen(silentLogger)).toBe(false);
    expect(config.injected.logger).toBe(silentLogger);
  });
});

describe("addresses", () => {
  it("sorts URLs and keeps each once", () => {
    const { server, listen } = resolved({
      listenClientUrls: "http://127.0.0.1:9,http://127.0.0.1:10, http://127.0.0.1:9",
      advertiseClientUrls: ["http://b:1", "http://a:1"],
    });
    expect(listen.client.map((url) => url.url)).toEqual(["http://127.0.0.1:10", "http://127.0.0.1:9"]);
    expect(server.advertiseClientUrls).toEqual(["http://a:1", "http://b:1"]);
  });

  it("makes the initial cluster from the name, but not for the default name", () => {
    expect(resolved({ name: "n1", initialAdvertisePeerUrls: "http://h:2,http://h:1" }).server.initialCluster).toEqual([
      { name: "n1", urls: ["http://h:1", "http://h:2"] },
    ]);
    expect(resolved({ initialAdvertisePeerUrls: "http://h:2" }).server.initialCluster).toEqual([
      { name: "default", urls: ["http://localhost:2380"] },
    ]);
  });

  it("collects the URLs of a name that occurs twice", () => {
    expect(resolved({ name: "a", initialCluster: "a=http://h:2,b=http://i:1,,a=http://h:1" }).server.initialCluster).toEqual([
      { name: "a", urls: ["http://h:1", "http://h:2"] },
      { name: "b", urls: ["http://i:1"] },
    ]);
  });

  it("opens no port for empty lists, and still has a peer URL to make its id of", () => {
    const { server, listen } = resolved({ listenClientUrls: [], listenPeerUrls: [] });
    expect([listen.client, listen.peer, server.advertiseClientUrls]).toEqual([[], [], []]);
    expect(server.initialAdvertisePeerUrls).toEqual(["http://localhost:2380"]);
  });

  it("advertises what it listens on, with the ports that the system chose", () => {
    const config = resolved({ name: "n", listenClientUrls: ["http://127.0.0.1:0"], listenPeerUrls: ["http://[::1]:0"] });
    const bound = withBoundPorts(config, { client: ["http://127.0.0.1:4001"], peer: ["http://[::1]:4002"] }).server;
    expect(bound.advertiseClientUrls).toEqual(["http://127.0.0.1:4001"]);
    expect(bound.initialAdvertisePeerUrls).toEqual(["http://[::1]:4002"]);
    expect(bound.initialCluster).toEqual([{ name: "n", urls: ["http://[::1]:4002"] }]);
    expect(Object.isFrozen(bound)).toBe(true);
  });

  it("leaves advertised URLs with a port alone", () => {
    const config = resolved({ listenClientUrls: ["http://127.0.0.1:0"], advertiseClientUrls: "http://lb:80" });
    expect(withBoundPorts(config, { client: ["http://127.0.0.1:4001"], peer: [] }).server.advertiseClientUrls).toEqual(["http://lb:80"]);
  });

  it("replaces the default host behind 0.0.0.0 by the machine's address", () => {
    const config = resolveConfig({ name: "n", listenPeerUrls: "http://0.0.0.0:99" }, { ...options, defaultHost: () => "10.0.0.7" });
    expect(config.server.initialAdvertisePeerUrls).toEqual(["http://10.0.0.7:99"]);
    expect(config.server.initialCluster).toEqual([{ name: "n", urls: ["http://10.0.0.7:99"] }]);
    expect(config.notices).toContainEqual({ level: "info", message: "detected default host for advertise", fields: { host: "10.0.0.7" } });
    const explicit = resolveConfig(
      { name: "n", listenPeerUrls: "http://0.0.0.0:99", initialAdvertisePeerUrls: "http://localhost:2380" },
      { ...options, defaultHost: () => "10.0.0.7" },
    );
    expect(explicit.server.initialAdvertisePeerUrls).toEqual(["http://10.0.0.7:99"]);
  });

  it("does not advertise every interface", () => {
    expect(problems({ listenClientUrls: "http://0.0.0.0:1" })).toEqual([
      "--advertise-client-urls is required when --listen-client-urls is set explicitly",
    ]);
  });

  it("takes socket files", () => {
    const { listen, server } = resolved({ listenClientUrls: "unix:///run/h.sock", advertiseClientUrls: "unix://localhost:24301" });
    expect(listen.client).toEqual([{ kind: "unix", url: "unix:///run/h.sock", path: "/run/h.sock" }]);
    expect(server.advertiseClientUrls).toEqual(["unix://localhost:24301"]);
  });

  it("takes an absolute and a relative directory, and one for the log", () => {
    expect(resolved({ dataDir: "d", walDir: "w" }).server).toMatchObject({ dataDirectory: "/w/d", walDirectory: "/w/w" });
    expect(resolved({ dataDir: "/d" }).server).toMatchObject({ dataDirectory: "/d", walDirectory: "/d/member/wal" });
  });
});

describe("values", () => {
  it("takes durations as milliseconds and as text", () => {
    expect(resolved({ grpcKeepaliveInterval: "1m30s", grpcKeepaliveTimeout: 250 }).grpc).toMatchObject({
      keepaliveIntervalMs: 90_000,
      keepaliveTimeoutMs: 250,
    });
  });

  it.each([
    ["periodic", "0", 0],
    ["periodic", "", 0],
    ["periodic", "2", 7_200_000],
    ["periodic", "30m", 1_800_000],
    ["revision", "1000", 1000],
  ])("reads %s retention %j", (autoCompactionMode, autoCompactionRetention, expected) => {
    expect(resolved({ autoCompactionMode, autoCompactionRetention }).server.autoCompactionRetention).toBe(expected);
  });

  it("never notifies watchers of progress more often than ten times a second", () => {
    expect(resolved({ watchProgressNotifyInterval: "1ms" }).server.watchProgressNotifyMs).toBe(100);
  });

  it("switches the gates of a stage", () => {
    expect(resolved({ featureGates: "LeaseCheckpoint=true" }).server.leaseCheckpoint).toBe(true);
    expect(resolved({ featureGates: { AllBeta: false, FastLeaseKeepAlive: true } }).featureGates).toMatchObject({
      FastLeaseKeepAlive: true,
      TxnModeWriteWithSharedBuffer: false,
    });
  });

  it("treats undefined as not given", () => {
    expect(resolved({ name: undefined, electionTimeout: undefined }).server).toMatchObject({ name: "default", electionMs: 1000 });
  });

  it("accepts log levels as etcd does", () => {
    expect(["", "INFO", "dpanic"].map((logLevel) => resolved({ logLevel }).log.level)).toEqual(["info", "info", "dpanic"]);
  });

  it("warns about settings that change nothing and deprecated ones", () => {
    const messages = resolved({ maxSnapshots: 7, backendBatchLimit: 5, v2Deprecation: "gone" }).notices.map(({ message, fields }) => [
      message,
      fields.setting,
    ]);
    expect(messages).toContainEqual(["--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.", undefined]);
    expect(messages).toContainEqual(["setting has no effect", "backend-batch-limit"]);
    expect(messages).toContainEqual([
      "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
      undefined,
    ]);
  });

  it("warns about sizes beyond what is recommended", () => {
    const messages = resolved({ maxRequestBytes: 10_485_761, quotaBackendBytes: 9_999_999_999 }).notices.map((notice) => notice.message);
    expect(messages).toEqual(expect.arrayContaining(["exceeded recommended request limit", "quota exceeds the maximum value"]));
  });
});

describe("problems", () => {
  it.each<[EtcdConfig, string]>([
    [{ listenPeerUrls: "http://example.com:2381" }, "expected IP in URL for binding (http://example.com:2381)"],
    [{ listenClientUrls: "http://:2379", advertiseClientUrls: "http://a:1" }, "expected IP in URL for binding (http://:2379)"],
    [{ listenMetricsUrls: "http://example.com:1" }, "expected IP in URL for binding (http://example.com:1)"],
    [
      { advertiseClientUrls: "http://:2379" },
      '--advertise-client-urls "http://:2379" must be in the format "host:port", "unix:/path/to/socket" or "unixs:/path/to/socket" (unexpected empty host (http://:2379))',
    ],
    [
      { initialAdvertisePeerUrls: "http://:2379,http://a:1" },
      '--initial-advertise-peer-urls "http://:2379,http://a:1" must be "host:port" (unexpected empty host (http://:2379))',
    ],
    [{ electionTimeout: 400 }, "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]"],
    [{ electionTimeout: 60_000 }, "--election-timeout[60000ms] is too long, and should be set less than 50000ms"],
    [{ heartbeatInterval: 0 }, "--heartbeat-interval must be >0 (set to 0ms)"],
    [{ electionTimeout: 0 }, "--election-timeout must be >0 (set to 0ms)"],
    [{ autoCompactionMode: "foo" }, 'unknown auto-compaction-mode "foo"'],
    [{ autoCompactionMode: "" }, "undefined auto-compaction-mode"],
    [{ autoCompactionRetention: "foo" }, 'error parsing CompactionRetention: time: invalid duration "foo"'],
    [{ autoCompactionRetention: "-5" }, 'error parsing CompactionRetention: time: missing unit in duration "-5"'],
    [{ loggerKind: "capnslog" }, "--logger=capnslog is removed in v3.5"],
    [{ loggerKind: "foo" }, 'unknown logger option "foo"'],
    [{ logFormat: "foo" }, "unknown log format: foo, supported values json, console"],
    [{ logLevel: "foo" }, 'unrecognized level: "foo"'],
    [{ logOutputs: ["default", "stderr"] }, 'multi logoutput for "default" is not supported yet'],
    [{ enableLogRotation: true }, "--log-outputs requires a single file path when --log-rotate-config-json is defined"],
    [{ discoveryToken: "x" }, "both --discovery-token and --discovery-endpoints must be set"],
    [
      { initialCluster: "default=http://localhost:2380", discoverySrv: "x.local" },
      'multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"',
    ],
    [{ discoveryFallback: "proxy" }, 'v2 proxy is deprecated, and --discovery-fallback can\'t be configured as "proxy"'],
    [{ compactHashCheckTime: 0 }, "--compact-hash-check-time must be >0 (set to 0s)"],
    [
      { featureGates: "LeaseCheckpointPersist=true" },
      "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
    ],
    [{ featureGates: "Foo=true" }, "unrecognized feature gate: Foo"],
    [{ featureGates: "LeaseCheckpoint" }, "missing bool value for LeaseCheckpoint"],
    [{ featureGates: "LeaseCheckpoint=x" }, 'invalid value of LeaseCheckpoint=x, err: strconv.ParseBool: parsing "x": invalid syntax'],
    [{ tlsMinVersion: "TLS1.1" }, 'unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)'],
    [{ initialClusterState: "bogus" as "new" }, 'unexpected clusterState "bogus"'],
    [{ initialCluster: "foo" }, "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: "],
    [{ initialCluster: "foo=bar" }, "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: bar"],
    [{ authToken: "foo" }, "auth: invalid auth options"],
    [{ authToken: "foo,a=b" }, "auth: invalid auth options"],
    [{ authToken: "simple,foo" }, "auth: invalid auth options"],
    [{ authToken: "simple,a=b=c" }, "auth: invalid auth options"],
    [{ authToken: "jwt" }, "auth: invalid auth options"],
    [{ authToken: "jwt,sign-method=FOO,priv-key=k" }, "auth: invalid auth options"],
    [{ authToken: "jwt,sign-method=none,priv-key=k" }, "auth: invalid auth options"],
    [{ authToken: "jwt,sign-method=RS256,priv-key=k,priv-key=l" }, "auth: invalid auth options"],
    [{ authToken: "jwt,sign-method=RS256,priv-key=k,ttl=xx" }, "auth: invalid auth options"],
    [{ authToken: "jwt,sign-method=RS256" }, "auth: missing key data"],
    [{ authToken: "jwt,sign-method=HS256,pub-key=k" }, "auth: missing key data"],
    [
      { listenClientUrls: "https://127.0.0.1:1" },
      "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme",
    ],
    [
      { listenPeerUrls: "https://127.0.0.1:2380", initialAdvertisePeerUrls: "http://127.0.0.1:2380" },
      "cannot listen on TLS for 127.0.0.1:2380: KeyFile and CertFile are not presented",
    ],
    [{ listenMetricsUrls: "https://127.0.0.1:1" }, "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"],
    [
      { listenClientHttpUrls: "http://localhost:2379" },
      "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://localhost:2379",
    ],
    [{ listenClientUrls: "http://127.0.0.1:99999" }, "listen tcp: address 99999: invalid port"],
    [{ maxRequestBytes: 0 }, "--max-request-bytes must be >0 (set to 0)"],
    [{ grpcKeepaliveInterval: -1000 }, "--grpc-keepalive-interval must not be negative (set to -1s)"],
    [
      { listenPeerUrls: [], name: "a", initialCluster: "a=http://h:1,b=http://h:2" },
      "--listen-peer-urls must not be empty when --initial-cluster names other members",
    ],
    // What holdfast lacks.
    [{ certFile: "c.pem" }, "--cert-file is set, but holdfast has no TLS yet"],
    [{ peerAutoTls: true }, "--peer-auto-tls is set, but holdfast has no TLS yet"],
    [{ tlsMinVersion: "TLS1.3" }, "--tls-min-version is set, but holdfast has no TLS yet"],
    [{ discoveryDialTimeout: "3s" }, "--discovery-dial-timeout is set, but holdfast has no cluster discovery yet"],
    [{ discoverySrv: "x.local" }, "--discovery-srv is set, but holdfast has no cluster discovery yet"],
    [{ enablePprof: true }, "--enable-pprof is set, but holdfast has no profiling over HTTP yet"],
    [{ enableDistributedTracing: true }, "--enable-distributed-tracing is set, but holdfast has no distributed tracing yet"],
    [{ memoryMlock: true }, "--memory-mlock is set, but holdfast has no memory locking yet"],
    [{ socketReusePort: true }, "--socket-reuse-port is set, but holdfast has no SO_REUSEPORT yet"],
    [{ corruptCheckTime: "1h" }, "--corrupt-check-time is set, but holdfast has no periodic corruption check yet"],
    [
      { featureGates: "InitialCorruptCheck=true" },
      "feature gate InitialCorruptCheck is on, but holdfast has no corruption check before serving yet",
    ],
    [{ logOutputs: "systemd/journal" }, "--log-outputs has systemd/journal, but holdfast has no connection to journald yet"],
    [
      { listenPeerUrls: "unix:///run/p.sock", initialAdvertisePeerUrls: "http://h:1" },
      "holdfast has no socket files between members yet (--listen-peer-urls unix:///run/p.sock)",
    ],
    [{ initialAdvertisePeerUrls: "https://h:1" }, "holdfast has no TLS between members yet (--initial-advertise-peer-urls https://h:1)"],
    [{ initialCluster: "default=https://h:1" }, "holdfast has no TLS between members yet (--initial-cluster default=https://h:1)"],
  ])("%j: %s", (input, message) => {
    expect(problems(input)).toEqual([message]);
  });

  it("reads the kind of tokens", () => {
    const tokens = (authToken: string): unknown => resolved({ authToken }).authTokens;
    expect([tokens("simple"), tokens("simple,a=b"), tokens("")]).toEqual([{ kind: "simple" }, { kind: "simple" }, { kind: "none" }]);
    expect(tokens("jwt,sign-method=ES256,pub-key=k/pub,priv-key=/k/priv,ttl=1m30s")).toEqual({
      kind: "jwt",
      method: "ES256",
      publicKeyFile: "/w/k/pub",
      privateKeyFile: "/k/priv",
      ttlMs: 90_000,
    });
    expect(tokens("jwt,pub-key=p,sign-method=EdDSA")).toMatchObject({ publicKeyFile: "/w/p", privateKeyFile: undefined, ttlMs: 300_000 });
    const { notices } = resolved({ authToken: "jwt,sign-method=PS256,priv-key=k,foo=bar", inMemory: true });
    expect(notices).toContainEqual({ level: "warn", message: "unknown JWT options", fields: { keys: ["foo"] } });
  });

  it("replaces costs that bcrypt has not, and no lifetime of tokens", () => {
    for (const bcryptCost of [0, 3, 32]) {
      const { server, notices } = resolved({ bcryptCost });
      expect(server.bcryptCost).toBe(10);
      expect(notices).toContainEqual({
        level: "warn",
        message: "use default bcrypt cost instead of the invalid given cost",
        fields: { "min-cost": 4, "max-cost": 31, "default-cost": 10, "given-cost": bcryptCost },
      });
    }
    expect([resolved({ bcryptCost: 4 }), resolved({ bcryptCost: 31 })].map(({ server }) => server.bcryptCost)).toEqual([4, 31]);
    expect([resolved({ authTokenTtl: 0 }), resolved({ authTokenTtl: 3 })].map(({ server }) => server.authTokenTtlMs)).toEqual([
      300_000, 3000,
    ]);
  });

  it("refuses values of another type, as plain JavaScript may give them", () => {
    const input = {
      name: 3,
      electionTimeout: "1000",
      snapshotCount: -1,
      preVote: "yes",
      listenClientUrls: [1],
      grpcKeepaliveInterval: "soon",
      maxTxnOps: 1.5,
      listenClientUrl: "http://127.0.0.1:1",
    } as unknown as EtcdConfig;
    expect(new Set(problems(input))).toEqual(
      new Set([
        'invalid value "3" for --name: must be a string',
        'invalid value "-1" for --snapshot-count: value out of range',
        'invalid value "1000" for --election-timeout: must be an integer',
        'invalid value "1" for --listen-client-urls: must be a string or an array of strings',
        'invalid value "1.5" for --max-txn-ops: must be an integer',
        'invalid value "soon" for --grpc-keepalive-interval: parse error',
        'invalid value "yes" for --pre-vote: must be a boolean',
        'unknown setting "listenClientUrl"',
      ]),
    );
  });

  it("reports everything together, in one line and by setting", () => {
    const input: EtcdConfig = { electionTimeout: 1, certFile: "c", listenPeerUrls: "foo" };
    expect(() => resolveConfig(input, { ...options, problems: [{ setting: "x", message: "found before" }] })).toThrow(
      new ConfigError([
        {
          setting: "listen-peer-urls",
          message: 'invalid value "foo" for --listen-peer-urls: URL scheme must be http, https, unix, or unixs: foo',
        },
        { setting: "election-timeout", message: "--election-timeout[1ms] should be at least as 5 times as --heartbeat-interval[100ms]" },
        { setting: "cert-file", message: "--cert-file is set, but holdfast has no TLS yet" },
        { setting: "x", message: "found before" },
      ]),
    );
    expect(problems(input)).toHaveLength(3);
  });
});
