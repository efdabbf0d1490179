/** A cluster of three processes, each with a member inside of itself. They log who leads; the leader is killed, and the others go on. */
import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { startEtcd } from "holdfast";
import { createClient } from "holdfast/client";

const [role, ...rest] = process.argv.slice(2);
if (role === "member") await member(rest);
else await main();

/** One of the three processes: a program with a member in it. */
async function member([name = "", dataDir = "", peerUrl = "", clientUrl = "", initialCluster = ""]: readonly string[]): Promise<void> {
  const server = await startEtcd({
    name,
    dataDir,
    listenPeerUrls: [peerUrl],
    initialAdvertisePeerUrls: [peerUrl],
    listenClientUrls: [clientUrl],
    advertiseClientUrls: [clientUrl],
    initialCluster,
    heartbeatInterval: 50,
    electionTimeout: 500,
  });
  let leaving = false;
  process.once("SIGTERM", () => {
    leaving = true;
    server.close().then(() => process.exit(0), console.error);
  });
  await server.ready;
  console.log(`${name} serves`);
  try {
    for await (const leader of server.leaderChanged) {
      const members = await server.client.cluster.members();
      const leading = members.find(({ id }) => BigInt.asUintN(64, id).toString(16) === leader);
      console.log(`${name} says: ${leading?.name ?? "somebody"} leads`);
    }
  } catch (error) {
    // On its way out it cannot ask any more.
    if (!leaving) throw error;
  }
}

interface Running {
  readonly name: string;
  readonly process: ChildProcess;
  readonly clientUrl: string;
  /** Whom it called the leader last. */
  leader: string | undefined;
}

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "holdfast-example-"));
  const ports = await freePorts(6);
  const names = ["m1", "m2", "m3"];
  const peerUrls = names.map((_, i) => `http://127.0.0.1:${ports[i]}`);
  const initialCluster = names.map((name, i) => `${name}=${peerUrls[i]}`).join(",");
  const running: Running[] = names.map((name, i) => {
    const clientUrl = `http://127.0.0.1:${ports[i + 3]}`;
    const args = ["member", name, join(directory, name), peerUrls[i] as string, clientUrl, initialCluster];
    const child = fork(fileURLToPath(import.meta.url), args, { stdio: ["ignore", "pipe", "inherit", "ipc"] });
    const one: Running = { name, process: child, clientUrl, leader: undefined };
    if (child.stdout !== null) {
      createInterface({ input: child.stdout }).on("line", (line) => {
        console.log(line);
        one.leader = /says: (\w+) leads/.exec(line)?.[1] ?? one.leader;
      });
    }
    return one;
  });
  const codes: unknown[] = [];
  try {
    const leader = await agreed(running);
    await using client = createClient({ endpoints: running.map(({ clientUrl }) => clientUrl) });
    await client.put("written", "by the first leader's cluster");

    const killed = running.find(({ name }) => name === leader) as Running;
    console.log(`killing ${leader}`);
    killed.process.kill("SIGKILL");
    await once(killed.process, "exit");
    const others = running.filter((one) => one !== killed);
    for (const one of others) if (one.leader === leader) one.leader = undefined;

    const next = await agreed(others);
    assert.notEqual(next, leader);
    // Nothing is lost, and it goes on.
    assert.equal((await client.get("written"))?.value, "by the first leader's cluster");
    await client.put("written", "by the second one's", { retry: "always" });
    assert.equal((await client.get("written"))?.value, "by the second one's");
    console.log(`${next} leads now, nothing is lost`);
  } finally {
    for (const { process: child } of running) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill("SIGTERM");
      const [code] = await once(child, "exit");
      codes.push(code);
    }
    await rm(directory, { recursive: true, force: true });
  }
  assert.deepEqual(codes, [0, 0], "the survivors leave in an orderly way");
}

/** Waits until all of them call the same one the leader. */
async function agreed(members: readonly Running[]): Promise<string> {
  const deadline = AbortSignal.timeout(60_000);
  for (;;) {
    const [first, ...others] = members.map(({ leader }) => leader);
    if (first !== undefined && others.every((one) => one === first)) return first;
    deadline.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
