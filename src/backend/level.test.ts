import { spawn } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { describeBackend } from "../../test/support/backend.contract.ts";
import { BackendCorruptError, createBatch, DataDirectoryLockedError, LevelBackend } from "./index.ts";

let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "holdfast-level-"));
});

afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

let opened = 0;
describeBackend("level", async () => {
  opened += 1;
  return LevelBackend.open({ directory: join(root, `db${opened}`) });
});

async function write(backend: LevelBackend, from: number, to: number, value = Buffer.alloc(100, 7)): Promise<void> {
  for (let i = from; i <= to; i++) {
    const batch = createBatch();
    batch.put(Buffer.from(`k${String(i).padStart(8, "0")}`), value);
    await backend.write(batch);
  }
}

async function count(backend: LevelBackend): Promise<number> {
  const iterator = backend.iterate({ gte: Buffer.from("k"), lt: Buffer.from("l"), keysOnly: true });
  let rows = 0;
  for (let slice = await iterator.next(10_000); slice.length > 0; slice = await iterator.next(10_000)) rows += slice.length;
  await iterator.close();
  return rows;
}

/** What the disk may look like after a power loss at its worst: nothing of LevelDB's logs is left. */
async function withoutLogs(directory: string, copy: string): Promise<void> {
  await cp(directory, copy, { recursive: true });
  for (const name of await readdir(copy)) {
    if (name.endsWith(".log")) await writeFile(join(copy, name), "");
    if (name === "LOCK") await rm(join(copy, name));
  }
}

describe("level", () => {
  test("K5: what was written before a checkpoint survives without any of LevelDB's logs", async () => {
    const directory = join(root, "db");
    const backend = await LevelBackend.open({ directory });
    await write(backend, 1, 500);
    await backend.checkpoint();
    await withoutLogs(directory, join(root, "one"));
    await write(backend, 501, 700);
    await withoutLogs(directory, join(root, "two"));
    await backend.checkpoint();
    await withoutLogs(directory, join(root, "three"));
    await backend.close();
    for (const [name, rows] of [
      ["one", 500],
      ["two", 500],
      ["three", 700],
    ] as const) {
      const copy = await LevelBackend.open({ directory: join(root, name) });
      expect(await count(copy), name).toBe(rows);
      await copy.close();
    }
  });

  test("K5: also while a full memtable is being written out, which a synced write would not cover", async () => {
    const directory = join(root, "db");
    const backend = await LevelBackend.open({ directory });
    const value = Buffer.alloc(100_000, 3);
    for (let round = 1; round <= 5; round++) {
      // Ends just behind the 4 MiB at which LevelDB begins a new log.
      await write(backend, round * 100, round * 100 + 41, value);
      await backend.checkpoint();
      await withoutLogs(directory, join(root, `copy${round}`));
    }
    await backend.close();
    for (let round = 1; round <= 5; round++) {
      const copy = await LevelBackend.open({ directory: join(root, `copy${round}`) });
      expect(await count(copy)).toBe(round * 42);
      await copy.close();
    }
  });

  test("a second opener is refused with one clear line, also from the same process", async () => {
    const directory = join(root, "db");
    const first = await LevelBackend.open({ directory });
    const error = await LevelBackend.open({ directory }).then(
      () => undefined,
      (thrown: unknown) => thrown as Error,
    );
    expect(error).toBeInstanceOf(DataDirectoryLockedError);
    expect(error?.message).toBe(`the data directory is in use by another process (lock on ${directory})`);
    await write(first, 1, 1);
    await first.close();
    const second = await LevelBackend.open({ directory });
    expect(await count(second)).toBe(1);
    await second.close();
  });

  test("the directory is private", async () => {
    const directory = join(root, "deep", "db");
    await (await LevelBackend.open({ directory })).close();
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
  });

  test("BW18: a store that LevelDB cannot open is reported as damaged, and left alone", async () => {
    const directory = join(root, "db");
    const backend = await LevelBackend.open({ directory });
    await write(backend, 1, 100);
    await backend.checkpoint();
    await backend.close();
    const current = join(directory, "CURRENT");
    const before = await readFile(current);
    await writeFile(current, "");
    await expect(LevelBackend.open({ directory })).rejects.toThrow(BackendCorruptError);
    await writeFile(current, before);
    const manifest = (await readdir(directory)).find((name) => name.startsWith("MANIFEST")) ?? "";
    await writeFile(join(directory, manifest), "");
    await expect(LevelBackend.open({ directory })).rejects.toThrow(BackendCorruptError);
  });

  test("defragment gives back the space of deleted rows", async () => {
    const backend = await LevelBackend.open({ directory: join(root, "db") });
    const value = Buffer.alloc(10_000, 5);
    await write(backend, 1, 1000, value);
    const batch = createBatch();
    for (let i = 1; i <= 990; i++) batch.delete(Buffer.from(`k${String(i).padStart(8, "0")}`));
    await backend.write(batch);
    const before = await backend.sizeBytes();
    await backend.defragment();
    const after = await backend.sizeBytes();
    expect(before).toBeGreaterThan(5_000_000);
    expect(after).toBeLessThan(500_000);
    expect(await count(backend)).toBe(10);
    await backend.close();
  });

  async function child(args: string[], limitKib?: number, killAt?: number): Promise<string[]> {
    const script = fileURLToPath(new URL("../../test/support/backend-child.ts", import.meta.url));
    const command = `${limitKib === undefined ? "" : `ulimit -f ${limitKib}; `}exec "$0" --import tsx "$@"`;
    const life = spawn("bash", ["-c", command, process.execPath, script, ...args], { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    life.stdout.setEncoding("utf8");
    life.stdout.on("data", (piece: string) => {
      text += piece;
      if (killAt !== undefined && text.split("\n").length > killAt) life.kill("SIGKILL");
    });
    await new Promise((resolve) => life.once("close", resolve));
    return text.split("\n").slice(0, -1);
  }

  test("BW14, BW15: after a failed write every call fails, and nothing acknowledged before it is lost", async () => {
    const directory = join(root, "db");
    // No file may grow beyond 2 MiB, so LevelDB's log cannot: a real error of the platform, in the middle of a record.
    const lines = await child([directory], 2048);
    const failed = lines.findIndex((line) => line.startsWith("failed"));
    expect(failed).toBeGreaterThan(50);
    expect(lines.slice(failed)).toEqual([
      "failed BackendFailedError",
      "write BackendFailedError",
      "get BackendFailedError",
      "getSync BackendFailedError",
      "iterate BackendFailedError",
      "checkpoint BackendFailedError",
      "close ok",
    ]);
    const backend = await LevelBackend.open({ directory });
    const last = Number(Buffer.from((await backend.get(Buffer.from("last"))) ?? []).toString());
    expect(last).toBe(failed);
    expect(await count(backend)).toBe(failed * 10);
    await backend.close();
  });

  test("BW15: a checkpoint whose table cannot be written fails, although LevelDB's compaction reports nothing", async () => {
    const lines = await child([join(root, "db"), "table"], 1000);
    expect(lines.slice(0, 3)).toEqual(["checkpoint BackendFailedError", "write BackendFailedError", "get BackendFailedError"]);
  });

  test("kill -9: a prefix of the batches, whole, with everything that was in the store", async () => {
    const directory = join(root, "db");
    const lines = await child([directory, "checkpoint"], undefined, 400);
    const known = Number(lines[lines.length - 1]);
    expect(known).toBeGreaterThanOrEqual(390);
    const backend = await LevelBackend.open({ directory });
    const last = Number(Buffer.from((await backend.get(Buffer.from("last"))) ?? []).toString());
    expect(last).toBeGreaterThanOrEqual(known);
    expect(await count(backend)).toBe(last * 10);
    await backend.close();
  });
});
