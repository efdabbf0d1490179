/**
 * Services with a fixed identity over those of a member that may be in another life tomorrow: what skins and programs hold stays valid, and refuses while there is
 * no life that could answer.
 */
import type { EtcdError } from "../base/errors.ts";
import type { Services } from "../server/index.ts";

/** `now` gives the services of the present life, or those of {@link refusingServices}. */
export function switchingServices(now: () => Services): Services {
  return {
    kv: {
      range: (request, context) => now().kv.range(request, context),
      rangeStream: (request, context) => now().kv.rangeStream(request, context),
      put: (request, context) => now().kv.put(request, context),
      deleteRange: (request, context) => now().kv.deleteRange(request, context),
      txn: (request, context) => now().kv.txn(request, context),
      compact: (request, context) => now().kv.compact(request, context),
    },
    watch: {
      watch: (context) => now().watch.watch(context),
    },
    lease: {
      leaseGrant: (request, context) => now().lease.leaseGrant(request, context),
      leaseRevoke: (request, context) => now().lease.leaseRevoke(request, context),
      leaseKeepAlive: (request, context) => now().lease.leaseKeepAlive(request, context),
      leaseTimeToLive: (request, context) => now().lease.leaseTimeToLive(request, context),
      leaseLeases: (request, context) => now().lease.leaseLeases(request, context),
    },
    cluster: {
      memberAdd: (request, context) => now().cluster.memberAdd(request, context),
      memberRemove: (request, context) => now().cluster.memberRemove(request, context),
      memberUpdate: (request, context) => now().cluster.memberUpdate(request, context),
      memberList: (request, context) => now().cluster.memberList(request, context),
      memberPromote: (request, context) => now().cluster.memberPromote(request, context),
    },
    maintenance: {
      alarm: (request, context) => now().maintenance.alarm(request, context),
      status: (request, context) => now().maintenance.status(request, context),
      defragment: (request, context) => now().maintenance.defragment(request, context),
      hash: (request, context) => now().maintenance.hash(request, context),
      hashKv: (request, context) => now().maintenance.hashKv(request, context),
      snapshot: (request, context) => now().maintenance.snapshot(request, context),
      moveLeader: (request, context) => now().maintenance.moveLeader(request, context),
      downgrade: (request, context) => now().maintenance.downgrade(request, context),
    },
    auth: {
      authEnable: (request, context) => now().auth.authEnable(request, context),
      authDisable: (request, context) => now().auth.authDisable(request, context),
      authStatus: (request, context) => now().auth.authStatus(request, context),
      authenticate: (request, context) => now().auth.authenticate(request, context),
      userAdd: (request, context) => now().auth.userAdd(request, context),
      userGet: (request, context) => now().auth.userGet(request, context),
      userList: (request, context) => now().auth.userList(request, context),
      userDelete: (request, context) => now().auth.userDelete(request, context),
      userChangePassword: (request, context) => now().auth.userChangePassword(request, context),
      userGrantRole: (request, context) => now().auth.userGrantRole(request, context),
      userRevokeRole: (request, context) => now().auth.userRevokeRole(request, context),
      roleAdd: (request, context) => now().auth.roleAdd(request, context),
      roleGet: (request, context) => now().auth.roleGet(request, context),
      roleList: (request, context) => now().auth.roleList(request, context),
      roleDelete: (request, context) => now().auth.roleDelete(request, context),
      roleGrantPermission: (request, context) => now().auth.roleGrantPermission(request, context),
      roleRevokePermission: (request, context) => now().auth.roleRevokePermission(request, context),
    },
    lock: {
      lock: (request, context) => now().lock.lock(request, context),
      unlock: (request, context) => now().lock.unlock(request, context),
    },
    election: {
      campaign: (request, context) => now().election.campaign(request, context),
      proclaim: (request, context) => now().election.proclaim(request, context),
      leader: (request, context) => now().election.leader(request, context),
      observe: (request, context) => now().election.observe(request, context),
      resign: (request, context) => now().election.resign(request, context),
    },
    health: {
      alarms: () => now().health.alarms(),
      leader: () => now().health.leader(),
      isLearner: () => now().health.isLearner(),
      outage: () => now().health.outage(),
      probeRead: (options) => now().health.probeRead(options),
      versions: () => now().health.versions(),
    },
  };
}

/** Every call fails with that error, every stream too. `versions` are those of the last life. */
export function refusingServices(error: EtcdError, versions: Services["health"]["versions"]): Services {
  const no = (): Promise<never> => Promise.reject(error);
  // biome-ignore lint/correctness/useYield: a stream without anything in it
  const stream = async function* (): AsyncGenerator<never> {
    throw error;
  };
  return {
    kv: { range: no, rangeStream: stream, put: no, deleteRange: no, txn: no, compact: no },
    watch: {
      watch() {
        throw error;
      },
    },
    lease: { leaseGrant: no, leaseRevoke: no, leaseKeepAlive: no, leaseTimeToLive: no, leaseLeases: no },
    cluster: { memberAdd: no, memberRemove: no, memberUpdate: no, memberList: no, memberPromote: no },
    maintenance: { alarm: no, status: no, defragment: no, hash: no, hashKv: no, snapshot: stream, moveLeader: no, downgrade: no },
    auth: {
      authEnable: no,
      authDisable: no,
      authStatus: no,
      authenticate: no,
      userAdd: no,
      userGet: no,
      userList: no,
      userDelete: no,
      userChangePassword: no,
      userGrantRole: no,
      userRevokeRole: no,
      roleAdd: no,
      roleGet: no,
      roleList: no,
      roleDelete: no,
      roleGrantPermission: no,
      roleRevokePermission: no,
    },
    lock: { lock: no, unlock: no },
    election: { campaign: no, proclaim: no, leader: no, observe: stream, resign: no },
    health: {
      alarms: () => [],
      leader: () => 0n,
      isLearner: () => false,
      outage: () => error.message,
      probeRead: no,
      versions,
    },
  };
}
