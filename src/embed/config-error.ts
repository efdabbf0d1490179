import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { SettingName } from "./settings.ts";

export interface ConfigProblem {
  /** The flag's name, for example "listen-client-urls". */
  readonly setting: string;
  /** One line; etcd's text where etcd has one. */
  readonly message: string;
  /** etcd finds some problems only when it starts and then logs another line. Default: "verify". */
  readonly stage?: "verify" | "start";
}

/** Everything that is wrong with a configuration. `message` is one line: the problems' messages, separated by "; ". */
export class ConfigError extends EtcdError {
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[]) {
    super("invalid-config", GrpcCode.InvalidArgument, problems.map((problem) => problem.message).join("; "));
    this.name = "ConfigError";
    this.problems = Object.freeze([...problems]);
  }

  static override is(value: unknown): value is ConfigError {
    return EtcdError.is(value) && value.reason === "invalid-config";
  }
}

/** Notes a problem. */
export type Report = (setting: SettingName, message: string, stage?: "start") => void;
