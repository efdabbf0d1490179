/** Makes a plan that fails smaller while it fails in the same way: fewer faults, fewer actions of the operator, fewer clients, a shorter run. */
import type { Plan } from "./plan.ts";
import { runPlan } from "./run.ts";

export interface ShrinkOptions {
  readonly mutants?: ReadonlySet<string> | undefined;
  /** Runs that may be spent on it. */
  readonly runsMax: number;
  /** Begins no run after so many milliseconds of real time. */
  readonly msMax: number;
}

export async function shrink(plan: Plan, check: string, options: ShrinkOptions): Promise<{ plan: Plan; message: string }> {
  let best = plan;
  let message = "";
  let runs = 0;
  const started = performance.now();
  const fails = async (candidate: Plan): Promise<boolean> => {
    if (runs >= options.runsMax || performance.now() - started > options.msMax) return false;
    runs += 1;
    const { violation } = await runPlan(candidate, { mutants: options.mutants });
    if (violation?.check !== check) return false;
    best = candidate;
    message = violation.message;
    return true;
  };
  await fails({ ...plan, operator: [], faults: [] });
  for (const list of ["operator", "faults", "clients"] as const) {
    // Halves, quarters, ... down to one at a time.
    for (let size = Math.ceil(best[list].length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
      for (let from = 0; from < best[list].length; ) {
        const kept = [...best[list].slice(0, from), ...best[list].slice(from + size)];
        if (list === "clients" && kept.length === 0) break;
        if (!(await fails({ ...best, [list]: kept }))) from += size;
      }
    }
  }
  for (let durationMs = best.durationMs / 2; durationMs > 500; durationMs /= 2) {
    if (!(await fails({ ...best, durationMs: Math.round(durationMs) }))) break;
  }
  return { plan: best, message };
}
