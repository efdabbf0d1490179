/** A member that takes whole states from the leader while other things are done to it. */
import { afterEach, expect, test } from "vitest";
import * as api from "../../src/api/index.ts";
import type { EtcdServer } from "../../src/embed/start-etcd.ts";
import { eventually, get, hashOf, put, startCluster, type TestCluster } from "../support/cluster.ts";

let cluster: TestCluster | undefined;
afterEach(async () => {
  await cluster?.close();
  cluster = undefined;
});

const SMALL = { snapshotCount: 10, snapshotCatchupEntries: 5 };

/** Until this ends, `act` is done again and again. */
async function whileDoing(act: () => Promise<unknown>, work: () => Promise<void>): Promise<void> {
  let done = false;
  const acting = (async () => {
    while (!done) {
      await act();
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  try {
    await work();
  } finally {
    done = true;
    await acting;
  }
}

async function expectEqual(all: TestCluster, member: EtcdServer): Promise<void> {
  const leader = await all.leader();
  await put(leader, "settled", "1");
  const { revision } = leader.server.store;
  await eventually("it has everything", () => member.server.store.revision >= revision);
  expect(await hashOf(member, revision)).toBe(await hashOf(leader, revision));
  expect(member.server.store.compactRevision).toBe(leader.server.store.compactRevision);
  expect(member.server.state.lessor.ids()).toEqual(leader.server.state.lessor.ids());
}

test("installing a state is safe against defragmenting, compacting, another state, and the end at any moment (BS1, BS2, BS4, BS6)", async () => {
  cluster = await startCluster(["a", "b", "c"], SMALL);
  const all = cluster;
  const leader = await all.leader();
  const name = all.names.find((one) => one !== leader.name) as string;
  const ids = new Map([...all.members].map(([one, member]) => [one, member.server.memberId]));
  const own = ids.get(name) as EtcdServer["server"]["memberId"];
  const others = [...ids.values()].filter((id) => id !== own);
  let installed = 0;
  /** Writes so much behind the member's back that the log does not suffice, and lets it hear the others again. */
  const behind = async (round: number): Promise<void> => {
    all.network.partition([others, [own]]);
    // What it still has in memory must not get into what it receives.
    for (let i = 0; i < 40; i++) await put(leader, `key/${i % 10}`, `${round}/${i}`);
    await leader.services.lease.leaseGrant(api.LeaseGrantRequest.create({ ttl: 600 }), {});
    all.network.partition([]);
  };
  const caughtUp = (): Promise<unknown> =>
    eventually("it has caught up", () => all.member(name).server.store.revision >= leader.server.store.revision);

  const { services } = all.member(name);
  const before = all.member(name).server.state;
  await whileDoing(
    () => services.maintenance.defragment(api.DefragmentRequest.create({}), {}),
    async () => {
      for (let round = 0; round < 2; round++) {
        await behind(round);
        await caughtUp();
      }
    },
  );
  if (all.member(name).server.state !== before) installed += 1;
  await expectEqual(all, all.member(name));

  // Compaction on all of them, the newest revision again and again.
  await whileDoing(
    () => leader.services.kv.compact(api.CompactionRequest.create({ revision: leader.server.store.revision }), {}).catch(() => undefined),
    async () => {
      await behind(2);
      await caughtUp();
    },
  );
  await expectEqual(all, all.member(name));

  // Cut off again in the middle of it, so that another state follows the first.
  for (let round = 3; round < 4; round++) {
    await behind(round);
    await new Promise((resolve) => setTimeout(resolve, 10));
    await behind(round);
    await caughtUp();
  }
  await expectEqual(all, all.member(name));

  // Ended, as by a kill, at some moment of it.
  for (let round = 5; round < 7; round++) {
    const member = all.member(name);
    const state = member.server.state;
    await behind(round);
    await new Promise((resolve) => setTimeout(resolve, 15 * (round - 5)));
    await member.server.close({ transfer: false });
    if (member.server.state !== state) installed += 1;
    await all.stop(name);
    const again = await all.start(name);
    await again.ready;
    await caughtUp();
    await expectEqual(all, again);
  }
  expect(installed).toBeGreaterThan(0);
}, 120_000);

test("membership changes, partitions and the end of members together lose nothing that was acknowledged (BM13, BR25)", async () => {
  const names = ["a", "b", "c"];
  cluster = await startCluster(names, { ...SMALL, strictReconfigCheck: false });
  const all = cluster;
  const acknowledged: string[] = [];
  let stopped = false;
  const writing = names.map(async (_, writer) => {
    for (let i = 0; !stopped; i++) {
      const [member] = [...all.members.values()].slice(writer % all.members.size);
      const key = `w${writer}/${i}`;
      const signal = AbortSignal.timeout(1000);
      try {
        await member?.services.kv.put(api.PutRequest.create({ key: new TextEncoder().encode(key) }), { signal });
        acknowledged.push(key);
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
  });
  const old = await all.leader();
  const own = old.server.memberId;
  const rest = [...all.members.values()].filter((member) => member !== old);
  all.network.partition([rest.map((member) => member.server.memberId), [own]]);
  // It still believes that it leads; what it changes must never come to be.
  const victim = rest[0] as EtcdServer;
  const signal = AbortSignal.timeout(1500);
  const isolated = old.services.cluster.memberRemove(api.MemberRemoveRequest.create({ id: victim.server.memberId }), { signal });
  const outcome = isolated.then(
    () => "done",
    () => "refused",
  );
  const leader = await eventually("another leader", () => rest.find((member) => member.isLeader));
  await leader.services.cluster.memberAdd(api.MemberAddRequest.create({ peerUrls: ["http://d.test:2380"] }), {});
  all.network.partition([]);
  expect(await outcome).toBe("refused");
  const joined = await all.start("d", {
    initialCluster: [...names, "d"].map((name) => `${name}=http://${name}.test:2380`).join(","),
    initialClusterState: "existing",
  });
  await joined.ready;
  // The old leader ends as by a kill and goes; the others are enough.
  await old.server.close({ transfer: false });
  await all.stop(old.name);
  await joined.services.cluster.memberRemove(api.MemberRemoveRequest.create({ id: own }), {});
  expect(new Set(joined.server.state.membership.list().map((member) => member.name))).toEqual(
    new Set([...names.filter((name) => name !== old.name), "d"]),
  );
  stopped = true;
  await Promise.all(writing);
  expect(acknowledged.length).toBeGreaterThan(50);
  const last = await all.leader();
  for (const key of acknowledged) expect(await get(last, key), key).toBeDefined();
  for (const member of all.members.values()) await expectEqual(all, member);
}, 120_000);
