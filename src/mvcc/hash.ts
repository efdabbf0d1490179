/**
 * HashKV (api-semantics 15.5): CRC-32C over the bytes that etcd stores for every change. What is hashed depends only on the history of
 * the keys and on which compactions were asked for, never on how far their physical part has come.
 */
import { utf8Bytes } from "../base/bytes.ts";
import { crc32c } from "../base/crc32c.ts";
import type { Revision } from "../base/ids.ts";
import { hashedKey } from "./revision.ts";

export interface RevisionHash {
  readonly hash: number;
  /** -1 when never compacted. */
  readonly compactRevision: Revision;
  readonly hashRevision: Revision;
}

const START = crc32c(utf8Bytes("key"));
/** Hashes that compactions computed and that are answered for exactly their revision. */
const KEPT_HASHES_MAX = 10;

/** A hash in the making. */
export class HistoryHash {
  #sum = START;
  readonly #key = new Uint8Array(18);

  /** The next change in order of revisions. `wire` is its message as stored. */
  add(main: number, sub: number, tombstone: boolean, wire: Uint8Array): void {
    this.#sum = crc32c(wire, crc32c(hashedKey(this.#key, main, sub, tombstone), this.#sum));
  }

  get value(): number {
    return this.#sum;
  }
}

/** The hashes of the last compactions of this process; gone after a restart. */
export class CompactionHashes {
  #hashes: RevisionHash[] = [];

  add(hash: RevisionHash): void {
    this.#hashes.push(hash);
    if (this.#hashes.length > KEPT_HASHES_MAX) this.#hashes.shift();
  }

  at(revision: Revision): RevisionHash | undefined {
    return this.#hashes.find((hash) => hash.hashRevision === revision);
  }
}
