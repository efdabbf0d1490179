import { spawn } from "node:child_process";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { appended, confState, entries, TEST_METADATA } from "../../test/support/wal-model.ts";
import { systemDisk } from "../base/disk-system.ts";
import { NO_MEMBER } from "../base/ids.ts";
import { Wal } from "./index.ts";

let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "holdfast-wal-"));
});

afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

test("create, append, cut, purge and open on the real disk; files are private", async () => {
  const directory = join(root, "member", "wal");
  const options = { disk: systemDisk(), directory, segmentBytes: 64 << 10 };
  const wal = await Wal.create({ ...options, metadata: TEST_METADATA });
  for (let i = 1; i <= 300; i++) {
    await appended(wal, { entries: entries(i, i, 1, 1000), hardState: { term: 1, vote: NO_MEMBER, commit: i } });
  }
  await appended(wal, { snapshot: { index: 250, term: 1, confState: confState(1) } });
  await wal.purge(250, 1);
  await wal.close();
  const names = await readdir(directory);
  expect(names.length).toBeLessThan(4);
  for (const name of names) {
    const facts = await stat(join(directory, name));
    expect(facts.mode & 0o777).toBe(0o600);
    expect(facts.size).toBe(64 << 10);
  }
  expect((await stat(directory)).mode & 0o777).toBe(0o700);
  const { wal: again, contents } = await Wal.open(options);
  expect(contents.entries.map((entry) => entry.index)).toEqual(Array.from({ length: 50 }, (_, i) => 251 + i));
  expect(contents.hardState.commit).toBe(300);
  await again.close();
});

test("K5: kill -9 of a process that appends: everything it acknowledged is there", async () => {
  const directory = join(root, "wal");
  const segmentBytes = 32 << 10;
  const child = fileURLToPath(new URL("../../test/support/wal-child.ts", import.meta.url));
  let known = 0;
  for (let round = 1; round <= 4; round++) {
    const life = spawn(process.execPath, ["--import", "tsx", child, directory, String(segmentBytes)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    const wanted = known + 60 * round;
    life.stdout.setEncoding("utf8");
    life.stdout.on("data", (piece: string) => {
      text += piece;
      const last = Number(text.slice(text.lastIndexOf("\n", text.length - 2) + 1).trim());
      if (text.endsWith("\n") && last >= wanted) life.kill("SIGKILL");
    });
    await new Promise((resolve) => life.once("close", resolve));
    const acknowledged = text.split("\n").slice(0, -1).map(Number);
    expect(acknowledged.length).toBeGreaterThanOrEqual(60);
    known = Math.max(...acknowledged);
    const { contents, wal } = await Wal.open({ disk: systemDisk(), directory, segmentBytes });
    expect(contents.entries.length).toBeGreaterThanOrEqual(known);
    expect(contents.entries.map((entry) => entry.index)).toEqual(contents.entries.map((_, i) => i + 1));
    known = contents.entries.length;
    await wal.close();
  }
});
