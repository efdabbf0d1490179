/** Pieces of JSON text, as Go's protojson prints them. For generated code. */
import { base64Text } from "../../base/bytes.ts";
import type { EnumDescriptor } from "./message-type.ts";

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must be escaped
const NEEDS_ESCAPE = /["\\\x00-\x1f]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must be escaped
const ESCAPED = /["\\\x00-\x1f]/g;

const SHORT: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};

function escapeOf(char: string): string {
  return SHORT[char] ?? `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** A JSON string. Control characters below space, quote and backslash are escaped, nothing else. */
export function jsonString(text: string): string {
  return `"${NEEDS_ESCAPE.test(text) ? text.replace(ESCAPED, escapeOf) : text}"`;
}

export function jsonBytes(bytes: Uint8Array): string {
  return `"${base64Text(bytes)}"`;
}

let lastId = 0n;
let lastText = '"0"';
let olderId = 0n;
let olderText = '"0"';

/**
 * An unsigned id (cluster, member, request) as a decimal string. The last two are remembered: every answer names the cluster and the
 * member, and turning 20 digits out of a bigint costs more than the rest of the header.
 */
export function jsonUint64(id: bigint): string {
  if (id === lastId) return lastText;
  if (id === olderId) return olderText;
  olderId = lastId;
  olderText = lastText;
  lastId = id;
  lastText = `"${id}"`;
  return lastText;
}

/** A signed id (lease, watch) as a decimal string. */
export function jsonInt64(id: bigint): string {
  return `"${id}"`;
}

/** The name, or the number if the enum does not know it. */
export function jsonEnum(descriptor: EnumDescriptor, value: number): string {
  const name = descriptor.names.get(value);
  return name === undefined ? String(value) : `"${name}"`;
}

export function jsonList<T>(items: readonly T[], print: (item: T) => string): string {
  let text = "[";
  for (let i = 0; i < items.length; i += 1) {
    if (i > 0) text += ",";
    text += print(items[i] as T);
  }
  return `${text}]`;
}

/** Keys in ascending order. */
export function jsonMap<T>(map: ReadonlyMap<string, T>, print: (value: T) => string): string {
  const keys = Array.from(map.keys()).sort();
  return `{${keys.map((key) => `${jsonString(key)}:${print(map.get(key) as T)}`).join(",")}}`;
}
