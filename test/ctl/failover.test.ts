/** The client tool with all endpoints of a cluster whose leader is killed: it goes on, and what it watches comes whole and once. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { freePorts } from "../support/free-ports.ts";
import { PackedPackage } from "../support/packed.ts";
import { holdfastKind, type MemberSpec, memberFlags, ServerProcess, until } from "../support/server-process.ts";
import { runCtl } from "./support.ts";

const PUTS = 40;
const KILL_AT = 12;

let packed: PackedPackage;
let directory: string;
const running = new Map<string, ServerProcess>();

beforeAll(() => {
  packed = PackedPackage.make();
  directory = mkdtempSync(join(tmpdir(), "holdfast-ctl-failover-"));
}, 180_000);

afterAll(async () => {
  await packed?.close();
  await Promise.all([...running.values()].map((member) => member.kill()));
  rmSync(directory, { recursive: true, force: true });
});

describe("the client tool", () => {
  it("goes on when the leader is killed", async () => {
    const port = await freePorts(6);
    const members: MemberSpec[] = ["a", "b", "c"].map((name, at) => ({
      name,
      clientUrl: `http://127.0.0.1:${port + 2 * at}`,
      peerUrl: `http://127.0.0.1:${port + 2 * at + 1}`,
      dataDir: join(directory, name),
    }));
    const initialCluster = members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
    const kind = holdfastKind(packed.commands.holdfast as string);
    for (const member of members) {
      const flags = memberFlags(member, { token: "failover", initialCluster, state: "new" });
      running.set(member.clientUrl, new ServerProcess(kind, [...flags, "--log-level", "error"], `${member.dataDir}.log`));
    }
    const all = members.map(({ clientUrl }) => clientUrl);
    const ctl = (...words: string[]): ReturnType<typeof runCtl> => runCtl(["--endpoints", all.join(","), ...words]);
    for (const url of all) {
      await until(`${url} serves`, 60_000, async () => (await runCtl(["--endpoints", url, "get", "x"])).status === 0);
    }

    // Each of them loses its connection if it is the leader's: of four at least one does.
    const watches = Array.from({ length: 4 }, () =>
      packed.start("holdfastctl", ["--endpoints", all.join(","), "watch", "n", "--rev", "1"]),
    );
    const granted = await ctl("lease", "grant", "20");
    const lease = /lease ([0-9a-f]{16}) granted/.exec(granted.stdout.toString())?.[1] ?? "";
    const keeping = packed.start("holdfastctl", ["--endpoints", all.join(","), "lease", "keep-alive", lease]);
    await keeping.says(/keepalived/);
    await ctl("put", "n", "first");
    for (const watch of watches) await watch.says(/PUT\nn\nfirst\n/);

    const acknowledged: string[] = [];
    for (let at = 0; at < PUTS; at += 1) {
      if (at === KILL_AT) {
        const text = (await ctl("endpoint", "status", "-w", "json")).stdout.toString().replace(/:(\d{16,})/g, ':"$1"');
        const statuses = JSON.parse(text) as { Endpoint: string; Status: { leader: string; header: { member_id: string } } }[];
        const leader = statuses.find(({ Status }) => Status.leader === Status.header.member_id);
        if (leader === undefined) throw new Error(`no leader in ${text}`);
        await running.get(leader.Endpoint)?.kill();
      }
      // A put that was under way at the leader's end may have happened or not, and is not repeated.
      if ((await ctl("put", "n", String(at), "--command-timeout", "20s")).status === 0) acknowledged.push(String(at));
    }
    expect(acknowledged.length).toBeGreaterThanOrEqual(PUTS - 1);
    for (const watch of watches) {
      await watch.says(new RegExp(`PUT\\nn\\n${PUTS - 1}\\n`), 30_000);
      const seen = watch.stdout
        .split("PUT\nn\n")
        .slice(2)
        .map((text) => text.trim());
      expect(seen).toEqual([...new Set(seen)]);
      expect(seen.filter((value) => acknowledged.includes(value))).toEqual(acknowledged);
    }
    const renewed = (): number => keeping.stdout.split("\n").length;
    const before = renewed();
    await until("the lease is renewed by another member", 30_000, () => renewed() > before + 1);
    expect((await ctl("endpoint", "health")).status).toBe(1);
    expect((await ctl("endpoint", "hashkv")).stdout.toString().split("\n").length).toBe(3);
  }, 300_000);
});
