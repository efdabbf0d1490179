/** A cluster under load from start to verdict: clients and watchers run while a scenario does its worst, then everything is healed and judged. */
import * as api from "../../src/api/index.ts";
import { until } from "../support/server-process.ts";
import { checkConcatenation, checkWatchStream } from "../support/watch-checker.ts";
import { checkHistory } from "./check-history.ts";
import type { Cluster, Member } from "./cluster.ts";
import type { Operation } from "./history.ts";
import { checkHashes, type MemberHash, mergeEvents } from "./same-everywhere.ts";
import { WatchRecorder } from "./watch-recorder.ts";
import { Workload, type WorkloadOptions } from "./workload.ts";

export interface LoadOptions extends Omit<WorkloadOptions, "endpoint"> {
  readonly endpoint?: WorkloadOptions["endpoint"];
  /** Members to watch; all of the beginning if not given. */
  readonly watched?: readonly Member[];
  /** Called with everything that the members' full watches deliver. */
  readonly onEvent?: (event: api.Event, receivedAt: number) => void;
}

/** What a run amounted to, for its report. */
export interface Verdict {
  readonly operations: number;
  readonly acknowledged: number;
  readonly refused: number;
  readonly unknown: number;
  readonly resolved: number;
  readonly revision: number;
  readonly watchEvents: number;
  readonly streams: number;
  readonly violations: readonly string[];
}

export class Load {
  readonly #cluster: Cluster;
  readonly workload: Workload;
  readonly recorders: WatchRecorder[] = [];
  readonly #options: LoadOptions;

  constructor(cluster: Cluster, options: LoadOptions) {
    this.#cluster = cluster;
    this.#options = options;
    for (const member of options.watched ?? cluster.list) this.watch(member);
    this.workload = new Workload({
      endpoint: (client) => {
        const { list } = cluster;
        return (list[client % list.length] as Member).endpoint;
      },
      ...options,
    }).start();
  }

  /** From now on this member's watches are recorded, too. */
  watch(member: Member): void {
    const { seed, onEvent } = this.#options;
    this.recorders.push(new WatchRecorder(member.name, () => member.endpoint, seed * 100 + this.recorders.length, onEvent));
  }

  /** No more watching of a member that goes for good; what it has delivered is judged with the rest. */
  async unwatch(member: Member): Promise<void> {
    for (const recorder of this.recorders) if (recorder.member === member.name) await recorder.stop();
  }

  /** Waits until `count` more mutations have been acknowledged. */
  async progress(count: number, deadlineMs = 90_000): Promise<void> {
    const goal = this.workload.acknowledged + count;
    await until(`${count} more writes`, deadlineMs, () => this.workload.acknowledged >= goal);
  }

  /** Ends everything, without judging. */
  async stop(): Promise<void> {
    await Promise.all([this.workload.stop(), ...this.recorders.map((recorder) => recorder.stop())]);
  }

  /** Ends the load, waits until all members agree, and judges. All members must be running and connected. */
  async verdict(deadlineMs = 60_000): Promise<Verdict> {
    await this.workload.stop();
    await this.#cluster.untilServing(deadlineMs);
    const violations: string[] = [];
    const revision = await this.#agree(violations, deadlineMs);
    const early = new Map(this.recorders.filter(({ isStopped }) => isStopped).map((recorder) => [recorder, recorder.reached - 1]));
    for (const recorder of this.recorders) {
      if (early.has(recorder)) continue;
      try {
        await until(`the watch on ${recorder.member} has everything`, deadlineMs, () => recorder.reached > revision);
      } catch (error) {
        violations.push(`W11-live: ${error instanceof Error ? error.message : error}: it is at ${recorder.reached} of ${revision}`);
      }
    }
    await Promise.all(this.recorders.map((recorder) => recorder.stop()));
    return this.#judge(revision, violations, early);
  }

  /** K11: equal hashes at equal revision on all members. Gives the final revision. */
  async #agree(violations: string[], deadlineMs: number): Promise<number> {
    const [first] = this.#cluster.running;
    if (first === undefined) throw new Error("no member is running");
    const everything = { key: "AA==", range_end: "AA==", count_only: true };
    const revision = await until("the final read", deadlineMs, async () => {
      const text = await this.#cluster.call(first, "/v3/kv/range", everything);
      return api.parseJson(api.RangeResponse, text).header?.revision;
    });
    const hashes: MemberHash[] = [];
    for (const member of this.#cluster.running) {
      const { hash, compactRevision } = await until(`${member.name} hashes at ${revision}`, deadlineMs, async () =>
        api.parseJson(api.HashKVResponse, await this.#cluster.call(member, "/v3/maintenance/hashkv", { revision })),
      );
      hashes.push({ name: member.name, hash, compactRevision });
    }
    violations.push(...checkHashes(revision, hashes));
    return revision;
  }

  #judge(revision: number, violations: string[], early: ReadonlyMap<WatchRecorder, number>): Verdict {
    const { history } = this.workload;
    const events = mergeEvents(this.recorders, revision, violations);
    const result = checkHistory({ operations: history, events, revision });
    violations.push(...result.violations.map(({ rule, what }) => `${rule}: ${what}`));
    const count = (outcome: Operation["outcome"]): number => history.filter((operation) => operation.outcome === outcome).length;
    if (result.violations.length === 0) {
      for (const { exchange, outcome } of history)
        if (exchange.kind === "compact" && outcome !== "no") result.changes.compactions.push(exchange.request.revision);
      for (const recorder of this.recorders) {
        for (const record of recorder.streams)
          for (const { rule, what } of checkWatchStream(result.changes, record)) violations.push(`${rule} on ${recorder.member}: ${what}`);
        if (recorder.gaps.length > 0) continue;
        const wanted = { key: Buffer.from([0]), rangeEnd: Buffer.from([0]), filters: [] };
        const upTo = early.get(recorder) ?? revision;
        const seen = recorder.events.filter(({ kv }) => (kv?.modRevision ?? 0) <= upTo);
        for (const { rule, what } of checkConcatenation(result.changes, wanted, seen, 1, upTo))
          violations.push(`${rule} on ${recorder.member}: ${what}`);
      }
    }
    return {
      operations: history.length,
      acknowledged: count("yes"),
      refused: count("no"),
      unknown: count("unknown"),
      resolved: result.resolved,
      revision,
      watchEvents: this.recorders.reduce((sum, recorder) => sum + recorder.events.length, 0),
      streams: this.recorders.reduce((sum, recorder) => sum + recorder.streams.length, 0),
      violations,
    };
  }
}
