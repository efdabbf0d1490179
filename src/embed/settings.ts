/** How the settings of the table are named, typed and read. */
import { type FeatureGate, parseFeatureGates } from "./feature-gates.ts";
import { parseDurationMs } from "./go-duration.ts";
import { INTEGER_RANGES, parseBoolean, parseInteger, ValueError } from "./go-values.ts";
import { SETTINGS, type SettingSpec } from "./settings-table.ts";
import { parseUrls } from "./urls.ts";

export * from "./settings-table.ts";

export type SettingName = keyof typeof SETTINGS;
type CamelCase<Text extends string> = Text extends `${infer Head}-${infer Tail}` ? `${Head}${Capitalize<CamelCase<Tail>>}` : Text;
/** `logger` is where a program passes its logger, so the flag of that name has another key. */
type KeyOf<Name extends SettingName> = Name extends "logger" ? "loggerKind" : CamelCase<Name>;
type NameOfKey = { [Name in SettingName as KeyOf<Name>]: Name };
/** A setting's name in {@link EtcdConfig}: `listenClientUrls` for `listen-client-urls`. */
export type SettingKey = keyof NameOfKey;

interface KindValues {
  text: string;
  list: readonly string[];
  urls: readonly string[];
  origins: readonly string[];
  switch: boolean;
  integer: number;
  duration: number;
  gates: Partial<Record<FeatureGate, boolean>>;
}
interface KindInputs {
  text: string;
  /** One string is split at commas. */
  list: string | readonly string[];
  urls: string | readonly string[];
  origins: string | readonly string[];
  switch: boolean;
  integer: number;
  /** Milliseconds, or a text such as "1m30s". */
  duration: number | string;
  gates: Partial<Record<FeatureGate, boolean>> | string;
}
type OfSpec<Spec, Kinds> = Spec extends { kind: "choice"; choices: readonly (infer Choice)[] }
  ? Choice
  : Spec extends { kind: infer Kind extends keyof Kinds }
    ? Kinds[Kind]
    : never;

/** What each setting is once read. */
export type SettingValues = { readonly [Name in SettingName]: OfSpec<(typeof SETTINGS)[Name], KindValues> };
/** Settings as a program gives them; an absent or undefined one has its default. */
export type SettingInputs = { readonly [Key in SettingKey]?: OfSpec<(typeof SETTINGS)[NameOfKey[Key]], KindInputs> | undefined };

export const SETTING_NAMES = Object.keys(SETTINGS) as SettingName[];

export function isSettingName(name: string): name is SettingName {
  return Object.hasOwn(SETTINGS, name);
}

/** The table's row, without the literal types of the table. */
export function settingSpec(name: SettingName): SettingSpec {
  return SETTINGS[name];
}

export function keyOf(name: SettingName): SettingKey {
  if (name === "logger") return "loggerKind";
  return name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase()) as SettingKey;
}

export function environmentVariableOf(flag: string): string {
  return `ETCD_${flag.toUpperCase().replaceAll("-", "_")}`;
}

/** Reads a value as typed on a command line or in a variable. Throws ValueError with the text that Go's flag package would give. */
export function parseSetting(name: SettingName, text: string): unknown {
  const spec = settingSpec(name);
  switch (spec.kind) {
    case "text":
      return text;
    case "choice":
      if (!spec.choices.includes(text))
        throw new ValueError(spec.invalid === "quoted" ? `invalid value ${JSON.stringify(text)}` : "invalid value");
      return text;
    case "list":
      if (text === "" && spec.unique === undefined) return [];
      return spec.unique === true ? [...new Set(text.split(","))].sort() : text.split(",");
    case "urls":
      // An empty text counts as set, but leaves the default (etcd's rule).
      return text === "" ? spec.default : parseUrls(text.split(",")).map((url) => url.text);
    case "origins":
      return text === "*" ? ["*"] : parseUrls(text.split(",")).map((url) => url.text);
    case "switch": {
      const on = parseBoolean(text);
      if (on === undefined) throw new ValueError("parse error");
      return on;
    }
    case "integer":
      return parseInteger(text, spec.type);
    case "duration":
      try {
        return parseDurationMs(text);
      } catch (error) {
        // Go's flag package hides the reason.
        throw new ValueError("parse error", { cause: error });
      }
    case "gates":
      return parseFeatureGates(text);
    default:
      return spec satisfies never;
  }
}

/**
 * Reads a value as a program gives it (which may be plain JavaScript, so its type is checked). Throws ValueError; the text says what was expected.
 */
export function readSettingInput(name: SettingName, input: unknown): unknown {
  const spec = settingSpec(name);
  switch (spec.kind) {
    case "text":
    case "choice":
      if (typeof input !== "string") throw new ValueError("must be a string");
      return parseSetting(name, input);
    case "list":
    case "urls":
    case "origins": {
      if (typeof input === "string") return parseSetting(name, input);
      if (!Array.isArray(input) || !input.every((element) => typeof element === "string"))
        throw new ValueError("must be a string or an array of strings");
      // Unlike an empty text, an empty array means none: no port is opened.
      if (input.length === 0) return [];
      return parseSetting(name, input.join(","));
    }
    case "switch":
      if (typeof input !== "boolean") throw new ValueError("must be a boolean");
      return input;
    case "integer": {
      if (typeof input !== "number" || !Number.isSafeInteger(input)) throw new ValueError("must be an integer");
      const [least, most] = INTEGER_RANGES[spec.type];
      if (input < least || input > most) throw new ValueError("value out of range");
      return input;
    }
    case "duration":
      if (typeof input === "string") return parseSetting(name, input);
      if (typeof input !== "number" || !Number.isFinite(input))
        throw new ValueError('must be a number of milliseconds or a text such as "1m30s"');
      return input;
    case "gates": {
      if (typeof input === "string") return parseFeatureGates(input);
      if (typeof input !== "object" || input === null) throw new ValueError("must be a text or an object of booleans");
      return parseFeatureGates(
        Object.entries(input)
          .map(([gate, on]) => `${gate}=${String(on)}`)
          .join(","),
      );
    }
    default:
      return spec satisfies never;
  }
}

/** True when the value is what the setting has when it is not given. */
export function isDefault(name: SettingName, value: unknown): boolean {
  return JSON.stringify(value) === JSON.stringify(SETTINGS[name].default);
}
