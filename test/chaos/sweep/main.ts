/**
 * The crash-point sweep: `npm run sweep [-- --operations N --seed S --quick]`. A fixed workload; at every change of disk and store a kill and several power losses, each of
 * which must boot with everything that was acknowledged; then damage to log, store, snapshot and backup, which must never go unnoticed. The last line is
 * `N passed, N failed`: images that were checked.
 */
import { parseArgs } from "node:util";
import { type SweepReport, sweepCrashPoints } from "./crash-points.ts";
import { type DamageReport, sweepDamage } from "./damage.ts";

const { values } = parseArgs({
  options: {
    operations: { type: "string", default: "300" },
    seed: { type: "string" },
    quick: { type: "boolean", default: false },
  },
});
const operations = Number(values.operations);
if (!Number.isSafeInteger(operations) || operations < 1) {
  console.error("--operations is a positive number");
  process.exit(2);
}
const seed = values.seed === undefined ? undefined : Number(values.seed);
if (seed !== undefined && !Number.isSafeInteger(seed)) {
  console.error("--seed is a number");
  process.exit(2);
}
const startedMs = performance.now();
const thin = values.quick ? 10 : 1;
let passed = 0;
let failed = 0;

/** One line every few seconds. */
function progress(what: string): (text: string) => void {
  let lastMs = performance.now();
  return (text) => {
    if (performance.now() - lastMs < 5000) return;
    lastMs = performance.now();
    console.log(`  ${((lastMs - startedMs) / 1000).toFixed(0)} s  ${what}: ${text}`);
  };
}

function showViolations(violations: readonly string[]): void {
  for (const violation of violations.slice(0, 20)) console.log(`  FAILED ${violation}`);
  if (violations.length > 20) console.log(`  ... and ${violations.length - 20} more`);
}

function showCrashes(what: string, report: SweepReport): void {
  const kinds = Object.entries(report.kinds)
    .filter(([kind]) => kind !== "end")
    .map(([kind, count]) => `${count} ${kind}`)
    .join(", ");
  console.log(`${what}: ${report.points} points (${kinds})`);
  console.log(`  ${report.images} images, ${report.checked} of them different and booted, ${report.violations.length} wrong`);
  if (report.snapshotsInstalled > 0) console.log(`  ${report.snapshotsInstalled} snapshots installed`);
  showViolations(report.violations);
  passed += report.checked - report.violations.length;
  failed += report.violations.length;
}

function showDamage(what: string, report: DamageReport): void {
  console.log(`${what}:`);
  for (const { what: kind, images, refused, whole, hidden } of report.kinds) {
    const unseen = hidden === 0 ? "" : `, ${hidden} hid the newest group as docs/FORMATS.md says`;
    console.log(
      `  ${kind}: ${images} images, ${refused} refused, ${whole} had everything${unseen}, ${images - refused - whole - hidden} wrong`,
    );
    passed += refused + whole + hidden;
  }
  failed += report.violations.length;
  showViolations(report.violations);
}

showCrashes(
  `one member, ${operations} operations, a crash at every change`,
  await sweepCrashPoints({
    operations,
    ...(seed === undefined ? {} : { seed }),
    members: 1,
    powerLosses: 4,
    every: thin,
    againEvery: 8,
    onProgress: progress("one member"),
  }),
);
showCrashes(
  `three members, ${operations} operations, everything down at every ${7 * thin}th change`,
  await sweepCrashPoints({
    operations,
    ...(seed === undefined ? {} : { seed }),
    members: 3,
    powerLosses: 3,
    every: 7 * thin,
    againEvery: 8,
    onProgress: progress("three members"),
  }),
);
showDamage(
  "damage, with a log that was cut behind checkpoints",
  await sweepDamage({ operations, checkpoints: true, every: thin, bootEvery: 16, onProgress: progress("damage") }),
);
showDamage(
  "damage, with a log that is all there",
  await sweepDamage({
    operations: Math.min(operations, 60),
    checkpoints: false,
    every: thin,
    bootEvery: 16,
    onProgress: progress("damage"),
  }),
);
console.log(
  `took ${((performance.now() - startedMs) / 1000).toFixed(0)} s; ${failed === 0 ? "nothing acknowledged was lost, every image booted, no damage went unnoticed" : "NOT all right"}`,
);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
