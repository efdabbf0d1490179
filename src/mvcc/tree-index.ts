/**
 * The ordered index of all keys, in memory: which changes each key has had and where its values stand. A B+tree over latin1 key
 * strings, whose leaves hold plain arrays: the keys, and one Float64Array with five numbers per key (its head, and position, create
 * revision, version of the newest change). A million keys of 16 bytes cost about 110 bytes each. Only keys with earlier changes have
 * more: a `KeyHistory` (see `key-index.ts`, which has a worked example).
 *
 * A deleted key stays, as a key whose newest change is a deletion (version 0), until a compaction prunes it. Every node counts the
 * living keys below it, so counting a range of any size at the current revision costs two descents. Every node also knows the newest
 * revision below it: whatever has not changed since the revision of a read is counted and read without looking into histories.
 *
 * Worked example, with leaves of at most 4 keys. The keys a, c, e, g were put at 2, 3, 4, 5; then c was deleted at 6 and f put at 7,
 * which split the full leaf:
 *
 *     inner   separators [e]     living below [1, 3]     newest below: left 6, right 7
 *             /                 \
 *     leaf  a  2/0  2 1          leaf  e  4/0 4 1
 *           c  6/0  0 0                f  7/0 7 1
 *              history of c:           g  5/0 5 1
 *              [3, 0, 3, 1]
 *
 *     count of [a, g) now          living before g (3) - living before a (0) = 3: a, e, f
 *     read [a, z) at 5             left leaf has newer changes: a is 2/0; c is in its history, 3/0; right leaf too: e, no f, g
 *     compaction at 6              c's put goes, its deletion is exactly at 6 and stays; at 7 the key c goes altogether
 *
 * Results come back in the fields of the index ("registers"), because an object per lookup would cost more than the lookup. They are
 * valid until the next call.
 */
import { assert } from "../base/assert.ts";
import type { KeyString } from "../base/bytes.ts";
import { findChange, type KeyHistory, pruneHistory, QUAD, staysAtCompaction } from "./key-index.ts";
import type { PositionList } from "./position-list.ts";
import {
  ColumnStore,
  CREATE,
  childSlot,
  headArrived,
  headOf,
  INNER_CHILDREN_JOINED,
  INNER_CHILDREN_LOW,
  INNER_CHILDREN_MAX,
  Inner,
  insertBeside,
  isAt,
  LEAF_KEYS_JOINED,
  LEAF_KEYS_LOW,
  LEAF_KEYS_MAX,
  Leaf,
  LIVE,
  liveIn,
  lowerBound,
  MAIN,
  moveSlots,
  type Node,
  SUB,
  searchLeaf,
  setHeads,
  sum,
  VERSION,
} from "./tree-node.ts";

/** Reads at "the newest, whatever it is". */
export const NEWEST = Number.MAX_SAFE_INTEGER;

export class TreeIndex {
  /** Registers: the change found, or, after `put` and `remove`, the newest change before. Version 0: none, or a deletion. */
  main = 0;
  sub = 0;
  create = 0;
  version = 0;
  /** Registers after `put`: fields of the new change. */
  newCreate = 0;
  newVersion = 0;
  /** Register after a sliced walk: what it counted. */
  counted = 0;

  readonly #memory = new ColumnStore();
  #root: Node = new Leaf(this.#memory.take());
  /** All keys, also the deleted ones. */
  #size = 0;
  /** The way of the last descent: `#nodes[i].children[#slots[i]]` is the next node. */
  readonly #nodes: Inner[] = [];
  readonly #slots: number[] = [];
  #depth = 0;
  readonly #tombstoneStays: boolean;

  /** `tombstoneStays` false is a planted fault for the tests: compaction then drops a deletion exactly at its revision. */
  constructor(options: { tombstoneStays?: boolean } = {}) {
    this.#tombstoneStays = options.tombstoneStays ?? true;
  }

  /** Keys alive now. */
  get live(): number {
    return this.#root.live;
  }

  /** Keys alive or deleted but not yet pruned. */
  get size(): number {
    return this.#size;
  }

  /** The newest change of `key`; false if the index does not know it. A deletion counts as found, with version 0. */
  find(key: KeyString): boolean {
    const leaf = this.#leafOf(key);
    const slot = searchLeaf(leaf, key);
    if (!isAt(leaf, slot, key)) return false;
    this.#load(leaf, slot);
    return true;
  }

  /** The pair visible at `revision`; false if the key is absent then. */
  findAt(key: KeyString, revision: number): boolean {
    const leaf = this.#leafOf(key);
    const slot = searchLeaf(leaf, key);
    if (!isAt(leaf, slot, key)) return false;
    return this.#loadAt(leaf, slot, revision);
  }

  /** Records a put. The registers then hold what was before and the new create revision and version. */
  put(key: KeyString, main: number, sub: number): void {
    const slot = this.#slotFor(key);
    const leaf = this.#leafFound;
    const at = leaf.base + slot * QUAD;
    const columns = leaf.columns;
    const version = columns[at + VERSION] as number;
    if (columns[at + MAIN] === 0) {
      this.main = 0;
      this.sub = 0;
      this.create = 0;
      this.version = 0;
    } else {
      this.#load(leaf, slot);
      this.#keepChange(leaf, slot);
    }
    if (version === 0) {
      this.newCreate = main;
      this.newVersion = 1;
      columns[at + CREATE] = main;
      columns[at + VERSION] = 1;
      this.#changed(leaf, main, 1);
    } else {
      this.newCreate = columns[at + CREATE] as number;
      this.newVersion = version + 1;
      columns[at + VERSION] = version + 1;
      this.#changed(leaf, main, 0);
    }
    columns[at + MAIN] = main;
    columns[at + SUB] = sub;
  }

  /** Records the deletion of a living key; false, and no change, if it is absent. The registers then hold what was before. */
  remove(key: KeyString, main: number, sub: number): boolean {
    const leaf = this.#descend(key);
    const slot = searchLeaf(leaf, key);
    if (!isAt(leaf, slot, key)) return false;
    if (leaf.columns[leaf.base + slot * QUAD + VERSION] === 0) return false;
    this.#load(leaf, slot);
    this.#bury(leaf, slot, main, sub);
    this.#changed(leaf, main, -1);
    return true;
  }

  /**
   * Deletes every living key in [from, to), ascending, with subs from `sub` on; `before` gets what was before. Returns how many.
   * One pass over the leaves: the counters above are set once per leaf, not once per key.
   */
  removeRange(from: KeyString, to: KeyString | undefined, main: number, sub: number, before: PositionList): number {
    if (to !== undefined && to <= from) return 0;
    return this.#removeBelow(this.#root, from, to, main, sub, before);
  }

  /** Rebuilding: the next change of `key` in revision order, as its row says. Version 0 records a deletion. */
  restore(key: KeyString, main: number, sub: number, create: number, version: number): void {
    const slot = this.#slotFor(key);
    const leaf = this.#leafFound;
    const at = leaf.base + slot * QUAD;
    const columns = leaf.columns;
    const wasLive = columns[at + VERSION] !== 0;
    if (columns[at + MAIN] !== 0) this.#keepChange(leaf, slot);
    columns[at + MAIN] = main;
    columns[at + SUB] = sub;
    columns[at + CREATE] = create;
    columns[at + VERSION] = version;
    this.#changed(leaf, main, (version !== 0 ? 1 : 0) - (wasLive ? 1 : 0));
  }

  /** Living keys in [from, to) now, in two descents. */
  count(from: KeyString, to: KeyString | undefined): number {
    if (to !== undefined && to <= from) return 0;
    const below = this.#liveBefore(from);
    return (to === undefined ? this.#root.live : this.#liveBefore(to)) - below;
  }

  /**
   * Living keys in [from, to) at `revision`, in slices: adds to `counted` (set it to 0 first) and returns the key to go on from, or
   * undefined when done. Looks into at most `leavesMax` leaves (at least one); what has not changed since `revision` is counted whole.
   */
  countSlice(from: KeyString, to: KeyString | undefined, revision: number, leavesMax: number): KeyString | undefined {
    if (to !== undefined && to <= from) return undefined;
    this.#leavesLeft = leavesMax;
    return this.#countBelow(this.#root, from, to, revision);
  }

  /**
   * Appends the pairs of [from, to) visible at `revision` to `into`, until it holds `lengthMax`, or about `keysMax` keys were looked
   * at (whole leaves). Returns the key to go on from, or undefined when the range is finished. Between two slices anything may change.
   */
  collectSlice(
    from: KeyString,
    to: KeyString | undefined,
    revision: number,
    into: PositionList,
    lengthMax: number,
    keysMax: number,
  ): KeyString | undefined {
    if (to !== undefined && to <= from) return undefined;
    let leaf: Leaf | undefined = this.#leafOf(from);
    let slot = lowerBound(leaf, from);
    let looked = 0;
    let length = into.length;
    while (leaf !== undefined) {
      const { keys, columns, size, histories } = leaf;
      const simple = leaf.lastMain <= revision;
      for (; slot < size; slot += 1) {
        const key = keys[slot] as KeyString;
        if (to !== undefined && key >= to) return undefined;
        if (length === lengthMax) return key;
        looked += 1;
        const at = leaf.base + slot * QUAD;
        const version = columns[at + VERSION] as number;
        if (simple || (columns[at + MAIN] as number) <= revision) {
          if (version === 0) continue;
          into.push(key, columns[at + MAIN] as number, columns[at + SUB] as number, columns[at + CREATE] as number, version);
          length += 1;
        } else {
          const history: KeyHistory | undefined = histories?.[slot];
          if (history === undefined) continue;
          const found = findChange(history, revision);
          if (found < 0 || history[found + 3] === 0) continue;
          into.push(
            key,
            history[found] as number,
            history[found + 1] as number,
            history[found + 2] as number,
            history[found + 3] as number,
          );
          length += 1;
        }
      }
      leaf = leaf.next;
      slot = 0;
      if (looked >= keysMax && leaf !== undefined && leaf.size > 0) return leaf.keys[0];
    }
    return undefined;
  }

  /** True if a compaction at `revision` (not below this change) keeps the change of `key` at that position. */
  isKept(key: KeyString, main: number, sub: number, revision: number): boolean {
    const leaf = this.#leafOf(key);
    const slot = searchLeaf(leaf, key);
    if (!isAt(leaf, slot, key)) return false;
    if (!this.#loadNewestAt(leaf, slot, revision)) return false;
    return this.main === main && this.sub === sub && staysAtCompaction(main, this.version, revision, this.#tombstoneStays);
  }

  /** Drops what a compaction at `revision` drops of this key; the whole key if nothing is left. */
  prune(key: KeyString, revision: number): void {
    const leaf = this.#descend(key);
    const slot = searchLeaf(leaf, key);
    if (!isAt(leaf, slot, key)) return;
    const at = leaf.base + slot * QUAD;
    const main = leaf.columns[at + MAIN] as number;
    const history = leaf.histories?.[slot];
    if (main > revision) {
      if (history !== undefined && leaf.histories !== undefined)
        leaf.histories[slot] = pruneHistory(history, revision, this.#tombstoneStays);
    } else if (staysAtCompaction(main, leaf.columns[at + VERSION] as number, revision, this.#tombstoneStays)) {
      if (leaf.histories !== undefined) leaf.histories[slot] = undefined;
    } else {
      this.#cut(leaf, slot);
      return;
    }
    if (history !== undefined && leaf.histories !== undefined && leaf.histories[slot] === undefined && leaf.histories.every(isAbsent)) {
      leaf.histories = undefined;
    }
  }

  /** Recomputes every count and bound; for tests, behind `verify`. */
  check(): void {
    let leaf: Leaf | undefined;
    let size = 0;
    const walk = (node: Node, low: KeyString | undefined, high: KeyString | undefined): number => {
      if (node.isLeaf) {
        assert(node.previous === leaf, "leaves are chained in order");
        if (leaf !== undefined) assert(leaf.next === node, "leaves are chained in order");
        leaf = node;
        let live = 0;
        for (let slot = 0; slot < node.size; slot += 1) {
          const key = node.keys[slot] as KeyString;
          assert(slot === 0 || (node.keys[slot - 1] as KeyString) < key, "keys ascend");
          assert(
            key.startsWith(node.prefix) && node.columns[node.base + slot] === headOf(key, node.prefix.length),
            "a leaf has the heads of its keys",
          );
          assert((low === undefined || key >= low) && (high === undefined || key < high), "keys lie between the separators");
          assert((node.columns[node.base + slot * QUAD + MAIN] as number) <= node.lastMain, "no change is newer than the leaf says");
          if (node.columns[node.base + slot * QUAD + VERSION] !== 0) live += 1;
          const history = node.histories?.[slot];
          assert(history === undefined || history.length > 0, "an empty history is dropped");
          let last = -1;
          for (let i = 0; history !== undefined && i < history.length; i += QUAD) {
            assert((history[i] as number) >= last, "a history ascends");
            last = history[i] as number;
          }
          assert(last <= (node.columns[node.base + slot * QUAD + MAIN] as number), "a history is older than the newest change");
        }
        for (let slot = node.size; slot < LEAF_KEYS_MAX; slot += 1) {
          assert(node.keys[slot] === undefined && node.histories?.[slot] === undefined, "unused slots are empty");
        }
        assert(live === node.live, "a leaf counts its living keys");
        assert(node.size > 0 || node === this.#root, "no leaf is empty");
        size += node.size;
        return live;
      }
      assert(node.children.length === node.keys.length + 1 && node.children.length <= INNER_CHILDREN_MAX, "separators part the children");
      assert(node.children.length > 1 || node !== this.#root, "the root has several children");
      node.keys.forEach((key, slot) => {
        assert(
          key.startsWith(node.prefix) && node.columns[slot] === headOf(key, node.prefix.length),
          "an inner node has the heads of its separators",
        );
      });
      let live = 0;
      node.children.forEach((child, slot) => {
        const below = walk(child, slot === 0 ? low : node.keys[slot - 1], node.keys[slot] ?? high);
        assert(below === node.columns[LIVE + slot], "an inner node counts the living keys of each child");
        assert(child.lastMain <= node.lastMain, "no change is newer than the inner node says");
        live += below;
      });
      assert(live === node.live, "an inner node counts its living keys");
      return live;
    };
    walk(this.#root, undefined, undefined);
    assert((leaf as Leaf | undefined)?.next === undefined, "the last leaf ends the chain");
    assert(size === this.#size, "the tree counts its keys");
  }

  // -- finding --------------------------------------------------------------------------------------------------------------------------

  /** The leaf that `#slotFor` found or made room in. */
  #leafFound: Leaf = this.#root as Leaf;
  #leavesLeft = 0;

  #leafOf(key: KeyString): Leaf {
    let node: Node = this.#root;
    while (!node.isLeaf) node = node.children[childSlot(node, key)] as Node;
    return node;
  }

  /** As `#leafOf`, and remembers the way. */
  #descend(key: KeyString): Leaf {
    let node: Node = this.#root;
    let depth = 0;
    while (!node.isLeaf) {
      const slot = childSlot(node, key);
      this.#nodes[depth] = node;
      this.#slots[depth] = slot;
      depth += 1;
      node = node.children[slot] as Node;
    }
    this.#depth = depth;
    return node;
  }

  #load(leaf: Leaf, slot: number): void {
    const at = leaf.base + slot * QUAD;
    const columns = leaf.columns;
    this.main = columns[at + MAIN] as number;
    this.sub = columns[at + SUB] as number;
    this.create = columns[at + CREATE] as number;
    this.version = columns[at + VERSION] as number;
  }

  /** Loads the newest change at or below `revision`, deletions included. */
  #loadNewestAt(leaf: Leaf, slot: number, revision: number): boolean {
    if ((leaf.columns[leaf.base + slot * QUAD + MAIN] as number) <= revision) {
      this.#load(leaf, slot);
      return true;
    }
    const history = leaf.histories?.[slot];
    if (history === undefined) return false;
    const found = findChange(history, revision);
    if (found < 0) return false;
    this.main = history[found] as number;
    this.sub = history[found + 1] as number;
    this.create = history[found + 2] as number;
    this.version = history[found + 3] as number;
    return true;
  }

  #loadAt(leaf: Leaf, slot: number, revision: number): boolean {
    return this.#loadNewestAt(leaf, slot, revision) && this.version !== 0;
  }

  // -- counting -------------------------------------------------------------------------------------------------------------------------

  #liveBefore(key: KeyString): number {
    let before = 0;
    let node: Node = this.#root;
    while (!node.isLeaf) {
      const slot = childSlot(node, key);
      const below = node.columns;
      for (let i = 0; i < slot; i += 1) before += below[LIVE + i] as number;
      node = node.children[slot] as Node;
    }
    const slot = lowerBound(node, key);
    return before + liveIn(node, 0, slot);
  }

  #countBelow(node: Node, from: KeyString, to: KeyString | undefined, revision: number): KeyString | undefined {
    if (node.isLeaf) {
      if (this.#leavesLeft <= 0) return node.size === 0 ? undefined : node.keys[0];
      this.#leavesLeft -= 1;
      const end = to === undefined ? node.size : lowerBound(node, to);
      const begin = lowerBound(node, from);
      if (node.lastMain <= revision) {
        this.counted += liveIn(node, begin, end);
      } else {
        for (let slot = begin; slot < end; slot += 1) if (this.#loadAt(node, slot, revision)) this.counted += 1;
      }
      return undefined;
    }
    const first = childSlot(node, from);
    const last = to === undefined ? node.children.length - 1 : childSlot(node, to);
    for (let slot = first; slot <= last; slot += 1) {
      const child = node.children[slot] as Node;
      const whole = slot > first && (slot < last || to === undefined);
      if (whole && child.lastMain <= revision) {
        this.counted += node.columns[LIVE + slot] as number;
        continue;
      }
      const rest = this.#countBelow(child, from, to, revision);
      if (rest !== undefined) return rest < from ? from : rest;
    }
    return undefined;
  }

  // -- changing -------------------------------------------------------------------------------------------------------------------------

  /** Pushes the newest change of a slot into its history. */
  #keepChange(leaf: Leaf, slot: number): void {
    const at = leaf.base + slot * QUAD;
    const columns = leaf.columns;
    leaf.histories ??= new Array<KeyHistory | undefined>(LEAF_KEYS_MAX).fill(undefined);
    const history = leaf.histories[slot];
    if (history === undefined) {
      leaf.histories[slot] = [
        columns[at + MAIN] as number,
        columns[at + SUB] as number,
        columns[at + CREATE] as number,
        columns[at + VERSION] as number,
      ];
    } else {
      history.push(
        columns[at + MAIN] as number,
        columns[at + SUB] as number,
        columns[at + CREATE] as number,
        columns[at + VERSION] as number,
      );
    }
  }

  #bury(leaf: Leaf, slot: number, main: number, sub: number): void {
    this.#keepChange(leaf, slot);
    const at = leaf.base + slot * QUAD;
    const columns = leaf.columns;
    columns[at + MAIN] = main;
    columns[at + SUB] = sub;
    columns[at + CREATE] = 0;
    columns[at + VERSION] = 0;
  }

  /** Carries a change in `leaf` up the way of the last descent. */
  #changed(leaf: Leaf, main: number, living: number): void {
    leaf.live += living;
    leaf.lastMain = main;
    for (let i = this.#depth - 1; i >= 0; i -= 1) {
      const node = this.#nodes[i] as Inner;
      node.live += living;
      node.lastMain = main;
      const slot = this.#slots[i] as number;
      node.columns[LIVE + slot] = (node.columns[LIVE + slot] as number) + living;
    }
  }

  #removeBelow(node: Node, from: KeyString, to: KeyString | undefined, main: number, sub: number, before: PositionList): number {
    let removed = 0;
    if (node.isLeaf) {
      const end = to === undefined ? node.size : lowerBound(node, to);
      for (let slot = lowerBound(node, from); slot < end; slot += 1) {
        const at = node.base + slot * QUAD;
        const columns = node.columns;
        const version = columns[at + VERSION] as number;
        if (version === 0) continue;
        before.push(
          node.keys[slot] as KeyString,
          columns[at + MAIN] as number,
          columns[at + SUB] as number,
          columns[at + CREATE] as number,
          version,
        );
        this.#bury(node, slot, main, sub + removed);
        removed += 1;
      }
    } else {
      const last = to === undefined ? node.children.length - 1 : childSlot(node, to);
      for (let slot = childSlot(node, from); slot <= last; slot += 1) {
        if (node.columns[LIVE + slot] === 0) continue;
        const count = this.#removeBelow(node.children[slot] as Node, from, to, main, sub + removed, before);
        node.columns[LIVE + slot] = (node.columns[LIVE + slot] as number) - count;
        removed += count;
      }
    }
    if (removed > 0) {
      node.live -= removed;
      node.lastMain = main;
    }
    return removed;
  }

  /** The slot of `key` in `#leafFound`; a new one, with all columns 0, if the key is not there. Remembers the way. */
  #slotFor(key: KeyString): number {
    let leaf = this.#descend(key);
    let slot = searchLeaf(leaf, key);
    if (!isAt(leaf, slot, key)) {
      if (!key.startsWith(leaf.prefix)) slot = key < leaf.prefix ? 0 : leaf.size;
      if (leaf.size === LEAF_KEYS_MAX) {
        this.#splitLeaf(leaf, slot);
        leaf = this.#descend(key);
        slot = lowerBound(leaf, key);
      }
      const { keys, columns, base, size, histories } = leaf;
      for (let i = size; i > slot; i -= 1) keys[i] = keys[i - 1];
      keys[slot] = key;
      const quads = base + MAIN;
      columns.copyWithin(base + slot + 1, base + slot, base + size);
      columns.copyWithin(quads + (slot + 1) * QUAD, quads + slot * QUAD, quads + size * QUAD);
      columns.fill(0, quads + slot * QUAD, quads + (slot + 1) * QUAD);
      headArrived(leaf, slot, size + 1, key);
      if (histories !== undefined) {
        for (let i = size; i > slot; i -= 1) histories[i] = histories[i - 1];
        histories[slot] = undefined;
      }
      leaf.size = size + 1;
      this.#size += 1;
    }
    this.#leafFound = leaf;
    return slot;
  }

  // -- shape ----------------------------------------------------------------------------------------------------------------------------

  /** Splits a full leaf, found by the last descent, in which a key will go to `slot`. */
  #splitLeaf(leaf: Leaf, slot: number): void {
    const right = new Leaf(this.#memory.take());
    // Ascending insertion fills leaves to the brim: nothing moves, the new key starts the new leaf.
    const from = slot === LEAF_KEYS_MAX ? LEAF_KEYS_MAX - 1 : LEAF_KEYS_MAX / 2;
    moveSlots(leaf, from, leaf.size, right);
    right.lastMain = leaf.lastMain;
    right.next = leaf.next;
    right.previous = leaf;
    if (leaf.next !== undefined) leaf.next.previous = right;
    leaf.next = right;
    this.#insertChild(this.#depth - 1, leaf, right.keys[0] as KeyString, right);
  }

  /** `right` was split off `left`, a child of the node at `depth` of the way (-1: `left` was the root). */
  #insertChild(depth: number, left: Node, separator: KeyString, right: Node): void {
    if (depth < 0) {
      const root = new Inner();
      root.children.push(left, right);
      root.keys.push(separator);
      setHeads(root, 1);
      root.columns[LIVE + 0] = left.live;
      root.columns[LIVE + 1] = right.live;
      root.live = left.live + right.live;
      root.lastMain = left.lastMain;
      this.#root = root;
      return;
    }
    const parent = this.#nodes[depth] as Inner;
    const slot = this.#slots[depth] as number;
    const count = parent.children.length;
    if (count === INNER_CHILDREN_MAX) {
      const sibling = new Inner();
      const from = slot === count - 1 ? count - 1 : INNER_CHILDREN_MAX / 2;
      const middle = parent.keys[from - 1] as KeyString;
      sibling.children.push(...parent.children.splice(from));
      sibling.keys.push(...parent.keys.splice(from));
      parent.keys.pop();
      for (let i = from; i < count; i += 1) sibling.columns[LIVE + i - from] = parent.columns[LIVE + i] as number;
      parent.columns.fill(0, LIVE + from);
      setHeads(sibling, sibling.keys.length);
      setHeads(parent, parent.keys.length);
      sum(sibling);
      sum(parent);
      sibling.lastMain = parent.lastMain;
      this.#insertChild(depth - 1, parent, middle, sibling);
      if (slot >= from) insertBeside(sibling, slot - from, left, separator, right);
      else insertBeside(parent, slot, left, separator, right);
      return;
    }
    insertBeside(parent, slot, left, separator, right);
  }

  /** Takes a deleted key out of `leaf`, found by the last descent, and keeps the tree in shape. */
  #cut(leaf: Leaf, slot: number): void {
    const { keys, columns, base, histories } = leaf;
    const quads = base + MAIN;
    const size = leaf.size - 1;
    for (let i = slot; i < size; i += 1) keys[i] = keys[i + 1];
    keys[size] = undefined;
    columns.copyWithin(base + slot, base + slot + 1, base + size + 1);
    columns.copyWithin(quads + slot * QUAD, quads + (slot + 1) * QUAD, quads + (size + 1) * QUAD);
    columns.fill(0, quads + size * QUAD, quads + (size + 1) * QUAD);
    if (histories !== undefined) {
      for (let i = slot; i < size; i += 1) histories[i] = histories[i + 1];
      histories[size] = undefined;
    }
    leaf.size = size;
    this.#size -= 1;
    if (size < LEAF_KEYS_LOW && this.#depth > 0) this.#shrinkLeaf(leaf);
  }

  #shrinkLeaf(leaf: Leaf): void {
    const depth = this.#depth - 1;
    const parent = this.#nodes[depth] as Inner;
    const slot = this.#slots[depth] as number;
    if (leaf.size === 0 && leaf !== this.#root) {
      if (leaf.previous !== undefined) leaf.previous.next = leaf.next;
      if (leaf.next !== undefined) leaf.next.previous = leaf.previous;
      this.#memory.give(leaf);
      this.#removeChild(depth, slot);
      return;
    }
    const right = parent.children[slot + 1] as Leaf | undefined;
    if (right !== undefined && leaf.size + right.size <= LEAF_KEYS_JOINED) {
      this.#joinLeaves(depth, slot, leaf, right);
      return;
    }
    const left = slot === 0 ? undefined : (parent.children[slot - 1] as Leaf);
    if (left !== undefined && left.size + leaf.size <= LEAF_KEYS_JOINED) this.#joinLeaves(depth, slot - 1, left, leaf);
  }

  /** Moves everything of `right`, the child after `left` at `slot` of the node at `depth`, into `left`. */
  #joinLeaves(depth: number, slot: number, left: Leaf, right: Leaf): void {
    const parent = this.#nodes[depth] as Inner;
    moveSlots(right, 0, right.size, left);
    left.lastMain = Math.max(left.lastMain, right.lastMain);
    left.next = right.next;
    if (right.next !== undefined) right.next.previous = left;
    parent.columns[LIVE + slot] = left.live;
    this.#memory.give(right);
    this.#removeChild(depth, slot + 1);
  }

  /** Takes an empty child out of the node at `depth` of the way; its living keys, if it had any, have moved to a neighbour. */
  #removeChild(depth: number, slot: number): void {
    const node = this.#nodes[depth] as Inner;
    const count = node.children.length;
    node.children.splice(slot, 1);
    const gone = slot === 0 ? 0 : slot - 1;
    node.keys.splice(gone, 1);
    node.columns.copyWithin(gone, gone + 1, count - 1);
    node.columns.copyWithin(LIVE + slot, LIVE + slot + 1, LIVE + count);
    node.columns[LIVE + count - 1] = 0;
    if (depth === 0) {
      // One child left: it becomes the root, and so may its only child. None: an empty tree again.
      let root: Node = node;
      while (!root.isLeaf && root.children.length === 1) root = root.children[0] as Node;
      if (!root.isLeaf && root.children.length === 0) root = new Leaf(this.#memory.take());
      this.#root = root;
      return;
    }
    const parent = this.#nodes[depth - 1] as Inner;
    const at = this.#slots[depth - 1] as number;
    if (node.children.length === 0) {
      this.#removeChild(depth - 1, at);
      return;
    }
    if (node.children.length >= INNER_CHILDREN_LOW) return;
    const right = parent.children[at + 1] as Inner | undefined;
    if (right !== undefined && node.children.length + right.children.length <= INNER_CHILDREN_JOINED) {
      this.#joinInner(depth - 1, at, node, right);
      return;
    }
    const left = at === 0 ? undefined : (parent.children[at - 1] as Inner);
    if (left !== undefined && left.children.length + node.children.length <= INNER_CHILDREN_JOINED)
      this.#joinInner(depth - 1, at - 1, left, node);
  }

  #joinInner(depth: number, slot: number, left: Inner, right: Inner): void {
    const parent = this.#nodes[depth] as Inner;
    const count = left.children.length;
    for (let i = 0; i < right.children.length; i += 1) left.columns[LIVE + count + i] = right.columns[LIVE + i] as number;
    left.children.push(...right.children);
    left.keys.push(parent.keys[slot] as KeyString, ...right.keys);
    setHeads(left, left.keys.length);
    left.live += right.live;
    left.lastMain = Math.max(left.lastMain, right.lastMain);
    parent.columns[LIVE + slot] = left.live;
    this.#removeChild(depth, slot + 1);
  }
}

function isAbsent(history: KeyHistory | undefined): boolean {
  return history === undefined;
}
