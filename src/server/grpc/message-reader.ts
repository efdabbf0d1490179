/** Cuts the bytes of a request into messages: a flag, a length of four bytes, the message. */
import { messageTooLarge, rpcError, unknownPayloadFormat } from "../../api/index.ts";
import type { ReceiveBudget } from "./transport.ts";

export const PREFIX_BYTES = 5;
/** A message that comes in pieces is first given this much; a length alone must not make anybody allocate. */
const FIRST_BYTES = 16_384;

const NOTHING = new Uint8Array(0);

/** Of one call. After a message was taken the reader is ready for the next. */
export class MessageReader {
  readonly #limit: number;
  readonly #budget: ReceiveBudget;
  readonly #prefix = new Uint8Array(PREFIX_BYTES);
  #prefixFilled = 0;
  #length = 0;
  #filled = 0;
  #memory: Uint8Array = NOTHING;
  #inside = false;

  /** Of the message that {@link read} has completed. */
  flag = 0;
  /** Where the completed message is: in what was given to {@link read}, or in memory of the reader that it will not use again. */
  bytes: Uint8Array = NOTHING;
  from = 0;
  to = 0;
  complete = false;

  /** No message longer than `limit` bytes. */
  constructor(limit: number, budget: ReceiveBudget) {
    this.#limit = limit;
    this.#budget = budget;
  }

  /** Bytes that the current message still lacks; 0 before its length is known. */
  get missing(): number {
    return this.#inside ? this.#length - this.#filled : 0;
  }

  /** What the end of the stream means now. */
  get position(): "between-messages" | "in-prefix" | "in-message" {
    if (this.#inside) return "in-message";
    return this.#prefixFilled > 0 ? "in-prefix" : "between-messages";
  }

  /**
   * Takes bytes up to the end of a message, or all; returns where it stopped. Then `complete` tells whether there is a message.
   * @throws TransportError for a message that is too large, as soon as its length is known, or of an unknown format; `too-many-requests` when memory for
   *   unfinished requests has run out.
   */
  read(bytes: Uint8Array, from: number, to: number): number {
    this.complete = false;
    let at = from;
    if (!this.#inside) {
      while (this.#prefixFilled < PREFIX_BYTES) {
        if (at === to) return at;
        this.#prefix[this.#prefixFilled++] = bytes[at++] as number;
      }
      this.#open();
      if (to - at >= this.#length) {
        // All of it is here: no copy.
        this.#complete(bytes, at, at + this.#length);
        return at + this.#length;
      }
    }
    const take = Math.min(to - at, this.#length - this.#filled);
    this.#append(bytes, at, at + take);
    if (this.#filled === this.#length) {
      this.#budget.give(this.#memory.byteLength);
      const memory = this.#memory;
      this.#memory = NOTHING;
      this.#complete(memory, 0, this.#length);
    }
    return at + take;
  }

  /** Nothing more will be read. */
  close(): void {
    this.#budget.give(this.#memory.byteLength);
    this.#memory = NOTHING;
    this.#inside = false;
    this.#prefixFilled = 0;
  }

  #open(): void {
    const prefix = this.#prefix;
    const length = lengthIn(prefix, 0);
    this.flag = prefix[0] as number;
    if (length > this.#limit) throw messageTooLarge(length, this.#limit);
    if (this.flag > 1) throw unknownPayloadFormat(this.flag);
    this.#length = length;
    this.#filled = 0;
    this.#inside = true;
  }

  #append(bytes: Uint8Array, from: number, to: number): void {
    const need = this.#filled + to - from;
    const memory = this.#memory;
    if (need > memory.byteLength) {
      const room = Math.min(this.#length, Math.max(need, memory.byteLength * 2, FIRST_BYTES));
      if (!this.#budget.take(room - memory.byteLength)) throw rpcError("too-many-requests");
      const grown = new Uint8Array(room);
      grown.set(memory.subarray(0, this.#filled));
      this.#memory = grown;
    }
    this.#memory.set(bytes.subarray(from, to), this.#filled);
    this.#filled = need;
  }

  #complete(bytes: Uint8Array, from: number, to: number): void {
    this.bytes = bytes;
    this.from = from;
    this.to = to;
    this.complete = true;
    this.#inside = false;
    this.#prefixFilled = 0;
  }
}

/** The length in the prefix that begins at `from`. */
export function lengthIn(bytes: Uint8Array, from: number): number {
  return (
    (bytes[from + 1] as number) * 0x1000000 +
    (((bytes[from + 2] as number) << 16) | ((bytes[from + 3] as number) << 8) | (bytes[from + 4] as number))
  );
}

/** A message behind its prefix, in memory of its own. */
export function framed(message: Uint8Array, flag: number): Uint8Array {
  const frame = new Uint8Array(PREFIX_BYTES + message.byteLength);
  frame[0] = flag;
  new DataView(frame.buffer).setUint32(1, message.byteLength);
  frame.set(message, PREFIX_BYTES);
  return frame;
}
