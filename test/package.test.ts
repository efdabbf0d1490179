/** The package as it is published: packed, put into an ESM project and into a CommonJS one, imported, run and compiled there. */
import { type ExecFileException, execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function run(command: string, args: readonly string[], cwd: string): Promise<Ended> {
  return new Promise((resolve) => {
    const options = { cwd, timeout: 60_000, maxBuffer: 1 << 24, env: { ...process.env, NODE_OPTIONS: "", NODE_NO_WARNINGS: "1" } };
    execFile(command, args, options, (error: ExecFileException | null, stdout, stderr) => {
      resolve({ code: error === null ? 0 : typeof error.code === "number" ? error.code : -1, stdout, stderr });
    });
  });
}

const node = (args: readonly string[], cwd: string): Promise<Ended> => run(process.execPath, args, cwd);

let scratch: string;
let packed: string[];

/** An empty project beside which the package is installed, with what it depends on. */
function project(name: string, type: "module" | "commonjs"): string {
  const directory = join(scratch, name);
  mkdirSync(directory);
  writeFileSync(join(directory, "package.json"), JSON.stringify({ name, private: true, type }));
  return directory;
}

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), "holdfast-package-"));
  // Scripts would build `dist` anew while other tests use it; it is up to date, `npm test` sees to that.
  const npm = process.env.npm_execpath;
  const [command, ...first] = npm?.endsWith(".js") ? [process.execPath, npm] : ["npm"];
  const pack = await run(command as string, [...first, "pack", "--ignore-scripts", "--json", "--pack-destination", scratch], ROOT);
  expect({ code: pack.code, stderr: pack.code === 0 ? "" : pack.stderr }).toEqual({ code: 0, stderr: "" });
  const [{ filename, files }] = JSON.parse(pack.stdout) as [{ filename: string; files: { path: string }[] }];
  packed = files.map(({ path }) => path);
  // Installed without a registry: unpacked, with links to the packages that it names. Nothing else of this repository is in reach.
  const modules = join(scratch, "node_modules");
  mkdirSync(modules);
  const unpacked = await run("tar", ["-xzf", filename], scratch);
  expect(unpacked.code).toBe(0);
  renameSync(join(scratch, "package"), join(modules, "holdfast"));
  const { dependencies } = JSON.parse(readFileSync(join(modules, "holdfast/package.json"), "utf8")) as {
    dependencies: Record<string, string>;
  };
  for (const name of [...Object.keys(dependencies), "@types/node"]) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(ROOT, "node_modules", name), join(modules, name));
  }
}, 90_000);

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Embeds, talks over every way, locks, and uses the test support. */
const BODY = `
  const server = await startEtcd({ inMemory: true, listenClientUrls: ["http://127.0.0.1:0"], listenPeerUrls: [] });
  await server.ready;
  await server.client.put("a", "1");
  const overJson = createClient({ endpoints: server.clientUrls });
  const overGrpc = createClient({ endpoints: server.clientUrls, transport: grpc() });
  const values = [(await overJson.get("a"))?.value, (await overGrpc.get("a"))?.value];
  const token = await withLock(overGrpc, "lock", async ({ token }) => token > 0);
  const done = await overJson.txn().if(compare.exists("a")).do(op.put("a", "2")).commit();
  overJson.close();
  overGrpc.close();
  await server.close();
  const etcd = await startTestEtcd();
  await etcd.client.put("b", "1");
  await etcd.close();
  const error = await startEtcd({ dataDir: "", electionTimeout: 1 }).catch((reason) => reason);
  console.log(JSON.stringify([values, token, done.succeeded, error instanceof ConfigError, EtcdError.is(error)]));
`;
const EXPECTED = [["1", "1"], true, true, true, true];

describe("the packed package", () => {
  it("holds what is needed, and no more", () => {
    for (const path of ["package.json", "README.md", "LICENSE", "dist/index.js", "dist/index.d.ts", "dist/client/grpc/index.d.ts"]) {
      expect(packed).toContain(path);
    }
    expect(packed.filter((path) => /\.test\.|\.map$|^(src|test|scripts|node_modules)\/|\.stamp$/.test(path))).toEqual([]);
    expect(readdirSync(scratch).some((name) => name.endsWith(".tgz"))).toBe(true);
  });

  it("works in an ESM project", async () => {
    const directory = project("esm", "module");
    writeFileSync(
      join(directory, "main.js"),
      `import { compare, ConfigError, EtcdError, op, startEtcd } from "holdfast";
      import { createClient } from "holdfast/client";
      import { withLock } from "holdfast/concurrency";
      import { grpc } from "holdfast/grpc";
      import { startTestEtcd } from "holdfast/testing";
      ${BODY}`,
    );
    const { code, stdout, stderr } = await node(["main.js"], directory);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(stdout)).toEqual(EXPECTED);
  }, 60_000);

  it("works in a CommonJS project", async () => {
    const directory = project("cjs", "commonjs");
    writeFileSync(
      join(directory, "main.js"),
      `const { compare, ConfigError, EtcdError, op, startEtcd } = require("holdfast");
      const { createClient } = require("holdfast/client");
      const { withLock } = require("holdfast/concurrency");
      const { grpc } = require("holdfast/grpc");
      const { startTestEtcd } = require("holdfast/testing");
      (async () => { ${BODY} })();`,
    );
    const { code, stdout, stderr } = await node(["main.js"], directory);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(stdout)).toEqual(EXPECTED);
  }, 60_000);

  it("has types for both", async () => {
    const program = `import { type EtcdServer, startEtcd, op, compare } from "holdfast";
      import { createClient, type EtcdClient, json } from "holdfast/client";
      import { type Election, withLock } from "holdfast/concurrency";
      import { grpc } from "holdfast/grpc";
      import { startTestCluster, type TestCluster } from "holdfast/testing";
      export async function main(): Promise<number> {
        const server: EtcdServer = await startEtcd({ inMemory: true, autoCompactionRetention: "1h" });
        const client: EtcdClient = createClient({ endpoints: ["http://127.0.0.1:2379"], transport: grpc({ tls: { ca: "" } }) });
        const numbers = server.client.withValues(json<number>());
        const { results: [pair, put] } = await numbers.txn().if(compare.exists("a")).do(op.get("a"), op.put("a", 2)).commit();
        const cluster: TestCluster = await startTestCluster();
        await cluster.close();
        const election: Election | undefined = undefined;
        void election;
        const token: number = await withLock(client, "x", async ({ token }) => token);
        return token + (pair?.value ?? 0) + (put?.revision ?? 0);
      }
      // @ts-expect-error settings have types
      void startEtcd({ electionTimeout: true });`;
    for (const type of ["module", "commonjs"] as const) {
      const directory = project(`types-${type}`, type);
      writeFileSync(join(directory, "main.ts"), program);
      const compilerOptions = { strict: true, module: "nodenext", target: "es2022", lib: ["es2023", "esnext.disposable"], noEmit: true };
      writeFileSync(join(directory, "tsconfig.json"), JSON.stringify({ compilerOptions: { ...compilerOptions, types: ["node"] } }));
      const { stdout } = await node([join(ROOT, "node_modules/typescript/bin/tsc"), "-p", "."], directory);
      expect({ type, stdout }).toEqual({ type, stdout: "" });
    }
  }, 60_000);

  it("is published as publint wants it", async () => {
    const { stdout, stderr, code } = await node(
      [join(ROOT, "node_modules/publint/src/cli.js"), "run", "--strict", "--pack", "false", ROOT],
      ROOT,
    );
    expect({ code, output: code === 0 ? "" : stdout + stderr }).toEqual({ code: 0, output: "" });
  }, 60_000);
});
