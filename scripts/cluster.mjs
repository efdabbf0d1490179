/**
 * `npm run cluster [-- --size 1|3|5|7] [--fresh] [flags for every member]`: the members of cluster.config.json, each as a process of its own, with their logs
 * in one stream. Ctrl-C stops them all in an orderly way; a second one kills them.
 */
import { spawn } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join, resolve, sep } from "node:path";
import { createInterface } from "node:readline";
import { prepare, ROOT, SERVER } from "./lib/setup.mjs";

/** Client ports of the members of a larger cluster; the peer port is the next one. */
const PORTS = [2379, 22379, 32379, 42379, 52379, 62379, 12379];
const SIZES = [1, 3, 5, 7];
/** A Ctrl-C comes from the terminal and once more from npm. */
const SAME_REQUEST_MS = 500;
const COLOURS = [36, 33, 35, 32, 34, 31, 37];

const options = readArguments(process.argv.slice(2));
const cluster = readCluster(options.size);
prepare();
if (options.fresh) for (const { dataDir } of cluster.members) wipe(dataDir);

const initialCluster = cluster.members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
const width = Math.max(...cluster.members.map(({ name }) => name.length));
const running = new Map();
const ready = new Set();
let stoppingSinceMs;
let failed = false;

for (const [at, member] of cluster.members.entries()) start(member, at);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, stop);

function start(member, at) {
  const flags = [
    ...["--name", member.name, "--data-dir", resolve(ROOT, member.dataDir)],
    ...["--listen-client-urls", member.clientUrl, "--advertise-client-urls", member.clientUrl],
    ...["--listen-peer-urls", member.peerUrl, "--initial-advertise-peer-urls", member.peerUrl],
    ...["--initial-cluster", initialCluster, "--initial-cluster-token", cluster.token, "--initial-cluster-state", "new"],
  ];
  const child = spawn(process.execPath, [SERVER, ...flags, ...options.flags], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
  running.set(member.name, child);
  const label = member.name.padEnd(width);
  const prefix = process.stdout.isTTY ? `\x1b[${COLOURS[at % COLOURS.length]}m${label} |\x1b[0m ` : `${label} | `;
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on("line", (line) => {
      process.stdout.write(`${prefix}${line}\n`);
      if (line.includes('"ready to serve client requests"')) isReady(member.name);
    });
  }
  child.on("error", (error) => ended(member.name, error.message));
  // "close" comes when its last words have been read, too.
  child.on("close", (code, signal) =>
    ended(member.name, signal === null ? `status ${code}` : signal, code === 0 || signal === "SIGTERM" || signal === "SIGINT"),
  );
}

function isReady(name) {
  ready.add(name);
  if (ready.size !== cluster.members.length) return;
  const urls = cluster.members.map(({ clientUrl }) => clientUrl);
  say(`all ${ready.size} members are ready: ${urls.join(", ")}`);
  say(`try: curl ${urls[0]}/v3/cluster/member/list -d '{}'`);
  say("Ctrl-C stops them");
}

function ended(name, how, clean = false) {
  if (!running.delete(name)) return;
  if (stoppingSinceMs === undefined) {
    say(`member ${name} has ended: ${how}`);
    failed = true;
  } else if (!clean) {
    say(`member ${name} did not end cleanly: ${how}`);
    failed = true;
  }
  if (running.size > 0) return;
  say(stoppingSinceMs === undefined ? "no member is left" : "stopped");
  process.exitCode = failed ? 1 : 0;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.removeListener(signal, stop);
}

function stop() {
  const nowMs = Date.now();
  if (stoppingSinceMs !== undefined && nowMs - stoppingSinceMs < SAME_REQUEST_MS) return;
  const again = stoppingSinceMs !== undefined;
  stoppingSinceMs ??= nowMs;
  say(again ? "killing what is left" : "stopping all members (Ctrl-C again kills them)");
  for (const child of running.values()) child.kill(again ? "SIGKILL" : "SIGTERM");
}

function readArguments(words) {
  const found = { size: undefined, fresh: false, flags: [] };
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at];
    if (word === "--fresh") found.fresh = true;
    else if (word === "--size" || word.startsWith("--size=")) {
      if (word === "--size") at += 1;
      const text = word === "--size" ? words[at] : word.slice("--size=".length);
      found.size = Number(text);
      if (!SIZES.includes(found.size)) fail(`--size must be one of ${SIZES.join(", ")}`);
    } else found.flags.push(word);
  }
  return found;
}

/** The sample cluster, or one of another size with directories of its own (members of one cluster cannot be in another). */
function readCluster(size) {
  const { token, members } = JSON.parse(readFileSync(join(ROOT, "cluster.config.json"), "utf8"));
  if (size === undefined || size === members.length) return { token, members };
  return {
    token: `${token}-${size}`,
    members: PORTS.slice(0, size).map((port, at) => ({
      name: `n${at + 1}`,
      clientUrl: `http://127.0.0.1:${port}`,
      peerUrl: `http://127.0.0.1:${port + 1}`,
      dataDir: `.holdfast/cluster-${size}/n${at + 1}`,
    })),
  };
}

function wipe(dataDir) {
  const path = resolve(ROOT, dataDir);
  if (!path.startsWith(ROOT + sep)) fail(`--fresh removes nothing outside of the repository: ${path}`);
  rmSync(path, { recursive: true, force: true });
}

function say(text) {
  process.stderr.write(`cluster: ${text}\n`);
}

function fail(text) {
  say(text);
  process.exit(2);
}
