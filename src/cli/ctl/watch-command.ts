/** watch, also with programs to run for events, and interactively with several watches. */
import * as api from "../../api/index.ts";
import { type Command, ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import { FlagError, FlagSet, type FlagSpec } from "../cobra/flags.ts";
import { quoted } from "../cobra/go-format.ts";
import type { Client } from "./client.ts";
import { badArguments, type Ctl, Status, withClient } from "./context.ts";
import { type KeyRange, keyOf, prefixRange } from "./key-ranges.ts";
import { showWatch } from "./kv-answers.ts";
import { counter } from "./kv-requests.ts";
import { splitWords } from "./quoted-text.ts";
import { isProgressNotify, WatchStream } from "./watcher.ts";

const KEY_VARIABLE = "ETCDCTL_WATCH_KEY";
const END_VARIABLE = "ETCDCTL_WATCH_RANGE_END";

/** Flags that each line of the interactive mode may have, too. */
const LINE_FLAGS: readonly FlagSpec[] = [
  { name: "prefix", kind: "bool", help: "Watch on a prefix if prefix is set" },
  { name: "rev", kind: "int", help: "Revision to start watching" },
  { name: "prev-kv", kind: "bool", help: "get the previous key-value pair before the event happens" },
];
const PROGRESS_FLAG: FlagSpec = { name: "progress-notify", kind: "bool", help: "get periodic watch progress notification from server" };

export const watch: Command<ToolFace> = {
  use: "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
  short: "Watches events stream on keys or prefixes",
  flags: [{ name: "interactive", short: "i", kind: "bool", help: "Interactive mode" }, PROGRESS_FLAG, ...LINE_FLAGS],
  run: async (call) => {
    const { flags, args, dash } = call;
    if (flags.bool("interactive")) {
      await withClient(call, (client, ctl) => interactive(client, ctl));
      return;
    }
    const wanted = wantedOf(args, dash, flags, call.context);
    await withClient(call, async (client, ctl) => {
      const stream = new WatchStream(client, new AbortController().signal);
      add(stream, wanted, flags.bool("progress-notify"), ctl, () => {
        throw new ExitError(Status.interrupted, "watch is canceled by the server");
      });
      await stream.run();
    });
  },
};

/** Keys that exclude each other: the end of the command, but not of an interactive session. */
class KeyRangeError extends ExitError {
  constructor(message: string) {
    super(Status.badArguments, message);
  }
}

interface Wanted {
  readonly range: KeyRange;
  readonly startRevision: number;
  readonly prevKv: boolean;
  readonly program: readonly string[];
}

function wantedOf(args: readonly string[], dash: number, flags: FlagSet, face: ToolFace): Wanted {
  const keys = [...(dash < 0 ? args : args.slice(0, dash))];
  const program = dash < 0 ? [] : args.slice(dash);
  const variableKey = face.environment[KEY_VARIABLE] ?? "";
  const variableEnd = face.environment[END_VARIABLE] ?? "";
  if (variableKey === "" && variableEnd !== "")
    throw badArguments(`${KEY_VARIABLE} is empty but got ${END_VARIABLE}=${JSON.stringify(variableEnd)}`);
  if (variableKey !== "" && keys.length > 0) throw badArguments("bad number of arguments (found conflicting environment key)");
  if (dash >= 0 && program.length === 0) throw badArguments("bad number of arguments (found separator --, but no commands)");
  if (variableKey !== "") keys.push(variableKey, ...(variableEnd === "" ? [] : [variableEnd]));
  const [key, end] = keys;
  if (key === undefined) throw badArguments("bad number of arguments");
  const prefix = flags.bool("prefix");
  if (prefix && end !== undefined) throw new KeyRangeError("`range_end` and `--prefix` are mutually exclusive");
  return {
    range: prefix ? prefixRange(keyOf(key)) : { key: keyOf(key), rangeEnd: keyOf(end ?? "") },
    startRevision: counter(flags.integer("rev")),
    prevKv: flags.bool("prev-kv"),
    program,
  };
}

function add(stream: WatchStream, wanted: Wanted, progressNotify: boolean, ctl: Ctl, onCanceled: () => void): void {
  const { range, startRevision, prevKv, program } = wanted;
  const request = api.WatchCreateRequest.create({ ...range, startRevision, prevKv, progressNotify });
  const { face, printer } = ctl;
  stream.add(request, async (response) => {
    if (response.canceled) {
      const why = response.compactRevision > 0 ? api.RPC_ERRORS.compacted[1] : response.cancelReason || api.RPC_ERRORS["watch-canceled"][1];
      face.stderr(`watch was canceled (${why})\n`);
    }
    if (isProgressNotify(response)) face.stdout(`progress notify: ${response.header?.revision}\n`);
    showWatch(printer, response);
    if (program.length > 0) {
      for (const event of response.events) await runFor(event, response, program, face);
    }
    if (response.canceled) onCanceled();
  });
}

/** Runs the program for one event. Its failure ends everything. */
async function runFor(event: api.Event, response: api.WatchResponse, program: readonly string[], face: ToolFace): Promise<void> {
  const fail = (why: string): ExitError => {
    face.stderr(`command [${program.map((word) => quoted(word)).join(" ")}] error (${why})\n`);
    return new ExitError(Status.error);
  };
  let status: number;
  try {
    status = await face.runProgram(program, {
      ETCD_WATCH_REVISION: String(response.header?.revision ?? 0),
      ETCD_WATCH_EVENT_TYPE: event.type === api.EventType.DELETE ? '"DELETE"' : '"PUT"',
      ETCD_WATCH_KEY: quoted(event.kv?.key ?? ""),
      ETCD_WATCH_VALUE: quoted(event.kv?.value ?? ""),
    });
  } catch (error) {
    throw fail((error as Error).message);
  }
  if (status !== 0) throw fail(`exit status ${status}`);
}

async function interactive(client: Client, ctl: Ctl): Promise<void> {
  const { flags } = ctl;
  const abort = new AbortController();
  const stream = new WatchStream(client, abort.signal);
  const running = stream.run();
  try {
    await Promise.race([readLines(stream, ctl, flags.bool("progress-notify")), running]);
  } finally {
    abort.abort();
  }
}

async function readLines(stream: WatchStream, ctl: Ctl, progressNotify: boolean): Promise<void> {
  const { face } = ctl;
  for (;;) {
    const line = await face.stdin.readLine();
    if (line === undefined) throw new ExitError(Status.invalidInput, "error reading watch request line: EOF");
    const words = splitWords(line);
    const [command, ...rest] = words;
    if (command === undefined) {
      face.stderr(`Invalid command: ${line.trim()} (watch and progress supported)\n`);
    } else if (command === "progress") {
      stream.progress();
    } else if (command !== "watch") {
      face.stderr(`Invalid command ${line} (only support watch)\n`);
    } else if (rest.length === 0 && (face.environment[KEY_VARIABLE] ?? "") === "") {
      face.stderr(`Invalid command ${line} (command type or key is not provided)\n`);
    } else {
      try {
        add(stream, lineWanted(rest, face), progressNotify, ctl, () => undefined);
      } catch (error) {
        if (!(error instanceof KeyRangeError)) throw error;
        face.stderr(`Invalid command ${line} (${error.message})\n`);
      }
    }
  }
}

function lineWanted(words: readonly string[], face: ToolFace): Wanted {
  const flags = new FlagSet(LINE_FLAGS);
  try {
    const { words: args, dash } = flags.parse(words);
    return wantedOf(args, dash, flags, face);
  } catch (error) {
    throw error instanceof FlagError ? badArguments(error.message) : error;
  }
}
