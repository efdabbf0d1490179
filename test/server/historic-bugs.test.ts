/** Rows of the failure catalogue that concern a whole member, and are not the matter of any other test file. */
import { afterEach, describe, expect, test } from "vitest";
import * as api from "../../src/api/index.ts";
import type { EtcdError } from "../../src/base/errors.ts";
import type { EtcdServer } from "../../src/embed/start-etcd.ts";
import type { Services } from "../../src/server/services/services.contract.ts";
import { eventually, get, hashOf, put, startCluster, type TestCluster, text } from "../support/cluster.ts";

let cluster: TestCluster | undefined;
afterEach(async () => {
  await cluster?.close();
  cluster = undefined;
});

const SMALL = { snapshotCount: 20, snapshotCatchupEntries: 10, bcryptCost: 4 };

async function textOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "ok";
  } catch (error) {
    return (error as Error).message;
  }
}

async function codeOf(call: Promise<unknown>): Promise<number> {
  try {
    await call;
    return 0;
  } catch (error) {
    return (error as EtcdError).grpcCode;
  }
}

async function lone(): Promise<EtcdServer> {
  cluster = await startCluster(["a"], SMALL);
  return cluster.member("a");
}

/** Root, and users with the given rights; authentication is on afterwards. Gives a token for each. */
async function protect(
  services: Services,
  users: Readonly<Record<string, readonly [key: string, rangeEnd: string][]>>,
): Promise<Map<string, string>> {
  const { auth } = services;
  await auth.userAdd(api.AuthUserAddRequest.create({ name: "root", password: "pw" }), {});
  await auth.roleAdd(api.AuthRoleAddRequest.create({ name: "root" }), {});
  await auth.userGrantRole(api.AuthUserGrantRoleRequest.create({ user: "root", role: "root" }), {});
  for (const [name, rights] of Object.entries(users)) {
    await auth.userAdd(api.AuthUserAddRequest.create({ name, password: "pw" }), {});
    await auth.roleAdd(api.AuthRoleAddRequest.create({ name: `role-${name}` }), {});
    for (const [key, rangeEnd] of rights) {
      const perm = api.Permission.create({ permType: api.PermissionType.READWRITE, key: text(key), rangeEnd: text(rangeEnd) });
      await auth.roleGrantPermission(api.AuthRoleGrantPermissionRequest.create({ name: `role-${name}`, perm }), {});
    }
    await auth.userGrantRole(api.AuthUserGrantRoleRequest.create({ user: name, role: `role-${name}` }), {});
  }
  await auth.authEnable(api.AuthEnableRequest.create({}), {});
  const tokens = new Map<string, string>();
  for (const name of ["root", ...Object.keys(users)]) {
    tokens.set(name, (await auth.authenticate(api.AuthenticateRequest.create({ name, password: "pw" }), {})).token);
  }
  return tokens;
}

describe("snapshots", () => {
  test("BA2: users and roles that changed while a member was away come with the snapshot, and count there at once", async () => {
    cluster = await startCluster(["a", "b", "c"], SMALL);
    const first = await cluster.leader();
    const tokens = await protect(first.services, { eve: [["a", ""]] });
    const lost = cluster.names.find((name) => !cluster?.member(name).isLeader) as string;
    await cluster.stop(lost);
    const leader = await cluster.leader();
    const root = { token: tokens.get("root") };
    const perm = api.Permission.create({ permType: api.PermissionType.READWRITE, key: text("b") });
    await leader.services.auth.roleRevokePermission(api.AuthRoleRevokePermissionRequest.create({ role: "role-eve", key: text("a") }), root);
    await leader.services.auth.roleGrantPermission(api.AuthRoleGrantPermissionRequest.create({ name: "role-eve", perm }), root);
    const newRoot = (await leader.services.auth.authenticate(api.AuthenticateRequest.create({ name: "root", password: "pw" }), {})).token;
    for (let i = 0; i < 60; i++) {
      await leader.services.kv.put(api.PutRequest.create({ key: text(`key/${i}`), value: text("x") }), { token: newRoot });
    }
    const returned = await cluster.start(lost, SMALL);
    await returned.ready;
    await eventually("it has everything", () => returned.server.appliedIndex >= leader.server.commitIndex);
    expect(returned.server.state.auth.revision).toBe(leader.server.state.auth.revision);
    const { token } = await returned.services.auth.authenticate(api.AuthenticateRequest.create({ name: "eve", password: "pw" }), {});
    const putOf = (key: string): Promise<unknown> =>
      returned.services.kv.put(api.PutRequest.create({ key: text(key), value: text("eve") }), { token });
    expect(await codeOf(putOf("a"))).toBe(7);
    expect(await codeOf(putOf("b"))).toBe(0);
    const { revision } = leader.server.store;
    await eventually("it has the last write", () => returned.server.store.revision >= revision);
    const login = api.AuthenticateRequest.create({ name: "root", password: "pw" });
    const hashes = [leader, returned].map(async ({ services }) => {
      const { token: own } = await services.auth.authenticate(login, {});
      return (await services.maintenance.hashKv(api.HashKVRequest.create({ revision }), { token: own })).hash;
    });
    expect(await hashes[0]).toBe(await hashes[1]);
  });

  test.each(["defragment", "compact", "close", "snapshot"] as const)(
    "BS2: a snapshot is installed while the member does something else: %s",
    async (what) => {
      cluster = await startCluster(["a", "b", "c"], SMALL);
      const lost = cluster.names.find((name) => !cluster?.member(name).isLeader) as string;
      await cluster.stop(lost);
      const leader = await cluster.leader();
      for (let i = 0; i < 80; i++) await put(leader, `key/${i % 20}`, `value ${i}`);
      const returned = await cluster.start(lost, SMALL);
      const { services } = returned;
      const disturb = async (): Promise<void> => {
        if (what === "defragment") await services.maintenance.defragment(api.DefragmentRequest.create({}), {});
        else if (what === "compact")
          await leader.services.kv.compact(api.CompactionRequest.create({ revision: leader.server.store.revision - 5 }), {});
        else if (what === "snapshot")
          for await (const blob of services.maintenance.snapshot(api.SnapshotRequest.create({}), {})) expect(blob).toBeDefined();
      };
      if (what === "close") {
        await eventually("it hears the others", () => returned.server.leader !== 0n);
        await cluster.stop(lost);
      } else {
        // Again and again until the state has been replaced.
        await eventually("the member has everything", async () => {
          await disturb().catch((error: unknown) => expect((error as EtcdError).grpcCode).toBeGreaterThan(0));
          return returned.server.store.revision === leader.server.store.revision;
        });
        await cluster.stop(lost);
      }
      await put(leader, "after", "1");
      const again = await cluster.start(lost, SMALL);
      await again.ready;
      const { revision } = leader.server.store;
      await eventually("everything is there", () => again.server.store.revision === revision);
      expect(await hashOf(again, revision)).toBe(await hashOf(leader, revision));
    },
  );
});

describe("alarms", () => {
  test("BV8: with the alarm of a full store only what grows it is refused, before and after a restart", async () => {
    const member = await lone();
    await put(member, "k", "v");
    const lease = await member.services.lease.leaseGrant(api.LeaseGrantRequest.create({ ttl: 600 }), {});
    const alarm = (on: EtcdServer, action: api.AlarmAction): Promise<api.AlarmResponse> =>
      on.services.maintenance.alarm(api.AlarmRequest.create({ action, memberId: BigInt(`0x${on.id}`), alarm: api.AlarmType.NOSPACE }), {});
    await alarm(member, api.AlarmAction.ACTIVATE);
    const matrix = async ({ services }: EtcdServer): Promise<number[]> => [
      await codeOf(services.kv.put(api.PutRequest.create({ key: text("k"), value: text("w") }), {})),
      await codeOf(services.lease.leaseGrant(api.LeaseGrantRequest.create({ ttl: 600 }), {})),
      await codeOf(
        services.kv.txn(
          api.TxnRequest.create({ success: [api.RequestOp.create({ requestPut: api.PutRequest.create({ key: text("k") }) })] }),
          {},
        ),
      ),
      await codeOf(services.kv.range(api.RangeRequest.create({ key: text("k") }), {})),
      await codeOf(services.kv.deleteRange(api.DeleteRangeRequest.create({ key: text("none") }), {})),
      await codeOf(services.lease.leaseKeepAlive(api.LeaseKeepAliveRequest.create({ id: lease.id }), {})),
      await codeOf(services.maintenance.defragment(api.DefragmentRequest.create({}), {})),
      await codeOf(services.maintenance.alarm(api.AlarmRequest.create({ action: api.AlarmAction.GET }), {})),
    ];
    expect(await matrix(member)).toEqual([8, 8, 8, 0, 0, 0, 0, 0]);
    await cluster?.stop("a");
    const again = await (cluster as TestCluster).start("a", SMALL);
    await again.ready;
    expect(await matrix(again)).toEqual([8, 8, 8, 0, 0, 0, 0, 0]);
    await alarm(again, api.AlarmAction.DEACTIVATE);
    expect((await matrix(again)).slice(0, 3)).toEqual([0, 0, 0]);
  });
});

describe("users", () => {
  test("BA4: every call of the API asks who calls", async () => {
    const { services } = await lone();
    const tokens = await protect(services, { nobody: [] });
    const open = new Set(["auth.authStatus", "auth.authenticate"]);
    /** Who is known may ask these; they show no key. */
    const known = new Set([
      "cluster.memberList",
      "lease.leaseGrant",
      "lease.leaseKeepAlive",
      "lease.leaseLeases",
      "lease.leaseRevoke",
      "lease.leaseTimeToLive",
      "maintenance.alarm",
      "maintenance.hash",
      "maintenance.hashKv",
      "maintenance.status",
    ]);
    const strangers: string[] = [];
    const nobodies: string[] = [];
    for (const [name, service] of Object.entries(services as unknown as Record<string, Record<string, unknown>>)) {
      // Health answers operators; watches are refused per watcher (hub and conformance tests).
      if (name === "health" || name === "watch") continue;
      for (const [method, call] of Object.entries(service)) {
        if (typeof call !== "function") continue;
        const path = `${name}.${method}`;
        if (open.has(path)) continue;
        const outcome = (context: { token?: string }): Promise<string> => textOf(callWithDefaults(path, call as Call, context));
        const stranger = await outcome({});
        if (!/user name is empty|permission denied/.test(stranger)) strangers.push(`${path}: ${stranger}`);
        const nobody = await outcome({ token: tokens.get("nobody") as string });
        if (!nobody.includes("permission denied") && !known.has(path)) nobodies.push(`${path}: ${nobody}`);
      }
    }
    expect(strangers).toEqual([]);
    expect(nobodies).toEqual([]);
  });

  test("BA7: the keys of a lease are shown only to who may read all of them", async () => {
    const { services } = await lone();
    const { id } = await services.lease.leaseGrant(api.LeaseGrantRequest.create({ ttl: 600 }), {});
    for (const key of ["a", "b"]) await services.kv.put(api.PutRequest.create({ key: text(key), value: text("x"), lease: id }), {});
    const tokens = await protect(services, { half: [["a", ""]], whole: [["a", "c"]] });
    const ask = (user: string): Promise<api.LeaseTimeToLiveResponse> =>
      services.lease.leaseTimeToLive(api.LeaseTimeToLiveRequest.create({ id, keys: true }), { token: tokens.get(user) as string });
    expect(await codeOf(ask("half"))).toBe(7);
    expect((await ask("whole")).keys).toHaveLength(2);
    expect(await codeOf(services.lease.leaseRevoke(api.LeaseRevokeRequest.create({ id }), { token: tokens.get("half") as string }))).toBe(
      7,
    );
  });

  test("BA11: changes of users while others write are refused as outdated or done, never half, and all members agree", async () => {
    cluster = await startCluster(["a", "b", "c"], SMALL);
    const leader = await cluster.leader();
    const tokens = await protect(leader.services, { eve: [["a", "z"]] });
    const root = { token: tokens.get("root") };
    const codes = new Set<number>();
    const writers = [...cluster.members.values()].map(async ({ services }) => {
      for (let i = 0; i < 30; i++) {
        const login = api.AuthenticateRequest.create({ name: "eve", password: "pw" });
        const { token } = await services.auth.authenticate(login, {});
        codes.add(await codeOf(services.kv.put(api.PutRequest.create({ key: text(`b${i}`), value: text("x") }), { token })));
      }
    });
    for (let i = 0; i < 20; i++) {
      const perm = api.Permission.create({ permType: api.PermissionType.READWRITE, key: text(`x${i}`) });
      const code = await codeOf(
        leader.services.auth.roleGrantPermission(api.AuthRoleGrantPermissionRequest.create({ name: "role-eve", perm }), root),
      );
      expect([0]).toContain(code);
    }
    await Promise.all(writers);
    // Done, "revision of auth store is old", or a token of before a change.
    expect([...codes].filter((code) => ![0, 3, 16].includes(code))).toEqual([]);
    expect(codes.has(0)).toBe(true);
    const revisions = (): number[] => [...(cluster as TestCluster).members.values()].map((member) => member.server.state.auth.revision);
    await eventually(
      "all have everything",
      () => new Set([...(cluster as TestCluster).members.values()].map((m) => m.server.appliedIndex)).size === 1,
    );
    expect(new Set(revisions()).size).toBe(1);
  });
});

type Call = (request: unknown, context: object) => unknown;

/** A request of that name with nothing in it, or with what gets past the checks of its form. */
async function callWithDefaults(name: string, call: Call, context: object): Promise<unknown> {
  const key = text("k");
  const filled: Readonly<Record<string, object>> = {
    "kv.range": api.RangeRequest.create({ key }),
    "kv.rangeStream": api.RangeRequest.create({ key }),
    "kv.put": api.PutRequest.create({ key }),
    "kv.deleteRange": api.DeleteRangeRequest.create({ key }),
    "kv.txn": api.TxnRequest.create({ success: [api.RequestOp.create({ requestRange: api.RangeRequest.create({ key }) })] }),
    "kv.compact": api.CompactionRequest.create({ revision: 1 }),
    "lease.leaseGrant": api.LeaseGrantRequest.create({ ttl: 60 }),
    "cluster.memberAdd": api.MemberAddRequest.create({ peerUrls: ["http://x.test:1"] }),
    "lock.lock": api.LockRequest.create({ name: key }),
    "lock.unlock": api.UnlockRequest.create({ key }),
    "election.campaign": api.CampaignRequest.create({ name: key, value: key }),
    "election.leader": api.LeaderRequest.create({ name: key }),
    "election.observe": api.LeaderRequest.create({ name: key }),
    "election.resign": api.ResignRequest.create({ leader: api.LeaderKey.create({ name: key, key }) }),
    "election.proclaim": api.ProclaimRequest.create({ leader: api.LeaderKey.create({ name: key, key }) }),
    "auth.userGet": api.AuthUserGetRequest.create({ name: "root" }),
    "auth.roleGet": api.AuthRoleGetRequest.create({ role: "root" }),
    "auth.roleGrantPermission": api.AuthRoleGrantPermissionRequest.create({ name: "root", perm: api.Permission.create({ key }) }),
    "maintenance.alarm": api.AlarmRequest.create({ action: api.AlarmAction.GET }),
  };
  const answer = await call(filled[name] ?? emptyRequest, { ...context, signal: AbortSignal.timeout(5000) });
  if (typeof answer === "object" && answer !== null && Symbol.asyncIterator in answer) {
    for await (const item of answer as AsyncIterable<unknown>) return item;
  }
  return answer;
}

/** Every field of any message, with nothing in it. */
const emptyRequest = new Proxy(
  {},
  {
    get: (_target, name) => {
      if (["memberID", "id", "targetID", "lease"].includes(String(name))) return 0n;
      if (["revision", "action", "physical", "ttl"].includes(String(name))) return 0;
      if (/key|value|rangeEnd/i.test(String(name))) return new Uint8Array(0);
      if (String(name) === "peerUrls") return [];
      return String(name) === "keys" || String(name) === "linearizable" ? false : "";
    },
  },
);

test("BS6: a state that is restored into a running member replaces everything that was in memory", async () => {
  cluster = await startCluster(["a", "b", "c"], SMALL);
  const names = cluster.names;
  const lost = names.find((name) => !cluster?.member(name).isLeader) as string;
  const member = cluster.member(lost);
  for (let i = 0; i < 30; i++) await put(member, `old/${i}`, "x");
  const leader = await cluster.leader();
  // It stays up, with its index of keys in memory, and hears nothing for more than the log keeps.
  cluster.network.partition([
    [BigInt(`0x${member.id}`) as never],
    [...cluster.members.values()].filter((one) => one !== member).map((one) => BigInt(`0x${one.id}`) as never),
  ]);
  const { deleted } = await leader.services.kv.deleteRange(
    api.DeleteRangeRequest.create({ key: text("old/"), rangeEnd: text("old0") }),
    {},
  );
  expect(deleted).toBe(30);
  for (let i = 0; i < 80; i++) await put(leader, `new/${i % 10}`, `${i}`);
  await leader.services.kv.compact(api.CompactionRequest.create({ revision: leader.server.store.revision, physical: true }), {});
  cluster.network.partition([[...cluster.members.values()].map((one) => BigInt(`0x${one.id}`) as never)]);
  await eventually("it has everything", () => member.server.appliedIndex === leader.server.appliedIndex);
  expect(await get(member, "old/3", { serializable: true })).toBeUndefined();
  expect(await get(member, "new/3", { serializable: true })).toBe("73");
  // At a compaction's own revision a member that executed it answers with the hash of before, so the next one is compared.
  await put(leader, "after", "1");
  const { revision } = leader.server.store;
  await eventually("it has the last write", () => member.server.store.revision === revision);
  expect(await hashOf(member, revision)).toBe(await hashOf(leader, revision));
});
