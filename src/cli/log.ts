/** Logs as etcd writes them: one JSON object per line (level, ts, msg, then the fields), or tab-separated for people. */
import { type DestinationStream, multistream, pino } from "pino";
import type { LogFields, Logger } from "../base/logger.ts";
import type { ResolvedConfig } from "../embed/index.ts";

/** A logger with the level that only a process has: its last words. */
export interface ProcessLogger extends Logger {
  fatal(fields: LogFields, message: string): void;
}

export interface LogSettings extends Pick<ResolvedConfig["log"], "level" | "format"> {
  /** Each gets every line, with its line end. */
  readonly streams: readonly DestinationStream[];
  /** Milliseconds since the Unix epoch. */
  readonly wallMs: () => number;
}

/** Go's panic levels stand above error; of ours only the last words do. */
const THRESHOLDS = { debug: "debug", info: "info", warn: "warn", error: "error", dpanic: "fatal", panic: "fatal", fatal: "fatal" } as const;

export function createLogger(settings: LogSettings): ProcessLogger {
  const streams = settings.format === "json" ? settings.streams : settings.streams.map(consoleStream);
  const [only, ...more] = streams;
  const sink = pino(
    {
      level: THRESHOLDS[settings.level],
      base: null,
      timestamp: () => `,"ts":"${timestamp(settings.wallMs())}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    only !== undefined && more.length === 0 ? only : multistream(streams.map((stream) => ({ level: "debug", stream }))),
  );
  const bound = (bindings: LogFields): ProcessLogger => {
    // The message goes in as a field, because it comes before the others in etcd's lines.
    const line = (fields: LogFields, msg: string): LogFields => readable({ msg, ...bindings, ...fields });
    return {
      debug: (fields, message) => void (sink.isLevelEnabled("debug") && sink.debug(line(fields, message))),
      info: (fields, message) => void (sink.isLevelEnabled("info") && sink.info(line(fields, message))),
      warn: (fields, message) => void (sink.isLevelEnabled("warn") && sink.warn(line(fields, message))),
      error: (fields, message) => void (sink.isLevelEnabled("error") && sink.error(line(fields, message))),
      fatal: (fields, message) => sink.fatal(line(fields, message)),
      child: (fields) => bound({ ...bindings, ...fields }),
    };
  };
  return bound({});
}

/** ISO 8601 in UTC with microseconds; the clock gives milliseconds. */
function timestamp(wallMs: number): string {
  return `${new Date(wallMs).toISOString().slice(0, -1)}000Z`;
}

/** Errors by their message (with the stack beside the one called `error`), ids as text. */
function readable(fields: LogFields): LogFields {
  const entries = Object.entries(fields).flatMap(([name, value]): [string, unknown][] => {
    if (typeof value === "bigint") return [[name, value.toString()]];
    if (!(value instanceof Error)) return [[name, value]];
    // A stack is worth its length only where the error was not expected.
    const expected = "reason" in value || "code" in value;
    return expected || value.stack === undefined
      ? [[name, value.message]]
      : [
          [name, value.message],
          ["stacktrace", value.stack],
        ];
  });
  return Object.fromEntries(entries);
}

/** `ts<TAB>level<TAB>msg<TAB>{fields}` */
function consoleStream(stream: DestinationStream): DestinationStream {
  return {
    write: (text) => {
      const { level, ts, msg, ...fields } = JSON.parse(text) as Record<string, unknown>;
      const rest = Object.keys(fields).length === 0 ? "" : `\t${JSON.stringify(fields)}`;
      stream.write(`${String(ts)}\t${String(level)}\t${String(msg)}${rest}\n`);
    },
  };
}
