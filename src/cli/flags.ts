/**
 * The command line and the `ETCD_*` variables, in the syntax of Go's flag package: one dash or two, `-name value` or `-name=value`, booleans only with `=`,
 * the last of several counts, the first word that is no flag ends them.
 */
import {
  environmentVariableOf,
  type FeatureGate,
  isSettingName,
  parseBoolean,
  parseSetting,
  readLogLevel,
  SETTING_NAMES,
  type SettingName,
  settingSpec,
  ValueError,
} from "../embed/index.ts";

/** A command line that cannot be read. One line for stderr, exit status 2. */
export class UsageError extends Error {}

export interface CommandLine {
  readonly values: ReadonlyMap<SettingName, unknown>;
  readonly configFile: string;
  readonly help: boolean;
  readonly version: boolean;
  /** The first word that is no flag. */
  readonly positional: string | undefined;
  /** Flags of etcd before 3.7 that were taken for their successors, one warning each. */
  readonly outdated: readonly { readonly flag: string; readonly successor: string }[];
}

/** Flags that etcd takes and forgets since ancient times; each may have a value with `=`. */
const FORGOTTEN = new Set([
  "cluster-active-size",
  "cluster-remove-delay",
  "cluster-sync-interval",
  "config",
  "force",
  "max-result-buffer",
  "max-retry-attempts",
  "peer-heartbeat-interval",
  "peer-election-timeout",
  "retry-interval",
  "snapshot",
  "v",
  "vv",
  "test.coverprofile",
  "test.outputdir",
]);

/** `--experimental-X` of etcd up to 3.6 whose successor is `--X`. etcd 3.7 refuses them; we take them, because start scripts are older than servers. */
const PROMOTED = new Set<string>([
  "bootstrap-defrag-threshold-megabytes",
  "compact-hash-check-time",
  "compaction-batch-limit",
  "compaction-sleep-interval",
  "corrupt-check-time",
  "distributed-tracing-address",
  "distributed-tracing-instance-id",
  "distributed-tracing-sampling-rate",
  "distributed-tracing-service-name",
  "downgrade-check-time",
  "enable-distributed-tracing",
  "max-learners",
  "memory-mlock",
  "peer-skip-client-san-verification",
  "snapshot-catchup-entries",
  "warning-apply-duration",
  "warning-unary-request-duration",
  "watch-progress-notify-interval",
] satisfies SettingName[]);

/** `--experimental-X` whose successor is a feature gate. */
const GATED: Readonly<Record<string, FeatureGate>> = {
  "compact-hash-check-enabled": "CompactHashCheck",
  "enable-lease-checkpoint": "LeaseCheckpoint",
  "enable-lease-checkpoint-persist": "LeaseCheckpointPersist",
  "initial-corrupt-check": "InitialCorruptCheck",
  "set-member-localaddr": "SetMemberLocalAddr",
  "stop-grpc-service-on-defrag": "StopGRPCServiceOnDefrag",
  "txn-mode-write-with-shared-buffer": "TxnModeWriteWithSharedBuffer",
};

const EXPERIMENTAL = "experimental-";

/** Throws {@link UsageError} at the first thing that cannot be read, as Go does. */
export function parseCommandLine(words: readonly string[]): CommandLine {
  const values = new Map<SettingName, unknown>();
  const outdated: { flag: string; successor: string }[] = [];
  let configFile = "";
  let version = false;
  let at = 0;

  const done = (help: boolean): CommandLine => ({ values, configFile, help, version, positional: help ? undefined : words[at], outdated });

  for (; at < words.length; at += 1) {
    const word = words[at] ?? "";
    if (word === "--") {
      at += 1;
      break;
    }
    if (word === "-" || !word.startsWith("-")) break;
    const bare = word.slice(word.startsWith("--") ? 2 : 1);
    if (bare === "" || bare.startsWith("-") || bare.startsWith("=")) throw new UsageError(`bad flag syntax: ${word}`);
    const equals = bare.indexOf("=");
    const name = equals < 0 ? bare : bare.slice(0, equals);
    const attached = equals < 0 ? undefined : bare.slice(equals + 1);
    const successor = name.startsWith(EXPERIMENTAL) ? name.slice(EXPERIMENTAL.length) : undefined;

    /** The value of a flag that needs one. */
    const value = (): string => {
      if (attached !== undefined) return attached;
      at += 1;
      const next = words[at];
      if (next === undefined) throw new UsageError(`flag needs an argument: -${name}`);
      return next;
    };
    const onOrOff = (): boolean => {
      const on = parseBoolean(attached ?? "true");
      if (on === undefined) throw new UsageError(`invalid boolean value ${JSON.stringify(attached)} for -${name}: parse error`);
      return on;
    };
    const set = (setting: SettingName): void => {
      if (settingSpec(setting).kind === "switch") values.set(setting, onOrOff());
      else
        setValue(
          values,
          setting,
          value(),
          (text, why) => new UsageError(`invalid value ${JSON.stringify(text)} for flag -${name}: ${why}`),
        );
    };

    if (isSettingName(name)) set(name);
    else if (name === "config-file") configFile = value();
    else if (name === "version") version = onOrOff();
    else if (name === "help" || name === "h") return done(true);
    else if (successor !== undefined && PROMOTED.has(successor) && isSettingName(successor)) {
      set(successor);
      outdated.push({ flag: name, successor: `--${successor}` });
    } else if (successor !== undefined && GATED[successor] !== undefined) {
      const gate = GATED[successor];
      addGates(values, { [gate]: onOrOff() });
      outdated.push({ flag: name, successor: `--feature-gates=${gate}=true` });
    } else if (!FORGOTTEN.has(name)) throw new UsageError(`flag provided but not defined: -${name}`);
  }
  return done(false);
}

export interface EnvironmentReading {
  readonly values: ReadonlyMap<SettingName, unknown>;
  readonly used: readonly { readonly variable: string; readonly value: string }[];
  /** `NAME=value` of variables that look like settings but are none. */
  readonly unknown: readonly string[];
  /** Variables for settings that the command line gives, too: etcd refuses to choose. */
  readonly conflicts: readonly string[];
  /** One line per value that cannot be read. */
  readonly problems: readonly { readonly setting: SettingName; readonly message: string }[];
}

/** Variables that are no settings, but known. */
const SPECIAL_VARIABLES = new Set(["ETCD_CONFIG_FILE", "ETCD_VERSION", "ETCD_UNSUPPORTED_ARCH"]);

/** Settings from `ETCD_*` variables; an empty one counts as not set. `given` are those of the command line. */
export function readEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
  given: ReadonlyMap<SettingName, unknown>,
): EnvironmentReading {
  const values = new Map<SettingName, unknown>();
  const used: { variable: string; value: string }[] = [];
  const conflicts: string[] = [];
  const problems: { setting: SettingName; message: string }[] = [];
  const known = new Set([...SPECIAL_VARIABLES, ...[...FORGOTTEN].map(environmentVariableOf)]);
  for (const setting of SETTING_NAMES) {
    const variable = environmentVariableOf(setting);
    known.add(variable);
    const text = environment[variable];
    if (text === undefined || text === "") continue;
    if (given.has(setting)) {
      conflicts.push(variable);
      continue;
    }
    try {
      setValue(values, setting, text, (raw, why) => new ValueError(`invalid value ${JSON.stringify(raw)} for ${variable}: ${why}`));
      used.push({ variable, value: text });
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      problems.push({ setting, message: error.message });
    }
  }
  const unknown = Object.entries(environment).flatMap(([name, value]) =>
    name.startsWith("ETCD_") && !known.has(name) ? [`${name}=${value}`] : [],
  );
  return { values, used, unknown, conflicts, problems };
}

function setValue(
  values: Map<SettingName, unknown>,
  setting: SettingName,
  text: string,
  failure: (text: string, why: string) => Error,
): void {
  let value: unknown;
  try {
    value = parseSetting(setting, text);
    // etcd panics here (status 2); this way the status is the same and the line is clear.
    if (setting === "log-level" && readLogLevel(text) === undefined) throw new ValueError(`unrecognized level: ${JSON.stringify(text)}`);
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
    throw failure(text, error.message);
  }
  if (settingSpec(setting).kind === "gates") addGates(values, value as Partial<Record<FeatureGate, boolean>>);
  else values.set(setting, value);
}

/** Gates are the one setting that accumulates. */
function addGates(values: Map<SettingName, unknown>, gates: Partial<Record<FeatureGate, boolean>>): void {
  const before = values.get("feature-gates") as Partial<Record<FeatureGate, boolean>> | undefined;
  values.set("feature-gates", { ...before, ...gates });
}
