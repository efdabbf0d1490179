/**
 * Range reads (api-semantics 3 and 4): one algorithm in steps, driven at once for small and transactional reads, and in slices for
 * everything else. The order of the steps is etcd's: read, filter by revisions, sort, cut to the limit, strip values. What the steps
 * need is mostly in the index, so values are loaded last and only for the answer; a sort by value is the exception.
 */
import { type KeyValue, type RangeRequest, type RangeResponse, SortOrder, SortTarget } from "../api/index.ts";
import { bytesOfKey, compareBytes, EMPTY_BYTES, type KeyString, keyStringOf } from "../base/bytes.ts";
import { NO_LEASE } from "../base/ids.ts";
import { MergeSort } from "./merge-sort.ts";
import { PositionList } from "./position-list.ts";
import { RowArena, type StoredPair } from "./row.ts";
import { LOAD_CHUNK_ROWS, type Rows } from "./rows.ts";
import type { Slicer } from "./slices.ts";
import { NEWEST, type TreeIndex } from "./tree-index.ts";

/** Keys per step of a sliced walk: well below a millisecond. */
const WALK_KEYS = 4096;
/** Leaves per step of a sliced count at a past revision. */
const COUNT_LEAVES = 64;
/** Comparisons per step of a sliced sort; those of values are slow. */
const SORT_STEPS = 8192;
/** The largest answer that `rangeNow` gives, in pairs looked at. */
export const RANGE_NOW_PAIRS_MAX = 1000;
/** What a larger read brings from the disk stays out of the cache, so that one full scan does not empty it. */
const CACHED_READ_PAIRS_MAX = 256;

const ALL = Number.POSITIVE_INFINITY;
const NO_NUMBERS = new Float64Array(0);

export function responseHeader(revision: number): { clusterId: bigint; memberId: bigint; revision: number; raftTerm: number } {
  return { clusterId: 0n, memberId: 0n, revision, raftTerm: 0 };
}

/** The key one above `key` in byte order. */
export function keyAfter(key: KeyString): KeyString {
  return `${key}\0` as KeyString;
}

/** The exclusive end that `rangeEnd` stands for; undefined: no end. An empty one stands for the single `key`. */
export function endOf(rangeEnd: Uint8Array, key: KeyString): KeyString | undefined {
  if (rangeEnd.length === 0) return keyAfter(key);
  return rangeEnd.length === 1 && rangeEnd[0] === 0 ? undefined : keyStringOf(rangeEnd);
}

function withoutValue({ key, createRevision, modRevision, version, lease }: KeyValue): KeyValue {
  return { key, createRevision, modRevision, version, value: EMPTY_BYTES, lease, wire: undefined };
}

/**
 * The answer for a request without `rangeEnd`, where nothing can be sorted or cut. Undefined if the pair is not in memory, unless
 * `load` is set. `revision` is NEWEST inside a transaction.
 */
export function rangeSingle(
  index: TreeIndex,
  rows: Rows,
  request: RangeRequest,
  revision: number,
  headerRevision: number,
  load: boolean,
): RangeResponse | undefined {
  const key = keyStringOf(request.key);
  const header = responseHeader(headerRevision);
  if (!index.findAt(key, revision)) return { header, kvs: [], more: false, count: 0 };
  const { main, sub, create, version } = index;
  if (request.countOnly || !passes(request, main, create)) return { header, kvs: [], more: false, count: 1 };
  if (isFromIndex(request)) return { header, kvs: [pairWithoutValue(key, main, create, version)], more: false, count: 1 };
  const pair = load ? rows.loadNow(main, sub) : rows.peek(main, sub);
  if (pair === undefined) return undefined;
  return { header, kvs: [request.keysOnly ? withoutValue(pair.keyValue) : pair.keyValue], more: false, count: 1 };
}

/** True if the answer needs no rows: without values, and then without leases either (quirk 8). */
function isFromIndex(request: RangeRequest): boolean {
  return request.keysOnly && request.sortTarget !== SortTarget.VALUE;
}

function pairWithoutValue(key: KeyString, main: number, create: number, version: number): KeyValue {
  return { key: bytesOfKey(key), createRevision: create, modRevision: main, version, value: EMPTY_BYTES, lease: NO_LEASE, wire: undefined };
}

/** One range read on its way. */
export class RangeRead {
  readonly #request: RangeRequest;
  readonly #index: TreeIndex;
  readonly #rows: Rows;
  /** NEWEST inside a transaction: the current state, own writes included. */
  readonly #revision: number;
  readonly #from: KeyString;
  readonly #to: KeyString | undefined;
  readonly #filtered: boolean;
  /** The answer needs no rows. */
  readonly #fromIndex: boolean;
  /** Pairs to look at: all, unless a limit can cut before sorting. */
  readonly #fetchMax: number;

  /** Where the walk goes on; undefined when the range is finished. */
  #next: KeyString | undefined;
  /** Pairs met by the walk. */
  #found = 0;
  /** Those of them that pass the filters. */
  readonly #positions = new PositionList();
  /** Where counting goes on, and what it has; begun only if the walk ends before the range. */
  #countNext: KeyString | undefined;
  #counted = 0;
  /** Indexes into `#positions` in the order of the answer, if that is not theirs. */
  #order: Uint32Array | undefined;
  /** A sort under way: entries put into place so far, what they are compared by, the sort itself. */
  #filled = 0;
  #column = NO_NUMBERS;
  #sort: MergeSort | undefined;
  /** Pairs by index into `#positions`; only for a sort by value. */
  #values: KeyValue[] | undefined;
  /** How many pairs the limit leaves, once it has cut. */
  #cutTo = ALL;
  #more = false;

  constructor(index: TreeIndex, rows: Rows, request: RangeRequest, revision: number) {
    this.#index = index;
    this.#rows = rows;
    this.#request = request;
    this.#revision = revision;
    this.#from = keyStringOf(request.key);
    this.#to = endOf(request.rangeEnd, this.#from);
    this.#next = this.#from;
    this.#countNext = this.#from;
    this.#filtered = hasFilters(request);
    this.#fromIndex = isFromIndex(request);
    // Without an order a target sorts too, but after the cut to limit + 1 (quirk 7).
    const { sortOrder, sortTarget, limit } = request;
    const inOrder = sortOrder === SortOrder.NONE || (sortOrder === SortOrder.ASCEND && sortTarget === SortTarget.KEY);
    this.#fetchMax = limit > 0 && inOrder && !this.#filtered ? limit + 1 : ALL;
  }

  /** The answer if it is small and all in memory. For a single key, `rangeSingle` is faster. */
  peek(headerRevision: number): RangeResponse | undefined {
    const isCurrent = this.#revision === headerRevision;
    if (this.#request.countOnly) {
      if (isCurrent) return this.#response(headerRevision, this.#index.count(this.#from, this.#to), []);
      // At a past revision counting may be long.
      return this.#countStep(COUNT_LEAVES) ? this.#response(headerRevision, this.#counted, []) : undefined;
    }
    const lengthMax = Math.min(this.#fetchMax, RANGE_NOW_PAIRS_MAX + 1);
    const isComplete = this.#walk(lengthMax, RANGE_NOW_PAIRS_MAX + 1);
    if (!isComplete || this.#found > RANGE_NOW_PAIRS_MAX) return undefined;
    if (this.#next !== undefined && !isCurrent && !this.#countStep(COUNT_LEAVES)) return undefined;
    const count = this.#next === undefined ? this.#found : isCurrent ? this.#index.count(this.#from, this.#to) : this.#counted;
    if (this.#sortsByValue && !this.#loadValues((main, sub) => this.#rows.peek(main, sub))) return undefined;
    this.#sortNow();
    this.#cut();
    const kvs: KeyValue[] = [];
    for (let n = 0; n < this.#length; n += 1) {
      const kv = this.#ready(n) ?? this.#rows.peek(this.#mainAt(n), this.#subAt(n))?.keyValue;
      if (kv === undefined) return undefined;
      kvs.push(kv);
    }
    return this.#response(headerRevision, count, kvs);
  }

  /** The answer, however large, reading from the disk where needed: for transactions. */
  now(headerRevision: number): RangeResponse {
    const rows = this.#rows;
    if (this.#request.countOnly) return this.#response(headerRevision, this.#countNow(), []);
    this.#walk(this.#fetchMax, ALL);
    const count = this.#next === undefined ? this.#found : this.#countNow();
    if (this.#sortsByValue) this.#loadValues((main, sub) => rows.loadNow(main, sub));
    this.#sortNow();
    this.#cut();
    const kvs: KeyValue[] = [];
    for (let n = 0; n < this.#length; n += 1) kvs.push(this.#ready(n) ?? rows.loadNow(this.#mainAt(n), this.#subAt(n)).keyValue);
    return this.#response(headerRevision, count, kvs);
  }

  /** Which rows `now` would load: what a prefetch must have. Appends main and sub revisions. */
  needs(mains: number[], subs: number[]): void {
    if (this.#request.countOnly || this.#fromIndex) return;
    this.#walk(this.#fetchMax, ALL);
    if (!this.#sortsByValue) {
      this.#sortNow();
      this.#cut();
    }
    for (let n = 0; n < this.#length; n += 1) {
      mains.push(this.#mainAt(n));
      subs.push(this.#subAt(n));
    }
  }

  /** The answer, giving way between slices. The revision must be a past or the current one, pinned against compaction by the caller. */
  async sliced(headerRevision: number, slicer: Slicer): Promise<RangeResponse> {
    if (this.#request.countOnly) {
      while (!this.#countStep(COUNT_LEAVES)) if (slicer.due) await slicer.pause();
      return this.#response(headerRevision, this.#counted, []);
    }
    while (!this.#walk(this.#fetchMax, WALK_KEYS)) if (slicer.due) await slicer.pause();
    if (this.#next !== undefined) while (!this.#countStep(COUNT_LEAVES)) if (slicer.due) await slicer.pause();
    const count = this.#next === undefined ? this.#found : this.#counted;
    if (this.#sortsByValue) this.#values = await this.#load(slicer);
    if (this.#beginSort()) {
      while (!this.#fillSort(SORT_STEPS)) if (slicer.due) await slicer.pause();
      while (!this.#runSort(SORT_STEPS)) if (slicer.due) await slicer.pause();
    }
    this.#cut();
    if (!this.#fromIndex && this.#values === undefined) return this.#response(headerRevision, count, await this.#load(slicer));
    const kvs = new Array<KeyValue>(this.#length);
    for (let n = 0; n < kvs.length; n += 1) {
      kvs[n] = this.#ready(n) as KeyValue;
      if (n % LOAD_CHUNK_ROWS === LOAD_CHUNK_ROWS - 1 && slicer.due) await slicer.pause();
    }
    return this.#response(headerRevision, count, kvs);
  }

  // -- steps ----------------------------------------------------------------------------------------------------------------------------

  /** Collects until `lengthMax` pairs are there, looking at about `keysMax` keys; true when they are, or the range is finished. */
  #walk(lengthMax: number, keysMax: number): boolean {
    if (this.#next === undefined || this.#found >= lengthMax) return true;
    const into = this.#filtered ? new PositionList() : this.#positions;
    this.#next = this.#index.collectSlice(this.#next, this.#to, this.#revision, into, lengthMax, keysMax);
    if (this.#filtered) {
      this.#found += into.length;
      this.#filter(into);
    } else {
      this.#found = into.length;
    }
    return this.#next === undefined || this.#found >= lengthMax;
  }

  #filter(found: PositionList): void {
    for (let i = 0; i < found.length; i += 1) {
      const main = found.mainAt(i);
      const create = found.createAt(i);
      if (passes(this.#request, main, create)) this.#positions.push(found.keyAt(i), main, found.subAt(i), create, found.versionAt(i));
    }
  }

  /** Counts on; true when done. */
  #countStep(leavesMax: number): boolean {
    if (this.#countNext === undefined) return true;
    this.#index.counted = this.#counted;
    this.#countNext = this.#index.countSlice(this.#countNext, this.#to, this.#revision, leavesMax);
    this.#counted = this.#index.counted;
    return this.#countNext === undefined;
  }

  #countNow(): number {
    if (this.#revision === NEWEST) return this.#index.count(this.#from, this.#to);
    this.#countStep(ALL);
    return this.#counted;
  }

  get #sortsByValue(): boolean {
    return this.#request.sortTarget === SortTarget.VALUE;
  }

  /** All pairs, for a sort by value; false if one is not to be had. */
  #loadValues(load: (main: number, sub: number) => StoredPair | undefined): boolean {
    const positions = this.#positions;
    const values: KeyValue[] = [];
    for (let i = 0; i < positions.length; i += 1) {
      const pair = load(positions.mainAt(i), positions.subAt(i));
      if (pair === undefined) return false;
      values.push(pair.keyValue);
    }
    this.#values = values;
    return true;
  }

  /** Sorts, at once. */
  #sortNow(): void {
    if (!this.#beginSort()) return;
    this.#fillSort(ALL);
    this.#runSort(ALL);
  }

  /** False if the answer is in the order of the keys. */
  #beginSort(): boolean {
    const { sortOrder, sortTarget } = this.#request;
    if (sortTarget === SortTarget.KEY && sortOrder !== SortOrder.DESCEND) return false;
    this.#order = new Uint32Array(this.#positions.length);
    this.#column = new Float64Array(sortTarget === SortTarget.KEY || sortTarget === SortTarget.VALUE ? 0 : this.#positions.length);
    return true;
  }

  /** Puts the next `steps` entries into place before sorting; true when all are. */
  #fillSort(steps: number): boolean {
    const positions = this.#positions;
    const { sortTarget } = this.#request;
    const order = this.#order as Uint32Array;
    // What is compared, side by side: the sort looks at each entry about twenty times.
    const column = this.#column;
    const end = Math.min(positions.length, this.#filled + steps);
    for (let i = this.#filled; i < end; i += 1) {
      // Backwards is all that a descending order of keys needs.
      order[i] = sortTarget === SortTarget.KEY ? positions.length - 1 - i : i;
      if (sortTarget === SortTarget.VERSION) column[i] = positions.versionAt(i);
      else if (sortTarget === SortTarget.CREATE) column[i] = positions.createAt(i);
      else if (sortTarget === SortTarget.MOD) column[i] = positions.mainAt(i);
    }
    this.#filled = end;
    return end === positions.length;
  }

  /** Goes on sorting; true when done. */
  #runSort(steps: number): boolean {
    const { sortOrder, sortTarget } = this.#request;
    if (sortTarget === SortTarget.KEY) return true;
    if (this.#sort === undefined) {
      const values = this.#values;
      const column = this.#column;
      const compare =
        values === undefined
          ? (a: number, b: number) => (column[a] as number) - (column[b] as number)
          : (a: number, b: number) => compareBytes((values[a] as KeyValue).value, (values[b] as KeyValue).value);
      this.#sort = new MergeSort(this.#order as Uint32Array, sortOrder === SortOrder.DESCEND ? (a, b) => compare(b, a) : compare);
    }
    return this.#sort.run(steps);
  }

  #cut(): void {
    const { limit } = this.#request;
    if (limit <= 0 || this.#length <= limit) return;
    this.#more = true;
    this.#cutTo = limit;
  }

  /** Rows of the answer as it stands, in its order, in slices. */
  async #load(slicer: Slicer): Promise<KeyValue[]> {
    const length = this.#length;
    const keep = length <= CACHED_READ_PAIRS_MAX;
    // The backend gives each row memory of its own: a hundred thousand small buffers, which the collector visits one by one.
    const arena = new RowArena();
    // Of its full length at once: growing it would copy it again and again.
    const kvs = new Array<KeyValue>(length);
    for (let from = 0; from < length; from += LOAD_CHUNK_ROWS) {
      const mains: number[] = [];
      const subs: number[] = [];
      for (let n = from; n < Math.min(length, from + LOAD_CHUNK_ROWS); n += 1) {
        mains.push(this.#mainAt(n));
        subs.push(this.#subAt(n));
      }
      const pairs = await this.#rows.loadMany(mains, subs, keep);
      for (let i = 0; i < pairs.length; i += 1) {
        const pair = pairs[i] as StoredPair;
        kvs[from + i] = keep ? pair.keyValue : pair.unslabbed(arena).toKeyValue();
      }
      // What was all in memory resolved without a turn of the event loop.
      if (slicer.due) await slicer.pause();
      else slicer.throwIfAborted();
    }
    return kvs;
  }

  // -- the answer -----------------------------------------------------------------------------------------------------------------------

  /** Pairs of the answer. */
  get #length(): number {
    return Math.min(this.#positions.length, this.#cutTo);
  }

  /** Index into `#positions` of the nth of the answer. */
  #at(n: number): number {
    return this.#order === undefined ? n : (this.#order[n] as number);
  }

  #mainAt(n: number): number {
    return this.#positions.mainAt(this.#at(n));
  }

  #subAt(n: number): number {
    return this.#positions.subAt(this.#at(n));
  }

  /** The nth of the answer, if it needs no row, or has it already. */
  #ready(n: number): KeyValue | undefined {
    const i = this.#at(n);
    if (this.#fromIndex) {
      const positions = this.#positions;
      return pairWithoutValue(positions.keyAt(i), positions.mainAt(i), positions.createAt(i), positions.versionAt(i));
    }
    const kv = this.#values?.[i];
    return kv !== undefined && this.#request.keysOnly ? withoutValue(kv) : kv;
  }

  #response(headerRevision: number, count: number, kvs: KeyValue[]): RangeResponse {
    return { header: responseHeader(headerRevision), kvs, more: this.#more, count };
  }
}

function hasFilters(request: RangeRequest): boolean {
  return request.minModRevision !== 0 || request.maxModRevision !== 0 || request.minCreateRevision !== 0 || request.maxCreateRevision !== 0;
}

function passes(request: RangeRequest, mod: number, create: number): boolean {
  return (
    (request.minModRevision === 0 || mod >= request.minModRevision) &&
    (request.maxModRevision === 0 || mod <= request.maxModRevision) &&
    (request.minCreateRevision === 0 || create >= request.minCreateRevision) &&
    (request.maxCreateRevision === 0 || create <= request.maxCreateRevision)
  );
}
