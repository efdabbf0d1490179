/**
 * Who watches a key. Watchers of one key are found by a map; watchers of ranges by an interval tree: an AVL tree of the different ranges,
 * ordered by start and end, where each node knows the largest end below it (Cormen et al., "Introduction to Algorithms", 14.3).
 * Watchers of the same range share a node, so a thousand watchers of one prefix cost one step.
 */
import { assert } from "../base/assert.ts";
import type { KeyString } from "../base/bytes.ts";

/** Greater than every key: the end of ranges without end. */
export const OPEN_END = "\u0100" as KeyString;

/** What the index writes into the items, so that they are removed without searching. */
export interface IndexedItem<T> {
  bucket: Bucket<T> | undefined;
  bucketSlot: number;
}

/** All items of one key or one range, in no particular order. */
export class Bucket<T> {
  readonly start: KeyString;
  /** Exclusive; undefined for a single key. */
  readonly end: KeyString | undefined;
  readonly items: T[];

  constructor(start: KeyString, end: KeyString | undefined, first: T) {
    this.start = start;
    this.end = end;
    // Not an empty list that is pushed to: V8 would make room for 17.
    this.items = [first];
  }
}

class RangeNode<T> extends Bucket<T> {
  declare readonly end: KeyString;
  left: RangeNode<T> | undefined = undefined;
  right: RangeNode<T> | undefined = undefined;
  height = 1;
  /** The largest end in this subtree. */
  maxEnd: KeyString;

  constructor(start: KeyString, end: KeyString, first: T) {
    super(start, end, first);
    this.maxEnd = end;
  }
}

export class WatchIndex<T extends IndexedItem<T>> {
  readonly #exact = new Map<KeyString, Bucket<T>>();
  #root: RangeNode<T> | undefined;
  #size = 0;

  /** Items in the index. */
  get size(): number {
    return this.#size;
  }

  /** Adds an item for [start, end), or for the key `start` alone when `end` is undefined. */
  add(item: T, start: KeyString, end: KeyString | undefined): void {
    assert(item.bucket === undefined, "an item is in the index once");
    const present = end === undefined ? this.#exact.get(start) : this.#findRange(start, end);
    if (present !== undefined) {
      item.bucket = present;
      item.bucketSlot = present.items.length;
      present.items.push(item);
    } else {
      if (end === undefined) {
        item.bucket = new Bucket<T>(start, undefined, item);
        this.#exact.set(start, item.bucket);
      } else {
        const node = new RangeNode<T>(start, end, item);
        item.bucket = node;
        this.#root = insertNode(this.#root, node);
      }
      item.bucketSlot = 0;
    }
    this.#size += 1;
  }

  remove(item: T): void {
    const { bucket } = item;
    assert(bucket !== undefined && bucket.items[item.bucketSlot] === item, "the item is in the index");
    const last = bucket.items.pop() as T;
    if (last !== item) {
      bucket.items[item.bucketSlot] = last;
      last.bucketSlot = item.bucketSlot;
    }
    item.bucket = undefined;
    this.#size -= 1;
    if (bucket.items.length > 0) return;
    if (bucket.end === undefined) this.#exact.delete(bucket.start);
    else this.#root = removeNode(this.#root, bucket.start, bucket.end);
  }

  /** Appends the buckets of all items that watch `key`. */
  collect(key: KeyString, into: Bucket<T>[]): void {
    const exact = this.#exact.get(key);
    if (exact !== undefined) into.push(exact);
    collectNode(this.#root, key, into);
  }

  /** For tests: order, balance and largest ends of the tree. Gives the number of its nodes. */
  check(): number {
    return checkNode(this.#root);
  }

  #findRange(start: KeyString, end: KeyString): RangeNode<T> | undefined {
    assert(start < end, "a watched range is not empty");
    let node = this.#root;
    while (node !== undefined) {
      const order = compareRange(start, end, node);
      if (order === 0) return node;
      node = order < 0 ? node.left : node.right;
    }
    return undefined;
  }
}

function compareRange<T>(start: KeyString, end: KeyString, node: RangeNode<T>): number {
  if (start !== node.start) return start < node.start ? -1 : 1;
  if (end !== node.end) return end < node.end ? -1 : 1;
  return 0;
}

function collectNode<T>(from: RangeNode<T> | undefined, key: KeyString, into: Bucket<T>[]): void {
  let node = from;
  while (node !== undefined && node.maxEnd > key) {
    collectNode(node.left, key, into);
    // Everything to the right starts later still.
    if (node.start > key) return;
    if (node.end > key) into.push(node);
    node = node.right;
  }
}

function insertNode<T>(into: RangeNode<T> | undefined, node: RangeNode<T>): RangeNode<T> {
  if (into === undefined) return node;
  if (compareRange(node.start, node.end, into) < 0) into.left = insertNode(into.left, node);
  else into.right = insertNode(into.right, node);
  return balance(into);
}

function removeNode<T>(from: RangeNode<T> | undefined, start: KeyString, end: KeyString): RangeNode<T> | undefined {
  assert(from !== undefined, "the range is in the tree");
  const order = compareRange(start, end, from);
  if (order < 0) from.left = removeNode(from.left, start, end);
  else if (order > 0) from.right = removeNode(from.right, start, end);
  else {
    if (from.left === undefined) return from.right;
    if (from.right === undefined) return from.left;
    // Items point to their node, so the successor is moved here as a whole instead of copying its content.
    let successor = from.right;
    while (successor.left !== undefined) successor = successor.left;
    successor.right = removeFirst(from.right);
    successor.left = from.left;
    return balance(successor);
  }
  return balance(from);
}

function removeFirst<T>(from: RangeNode<T>): RangeNode<T> | undefined {
  if (from.left === undefined) return from.right;
  from.left = removeFirst(from.left);
  return balance(from);
}

function heightOf<T>(node: RangeNode<T> | undefined): number {
  return node === undefined ? 0 : node.height;
}

function refresh<T>(node: RangeNode<T>): void {
  const { left, right } = node;
  node.height = 1 + Math.max(heightOf(left), heightOf(right));
  let maxEnd = node.end;
  if (left !== undefined && left.maxEnd > maxEnd) maxEnd = left.maxEnd;
  if (right !== undefined && right.maxEnd > maxEnd) maxEnd = right.maxEnd;
  node.maxEnd = maxEnd;
}

/** Restores height and largest end of `node`, whose children are right, and rotates when one side is two higher. */
function balance<T>(node: RangeNode<T>): RangeNode<T> {
  const { left, right } = node;
  if (left !== undefined && left.height > heightOf(right) + 1) {
    if (heightOf(left.left) < heightOf(left.right)) node.left = rotateLeft(left);
    return rotateRight(node);
  }
  if (right !== undefined && right.height > heightOf(left) + 1) {
    if (heightOf(right.right) < heightOf(right.left)) node.right = rotateRight(right);
    return rotateLeft(node);
  }
  refresh(node);
  return node;
}

function rotateLeft<T>(node: RangeNode<T>): RangeNode<T> {
  const top = node.right;
  assert(top !== undefined, "rotated towards a child");
  node.right = top.left;
  top.left = node;
  refresh(node);
  refresh(top);
  return top;
}

function rotateRight<T>(node: RangeNode<T>): RangeNode<T> {
  const top = node.left;
  assert(top !== undefined, "rotated towards a child");
  node.left = top.right;
  top.right = node;
  refresh(node);
  refresh(top);
  return top;
}

function checkNode<T>(node: RangeNode<T> | undefined): number {
  if (node === undefined) return 0;
  const { left, right, height, maxEnd } = node;
  assert(left === undefined || compareRange(left.start, left.end, node) < 0, "ranges are in order");
  assert(right === undefined || compareRange(right.start, right.end, node) > 0, "ranges are in order");
  assert(node.items.length > 0, "no empty node stays");
  const count = 1 + checkNode(left) + checkNode(right);
  assert(Math.abs(heightOf(left) - heightOf(right)) <= 1, "the tree is balanced");
  refresh(node);
  assert(node.height === height && node.maxEnd === maxEnd, "height and largest end are right");
  return count;
}
