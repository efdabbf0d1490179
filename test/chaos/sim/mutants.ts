/**
 * `npm run mutants`: deliberate faults in the members (failure catalogue, section d), each of which the simulator, or a random harness of one part, has to notice;
 * a harness that does not is not to be trusted about the sound members either. What notices a mutant must be content with the sound code at the same seed.
 * Prints how many seeds each took; the last line is `N passed, N failed`.
 */
import { availableParallelism } from "node:os";
import { PART_NAMES, type Part } from "./parts.ts";
import { type FaultKind, makePlan, type PlanOptions } from "./plan.ts";
import { Pool } from "./pool.ts";

interface Mutant {
  readonly name: string;
  /** As the failure catalogue calls it. */
  readonly what: string;
  /** Where it happens often. */
  readonly plan?: PlanOptions;
  /** Seldom or never met by whole members: the harness of a part that has to notice it, in place of the simulator. */
  readonly part?: Part;
  /** Neither for the simulator nor for a harness of a part: who notices it instead, or why nobody can. */
  readonly elsewhere?: string;
}

const DEATHS: readonly FaultKind[] = ["crash", "power-loss", "die-at-disk"];
const PARTS: readonly FaultKind[] = ["partition", "pause", "network"];
const small: PlanOptions = { members: 3, durationMs: 20_000 };
const three: PlanOptions = { ...small, operator: "none" };
const changing: PlanOptions = { ...small, operator: "members" };
/** Several change the members all the time and do not know of each other. */
const crowded: PlanOptions = { ...changing, operators: 3, operatorEveryMs: 500 };
/** Duplicates come late, in any order. */
const LATE = { duplicatePerMille: 300, lateMs: 20_000, reorder: true } as const;
/** Partitions, one after the other. */
const storm: PlanOptions = { ...three, busy: true, faults: ["partition"], faultsEveryMs: 2500 };
/** Leadership goes to and fro while many leases are renewed. */
const leased: PlanOptions = { ...small, durationMs: 60_000, operator: "leaders", operatorEveryMs: 1000, leases: 8 };
const tiny = { snapshotCount: 5, snapshotCatchUpEntries: 0 } as const;

/** The list of the catalogue, in its order. */
const MUTANTS: readonly Mutant[] = [
  { name: "wal-skip-vote-sync", what: "skip vote fsync", plan: { ...three, faults: ["power-loss", "partition"] } },
  { name: "wal-skip-entry-sync", what: "skip entry fsync", plan: { ...three, faults: ["power-loss"] } },
  { name: "commit-old-term", what: "commit old-term entries", part: "raft-cluster" },
  {
    name: "reset-vote-on-step-down",
    what: "reset vote on same-term step-down",
    plan: { ...three, faults: PARTS, settings: { preVote: false } },
  },
  { name: "no-noop", what: "no no-op", plan: { ...three, faults: PARTS } },
  {
    name: "read-without-round",
    what: "answer read without round",
    plan: { ...storm, durationMs: 60_000 },
  },
  { name: "reuse-read-token", what: "reuse read token", plan: { ...three, busy: true, faults: PARTS, network: LATE } },
  { name: "ack-full-log", what: "ack full log on append", part: "strange-leader" },
  { name: "no-conflict-truncation", what: "no conflict truncation", plan: { ...three, faults: PARTS } },
  { name: "truncate-always", what: "truncate always", plan: { ...three, faults: ["network"] } },
  { name: "wal-drop-directory-sync", what: "drop dir sync", plan: { ...three, faults: ["power-loss"] } },
  { name: "position-in-separate-batch", what: "applied index in separate batch", plan: { ...three, faults: ["crash", "power-loss"] } },
  {
    name: "apply-before-durable",
    what: "apply before durable (one member)",
    plan: { members: 1, durationMs: 20_000, operator: "none", faults: ["power-loss"] },
  },
  { name: "snapshot-without-conf", what: "snapshot without config", part: "strange-leader" },
  {
    name: "",
    what: "config at propose not idempotent",
    elsewhere: "the configuration changes when it is applied, and the whole of it is set: test/raft/scenarios",
  },
  { name: "learner-counted", what: "learner counted", plan: { ...changing, faults: [...DEATHS, ...PARTS] } },
  { name: "two-pending-confs", what: "two pending configs", plan: { ...crowded, faults: [] } },
  {
    name: "no-own-term-check-before-conf",
    what: "no own-term check before config",
    plan: { ...crowded, faults: ["crash", "partition"], faultsEveryMs: 700 },
  },
  {
    name: "removed-keeps-campaigning",
    what: "keep removed node campaigning",
    plan: { ...changing, faults: PARTS, settings: { preVote: false } },
  },
  { name: "compaction-removes-tombstone-at-c", what: "compaction removes tombstone at c", plan: three },
  {
    name: "progress-bypasses-queue",
    what: "progress bypasses queue",
    plan: { ...three, settings: { watchProgressNotifyMs: 300, catchUpRevisionsMax: 1 } },
  },
  { name: "watcher-reset-on-snapshot", what: "watcher reset on snapshot", plan: { ...three, faults: ["partition"], settings: tiny } },
  {
    name: "lagging-watcher-advanced-on-full-queue",
    what: "lagging watcher advanced on full queue",
    plan: { ...three, settings: { watchStreamBytesMax: 400 } },
  },
  { name: "expire-leases-on-follower", what: "expire leases on follower", plan: { ...leased, operator: "none", faults: [] } },
  { name: "keep-old-leaders-expiry", what: "keep old leader's expiry", plan: { ...leased, faults: [] } },
  { name: "renew-without-recheck", what: "renew without recheck", plan: { ...three, faults: ["slow-disk", "partition"] } },
  { name: "retry-in-client", what: "retry put in client", plan: { ...three, faults: ["crash", "clients-cut"] } },
  { name: "strip-txn-ranges", what: "strip txn ranges", plan: three },
  { name: "", what: "per-op permission missing", elsewhere: "clients of the simulator have no users: src/auth and test/server" },
  { name: "ignore-backend-error", what: "ignore LevelDB error", plan: { ...three, faults: ["backend-error", "crash"] } },
  { name: "ignore-short-write", what: "ignore short write", plan: { ...three, members: 1, faults: ["disk-full", "crash"] } },
  {
    name: "tick-count-clock",
    what: "tick-count clock for leases",
    elsewhere: "ticks measure nothing that is promised here: leases run on the monotonic clock, reads on rounds of a quorum",
  },
  // Not in the catalogue.
  { name: "wal-skip-claims", what: "the log does not say how far it was synced", part: "damaged-log" },
  {
    name: "send-vote-before-durable",
    what: "votes leave before they are durable",
    plan: { ...three, faults: ["power-loss", "die-at-disk", "partition"] },
  },
  { name: "send-ack-before-durable", what: "acknowledgements leave before they are durable", plan: { ...three, faults: ["power-loss"] } },
  { name: "vote-without-log-check", what: "vote without comparing logs", plan: { ...three, faults: [...DEATHS, ...PARTS] } },
  { name: "vote-twice", what: "vote for everyone", plan: { ...three, faults: PARTS } },
  { name: "commit-beyond-covered", what: "commit beyond what the append covered", part: "strange-leader" },
  { name: "heartbeat-commit-unclamped", what: "heartbeats tell an unclamped commit index", plan: { ...three, faults: PARTS } },
  { name: "ignore-future-check", what: "reads of the future are answered", plan: three },
  {
    name: "",
    what: "revision recomputed from rows alone",
    elsewhere:
      "cannot be told from the sound store: a compaction keeps the newest row of its revision, a deletion too. Together with the mutant that drops it: test/mvcc/store.test.ts",
  },
  { name: "delete-range-skips-last", what: "delete of a range leaves out its last key", plan: three },
  {
    name: "nested-compare-sees-writes",
    what: "nested compares see writes of the request",
    plan: { ...three, busy: true, nested: true, keys: 3, faults: [] },
  },
  {
    name: "future-start-lowered-on-snapshot",
    what: "a watch of the future is lowered by a snapshot",
    plan: { ...three, faults: ["partition"], settings: tiny },
  },
];

const USAGE = `npm run mutants -- [options]
  --only A,B      these (parts of their names)
  --seeds N       give up after so many seeds each (150)
  --jobs J        runs side by side, otherwise one per core, two at most`;

/** What a seed gave: nothing, or what was said. */
type Verdict = { readonly check: string; readonly message: string } | undefined;

interface Outcome {
  readonly killed: boolean;
  /** Columns of the table behind what the mutant does. */
  readonly row: string;
}

async function judge(pool: Pool, { plan, part }: Mutant, seed: number, mutants: readonly string[]): Promise<Verdict> {
  const result = await pool.perform(
    part === undefined ? { kind: "run", plan: makePlan(seed, plan), mutants, verify: false } : { kind: "part", part, seed, mutants },
  );
  switch (result.kind) {
    case "crashed":
      return { check: "crash", message: result.message };
    case "ran":
      return result.report.violation;
    case "judged":
      return result.violation;
    case "shrunk":
      return undefined;
    default:
      return result satisfies never;
  }
}

async function hunt(pool: Pool, mutant: Mutant, seedsMax: number): Promise<Outcome> {
  const harness = mutant.part === undefined ? "simulator" : PART_NAMES[mutant.part];
  for (let seed = 1; seed <= seedsMax; seed++) {
    const verdict = await judge(pool, mutant, seed, [mutant.name]);
    if (verdict === undefined) continue;
    const sound = await judge(pool, mutant, seed, []);
    const said = `${seed} | ${harness} | ${verdict.check} | ${oneLine(verdict.message)}`;
    if (sound === undefined) return { killed: true, row: `${said} | clean` };
    return { killed: false, row: `${said} | FAILS, TOO: ${sound.check}: ${oneLine(sound.message)}` };
  }
  return { killed: false, row: `ALIVE after ${seedsMax} | ${harness} | - | - | -` };
}

async function main(words: readonly string[]): Promise<void> {
  let only: readonly string[] = [];
  let seedsMax = 150;
  let jobs = Math.min(2, availableParallelism());
  const rest = [...words];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === "--only") only = (rest.shift() ?? "").split(",");
    else if (word === "--seeds") seedsMax = Number(rest.shift());
    else if (word === "--jobs") jobs = Math.max(1, Number(rest.shift()));
    else {
      console.error(`what is ${word}?\n\n${USAGE}`);
      process.exitCode = 2;
      return;
    }
  }
  const chosen = MUTANTS.filter(({ name, what }) => only.length === 0 || only.some((part) => name.includes(part) || what.includes(part)));
  const pool = new Pool({ timeoutMs: 300_000 });
  const rows = new Map<Mutant, Outcome>();
  let killed = 0;
  let alive = 0;
  const queue = chosen.filter(({ elsewhere }) => elsewhere === undefined);
  const work = async (): Promise<void> => {
    for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
      const began = performance.now();
      const outcome = await hunt(pool, mutant, seedsMax);
      if (outcome.killed) killed += 1;
      else alive += 1;
      rows.set(mutant, outcome);
      process.stderr.write(`${mutant.name}: ${outcome.row} (${((performance.now() - began) / 1000).toFixed(1)} s)\n`);
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  pool.close();
  console.log("| mutant | what it does | seeds | noticed by | check | what was said | sound code, same seed |");
  console.log("| --- | --- | --- | --- | --- | --- | --- |");
  for (const mutant of chosen) {
    console.log(
      `| ${mutant.name === "" ? "-" : mutant.name} | ${mutant.what} | ${rows.get(mutant)?.row ?? `- | - | - | ${mutant.elsewhere} | -`} |`,
    );
  }
  console.log(`${killed} passed, ${alive} failed`);
  process.exitCode = alive === 0 ? 0 : 1;
}

function oneLine(message: string): string {
  const [line = ""] = message.replaceAll("|", "/").split("\n");
  return line.length > 110 ? `${line.slice(0, 107)}...` : line;
}

await main(process.argv.slice(2));
