/** A few seeds of the simulator, its determinism, and every plan that ever failed. The long hunt is `npm run sim`. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { makePlan } from "./plan.ts";
import { readRegression, regressionNames } from "./regressions.ts";
import { runPlan } from "./run.ts";

const MAIN = fileURLToPath(new URL("./main.ts", import.meta.url));

describe("the simulator", () => {
  it.each([3, 4, 5, 6, 7, 8])("seed %i: nothing wrong", async (seed) => {
    const report = await runPlan(makePlan(seed, { durationMs: 15_000 }), { verify: true });
    expect(report.violation).toBeUndefined();
    expect(report.answered).toBeGreaterThan(10);
  });

  it("does the same twice, and in another process", async () => {
    const seed = 11;
    const first = await runPlan(makePlan(seed));
    const again = await runPlan(makePlan(seed));
    expect(again).toEqual(first);
    const elsewhere = execFileSync(process.execPath, ["--import", "tsx", MAIN, "--seed", String(seed), "--quiet"], { encoding: "utf8" });
    expect(elsewhere).toContain(`trace hash ${first.hash}`);
  });

  it("does not do the same with another seed", async () => {
    const [a, b] = [await runPlan(makePlan(1, { durationMs: 5000 })), await runPlan(makePlan(2, { durationMs: 5000 }))];
    expect(a.hash).not.toBe(b.hash);
  });
});

describe("plans that failed once", () => {
  it.each(regressionNames())("%s", async (name) => {
    const { plan } = readRegression(name);
    const { violation } = await runPlan(plan);
    expect(violation?.message).toBeUndefined();
  });
});
