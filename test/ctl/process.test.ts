/** The client tool as users have it, from the packed package: commands that run until somebody stops them, and what the system sees of them. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as api from "../../src/api/index.ts";
import { utf8Bytes, utf8Text } from "../../src/base/bytes.ts";
import { silentLogger } from "../../src/base/logger.ts";
import { type EtcdServer, startEtcd } from "../../src/embed/start-etcd.ts";
import { SERVER_VERSION, STORAGE_VERSION } from "../../src/server/config.ts";
import { freePorts } from "../support/free-ports.ts";
import { PackedPackage, type Running } from "../support/packed.ts";
import { until } from "../support/server-process.ts";

const TEST_MS = 120_000;

const directory = mkdtempSync(join(tmpdir(), "holdfast-ctl-"));
let packed: PackedPackage;
let server: EtcdServer;
let other: EtcdServer;
let endpoint: string;
let otherEndpoint: string;

async function startMember(port: number): Promise<EtcdServer> {
  const url = `http://127.0.0.1:${port}`;
  const member = await startEtcd({
    name: `m${port}`,
    inMemory: true,
    listenClientUrls: url,
    advertiseClientUrls: url,
    listenPeerUrls: [],
    logger: silentLogger,
  });
  await member.ready;
  return member;
}

beforeAll(async () => {
  packed = PackedPackage.make();
  const port = await freePorts(2);
  endpoint = `127.0.0.1:${port}`;
  otherEndpoint = `127.0.0.1:${port + 1}`;
  server = await startMember(port);
  other = await startMember(port + 1);
}, 180_000);

afterAll(async () => {
  await packed?.close();
  await server?.close();
  await other?.close();
  rmSync(directory, { recursive: true, force: true });
});

const ctl = (...words: string[]): Running => packed.start("holdfastctl", ["--endpoints", endpoint, ...words]);

async function put(key: string, value: string): Promise<void> {
  await server.services.kv.put(api.PutRequest.create({ key: utf8Bytes(key), value: utf8Bytes(value) }), {});
}

async function keysOf(member: EtcdServer, from: string): Promise<string[]> {
  const request = api.RangeRequest.create({ key: utf8Bytes(from), rangeEnd: utf8Bytes(`${from}\u007f`) });
  const { kvs } = await member.services.kv.range(request, {});
  return kvs.map(({ key, value }) => `${utf8Text(key)}=${utf8Text(value)}`);
}

describe("the packed tool", () => {
  it(
    "has commands that run",
    async () => {
      const version = packed.start("holdfastctl", ["version"]);
      expect(await version.ended).toEqual({ code: 0, signal: null });
      expect(version.stdout).toBe(`holdfastctl version: ${SERVER_VERSION}\nAPI version: ${STORAGE_VERSION.replace(/\.0$/, "")}\n`);
      const written = ctl("put", "packed", "yes");
      expect(await written.ended).toEqual({ code: 0, signal: null });
      const read = packed.start("holdfastctl", ["get", "packed"], { ETCDCTL_ENDPOINTS: `127.0.0.1:1,${endpoint}` });
      expect(await read.ended).toEqual({ code: 0, signal: null });
      expect(read.stdout).toBe("packed\nyes\n");
      const refused = ctl("get", "packed", "--order", "X");
      expect(await refused.ended).toEqual({ code: 4, signal: null });
      const piped = ctl("put", "piped");
      piped.type("from a pipe");
      piped.endInput();
      expect(await piped.ended).toEqual({ code: 0, signal: null });
      expect(await keysOf(server, "piped")).toEqual(["piped=from a pipe"]);
    },
    TEST_MS,
  );

  it(
    "watches until a signal ends it",
    async () => {
      const watching = ctl("watch", "w", "--prefix", "--rev", "1");
      await put("w1", "one");
      await watching.says(/PUT\nw1\none\n/);
      await put("w2", "two");
      await watching.says(/PUT\nw2\ntwo\n/);
      watching.signal("SIGINT");
      expect(await watching.ended).toEqual({ code: null, signal: "SIGINT" });
    },
    TEST_MS,
  );

  it(
    "runs a program for each event, and ends with its failure",
    async () => {
      const script = 'echo "$ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"; test "$ETCD_WATCH_VALUE" = \'"good"\'';
      const watching = ctl("watch", "--rev", "1", "exec", "--", "sh", "-c", script);
      await put("exec", "good");
      await watching.says(/"PUT" "exec" "good"\n/);
      await put("exec", "bad");
      expect(await watching.ended).toEqual({ code: 1, signal: null });
      expect(watching.stderr).toMatch(/^command \["sh" "-c" .*\] error \(exit status 1\)$/m);
    },
    TEST_MS,
  );

  it(
    "takes several watches from its input",
    async () => {
      const watching = ctl("watch", "--interactive");
      watching.type("watch i1 --rev 1\nwatch i2 --rev 1\n");
      await put("i1", "x");
      await put("i2", "y");
      await watching.says(/PUT\ni1\nx\n/);
      await watching.says(/PUT\ni2\ny\n/);
      watching.type("nonsense\nprogress\n");
      await watching.says(/progress notify: \d+\n/);
      watching.endInput();
      expect(await watching.ended).toEqual({ code: 3, signal: null });
      expect(watching.stderr).toContain("Invalid command nonsense (only support watch)\n");
      expect(watching.stderr).toContain("Error: error reading watch request line: EOF\n");
    },
    TEST_MS,
  );

  it(
    "holds a lock until it is told to stop, and passes it on",
    async () => {
      const first = ctl("lock", "l");
      await first.says(/^l\/[0-9a-f]+\n\n$/);
      const second = ctl("lock", "l");
      await until("the second waits", 20_000, async () => (await keysOf(server, "l/")).length === 2);
      expect(second.stdout).toBe("");
      first.signal("SIGTERM");
      expect(await first.ended).toEqual({ code: 0, signal: null });
      await second.says(/^l\/[0-9a-f]+\n\n$/);
      second.signal("SIGINT");
      expect(await second.ended).toEqual({ code: 0, signal: null });
      expect(await keysOf(server, "l/")).toEqual([]);
    },
    TEST_MS,
  );

  it(
    "stands for election, and watches elections",
    async () => {
      const listening = ctl("elect", "-l", "e");
      const candidate = ctl("elect", "e", "me");
      await candidate.says(/^e\/[0-9a-f]+\nme\n$/);
      await listening.says(/^e\/[0-9a-f]+\nme\n$/);
      candidate.signal("SIGTERM");
      expect(await candidate.ended).toEqual({ code: 0, signal: null });
      expect(await keysOf(server, "e/")).toEqual([]);
      listening.signal("SIGINT");
      expect(await listening.ended).toEqual({ code: 0, signal: null });
    },
    TEST_MS,
  );

  it(
    "keeps a lease alive until somebody revokes it",
    async () => {
      const { id } = await server.services.lease.leaseGrant(api.LeaseGrantRequest.create({ ttl: 3, id: 0x1234n }), {});
      const keeping = ctl("lease", "keep-alive", "1234");
      await keeping.says(/(?:lease 0000000000001234 keepalived with TTL\(3\)\n){2}/);
      await server.services.lease.leaseRevoke(api.LeaseRevokeRequest.create({ id }), {});
      expect(await keeping.ended).toEqual({ code: 0, signal: null });
      expect(keeping.stdout).toMatch(/lease 0000000000001234 expired or revoked\.\n$/);
    },
    TEST_MS,
  );

  it(
    "mirrors one cluster into another, then what changes",
    async () => {
      await put("src/a", "1");
      await put("src/b", "2");
      const mirror = ctl("make-mirror", otherEndpoint, "--prefix", "src/", "--dest-prefix", "dst/");
      await until("the copy", 20_000, async () => (await keysOf(other, "dst/")).length === 2);
      await put("src/a", "3");
      await server.services.kv.deleteRange(api.DeleteRangeRequest.create({ key: utf8Bytes("src/b") }), {});
      await until("the changes", 20_000, async () => (await keysOf(other, "dst/")).join() === "dst/a=3");
      mirror.signal("SIGTERM");
      expect(await mirror.ended).toEqual({ code: null, signal: "SIGTERM" });
    },
    TEST_MS,
  );

  it(
    "saves a snapshot, readable by its owner only, and leaves nothing behind when it cannot",
    async () => {
      const path = join(directory, "backup.db");
      const saving = ctl("snapshot", "save", path);
      expect(await saving.ended).toEqual({ code: 0, signal: null });
      expect(saving.stdout).toBe(`Snapshot saved at ${path}\nServer version 3.7.0\n`);
      expect(saving.stderr).toMatch(/"msg":"saved"/);
      expect(readFileSync(path).byteLength % 512).toBe(32);
      expect(statSync(path).mode & 0o777).toBe(0o600);
      const late = packed.start("holdfastctl", [
        ...["--endpoints", "127.0.0.1:1", "--command-timeout", "200ms"],
        ...["snapshot", "save", join(directory, "never.db")],
      ]);
      expect(await late.ended).toEqual({ code: 5, signal: null });
      expect(readdirSync(directory)).toEqual(["backup.db"]);
    },
    TEST_MS,
  );
});
