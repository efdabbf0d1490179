/** `npm run recipes:faults -- --runs 200 --seed 1 --only locks,queues`: recipes under many seeds of faults; the last line is `N passed, N failed`. */
import { parseArgs } from "node:util";
import { faultRun } from "../../src/testing/index.ts";
import { BODIES } from "./bodies.ts";

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "100" },
    seed: { type: "string", default: "1" },
    only: { type: "string", default: Object.keys(BODIES).join(",") },
    duration: { type: "string", default: "20000" },
  },
});
const first = Number(values.seed);
const durationMs = Number(values.duration);
let passed = 0;
let failed = 0;
for (let seed = first; seed < first + Number(values.runs); seed += 1) {
  for (const name of values.only.split(",")) {
    const body = BODIES[name];
    if (body === undefined) throw new Error(`there is no ${name}; there are ${Object.keys(BODIES).join(", ")}`);
    const began = performance.now();
    try {
      const { value, faults, simulatedMs } = await faultRun({ seed, durationMs, body });
      passed += 1;
      const ms = Math.round(performance.now() - began);
      console.log(`${name} seed ${seed}: ${value} in ${simulatedMs} ms of simulated time (${ms} ms), ${faults.length} faults and healings`);
    } catch (error) {
      failed += 1;
      console.error(`${name} FAILED: ${error instanceof Error ? error.message : String(error)}`);
      if (error instanceof Error && error.cause instanceof Error) console.error(error.cause.stack);
    }
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
