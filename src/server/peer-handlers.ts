/** What other members may ask of this one over the peer port. */
import * as api from "../api/index.ts";
import { rpcError } from "../api/rpc-errors.ts";
import { type ClusterId, hexId, type LeaseId, type MemberId } from "../base/ids.ts";
import { SERVER_VERSION, STORAGE_VERSION } from "./config.ts";
import { encodeAdmission, type Healer, HealingError, HealRefusedError } from "./healer.ts";
import { type MemberRecord, type Membership, toMessage } from "./membership.ts";
import type { PeerHandlers, PeerRequestKind } from "./peer/index.ts";
import type { RaftDriver } from "./raft-driver.ts";
import { encodeRaftRequest, raftRequest } from "./raft-request.ts";
import { promoteHere } from "./services/cluster.ts";
import type { ServiceCore } from "./services/core.ts";
import { renewHere, timeToLiveHere } from "./services/lease.ts";
import type { Snapshots } from "./snapshots.ts";

export interface PeerHandlerOptions {
  core(): ServiceCore;
  readonly clusterId: ClusterId;
  readonly memberId: MemberId;
  readonly driver: RaftDriver;
  readonly snapshots: Snapshots;
  membership(): Membership;
  onRemoved(): void;
  /** Present while this member itself is being healed. */
  healer(): Healer | undefined;
}

export function createPeerHandlers(options: PeerHandlerOptions): PeerHandlers {
  const { driver, snapshots } = options;

  async function onRequest(
    from: MemberId,
    kind: PeerRequestKind,
    body: Uint8Array,
    { signal }: { signal: AbortSignal },
  ): Promise<Uint8Array> {
    const core = options.core();
    core.admit({}, { learnerMay: true });
    switch (kind) {
      case "lease-renew": {
        const request = api.LeaseKeepAliveRequest.decode(body);
        const ttl = await renewHere(core, request.id as LeaseId, signal);
        return api.LeaseKeepAliveResponse.encode(api.LeaseKeepAliveResponse.create({ id: request.id, ttl }));
      }
      case "lease-time-to-live": {
        if (!core.isLeader) throw rpcError("not-leader");
        return api.LeaseTimeToLiveResponse.encode(await timeToLiveHere(core, api.LeaseTimeToLiveRequest.decode(body), signal));
      }
      case "member-promote": {
        const request = api.MemberPromoteRequest.decode(body);
        const members = await promoteHere(core, request.id as MemberId, { signal });
        return api.MemberPromoteResponse.encode(api.MemberPromoteResponse.create({ members: members.map(toMessage) }));
      }
      case "hash-kv": {
        const request = api.HashKVRequest.decode(body);
        const { store } = core.state;
        const result = await store.hashByRevision(request.revision);
        return api.HashKVResponse.encode(api.HashKVResponse.create({ header: core.header(store.revision), ...result }));
      }
      case "status": {
        const { state } = core;
        const response = api.StatusResponse.create({
          header: core.header(state.store.revision),
          version: SERVER_VERSION,
          leader: core.leader,
          raftTerm: core.term,
          isLearner: core.isLearner,
        });
        return api.StatusResponse.encode(response);
      }
      case "progress-reset":
        return admitAnew(from);
      default:
        return kind satisfies never;
    }
  }

  /** A member says that it lost its log. The fence is an entry that changes nothing. */
  function admitAnew(from: MemberId): Uint8Array {
    const core = options.core();
    const request = raftRequest("lease-checkpoint", api.LeaseCheckpointRequest.create({ checkpoints: [] }));
    request.id = core.ids.next();
    const outcome = driver.resetProgress(from, encodeRaftRequest(request));
    if (outcome === "not-leader") throw rpcError("not-leader");
    if (typeof outcome === "string") throw new HealRefusedError(outcome);
    core.logger.warn(
      { "member-id": hexId(from), "healed-at-index": outcome.fence },
      "a member has lost its data; it counts again when it is healed",
    );
    return encodeAdmission(outcome);
  }

  return {
    clusterId: options.clusterId,
    memberId: options.memberId,
    onMessage: (message) => {
      options.healer()?.heard(message);
      driver.step(message);
    },
    onSnapshot: async (message, chunks, info) => {
      options.healer()?.heard(message);
      // Not before it is known to be of use: taking it in is work.
      if (!driver.hears(message)) throw new HealingError();
      await snapshots.receive(message, chunks, info);
    },
    snapshotBytesHeld: (info) => snapshots.bytesHeld(info),
    onRequest,
    onUnreachable: (peer) => driver.reportUnreachable(peer),
    isRemoved: (peer) => options.membership().isRemoved(peer),
    onRemoved: options.onRemoved,
    membersJson: () => `${membersJson(options.membership().list())}\n`,
    versionJson: () =>
      JSON.stringify({
        etcdserver: SERVER_VERSION,
        etcdcluster: options.core().state.clusterVersion ?? "not_decided",
        storage: options.core().state.clusterVersion === undefined ? "unknown" : STORAGE_VERSION,
      }),
  };
}

/** Ids as JSON numbers, exactly, which `JSON.stringify` cannot write; empty fields are left out (http-endpoints.md section 12). */
function membersJson(members: readonly MemberRecord[]): string {
  const one = (member: MemberRecord): string => {
    const rest = JSON.stringify({
      peerURLs: member.peerUrls,
      ...(member.isLearner ? { isLearner: true } : {}),
      ...(member.name === "" ? {} : { name: member.name }),
      ...(member.clientUrls.length === 0 ? {} : { clientURLs: member.clientUrls }),
    });
    return `{"id":${member.id},${rest.slice(1)}`;
  };
  return `[${members.map(one).join(",")}]`;
}
