/** Every program in docs/guide is compiled and run, and prints what the guide says. See test/guide/snippets.ts for what the fences mean. */
import { type ExecFileException, execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestCluster, startTestEtcd } from "../src/testing/index.ts";
import { type Snippet, snippetsOf } from "./guide/snippets.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const GUIDE = join(ROOT, "docs/guide");
/** Inside of the package, so that packages resolve as they do for a program beside it. */
const BUILD = join(ROOT, `.build/guide-${process.pid}`);

const documents = readdirSync(GUIDE)
  .filter((file) => file.endsWith(".md"))
  .map((file) => ({
    name: file.slice(0, -3),
    snippets: snippetsOf(file.slice(0, -3), readFileSync(join(GUIDE, file), "utf8")),
  }));
const all = documents.flatMap(({ snippets }) => snippets);

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "holdfast-guide-"));
  mkdirSync(BUILD, { recursive: true });
  const face = (path: string): string[] => [`../../src/${path}`];
  const tsconfig = {
    extends: "../../tsconfig.json",
    compilerOptions: {
      noUnusedLocals: false,
      lib: ["ES2023", "ESNext.Disposable"],
      paths: {
        holdfast: face("index.ts"),
        "holdfast/client": face("client/index.ts"),
        "holdfast/grpc": face("client/grpc/index.ts"),
        "holdfast/concurrency": face("client/concurrency/index.ts"),
        "holdfast/testing": face("testing/index.ts"),
      },
    },
    include: ["*.ts", "../../types"],
  };
  writeFileSync(join(BUILD, "tsconfig.json"), JSON.stringify(tsconfig));
  for (const snippet of all) writeFileSync(fileOf(snippet), snippet.code);
});

afterAll(() => {
  rmSync(BUILD, { recursive: true, force: true });
  rmSync(scratch, { recursive: true, force: true });
});

function fileOf({ name, kind }: Snippet): string {
  return join(BUILD, `${name}${kind === "vitest" ? ".test" : ""}.ts`);
}

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function runNode(args: readonly string[], cwd: string, timeout = 60_000): Promise<Ended> {
  return new Promise((resolve) => {
    const env = { ...process.env, TSX_TSCONFIG_PATH: join(BUILD, "tsconfig.json"), NODE_TEST_CONTEXT: undefined, NO_COLOR: "1" };
    execFile(process.execPath, args, { cwd, timeout, env, maxBuffer: 1 << 24 }, (error: ExecFileException | null, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ code, stdout, stderr: error?.killed === true ? `${stderr}\nit did not end by itself` : stderr });
    });
  });
}

const SERVED = /http:\/\/(?:127\.0\.0\.1|localhost):(2379|22379|32379)/g;
/** Where members of the guide's clusters hear each other. */
const PEERS = /http:\/\/127\.0\.0\.1:(2380|22380|32380)/g;
const DATA = /"\/var\/lib\/([\w/-]+)"/g;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The program with servers of this machine in the place of those in the text; closes them when it has run. */
async function prepared(snippet: Snippet): Promise<{ file: string; close(): Promise<void> }> {
  const wanted = new Set([...snippet.code.matchAll(SERVED)].map(([, port]) => port));
  let endpoints: readonly string[] = [];
  let close = async (): Promise<void> => undefined;
  if (wanted.has("22379") || wanted.has("32379")) {
    const cluster = await startTestCluster({ listen: true });
    endpoints = cluster.endpoints;
    close = () => cluster.close();
  } else if (wanted.has("2379")) {
    const etcd = await startTestEtcd({ listen: true });
    endpoints = etcd.endpoints;
    close = () => etcd.close();
  }
  const ports = ["2379", "22379", "32379"];
  const peers = new Map<string, string>();
  for (const [, port = ""] of snippet.code.matchAll(PEERS)) if (!peers.has(port)) peers.set(port, `http://127.0.0.1:${await freePort()}`);
  const code = snippet.code
    .replace(PEERS, (_, port: string) => peers.get(port) as string)
    .replace(SERVED, (_, port: string) => endpoints[ports.indexOf(port)] as string)
    .replace(DATA, (_, path: string) => JSON.stringify(join(scratch, snippet.name, path)));
  const file = fileOf(snippet);
  writeFileSync(file, code);
  return { file, close };
}

describe("the guide", () => {
  it("compiles", async () => {
    const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
    const { code, stdout } = await runNode([tsc, "-p", join(BUILD, "tsconfig.json"), "--noEmit"], ROOT, 120_000);
    const named = all.reduce((text, { name, place }) => text.replaceAll(`${name}.ts`, `${place} `), stdout);
    expect(named).toBe("");
    expect(code).toBe(0);
  }, 120_000);

  it.each(documents)(
    "runs: $name",
    async ({ snippets }) => {
      const programs = snippets.filter(({ kind }) => kind === "program");
      const ready = await Promise.all(programs.map(prepared));
      const tests = snippets.filter(({ kind }) => kind === "vitest" || kind === "node:test");
      try {
        if (programs.length > 0) {
          const runner = join(ROOT, "test/guide/run-snippets.ts");
          const ended = await runNode(["--import", "tsx", runner, scratch, ...ready.map(({ file }) => file)], ROOT);
          const results = new Map(
            ended.stdout
              .split("\n")
              .filter((line) => line.startsWith("{"))
              .map((line) => JSON.parse(line) as { file: string; printed: string; error?: string })
              .map((result) => [result.file, result]),
          );
          for (const [i, { place, output }] of programs.entries()) {
            const result = results.get((ready[i] as { file: string }).file);
            expect({ place, error: result?.error, ran: result !== undefined, stderr: result === undefined ? ended.stderr : "" }).toEqual({
              place,
              error: undefined,
              ran: true,
              stderr: "",
            });
            if (output !== undefined) expect({ place, printed: result?.printed }).toEqual({ place, printed: output });
          }
          expect({ stderr: ended.stderr, code: ended.code }).toEqual({ stderr: "", code: 0 });
        }
        for (const snippet of tests) {
          const args =
            snippet.kind === "vitest"
              ? [join(ROOT, "node_modules/vitest/vitest.mjs"), "run", "--root", ROOT, "--config", join(BUILD, "vitest.config.mjs")]
              : ["--import", "tsx", "--test"];
          if (snippet.kind === "vitest") writeFileSync(join(BUILD, "vitest.config.mjs"), vitestConfig());
          const ended = await runNode([...args, fileOf(snippet)], ROOT);
          expect({ place: snippet.place, ...ended, ...(ended.code === 0 ? { stdout: "", stderr: "" } : {}) }).toEqual({
            place: snippet.place,
            code: 0,
            stdout: "",
            stderr: "",
          });
        }
      } finally {
        await Promise.all(ready.map(({ close }) => close()));
      }
    },
    120_000,
  );
});

/** Tests of the guide's readers, on the sources of this package. */
function vitestConfig(): string {
  const alias = Object.entries({
    holdfast: "index.ts",
    "holdfast/client": "client/index.ts",
    "holdfast/grpc": "client/grpc/index.ts",
    "holdfast/concurrency": "client/concurrency/index.ts",
    "holdfast/testing": "testing/index.ts",
  }).map(([name, path]) => ({ find: name, replacement: join(ROOT, "src", path) }));
  const entries = alias.map(
    ({ find, replacement }) => `{ find: /^${find.replace("/", "\\/")}$/, replacement: ${JSON.stringify(replacement)} }`,
  );
  return `export default { resolve: { alias: [${entries.join(", ")}] }, test: { include: ["**/.build/guide-*/*.test.ts"], exclude: [] } };\n`;
}
