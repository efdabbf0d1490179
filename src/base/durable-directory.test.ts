import { describe, expect, test } from "vitest";
import { ModelDisk } from "../../test/support/model-disk.ts";
import type { Disk } from "./disk.ts";
import { makeDurableDirectory } from "./durable-directory.ts";

describe("a directory that must not vanish (BW5)", () => {
  test("is there after a power loss, with its parents, also when an earlier start had made some of them", async () => {
    const disk = new ModelDisk();
    await disk.makeDirectory("/data/n1");
    await makeDurableDirectory(disk, "/data/n1/member/wal");
    disk.crash("power-loss");
    expect(await disk.exists("/data/n1/member/wal")).toBe(true);
  });

  test("every parent is synced, of relative paths up to the working directory", async () => {
    const synced = async (path: string): Promise<string[]> => {
      const paths: string[] = [];
      await makeDurableDirectory(recording(paths, undefined), path);
      return paths;
    };
    expect(await synced("/a/b/c/")).toEqual(["/a/b", "/a", "/"]);
    expect(await synced("a/b")).toEqual(["a", "."]);
  });

  test("directories of others may refuse to be synced, but a disk that fails is told", async () => {
    for (const code of ["EACCES", "EPERM", "EROFS", "EINVAL"]) await makeDurableDirectory(recording([], code), "/a/b");
    await expect(makeDurableDirectory(recording([], "EIO"), "/a/b")).rejects.toMatchObject({ code: "EIO" });
  });
});

/** Only what the function uses; every sync fails with `code`. */
function recording(synced: string[], code: string | undefined): Disk {
  const disk: Pick<Disk, "makeDirectory" | "syncDirectory"> = {
    makeDirectory: () => Promise.resolve(),
    syncDirectory(path) {
      synced.push(path);
      return code === undefined ? Promise.resolve() : Promise.reject(Object.assign(new Error(code), { code }));
    },
  };
  return disk as Disk;
}
