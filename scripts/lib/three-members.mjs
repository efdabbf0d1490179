/**
 * `node three-members.mjs SERVER FLAGS`: the member that FLAGS describe, and two more that make a cluster of three with it, as one process group. Ports of the
 * two are chosen by the system at the first start and kept beside the data directory. Ends as the first member ends.
 */
import { spawn } from "node:child_process";
import { openSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";

const [server, ...flags] = process.argv.slice(2);

/** Takes a flag and its value out of the list. */
function take(name) {
  const at = flags.indexOf(name);
  return at < 0 ? undefined : flags.splice(at, 2)[1];
}

async function freePorts(count) {
  const holders = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise((resolve, reject) => {
          const holder = createServer().once("error", reject);
          holder.listen(0, "127.0.0.1", () => resolve(holder));
        }),
    ),
  );
  const ports = holders.map((holder) => holder.address().port);
  await Promise.all(holders.map((holder) => new Promise((resolve) => holder.close(resolve))));
  return ports;
}

const directory = take("--data-dir");
const name = take("--name") ?? "default";
const peer = take("--initial-advertise-peer-urls");
const state = take("--initial-cluster-state") ?? "new";
take("--initial-cluster");

let ports;
try {
  ports = JSON.parse(readFileSync(`${directory}.ports`, "utf8"));
} catch {
  ports = await freePorts(4);
  writeFileSync(`${directory}.ports`, JSON.stringify(ports));
}
const others = [
  { name: "second", client: ports[0], peer: ports[1] },
  { name: "third", client: ports[2], peer: ports[3] },
];
const cluster = [`${name}=${peer}`, ...others.map((other) => `${other.name}=http://127.0.0.1:${other.peer}`)].join(",");
const common = ["--initial-cluster", cluster, "--initial-cluster-state", state];

const children = others.map((other) => {
  const log = openSync(`${directory}.${other.name}.log`, "a");
  const client = `http://127.0.0.1:${other.client}`;
  const own = `http://127.0.0.1:${other.peer}`;
  const urls = [
    "--listen-client-urls",
    client,
    "--advertise-client-urls",
    client,
    "--listen-peer-urls",
    own,
    "--initial-advertise-peer-urls",
    own,
  ];
  // The two have the first one's settings, but their own places.
  const shared = withoutPlaces(flags);
  const words = [server, "--name", other.name, "--data-dir", `${directory}.${other.name}`, ...urls, ...common, ...shared];
  return spawn(process.execPath, words, { stdio: ["ignore", log, log] });
});
const first = spawn(
  process.execPath,
  [server, "--name", name, "--data-dir", directory, "--initial-advertise-peer-urls", peer, ...common, ...flags],
  {
    stdio: "inherit",
  },
);

function withoutPlaces(words) {
  const left = [...words];
  for (const flag of ["--listen-client-urls", "--advertise-client-urls", "--listen-peer-urls", "--listen-metrics-urls", "--wal-dir"]) {
    const at = left.indexOf(flag);
    if (at >= 0) left.splice(at, 2);
  }
  return left;
}

for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => first.kill(signal));
first.on("exit", async (code) => {
  for (const child of children) child.kill("SIGTERM");
  await Promise.all(
    children.map((child) =>
      child.exitCode === null && child.signalCode === null ? new Promise((resolve) => child.on("exit", resolve)) : undefined,
    ),
  );
  process.exitCode = code ?? 1;
});
