import * as api from "../../api/index.ts";
import { rpcError } from "../../api/rpc-errors.ts";
import { EtcdError } from "../../base/errors.ts";
import type { MemberId } from "../../base/ids.ts";
import { NO_MEMBER } from "../../base/ids.ts";
import type { ActiveAlarm } from "../alarms.ts";
import type { Applied } from "../apply/execute.ts";
import { SERVER_VERSION, STORAGE_VERSION } from "../config.ts";
import { raftRequest } from "../raft-request.ts";
import type { ServiceCore } from "./core.ts";
import { QUOTA_DEFAULT_BYTES } from "./kv.ts";
import type { CallContext, MaintenanceService } from "./services.contract.ts";

export interface MaintenancePorts {
  /** The store as a stream of blobs for a backup; the digest comes last. */
  backup(signal: AbortSignal | undefined): AsyncIterable<{ blob: Uint8Array; remainingBytes: number }>;
  /** Checksum over the whole backend; for tests. */
  hashBackend(): Promise<number>;
  onDefragment(running: boolean): void;
}

/** The Maintenance service of api-semantics.md section 15. */
export function createMaintenanceService(core: ServiceCore, ports: MaintenancePorts): MaintenanceService {
  let defragmenting: Promise<void> | undefined;

  async function alarm(request: api.AlarmRequest, context: CallContext): Promise<api.AlarmResponse> {
    core.admit(context);
    if (request.action === api.AlarmAction.GET) await core.access.requireUser(context);
    else await core.access.requireRoot(context);
    // The reference crashes on an unknown action.
    if (request.action < 0 || request.action > api.AlarmAction.DEACTIVATE) throw rpcError("unknown-method");
    const { response, revision } = await core.propose<Applied<readonly ActiveAlarm[]>>(raftRequest("alarm", request), context);
    return api.AlarmResponse.create({ header: core.header(revision), alarms: response.map((one) => api.AlarmMember.create(one)) });
  }

  async function status(_request: api.StatusRequest, context: CallContext): Promise<api.StatusResponse> {
    core.admit(context, { learnerMay: true, healingMay: true });
    await core.access.requireUser(context);
    const { state, config } = core;
    const raft = core.raftStatus();
    const errors: string[] = [];
    if (core.outage !== undefined) errors.push(core.outage);
    if (raft.leader === NO_MEMBER) errors.push("etcdserver: no leader");
    for (const one of state.alarms.list()) errors.push(`memberID:${one.memberId} alarm:${alarmName(one.alarm)}`);
    return api.StatusResponse.create({
      header: core.header(state.store.revision),
      version: SERVER_VERSION,
      dbSize: state.sizeAllocated,
      leader: raft.leader,
      raftIndex: core.commitIndex,
      raftTerm: core.term,
      raftAppliedIndex: state.appliedIndex,
      errors,
      dbSizeInUse: state.sizeInUse,
      isLearner: core.isLearner,
      storageVersion: state.clusterVersion === undefined ? "" : STORAGE_VERSION,
      dbSizeQuota: config.quotaBackendBytes === 0 ? QUOTA_DEFAULT_BYTES : config.quotaBackendBytes,
      downgradeInfo: api.DowngradeInfo.create({ enabled: state.downgrade.enabled, targetVersion: state.downgrade.targetVersion }),
    });
  }

  async function defragment(_request: api.DefragmentRequest, context: CallContext): Promise<api.DefragmentResponse> {
    core.admit(context);
    await core.access.requireRoot(context);
    // One at a time: a second caller shares the run.
    defragmenting ??= (async () => {
      ports.onDefragment(true);
      try {
        await core.state.defragment();
      } catch (error) {
        if (!EtcdError.is(error) || error.reason !== "backend-closed") throw error;
        // A state from the leader has taken its place, which was written anew as a whole; or the member stops, which this tells.
        core.admit({});
      } finally {
        ports.onDefragment(false);
        defragmenting = undefined;
      }
    })();
    await defragmenting;
    return api.DefragmentResponse.create();
  }

  async function hash(_request: api.HashRequest, context: CallContext): Promise<api.HashResponse> {
    core.admit(context);
    await core.access.requireRoot(context);
    const sum = await ports.hashBackend();
    return api.HashResponse.create({ header: core.header(core.state.store.revision), hash: sum });
  }

  async function hashKv(request: api.HashKVRequest, context: CallContext): Promise<api.HashKVResponse> {
    core.admit(context);
    await core.access.requireRoot(context);
    const { store } = core.state;
    const result = await store.hashByRevision(request.revision);
    return api.HashKVResponse.create({
      header: core.header(store.revision),
      hash: result.hash,
      compactRevision: result.compactRevision,
      hashRevision: result.hashRevision,
    });
  }

  async function* snapshot(_request: api.SnapshotRequest, context: CallContext): AsyncGenerator<api.SnapshotResponse> {
    core.admit(context, { learnerMay: true });
    await core.access.requireRoot(context);
    for await (const { blob, remainingBytes } of ports.backup(context.signal)) {
      yield api.SnapshotResponse.create({ blob, remainingBytes, version: STORAGE_VERSION });
    }
  }

  async function moveLeader(request: api.MoveLeaderRequest, context: CallContext): Promise<api.MoveLeaderResponse> {
    core.admit(context);
    await core.access.requireRoot(context);
    if (!core.isLeader) throw rpcError("not-leader");
    const target = core.state.membership.get(request.targetId as MemberId);
    if (target === undefined || target.isLearner) throw rpcError("bad-leader-transferee");
    if (target.id !== core.memberId) await core.transferLeader(target.id, context);
    return api.MoveLeaderResponse.create();
  }

  async function downgrade(request: api.DowngradeRequest, context: CallContext): Promise<api.DowngradeResponse> {
    core.admit(context);
    await core.access.requireRoot(context);
    switch (request.action) {
      case api.DowngradeAction.VALIDATE:
        await checkDowngrade(request.version, context);
        break;
      case api.DowngradeAction.ENABLE: {
        const target = await checkDowngrade(request.version, context);
        const body = api.DowngradeInfoSetRequest.create({ enabled: true, ver: target });
        await core.propose(raftRequest("downgrade-info-set", body), context);
        break;
      }
      case api.DowngradeAction.CANCEL: {
        const body = api.DowngradeInfoSetRequest.create({ enabled: false, ver: "" });
        await core.propose(raftRequest("downgrade-info-set", body), context);
        break;
      }
      default:
        throw rpcError("unknown-method");
    }
    return api.DowngradeResponse.create({
      header: core.header(core.state.store.revision),
      version: minorOf(core.state.clusterVersion ?? ""),
    });
  }

  /** The target as `X.Y.0`. */
  async function checkDowngrade(version: string, context: CallContext): Promise<string> {
    const match = /^(\d{1,5})\.(\d{1,5})(?:\.(\d{1,5}))?$/.exec(version);
    if (match === null) throw rpcError("wrong-downgrade-version-format");
    const current = core.state.clusterVersion;
    if (current === undefined) throw rpcError("cluster-version-not-found");
    const barrier = core.linearizable(context.signal);
    if (barrier !== undefined) await barrier;
    const [major, minor] = current.split(".").map(Number) as [number, number];
    if (Number(match[1]) !== major || Number(match[2]) !== minor - 1) throw rpcError("invalid-downgrade-target-version");
    if (core.state.downgrade.enabled) throw rpcError("downgrade-in-process");
    return `${match[1]}.${match[2]}.0`;
  }

  return { alarm, status, defragment, hash, hashKv, snapshot, moveLeader, downgrade };
}

export function alarmName(alarm: number): string {
  if (alarm === api.AlarmType.NOSPACE) return "NOSPACE";
  return alarm === api.AlarmType.CORRUPT ? "CORRUPT" : String(alarm);
}

function minorOf(version: string): string {
  return version.split(".").slice(0, 2).join(".");
}
