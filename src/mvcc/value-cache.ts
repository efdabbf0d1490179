/**
 * Recently used pairs, by the position of their row, bounded by bytes. Two generations of maps: everything new or used again goes into
 * the young one; when that holds half of the bytes it becomes the old one and the former old one is forgotten. So nothing is ever moved
 * or linked, a lookup is one or two map reads, and what was used within the last half is always there.
 *
 * A pair that is used again while old is copied into new memory, because its own is a slab shared with rows that nobody uses any more:
 * otherwise ten thousand hot pairs could hold ten thousand slabs.
 */
import { RowArena, type StoredPair } from "./row.ts";

/** What a pair costs besides its bytes: the object, the map entry, and, about every other time, the message made for answers. */
export const CACHED_PAIR_OVERHEAD_BYTES = 400;
/** Maps per generation (a power of two): a map of a hundred thousand entries would stop the world while it grows. */
const SHARDS = 64;

type Shard = Map<number | string, StoredPair>;

/** Most rows are the first of their revision. */
function cacheKey(main: number, sub: number): number | string {
  return sub === 0 ? main : `${main}/${sub}`;
}

function shards(): Shard[] {
  return Array.from({ length: SHARDS }, () => new Map());
}

export class ValueCache {
  readonly #generationBytesMax: number;
  readonly #arena = new RowArena();
  #young: Shard[] = shards();
  #old: Shard[] = shards();
  #youngBytes = 0;
  #oldBytes = 0;

  constructor(bytesMax: number) {
    this.#generationBytesMax = bytesMax / 2;
  }

  /** Bytes held, overhead included. */
  get bytes(): number {
    return this.#youngBytes + this.#oldBytes;
  }

  get(main: number, sub: number): StoredPair | undefined {
    const key = cacheKey(main, sub);
    const shard = main & (SHARDS - 1);
    const found = (this.#young[shard] as Shard).get(key);
    if (found !== undefined) return found;
    const old = this.#old[shard] as Shard;
    const again = old.get(key);
    if (again === undefined) return undefined;
    const copy = again.unslabbed(this.#arena);
    old.delete(key);
    this.#oldBytes -= copy.wireLength + CACHED_PAIR_OVERHEAD_BYTES;
    this.#add(shard, key, copy);
    return copy;
  }

  /** Keeps a pair. Adding the same position again is a no-op while it is young. */
  add(main: number, sub: number, pair: StoredPair): void {
    const key = cacheKey(main, sub);
    const shard = main & (SHARDS - 1);
    if ((this.#young[shard] as Shard).has(key)) return;
    this.#add(shard, key, pair);
  }

  #add(shard: number, key: number | string, pair: StoredPair): void {
    const bytes = pair.wireLength + CACHED_PAIR_OVERHEAD_BYTES;
    if (bytes > this.#generationBytesMax) return;
    if (this.#youngBytes + bytes > this.#generationBytesMax) {
      this.#old = this.#young;
      this.#oldBytes = this.#youngBytes;
      this.#young = shards();
      this.#youngBytes = 0;
    }
    (this.#young[shard] as Shard).set(key, pair);
    this.#youngBytes += bytes;
  }
}
