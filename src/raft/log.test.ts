import { expect, test } from "vitest";
import { setVerify } from "../base/assert.ts";
import { NO_MEMBER } from "../base/ids.ts";
import { seededRandom } from "../base/random.ts";
import { EMPTY_CONF } from "./confchange/change.ts";
import type { Entry } from "./entry.ts";
import { type LogMutants, RaftLog } from "./log.ts";
import { MemoryStorage } from "./memory-storage.ts";

setVerify(true);

const SOUND: LogMutants = { keepConflicts: false, truncateAlways: false, acceptStaleAppend: false, handOutBeforeDurable: false };
const entry = (index: number, term: number, bytes = 0): Entry => ({ term, index, type: "normal", data: new Uint8Array(bytes) });
const entries = (from: number, ...terms: number[]): Entry[] => terms.map((term, i) => entry(from + i, term));

/** A log of which the first `stored` entries are in storage, the others not durable. */
function make(
  terms: number[],
  options: { stored?: number; commit?: number; applied?: number } = {},
): { log: RaftLog; storage: MemoryStorage } {
  const stored = options.stored ?? terms.length;
  const storage = new MemoryStorage();
  storage.append(entries(1, ...terms.slice(0, stored)));
  const log = new RaftLog(storage, 0, 0, SOUND);
  log.append(stored, entries(stored + 1, ...terms.slice(stored)));
  if (options.commit !== undefined) log.commitTo(options.commit);
  return { log, storage };
}

/** Does the append that is due, at once. */
function persist(log: RaftLog, storage: MemoryStorage): void {
  const { record, entries: taken, snapshot } = log.unstable.handOut(1, NO_MEMBER);
  if (snapshot !== undefined) storage.applySnapshot(snapshot);
  storage.append(taken);
  log.completeAppend(record.sequence);
}

const terms = (log: RaftLog): (number | undefined)[] => Array.from({ length: log.last }, (_, i) => log.term(i + 1));

test("an append skips what is here, and truncates only at a conflict (I3)", () => {
  for (const stored of [0, 2, 4]) {
    const { log } = make([1, 1, 2, 2], { stored });
    expect(log.append(1, entries(2, 1, 2))).toBe(0);
    expect(terms(log)).toEqual([1, 1, 2, 2]);
    expect(log.append(2, entries(3, 2, 3, 3))).toBe(4);
    expect(terms(log)).toEqual([1, 1, 2, 3, 3]);
    expect(log.append(5, entries(6, 3))).toBe(0);
    expect(log.last).toBe(6);
    log.check();
  }
});

test("a conflict within what is committed is a broken invariant", () => {
  const { log } = make([1, 1, 2], { commit: 2 });
  expect(() => log.append(1, entries(2, 3))).toThrow("a committed entry conflicts with the leader's");
});

test("a commit index beyond the log is one, too (BR23)", () => {
  const { log } = make([1, 1]);
  expect(() => log.commitTo(3)).toThrow("acknowledged are missing");
  expect(log.commitTo(2)).toBe(true);
  expect(log.commitTo(1)).toBe(false);
});

test("starting with a commit or applied index beyond the log is refused (BM11, BR23)", () => {
  expect(() => new RaftLog(new MemoryStorage(), 5, 0, SOUND)).toThrow("acknowledged are missing");
  expect(() => new RaftLog(new MemoryStorage(), 0, 5, SOUND)).toThrow("acknowledged are missing");
});

test("an applied index above the stored commit index raises it (BS10)", () => {
  const storage = new MemoryStorage();
  storage.append(entries(1, 1, 1, 1));
  const log = new RaftLog(storage, 1, 3, SOUND);
  expect([log.committed, log.applied, log.handedOut]).toEqual([3, 3, 3]);
});

test("which log is more complete: the later last term, then the longer", () => {
  const { log } = make([1, 2, 2]);
  const table: [number, number, boolean][] = [
    [3, 2, true],
    [2, 2, false],
    [4, 2, true],
    [1, 3, true],
    [9, 1, false],
  ];
  for (const [index, term, expected] of table) expect(log.isUpToDate(index, term)).toBe(expected);
});

test("findByTerm goes back whole terms", () => {
  const { log, storage } = make([1, 1, 2, 2, 5, 5], { stored: 4, commit: 4 });
  expect(log.findByTerm(6, 4)).toBe(4);
  expect(log.findByTerm(99, 5)).toBe(6);
  expect(log.findByTerm(4, 1)).toBe(2);
  expect(log.findByTerm(2, 0)).toBe(0);
  log.handOutCommitted(100);
  log.appliedTo(3);
  storage.compact(3);
  expect(log.findByTerm(4, 1)).toBe(2);
  expect(log.term(2)).toBeUndefined();
  expect(log.term(3)).toBe(2);
});

test("reading across the border of storage and memory agrees with a plain list, cut by bytes", () => {
  const random = seededRandom(8);
  for (let round = 0; round < 500; round++) {
    const size = 1 + random.below(12);
    const list = Array.from({ length: size }, (_, i) => entry(i + 1, 1, random.below(5)));
    const stored = random.below(size + 1);
    const storage = new MemoryStorage();
    storage.append(list.slice(0, stored));
    const log = new RaftLog(storage, 0, 0, SOUND);
    log.append(stored, list.slice(stored));
    const from = 1 + random.below(size);
    const to = from + 1 + random.below(size - from + 1);
    const bytesMax = random.below(20);
    let expected = 1;
    let bytes = (list[from - 1] as Entry).data.length;
    while (from + expected < to) {
      bytes += (list[from - 1 + expected] as Entry).data.length;
      if (bytes > bytesMax) break;
      expected += 1;
    }
    expect(log.slice(from, to, bytesMax)?.map((e) => e.index)).toEqual(list.slice(from - 1, from - 1 + expected).map((e) => e.index));
  }
});

test("paging committed entries by tiny sizes loses none (BR19), and none is handed out before it is durable (BW2)", () => {
  const random = seededRandom(9);
  for (const bytesMax of [1, 3, 10, 1000]) {
    const storage = new MemoryStorage();
    const log = new RaftLog(storage, 0, 0, SOUND);
    const seen: number[] = [];
    let index = 0;
    while (seen.length < 200) {
      for (let i = random.below(6); i > 0; i--) {
        index += 1;
        log.push(entry(index, 1, random.below(6)));
      }
      if (random.chance({ of: 1, outOf: 2 }))
        log.commitTo(Math.max(log.committed, log.committed + random.below(log.last - log.committed + 1)));
      if (random.chance({ of: 1, outOf: 2 })) persist(log, storage);
      for (const e of log.handOutCommitted(bytesMax)) {
        expect(e.index).toBeLessThanOrEqual(Math.min(log.committed, log.durable));
        seen.push(e.index);
      }
      if (random.chance({ of: 1, outOf: 2 })) log.appliedTo(log.handedOut - random.below(Math.max(1, log.handedOut - log.applied)));
      log.check();
    }
    expect(seen).toEqual(seen.map((_, i) => i + 1));
  }
});

test("a state machine that does not apply is not given more and more", () => {
  const { log } = make([], {});
  for (let i = 1; i <= 10; i++) log.push(entry(i, 1, 10));
  const storage = new MemoryStorage();
  const durable = new RaftLog(storage, 0, 0, SOUND);
  for (let i = 1; i <= 10; i++) durable.push(entry(i, 1, 10));
  persist(durable, storage);
  durable.commitTo(10);
  expect(durable.handOutCommitted(20)).toHaveLength(2);
  expect(durable.handOutCommitted(20)).toHaveLength(2);
  expect(durable.handOutCommitted(20)).toHaveLength(0);
  durable.appliedTo(2);
  expect(durable.handOutCommitted(20)).toHaveLength(2);
  expect(() => durable.appliedTo(7)).toThrow("only entries that were handed out are applied");
  expect(log.hasCommitted(1)).toBe(false);
});

test("a snapshot replaces the log; nothing is handed out until it is installed", () => {
  const { log, storage } = make([1, 1, 1], { stored: 2, commit: 2 });
  log.restore({ index: 10, term: 4, confState: EMPTY_CONF });
  expect([log.last, log.lastTerm, log.committed, log.firstIndex(), log.durable]).toEqual([10, 4, 10, 11, 0]);
  expect(log.term(9)).toBeUndefined();
  log.append(10, entries(11, 4, 4));
  log.commitTo(12);
  expect(log.hasCommitted(100)).toBe(false);
  persist(log, storage);
  expect([log.applied, log.durable]).toEqual([10, 12]);
  expect(log.handOutCommitted(100).map((e) => e.index)).toEqual([11, 12]);
  expect(log.slice(5, 8, 100)).toBeUndefined();
});

test("storage that does not hold what is reported durable is found out", () => {
  const { log } = make([1, 1], { stored: 1 });
  const { record } = log.unstable.handOut(1, NO_MEMBER);
  expect(() => log.completeAppend(record.sequence)).toThrow("storage holds an append before it is reported durable");
});

test("random appends agree with a naive log, durable or not", () => {
  const random = seededRandom(10);
  for (let round = 0; round < 200; round++) {
    const storage = new MemoryStorage();
    const log = new RaftLog(storage, 0, 0, SOUND);
    let naive: number[] = [];
    let term = 1;
    for (let step = 0; step < 40; step++) {
      if (random.chance({ of: 1, outOf: 3 })) persist(log, storage);
      if (random.chance({ of: 1, outOf: 4 })) term += 1;
      const prev = log.committed + random.below(naive.length - log.committed + 1);
      let before = naive[prev - 1] ?? 1;
      const news = Array.from({ length: random.below(4) }, (_, i) => {
        const known = naive[prev + i];
        if (known !== undefined && known >= before && random.chance({ of: 1, outOf: 2 })) before = known;
        else before = before + random.below(term - before + 1);
        return entry(prev + 1 + i, before);
      });
      const conflict = news.findIndex((e) => naive[e.index - 1] !== e.term);
      if (conflict >= 0) naive = naive.slice(0, prev + conflict).concat(news.slice(conflict).map((e) => e.term));
      log.append(prev, news);
      expect(terms(log)).toEqual(naive);
      if (random.chance({ of: 1, outOf: 5 })) log.commitTo(log.committed + random.below(log.last - log.committed + 1));
      log.check();
    }
  }
});
