import type { Duplex } from "node:stream";
import { FRAME_HEADER_BYTES } from "./frame.ts";

const SLAB_BYTES = 16_384;
/** For slabs that follow one that was filled in the same turn. */
const LARGE_SLAB_BYTES = 65_536;
/**
 * Bytes that may wait for the socket before streams have to. Small, because what is handed over cannot be overtaken any more, and what a watch has to say must not
 * wait behind megabytes of somebody's range.
 */
const ROOM_BYTES = 256 * 1024;

/**
 * Frames on their way out. All frames of one turn of the event loop, of however many streams, leave in one write: they are laid out one behind the other in a slab
 * of memory, and what lies there is handed to the socket at the end of the turn. The slab goes on being filled behind that.
 */
export class Output {
  readonly #socket: Duplex;
  readonly #flushed: () => void;
  #slab: Buffer | undefined;
  #from = 0;
  #at = 0;
  #full: Buffer[] = [];
  #fullBytes = 0;
  #scheduled = false;

  /** `flushed` is called after each hand-over. */
  constructor(socket: Duplex, flushed: () => void) {
    this.#socket = socket;
    this.#flushed = flushed;
  }

  /** Bytes that may still be added before streams have to wait; may be negative. Control frames need not ask. */
  get room(): number {
    return ROOM_BYTES - this.#fullBytes - (this.#at - this.#from) - this.#socket.writableLength;
  }

  /** Bytes not yet handed to the kernel. */
  get pending(): number {
    return this.#fullBytes + (this.#at - this.#from) + this.#socket.writableLength;
  }

  /** A whole frame. */
  frame(type: number, flags: number, streamId: number, payload: Uint8Array): void {
    const at = this.header(payload.byteLength, type, flags, streamId);
    this.slab.set(payload, at);
  }

  /** Makes room for a frame and writes its header. Returns where in {@link slab} the payload has to be put. */
  header(length: number, type: number, flags: number, streamId: number): number {
    const slab = this.#reserve(FRAME_HEADER_BYTES + length);
    const at = this.#at;
    slab[at] = length >>> 16;
    slab[at + 1] = length >>> 8;
    slab[at + 2] = length;
    slab[at + 3] = type;
    slab[at + 4] = flags;
    slab[at + 5] = streamId >>> 24;
    slab[at + 6] = streamId >>> 16;
    slab[at + 7] = streamId >>> 8;
    slab[at + 8] = streamId;
    this.#at = at + FRAME_HEADER_BYTES + length;
    return at + FRAME_HEADER_BYTES;
  }

  /** Where the payload of the last {@link header} goes. */
  get slab(): Buffer {
    return this.#slab as Buffer;
  }

  /** Hands everything to the socket now. */
  flush(): void {
    this.#scheduled = false;
    const slab = this.#slab;
    const socket = this.#socket;
    if (slab === undefined || (this.#at === this.#from && this.#full.length === 0)) return;
    const last = slab.subarray(this.#from, this.#at);
    this.#from = this.#at;
    if (socket.destroyed || socket.writableEnded) {
      this.#full = [];
      this.#fullBytes = 0;
      return;
    }
    if (this.#full.length === 0) socket.write(last);
    else {
      const full = this.#full;
      this.#full = [];
      this.#fullBytes = 0;
      socket.cork();
      for (const part of full) socket.write(part);
      if (last.byteLength > 0) socket.write(last);
      socket.uncork();
    }
    this.#flushed();
  }

  /** Gives the memory back that waits for further frames. */
  release(): void {
    if (this.#at === this.#from && this.#full.length === 0) this.#slab = undefined;
  }

  #reserve(bytes: number): Buffer {
    if (!this.#scheduled) {
      this.#scheduled = true;
      process.nextTick(flush, this);
    }
    const slab = this.#slab;
    if (slab !== undefined && slab.byteLength - this.#at >= bytes) return slab;
    let size = SLAB_BYTES;
    if (slab !== undefined && this.#at > this.#from) {
      this.#full.push(slab.subarray(this.#from, this.#at));
      this.#fullBytes += this.#at - this.#from;
      size = LARGE_SLAB_BYTES;
    }
    const next = Buffer.allocUnsafeSlow(Math.max(size, bytes));
    this.#slab = next;
    this.#from = 0;
    this.#at = 0;
    return next;
  }
}

function flush(output: Output): void {
  output.flush();
}
