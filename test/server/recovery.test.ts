import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { open, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, onTestFinished, test } from "vitest";
import * as api from "../../src/api/index.ts";
import { EtcdError } from "../../src/base/errors.ts";
import type { EtcdConfig } from "../../src/embed/config.ts";
import type { EtcdServer } from "../../src/embed/start-etcd.ts";
import { eventually, get, hashOf, put, startCluster, type TestCluster } from "../support/cluster.ts";
import { FailingDisk } from "../support/failing-disk.ts";

let cluster: TestCluster | undefined;
afterEach(async () => {
  await cluster?.close();
  cluster = undefined;
});

const NAMES = ["a", "b", "c"];

async function three(config: EtcdConfig = {}): Promise<TestCluster> {
  cluster = await startCluster(NAMES, config);
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

function storeOf(directory: string): string {
  return join(directory, "member", "snap", "db");
}

/** A copy of a directory as it is now. */
function copyOf(directory: string): string {
  const copy = mkdtempSync(join(tmpdir(), "holdfast-copy-"));
  onTestFinished(() => rmSync(copy, { recursive: true, force: true }));
  cpSync(directory, copy, { recursive: true });
  return copy;
}

/** Names and contents of everything below, but for what LevelDB writes whenever it is opened. */
function contents(path: string): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (at: string): void => {
    for (const name of readdirSync(at)) {
      const entry = join(at, name);
      if (statSync(entry).isDirectory()) walk(entry);
      else if (!/^(LOG(\.old)?|LOCK|CURRENT|MANIFEST-\d+|\d+\.(log|ldb))$/.test(name)) found[entry] = readFileSync(entry, "latin1");
    }
  };
  walk(path);
  return found;
}

async function refusalOf(call: Promise<unknown>): Promise<EtcdError> {
  const error = await call.then(
    () => new Error("it did not fail"),
    (reason: unknown) => reason,
  );
  if (!EtcdError.is(error)) throw error;
  return error;
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

test("a member with a flipped bit in its log heals from the others and is a full member again (BW20)", async () => {
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

/** What may happen to a data directory, in turn to one member: the first three while its log still begins at the beginning, the others behind a snapshot. */
const DAMAGES: readonly {
  readonly what: string;
  /** Its own log does not suffice to get over it. */
  readonly byOthers: boolean;
  damage(directory: string, earlier: string): Promise<void>;
}[] = [
  { what: "its store is gone", byOthers: false, damage: (directory) => rm(storeOf(directory), { recursive: true }) },
  { what: "its store has a flipped bit (BW13)", byOthers: false, damage: (directory) => flipStore(directory) },
  {
    what: "its log is as it was some time ago, so that it ends before what the store has",
    byOthers: true,
    damage: async (directory, earlier) => {
      await rm(join(directory, "member", "wal"), { recursive: true });
      cpSync(join(earlier, "member", "wal"), join(directory, "member", "wal"), { recursive: true });
    },
  },
  { what: "its store is gone (BW17, BW18)", byOthers: true, damage: (directory) => rm(storeOf(directory), { recursive: true }) },
  { what: "its log is gone", byOthers: true, damage: (directory) => rm(join(directory, "member", "wal"), { recursive: true }) },
  {
    what: "both are gone, and only the file beside them tells whose they were",
    byOthers: true,
    damage: async (directory) => {
      await rm(join(directory, "member", "wal"), { recursive: true });
      await rm(join(directory, "member", "snap"), { recursive: true });
    },
  },
];

async function flipStore(directory: string): Promise<void> {
  for (const name of await readdir(storeOf(directory))) {
    const path = join(storeOf(directory), name);
    if (name.endsWith(".log") && statSync(path).size > 2000) await flipBit(path, 1500);
  }
}

test("a member is whole again whatever happened to its log or its store (BW13, BW17, BW18, BW20)", async () => {
  cluster = await startCluster(NAMES);
  const members = cluster;
  const lost = follower(members);
  let healings = 0;
  for (const { what, byOthers, damage } of DAMAGES) {
    let earlier = "";
    if (damage.length === 2) {
      await members.stop(lost);
      earlier = copyOf(members.directory(lost));
      await (await members.start(lost)).ready;
    }
    for (let i = 0; i < 30; i++) await put(members.member(lost), `key/${i}`, what);
    await members.stop(lost);
    await damage(members.directory(lost), earlier);
    const healed = await members.start(lost);
    await healed.ready;
    expect(await get(healed, "key/29")).toBe(what);
    if (byOthers) healings += 1;
    const places = (await readdir(join(members.directory(lost), "member"))).filter((name) => name.startsWith("damaged-"));
    expect(places, what).toHaveLength(healings);
    await put(healed, "after", what);
    await expectSame(members);
  }
}, 120_000);

test("a member that is being healed says so, serves nobody and does not vote (BW20)", async () => {
  const members = await three();
  const lost = follower(members);
  const dead = members.names.find((name) => name !== lost && !members.member(name).isLeader) as string;
  await members.stop(lost);
  await flipBit(await onlySegment(members.directory(lost)), 6000);
  const alive = (await members.leader()).name;
  await members.stop(dead);
  // With its vote the one that is left would have a majority.
  const healing = await members.start(lost);
  await eventually("no leader", () => members.member(alive).leader === undefined);
  expect(healing.server.outage).toContain("being healed");
  expect((await refusalOf(put(healing, "k", "v"))).reason).toBe("healing");
  expect((await refusalOf(get(healing, "key/1", { serializable: true }))).reason).toBe("healing");
  const status = await healing.services.maintenance.status(api.StatusRequest.create({}), {});
  expect(status.errors.join()).toContain("being healed");
  const { term } = members.member(alive).server;
  await new Promise((resolve) => setTimeout(resolve, 1500));
  expect(members.member(alive).leader).toBeUndefined();
  expect(members.member(alive).server.term).toBe(term);
  // The third has everything: now there is a majority that can heal it.
  await members.start(dead);
  await healing.ready;
  expect(healing.server.outage).toBeUndefined();
  await expectSame(members);
});

test("the start of healing may be interrupted at every step", async () => {
  const members = await three({ snapshotCount: 10 });
  const lost = follower(members);
  await members.stop(lost);
  await flipBit(await onlySegment(members.directory(lost)), 6000);
  let interrupted = 0;
  for (let operations = 1; ; operations++) {
    const disk = new FailingDisk();
    disk.diesAfter = operations;
    try {
      await members.start(lost, { disk });
      break;
    } catch (error) {
      expect((error as { code?: string }).code ?? (error as Error).message).toMatch(/EIO/);
      interrupted += 1;
    }
  }
  expect(interrupted).toBeGreaterThan(10);
  await members.stop(lost);
  const healed = await members.start(lost);
  await healed.ready;
  expect(await get(healed, "key/49")).toBe("value 49");
  await expectSame(members);
});

test("a learner heals, too", async () => {
  cluster = await startCluster(["a"], { strictReconfigCheck: false });
  const members = cluster;
  const leader = await members.leader();
  for (let i = 0; i < 50; i++) await put(leader, `key/${i}`, `value ${i}`);
  await leader.services.cluster.memberAdd(api.MemberAddRequest.create({ peerUrls: ["http://d.test:2380"], isLearner: true }), {});
  const joining: EtcdConfig = { initialCluster: "a=http://a.test:2380,d=http://d.test:2380", initialClusterState: "existing" };
  await (await members.start("d", joining)).ready;
  await members.stop("d");
  await flipBit(await onlySegment(members.directory("d")), 6000);
  const healed = await members.start("d", joining);
  await healed.ready;
  expect(await get(healed, "key/49", { serializable: true })).toBe("value 49");
});

describe("a member refuses to start, with what to do, and changes nothing, when nobody can heal it:", () => {
  test("the only one", async () => {
    cluster = await startCluster(["a"]);
    const members = cluster;
    for (let i = 0; i < 50; i++) await put(await members.leader(), `key/${i}`, `value ${i}`);
    await members.stop("a");
    const segment = await onlySegment(members.directory("a"));
    await flipBit(segment, 6000);
    const before = contents(members.directory("a"));
    const refusal = await refusalOf(members.start("a"));
    expect(refusal.reason).toBe("data-damaged");
    expect(refusal.message).toMatch(/damaged.*only voting member.*restore a backup/s);
    expect(refusal.message).not.toContain("\n");
    expect((await refusalOf(members.start("a", { forceNewCluster: true }))).message).toContain(
      "--force-new-cluster needs a member whose data",
    );
    expect(contents(members.directory("a"))).toEqual(before);
    // The damage was all that was wrong.
    await flipBit(segment, 6000);
    const again = await members.start("a");
    await again.ready;
    expect(await get(again, "key/49")).toBe("value 49");
  });

  test("one of two", async () => {
    cluster = await startCluster(["a", "b"]);
    const members = cluster;
    for (let i = 0; i < 50; i++) await put(await members.leader(), `key/${i}`, `value ${i}`);
    const lost = follower(members);
    await members.stop(lost);
    await flipBit(await onlySegment(members.directory(lost)), 6000);
    const before = contents(members.directory(lost));
    expect((await refusalOf(members.start(lost))).message).toContain("the others are no majority without this one");
    expect(contents(members.directory(lost))).toEqual(before);
  });
});
