/**
 * `npm run chaos`: scenarios with real processes, each with its verdict; the last line is `N passed, N failed`. A failed scenario keeps its directory (data and
 * logs of all members) and says the seed that makes the same requests and faults again.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { etcdKind, holdfastKind } from "../support/server-process.ts";
import { type Scenario, ScenarioFailure, ScenarioSkipped, Stage } from "./scenario.ts";
import { DISK_FULL_SCENARIOS } from "./scenarios/disk-full.ts";
import { KILL_SCENARIOS } from "./scenarios/kill.ts";
import { MEMBERSHIP_SCENARIOS } from "./scenarios/membership.ts";
import { MISTAKE_SCENARIOS } from "./scenarios/mistakes.ts";
import { PARTITION_SCENARIOS } from "./scenarios/partition.ts";
import { PAUSE_SCENARIOS } from "./scenarios/pause.ts";
import { RESTART_SCENARIOS } from "./scenarios/restart.ts";

/** The last ones are left out first when time runs short. */
const SCENARIOS: readonly Scenario[] = [
  ...KILL_SCENARIOS,
  ...PAUSE_SCENARIOS,
  ...PARTITION_SCENARIOS,
  ...DISK_FULL_SCENARIOS,
  ...MEMBERSHIP_SCENARIOS,
  ...RESTART_SCENARIOS,
  ...MISTAKE_SCENARIOS,
];

/** The bounded selection takes about two and a half minutes on two free processors. On a busy machine it does less after the first time, and ends after the second. */
const HURRY_AFTER_MS = 90_000;
const QUICK_RUN_MS_MAX = 210_000;

const USAGE = `npm run chaos -- [options]
  --long            every scenario, with more rounds
  --only A,B        these scenarios (parts of their names)
  --seed N          for the requests and the faults; chosen by the clock otherwise
  --repeat N        run the selection so often, each time with the next seed
  --list            what there is
  --etcd PATH       put a real etcd through it instead, to try the scenarios themselves
  --server PATH     another build of the server's command
  --port-base N     first of 30 ports, 26000 otherwise
  --keep            keep the directories of scenarios that passed, too`;

interface Options {
  long: boolean;
  keep: boolean;
  list: boolean;
  only: readonly string[];
  seed: number;
  repeat: number;
  portBase: number;
  server: string;
  etcd: string;
}

function readOptions(words: readonly string[]): Options | string {
  const options: Options = {
    long: false,
    keep: false,
    list: false,
    only: [],
    seed: Date.now() % 1_000_000,
    repeat: 1,
    portBase: 26_000,
    server: "",
    etcd: "",
  };
  const rest = [...words];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === "--long") options.long = true;
    else if (word === "--keep") options.keep = true;
    else if (word === "--list") options.list = true;
    else if (word === "--only") options.only = (rest.shift() ?? "").split(",");
    else if (word === "--seed") options.seed = Number(rest.shift());
    else if (word === "--repeat") options.repeat = Number(rest.shift());
    else if (word === "--port-base") options.portBase = Number(rest.shift());
    else if (word === "--server") options.server = rest.shift() ?? "";
    else if (word === "--etcd") options.etcd = rest.shift() ?? "";
    else return `what is ${word}?`;
  }
  return options;
}

/** A scenario that takes longer than this hangs. */
const QUICK_MS_MAX = 240_000;
const LONG_MS_MAX = 900_000;

/** True if it passed. */
async function perform(scenario: Scenario, options: Options, seed: number, hurry: boolean): Promise<boolean | "skipped"> {
  const directory = mkdtempSync(join(tmpdir(), `holdfast-chaos-${scenario.name}-`));
  const kind = options.etcd === "" ? holdfastKind(options.server) : etcdKind(options.etcd);
  const stage = new Stage({ kind, portBase: options.portBase, directory, seed, long: options.long, hurry });
  const start = performance.now();
  let outcome: boolean | "skipped" = true;
  let why = "";
  const limitMs = options.long ? LONG_MS_MAX : QUICK_MS_MAX;
  let timer: NodeJS.Timeout | undefined;
  try {
    const timeUp = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new ScenarioFailure(`does not come to an end within ${limitMs / 1000} s`)), limitMs);
    });
    await Promise.race([scenario.run(stage), timeUp]);
  } catch (error) {
    outcome = error instanceof ScenarioSkipped ? "skipped" : false;
    why =
      error instanceof Error
        ? error.constructor.name.startsWith("Scenario")
          ? error.message
          : (error.stack ?? error.message)
        : String(error);
    if (error instanceof Error && error.cause instanceof Error) why += `\n  because: ${error.cause.message}`;
  }
  clearTimeout(timer);
  await stage.close();
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${outcome === true ? "passed " : outcome === false ? "FAILED " : "skipped"} ${scenario.name} (${seconds} s, seed ${seed})`);
  for (const note of stage.notes) console.log(`         ${note}`);
  if (why !== "") console.log(`         ${why}`);
  if (outcome === false || options.keep) console.log(`         data and logs: ${directory}`);
  else rmSync(directory, { recursive: true, force: true });
  return outcome;
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2));
  if (typeof options === "string") {
    console.error(`chaos: ${options}\n${USAGE}`);
    process.exitCode = 2;
    return;
  }
  if (options.list) {
    for (const { name, about, quick } of SCENARIOS) console.log(`${name}${quick ? "" : " (long)"}: ${about}`);
    return;
  }
  const chosen = SCENARIOS.filter(({ name, quick }) =>
    options.only.length > 0 ? options.only.some((part) => name.includes(part)) : quick || options.long,
  );
  let [passed, failed, skipped] = [0, 0, 0];
  const isBounded = !options.long && options.only.length === 0 && options.repeat === 1;
  const begun = performance.now();
  for (let round = 0; round < options.repeat; round += 1) {
    for (const scenario of chosen) {
      const spent = isBounded ? performance.now() - begun : 0;
      if (spent > QUICK_RUN_MS_MAX) {
        console.log(`skipped ${scenario.name}: the machine is too busy, no time is left`);
        skipped += 1;
        continue;
      }
      const outcome = await perform(scenario, options, options.seed + round, spent > HURRY_AFTER_MS);
      if (outcome === true) passed += 1;
      else if (outcome === false) failed += 1;
      else skipped += 1;
    }
  }
  if (skipped > 0) console.log(`${skipped} skipped`);
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed === 0 && passed + skipped > 0 ? 0 : 1;
}

await main();
