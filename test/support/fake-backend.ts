/** The smallest backend that can hold a store under test: rows in a map, nothing on disk. Counts what is asked of it. */
import type { Backend, BackendBatch, BackendIterator, BackendRange, BackendRow, BackendSnapshot } from "../../src/backend/backend.ts";

function name(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("latin1");
}

export class FakeBackend implements Backend {
  /** Reads of single rows that blocked, and rows asked for by `getMany`. */
  syncReads = 0;
  manyReads = 0;
  readonly rows = new Map<string, BackendRow>();
  #sorted: string[] | undefined = [];

  async get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return this.rows.get(name(key))?.[1];
  }

  getSync(key: Uint8Array): Uint8Array | undefined {
    this.syncReads += 1;
    return this.rows.get(name(key))?.[1];
  }

  async getMany(keys: readonly Uint8Array[]): Promise<(Uint8Array | undefined)[]> {
    this.manyReads += keys.length;
    // As of the call, answered in a later turn.
    const answer = keys.map((key) => this.rows.get(name(key))?.[1]);
    await new Promise((resolve) => setImmediate(resolve));
    return answer;
  }

  iterate(range: BackendRange): BackendIterator {
    this.#sorted ??= [...this.rows.keys()].sort();
    const sorted = this.#sorted;
    const from = lowerBound(sorted, name(range.gte));
    const to = range.lt === undefined ? sorted.length : lowerBound(sorted, name(range.lt));
    const rows = sorted.slice(from, Math.max(from, to)).map((key) => this.rows.get(key) as BackendRow);
    if (range.reverse === true) rows.reverse();
    let at = 0;
    return {
      async next(limit) {
        const some = rows.slice(at, at + limit);
        at += some.length;
        return some;
      },
      async close() {
        at = rows.length;
      },
    };
  }

  snapshot(): BackendSnapshot {
    throw new Error("the store takes no snapshots");
  }

  async write(batch: BackendBatch): Promise<void> {
    for (const operation of batch.operations) {
      const key = name(operation.key);
      if (operation.type === "put") {
        if (!this.rows.has(key)) {
          const last = this.#sorted?.at(-1);
          if (this.#sorted !== undefined && (last === undefined || last < key)) this.#sorted.push(key);
          else this.#sorted = undefined;
        }
        this.rows.set(key, [operation.key, operation.value]);
      } else if (this.rows.delete(key)) {
        this.#sorted = undefined;
      }
    }
  }

  async checkpoint(): Promise<void> {}
  async defragment(): Promise<void> {}
  async close(): Promise<void> {}

  async sizeBytes(): Promise<number> {
    let size = 0;
    for (const [key, value] of this.rows.values()) size += key.length + value.length;
    return size;
  }
}

function lowerBound(sorted: readonly string[], key: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] as string) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
