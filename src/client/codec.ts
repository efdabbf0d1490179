/** How the bytes of keys and values become what a program works with. */
import { copyBytes, utf8Bytes, utf8TextStrict } from "../base/bytes.ts";
import { UndecodableError } from "./errors.ts";

/** Both directions must fit: `decode(encode(x))` is `x`. Throw from `decode` for bytes that cannot be read. */
export interface Codec<T> {
  encode(value: T): Uint8Array;
  /** The bytes are yours: a copy that nobody else uses. */
  decode(bytes: Uint8Array): T;
}

/** Text. Bytes that are not valid UTF-8 are refused, never mangled. */
export const utf8: Codec<string> = {
  encode: utf8Bytes,
  decode(bytes) {
    const text = utf8TextStrict(bytes);
    if (text === undefined) throw new UndecodableError("value");
    return text;
  },
};

/** Bytes as they are. */
export const bytes: Codec<Uint8Array> = {
  encode: (value) => value,
  decode: copyBytes,
};

/**
 * JSON text.
 * @param check gets what was parsed and returns it with its type, or throws. Without it the type is taken on trust.
 */
export function json<T = unknown>(check?: (parsed: unknown) => T): Codec<T> {
  const codec: Codec<T> = {
    encode: (value) => utf8Bytes(JSON.stringify(value)),
    decode(encoded) {
      const parsed: unknown = JSON.parse(utf8.decode(encoded));
      return check === undefined ? (parsed as T) : check(parsed);
    },
  };
  readsInPlace.add(codec);
  return codec;
}

/** Codecs that keep nothing of the bytes and change nothing: they need no copy of their own. */
const readsInPlace = new WeakSet<object>([utf8, bytes]);

/** A function that decodes with `codec` bytes which others use, too, and calls every failure an {@link UndecodableError}. */
export function decoderOf<T>(codec: Codec<T>, what: "key" | "value"): (bytes: Uint8Array) => T {
  const inPlace = readsInPlace.has(codec);
  return (shared) => {
    try {
      return codec.decode(inPlace ? shared : copyBytes(shared));
    } catch (error) {
      throw new UndecodableError(what, { cause: error });
    }
  };
}
