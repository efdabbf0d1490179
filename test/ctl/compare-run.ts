/**
 * One script of all families of commands by several client tools, each against this server and against a real etcd: what a tool says must not depend on whose
 * server it talks to.
 *
 *   npm run compare-ctl -- --against /path/to/etcd [--etcdctl /path/to/etcdctl]... [--port P]
 *
 * The tools are holdfastctl, the `etcdctl` of the system (Debian's package etcd-client) and those named. What is missing is skipped, and said so. Prints each
 * difference and closes with `N passed, N failed`, counting commands.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { etcdKind, holdfastKind, memberFlags, type ServerKind, ServerProcess, untilServing } from "../support/server-process.ts";
import { type Answer, answersOf, ourTool, programTool, type ToolRun } from "./answers.ts";

const { values: options } = parseArgs({
  options: {
    server: { type: "string" },
    against: { type: "string" },
    etcdctl: { type: "string", multiple: true, default: [] },
    port: { type: "string", default: "23600" },
  },
});

if (options.server === undefined) {
  console.error("npm run compare-ctl -- --against /path/to/etcd");
  process.exit(2);
}
if (options.against === undefined || !existsSync(options.against)) {
  console.log("skipped: --against does not name an etcd to compare with");
  console.log("0 passed, 0 failed");
  process.exit(0);
}
const port = Number(options.port);
const KINDS: readonly ServerKind[] = [holdfastKind(options.server), etcdKind(options.against)];
const directory = mkdtempSync(join(tmpdir(), "holdfast-compare-ctl-"));
// Files that a tool may leave go there.
process.chdir(directory);

interface Tool {
  readonly name: string;
  readonly run: ToolRun;
}

/** `etcdctl 3.4.23`; undefined where there is no such program. */
function programOf(path: string): Tool | undefined {
  const { status, stdout } = spawnSync(path, ["version"], { encoding: "utf8" });
  const version = /etcdctl version: (\S+)/.exec(stdout ?? "")?.[1];
  if (status === 0 && version !== undefined) return { name: `etcdctl ${version}`, run: programTool(path) };
  console.log(`skipped: ${path} is no etcdctl`);
  return undefined;
}

/** The script by one tool against a fresh server. Both kinds get the same addresses, which their ids are made of. */
async function answersBy(tool: Tool, kind: ServerKind): Promise<Answer[]> {
  const clientUrl = `http://127.0.0.1:${port}`;
  const peerUrl = `http://127.0.0.1:${port + 1}`;
  const dataDir = mkdtempSync(join(directory, "data-"));
  const cluster = { token: "compare", initialCluster: `oracle=${peerUrl}`, state: "new" as const };
  const flags = [...memberFlags({ name: "oracle", clientUrl, peerUrl, dataDir }, cluster), "--log-level", "error"];
  const server = new ServerProcess(kind, flags, `${dataDir}.log`);
  try {
    await untilServing(server, clientUrl);
    return await answersOf(tool.run, port);
  } finally {
    await server.stop();
  }
}

let passed = 0;
let failed = 0;

function compare(what: string, names: readonly [string, string], ours: readonly Answer[], theirs: readonly Answer[]): void {
  let differences = 0;
  for (const [at, answer] of ours.entries()) {
    const [one, other] = [answer, theirs[at]].map((each) => JSON.stringify(each, undefined, 1));
    if (one === other) continue;
    differences += 1;
    console.log(`FAIL ${what}: ${answer.line}\n  ${names[0]}: ${one}\n  ${names[1]}: ${other}`);
  }
  passed += ours.length - differences;
  failed += differences;
  console.log(`${differences === 0 ? "PASS" : "FAIL"} ${what}: ${ours.length - differences} of ${ours.length} answers equal`);
}

try {
  const found = [...new Set(["etcdctl", ...options.etcdctl])].flatMap((path) => programOf(path) ?? []);
  const tools: Tool[] = [{ name: "holdfastctl", run: ourTool }, ...found];
  const toEtcd = new Map<string, Answer[]>();
  for (const tool of tools) {
    const [ours, theirs] = [await answersBy(tool, KINDS[0] as ServerKind), await answersBy(tool, KINDS[1] as ServerKind)];
    toEtcd.set(tool.name, theirs);
    compare(`${tool.name} to holdfast and to etcd`, ["to holdfast", "to etcd"], ours, theirs);
  }
  // Tools of the version that ours behaves like.
  for (const { name } of found.filter((tool) => tool.name.startsWith("etcdctl 3.7."))) {
    compare(`holdfastctl and ${name} to etcd`, ["holdfastctl", name], toEtcd.get("holdfastctl") ?? [], toEtcd.get(name) ?? []);
  }
} finally {
  process.chdir(tmpdir());
  rmSync(directory, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
