import { describe, expect, it } from "vitest";
import { ConfigError, type EtcdConfig, resolveConfig } from "./config.ts";
import { parseConfigFile } from "./config-file.ts";

const ADVERTISED = { advertiseClientUrls: ["http://localhost:2379"], initialAdvertisePeerUrls: ["http://localhost:2380"] };

function read(text: string): EtcdConfig {
  return parseConfigFile(text).config;
}

function message(text: string): string {
  try {
    resolveConfig(read(text));
  } catch (error) {
    if (ConfigError.is(error)) return error.message;
    throw error;
  }
  return "no problem";
}

const FIELD = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";

describe("parseConfigFile", () => {
  it("takes nothing, null and JSON", () => {
    expect(["", "null", "# only a comment\n"].map(read)).toEqual([{}, {}, {}]);
    expect(read('{"name": "n1", "pre-vote": false}')).toEqual({ name: "n1", preVote: false, ...ADVERTISED });
  });

  it("reads every shape", () => {
    const config = read(`
name: n1
heartbeat-interval: 200
election-timeout: 2000
warning-apply-duration: 250000000
listen-client-urls: http://127.0.0.1:2, http://127.0.0.1:1
advertise-client-urls: http://a:1
cors: http://a.com:80
host-whitelist: b,a
log-outputs: [stdout, /var/log/x.log]
feature-gates: LeaseCheckpoint=true
socket-options: { reuse-address: true }
quota-backend-bytes: 1e9
max-wals: 0x10
pre-vote: off
auto-compaction-retention: "1"
initial-cluster-state: existing
discovery-config:
  endpoints: []
client-transport-security: {}
`);
    expect(config).toEqual({
      name: "n1",
      heartbeatInterval: 200,
      electionTimeout: 2000,
      warningApplyDuration: 250,
      listenClientUrls: ["http://127.0.0.1:1", "http://127.0.0.1:2"],
      advertiseClientUrls: ["http://a:1"],
      initialAdvertisePeerUrls: ["http://localhost:2380"],
      cors: ["http://a.com:80"],
      hostWhitelist: ["a", "b"],
      logOutputs: ["stdout", "/var/log/x.log"],
      featureGates: { LeaseCheckpoint: true },
      socketReuseAddress: true,
      quotaBackendBytes: 1_000_000_000,
      maxWals: 16,
      preVote: false,
      autoCompactionRetention: "1",
      initialClusterState: "existing",
      discoveryEndpoints: [],
    });
    expect(resolveConfig(config).server).toMatchObject({ name: "n1", heartbeatMs: 200, warningApplyMs: 250 });
  });

  it("finds keys whatever their case, and the last of two counts", () => {
    expect(read("Name: a\nNAME: b\nname: c\nname: d")).toMatchObject({ name: "d" });
  });

  it("names unknown keys instead of failing", () => {
    const { config, unknownKeys } = parseConfigFile(
      "experimental-corrupt-check-time: 3\ncert-file: x\nraft-read-timeout: 3\npeer-transport-security: {bogus: 1}\nname: n1\n1: 2",
    );
    expect(config).toEqual({ name: "n1", ...ADVERTISED });
    expect(new Set(unknownKeys)).toEqual(
      new Set(["1", "experimental-corrupt-check-time", "cert-file", "raft-read-timeout", "peer-transport-security.bogus"]),
    );
  });

  it("keeps etcd's advertised defaults, unlike a program's config", () => {
    expect(
      resolveConfig(read("name: n1\nlisten-client-urls: http://127.0.0.1:5\nlisten-peer-urls: http://127.0.0.1:6")).server,
    ).toMatchObject({
      advertiseClientUrls: ["http://localhost:2379"],
      initialAdvertisePeerUrls: ["http://localhost:2380"],
    });
  });

  it("leaves the default for null", () => {
    expect(read("name:\nmax-wals: ~")).toEqual(ADVERTISED);
  });

  // All seen on etcd 3.7.1.
  it.each([
    ["{a: b", "error converting YAML to JSON: yaml: line 1: did not find expected ',' or '}'"],
    ["a: [1,2\nb: 3", "error converting YAML to JSON: yaml: line 2: did not find expected ',' or ']'"],
    ["x:\n\ty: 1", "error converting YAML to JSON: yaml: line 2: found character that cannot start any token"],
    ["name: x\n b: y", "error converting YAML to JSON: yaml: line 1: mapping values are not allowed in this context"],
    ["a: *nope", "error converting YAML to JSON: yaml: unknown anchor 'nope' referenced"],
    ["foo", `${FIELD} string into Go value of type embed.configYAML`],
    ["- a", `${FIELD} array into Go value of type embed.configYAML`],
    ["strict-reconfig-check: foo", `${FIELD} string into Go struct field configYAML.Config.strict-reconfig-check of type bool`],
    ["pre-vote: 1", `${FIELD} number into Go struct field configYAML.Config.pre-vote of type bool`],
    ["corrupt-check-time: 5s", `${FIELD} string into Go struct field configYAML.Config.corrupt-check-time of type time.Duration`],
    ["heartbeat-interval: 100ms", `${FIELD} string into Go struct field configYAML.Config.heartbeat-interval of type uint`],
    ["heartbeat-interval: 1.5", `${FIELD} number 1.5 into Go struct field configYAML.Config.heartbeat-interval of type uint`],
    ["max-wals: -3", `${FIELD} number -3 into Go struct field configYAML.Config.max-wals of type uint`],
    [
      "max-concurrent-streams: 4294967296",
      `${FIELD} number 4294967296 into Go struct field configYAML.Config.max-concurrent-streams of type uint32`,
    ],
    ["election-timeout: 1:30", `${FIELD} string into Go struct field configYAML.Config.election-timeout of type uint`],
    ["auto-compaction-retention: 1", `${FIELD} number into Go struct field configYAML.Config.auto-compaction-retention of type string`],
    ["name: [a]", `${FIELD} array into Go struct field configYAML.Config.name of type string`],
    ["log-outputs: stderr", `${FIELD} string into Go struct field configYAML.Config.log-outputs of type []string`],
    ["log-outputs: [1]", `${FIELD} number into Go struct field configYAML.Config.log-outputs of type string`],
    ["listen-peer-urls: [http://a:1]", `${FIELD} array into Go struct field configYAML.configJSON.listen-peer-urls of type string`],
    [
      "client-transport-security: 3",
      `${FIELD} number into Go struct field configYAML.configJSON.client-transport-security of type embed.securityConfig`,
    ],
    [
      "client-transport-security: {cert-file: 3}",
      `${FIELD} number into Go struct field securityConfig.configJSON.client-transport-security.cert-file of type string`,
    ],
    ["socket-options: {reuse-port: foo}", `${FIELD} string into Go struct field SocketOpts.Config.socket-options.reuse-port of type bool`],
    ["discovery-config: {token: 3}", `${FIELD} number into Go struct field DiscoveryConfig.Config.discovery-config.token of type string`],
    ["listen-peer-urls: foo", "unexpected error setting up listen-peer-urls: URL scheme must be http, https, unix, or unixs: foo"],
    [
      "advertise-client-urls: foo:1",
      "unexpected error setting up advertise-peer-urls: URL scheme must be http, https, unix, or unixs: foo:1",
    ],
    ["initial-cluster-state: bogus", 'unexpected clusterState "bogus"'],
    ["feature-gates: Nope=true", "unrecognized feature gate: Nope"],
    ["election-timeout: 010", "--election-timeout[8ms] should be at least as 5 times as --heartbeat-interval[100ms]"],
    ["logger: foo", 'unknown logger option "foo"'],
    // What holdfast lacks.
    ["client-transport-security: {cert-file: x}", "--cert-file is set, but holdfast has no TLS yet"],
    ["client-transport-security: {allowed-cn: [x]}", "client-transport-security has allowed-cn, but holdfast has no TLS yet"],
    ["discovery-config: {auth: {username: x}}", "discovery-config has auth, but holdfast has no cluster discovery yet"],
    ["discovery-config: {dial-timeout: 5}", "--discovery-dial-timeout is set, but holdfast has no cluster discovery yet"],
  ])("%j: %s", (text, expected) => {
    expect(message(text)).toBe(expected);
  });

  it("reports all wrong types together", () => {
    expect(message("name: 3\npre-vote: x").split("; ")).toHaveLength(2);
  });
});
