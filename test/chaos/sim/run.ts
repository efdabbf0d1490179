/** One run from a plan to a verdict. */
import { setVerify } from "../../../src/base/assert.ts";
import { type CheckCounts, checkHistory } from "./checks.ts";
import { scheduleFaults } from "./faults.ts";
import { KvClient } from "./kv-client.ts";
import { LeaseClient } from "./lease-client.ts";
import { Liveness } from "./liveness.ts";
import { ElectionClient, LockClient } from "./lock-client.ts";
import { Operator } from "./operator.ts";
import type { Plan } from "./plan.ts";
import { sandboxed } from "./sandbox.ts";
import type { TraceLine } from "./trace.ts";
import type { Violation } from "./violation.ts";
import { WatchClient, type WatchRecords, watchEveryMachine } from "./watch-client.ts";
import { World } from "./world.ts";

export interface RunOptions {
  readonly mutants?: ReadonlySet<string> | undefined;
  readonly trace?: TraceLine | undefined;
  /** Costly assertions inside the members, too. */
  readonly verify?: boolean | undefined;
}

export interface RunReport {
  readonly seed: number;
  readonly violation: Violation | undefined;
  /** Equal plans give equal hashes. */
  readonly hash: string;
  readonly simulatedMs: number;
  readonly events: number;
  readonly entries: number;
  readonly operations: number;
  readonly answered: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly operator: Readonly<Record<string, number>>;
  readonly messages: number;
  readonly leaders: number;
  readonly checks: CheckCounts;
}

/** Events between two turns of the real loop, which is where unhandled rejections show. */
const SLICE_EVENTS = 500;
/** How long a run may go on after its safety phase. */
const LIVENESS_MS_MAX = 3_600_000;
/** Without time moving on: somebody goes round in circles. */
const EVENTS_AT_ONCE_MAX = 200_000;

let running = false;

export async function runPlan(plan: Plan, options: RunOptions = {}): Promise<RunReport> {
  if (running) throw new Error("one run at a time: the sandbox is the process");
  running = true;
  setVerify(options.verify ?? false);
  const world = new World(plan, options);
  const onRejection = (reason: unknown): void => world.onUnhandledRejection(reason);
  process.on("unhandledRejection", onRejection);
  try {
    return await play(world, plan);
  } finally {
    // Rejections that nobody looked at are told at the end of a turn.
    await new Promise((resolve) => setImmediate(resolve));
    process.off("unhandledRejection", onRejection);
    setVerify(false);
    running = false;
  }
}

function play(world: World, plan: Plan): Promise<RunReport> {
  const records: WatchRecords = { streams: [], spans: [] };
  const operator = new Operator(world);
  const liveness = new Liveness(world);
  let done = false;
  const begin = (): void => {
    world.begin();
    scheduleFaults(world);
    startClients(world, plan, records);
    void operator.run();
    for (let more = 1; more < (plan.operators ?? 1); more++) void new Operator(world, more).run();
    world.after(plan.durationMs, () => {
      void liveness.run().then(() => {
        done = true;
      });
    });
  };
  const endAt = plan.durationMs + LIVENESS_MS_MAX;
  return new Promise((resolve, reject) => {
    let started = false;
    let instant = 0;
    let since = 0;
    const slice = (): void => {
      try {
        sandboxed(() => {
          if (!started) {
            started = true;
            begin();
          }
          for (let i = 0; i < SLICE_EVENTS && !done; i++) if (!world.step(endAt)) break;
        });
        if (world.now > instant + 1) {
          instant = world.now;
          since = world.scheduler.executed;
        }
        const isStuck = world.scheduler.executed - since > EVENTS_AT_ONCE_MAX || world.now >= endAt;
        if (!done && world.violation === undefined && !isStuck && world.scheduler.pending > 0) {
          setImmediate(slice);
          return;
        }
        if (!done && world.violation === undefined) world.violate("stuck", `not finished after ${world.scheduler.executed} events`);
        resolve(report(world, operator, records, done));
      } catch (error) {
        reject(error);
      }
    };
    setImmediate(slice);
  });
}

function startClients(world: World, plan: Plan, records: WatchRecords): void {
  for (const [number, client] of plan.clients.entries()) {
    switch (client.role) {
      case "kv":
        void new KvClient(world, number, client).run();
        break;
      case "watch":
        void new WatchClient(world, number, client, records).run();
        break;
      case "lease":
        void new LeaseClient(world, number, client).run();
        break;
      case "lock":
        void new LockClient(world, number, client).run();
        break;
      case "election":
        void new ElectionClient(world, number, client).run();
        break;
      case "follower-watch":
        watchEveryMachine(world, records);
        break;
      default:
        client.role satisfies never;
    }
  }
}

function report(world: World, operator: Operator, records: WatchRecords, done: boolean): RunReport {
  let { violation } = world;
  let checks: CheckCounts = { reads: 0, writes: 0, events: 0, leases: 0, locks: 0, durability: 0, hashes: 0 };
  if (violation === undefined) {
    const result = checkHistory(world, records, done);
    checks = result.counts;
    violation = result.violation;
  }
  return {
    seed: world.plan.seed,
    violation,
    hash: world.hash.value,
    simulatedMs: world.now,
    events: world.scheduler.executed,
    entries: world.oracle.log.length,
    operations: world.ops.length,
    answered: world.ops.filter((op) => op.outcome === "ok").length,
    faults: world.faultCounts,
    operator: operator.counts,
    messages: world.links.delivered,
    leaders: world.oracle.leaderChanges,
    checks: { ...checks, durability: world.oracle.durabilityChecks, hashes: world.oracle.hashChecks },
  };
}
