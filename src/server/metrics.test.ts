import { Gauge as PromGauge, Registry } from "prom-client";
import { describe, expect, test } from "vitest";
import type { MemberId } from "../base/ids.ts";
import { ServerMetrics } from "./metrics.ts";
import { Counter, Family, formatValue, Histogram, SERIES_MAX } from "./metrics-text.ts";

const LOCAL = 0xf0a834505bd3d99fn as MemberId;
const PEER = 0x1an as MemberId;

async function linesOf(metrics: ServerMetrics): Promise<string[]> {
  return (await metrics.text()).split("\n");
}

/** Uses every family with labels once, so that all of them show. */
function touchEverything(metrics: ServerMetrics): void {
  metrics.bind({ memberId: () => LOCAL, clusterVersion: () => "3.7", serverVersion: () => "3.7.1" });
  metrics.observeRequest("Put", true, 0.003);
  metrics.observeApply("Put", false, 0.00015);
  metrics.observeRange(true, 0.1);
  metrics.clientRequest(true, undefined);
  metrics.healthcheck("livez", "serializable_read", true);
  metrics.alarms.series("NOSPACE", "1a").inc();
  metrics.learnerPromoteFailures.series("membership: can only promote a learner member").inc();
  metrics.streamFailures.series("watch", "send").inc();
  metrics.setKnownPeers(LOCAL, [LOCAL, PEER]);
  const peers = metrics.peerObserver(LOCAL);
  peers.sent?.(PEER, 100, 1);
  peers.received?.(PEER, 50, 1);
  peers.sendFailed?.(PEER);
  peers.receiveFailed?.(undefined);
  peers.roundTrip?.(PEER, 2);
  peers.active?.(PEER, true);
  peers.active?.(PEER, false);
  peers.snapshotSend?.(PEER, { type: "started" });
  peers.snapshotSend?.(PEER, { type: "succeeded", ms: 300, bytes: 1 });
  peers.snapshotSend?.(PEER, { type: "started" });
  peers.snapshotSend?.(PEER, { type: "failed", ms: 300 });
  peers.snapshotReceive?.(PEER, { type: "started" });
  peers.snapshotReceive?.(PEER, { type: "failed", ms: 300 });
  peers.snapshotReceive?.(PEER, { type: "started" });
  peers.snapshotReceive?.(PEER, { type: "succeeded", ms: 300, bytes: 1 });
}

describe("families", () => {
  test("every one of the specification, with its type", async () => {
    const metrics = new ServerMetrics({ extensive: true });
    touchEverything(metrics);
    const types = (await linesOf(metrics)).filter((line) => line.startsWith("# TYPE ") && !line.startsWith("# TYPE nodejs_"));
    expect(types.map((line) => line.slice(7))).toEqual(FAMILIES.trim().split("\n"));
  });

  test("buckets", async () => {
    const metrics = new ServerMetrics({ extensive: true });
    touchEverything(metrics);
    const lines = await linesOf(metrics);
    const bounds = (name: string): string[] =>
      lines.flatMap((line) => (line.startsWith(`${name}_bucket{`) ? [/le="([^"]+)"/.exec(line)?.[1] ?? ""] : []));
    expect(bounds("etcd_disk_wal_fsync_duration_seconds")).toEqual(
      "0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 +Inf".split(" "),
    );
    const shape = (name: string): string => {
      const all = bounds(name);
      return `${all[0]} ${all.at(-2)} ${all.length - 1}`;
    };
    expect(shape("etcd_server_apply_duration_seconds")).toBe("0.0001 52.4288 20");
    expect(shape("etcd_server_range_duration_seconds")).toBe("0.0001 52.4288 20");
    expect(shape("etcd_server_request_duration_seconds")).toBe("0.001 8.192 14");
    expect(shape("etcd_mvcc_hash_duration_seconds")).toBe("0.01 163.84 15");
    expect(shape("etcd_disk_backend_snapshot_duration_seconds")).toBe("0.01 655.36 17");
    expect(shape("etcd_disk_backend_defrag_duration_seconds")).toBe("0.1 409.6 13");
    expect(shape("etcd_snap_db_save_total_duration_seconds")).toBe("0.1 51.2 10");
    expect(shape("etcd_network_peer_round_trip_time_seconds")).toBe("0.0001 3.2768 16");
    expect(shape("etcd_debugging_lease_ttl_total")).toBe("1 8.388608e+06 24");
    expect(shape("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds")).toBe("100 819200 14");
    expect(bounds("grpc_server_handling_seconds").slice(0, 12)).toEqual("0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 +Inf".split(" "));
  });

  test("labels and values", async () => {
    const metrics = new ServerMetrics();
    touchEverything(metrics);
    metrics.puts.value += 3;
    metrics.quotaBytes.set(2147483648);
    expect(await linesOf(metrics)).toEqual(
      expect.arrayContaining([
        'etcd_cluster_version{cluster_version="3.7"} 1',
        'etcd_server_version{server_version="3.7.1"} 1',
        'etcd_server_id{server_id="f0a834505bd3d99f"} 1',
        "etcd_mvcc_put_total 3",
        "etcd_server_quota_backend_bytes 2.147483648e+09",
        'etcd_server_request_duration_seconds_bucket{success="true",type="Put",le="0.002"} 0',
        'etcd_server_request_duration_seconds_bucket{success="true",type="Put",le="0.004"} 1',
        'etcd_server_request_duration_seconds_bucket{success="true",type="Put",le="+Inf"} 1',
        'etcd_server_apply_duration_seconds_count{op="Put",success="false",version="v3"} 1',
        'etcd_server_client_requests_total{client_api_version="unknown",type="stream"} 1',
        'etcd_server_healthcheck{name="serializable_read",type="livez"} 1',
        'etcd_server_healthchecks_total{name="serializable_read",status="success",type="livez"} 1',
        'etcd_network_known_peers{Local="f0a834505bd3d99f",Remote="1a"} 1',
        'etcd_network_peer_sent_bytes_total{To="1a"} 100',
        'etcd_network_peer_received_bytes_total{From="1a"} 50',
        'etcd_network_active_peers{Local="f0a834505bd3d99f",Remote="1a"} 0',
        'etcd_network_disconnected_peers_total{Local="f0a834505bd3d99f",Remote="1a"} 1',
        'etcd_network_snapshot_send_inflights_total{To="1a"} 0',
        'etcd_network_snapshot_send_success{To="1a"} 1',
        'etcd_network_snapshot_receive_failures{From="1a"} 1',
        'grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 0',
        'grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 0',
        'promhttp_metric_handler_requests_total{code="503"} 0',
      ]),
    );
  });

  test("a source that is bound later is asked on each scrape", async () => {
    const metrics = new ServerMetrics();
    expect(await linesOf(metrics)).toContain("etcd_debugging_mvcc_keys_total 0");
    let keys = 5;
    metrics.bind({ keys: () => keys, hasLeader: () => true });
    expect(await linesOf(metrics)).toContain("etcd_debugging_mvcc_keys_total 5");
    keys = 6;
    expect(await linesOf(metrics)).toEqual(expect.arrayContaining(["etcd_debugging_mvcc_keys_total 6", "etcd_server_has_leader 1"]));
  });

  test("a source that throws fails the scrape", async () => {
    const metrics = new ServerMetrics();
    metrics.bind({
      keys: () => {
        throw new Error("closed");
      },
    });
    await expect(metrics.text()).rejects.toThrow("closed");
  });

  test("two servers count apart", async () => {
    const one = new ServerMetrics();
    const other = new ServerMetrics();
    one.puts.inc();
    expect(await linesOf(other)).toContain("etcd_mvcc_put_total 0");
  });
});

describe("grpc", () => {
  test("all codes of all registered methods from the start, lock and election after their first call", async () => {
    const metrics = new ServerMetrics();
    const before = (await linesOf(metrics)).filter((line) => line.startsWith("grpc_server_handled_total{"));
    expect(before.length).toBe(45 * 17);
    const lock = metrics.rpc({
      service: "v3lockpb.Lock",
      name: "Lock",
      path: "/v3lockpb.Lock/Lock",
      clientStreaming: false,
      serverStreaming: false,
    });
    lock.started++;
    lock.finish(2);
    lock.finish(99);
    const after = await linesOf(metrics);
    expect(after).toContain(
      'grpc_server_handled_total{grpc_code="Unknown",grpc_method="Lock",grpc_service="v3lockpb.Lock",grpc_type="unary"} 2',
    );
    expect(after.filter((line) => line.startsWith("grpc_server_handled_total{")).length).toBe(46 * 17);
  });
});

describe("labels that clients choose", () => {
  test("odd versions count as unknown, and there is an end to the others", async () => {
    const metrics = new ServerMetrics();
    for (const odd of ["", "3.7\n", 'x"', "latest", "3", "1".repeat(50)]) metrics.clientRequest(false, odd);
    metrics.clientRequest(false, "3.7");
    metrics.clientRequest(false, "3.7");
    for (let minor = 100; minor < 300; minor++) metrics.clientRequest(false, `9.${minor}`);
    const lines = (await linesOf(metrics)).filter((line) => line.startsWith("etcd_server_client_requests_total{"));
    expect(lines).toContain('etcd_server_client_requests_total{client_api_version="3.7",type="unary"} 2');
    expect(lines).toContain('etcd_server_client_requests_total{client_api_version="unknown",type="unary"} 175');
    expect(lines.length).toBe(33);
  });

  test("a family stops growing", () => {
    const family = new Family({ name: "a", help: "", type: "counter", labels: ["who"] }, () => new Counter());
    for (let i = 0; i < SERIES_MAX + 50; i++) family.series(`name-${i}`).inc();
    const lines: string[] = [];
    family.write(lines);
    expect(lines.length).toBe(SERIES_MAX + 1);
    expect(lines).toContain('a{who="other"} 50');
  });

  test("label values are escaped", () => {
    const family = new Family({ name: "a", help: "", type: "counter", labels: ["who"] }, () => new Counter());
    family.series('a"b\\c\nd').inc();
    const lines: string[] = [];
    family.write(lines);
    expect(lines).toEqual(['a{who="a\\"b\\\\c\\nd"} 1']);
  });
});

describe("numbers", () => {
  test.each([
    [0, "0"],
    [1, "1"],
    [-1, "-1"],
    [0.0001, "0.0001"],
    [0.00001, "1e-05"],
    [7.080000000000001e-6, "7.080000000000001e-06"],
    [123456, "123456"],
    [999999.5, "999999.5"],
    [1000000, "1e+06"],
    [2147483648, "2.147483648e+09"],
    [-2147483648, "-2.147483648e+09"],
    [1.8446744073709552e19, "1.8446744073709552e+19"],
    [1e100, "1e+100"],
    [Number.POSITIVE_INFINITY, "+Inf"],
    [Number.NEGATIVE_INFINITY, "-Inf"],
    [Number.NaN, "NaN"],
  ])("%d", (value, text) => {
    expect(formatValue(value)).toBe(text);
  });

  test("a histogram puts a value on a bound into that bucket", () => {
    const histogram = new Histogram(Float64Array.of(1, 2));
    for (const value of [0, 1, 1.5, 2, 3]) histogram.observe(value);
    const lines: string[] = [];
    histogram.write(lines, "h", 'a="b"');
    expect(lines).toEqual([
      'h_bucket{a="b",le="1"} 2',
      'h_bucket{a="b",le="2"} 4',
      'h_bucket{a="b",le="+Inf"} 5',
      'h_sum{a="b"} 7.5',
      'h_count{a="b"} 5',
    ]);
  });
});

describe("beside prom-client", () => {
  test("an embedding program merges our registry with its own, and adds to ours", async () => {
    const metrics = new ServerMetrics();
    metrics.puts.inc(2);
    const own = new Registry();
    new PromGauge({ name: "own_gauge", help: "Own.", registers: [own] }).set(7);
    const merged = await Registry.merge([own, metrics.registry]).metrics();
    expect(merged).toContain("own_gauge 7");
    expect(merged).toContain("\netcd_mvcc_put_total 2\n");
    expect(merged).toContain('etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 0');
    new PromGauge({ name: "added_gauge", help: "Added.", labelNames: ["a"], registers: [metrics.registry] }).set({ a: "b" }, 3e6);
    expect(await metrics.text()).toContain('# HELP added_gauge Added.\n# TYPE added_gauge gauge\nadded_gauge{a="b"} 3e+06\n');
  });
});

/** Name and type of every family, in order. */
const FAMILIES = `
etcd_cluster_version gauge
etcd_debugging_auth_revision gauge
etcd_debugging_disk_backend_commit_rebalance_duration_seconds histogram
etcd_debugging_disk_backend_commit_spill_duration_seconds histogram
etcd_debugging_disk_backend_commit_write_duration_seconds histogram
etcd_debugging_lease_granted_total counter
etcd_debugging_lease_renewed_total counter
etcd_debugging_lease_revoked_total counter
etcd_debugging_lease_ttl_total histogram
etcd_debugging_mvcc_compact_revision gauge
etcd_debugging_mvcc_current_revision gauge
etcd_debugging_mvcc_db_compaction_keys_total counter
etcd_debugging_mvcc_db_compaction_last gauge
etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds histogram
etcd_debugging_mvcc_db_compaction_total_duration_milliseconds histogram
etcd_debugging_mvcc_events_total counter
etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds histogram
etcd_debugging_mvcc_keys_total gauge
etcd_debugging_mvcc_pending_events_total gauge
etcd_debugging_mvcc_slow_watcher_total gauge
etcd_debugging_mvcc_total_put_size_in_bytes gauge
etcd_debugging_mvcc_watch_stream_total gauge
etcd_debugging_mvcc_watcher_total gauge
etcd_debugging_server_alarms gauge
etcd_debugging_server_lease_expired_total counter
etcd_debugging_server_watch_send_loop_control_stream_duration_seconds histogram
etcd_debugging_server_watch_send_loop_progress_duration_seconds histogram
etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds histogram
etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds histogram
etcd_debugging_snap_save_marshalling_duration_seconds histogram
etcd_debugging_snap_save_total_duration_seconds histogram
etcd_debugging_store_expires_total counter
etcd_debugging_store_watch_requests_total counter
etcd_debugging_store_watchers gauge
etcd_disk_backend_commit_duration_seconds histogram
etcd_disk_backend_defrag_duration_seconds histogram
etcd_disk_backend_snapshot_duration_seconds histogram
etcd_disk_defrag_inflight gauge
etcd_disk_wal_fsync_duration_seconds histogram
etcd_disk_wal_write_bytes_total gauge
etcd_disk_wal_write_duration_seconds histogram
etcd_grpc_proxy_cache_hits_total gauge
etcd_grpc_proxy_cache_keys_total gauge
etcd_grpc_proxy_cache_misses_total gauge
etcd_grpc_proxy_events_coalescing_total counter
etcd_grpc_proxy_watchers_coalescing_total gauge
etcd_mvcc_db_open_read_transactions gauge
etcd_mvcc_db_total_size_in_bytes gauge
etcd_mvcc_db_total_size_in_use_in_bytes gauge
etcd_mvcc_delete_total counter
etcd_mvcc_hash_duration_seconds histogram
etcd_mvcc_hash_rev_duration_seconds histogram
etcd_mvcc_put_total counter
etcd_mvcc_range_total counter
etcd_mvcc_txn_total counter
etcd_network_active_peers gauge
etcd_network_client_grpc_received_bytes_total counter
etcd_network_client_grpc_sent_bytes_total counter
etcd_network_disconnected_peers_total counter
etcd_network_known_peers gauge
etcd_network_peer_received_bytes_total counter
etcd_network_peer_received_failures_total counter
etcd_network_peer_round_trip_time_seconds histogram
etcd_network_peer_sent_bytes_total counter
etcd_network_peer_sent_failures_total counter
etcd_network_server_stream_failures_total counter
etcd_network_snapshot_receive_failures counter
etcd_network_snapshot_receive_inflights_total gauge
etcd_network_snapshot_receive_success counter
etcd_network_snapshot_receive_total_duration_seconds histogram
etcd_network_snapshot_send_failures counter
etcd_network_snapshot_send_inflights_total gauge
etcd_network_snapshot_send_success counter
etcd_network_snapshot_send_total_duration_seconds histogram
etcd_server_apply_duration_seconds histogram
etcd_server_client_requests_total counter
etcd_server_feature_enabled gauge
etcd_server_go_version gauge
etcd_server_has_leader gauge
etcd_server_health_failures counter
etcd_server_health_success counter
etcd_server_healthcheck gauge
etcd_server_healthchecks_total counter
etcd_server_heartbeat_send_failures_total counter
etcd_server_id gauge
etcd_server_is_leader gauge
etcd_server_is_learner gauge
etcd_server_leader_changes_seen_total counter
etcd_server_learner_promote_failures counter
etcd_server_learner_promote_successes counter
etcd_server_proposals_applied_total gauge
etcd_server_proposals_committed_total gauge
etcd_server_proposals_failed_total counter
etcd_server_proposals_pending gauge
etcd_server_quota_backend_bytes gauge
etcd_server_range_duration_seconds histogram
etcd_server_read_indexes_failed_total counter
etcd_server_request_duration_seconds histogram
etcd_server_slow_apply_total counter
etcd_server_slow_read_indexes_total counter
etcd_server_snapshot_apply_in_progress_total gauge
etcd_server_version gauge
etcd_snap_db_fsync_duration_seconds histogram
etcd_snap_db_save_total_duration_seconds histogram
etcd_snap_fsync_duration_seconds histogram
grpc_server_handled_total counter
grpc_server_handling_seconds histogram
grpc_server_msg_received_total counter
grpc_server_msg_sent_total counter
grpc_server_started_total counter
os_fd_limit gauge
os_fd_used gauge
process_cpu_seconds_total counter
process_max_fds gauge
process_network_receive_bytes_total counter
process_network_transmit_bytes_total counter
process_open_fds gauge
process_resident_memory_bytes gauge
process_start_time_seconds gauge
process_virtual_memory_bytes gauge
process_virtual_memory_max_bytes gauge
promhttp_metric_handler_requests_in_flight gauge
promhttp_metric_handler_requests_total counter
`;
