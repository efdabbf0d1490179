/** The tests are only trusted if they notice deliberate breakages. Prints who noticed what. */
import { expect, test } from "vitest";
import { setVerify } from "../../src/base/assert.ts";
import { RAFT_MUTANTS, type RaftMutant } from "../../src/raft/index.ts";
import { runCluster, Violation } from "./cluster.ts";
import { PROBES } from "./probes.ts";

setVerify(true);

const SEEDS = 25;
const STEPS = 4000;

/** The random cluster seldom or never meets the situation; a probe has to catch these. */
const BY_PROBE: ReadonlySet<RaftMutant> = new Set<RaftMutant>([
  "reset-vote-on-step-down",
  "read-without-round",
  "reuse-read-token",
  "ack-full-log",
  "accept-stale-append",
  "commit-beyond-covered",
  "snapshot-without-conf",
  "transfer-without-catch-up",
  "commit-unlearned-from-confs",
  "quarantined-votes",
  "reset-unmuted",
  "former-acks-count",
]);

/** Number of the first seed at which the random cluster notices, and what it says. */
function noticedByCluster(mutant: RaftMutant): { seed: number; check: string } | undefined {
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      runCluster({ seed, steps: STEPS, mutants: [mutant] });
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      return { seed, check: error.check };
    }
  }
  return undefined;
}

function noticedByProbe(mutant: RaftMutant): string | undefined {
  for (const probe of PROBES) {
    try {
      probe.run(mutant);
    } catch {
      return probe.name;
    }
  }
  return undefined;
}

test("the sound core passes the same probes and seeds", () => {
  for (const probe of PROBES) probe.run();
  for (let seed = 1; seed <= SEEDS; seed++) runCluster({ seed, steps: STEPS });
});

test("every mutant is noticed", () => {
  const rows: string[] = [];
  const missed: string[] = [];
  for (const mutant of RAFT_MUTANTS) {
    const probe = noticedByProbe(mutant);
    const cluster = noticedByCluster(mutant);
    rows.push(
      `${mutant.padEnd(32)} cluster: ${cluster === undefined ? "no" : `seed ${cluster.seed}, ${cluster.check}`}`.padEnd(66) +
        ` probe: ${probe ?? "no"}`,
    );
    if (BY_PROBE.has(mutant) ? probe === undefined : cluster === undefined) missed.push(mutant);
  }
  console.log(rows.join("\n"));
  expect(missed).toEqual([]);
}, 120_000);
