import type { KeyString } from "../base/bytes.ts";
import { QUAD } from "./key-index.ts";

/** Entries per chunk (a power of two). */
const CHUNK_BITS = 12;
const CHUNK_MASK = (1 << CHUNK_BITS) - 1;

interface Chunk {
  readonly keys: KeyString[];
  /** A quad per key: main, sub, create revision, version. */
  readonly quads: number[];
}

function newChunk(): Chunk {
  return { keys: [], quads: [] };
}

/**
 * Positions collected by a walk, in key order. In chunks, because a list of a million that grows by copying itself holds the event loop
 * for 50 ms.
 */
export class PositionList {
  #last: Chunk = newChunk();
  readonly #chunks: Chunk[] = [this.#last];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(key: KeyString, main: number, sub: number, create: number, version: number): void {
    if ((this.#length & CHUNK_MASK) === 0 && this.#length > 0) {
      this.#last = newChunk();
      this.#chunks.push(this.#last);
    }
    this.#last.keys.push(key);
    this.#last.quads.push(main, sub, create, version);
    this.#length += 1;
  }

  keyAt(i: number): KeyString {
    return (this.#chunks[i >>> CHUNK_BITS] as Chunk).keys[i & CHUNK_MASK] as KeyString;
  }

  mainAt(i: number): number {
    return this.#number(i, 0);
  }

  subAt(i: number): number {
    return this.#number(i, 1);
  }

  createAt(i: number): number {
    return this.#number(i, 2);
  }

  versionAt(i: number): number {
    return this.#number(i, 3);
  }

  /** Appends all positions to two lists. */
  appendTo(mains: number[], subs: number[]): void {
    for (let i = 0; i < this.#length; i += 1) {
      mains.push(this.mainAt(i));
      subs.push(this.subAt(i));
    }
  }

  #number(i: number, column: number): number {
    return (this.#chunks[i >>> CHUNK_BITS] as Chunk).quads[(i & CHUNK_MASK) * QUAD + column] as number;
  }
}
