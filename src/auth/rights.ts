import { type RpcErrorReason, rpcError } from "../api/index.ts";
import { type KeyString, keyStringOf } from "../base/bytes.ts";
import { type KeyInterval, KeyIntervals, OPEN_END } from "./key-intervals.ts";

/**
 * What one caller may do with keys at one auth revision: two sets of keys, or everything, or nothing for a reason. Every check either returns or throws that
 * reason. (key, rangeEnd) as everywhere in the API: an empty end means the one key, a single zero byte every key from `key` on.
 */
export class Rights {
  /** True when no check can fail, so that walking a request can be spared. */
  readonly unlimited: boolean;
  readonly #refusal: RpcErrorReason;
  readonly #read: KeyIntervals;
  readonly #write: KeyIntervals;

  private constructor(unlimited: boolean, refusal: RpcErrorReason, read: KeyIntervals, write: KeyIntervals) {
    this.unlimited = unlimited;
    this.#refusal = refusal;
    this.#read = read;
    this.#write = write;
  }

  /** Authentication is off, or the caller has the role root. */
  static readonly everything: Rights = new Rights(true, "permission-denied", new KeyIntervals([]), new KeyIntervals([]));

  /** Every check fails with `refusal`. */
  static nothing(refusal: RpcErrorReason): Rights {
    return new Rights(false, refusal, new KeyIntervals([]), new KeyIntervals([]));
  }

  static of(read: readonly KeyInterval[], write: readonly KeyInterval[]): Rights {
    return new Rights(false, "permission-denied", new KeyIntervals(read), new KeyIntervals(write));
  }

  requireRead(key: Uint8Array, rangeEnd: Uint8Array): void {
    if (!this.unlimited && !selects(this.#read, key, rangeEnd)) throw rpcError(this.#refusal);
  }

  requireWrite(key: Uint8Array, rangeEnd: Uint8Array): void {
    if (!this.unlimited && !selects(this.#write, key, rangeEnd)) throw rpcError(this.#refusal);
  }

  requireReadKey(key: KeyString): void {
    if (!this.unlimited && !this.#read.has(key)) throw rpcError(this.#refusal);
  }

  requireWriteKey(key: KeyString): void {
    if (!this.unlimited && !this.#write.has(key)) throw rpcError(this.#refusal);
  }
}

function selects(granted: KeyIntervals, key: Uint8Array, rangeEnd: Uint8Array): boolean {
  const start = keyStringOf(key);
  return rangeEnd.length === 0 ? granted.has(start) : granted.covers(start, endOf(rangeEnd));
}

/** The end that a range end which is not empty stands for. */
export function endOf(rangeEnd: Uint8Array): KeyString {
  return rangeEnd.length === 1 && rangeEnd[0] === 0 ? OPEN_END : keyStringOf(rangeEnd);
}
