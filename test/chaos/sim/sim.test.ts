/** A few seeds of the simulator, its determinism, and every plan that ever failed. The long hunt is `npm run sim`. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { makePlan } from "./plan.ts";
import { readRegression, regressionNames } from "./regressions.ts";
import { runPlan } from "./run.ts";

/** Some seconds are enough on a machine that has nothing else to do. */
const PATIENCE_MS = 180_000;
const MAIN = fileURLToPath(new URL("./main.ts", import.meta.url));

describe("the simulator", () => {
  it.each([3, 4, 5, 6])("seed %i: nothing wrong", { timeout: PATIENCE_MS }, async (seed) => {
    const plan = makePlan(seed, { durationMs: 6000 });
    // The hunt looks longer whether it stays calm.
    const report = await runPlan({ ...plan, liveness: { ...plan.liveness, calmTimeouts: 10 } }, { verify: true });
    expect(report.violation).toBeUndefined();
    expect(report.answered).toBeGreaterThan(5);
  });

  it("does the same twice, and in another process", { timeout: PATIENCE_MS }, async () => {
    const seed = 11;
    const plan = makePlan(seed, { members: 3, durationMs: 6000 });
    const first = await runPlan(plan);
    const again = await runPlan(plan);
    expect(again).toEqual(first);
    const elsewhere = execFileSync(
      process.execPath,
      ["--import", "tsx", MAIN, "--seed", String(seed), "--members", "3", "--minutes", "0.1", "--quiet"],
      { encoding: "utf8" },
    );
    expect(elsewhere).toContain(`trace hash ${first.hash}`);
  });

  it("does not do the same with another seed", { timeout: PATIENCE_MS }, async () => {
    const [a, b] = [await runPlan(makePlan(1, { durationMs: 500 })), await runPlan(makePlan(2, { durationMs: 500 }))];
    expect(a.hash).not.toBe(b.hash);
  });
});

describe("plans that failed once", () => {
  it.each(regressionNames())("%s", { timeout: PATIENCE_MS }, async (name) => {
    const { plan } = readRegression(name);
    const { violation } = await runPlan(plan);
    expect(violation?.message).toBeUndefined();
  });
});
