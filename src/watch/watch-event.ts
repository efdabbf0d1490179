import { Event, EventType, type KeyValue, Writer } from "../api/index.ts";
import type { KeyString } from "../base/bytes.ts";
import type { Revision } from "../base/ids.ts";
import type { MvccEvent, RevisionPosition } from "../mvcc/index.ts";
import { fieldBytes, keyValueBytes } from "./encoded-size.ts";

/** Apart from the API's own scratch memory: an event may be encoded while a response around it is being written. */
const writer = new Writer();

/**
 * An event as it is sent, one object for all the watchers that get it. When more than one response holds it, its wire form is made by the
 * first that is encoded and copied by the others; what only one watcher gets is encoded straight into its response.
 */
export class SharedEvent implements Event {
  readonly type: EventType;
  readonly kv: KeyValue;
  readonly prevKv: KeyValue | undefined;
  /** Bytes it takes in a response, with its tag and length. */
  readonly responseBytes: number;
  /** Responses that hold it. */
  uses = 0;
  #wire: Uint8Array | undefined;

  constructor(type: EventType, kv: KeyValue, prevKv: KeyValue | undefined) {
    this.type = type;
    this.kv = kv;
    this.prevKv = prevKv;
    const bytes =
      (type === EventType.PUT ? 0 : 2) + fieldBytes(keyValueBytes(kv)) + (prevKv === undefined ? 0 : fieldBytes(keyValueBytes(prevKv)));
    this.responseBytes = fieldBytes(bytes);
  }

  get wire(): Uint8Array | undefined {
    if (this.#wire !== undefined || this.uses < 2) return this.#wire;
    writer.reset();
    Event.encodeTo(writer, { type: this.type, kv: this.kv, prevKv: this.prevKv });
    this.#wire = writer.copy();
    return this.#wire;
  }
}

/** One change of the store with the forms in which watchers get it, each made when the first watcher wants it. */
export class WatchEvent {
  readonly revision: Revision;
  readonly key: KeyString;
  readonly isPut: boolean;
  readonly #change: MvccEvent;
  #plain: SharedEvent | undefined;
  #withPrevious: SharedEvent | undefined;

  constructor(change: MvccEvent) {
    this.revision = change.kv.modRevision;
    this.key = change.key;
    this.isPut = change.type === "put";
    this.#change = change;
  }

  /** Without the previous pair. */
  get plain(): SharedEvent {
    this.#plain ??= new SharedEvent(this.isPut ? EventType.PUT : EventType.DELETE, this.#change.kv, undefined);
    return this.#plain;
  }

  /** With the previous pair, once that was looked up. */
  get withPrevious(): SharedEvent | undefined {
    return this.#withPrevious;
  }

  /** Where the previous pair has to be looked up; undefined when there is none or it was done. */
  get previousToLookUp(): RevisionPosition | undefined {
    return this.#withPrevious === undefined ? this.#change.previous : undefined;
  }

  /** Sets the previous pair: undefined for a creation, or when it is compacted. */
  setPrevious(previous: KeyValue | undefined): SharedEvent {
    this.#withPrevious =
      previous === undefined ? this.plain : new SharedEvent(this.isPut ? EventType.PUT : EventType.DELETE, this.#change.kv, previous);
    return this.#withPrevious;
  }

  /** About what it keeps in memory. */
  get bytes(): number {
    const { key, value } = this.#change.kv;
    return 200 + key.length + value.length;
  }
}
