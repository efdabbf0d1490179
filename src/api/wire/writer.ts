import { assert } from "../../base/assert.ts";
import { utf8Bytes } from "../../base/bytes.ts";
import { highWord, lowWord, splitBigint, splitNumber } from "./int64.ts";

const CAPACITY_START = 4096;
/** A writer that grew beyond this gives the memory back at the next reset. */
const CAPACITY_KEPT_MAX = 1 << 20;
/** Up to this many bytes a loop is cheaper than `set`. */
const SHORT_COPY_BYTES = 24;

/**
 * Writes protobuf wire format from the back to the front: fields in reverse order, value before tag, content before length. So a length
 * is known when its turn comes, nothing is measured beforehand and nothing is moved afterwards. (gogoproto's generated Go code does it
 * the same way.) Whoever frames messages can put the frame header in front with the same calls.
 */
export class Writer {
  #bytes: Uint8Array;
  /** First byte written so far; everything from here to the end of the memory is the content. */
  #at: number;

  constructor(capacity: number = CAPACITY_START) {
    this.#bytes = new Uint8Array(capacity);
    this.#at = capacity;
  }

  /** Bytes written so far. Also the mark that {@link close} wants. */
  get length(): number {
    return this.#bytes.length - this.#at;
  }

  /** Forgets the content, keeps the memory unless it has grown large. Views taken before are then overwritten. */
  reset(): void {
    if (this.#bytes.length > CAPACITY_KEPT_MAX) this.#bytes = new Uint8Array(CAPACITY_START);
    this.#at = this.#bytes.length;
  }

  /** A copy of the content with memory of its own. */
  copy(): Uint8Array {
    return this.#bytes.slice(this.#at);
  }

  /** The content itself: valid until the next write or reset. */
  view(): Uint8Array {
    return this.#bytes.subarray(this.#at);
  }

  /** Hands the content over without a copy and starts on new memory. Worth it for large contents that live shortly. */
  detach(): Uint8Array {
    const view = this.#bytes.subarray(this.#at);
    this.#bytes = new Uint8Array(CAPACITY_START);
    this.#at = CAPACITY_START;
    return view;
  }

  byte(value: number): void {
    if (this.#at === 0) this.#grow(1);
    this.#at -= 1;
    this.#bytes[this.#at] = value;
  }

  /** Four bytes, most significant first: for the length in front of a gRPC message. */
  uint32(value: number): void {
    if (this.#at < 4) this.#grow(4);
    const at = this.#at - 4;
    this.#at = at;
    const bytes = this.#bytes;
    bytes[at] = value >>> 24;
    bytes[at + 1] = value >>> 16;
    bytes[at + 2] = value >>> 8;
    bytes[at + 3] = value;
  }

  /** Copies `bytes` as they are. */
  raw(bytes: Uint8Array): void {
    const length = bytes.length;
    if (this.#at < length) this.#grow(length);
    const at = this.#at - length;
    this.#at = at;
    if (length <= SHORT_COPY_BYTES) {
      const to = this.#bytes;
      for (let i = 0; i < length; i += 1) to[at + i] = bytes[i] as number;
    } else {
      this.#bytes.set(bytes, at);
    }
  }

  /** Tags and lengths: 0 to 2^32 - 1. */
  varint32(value: number): void {
    if (this.#at < 5) this.#grow(5);
    const bytes = this.#bytes;
    if (value < 0x80) {
      this.#at -= 1;
      bytes[this.#at] = value;
      return;
    }
    const length = value < 0x4000 ? 2 : value < 0x200000 ? 3 : value < 0x10000000 ? 4 : 5;
    let at = this.#at - length;
    this.#at = at;
    let rest = value;
    while (rest >= 0x80) {
      bytes[at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    bytes[at] = rest;
  }

  /** The 64 bits of two words. */
  varint64(low: number, high: number): void {
    if (high === 0) {
      this.varint32(low);
      return;
    }
    if (this.#at < 10) this.#grow(10);
    const bytes = this.#bytes;
    const length = high < 0x8 ? 5 : high < 0x400 ? 6 : high < 0x20000 ? 7 : high < 0x1000000 ? 8 : high < 0x80000000 ? 9 : 10;
    let at = this.#at - length;
    this.#at = at;
    let lo = low;
    let hi = high;
    for (let i = 1; i < length; i += 1) {
      bytes[at++] = (lo & 0x7f) | 0x80;
      lo = ((lo >>> 7) | (hi << 25)) >>> 0;
      hi >>>= 7;
    }
    bytes[at] = lo;
  }

  /** Any varint field whose value is a number: counters, 32-bit integers, enums. Negative values take ten bytes. */
  number(tag: number, value: number): void {
    if (value >>> 0 === value) {
      this.varint32(value);
    } else {
      assert(Number.isSafeInteger(value), "a counter is a safe integer", { value });
      splitNumber(value);
      this.varint64(lowWord(), highWord());
    }
    this.varint32(tag);
  }

  /** An id: the low 64 bits of the two's complement. */
  bigint(tag: number, value: bigint): void {
    splitBigint(value);
    this.varint64(lowWord(), highWord());
    this.varint32(tag);
  }

  bool(tag: number, value: boolean): void {
    this.byte(value ? 1 : 0);
    this.varint32(tag);
  }

  /** A bytes field, or a message which is there in wire form. */
  bytes(tag: number, value: Uint8Array): void {
    this.raw(value);
    this.varint32(value.length);
    this.varint32(tag);
  }

  /** Unpaired surrogates become U+FFFD. */
  string(tag: number, value: string): void {
    const mark = this.length;
    if (!this.#ascii(value)) this.raw(utf8Bytes(value));
    this.varint32(this.length - mark);
    this.varint32(tag);
  }

  /** A packed list of 32-bit integers or enum numbers. */
  packed(tag: number, values: readonly number[]): void {
    const mark = this.length;
    for (let i = values.length - 1; i >= 0; i -= 1) {
      const value = values[i] as number;
      if (value >= 0) this.varint32(value);
      else this.varint64(value >>> 0, 0xffffffff);
    }
    this.close(tag, mark);
  }

  /** Ends (at its front) a message whose content was written since `length` was `mark`. */
  close(tag: number, mark: number): void {
    this.varint32(this.length - mark);
    this.varint32(tag);
  }

  /** False, and nothing written, if `text` is long or not ASCII. */
  #ascii(text: string): boolean {
    const length = text.length;
    if (length > 64) return false;
    if (this.#at < length) this.#grow(length);
    const bytes = this.#bytes;
    const at = this.#at - length;
    for (let i = 0; i < length; i += 1) {
      const code = text.charCodeAt(i);
      if (code >= 0x80) return false;
      bytes[at + i] = code;
    }
    this.#at = at;
    return true;
  }

  #grow(need: number): void {
    const old = this.#bytes;
    const used = old.length - this.#at;
    const grown = new Uint8Array(Math.max(old.length * 2, used + need + 64));
    grown.set(old.subarray(this.#at), grown.length - used);
    this.#bytes = grown;
    this.#at = grown.length - used;
  }
}
