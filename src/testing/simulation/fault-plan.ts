/** Which faults come when: drawn from a seed before the run begins. */
import { type Random, seededRandom } from "../../base/random.ts";

/**
 * - "kill": a member's process dies, as by `kill -9`, and is started again.
 * - "pause": a member's process stands still, as by SIGSTOP, while time goes on.
 * - "partition": some members do not hear the others.
 * - "client-cut": nothing passes between a client and the cluster; what was on its way comes late, or is lost.
 * - "client-pause": a client's process stands still: its timers (so its renewals of leases, too) and what it sends and gets.
 */
export type FaultKind = "kill" | "pause" | "partition" | "client-cut" | "client-pause";

export const FAULT_KINDS: readonly FaultKind[] = ["kill", "pause", "partition", "client-cut", "client-pause"];

export interface PlannedFault {
  readonly kind: FaultKind;
  readonly atMs: number;
  readonly forMs: number;
  /** Who it is, when the time comes: the leader, or by turns. */
  readonly leader: boolean;
  readonly choice: number;
  /** What is on its way is lost. */
  readonly loses: boolean;
}

const GAP_MS = { min: 200, max: 3000 } as const;
const LENGTH_MS = { min: 100, max: 5000 } as const;
const FIRST_MS = 300;

export function planFaults(options: { seed: number; durationMs: number; kinds: readonly FaultKind[] }): readonly PlannedFault[] {
  const random: Random = seededRandom(BigInt(options.seed) ^ 0xfa017n);
  const plan: PlannedFault[] = [];
  const { kinds, durationMs } = options;
  if (kinds.length === 0) return plan;
  const between = ({ min, max }: { min: number; max: number }): number => min + random.below(max - min + 1);
  for (let atMs = FIRST_MS + random.below(GAP_MS.max); atMs < durationMs; atMs += between(GAP_MS)) {
    plan.push({
      kind: kinds[random.below(kinds.length)] as FaultKind,
      atMs,
      forMs: Math.min(between(LENGTH_MS), durationMs - atMs),
      leader: random.chance({ of: 1, outOf: 2 }),
      choice: random.below(0x10000),
      loses: random.chance({ of: 1, outOf: 2 }),
    });
  }
  return plan;
}
