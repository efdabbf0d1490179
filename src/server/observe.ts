/** Joins what the parts of a member report to the metrics that dashboards read. */
import { hexId, type MemberId } from "../base/ids.ts";
import { SERVER_VERSION } from "./config.ts";
import type { ServerMetrics } from "./metrics.ts";
import type { Server, ServerObserver } from "./server.ts";
import { quotaBytes } from "./services/kv.ts";

/** The kinds of requests as etcd's metrics name them. */
const OPERATIONS: Readonly<Record<string, string>> = {
  put: "Put",
  "delete-range": "DeleteRange",
  txn: "Txn",
  compaction: "Compaction",
  "lease-grant": "LeaseGrant",
  "lease-revoke": "LeaseRevoke",
  "lease-checkpoint": "LeaseCheckpoint",
  alarm: "Alarm",
  "cluster-version-set": "ClusterVersionSet",
  "member-attributes-set": "ClusterMemberAttrSet",
  "downgrade-info-set": "DowngradeInfoSet",
  authenticate: "Authenticate",
  "auth-enable": "AuthEnable",
  "auth-disable": "AuthDisable",
  "auth-status": "AuthStatus",
  "auth-user-add": "AuthUserAdd",
  "auth-user-delete": "AuthUserDelete",
  "auth-user-get": "AuthUserGet",
  "auth-user-change-password": "AuthUserChangePassword",
  "auth-user-grant-role": "AuthUserGrantRole",
  "auth-user-revoke-role": "AuthUserRevokeRole",
  "auth-user-list": "AuthUserList",
  "auth-role-list": "AuthRoleList",
  "auth-role-add": "AuthRoleAdd",
  "auth-role-delete": "AuthRoleDelete",
  "auth-role-get": "AuthRoleGet",
  "auth-role-grant-permission": "AuthRoleGrantPermission",
  "auth-role-revoke-permission": "AuthRoleRevokePermission",
};

export function metricsObserver(metrics: ServerMetrics, memberId: () => bigint | undefined): ServerObserver {
  return {
    onWalSync: (ms) => metrics.walFsyncSeconds.observe(ms / 1000),
    onBackendCommit: (ms) => metrics.backendCommitSeconds.observe(ms / 1000),
    onApplied: (kind, ok, applyMs, requestMs) => {
      const operation = OPERATIONS[kind] ?? "unknown";
      metrics.observeApply(operation, ok, applyMs / 1000);
      if (requestMs !== undefined) metrics.observeRequest(operation, ok, requestMs / 1000);
      if (!ok) return;
      if (kind === "lease-grant") metrics.leaseGranted.inc();
      else if (kind === "lease-revoke") metrics.leaseRevoked.inc();
    },
    onOperations: ({ ranges, puts, deletes, txns }) => {
      metrics.ranges.value += ranges;
      metrics.puts.value += puts;
      metrics.deletes.value += deletes;
      metrics.txns.value += txns;
    },
    onRead: (kind, ok, ms) => {
      metrics.observeRequest(kind, ok, ms / 1000);
      if (kind !== "Range") return;
      metrics.observeRange(ok, ms / 1000);
      if (ok) metrics.ranges.value += 1;
    },
    onMembers: (members) => {
      const id = memberId();
      if (id !== undefined) metrics.setKnownPeers(id as MemberId, members);
    },
    onLeaderChange: () => metrics.leaderChanges.inc(),
    onProposalFailed: () => metrics.proposalsFailed.inc(),
    onSlowRead: () => metrics.slowReadIndexes.inc(),
    onReadFailed: () => metrics.readIndexesFailed.inc(),
    onLateHeartbeat: () => metrics.heartbeatSendFailures.inc(),
    onLeaseExpired: (count) => metrics.leaseExpired.inc(count),
    onSlowApply: () => metrics.slowApplies.inc(),
    onAlarm: ({ action, alarm }) => {
      const id = memberId();
      if (id !== undefined) metrics.alarms.series(alarm, hexId(id)).inc(action === "activated" ? 1 : -1);
    },
  };
}

/** Lets scrapes read the gauges of a running member. */
export function bindMetrics(metrics: ServerMetrics, server: Server): void {
  const quota = server.config.quotaBackendBytes;
  metrics.bind({
    hasLeader: () => server.leader !== 0n,
    isLeader: () => server.isLeader,
    isLearner: () => server.isLearner,
    memberId: () => server.memberId,
    clusterVersion: () => server.state.clusterVersion?.split(".").slice(0, 2).join("."),
    serverVersion: () => SERVER_VERSION,
    commitIndex: () => server.commitIndex,
    appliedIndex: () => server.appliedIndex,
    proposalsPending: () => server.pendingProposals,
    quotaBytes: () => (quota < 0 ? quota : quotaBytes(quota)),
    databaseBytes: () => server.state.sizeAllocated,
    databaseBytesInUse: () => server.state.sizeInUse,
    keys: () => server.store.keyCount,
    currentRevision: () => server.store.revision,
    compactRevision: () => server.store.compactRevision,
    authRevision: () => server.state.auth.revision,
    watchStreams: () => server.hub.stats.streams,
    watchers: () => server.hub.stats.watchers,
    slowWatchers: () => server.hub.stats.slowWatchers,
    pendingEvents: () => server.hub.stats.pendingEvents,
    walBytesWritten: () => server.walBytesWritten,
  });
}
