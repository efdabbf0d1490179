/**
 * Backups by the tools as users have them, from the packed package, of members that are processes: saved, looked into, restored into new clusters of one and of
 * three, and the same between holdfast and a real etcd where the programs are at hand. Everything that clients can see must be there again.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type RunResult, runCtl, runProgram } from "../ctl/support.ts";
import { freePorts } from "../support/free-ports.ts";
import { ORACLE_ETCD, ORACLE_MISSING } from "../support/oracle-etcd.ts";
import { PackedPackage } from "../support/packed.ts";
import { etcdKind, holdfastKind, type MemberSpec, memberFlags, type ServerKind, ServerProcess, until } from "../support/server-process.ts";

const ORACLE_UTL = process.env.HOLDFAST_ORACLE_ETCDUTL;
const UTL_MISSING = "HOLDFAST_ORACLE_ETCDUTL does not name an etcdutl binary";
const TEST_MS = 300_000;
const ROOT_USER = ["--user", "root:pw"];
const LEASE = "7000000000000001";

let directory: string;
let packed: PackedPackage;
const members = new Set<ServerProcess>();

beforeAll(() => {
  packed = PackedPackage.make();
  directory = mkdtempSync(join(tmpdir(), "holdfast-round-trip-"));
}, 180_000);

afterEach(async () => {
  await Promise.all([...members].map((member) => member.kill()));
  members.clear();
});

afterAll(async () => {
  await packed?.close();
  rmSync(directory, { recursive: true, force: true });
});

/** Runs one of the packed commands to its end. */
async function packedRun(command: string, ...words: string[]): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const running = packed.start(command, words);
  const { code } = await running.ended;
  return { status: code, stdout: running.stdout, stderr: running.stderr };
}

async function ctl(endpoint: string, ...words: string[]): Promise<RunResult> {
  return runCtl(["--endpoints", endpoint, "--command-timeout", "20s", ...words]);
}

async function ctlText(endpoint: string, ...words: string[]): Promise<string> {
  const { status, stdout, stderr } = await ctl(endpoint, ...words);
  if (status !== 0) throw new Error(`${words.join(" ")}: ${stderr}`);
  return stdout.toString("utf8");
}

interface Cluster {
  readonly members: readonly MemberSpec[];
  readonly initialCluster: string;
  readonly endpoints: readonly string[];
}

async function clusterOf(place: string, names: readonly string[]): Promise<Cluster> {
  const base = await freePorts(2 * names.length);
  const specs = names.map((name, at) => ({
    name,
    clientUrl: `http://127.0.0.1:${base + 2 * at}`,
    peerUrl: `http://127.0.0.1:${base + 2 * at + 1}`,
    dataDir: join(directory, place, name),
  }));
  return {
    members: specs,
    initialCluster: specs.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(","),
    endpoints: specs.map(({ clientUrl }) => clientUrl.replace("http://", "")),
  };
}

async function start(kind: ServerKind, cluster: Cluster, user: readonly string[] = []): Promise<void> {
  const flags = { token: "round-trip", initialCluster: cluster.initialCluster, state: "new" as const };
  for (const spec of cluster.members) {
    mkdirSync(join(spec.dataDir, ".."), { recursive: true });
    members.add(
      new ServerProcess(kind, [...memberFlags(spec, flags), "--bcrypt-cost", "4", "--log-level", "error"], `${spec.dataDir}.log`),
    );
  }
  for (const endpoint of cluster.endpoints) {
    await until(`${endpoint} serves`, 60_000, async () => (await ctl(endpoint, "get", "x", ...user)).status === 0);
  }
}

async function stopAll(): Promise<void> {
  await Promise.all([...members].map((member) => member.stop()));
  members.clear();
}

/** Keys with a history, a lease with keys, deleted ones, a compaction, users, roles, and at last authentication. */
async function fill(endpoint: string): Promise<void> {
  for (let at = 0; at < 20; at += 1) await ctlText(endpoint, "put", `key-${at % 12}`, `value ${at}`);
  await ctlText(endpoint, "put", "large", "x".repeat(100_000));
  const granted = await ctlText(endpoint, "lease", "grant", "5000");
  const lease = /lease ([0-9a-f]{16}) granted/.exec(granted)?.[1] ?? LEASE;
  await ctlText(endpoint, "put", "leased", "yes", "--lease", lease);
  await ctlText(endpoint, "del", "key-3", "key-6", "--range");
  await ctlText(endpoint, "compaction", "10", "--physical");
  await ctlText(endpoint, "put", "key-4", "again");
  await ctlText(endpoint, "role", "add", "reader");
  await ctlText(endpoint, "role", "grant-permission", "reader", "read", "key-", "--prefix");
  await ctlText(endpoint, "user", "add", "alice:secret");
  await ctlText(endpoint, "user", "grant-role", "alice", "reader");
  await ctlText(endpoint, "user", "add", "root:pw");
  await ctlText(endpoint, "auth", "enable");
}

/** All that clients can see, without what names the cluster. */
async function contentOf(endpoint: string): Promise<unknown> {
  const json = async (...words: string[]): Promise<Record<string, unknown>> =>
    JSON.parse((await ctlText(endpoint, ...words, ...ROOT_USER, "-w", "json")).replace(/:(\d{16,})/g, ':"$1"')) as Record<string, unknown>;
  const { kvs } = await json("get", "", "--prefix");
  const old = await json("get", "", "--prefix", "--rev", "15");
  const [hashed] = (await json("endpoint", "hashkv")) as unknown as { HashKV: Record<string, unknown> }[];
  const { hash, hash_revision: hashRevision, compact_revision: compactRevision } = hashed?.HashKV ?? {};
  const leases = (await json("lease", "list")).leases as { id: string }[];
  const attached = await Promise.all(
    leases.map(async ({ id }) => [id, (await json("lease", "timetolive", BigInt(id).toString(16), "--keys")).keys]),
  );
  const alice = await ctlText(endpoint, "get", "key-7", "--user", "alice:secret");
  return {
    kvs,
    old: old.kvs,
    hash: [hash, hashRevision, compactRevision],
    attached,
    users: (await json("user", "list")).users,
    role: (await json("role", "get", "reader")).perm,
    alice,
    refused: (await ctl(endpoint, "put", "key-7", "x", "--user", "alice:secret")).stderr.replace(/^\{.*\n/gm, ""),
  };
}

/** By the packed client tool; gives the file. */
async function save(endpoint: string, name: string): Promise<string> {
  const path = join(directory, name);
  const { status, stdout, stderr } = await packedRun("holdfastctl", "--endpoints", endpoint, ...ROOT_USER, "snapshot", "save", path);
  expect([status, stdout], stderr).toEqual([0, `Snapshot saved at ${path}\nServer version 3.7.0\n`]);
  return path;
}

function restoreWords(path: string, cluster: Cluster, member: MemberSpec): string[] {
  return [
    ...["snapshot", "restore", path, "--data-dir", member.dataDir, "--name", member.name],
    ...["--initial-cluster", cluster.initialCluster, "--initial-cluster-token", "round-trip"],
    ...["--initial-advertise-peer-urls", member.peerUrl],
  ];
}

async function restore(path: string, cluster: Cluster): Promise<void> {
  await Promise.all(
    cluster.members.map(async (member) => {
      const { status, stderr } = await packedRun("holdfastutl", ...restoreWords(path, cluster, member));
      expect(status, stderr).toBe(0);
    }),
  );
}

describe("a backup by the tools", () => {
  it(
    "of one member becomes three, and of these one again, with equal content",
    async () => {
      const holdfast = holdfastKind(packed.commands.holdfast as string);
      const old = await clusterOf("old", ["a"]);
      await start(holdfast, old);
      const [oldEndpoint = ""] = old.endpoints;
      await fill(oldEndpoint);
      const before = await contentOf(oldEndpoint);
      expect(before).toMatchObject({
        users: ["alice", "root"],
        alice: "key-7\nvalue 19\n",
        refused: "Error: etcdserver: permission denied\n",
      });
      const path = await save(oldEndpoint, "one.db");
      expect(statSync(path).mode & 0o777).toBe(0o600);

      // The files say the same as the server.
      const { hash } = before as { hash: number[] };
      const hashed = await packedRun("holdfastutl", "hashkv", path);
      expect(hashed.stdout).toBe(`${hash.join(", ")}\n`);
      const status = JSON.parse((await packedRun("holdfastutl", "snapshot", "status", path, "-w", "json")).stdout) as object;
      expect(status).toMatchObject({ revision: hash[1], totalKey: (before as { kvs: unknown[] }).kvs.length, version: "3.7.0" });
      await stopAll();
      const store = join(old.members[0]?.dataDir ?? "", "member/snap/db");
      expect((await packedRun("holdfastutl", "hashkv", store)).stdout).toBe(hashed.stdout);
      expect((await packedRun("holdfastutl", "defrag", "--data-dir", old.members[0]?.dataDir ?? "")).status).toBe(0);
      expect((await packedRun("holdfastutl", "hashkv", store)).stdout).toBe(hashed.stdout);
      const log = await packedRun("holdfastutl", "wal", "inspect", old.members[0]?.dataDir ?? "", "--entries");
      expect(log.stdout).toMatch(/^\d+\t\d+\tnorm\t\d+\tput key="key-0" value-bytes=7$/m);
      expect(log.stdout).not.toContain("secret");

      const three = await clusterOf("three", ["b1", "b2", "b3"]);
      await restore(path, three);
      await start(holdfast, three, ROOT_USER);
      for (const endpoint of three.endpoints) expect(await contentOf(endpoint)).toEqual(before);
      // It goes on from there.
      const [first = "", second = "", third = ""] = three.endpoints;
      expect(await ctlText(first, "put", "new", "key", ...ROOT_USER)).toBe("OK\n");
      expect(await ctlText(second, "get", "new", ...ROOT_USER)).toBe("new\nkey\n");
      expect(await ctlText(third, "member", "list", ...ROOT_USER).then((text) => text.trim().split("\n").length)).toBe(3);
      const again = await contentOf(third);
      const later = await save(third, "three.db");
      await stopAll();

      const alone = await clusterOf("alone", ["c"]);
      await restore(later, alone);
      await start(holdfast, alone, ROOT_USER);
      expect(await contentOf(alone.endpoints[0] ?? "")).toEqual(again);
      await stopAll();

      // Nothing is made of a file that is not what was saved.
      const good = readFileSync(path);
      const altered = Buffer.from(good);
      altered[good.byteLength >> 1] = (altered[good.byteLength >> 1] as number) ^ 0x10;
      const damaged = { short: good.subarray(0, good.byteLength - 512), cut: good.subarray(0, good.byteLength >> 1), altered };
      for (const [name, bytes] of Object.entries(damaged)) {
        writeFileSync(join(directory, `${name}.db`), bytes);
        const cluster = await clusterOf(`refused-${name}`, ["x"]);
        const [member] = cluster.members;
        if (member === undefined) throw new Error("no member");
        const { status, stderr } = await packedRun("holdfastutl", ...restoreWords(join(directory, `${name}.db`), cluster, member));
        expect([name, status], stderr).toEqual([name, 1]);
        expect(stderr).toMatch(/^Error: (?:expected sha256 \[|snapshot missing hash)/m);
        expect(existsSync(join(directory, `refused-${name}`))).toBe(false);
      }
    },
    TEST_MS,
  );

  it(
    "of etcd becomes a member of holdfast, and the other way round",
    async (context) => {
      if (ORACLE_ETCD === undefined) return context.skip(ORACLE_MISSING);
      if (ORACLE_UTL === undefined) return context.skip(UTL_MISSING);
      const holdfast = holdfastKind(packed.commands.holdfast as string);
      const etcd = etcdKind(ORACLE_ETCD);

      const source = await clusterOf("etcd", ["a"]);
      await start(etcd, source);
      const [sourceEndpoint = ""] = source.endpoints;
      await fill(sourceEndpoint);
      const before = await contentOf(sourceEndpoint);
      const path = await save(sourceEndpoint, "etcd.db");
      await stopAll();
      const target = await clusterOf("from-etcd", ["b1", "b2", "b3"]);
      await restore(path, target);
      await start(holdfast, target, ROOT_USER);
      for (const endpoint of target.endpoints) expect(await contentOf(endpoint)).toEqual(before);

      const [first = ""] = target.endpoints;
      expect(await ctlText(first, "put", "written", "by holdfast", ...ROOT_USER)).toBe("OK\n");
      const ours = await contentOf(first);
      const back = await save(first, "holdfast.db");
      await stopAll();
      const theirStatus = await runProgram(ORACLE_UTL, ["snapshot", "status", back, "-w", "json"]);
      const ourStatus = await packedRun("holdfastutl", "snapshot", "status", back, "-w", "json");
      expect(ourStatus.stdout).toBe(theirStatus.stdout.toString("utf8"));
      const last = await clusterOf("to-etcd", ["c1", "c2", "c3"]);
      for (const member of last.members) {
        const { status, stderr } = await runProgram(ORACLE_UTL, restoreWords(back, last, member));
        expect(status, stderr).toBe(0);
      }
      await start(etcd, last, ROOT_USER);
      for (const endpoint of last.endpoints) expect(await contentOf(endpoint)).toEqual(ours);
    },
    TEST_MS,
  );

  it("leaves nothing beside what it was asked for", () => {
    expect(readdirSync(directory).filter((name) => name.endsWith(".part"))).toEqual([]);
  });
});
