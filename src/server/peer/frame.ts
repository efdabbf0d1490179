/**
 * Frames on a connection between members: length, CRC-32 and a body that starts with its kind. Layout: docs/FORMATS.md, "Peer frames".
 *
 *   | 4 bytes: length of the body, big-endian | 4 bytes: CRC-32 of the body, big-endian | 1 byte: kind | content |
 *
 * The checksum is against broken wires, proxies and memory, not against malice; that is what TLS is for.
 */
import { assert } from "../../base/assert.ts";
import { allocateBytes, crc32 } from "../../base/bytes.ts";
import { PeerFrameError } from "./errors.ts";

/** Bytes in front of a frame's content: length, checksum, kind. */
export const FRAME_HEADER_BYTES = 9;
const PREFIX_BYTES = 8;
/** First allocation for a frame that arrives in parts: most fit, chunks of snapshots included. */
const PARTIAL_BYTES_MIN = 272 * 1024;

/** Kinds of frames; never reuse a number. */
export const FrameKind = {
  /** Dialler to acceptor: an array of raft message records. */
  messages: 1,
  /** Dialler to acceptor: 8 bytes of the dialler's clock, which come back in `pong`. */
  ping: 2,
  pong: 3,
  /** Either way: nothing but a sign of life. */
  alive: 4,
  /** Dialler to acceptor: a request record. */
  request: 5,
  /** Acceptor to dialler: 8 bytes of sequence, then the answer. */
  response: 6,
  /** Acceptor to dialler: an error record. */
  failure: 7,
  /** Dialler to acceptor: 8 bytes of sequence: nobody waits for that answer any more. */
  cancel: 8,
  /** Sender to receiver: a snapshot offer record. */
  snapshotOffer: 16,
  /** Receiver to sender: 8 bytes: send from this offset on. */
  snapshotFrom: 17,
  /** Sender to receiver: bytes of the snapshot. */
  snapshotChunk: 18,
  /** Sender to receiver: the SHA-256 of all chunks of this connection. */
  snapshotEnd: 19,
  /** Receiver to sender: stored and handed to raft. */
  snapshotDone: 20,
} as const;

/** Largest body that a connection takes unless configured otherwise. */
export const FRAME_BYTES_MAX = 64 * 1024 * 1024;

/**
 * Completes a frame in place: `frame` has {@link FRAME_HEADER_BYTES} free bytes in front of its content.
 * Returns it, ready to be written.
 */
export function sealFrame(frame: Uint8Array, kind: number): Uint8Array {
  assert(frame.byteLength >= FRAME_HEADER_BYTES, "room for the header");
  frame[8] = kind;
  const body = frame.subarray(PREFIX_BYTES);
  const view = new DataView(frame.buffer, frame.byteOffset, PREFIX_BYTES);
  view.setUint32(0, body.byteLength);
  view.setUint32(4, crc32(body));
  return frame;
}

/** A frame with a copy of `content`. */
export function smallFrame(kind: number, content: Uint8Array): Uint8Array {
  const frame = allocateBytes(FRAME_HEADER_BYTES + content.byteLength);
  frame.set(content, FRAME_HEADER_BYTES);
  return sealFrame(frame, kind);
}

/** The header of a frame whose content is written behind it without being copied. */
export function frameHeader(kind: number, content: Uint8Array): Uint8Array {
  const header = allocateBytes(FRAME_HEADER_BYTES);
  header[8] = kind;
  const view = new DataView(header.buffer, header.byteOffset, PREFIX_BYTES);
  view.setUint32(0, 1 + content.byteLength);
  view.setUint32(4, crc32(content, crc32(header.subarray(PREFIX_BYTES))));
  return header;
}

/** 8 bytes for a counter or a time: a big-endian double, exact for every integer below 2^53. */
export function numberFrame(kind: number, value: number): Uint8Array {
  const content = allocateBytes(8);
  new DataView(content.buffer, content.byteOffset, 8).setFloat64(0, value);
  return smallFrame(kind, content);
}

/** Counterpart of {@link numberFrame}; `counter` also demands a non-negative safe integer. */
export function numberContent(content: Uint8Array, options: { counter: boolean }): number {
  if (content.byteLength < 8) throw new PeerFrameError("number cut short");
  const value = new DataView(content.buffer, content.byteOffset, 8).getFloat64(0);
  if (options.counter && !(Number.isSafeInteger(value) && value >= 0)) throw new PeerFrameError("counter out of range");
  return value;
}

/** Receives each frame. `content` is a view of memory which is never reused, so it may be kept. False ends the decoding for good. */
export type FrameHandler = (kind: number, content: Uint8Array) => boolean;

/**
 * Cuts a byte stream into frames. Holds at most one incomplete frame, and of a long one only a few times the bytes that have arrived,
 * so a length without a body costs little. `push` throws {@link PeerFrameError} for anything that is no frame; the decoder is then unusable.
 */
export class FrameDecoder {
  readonly #bytesMax: number;
  readonly #onFrame: FrameHandler;
  /** The incomplete frame: `#held` bytes of it, `#wanted` to the next decision (the prefix, then all of it). */
  #partial: Uint8Array | undefined;
  #held = 0;
  #wanted = PREFIX_BYTES;
  #ended = false;

  constructor(bytesMax: number, onFrame: FrameHandler) {
    this.#bytesMax = bytesMax;
    this.#onFrame = onFrame;
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    const end = chunk.byteLength;
    while (at < end && !this.#ended) {
      if (this.#held === 0) {
        // The usual case: the frame lies in this chunk as a whole and is not copied.
        const rest = end - at;
        if (rest >= PREFIX_BYTES) {
          const size = PREFIX_BYTES + this.#bodyLength(chunk, at);
          if (rest >= size) {
            this.#emit(chunk.subarray(at, at + size));
            at += size;
            continue;
          }
          this.#wanted = size;
        } else {
          this.#wanted = PREFIX_BYTES;
        }
      }
      const taken = Math.min(this.#wanted - this.#held, end - at);
      const partial = this.#room(taken);
      partial.set(chunk.subarray(at, at + taken), this.#held);
      this.#held += taken;
      at += taken;
      if (this.#held < this.#wanted) return;
      if (this.#wanted === PREFIX_BYTES) {
        this.#wanted = PREFIX_BYTES + this.#bodyLength(partial, 0);
        continue;
      }
      this.#partial = undefined;
      this.#held = 0;
      this.#emit(partial.subarray(0, this.#wanted));
    }
  }

  #bodyLength(bytes: Uint8Array, at: number): number {
    const length =
      (((bytes[at] as number) << 24) | ((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number)) >>>
      0;
    if (length === 0) throw new PeerFrameError("empty frame");
    if (length > this.#bytesMax) throw new PeerFrameError(`frame of ${length} bytes, the limit is ${this.#bytesMax}`);
    return length;
  }

  #room(more: number): Uint8Array {
    const needed = this.#held + more;
    const partial = this.#partial;
    if (partial !== undefined && partial.byteLength >= needed) return partial;
    const grown = allocateBytes(Math.min(this.#wanted, Math.max(needed, this.#held * 4, PARTIAL_BYTES_MIN)));
    if (partial !== undefined) grown.set(partial.subarray(0, this.#held));
    this.#partial = grown;
    return grown;
  }

  #emit(frame: Uint8Array): void {
    const view = new DataView(frame.buffer, frame.byteOffset, PREFIX_BYTES);
    if (crc32(frame.subarray(PREFIX_BYTES)) !== view.getUint32(4)) {
      this.#ended = true;
      throw new PeerFrameError("checksum mismatch");
    }
    if (!this.#onFrame(frame[8] as number, frame.subarray(FRAME_HEADER_BYTES))) this.#ended = true;
  }
}
