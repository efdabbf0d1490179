/**
 * Rows in the form in which etcd keeps them, for backups that etcd's own tools read and for restoring etcd's: the revision key of 17 or 18
 * bytes, and the bare KeyValue message without our checksum. The order of the keys is the same in both forms.
 */
import { RowSpace } from "../backend/row-spaces.ts";
import type { LeaseId, Revision } from "../base/ids.ts";
import { COMPACT_ASKED_KEY, COMPACT_FINISHED_KEY, decodeMark, encodeMark } from "./compaction.ts";
import { RowCorruptError } from "./errors.ts";
import { hashedKey, isRowKey, isTombstoneKey, mainOf, readUint64, rowKey, SUB_MAX, subOf, tombstoneKey } from "./revision.ts";
import { CHECKSUM_BYTES, RowReader, sealRow } from "./row.ts";

/** Where the rows of all revisions lie; fits the backend's `iterate`. */
export const REVISION_ROWS: { readonly gte: Uint8Array; readonly lt: Uint8Array } = {
  gte: Uint8Array.of(RowSpace.revision),
  lt: Uint8Array.of(RowSpace.revision + 1),
};

/** Keys and codec of the rows that say how far compactions have come. */
export const compactionMarks = {
  askedKey: COMPACT_ASKED_KEY,
  finishedKey: COMPACT_FINISHED_KEY,
  encode: encodeMark,
  /** -1 for no row. @throws RowCorruptError */
  decode: decodeMark,
} as const;

const REVISION_KEY_BYTES = 17;
const TOMBSTONE_KEY_BYTES = 18;
const SEPARATOR = 0x5f; // "_"
const TOMBSTONE_MARK = 0x74; // "t"

/** `main`, "_", `sub`: the form of a revision outside the store's rows, too. */
export function revisionKey(main: Revision, sub: number, tombstone: boolean): Uint8Array {
  return hashedKey(new Uint8Array(TOMBSTONE_KEY_BYTES), main, sub, tombstone);
}

/** A revision key taken apart; undefined for bytes that are none. */
export function parseRevisionKey(key: Uint8Array): { main: Revision; sub: number; tombstone: boolean } | undefined {
  const tombstone = key.length === TOMBSTONE_KEY_BYTES && key[REVISION_KEY_BYTES] === TOMBSTONE_MARK;
  if ((key.length !== REVISION_KEY_BYTES && !tombstone) || key[8] !== SEPARATOR) return undefined;
  const main = readUint64(key, 0);
  const sub = readUint64(key, 9);
  // Rounded when above 2^53, but never to something below it.
  if (main > Number.MAX_SAFE_INTEGER || sub > SUB_MAX) return undefined;
  return { main, sub, tombstone };
}

/** One row, in both directions. The fields hold the last row ("registers"): a walk over millions of rows makes no objects for them. */
export class EtcdRows {
  main: Revision = 0;
  sub = 0;
  tombstone = false;
  readonly #reader = new RowReader({ verifyChecksum: true });

  /** The stored row as etcd's pair; views of `value`. @throws RowCorruptError when it is not as it was written */
  toEtcd(key: Uint8Array, value: Uint8Array): readonly [Uint8Array, Uint8Array] {
    this.#place(mainOf(key), subOf(key), isTombstoneKey(key));
    if (!isRowKey(key)) throw new RowCorruptError({ main: this.main, sub: this.sub, problem: "has an odd key" });
    this.#reader.read(value, this.main, this.sub, this.tombstone);
    return [revisionKey(this.main, this.sub, this.tombstone), value.subarray(CHECKSUM_BYTES)];
  }

  /** etcd's pair as a row of ours. Copies. @throws RowCorruptError when it is not a change as etcd stores it */
  fromEtcd(key: Uint8Array, value: Uint8Array): readonly [Uint8Array, Uint8Array] {
    const revision = parseRevisionKey(key);
    if (revision === undefined) throw new RowCorruptError({ main: 0, sub: 0, problem: "has an odd key" });
    const { main, sub, tombstone } = revision;
    this.#place(main, sub, tombstone);
    const row = sealRow(value, main, sub, tombstone);
    this.#reader.read(row, main, sub, tombstone);
    return [tombstone ? tombstoneKey(main, sub) : rowKey(main, sub), row];
  }

  /** Lease of the row that was handled last; 0n for none. */
  get lease(): LeaseId {
    return this.#reader.lease as LeaseId;
  }

  /** The key of the row that was handled last, whose value `fromEtcd` returned or `toEtcd` was given. */
  keyString(row: Uint8Array): string {
    return this.#reader.keyString(row);
  }

  #place(main: Revision, sub: number, tombstone: boolean): void {
    this.main = main;
    this.sub = sub;
    this.tombstone = tombstone;
  }
}
