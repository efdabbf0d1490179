/**
 * Where the pairs of positions come from: the newest changes in memory, what a prefetch has pinned, the cache of recently used pairs,
 * and last the backend. Every row from the backend is verified.
 */
import type { Backend } from "../backend/backend.ts";
import type { ChangeEvent } from "./change-event.ts";
import { RowCorruptError } from "./errors.ts";
import type { RecentChanges } from "./recent-changes.ts";
import { rowKey } from "./revision.ts";
import { RowReader, type StoredPair } from "./row.ts";
import type { ValueCache } from "./value-cache.ts";

/** Rows per `getMany`: enough to keep the backend busy, few enough that decoding them takes about a millisecond. */
export const LOAD_CHUNK_ROWS = 512;

/** Rows that a prefetch holds, by main and sub revision. */
export type PinnedRows = Map<number, Map<number, StoredPair>>;

export class Rows {
  readonly backend: Backend;
  readonly cache: ValueCache;
  readonly recent: RecentChanges;
  readonly reader: RowReader;
  /** The changes of the request that is being executed, at `openMain`: later operations of a transaction read earlier ones' rows. */
  open: { readonly events: readonly ChangeEvent[] } | undefined = undefined;
  openMain = 0;
  readonly #pinned = new Set<PinnedRows>();

  constructor(options: { backend: Backend; cache: ValueCache; recent: RecentChanges; verifyChecksum: boolean }) {
    this.backend = options.backend;
    this.cache = options.cache;
    this.recent = options.recent;
    this.reader = new RowReader({ verifyChecksum: options.verifyChecksum });
  }

  /** The pair put at that position, if it is in memory. */
  peek(main: number, sub: number): StoredPair | undefined {
    const event = this.open !== undefined && main === this.openMain ? this.open.events[sub] : this.recent.at(main, sub);
    if (event !== undefined) return event.pair;
    const cached = this.cache.get(main, sub);
    if (cached !== undefined || this.#pinned.size === 0) return cached;
    for (const pinned of this.#pinned) {
      const found = pinned.get(main)?.get(sub);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The pair put at that position; blocks the thread for a read if it is not in memory. Undefined if there is no such row. */
  tryLoadNow(main: number, sub: number): StoredPair | undefined {
    const known = this.peek(main, sub);
    if (known !== undefined) return known;
    const row = this.backend.getSync(rowKey(main, sub));
    if (row === undefined) return undefined;
    const pair = this.#decode(row, main, sub);
    this.cache.add(main, sub, pair);
    return pair;
  }

  /** As `tryLoadNow`, for a row that the index knows. @throws RowCorruptError */
  loadNow(main: number, sub: number): StoredPair {
    return this.tryLoadNow(main, sub) ?? missing(main, sub);
  }

  /**
   * The pairs put at these positions, in their order; undefined where there is no row. At most about LOAD_CHUNK_ROWS positions: the
   * caller slices. `keep` puts what was read into the cache.
   */
  async tryLoadMany(mains: readonly number[], subs: readonly number[], keep: boolean): Promise<(StoredPair | undefined)[]> {
    const result = new Array<StoredPair | undefined>(mains.length).fill(undefined);
    const absent: number[] = [];
    const keys: Uint8Array[] = [];
    for (let i = 0; i < mains.length; i += 1) {
      const main = mains[i] as number;
      const sub = subs[i] as number;
      const known = this.peek(main, sub);
      if (known !== undefined) {
        result[i] = known;
      } else {
        absent.push(i);
        keys.push(rowKey(main, sub));
      }
    }
    if (keys.length === 0) return result;
    const read = await this.backend.getMany(keys);
    for (let n = 0; n < absent.length; n += 1) {
      const i = absent[n] as number;
      const row = read[n];
      if (row === undefined) continue;
      const pair = this.#decode(row, mains[i] as number, subs[i] as number);
      if (keep) this.cache.add(mains[i] as number, subs[i] as number, pair);
      result[i] = pair;
    }
    return result;
  }

  /** As `tryLoadMany`, for rows that the index knows. @throws RowCorruptError */
  async loadMany(mains: readonly number[], subs: readonly number[], keep: boolean): Promise<StoredPair[]> {
    const rows = await this.tryLoadMany(mains, subs, keep);
    for (let i = 0; i < rows.length; i += 1) if (rows[i] === undefined) missing(mains[i] as number, subs[i] as number);
    return rows as StoredPair[];
  }

  pin(rows: PinnedRows): void {
    this.#pinned.add(rows);
  }

  unpin(rows: PinnedRows): void {
    this.#pinned.delete(rows);
  }

  #decode(row: Uint8Array, main: number, sub: number): StoredPair {
    this.reader.read(row, main, sub, false);
    return this.reader.pair(row, main);
  }
}

export function missing(main: number, sub: number): never {
  throw new RowCorruptError({ main, sub, problem: "is missing" });
}
