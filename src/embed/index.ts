/** What `cli` and the package's surface take from here. `startEtcd` is apart, so that reading a configuration does not load the server. */
export { ConfigError, type ConfigProblem, type EtcdConfig, type ResolvedConfig, resolveConfig } from "./config.ts";
export { ADVERTISE_REQUIRED } from "./config-addresses.ts";
export { parseConfigFile, toConfig, withEtcdAdvertiseDefaults } from "./config-file.ts";
export { readLogLevel } from "./config-rules.ts";
export { describeFeatureGates, type FeatureGate } from "./feature-gates.ts";
export { DurationError, formatDurationMs, parseDurationMs } from "./go-duration.ts";
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
export { parseUrls } from "./urls.ts";
