import { afterEach, expect, test } from "vitest";
import * as api from "../../src/api/index.ts";
import { startTestCluster, type TestCluster } from "../../src/testing/index.ts";
import { eventually, get, put, text } from "../support/cluster.ts";

let cluster: TestCluster | undefined;
afterEach(async () => {
  await cluster?.close();
  cluster = undefined;
});

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

test("a leader that stood still while others elected one answers nothing before it has confirmed itself (BL1, BR13, BR15)", async () => {
  cluster = await startTestCluster();
  const all = cluster;
  const old = await all.leader();
  const member = all.member(old);
  const { id } = await member.services.lease.leaseGrant(api.LeaseGrantRequest.create({ ttl: 60 }), {});
  await put(member, "k", "1");
  // It has renewed before, and been believed.
  expect((await member.services.lease.leaseKeepAlive(api.LeaseKeepAliveRequest.create({ id }), {})).ttl).toBe(60);

  all.pause(old);
  await all.leader();
  const others = all.names.filter((name) => name !== old);
  await put(all.member(others[0] as string), "k", "2");
  all.partition([old], others);
  all.resume(old);

  const answers: string[] = [];
  const ask = (): Promise<unknown>[] => {
    const note =
      (what: string) =>
      (answer: unknown): void => {
        answers.push(`${what}: ${JSON.stringify(answer, (_key, value) => (typeof value === "bigint" ? String(value) : value))}`);
      };
    const { kv, lease } = member.services;
    return [
      kv.range(api.RangeRequest.create({ key: text("k") }), {}).then(note("range")),
      lease.leaseKeepAlive(api.LeaseKeepAliveRequest.create({ id }), {}).then(note("keep alive")),
      lease.leaseTimeToLive(api.LeaseTimeToLiveRequest.create({ id }), {}).then(note("time to live")),
    ].map((call) => call.catch(note("refused")));
  };
  expect(member.isLeader).toBe(true);
  const calls = ask();
  // Its clock has ticked by now, and the check of its quorum has looked at what was heard before the stall.
  await turns(3);
  if (member.isLeader) calls.push(...ask());
  await eventually("it gives up", () => !member.isLeader);
  expect(answers.filter((answer) => !answer.startsWith("refused"))).toEqual([]);

  all.heal();
  await Promise.all(calls);
  // Whatever is said after that comes from the leader: the newest value, and time counted by its clock.
  await eventually("it follows", () => member.leader !== undefined && member.leader !== member.id);
  const { kvs } = await member.services.kv.range(api.RangeRequest.create({ key: text("k") }), {});
  expect(new TextDecoder().decode(kvs[0]?.value)).toBe("2");
  expect((await member.services.lease.leaseKeepAlive(api.LeaseKeepAliveRequest.create({ id }), {})).ttl).toBe(60);
});

test("a leader that stood still longer than a lease lives ends none that another one renewed meanwhile (BL1)", async () => {
  cluster = await startTestCluster();
  const all = cluster;
  const old = await all.leader();
  const { id } = await all.member(old).services.lease.leaseGrant(api.LeaseGrantRequest.create({ ttl: 3 }), {});
  await all.member(old).services.kv.put(api.PutRequest.create({ key: text("k"), lease: id }), {});
  all.pause(old);
  const next = all.member(await all.leader());
  for (let i = 0; i < 10; i++) {
    await all.advance(1000);
    expect((await next.services.lease.leaseKeepAlive(api.LeaseKeepAliveRequest.create({ id }), {})).ttl).toBe(3);
  }
  all.resume(old);
  // Two of its rounds for leases that are over.
  for (let i = 0; i < 2; i++) {
    await all.advance(600);
    expect((await next.services.lease.leaseKeepAlive(api.LeaseKeepAliveRequest.create({ id }), {})).ttl).toBe(3);
  }
  await eventually("it follows", () => !all.member(old).isLeader);
  expect(await get(next, "k")).toBe("");
});
