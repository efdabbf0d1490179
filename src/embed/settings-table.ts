/**
 * The one table of settings. The command line's flags, the `ETCD_*` variables, the keys of the configuration file, `--help` and the embedder's
 * {@link EtcdConfig} all come from here. Names, types and defaults are etcd 3.7's.
 *
 * A setting whose feature holdfast lacks carries `missing`: any other value than the default is refused with one clear line, never silently ignored. One
 * that tunes something which holdfast does not have carries `noEffect`: it is accepted, because runbooks set it, and a warning says so.
 */

import type { FeatureGate } from "./feature-gates.ts";
import type { GoInteger } from "./go-values.ts";

export const SECTIONS = [
  "Member",
  "Clustering",
  "Security",
  "Auth",
  "Profiling and monitoring",
  "Logging",
  "Distributed tracing",
  "Features and tuning",
  "Holdfast's own",
  "Unsafe",
] as const;

interface SettingBase {
  readonly section: (typeof SECTIONS)[number];
  /** One sentence for `--help`. */
  readonly help: string;
  /** The default as `--help` shows it, where the value itself would not tell. */
  readonly shown?: string;
  /** What holdfast lacks: a value other than the default is refused. */
  readonly missing?: string;
  /** Why a value other than the default changes nothing: it is accepted with a warning. */
  readonly noEffect?: string;
  /** etcd's own warning for a deprecated setting, given whenever it is set. */
  readonly deprecated?: string;
  /** Place in the configuration file when it is not the flag's name at the top; "none" when etcd has none. */
  readonly file?: readonly [string, string] | "none";
}

export type SettingSpec = SettingBase &
  (
    | { readonly kind: "text"; readonly default: string }
    | { readonly kind: "choice"; readonly default: string; readonly choices: readonly string[]; readonly invalid?: "quoted" }
    | { readonly kind: "list"; readonly default: readonly string[]; readonly unique?: true }
    | { readonly kind: "urls"; readonly default: readonly string[] }
    | { readonly kind: "origins"; readonly default: readonly string[] }
    | { readonly kind: "switch"; readonly default: boolean }
    | { readonly kind: "integer"; readonly type: GoInteger; readonly default: number }
    /** Milliseconds. */
    | { readonly kind: "duration"; readonly default: number }
    | { readonly kind: "gates"; readonly default: Partial<Record<FeatureGate, boolean>> }
  );

const TLS = "TLS";
const DISCOVERY = "cluster discovery";
const TRACING = "distributed tracing";
const ROTATION = "log rotation";
const PEER_TIMEOUTS = "connections between members are watched by heartbeats of their own";

export const DEFAULT_NAME = "default";
export const DEFAULT_PEER_URL = "http://localhost:2380";
export const DEFAULT_CLIENT_URL = "http://localhost:2379";
export const DEFAULT_INITIAL_CLUSTER = `${DEFAULT_NAME}=${DEFAULT_PEER_URL}`;

const DEFAULT_ROTATION = '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}';

export const SETTINGS = {
  name: { kind: "text", default: DEFAULT_NAME, section: "Member", help: "Human-readable name of this member." },
  "data-dir": {
    kind: "text",
    default: "",
    shown: "NAME.etcd",
    section: "Member",
    help: "Directory for everything that this member keeps.",
  },
  "wal-dir": {
    kind: "text",
    default: "",
    section: "Member",
    help: "Directory for the write-ahead log, if it is to be apart from the data directory.",
  },
  "snapshot-count": {
    kind: "integer",
    type: "uint64",
    default: 10_000,
    section: "Member",
    help: "Applied log entries after which a snapshot is recorded and the log may be cut.",
  },
  "snapshot-catchup-entries": {
    kind: "integer",
    type: "uint64",
    default: 5000,
    section: "Features and tuning",
    help: "Log entries kept behind a snapshot for slow followers.",
  },
  "heartbeat-interval": {
    kind: "integer",
    type: "uint",
    default: 100,
    section: "Member",
    help: "Milliseconds between two heartbeats of the leader.",
  },
  "election-timeout": {
    kind: "integer",
    type: "uint",
    default: 1000,
    section: "Member",
    help: "Milliseconds without a leader after which an election begins; at least five heartbeats.",
  },
  "initial-election-tick-advance": {
    kind: "switch",
    default: true,
    section: "Member",
    help: "Shorten the first election timeout after a start.",
  },
  "listen-peer-urls": { kind: "urls", default: [DEFAULT_PEER_URL], section: "Member", help: "Where to listen for the other members." },
  "listen-client-urls": {
    kind: "urls",
    default: [DEFAULT_CLIENT_URL],
    section: "Member",
    help: "Where to listen for clients.",
  },
  "listen-client-http-urls": {
    kind: "urls",
    default: [],
    section: "Member",
    help: "Where to listen for HTTP clients only; --listen-client-urls then serves gRPC only.",
  },
  "max-snapshots": {
    kind: "integer",
    type: "uint",
    default: 5,
    section: "Member",
    help: "Snapshot files to keep (0: all).",
    noEffect: "the store is its own snapshot",
    deprecated: "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
  },
  "max-wals": { kind: "integer", type: "uint", default: 5, section: "Member", help: "Write-ahead log files to keep (0: all)." },
  "memory-mlock": {
    kind: "switch",
    default: false,
    section: "Member",
    help: "Keep the store's pages in memory.",
    missing: "memory locking",
  },
  "quota-backend-bytes": {
    kind: "integer",
    type: "int64",
    default: 0,
    section: "Member",
    help: "Bytes that the store may take before the member raises the NOSPACE alarm and stops taking writes (0: 2 GiB, negative: no limit).",
  },
  "backend-bbolt-freelist-type": {
    kind: "text",
    default: "",
    shown: "map",
    section: "Member",
    help: "Free list of etcd's bbolt file: array or map.",
    noEffect: "there is no bbolt file",
  },
  "backend-batch-interval": {
    kind: "duration",
    default: 0,
    section: "Member",
    help: "Longest time before a batch is committed.",
    noEffect: "every applied round of entries is one batch",
  },
  "backend-batch-limit": {
    kind: "integer",
    type: "int",
    default: 0,
    section: "Member",
    help: "Operations after which a batch is committed.",
    noEffect: "every applied round of entries is one batch",
  },
  "max-txn-ops": {
    kind: "integer",
    type: "uint",
    default: 128,
    section: "Member",
    help: "Operations allowed in one branch of a transaction.",
  },
  "max-request-bytes": {
    kind: "integer",
    type: "uint",
    default: 1_572_864,
    section: "Member",
    help: "Bytes that a client's request may have.",
  },
  "max-concurrent-streams": {
    kind: "integer",
    type: "uint32",
    default: 4_294_967_295,
    section: "Member",
    help: "Streams that one client connection may have open.",
  },
  "grpc-keepalive-min-time": {
    kind: "duration",
    default: 5000,
    section: "Member",
    help: "Shortest time between two pings of a client; one that pings more often is disconnected.",
  },
  "grpc-keepalive-interval": {
    kind: "duration",
    default: 7_200_000,
    section: "Member",
    help: "Time between two pings of the server to a silent client (0: none).",
  },
  "grpc-keepalive-timeout": {
    kind: "duration",
    default: 20_000,
    section: "Member",
    help: "How long to wait for the answer to a ping before the connection is closed (0: no end).",
  },
  "socket-reuse-port": {
    kind: "switch",
    default: false,
    section: "Member",
    help: "Set SO_REUSEPORT on listeners.",
    missing: "SO_REUSEPORT",
    file: ["socket-options", "reuse-port"],
  },
  "socket-reuse-address": {
    kind: "switch",
    default: false,
    section: "Member",
    help: "Set SO_REUSEADDR on listeners; Node always does.",
    file: ["socket-options", "reuse-address"],
  },
  "enable-grpc-gateway": { kind: "switch", default: true, section: "Member", help: "Serve the JSON API below /v3." },
  "raft-read-timeout": {
    kind: "duration",
    default: 5000,
    section: "Member",
    help: "Read timeout of connections between members.",
    noEffect: PEER_TIMEOUTS,
    file: "none",
  },
  "raft-write-timeout": {
    kind: "duration",
    default: 5000,
    section: "Member",
    help: "Write timeout of connections between members.",
    noEffect: PEER_TIMEOUTS,
    file: "none",
  },
  "feature-gates": { kind: "gates", default: {}, section: "Member", help: "Feature gates as Name=true,Other=false." },

  "initial-advertise-peer-urls": {
    kind: "urls",
    default: [DEFAULT_PEER_URL],
    section: "Clustering",
    help: "This member's peer URLs, as the other members reach them.",
  },
  "initial-cluster": {
    kind: "text",
    default: DEFAULT_INITIAL_CLUSTER,
    section: "Clustering",
    help: "All members of a new cluster, as name=peer-url,name=peer-url. Only used at the first start.",
  },
  "initial-cluster-state": {
    kind: "choice",
    choices: ["new", "existing"],
    default: "new",
    section: "Clustering",
    help: "'new' to found a cluster, 'existing' to join one after 'member add'. Only used at the first start.",
  },
  "initial-cluster-token": {
    kind: "text",
    default: "etcd-cluster",
    section: "Clustering",
    help: "Mixed into the ids, so that clusters founded with the same URLs do not mistake each other.",
  },
  "advertise-client-urls": {
    kind: "urls",
    default: [DEFAULT_CLIENT_URL],
    section: "Clustering",
    help: "This member's client URLs, as clients reach them.",
  },
  "discovery-token": {
    kind: "text",
    default: "",
    section: "Clustering",
    help: "Token of the cluster at the discovery service.",
    missing: DISCOVERY,
    file: ["discovery-config", "token"],
  },
  "discovery-endpoints": {
    kind: "list",
    unique: true,
    default: [],
    section: "Clustering",
    help: "Endpoints of the discovery service.",
    missing: DISCOVERY,
    file: ["discovery-config", "endpoints"],
  },
  "discovery-dial-timeout": {
    kind: "duration",
    default: 2000,
    section: "Clustering",
    help: "Discovery: time to connect.",
    missing: DISCOVERY,
    file: ["discovery-config", "dial-timeout"],
  },
  "discovery-request-timeout": {
    kind: "duration",
    default: 5000,
    section: "Clustering",
    help: "Discovery: time for a request.",
    missing: DISCOVERY,
    file: ["discovery-config", "request-timeout"],
  },
  "discovery-keepalive-time": {
    kind: "duration",
    default: 2000,
    section: "Clustering",
    help: "Discovery: time between pings.",
    missing: DISCOVERY,
    file: ["discovery-config", "keepalive-time"],
  },
  "discovery-keepalive-timeout": {
    kind: "duration",
    default: 6000,
    section: "Clustering",
    help: "Discovery: time to wait for a ping's answer.",
    missing: DISCOVERY,
    file: ["discovery-config", "keepalive-timeout"],
  },
  "discovery-insecure-transport": {
    kind: "switch",
    default: true,
    section: "Clustering",
    help: "Discovery: connect without TLS.",
    missing: DISCOVERY,
    file: "none",
  },
  "discovery-insecure-skip-tls-verify": {
    kind: "switch",
    default: false,
    section: "Clustering",
    help: "Discovery: do not verify the server's certificate.",
    missing: DISCOVERY,
    file: "none",
  },
  "discovery-cert": {
    kind: "text",
    default: "",
    section: "Clustering",
    help: "Discovery: client certificate.",
    missing: DISCOVERY,
    file: "none",
  },
  "discovery-key": { kind: "text", default: "", section: "Clustering", help: "Discovery: client key.", missing: DISCOVERY, file: "none" },
  "discovery-cacert": { kind: "text", default: "", section: "Clustering", help: "Discovery: CA bundle.", missing: DISCOVERY, file: "none" },
  "discovery-user": {
    kind: "text",
    default: "",
    section: "Clustering",
    help: "Discovery: user[:password].",
    missing: DISCOVERY,
    file: "none",
  },
  "discovery-password": {
    kind: "text",
    default: "",
    section: "Clustering",
    help: "Discovery: password.",
    missing: DISCOVERY,
    file: "none",
  },
  "discovery-fallback": {
    kind: "choice",
    choices: ["exit", "proxy"],
    default: "exit",
    section: "Clustering",
    help: "What to do when discovery fails: exit.",
    missing: DISCOVERY,
    file: "none",
  },
  "discovery-srv": {
    kind: "text",
    default: "",
    section: "Clustering",
    help: "DNS domain whose SRV records name the members.",
    missing: DISCOVERY,
  },
  "discovery-srv-name": { kind: "text", default: "", section: "Clustering", help: "Suffix of the SRV service name.", missing: DISCOVERY },
  "strict-reconfig-check": {
    kind: "switch",
    default: true,
    section: "Clustering",
    help: "Refuse membership changes that would lose the quorum.",
  },
  "pre-vote": {
    kind: "switch",
    default: true,
    section: "Clustering",
    help: "Ask before an election whether it could be won, so that a member that was cut off does not disturb the cluster.",
  },
  "auto-compaction-retention": {
    kind: "text",
    default: "0",
    section: "Clustering",
    help: "History to keep: a duration (a bare number is hours) in periodic mode, a number of revisions in revision mode. 0 keeps all.",
  },
  "auto-compaction-mode": { kind: "text", default: "periodic", section: "Clustering", help: "'periodic' or 'revision'." },
  "v2-deprecation": {
    kind: "choice",
    choices: ["write-only", "write-only-skip-check", "write-only-drop-data", "gone"],
    invalid: "quoted",
    default: "write-only",
    section: "Clustering",
    help: "Phase of the removal of etcd's v2 store. The value is ignored.",
    deprecated: "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
  },

  "cert-file": {
    kind: "text",
    default: "",
    section: "Security",
    help: "Certificate of the client listeners.",
    missing: TLS,
    file: ["client-transport-security", "cert-file"],
  },
  "key-file": {
    kind: "text",
    default: "",
    section: "Security",
    help: "Key of the client listeners.",
    missing: TLS,
    file: ["client-transport-security", "key-file"],
  },
  "client-cert-auth": {
    kind: "switch",
    default: false,
    section: "Security",
    help: "Require certificates of clients.",
    missing: TLS,
    file: ["client-transport-security", "client-cert-auth"],
  },
  "client-cert-file": {
    kind: "text",
    default: "",
    section: "Security",
    help: "Certificate for connections of this server to client listeners.",
    missing: TLS,
    file: ["client-transport-security", "client-cert-file"],
  },
  "client-key-file": {
    kind: "text",
    default: "",
    section: "Security",
    help: "Key for connections of this server to client listeners.",
    missing: TLS,
    file: ["client-transport-security", "client-key-file"],
  },
  "client-crl-file": { kind: "text", default: "", section: "Security", help: "Revoked client certificates.", missing: TLS, file: "none" },
  "client-cert-allowed-hostname": {
    kind: "list",
    default: [],
    section: "Security",
    help: "Host names that client certificates may carry.",
    missing: TLS,
    file: ["client-transport-security", "allowed-hostname"],
  },
  "trusted-ca-file": {
    kind: "text",
    default: "",
    section: "Security",
    help: "CA bundle for client certificates.",
    missing: TLS,
    file: ["client-transport-security", "trusted-ca-file"],
  },
  "auto-tls": {
    kind: "switch",
    default: false,
    section: "Security",
    help: "Make a certificate for the client listeners.",
    missing: TLS,
    file: ["client-transport-security", "auto-tls"],
  },
  "peer-cert-file": {
    kind: "text",
    default: "",
    section: "Security",
    help: "Certificate of the peer listeners.",
    missing: TLS,
    file: ["peer-transport-security", "cert-file"],
  },
  "peer-key-file": {
    kind: "text",
    default: "",
    section: "Security",
    help: "Key of the peer listeners.",
    missing: TLS,
    file: ["peer-transport-security", "key-file"],
  },
  "peer-client-cert-auth": {
    kind: "switch",
    default: false,
    section: "Security",
    help: "Require certificates of peers.",
    missing: TLS,
    file: ["peer-transport-security", "client-cert-auth"],
  },
  "peer-client-cert-file": {
    kind: "text",
    default: "",
    section: "Security",
    help: "Certificate for connections to peers.",
    missing: TLS,
    file: ["peer-transport-security", "client-cert-file"],
  },
  "peer-client-key-file": {
    kind: "text",
    default: "",
    section: "Security",
    help: "Key for connections to peers.",
    missing: TLS,
    file: ["peer-transport-security", "client-key-file"],
  },
  "peer-trusted-ca-file": {
    kind: "text",
    default: "",
    section: "Security",
    help: "CA bundle for peer certificates.",
    missing: TLS,
    file: ["peer-transport-security", "trusted-ca-file"],
  },
  "peer-cert-allowed-cn": {
    kind: "list",
    default: [],
    section: "Security",
    help: "Common names that peer certificates may carry.",
    missing: TLS,
    file: ["peer-transport-security", "allowed-cn"],
  },
  "peer-cert-allowed-hostname": {
    kind: "list",
    default: [],
    section: "Security",
    help: "Host names that peer certificates may carry.",
    missing: TLS,
    file: ["peer-transport-security", "allowed-hostname"],
  },
  "peer-auto-tls": {
    kind: "switch",
    default: false,
    section: "Security",
    help: "Make a certificate for the peer listeners.",
    missing: TLS,
    file: ["peer-transport-security", "auto-tls"],
  },
  "self-signed-cert-validity": {
    kind: "integer",
    type: "uint",
    default: 1,
    section: "Security",
    help: "Years that made certificates last.",
    missing: TLS,
  },
  "peer-crl-file": { kind: "text", default: "", section: "Security", help: "Revoked peer certificates.", missing: TLS, file: "none" },
  "cipher-suites": { kind: "list", default: [], section: "Security", help: "TLS cipher suites to allow.", missing: TLS },
  cors: { kind: "origins", default: ["*"], section: "Security", help: "Origins whose pages may call the API (*: all)." },
  "host-whitelist": {
    kind: "list",
    unique: true,
    default: ["*"],
    section: "Security",
    help: "Host names that HTTP requests may ask for (*: all).",
  },
  "tls-min-version": { kind: "text", default: "TLS1.2", section: "Security", help: "Lowest TLS version: TLS1.2 or TLS1.3.", missing: TLS },
  "tls-max-version": { kind: "text", default: "", section: "Security", help: "Highest TLS version: TLS1.2 or TLS1.3.", missing: TLS },
  "peer-skip-client-san-verification": {
    kind: "switch",
    default: false,
    section: "Security",
    help: "Do not compare a peer certificate's names with its address.",
    missing: TLS,
    file: ["peer-transport-security", "skip-client-san-verification"],
  },

  "auth-token": {
    kind: "text",
    default: "simple",
    section: "Auth",
    help: "Kind of tokens: simple, or jwt,sign-method=...,pub-key=...,priv-key=...,ttl=... with paths of key files.",
  },
  "bcrypt-cost": {
    kind: "integer",
    type: "uint",
    default: 10,
    section: "Auth",
    help: "Cost of a password hash, 4 to 31.",
  },
  "auth-token-ttl": {
    kind: "integer",
    type: "uint",
    default: 300,
    section: "Auth",
    help: "Seconds that an unused simple token lives.",
  },

  "enable-pprof": {
    kind: "switch",
    default: false,
    section: "Profiling and monitoring",
    help: "Serve profiles below /debug/pprof.",
    missing: "profiling over HTTP",
  },
  metrics: {
    kind: "text",
    default: "basic",
    section: "Profiling and monitoring",
    help: "Detail of the metrics.",
    missing: "extensive metrics",
  },
  "listen-metrics-urls": {
    kind: "urls",
    default: [],
    section: "Profiling and monitoring",
    help: "Where to serve /metrics, /health, /livez and /readyz besides the client URLs.",
  },

  logger: { kind: "text", default: "zap", section: "Logging", help: "Only 'zap', which stands for structured logs." },
  "log-outputs": {
    kind: "list",
    unique: true,
    default: ["default"],
    section: "Logging",
    help: "Where logs go: 'default' (stderr), 'stderr', 'stdout' or paths of files.",
  },
  "log-level": { kind: "text", default: "info", section: "Logging", help: "debug, info, warn, error, dpanic, panic or fatal." },
  "log-format": { kind: "text", default: "json", section: "Logging", help: "json or console." },
  "enable-log-rotation": { kind: "switch", default: false, section: "Logging", help: "Rotate the log file.", missing: ROTATION },
  "log-rotation-config-json": {
    kind: "text",
    default: DEFAULT_ROTATION,
    section: "Logging",
    help: "How to rotate the log file.",
    missing: ROTATION,
  },
  "warning-unary-request-duration": {
    kind: "duration",
    default: 300,
    section: "Logging",
    help: "Requests that take longer are logged.",
    noEffect: "only slow applies are logged, see --warning-apply-duration",
  },

  "enable-distributed-tracing": { kind: "switch", default: false, section: "Distributed tracing", help: "Send traces.", missing: TRACING },
  "distributed-tracing-address": {
    kind: "text",
    default: "localhost:4317",
    section: "Distributed tracing",
    help: "Address of the collector.",
    missing: TRACING,
  },
  "distributed-tracing-service-name": {
    kind: "text",
    default: "etcd",
    section: "Distributed tracing",
    help: "Name of the service.",
    missing: TRACING,
  },
  "distributed-tracing-instance-id": {
    kind: "text",
    default: "",
    section: "Distributed tracing",
    help: "Id of this instance.",
    missing: TRACING,
  },
  "distributed-tracing-sampling-rate": {
    kind: "integer",
    type: "int",
    default: 0,
    section: "Distributed tracing",
    help: "Traces per million requests.",
    missing: TRACING,
  },

  "corrupt-check-time": {
    kind: "duration",
    default: 0,
    section: "Features and tuning",
    help: "Time between two comparisons of all members' data (0: none).",
    missing: "periodic corruption check",
  },
  "compact-hash-check-time": {
    kind: "duration",
    default: 60_000,
    section: "Features and tuning",
    help: "Time between two comparisons of compaction hashes.",
    noEffect: "compaction hashes are not compared",
  },
  "compaction-batch-limit": {
    kind: "integer",
    type: "int",
    default: 0,
    shown: "1000",
    section: "Features and tuning",
    help: "Revisions removed by one step of a compaction.",
  },
  "compaction-sleep-interval": {
    kind: "duration",
    default: 0,
    shown: "10ms",
    section: "Features and tuning",
    help: "Pause between two steps of a compaction.",
  },
  "watch-progress-notify-interval": {
    kind: "duration",
    default: 0,
    shown: "10m0s",
    section: "Features and tuning",
    help: "Time between two progress notifications to a quiet watcher.",
  },
  "warning-apply-duration": {
    kind: "duration",
    default: 100,
    section: "Features and tuning",
    help: "Entries that take longer to apply are logged.",
  },
  "max-learners": {
    kind: "integer",
    type: "int",
    default: 1,
    section: "Features and tuning",
    help: "Learners that the cluster may have; equal on all members.",
  },
  "downgrade-check-time": {
    kind: "duration",
    default: 5000,
    section: "Features and tuning",
    help: "Time between two looks at the state of a downgrade.",
    noEffect: "no downgrade can be under way",
  },
  "bootstrap-defrag-threshold-megabytes": {
    kind: "integer",
    type: "uint",
    default: 0,
    section: "Features and tuning",
    help: "Defragment at start when so much can be freed.",
    noEffect: "the store reclaims space by itself",
  },

  "value-cache-bytes": {
    kind: "integer",
    type: "uint",
    default: 67_108_864,
    section: "Holdfast's own",
    help: "Bytes of recently used values kept in memory.",
  },

  "force-new-cluster": {
    kind: "switch",
    default: false,
    section: "Unsafe",
    help: "Turn this member's data into a new cluster of one member.",
  },
  "unsafe-no-fsync": {
    kind: "switch",
    default: false,
    section: "Unsafe",
    help: "Never wait for the disk: loses data when the power fails.",
  },
} as const satisfies Record<string, SettingSpec>;
