import type { Message } from "../../raft/index.ts";
import { messageBytesMax } from "./message-codec.ts";

/** First in, first out, bounded in number and in bytes. */
export class MessageQueue {
  readonly #countMax: number;
  readonly #bytesMax: number;
  #items: Message[] = [];
  /** Items before this one have been taken. */
  #head = 0;
  #bytes = 0;

  constructor(countMax: number, bytesMax: number) {
    this.#countMax = countMax;
    this.#bytesMax = bytesMax;
  }

  get length(): number {
    return this.#items.length - this.#head;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** False when it does not fit; then nothing changed. An empty queue takes any one message. */
  push(message: Message): boolean {
    const bytes = messageBytesMax(message);
    if (this.length > 0 && (this.length >= this.#countMax || this.#bytes + bytes > this.#bytesMax)) return false;
    this.#items.push(message);
    this.#bytes += bytes;
    return true;
  }

  /** The oldest messages whose encoded size stays below `bytesMax`; at least one unless empty. */
  take(bytesMax: number): Message[] {
    const from = this.#head;
    let bytes = 0;
    while (this.#head < this.#items.length) {
      const next = messageBytesMax(this.#items[this.#head] as Message);
      if (this.#head > from && bytes + next > bytesMax) break;
      bytes += next;
      this.#head++;
    }
    this.#bytes -= bytes;
    if (from === 0 && this.#head === this.#items.length) {
      const all = this.#items;
      this.#items = [];
      this.#head = 0;
      return all;
    }
    const taken = this.#items.slice(from, this.#head);
    if (this.#head * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return taken;
  }

  /** Forgets everything; tells how many there were. */
  clear(): number {
    const dropped = this.length;
    this.#items = [];
    this.#head = 0;
    this.#bytes = 0;
    return dropped;
  }
}
