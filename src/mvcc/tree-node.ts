/**
 * The nodes of the tree index, the search in them, and moving keys between them. What they mean is said in `tree-index.ts`.
 *
 * The head of a key is the six bytes that follow what all keys of its node have in common, as a number. A search runs over the heads,
 * which lie side by side in memory, and looks at a string only where two heads are equal: every string is a cache miss and a call,
 * and a lookup among a million keys would need twenty.
 */
import { bytesOfKey, type KeyString, keyStringIn } from "../base/bytes.ts";
import { type KeyHistory, QUAD } from "./key-index.ts";

export const LEAF_KEYS_MAX = 128;
export const INNER_CHILDREN_MAX = 128;
/** A node that shrinks below a quarter is joined with a neighbour if both then fill at most three quarters. */
export const LEAF_KEYS_LOW = LEAF_KEYS_MAX / 4;
export const LEAF_KEYS_JOINED = (LEAF_KEYS_MAX * 3) / 4;
export const INNER_CHILDREN_LOW = INNER_CHILDREN_MAX / 4;
export const INNER_CHILDREN_JOINED = (INNER_CHILDREN_MAX * 3) / 4;

/** Where the columns of slot 0 stand in a leaf; the quads have the same order as in a KeyHistory. */
export const MAIN = LEAF_KEYS_MAX;
export const SUB = LEAF_KEYS_MAX + 1;
export const CREATE = LEAF_KEYS_MAX + 2;
export const VERSION = LEAF_KEYS_MAX + 3;
/** Where the count of child 0 stands in the columns of an inner node. */
export const LIVE = INNER_CHILDREN_MAX;

/** What a search needs of a node. */
interface Sorted {
  /** [0, n) is used, ascending. */
  readonly keys: (KeyString | undefined)[];
  /** The head of `keys[i]` at base + i. */
  readonly columns: Float64Array;
  readonly base: number;
  /** Every key begins with this. */
  prefix: string;
  prefixLength: number;
}

/** Numbers per leaf. */
const LEAF_COLUMNS = LEAF_KEYS_MAX * (1 + QUAD);
/** Leaves whose columns share one array: the first array is small, so that a small store is. */
const CHUNK_LEAVES_MIN = 4;
const CHUNK_LEAVES_MAX = 128;

interface Columns {
  readonly columns: Float64Array;
  readonly base: number;
}

/**
 * Memory for the columns of leaves: one array for many leaves, because a typed array of its own costs more to make than a leaf to fill,
 * and its header is one more cache miss. Pieces given back are used again.
 */
export class ColumnStore {
  readonly #free: Columns[] = [];
  #columns: Float64Array = new Float64Array(0);
  #used = 0;
  #leaves = CHUNK_LEAVES_MIN / 2;

  /** A piece of zeros. */
  take(): Columns {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#used === this.#columns.length) {
      this.#leaves = Math.min(this.#leaves * 2, CHUNK_LEAVES_MAX);
      this.#columns = new Float64Array(this.#leaves * LEAF_COLUMNS);
      this.#used = 0;
    }
    const base = this.#used;
    this.#used += LEAF_COLUMNS;
    return { columns: this.#columns, base };
  }

  /** The leaf is not used any more. */
  give({ columns, base }: Columns): void {
    columns.fill(0, base, base + LEAF_COLUMNS);
    this.#free.push({ columns, base });
  }
}

export class Leaf {
  readonly isLeaf = true;
  /** Fixed length; [0, size) is used, ascending. */
  readonly keys: (KeyString | undefined)[] = new Array<KeyString | undefined>(LEAF_KEYS_MAX).fill(undefined);
  /** Shared with other leaves. From `base` on: the heads; then, LEAF_KEYS_MAX further, a quad per key. */
  readonly columns: Float64Array;
  readonly base: number;
  prefix = "";
  prefixLength = 0;
  /** Earlier changes by slot; absent while no key of the leaf has any. */
  histories: (KeyHistory | undefined)[] | undefined = undefined;
  size = 0;
  live = 0;
  /** At least the newest `main` in this leaf. */
  lastMain = 0;
  next: Leaf | undefined = undefined;
  previous: Leaf | undefined = undefined;

  constructor(memory: Columns) {
    this.columns = memory.columns;
    this.base = memory.base;
  }
}

export class Inner {
  readonly isLeaf = false;
  readonly children: Node[] = [];
  /** `keys[i]`, a separator, is above every key of `children[i]` and at or below every key of `children[i + 1]`. */
  readonly keys: KeyString[] = [];
  /** The heads of the separators; then, from LIVE on, the numbers of living keys below each child. */
  readonly columns: Float64Array = new Float64Array(2 * INNER_CHILDREN_MAX);
  readonly base = 0;
  prefix = "";
  prefixLength = 0;
  live = 0;
  lastMain = 0;
}

export type Node = Leaf | Inner;

/** Six bytes of `key` from `from` on, as a number; bytes that it does not have count as 0. */
export function headOf(key: string, from: number): number {
  const length = key.length;
  // Two 24-bit halves: shifts work on 32 bits.
  let high = 0;
  let low = 0;
  if (from + 6 <= length) {
    high = (key.charCodeAt(from) << 16) | (key.charCodeAt(from + 1) << 8) | key.charCodeAt(from + 2);
    low = (key.charCodeAt(from + 3) << 16) | (key.charCodeAt(from + 4) << 8) | key.charCodeAt(from + 5);
  } else {
    for (let i = 0; i < 3; i += 1) {
      high = (high << 8) | (from + i < length ? key.charCodeAt(from + i) : 0);
      low = (low << 8) | (from + 3 + i < length ? key.charCodeAt(from + 3 + i) : 0);
    }
  }
  return high * 0x1000000 + low;
}

function commonLength(a: string, b: string): number {
  const end = Math.min(a.length, b.length);
  let i = 0;
  while (i < end && a.charCodeAt(i) === b.charCodeAt(i)) i += 1;
  return i;
}

/** Sets the prefix of a node's `size` keys to the longest one, and the heads to match. */
export function setHeads(node: Sorted, size: number): void {
  if (size === 0) {
    node.prefix = "";
    node.prefixLength = 0;
    return;
  }
  const first = node.keys[0] as KeyString;
  const length = commonLength(first, node.keys[size - 1] as KeyString);
  // Not `slice`, which may give a string that points into another.
  node.prefix = keyStringIn(bytesOfKey(first), 0, length);
  node.prefixLength = length;
  for (let i = 0; i < size; i += 1) node.columns[node.base + i] = headOf(node.keys[i] as KeyString, length);
}

/** After `key` came to `slot` of a node that now has `size` keys, whose heads have already made room. */
export function headArrived(node: Sorted, slot: number, size: number, key: KeyString): void {
  if (size > 1 && key.startsWith(node.prefix)) node.columns[node.base + slot] = headOf(key, node.prefixLength);
  else setHeads(node, size);
}

/** The head that the last `searchLeaf` looked for. */
let sought = 0;

/**
 * Slot of the first key at or above `key`, if the key begins with the leaf's prefix; otherwise any slot, but never that of an equal key.
 * To look at the prefix costs a cache miss, which a key that is found can do without.
 */
export function searchLeaf(leaf: Leaf, key: KeyString): number {
  const { keys, columns, base } = leaf;
  const head = headOf(key, leaf.prefixLength);
  sought = head;
  let low = 0;
  let high = leaf.size;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const other = columns[base + middle] as number;
    if (other < head || (other === head && (keys[middle] as KeyString) < key)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** True if `key` stands at `slot`, which `searchLeaf` gave for it. */
export function isAt(leaf: Leaf, slot: number, key: KeyString): boolean {
  return slot < leaf.size && leaf.columns[leaf.base + slot] === sought && leaf.keys[slot] === key;
}

/** Slot of the first key at or above `key`. */
export function lowerBound(leaf: Leaf, key: KeyString): number {
  const { prefix } = leaf;
  if (!key.startsWith(prefix)) return key < prefix ? 0 : leaf.size;
  return searchLeaf(leaf, key);
}

/** Which child holds `key`. */
export function childSlot(inner: Inner, key: KeyString): number {
  const { keys, columns, prefix, prefixLength } = inner;
  if (!key.startsWith(prefix)) return key < prefix ? 0 : keys.length;
  const head = headOf(key, prefixLength);
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const other = columns[middle] as number;
    if (other < head || (other === head && (keys[middle] as KeyString) <= key)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Living keys in the slots [from, to). */
export function liveIn(leaf: Leaf, from: number, to: number): number {
  if (leaf.live === leaf.size) return to > from ? to - from : 0;
  let live = 0;
  for (let slot = from; slot < to; slot += 1) if (leaf.columns[leaf.base + slot * QUAD + VERSION] !== 0) live += 1;
  return live;
}

export function sum(inner: Inner): void {
  let live = 0;
  for (let i = 0; i < inner.children.length; i += 1) live += inner.columns[LIVE + i] as number;
  inner.live = live;
}

/** `right` was split off `left`, the child at `slot`. The total does not change. */
export function insertBeside(parent: Inner, slot: number, left: Node, separator: KeyString, right: Node): void {
  const count = parent.children.length;
  parent.children.splice(slot + 1, 0, right);
  parent.keys.splice(slot, 0, separator);
  parent.columns.copyWithin(slot + 1, slot, count - 1);
  headArrived(parent, slot, count, separator);
  parent.columns.copyWithin(LIVE + slot + 2, LIVE + slot + 1, LIVE + count);
  parent.columns[LIVE + slot] = left.live;
  parent.columns[LIVE + slot + 1] = right.live;
}

/** Moves the slots [from, to) of one leaf behind those of another, which has room; keeps both counts of living keys. */
export function moveSlots(source: Leaf, from: number, to: number, target: Leaf): void {
  const moved = to - from;
  const live = liveIn(source, from, to);
  const base = target.size;
  for (let i = 0; i < moved; i += 1) {
    target.keys[base + i] = source.keys[from + i];
    source.keys[from + i] = undefined;
  }
  const quads = source.base + MAIN;
  target.columns.set(source.columns.subarray(quads + from * QUAD, quads + to * QUAD), target.base + MAIN + base * QUAD);
  source.columns.fill(0, quads + from * QUAD, quads + to * QUAD);
  if (source.histories !== undefined) {
    target.histories ??= new Array<KeyHistory | undefined>(LEAF_KEYS_MAX).fill(undefined);
    for (let i = 0; i < moved; i += 1) {
      target.histories[base + i] = source.histories[from + i];
      source.histories[from + i] = undefined;
    }
  }
  target.size = base + moved;
  target.live += live;
  source.size = from;
  source.live -= live;
  setHeads(target, target.size);
  setHeads(source, from);
}
