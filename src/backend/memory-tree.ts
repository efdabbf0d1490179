/**
 * An ordered map with cheap snapshots: a B+ tree whose nodes are copied before the first change after a snapshot. Keys are latin1 strings
 * (one char per byte: the order of the bytes, compared natively).
 *
 * A node belongs to the `owner` it was made for; a tree changes only nodes of its own owner in place and copies all others. Taking a
 * snapshot gives the tree a new owner, so everything that the snapshot sees is never changed again.
 *
 * Example with nodes of two: inner ["a" -> leaf {a, b}, "c" -> leaf {c, d}]; appending "e" makes a new last leaf {e} instead of halving
 * {c, d}, so that a store filled in order has full nodes.
 */
import type { KeyString } from "../base/bytes.ts";

const NODE_MAX = 64;
/** A node with fewer entries is joined with a neighbour if both fit into three quarters of a node. */
const NODE_MIN = 16;

type Owner = object;

class Leaf {
  readonly owner: Owner;
  readonly keys: KeyString[];
  readonly values: Uint8Array[];

  constructor(owner: Owner, keys: KeyString[], values: Uint8Array[]) {
    this.owner = owner;
    this.keys = keys;
    this.values = values;
  }
}

class Inner {
  readonly owner: Owner;
  /** keys[i] is at or below the first key of children[i], and above all keys of children[i - 1]. */
  readonly keys: KeyString[];
  readonly children: TreeNode[];

  constructor(owner: Owner, keys: KeyString[], children: TreeNode[]) {
    this.owner = owner;
    this.keys = keys;
    this.children = children;
  }
}

type TreeNode = Leaf | Inner;

/** A tree as it was at some time. */
export interface TreeSnapshot {
  readonly root: TreeNode;
}

export class MemoryTree {
  #owner: Owner = {};
  #root: TreeNode;
  /** Bytes of all keys and values. */
  bytes = 0;
  size = 0;

  constructor() {
    this.#root = new Leaf(this.#owner, [], []);
  }

  /** O(1). What it shows never changes; nodes are shared as long as they stay the same. */
  snapshot(): TreeSnapshot {
    this.#owner = {};
    return { root: this.#root };
  }

  get(key: KeyString): Uint8Array | undefined {
    return treeGet(this.#root, key);
  }

  put(key: KeyString, value: Uint8Array): void {
    const root = this.#own(this.#root);
    this.#root = root;
    const right = this.#put(root, key, value);
    if (right !== undefined) this.#root = new Inner(this.#owner, [firstKey(root), firstKey(right)], [root, right]);
  }

  delete(key: KeyString): void {
    if (this.get(key) === undefined) return;
    let root = this.#own(this.#root);
    this.#delete(root, key);
    while (root instanceof Inner && root.children.length <= 1) root = root.children[0] ?? new Leaf(this.#owner, [], []);
    this.#root = root;
  }

  /** For a tree that takes over another's contents (a snapshot must have been taken of that one). */
  static of(snapshot: TreeSnapshot, facts: { bytes: number; size: number }): MemoryTree {
    const tree = new MemoryTree();
    tree.#root = snapshot.root;
    tree.bytes = facts.bytes;
    tree.size = facts.size;
    return tree;
  }

  #own<T extends TreeNode>(node: T): T {
    if (node.owner === this.#owner) return node;
    if (node instanceof Leaf) return new Leaf(this.#owner, node.keys.slice(), node.values.slice()) as T;
    return new Inner(this.#owner, node.keys.slice(), node.children.slice()) as T;
  }

  /** `node` is ours. Returns the node that was split off to its right, if any. */
  #put(node: TreeNode, key: KeyString, value: Uint8Array): TreeNode | undefined {
    if (node instanceof Leaf) {
      const at = lowerBound(node.keys, key);
      if (node.keys[at] === key) {
        this.bytes += value.byteLength - (node.values[at] as Uint8Array).byteLength;
        node.values[at] = value;
        return undefined;
      }
      this.bytes += key.length + value.byteLength;
      this.size += 1;
      if (at === node.keys.length) {
        if (at >= NODE_MAX) return new Leaf(this.#owner, [key], [value]);
        node.keys.push(key);
        node.values.push(value);
        return undefined;
      }
      node.keys.splice(at, 0, key);
      node.values.splice(at, 0, value);
      if (node.keys.length <= NODE_MAX) return undefined;
      const half = node.keys.length >> 1;
      return new Leaf(this.#owner, node.keys.splice(half), node.values.splice(half));
    }
    const at = childAt(node.keys, key);
    const child = this.#own(node.children[at] as TreeNode);
    node.children[at] = child;
    if (key < (node.keys[at] as KeyString)) node.keys[at] = key;
    const right = this.#put(child, key, value);
    if (right === undefined) return undefined;
    if (at + 1 === node.children.length) {
      if (at + 1 >= NODE_MAX) return new Inner(this.#owner, [firstKey(right)], [right]);
      node.keys.push(firstKey(right));
      node.children.push(right);
      return undefined;
    }
    node.keys.splice(at + 1, 0, firstKey(right));
    node.children.splice(at + 1, 0, right);
    if (node.keys.length <= NODE_MAX) return undefined;
    const half = node.keys.length >> 1;
    return new Inner(this.#owner, node.keys.splice(half), node.children.splice(half));
  }

  /** `node` is ours and has the key. */
  #delete(node: TreeNode, key: KeyString): void {
    if (node instanceof Leaf) {
      const at = lowerBound(node.keys, key);
      this.bytes -= key.length + (node.values[at] as Uint8Array).byteLength;
      this.size -= 1;
      node.keys.splice(at, 1);
      node.values.splice(at, 1);
      return;
    }
    const at = childAt(node.keys, key);
    const child = this.#own(node.children[at] as TreeNode);
    node.children[at] = child;
    this.#delete(child, key);
    if (child.keys.length >= NODE_MIN) return;
    if (child.keys.length === 0) {
      node.keys.splice(at, 1);
      node.children.splice(at, 1);
    } else if (at + 1 < node.children.length) {
      this.#join(node, at);
    } else if (at > 0) {
      this.#join(node, at - 1);
    }
  }

  /** Joins the children at `at` and `at + 1` if they fit. */
  #join(node: Inner, at: number): void {
    const left = node.children[at] as TreeNode;
    const right = node.children[at + 1] as TreeNode;
    if (left.keys.length + right.keys.length > (NODE_MAX * 3) / 4) return;
    const joined = this.#own(left);
    joined.keys.push(...right.keys);
    if (joined instanceof Leaf) joined.values.push(...(right as Leaf).values);
    else joined.children.push(...(right as Inner).children);
    node.children[at] = joined;
    node.keys.splice(at + 1, 1);
    node.children.splice(at + 1, 1);
  }
}

function firstKey(node: TreeNode): KeyString {
  return node.keys[0] as KeyString;
}

/** First place whose key is at or above `key`. */
function lowerBound(keys: readonly KeyString[], key: KeyString): number {
  let high = keys.length;
  // Filling in order is the usual case.
  if (high === 0 || (keys[high - 1] as KeyString) < key) return high;
  let low = 0;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((keys[middle] as KeyString) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The child that holds `key` or would. */
function childAt(keys: readonly KeyString[], key: KeyString): number {
  const at = lowerBound(keys, key);
  return keys[at] === key ? at : Math.max(0, at - 1);
}

export function treeGet(root: TreeNode, key: KeyString): Uint8Array | undefined {
  let node = root;
  while (node instanceof Inner) node = node.children[childAt(node.keys, key)] as TreeNode;
  const at = lowerBound(node.keys, key);
  return node.keys[at] === key ? node.values[at] : undefined;
}

/** A place in a snapshot; moves either way. */
export class TreeCursor {
  readonly #root: TreeNode;
  readonly #path: { readonly node: Inner; at: number }[] = [];
  #leaf: Leaf;
  #at = 0;

  constructor(snapshot: TreeSnapshot) {
    this.#root = snapshot.root;
    this.#leaf = this.#down(this.#root, () => 0);
  }

  get key(): KeyString | undefined {
    return this.#leaf.keys[this.#at];
  }

  /** Only where there is a key. */
  get value(): Uint8Array {
    return this.#leaf.values[this.#at] as Uint8Array;
  }

  /** To the first key at or above `key`. */
  seek(key: KeyString): void {
    this.#path.length = 0;
    this.#leaf = this.#down(this.#root, (node) => childAt(node.keys, key));
    this.#at = lowerBound(this.#leaf.keys, key);
    if (this.#at === this.#leaf.keys.length) this.#step(1);
  }

  /** To the last key below `key`, or the last of all. */
  seekBelow(key: KeyString | undefined): void {
    this.#path.length = 0;
    this.#leaf = this.#down(this.#root, (node) => (key === undefined ? node.keys.length - 1 : childAt(node.keys, key)));
    this.#at = (key === undefined ? this.#leaf.keys.length : lowerBound(this.#leaf.keys, key)) - 1;
    if (this.#at < 0) this.#step(-1);
  }

  next(): void {
    this.#at += 1;
    if (this.#at === this.#leaf.keys.length) this.#step(1);
  }

  previous(): void {
    this.#at -= 1;
    if (this.#at < 0) this.#step(-1);
  }

  /** To the first (or last) key of the neighbouring leaf; to nowhere when there is none. */
  #step(by: 1 | -1): void {
    for (let level = this.#path.length - 1; level >= 0; level--) {
      const place = this.#path[level] as { readonly node: Inner; at: number };
      const child = place.node.children[place.at + by];
      if (child === undefined) continue;
      place.at += by;
      this.#path.length = level + 1;
      this.#leaf = this.#down(child, (node) => (by === 1 ? 0 : node.keys.length - 1));
      this.#at = by === 1 ? 0 : this.#leaf.keys.length - 1;
      return;
    }
    this.#at = by === 1 ? this.#leaf.keys.length : -1;
  }

  #down(from: TreeNode, choose: (node: Inner) => number): Leaf {
    let node = from;
    while (node instanceof Inner) {
      const at = choose(node);
      this.#path.push({ node, at });
      node = node.children[at] as TreeNode;
    }
    return node;
  }
}
