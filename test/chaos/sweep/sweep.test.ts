/** A thin slice of `npm run sweep`, and proof that it would notice. */
import { describe, expect, test, vi } from "vitest";
import * as api from "../../../src/api/index.ts";
import { utf8Bytes } from "../../../src/base/bytes.ts";
import { MemoryNetwork } from "../../../src/server/peer/index.ts";
import { type SweepOptions, sweepCrashPoints } from "./crash-points.ts";
import { sweepDamage } from "./damage.ts";
import { Loop } from "./loop.ts";
import { bootMember, Image } from "./machine.ts";

// Much computing, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const thin: SweepOptions = { operations: 60, members: 1, powerLosses: 1, every: 7, againEvery: 10 };

describe("a crash and a power loss at points of a workload", () => {
  test("K5, K6, BW1, BW2, BW10, BS10: one member boots with everything that was acknowledged, and goes on", async () => {
    const report = await sweepCrashPoints(thin);
    expect(report.violations).toEqual([]);
    expect(report.checked).toBeGreaterThan(50);
    for (const kind of ["write", "sync", "rename", "create", "truncate", "sync-directory", "remove", "batch", "checkpoint"]) {
      expect(report.kinds[kind], kind).toBeGreaterThan(0);
    }
  });

  test("K5, K11, BW11, BS4, BS5: three members, all down at once, also in the middle of a snapshot's installation", async () => {
    const report = await sweepCrashPoints({ ...thin, members: 3, every: 97 });
    expect(report.violations).toEqual([]);
    expect(report.checked).toBeGreaterThan(20);
    expect(report.snapshotsInstalled).toBeGreaterThan(0);
  });

  test.each(["wal-skip-entry-sync", "wal-drop-directory-sync"])("a log with %s does not pass", async (mutant) => {
    const report = await sweepCrashPoints({ ...thin, powerLosses: 2, mutants: new Set([mutant]), stopAtFirst: true });
    expect(report.violations.length).toBeGreaterThan(0);
  });
});

test("BW16, BW20, BW21, BS7: damage to log, store, snapshot and backup is refused or means nothing", async () => {
  const report = await sweepDamage({ operations: 30, checkpoints: true, every: 61, bootEvery: 10 });
  expect(report.violations).toEqual([]);
  expect(report.kinds.length).toBeGreaterThan(15);
  for (const kind of ["a bit flipped in a state snapshot", "a bit flipped in a backup", "a bit flipped in a row of the store (m)"]) {
    const count = report.kinds.find(({ what }) => what === kind);
    expect(count?.refused, kind).toBe(count?.images);
  }
});

test("rows without checksums would let damage pass", async () => {
  const mutants = new Set(["skip-row-checksum"]);
  const report = await sweepDamage({
    operations: 40,
    checkpoints: true,
    every: 1,
    bootEvery: 1,
    onlyStore: true,
    mutants,
    stopAtFirst: true,
  });
  expect(report.violations).toHaveLength(1);
});

test("K12: a clock that shows the same time at every boot lets no entry of an earlier life answer a new request", async () => {
  const put = (value: string): api.PutRequest => api.PutRequest.create({ key: utf8Bytes("k"), value: utf8Bytes(value) });
  const image = new Image();
  const boot = async (on: Image) => {
    const loop = new Loop();
    const network = new MemoryNetwork({ clock: loop.clock, defer: loop.defer });
    return { loop, server: await loop.finish(bootMember({ loop, network, image: on, name: "a", names: ["a"] })) };
  };
  const first = await boot(image);
  await first.loop.finish(first.server.ready);
  const revisions: (number | undefined)[] = [];
  for (let i = 0; i < 20; i++) revisions.push((await first.loop.finish(first.server.services.kv.put(put(`${i}`), {}))).header?.revision);
  expect(revisions[19]).toBe(21);
  const left = image.clone();
  // The store is behind, so that the whole log is applied again while the first request waits.
  await left.disk.removeTree("/data/member/snap");
  left.crash("kill", { below: () => 0, chance: () => false, bits64: () => 0n });
  const second = await boot(left);
  const answers = await second.loop.finish(
    Promise.all(Array.from({ length: 5 }, (_, i) => second.server.services.kv.put(put(`new ${i}`), {}))),
  );
  expect(answers.map(({ header }) => header?.revision)).toEqual([22, 23, 24, 25, 26]);
});
