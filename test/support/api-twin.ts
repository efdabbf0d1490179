/**
 * An independent codec for the API's messages: protobufjs, reading our own .proto files at run time. And random messages for both.
 */
import { readFileSync } from "node:fs";
import protobuf from "protobufjs";
import * as api from "../../src/api/index.ts";
import type { Random } from "../../src/base/random.ts";

const FILES = ["kv", "auth", "membership", "rpc", "raft_internal", "lock", "election", "health"];

const root = new protobuf.Root();
for (const file of FILES) {
  protobuf.parse(readFileSync(new URL(`../../proto/${file}.proto`, import.meta.url), "utf8"), root, { keepCase: true });
}
root.resolveAll();

export type AnyMessage = Record<string, unknown>;
export type AnyType = api.MessageType<AnyMessage>;

/** Every message type that the API exports. */
export const ALL_TYPES: readonly AnyType[] = Object.values(api).filter(
  (value): value is AnyType => typeof value === "object" && value !== null && "typeName" in value && "decode" in value,
);

export function twinOf(type: api.MessageType<object>): protobuf.Type {
  return root.lookupType(type.typeName);
}

/** Our message in the form that the twin takes: names of the .proto file, nothing that has its default. */
export function toTwin(type: api.MessageType<object>, message: object): AnyMessage {
  const twin: AnyMessage = {};
  for (const field of type.fields) {
    const value = (message as AnyMessage)[field.name];
    const convert = (item: unknown): unknown => {
      if (field.message !== undefined) return toTwin(field.message(), item as object);
      return field.kind === "int64" || field.kind === "uint64" ? String(item) : item;
    };
    if (value instanceof Map) {
      if (value.size > 0) twin[field.protoName] = Object.fromEntries(Array.from(value, ([key, item]) => [key, convert(item)]));
    } else if (Array.isArray(value)) {
      if (value.length > 0) twin[field.protoName] = value.map(convert);
    } else if (isPresent(field, value)) twin[field.protoName] = convert(value);
  }
  return twin;
}

function isPresent(field: api.FieldDescriptor, value: unknown): boolean {
  if (value === undefined) return false;
  if (field.oneof !== undefined || field.message !== undefined) return true;
  if (value instanceof Uint8Array) return value.length > 0;
  return value !== 0 && value !== 0n && value !== false && value !== "";
}

const MAX = Number.MAX_SAFE_INTEGER;
const COUNTERS = [
  0,
  1,
  127,
  128,
  16383,
  16384,
  2 ** 21 - 1,
  2 ** 21,
  2 ** 28,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 35,
  2 ** 42,
  2 ** 49,
  MAX - 1,
  MAX,
];
const IDS = [...COUNTERS.map(BigInt), 2n ** 53n, 2n ** 56n - 1n, 2n ** 56n, 2n ** 62n, 2n ** 63n - 1n];
const TEXTS = [
  "",
  "a",
  "http://127.0.0.1:2380",
  "häßlich €",
  "\u{1F600}",
  'q"\\\n\u0001\u007f<&>\u2028',
  "x".repeat(31),
  "y".repeat(32),
  "é".repeat(40),
  "z".repeat(300),
];

function pick<T>(random: Random, items: readonly T[]): T {
  return items[random.below(items.length)] as T;
}

function randomScalar(field: api.FieldDescriptor, random: Random): unknown {
  const negative = random.chance({ of: 1, outOf: 4 });
  switch (field.kind) {
    case "int64": {
      if (field.counter) return pick(random, COUNTERS) * (negative ? -1 : 1) + 0;
      const id = pick(random, IDS);
      return negative ? -id - (id === 2n ** 63n - 1n ? 1n : 0n) : id;
    }
    case "uint64":
      return field.counter ? pick(random, COUNTERS) : negative ? 2n ** 64n - 1n - pick(random, IDS) : pick(random, IDS);
    case "uint32":
      return pick(random, [0, 1, 300, 2 ** 31, 2 ** 32 - 1]);
    case "int32":
    case "enum":
      return pick(random, [0, 1, 2, 3, 4, 9, 2 ** 31 - 1, -1, -(2 ** 31)]);
    case "bool":
      return random.chance({ of: 1, outOf: 2 });
    case "string":
      return pick(random, TEXTS);
    default: {
      const bytes = new Uint8Array(pick(random, [0, 1, 2, 3, 23, 24, 25, 127, 128, 300]));
      for (let i = 0; i < bytes.length; i += 1) bytes[i] = random.below(256);
      return bytes;
    }
  }
}

/** A random message, at most `depth` messages deep. About a third of the fields keep their default. */
export function randomMessage(type: api.MessageType<object>, random: Random, depth: number): AnyMessage {
  const message = type.create() as AnyMessage;
  const oneofs = new Set<string>();
  for (const field of type.fields) {
    if (random.chance({ of: 1, outOf: 3 })) continue;
    if (field.message !== undefined && depth <= 1) continue;
    if (field.oneof !== undefined) {
      if (oneofs.has(field.oneof) || random.chance({ of: 1, outOf: 2 })) continue;
      oneofs.add(field.oneof);
    }
    const one = (): unknown =>
      field.message === undefined ? randomScalar(field, random) : randomMessage(field.message(), random, depth - 1);
    if (field.kind === "map") message[field.name] = new Map(TEXTS.slice(0, random.below(4)).map((key) => [key, one()]));
    else message[field.name] = field.repeated ? Array.from({ length: random.below(4) }, one) : one();
  }
  return message;
}
