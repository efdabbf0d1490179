import { describe, expect, test } from "vitest";
import type { Clock } from "../base/clock.ts";
import { silentLogger } from "../base/logger.ts";
import type { Entry } from "../raft/index.ts";
import { Applier } from "./applier.ts";
import type { Executor } from "./apply/execute.ts";
import type { State } from "./apply/state.ts";

const entriesOf = (from: number, to: number): Entry[] =>
  Array.from({ length: to - from + 1 }, (_, n) => ({ term: 1, index: from + n, type: "normal", data: new Uint8Array(0) }));

/** An executor that only notes, and a store whose every read has to be let go by hand. */
function stage() {
  const applied: number[] = [];
  const failures: Error[] = [];
  const reads: (() => void)[] = [];
  const state = {
    appliedIndex: 0,
    writer: { applyMayProceed: true, drained: () => Promise.resolve() },
    store: {
      prefetch: () => new Promise((resolve) => reads.push(() => resolve({ release: () => undefined }))),
    },
  };
  const executor = {
    decode: (entries: readonly Entry[]) => entries.map(() => undefined),
    reads: () => ["something"],
    execute: (_state: unknown, entries: readonly Entry[]) => {
      for (const { index } of entries) applied.push(index);
      state.appliedIndex = applied.at(-1) ?? 0;
    },
  };
  const applier = new Applier({
    executor: executor as unknown as Executor,
    state: () => state as unknown as State,
    clock: { monotonicMs: () => 0, wallMs: () => 0, timer: () => ({ cancel: () => undefined }) } as unknown as Clock,
    defer: (fn) => fn(),
    logger: silentLogger,
    warningMs: 1000,
    onApplied: () => undefined,
    onFatal: (error) => failures.push(error),
  });
  const readNext = async (): Promise<void> => {
    reads.shift()?.();
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { applied, applier, failures, readNext };
}

describe("the applier", () => {
  test("applies each entry once and in order, whatever arrives while rows are read", async () => {
    const { applied, applier, failures, readNext } = stage();
    // Each of these comes while what came before is waiting for its rows.
    applier.push(entriesOf(1, 2));
    applier.push(entriesOf(3, 5));
    await readNext();
    applier.push(entriesOf(6, 6));
    await readNext();
    applier.push(entriesOf(7, 9));
    await readNext();
    await readNext();
    expect(applied).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(failures).toEqual([]);
    await applier.close();
  });

  test("applies a long backlog in pieces, and what arrives meanwhile behind it", async () => {
    const { applied, applier, readNext } = stage();
    applier.push(entriesOf(1, 1000));
    for (let next = 1001; next <= 1010; next += 1) {
      await readNext();
      applier.push(entriesOf(next, next));
    }
    for (let n = 0; n < 10; n += 1) await readNext();
    expect(applied).toEqual(Array.from({ length: 1010 }, (_, n) => n + 1));
    await applier.close();
  });
});
