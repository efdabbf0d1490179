/** What the commands on files share: global flags, the output formats, and what becomes of errors. */
import { EtcdError } from "../../base/errors.ts";
import { ValueError } from "../../embed/index.ts";
import { type Patience, StoreBusyError } from "../../embed/offline.ts";
import { ExitError, type Invocation } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import type { FlagSpec } from "../cobra/flags.ts";
import { table } from "../cobra/go-format.ts";
import { createLogger, type ProcessLogger } from "../log.ts";

export type Call = Invocation<ToolFace>;

export const GLOBAL_FLAGS: readonly FlagSpec[] = [
  { name: "timeout", kind: "duration", default: "10s", help: "time to wait for a store that somebody else uses, 0 to wait for ever" },
  {
    name: "write-out",
    short: "w",
    kind: "string",
    default: "simple",
    help: "set the output format (fields, json, protobuf, simple, table)",
  },
];

/** Exit statuses, which scripts look at. */
export const Status = { error: 1, busy: 2, badFeature: 4, badArguments: 128 } as const;

const FORMATS = new Set(["fields", "json", "protobuf", "simple", "table"]);

/** One answer in all formats. */
export interface Answer {
  readonly simple: string;
  readonly json: object;
  /** Names and values as they are shown. */
  readonly fields: readonly (readonly [string, string])[];
  readonly table: { readonly headings: readonly string[]; readonly rows: readonly (readonly string[])[] };
}

/** Checks the wish for a format before anything is done. @throws ExitError */
export function formatOf({ flags }: Call): string {
  const format = flags.string("write-out");
  if (!FORMATS.has(format)) throw new ExitError(Status.badFeature, "unsupported output format");
  return format;
}

/** @throws ExitError for a format that there is not */
export function show(call: Call, answer: Answer): void {
  const { context } = call;
  switch (formatOf(call)) {
    case "simple":
      context.stdout(`${answer.simple}\n`);
      return;
    case "json":
      context.stdout(`${JSON.stringify(answer.json)}\n`);
      return;
    case "fields":
      context.stdout(answer.fields.map(([name, value]) => `"${name}" : ${value}\n`).join(""));
      return;
    case "table":
      context.stdout(table(answer.table.headings, answer.table.rows));
      return;
    default:
      throw new ExitError(Status.badFeature, `${formatOf(call)} not supported as output format`);
  }
}

export function patienceOf({ flags }: Call): Patience {
  return { lockTimeoutMs: flags.durationMs("timeout") };
}

/** Lines for people on stderr. */
export function logTo({ context }: Call): ProcessLogger {
  return createLogger({
    level: "info",
    format: "console",
    streams: [{ write: (line) => context.stderr(line) }],
    wallMs: () => Date.now(),
  });
}

/** What went wrong, in the words of etcd's tools where they have some. */
export function problemText(error: unknown, verb: "open" | "stat"): string | undefined {
  if (EtcdError.is(error)) return error.message;
  const { code, path, message } = error as NodeJS.ErrnoException;
  if (code === undefined) return error instanceof ValueError ? message : undefined;
  return code === "ENOENT" && path !== undefined ? `${verb} ${path}: no such file or directory` : message;
}

/** Runs a command; what is known to go wrong becomes its status, anything else a crash with its stack. */
export async function orFail<T>(
  verb: "open" | "stat",
  work: () => Promise<T>,
  wrap: (text: string) => string = (text) => text,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const text = problemText(error, verb);
    if (text === undefined) throw error;
    throw new ExitError(error instanceof StoreBusyError ? Status.busy : Status.error, wrap(text));
  }
}

/** Exactly `count` arguments, in the words of etcd's tool. */
export function exactly(count: number): (args: readonly string[]) => string | undefined {
  return (args) => (args.length === count ? undefined : `accepts ${count} arg(s), received ${args.length}`);
}
