/**
 * Reads a bbolt database that may be damaged or made to hurt: heads by their checksums, pages within the file and each at most once, elements
 * within their page, keys ascending over a whole bucket. Anything else is refused. Memory is bounded by the largest page, time by the size of
 * the file, and there is no recursion.
 */
import { compareBytes, latin1Text } from "../../base/bytes.ts";
import {
  BoltCorruptError,
  BRANCH_ELEMENT_BYTES,
  BUCKET_FLAG,
  BUCKET_HEADER_BYTES,
  decodeMetaPage,
  getUint64,
  LEAF_ELEMENT_BYTES,
  type Meta,
  PAGE_HEADER_BYTES,
  PageFlag,
  viewOf,
} from "./bolt-format.ts";

/** Where a database is read from. */
export interface BoltSource {
  readonly sizeBytes: number;
  /** Shorter than asked only at the end. Gives memory that it does not use again. */
  read(position: number, length: number): Promise<Uint8Array>;
}

/** A page with a value of more than this is refused: etcd takes requests of 1.5 MiB, and nobody sets that limit near this one. */
const PAGE_SPAN_BYTES_MAX = 512 * 1024 * 1024;
/** Deeper than any tree can be whose branches have two pages each and whose pages have 40-bit numbers. */
const DEPTH_MAX = 40;
/** Buckets of etcd: about ten. */
const BUCKETS_MAX = 1000;
/** What one read of the source fetches at least: neighbours are read one after the other. */
const WINDOW_BYTES = 256 * 1024;
/** Size of a head with its page header: both heads are looked for at the places that page sizes give. */
const META_PROBE_BYTES = 80;
const PAGE_SIZES = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

/** Pairs of one leaf, in order; views of memory that is not used again. */
export interface BoltLeaf {
  readonly keys: readonly Uint8Array[];
  readonly values: readonly Uint8Array[];
}

interface Bucket {
  readonly name: string;
  readonly root: number;
  /** The whole bucket, when it stands in its parent's leaf. */
  readonly inline: Uint8Array | undefined;
}

export class BoltFile {
  readonly #source: BoltSource;
  readonly #meta: Meta;
  /** By name, in order. */
  readonly #buckets: readonly Bucket[];
  #window: Uint8Array = new Uint8Array(0);
  #windowAt = 0;

  private constructor(source: BoltSource, meta: Meta, buckets: readonly Bucket[]) {
    this.#source = source;
    this.#meta = meta;
    this.#buckets = buckets;
  }

  /** Reads heads and the list of buckets. @throws BoltCorruptError, the source's error */
  static async open(source: BoltSource): Promise<BoltFile> {
    const meta = await readMeta(source);
    const bytes = meta.pages * meta.pageBytes;
    if (meta.pages < 3 || meta.root < 2 || meta.root >= meta.pages) throw new BoltCorruptError("invalid database");
    if (bytes > source.sizeBytes) throw new BoltCorruptError(`file is too short: ${source.sizeBytes} bytes, the database has ${bytes}`);
    const buckets = await new BoltFile(source, meta, []).#readBuckets();
    return new BoltFile(source, meta, buckets);
  }

  /** Size of the database; a file may be longer. */
  get sizeBytes(): number {
    return this.#meta.pages * this.#meta.pageBytes;
  }

  /** In order. */
  get bucketNames(): readonly string[] {
    return this.#buckets.map(({ name }) => name);
  }

  /** All pairs of a bucket, leaf by leaf; nothing for a bucket that is not there. @throws BoltCorruptError, the source's error */
  async *leaves(name: string): AsyncGenerator<BoltLeaf, void, undefined> {
    const bucket = this.#buckets.find((one) => one.name === name);
    if (bucket === undefined) return;
    let last: Uint8Array | undefined;
    for await (const { page, where } of bucket.inline === undefined ? this.#leafPages(bucket.root) : [inlinePage(bucket)]) {
      const { flags, keys, values } = parseLeaf(page, where);
      if (flags.some((flag) => flag !== 0)) throw new BoltCorruptError(`${where}: a bucket inside bucket ${JSON.stringify(name)}`);
      last = checkOrder(keys, last, where);
      yield { keys, values };
    }
  }

  /** All pairs of a bucket that is expected to be small. @throws BoltCorruptError also when it holds more than `bytesMax` */
  async pairs(name: string, bytesMax: number): Promise<(readonly [Uint8Array, Uint8Array])[]> {
    const pairs: (readonly [Uint8Array, Uint8Array])[] = [];
    let bytes = 0;
    for await (const { keys, values } of this.leaves(name)) {
      for (let i = 0; i < keys.length; i += 1) {
        const key = keys[i] as Uint8Array;
        const value = values[i] as Uint8Array;
        bytes += key.byteLength + value.byteLength + LEAF_ELEMENT_BYTES;
        if (bytes > bytesMax) throw new BoltCorruptError(`bucket ${JSON.stringify(name)} is larger than ${bytesMax} bytes`);
        pairs.push([key, value]);
      }
    }
    return pairs;
  }

  async #readBuckets(): Promise<Bucket[]> {
    const buckets: Bucket[] = [];
    let last: Uint8Array | undefined;
    for await (const { page, where } of this.#leafPages(this.#meta.root)) {
      const { flags, keys, values } = parseLeaf(page, where);
      last = checkOrder(keys, last, where);
      for (let i = 0; i < keys.length; i += 1) {
        const value = values[i] as Uint8Array;
        if (flags[i] !== BUCKET_FLAG || value.byteLength < BUCKET_HEADER_BYTES) throw new BoltCorruptError(`${where}: not a bucket`);
        const root = getUint64(viewOf(value), 0);
        const inline = root === 0 ? value.slice(BUCKET_HEADER_BYTES) : undefined;
        buckets.push({ name: latin1Text(keys[i] as Uint8Array), root, inline });
      }
      if (buckets.length > BUCKETS_MAX) throw new BoltCorruptError(`more than ${BUCKETS_MAX} buckets`);
    }
    return buckets;
  }

  /** Leaf pages below a root, from left to right. */
  async *#leafPages(root: number): AsyncGenerator<{ page: Uint8Array; where: string }, void, undefined> {
    const seen = new Uint8Array(Math.ceil(this.#meta.pages / 8));
    // Pages still to be visited on each level, the next one last.
    const levels: number[][] = [[root]];
    while (levels.length > 0) {
      const id = (levels.at(-1) as number[]).pop();
      if (id === undefined) {
        levels.pop();
        continue;
      }
      const where = `page ${id}`;
      const page = await this.#page(id, seen);
      const flags = viewOf(page).getUint16(8, true);
      if (flags === PageFlag.leaf) {
        yield { page, where };
      } else if (flags === PageFlag.branch) {
        if (levels.length >= DEPTH_MAX) throw new BoltCorruptError(`${where}: the tree is too deep`);
        levels.push(parseBranch(page, where).reverse());
      } else {
        throw new BoltCorruptError(`${where}: unexpected page type: ${flags.toString(16)}`);
      }
    }
  }

  /** A page with all that it spans, marked as seen. */
  async #page(id: number, seen: Uint8Array): Promise<Uint8Array> {
    const { pageBytes, pages } = this.#meta;
    if (id < 2 || id >= pages) throw new BoltCorruptError(`page ${id} is outside of the database of ${pages} pages`);
    const head = await this.#read(id * pageBytes, pageBytes);
    const view = viewOf(head);
    const self = getUint64(view, 0);
    if (self !== id) throw new BoltCorruptError(`Page expected to be: ${id}, but self identifies as ${self}`);
    const spans = view.getUint32(12, true) + 1;
    if (id + spans > pages) throw new BoltCorruptError(`page ${id} goes on behind the end of the database`);
    if (spans * pageBytes > PAGE_SPAN_BYTES_MAX) throw new BoltCorruptError(`page ${id} spans ${spans} pages, more than a value can need`);
    for (let one = id; one < id + spans; one += 1) {
      const bit = 1 << (one & 7);
      if (((seen[one >>> 3] as number) & bit) !== 0) throw new BoltCorruptError(`page ${one} is used twice`);
      seen[one >>> 3] = (seen[one >>> 3] as number) | bit;
    }
    return spans === 1 ? head : this.#read(id * pageBytes, spans * pageBytes);
  }

  async #read(position: number, length: number): Promise<Uint8Array> {
    const from = position - this.#windowAt;
    if (from < 0 || from + length > this.#window.byteLength) {
      this.#window = await this.#source.read(position, Math.max(length, WINDOW_BYTES));
      this.#windowAt = position;
      if (this.#window.byteLength < length) throw new BoltCorruptError("the file became shorter");
      return this.#window.subarray(0, length);
    }
    return this.#window.subarray(from, from + length);
  }
}

/** The head that counts: of those in order the one of the newest transaction. */
async function readMeta(source: BoltSource): Promise<Meta> {
  const first = decodeMetaPage(await source.read(0, META_PROBE_BYTES));
  const others: (Meta | string)[] = [];
  // A good first head tells the page size; otherwise the second one may be at any of the places.
  for (const pageBytes of typeof first === "string" ? PAGE_SIZES : [first.pageBytes]) {
    const second = decodeMetaPage(await source.read(pageBytes, META_PROBE_BYTES));
    if (typeof second === "string" || second.pageBytes === pageBytes) others.push(second);
  }
  const good = [first, ...others].filter((meta) => typeof meta !== "string").sort((a, b) => b.transaction - a.transaction);
  if (good[0] !== undefined) return good[0];
  throw new BoltCorruptError(typeof first === "string" ? first : "invalid database");
}

function inlinePage(bucket: Bucket): { page: Uint8Array; where: string } {
  const where = `inline page of bucket ${JSON.stringify(bucket.name)}`;
  const page = bucket.inline as Uint8Array;
  if (page.byteLength < PAGE_HEADER_BYTES || viewOf(page).getUint16(8, true) !== PageFlag.leaf)
    throw new BoltCorruptError(`${where}: not a leaf`);
  return { page, where };
}

function parseLeaf(page: Uint8Array, where: string): { flags: number[]; keys: Uint8Array[]; values: Uint8Array[] } {
  const view = viewOf(page);
  const count = view.getUint16(10, true);
  const dataFrom = PAGE_HEADER_BYTES + count * LEAF_ELEMENT_BYTES;
  if (dataFrom > page.byteLength) throw new BoltCorruptError(`${where}: too many elements`);
  const flags = new Array<number>(count);
  const keys = new Array<Uint8Array>(count);
  const values = new Array<Uint8Array>(count);
  // One behind the other, so that the pairs of a page are never more than its bytes.
  let free = dataFrom;
  for (let i = 0; i < count; i += 1) {
    const element = PAGE_HEADER_BYTES + i * LEAF_ELEMENT_BYTES;
    const keyFrom = element + view.getUint32(element + 4, true);
    const valueFrom = keyFrom + view.getUint32(element + 8, true);
    const end = valueFrom + view.getUint32(element + 12, true);
    if (keyFrom < free || end > page.byteLength) throw new BoltCorruptError(`${where}: element ${i} lies outside of its place`);
    free = end;
    flags[i] = view.getUint32(element, true);
    keys[i] = page.subarray(keyFrom, valueFrom);
    values[i] = page.subarray(valueFrom, end);
  }
  return { flags, keys, values };
}

function parseBranch(page: Uint8Array, where: string): number[] {
  const view = viewOf(page);
  const count = view.getUint16(10, true);
  if (count === 0) throw new BoltCorruptError(`${where}: a branch without pages`);
  if (PAGE_HEADER_BYTES + count * BRANCH_ELEMENT_BYTES > page.byteLength) throw new BoltCorruptError(`${where}: too many elements`);
  return Array.from({ length: count }, (_, i) => getUint64(view, PAGE_HEADER_BYTES + i * BRANCH_ELEMENT_BYTES + 8));
}

/** Returns the last key, for the next leaf. */
function checkOrder(keys: readonly Uint8Array[], before: Uint8Array | undefined, where: string): Uint8Array | undefined {
  let last = before;
  for (const key of keys) {
    if (last !== undefined && compareBytes(last, key) >= 0) throw new BoltCorruptError(`${where}: keys are not in order`);
    last = key;
  }
  return last;
}
