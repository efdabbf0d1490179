/** Messages as Go's encoding/json prints the structs that are generated for them: names of the .proto file, zero values left out, numbers as numbers. */
import type { FieldDescriptor, MessageType } from "../../api/index.ts";
import { base64Text } from "../../base/bytes.ts";

/** Ids that are to be shown as hexadecimal text, by their names. */
export type HexNames = ReadonlySet<string>;

const NO_NAMES: HexNames = new Set();

export function goJson<T extends object>(type: MessageType<T>, message: T, hex: HexNames = NO_NAMES): string {
  const parts: string[] = [];
  const unions = new Map<string, string>();
  for (const field of type.fields) {
    const value = (message as Record<string, unknown>)[field.name];
    const text = valueText(field, value, hex);
    if (field.oneof === undefined) {
      if (text !== undefined) parts.push(`${JSON.stringify(field.protoName)}:${text}`);
      continue;
    }
    // One field with the union's name; what is in it, or null.
    const union = capitalised(field.oneof.slice(field.oneof.lastIndexOf(".") + 1));
    if (!unions.has(union)) {
      unions.set(union, "null");
      parts.push(union);
    }
    if (text !== undefined) unions.set(union, `{${JSON.stringify(field.protoName)}:${text}}`);
  }
  return `{${parts.map((part) => (unions.has(part) ? `${JSON.stringify(part)}:${unions.get(part)}` : part)).join(",")}}`;
}

/** Undefined for what is left out. */
function valueText(field: FieldDescriptor, value: unknown, hex: HexNames): string | undefined {
  if (value === undefined) return undefined;
  if (field.repeated) {
    const items = value as readonly unknown[];
    return items.length === 0 ? undefined : `[${items.map((item) => scalarText(field, item, hex)).join(",")}]`;
  }
  const isZero = value === 0 || value === 0n || value === false || value === "" || (value instanceof Uint8Array && value.length === 0);
  return isZero ? undefined : scalarText(field, value, hex);
}

function scalarText(field: FieldDescriptor, value: unknown, hex: HexNames): string {
  if (field.message !== undefined) return goJson(field.message(), value as object, hex);
  if (value instanceof Uint8Array) return `"${base64Text(value)}"`;
  if (typeof value === "string") return goString(value);
  if (typeof value === "bigint" && hex.has(field.protoName)) return `"${BigInt.asUintN(64, value).toString(16)}"`;
  return String(value);
}

/** As Go writes strings: safe to stand in HTML. */
export function goString(text: string): string {
  return JSON.stringify(text).replace(/[<>&\u2028\u2029]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function capitalised(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1);
}
