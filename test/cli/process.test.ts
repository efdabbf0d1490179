/** The real command in real processes. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const COMMAND = join(ROOT, "dist/cli/holdfast.cjs");
const READY_MS = 20_000;

const directory = mkdtempSync(join(tmpdir(), "holdfast-cli-"));
const running = new Set<Member>();

beforeAll(() => {
  // A no-op under `npm test`, which has built already.
  const { status, stderr } = spawnSync(
    process.execPath,
    ["--input-type=module", "-e", "(await import('./scripts/lib/setup.mjs')).prepare()"],
    {
      cwd: ROOT,
      encoding: "utf8",
    },
  );
  if (status !== 0) throw new Error(`cannot build: ${stderr}`);
}, 120_000);

afterEach(async () => {
  for (const member of running) {
    member.child.kill("SIGKILL");
    await member.ended;
  }
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

interface Member {
  readonly child: ChildProcess;
  readonly ended: Promise<{ code: number | null; signal: string | null }>;
  readonly stdout: () => string;
  readonly lines: () => Record<string, unknown>[];
}

function run(words: readonly string[], environment: Record<string, string> = {}): Member {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("ETCD_") && name !== "UV_THREADPOOL_SIZE");
  const child = spawn(process.execPath, [COMMAND, ...words], {
    cwd: directory,
    env: { ...Object.fromEntries(inherited), ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const member: Member = {
    child,
    ended: once(child, "close").then(([code, signal]) => {
      running.delete(member);
      return { code: code as number | null, signal: signal as string | null };
    }),
    stdout: () => stdout,
    lines: () =>
      stderr
        .split("\n")
        .flatMap((line) => (line === "" ? [] : [line.startsWith("{") ? (JSON.parse(line) as Record<string, unknown>) : { plain: line }])),
  };
  running.add(member);
  return member;
}

function flags(dataDir: string, clientPort: number): string[] {
  const [client, peer] = [`http://127.0.0.1:${clientPort}`, `http://127.0.0.1:${clientPort + 1}`];
  return [
    ...["--name", "n1", "--data-dir", join(directory, dataDir)],
    ...["--listen-client-urls", client, "--advertise-client-urls", client],
    ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
  ];
}

async function ready(member: Member): Promise<void> {
  await expect
    .poll(
      () => {
        if (!running.has(member)) throw new Error(`ended early: ${JSON.stringify(member.lines())}`);
        return member.lines().some((line) => line.msg === "ready to serve client requests");
      },
      { timeout: READY_MS, interval: 20 },
    )
    .toBe(true);
}

async function call(port: number, path: string, body: unknown): Promise<Record<string, unknown>> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method: "POST", body: JSON.stringify(body) });
  return (await response.json()) as Record<string, unknown>;
}

/** Names, sizes and contents of everything below. */
function contents(path: string): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (at: string): void => {
    for (const name of readdirSync(at)) {
      const entry = join(at, name);
      if (statSync(entry).isDirectory()) walk(entry);
      else found[entry] = readFileSync(entry, "latin1");
    }
  };
  walk(path);
  return found;
}

function problems(member: Member): unknown[] {
  return member
    .lines()
    .filter(
      (line) =>
        line.level !== "info" && line.msg !== "Running http and grpc server on single port. This is not recommended for production.",
    );
}

describe("the command", { timeout: 120_000 }, () => {
  it("prints four lines about itself, of which programs read the first", async () => {
    const member = run(["--version"]);
    expect(await member.ended).toEqual({ code: 0, signal: null });
    expect(member.stdout()).toMatch(/^etcd Version: 3\.7\.1\nGit SHA: .+\nNode Version: v\d+\..+\nNode OS\/Arch: \w+\/\w+\n$/);
    expect(member.lines()).toEqual([]);
  });

  it("serves, dies by the signal that stops it, and finds its data again", async () => {
    for (const [round, signal] of (["SIGTERM", "SIGINT"] as const).entries()) {
      const member = run(flags("again", 24_340));
      await ready(member);
      if (round === 0) await call(24_340, "/v3/kv/put", { key: "aGVsbG8=", value: "d29ybGQ=" });
      expect(await call(24_340, "/v3/kv/range", { key: "aGVsbG8=" })).toMatchObject({
        kvs: [{ key: "aGVsbG8=", value: "d29ybGQ=", version: "1" }],
      });
      member.child.kill(signal);
      expect(await member.ended).toEqual({ code: null, signal });
      expect(problems(member).filter((line) => (line as { level?: string }).level !== "warn")).toEqual([]);
    }
  });

  it("stops although a client watches and another keeps its connection", async () => {
    const member = run(flags("watched", 24_350));
    await ready(member);
    const watch = await fetch("http://127.0.0.1:24350/v3/watch", {
      method: "POST",
      body: JSON.stringify({ create_request: { key: "YQ==" } }),
    });
    const reader = watch.body?.getReader();
    await reader?.read();
    await call(24_350, "/v3/kv/range", { key: "YQ==" });
    member.child.kill("SIGTERM");
    expect(await member.ended).toEqual({ code: null, signal: "SIGTERM" });
    expect(member.lines().map((line) => line.msg)).not.toContain("closing took too long; leaving");
    await reader?.cancel().catch(() => "the connection is gone");
  });

  it("gives the disk's calls more threads than Node does by itself", async () => {
    const member = run(flags("threads", 24_342));
    await ready(member);
    if (process.platform === "linux") expect(readdirSync(`/proc/${member.child.pid}/task`).length).toBeGreaterThanOrEqual(16);
  });

  it("says in one line when a port is taken", async () => {
    const holder: Server = createServer();
    await new Promise<void>((resolve) => holder.listen(24_344, "127.0.0.1", resolve));
    try {
      const member = run(flags("taken", 24_344));
      expect(await member.ended).toEqual({ code: 1, signal: null });
      expect(problems(member)).toEqual([
        {
          level: "fatal",
          ts: expect.any(String),
          msg: "discovery failed",
          error: "listen tcp 127.0.0.1:24344: bind: address already in use",
        },
      ]);
    } finally {
      holder.close();
    }
  });

  it("leaves the data alone when the configuration is wrong", async () => {
    const first = run(flags("untouched", 24_346));
    await ready(first);
    first.child.kill("SIGTERM");
    await first.ended;
    const before = contents(join(directory, "untouched"));
    const wrong: [string[], Record<string, string>, number][] = [
      [["--nope"], {}, 2],
      [["--listen-client-urls", "foo"], {}, 2],
      [["--election-timeout", "1"], {}, 1],
      [["--cert-file", "x"], {}, 1],
      [["--initial-cluster", "foo"], {}, 1],
      [["stray"], {}, 1],
      [[], { ETCD_NAME: "n1" }, 1],
      [[], { ETCD_SNAPSHOT_COUNT: "x" }, 1],
      [["--config-file", "nope.yml"], {}, 1],
    ];
    for (const [words, environment, status] of wrong) {
      const member = run([...flags("untouched", 24_346), ...words], environment);
      expect([words, await member.ended]).toEqual([words, { code: status, signal: null }]);
      expect(member.lines().filter((line) => line.level !== "info")).toHaveLength(1);
    }
    expect(contents(join(directory, "untouched"))).toEqual(before);
  });

  it("does not found a cluster that it is not named in, or whose URL it does not advertise", async () => {
    for (const [cluster, error] of [
      ["other=http://127.0.0.1:24349", `couldn't find local name "n1" in the initial cluster configuration`],
      [
        "n1=http://127.0.0.1:1",
        '--initial-cluster has n1=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://127.0.0.1:24349 (resolved urls: "http://127.0.0.1:24349" != "http://127.0.0.1:1")',
      ],
    ] as const) {
      const member = run([...flags("strange", 24_348), "--initial-cluster", cluster]);
      expect(await member.ended).toEqual({ code: 1, signal: null });
      expect(problems(member)).toEqual([{ level: "fatal", ts: expect.any(String), msg: "discovery failed", error }]);
    }
  });
});
