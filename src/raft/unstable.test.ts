import { expect, test } from "vitest";
import { type MemberId, NO_MEMBER } from "../base/ids.ts";
import { seededRandom } from "../base/random.ts";
import { EMPTY_CONF } from "./confchange/change.ts";
import type { Entry } from "./entry.ts";
import { Unstable } from "./unstable.ts";

const NOTHING = new Uint8Array(0);
const entry = (index: number, term: number): Entry => ({ term, index, type: "normal", data: NOTHING });
const entries = (from: number, ...terms: number[]): Entry[] => terms.map((term, i) => entry(from + i, term));

/** A disk that performs appends in order, some time later. Position 0 is the snapshot base. */
class Disk {
  base = 0;
  terms: number[] = [];

  clone(): Disk {
    const copy = new Disk();
    copy.base = this.base;
    copy.terms = this.terms.slice();
    return copy;
  }

  write(write: { snapshotIndex: number; entries: readonly Entry[] }): void {
    if (write.snapshotIndex > 0) {
      this.base = write.snapshotIndex;
      this.terms = [];
    }
    const first = write.entries[0];
    if (first === undefined) return;
    this.terms.length = first.index - this.base - 1;
    for (const { term } of write.entries) this.terms.push(term);
  }

  term(index: number): number | undefined {
    return this.terms[index - this.base - 1];
  }
}

/**
 * Random appends, replacements, snapshots and completions. What is called durable must be on the disk now and stay there whatever
 * part of the writes under way a crash lets happen.
 */
function run(seed: number, acceptStale: boolean): void {
  const random = seededRandom(seed);
  const unstable = new Unstable(0, acceptStale);
  const disk = new Disk();
  const log: number[] = [0];
  let base = 0;
  let term = 1;
  const underWay: { sequence: number; snapshotIndex: number; entries: readonly Entry[] }[] = [];
  for (let step = 0; step < 60; step++) {
    switch (random.below(6)) {
      case 0:
      case 1: {
        // A leader of this or a new term continues the log somewhere behind the base; it may repeat terms that were there before.
        const from = base + 1 + random.below(log.length - base);
        if (random.chance({ of: 1, outOf: 2 })) term += 1;
        const list = Array.from({ length: 1 + random.below(3) }, (_, i) => entry(from + i, 1 + random.below(term)));
        const first = list.findIndex(({ index, term: t }) => log[index] !== t);
        if (first < 0) break;
        const news = list.slice(first);
        log.length = (news[0] as Entry).index;
        for (const e of news) log.push(e.term);
        unstable.replaceFrom(news);
        break;
      }
      case 2:
      case 3: {
        const { record, entries: taken, snapshot } = unstable.handOut(term, NO_MEMBER);
        underWay.push({ sequence: record.sequence, snapshotIndex: snapshot?.index ?? 0, entries: taken });
        break;
      }
      case 4: {
        const count = random.below(underWay.length + 1);
        for (const write of underWay.slice(0, count)) disk.write(write);
        const last = underWay[count - 1];
        underWay.splice(0, count);
        if (last !== undefined) unstable.complete(last.sequence);
        break;
      }
      default:
        if (random.chance({ of: 1, outOf: 5 })) {
          base = log.length + random.below(3);
          log.length = base + 1;
          unstable.restore({ index: base, term, confState: EMPTY_CONF });
        }
    }
    unstable.check();
    expect(unstable.lastIndex).toBe(log.length - 1);
    const afterCrash = disk.clone();
    for (let lost = underWay.length; lost >= 0; lost--) {
      for (let index = base + 1; index <= unstable.durable; index++) expect(afterCrash.term(index)).toBe(log[index]);
      const next = underWay[underWay.length - lost];
      if (next !== undefined) afterCrash.write(next);
    }
  }
}

test("what is called durable survives every crash, whenever appends complete", () => {
  for (let seed = 0; seed < 400; seed++) run(seed, false);
});

test("comparing completions by index and term instead would be noticed", () => {
  let noticed = 0;
  for (let seed = 0; seed < 400; seed++) {
    try {
      run(seed, true);
    } catch {
      noticed += 1;
    }
  }
  expect(noticed).toBeGreaterThan(100);
});

test("the ABA case: an entry that comes back counts only when its own append is done", () => {
  const unstable = new Unstable(4);
  unstable.replaceFrom([entry(5, 1)]);
  const first = unstable.handOut(1, NO_MEMBER).record;
  unstable.replaceFrom([entry(5, 2)]);
  const second = unstable.handOut(2, NO_MEMBER).record;
  unstable.replaceFrom([entry(5, 1)]);
  const third = unstable.handOut(3, NO_MEMBER).record;
  unstable.complete(first.sequence);
  expect(unstable.durable).toBe(4);
  unstable.complete(second.sequence);
  expect(unstable.durable).toBe(4);
  unstable.complete(third.sequence);
  expect(unstable.durable).toBe(5);
});

test("a completion covers all appends before it, and repeating it changes nothing", () => {
  const unstable = new Unstable(0);
  unstable.replaceFrom(entries(1, 1, 1));
  const one = unstable.handOut(1, 7n as MemberId).record;
  unstable.replaceFrom(entries(3, 1));
  const two = unstable.handOut(2, 8n as MemberId).record;
  expect(unstable.complete(two.sequence)?.record).toMatchObject({ term: 2, vote: 8n, lastIndex: 3 });
  expect(unstable.durable).toBe(3);
  expect(unstable.complete(one.sequence)).toBeUndefined();
  expect(() => unstable.complete(9)).toThrow("only handed-out appends complete");
});

test("each entry is handed out once, replaced ones again", () => {
  const unstable = new Unstable(0);
  unstable.replaceFrom(entries(1, 1, 1, 1));
  expect(unstable.handOut(1, NO_MEMBER).entries.map((e) => e.index)).toEqual([1, 2, 3]);
  expect(unstable.hasWork).toBe(false);
  expect(unstable.handOut(1, NO_MEMBER).entries).toEqual([]);
  unstable.replaceFrom(entries(2, 2, 2));
  expect(unstable.handOut(2, NO_MEMBER).entries.map((e) => [e.index, e.term])).toEqual([
    [2, 2],
    [3, 2],
  ]);
});

test("two snapshots, the second before the first is installed (BS1)", () => {
  const unstable = new Unstable(3);
  unstable.restore({ index: 10, term: 1, confState: EMPTY_CONF });
  const one = unstable.handOut(1, NO_MEMBER);
  expect(one.snapshot?.index).toBe(10);
  unstable.restore({ index: 20, term: 1, confState: EMPTY_CONF });
  expect(unstable.complete(one.record.sequence)).toMatchObject({ snapshot: { index: 10 } });
  expect([unstable.durable, unstable.snapshot?.index]).toEqual([0, 20]);
  unstable.replaceFrom([entry(21, 1)]);
  const two = unstable.handOut(1, NO_MEMBER);
  expect([two.snapshot?.index, two.entries.length]).toEqual([20, 1]);
  unstable.complete(two.record.sequence);
  expect([unstable.durable, unstable.snapshot]).toEqual([21, undefined]);
});
