/** What `cli` and the package's surface take from here. */
export {
  ADVERTISE_REQUIRED,
  ConfigError,
  type ConfigNotice,
  type ConfigProblem,
  type EtcdConfig,
  type ListenUrl,
  type LogLevel,
  type ResolvedConfig,
  readLogLevel,
  resolveConfig,
} from "./config.ts";
export { type ConfigFile, parseConfigFile, toConfig, withEtcdAdvertiseDefaults } from "./config-file.ts";
export { describeFeatureGates, type FeatureGate } from "./feature-gates.ts";
export { formatDurationMs } from "./go-duration.ts";
export { parseBoolean, ValueError } from "./go-values.ts";
export {
  environmentVariableOf,
  isSettingName,
  parseSetting,
  SECTIONS,
  SETTING_NAMES,
  type SettingName,
  settingSpec,
} from "./settings.ts";
