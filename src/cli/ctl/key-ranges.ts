/** Ranges of keys as flags and arguments name them. */
import { utf8Bytes } from "../../base/bytes.ts";

export const EVERYTHING = Uint8Array.of(0);

/** The first key behind all that begin with `prefix`; the open end when there is none. */
export function prefixEnd(prefix: Uint8Array): Uint8Array {
  for (let at = prefix.length - 1; at >= 0; at -= 1) {
    if ((prefix[at] as number) === 0xff) continue;
    const end = new Uint8Array(prefix.subarray(0, at + 1));
    end[at] = (end[at] as number) + 1;
    return end;
  }
  return EVERYTHING;
}

export interface KeyRange {
  readonly key: Uint8Array;
  readonly rangeEnd: Uint8Array;
}

/** An empty prefix is every key, which needs a first key, because no key is empty. */
export function prefixRange(prefix: Uint8Array): KeyRange {
  return prefix.length === 0 ? { key: EVERYTHING, rangeEnd: EVERYTHING } : { key: prefix, rangeEnd: prefixEnd(prefix) };
}

export function fromKeyRange(key: Uint8Array): KeyRange {
  return { key: key.length === 0 ? EVERYTHING : key, rangeEnd: EVERYTHING };
}

/** Arguments are UTF-8; invalid sequences cannot be typed. */
export function keyOf(text: string): Uint8Array {
  return utf8Bytes(text);
}
