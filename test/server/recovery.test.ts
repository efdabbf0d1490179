import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import type { EtcdServer } from "../../src/embed/start-etcd.ts";
import { eventually, get, hashOf, put, startCluster, type TestCluster } from "../support/cluster.ts";

let cluster: TestCluster | undefined;
afterEach(async () => {
  await cluster?.close();
  cluster = undefined;
});

const NAMES = ["a", "b", "c"];

async function three(): Promise<TestCluster> {
  cluster = await startCluster(NAMES);
  for (let i = 0; i < 50; i++) await put(await cluster.leader(), `key/${i}`, `value ${i}`);
  return cluster;
}

function follower(of: TestCluster): string {
  return of.names.find((name) => !of.member(name).isLeader) as string;
}

async function flipBit(path: string, at: number): Promise<void> {
  const file = await open(path, "r+");
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at);
  await file.write(Buffer.from([(buffer[0] as number) ^ 4]), 0, 1, at);
  await file.close();
}

async function onlySegment(directory: string): Promise<string> {
  const [name] = (await readdir(join(directory, "member", "wal"))).filter((one) => one.endsWith(".wal"));
  return join(directory, "member", "wal", name as string);
}

/** Everybody has the same. */
async function expectSame(members: TestCluster): Promise<void> {
  const leader = await members.leader();
  const { revision } = leader.server.store;
  const expected = await hashOf(leader, revision);
  for (const member of members.members.values()) {
    await eventually(`${member.name} has everything`, () => member.server.store.revision >= revision);
    expect(await hashOf(member, revision)).toBe(expected);
  }
}

test("BW20: a member with a flipped bit in its log heals from the others and is a full member again", async () => {
  const { directory, start, stop } = await three();
  const members = cluster as TestCluster;
  const lost = follower(members);
  await stop(lost);
  await flipBit(await onlySegment(directory(lost)), 6000);
  const healed: EtcdServer = await start(lost);
  await healed.ready;
  expect(await readdir(join(directory(lost), "member"))).toContain("damaged-1");
  expect(await get(healed, "key/49")).toBe("value 49");
  await expectSame(members);
  // It counts and votes: without it there would be no majority now.
  const other = members.names.find((name) => name !== lost && !members.member(name).isLeader) as string;
  await stop(other);
  await put(await members.leader(), "after", "1");
  await stop((await members.leader()).name === lost ? other : (await members.leader()).name);
  await start(other);
  await put(await members.leader(), "later", "2");
});
