import { utf8TextStrict } from "../../base/bytes.ts";
import { ProtoDecodeError } from "./decode-error.ts";
import { joinSigned, joinUnsigned, saturateSigned, saturateUnsigned } from "./int64.ts";

/**
 * How deep messages that contain themselves (transactions) may nest. The protobuf library of etcd allows 10,000, which would not fit on
 * a JavaScript stack; 1,000 does with a wide margin.
 */
export const MESSAGE_DEPTH_MAX = 1000;
/** How deep unknown groups may nest, as observed with etcd. They are skipped without recursion. */
const GROUP_DEPTH_MAX = 10_001;
const FIELD_NUMBER_MAX = 0x1fffffff;

const TWO_28 = 268435456;
/** Strings up to this length are tried as ASCII first: cheaper than the call into the platform. */
const SHORT_STRING_BYTES = 32;

function malformed(): ProtoDecodeError {
  return new ProtoDecodeError("invalid-wire-format");
}

/**
 * Reads protobuf wire format. Every method takes the `end` of the message it reads in and never looks at a byte beyond it, so a lying
 * length cannot make it allocate or read outside. All failures are {@link ProtoDecodeError}; a reader that has thrown must not be used on.
 */
export class Reader {
  readonly bytes: Uint8Array;
  pos: number;
  #depth: number;
  #low: number;
  #high: number;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.pos = 0;
    this.#depth = 0;
    this.#low = 0;
    this.#high = 0;
  }

  /** Enters a message that may contain itself. */
  enter(): void {
    this.#depth += 1;
    if (this.#depth > MESSAGE_DEPTH_MAX) throw new ProtoDecodeError("recursion-depth");
  }

  leave(): void {
    this.#depth -= 1;
  }

  /** Field number times 8 plus wire type. */
  tag(end: number): number {
    const first = this.#byte(end);
    if (first < 0x80 && first >= 8) return first;
    this.pos -= 1;
    this.#varint64(end);
    const number = this.#high * 536870912 + (this.#low >>> 3);
    if (number === 0 || number > FIELD_NUMBER_MAX) throw malformed();
    return this.#low;
  }

  /** A signed counter: int64 that stops at ±(2^53 - 1). */
  counter(end: number): number {
    const short = this.#short(end);
    if (short >= 0) return short;
    this.#varint64(end);
    return saturateSigned(this.#low, this.#high);
  }

  /** An unsigned counter: uint64 that stops at 2^53 - 1. */
  counterUnsigned(end: number): number {
    const short = this.#short(end);
    if (short >= 0) return short;
    this.#varint64(end);
    return saturateUnsigned(this.#low, this.#high);
  }

  /** int32 and enum numbers: the low 32 bits, as protobuf prescribes. */
  int32(end: number): number {
    const short = this.#short(end);
    if (short >= 0) return short;
    this.#varint64(end);
    return this.#low | 0;
  }

  uint32(end: number): number {
    const short = this.#short(end);
    if (short >= 0) return short;
    this.#varint64(end);
    return this.#low;
  }

  bool(end: number): boolean {
    const short = this.#short(end);
    if (short >= 0) return short !== 0;
    this.#varint64(end);
    return this.#low !== 0 || this.#high !== 0;
  }

  /** A signed id, exactly. */
  int64(end: number): bigint {
    const short = this.#short(end);
    if (short === 0) return 0n;
    if (short > 0) return BigInt(short);
    this.#varint64(end);
    return joinSigned(this.#low, this.#high);
  }

  /** An unsigned id, exactly. */
  uint64(end: number): bigint {
    const short = this.#short(end);
    if (short === 0) return 0n;
    if (short > 0) return BigInt(short);
    this.#varint64(end);
    return joinUnsigned(this.#low, this.#high);
  }

  /** Reads a length and returns where the field with that length ends. */
  open(end: number): number {
    const length = this.counterUnsigned(end);
    if (length > end - this.pos) throw malformed();
    return this.pos + length;
  }

  /** A view into the input, not a copy. */
  view(end: number): Uint8Array {
    const to = this.open(end);
    const view = this.bytes.subarray(this.pos, to);
    this.pos = to;
    return view;
  }

  string(end: number): string {
    const from = this.pos;
    const to = this.open(end);
    const at = this.pos;
    this.pos = to;
    if (to - at <= SHORT_STRING_BYTES) {
      let text = "";
      let i = at;
      for (; i < to; i += 1) {
        const byte = this.bytes[i] as number;
        if (byte >= 0x80) break;
        text += String.fromCharCode(byte);
      }
      if (i === to) return text;
    }
    const text = utf8TextStrict(this.bytes.subarray(at, to));
    if (text === undefined) {
      this.pos = from;
      throw new ProtoDecodeError("invalid-utf8");
    }
    return text;
  }

  /** Skips the value of an unknown field, or of a known one with another wire type than declared. */
  skip(tag: number, end: number): void {
    switch (tag & 7) {
      case 0:
        this.#varint64(end);
        return;
      case 1:
        this.#advance(8, end);
        return;
      case 2:
        this.pos = this.open(end);
        return;
      case 3:
        this.#skipGroup(tag >>> 3, end);
        return;
      case 5:
        this.#advance(4, end);
        return;
      default:
        throw malformed(); // an end of a group that did not begin, or a wire type that does not exist
    }
  }

  #skipGroup(number: number, end: number): void {
    const open = [number];
    while (open.length > 0) {
      const tag = this.tag(end);
      const wireType = tag & 7;
      if (wireType === 3) {
        if (open.length >= GROUP_DEPTH_MAX) throw malformed();
        open.push(tag >>> 3);
      } else if (wireType === 4) {
        if (open.pop() !== tag >>> 3) throw malformed();
      } else {
        this.skip(tag, end);
      }
    }
  }

  #advance(count: number, end: number): void {
    if (count > end - this.pos) throw malformed();
    this.pos += count;
  }

  #byte(end: number): number {
    if (this.pos >= end) throw malformed();
    return this.bytes[this.pos++] as number;
  }

  /** A varint of at most four bytes; -1, and nothing read, if it is longer or cut off. */
  #short(end: number): number {
    const bytes = this.bytes;
    let at = this.pos;
    if (at >= end) throw malformed();
    let byte = bytes[at++] as number;
    if (byte < 0x80) {
      this.pos = at;
      return byte;
    }
    let value = byte & 0x7f;
    for (let unit = 128; unit < TWO_28 && at < end; unit *= 128) {
      byte = bytes[at++] as number;
      value += (byte & 0x7f) * unit;
      if (byte < 0x80) {
        this.pos = at;
        return value;
      }
    }
    return -1;
  }

  #varint64(end: number): void {
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.#byte(end);
      low |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        this.#low = low >>> 0;
        this.#high = 0;
        return;
      }
    }
    const fifth = this.#byte(end);
    low |= (fifth & 0x0f) << 28;
    high = (fifth & 0x7f) >>> 4;
    if (fifth >= 0x80) {
      for (let shift = 3; ; shift += 7) {
        const byte = this.#byte(end);
        if (shift === 31) {
          if (byte > 1) throw malformed(); // the tenth byte has room for one bit only
          high |= byte << 31;
          break;
        }
        high |= (byte & 0x7f) << shift;
        if (byte < 0x80) break;
      }
    }
    this.#low = low >>> 0;
    this.#high = high >>> 0;
  }
}
