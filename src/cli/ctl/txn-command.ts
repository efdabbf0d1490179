/** txn: compares and requests, line by line from the standard input. */
import * as api from "../../api/index.ts";
import { type Command, ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import { FlagError, FlagSet, type FlagSpec, NumberError, parseInteger } from "../cobra/flags.ts";
import { quoted } from "../cobra/go-format.ts";
import { flagLines } from "../cobra/usage.ts";
import { badArguments, Status, withClient } from "./context.ts";
import { showTxn } from "./kv-answers.ts";
import { counter, DEL_FLAGS, deleteRequest, GET_FLAGS, PUT_FLAGS, putRequest, rangeRequest } from "./kv-requests.ts";
import { splitWords, takeQuoted } from "./quoted-text.ts";

const RESULTS = new Map<string, number>([
  ["=", api.CompareResult.EQUAL],
  ["!=", api.CompareResult.NOT_EQUAL],
  [">", api.CompareResult.GREATER],
  ["<", api.CompareResult.LESS],
]);

export const txn: Command<ToolFace> = {
  use: "txn [options]",
  short: "Txn processes all the requests in one transaction",
  long: [
    "Reads a transaction from the standard input and carries it out as a whole.",
    "",
    "Three parts follow each other, each ended by an empty line: comparisons, requests for the case that all of them hold, requests for",
    "the case that one does not.",
    "",
    '  mod("key1") > "0"',
    "",
    '  put key1 "overwrote-key1"',
    "",
    '  put key1 "created-key1"',
    '  put key2 "some extra key"',
    "",
    "Comparisons are ver, create, mod or val of a key with =, !=, > or < and a quoted value. Requests are put, get and del with their flags.",
  ].join("\n"),
  flags: [{ name: "interactive", short: "i", kind: "bool", help: "Say what is to be typed next" }],
  run: async (call) => {
    const { args, flags, context: face } = call;
    if (args.length > 0) throw badArguments("txn command does not accept argument");
    const prompt = (text: string): void => {
      if (flags.bool("interactive")) face.stdout(`${text}\n`);
    };
    const request = api.TxnRequest.create();
    prompt("compares:");
    for (const line of await section(face)) request.compare.push(parseCompare(line));
    prompt("success requests (get, put, del):");
    for (const line of await section(face)) request.success.push(await parseOperation(line, face));
    prompt("failure requests (get, put, del):");
    for (const line of await section(face)) request.failure.push(await parseOperation(line, face));
    await withClient(call, async (client, { printer, timeoutMs }) =>
      showTxn(printer, await client.call(api.KvService.txn, request, { timeoutMs })),
    );
  },
};

/** Lines up to the next empty one. */
async function section(face: ToolFace): Promise<string[]> {
  const lines: string[] = [];
  for (;;) {
    const line = await face.stdin.readLine();
    if (line === undefined) throw new ExitError(Status.invalidInput, "EOF");
    const text = line.trim();
    if (text === "") return lines;
    lines.push(text);
  }
}

/** `target("key") op "value"`. @throws ExitError */
export function parseCompare(line: string): api.Compare {
  const paren = line.indexOf("(");
  if (paren < 0) throw new ExitError(Status.invalidInput, `malformed comparison: ${line}`);
  const target = line.slice(0, paren);
  const key = takeQuoted(line.slice(paren + 1));
  const operator = key === undefined ? undefined : /^\)\s+(\S+)(.*)$/.exec(key.rest);
  const value = operator === undefined || operator === null || !/^\s/.test(operator[2] ?? "") ? undefined : takeQuoted(operator[2] ?? "");
  if (key === undefined || operator === undefined || operator === null || value === undefined) {
    const got = `${target}(${quoted(key?.bytes ?? "")}) ${operator?.[1] ?? ""} ""`;
    throw new ExitError(Status.invalidInput, `malformed comparison: ${line}; got ${got}`);
  }
  const result = RESULTS.get(operator[1] ?? "");
  // Where etcd's tool breaks down, its status with words.
  if (result === undefined) throw new ExitError(Status.badConnection, `unknown result op: ${operator[1]} in ${line}`);
  const number = (base: 10 | 16): bigint => {
    try {
      return parseInteger(Buffer.from(value.bytes).toString("utf8"), { signed: true, base });
    } catch (error) {
      if (!(error instanceof NumberError)) throw error;
      throw new ExitError(Status.invalidInput, `invalid txn compare request: ${line}`);
    }
  };
  const compare = { key: key.bytes, result };
  switch (target) {
    case "ver":
    case "version":
      return api.Compare.create({ ...compare, target: api.CompareTarget.VERSION, version: counter(number(10)) });
    case "c":
    case "create":
      return api.Compare.create({ ...compare, target: api.CompareTarget.CREATE, createRevision: counter(number(10)) });
    case "m":
    case "mod":
      return api.Compare.create({ ...compare, target: api.CompareTarget.MOD, modRevision: counter(number(10)) });
    case "val":
    case "value":
      return api.Compare.create({ ...compare, target: api.CompareTarget.VALUE, value: value.bytes });
    case "lease":
      return api.Compare.create({ ...compare, target: api.CompareTarget.LEASE, lease: number(16) });
    default:
      throw new ExitError(Status.invalidInput, `malformed comparison: ${line} (unknown target ${target})`);
  }
}

const OPERATIONS: Readonly<Record<string, readonly FlagSpec[]>> = { put: PUT_FLAGS, get: GET_FLAGS, del: DEL_FLAGS };

async function parseOperation(line: string, face: ToolFace): Promise<api.RequestOp> {
  const [name = "", ...words] = splitWords(line);
  if (words.length === 0) throw new ExitError(Status.invalidInput, `invalid txn compare request: ${line}`);
  const specs = OPERATIONS[name];
  if (specs === undefined) throw new ExitError(Status.invalidInput, `invalid txn request: ${line}`);
  const flags = new FlagSet(specs);
  let args: string[];
  try {
    ({ words: args } = flags.parse(words));
  } catch (error) {
    if (!(error instanceof FlagError)) throw error;
    face.stderr(`Error: ${error.message}\nFlags of ${name}:\n${flagLines(specs).join("\n")}\n\n`);
    throw new ExitError(Status.invalidInput, `invalid txn request: ${line}`);
  }
  if (name === "put") return api.RequestOp.create({ requestPut: await putRequest(args, flags, async () => undefined) });
  if (name === "get") return api.RequestOp.create({ requestRange: rangeRequest(args, flags) });
  return api.RequestOp.create({ requestDeleteRange: deleteRequest(args, flags) });
}
