/** What a scenario is, and what it is given. */
import { availableParallelism, loadavg } from "node:os";
import { join } from "node:path";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { ServerKind } from "../support/server-process.ts";
import { Cluster, type ClusterOptions } from "./cluster.ts";
import { LeaseLoad, type LeaseLoadOptions } from "./lease-load.ts";
import { Load, type LoadOptions, type Verdict } from "./verify.ts";

export interface Scenario {
  readonly name: string;
  /** One sentence for `--list`. */
  readonly about: string;
  /** Part of the bounded selection of `npm run chaos`. */
  readonly quick: boolean;
  run(stage: Stage): Promise<void>;
}

/** Something that must hold does not. */
export class ScenarioFailure extends Error {}

/** Thrown by scenarios that the machine cannot run. */
export class ScenarioSkipped extends Error {}

export interface StageOptions {
  readonly kind: ServerKind;
  readonly portBase: number;
  readonly directory: string;
  readonly seed: number;
  /** All of it, not the bounded selection: scenarios repeat more often. */
  readonly long: boolean;
  /** The machine is so busy that the bounded selection must do less. */
  readonly hurry: boolean;
}

/** More work in the queue than this for each processor, and times say nothing about the server. */
const BUSY_LOAD = 2;

/** What one run of a scenario stands on. */
export class Stage {
  readonly kind: ServerKind;
  readonly random: Random;
  readonly seed: number;
  readonly long: boolean;
  readonly #hurry: boolean;
  readonly directory: string;
  readonly portBase: number;
  readonly notes: string[] = [];
  readonly #clusters: Cluster[] = [];
  readonly #loads: { stop(): Promise<void> }[] = [];

  constructor(options: StageOptions) {
    this.kind = options.kind;
    this.seed = options.seed;
    this.random = seededRandom(options.seed);
    this.long = options.long;
    this.#hurry = options.hurry;
    this.directory = options.directory;
    this.portBase = options.portBase;
  }

  /** How often to do something: so often in the bounded selection, so often in the long run. */
  rounds(quick: number, long: number): number {
    return this.long ? long : this.#hurry ? Math.ceil(quick / 2) : quick;
  }

  cluster(size: number, options: Partial<Pick<ClusterOptions, "flags" | "proxies" | "dataDirectories" | "portBase">> = {}): Cluster {
    const directory = join(this.directory, `cluster-${this.#clusters.length + 1}`);
    // No two clusters may take each other's members for their own, whatever is left of earlier runs.
    const token = `chaos-${process.pid}-${this.seed}-${this.#clusters.length}`;
    const cluster = new Cluster({ kind: this.kind, size, portBase: this.portBase, token, ...options, directory });
    this.#clusters.push(cluster);
    return cluster;
  }

  /** Clients and watchers on a cluster; they end with the scenario at the latest. */
  load(cluster: Cluster, options: Omit<LoadOptions, "seed">): Load {
    const load = new Load(cluster, { seed: this.seed, ...options });
    this.#loads.push(load);
    return load;
  }

  leaseLoad(options: Omit<LeaseLoadOptions, "seed">): LeaseLoad {
    const load = new LeaseLoad({ seed: this.seed, ...options });
    this.#loads.push(load);
    return load;
  }

  /** Judges a time: on a machine that is busy with other things it is only noted. @throws ScenarioFailure */
  requireWithin(what: string, ms: number, limitMs: number): void {
    const perProcessor = (loadavg()[0] ?? 0) / availableParallelism();
    if (ms <= limitMs) return;
    const text = `${what}: ${Math.round(ms)} ms, more than ${limitMs}`;
    if (perProcessor <= BUSY_LOAD) throw new ScenarioFailure(text);
    this.note(`${text}; not judged, the machine is busy (load ${perProcessor.toFixed(1)} for each processor)`);
  }

  /** Said in the report. */
  note(text: string): void {
    this.notes.push(text);
  }

  /** @throws ScenarioFailure */
  require(holds: boolean, what: string): void {
    if (!holds) throw new ScenarioFailure(what);
  }

  /** Notes the numbers. @throws ScenarioFailure with the first violations. */
  requireGood(verdict: Verdict): void {
    const { operations, acknowledged, refused, unknown, resolved, revision, watchEvents, streams } = verdict;
    this.note(
      `${operations} operations: ${acknowledged} acknowledged, ${refused} refused, ${unknown} unknown (${resolved} of them happened); revision ${revision}; ` +
        `${watchEvents} watch events on ${streams} streams`,
    );
    if (verdict.violations.length > 0)
      throw new ScenarioFailure(`${verdict.violations.length} violations:\n  ${verdict.violations.slice(0, 12).join("\n  ")}`);
  }

  async close(): Promise<void> {
    // The members first: then nobody waits for an answer.
    for (const cluster of this.#clusters) await cluster.close();
    await Promise.all(this.#loads.map((load) => load.stop()));
  }
}
