/**
 * The tool for files and etcd's, on the same files. What etcdutl 3.7.1 said is kept in test/golden/utl (recorded by UPDATE=1 with HOLDFAST_ORACLE_ETCDUTL
 * naming the program); everywhere ours must say the same. The files are backups that etcd made.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LevelBackend } from "../../src/backend/index.ts";
import { runTool } from "../../src/cli/cobra/command.ts";
import { utlTool } from "../../src/cli/utl/tool.ts";
import { type RunResult, recordingFace, runProgram } from "../ctl/support.ts";

const ORACLE_UTL = process.env.HOLDFAST_ORACLE_ETCDUTL;
const UTL_MISSING = "HOLDFAST_ORACLE_ETCDUTL does not name an etcdutl binary";
const GOLDEN = new URL("../golden/utl/answers.jsonl", import.meta.url);
const TEST_MS = 120_000;

/** `@` stands for the directory. */
const SCRIPT = `
version
version -w json
snapshot
snapshot status
snapshot status @/plain.db @/auth.db
snapshot status @/nothing.db
snapshot status @/junk.db
snapshot status @/plain.db
snapshot status @/plain.db -w json
snapshot status @/plain.db -w fields
snapshot status @/plain.db -w table
snapshot status @/plain.db -w protobuf
snapshot status @/plain.db -w foo
snapshot status @/bare.db
snapshot status @/auth.db
hashkv
hashkv @/bare.db @/bare.db
hashkv @/nothing.db
hashkv @/bare.db
hashkv @/bare.db -w json
hashkv @/bare.db -w fields
hashkv @/bare.db -w table
hashkv @/bare.db -w protobuf
hashkv @/bare.db -w foo
hashkv @/bare.db --rev 9
hashkv @/bare.db --rev 12
hashkv @/bare.db --rev 17
hashkv @/bare.db --rev 3
hashkv @/bare.db --rev 18
hashkv @/bare.db --rev x
hashkv @/bare.db --nonsense
snapshot restore
snapshot restore a b
snapshot restore @/nothing.db --data-dir @/r0
snapshot restore @/bare.db --data-dir @/r0a
snapshot restore @/altered.db --data-dir @/r0b
snapshot restore @/plain.db --data-dir @/r1
snapshot restore @/plain.db --data-dir @/r1
snapshot restore @/plain.db --data-dir @/r2 --wal-dir @/w2
snapshot restore @/plain.db --data-dir @/r3 --wal-dir @/w2
snapshot restore @/plain.db --data-dir @/r3 --name other
snapshot restore @/plain.db --data-dir @/r3 --initial-cluster foo
snapshot restore @/plain.db --data-dir @/r3 --initial-advertise-peer-urls foo
snapshot restore @/plain.db --data-dir @/r3 --bump-revision 5
snapshot restore @/plain.db --data-dir @/r3 --mark-compacted
snapshot restore @/plain.db --data-dir @/r3 --bump-revision x
snapshot restore @/plain.db --data-dir @/r3 --bump-revision -1
snapshot restore @/bare.db --data-dir @/r4 --skip-hash-check
snapshot restore @/plain.db --data-dir @/r5 --bump-revision 1000 --mark-compacted
snapshot restore @/plain.db --data-dir @/r6 --name m1 --initial-cluster m1=http://127.0.0.1:1,m2=http://127.0.0.1:2 --initial-advertise-peer-urls http://127.0.0.1:1 --initial-cluster-token t --initial-memory-map-size 0
snapshot restore @/plain.db --data-dir @/r7 --name m1 --initial-cluster m1=http://127.0.0.1:1,m2=http://127.0.0.1:2 --initial-advertise-peer-urls http://127.0.0.1:3
hashkv @/r1/member/snap/db
hashkv @/r4/member/snap/db
hashkv @/r6/member/snap/db --rev 12
defrag
defrag --data-dir @/nothing
defrag --data-dir @/r1
hashkv @/r1/member/snap/db
migrate --data-dir @/r1
migrate --target-version 3.7
migrate --data-dir @/r1 --target-version x
migrate --data-dir @/r1 --target-version 3.8
migrate --data-dir @/nothing --target-version 3.7
xyz
snapshot xyz
completion
completion foo
`;

interface Answer {
  readonly line: string;
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

let directory: string;

function makeFiles(place: string): void {
  mkdirSync(place);
  const recorded = JSON.parse(readFileSync(new URL("../golden/backup/etcd-3-7-1.json", import.meta.url), "utf8")) as Record<
    "plain" | "auth",
    { file: string }
  >;
  const plain = gunzipSync(Buffer.from(recorded.plain.file, "base64"));
  writeFileSync(join(place, "plain.db"), plain);
  writeFileSync(join(place, "auth.db"), gunzipSync(Buffer.from(recorded.auth.file, "base64")));
  writeFileSync(join(place, "bare.db"), plain.subarray(0, -32));
  const altered = Buffer.from(plain);
  altered[9000] = (altered[9000] as number) ^ 1;
  writeFileSync(join(place, "altered.db"), altered);
  writeFileSync(join(place, "short.db"), plain.subarray(0, 4096 * 4 + 32));
  writeFileSync(join(place, "junk.db"), "this is no database\n");
}

async function runUtl(words: readonly string[]): Promise<RunResult> {
  const { face, stdout, stderr } = recordingFace();
  const status = await runTool(utlTool, words, face, face);
  return { status, stdout: stdout(), stderr: stderr() };
}

function normalised(text: string, place: string): string {
  return (
    text
      .replaceAll(place, "@")
      // Lines of logs are for people.
      .replace(/^\d{4}-\d\d-\d\dT[\d:.]+Z\t[^\n]*\n/gm, "")
      .replaceAll("holdfastutl", "<tool>")
      .replaceAll("etcdutl", "<tool>")
      // Descriptions are in our own words, and etcd's tool has none above its usages; the second telling of what is wrong stays.
      .replace(/^[A-Z][^:]*\n\n(?=Usage:)/, "")
      .replace(/^Usage:[\s\S]*?\n\n(?=Error: )/gm, "<usage>\n")
      .replace(/^Usage:[\s\S]*$/gm, "<usage>")
  );
}

async function answersOf(run: (words: readonly string[]) => Promise<RunResult>, place: string): Promise<Answer[]> {
  makeFiles(place);
  const answers: Answer[] = [];
  for (const line of SCRIPT.trim().split("\n")) {
    const { status, stdout, stderr } = await run(line.replaceAll("@", place).split(" "));
    answers.push({ line, status, stdout: normalised(stdout.toString("utf8"), place), stderr: normalised(stderr, place) });
  }
  return answers;
}

function recorded(): Answer[] {
  const lines = readFileSync(GOLDEN, "utf8").trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as Answer);
}

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "holdfast-utl-"));
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

describe("the tool for files", () => {
  it(
    "is compared with what etcd's tool really says",
    async (context) => {
      if (ORACLE_UTL === undefined) return context.skip(UTL_MISSING);
      const answers = await answersOf((words) => runProgram(ORACLE_UTL, words), join(directory, "theirs"));
      if (process.env.UPDATE === "1") writeFileSync(GOLDEN, answers.map((answer) => `${JSON.stringify(answer)}\n`).join(""));
      expect(answers).toEqual(recorded());
    },
    TEST_MS,
  );

  it(
    "says what etcd's tool says",
    async () => {
      const place = join(directory, "ours");
      expect(await answersOf(runUtl, place)).toEqual(recorded());
      // What was refused has left nothing behind.
      expect(readdirSync(place).filter((name) => /^[rw]\d/.test(name))).toEqual(["r1", "r2", "r4", "r5", "r6", "w2"]);
    },
    TEST_MS,
  );

  it("refuses also what etcd's does not look at", async () => {
    const place = join(directory, "altered");
    makeFiles(place);
    for (const name of ["altered.db", "short.db"]) {
      for (const words of [
        ["snapshot", "status"],
        ["snapshot", "restore", "--data-dir", join(place, "r")],
      ]) {
        const { status, stderr, stdout } = await runUtl([...words, join(place, name)]);
        expect([name, status, stdout.byteLength]).toEqual([name, 1, 0]);
        expect(stderr).toMatch(/^Error: expected sha256 \[[\d ]+\], got \[[\d ]+\]\n$/m);
      }
    }
    expect(existsSync(join(place, "r"))).toBe(false);
  });

  it("looks into a log, lists what was asked for, and changes nothing", async () => {
    const place = join(directory, "log");
    makeFiles(place);
    const dataDir = join(place, "r");
    expect(await runUtl(["snapshot", "restore", join(place, "plain.db"), "--data-dir", dataDir])).toMatchObject({ status: 0 });
    const before = readFileSync(join(dataDir, "member/wal", "0000000000000000-0000000000000000.wal"));
    const { status, stdout } = await runUtl(["wal", "inspect", dataDir, "-w", "json", "--entries"]);
    expect(status).toBe(0);
    expect(JSON.parse(stdout.toString("utf8"))).toMatchObject({
      directory: join(dataDir, "member/wal"),
      memberID: "8e9e05c52164694d",
      clusterID: "cdf818194e3a8c32",
      term: 1,
      commitIndex: 1,
      snapshotIndex: 1,
      voters: "8e9e05c52164694d",
      list: [],
    });
    const again = await runUtl(["wal", "inspect", join(dataDir, "member/wal")]);
    expect(again.stdout.toString("utf8")).toContain("MemberID: 8e9e05c52164694d\nClusterID: cdf818194e3a8c32\nTerm: 1\n");
    expect(readFileSync(join(dataDir, "member/wal", "0000000000000000-0000000000000000.wal")).equals(before)).toBe(true);
    const altered = Buffer.from(before);
    altered[200] = (altered[200] as number) ^ 1;
    mkdirSync(join(place, "altered"));
    writeFileSync(join(place, "altered/0000000000000000-0000000000000000.wal"), altered);
    expect(await runUtl(["wal", "inspect", join(place, "altered")])).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^Error: wal: damaged-record in 0000000000000000-0000000000000000\.wal at offset \d+: /),
    });
    expect(await runUtl(["wal", "inspect", join(place, "nothing")])).toMatchObject({
      status: 1,
      stderr: `Error: wal: no log in ${join(place, "nothing")}\n`,
    });
  });

  it("leaves a store alone that a member uses", async () => {
    const place = join(directory, "busy");
    makeFiles(place);
    expect(await runUtl(["snapshot", "restore", join(place, "plain.db"), "--data-dir", join(place, "r")])).toMatchObject({ status: 0 });
    const store = join(place, "r/member/snap/db");
    const used = await LevelBackend.open({ directory: store });
    try {
      for (const words of [
        ["defrag", "--data-dir", join(place, "r")],
        ["hashkv", store],
        ["snapshot", "status", store],
      ]) {
        const { status, stderr } = await runUtl([...words, "--timeout", "1ms"]);
        expect([status, stderr]).toEqual([2, expect.stringMatching(/timeout: the data directory is in use by another process/)]);
      }
    } finally {
      await used.close();
    }
    expect((await runUtl(["hashkv", store])).stdout.toString("utf8")).toBe("438175636, 17, 9\n");
  });
});
