/**
 * Every metric of one server. Names, labels, types and buckets are etcd's, because published dashboards and alerts are written against them; the
 * help texts are our own. Nothing here is process-global: two servers in one process count apart.
 *
 * Hot paths increment fields of the handles below (`metrics.puts.value++`); gauges about the state of other parts are asked for on a scrape, see
 * {@link ServerMetrics.bind}.
 */
import type * as PromClient from "prom-client";
import { ALL_METHODS } from "../api/index.ts";
import { hexId, type MemberId } from "../base/ids.ts";
import { requirePackage } from "../base/require-system.ts";
import { type ProcessFacts, ProcessReader, processFamilies } from "./metrics-process.ts";
import { RpcCounterFamily, RpcHandledFamily, RpcSecondsFamily, type RpcSeries, type RpcShape, rpcSeriesOf } from "./metrics-rpc.ts";
import {
  Counter,
  doubling,
  Family,
  ForeignFamily,
  familyText,
  Gauge,
  Histogram,
  InfoFamily,
  isFamily,
  type MetricFamily,
} from "./metrics-text.ts";
import type { PeerObserver, SnapshotEvent } from "./peer/observer.ts";

export { RpcSeries } from "./metrics-rpc.ts";
export { Counter, Family, Gauge, Histogram } from "./metrics-text.ts";

/** Of `GET /metrics`. */
export const METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/** The bucket families of the specification, in seconds. */
const B1 = doubling(0.001, 14);
const B2 = doubling(0.0001, 20);
const B3 = doubling(0.01, 15);
const B4 = doubling(0.01, 17);
const B5 = doubling(0.1, 13);
const B6 = doubling(0.1, 10);
const B7 = doubling(0.0001, 16);

/** Feature gates and whether they are on by default. */
const FEATURE_GATES: readonly (readonly [name: string, stage: "ALPHA" | "BETA", on: boolean])[] = [
  ["AllAlpha", "ALPHA", false],
  ["AllBeta", "BETA", false],
  ["CompactHashCheck", "ALPHA", false],
  ["FastLeaseKeepAlive", "BETA", true],
  ["InitialCorruptCheck", "ALPHA", false],
  ["LeaseCheckpoint", "ALPHA", false],
  ["LeaseCheckpointPersist", "ALPHA", false],
  ["PriorityRequest", "ALPHA", false],
  ["SetMemberLocalAddr", "ALPHA", false],
  ["StopGRPCServiceOnDefrag", "ALPHA", false],
  ["TxnModeWriteWithSharedBuffer", "BETA", true],
];

/** What scrapes ask other parts for. Each must be cheap and may be left out: the gauge then shows what was last set. */
export interface MetricSources {
  readonly hasLeader?: () => boolean;
  readonly isLeader?: () => boolean;
  readonly isLearner?: () => boolean;
  readonly memberId?: () => bigint | undefined;
  /** Major and minor, such as `3.7`; undefined while it is not decided. */
  readonly clusterVersion?: () => string | undefined;
  readonly serverVersion?: () => string | undefined;
  readonly commitIndex?: () => number;
  readonly appliedIndex?: () => number;
  readonly proposalsPending?: () => number;
  readonly quotaBytes?: () => number;
  readonly databaseBytes?: () => number;
  readonly databaseBytesInUse?: () => number;
  readonly openReadTransactions?: () => number;
  readonly keys?: () => number;
  readonly currentRevision?: () => number;
  readonly compactRevision?: () => number;
  readonly authRevision?: () => number;
  readonly watchStreams?: () => number;
  readonly watchers?: () => number;
  readonly slowWatchers?: () => number;
  readonly pendingEvents?: () => number;
  readonly walBytesWritten?: () => number;
}

/** Services whose series exist from the start; those of the others appear with their first call. */
const REGISTERED_SERVICES = /^(etcdserverpb|grpc)\./;
/** A client may write anything into its version; only such texts become labels, and not more than a few. */
const CLIENT_VERSION = /^\d{1,4}\.\d{1,4}(\.\d{1,6})?$/;
const CLIENT_VERSIONS_MAX = 32;

/** The two histograms of one kind of request. Made when first needed, so that a kind that never failed shows no series of failures. */
class Outcomes {
  readonly #make: (succeeded: "true" | "false") => Histogram;
  #succeeded: Histogram | undefined;
  #failed: Histogram | undefined;

  constructor(make: (succeeded: "true" | "false") => Histogram) {
    this.#make = make;
  }

  observe(success: boolean, seconds: number): void {
    if (success) {
      this.#succeeded ??= this.#make("true");
      this.#succeeded.observe(seconds);
    } else {
      this.#failed ??= this.#make("false");
      this.#failed.observe(seconds);
    }
  }
}

/** Calls of clients of one version. */
class VersionCalls {
  readonly #make: (type: "unary" | "stream") => Counter;
  #unary: Counter | undefined;
  #stream: Counter | undefined;

  constructor(make: (type: "unary" | "stream") => Counter) {
    this.#make = make;
  }

  count(stream: boolean): void {
    if (stream) {
      this.#stream ??= this.#make("stream");
      this.#stream.value++;
    } else {
      this.#unary ??= this.#make("unary");
      this.#unary.value++;
    }
  }
}

export interface ServerMetricsOptions {
  /** `--metrics=extensive`: also the latency of each RPC method. */
  readonly extensive?: boolean;
}

/** See the head of this file. Building one costs about a millisecond; it holds no timers and no handles. */
export class ServerMetrics {
  readonly #own: MetricFamily[] = [];
  #registry: PromClient.Registry | undefined;

  // --- server ---
  readonly hasLeader = this.#gauge("etcd_server_has_leader", "1 when this member knows a leader.");
  readonly isLeader = this.#gauge("etcd_server_is_leader", "1 when this member is the leader.");
  readonly isLearner = this.#gauge("etcd_server_is_learner", "1 when this member is a learner.");
  readonly leaderChanges = this.#counter(
    "etcd_server_leader_changes_seen_total",
    "Times that another leader became known, the first included.",
  );
  readonly learnerPromoteSuccesses = this.#counter("etcd_server_learner_promote_successes", "Learners promoted through this member.");
  readonly learnerPromoteFailures = this.#counters("etcd_server_learner_promote_failures", "Refused promotions.", ["Reason"]);
  readonly heartbeatSendFailures = this.#counter(
    "etcd_server_heartbeat_send_failures_total",
    "Heartbeats that this leader sent later than two intervals after the one before.",
  );
  readonly snapshotApplyInProgress = this.#gauge(
    "etcd_server_snapshot_apply_in_progress_total",
    "1 while a received snapshot is being applied.",
  );
  readonly proposalsCommitted = this.#gauge("etcd_server_proposals_committed_total", "Commit index.");
  readonly proposalsApplied = this.#gauge("etcd_server_proposals_applied_total", "Applied index.");
  readonly proposalsPending = this.#gauge("etcd_server_proposals_pending", "Proposals that wait for their result.");
  readonly proposalsFailed = this.#counter("etcd_server_proposals_failed_total", "Proposals that were refused or timed out.");
  readonly slowApplies = this.#counter("etcd_server_slow_apply_total", "Applies slower than the warning duration.");
  readonly slowReadIndexes = this.#counter(
    "etcd_server_slow_read_indexes_total",
    "Read confirmations that came for an old request or timed out.",
  );
  readonly readIndexesFailed = this.#counter("etcd_server_read_indexes_failed_total", "Read confirmations that failed.");
  readonly quotaBytes = this.#gauge(
    "etcd_server_quota_backend_bytes",
    "Size that the database may reach, in bytes; negative without a quota.",
  );
  readonly leaseExpired = this.#counter("etcd_debugging_server_lease_expired_total", "Leases that ran out on this leader.");
  /** Labels `alarm_type`, `server_id`: one up for each activation applied, one down for each deactivation. */
  readonly alarms = this.#gauges("etcd_debugging_server_alarms", "Alarm activations minus deactivations seen since the start.", [
    "alarm_type",
    "server_id",
  ]);
  readonly #requestSeconds = this.#histograms("etcd_server_request_duration_seconds", "Time to answer a client request.", B1, [
    "success",
    "type",
  ]);
  readonly #rangeSeconds = this.#histograms("etcd_server_range_duration_seconds", "Time to read one range.", B2, ["success"]);
  readonly #applySeconds = this.#histograms("etcd_server_apply_duration_seconds", "Time to apply one request.", B2, [
    "op",
    "success",
    "version",
  ]);
  readonly #clientRequests = this.#counters("etcd_server_client_requests_total", "Client requests by version of the client.", [
    "client_api_version",
    "type",
  ]);
  readonly #serverVersion = this.#info("etcd_server_version", "server_version", "Version of this server.");
  readonly #clusterVersion = this.#info("etcd_cluster_version", "cluster_version", "Version that the whole cluster agrees on.");
  readonly #serverId = this.#info("etcd_server_id", "server_id", "Id of this member.");
  readonly #features = this.#gauges("etcd_server_feature_enabled", "1 for a feature gate that is on.", ["name", "stage"]);
  readonly healthSuccess = this.#counter("etcd_server_health_success", "Answers of /health that said healthy.");
  readonly healthFailures = this.#counter("etcd_server_health_failures", "Answers of /health that said unhealthy.");
  readonly #healthcheck = this.#gauges("etcd_server_healthcheck", "1 when the check passed the last time.", ["name", "type"]);
  readonly #healthchecks = this.#counters("etcd_server_healthchecks_total", "Health checks by outcome.", ["name", "status", "type"]);

  // --- disk ---
  readonly walFsyncSeconds = this.#histogram("etcd_disk_wal_fsync_duration_seconds", "Time to sync the write-ahead log.", B1);
  readonly walWriteSeconds = this.#histogram("etcd_disk_wal_write_duration_seconds", "Time to write to the write-ahead log.", B1);
  readonly walWriteBytes = this.#gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the write-ahead log.");
  readonly backendCommitSeconds = this.#histogram(
    "etcd_disk_backend_commit_duration_seconds",
    "Time to write one batch to the database.",
    B1,
  );
  readonly backendDefragSeconds = this.#histogram("etcd_disk_backend_defrag_duration_seconds", "Time of a defragmentation.", B5);
  readonly backendSnapshotSeconds = this.#histogram(
    "etcd_disk_backend_snapshot_duration_seconds",
    "Time to stream a database snapshot.",
    B4,
  );
  readonly defragInflight = this.#gauge("etcd_disk_defrag_inflight", "1 while a defragmentation runs.");
  readonly backendRebalanceSeconds = this.#histogram(
    "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
    "Without a counterpart here; always empty.",
    B1,
  );
  readonly backendSpillSeconds = this.#histogram(
    "etcd_debugging_disk_backend_commit_spill_duration_seconds",
    "Without a counterpart here; always empty.",
    B1,
  );
  readonly backendWriteSeconds = this.#histogram(
    "etcd_debugging_disk_backend_commit_write_duration_seconds",
    "Time of the write inside a database batch.",
    B1,
  );

  // --- MVCC and storage ---
  readonly dbTotalBytes = this.#gauge("etcd_mvcc_db_total_size_in_bytes", "Size of the database on disk, in bytes.");
  readonly dbInUseBytes = this.#gauge(
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "Part of the database size that holds live data, in bytes.",
  );
  readonly openReadTransactions = this.#gauge("etcd_mvcc_db_open_read_transactions", "Read transactions that are open.");
  readonly ranges = this.#counter("etcd_mvcc_range_total", "Ranges read.");
  readonly puts = this.#counter("etcd_mvcc_put_total", "Puts applied.");
  readonly deletes = this.#counter("etcd_mvcc_delete_total", "Deletes applied.");
  readonly txns = this.#counter("etcd_mvcc_txn_total", "Transactions of more than one operation.");
  readonly hashSeconds = this.#histogram("etcd_mvcc_hash_duration_seconds", "Time to hash the whole store.", B3);
  readonly hashRevSeconds = this.#histogram("etcd_mvcc_hash_rev_duration_seconds", "Time to hash the store up to a revision.", B3);
  readonly keys = this.#gauge("etcd_debugging_mvcc_keys_total", "Keys in the store.");
  readonly currentRevision = this.#gauge("etcd_debugging_mvcc_current_revision", "Current revision.");
  readonly compactRevision = this.#gauge("etcd_debugging_mvcc_compact_revision", "Revision of the last compaction.");
  readonly putBytes = this.#gauge("etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of keys and values put since the start.");
  readonly compactedKeys = this.#counter("etcd_debugging_mvcc_db_compaction_keys_total", "Revisions that compactions removed.");
  /** Seconds since the Unix epoch. */
  readonly compactionLast = this.#gauge(
    "etcd_debugging_mvcc_db_compaction_last",
    "When the last compaction ended, in seconds since the Unix epoch.",
  );
  readonly compactionPauseMs = this.#histogram(
    "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
    "Time of one slice of a compaction.",
    doubling(1, 13),
  );
  readonly compactionMs = this.#histogram(
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
    "Time of a whole compaction.",
    doubling(100, 14),
  );
  readonly indexCompactionPauseMs = this.#histogram(
    "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
    "Time for which compacting the key index held everything up.",
    doubling(0.5, 14),
  );
  readonly events = this.#counter("etcd_debugging_mvcc_events_total", "Watch events sent.");
  readonly pendingEvents = this.#gauge("etcd_debugging_mvcc_pending_events_total", "Watch events that wait to be sent.");
  readonly watchStreams = this.#gauge("etcd_debugging_mvcc_watch_stream_total", "Open watch streams.");
  readonly watchers = this.#gauge("etcd_debugging_mvcc_watcher_total", "Watchers.");
  readonly slowWatchers = this.#gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that are behind.");

  // --- lease, auth ---
  readonly leaseGranted = this.#counter("etcd_debugging_lease_granted_total", "Leases granted.");
  readonly leaseRevoked = this.#counter("etcd_debugging_lease_revoked_total", "Leases revoked.");
  readonly leaseRenewed = this.#counter("etcd_debugging_lease_renewed_total", "Renewals on this leader.");
  readonly leaseTtlSeconds = this.#histogram("etcd_debugging_lease_ttl_total", "Terms of granted leases, in seconds.", doubling(1, 24));
  readonly authRevision = this.#gauge("etcd_debugging_auth_revision", "Revision of users, roles and permissions.");

  // --- watch send loop ---
  readonly watchSendSeconds = this.#histogram(
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
    "Time to send one response with events.",
    B1,
  );
  readonly watchSendPerEventSeconds = this.#histogram(
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
    "Time to send one response with events, divided by their number.",
    B1,
  );
  readonly watchSendControlSeconds = this.#histogram(
    "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
    "Time to send one response about a watcher.",
    B1,
  );
  readonly watchSendProgressSeconds = this.#histogram(
    "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
    "Time to send one progress response.",
    B1,
  );

  // --- clients and peers ---
  /** Encoded length of the messages from clients, whatever they came in. */
  readonly clientReceivedBytes = this.#counter("etcd_network_client_grpc_received_bytes_total", "Bytes of messages received from clients.");
  readonly clientSentBytes = this.#counter("etcd_network_client_grpc_sent_bytes_total", "Bytes of messages sent to clients.");
  /** Labels `API` (`watch`, `lease-keepalive`), `Type` (`receive`, `send`). */
  readonly streamFailures = this.#counters("etcd_network_server_stream_failures_total", "Client streams that broke.", ["API", "Type"]);
  readonly #peerSentBytes = this.#counters("etcd_network_peer_sent_bytes_total", "Bytes sent to a peer.", ["To"]);
  readonly #peerReceivedBytes = this.#counters("etcd_network_peer_received_bytes_total", "Bytes received from a peer.", ["From"]);
  readonly #peerSentFailures = this.#counters("etcd_network_peer_sent_failures_total", "Messages to a peer that were dropped.", ["To"]);
  readonly #peerReceivedFailures = this.#counters("etcd_network_peer_received_failures_total", "Messages that were refused.", ["From"]);
  readonly #peerRoundTrip = this.#histograms("etcd_network_peer_round_trip_time_seconds", "Round trip to a peer.", B7, ["To"]);
  readonly #activePeers = this.#gauges("etcd_network_active_peers", "1 while the connection to that peer is up.", ["Local", "Remote"]);
  readonly #disconnectedPeers = this.#counters("etcd_network_disconnected_peers_total", "Lost connections to a peer.", ["Local", "Remote"]);
  readonly #knownPeers = this.#gauges("etcd_network_known_peers", "1 for each member of the cluster.", ["Local", "Remote"]);
  readonly #snapshotSend = this.#snapshots("send", "To");
  readonly #snapshotReceive = this.#snapshots("receive", "From");

  // --- snapshots ---
  readonly snapDbFsyncSeconds = this.#histogram("etcd_snap_db_fsync_duration_seconds", "Time to sync a received database.", B1);
  readonly snapDbSaveSeconds = this.#histogram("etcd_snap_db_save_total_duration_seconds", "Time to receive a database.", B6);
  readonly snapFsyncSeconds = this.#histogram("etcd_snap_fsync_duration_seconds", "Time to sync a snapshot file.", B1);
  readonly snapMarshalSeconds = this.#histogram(
    "etcd_debugging_snap_save_marshalling_duration_seconds",
    "Time to encode a snapshot file.",
    B1,
  );
  readonly snapSaveSeconds = this.#histogram("etcd_debugging_snap_save_total_duration_seconds", "Time to save a snapshot file.", B1);

  // --- scrapes ---
  readonly scrapesInFlight = this.#gauge("promhttp_metric_handler_requests_in_flight", "Scrapes being answered.");
  readonly scrapes = this.#counters("promhttp_metric_handler_requests_total", "Scrapes by status code.", ["code"]);

  readonly #extensive: boolean;
  readonly #rpcs = new Map<string, RpcSeries>();
  readonly #process = new ProcessReader();
  readonly #requestSeries = new Map<string, Outcomes>();
  readonly #applySeries = new Map<string, Outcomes>();
  readonly #rangeSeries = new Outcomes((succeeded) => this.#rangeSeconds.series(succeeded));
  readonly #clientVersions = new Map<string, VersionCalls>();
  readonly #unknownVersion = new VersionCalls((type) => this.#clientRequests.series("unknown", type));
  #families: readonly MetricFamily[] | undefined;

  constructor(options: ServerMetricsOptions = {}) {
    this.#extensive = options.extensive ?? false;
    this.#info("etcd_server_go_version", "server_go_version", "Version of the runtime.").readFrom(() => `node${process.versions.node}`);
    this.#info("nodejs_version_info", "version", "Version of Node.js.").readFrom(() => process.version);
    for (const [name, stage, on] of FEATURE_GATES) this.setFeature(name, stage, on);
    for (const code of ["200", "500", "503"]) this.scrapes.series(code);
    this.#nothingEver();
    processFamilies(this.#process, (name, help, type) => this.#register(new Family({ name, help, type }, () => new Gauge())));
    for (const method of ALL_METHODS) if (REGISTERED_SERVICES.test(method.service)) this.rpc(method);
    this.#rpcFamily("grpc_server_started_total", "RPCs begun.", (rpc) => rpc.started);
    this.#rpcFamily("grpc_server_msg_received_total", "Messages received.", (rpc) => rpc.received);
    this.#rpcFamily("grpc_server_msg_sent_total", "Messages sent.", (rpc) => rpc.sent);
    this.#register(new RpcHandledFamily(this.#rpcs));
    if (this.#extensive) this.#register(new RpcSecondsFamily(this.#rpcs));
  }

  /** Lets scrapes ask `sources` from now on. May be called several times, as parts come into being. */
  bind(sources: MetricSources): void {
    const flag = (gauge: Gauge, read: (() => boolean) | undefined): void => {
      if (read !== undefined) gauge.readFrom(() => (read() ? 1 : 0));
    };
    const number = (gauge: Gauge, read: (() => number) | undefined): void => {
      if (read !== undefined) gauge.readFrom(read);
    };
    flag(this.hasLeader, sources.hasLeader);
    flag(this.isLeader, sources.isLeader);
    flag(this.isLearner, sources.isLearner);
    number(this.proposalsCommitted, sources.commitIndex);
    number(this.proposalsApplied, sources.appliedIndex);
    number(this.proposalsPending, sources.proposalsPending);
    number(this.quotaBytes, sources.quotaBytes);
    number(this.dbTotalBytes, sources.databaseBytes);
    number(this.dbInUseBytes, sources.databaseBytesInUse);
    number(this.openReadTransactions, sources.openReadTransactions);
    number(this.keys, sources.keys);
    number(this.currentRevision, sources.currentRevision);
    number(this.compactRevision, sources.compactRevision);
    number(this.authRevision, sources.authRevision);
    number(this.watchStreams, sources.watchStreams);
    number(this.watchers, sources.watchers);
    number(this.slowWatchers, sources.slowWatchers);
    number(this.pendingEvents, sources.pendingEvents);
    number(this.walWriteBytes, sources.walBytesWritten);
    const { memberId } = sources;
    if (memberId !== undefined) {
      this.#serverId.readFrom(() => {
        const id = memberId();
        return id === undefined ? undefined : hexId(id);
      });
    }
    if (sources.clusterVersion !== undefined) this.#clusterVersion.readFrom(sources.clusterVersion);
    if (sources.serverVersion !== undefined) this.#serverVersion.readFrom(sources.serverVersion);
  }

  /** `type` is the kind of raft request (`Put`, `ReadonlyTxn` ...). */
  observeRequest(type: string, success: boolean, seconds: number): void {
    let outcomes = this.#requestSeries.get(type);
    if (outcomes === undefined) {
      outcomes = new Outcomes((succeeded) => this.#requestSeconds.series(succeeded, type));
      this.#requestSeries.set(type, outcomes);
    }
    outcomes.observe(success, seconds);
  }

  /** `op` is the kind of applied request (`Put`, `ClusterVersionSet` ...). */
  observeApply(op: string, success: boolean, seconds: number): void {
    let outcomes = this.#applySeries.get(op);
    if (outcomes === undefined) {
      outcomes = new Outcomes((succeeded) => this.#applySeconds.series(op, succeeded, "v3"));
      this.#applySeries.set(op, outcomes);
    }
    outcomes.observe(success, seconds);
  }

  observeRange(success: boolean, seconds: number): void {
    this.#rangeSeries.observe(success, seconds);
  }

  /** Counts one call of a client. Versions that do not look like one count as `unknown`. */
  clientRequest(stream: boolean, version: string | undefined): void {
    let calls = version === undefined ? this.#unknownVersion : this.#clientVersions.get(version);
    if (calls === undefined && version !== undefined && CLIENT_VERSION.test(version) && this.#clientVersions.size < CLIENT_VERSIONS_MAX) {
      calls = new VersionCalls((type) => this.#clientRequests.series(version, type));
      this.#clientVersions.set(version, calls);
    }
    (calls ?? this.#unknownVersion).count(stream);
  }

  /** The series of one method; made if it is new. Transports look it up once per method, not once per call. */
  rpc(method: RpcShape): RpcSeries {
    const known = this.#rpcs.get(method.path);
    if (known !== undefined) return known;
    const made = rpcSeriesOf(method, this.#extensive);
    this.#rpcs.set(method.path, made);
    return made;
  }

  setFeature(name: string, stage: "ALPHA" | "BETA", on: boolean): void {
    this.#features.series(name, stage).set(on ? 1 : 0);
  }

  /** One health check of `/livez` or `/readyz` was made. */
  healthcheck(type: "livez" | "readyz", name: string, success: boolean): void {
    this.#healthcheck.series(name, type).set(success ? 1 : 0);
    this.#healthchecks.series(name, success ? "success" : "error", type).inc();
  }

  /** The members of the cluster, this one included. Members that are gone stay with 0. */
  setKnownPeers(local: MemberId, members: Iterable<MemberId>): void {
    this.#knownPeers.reset();
    for (const member of members) this.#knownPeers.series(hexId(local), hexId(member)).set(1);
  }

  /** What the transport between members reports to. */
  peerObserver(local: MemberId): PeerObserver {
    const localHex = hexId(local);
    const sentBytes = new Map<MemberId, Counter>();
    const receivedBytes = new Map<MemberId, Counter>();
    const cached = (map: Map<MemberId, Counter>, family: Family<Counter>, id: MemberId): Counter => {
      let series = map.get(id);
      if (series === undefined) {
        series = family.series(hexId(id));
        map.set(id, series);
      }
      return series;
    };
    return {
      sent: (to, bytes) => {
        cached(sentBytes, this.#peerSentBytes, to).value += bytes;
      },
      received: (from, bytes) => {
        cached(receivedBytes, this.#peerReceivedBytes, from).value += bytes;
      },
      sendFailed: (to) => this.#peerSentFailures.series(hexId(to)).inc(),
      receiveFailed: (from) => this.#peerReceivedFailures.series(from === undefined ? "unknown" : hexId(from)).inc(),
      roundTrip: (to, ms) => this.#peerRoundTrip.series(hexId(to)).observe(ms / 1000),
      active: (peer, active) => {
        const gauge = this.#activePeers.series(localHex, hexId(peer));
        if (!active && gauge.value === 1) this.#disconnectedPeers.series(localHex, hexId(peer)).inc();
        gauge.set(active ? 1 : 0);
      },
      snapshotSend: (to, event) => this.#snapshotSend(hexId(to), event),
      snapshotReceive: (from, event) => this.#snapshotReceive(hexId(from), event),
    };
  }

  /** All families, for embedding programs that merge them with their own. A program may also register metrics of its own here. Made when first asked for. */
  get registry(): PromClient.Registry {
    if (this.#registry === undefined) {
      const { Registry } = requirePackage("prom-client") as typeof PromClient;
      this.#registry = new Registry();
      for (const family of this.#own) this.#registry.registerMetric(family as unknown as PromClient.Metric);
    }
    return this.#registry;
  }

  /** Facts about the process, read now. The same object each time. */
  async processFacts(): Promise<Readonly<ProcessFacts>> {
    await this.#process.refresh();
    return this.#process.facts;
  }

  /** The text of a scrape, families sorted by name. Rejects if a source throws. */
  async text(): Promise<string> {
    await this.#process.refresh();
    const metrics: readonly unknown[] = this.#registry?.getMetricsAsArray() ?? this.#own;
    if (this.#families?.length !== metrics.length) {
      const families = metrics.map((metric) => (isFamily(metric) ? metric : new ForeignFamily(metric as PromClient.Metric)));
      this.#families = families.sort((a, b) => (a.name < b.name ? -1 : 1));
    }
    let text = "";
    for (const family of this.#families) {
      if (family instanceof ForeignFamily) await family.refresh();
      text += familyText(family);
    }
    return text;
  }

  #register<F extends MetricFamily>(family: F): F {
    this.#own.push(family);
    return family;
  }

  #counter(name: string, help: string): Counter {
    return this.#counters(name, help, []).series();
  }

  #gauge(name: string, help: string): Gauge {
    return this.#gauges(name, help, []).series();
  }

  #histogram(name: string, help: string, bounds: Float64Array): Histogram {
    return this.#histograms(name, help, bounds, []).series();
  }

  #counters(name: string, help: string, labels: readonly string[]): Family<Counter> {
    return this.#register(new Family({ name, help, type: "counter", labels }, () => new Counter()));
  }

  #gauges(name: string, help: string, labels: readonly string[]): Family<Gauge> {
    return this.#register(new Family({ name, help, type: "gauge", labels }, () => new Gauge()));
  }

  #histograms(name: string, help: string, bounds: Float64Array, labels: readonly string[]): Family<Histogram> {
    return this.#register(new Family({ name, help, type: "histogram", labels }, () => new Histogram(bounds)));
  }

  #info(name: string, label: string, help: string): InfoFamily {
    return this.#register(new InfoFamily({ name, help, label }, () => undefined));
  }

  #rpcFamily(name: string, help: string, read: (rpc: RpcSeries) => number): void {
    this.#register(new RpcCounterFamily(name, help, this.#rpcs, read));
  }

  /** The four families about snapshots in one direction. */
  #snapshots(direction: "send" | "receive", label: "To" | "From"): (peer: string, event: SnapshotEvent) => void {
    const name = `etcd_network_snapshot_${direction}`;
    const success = this.#counters(`${name}_success`, "Snapshots that arrived whole.", [label]);
    const failures = this.#counters(`${name}_failures`, "Snapshots that did not arrive whole.", [label]);
    const inflight = this.#gauges(`${name}_inflights_total`, "Snapshots on their way.", [label]);
    const seconds = this.#histograms(`${name}_total_duration_seconds`, "Time for one snapshot.", B6, [label]);
    return (peer, event) => {
      if (event.type === "started") {
        inflight.series(peer).inc();
        return;
      }
      inflight.series(peer).dec();
      (event.type === "succeeded" ? success : failures).series(peer).inc();
      seconds.series(peer).observe(event.ms / 1000);
    };
  }

  /** Families of parts that do not exist here (the old store, the proxy); dashboards may still name them. */
  #nothingEver(): void {
    this.#counter("etcd_debugging_store_expires_total", "Of the old store; always 0.");
    this.#counter("etcd_debugging_store_watch_requests_total", "Of the old store; always 0.");
    this.#gauge("etcd_debugging_store_watchers", "Of the old store; always 0.");
    this.#gauge("etcd_grpc_proxy_cache_hits_total", "Of the proxy; always 0.");
    this.#gauge("etcd_grpc_proxy_cache_keys_total", "Of the proxy; always 0.");
    this.#gauge("etcd_grpc_proxy_cache_misses_total", "Of the proxy; always 0.");
    this.#counter("etcd_grpc_proxy_events_coalescing_total", "Of the proxy; always 0.");
    this.#gauge("etcd_grpc_proxy_watchers_coalescing_total", "Of the proxy; always 0.");
  }
}
