/**
 * `npm run conformance [-- the kit's options]`: the recorded conversations with etcd, played against this server. `-- --three` plays those of one member
 * against a member of a cluster of three. The last line is `N passed, N failed`.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT, SERVER } from "./lib/setup.mjs";

/** Their answers show that a member is alone: it is the whole list of members, and it leads. */
const ALONE = [
  "auth/administration-needs-root",
  "cluster/member-errors",
  "cluster/member-list",
  "health/metrics",
  "json/answers",
  "maintenance/alarms",
  "maintenance/quota",
  "restart/orderly",
  "revision/what-does-not-count",
];

prepare();
const options = process.argv.slice(2);
const three = options.indexOf("--three");
const client = "http://127.0.0.1:{clientPort}";
const peer = "http://127.0.0.1:{peerPort}";
const command = [`"${process.execPath}"`, `"${SERVER}"`];
if (three >= 0) {
  command.splice(1, 0, `"${join(ROOT, "scripts/lib/three-members.mjs")}"`);
  options.splice(three, 1, ...casesForThree().flatMap((name) => ["--filter", name]));
}
const server = [
  ...[...command, "--data-dir", "{dir}"],
  ...["--listen-client-urls", client, "--advertise-client-urls", client],
  ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "{extra}"],
].join(" ");
const kit = join(ROOT, "test/conformance/conformance.mjs");
endLike(await runNode([kit, "--jobs", three >= 0 ? "2" : "4", "--server", server, ...options]));

function casesForThree() {
  const directory = join(ROOT, "test/conformance/cases");
  return readdirSync(directory)
    .map((file) => JSON.parse(readFileSync(join(directory, file), "utf8")))
    .filter(({ name, members = 1, spareMembers = 0 }) => members + spareMembers === 1 && !ALONE.includes(name))
    .map(({ name }) => name);
}
