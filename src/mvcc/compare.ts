/** Compares of transactions (api-semantics 8.4). All are evaluated on one state, before anything of the request is executed. */
import { type Compare, CompareResult, CompareTarget, type TxnRequest } from "../api/index.ts";
import { compareBytes, EMPTY_BYTES, type KeyString, keyStringOf } from "../base/bytes.ts";
import { NO_LEASE } from "../base/ids.ts";
import { PositionList } from "./position-list.ts";
import { endOf, RANGE_NOW_PAIRS_MAX } from "./range.ts";
import type { StoredPair } from "./row.ts";
import { LOAD_CHUNK_ROWS, type Rows } from "./rows.ts";
import type { Slicer } from "./slices.ts";
import type { TreeIndex } from "./tree-index.ts";

/** True if the target stands in the row and not in the index. */
function needsRow(compare: Compare): boolean {
  return compare.target === CompareTarget.VALUE || compare.target === CompareTarget.LEASE;
}

function relation(result: number, order: number): boolean {
  switch (result) {
    case CompareResult.EQUAL:
      return order === 0;
    case CompareResult.GREATER:
      return order > 0;
    case CompareResult.LESS:
      return order < 0;
    case CompareResult.NOT_EQUAL:
      return order !== 0;
    default:
      // Sic: an unknown relation holds.
      return true;
  }
}

/** Stored against given. What the oneof does not hold counts as 0 or empty; an unknown target as equal. `pair` only for VALUE and LEASE. */
function order(compare: Compare, main: number, create: number, version: number, pair: StoredPair | undefined): number {
  switch (compare.target) {
    case CompareTarget.VERSION:
      return version - (compare.version ?? 0);
    case CompareTarget.CREATE:
      return create - (compare.createRevision ?? 0);
    case CompareTarget.MOD:
      return main - (compare.modRevision ?? 0);
    case CompareTarget.VALUE:
      return compareBytes(pair?.valueBytes ?? EMPTY_BYTES, compare.value ?? EMPTY_BYTES);
    case CompareTarget.LEASE: {
      const stored = pair?.lease ?? NO_LEASE;
      const given = compare.lease ?? NO_LEASE;
      return stored < given ? -1 : stored > given ? 1 : 0;
    }
    default:
      return 0;
  }
}

/** With no key in its range a compare of values is false, any other is evaluated against zeros (quirk 2). */
function holdsForNone(compare: Compare): boolean {
  return compare.target !== CompareTarget.VALUE && relation(compare.result, order(compare, 0, 0, 0, undefined));
}

/** Whether one compare holds at `revision`. Undefined if that takes the disk or long, unless `load` is set. */
function holdsNow(index: TreeIndex, rows: Rows, compare: Compare, revision: number, load: boolean): boolean | undefined {
  const from = keyStringOf(compare.key);
  const byRow = needsRow(compare);
  if (compare.rangeEnd.length === 0) {
    if (!index.findAt(from, revision)) return holdsForNone(compare);
    const { main, sub, create, version } = index;
    const pair = byRow ? (load ? rows.loadNow(main, sub) : rows.peek(main, sub)) : undefined;
    if (byRow && pair === undefined) return undefined;
    return relation(compare.result, order(compare, main, create, version, pair));
  }
  const to = endOf(compare.rangeEnd, from);
  let seen = false;
  let next: KeyString | undefined = from;
  while (next !== undefined) {
    const positions = new PositionList();
    next = index.collectSlice(next, to, revision, positions, RANGE_NOW_PAIRS_MAX, RANGE_NOW_PAIRS_MAX);
    for (let i = 0; i < positions.length; i += 1) {
      seen = true;
      const main = positions.mainAt(i);
      const sub = positions.subAt(i);
      const pair = byRow ? (load ? rows.loadNow(main, sub) : rows.peek(main, sub)) : undefined;
      if (byRow && pair === undefined) return undefined;
      if (!relation(compare.result, order(compare, main, positions.createAt(i), positions.versionAt(i), pair))) return false;
    }
    if (next !== undefined && !load) return undefined;
  }
  return seen || holdsForNone(compare);
}

/** Whether all compares hold at `revision`. Undefined if that takes the disk or long, unless `load` is set. */
export function allHoldNow(
  index: TreeIndex,
  rows: Rows,
  compares: readonly Compare[],
  revision: number,
  load: boolean,
): boolean | undefined {
  for (const compare of compares) {
    const holds = holdsNow(index, rows, compare, revision, load);
    if (holds !== true) return holds;
  }
  return true;
}

/** The same in slices. The revision must be pinned. */
export async function allHold(
  index: TreeIndex,
  rows: Rows,
  compares: readonly Compare[],
  revision: number,
  slicer: Slicer,
): Promise<boolean> {
  for (const compare of compares) {
    const from = keyStringOf(compare.key);
    const to = endOf(compare.rangeEnd, from);
    let seen = false;
    let next: KeyString | undefined = from;
    while (next !== undefined) {
      const positions = new PositionList();
      next = index.collectSlice(next, to, revision, positions, LOAD_CHUNK_ROWS, LOAD_CHUNK_ROWS);
      let pairs: StoredPair[] | undefined;
      if (needsRow(compare)) {
        const mains: number[] = [];
        const subs: number[] = [];
        positions.appendTo(mains, subs);
        pairs = await rows.loadMany(mains, subs, false);
      }
      for (let i = 0; i < positions.length; i += 1) {
        seen = true;
        const holds = order(compare, positions.mainAt(i), positions.createAt(i), positions.versionAt(i), pairs?.[i]);
        if (!relation(compare.result, holds)) return false;
      }
      if (slicer.due) await slicer.pause();
    }
    if (!seen && !holdsForNone(compare)) return false;
  }
  return true;
}

/** Rows that the evaluation would read: what a prefetch must have. */
export function compareNeeds(index: TreeIndex, compare: Compare, revision: number, mains: number[], subs: number[]): void {
  if (!needsRow(compare)) return;
  const from = keyStringOf(compare.key);
  const positions = new PositionList();
  index.collectSlice(from, endOf(compare.rangeEnd, from), revision, positions, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);
  positions.appendTo(mains, subs);
}

/**
 * Which branch each transaction of the tree takes, in the order in which execution meets them: the whole decision is made before the
 * first operation runs (quirk 1).
 */
export function decide(request: TxnRequest, holds: (compares: readonly Compare[]) => boolean): boolean[] {
  const path: boolean[] = [];
  const visit = (txn: TxnRequest): void => {
    const taken = holds(txn.compare);
    path.push(taken);
    for (const { requestTxn } of taken ? txn.success : txn.failure) if (requestTxn !== undefined) visit(requestTxn);
  };
  visit(request);
  return path;
}
