/**
 * Writes a bbolt database from sorted pairs, in one pass and from the bottom up: a leaf leaves as soon as it is full, and of each level of
 * branches above only the page being filled is held. The two heads come last, because they name the root; so the pages from number 2 on go to
 * the sink as they come, and whoever puts the file together places the heads in front of them.
 */
import { assert } from "../../base/assert.ts";
import { compareBytes, EMPTY_BYTES, utf8Bytes } from "../../base/bytes.ts";
import {
  BRANCH_ELEMENT_BYTES,
  BUCKET_FLAG,
  BUCKET_HEADER_BYTES,
  encodeMetaPage,
  LEAF_ELEMENT_BYTES,
  PAGE_BYTES,
  PAGE_HEADER_BYTES,
  PageFlag,
  setUint64,
  viewOf,
  writePageHeader,
} from "./bolt-format.ts";

/** Pages are filled up to here, as etcd fills them, so that whoever works on the file need not split them at once. */
const FILL_BYTES = Math.floor(PAGE_BYTES * 0.9);
/** A bucket up to this size is stored in the leaf of the tree of buckets. */
const INLINE_BYTES_MAX = PAGE_BYTES / 4;
const FIRST_PAGE = 2;
const TRANSACTION = 2;
/** Longest key that bbolt takes. */
const KEY_BYTES_MAX = 32_768;

/** The two head pages together. */
export const HEAD_BYTES = FIRST_PAGE * PAGE_BYTES;

interface Branch {
  keys: Uint8Array[];
  pages: number[];
  bytes: number;
}

export class BoltWriter {
  /** Finished pages that were not taken yet. */
  #output: Uint8Array[] = [];
  #outputBytes = 0;
  #nextPage = FIRST_PAGE;
  readonly #tree: TreeWriter;
  readonly #buckets: { name: Uint8Array; value: Uint8Array }[] = [];
  #open: Uint8Array | undefined;

  constructor() {
    this.#tree = new TreeWriter((flags, count, bytes) => this.#page(flags, count, bytes));
  }

  /** Bytes of finished pages that wait for {@link take}. The caller keeps them few. */
  get pendingBytes(): number {
    return this.#outputBytes;
  }

  /** The finished pages so far, in order. */
  take(): Uint8Array[] {
    const taken = this.#output;
    this.#output = [];
    this.#outputBytes = 0;
    return taken;
  }

  beginBucket(name: string): void {
    assert(this.#open === undefined, "one bucket at a time");
    this.#open = utf8Bytes(name);
  }

  /** Keys ascend inside a bucket. Key and value are kept until their page is finished: leave them unchanged, and let them pin no large buffers. */
  put(key: Uint8Array, value: Uint8Array): void {
    assert(this.#open !== undefined, "a bucket is open");
    assert(key.byteLength > 0 && key.byteLength <= KEY_BYTES_MAX, "a key that bbolt takes");
    this.#tree.put(0, key, value);
  }

  endBucket(): void {
    assert(this.#open !== undefined, "a bucket is open");
    const inline = this.#tree.takeSmall();
    const value = new Uint8Array(BUCKET_HEADER_BYTES + (inline?.byteLength ?? 0));
    if (inline !== undefined) value.set(inline, BUCKET_HEADER_BYTES);
    else setUint64(viewOf(value), 0, this.#tree.finish());
    this.#buckets.push({ name: this.#open, value });
    this.#open = undefined;
  }

  /** Ends the file. Returns the two head pages; {@link take} has the rest of the others. */
  finish(): Uint8Array {
    assert(this.#open === undefined, "all buckets are closed");
    this.#buckets.sort((a, b) => compareBytes(a.name, b.name));
    for (const { name, value } of this.#buckets) this.#tree.put(BUCKET_FLAG, name, value);
    const root = this.#tree.finish();
    const freelist = this.#page(PageFlag.freelist, 0, new Uint8Array(PAGE_BYTES));
    const meta = { pageBytes: PAGE_BYTES, root, freelist, pages: this.#nextPage };
    const heads = new Uint8Array(HEAD_BYTES);
    heads.set(encodeMetaPage(0, { ...meta, transaction: TRANSACTION }));
    heads.set(encodeMetaPage(1, { ...meta, transaction: TRANSACTION - 1 }), PAGE_BYTES);
    return heads;
  }

  /** Numbers a page and hands it out. */
  #page(flags: number, count: number, bytes: Uint8Array): number {
    const id = this.#nextPage;
    const spans = bytes.byteLength / PAGE_BYTES;
    writePageHeader(viewOf(bytes), id, flags, count, spans - 1);
    this.#nextPage += spans;
    this.#output.push(bytes);
    this.#outputBytes += bytes.byteLength;
    return id;
  }
}

/** One tree at a time; empty again after `finish` and `takeSmall`. */
class TreeWriter {
  readonly #emit: (flags: number, count: number, bytes: Uint8Array) => number;
  /** From the leaves' parents upwards. */
  #levels: Branch[] = [];
  #flags: number[] = [];
  #keys: Uint8Array[] = [];
  #values: Uint8Array[] = [];
  #bytes = PAGE_HEADER_BYTES;
  #leaves = 0;
  #lastKey: Uint8Array = EMPTY_BYTES;

  constructor(emit: (flags: number, count: number, bytes: Uint8Array) => number) {
    this.#emit = emit;
  }

  put(flags: number, key: Uint8Array, value: Uint8Array): void {
    assert(compareBytes(this.#lastKey, key) < 0, "keys ascend");
    const bytes = LEAF_ELEMENT_BYTES + key.byteLength + value.byteLength;
    if (this.#keys.length > 0 && this.#bytes + bytes > FILL_BYTES) this.#flush();
    this.#flags.push(flags);
    this.#keys.push(key);
    this.#values.push(value);
    this.#bytes += bytes;
    this.#lastKey = key;
  }

  /** The whole tree as a page that stands inside a value, if it is small enough. */
  takeSmall(): Uint8Array | undefined {
    if (this.#leaves > 0 || this.#bytes > INLINE_BYTES_MAX) return undefined;
    const bytes = new Uint8Array(this.#bytes);
    this.#writeLeaf(bytes);
    writePageHeader(viewOf(bytes), 0, PageFlag.leaf, this.#keys.length, 0);
    this.#reset();
    return bytes;
  }

  /** Writes what is open on all levels; returns the root's page. */
  finish(): number {
    if (this.#leaves === 0 || this.#keys.length > 0) this.#flush();
    let level = 0;
    for (;;) {
      const branch = this.#levels[level] as Branch;
      if (level === this.#levels.length - 1 && branch.pages.length === 1) {
        const [root] = branch.pages;
        this.#reset();
        return root as number;
      }
      this.#flushBranch(level);
      level += 1;
    }
  }

  #reset(): void {
    this.#levels = [];
    this.#clearLeaf();
    this.#leaves = 0;
    this.#lastKey = EMPTY_BYTES;
  }

  #clearLeaf(): void {
    this.#flags = [];
    this.#keys = [];
    this.#values = [];
    this.#bytes = PAGE_HEADER_BYTES;
  }

  #flush(): void {
    const page = new Uint8Array(Math.ceil(this.#bytes / PAGE_BYTES) * PAGE_BYTES);
    this.#writeLeaf(page);
    const firstKey = this.#keys[0] ?? EMPTY_BYTES;
    const id = this.#emit(PageFlag.leaf, this.#keys.length, page);
    this.#leaves += 1;
    this.#clearLeaf();
    this.#append(0, firstKey, id);
  }

  #writeLeaf(page: Uint8Array): void {
    const view = viewOf(page);
    let data = PAGE_HEADER_BYTES + this.#keys.length * LEAF_ELEMENT_BYTES;
    for (let i = 0; i < this.#keys.length; i += 1) {
      const key = this.#keys[i] as Uint8Array;
      const value = this.#values[i] as Uint8Array;
      const element = PAGE_HEADER_BYTES + i * LEAF_ELEMENT_BYTES;
      view.setUint32(element, this.#flags[i] as number, true);
      view.setUint32(element + 4, data - element, true);
      view.setUint32(element + 8, key.byteLength, true);
      view.setUint32(element + 12, value.byteLength, true);
      page.set(key, data);
      page.set(value, data + key.byteLength);
      data += key.byteLength + value.byteLength;
    }
  }

  #append(level: number, key: Uint8Array, page: number): void {
    let branch = this.#levels[level];
    if (branch === undefined) {
      branch = { keys: [], pages: [], bytes: PAGE_HEADER_BYTES };
      this.#levels.push(branch);
    }
    const bytes = BRANCH_ELEMENT_BYTES + key.byteLength;
    // Two at least: a branch with one page would make the tree no shorter upwards.
    if (branch.pages.length >= 2 && branch.bytes + bytes > FILL_BYTES) this.#flushBranch(level);
    branch.keys.push(key);
    branch.pages.push(page);
    branch.bytes += bytes;
  }

  #flushBranch(level: number): void {
    const branch = this.#levels[level] as Branch;
    const { keys, pages } = branch;
    const page = new Uint8Array(Math.ceil(branch.bytes / PAGE_BYTES) * PAGE_BYTES);
    const view = viewOf(page);
    let data = PAGE_HEADER_BYTES + pages.length * BRANCH_ELEMENT_BYTES;
    for (let i = 0; i < pages.length; i += 1) {
      const key = keys[i] as Uint8Array;
      const element = PAGE_HEADER_BYTES + i * BRANCH_ELEMENT_BYTES;
      view.setUint32(element, data - element, true);
      view.setUint32(element + 4, key.byteLength, true);
      setUint64(view, element + 8, pages[i] as number);
      page.set(key, data);
      data += key.byteLength;
    }
    const id = this.#emit(PageFlag.branch, pages.length, page);
    const firstKey = keys[0] as Uint8Array;
    branch.keys = [];
    branch.pages = [];
    branch.bytes = PAGE_HEADER_BYTES;
    this.#append(level + 1, firstKey, id);
  }
}
