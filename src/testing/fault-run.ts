/** Programs under faults: a cluster and its clients in simulated time, with faults that a seed decides, so that what went wrong once goes wrong again. */
import type { Clock } from "../base/clock.ts";
import { type Random, seededRandom } from "../base/random.ts";
import type { EtcdClient } from "../client/index.ts";
import { FAULT_KINDS, type FaultKind, planFaults } from "./simulation/fault-plan.ts";
import { takeGlobals } from "./simulation/sim-globals.ts";
import { type FaultEvent, World } from "./simulation/world.ts";

export interface FaultRunOptions<T> {
  /** A whole number. Equal seeds give equal runs, as long as `body` uses no time, chance or input but the run's. */
  readonly seed: number;
  /** Members of the cluster. Default 3. */
  readonly members?: number | undefined;
  /** Milliseconds of simulated time in which there are faults. Default 20,000. */
  readonly durationMs?: number | undefined;
  /** Milliseconds of simulated time in which `body` must end after the last fault. Default 120,000. */
  readonly settleMs?: number | undefined;
  /** Which faults there are. Default: all kinds. */
  readonly faults?: readonly FaultKind[] | undefined;
  /** The program. It should go on until `run.signal` is aborted, then come to its end. */
  readonly body: (run: FaultRun) => Promise<T>;
}

/** What the program under test works with. */
export interface FaultRun {
  readonly seed: number;
  /** Chance that the seed decides. `Math.random` is so, too, while the run lasts. */
  readonly random: Random;
  /** Simulated time. `setTimeout`, `setInterval`, `setImmediate`, `Date.now` and `performance.now` follow it, too, while the run lasts. */
  readonly clock: Clock;
  /** Aborted when the faults are over and healed: whatever is asked of the cluster from then on succeeds. */
  readonly signal: AbortSignal;
  /** A client program of its own, with its own way to the members; faults strike it on its own. Closed at the end. */
  client(name?: string): EtcdClient;
  /** Resolves after that much simulated time. */
  sleep(ms: number): Promise<void>;
}

export interface FaultRunResult<T> {
  /** What `body` returned. */
  readonly value: T;
  readonly seed: number;
  /** What was done to the cluster and its clients. */
  readonly faults: readonly FaultEvent[];
  readonly simulatedMs: number;
  /** Equal for equal runs. */
  readonly fingerprint: string;
}

/** The program failed, or did not end. Its `cause` is what `body` threw. */
export class FaultRunError extends Error {
  readonly seed: number;
  readonly faults: readonly FaultEvent[];

  constructor(facts: { seed: number; faults: readonly FaultEvent[]; what: string }, options?: { cause?: unknown }) {
    const history = facts.faults.map(({ atMs, what }) => `  ${atMs} ms: ${what}`).join("\n");
    super(`seed ${facts.seed}: ${facts.what}\nwhat had been done:\n${history === "" ? "  nothing" : history}`, options);
    this.name = "FaultRunError";
    this.seed = facts.seed;
    this.faults = facts.faults;
  }
}

const DURATION_MS = 20_000;
const SETTLE_MS = 120_000;
const MEMBERS = 3;

/** Runs share the globals: one after the other. */
let last: Promise<unknown> = Promise.resolve();

/**
 * Runs `body` against a cluster that suffers faults. The members are whole servers, their disks and the network are simulated, and so is time: twenty seconds
 * take a fraction of one. Runs that are asked for at the same time follow each other.
 *
 * What waits for the real world inside of `body` (sockets, files, child processes) never sees its answer in simulated time: keep it out.
 * @throws FaultRunError
 */
export function faultRun<T>(options: FaultRunOptions<T>): Promise<FaultRunResult<T>> {
  const run = last.then(() => runOnce(options));
  last = run.catch(() => undefined);
  return run;
}

async function runOnce<T>(options: FaultRunOptions<T>): Promise<FaultRunResult<T>> {
  const { seed, members = MEMBERS, durationMs = DURATION_MS, settleMs = SETTLE_MS, faults = FAULT_KINDS, body } = options;
  if (!Number.isSafeInteger(seed)) throw new Error(`a seed is a whole number, not ${seed}`);
  if (!Number.isInteger(members) || members < 1) throw new Error(`a cluster has at least one member, not ${members}`);
  const world = new World(seed, members);
  const release = takeGlobals(world.clock, seededRandom(BigInt(seed) ^ 0xc4a7ce5n));
  const failed = (what: string, cause: unknown): FaultRunError => new FaultRunError({ seed, faults: world.events, what }, { cause });
  try {
    await world.start();
    const over = new AbortController();
    const undo: (() => void)[] = [];
    for (const fault of planFaults({ seed, durationMs, kinds: faults })) {
      world.clock.timer(fault.atMs, () => {
        const heal = world.apply(fault);
        undo.push(heal);
        world.clock.timer(fault.forMs, heal);
      });
    }
    world.clock.timer(durationMs, () => {
      for (const heal of undo) heal();
      over.abort();
    });
    const outcome = watched((async () => body(runOf(world, seed, over.signal)))());
    const endMs = durationMs + settleMs;
    await world.drive(() => outcome.settled || world.failure !== undefined || world.nowMs > endMs);
    if (world.failure !== undefined) throw failed(`a member ended: ${describe(world.failure)}`, world.failure);
    if (!outcome.settled) throw failed(`it did not end within ${settleMs} ms after the last fault`, undefined);
    if ("error" in outcome) throw failed(describe(outcome.error), outcome.error);
    return {
      value: outcome.value as T,
      seed,
      faults: world.events,
      simulatedMs: Math.round(world.nowMs),
      fingerprint: world.clock.fingerprint,
    };
  } finally {
    world.end();
    release();
  }
}

function runOf(world: World, seed: number, signal: AbortSignal): FaultRun {
  let clients = 0;
  return {
    seed,
    random: world.random,
    clock: world.clock,
    signal,
    client(name) {
      clients += 1;
      return world.newClient(name ?? `client ${clients}`);
    },
    sleep: (ms) =>
      new Promise((resolve) => {
        world.clock.timer(ms, resolve);
      }),
  };
}

interface Outcome<T> {
  settled: boolean;
  value?: T;
  error?: unknown;
}

function watched<T>(promise: Promise<T>): Outcome<T> {
  const outcome: Outcome<T> = { settled: false };
  promise.then(
    (value) => {
      outcome.value = value;
      outcome.settled = true;
    },
    (error: unknown) => {
      outcome.error = error;
      outcome.settled = true;
    },
  );
  return outcome;
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
