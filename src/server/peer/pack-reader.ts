import { PeerFrameError } from "./errors.ts";

/**
 * Reads the part of MessagePack that peer frames use, and nothing else. Frames are written by msgpackr, but hostile bytes must not
 * reach its decoder, which also understands in-band record definitions, string bundles, dates, regular expressions, errors and
 * references. Here every value is asked for by type, sizes are checked against what is left, and nothing recurses.
 *
 * Understood: unsigned integers (0x00-0x3f, cc, cd, ce, and cb for those above 32 bits), 64-bit ids (cf, and d3 when not negative),
 * booleans, bytes (c4, c5, c6), arrays (0x90-0x9f, dc, dd) and record marks (0x40-0x7f).
 *
 * Every method throws {@link PeerFrameError} when the next value is of another kind or out of range. Returned bytes are views.
 */
export class PackReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #end: number;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#end = bytes.byteLength;
  }

  /** An integer in [0, 2^53). */
  counter(): number {
    const token = this.#token();
    if (token < 0x40) return token;
    switch (token) {
      case 0xcc:
        return this.#bytes[this.#advance(1)] as number;
      case 0xcd:
        return this.#view.getUint16(this.#advance(2));
      case 0xce:
        return this.#view.getUint32(this.#advance(4));
      case 0xcb: {
        const value = this.#view.getFloat64(this.#advance(8));
        // Doubles carry only what does not fit into 32 bits.
        if (!Number.isSafeInteger(value) || value < 0x100000000) throw new PeerFrameError("counter out of range");
        return value;
      }
      default:
        throw new PeerFrameError("counter expected");
    }
  }

  /** 64 opaque bits. */
  id(): bigint {
    const token = this.#token();
    const at = this.#advance(8);
    if (token === 0xcf) return this.#view.getBigUint64(at);
    if (token !== 0xd3) throw new PeerFrameError("id expected");
    const value = this.#view.getBigInt64(at);
    if (value < 0n) throw new PeerFrameError("negative id");
    return value;
  }

  flag(): boolean {
    const token = this.#token();
    if (token === 0xc3) return true;
    if (token !== 0xc2) throw new PeerFrameError("flag expected");
    return false;
  }

  /** A view of the frame's bytes. */
  bytes(): Uint8Array {
    const token = this.#token();
    let length: number;
    if (token === 0xc4) length = this.#bytes[this.#advance(1)] as number;
    else if (token === 0xc5) length = this.#view.getUint16(this.#advance(2));
    else if (token === 0xc6) length = this.#view.getUint32(this.#advance(4));
    else throw new PeerFrameError("bytes expected");
    const from = this.#advance(length);
    return this.#bytes.subarray(from, from + length);
  }

  /** Number of values that follow, each of at least one byte. */
  arrayLength(): number {
    const token = this.#token();
    let length: number;
    if (token >= 0x90 && token < 0xa0) length = token - 0x90;
    else if (token === 0xdc) length = this.#view.getUint16(this.#advance(2));
    else if (token === 0xdd) length = this.#view.getUint32(this.#advance(4));
    else throw new PeerFrameError("array expected");
    if (length > this.#end - this.#at) throw new PeerFrameError("array longer than its frame");
    return length;
  }

  /** Number of the record (0 to 63) whose fields follow. */
  record(): number {
    const token = this.#token();
    if (token < 0x40 || token > 0x7f) throw new PeerFrameError("record expected");
    return token - 0x40;
  }

  /** Nothing may be left. */
  end(): void {
    if (this.#at !== this.#end) throw new PeerFrameError("bytes behind the last value");
  }

  #token(): number {
    if (this.#at >= this.#end) throw new PeerFrameError("cut short");
    return this.#bytes[this.#at++] as number;
  }

  #advance(length: number): number {
    const from = this.#at;
    if (length > this.#end - from) throw new PeerFrameError("cut short");
    this.#at = from + length;
    return from;
  }
}
