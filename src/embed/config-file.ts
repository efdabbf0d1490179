/**
 * etcd's configuration file: YAML (or JSON, which is a part of it) whose keys are the flags' names. Durations are integer nanoseconds, most lists are one
 * comma-separated string, TLS, discovery and socket settings are nested, unknown keys are not an error. The texts for wrong types are those of Go's JSON
 * decoder, because that is what operators find when they search for them.
 */
import type * as Yaml from "yaml";
import { requirePackage } from "../base/require-system.ts";
import { ConfigError, type ConfigProblem, type EtcdConfig } from "./config.ts";
import { INTEGER_RANGES, ValueError } from "./go-values.ts";
import {
  DEFAULT_CLIENT_URL,
  DEFAULT_PEER_URL,
  keyOf,
  parseSetting,
  SETTING_NAMES,
  type SettingName,
  type SettingSpec,
  settingSpec,
} from "./settings.ts";

export interface ConfigFile {
  readonly config: EtcdConfig;
  /** Keys that mean nothing, which etcd ignores silently. */
  readonly unknownKeys: readonly string[];
}

/** The nested parts, with their Go types as the decoder names them. */
const GROUPS: Readonly<Record<string, { readonly owner: string; readonly path: string; readonly type: string }>> = {
  "client-transport-security": { owner: "configJSON", path: "securityConfig.configJSON", type: "embed.securityConfig" },
  "peer-transport-security": { owner: "configJSON", path: "securityConfig.configJSON", type: "embed.securityConfig" },
  "discovery-config": { owner: "Config", path: "DiscoveryConfig.Config", type: "v3discovery.DiscoveryConfig" },
  "socket-options": { owner: "Config", path: "SocketOpts.Config", type: "transport.SocketOpts" },
};

/** Parts of a nested group that no flag stands for. */
const DISCOVERY_REST = { secure: true, auth: true, "max-request-bytes": true, "max-recv-bytes": true } as const;

/**
 * Reads the text of a configuration file. Values are checked for their types only: give the result to `resolveConfig`, which does the rest.
 * Throws {@link ConfigError} with all problems.
 */
export function parseConfigFile(text: string): ConfigFile {
  const root = readYaml(text);
  if (root === null || root === undefined) return { config: {}, unknownKeys: [] };
  if (typeof root !== "object" || Array.isArray(root)) {
    throw fileError(`${UNMARSHAL}cannot unmarshal ${jsonType(root)} into Go value of type embed.configYAML`);
  }
  const problems: ConfigProblem[] = [];
  const unknownKeys: string[] = [];
  const values = new Map<SettingName, unknown>();
  for (const [key, value] of Object.entries(root)) {
    const group = Object.keys(GROUPS).find((name) => sameKey(name, key));
    if (group !== undefined) readGroup(group, value, values, problems, unknownKeys);
    else {
      const name = SETTING_NAMES.find((candidate) => settingSpec(candidate).file === undefined && sameKey(candidate, key));
      if (name === undefined) unknownKeys.push(key);
      else readValue(name, key, value, `configYAML.${ownerOf(name)}.${name}`, values, problems);
    }
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return { config: withEtcdAdvertiseDefaults(toConfig(values)), unknownKeys };
}

/**
 * A program that names where to listen and nothing else means to advertise just that. In a file or on a command line etcd's defaults stay, and the ids come
 * from them.
 */
export function withEtcdAdvertiseDefaults(config: EtcdConfig): EtcdConfig {
  return {
    ...config,
    advertiseClientUrls: config.advertiseClientUrls ?? [DEFAULT_CLIENT_URL],
    initialAdvertisePeerUrls: config.initialAdvertisePeerUrls ?? [DEFAULT_PEER_URL],
  };
}

/** Turns values by flag name into the form that `resolveConfig` takes. */
export function toConfig(values: ReadonlyMap<SettingName, unknown>): EtcdConfig {
  return Object.fromEntries([...values].map(([name, value]) => [keyOf(name), value]));
}

const UNMARSHAL = "error unmarshaling JSON: while decoding JSON: json: ";

function readYaml(text: string): unknown {
  const { LineCounter, parseDocument } = requirePackage("yaml") as typeof Yaml;
  const lines = new LineCounter();
  const document = parseDocument(text, {
    // etcd's parser knows yes, no, on, off and 010 as YAML 1.1 does, but neither dates nor base 60.
    version: "1.1",
    customTags: (tags) =>
      tags.filter(
        (tag) => typeof tag === "string" || (tag.tag !== "tag:yaml.org,2002:timestamp" && !("format" in tag && tag.format === "TIME")),
      ),
    uniqueKeys: false,
    prettyErrors: false,
    lineCounter: lines,
  });
  const [first] = document.errors;
  if (first !== undefined)
    throw fileError(`error converting YAML to JSON: yaml: line ${lines.linePos(first.pos[0]).line}: ${yamlText(first)}`);
  try {
    return document.toJS({ maxAliasCount: 100 }) as unknown;
  } catch (error) {
    // Unknown or too many aliases; the library has nothing else to complain about here.
    const unknown = /^Unresolved alias .*: (.*)$/.exec((error as Error).message)?.[1];
    throw fileError(
      `error converting YAML to JSON: yaml: ${unknown === undefined ? (error as Error).message : `unknown anchor '${unknown}' referenced`}`,
    );
  }
}

function yamlText(error: Yaml.YAMLError): string {
  switch (error.code) {
    case "TAB_AS_INDENT":
    case "BAD_SCALAR_START":
      return "found character that cannot start any token";
    case "BLOCK_AS_IMPLICIT_KEY":
      return "mapping values are not allowed in this context";
    default:
      if (error.message.includes("quote")) return "found unexpected end of stream";
      if (error.message.startsWith("Flow map")) return "did not find expected ',' or '}'";
      if (error.message.startsWith("Flow sequence")) return "did not find expected ',' or ']'";
      return error.message;
  }
}

function readGroup(
  group: string,
  value: unknown,
  values: Map<SettingName, unknown>,
  problems: ConfigProblem[],
  unknownKeys: string[],
): void {
  const { owner, path, type } = GROUPS[group] as (typeof GROUPS)[string];
  if (value === null) return;
  if (typeof value !== "object" || Array.isArray(value)) {
    problems.push({
      setting: group,
      message: `${UNMARSHAL}cannot unmarshal ${jsonType(value)} into Go struct field configYAML.${owner}.${group} of type ${type}`,
    });
    return;
  }
  for (const [key, part] of Object.entries(value)) {
    const name = SETTING_NAMES.find((candidate) => {
      const place = settingSpec(candidate).file;
      return typeof place === "object" && place[0] === group && sameKey(place[1], key);
    });
    if (name !== undefined) readValue(name, key, part, `${path}.${group}.${key.toLowerCase()}`, values, problems);
    else if (
      isSet(part) &&
      (group === "client-transport-security"
        ? /^(allowed-cn|skip-client-san-verification)$/i.test(key)
        : group === "discovery-config" && key in DISCOVERY_REST)
    ) {
      problems.push({
        setting: group,
        message: `${group} has ${key}, but holdfast has no ${group === "discovery-config" ? "cluster discovery" : "TLS"} yet`,
      });
    } else unknownKeys.push(`${group}.${key}`);
  }
}

function readValue(
  name: SettingName,
  key: string,
  value: unknown,
  field: string,
  values: Map<SettingName, unknown>,
  problems: ConfigProblem[],
): void {
  if (value === null || value === undefined) return; // As in Go: null leaves what was there.
  const spec = settingSpec(name);
  const wrongType = mismatch(spec, value);
  if (wrongType !== undefined) {
    problems.push({
      setting: name,
      message: `${UNMARSHAL}cannot unmarshal ${wrongType.found} into Go struct field ${field} of type ${wrongType.wanted}`,
    });
    return;
  }
  try {
    values.set(name, convert(name, spec, value));
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
    // etcd names the wrong key here, and we keep to its text.
    const shown = name === "advertise-client-urls" ? "advertise-peer-urls" : key;
    problems.push({
      setting: name,
      message: spec.kind === "gates" ? error.message : `unexpected error setting up ${shown}: ${error.message}`,
    });
  }
}

/** What the JSON value is and what it should be, if those differ. */
function mismatch(spec: SettingSpec, value: unknown): { found: string; wanted: string } | undefined {
  switch (spec.kind) {
    case "switch":
      return typeof value === "boolean" ? undefined : { found: jsonType(value), wanted: "bool" };
    case "integer": {
      const [least, most] = INTEGER_RANGES[spec.type];
      const fits = typeof value === "number" && Number.isInteger(value) && value >= least && value <= most;
      return fits ? undefined : { found: typeof value === "number" ? `number ${value}` : jsonType(value), wanted: spec.type };
    }
    case "duration":
      return Number.isInteger(value)
        ? undefined
        : { found: typeof value === "number" ? `number ${value}` : jsonType(value), wanted: "time.Duration" };
    case "list": {
      if (spec.unique === true && spec.default.includes("*"))
        return typeof value === "string" ? undefined : { found: jsonType(value), wanted: "string" };
      if (!Array.isArray(value)) return { found: jsonType(value), wanted: "[]string" };
      const odd: unknown = value.find((element) => typeof element !== "string");
      return odd === undefined ? undefined : { found: jsonType(odd), wanted: "string" };
    }
    case "text":
    case "choice":
    case "urls":
    case "origins":
    case "gates":
      return typeof value === "string" ? undefined : { found: jsonType(value), wanted: "string" };
    default:
      return spec satisfies never;
  }
}

function convert(name: SettingName, spec: SettingSpec, value: unknown): unknown {
  switch (spec.kind) {
    case "duration":
      return (value as number) / 1e6;
    case "choice":
      // `v2-deprecation` is ignored whatever it says; the state's text comes from resolveConfig.
      return name === "v2-deprecation" ? spec.default : value === "" ? spec.default : value;
    case "list":
      return typeof value === "string" ? parseSetting(name, value) : value;
    case "urls":
    case "origins":
    case "gates":
      return value === "" ? spec.default : parseSetting(name, value as string);
    default:
      return value;
  }
}

function ownerOf(name: SettingName): string {
  const { kind } = settingSpec(name);
  return kind === "urls" || kind === "origins" || kind === "gates" || name === "host-whitelist" ? "configJSON" : "Config";
}

/** Go's JSON decoder finds fields whatever the case of their names. */
function sameKey(name: string, key: string): boolean {
  return name === key || name === key.toLowerCase();
}

function isSet(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  return typeof value === "object" && value !== null ? Object.values(value).some(isSet) : Boolean(value);
}

function jsonType(value: unknown): string {
  if (Array.isArray(value)) return "array";
  return typeof value === "boolean" ? "bool" : typeof value;
}

function fileError(message: string): ConfigError {
  return new ConfigError([{ setting: "config-file", message }]);
}
