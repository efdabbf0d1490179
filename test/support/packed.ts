/** The package as users get it: packed by npm, unpacked beside the dependencies, its commands run as processes. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { until } from "./server-process.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

function run(program: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd, encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${error?.message ?? stderr}`);
  return stdout;
}

const KEPT = join(ROOT, ".build/packed");
/** Packages of other builds that are older go. */
const KEPT_MS = 3_600_000;

/** Where the unpacked package of the present build is. Files of tests that run at the same time, and later ones, share it. */
function packedPlace(): string {
  const hash = createHash("sha256");
  for (const path of ["dist/.stamp", "package.json"]) hash.update(readFileSync(join(ROOT, path)));
  const kept = join(KEPT, hash.digest("hex").slice(0, 32));
  const place = join(kept, "node_modules/package");
  if (existsSync(place)) return place;
  mkdirSync(KEPT, { recursive: true });
  for (const name of readdirSync(KEPT)) {
    const path = join(KEPT, name);
    if (Date.now() - statSync(path).mtimeMs > KEPT_MS) rmSync(path, { recursive: true, force: true });
  }
  const fresh = mkdtempSync(join(KEPT, "making-"));
  run("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", fresh], ROOT);
  const archive = readdirSync(fresh).find((name) => name.endsWith(".tgz"));
  if (archive === undefined) throw new Error("npm pack made no archive");
  mkdirSync(join(fresh, "node_modules"));
  run("tar", ["-xzf", archive, "-C", "node_modules"], fresh);
  // The dependencies stand where they are; nothing of the repository but the package itself is reachable otherwise.
  symlinkSync(join(ROOT, "node_modules"), join(fresh, "node_modules/package/node_modules"));
  try {
    renameSync(fresh, kept);
  } catch (error) {
    // Somebody else was faster.
    if (!existsSync(place)) throw error;
    rmSync(fresh, { recursive: true, force: true });
  }
  return place;
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A command under way. */
export class Running {
  readonly ended: Promise<Ended>;
  readonly #child: ChildProcess;
  #stdout = "";
  #stderr = "";
  #ending: Ended | undefined;

  constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.#stdout += text;
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
    });
    this.ended = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => {
        this.#ending = { code, signal };
        resolve(this.#ending);
      });
    });
    // It may end without having read anything.
    child.stdin?.on("error", () => undefined);
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  type(text: string): void {
    this.#child.stdin?.write(text);
  }

  endInput(): void {
    this.#child.stdin?.end();
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#ending === undefined) this.#child.kill(signal);
  }

  /** Waits until what it has printed matches. */
  async says(pattern: RegExp, deadlineMs = 20_000): Promise<void> {
    await until(`${pattern} in what a command prints`, deadlineMs, () => {
      if (pattern.test(this.#stdout)) return true;
      if (this.#ending !== undefined && !pattern.test(this.#stdout)) {
        throw new Error(`it ended (${JSON.stringify(this.#ending)}) after ${JSON.stringify(this.#stdout + this.#stderr)}`);
      }
      return false;
    });
  }
}

export class PackedPackage {
  /** Scripts by the names of their commands. */
  readonly commands: Readonly<Record<string, string>>;
  readonly #directory: string;
  readonly #running = new Set<Running>();

  private constructor(directory: string, commands: Readonly<Record<string, string>>) {
    this.#directory = directory;
    this.commands = commands;
  }

  /** Builds, if what is built is old, and packs, if nobody has packed the same before. */
  static make(): PackedPackage {
    run(process.execPath, ["--input-type=module", "-e", "(await import('./scripts/lib/setup.mjs')).prepare()"], ROOT);
    const place = packedPlace();
    const { bin } = JSON.parse(readFileSync(join(place, "package.json"), "utf8")) as { bin: Record<string, string> };
    const scripts = Object.entries(bin).map(([name, path]) => [name, join(place, path)] as const);
    for (const [name, script] of scripts) {
      if (!statSync(script).isFile()) throw new Error(`the command ${name} is missing in the package`);
    }
    return new PackedPackage(mkdtempSync(join(tmpdir(), "holdfast-packed-")), Object.fromEntries(scripts));
  }

  start(command: string, words: readonly string[], environment: Readonly<Record<string, string>> = {}): Running {
    const script = this.commands[command];
    if (script === undefined) throw new Error(`there is no command ${command}`);
    const child = spawn(process.execPath, [script, ...words], {
      cwd: this.#directory,
      env: { PATH: process.env.PATH, ...environment },
      stdio: "pipe",
    });
    const running = new Running(child);
    this.#running.add(running);
    const over = (): void => void this.#running.delete(running);
    running.ended.then(over, over);
    return running;
  }

  /** Ends what still runs, and removes everything. */
  async close(): Promise<void> {
    for (const running of [...this.#running]) {
      running.signal("SIGKILL");
      await running.ended;
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
