/** A service registry: three providers announce themselves, a caller finds them and takes them in turn; one leaves, one falls ill, one is killed. */
import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { startEtcd } from "holdfast";
import { createClient } from "holdfast/client";
import { ServiceRegistry, type ServiceView } from "holdfast/concurrency";

const [role, endpoint = "", address = ""] = process.argv.slice(2);
if (role === "provider") await provide();
else await main();

/** A process of its own: announces itself until it is told to leave, or dies. */
async function provide(): Promise<void> {
  const client = createClient({ endpoints: [endpoint] });
  let well = true;
  const provider = new ServiceRegistry(client).register("mail", {
    address,
    metadata: { pid: process.pid },
    ttlSeconds: 3,
    health: () => well,
    healthEveryMs: 50,
  });
  await provider.ready;
  process.send?.("announced");
  process.on("message", (word) => {
    if (word === "fall ill") well = false;
    else if (word === "recover") well = true;
    else if (word === "leave") {
      provider.close().then(() => {
        client.close();
        process.disconnect();
      }, console.error);
    }
  });
}

async function main(): Promise<void> {
  await using server = await startEtcd({ inMemory: true, listenClientUrls: ["http://127.0.0.1:0"], listenPeerUrls: [] });
  await server.ready;
  const [url = ""] = server.clientUrls;

  await using mail = new ServiceRegistry(server.client).discover("mail");
  await mail.ready;
  assert.equal(mail.pick(), undefined);

  const processes = new Map<string, ChildProcess>();
  for (const name of ["10.0.0.1:25", "10.0.0.2:25", "10.0.0.3:25"]) {
    processes.set(name, fork(fileURLToPath(import.meta.url), ["provider", url, name]));
  }
  await expectProviders(mail, [...processes.keys()], "all three are found");

  const picked = Array.from({ length: 6 }, () => mail.pick()?.address);
  assert.deepEqual([...picked].sort(), [...processes.keys(), ...processes.keys()].sort());
  console.log("taken in turn:", picked.join(" "));

  const [first, second, third] = [...processes.values()] as [ChildProcess, ChildProcess, ChildProcess];
  first.send("leave");
  await once(first, "exit");
  await expectProviders(mail, ["10.0.0.2:25", "10.0.0.3:25"], "one has left");

  second.send("fall ill");
  await expectProviders(mail, ["10.0.0.3:25"], "one is ill");
  second.send("recover");
  await expectProviders(mail, ["10.0.0.2:25", "10.0.0.3:25"], "it is well again");

  third.kill("SIGKILL");
  await expectProviders(mail, ["10.0.0.2:25"], "one was killed, and its lease has ended");

  second.send("leave");
  await once(second, "exit");
  await expectProviders(mail, [], "nobody is left");
}

async function expectProviders(view: ServiceView, addresses: readonly string[], what: string): Promise<void> {
  const found = (): string =>
    view
      .list()
      .map((provider) => provider.address)
      .join(" ");
  const deadline = AbortSignal.timeout(60_000);
  while (found() !== addresses.join(" ")) {
    await new Promise<void>((resolve, reject) => {
      const stop = view.onChange(() => {
        stop();
        resolve();
      });
      deadline.addEventListener("abort", () => reject(new Error(`${what}: instead there are ${found()}`)), { once: true });
    });
  }
  console.log(`${what}:`, found() || "-");
}
