import { describe, expect, test } from "vitest";
import { ModelDisk } from "../../../test/support/model-disk.ts";
import { utf8Bytes, utf8Text } from "../../base/bytes.ts";
import type { Disk } from "../../base/disk.ts";
import { seededRandom } from "../../base/random.ts";
import { SnapshotSwapError } from "./errors.ts";
import { decideSwap, finishSwap, prepareIncoming } from "./swap.ts";

const DIRECTORY = "data/member/snap";
const WAL = "data/member/wal";
const INDEX = 0x2a;
const FILES = ["000003.ldb", "CURRENT", "MANIFEST-000001"];

async function writeFile(disk: Disk, path: string, text: string): Promise<void> {
  const file = await disk.open(path, { create: true });
  await file.write(0, utf8Bytes(text));
  await file.sync();
  await file.close();
}

async function writeStore(disk: Disk, path: string, text: string): Promise<void> {
  await disk.makeDirectory(path);
  for (const name of FILES) await writeFile(disk, `${path}/${name}`, `${text} ${name}`);
}

/** The text that every file of the store begins with; undefined when the store is absent or not of one piece. */
async function readStore(disk: Disk, path: string): Promise<string | undefined> {
  const names = await disk.list(path);
  if (names === undefined || names.join() !== FILES.join()) return undefined;
  const texts = new Set<string>();
  for (const name of names) {
    const file = await disk.open(`${path}/${name}`);
    const [text, own] = utf8Text(await file.read(0, 1000)).split(" ");
    await file.close();
    texts.add(own === name ? String(text) : "damaged");
  }
  return texts.size === 1 ? [...texts][0] : undefined;
}

/** A member with a store, and something that is not ours beside it. */
async function newDisk(seed: number): Promise<ModelDisk> {
  const disk = new ModelDisk({ random: seededRandom(seed) });
  await disk.makeDirectory(DIRECTORY);
  await disk.makeDirectory(WAL);
  await writeStore(disk, `${DIRECTORY}/db`, "old");
  await writeFile(disk, `${DIRECTORY}/db.incoming`, "not ours");
  for (const path of ["data", "data/member", DIRECTORY, `${DIRECTORY}/db`, WAL, ""]) await disk.syncDirectory(path);
  return disk;
}

/** What the owner does when a snapshot was received; the WAL is a file that is durable or not. */
async function install(disk: Disk): Promise<void> {
  const incoming = await prepareIncoming(disk, DIRECTORY, INDEX);
  await writeStore(disk, incoming, "new");
  await decideSwap(disk, DIRECTORY, INDEX);
  await writeFile(disk, `${WAL}/snapshot-${INDEX}`, "record");
  await disk.syncDirectory(WAL);
  await finishSwap(disk, DIRECTORY);
}

async function recover(disk: Disk): Promise<{ wanted: boolean }> {
  const wanted = await disk.exists(`${WAL}/snapshot-${INDEX}`);
  await finishSwap(disk, DIRECTORY, { isWanted: () => wanted });
  return { wanted };
}

async function expectSettled(disk: Disk, what: string, wanted: boolean): Promise<void> {
  expect(await readStore(disk, `${DIRECTORY}/db`), what).toBe(wanted ? "new" : "old");
  expect(await disk.list(DIRECTORY), what).toEqual(["db", "db.incoming"]);
  expect(await finishSwap(disk, DIRECTORY, { isWanted: () => wanted }), what).toEqual({ type: "none" });
}

describe("replacing the store", () => {
  test("without a crash", async () => {
    const disk = await newDisk(1);
    await install(disk);
    await expectSettled(disk, "after the swap", true);
  });

  test("takes back what the WAL does not know", async () => {
    const disk = await newDisk(1);
    await writeStore(disk, await prepareIncoming(disk, DIRECTORY, INDEX), "new");
    await decideSwap(disk, DIRECTORY, INDEX);
    expect(await finishSwap(disk, DIRECTORY, { isWanted: (index) => index < INDEX })).toEqual({ type: "discarded", index: INDEX });
    await expectSettled(disk, "after the discard", false);
  });

  test("a store that was begun and not decided is a left-over, also when the next one is prepared", async () => {
    const disk = await newDisk(1);
    await writeStore(disk, await prepareIncoming(disk, DIRECTORY, 7), "new");
    const second = await prepareIncoming(disk, DIRECTORY, 8);
    expect(await disk.exists(second)).toBe(false);
    expect(await disk.list(DIRECTORY)).toEqual(["db", "db.incoming"]);
    await writeStore(disk, second, "new");
    expect(await finishSwap(disk, DIRECTORY)).toEqual({ type: "none" });
    await expectSettled(disk, "after the start", false);
  });

  test("a decided swap must be finished before the next one begins", async () => {
    const disk = await newDisk(1);
    await writeStore(disk, await prepareIncoming(disk, DIRECTORY, INDEX), "new");
    await decideSwap(disk, DIRECTORY, INDEX);
    await expect(prepareIncoming(disk, DIRECTORY, 99)).rejects.toThrow(/finished before/);
  });

  test("a damaged or senseless marker stops everything and changes nothing", async () => {
    const disk = await newDisk(1);
    await writeStore(disk, await prepareIncoming(disk, DIRECTORY, INDEX), "new");
    await decideSwap(disk, DIRECTORY, INDEX);
    const marker = `${DIRECTORY}/db.switch`;
    const good = disk.peek(marker);
    for (let bit = 0; bit < good.byteLength * 8; bit++) {
      disk.flipBit(marker, bit >> 3, bit & 7);
      await expect(finishSwap(disk, DIRECTORY), `bit ${bit}`).rejects.toBeInstanceOf(SnapshotSwapError);
      disk.flipBit(marker, bit >> 3, bit & 7);
    }
    const names = await disk.list(DIRECTORY);
    await disk.rename(`${DIRECTORY}/db`, "data/db");
    await disk.rename(`${DIRECTORY}/db.incoming-000000000000002a`, "data/incoming");
    await expect(finishSwap(disk, DIRECTORY)).rejects.toBeInstanceOf(SnapshotSwapError);
    await disk.rename("data/db", `${DIRECTORY}/db`);
    await disk.rename("data/incoming", `${DIRECTORY}/db.incoming-000000000000002a`);
    expect(await disk.list(DIRECTORY)).toEqual(names);
    await recover(disk);
    await expectSettled(disk, "after all", false);
  });

  test("an absent directory needs nothing", async () => {
    expect(await finishSwap(new ModelDisk(), "nowhere")).toEqual({ type: "none" });
  });

  test.each(["kill", "power-loss"] as const)(
    "BS5: after a %s at any step the store is the old or the new one as a whole, as the WAL says",
    async (kind) => {
      const probe = await newDisk(1);
      const before = probe.events;
      await install(probe);
      const steps = probe.events - before;
      expect(steps).toBeGreaterThan(25);
      const seen = new Set<boolean>();
      for (let step = 1; step <= steps; step++) {
        for (let seed = 1; seed <= (kind === "kill" ? 1 : 8); seed++) {
          const what = `${kind} at step ${step}, seed ${seed}`;
          const disk = await newDisk(seed);
          disk.dieAt(disk.events + step);
          await install(disk).then(
            () => expect(step, what).toBe(steps),
            () => undefined,
          );
          disk.crash(kind, seededRandom(seed * 1000 + step));
          const { wanted } = await recover(disk);
          seen.add(wanted);
          await expectSettled(disk, what, wanted);
        }
      }
      expect([...seen].sort()).toEqual([false, true]);
    },
  );

  test("BS5: also when the start that finishes it crashes at any step", async () => {
    const probe = await newDisk(1);
    const before = probe.events;
    await install(probe);
    const steps = probe.events - before;
    for (let step = 1; step < steps; step++) {
      for (let again = 1; ; again++) {
        const what = `crash at step ${step}, again at ${again}`;
        const disk = await newDisk(step);
        disk.dieAt(disk.events + step);
        await install(disk).catch(() => undefined);
        disk.crash("power-loss", seededRandom(step));
        disk.dieAt(disk.events + again);
        let finished = true;
        await recover(disk).catch(() => {
          finished = false;
        });
        disk.crash("power-loss", seededRandom(again));
        const { wanted } = await recover(disk);
        await expectSettled(disk, what, wanted);
        if (finished) break;
      }
    }
  });

  test("a disk error at any step is reported, and the next start settles it", async () => {
    for (const fault of ["sync", "space"] as const) {
      const disk = await newDisk(3);
      const incoming = await prepareIncoming(disk, DIRECTORY, INDEX);
      await writeStore(disk, incoming, "new");
      if (fault === "sync") disk.faults.syncError = "forever";
      else disk.faults.freeBytes = 5;
      await expect(decideSwap(disk, DIRECTORY, INDEX)).rejects.toThrow();
      disk.faults.syncError = undefined;
      disk.faults.freeBytes = undefined;
      disk.crash("power-loss");
      await recover(disk);
      await expectSettled(disk, fault, false);
    }
  });
});
