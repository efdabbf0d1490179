/**
 * What the backends do per second: batches of 1 to 1000 rows, single and many reads, walks over everything. Rows of about 300 bytes, with
 * the applied row and a chain row in each batch as the server writes them.
 * Run: node --import tsx test/bench/backend.bench.ts [rows] [directory]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Backend, createBatch, LevelBackend, MemoryBackend, RowSpace } from "../../src/backend/index.ts";
import { seededRandom } from "../../src/base/random.ts";

const rows = Number(process.argv[2] ?? 1_000_000);
const random = seededRandom(1);
const noise = Buffer.from(Array.from({ length: 1 << 16 }, () => random.below(256)));

function rowKey(space: number, number: number): Uint8Array {
  const key = Buffer.alloc(18);
  key[0] = space;
  key.writeUIntBE(number, 3, 6);
  return key;
}

/** Half of it noise, half of it text. */
function value(number: number): Uint8Array {
  const bytes = Buffer.alloc(280, "some text in a value. ");
  noise.copy(bytes, 0, (number * 7919) % (noise.length - 140), ((number * 7919) % (noise.length - 140)) + 140);
  return bytes;
}

async function timed(name: string, units: number, work: () => Promise<void>): Promise<void> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  await work();
  const ms = performance.now() - start;
  const used = process.cpuUsage(cpu);
  console.log(
    `${name}: ${((units / ms) * 1000).toFixed(0)}/s, ${((ms / units) * 1000).toFixed(2)} us each, CPU ${((used.user + used.system) / units).toFixed(2)} us`,
  );
}

let chain = 0;

async function fill(backend: Backend, from: number, to: number, size: number): Promise<void> {
  for (let i = from; i < to; i += size) {
    const batch = createBatch();
    for (let j = i; j < Math.min(to, i + size); j++) batch.put(rowKey(RowSpace.revision, j), value(j));
    batch.put(rowKey(RowSpace.meta, 0), Buffer.alloc(28));
    batch.put(rowKey(RowSpace.chain, chain), Buffer.alloc(28));
    if (chain >= 1000) batch.delete(rowKey(RowSpace.chain, chain - 1000));
    chain += 1;
    await backend.write(batch);
  }
}

async function run(name: string, backend: Backend): Promise<void> {
  console.log(`-- ${name}`);
  let at = 0;
  for (const size of [1, 10, 100, 1000]) {
    const count = size === 1 ? Math.min(rows, 20_000) : size === 10 ? Math.min(rows, 100_000) : Math.min(rows, 300_000);
    await timed(`rows in batches of ${size}`, count, () => fill(backend, at, at + count, size));
    at += count;
  }
  if (at < rows) await fill(backend, at, rows, 1000);
  const total = Math.max(at, rows);
  await timed("checkpoint", 1, () => backend.checkpoint());
  const any = (): Uint8Array => rowKey(RowSpace.revision, random.below(total));
  await timed("getSync", 100_000, async () => {
    for (let i = 0; i < 100_000; i++) backend.getSync(any());
  });
  await timed("get, awaited one by one", 10_000, async () => {
    for (let i = 0; i < 10_000; i++) await backend.get(any());
  });
  for (const size of [10, 100, 1000]) {
    await timed(`getMany of ${size}`, 100_000, async () => {
      for (let i = 0; i < 100_000; i += size) await backend.getMany(Array.from({ length: size }, any));
    });
  }
  for (const keysOnly of [false, true]) {
    let longest = 0;
    await timed(keysOnly ? "walk, keys only" : "walk", total, async () => {
      const iterator = backend.iterate({ gte: rowKey(RowSpace.revision, 0), lt: rowKey(RowSpace.revision + 1, 0), keysOnly });
      let seen = 0;
      for (;;) {
        const slice = await iterator.next(1000, 1 << 20);
        if (slice.length === 0) break;
        seen += slice.length;
        const start = performance.now();
        await new Promise((resolve) => setImmediate(resolve));
        longest = Math.max(longest, performance.now() - start);
      }
      await iterator.close();
      if (seen !== total) throw new Error(`walked over ${seen} of ${total} rows`);
    });
    console.log(`  longest turn of the loop between slices: ${longest.toFixed(1)} ms`);
  }
  console.log(`size: ${((await backend.sizeBytes()) / 1e6).toFixed(0)} MB`);
  await timed("delete of half the rows, batches of 1000", total / 2, async () => {
    for (let i = 0; i < total; i += 2000) {
      const batch = createBatch();
      for (let j = i; j < Math.min(total, i + 2000); j += 2) batch.delete(rowKey(RowSpace.revision, j));
      await backend.write(batch);
    }
  });
  await timed("defragment", 1, () => backend.defragment());
  console.log(`size: ${((await backend.sizeBytes()) / 1e6).toFixed(0)} MB`);
}

const root = await mkdtemp(join(process.argv[3] ?? tmpdir(), "holdfast-backend-bench-"));
try {
  const level = await LevelBackend.open({ directory: join(root, "db") });
  await run("level", level);
  await level.close();
  await timed("level: open again", 1, async () => {
    await (await LevelBackend.open({ directory: join(root, "db") })).close();
  });
  chain = 0;
  await run("memory", new MemoryBackend());
} finally {
  await rm(root, { recursive: true, force: true });
}
