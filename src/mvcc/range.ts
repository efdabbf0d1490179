/**
 * Range reads (api-semantics 3 and 4): one algorithm in steps, driven at once for small and transactional reads, and in slices for
 * everything else. The order of the steps is etcd's: read, filter by revisions, sort, cut to the limit, strip values. What the steps
 * need is mostly in the index, so values are loaded last and only for the answer; a sort by value is the exception.
 */
import { type KeyValue, type RangeRequest, type RangeResponse, SortOrder, SortTarget } from "../api/index.ts";
import { bytesOfKey, compareBytes, EMPTY_BYTES, type KeyString, keyStringOf } from "../base/bytes.ts";
import { NO_LEASE } from "../base/ids.ts";
import { MergeSort } from "./merge-sort.ts";
import type { StoredKeyValue } from "./row.ts";
import { LOAD_CHUNK_ROWS, type Rows } from "./rows.ts";
import type { Slicer } from "./slices.ts";
import { NEWEST, PositionList, type TreeIndex } from "./tree-index.ts";

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

function withoutValue(kv: KeyValue): KeyValue {
  return {
    key: kv.key,
    createRevision: kv.createRevision,
    modRevision: kv.modRevision,
    version: kv.version,
    value: EMPTY_BYTES,
    lease: kv.lease,
    wire: undefined,
  };
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
  const kv = load ? rows.loadNow(main, sub) : rows.peek(main, sub);
  if (kv === undefined) return undefined;
  return { header, kvs: [request.keysOnly ? withoutValue(kv) : kv], more: false, count: 1 };
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
  /** Everything must be looked at before the limit cuts: explicit order by something else than the key, or revision filters. */
  readonly #whole: boolean;
  readonly #fetchMax: number;
  readonly #positions = new PositionList();
  /** Where the walk goes on; undefined when the range is finished. */
  #next: KeyString | undefined;
  #count = 0;
  #more = false;
  /** Indexes into `#positions` in the order of the answer, once they differ from all in key order. */
  #order: Uint32Array | undefined;
  /** Pairs by index into `#positions`; only for a sort by value. */
  #values: StoredKeyValue[] | undefined;

  constructor(index: TreeIndex, rows: Rows, request: RangeRequest, revision: number) {
    this.#index = index;
    this.#rows = rows;
    this.#request = request;
    this.#revision = revision;
    this.#from = keyStringOf(request.key);
    this.#to = endOf(request.rangeEnd, this.#from);
    const { sortOrder, sortTarget, limit } = request;
    this.#whole =
      hasFilters(request) || !(sortOrder === SortOrder.NONE || (sortOrder === SortOrder.ASCEND && sortTarget === SortTarget.KEY));
    this.#fetchMax = this.#whole || limit <= 0 ? ALL : limit + 1;
    this.#next = this.#from;
  }

  // -- at once --------------------------------------------------------------------------------------------------------------------------

  /** The answer if it is small and all in memory. For a single key, `rangeSingle` is faster. */
  peek(headerRevision: number): RangeResponse | undefined {
    if (this.#request.countOnly) {
      // At the current revision counting is two descents; at a past one it may be long.
      if (this.#revision !== headerRevision && !this.#countStep(COUNT_LEAVES)) return undefined;
      return { header: responseHeader(headerRevision), kvs: [], more: false, count: this.#currentOrCounted(headerRevision) };
    }
    this.#walk(Math.min(this.#fetchMax, RANGE_NOW_PAIRS_MAX + 1), RANGE_NOW_PAIRS_MAX + 1);
    if (this.#positions.length > RANGE_NOW_PAIRS_MAX) return undefined;
    if (this.#next !== undefined && this.#positions.length < this.#fetchMax) return undefined;
    if (this.#next === undefined) this.#count = this.#positions.length;
    else if (this.#revision === headerRevision) this.#count = this.#index.count(this.#from, this.#to);
    else if (this.#countStep(COUNT_LEAVES)) this.#count = this.#counted;
    else return undefined;
    if (this.#sortsByValue) {
      const values = this.#peekAll();
      if (values === undefined) return undefined;
      this.#values = values;
    }
    this.#arrange();
    const kvs = this.#peekAnswer();
    return kvs === undefined ? undefined : this.#response(headerRevision, kvs);
  }

  /** The answer, however large, reading from the disk where needed: for transactions. */
  now(headerRevision: number): RangeResponse {
    this.#place();
    if (this.#request.countOnly) return { header: responseHeader(headerRevision), kvs: [], more: false, count: this.#count };
    const rows = this.#rows;
    if (this.#sortsByValue) this.#values = this.#positions.mains.map((main, i) => rows.loadNow(main, this.#positions.subs[i] as number));
    this.#arrange();
    const kvs: KeyValue[] = [];
    for (let n = 0; n < this.#length; n += 1) {
      const i = this.#at(n);
      if (this.#fromIndex) kvs.push(this.#pairFromIndex(i));
      else
        kvs.push(this.#stripped(this.#values?.[i] ?? rows.loadNow(this.#positions.mains[i] as number, this.#positions.subs[i] as number)));
    }
    return this.#response(headerRevision, kvs);
  }

  /** Which rows `now` would load: what a prefetch must have. Appends main and sub revisions. */
  needs(mains: number[], subs: number[]): void {
    if (this.#request.countOnly || this.#fromIndex) return;
    this.#place();
    if (!this.#sortsByValue) this.#arrange();
    for (let n = 0; n < this.#length; n += 1) {
      const i = this.#at(n);
      mains.push(this.#positions.mains[i] as number);
      subs.push(this.#positions.subs[i] as number);
    }
  }

  // -- in slices ------------------------------------------------------------------------------------------------------------------------

  /** The answer, giving way between slices. The revision must be a past or the current one, pinned against compaction by the caller. */
  async sliced(headerRevision: number, slicer: Slicer): Promise<RangeResponse> {
    if (this.#request.countOnly) {
      while (!this.#countStep(COUNT_LEAVES)) if (slicer.due) await slicer.pause();
      this.#count = this.#counted;
    } else {
      while (!this.#walk(this.#fetchMax, WALK_KEYS)) if (slicer.due) await slicer.pause();
      if (this.#next === undefined) {
        this.#count = this.#positions.length;
      } else {
        while (!this.#countStep(COUNT_LEAVES)) if (slicer.due) await slicer.pause();
        this.#count = this.#counted;
      }
    }
    if (this.#request.countOnly) return { header: responseHeader(headerRevision), kvs: [], more: false, count: this.#count };
    if (this.#sortsByValue) this.#values = await this.#loadSliced(this.#positions.mains, this.#positions.subs, slicer);
    const sort = this.#filterAndSort();
    if (sort !== undefined) {
      while (!sort.run(SORT_STEPS)) if (slicer.due) await slicer.pause();
      this.#order = sort.result;
    }
    this.#cut();
    return this.#response(headerRevision, await this.#answerSliced(slicer));
  }

  async #answerSliced(slicer: Slicer): Promise<KeyValue[]> {
    const kvs: KeyValue[] = [];
    const length = this.#length;
    if (this.#fromIndex || this.#values !== undefined) {
      for (let n = 0; n < length; n += 1) {
        const i = this.#at(n);
        kvs.push(this.#values === undefined ? this.#pairFromIndex(i) : this.#stripped(this.#values[i] as StoredKeyValue));
        if (n % LOAD_CHUNK_ROWS === LOAD_CHUNK_ROWS - 1 && slicer.due) await slicer.pause();
      }
      return kvs;
    }
    if (this.#order === undefined) return this.#loadSliced(this.#positions.mains, this.#positions.subs, slicer);
    const mains: number[] = [];
    const subs: number[] = [];
    for (let n = 0; n < length; n += 1) {
      mains.push(this.#positions.mains[this.#order[n] as number] as number);
      subs.push(this.#positions.subs[this.#order[n] as number] as number);
    }
    return this.#loadSliced(mains, subs, slicer);
  }

  async #loadSliced(mains: readonly number[], subs: readonly number[], slicer: Slicer): Promise<StoredKeyValue[]> {
    const keep = mains.length <= CACHED_READ_PAIRS_MAX;
    if (mains.length <= LOAD_CHUNK_ROWS) {
      const few = await this.#rows.loadMany(mains, subs, keep);
      slicer.resumed();
      return few;
    }
    const all: StoredKeyValue[] = [];
    for (let from = 0; from < mains.length; from += LOAD_CHUNK_ROWS) {
      const to = from + LOAD_CHUNK_ROWS;
      for (const kv of await this.#rows.loadMany(mains.slice(from, to), subs.slice(from, to), keep)) all.push(kv);
      // A chunk that was all in memory resolved without a turn of the event loop.
      if (slicer.due) await slicer.pause();
    }
    return all;
  }

  // -- steps ----------------------------------------------------------------------------------------------------------------------------

  get #fromIndex(): boolean {
    return isFromIndex(this.#request);
  }

  /** NONE with a target sorts as ASCEND does, but after the cut to limit + 1 (quirk 7). */
  get #sortsByValue(): boolean {
    return this.#request.sortTarget === SortTarget.VALUE;
  }

  #counted = 0;
  #countFrom: KeyString | undefined;
  #countBegun = false;

  /** Counts on; true when done. */
  #countStep(leavesMax: number): boolean {
    if (!this.#countBegun) {
      this.#countBegun = true;
      this.#countFrom = this.#from;
    }
    if (this.#countFrom === undefined) return true;
    this.#index.counted = this.#counted;
    this.#countFrom = this.#index.countSlice(this.#countFrom, this.#to, this.#revision, leavesMax);
    this.#counted = this.#index.counted;
    return this.#countFrom === undefined;
  }

  #currentOrCounted(headerRevision: number): number {
    return this.#revision === headerRevision ? this.#index.count(this.#from, this.#to) : this.#counted;
  }

  /** Collects up to `lengthMax` pairs, looking at about `keysMax` keys; true when it has them or the range is finished. */
  #walk(lengthMax: number, keysMax: number): boolean {
    const positions = this.#positions;
    if (this.#next === undefined || positions.length >= lengthMax) return true;
    this.#next = this.#index.collectSlice(this.#next, this.#to, this.#revision, positions, lengthMax, keysMax);
    return this.#next === undefined || positions.length >= lengthMax;
  }

  /** Finds the positions and the count, at once. */
  #place(): void {
    if (this.#request.countOnly) {
      this.#count = this.#countNow();
      return;
    }
    this.#walk(this.#fetchMax, ALL);
    this.#count = this.#next === undefined ? this.#positions.length : this.#countNow();
  }

  #countNow(): number {
    if (this.#revision === NEWEST) return this.#index.count(this.#from, this.#to);
    this.#countStep(ALL);
    return this.#counted;
  }

  /** Filters, sorts and cuts, at once. */
  #arrange(): void {
    const sort = this.#filterAndSort();
    if (sort !== undefined) {
      sort.run(ALL);
      this.#order = sort.result;
    }
    this.#cut();
  }

  /** Applies the revision filters; a sort still to be run, if one is needed. */
  #filterAndSort(): MergeSort | undefined {
    const request = this.#request;
    const positions = this.#positions;
    if (hasFilters(request)) {
      const kept: number[] = [];
      for (let i = 0; i < positions.length; i += 1)
        if (passes(request, positions.mains[i] as number, positions.creates[i] as number)) kept.push(i);
      this.#order = Uint32Array.from(kept);
    }
    const { sortOrder, sortTarget } = request;
    const descend = sortOrder === SortOrder.DESCEND;
    if (sortTarget === SortTarget.KEY) {
      if (descend) this.#order = this.#indexes().reverse();
      return undefined;
    }
    const values = this.#values;
    if (sortTarget === SortTarget.VALUE) {
      if (values === undefined) return undefined;
      const compare = (a: number, b: number): number =>
        compareBytes((values[a] as StoredKeyValue).value, (values[b] as StoredKeyValue).value);
      return new MergeSort(this.#indexes(), descend ? (a, b) => compare(b, a) : compare);
    }
    const column =
      sortTarget === SortTarget.VERSION ? positions.versions : sortTarget === SortTarget.CREATE ? positions.creates : positions.mains;
    return new MergeSort(
      this.#indexes(),
      descend ? (a, b) => (column[b] as number) - (column[a] as number) : (a, b) => (column[a] as number) - (column[b] as number),
    );
  }

  #indexes(): Uint32Array {
    if (this.#order !== undefined) return this.#order;
    const order = new Uint32Array(this.#positions.length);
    for (let i = 0; i < order.length; i += 1) order[i] = i;
    return order;
  }

  #cut(): void {
    const { limit } = this.#request;
    if (limit <= 0 || this.#length <= limit) return;
    this.#more = true;
    if (this.#order !== undefined) this.#order = this.#order.subarray(0, limit);
    else this.#positions.truncate(limit);
  }

  get #length(): number {
    return this.#order?.length ?? this.#positions.length;
  }

  #at(n: number): number {
    return this.#order === undefined ? n : (this.#order[n] as number);
  }

  // -- answers --------------------------------------------------------------------------------------------------------------------------

  #response(headerRevision: number, kvs: KeyValue[]): RangeResponse {
    return { header: responseHeader(headerRevision), kvs, more: this.#more, count: this.#count };
  }

  #pairFromIndex(i: number): KeyValue {
    const { keys, mains, creates, versions } = this.#positions;
    return pairWithoutValue(keys[i] as KeyString, mains[i] as number, creates[i] as number, versions[i] as number);
  }

  #stripped(kv: StoredKeyValue): KeyValue {
    return this.#request.keysOnly ? withoutValue(kv) : kv;
  }

  #peekAll(): StoredKeyValue[] | undefined {
    const { mains, subs } = this.#positions;
    const values: StoredKeyValue[] = [];
    for (let i = 0; i < mains.length; i += 1) {
      const kv = this.#rows.peek(mains[i] as number, subs[i] as number);
      if (kv === undefined) return undefined;
      values.push(kv);
    }
    return values;
  }

  #peekAnswer(): KeyValue[] | undefined {
    const { mains, subs } = this.#positions;
    const kvs: KeyValue[] = [];
    for (let n = 0; n < this.#length; n += 1) {
      const i = this.#at(n);
      if (this.#fromIndex) {
        kvs.push(this.#pairFromIndex(i));
        continue;
      }
      const kv = this.#values?.[i] ?? this.#rows.peek(mains[i] as number, subs[i] as number);
      if (kv === undefined) return undefined;
      kvs.push(this.#stripped(kv));
    }
    return kvs;
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
