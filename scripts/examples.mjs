/** `npm run examples`: runs every example to its end; each one checks its own results. The last line is `N passed, N failed`. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { runNode } from "./lib/child.mjs";
import { prepare, ROOT } from "./lib/setup.mjs";

prepare();
let passed = 0;
let failed = 0;
for (const file of readdirSync(join(ROOT, "examples")).sort()) {
  if (!file.endsWith(".ts")) continue;
  console.log(`== ${file}`);
  const { code, signal } = await runNode(["--import", "tsx", join(ROOT, "examples", file)]);
  if (code === 0) passed += 1;
  else {
    failed += 1;
    console.log(`${file} ended with ${signal ?? code}`);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
