/** What `--help` and a mistake show. */
import { type Command, localFlags, nameOf, type Path, pathText, type Tool } from "./command.ts";
import type { FlagSpec } from "./flags.ts";

const NAME_WIDTH_MIN = 11;

export function helpText<Context>(path: Path<Context>): string {
  const command = path.at(-1) as Command<Context>;
  const tool: Tool<Context> = path[0];
  const hint = tool.hint === undefined ? "" : `${tool.hint}\n`;
  return `${(command.long ?? command.short).trimEnd()}\n\n${usageText(path)}${hint}`.replace(/^\n\n/, "");
}

/** Ends in a line break. */
export function usageText<Context>(path: Path<Context>): string {
  const command = path.at(-1) as Command<Context>;
  const tool: Tool<Context> = path[0];
  const isRoot = path.length === 1;
  const commands = command.commands ?? [];
  const full = pathText(path);
  const lines = ["Usage:"];
  if (command.run !== undefined) lines.push(`  ${[pathText(path.slice(0, -1)), command.use].filter(Boolean).join(" ")} [flags]`);
  if (commands.length > 0) lines.push(`  ${full} [command]`);
  if (command.example !== undefined) lines.push("", "Examples:", command.example);
  if (commands.length > 0) lines.push(...commandLines(commands, isRoot && tool.hint !== undefined));
  const hidesOwn = isRoot && tool.hint !== undefined;
  if (!hidesOwn) lines.push("", "Flags:", ...flagLines(localFlags(command)));
  const inherited = path
    .slice(0, -1)
    .filter((_, depth) => depth > 0 || tool.hint === undefined)
    .flatMap((above) => above.persistentFlags ?? []);
  if (inherited.length > 0) lines.push("", "Global Flags:", ...flagLines(inherited));
  if (commands.length > 0) lines.push("", `Use "${full} [command] --help" for more information about a command.`);
  return `${lines.join("\n")}\n`;
}

function commandLines<Context>(commands: readonly Command<Context>[], grouped: boolean): string[] {
  const width = Math.max(NAME_WIDTH_MIN, ...commands.map((command) => nameOf(command).length));
  const line = (command: Command<Context>): string => `  ${nameOf(command).padEnd(width)} ${command.listed ?? command.short}`;
  const sorted = [...commands].sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
  if (!grouped) return ["", "Available Commands:", ...sorted.map(line)];
  const groups = [...new Set(commands.map(({ group }) => group ?? ""))];
  return groups.flatMap((group) => ["", group, ...sorted.filter((command) => (command.group ?? "") === group).map(line)]);
}

export function flagLines(specs: readonly FlagSpec[]): string[] {
  const sorted = [...specs].sort((a, b) => (a.name < b.name ? -1 : 1));
  const heads = sorted.map((spec) => {
    const type = spec.kind === "bool" ? "" : ` ${spec.kind}`;
    return `  ${spec.short === undefined ? "    " : `-${spec.short}, `}--${spec.name}${type}`;
  });
  const width = Math.max(...heads.map((head) => head.length));
  return sorted.map((spec, at) => `${(heads[at] as string).padEnd(width)}   ${spec.help}${defaultText(spec)}`);
}

function defaultText(spec: FlagSpec): string {
  const value = spec.default;
  if (value === undefined || value === false || value === "" || value === 0 || value === 0n) return "";
  if (spec.kind === "string") return ` (default ${JSON.stringify(value)})`;
  if (spec.kind === "strings") return ` (default [${(value as readonly string[]).join(",")}])`;
  return ` (default ${String(value)})`;
}
