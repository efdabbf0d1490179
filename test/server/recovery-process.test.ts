/** The command in real processes: kill, damage, stop and continue, and one member instead of many. */
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { holdfastKind, type MemberSpec, memberFlags, postJson, ServerProcess, until, untilServing } from "../support/server-process.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const KIND = holdfastKind(join(ROOT, "dist/cli/holdfast.cjs"));
const PORTS = 21_100;
const directory = mkdtempSync(join(tmpdir(), "holdfast-recovery-"));
const ELECTION_MS = 1000;

const members = ["n1", "n2", "n3"].map(
  (name, at): MemberSpec => ({
    name,
    clientUrl: `http://127.0.0.1:${PORTS + at}`,
    peerUrl: `http://127.0.0.1:${PORTS + 10 + at}`,
    dataDir: join(directory, name),
  }),
);
const processes = new Map<string, ServerProcess>();

beforeAll(() => {
  // A no-op under `npm test`, which has built already.
  const prepare = "(await import('./scripts/lib/setup.mjs')).prepare()";
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", prepare], { cwd: ROOT, encoding: "utf8" });
  if (status !== 0) throw new Error(`cannot build: ${stderr}`);
}, 120_000);

afterAll(async () => {
  for (const one of processes.values()) await one.kill();
  rmSync(directory, { recursive: true, force: true });
});

function launch(member: MemberSpec, more: readonly string[] = []): ServerProcess {
  const initialCluster = members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
  const flags = [
    ...memberFlags(member, { token: "recovery", initialCluster, state: "new" }),
    ...["--heartbeat-interval", "100", "--election-timeout", String(ELECTION_MS)],
    ...more,
  ];
  const one = new ServerProcess(KIND, flags, join(directory, `${member.name}.log`));
  processes.set(member.name, one);
  return one;
}

function processOf(member: MemberSpec): ServerProcess {
  return processes.get(member.name) as ServerProcess;
}

function damageLog(member: MemberSpec): void {
  const wal = join(member.dataDir, "member", "wal");
  const name = readdirSync(wal).find((one) => one.endsWith(".wal")) as string;
  const file = openSync(join(wal, name), "r+");
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, 3000);
  writeSync(file, Buffer.from([(byte[0] as number) ^ 16]), 0, 1, 3000);
  closeSync(file);
}

async function call(member: MemberSpec, path: string, body: unknown, deadlineMs = 10_000): Promise<Record<string, unknown>> {
  const { status, text } = await postJson(member.clientUrl, `/v3/${path}`, body, deadlineMs);
  if (status !== 200) throw new Error(`${status} ${text}`);
  return JSON.parse(text) as Record<string, unknown>;
}

/** Until it is acknowledged: on a busy machine leaders change by themselves. */
async function put(member: MemberSpec, key: string, value: string): Promise<void> {
  await until(`${key} is written`, 30_000, () => call(member, "kv/put", { key: btoa(key), value: btoa(value) }));
}

async function get(member: MemberSpec, key: string, deadlineMs?: number): Promise<string | undefined> {
  const { kvs } = (await call(member, "kv/range", { key: btoa(key) }, deadlineMs)) as { kvs?: { value: string }[] };
  return kvs === undefined ? undefined : atob(kvs[0]?.value ?? "");
}

async function leader(among: readonly MemberSpec[] = members): Promise<MemberSpec> {
  return until("a leader", 30_000, async () => {
    for (const member of among) {
      const { header, leader: id } = (await call(member, "maintenance/status", {}, 1000)) as {
        header: { member_id: string };
        leader: string;
      };
      if (header.member_id === id) return member;
    }
    return undefined;
  });
}

/** The log lines of a member, parsed. */
function lines(one: ServerProcess): Record<string, unknown>[] {
  return one
    .output()
    .split("\n")
    .flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as Record<string, unknown>] : []));
}

/** Names and contents of everything that is not LevelDB's own. */
function contents(path: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const entry of readdirSync(path, { withFileTypes: true, recursive: true })) {
    const at = join(entry.parentPath, entry.name);
    if (entry.isFile() && !/\/(db|lock)\//.test(at)) found[at] = readFileSync(at, "latin1");
  }
  return found;
}

/** In this order: each goes on with the members of the one before. */
describe("three processes", () => {
  test("a leader that was stopped and goes on answers no reader with what is old (BR15, BR17)", async () => {
    for (const member of members) launch(member);
    for (const member of members) await untilServing(processOf(member), member.clientUrl);
    for (let i = 0; i < 40; i++) await put(members[i % 3] as MemberSpec, `key/${i}`, `value ${i}`);
    let round = 0;
    for (const pauseMs of [0.4 * ELECTION_MS, 3 * ELECTION_MS]) {
      const old = await leader();
      const others = members.filter((member) => member !== old);
      const writer = others[0] as MemberSpec;
      await put(old, "round", String(round));
      processOf(old).signal("SIGSTOP");
      const stopped = performance.now();
      // Asked while it stands still and read by it when it goes on; and asked again and again from then on.
      const early = Array.from({ length: 20 }, () => get(old, "round", 20_000).catch(() => "no answer"));
      if (pauseMs > 2 * ELECTION_MS) {
        await leader(others);
        round += 1;
        await put(writer, "round", String(round));
      }
      await until("it has been paused for long enough", 30_000, () => performance.now() - stopped >= pauseMs, 5);
      const at = round;
      const late: Promise<string | undefined>[] = [];
      processOf(old).signal("SIGCONT");
      for (let i = 0; i < 50; i++) {
        late.push(get(old, "round", 20_000).catch(() => "no answer"));
        await new Promise((resolve) => setImmediate(resolve));
      }
      // The write was acknowledged before any of the late ones was sent, so none may say anything older; the early ones were sent before it.
      for (const answer of await Promise.all(late)) expect([String(at), "no answer"]).toContain(answer);
      for (const answer of await Promise.all(early)) expect([String(at - 1), String(at), "no answer"]).toContain(answer);
      await until("it serves again", 30_000, async () => (await get(old, "round", 2000)) === String(at));
    }
  }, 120_000);

  test("a killed member with a damaged log heals from the others (BW20)", async () => {
    const lost = members.find((member) => member !== members[0]) as MemberSpec;
    await processOf(lost).kill();
    damageLog(lost);
    for (let i = 0; i < 20; i++) await put(members[0] as MemberSpec, `meanwhile/${i}`, "1");
    const healed = launch(lost);
    await untilServing(healed, lost.clientUrl);
    await until("it has what was there before", 30_000, async () => (await get(lost, "key/39")) === "value 39");
    await until("it has what came meanwhile", 30_000, async () => (await get(lost, "meanwhile/19")) === "1");
    expect(lines(healed).map(({ msg }) => msg)).toContain("this member is healed; it votes and serves again");
    const { header } = (await call(lost, "kv/range", { key: btoa("key/39") })) as { header: { revision: string } };
    const { revision } = header;
    const hashes = await Promise.all(
      members.map((member) =>
        until(`${member.name} has it all`, 30_000, async () => (await call(member, "maintenance/hashkv", { revision })).hash),
      ),
    );
    expect(new Set(hashes).size).toBe(1);
  }, 120_000);

  test("one of three goes on alone by --force-new-cluster, and nothing that was acknowledged is lost (BM6, BM8)", async () => {
    const [survivor, ...others] = members as [MemberSpec, ...MemberSpec[]];
    for (const member of members) await processOf(member).kill();
    const alone = launch(survivor, ["--force-new-cluster"]);
    await untilServing(alone, survivor.clientUrl);
    expect(lines(alone).map(({ msg }) => msg)).toContain("forcing restart member");
    await until("it has everything", 30_000, async () => (await get(survivor, "meanwhile/19")) === "1");
    const list = async (): Promise<unknown[]> =>
      ((await call(survivor, "cluster/member/list", {})) as { members: { name: string }[] }).members.map(({ name }) => name);
    expect(await list()).toEqual([survivor.name]);
    await put(survivor, "alone", "1");
    // The others come back by mistake: it is not moved, and says that they are out.
    const zombies = others.map((member) => launch(member));
    for (const zombie of zombies) expect((await zombie.ended).code).toBe(0);
    expect(await list()).toEqual([survivor.name]);
    // And without the flag it is the same.
    await processOf(survivor).kill();
    await untilServing(launch(survivor), survivor.clientUrl);
    expect(await list()).toEqual([survivor.name]);
    expect(await get(survivor, "alone")).toBe("1");
  }, 120_000);

  test("the only member with a damaged log refuses to start, in one line, and changes nothing (BW20)", async () => {
    const [member] = members as [MemberSpec, ...MemberSpec[]];
    await processOf(member).kill();
    damageLog(member);
    const before = contents(member.dataDir);
    for (const more of [[], ["--force-new-cluster"]]) {
      const refused = launch(member, more);
      expect((await refused.ended).code).toBe(1);
      const last = lines(refused).at(-1);
      expect(last).toMatchObject({ level: "fatal" });
      expect(String(last?.error)).toMatch(/damaged.*restore a backup/);
      expect(refused.output()).not.toContain("    at ");
      expect(contents(member.dataDir)).toEqual(before);
    }
  }, 60_000);
});
