/** put, get, del, compaction. */
import * as api from "../../api/index.ts";
import type { Command } from "../cobra/command.ts";
import { ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import { NumberError, parseInteger } from "../cobra/flags.ts";
import type { Client } from "./client.ts";
import { badArguments, Status, withClient } from "./context.ts";
import { showDelete, showPut, showRange } from "./kv-answers.ts";
import { counter, DEL_FLAGS, deleteRequest, GET_FLAGS, PUT_FLAGS, putRequest, rangeRequest } from "./kv-requests.ts";

const RANGE_DELETE_DELAY_MS = 2000;

export const put: Command<ToolFace> = {
  use: "put [options] <key> <value> (<value> can also be given from stdin)",
  short: "Puts the given key into the store",
  long: [
    "Puts the given key into the store.",
    "",
    "A <value> that begins with '-' would be taken for a flag; two dashes before it prevent that:",
    "",
    "  put <key> -- <value>",
    "",
    "Without a <value>, and without --ignore-value, the value is read from the standard input, up to its end.",
  ].join("\n"),
  flags: PUT_FLAGS,
  run: async (call) => {
    const { stdin } = call.context;
    const request = await putRequest(call.args, call.flags, async () => {
      if (stdin.isTerminal) return undefined;
      const value = await stdin.readAll();
      return value.byteLength === 0 ? undefined : value;
    });
    await withClient(call, async (client, { printer, timeoutMs }) =>
      showPut(printer, await client.call(api.KvService.put, request, { timeoutMs })),
    );
  },
};

export const get: Command<ToolFace> = {
  use: "get [options] <key> [range_end]",
  short: "Gets the key or a range of keys",
  flags: GET_FLAGS,
  run: async (call) => {
    const { flags } = call;
    const request = rangeRequest(call.args, flags);
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = flags.bool("stream")
        ? await streamed(client, request, timeoutMs)
        : await client.call(api.KvService.range, request, { timeoutMs });
      if (request.countOnly && printer.format !== "fields") throw badArguments("--count-only is only for `--write-out=fields`");
      const valuesOnly = flags.bool("print-value-only");
      if (valuesOnly && printer.format !== "simple") throw badArguments("print-value-only is only for `--write-out=simple`");
      showRange(printer, response, { valuesOnly });
    });
  },
};

/** The pieces of a streamed answer as one. */
async function streamed(client: Client, request: api.RangeRequest, timeoutMs: number): Promise<api.RangeResponse> {
  const whole = api.RangeResponse.create();
  for await (const { rangeResponse } of client.stream(api.KvService.rangeStream, request, { timeoutMs })) {
    if (rangeResponse === undefined) continue;
    whole.kvs.push(...rangeResponse.kvs);
    whole.header ??= rangeResponse.header;
    whole.more ||= rangeResponse.more;
    whole.count = Math.max(whole.count, rangeResponse.count);
  }
  return whole;
}

export const del: Command<ToolFace> = {
  use: "del [options] <key> [range_end]",
  short: "Removes the specified key or range of keys [key, range_end)",
  flags: DEL_FLAGS,
  run: async (call) => {
    const { args, flags } = call;
    const request = deleteRequest(args, flags);
    if (args.length === 2 && !flags.bool("range")) {
      call.context.stderr(
        `Warning: Keys between ${JSON.stringify(args[0])} and ${JSON.stringify(args[1])} will be deleted. Please interrupt the command within next 2 seconds to cancel. You can provide \`--range\` flag to avoid the delay.\n`,
      );
      await new Promise((resolve) => setTimeout(resolve, RANGE_DELETE_DELAY_MS));
    }
    await withClient(call, async (client, { printer, timeoutMs }) =>
      showDelete(printer, await client.call(api.KvService.deleteRange, request, { timeoutMs })),
    );
  },
};

export const compaction: Command<ToolFace> = {
  use: "compaction [options] <revision>",
  short: "Compacts the event history in etcd",
  flags: [{ name: "physical", kind: "bool", help: "'true' to wait for compaction to physically remove all old revisions" }],
  run: async (call) => {
    const [text] = call.args;
    if (text === undefined || call.args.length > 1) throw badArguments("compaction command needs 1 argument");
    let revision: number;
    try {
      revision = counter(parseInteger(text, { signed: true, base: 10 }));
    } catch (error) {
      if (!(error instanceof NumberError)) throw error;
      throw new ExitError(Status.error, error.message);
    }
    const physical = call.flags.bool("physical");
    await withClient(call, async (client, { timeoutMs }) => {
      // Waiting for the removal takes as long as it takes.
      const request = api.CompactionRequest.create({ revision, physical });
      await client.call(api.KvService.compact, request, physical ? {} : { timeoutMs });
      call.context.stdout(`compacted revision ${revision}\n`);
    });
  },
};
