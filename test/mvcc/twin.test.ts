import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { LevelBackend, MemoryBackend } from "../../src/backend/index.ts";
import { MvccTwin } from "../support/mvcc-twin.ts";

/** HOLDFAST_MVCC_STEPS multiplies the work; HOLDFAST_MVCC_SEED moves the seeds. */
const FACTOR = Number(process.env.HOLDFAST_MVCC_STEPS ?? 1);
const SEED = Number(process.env.HOLDFAST_MVCC_SEED ?? 0);

describe("BV12: the store against the naive model", () => {
  it.each([1, 2, 3, 4])("random requests, small cache, seed %i", async (seed) => {
    const twin = new MvccTwin({ seed: SEED + seed, steps: 16_000 * FACTOR });
    await twin.run();
    for (const step of ["restart", "compact", "compactSlice", "hash", "slowRange", "not now"]) expect(twin.counts[step]).toBeGreaterThan(0);
    expect(twin.syncReads).toBeGreaterThan(0);
  });

  it.each([5, 6])("random requests on three keys, seed %i", async (seed) => {
    await new MvccTwin({ seed: SEED + seed, steps: 10_000 * FACTOR, keys: ["a", "b", "c"] }).run();
  });

  it("random requests, large cache, many keys", async () => {
    const keys = Array.from({ length: 400 }, (_, i) => `key/${i}`);
    await new MvccTwin({ seed: SEED + 7, steps: 10_000 * FACTOR, keys, cacheBytesMax: 10_000_000 }).run();
  });

  it("compactions, restarts and hashes all the time", async () => {
    const weights = { compact: 10, compactSlice: 20, hash: 10, history: 10, restart: 3 };
    await new MvccTwin({ seed: SEED + 8, steps: 8000 * FACTOR, weights }).run();
  });

  it("on the memory backend", async () => {
    await new MvccTwin({ seed: SEED + 9, steps: 6000 * FACTOR, backend: new MemoryBackend() }).run();
  });

  it("on LevelDB", async () => {
    const directory = await mkdtemp(join(tmpdir(), "holdfast-mvcc-"));
    const backend = await LevelBackend.open({ directory: join(directory, "db") });
    try {
      await new MvccTwin({ seed: SEED + 10, steps: 6000 * FACTOR, backend }).run();
    } finally {
      await backend.close();
      await rm(directory, { recursive: true, force: true });
    }
  });
});
