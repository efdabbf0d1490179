/**
 * The random harnesses of single parts, for mutants that whole members under our own leader and operator meet too seldom, or never. Each is a function of a
 * seed, and part of `npm test` on the sound code.
 */
import { setVerify } from "../../../src/base/assert.ts";
import { RAFT_MUTANTS, type RaftMutant } from "../../../src/raft/index.ts";
import { Violation as RaftViolation, runCluster } from "../../raft/cluster.ts";
import { runStrangeLeader } from "../../raft/strange-leader.ts";
import { runWalDamage } from "../../support/wal-damage.ts";

export const PART_NAMES = {
  "raft-cluster": "random raft clusters",
  "strange-leader": "follower under any legal leader",
  "damaged-log": "logs with flipped bits",
} as const;

export type Part = keyof typeof PART_NAMES;

const CLUSTER_STEPS = 4000;

/** What is wrong with that seed, if anything. */
export async function runPart(
  part: Part,
  seed: number,
  mutants: readonly string[],
): Promise<{ readonly check: string; readonly message: string } | undefined> {
  setVerify(true);
  try {
    await play(part, seed, mutants);
    return undefined;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { check: error instanceof RaftViolation ? error.check : error.name, message: error.message };
  } finally {
    setVerify(false);
  }
}

async function play(part: Part, seed: number, mutants: readonly string[]): Promise<void> {
  switch (part) {
    case "raft-cluster":
      runCluster({ seed, steps: CLUSTER_STEPS, mutants: mutants.filter(isRaftMutant) });
      return;
    case "strange-leader":
      runStrangeLeader({ seed, mutant: mutants.find(isRaftMutant) });
      return;
    case "damaged-log":
      await runWalDamage({ seed, mutants: new Set(mutants) });
      return;
    default:
      part satisfies never;
  }
}

function isRaftMutant(name: string): name is RaftMutant {
  return (RAFT_MUTANTS as readonly string[]).includes(name);
}
