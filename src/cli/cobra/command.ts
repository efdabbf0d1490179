/** A tree of commands, and how a line finds its way to one: prefixes of names suffice, flags may stand anywhere. */
import { FlagError, FlagSet, type FlagSpec } from "./flags.ts";
import { helpText, usageText } from "./usage.ts";

export interface Invocation<Context> {
  readonly context: Context;
  readonly flags: FlagSet;
  /** What is no flag. */
  readonly args: readonly string[];
  /** How many of `args` stand before `--`; -1 without one. */
  readonly dash: number;
}

export interface Command<Context> {
  /** The name, then what it takes, such as `put [options] <key> <value>`. */
  readonly use: string;
  readonly short: string;
  /** Replaces `short` in the list of commands above. */
  readonly listed?: string;
  /** Replaces `short` in the command's own help. */
  readonly long?: string;
  readonly example?: string;
  /** Title under which the root's help lists it. */
  readonly group?: string;
  readonly flags?: readonly FlagSpec[];
  /** Flags of this and of all commands below. */
  readonly persistentFlags?: readonly FlagSpec[];
  readonly required?: readonly string[];
  readonly commands?: readonly Command<Context>[];
  /** What is wrong with the arguments, if anything: shown with the usage. */
  readonly checkArgs?: (args: readonly string[], path: string) => string | undefined;
  /** Absent: the command shows its help. */
  readonly run?: (invocation: Invocation<Context>) => Promise<void> | void;
}

export interface Tool<Context> extends Command<Context> {
  /** The root's own flags are hidden in usages, because a command of its own shows them; this line points there. */
  readonly hint?: string;
  /** Errors of usage are said again at the end, as some tools do. */
  readonly repeatsErrors?: boolean;
}

/** Ends a run with that status. `message` goes to stderr behind `Error: `, unless it is empty. */
export class ExitError extends Error {
  readonly status: number;

  constructor(status: number, message = "") {
    super(message);
    this.status = status;
  }
}

export interface Output {
  stdout(data: string | Uint8Array): void;
  stderr(text: string): void;
}

/** A command and those above it, the root first. */
export type Path<Context> = readonly [Tool<Context>, ...Command<Context>[]];

export function nameOf(command: { readonly use: string }): string {
  return command.use.split(" ", 1)[0] as string;
}

export function pathText<Context>(path: readonly Command<Context>[]): string {
  return path.map(nameOf).join(" ");
}

const HELP_FLAG = "help";
const NAMES_MISSING_DISTANCE = 2;

/** Runs one line; returns the status. Errors that are no ExitError are the caller's. */
export async function runTool<Context>(tool: Tool<Context>, words: readonly string[], context: Context, output: Output): Promise<number> {
  const root: Tool<Context> = { ...tool, commands: [...(tool.commands ?? []), helpCommand(tool, output)] };
  const { path, rest } = find([root], words);
  const command = path.at(-1) as Command<Context>;
  const fail = (message: string): number => {
    output.stderr(`Error: ${message}\n${usageText(path)}\n`);
    if (tool.repeatsErrors === true) output.stderr(`Error: ${message}\n`);
    return 1;
  };

  const flags = new FlagSet(flagsOf(path));
  let args: string[];
  let dash: number;
  try {
    ({ words: args, dash } = flags.parse(rest));
  } catch (error) {
    if (!(error instanceof FlagError)) throw error;
    return fail(error.message);
  }
  const [unknown] = args;
  if (path.length === 1 && unknown !== undefined) {
    const text = `Error: unknown command ${JSON.stringify(unknown)} for "${nameOf(root)}"${suggestionsText(root, unknown)}\n`;
    output.stderr(`${text}Run '${nameOf(root)} --help' for usage.\n`);
    if (tool.repeatsErrors === true) output.stderr(text);
    return 1;
  }
  if (flags.bool(HELP_FLAG) || command.run === undefined) {
    output.stdout(helpText(path));
    return 0;
  }
  const wrong = command.checkArgs?.(args, pathText(path));
  if (wrong !== undefined) return fail(wrong);
  const missing = (command.required ?? []).filter((name) => !flags.has(name));
  if (missing.length > 0) return fail(`required flag(s) ${missing.map((name) => JSON.stringify(name)).join(", ")} not set`);
  try {
    await command.run({ context, flags, args, dash });
    return 0;
  } catch (error) {
    if (!(error instanceof ExitError)) throw error;
    if (error.message !== "") output.stderr(`Error: ${error.message}\n`);
    return error.status;
  }
}

/** Flags that a command takes: its own, help, and what the commands above hand down. */
export function flagsOf<Context>(path: readonly Command<Context>[]): FlagSpec[] {
  const command = path.at(-1) as Command<Context>;
  const inherited = path.slice(0, -1).flatMap((above) => above.persistentFlags ?? []);
  return [...localFlags(command), ...inherited];
}

export function localFlags<Context>(command: Command<Context>): FlagSpec[] {
  const help: FlagSpec = { name: HELP_FLAG, short: "h", kind: "bool", help: `help for ${nameOf(command)}` };
  return [...(command.flags ?? []), ...(command.persistentFlags ?? []), help];
}

/** Walks down as far as the words name commands; `rest` are the words without those names. */
function find<Context>(path: Path<Context>, words: readonly string[]): { path: Path<Context>; rest: readonly string[] } {
  const at = firstArgument(flagsOf(path), words);
  if (at < 0) return { path, rest: words };
  const command = path.at(-1) as Command<Context>;
  const next = select(command.commands ?? [], words[at] as string);
  if (next === undefined) return { path, rest: words };
  return find([...path, next] as unknown as Path<Context>, words.toSpliced(at, 1));
}

/** The exact name, or the only one that begins so. */
function select<Context>(commands: readonly Command<Context>[], word: string): Command<Context> | undefined {
  const exact = commands.find((command) => nameOf(command) === word);
  if (exact !== undefined) return exact;
  const matches = commands.filter((command) => nameOf(command).startsWith(word));
  return matches.length === 1 ? matches[0] : undefined;
}

/** Index of the first word that is neither a flag nor a flag's value; -1 for none. */
function firstArgument(specs: readonly FlagSpec[], words: readonly string[]): number {
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] as string;
    if (word === "--") return -1;
    if (!word.startsWith("-") || word === "-") return at;
    if (word.includes("=")) continue;
    const spec = word.startsWith("--")
      ? specs.find(({ name }) => name === word.slice(2))
      : word.length === 2
        ? specs.find(({ short }) => short === word[1])
        : undefined;
    if (spec !== undefined ? spec.kind !== "bool" : word.startsWith("--")) at += 1;
  }
  return -1;
}

function suggestionsText<Context>(root: Command<Context>, word: string): string {
  const typed = word.toLowerCase();
  const close = (root.commands ?? []).filter(
    (command) =>
      nameOf(command) !== "help" && (editDistance(typed, nameOf(command)) <= NAMES_MISSING_DISTANCE || nameOf(command).startsWith(typed)),
  );
  return close.length === 0 ? "" : `\n\nDid you mean this?\n${close.map((command) => `\t${nameOf(command)}\n`).join("")}`;
}

function editDistance(a: string, b: string): number {
  if (a.length > 100) return Number.POSITIVE_INFINITY;
  let before = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const change = (before[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(change, (before[j] as number) + 1, (row[j - 1] as number) + 1));
    }
    before = row;
  }
  return before[b.length] as number;
}

function helpCommand<Context>(tool: Tool<Context>, output: Output): Command<Context> {
  const name = nameOf(tool);
  return {
    use: "help [command]",
    short: "Help about any command",
    long: `Help provides help for any command in the application.\nSimply type ${name} help [path to command] for full details.`,
    group: tool.commands?.at(-1)?.group ?? "",
    run: ({ args }) => {
      const root: Tool<Context> = { ...tool, commands: [...(tool.commands ?? []), helpCommand(tool, output)] };
      const { path } = find([root], args);
      if (path.length === 1 && args.length > 0) {
        output.stderr(`Unknown help topic [${args.map((arg) => `\`${arg}\``).join(" ")}]\n${usageText(path)}\n`);
        return;
      }
      output.stdout(helpText(path));
    },
  };
}
