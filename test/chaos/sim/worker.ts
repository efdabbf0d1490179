/** A process that runs seeds for main.ts, one at a time, so that a run that never ends can be ended, and both cores work. */
import { type Part, runPart } from "./parts.ts";
import type { Plan } from "./plan.ts";
import { type RunReport, runPlan } from "./run.ts";
import { shrink } from "./shrink.ts";

export type Task =
  | { readonly kind: "run"; readonly plan: Plan; readonly mutants: readonly string[]; readonly verify: boolean }
  | {
      readonly kind: "shrink";
      readonly plan: Plan;
      readonly mutants: readonly string[];
      readonly check: string;
      readonly runsMax: number;
      /** Real time: CI waits for it. */
      readonly msMax: number;
    }
  /** One seed of a harness for one part of the members. */
  | { readonly kind: "part"; readonly part: Part; readonly seed: number; readonly mutants: readonly string[] };

export type PlainReport = Omit<RunReport, "violation"> & {
  readonly violation: { readonly check: string; readonly message: string } | undefined;
};

export type TaskResult =
  | { readonly kind: "ran"; readonly report: PlainReport; readonly cpuMs: number }
  | { readonly kind: "shrunk"; readonly plan: Plan; readonly message: string }
  | { readonly kind: "judged"; readonly violation: PlainReport["violation"] }
  | { readonly kind: "crashed"; readonly message: string };

export function plainReport(report: RunReport): PlainReport {
  const { violation } = report;
  return { ...report, violation: violation === undefined ? undefined : { check: violation.check, message: violation.message } };
}

async function perform(task: Task): Promise<TaskResult> {
  const mutants = task.mutants.length === 0 ? undefined : new Set(task.mutants);
  if (task.kind === "part") return { kind: "judged", violation: await runPart(task.part, task.seed, task.mutants) };
  if (task.kind === "shrink") {
    const { plan, check, runsMax, msMax } = task;
    return { kind: "shrunk", ...(await shrink(plan, check, { mutants, runsMax, msMax })) };
  }
  const before = process.cpuUsage();
  const report = await runPlan(task.plan, { mutants, verify: task.verify });
  const { user } = process.cpuUsage(before);
  return { kind: "ran", report: plainReport(report), cpuMs: user / 1000 };
}

if (process.send !== undefined && process.argv[1]?.endsWith("worker.ts") === true) {
  process.on("message", (task: Task) => {
    perform(task)
      .catch(
        (error: unknown): TaskResult => ({
          kind: "crashed",
          message: error instanceof Error ? (error.stack ?? error.message) : String(error),
        }),
      )
      .then((result) => process.send?.(result))
      .catch(() => process.exit(1));
  });
  process.on("disconnect", () => process.exit(0));
}
