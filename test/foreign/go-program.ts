/** The Go programs in go-client/ and go-node/: building them where there is Go, and running them. */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const BUILD_MS = 600_000;

/**
 * The built program, or why there is none. Built once for what its sources are now. Modules are fetched from the module proxy only with `download`; without
 * it they have to be in Go's cache.
 */
export function goProgram({
  download,
  name = "go-client",
}: {
  download: boolean;
  name?: "go-client" | "go-node";
}): { readonly program: string } | { readonly missing: string } {
  const sources = fileURLToPath(new URL(`./${name}`, import.meta.url));
  const directory = fileURLToPath(new URL(`../../.build/${name}`, import.meta.url));
  const hash = createHash("sha256");
  for (const file of readdirSync(sources).sort()) hash.update(`${file}\0`).update(readFileSync(join(sources, file)));
  const program = join(directory, hash.digest("hex").slice(0, 16));
  if (existsSync(program)) return { program };
  const version = spawnSync("go", ["version"], { encoding: "utf8" });
  if (version.error !== undefined || version.status !== 0) return { missing: "there is no go" };
  // What was built from earlier sources is not needed any more.
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const env = download ? process.env : { ...process.env, GOPROXY: "off", GOTOOLCHAIN: "local" };
  const modules = spawnSync("go", ["mod", "download"], { cwd: sources, encoding: "utf8", timeout: BUILD_MS, env });
  if (modules.status !== 0) return { missing: `its modules cannot be had: ${modules.stderr.trim().slice(0, 300)}` };
  const built = spawnSync("go", ["build", "-o", program, "."], { cwd: sources, encoding: "utf8", timeout: BUILD_MS, env });
  if (built.status !== 0) throw new Error(`cannot build the Go client: ${built.stderr}`);
  return { program };
}

export interface GoRun {
  /** Settles when the program prints this line. Rejects if it ends before. */
  line(wanted: string): Promise<void>;
  /** Closes its input: for some commands, the sign to come to an end. */
  endInput(): void;
  kill(): void;
  readonly ended: Promise<{ readonly code: number | null; readonly lines: readonly string[] }>;
}

/** Runs it; what it prints is kept, and told to `onLine` as it comes. */
export function runGo(program: string, words: readonly string[], onLine: (line: string) => void = () => undefined): GoRun {
  const child = spawn(program, words, { stdio: ["pipe", "pipe", "inherit"] });
  const lines: string[] = [];
  const waiting: { wanted: string; resolve: () => void; reject: (error: Error) => void }[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => {
    lines.push(line);
    onLine(line);
    for (const one of waiting) if (one.wanted === line) one.resolve();
  });
  child.stdin.on("error", () => undefined);
  const ended = new Promise<{ code: number | null; lines: readonly string[] }>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      for (const one of waiting) one.reject(new Error(`the Go client ended before it said ${one.wanted}:\n${lines.join("\n")}`));
      resolve({ code, lines });
    });
  });
  return {
    line: (wanted) =>
      new Promise((resolve, reject) => {
        if (lines.includes(wanted)) resolve();
        else waiting.push({ wanted, resolve, reject });
      }),
    endInput: () => void child.stdin.end(),
    kill: () => void child.kill("SIGKILL"),
    ended,
  };
}
