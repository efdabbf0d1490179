/** What a scenario is, and what it is given. */
import { join } from "node:path";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { ServerKind } from "../support/server-process.ts";
import { Cluster, type ClusterOptions } from "./cluster.ts";
import type { Verdict } from "./verify.ts";

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
}

/** What one run of a scenario stands on. */
export class Stage {
  readonly kind: ServerKind;
  readonly random: Random;
  readonly seed: number;
  readonly long: boolean;
  readonly directory: string;
  readonly portBase: number;
  readonly notes: string[] = [];
  readonly #clusters: Cluster[] = [];

  constructor(options: StageOptions) {
    this.kind = options.kind;
    this.seed = options.seed;
    this.random = seededRandom(options.seed);
    this.long = options.long;
    this.directory = options.directory;
    this.portBase = options.portBase;
  }

  cluster(size: number, options: Partial<Pick<ClusterOptions, "flags" | "proxies" | "directory">> = {}): Cluster {
    const directory = options.directory ?? join(this.directory, `cluster-${this.#clusters.length + 1}`);
    const cluster = new Cluster({ kind: this.kind, size, portBase: this.portBase, ...options, directory });
    this.#clusters.push(cluster);
    return cluster;
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
    for (const cluster of this.#clusters) await cluster.close();
  }
}
