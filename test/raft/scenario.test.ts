import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { setVerify } from "../../src/base/assert.ts";
import { runScenario } from "./scenario.ts";

setVerify(true);

const DIRECTORY = join(import.meta.dirname, "scenarios");

for (const file of readdirSync(DIRECTORY).sort()) {
  test(file, () => {
    const path = join(DIRECTORY, file);
    const text = readFileSync(path, "utf8");
    const now = runScenario(text);
    if (process.env.UPDATE === "1") writeFileSync(path, now);
    else expect(now).toBe(text);
  });
}
