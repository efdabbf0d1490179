/** gRPC's framing: each message behind five bytes, a flag and its length. */
import type { MessageType } from "../../api/index.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import { BadAnswerError } from "../errors.ts";

const PREFIX_BYTES = 5;
const NO_CHUNKS: Uint8Array[] = [];

export function frameOf<T extends object>(type: MessageType<T>, message: T): Uint8Array {
  const body = type.encode(message);
  const frame = new Uint8Array(PREFIX_BYTES + body.length);
  new DataView(frame.buffer).setUint32(1, body.length);
  frame.set(body, PREFIX_BYTES);
  return frame;
}

/** Puts messages together from what comes, however it is cut. */
export class MessageReader<T extends object> {
  readonly #type: MessageType<T>;
  readonly #bytesMax: number;
  #chunks: Uint8Array[] = NO_CHUNKS;
  #held = 0;
  /** Bytes that the next message takes with its prefix; 0: unknown yet. */
  #wanted = 0;

  constructor(type: MessageType<T>, bytesMax: number) {
    this.#type = type;
    this.#bytesMax = bytesMax;
  }

  /** A message has begun and is not complete. */
  get unfinished(): boolean {
    return this.#held > 0;
  }

  /** Adds what `chunk` completes to `into`. @throws EtcdError `message-too-large`, BadAnswerError */
  push(chunk: Uint8Array, into: T[]): void {
    if (this.#held === 0) this.#chunks = [chunk];
    else this.#chunks.push(chunk);
    this.#held += chunk.length;
    for (;;) {
      if (this.#held < PREFIX_BYTES) return;
      if (this.#wanted === 0) this.#wanted = PREFIX_BYTES + this.#length();
      if (this.#held < this.#wanted) return;
      const all = this.#joined();
      const message = this.#decode(all.subarray(PREFIX_BYTES, this.#wanted));
      const rest = all.subarray(this.#wanted);
      this.#wanted = 0;
      this.#held = rest.length;
      this.#chunks = rest.length === 0 ? NO_CHUNKS : [rest];
      into.push(message);
      if (rest.length === 0) return;
    }
  }

  #length(): number {
    if ((this.#chunks[0] as Uint8Array).length < PREFIX_BYTES) this.#joined();
    const first = this.#chunks[0] as Uint8Array;
    if (first[0] !== 0) throw new BadAnswerError("a message came compressed although that was not asked for");
    const length = new DataView(first.buffer, first.byteOffset).getUint32(1);
    if (length > this.#bytesMax) {
      const text = `grpc: received message larger than max (${length} vs. ${this.#bytesMax})`;
      throw new EtcdError("message-too-large", GrpcCode.ResourceExhausted, text);
    }
    return length;
  }

  #joined(): Uint8Array {
    if (this.#chunks.length > 1) {
      const all = new Uint8Array(this.#held);
      let at = 0;
      for (const chunk of this.#chunks) {
        all.set(chunk, at);
        at += chunk.length;
      }
      this.#chunks = [all];
    }
    return this.#chunks[0] as Uint8Array;
  }

  #decode(body: Uint8Array): T {
    try {
      return this.#type.decode(body);
    } catch (cause) {
      throw new BadAnswerError(`an answer is not a ${this.#type.typeName}`, { cause });
    }
  }
}
