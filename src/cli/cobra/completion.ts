/** Shell scripts that complete the names of commands and flags. */
import { type Command, localFlags, nameOf } from "./command.ts";

const SHELLS = ["bash", "zsh", "fish", "powershell"] as const;
type Shell = (typeof SHELLS)[number];

interface Place {
  /** Names from the tool's own on. */
  readonly path: readonly string[];
  readonly words: readonly string[];
}

/** The command `completion`, for the tool whose other commands are given. */
export function completionCommand<Context extends { stdout(text: string): void }>(
  name: string,
  commands: readonly Command<Context>[],
  options: { group?: string } = {},
): Command<Context> {
  const command: Command<Context> = {
    use: `completion [${SHELLS.join("|")}]`,
    short: "Generate completion script",
    long: [
      "Prints a script that teaches a shell to complete this tool's commands and flags:",
      "",
      `  bash:        source <(${name} completion bash)`,
      `  zsh:         source <(${name} completion zsh)`,
      `  fish:        ${name} completion fish | source`,
      `  PowerShell:  ${name} completion powershell | Out-String | Invoke-Expression`,
    ].join("\n"),
    ...(options.group === undefined ? {} : { group: options.group }),
    checkArgs: (args, path) => {
      if (args.length !== 1) return `accepts 1 arg(s), received ${args.length}`;
      return isShell(args[0] as string) ? undefined : `invalid argument ${JSON.stringify(args[0])} for "${path}"`;
    },
    run: ({ args, context }) => {
      const places = placesOf([name], { use: name, short: "", commands: [...commands, command] });
      context.stdout(SCRIPTS[args[0] as Shell](name, places));
    },
  };
  return command;
}

function isShell(text: string): text is Shell {
  return (SHELLS as readonly string[]).includes(text);
}

function placesOf<Context>(path: readonly string[], command: Command<Context>): Place[] {
  const below = command.commands ?? [];
  const flagWords = localFlags(command).map((flag) => `--${flag.name}`);
  return [{ path, words: [...below.map(nameOf), ...flagWords].sort() }, ...below.flatMap((one) => placesOf([...path, nameOf(one)], one))];
}

const SCRIPTS: Readonly<Record<Shell, (name: string, places: readonly Place[]) => string>> = {
  bash: bashScript,
  zsh: (name, places) => `autoload -U +X bashcompinit && bashcompinit\n${bashScript(name, places)}`,
  fish: fishScript,
  powershell: powershellScript,
};

function bashScript(name: string, places: readonly Place[]): string {
  const cases = places.map(({ path, words }) => `    "${path.join(" ")}") words="${words.join(" ")}" ;;`);
  return [
    `_${name}_complete() {`,
    '  local place="" word words="" i',
    "  for ((i = 0; i < COMP_CWORD; i++)); do",
    `    word="\${COMP_WORDS[i]}"`,
    `    if ((i == 0)); then place="${name}"; continue; fi`,
    '    case "$word" in',
    "      -*) ;;",
    '      *) place="$place $word" ;;',
    "    esac",
    "  done",
    '  case "$place" in',
    ...cases,
    "  esac",
    `  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))`,
    "}",
    `complete -o default -F _${name}_complete ${name}`,
    "",
  ].join("\n");
}

function fishScript(name: string, places: readonly Place[]): string {
  const lines = places.flatMap(({ path, words }) => {
    const seen = path.slice(1);
    const condition =
      seen.length === 0 ? "__fish_use_subcommand" : seen.map((word) => `__fish_seen_subcommand_from ${word}`).join("; and ");
    return words.map((word) =>
      word.startsWith("--")
        ? `complete -c ${name} -n '${condition}' -l ${word.slice(2)}`
        : `complete -c ${name} -n '${condition}' -f -a ${word}`,
    );
  });
  return `${lines.join("\n")}\n`;
}

function powershellScript(name: string, places: readonly Place[]): string {
  return [
    `Register-ArgumentCompleter -Native -CommandName '${name}' -ScriptBlock {`,
    "  param($wordToComplete, $commandAst, $cursorPosition)",
    "  $words = @{",
    ...places.map(({ path, words }) => `    '${path.join(" ")}' = '${words.join(" ")}'`),
    "  }",
    "  $names = @($commandAst.CommandElements | ForEach-Object { $_.ToString() } | Where-Object { -not $_.StartsWith('-') })",
    "  if ($wordToComplete -and $names[-1] -eq $wordToComplete) { $names = $names[0..($names.Count - 2)] }",
    "  $place = $names -join ' '",
    "  if ($words.ContainsKey($place)) {",
    '    $words[$place].Split(" ") | Where-Object { $_.StartsWith($wordToComplete) } | ForEach-Object { $_ }',
    "  }",
    "}",
    "",
  ].join("\n");
}
