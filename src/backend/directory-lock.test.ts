import { mkdtemp, readdir, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { lockDirectory } from "./directory-lock.ts";
import { DataDirectoryLockedError } from "./errors.ts";
import { LevelBackend } from "./level.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "holdfast-lock-"));
});
afterEach(() => rm(root, { recursive: true, force: true }));

describe("the lock of a directory", () => {
  test("is held until it is closed", async () => {
    const directory = join(root, "lock");
    const lock = await lockDirectory(directory);
    await expect(lockDirectory(directory)).rejects.toThrow(DataDirectoryLockedError);
    await lock.close();
    await (await lockDirectory(directory)).close();
  });

  test("can be taken whatever a power loss has made of its files (BW18)", async () => {
    const directory = join(root, "lock");
    await (await lockDirectory(directory)).close();
    await (await lockDirectory(directory)).close();
    for (const name of await readdir(directory)) {
      const path = join(directory, name);
      for (const harm of [() => truncate(path), () => writeFile(path, "garbage"), () => rm(path, { force: true })]) {
        // An earlier one may have led to another name.
        if ((await readdir(directory)).includes(name)) await harm();
        const lock = await lockDirectory(directory);
        await expect(lockDirectory(directory)).rejects.toThrow(DataDirectoryLockedError);
        await lock.close();
      }
    }
  });
});

test("a store whose files are missing is damaged, not unwritable (BW18)", async () => {
  const directory = join(root, "db");
  await (await LevelBackend.open({ directory })).close();
  const manifest = (await readdir(directory)).find((name) => name.startsWith("MANIFEST")) ?? "";
  await rm(join(directory, manifest));
  await expect(LevelBackend.open({ directory })).rejects.toMatchObject({ reason: "backend-corrupt" });
});
