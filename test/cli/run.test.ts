import { describe, expect, it } from "vitest";
import { EtcdError, GrpcCode } from "../../src/base/errors.ts";
import { resolveConfig } from "../../src/embed/index.ts";
import { perform, type Stage } from "./stage.ts";

const ALONE = ["--name", "n1", "--data-dir", "/d"];

async function refused(words: string[], options?: Parameters<typeof perform>[1]): Promise<Stage & { status: number | undefined }> {
  const stage = perform(words, options);
  const ending = await stage.ending;
  expect(stage.started).toEqual([]);
  return { ...stage, status: "status" in ending ? ending.status : undefined };
}

describe("command lines that cannot be read", () => {
  // All seen on etcd 3.7.1, except for the log level, where etcd panics with the same status.
  it.each([
    [
      ["--listen-peer-urls", "http://a.com"],
      'invalid value "http://a.com" for flag -listen-peer-urls: URL address does not have the form "host:port": http://a.com',
    ],
    [["--listen-peer-urls=foo"], 'invalid value "foo" for flag -listen-peer-urls: URL scheme must be http, https, unix, or unixs: foo'],
    [["--initial-cluster-state", "foo"], 'invalid value "foo" for flag -initial-cluster-state: invalid value'],
    [["--initial-cluster-state", ""], 'invalid value "" for flag -initial-cluster-state: invalid value'],
    [["--discovery-fallback", "foo"], 'invalid value "foo" for flag -discovery-fallback: invalid value'],
    [["--v2-deprecation", "not-yet"], 'invalid value "not-yet" for flag -v2-deprecation: invalid value "not-yet"'],
    [["--snapshot-count", "abc"], 'invalid value "abc" for flag -snapshot-count: parse error'],
    [["--snapshot-count", "-1"], 'invalid value "-1" for flag -snapshot-count: parse error'],
    [
      ["--heartbeat-interval", "99999999999999999999"],
      'invalid value "99999999999999999999" for flag -heartbeat-interval: value out of range',
    ],
    [
      ["--max-concurrent-streams", "4294967296"],
      'invalid value "4294967296" for flag -max-concurrent-streams: strconv.ParseUint: parsing "4294967296": value out of range',
    ],
    [["--corrupt-check-time", "5"], 'invalid value "5" for flag -corrupt-check-time: parse error'],
    [["--pre-vote=maybe"], 'invalid boolean value "maybe" for -pre-vote: parse error'],
    [["--feature-gates", "Foo=true"], 'invalid value "Foo=true" for flag -feature-gates: unrecognized feature gate: Foo'],
    [["--cors", "foo"], 'invalid value "foo" for flag -cors: URL scheme must be http, https, unix, or unixs: foo'],
    [["--cors", ""], 'invalid value "" for flag -cors: URL scheme must be http, https, unix, or unixs: '],
    [["--nope"], "flag provided but not defined: -nope"],
    [["-nope=3"], "flag provided but not defined: -nope"],
    [["--discovery", "http://x"], "flag provided but not defined: -discovery"],
    [["--enable-v2"], "flag provided but not defined: -enable-v2"],
    [["--experimental-nonsense"], "flag provided but not defined: -experimental-nonsense"],
    [["---x"], "bad flag syntax: ---x"],
    [["--=x"], "bad flag syntax: --=x"],
    [["--name"], "flag needs an argument: -name"],
    [["--log-level", "foo"], 'invalid value "foo" for flag -log-level: unrecognized level: "foo"'],
    [["gateway", "start"], 'holdfast has no "gateway" command'],
  ])("%j", async (words, line) => {
    const { status, stderr, stdout } = await refused(words);
    expect([status, stderr(), stdout()]).toEqual([2, `${line}\n`, ""]);
  });
});

describe("configurations that cannot work", () => {
  it.each([
    [["positional"], '"positional" is not a valid flag'],
    [["--pre-vote", "false"], '"false" is not a valid flag'],
    [["--", "--name", "x"], '"--name" is not a valid flag'],
    [["--listen-client-urls", "http://127.0.0.1:1"], "--advertise-client-urls is required when --listen-client-urls is set explicitly"],
    [["--listen-client-urls", ""], "--advertise-client-urls is required when --listen-client-urls is set explicitly"],
    [["--election-timeout", "400"], "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]"],
    [
      ["--cert-file", "x", "--key-file", "y"],
      "--cert-file is set, but holdfast has no TLS yet; --key-file is set, but holdfast has no TLS yet",
    ],
    [["--log-outputs", "/nowhere/x.log"], 'open sink "/nowhere/x.log": open /nowhere/x.log: no such file or directory'],
    [["--config-file", "nope.yml"], "open nope.yml: no such file or directory"],
    [
      ["--experimental-initial-corrupt-check"],
      "feature gate InitialCorruptCheck is on, but holdfast has no corruption check before serving yet",
    ],
  ])("%j: one line, status 1", async (words, error) => {
    const { status, log } = await refused(words);
    expect(status).toBe(1);
    expect(log().filter((line) => line.level !== "info" && line.msg !== "flag is outdated and was taken for its successor")).toEqual([
      { level: "warn", ts: "2026-01-02T03:04:05.123000Z", msg: "failed to verify flags", error },
    ]);
  });

  it("uses etcd's other words for what etcd finds at the start", async () => {
    const { status, log } = await refused(["--initial-cluster", "foo"]);
    expect(status).toBe(1);
    expect(log()).toEqual([
      expect.objectContaining({
        level: "fatal",
        msg: "discovery failed",
        error: "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
      }),
    ]);
  });
});

describe("variables", () => {
  it("set what flags set, say so, and leave the rest to flags", async () => {
    const stage = perform(ALONE, {
      environment: {
        ETCD_MAX_WALS: "6",
        ETCD_ELECTION_TIMEOUT: "",
        ETCD_FOO: "bar",
        ETCD_VERSION: "3",
        ETCD_UNSUPPORTED_ARCH: "arm64",
        PATH: "/bin",
      },
    });
    await stage.listening;
    expect(stage.started[0]).toMatchObject({ name: "n1", maxWals: 6 });
    const early = stage.log().map(({ level, msg, ts: _, ...fields }) => [level, msg, fields]);
    expect(early).toContainEqual([
      "info",
      "recognized and used environment variable",
      { "variable-name": "ETCD_MAX_WALS", "variable-value": "6" },
    ]);
    expect(early).toContainEqual(["warn", "unrecognized environment variable", { "environment-variable": "ETCD_FOO=bar" }]);
    expect(early).toContainEqual(["warn", "cannot set special environment variable", { key: "ETCD_VERSION", value: "3" }]);
    expect(early.filter(([level]) => level === "warn")).toHaveLength(2);
  });

  it("must not say what a flag says, too", async () => {
    const { status, log } = await refused(["--name", "bar"], { environment: { ETCD_NAME: "bar" } });
    expect(status).toBe(1);
    expect(log()).toEqual([
      expect.objectContaining({
        level: "fatal",
        msg: "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))",
        "environment-variable": "ETCD_NAME",
      }),
    ]);
  });

  it.each([
    [{ ETCD_SNAPSHOT_COUNT: "abc" }, 'invalid value "abc" for ETCD_SNAPSHOT_COUNT: parse error'],
    [
      { ETCD_LISTEN_CLIENT_URLS: "foo" },
      'invalid value "foo" for ETCD_LISTEN_CLIENT_URLS: URL scheme must be http, https, unix, or unixs: foo',
    ],
    [{ ETCD_LISTEN_CLIENT_URLS: "http://127.0.0.1:1" }, "--advertise-client-urls is required when --listen-client-urls is set explicitly"],
    [{ ETCD_CONFIG_FILE: "nope.yml" }, "open nope.yml: no such file or directory"],
  ])("%j is refused", async (environment, error) => {
    const { status, log } = await refused([], { environment });
    const lines = log().filter((line) => line.level !== "info");
    expect([status, lines.map((line) => line.error)]).toEqual([1, [error]]);
  });
});

describe("a configuration file", () => {
  it("is used alone: flags and variables are ignored", async () => {
    const stage = perform(["--config-file", "c.yml", "--name", "flag"], {
      files: { "c.yml": "name: file\nelection-timeout: 2000\nbogus: 1\n" },
      environment: { ETCD_NAME: "variable", ETCD_FOO: "x" },
    });
    await stage.listening;
    expect(stage.started[0]).toMatchObject({ name: "file", electionTimeout: 2000 });
    expect(stage.log().map((line) => line.msg)).toEqual([
      "ignored unknown key in the configuration file",
      "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided",
      "Running: ",
    ]);
  });

  it("does not excuse a positional argument", async () => {
    const { log } = await refused(["--config-file", "c.yml", "positional"], { files: { "c.yml": "name: file" } });
    expect(log().map((line) => line.error)).toEqual(['"positional" is not a valid flag']);
  });

  it("is refused with the decoder's text", async () => {
    const { status, log } = await refused([], { files: { "c.yml": "pre-vote: 3" }, environment: { ETCD_CONFIG_FILE: "c.yml" } });
    expect([status, log().map((line) => line.error)]).toEqual([
      1,
      [
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct field configYAML.Config.pre-vote of type bool",
      ],
    ]);
  });
});

describe("what is started", () => {
  it("follows Go's syntax: one dash or two, last one counts, booleans with =, forgotten flags", async () => {
    const stage = perform([
      ...["-name", "a", "--name=n1", "-pre-vote=F", "--strict-reconfig-check", "--force", "--snapshot=old", "-v"],
      ...["--snapshot-count", "0x10", "--feature-gates", "LeaseCheckpoint=true", "--feature-gates=LeaseCheckpointPersist=true"],
      ...["--grpc-keepalive-interval", "1h30m", "--data-dir", "-odd"],
    ]);
    await stage.listening;
    expect(stage.started[0]).toMatchObject({
      name: "n1",
      preVote: false,
      strictReconfigCheck: true,
      snapshotCount: 16,
      featureGates: { LeaseCheckpoint: true, LeaseCheckpointPersist: true },
      grpcKeepaliveInterval: 5_400_000,
      dataDir: "-odd",
    });
  });

  it("keeps etcd's advertised defaults, whatever is listened on", async () => {
    const stage = perform(["--name", "n1", "--listen-peer-urls", "http://127.0.0.1:7"]);
    await stage.listening;
    const { server } = resolveConfig(stage.started[0]);
    expect([server.initialAdvertisePeerUrls, server.advertiseClientUrls]).toEqual([["http://localhost:2380"], ["http://localhost:2379"]]);
  });

  it("takes flags of older releases for their successors, with a warning", async () => {
    const stage = perform([
      ...ALONE,
      "--experimental-warning-apply-duration=1s",
      "--experimental-enable-lease-checkpoint",
      "--experimental-max-learners",
      "2",
    ]);
    await stage.listening;
    expect(stage.started[0]).toMatchObject({ warningApplyDuration: 1000, featureGates: { LeaseCheckpoint: true }, maxLearners: 2 });
    expect(
      stage
        .log()
        .filter((line) => line.level === "warn")
        .map((line) => [line.flag, line.successor]),
    ).toEqual([
      ["--experimental-warning-apply-duration", "--warning-apply-duration"],
      ["--experimental-enable-lease-checkpoint", "--feature-gates=LeaseCheckpoint=true"],
      ["--experimental-max-learners", "--max-learners"],
    ]);
  });
});

describe("--help and --version", () => {
  it("print to stdout and end well", async () => {
    const help = perform(["--help", "--nope"]);
    expect(await help.ending).toEqual({ status: 0 });
    expect(help.stdout()).toMatch(/--listen-client-urls 'http:\/\/localhost:2379'/);
    expect(help.stdout()).toMatch(/--grpc-keepalive-interval '2h0m0s'/);
    const version = perform(["--version"]);
    expect(await version.ending).toEqual({ status: 0 });
    expect(version.stdout()).toBe("etcd Version: 3.7.1\n");
    expect(help.stderr() + version.stderr()).toBe("");
  });

  it("come after flags that cannot be read, and version after positional arguments", async () => {
    expect((await refused(["--nope", "--help"])).status).toBe(2);
    expect((await refused(["--version", "x"])).status).toBe(1);
  });
});

describe("a running server", () => {
  it("is ready, is stopped by a signal, is closed, and the process dies by that signal", async () => {
    const stage = perform(ALONE);
    await stage.listening;
    stage.server.becomeReady();
    await stage.server.ready;
    stage.signal("SIGTERM");
    expect(await stage.ending).toEqual({ signal: "SIGTERM" });
    expect(stage.server.closes).toBe(1);
    expect(stage.clock.pending).toBe(0);
    expect(stage.log().map((line) => line.msg)).toEqual(["Running: ", "received signal; shutting down"]);
    expect(stage.log().at(-1)).toMatchObject({ level: "info", signal: "terminated" });
    expect(stage.stdout()).toBe("");
  });

  it("greets whoever typed npm start", async () => {
    const stage = perform(ALONE, { environment: { HOLDFAST_GREETING: "1" } });
    await stage.listening;
    expect(stage.stdout()).toBe("");
    stage.server.becomeReady();
    await stage.server.ready;
    expect(stage.stdout()).toContain("curl http://127.0.0.1:2379/v3/kv/put");
    expect(stage.stdout()).toContain("/d");
  });

  it("leaves at once at a second signal, but not at the echo of the first", async () => {
    const stage = perform(ALONE);
    stage.server.closing = new Promise(() => undefined);
    await stage.listening;
    stage.signal("SIGINT");
    stage.clock.advance(3);
    stage.signal("SIGINT");
    stage.signal("SIGTERM");
    expect(stage.ended).toEqual([]);
    stage.clock.advance(600);
    stage.signal("SIGTERM");
    expect(stage.ended).toEqual([{ signal: "SIGTERM" }]);
  });

  it("does not wait for ever for the orderly end", async () => {
    const stage = perform([...ALONE, "--election-timeout", "2000"]);
    stage.server.closing = new Promise(() => undefined);
    await stage.listening;
    stage.signal("SIGTERM");
    await expect.poll(() => stage.clock.pending).toBe(1);
    stage.clock.advance(13_999);
    expect(stage.clock.pending).toBe(1);
    stage.clock.advance(1);
    expect(await stage.ending).toEqual({ signal: "SIGTERM" });
    expect(stage.log().at(-1)).toMatchObject({ level: "warn", msg: "closing took too long; leaving" });
  });

  it("ends with status 1 and one line when it fails", async () => {
    const stage = perform(ALONE);
    await stage.listening;
    stage.server.fail(new EtcdError("disk", GrpcCode.Unavailable, "no space left on device"));
    expect(await stage.ending).toEqual({ status: 1 });
    expect(stage.server.closes).toBe(1);
    expect(stage.log().at(-1)).toEqual({
      level: "fatal",
      ts: "2026-01-02T03:04:05.123000Z",
      msg: "server failed",
      error: "no space left on device",
    });
  });

  it("ends with status 0 when the member was removed", async () => {
    const stage = perform(ALONE);
    await stage.listening;
    stage.server.fail(Object.assign(new Error("removed"), { failure: "removed" }));
    expect(await stage.ending).toEqual({ status: 0 });
    expect(stage.log().slice(-2)).toMatchObject([
      { level: "warn", msg: "server error", error: "the member has been permanently removed from the cluster" },
      { level: "warn", msg: "data-dir used by this member must be removed", "data-dir": "/d" },
    ]);
  });

  it("survives a failure to close", async () => {
    const stage = perform(ALONE);
    stage.server.closing = Promise.reject(new Error("stuck"));
    await stage.listening;
    stage.signal("SIGINT");
    expect(await stage.ending).toEqual({ signal: "SIGINT" });
    expect(stage.log().at(-1)).toMatchObject({ level: "error", msg: "closing failed", error: "stuck" });
  });
});

describe("a server that cannot start", () => {
  it.each([
    [
      Object.assign(new Error("listen EADDRINUSE: address already in use 127.0.0.1:2380"), {
        code: "EADDRINUSE",
        syscall: "listen",
        address: "127.0.0.1",
        port: 2380,
      }),
      "listen tcp 127.0.0.1:2380: bind: address already in use",
    ],
    [
      Object.assign(new Error("x"), { code: "EACCES", syscall: "listen", address: "::1", port: 80 }),
      "listen tcp [::1]:80: bind: permission denied",
    ],
    [new EtcdError("bootstrap", GrpcCode.FailedPrecondition, "member count is unequal"), "member count is unequal"],
    [new Error("two\n  lines"), "two lines"],
    ["odd", "odd"],
  ])("says why in one line: %s", async (startFails, error) => {
    const stage = perform(ALONE, { startFails });
    expect(await stage.ending).toEqual({ status: 1 });
    expect(stage.log().filter((line) => line.level !== "info")).toEqual([
      { level: "fatal", ts: "2026-01-02T03:04:05.123000Z", msg: "discovery failed", error },
    ]);
  });
});

describe("logs", () => {
  it("go to files, several at once, at the chosen level and in the chosen form", async () => {
    const stage = perform([...ALONE, "--log-outputs", "/l/a.log,stdout", "--log-level", "debug", "--log-format", "console"]);
    await stage.listening;
    const { logger } = stage.started[0] ?? {};
    logger?.child({ member: 0xffn }).debug({ error: new EtcdError("r", GrpcCode.Unknown, "why"), n: 1 }, "look");
    logger?.info({}, "bare");
    const text = stage.files.get("/l/a.log") ?? "";
    expect(text.split("\n").slice(1)).toEqual([
      '2026-01-02T03:04:05.123000Z\tdebug\tlook\t{"member":"255","error":"why","n":1}',
      "2026-01-02T03:04:05.123000Z\tinfo\tbare",
      "",
    ]);
    expect(stage.stdout()).toBe(text);
    expect(stage.stderr()).toBe("");
  });

  it("put the message before the fields and leave out what is below the level", async () => {
    const stage = perform([...ALONE, "--log-level", "warn"]);
    await stage.listening;
    stage.started[0]?.logger?.info({}, "no");
    stage.started[0]?.logger?.warn({ z: 1, a: [2n].map(String) }, "yes");
    expect(stage.stderr()).toBe('{"level":"warn","ts":"2026-01-02T03:04:05.123000Z","msg":"yes","z":1,"a":["2"]}\n');
  });

  it("of fatal level keep only the last words", async () => {
    const stage = perform([...ALONE, "--log-level", "dpanic"], { startFails: new Error("x") });
    await stage.ending;
    expect(stage.log().map((line) => line.level)).toEqual(["fatal"]);
  });
});
