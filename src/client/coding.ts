/** From a program's keys and values to the wire's bytes and back: codecs, the prefix of a namespace, and what part of the key space is meant. */
import * as api from "../api/index.ts";
import { concatBytes, copyBytes, EMPTY_BYTES, utf8Bytes } from "../base/bytes.ts";
import { type Codec, decoderOf } from "./codec.ts";
import { InvalidUseError } from "./errors.ts";

/** A key: text is taken as UTF-8, bytes as they are, anything else goes through the codec. */
export type KeyInput<K> = K | string | Uint8Array;
/** A value: bytes are taken as they are, anything else goes through the codec. */
export type ValueInput<V> = V | Uint8Array;

/** A stored pair. */
export interface KeyValue<V = string, K = string> {
  readonly key: K;
  readonly value: V;
  /** Revision of the put that began the current life of the key. */
  readonly createRevision: number;
  /** Revision of the last change. */
  readonly modRevision: number;
  /** 1 for the creating put, one more per put. */
  readonly version: number;
  /** Id of the attached lease, 0n for none. */
  readonly lease: bigint;
}

/** A stored pair without its value. */
export type KeyInfo<K = string> = Omit<KeyValue<unknown, K>, "value" | "lease">;

/** Which keys, beside the one named. At most one of these; none means just that key. */
export interface KeySelection<K = string> {
  /** All keys that begin with the key. With an empty key: all keys. */
  readonly prefix?: boolean | undefined;
  /** All keys from the key to this one, which is not included. */
  readonly end?: KeyInput<K> | undefined;
  /** All keys from the key on. */
  readonly fromKey?: boolean | undefined;
}

/** One or more keys in wire form: see `rangeEnd` of the API. */
export interface KeyRange {
  readonly key: Uint8Array;
  readonly rangeEnd: Uint8Array;
}

const ZERO_BYTE = new Uint8Array(1);

/** The first key after all keys that begin with `prefix`; one zero byte, "no end", where there is none. */
export function prefixEnd(prefix: Uint8Array): Uint8Array {
  for (let length = prefix.length; length > 0; length -= 1) {
    const last = prefix[length - 1] as number;
    if (last === 0xff) continue;
    const end = copyBytes(prefix.subarray(0, length));
    end[length - 1] = last + 1;
    return end;
  }
  return ZERO_BYTE;
}

/** Hex of an id as etcd's recipes put it into keys: lower case, no padding, two's complement for negative ids. */
export function hexLease(id: bigint): string {
  return BigInt.asUintN(64, id).toString(16);
}

export class Coding<V, K> {
  readonly values: Codec<V>;
  readonly keys: Codec<K>;
  /** What the server has in front of every key of this client. */
  readonly prefix: Uint8Array;
  readonly #decodeKey: (bytes: Uint8Array) => K;
  readonly #decodeValue: (bytes: Uint8Array) => V;

  constructor(values: Codec<V>, keys: Codec<K>, prefix: Uint8Array = EMPTY_BYTES) {
    this.values = values;
    this.keys = keys;
    this.prefix = prefix;
    this.#decodeKey = decoderOf(keys, "key");
    this.#decodeValue = decoderOf(values, "value");
  }

  /** @throws RpcError `key-not-provided` for an empty key: in a namespace it would otherwise name the prefix itself. */
  key(input: KeyInput<K>): Uint8Array {
    const key = this.#encodeKey(input);
    if (key.length === 0) throw api.rpcError("key-not-provided");
    return this.prefix.length === 0 ? key : concatBytes([this.prefix, key]);
  }

  value(input: ValueInput<V>): Uint8Array {
    return ArrayBuffer.isView(input) ? (input as unknown as Uint8Array) : this.values.encode(input as V);
  }

  range(input: KeyInput<K>, selection: KeySelection<K> | undefined): KeyRange {
    const { prefix = false, end, fromKey = false } = selection ?? {};
    if (!prefix && end === undefined && !fromKey) return { key: this.key(input), rangeEnd: EMPTY_BYTES };
    if (Number(prefix) + Number(fromKey) + Number(end !== undefined) > 1) {
      throw new InvalidUseError("give only one of prefix, end and fromKey");
    }
    const raw = this.#encodeKey(input);
    const key = this.prefix.length === 0 ? raw : concatBytes([this.prefix, raw]);
    if (prefix) return key.length === 0 ? { key: ZERO_BYTE, rangeEnd: ZERO_BYTE } : { key, rangeEnd: prefixEnd(key) };
    const first = key.length === 0 ? ZERO_BYTE : key;
    if (end === undefined) return { key: first, rangeEnd: this.prefix.length === 0 ? ZERO_BYTE : prefixEnd(this.prefix) };
    const rawEnd = this.#encodeKey(end);
    if (rawEnd.length === 0) throw new InvalidUseError("the end of a range must not be empty; use fromKey");
    return { key: first, rangeEnd: this.prefix.length === 0 ? rawEnd : concatBytes([this.prefix, rawEnd]) };
  }

  keyOf(key: Uint8Array): K {
    return this.#decodeKey(this.prefix.length === 0 ? key : key.subarray(this.prefix.length));
  }

  valueOf(value: Uint8Array): V {
    return this.#decodeValue(value);
  }

  pair(kv: api.KeyValue): KeyValue<V, K> {
    return {
      key: this.keyOf(kv.key),
      value: this.#decodeValue(kv.value),
      createRevision: kv.createRevision,
      modRevision: kv.modRevision,
      version: kv.version,
      lease: kv.lease,
    };
  }

  pairOrNone(kv: api.KeyValue | undefined): KeyValue<V, K> | undefined {
    return kv === undefined ? undefined : this.pair(kv);
  }

  /** The same codecs below a longer prefix. */
  below(prefix: string | Uint8Array): Coding<V, K> {
    const more = typeof prefix === "string" ? utf8Bytes(prefix) : prefix;
    return new Coding(this.values, this.keys, concatBytes([this.prefix, more]));
  }

  #encodeKey(input: KeyInput<K>): Uint8Array {
    if (typeof input === "string") return utf8Bytes(input);
    return ArrayBuffer.isView(input) ? (input as unknown as Uint8Array) : this.keys.encode(input as K);
  }
}
