import { afterEach, expect, test } from "vitest";
import * as api from "../../src/api/index.ts";
import { eventually, get, hashOf, put, startCluster, type TestCluster, text } from "../support/cluster.ts";

let cluster: TestCluster | undefined;
afterEach(async () => {
  await cluster?.close();
  cluster = undefined;
});

test("three members agree on what is written through any of them", async () => {
  cluster = await startCluster(["a", "b", "c"]);
  for (const name of cluster.names) await put(cluster.member(name), `from/${name}`, name);
  for (const name of cluster.names) {
    for (const other of cluster.names) expect(await get(cluster.member(name), `from/${other}`)).toBe(other);
  }
  const { store } = cluster.member("a").server;
  const hashes = await Promise.all(cluster.names.map((name) => hashOf(cluster?.member(name) as never, store.revision)));
  expect(new Set(hashes).size).toBe(1);
});

test("a member that missed more than the log keeps comes back through a snapshot", async () => {
  cluster = await startCluster(["a", "b", "c"], { snapshotCount: 20, snapshotCatchupEntries: 10 });
  await put(await cluster.leader(), "before", "1");
  const lost = cluster.names.find((name) => !cluster?.member(name).isLeader) as string;
  await cluster.stop(lost);
  const leader = await cluster.leader();
  const lease = await leader.services.lease.leaseGrant(api.LeaseGrantRequest.create({ ttl: 600 }), {});
  await leader.services.kv.put(api.PutRequest.create({ key: text("leased"), value: text("x"), lease: lease.id }), {});
  for (let i = 0; i < 200; i++) await put(leader, `key/${i % 50}`, `value ${i}`);
  const returned = await cluster.start(lost, { snapshotCount: 20, snapshotCatchupEntries: 10 });
  await returned.ready;
  await eventually("the returned member has everything", () => returned.server.store.revision === leader.server.store.revision);
  expect(await get(returned, "key/49", { serializable: true })).toBe("value 199");
  expect(await get(returned, "key/0")).toBe("value 150");
  expect(returned.server.state.lessor.keysOf(lease.id as never)).toHaveLength(1);
  const { revision } = leader.server.store;
  expect(await hashOf(returned, revision)).toBe(await hashOf(leader, revision));
  // It goes on as an ordinary member: the next writes arrive by the log, and it survives a restart.
  await put(returned, "after", "2");
  await cluster.stop(lost);
  const again = await cluster.start(lost);
  await again.ready;
  expect(await get(again, "after")).toBe("2");
});

test("watchers on the returning member see every event once, in order, across the snapshot", async () => {
  cluster = await startCluster(["a", "b", "c"], { snapshotCount: 20, snapshotCatchupEntries: 10 });
  const leader = await cluster.leader();
  const other = [...cluster.members.values()].find((member) => member !== leader) as typeof leader;
  const session = other.services.watch.watch({});
  session.send(
    api.WatchRequest.create({ createRequest: api.WatchCreateRequest.create({ key: text("k"), rangeEnd: text("l"), startRevision: 1 }) }),
  );
  const seen: number[] = [];
  const reading = (async () => {
    for (;;) {
      const responses = await session.next();
      if (responses === undefined) return;
      for (const response of responses) for (const event of response.events) seen.push(event.kv?.modRevision ?? 0);
    }
  })();
  for (let i = 0; i < 20; i++) await put(leader, "k", String(i));
  const ids = [...cluster.members.values()].map((member) => member.server.memberId);
  cluster.network.partition([ids.filter((id) => id !== other.server.memberId), [other.server.memberId]]);
  for (let i = 0; i < 200; i++) await put(leader, "k", String(i));
  cluster.network.partition([]);
  await eventually("all events", () => seen.length === 220);
  session.close();
  await reading;
  expect(seen).toEqual(Array.from({ length: 220 }, (_, i) => i + 2));
});

test("when the leader goes the others elect one and go on", async () => {
  cluster = await startCluster(["a", "b", "c"]);
  const leader = await cluster.leader();
  await put(leader, "k", "1");
  await cluster.stop(leader.name);
  const next = await cluster.leader();
  await put(next, "k", "2");
  expect(await get(next, "k")).toBe("2");
  const back = await cluster.start(leader.name);
  await back.ready;
  expect(await get(back, "k")).toBe("2");
});

test("members come and go: a learner joins, is promoted, and an original member is removed", async () => {
  cluster = await startCluster(["a", "b", "c"], { strictReconfigCheck: false });
  const leader = await cluster.leader();
  await put(leader, "k", "1");
  const added = await leader.services.cluster.memberAdd(
    api.MemberAddRequest.create({ peerUrls: ["http://d.test:2380"], isLearner: true }),
    {},
  );
  const learner = await cluster.start("d", {
    initialCluster: ["a", "b", "c", "d"].map((name) => `${name}=http://${name}.test:2380`).join(","),
    initialClusterState: "existing",
  });
  await learner.ready;
  expect(learner.server.memberId).toBe(added.member?.id);
  await expect(put(learner, "k", "2")).rejects.toThrow("etcdserver: rpc not supported for learner");
  await eventually("promoted", async () => {
    await leader.services.cluster.memberPromote(api.MemberPromoteRequest.create({ id: learner.server.memberId }), {});
    return true;
  });
  await eventually("votes", () => !learner.server.isLearner);
  await put(learner, "k", "2");
  const victim = [...cluster.members.values()].find((member) => member !== leader && member !== learner) as typeof leader;
  await leader.services.cluster.memberRemove(api.MemberRemoveRequest.create({ id: victim.server.memberId }), {});
  expect((await victim.failed).failure).toBe("removed");
  await put(leader, "k", "3");
  expect(await get(learner, "k")).toBe("3");
});
