/** etcd's feature gates: names, stages, defaults, and which of them do something here. */
import { parseBoolean, ValueError } from "./go-values.ts";

interface GateSpec {
  readonly stage: "ALPHA" | "BETA";
  readonly default: boolean;
  /** What switching it on would need and holdfast lacks: then it is refused. */
  readonly missing?: string;
}

const GATES = {
  AllAlpha: { stage: "ALPHA", default: false },
  AllBeta: { stage: "BETA", default: false },
  CompactHashCheck: { stage: "ALPHA", default: false, missing: "comparison of compaction hashes" },
  FastLeaseKeepAlive: { stage: "BETA", default: true },
  InitialCorruptCheck: { stage: "ALPHA", default: false, missing: "corruption check before serving" },
  LeaseCheckpoint: { stage: "ALPHA", default: false },
  LeaseCheckpointPersist: { stage: "ALPHA", default: false },
  PriorityRequest: { stage: "ALPHA", default: false, missing: "larger window for lease revocations" },
  SetMemberLocalAddr: { stage: "ALPHA", default: false, missing: "choice of the local address of peer connections" },
  StopGRPCServiceOnDefrag: { stage: "ALPHA", default: false, missing: "health switch during defragmentation" },
  TxnModeWriteWithSharedBuffer: { stage: "BETA", default: true },
} as const satisfies Record<string, GateSpec>;

export type FeatureGate = keyof typeof GATES;
export type FeatureGates = Readonly<Record<FeatureGate, boolean>>;

const NAMES = Object.keys(GATES) as FeatureGate[];

/** `LeaseCheckpoint=true,AllBeta=false`. Throws {@link ValueError} with etcd's text. */
export function parseFeatureGates(text: string): Partial<Record<FeatureGate, boolean>> {
  const given: Partial<Record<FeatureGate, boolean>> = {};
  for (const part of text.split(",")) {
    const pair = part.trim();
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    if (equals < 0) throw new ValueError(`missing bool value for ${pair}`);
    const name = pair.slice(0, equals).trim();
    const value = pair.slice(equals + 1).trim();
    const on = parseBoolean(value);
    if (on === undefined) {
      throw new ValueError(`invalid value of ${name}=${value}, err: strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax`);
    }
    if (!isFeatureGate(name)) throw new ValueError(`unrecognized feature gate: ${name}`);
    given[name] = on;
  }
  return given;
}

export function isFeatureGate(name: string): name is FeatureGate {
  return Object.hasOwn(GATES, name);
}

/** Every gate with its value: what was given, then AllAlpha and AllBeta for the rest of their stage, then the default. */
export function resolveFeatureGates(given: Partial<Record<FeatureGate, boolean>>): FeatureGates {
  const resolved = {} as Record<FeatureGate, boolean>;
  for (const name of NAMES) {
    const spec: GateSpec = GATES[name];
    const ofStage = name === "AllAlpha" || name === "AllBeta" ? undefined : spec.stage === "ALPHA" ? given.AllAlpha : given.AllBeta;
    resolved[name] = given[name] ?? ofStage ?? spec.default;
  }
  return resolved;
}

/** Gates that are on although nothing here would heed them. */
export function missingFeatures(gates: FeatureGates): { readonly gate: FeatureGate; readonly missing: string }[] {
  return NAMES.flatMap((gate) => {
    const spec: GateSpec = GATES[gate];
    return gates[gate] && spec.missing !== undefined ? [{ gate, missing: spec.missing }] : [];
  });
}

/** One line per gate for `--help`. */
export function describeFeatureGates(): string[] {
  return NAMES.map((name) => {
    const spec: GateSpec = GATES[name];
    return `${name}=true|false (${spec.stage} - default=${spec.default})${spec.missing === undefined ? "" : " (not available yet)"}`;
  });
}
