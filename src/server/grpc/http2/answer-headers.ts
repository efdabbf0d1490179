/** The header blocks of answers. There are only a few different ones, so the table of the receiving side is used for exactly the three fields that always come. */
import { latin1Bytes } from "../../../base/bytes.ts";
import { percentEncoded } from "../status-message.ts";

/** `:status: 200` in the static table. */
const STATUS_200 = 0x88;
/** Names in the static table. */
const STATUS_NAME = 8;
const CONTENT_TYPE_NAME = 31;
/** Entries of the static table. */
const STATIC_ENTRIES = 61;
/** What our three entries take in the table, with their overhead of 32 bytes each. */
const TABLE_BYTES_NEEDED = 60 + 44 + 44;
/** The size that the receiving side has for its table unless it says otherwise. */
const TABLE_BYTES_DEFAULT = 4096;

const DEFAULT_TYPE = "application/grpc";

/** Of one connection. Blocks must be sent in the order in which they were made. Returned memory is not changed any more. */
export class AnswerHeaders {
  /** How many of our fields are in the table: 0, 1 (content type) or 3 (and the trailers of a success). */
  #entries = 0;
  #indexing = true;
  #size = TABLE_BYTES_DEFAULT;
  /** Size of the table that has to be announced in the next block. */
  #announce: number | undefined;
  #announceSmallest = TABLE_BYTES_DEFAULT;
  #plainHeaders: Uint8Array | undefined;
  #plainTrailers: Uint8Array | undefined;

  /** The peer has set the size of its table. */
  setTableSize(bytes: number): void {
    const size = Math.min(bytes, TABLE_BYTES_DEFAULT);
    if (size === this.#size) return;
    this.#size = size;
    this.#announceSmallest = this.#announce === undefined ? size : Math.min(this.#announceSmallest, size);
    this.#announce = size;
    this.#plainHeaders = undefined;
    this.#plainTrailers = undefined;
    if (this.#announceSmallest < TABLE_BYTES_NEEDED) {
      // Too small to be of use: from now on without.
      this.#indexing = false;
      this.#entries = 0;
    }
  }

  /** Of an answer that begins. */
  headers(contentType: string, encoding: string | undefined): Uint8Array {
    if (encoding !== undefined || contentType !== DEFAULT_TYPE) {
      const block = [...this.#start(), STATUS_200, ...literal(CONTENT_TYPE_NAME, contentType)];
      if (encoding !== undefined) block.push(...literalNamed("grpc-encoding", encoding));
      return Uint8Array.from(block);
    }
    if (this.#plainHeaders !== undefined) return this.#plainHeaders;
    const start = this.#start();
    if (!this.#indexing) {
      const block = Uint8Array.from([...start, STATUS_200, ...literal(CONTENT_TYPE_NAME, DEFAULT_TYPE)]);
      if (start.length === 0) this.#plainHeaders = block;
      return block;
    }
    if (this.#entries === 0) {
      this.#entries = 1;
      return Uint8Array.from([...start, STATUS_200, 0x40 | CONTENT_TYPE_NAME, ...text(DEFAULT_TYPE)]);
    }
    const block = Uint8Array.from([...start, STATUS_200, 0x80 | (STATIC_ENTRIES + this.#entries)]);
    // While trailers are not in the table yet the index will still change.
    if (start.length === 0 && this.#entries === 3) this.#plainHeaders = block;
    return block;
  }

  /** Of a success. */
  okTrailers(): Uint8Array {
    if (this.#plainTrailers !== undefined) return this.#plainTrailers;
    const start = this.#start();
    if (this.#indexing && this.#entries === 1) {
      this.#entries = 3;
      return Uint8Array.from([...start, 0x40, ...text("grpc-status"), ...text("0"), 0x40, ...text("grpc-message"), ...text("")]);
    }
    const block =
      this.#entries === 3
        ? Uint8Array.from([...start, 0x80 | (STATIC_ENTRIES + 2), 0x80 | (STATIC_ENTRIES + 1)])
        : Uint8Array.from([...start, ...literalNamed("grpc-status", "0"), ...literalNamed("grpc-message", "")]);
    if (start.length === 0 && (this.#entries === 3 || !this.#indexing)) this.#plainTrailers = block;
    return block;
  }

  trailers(code: number, message: string): Uint8Array {
    if (code === 0) return this.okTrailers();
    return Uint8Array.from([...this.#start(), ...statusFields(code, message)]);
  }

  /** Of an answer that is nothing but a status. */
  trailersOnly(httpStatus: number, contentType: string, code: number, message: string): Uint8Array {
    const status = httpStatus === 200 ? [STATUS_200] : literal(STATUS_NAME, String(httpStatus));
    return Uint8Array.from([...this.#start(), ...status, ...literal(CONTENT_TYPE_NAME, contentType), ...statusFields(code, message)]);
  }

  /** What has to come first in a block: changes of the table's size, the smallest in between included. */
  #start(): number[] {
    if (this.#announce === undefined) return [];
    const start = this.#announceSmallest < this.#announce ? integer(this.#announceSmallest, 5, 0x20) : [];
    start.push(...integer(this.#announce, 5, 0x20));
    this.#announce = undefined;
    this.#announceSmallest = TABLE_BYTES_DEFAULT;
    return start;
  }
}

function statusFields(code: number, message: string): number[] {
  return [...literalNamed("grpc-status", String(code)), ...literalNamed("grpc-message", percentEncoded(message))];
}

/** A field that does not go into the table, its name taken from the static one. */
function literal(nameIndex: number, value: string): number[] {
  return [...integer(nameIndex, 4, 0), ...text(value)];
}

function literalNamed(name: string, value: string): number[] {
  return [0, ...text(name), ...text(value)];
}

function text(value: string): number[] {
  return [...integer(value.length, 7, 0), ...latin1Bytes(value)];
}

function integer(value: number, prefixBits: number, high: number): number[] {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) return [high | value];
  const bytes = [high | mask];
  let rest = value - mask;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return bytes;
}
