/** The hub under random loads, against the checker of all watch promises. */
import { beforeAll, describe, expect, it } from "vitest";
import { setVerify } from "../../src/base/assert.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { WATCH_MUTANTS } from "../../src/watch/hub.ts";
import { checkWatchStream, type WatchViolation } from "../support/watch-checker.ts";
import { HubHarness, type RecordedStream, type WatchAsk } from "../support/watch-harness.ts";
import type { Operation } from "../support/watch-source.ts";

const KEYS = ["\0", "a", "a1", "a2", "b", "ba", "c", "c\xff", "d", "e", "f", "\xff", "\xff\xff"];

class Run {
  readonly random: Random;
  readonly harness: HubHarness;
  readonly live = new Set<RecordedStream>();
  /** Executed, not yet notified. */
  readonly pending: number[] = [];
  events = 0;
  #reading = false;

  constructor(seed: number, mutants: readonly string[]) {
    this.random = seededRandom(seed);
    this.harness = new HubHarness({
      // Drawn per seed, so that each run is extreme in other ways.
      streamBytesMax: this.pick([300, 1000, 4000, 1 << 20]),
      fragmentBytes: this.pick([200, 1000, 1 << 20]),
      catchUpRevisionsMax: this.pick([1, 3, 20, 1000]),
      watchersPerStreamMax: this.pick([4, 50]),
      yieldNow: async () => {
        this.interfere();
      },
      mutants: new Set(mutants),
    });
    this.listen();
  }

  pick<T>(from: readonly T[]): T {
    return from[this.random.below(from.length)] as T;
  }

  /** The member's reads take time, in which anything can happen. */
  listen(): void {
    this.harness.member.gate = async () => {
      this.interfere();
    };
  }

  interfere(): void {
    if (this.#reading) return;
    this.#reading = true;
    for (let n = this.random.below(4); n > 0; n -= 1) this.step();
    this.#reading = false;
  }

  operation(): Operation {
    const key = this.pick(KEYS);
    if (this.random.chance({ of: 1, outOf: 4 })) return { delete: key };
    return { put: key, value: "v".repeat(this.random.below(this.random.below(10) === 0 ? 600 : 30)) };
  }

  execute(): void {
    const count = this.random.below(3) === 0 ? 1 + this.random.below(6) : 1;
    const used = new Map<string, Operation>();
    for (let n = 0; n < count; n += 1) {
      const operation = this.operation();
      used.set("put" in operation ? operation.put : operation.delete, operation);
    }
    const { history, member } = this.harness;
    if (history.apply(...used.values()).length === 0) return;
    member.revision = history.revision;
    this.pending.push(history.revision);
  }

  notifyAll(): void {
    for (const revision of this.pending.splice(0)) this.harness.hub.notify(revision, this.harness.history.eventsOf(revision));
  }

  ask(): WatchAsk {
    const { random, harness } = this;
    const revision = harness.history.revision;
    const key = random.below(12) === 0 ? "" : this.pick(KEYS);
    const ask: { -readonly [Name in keyof WatchAsk]: WatchAsk[Name] } = { key };
    const shape = random.below(6);
    if (shape < 2) ask.end = "\0";
    else if (shape < 4) ask.end = this.pick(KEYS.slice(1));
    const start = random.below(10);
    if (start < 5) ask.from = Math.max(1, revision - random.below(revision + 1));
    else if (start === 5) ask.from = revision + random.below(30);
    else if (start === 6 && random.below(4) === 0) ask.from = -1;
    if (random.below(5) === 0) ask.id = BigInt(random.below(12) - 4);
    if (ask.id === -1n) delete ask.id;
    if (random.below(4) === 0) ask.filters = [this.pick([0, 1, 9])];
    ask.prevKv = random.below(2) === 0;
    ask.fragment = random.below(3) === 0;
    ask.progress = random.below(2) === 0;
    return ask;
  }

  step(): void {
    const { random, harness } = this;
    const dice = random.below(1000);
    if (dice < 450) {
      this.execute();
      if (random.below(4) !== 0) this.notifyAll();
      return;
    }
    const stream = this.live.size === 0 || (this.live.size < 8 && random.below(20) === 0) ? this.open() : this.pick([...this.live]);
    if (dice < 520) stream.create(this.ask());
    else if (dice < 550) stream.cancel(BigInt(random.below(12) - 4));
    else if (dice < 880) stream.take(this.pick([1, 100, 1000, 1 << 20]));
    else if (dice < 920) stream.stream.requestProgress();
    else if (dice < 950) stream.stream.notifyProgress();
    else if (dice < 962) {
      const { member } = harness;
      const compaction = member.compactRevision + 1 + random.below(Math.max(1, (member.revision - member.compactRevision) >> 1));
      if (compaction > 1 && compaction <= member.revision && random.below(8) === 0) member.compact(compaction);
    } else if (dice < 968 && random.below(2) === 0) {
      // The member hears nothing for a while, and then a snapshot brings it to the present.
      this.notifyAll();
      for (let n = random.below(20); n > 0; n -= 1) harness.history.apply(this.operation());
      const { compactRevision } = harness.member;
      const kept = random.below(6) === 0 ? Math.max(compactRevision, harness.history.revision - random.below(30)) : compactRevision;
      harness.installSnapshot(kept);
      this.listen();
    } else if (dice < 971) {
      stream.drain();
      stream.stream.close();
      this.live.delete(stream);
    }
  }

  open(): RecordedStream {
    const stream = this.harness.open();
    this.live.add(stream);
    return stream;
  }

  async finish(): Promise<WatchViolation[]> {
    const { harness } = this;
    harness.member.gate = () => Promise.resolve();
    this.#reading = true;
    this.notifyAll();
    for (let idle = 0; idle < 2; ) {
      idle += 1;
      for (const stream of this.live) if (stream.drain().length > 0) idle = 0;
      if (harness.hub.lagging) idle = 0;
      await harness.hub.catchUp();
    }
    harness.hub.check();
    const { model } = harness.history;
    const violations: WatchViolation[] = [];
    for (const stream of harness.streams) {
      const options = this.live.has(stream) ? { liveUpTo: harness.history.revision } : {};
      violations.push(...checkWatchStream(model, stream.record, options));
      for (const response of stream.taken) this.events += response.events.length;
    }
    expect(harness.hub.stats.pendingEvents).toBe(0);
    expect(harness.hub.stats.slowWatchers).toBe(0);
    return violations;
  }

  async go(steps: number): Promise<WatchViolation[]> {
    const { harness } = this;
    const { hub } = harness;
    let round: Promise<void> | undefined;
    for (let n = 0; n < steps; n += 1) {
      this.step();
      if (hub.lagging && round === undefined && this.random.below(5) === 0) {
        round = hub.catchUp().finally(() => {
          round = undefined;
        });
      }
      if (this.random.below(20) === 0) hub.check();
      if (this.random.below(10) === 0) await Promise.resolve();
    }
    await round;
    return this.finish();
  }
}

beforeAll(() => setVerify(true));

describe("random watching", () => {
  it("W1 to W8, W11: 60 seeds, more than 100,000 events", async () => {
    let events = 0;
    for (let seed = 1; seed <= 60; seed += 1) {
      const run = new Run(seed, []);
      const violations = await run.go(3000);
      expect({ seed, violations: violations.slice(0, 5) }).toEqual({ seed, violations: [] });
      events += run.events;
    }
    expect(events).toBeGreaterThan(100_000);
  });

  it.each(WATCH_MUTANTS)("finds %s", async (mutant) => {
    let found = 0;
    for (let seed = 1; seed <= 30 && found === 0; seed += 1) found += (await new Run(seed, [mutant]).go(3000)).length;
    expect(found).toBeGreaterThan(0);
  });
});
