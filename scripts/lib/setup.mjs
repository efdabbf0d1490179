/**
 * What `npm start`, `npm test` and the others do before anything else, so that they work in a fresh clone: install what is missing, build what is stale.
 * Plain Node without dependencies. Messages go to stderr.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
/** The server's command. */
export const SERVER = join(ROOT, "dist/cli/holdfast.cjs");

const LOCK = join(ROOT, ".build/lock");
const LOCK_WAIT_MS = 600_000;

/** Installs and builds, if need be. Ends the process with a message when that fails. */
export function prepare() {
  if (!stale()) return;
  withLock(() => {
    // Somebody else may have done it meanwhile.
    if (installedIsOld()) install();
    if (builtIsOld()) build();
  });
}

/** Only installs, for what runs from the sources. */
export function prepareModules() {
  if (!installedIsOld()) return;
  withLock(() => {
    if (installedIsOld()) install();
  });
}

/** Builds, whether it is needed or not. */
export function rebuild() {
  withLock(() => {
    if (installedIsOld()) install();
    build();
  });
}

function stale() {
  return installedIsOld() || builtIsOld();
}

function installedIsOld() {
  const wanted = join(ROOT, "package-lock.json");
  const installed = join(ROOT, "node_modules/.package-lock.json");
  if (!existsSync(installed)) return true;
  if (statSync(installed).mtimeMs >= statSync(wanted).mtimeMs) return false;
  // Git touches files without changing them: what counts is whether every package is there in its version. Optional ones may be for other platforms.
  const { packages: present } = JSON.parse(readFileSync(installed, "utf8"));
  const { packages } = JSON.parse(readFileSync(wanted, "utf8"));
  return Object.entries(packages).some(
    ([path, { version, optional }]) => path !== "" && optional !== true && present[path]?.version !== version,
  );
}

function install() {
  say("installing what is missing (npm ci)");
  const npm = process.env.npm_execpath;
  const [command, ...first] = npm?.endsWith(".js") ? [process.execPath, npm] : [process.platform === "win32" ? "npm.cmd" : "npm"];
  const quiet = ["--no-audit", "--no-fund"];
  if (attempt(command, [...first, "ci", ...quiet]) === undefined) return;
  // `npm ci` insists on every optional package for every platform, which not every registry has; this takes the same versions and leaves those out.
  say("npm ci failed; trying npm install");
  run(command, [...first, "install", "--no-save", ...quiet], "npm install failed");
}

function builtIsOld() {
  const stamp = join(ROOT, "dist/.stamp");
  return !existsSync(stamp) || readFileSync(stamp, "utf8") !== sourceHash();
}

/** Of everything that the build is made from. */
function sourceHash() {
  const hash = createHash("sha256");
  const files = ["package-lock.json", "tsconfig.json", "tsconfig.build.json", ...filesBelow(join(ROOT, "src"))];
  for (const file of files)
    hash
      .update(file)
      .update("\0")
      .update(readFileSync(join(ROOT, file)))
      .update("\0");
  return hash.digest("hex");
}

function filesBelow(directory) {
  return readdirSync(directory, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(directory, entry.name);
      return entry.isDirectory() ? filesBelow(path) : [relative(ROOT, path)];
    });
}

function build() {
  say("building");
  const hash = sourceHash();
  // Made aside and put in place by renaming, so that nobody ever runs half of it, and nothing of removed sources stays. As deep as `dist`, for the source maps.
  const fresh = join(ROOT, `.dist-${process.pid}`);
  const old = join(ROOT, `.dist-old-${process.pid}`);
  try {
    run(
      process.execPath,
      [join(ROOT, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.build.json", "--outDir", fresh],
      "the build failed",
      fresh,
    );
    writeFileSync(join(fresh, ".stamp"), hash);
    if (existsSync(join(ROOT, "dist"))) renameSync(join(ROOT, "dist"), old);
    renameSync(fresh, join(ROOT, "dist"));
  } finally {
    for (const path of [fresh, old]) rmSync(path, { recursive: true, force: true });
  }
}

/** Undefined, or how it failed. */
function attempt(command, args) {
  // Everything that a tool prints goes to stderr: stdout belongs to what is started.
  const { status, signal, error } = spawnSync(command, args, { cwd: ROOT, stdio: ["ignore", 2, 2] });
  return status === 0 ? undefined : (error?.message ?? (signal === null ? `status ${status}` : signal));
}

function run(command, args, failure, leftOver) {
  const how = attempt(command, args);
  if (how === undefined) return;
  if (leftOver !== undefined) rmSync(leftOver, { recursive: true, force: true });
  say(`${failure} (${how})`);
  rmSync(LOCK, { recursive: true, force: true });
  process.exit(1);
}

/** One at a time, also across processes. A lock of a process that is gone does not count. */
function withLock(work) {
  mkdirSync(join(ROOT, ".build"), { recursive: true });
  const until = Date.now() + LOCK_WAIT_MS;
  while (!takeLock()) {
    if (Date.now() > until) {
      say(`waited too long for another process; remove ${relative(ROOT, LOCK)} if there is none`);
      process.exit(1);
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  }
  try {
    work();
  } finally {
    rmSync(LOCK, { recursive: true, force: true });
  }
}

function takeLock() {
  try {
    writeFileSync(LOCK, String(process.pid), { flag: "wx" });
    return true;
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  }
  if (!holderLives()) rmSync(LOCK, { force: true });
  return false;
}

function holderLives() {
  try {
    const pid = Number(readFileSync(LOCK, "utf8"));
    // Empty: its holder is about to write into it.
    if (pid > 0) process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

function say(text) {
  process.stderr.write(`holdfast: ${text}\n`);
}
