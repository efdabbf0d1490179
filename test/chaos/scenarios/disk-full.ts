/** Data directories on a small file system that is filled to the last byte. */
import { spawnSync } from "node:child_process";
import { closeSync, cpSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs";
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

  /** Everything on it is gone then; with `keep` it is copied there before. */
  unmount(keep?: string): void {
    this.free();
    if (keep !== undefined) cpSync(this.path, keep, { recursive: true });
    spawnSync("umount", ["-l", this.path]);
  }
}

/** Room for the log's segments, which are made in advance, and little else. */
const DISK_MB = 256;

interface Victim {
  readonly stage: Stage;
  readonly cluster: Cluster;
  readonly member: Member;
  readonly disk: SmallDisk;
  readonly load: Load;
}

async function withSmallDisk(stage: Stage, size: number, padding: number, run: (victim: Victim) => Promise<void>): Promise<void> {
  const disk = new SmallDisk(join(stage.directory, "small"), DISK_MB);
  let keep: string | undefined = join(stage.directory, "small-copy");
  try {
    const cluster = stage.cluster(size, { flags: ["--snapshot-count", "500"], dataDirectories: { n1: join(disk.path, "data") } });
    await cluster.startAll();
    await run({ stage, cluster, member: cluster.member("n1"), disk, load: stage.load(cluster, { clients: 8 + size, padding }) });
    keep = undefined;
  } finally {
    await stage.close();
    disk.unmount(keep);
  }
}

/** Fills the disk, waits until clients and the log hear of it, leaves it so for a while, and frees it. The member must serve again by itself. */
async function fillAndFree({ stage, cluster, member, disk, load }: Victim, meanwhile: () => Promise<unknown>): Promise<void> {
  const isOurs = stage.kind.name === "holdfast";
  const from = performance.now();
  const written = cluster.output(member).length;
  disk.fill();
  const line = await until(`${member.name} says that its disk is full`, 60_000, () =>
    cluster
      .output(member)
      .slice(written)
      .split("\n")
      .find((text) => /no space|out of space|ENOSPC|disk is full/i.test(text)),
  );
  stage.note(`${member.name} says: ${line.slice(0, 200)}`);
  if (isOurs) {
    const told = await until("clients are told that there is no space", 60_000, () =>
      load.workload.history.findLast((one) => one.member === member.name && one.call > from && /space/i.test(one.why)),
    );
    stage.note(`clients are told: ${told.why}`);
    const health = await fetch(`${member.spec.clientUrl}/health`, { signal: AbortSignal.timeout(5000) });
    stage.require(health.status === 503, `the health of a member without space is ${health.status} ${await health.text()}`);
  }
  await meanwhile();
  disk.free();
  const freed = performance.now();
  await until(`${member.name} takes writes again`, 60_000, async () => {
    // The reference ends, and somebody starts it again.
    if (!isOurs && !member.isRunning) await cluster.start(member);
    return load.workload.history.findLast(
      (one) => one.member === member.name && one.outcome === "yes" && one.call > freed && one.exchange.kind === "put",
    );
  });
  stage.require(!isOurs || (member.isRunning && member.run === 1), `${member.name} has ended`);
  stage.note(`there is room: ${member.name} takes writes again by itself, ${Math.round(performance.now() - freed)} ms later`);
}

export const DISK_FULL_SCENARIOS: readonly Scenario[] = [
  {
    name: "disk-full",
    about:
      "a lone member's disk is filled to the last byte under load, freed, and filled again: nothing acknowledged is lost, it says what is wrong and serves again by itself",
    quick: true,
    run: (stage) =>
      withSmallDisk(stage, 1, 20_000, async (victim) => {
        const { cluster, member, disk, load } = victim;
        for (let round = 0; round < stage.rounds(2, 6); round += 1) {
          await load.progress(150);
          await fillAndFree(victim, () => sleep(stage.random.below(3000)));
        }
        // Killed in the state in which it ran out.
        await load.progress(100);
        disk.fill();
        await sleep(500 + stage.random.below(1500));
        await cluster.kill(member);
        disk.free();
        await cluster.start(member);
        stage.requireGood(await load.verdict());
      }),
  },
  {
    name: "disk-full-follower",
    about: "three members, the disk of one is full: the others go on, it comes back by itself when there is room",
    quick: false,
    run: (stage) =>
      withSmallDisk(stage, 3, 5000, async (victim) => {
        for (let round = 0; round < 4; round += 1) {
          await victim.load.progress(200);
          await fillAndFree(victim, () => victim.load.progress(round % 2 === 0 ? 200 : 1500));
        }
        stage.requireGood(await victim.load.verdict());
      }),
  },
];
