/**
 * How fast the log takes appends: closed loops of 1 to 1000 writers on the real disk, and the cost of encoding alone on a disk in memory.
 * Run: node --import tsx test/bench/wal.bench.ts [directory]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Disk, DiskFile } from "../../src/base/disk.ts";
import { systemDisk } from "../../src/base/disk-system.ts";
import { Wal } from "../../src/wal/index.ts";
import { TEST_METADATA } from "../support/wal-model.ts";

const VALUE_BYTES = 300;
const data = Buffer.alloc(VALUE_BYTES, 7);

/** Takes everything and keeps nothing. */
function nullDisk(): Disk {
  const file: DiskFile = {
    read: async (_, length) => new Uint8Array(length),
    write: async () => undefined,
    writeNow: () => undefined,
    sync: async () => undefined,
    syncNow: () => undefined,
    sizeBytes: async () => 0,
    truncate: async () => undefined,
    close: async () => undefined,
  };
  return {
    makeDirectory: async () => undefined,
    list: async () => [],
    open: async () => file,
    rename: async () => undefined,
    remove: async () => undefined,
    removeTree: async () => undefined,
    syncDirectory: async () => undefined,
    exists: async () => true,
  };
}

async function run(name: string, disk: Disk, directory: string, writers: number, appends: number): Promise<void> {
  const wal = await Wal.create({ disk, directory, metadata: TEST_METADATA });
  const latencies: number[] = [];
  let next = 1;
  let open = writers;
  const cpu = process.cpuUsage();
  const start = performance.now();
  await new Promise<void>((resolve, reject) => {
    const append = (): void => {
      if (next > appends) {
        open -= 1;
        if (open === 0) resolve();
        return;
      }
      const begun = performance.now();
      wal.append({ entries: [{ index: next++, term: 1, type: "normal", data }], mustSync: true }, (error) => {
        if (error !== undefined) reject(error);
        latencies.push(performance.now() - begun);
        append();
      });
    };
    for (let i = 0; i < writers; i++) append();
  });
  const ms = performance.now() - start;
  const used = process.cpuUsage(cpu);
  latencies.sort((a, b) => a - b);
  const at = (part: number): string => `${((latencies[Math.floor(latencies.length * part)] ?? 0) * 1000).toFixed(0)} us`;
  console.log(
    `${name}, ${writers} writers: ${((appends / ms) * 1000).toFixed(0)} appends/s, p50 ${at(0.5)}, p99 ${at(0.99)}, ` +
      `CPU ${((used.user + used.system) / appends).toFixed(1)} us each`,
  );
  await wal.close();
  if (disk.exists.length > 0 && name === "real disk") {
    const begun = performance.now();
    const { wal: again, contents } = await Wal.open({ disk, directory });
    console.log(`  open with ${contents.entries.length} entries: ${(performance.now() - begun).toFixed(0)} ms`);
    await again.close();
  }
}

const root = await mkdtemp(join(process.argv[2] ?? tmpdir(), "holdfast-wal-bench-"));
try {
  for (const [writers, appends] of [
    [1, 3000],
    [10, 20_000],
    [100, 100_000],
    [1000, 300_000],
  ] as const) {
    await run("real disk", systemDisk(), join(root, String(writers)), writers, appends);
  }
  await run("no disk", nullDisk(), "none", 1, 300_000);
  await run("no disk", nullDisk(), "none", 1000, 1_000_000);
} finally {
  await rm(root, { recursive: true, force: true });
}
