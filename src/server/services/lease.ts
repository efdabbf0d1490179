import * as api from "../../api/index.ts";
import { rpcError } from "../../api/rpc-errors.ts";
import { type Identity, requireLeaseRead, requireLeaseWrite, requireRange } from "../../auth/index.ts";
import { bytesOfKey, EMPTY_BYTES } from "../../base/bytes.ts";
import { EtcdError } from "../../base/errors.ts";
import { type LeaseId, NO_MEMBER } from "../../base/ids.ts";
import type { Applied } from "../apply/execute.ts";
import { raftRequest } from "../raft-request.ts";
import type { ServiceCore } from "./core.ts";
import { quotaBytes } from "./kv.ts";
import type { CallContext, LeaseService } from "./services.contract.ts";

const GRANT_COST_BYTES = 64;
const FORWARD_RETRY_MS = 50;
/** Attached keys looked at in one turn of the event loop, about 2 ms. */
const KEYS_PER_TURN = 10_000;

/** The Lease service of api-semantics.md section 11. */
export function createLeaseService(core: ServiceCore): LeaseService {
  /** Runs `local` on the leader, else asks the leader until the request timeout; retried while there is none. */
  async function onLeader<Result>(
    context: CallContext,
    local: (signal: AbortSignal) => Promise<Result>,
    remote: (signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const deadline = core.deadline(context);
    try {
      for (;;) {
        const { leader } = core;
        if (leader !== NO_MEMBER) {
          try {
            return await (leader === core.memberId ? local(deadline.signal) : remote(deadline.signal));
          } catch (error) {
            // The leader that was asked is none any more, or cannot be reached: look again.
            const retry =
              EtcdError.is(error) &&
              (error.reason === "peer-unreachable" || error.reason === "not-primary-lessor" || error.reason === "not-leader");
            if (!retry || deadline.signal.aborted) throw error;
          }
        }
        await pause(core, deadline.signal);
      }
    } finally {
      deadline.done();
    }
  }

  async function leaseGrant(request: api.LeaseGrantRequest, context: CallContext): Promise<api.LeaseGrantResponse> {
    core.admit(context);
    if (core.state.sizeAllocated + GRANT_COST_BYTES >= quotaBytes(core.config.quotaBackendBytes)) {
      core.raiseNoSpace();
      throw rpcError("no-space");
    }
    await core.access.requireUser(context);
    let id = request.id;
    while (id === 0n) id = core.ids.nextPositive();
    const body = api.LeaseGrantRequest.create({ id, ttl: request.ttl });
    const { response, revision } = await core.propose<Applied<{ id: LeaseId; ttl: number }>>(raftRequest("lease-grant", body), context);
    return api.LeaseGrantResponse.create({ header: core.header(revision), id: response.id, ttl: response.ttl });
  }

  async function leaseRevoke(request: api.LeaseRevokeRequest, context: CallContext): Promise<api.LeaseRevokeResponse> {
    core.admit(context);
    await core.access.requireUser(context);
    const { revision } = await core.propose<Applied<undefined>>(raftRequest("lease-revoke", request), context);
    return api.LeaseRevokeResponse.create({ header: core.header(revision) });
  }

  async function leaseKeepAlive(request: api.LeaseKeepAliveRequest, context: CallContext): Promise<api.LeaseKeepAliveResponse> {
    core.admit(context);
    if (core.access.enabled) {
      const who = await core.access.requireUser(context);
      // What is attached to a lease that is not known here yet cannot be checked here yet.
      if (!core.state.lessor.exists(request.id as LeaseId)) await core.caughtUp(context.signal);
      requireLeaseWrite(core.access.leaseRightsOf(who), request.id as LeaseId, core.state.lessor);
    }
    // Taken before the renewal: a client may resume watches from it.
    const revision = core.state.store.revision;
    const ttl = await onLeader(
      context,
      (signal) => renewHere(core, request.id as LeaseId, signal),
      async (signal) => {
        const body = await core.askPeer(core.leader, "lease-renew", api.LeaseKeepAliveRequest.encode(request), signal);
        return api.LeaseKeepAliveResponse.decode(body).ttl;
      },
    );
    return api.LeaseKeepAliveResponse.create({ header: core.header(revision), id: request.id, ttl });
  }

  async function leaseTimeToLive(request: api.LeaseTimeToLiveRequest, context: CallContext): Promise<api.LeaseTimeToLiveResponse> {
    core.admit(context);
    const who = await core.access.requireUser(context);
    const { revision } = core.access;
    if (request.keys) requireLeaseRead(core.access.leaseRightsOf(who), request.id as LeaseId, core.state.lessor);
    const response = await onLeader(
      context,
      (signal) => timeToLiveHere(core, request, signal),
      async (signal) =>
        api.LeaseTimeToLiveResponse.decode(
          await core.askPeer(core.leader, "lease-time-to-live", api.LeaseTimeToLiveRequest.encode(request), signal),
        ),
    );
    if (core.access.enabled && core.access.revision !== revision) throw rpcError("auth-old-revision");
    if (request.keys) {
      // The leader may know of more keys than this member did (failure catalogue BA7).
      const rights = core.access.leaseRightsOf(who);
      if (!rights.unlimited) for (const key of response.keys) requireRange(rights, { key, rangeEnd: EMPTY_BYTES });
    }
    response.header = core.header(core.state.store.revision);
    return response;
  }

  async function leaseLeases(_request: api.LeaseLeasesRequest, context: CallContext): Promise<api.LeaseLeasesResponse> {
    core.admit(context);
    const who = await core.access.requireUser(context);
    const ids = core.state.lessor.ids();
    await requireAllLeases(core, who, ids);
    const leases = ids.map((id) => api.LeaseStatus.create({ id }));
    return api.LeaseLeasesResponse.create({ header: core.header(core.state.store.revision), leases });
  }

  return { leaseGrant, leaseRevoke, leaseKeepAlive, leaseTimeToLive, leaseLeases };
}

/** Whoever lists leases learns which keys live by them, so all keys that do must be readable. */
async function requireAllLeases(core: ServiceCore, who: Identity | undefined, ids: readonly LeaseId[]): Promise<void> {
  const rights = core.access.leaseRightsOf(who);
  if (rights.unlimited) return;
  const { revision } = core.access;
  const { lessor } = core.state;
  let looked = 0;
  for (const id of ids) {
    looked += 1;
    for (const key of lessor.attachedKeys(id)) {
      rights.requireReadKey(key);
      looked += 1;
    }
    if (looked < KEYS_PER_TURN) continue;
    looked = 0;
    await core.yieldNow();
  }
  if (core.access.revision !== revision) throw rpcError("auth-old-revision");
}

/** A renewal on the leader. A lease that is not known yet may be in an entry that is not applied yet. */
export async function renewHere(core: ServiceCore, id: LeaseId, signal: AbortSignal): Promise<number> {
  if (!core.state.lessor.exists(id)) await core.caughtUp(signal);
  return core.leases.renew(id, signal);
}

/** A look-up on the leader. */
export async function timeToLiveHere(
  core: ServiceCore,
  request: api.LeaseTimeToLiveRequest,
  signal: AbortSignal,
): Promise<api.LeaseTimeToLiveResponse> {
  await core.leases.ensureLeading(signal);
  await core.caughtUp(signal);
  const id = request.id as LeaseId;
  const { lessor } = core.state;
  const grantedTtl = lessor.grantedTtl(id);
  if (grantedTtl === undefined) return api.LeaseTimeToLiveResponse.create({ id, ttl: -1 });
  const ttl = lessor.remainingTtl(id, core.clock.monotonicMs());
  // Demoted between the check and here: a follower knows no remaining time (failure catalogue BL4).
  if (ttl === undefined) throw rpcError("leader-changed");
  return api.LeaseTimeToLiveResponse.create({ id, ttl, grantedTtl, keys: request.keys ? lessor.keysOf(id).map(bytesOfKey) : [] });
}

function pause(core: ServiceCore, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (): void => {
      timer.cancel();
      reject(core.leader === NO_MEMBER && !isCallersOwn(signal) ? rpcError("no-leader") : (signal.reason as unknown));
    };
    const timer = core.clock.timer(FORWARD_RETRY_MS, () => {
      signal.removeEventListener("abort", fail);
      resolve();
    });
    if (signal.aborted) fail();
    else signal.addEventListener("abort", fail, { once: true });
  });
}

/** True when the caller ended the call, false when the server's own request timeout did. */
function isCallersOwn(signal: AbortSignal): boolean {
  return !(EtcdError.is(signal.reason) && signal.reason.reason === "timeout");
}
