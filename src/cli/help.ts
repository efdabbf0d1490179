import {
  describeFeatureGates,
  environmentVariableOf,
  formatDurationMs,
  SECTIONS,
  SETTING_NAMES,
  type SettingName,
  settingSpec,
} from "../embed/index.ts";

/** The text of `--help`: every flag by section, with its default. */
export function helpText(): string {
  const sections = SECTIONS.map((section) => {
    const lines = SETTING_NAMES.filter((name) => settingSpec(name).section === section).flatMap(describe);
    return [`${section}:`, ...lines, ""];
  });
  return [
    "Usage:",
    "",
    "  holdfast [flags]",
    "    Start a server.",
    "  holdfast --config-file PATH",
    "    Start a server from a YAML or JSON file whose keys are the flags' names. Other flags and variables are then ignored; durations are integer nanoseconds.",
    "  holdfast --version",
    "    Show the version.",
    "  holdfast -h | --help",
    "    Show this text.",
    "",
    `Every flag can also be set by a variable: --data-dir by ${environmentVariableOf("data-dir")}. Giving both is an error.`,
    "",
    ...sections.flat(),
  ].join("\n");
}

function describe(name: SettingName): string[] {
  const spec = settingSpec(name);
  const lines = [`  --${name} '${spec.shown ?? defaultText(name)}'`, `    ${spec.help}`];
  if (spec.kind === "choice") lines.push(`    One of: ${spec.choices.join(", ")}.`);
  if (spec.kind === "gates") lines.push(...describeFeatureGates().map((line) => `    ${line}`));
  if (spec.missing !== undefined) lines.push(`    Not available: holdfast has no ${spec.missing} yet.`);
  if (spec.noEffect !== undefined) lines.push(`    Accepted without effect: ${spec.noEffect}.`);
  return lines;
}

function defaultText(name: SettingName): string {
  const spec = settingSpec(name);
  switch (spec.kind) {
    case "list":
    case "urls":
    case "origins":
      return spec.default.join(",");
    case "duration":
      return formatDurationMs(spec.default);
    case "gates":
      return "";
    default:
      return String(spec.default);
  }
}
