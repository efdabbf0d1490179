import * as api from "../../api/index.ts";
import { rpcError } from "../../api/rpc-errors.ts";
import { EMPTY_BYTES } from "../../base/bytes.ts";
import { EtcdError } from "../../base/errors.ts";
import { type MemberId, NO_MEMBER } from "../../base/ids.ts";
import { memberIdOf } from "../identity.ts";
import { type MemberRecord, toMessage } from "../membership.ts";
import { checkMemberUrls } from "../urls.ts";
import type { ServiceCore } from "./core.ts";
import type { CallContext, ClusterService } from "./services.contract.ts";

/** How long a peer must have been connected to count as healthy (server-config.md section 11). */
const HEALTH_MS = 5000;
const PROMOTE_SHARE = 0.9;
/** How long the answer to a promotion waits for the promoted member to know of it. */
const PROMOTED_THERE_MS = 1000;
const PROMOTED_THERE_POLL_MS = 10;

/** The Cluster service of api-semantics.md section 14. Its headers carry no revision. */
export function createClusterService(core: ServiceCore): ClusterService {
  async function memberAdd(request: api.MemberAddRequest, context: CallContext): Promise<api.MemberAddResponse> {
    core.admit(context);
    const peerUrls = checkMemberUrls(request.peerUrls);
    await core.access.requireRoot(context);
    if (core.config.strictReconfigCheck) checkAdd(core, request.isLearner);
    const id = memberIdOf(peerUrls, String(Math.floor(core.clock.wallMs() / 1000)));
    const member: MemberRecord = { id, name: "", peerUrls, clientUrls: [], isLearner: request.isLearner };
    const members = await core.proposeMemberChange({ action: "add", member }, context);
    return api.MemberAddResponse.create({ header: core.header(0), member: toMessage(member), members: members.map(toMessage) });
  }

  async function memberRemove(request: api.MemberRemoveRequest, context: CallContext): Promise<api.MemberRemoveResponse> {
    core.admit(context);
    await core.access.requireRoot(context);
    const id = request.id as MemberId;
    if (core.config.strictReconfigCheck) checkRemove(core, id);
    refuseNobody(id);
    const members = await core.proposeMemberChange({ action: "remove", member: bare(id) }, context);
    return api.MemberRemoveResponse.create({ header: core.header(0), members: members.map(toMessage) });
  }

  async function memberUpdate(request: api.MemberUpdateRequest, context: CallContext): Promise<api.MemberUpdateResponse> {
    core.admit(context);
    await core.access.requireRoot(context);
    refuseNobody(request.id as MemberId);
    // Any strings are stored as they are: etcd checks no syntax here.
    const member = { ...bare(request.id as MemberId), peerUrls: request.peerUrls };
    const members = await core.proposeMemberChange({ action: "update", member }, context);
    return api.MemberUpdateResponse.create({ header: core.header(0), members: members.map(toMessage) });
  }

  async function memberList(request: api.MemberListRequest, context: CallContext): Promise<api.MemberListResponse> {
    core.admit(context);
    if (request.linearizable) {
      const barrier = core.linearizable(context.signal);
      if (barrier !== undefined) await barrier;
    }
    await core.access.requireUser(context);
    return api.MemberListResponse.create({ header: core.header(0), members: core.state.membership.list().map(toMessage) });
  }

  async function memberPromote(request: api.MemberPromoteRequest, context: CallContext): Promise<api.MemberPromoteResponse> {
    core.admit(context);
    await core.access.requireRoot(context);
    const deadline = core.deadline(context);
    try {
      for (;;) {
        const { leader } = core;
        if (leader === core.memberId) {
          const members = await promoteHere(core, request.id as MemberId, { ...context, signal: deadline.signal });
          return api.MemberPromoteResponse.create({ header: core.header(0), members: members.map(toMessage) });
        }
        if (leader !== NO_MEMBER) {
          try {
            const body = await core.askPeer(leader, "member-promote", api.MemberPromoteRequest.encode(request), deadline.signal);
            const response = api.MemberPromoteResponse.decode(body);
            response.header = core.header(0);
            return response;
          } catch (error) {
            const retry = EtcdError.is(error) && (error.reason === "peer-unreachable" || error.reason === "not-leader");
            if (!retry || deadline.signal.aborted) throw error;
          }
        }
        await new Promise<void>((resolve, reject) => {
          const fail = (): void => {
            timer.cancel();
            reject(deadline.signal.reason);
          };
          const timer = core.clock.timer(50, () => {
            deadline.signal.removeEventListener("abort", fail);
            resolve();
          });
          deadline.signal.addEventListener("abort", fail, { once: true });
        });
      }
    } finally {
      deadline.done();
    }
  }

  return { memberAdd, memberRemove, memberUpdate, memberList, memberPromote };
}

/** Id 0 stands for "none" everywhere, so it cannot be a member, and raft must never be asked about it. */
function refuseNobody(id: MemberId): void {
  if (id === NO_MEMBER) throw rpcError("member-not-found");
}

function bare(id: MemberId): MemberRecord {
  return { id, name: "", peerUrls: [], clientUrls: [], isLearner: false };
}

/** Promotion is judged by the leader, which alone knows how far the learner is. */
export async function promoteHere(core: ServiceCore, id: MemberId, context: CallContext): Promise<readonly MemberRecord[]> {
  if (!core.isLeader) throw rpcError("not-leader");
  const member = core.state.membership.get(id);
  if (member === undefined) throw rpcError("member-not-found");
  const { progress } = core.raftStatus();
  const own = progress.find((peer) => peer.id === core.memberId)?.match ?? 0;
  const theirs = progress.find((peer) => peer.id === id);
  if (member.isLearner && (theirs === undefined || theirs.match < own * PROMOTE_SHARE)) throw rpcError("learner-not-ready");
  if (core.config.strictReconfigCheck) {
    const voters = core.state.membership.voters();
    const started = voters.filter(isStarted).length + 1;
    if (started < quorum(voters.length + 1)) throw rpcError("not-enough-started-members");
  }
  const members = await core.proposeMemberChange({ action: "promote", member: bare(id) }, context);
  await untilPromotedThere(core, id, context.signal);
  return members;
}

/**
 * The promotion is done when it is applied here, but until it is applied there the member refuses clients as a learner: who promotes a member and then talks to it
 * should not see that. Waits for a moment only, and for nothing that cannot be had.
 */
async function untilPromotedThere(core: ServiceCore, id: MemberId, signal: AbortSignal | undefined): Promise<void> {
  if (id === core.memberId) return;
  const { clock } = core;
  const ended = new AbortController();
  const timer = clock.timer(PROMOTED_THERE_MS, () => ended.abort(rpcError("timeout")));
  const either = signal === undefined ? ended.signal : AbortSignal.any([ended.signal, signal]);
  try {
    while (!either.aborted) {
      const status = api.StatusResponse.decode(await core.askPeer(id, "status", EMPTY_BYTES, either));
      if (!status.isLearner) return;
      await new Promise<void>((resolve) => void clock.timer(PROMOTED_THERE_POLL_MS, resolve));
    }
  } catch (error) {
    // It cannot be reached, which does not undo the promotion.
    core.logger.debug({ error: String(error) }, "did not see the promotion arrive");
  } finally {
    timer.cancel();
  }
}

function isStarted(member: MemberRecord): boolean {
  return member.name !== "";
}

function quorum(voters: number): number {
  return Math.floor(voters / 2) + 1;
}

/** Voters, this member included, that have been connected for the health interval. */
function activeVoters(core: ServiceCore): number {
  const now = core.clock.monotonicMs();
  return core.state.membership.voters().filter((member) => {
    if (member.id === core.memberId) return true;
    const since = core.activeSince(member.id);
    return since !== undefined && now - since >= HEALTH_MS;
  }).length;
}

function checkAdd(core: ServiceCore, isLearner: boolean): void {
  const voters = core.state.membership.voters();
  const started = voters.filter(isStarted).length;
  const lone = voters.length === 1 && started === 1;
  if (!isLearner && !lone && started < quorum(voters.length + 1)) throw rpcError("not-enough-started-members");
  if (voters.length > 1 && activeVoters(core) < quorum(voters.length + 1)) throw rpcError("unhealthy-cluster");
}

function checkRemove(core: ServiceCore, id: MemberId): void {
  const member = core.state.membership.get(id);
  // Unknown ids are refused when the change is applied; learners may always go.
  if (member === undefined || member.isLearner) return;
  const voters = core.state.membership.voters();
  const startedOthers = voters.filter((one) => one.id !== id && isStarted(one)).length;
  if (startedOthers < quorum(voters.length - 1)) throw rpcError("not-enough-started-members");
  // A victim that is not connected costs nothing.
  if (id !== core.memberId && core.activeSince(id) === undefined) return;
  if (activeVoters(core) - 1 < quorum(voters.length - 1)) throw rpcError("unhealthy-cluster");
}
