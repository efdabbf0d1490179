/** put, get and del: from arguments and flags to requests. Used by the commands and, line by line, by transactions. */
import * as api from "../../api/index.ts";
import { ExitError } from "../cobra/command.ts";
import { type FlagSet, type FlagSpec, NumberError, parseInteger } from "../cobra/flags.ts";
import { badArguments, Status } from "./context.ts";
import { fromKeyRange, type KeyRange, keyOf, prefixRange } from "./key-ranges.ts";

export const PUT_FLAGS: readonly FlagSpec[] = [
  { name: "lease", kind: "string", default: "0", help: "lease ID (in hexadecimal) to attach to the key" },
  { name: "prev-kv", kind: "bool", help: "return the previous key-value pair before modification" },
  { name: "ignore-value", kind: "bool", help: "updates the key using its current value" },
  { name: "ignore-lease", kind: "bool", help: "updates the key using its current lease" },
];

export const GET_FLAGS: readonly FlagSpec[] = [
  { name: "consistency", kind: "string", default: "l", help: "Linearizable(l) or Serializable(s)" },
  { name: "order", kind: "string", help: "Order of results; ASCEND or DESCEND (ASCEND by default)" },
  { name: "sort-by", kind: "string", help: "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION" },
  { name: "limit", kind: "int", help: "Maximum number of results" },
  { name: "prefix", kind: "bool", help: "Get keys with matching prefix" },
  { name: "from-key", kind: "bool", help: "Get keys from the given key on, in the order of their bytes" },
  { name: "rev", kind: "int", help: "Specify the kv revision" },
  { name: "keys-only", kind: "bool", help: "Get only the keys" },
  { name: "count-only", kind: "bool", help: "Get only the count" },
  { name: "min-create-rev", kind: "int", help: "Minimum create revision" },
  { name: "max-create-rev", kind: "int", help: "Maximum create revision" },
  { name: "min-mod-rev", kind: "int", help: "Minimum modification revision" },
  { name: "max-mod-rev", kind: "int", help: "Maximum modification revision" },
  { name: "print-value-only", kind: "bool", help: 'Only write values when using the "simple" output format' },
  { name: "stream", kind: "bool", help: "Use the RangeStream RPC" },
];

export const DEL_FLAGS: readonly FlagSpec[] = [
  { name: "prefix", kind: "bool", help: "delete keys with matching prefix" },
  { name: "prev-kv", kind: "bool", help: "return deleted key-value pairs" },
  { name: "from-key", kind: "bool", help: "delete keys from the given key on, in the order of their bytes" },
  { name: "range", kind: "bool", help: "delete range of keys without delay" },
];

const ORDERS = new Map<string, number>([
  ["", api.SortOrder.NONE],
  ["ASCEND", api.SortOrder.ASCEND],
  ["DESCEND", api.SortOrder.DESCEND],
]);
const TARGETS = new Map<string, number>([
  ["", api.SortTarget.KEY],
  ["CREATE", api.SortTarget.CREATE],
  ["KEY", api.SortTarget.KEY],
  ["MODIFY", api.SortTarget.MOD],
  ["VALUE", api.SortTarget.VALUE],
  ["VERSION", api.SortTarget.VERSION],
]);

/** Counters beyond 2^53 are in the future of every server. */
export function counter(value: bigint): number {
  const most = BigInt(Number.MAX_SAFE_INTEGER);
  return Number(value > most ? most : value < -most ? -most : value);
}

export function leaseOf(text: string): bigint {
  try {
    return parseInteger(text, { signed: true, base: 16 });
  } catch (error) {
    if (!(error instanceof NumberError)) throw error;
    throw badArguments(`bad lease ID (${error.message}), expecting ID in Hex`);
  }
}

/** `readValue` reads what is not among the arguments. @throws ExitError */
export async function putRequest(
  args: readonly string[],
  flags: FlagSet,
  readValue: () => Promise<Uint8Array | undefined>,
): Promise<api.PutRequest> {
  const [key, value] = args;
  const ignoreValue = flags.bool("ignore-value");
  if (key === undefined) throw badArguments("put command needs 1 argument and input from stdin or 2 arguments");
  if (ignoreValue && value !== undefined) throw badArguments("put command needs only 1 argument when 'ignore-value' is set");
  let bytes: Uint8Array | undefined = new Uint8Array(0);
  if (!ignoreValue) bytes = value === undefined ? await readValue() : keyOf(value);
  if (bytes === undefined) throw badArguments("put command needs 1 argument and input from stdin or 2 arguments");
  return api.PutRequest.create({
    key: keyOf(key),
    value: bytes,
    lease: leaseOf(flags.string("lease")),
    prevKv: flags.bool("prev-kv"),
    ignoreValue,
    ignoreLease: flags.bool("ignore-lease"),
  });
}

/** @throws ExitError */
export function rangeRequest(args: readonly string[], flags: FlagSet): api.RangeRequest {
  const { key, rangeEnd } = keyRange("get", args, flags);
  const keysOnly = flags.bool("keys-only");
  const countOnly = flags.bool("count-only");
  if (keysOnly && countOnly) throw badArguments("`--keys-only` and `--count-only` cannot be set at the same time, choose one");
  const consistency = flags.string("consistency");
  if (consistency !== "l" && consistency !== "s")
    throw new ExitError(Status.badFeature, `unknown consistency flag ${JSON.stringify(consistency)}`);
  const orderName = flags.string("order").toUpperCase();
  const targetName = flags.string("sort-by").toUpperCase();
  const sortOrder = ORDERS.get(orderName);
  const sortTarget = TARGETS.get(targetName);
  if (sortOrder === undefined) throw new ExitError(Status.badFeature, `bad sort order ${flags.string("order")}`);
  if (sortTarget === undefined) throw new ExitError(Status.badFeature, `bad sort target ${flags.string("sort-by")}`);
  // Keys come in their order anyway, and servers that stream answers take no sorting.
  const isNatural = sortTarget === api.SortTarget.KEY && sortOrder === api.SortOrder.ASCEND;
  return api.RangeRequest.create({
    key,
    rangeEnd,
    limit: counter(flags.integer("limit")),
    revision: counter(flags.integer("rev")),
    sortOrder: isNatural ? api.SortOrder.NONE : sortOrder,
    sortTarget,
    serializable: consistency === "s",
    keysOnly,
    countOnly,
    minCreateRevision: counter(flags.integer("min-create-rev")),
    maxCreateRevision: counter(flags.integer("max-create-rev")),
    minModRevision: counter(flags.integer("min-mod-rev")),
    maxModRevision: counter(flags.integer("max-mod-rev")),
  });
}

/** @throws ExitError */
export function deleteRequest(args: readonly string[], flags: FlagSet): api.DeleteRangeRequest {
  return api.DeleteRangeRequest.create({ ...keyRange("del", args, flags), prevKv: flags.bool("prev-kv") });
}

function keyRange(command: "get" | "del", args: readonly string[], flags: FlagSet): KeyRange {
  const [first, end] = args;
  const prefix = flags.bool("prefix");
  const fromKey = flags.bool("from-key");
  if (prefix && fromKey) throw badArguments("`--prefix` and `--from-key` cannot be set at the same time, choose one");
  if (first === undefined || (command === "del" && args.length > 2)) {
    throw badArguments(`${command} command needs one argument as key and an optional argument as range_end`);
  }
  if ((prefix || fromKey) && args.length > 1)
    throw badArguments("too many arguments, only accept one argument when `--prefix` or `--from-key` is set");
  const key = keyOf(first);
  if (prefix) return prefixRange(key);
  if (fromKey) return fromKeyRange(key);
  return { key, rangeEnd: keyOf(end ?? "") };
}
