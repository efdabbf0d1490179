/** Data directories on a small file system that is filled to the last byte. */
import { spawnSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { sleep, until } from "../../support/server-process.ts";
import type { Cluster, Member } from "../cluster.ts";
import { type Scenario, ScenarioSkipped, type Stage } from "../scenario.ts";
import type { Load } from "../verify.ts";

class SmallDisk {
  readonly path: string;

  constructor(path: string, megabytes: number) {
    this.path = path;
    mkdirSync(path, { recursive: true });
    const { status, error } = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m`, "tmpfs", path]);
    if (status !== 0) throw new ScenarioSkipped(`no small file system can be mounted here (${error?.message ?? `status ${status}`})`);
  }

  /** Takes every byte that is left. */
  fill(): void {
    const file = openSync(join(this.path, "filler"), "a");
    try {
      for (let size = 1 << 20; size >= 1; size >>= 1) {
        const block = Buffer.alloc(size);
        try {
          for (;;) if (writeSync(file, block) < size) break;
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
        }
      }
    } finally {
      closeSync(file);
    }
  }

  free(): void {
    rmSync(join(this.path, "filler"), { force: true });
  }

  unmount(): void {
    spawnSync("umount", ["-l", this.path]);
  }
}

const DISK_MB = 256;

/** What a member with a full disk does: goes on, or ends with a clear word. */
async function watchFullMember(stage: Stage, cluster: Cluster, member: Member): Promise<void> {
  const ending = await Promise.race([member.process?.ended, sleep(15_000)]);
  const output = cluster.output(member);
  const line = output.split("\n").findLast((text) => /no space|ENOSPC|disk is full/i.test(text));
  stage.note(
    `with a full disk ${member.name} ${ending === undefined ? "goes on" : `ended with status ${ending.code}`}; it says: ${line?.slice(0, 220) ?? "nothing"}`,
  );
  stage.require(line !== undefined, "the member does not say that its disk is full");
}

/** When there is room again: by itself, or after a restart. */
async function afterwards(stage: Stage, cluster: Cluster, member: Member, load: Load): Promise<void> {
  const freed = performance.now();
  let restarted = false;
  await until(`${member.name} takes writes again`, 60_000, async () => {
    if (!member.isRunning) {
      restarted = true;
      await cluster.start(member);
    }
    return load.workload.history.findLast(
      (one) => one.member === member.name && one.outcome === "yes" && one.call > freed && one.exchange.kind === "put",
    );
  });
  stage.note(
    `there is room: ${member.name} takes writes again ${restarted ? "after a restart" : "by itself"}, ${Math.round(performance.now() - freed)} ms later`,
  );
}

export const DISK_FULL_SCENARIOS: readonly Scenario[] = [
  {
    name: "disk-full",
    about:
      "a lone member's disk is filled to the last byte under load, freed, and filled again: nothing acknowledged is lost, and it says what is wrong",
    quick: true,
    async run(stage) {
      const disk = new SmallDisk(join(stage.directory, "small"), DISK_MB);
      try {
        const cluster = stage.cluster(1, { directory: join(disk.path, "members"), flags: ["--snapshot-count", "500"] });
        const [member] = cluster.list;
        if (member === undefined) return;
        await cluster.startAll();
        const load = stage.load(cluster, { clients: 8, padding: 20_000 });
        for (let round = 0; round < (stage.long ? 5 : 2); round += 1) {
          await load.progress(200);
          disk.fill();
          await watchFullMember(stage, cluster, member);
          disk.free();
          await afterwards(stage, cluster, member, load);
        }
        // Killed in the state in which it ran out.
        await load.progress(100);
        disk.fill();
        await sleep(1000);
        await cluster.kill(member);
        disk.free();
        await cluster.start(member);
        stage.requireGood(await load.verdict());
      } finally {
        await stage.close();
        disk.unmount();
      }
    },
  },
  {
    name: "disk-full-follower",
    about: "three members, the disk of one is full: the others go on, it comes back when there is room",
    quick: false,
    async run(stage) {
      const disk = new SmallDisk(join(stage.directory, "small"), DISK_MB);
      try {
        const cluster = stage.cluster(3, { flags: ["--snapshot-count", "500"] });
        const [member] = cluster.list;
        if (member === undefined) return;
        (member.spec as { dataDir: string }).dataDir = join(disk.path, "data");
        await cluster.startAll();
        const load = stage.load(cluster, { clients: 9, padding: 5000 });
        for (let round = 0; round < 3; round += 1) {
          await load.progress(200);
          disk.fill();
          await watchFullMember(stage, cluster, member);
          await load.progress(200);
          disk.free();
          await afterwards(stage, cluster, member, load);
        }
        stage.requireGood(await load.verdict());
      } finally {
        await stage.close();
        disk.unmount();
      }
    },
  },
];
