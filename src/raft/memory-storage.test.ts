import { expect, test } from "vitest";
import type { MemberId } from "../base/ids.ts";
import { EMPTY_CONF } from "./confchange/change.ts";
import type { Entry } from "./entry.ts";
import { MemoryStorage } from "./memory-storage.ts";

const entry = (index: number, term: number, bytes = 1): Entry => ({ term, index, type: "normal", data: new Uint8Array(bytes) });
const filled = (...terms: number[]): MemoryStorage => {
  const storage = new MemoryStorage();
  storage.append(terms.map((term, i) => entry(i + 1, term)));
  return storage;
};
const CONF = { ...EMPTY_CONF, voters: [1n as MemberId] };

test("an append replaces a suffix and leaves no gap", () => {
  const storage = filled(1, 1, 1);
  storage.append([entry(2, 2)]);
  expect([storage.lastIndex(), storage.term(2), storage.term(3)]).toEqual([2, 2, undefined]);
  expect(() => storage.append([entry(4, 2)])).toThrow("leaves no gap");
  expect(() => storage.append([entry(3, 2), entry(5, 2)])).toThrow("contiguous");
});

test("compaction keeps the term of its point, and nothing before", () => {
  const storage = filled(1, 2, 3);
  storage.compact(2);
  expect([storage.firstIndex(), storage.lastIndex(), storage.term(1), storage.term(2), storage.term(3)]).toEqual([3, 3, undefined, 2, 3]);
  storage.compact(1);
  expect(storage.firstIndex()).toBe(3);
  expect(() => storage.compact(9)).toThrow("within the log");
  expect(() => storage.append([entry(2, 3)])).toThrow("nothing compacted");
  expect(() => storage.entries(2, 3, 10)).toThrow("log read within");
  expect(() => storage.entries(3, 5, 10)).toThrow("log read within");
});

test("entries are cut by bytes, one at least", () => {
  const storage = new MemoryStorage();
  storage.append([entry(1, 1, 10), entry(2, 1, 10), entry(3, 1, 10)]);
  expect(storage.entries(1, 4, 20)).toHaveLength(2);
  expect(storage.entries(1, 4, 0)).toHaveLength(1);
  expect(storage.entries(2, 4, 100).map((e) => e.index)).toEqual([2, 3]);
});

test("a snapshot replaces the log and its configuration becomes the initial one", () => {
  const storage = filled(1, 1);
  storage.applySnapshot({ index: 7, term: 3, confState: CONF });
  expect([storage.firstIndex(), storage.lastIndex(), storage.term(7)]).toEqual([8, 7, 3]);
  expect(storage.initialState().confState).toEqual(CONF);
  expect(storage.snapshot()?.index).toBe(7);
  expect(() => storage.applySnapshot({ index: 7, term: 3, confState: CONF })).toThrow("beyond the compaction point");
  const started = new MemoryStorage({ index: 7, term: 3, confState: CONF });
  expect([started.firstIndex(), started.initialState().confState]).toEqual([8, CONF]);
});

test("the newest snapshot made is the one offered", () => {
  const storage = filled(1, 1, 2);
  expect(storage.snapshot()).toBeUndefined();
  storage.createSnapshot(3, CONF);
  storage.createSnapshot(2, CONF);
  expect(storage.snapshot()).toEqual({ index: 3, term: 2, confState: CONF });
  expect(() => storage.createSnapshot(4, CONF)).toThrow("within the log");
});
