/** Plans that once failed, kept so that they are run again with every `npm test`. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Plan } from "./plan.ts";

export interface Regression {
  /** Which property did not hold, and how that was put. */
  readonly check: string;
  readonly message: string;
  readonly plan: Plan;
}

const DIRECTORY = fileURLToPath(new URL("./regressions", import.meta.url));

export function regressionNames(): string[] {
  return readdirSync(DIRECTORY)
    .filter((name) => name.endsWith(".json"))
    .sort();
}

export function readRegression(name: string): Regression {
  return JSON.parse(readFileSync(join(DIRECTORY, name), "utf8")) as Regression;
}

/** Gives the path of the new file. */
export function storeRegression(regression: Regression): string {
  mkdirSync(DIRECTORY, { recursive: true });
  const path = join(DIRECTORY, `${regression.check.toLowerCase()}-seed-${regression.plan.seed}.json`);
  writeFileSync(path, `${JSON.stringify(regression, undefined, 2)}\n`);
  return path;
}
