/** Backups there and back: failure catalogue C4, BS7, BS8, and hostile files. */
import { existsSync, readFileSync } from "node:fs";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import * as api from "../../src/api/index.ts";
import { authImageRows } from "../../src/auth/index.ts";
import { EtcdError } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import type { EtcdServer } from "../../src/embed/start-etcd.ts";
import { backupHashKv, backupStatus } from "../../src/server/backup/backup-file.ts";
import { Bench, backupOf, bytesOf, contentOf, fill, sourceOf } from "./support.ts";

interface Golden {
  readonly file: string;
  readonly hash: string;
  readonly revision: number;
  readonly totalKey: number;
  readonly totalSizeBytes: number;
  readonly version: string;
  readonly hashKv: number;
  readonly compactRevision: number;
}

const recorded = JSON.parse(readFileSync(new URL("../golden/backup/etcd-3-7-1.json", import.meta.url), "utf8")) as Record<
  "plain" | "auth",
  Golden
>;
const golden = (name: "plain" | "auth"): Uint8Array => new Uint8Array(gunzipSync(Buffer.from(recorded[name].file, "base64")));

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.make();
});
afterEach(() => bench.close());

const THREE = ["b1", "b2", "b3"];

describe("a backup", () => {
  it("of one member is restored into three with equal content", async () => {
    const [member] = await bench.start("old", ["a1"]);
    if (member === undefined) throw new Error("no member");
    await fill(member);
    const before = await contentOf(member);
    const backup = await backupOf(member);
    expect(backup.byteLength % 512).toBe(32);
    const { hash, hashRevision, compactRevision } = await member.services.maintenance.hashKv(api.HashKVRequest.create(), {});
    expect(await backupHashKv(sourceOf(backup), 0)).toEqual({ hash, hashRevision, compactRevision });

    const restored = await Promise.all(THREE.map((name) => bench.restore("new", name, THREE, backup)));
    expect(new Set(restored.map(({ clusterId }) => clusterId)).size).toBe(1);
    const members = await bench.start("new", THREE);
    for (const [at, one] of members.entries()) {
      expect(await contentOf(one)).toEqual(before);
      expect(BigInt(`0x${one.id}`)).toBe(restored[at]?.memberId);
      expect(one.clusterId).not.toBe(member.clusterId);
    }
    // The new cluster works: writes go on behind the restored revision, and leases are alive.
    const [first] = members;
    const answer = await first?.services.kv.put(api.PutRequest.create({ key: bytesOf("key-000") }), {}).catch((error: unknown) => error);
    expect(answer).toMatchObject({ message: "etcdserver: corrupt cluster" });
    await first?.services.maintenance.alarm(
      api.AlarmRequest.create({ action: api.AlarmAction.DEACTIVATE, memberId: 77n, alarm: api.AlarmType.CORRUPT }),
      {},
    );
    const put = await first?.services.kv.put(api.PutRequest.create({ key: bytesOf("key-000"), prevKv: true }), {});
    expect(put?.header?.revision).toBe((before as { revision: number }).revision + 1);
    expect(put?.prevKv?.version).toBe(2);
    const revoked = await first?.services.lease.leaseRevoke(api.LeaseRevokeRequest.create({ id: -5n }), {});
    expect(revoked?.header?.revision).toBe((before as { revision: number }).revision + 2);
  });

  it("of a follower of three members is restored into one, and taken again", async () => {
    const members = await bench.start("old", ["a1", "a2", "a3"]);
    const leader = members.find((member) => member.isLeader) ?? members[0];
    if (leader === undefined) throw new Error("no member");
    await fill(leader);
    const follower = members.find((member) => member !== leader);
    if (follower === undefined) throw new Error("no follower");
    const before = await contentOf(follower);
    const backup = await backupOf(follower);
    await bench.restore("new", "b1", ["b1"], backup);
    const [alone] = await bench.start("new", ["b1"]);
    if (alone === undefined) throw new Error("no member");
    expect(await contentOf(alone)).toEqual(before);
    const again = await backupOf(alone);
    await bench.restore("newer", "c1", ["c1"], again);
    const [last] = await bench.start("newer", ["c1"]);
    expect(last === undefined || (await contentOf(last))).toEqual(before);
  });

  it("is as of one moment, whatever is written meanwhile", async () => {
    const [member] = await bench.start("old", ["a1"]);
    if (member === undefined) throw new Error("no member");
    await fill(member);
    await member.services.maintenance.alarm(
      api.AlarmRequest.create({ action: api.AlarmAction.DEACTIVATE, memberId: 77n, alarm: api.AlarmType.CORRUPT }),
      {},
    );
    const before = await member.services.maintenance.hashKv(api.HashKVRequest.create(), {});
    const stream = member.services.maintenance.snapshot(api.SnapshotRequest.create(), {});
    const blobs: Uint8Array[] = [];
    for await (const { blob } of stream) {
      blobs.push(blob.slice());
      await member.services.kv.put(api.PutRequest.create({ key: bytesOf(`later ${blobs.length}`) }), {});
    }
    expect(await backupHashKv(sourceOf(new Uint8Array(Buffer.concat(blobs))), 0)).toMatchObject({
      hash: before.hash,
      hashRevision: before.hashRevision,
    });
    // One that is given up leaves nothing behind.
    const given = member.services.maintenance.snapshot(api.SnapshotRequest.create(), {});
    for await (const { blob } of given) {
      if (blob.byteLength > 0) break;
    }
    expect((await readdir(join(bench.dataDirectory("old", "a1"), "member/snap"))).filter((name) => name !== "db")).toEqual([]);
  });

  it("with a bumped revision makes older revisions compacted ones", async () => {
    const [member] = await bench.start("old", ["a1"]);
    if (member === undefined) throw new Error("no member");
    await fill(member);
    const before = (await contentOf(member)) as { revision: number; kvs: unknown };
    const backup = await backupOf(member);
    const more = { bumpRevision: 1_000_000_000, markCompacted: true };
    const [restored] = await Promise.all(THREE.map((name) => bench.restore("new", name, THREE, backup, more)));
    expect(restored?.revision).toBe(before.revision + 1_000_000_000);
    const members = await bench.start("new", THREE);
    const contents = await Promise.all(members.map(contentOf));
    expect(contents[0]).toMatchObject({ revision: before.revision + 1_000_000_000, kvs: before.kvs });
    expect(contents[1]).toEqual(contents[0]);
    expect(contents[2]).toEqual(contents[0]);
    const old = api.RangeRequest.create({ key: bytesOf("t1"), revision: before.revision });
    await expect(members[0]?.services.kv.range(old, {})).rejects.toThrow("required revision has been compacted");
  });
});

describe("a backup of etcd", () => {
  it("is read as etcd's own tools read it", async () => {
    for (const name of ["plain", "auth"] as const) {
      const { hash, hashKv, compactRevision, file: _, ...status } = recorded[name];
      expect(await backupStatus(sourceOf(golden(name)))).toEqual({ ...status, hash: Number.parseInt(hash, 16) });
      expect(await backupHashKv(sourceOf(golden(name)), 0)).toEqual({ hash: hashKv, hashRevision: status.revision, compactRevision });
    }
  });

  it("becomes a member that answers with the same hash", async () => {
    await bench.restore("new", "b1", ["b1"], golden("plain"));
    const [member] = await bench.start("new", ["b1"]);
    expect(member === undefined || (await contentOf(member))).toMatchObject({
      revision: 17,
      hash: [438175636, 17, 9],
      alarms: [[9n, api.AlarmType.CORRUPT]],
      kvs: expect.arrayContaining([expect.objectContaining({ key: "app/3", value: "again", createRevision: 14, version: 1 })]),
    });
  });
});

describe("users and roles", () => {
  const login = async (member: EtcdServer, name: string, password: string): Promise<string> =>
    (await member.services.auth.authenticate(api.AuthenticateRequest.create({ name, password }), {})).token;

  it("of etcd come with a restore, and protect it from the start", async () => {
    await bench.restore("new", "b1", ["b1"], golden("auth"));
    const [member] = await bench.start("new", ["b1"]);
    if (member === undefined) throw new Error("no member");
    const { kv, auth } = member.services;
    await expect(kv.range(api.RangeRequest.create({ key: bytesOf("app/1") }), {})).rejects.toThrow("user name is empty");
    expect(await auth.authStatus(api.AuthStatusRequest.create(), {})).toMatchObject({ enabled: true });
    await expect(login(member, "root", "wrong")).rejects.toThrow("authentication failed");
    const root = { token: await login(member, "root", "pw") };
    expect((await kv.range(api.RangeRequest.create({ key: bytesOf("app/3") }), root)).kvs.length).toBe(1);
    const { roles } = await auth.roleList(api.AuthRoleListRequest.create(), root);
    const { perm } = await auth.roleGet(api.AuthRoleGetRequest.create({ role: roles.join() }), root);
    expect(perm.map(({ key, rangeEnd }) => [String(Buffer.from(key)), String(Buffer.from(rangeEnd))])).toEqual([["app/", "app0"]]);
  });

  it("are in a backup, which restores and is again the same", async () => {
    const [member] = await bench.start("old", ["a1"]);
    if (member === undefined) throw new Error("no member");
    const { auth } = member.services;
    await auth.userAdd(api.AuthUserAddRequest.create({ name: "root", password: "pw" }), {});
    await auth.userAdd(api.AuthUserAddRequest.create({ name: "ü", options: { noPassword: true } }), {});
    await auth.roleAdd(api.AuthRoleAddRequest.create({ name: "app" }), {});
    const perm = api.Permission.create({ permType: 2, key: bytesOf("app/"), rangeEnd: bytesOf("app0") });
    await auth.roleGrantPermission(api.AuthRoleGrantPermissionRequest.create({ name: "app", perm }), {});
    await auth.userGrantRole(api.AuthUserGrantRoleRequest.create({ user: "root", role: "root" }), {});
    await auth.userGrantRole(api.AuthUserGrantRoleRequest.create({ user: "ü", role: "app" }), {});
    const off = await backupOf(member);
    await auth.authEnable(api.AuthEnableRequest.create(), {});
    const root = { token: await login(member, "root", "pw") };
    const on = await backupOf(member, root);
    const rowsOf = (one: EtcdServer | undefined): string[] =>
      one === undefined
        ? []
        : authImageRows(one.server.state.auth.image()).map((row) => row.map((part) => Buffer.from(part).toString("hex")).join());

    await bench.restore("off", "b1", ["b1"], off);
    await bench.restore("on", "c1", ["c1"], on);
    const [open, locked] = [...(await bench.start("off", ["b1"])), ...(await bench.start("on", ["c1"]))];
    expect(rowsOf(locked)).toEqual(rowsOf(member));
    expect(open?.server.state.auth.image()).toMatchObject({ enabled: false, revision: 7 });
    if (locked === undefined) throw new Error("no member");
    await login(locked, "root", "pw");
  });
});

describe("a restore refuses", () => {
  it("a file that was cut or altered, before anything is written", async () => {
    const backup = golden("plain");
    const refused = async (bytes: Uint8Array, text?: string, more = {}): Promise<void> => {
      const restoring = bench.restore("new", "b1", ["b1"], bytes, more);
      await expect(restoring).rejects.toSatisfy((error) => EtcdError.is(error));
      if (text !== undefined) await expect(restoring).rejects.toThrow(text);
      expect(existsSync(bench.dataDirectory("new", "b1"))).toBe(false);
    };
    for (let length = 0; length < backup.byteLength; length += 311) await refused(backup.subarray(0, length));
    await refused(backup.subarray(0, backup.byteLength - 32), "snapshot missing hash but --skip-hash-check=false");
    await refused(backup.subarray(0, 512 * 20 + 32), "expected sha256 [");
    const random = seededRandom(5);
    for (let run = 0; run < 60; run += 1) {
      const altered = backup.slice();
      const at = random.below(altered.byteLength);
      altered[at] = (altered[at] as number) ^ (1 << random.below(8));
      await refused(altered, "expected sha256 [");
    }
    // Without its digest it must at least be sound in itself.
    await refused(backup.subarray(0, 4096 * 7), undefined, { skipHashCheck: true });
  });

  it("a directory that holds something, and touches nothing in it", async () => {
    const directory = bench.dataDirectory("new", "b1");
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, "precious"), "x");
    await expect(bench.restore("new", "b1", ["b1"], golden("plain"))).rejects.toThrow(
      `data-dir "${directory}" not empty or could not be read`,
    );
    expect(await readdir(directory)).toEqual(["precious"]);
    // An empty one is taken; a log elsewhere that holds something is refused.
    const wal = join(bench.directory, "wal");
    await mkdir(wal);
    await writeFile(join(wal, "x"), "");
    await expect(bench.restore("new", "b2", ["b2"], golden("plain"), { walDirectory: wal })).rejects.toThrow("wal-dir");
    await mkdir(bench.dataDirectory("new", "b2"));
    await bench.restore("new", "b2", ["b2"], golden("plain"));
  });

  it("members that do not fit together, with etcd's words", async () => {
    const refused = (more: object): Promise<unknown> =>
      bench.restore("new", "b1", ["b1"], golden("plain"), more).catch((error: unknown) => (error as Error).message);
    expect(await refused({ name: "b2" })).toBe(`couldn't find local name "b2" in the initial cluster configuration`);
    const fixed = { initialCluster: [{ name: "b1", urls: ["http://127.0.0.1:2"] }], initialAdvertisePeerUrls: ["http://127.0.0.1:1"] };
    expect(await refused(fixed)).toBe(
      "--initial-cluster has b1=http://127.0.0.1:2 but missing from --initial-advertise-peer-urls=http://127.0.0.1:1 " +
        '(resolved urls: "http://127.0.0.1:1" != "http://127.0.0.1:2")',
    );
    const twice = [
      { name: "b1", urls: ["http://b1.test:2380"] },
      { name: "b2", urls: ["http://b1.test:2380"] },
    ];
    expect(await refused({ initialCluster: twice })).toBe(
      "initial cluster b1=http://b1.test:2380,b2=http://b1.test:2380 has duplicate url",
    );
  });

  it("to leave a half-made directory behind", async () => {
    const failing = bench.restore("new", "b1", ["b1"], golden("plain"), {
      openBackend: async () => {
        throw new Error("no space left");
      },
    });
    await expect(failing).rejects.toThrow("no space left");
    expect(await readdir(bench.dataDirectory("new", "b1"))).toEqual([]);
  });
});
