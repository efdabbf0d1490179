/**
 * The file format of bbolt, the store below etcd, as far as backups need it (docs/FORMATS.md, "Backup"): pages of 4096 bytes, two of them
 * heads ("meta"), the others B+ trees: one that holds the buckets by name, and one for each bucket. All numbers are little-endian.
 */
import { EtcdError, GrpcCode } from "../../base/errors.ts";

export const PAGE_BYTES = 4096;
/** id u64, flags u16, number of elements u16, further pages that it spans u32. */
export const PAGE_HEADER_BYTES = 16;
/** flags u32, offset of the key from this element u32, bytes of the key u32, bytes of the value u32 (right behind the key). */
export const LEAF_ELEMENT_BYTES = 16;
/** offset of the key from this element u32, bytes of the key u32, page u64. */
export const BRANCH_ELEMENT_BYTES = 16;
/** What stands in a leaf for a bucket: page of its root u64 (0: the page itself follows, without being one), a counter u64. */
export const BUCKET_HEADER_BYTES = 16;

export const PageFlag = { branch: 0x01, leaf: 0x02, meta: 0x04, freelist: 0x10 } as const;
/** Flag of a leaf element whose value is a bucket. */
export const BUCKET_FLAG = 0x01;

const MAGIC = 0xed0cdaed;
const VERSION = 2;
const META_BYTES = 64;
const CHECKSUM_AT = 56;
/** The least and the most that systems have as the size of a page of memory. */
const PAGE_BYTES_MIN = 1024;
const PAGE_BYTES_MAX = 65_536;

/** A head: which trees are the newest. */
export interface Meta {
  readonly pageBytes: number;
  /** Root page of the tree of buckets. */
  readonly root: number;
  readonly freelist: number;
  /** Pages of the file. */
  readonly pages: number;
  /** Of two heads that are in order the one with the higher number counts. */
  readonly transaction: number;
}

/** The file is no database of this kind, or a damaged one. The text is what etcd's tools would say where they say something. */
export class BoltCorruptError extends EtcdError {
  constructor(problem: string) {
    super("bolt-corrupt", GrpcCode.DataLoss, problem);
    this.name = "BoltCorruptError";
  }
}

const FNV_OFFSET = 0xcbf29ce484222325n;
const FNV_PRIME = 0x100000001b3n;

/** FNV-1a, 64 bits. For heads only: it is slow. */
export function fnv1a64(bytes: Uint8Array): bigint {
  let sum = FNV_OFFSET;
  for (const byte of bytes) sum = BigInt.asUintN(64, (sum ^ BigInt(byte)) * FNV_PRIME);
  return sum;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function setUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

/** Not exact above 2^53, but then still above it, so that every comparison with a bound keeps its answer. */
export function getUint64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}

export function writePageHeader(view: DataView, id: number, flags: number, count: number, overflow: number): void {
  setUint64(view, 0, id);
  view.setUint16(8, flags, true);
  view.setUint16(10, count, true);
  view.setUint32(12, overflow, true);
}

/** One of the two head pages. */
export function encodeMetaPage(id: 0 | 1, meta: Meta): Uint8Array {
  const page = new Uint8Array(meta.pageBytes);
  writePageHeader(viewOf(page), id, PageFlag.meta, 0, 0);
  const body = page.subarray(PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + META_BYTES);
  const view = viewOf(body);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setUint32(8, meta.pageBytes, true);
  setUint64(view, 16, meta.root);
  setUint64(view, 32, meta.freelist);
  setUint64(view, 40, meta.pages);
  setUint64(view, 48, meta.transaction);
  view.setBigUint64(CHECKSUM_AT, fnv1a64(body.subarray(0, CHECKSUM_AT)), true);
  return page;
}

/** A head, or what is wrong with it. `page` begins at the head page. */
export function decodeMetaPage(page: Uint8Array): Meta | string {
  if (page.byteLength < PAGE_HEADER_BYTES + META_BYTES) return "invalid database";
  const body = page.subarray(PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + META_BYTES);
  const view = viewOf(body);
  if (view.getUint32(0, true) !== MAGIC) return "invalid database";
  if (view.getUint32(4, true) !== VERSION) return "version mismatch";
  if (view.getBigUint64(CHECKSUM_AT, true) !== fnv1a64(body.subarray(0, CHECKSUM_AT))) return "checksum error";
  const pageBytes = view.getUint32(8, true);
  if (pageBytes < PAGE_BYTES_MIN || pageBytes > PAGE_BYTES_MAX || (pageBytes & (pageBytes - 1)) !== 0) return "invalid database";
  return {
    pageBytes,
    root: getUint64(view, 16),
    freelist: getUint64(view, 32),
    pages: getUint64(view, 40),
    transaction: getUint64(view, 48),
  };
}
