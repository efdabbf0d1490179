/**
 * `npm run sim`: whole clusters in simulated time, one per seed, with every fault that the plan of the seed has. The last line is `N passed, N failed`. A seed that
 * fails is made smaller and stored among the regressions; `--seed S` runs one seed again and tells what happens in it.
 */
import { availableParallelism } from "node:os";
import { relative } from "node:path";
import { makePlan, type Plan, type PlanOptions } from "./plan.ts";
import { Pool } from "./pool.ts";
import { readRegression, regressionNames, storeRegression } from "./regressions.ts";
import { runPlan } from "./run.ts";
import { Summary } from "./summary.ts";
import { type PlainReport, plainReport } from "./worker.ts";

const USAGE = `npm run sim -- [options]
  --seeds N         so many seeds; without it as many as fit into --seconds
  --from S          the first seed, 1 otherwise
  --seconds N       begin no seed after so many seconds of real time; 120 without --seeds
  --minutes M       simulated length of each run's faults, chosen by the seed otherwise
  --members K       members at the beginning, 1 to 7, chosen by the seed otherwise
  --jobs J          runs side by side, otherwise one per core, two at most
  --twice P         run P percent of the seeds twice and compare (10)
  --no-shrink       do not make failing seeds smaller, and do not store them
  --seed S          replay this seed and show what happens
  --regression F    replay a stored plan (part of its name) and show what happens
  --quiet           with --seed or --regression: only the verdict
  --mutant NAME     with that deliberate fault in the members`;

interface Options {
  seeds: number | undefined;
  from: number;
  seconds: number | undefined;
  minutes: number | undefined;
  members: number | undefined;
  jobs: number;
  twice: number;
  shrink: boolean;
  seed: number | undefined;
  regression: string | undefined;
  quiet: boolean;
  mutants: string[];
}

/** Real seconds without any option: CI waits for it. */
const SECONDS_DEFAULT = 120;
const SHRINK_RUNS_MAX = 200;
/** Real time for making all failing seeds of a hunt smaller, together; without a limit of `--seconds` ten times as much. */
const SHRINK_MS_MAX = 60_000;
/** A run that began in time may go on for so long. */
const SHRINK_GRACE_MS = 30_000;
const PROGRESS_MS = 10_000;
const RUN_TIMEOUT_MS = 600_000;
/** With a limit of `--seconds`, where somebody waits: a run, and another one to compare, that begin at the last moment must end, too. */
const RUN_TIMEOUT_BOUNDED_MS = 120_000;

function readOptions(words: readonly string[]): Options | string {
  const options: Options = {
    seeds: undefined,
    from: 1,
    seconds: undefined,
    minutes: undefined,
    members: undefined,
    jobs: Math.min(2, availableParallelism()),
    twice: 10,
    shrink: true,
    seed: undefined,
    regression: undefined,
    quiet: false,
    mutants: [],
  };
  const rest = [...words];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === "--no-shrink") options.shrink = false;
    else if (word === "--quiet") options.quiet = true;
    else if (word === "--regression") options.regression = rest.shift() ?? "";
    else if (word === "--mutant") options.mutants.push(rest.shift() ?? "");
    else {
      const value = Number(rest.shift());
      if (!Number.isFinite(value) || value < 0) return `${word} needs a number`;
      if (word === "--seeds") options.seeds = value;
      else if (word === "--from") options.from = value;
      else if (word === "--seconds") options.seconds = value;
      else if (word === "--minutes") options.minutes = value;
      else if (word === "--members") options.members = value;
      else if (word === "--jobs") options.jobs = Math.max(1, value);
      else if (word === "--twice") options.twice = value;
      else if (word === "--seed") options.seed = value;
      else return `what is ${word}?`;
    }
  }
  if (options.members !== undefined && (options.members < 1 || options.members > 7)) return "--members is from 1 to 7";
  return options;
}

function planOptions(options: Options): PlanOptions {
  return { members: options.members, durationMs: options.minutes === undefined ? undefined : Math.round(options.minutes * 60_000) };
}

/** Runs one plan here, with its story on standard output. True if nothing is wrong with it. */
async function replay(plan: Plan, options: Options): Promise<boolean> {
  const mutants = options.mutants.length === 0 ? undefined : new Set(options.mutants);
  const trace = (now: number, who: string, what: string): void => console.log(`${(now / 1000).toFixed(4).padStart(10)} ${who}: ${what}`);
  if (!options.quiet) console.log(JSON.stringify({ ...plan, faults: undefined, operator: undefined, clients: undefined }));
  const before = process.cpuUsage();
  const started = performance.now();
  const report = await runPlan(plan, { mutants, verify: isVerified(plan.seed), ...(options.quiet ? {} : { trace }) });
  const { user } = process.cpuUsage(before);
  const summary = new Summary();
  summary.add(plainReport(report), user / 1000);
  console.log(summary.text(performance.now() - started));
  console.log(`trace hash ${report.hash}`);
  if (report.violation !== undefined) console.log(`seed ${plan.seed}: ${report.violation.message}`);
  return report.violation === undefined;
}

async function replayOne(options: Options): Promise<boolean> {
  if (options.regression === undefined) return replay(makePlan(options.seed ?? 1, planOptions(options)), options);
  const { regression } = options;
  const name = regressionNames().find((one) => one.includes(regression));
  if (name === undefined) throw new Error(`no stored plan has ${regression} in its name`);
  return replay(readRegression(name).plan, options);
}

/** Runs many seeds; gives how many passed and failed. */
async function hunt(options: Options): Promise<{ passed: number; failed: number }> {
  const summary = new Summary();
  const { seeds = Number.POSITIVE_INFINITY, mutants } = options;
  const seconds = options.seconds ?? (options.seeds === undefined ? SECONDS_DEFAULT : Number.POSITIVE_INFINITY);
  const pool = new Pool({ timeoutMs: Number.isFinite(seconds) ? RUN_TIMEOUT_BOUNDED_MS : RUN_TIMEOUT_MS });
  const started = performance.now();
  const left = (): number => seconds * 1000 - (performance.now() - started);
  let shrinkMsLeft = Number.isFinite(seconds) ? SHRINK_MS_MAX : 10 * SHRINK_MS_MAX;
  let next = options.from;
  let passed = 0;
  let failed = 0;
  const progress = setInterval(() => {
    const of = Number.isFinite(seeds) ? ` of ${seeds}` : "";
    process.stderr.write(`${passed + failed}${of} seeds, ${failed} failed; ${summary.short(performance.now() - started)}\n`);
  }, PROGRESS_MS);

  const fail = async (plan: Plan, check: string, message: string): Promise<void> => {
    failed += 1;
    console.log(`seed ${plan.seed}: ${message}`);
    console.log(
      `  again, with its story: npm run sim -- --seed ${plan.seed}${options.minutes === undefined ? "" : ` --minutes ${options.minutes}`}${options.members === undefined ? "" : ` --members ${options.members}`}`,
    );
    // What fails by a mutant is no regression.
    if (!options.shrink || check === "" || mutants.length > 0) return;
    // Those that fail side by side share what is left.
    const msMax = Math.max(0, shrinkMsLeft) / options.jobs;
    if (msMax < 1000) {
      console.log("  not made smaller: no time left for it");
      return;
    }
    const began = performance.now();
    const task = { kind: "shrink", plan, mutants, check, runsMax: SHRINK_RUNS_MAX, msMax } as const;
    const shrunk = await pool.perform(task, msMax + SHRINK_GRACE_MS);
    shrinkMsLeft -= performance.now() - began;
    if (shrunk.kind !== "shrunk") {
      console.log(`  not made smaller: ${shrunk.kind === "crashed" ? shrunk.message : ""}`);
      return;
    }
    const small = shrunk.plan;
    const path = storeRegression({ check, message: shrunk.message === "" ? message : shrunk.message, plan: small });
    console.log(
      `  made smaller: ${small.faults.length} faults, ${small.operator.length} actions, ${small.clients.length} clients, ${small.durationMs} ms: ${relative(process.cwd(), path)}`,
    );
  };

  const one = async (seed: number): Promise<void> => {
    const plan = makePlan(seed, planOptions(options));
    const verify = isVerified(seed);
    const first = await pool.perform({ kind: "run", plan, mutants, verify });
    if (first.kind !== "ran") return fail(plan, "", first.kind === "crashed" ? first.message : "");
    summary.add(first.report, first.cpuMs);
    const { violation } = first.report;
    if (violation !== undefined) return fail(plan, violation.check, violation.message);
    if (seed % 100 < options.twice) {
      const again = await pool.perform({ kind: "run", plan, mutants, verify });
      if (again.kind !== "ran" || !isSame(first.report, again.report))
        return fail(plan, "", "a second run of the same seed went differently");
      summary.repeated += 1;
    }
    passed += 1;
  };

  const work = async (): Promise<void> => {
    while (next < options.from + seeds && left() > 0) {
      const seed = next;
      next += 1;
      await one(seed);
    }
  };
  await Promise.all(Array.from({ length: options.jobs }, work));
  clearInterval(progress);
  pool.close();
  console.log(summary.text(performance.now() - started));
  return { passed, failed };
}

/** Costly assertions inside the members in one run of ten. */
function isVerified(seed: number): boolean {
  return seed % 10 === 0;
}

function isSame(a: PlainReport, b: PlainReport): boolean {
  return a.hash === b.hash && a.events === b.events && a.entries === b.entries && a.answered === b.answered;
}

const options = readOptions(process.argv.slice(2));
if (typeof options === "string") {
  console.error(`${options}\n\n${USAGE}`);
  process.exitCode = 2;
} else if (options.seed !== undefined || options.regression !== undefined) {
  const passed = await replayOne(options);
  console.log(passed ? "1 passed, 0 failed" : "0 passed, 1 failed");
  process.exitCode = passed ? 0 : 1;
} else {
  const { passed, failed } = await hunt(options);
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}
