/** `npm test [-- vitest's arguments]`: all tests once; the last line is `N passed, N failed`. Installs and builds first, if need be. */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { runNode } from "./lib/child.mjs";
import { prepare, ROOT } from "./lib/setup.mjs";

prepare();
const results = join(ROOT, `.build/tests-${process.pid}.json`);
mkdirSync(join(ROOT, ".build"), { recursive: true });
const vitest = join(ROOT, "node_modules/vitest/vitest.mjs");
const { code, signal } = await runNode([
  vitest,
  "run",
  "--reporter=default",
  "--reporter=json",
  `--outputFile.json=${results}`,
  ...process.argv.slice(2),
]);
const { passed, failed } = count(results);
rmSync(results, { force: true });
// A run that was cut short, or that failed outside of any test, is not a passed one.
const atLeast = code === 0 && signal === null ? failed : Math.max(failed, 1);
console.log(`${passed} passed, ${atLeast} failed`);
process.exitCode = atLeast === 0 ? 0 : 1;

function count(path) {
  try {
    const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(path, "utf8"));
    // A file that could not be loaded, or whose preparations failed, has no failed test to count.
    const brokenFiles = testResults.filter(
      (file) => file.status === "failed" && !file.assertionResults.some((result) => result.status === "failed"),
    ).length;
    return { passed: numPassedTests, failed: numFailedTests + brokenFiles };
  } catch (error) {
    console.error(`no results: ${error.message}`);
    return { passed: 0, failed: 1 };
  }
}
