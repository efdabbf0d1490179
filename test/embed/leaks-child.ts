/**
 * Ten members one after the other and ten at once, in a process that must then end by itself: nothing keeps its event loop busy any more. Prints how many files
 * and sockets were open before and after. Argument: a directory.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { type EtcdServer, startEtcd } from "../../src/embed/start-etcd.ts";

const directory = process.argv[2] as string;

/** Uses everything that could leave something behind. */
async function live(server: EtcdServer): Promise<void> {
  await server.ready;
  const { client } = server;
  const lease = await client.lease({ ttlSeconds: 60 });
  await client.put("k", "v", { lease: lease.id });
  const watch = client.watch("k");
  const view = client.view("");
  await Promise.all([watch.ready, view.ready]);
  const waiting = view.atLeast(1_000_000).then(
    () => "reached",
    (error: { reason: string }) => error.reason,
  );
  for (const url of server.clientUrls) await (await fetch(`${url}/version`)).text();
  // Under way while the member is closed, twice.
  const put = client.put("k", "w").catch(() => undefined);
  await Promise.all([put, server.close(), server.close()]);
  if ((await waiting) !== "client-closed") throw new Error("a wait went on after the end");
}

async function openFiles(): Promise<string[]> {
  if (process.platform !== "linux") return [];
  return readdir("/proc/self/fd");
}

// Whatever is loaded and opened once, at first use.
await live(
  await startEtcd({ name: "first", dataDir: join(directory, "first"), listenClientUrls: ["http://127.0.0.1:0"], listenPeerUrls: [] }),
);
const before = (await openFiles()).length;
for (let i = 0; i < 10; i += 1) {
  await live(await startEtcd({ name: `n${i}`, dataDir: join(directory, `row-${i}`), listenClientUrls: [], listenPeerUrls: [] }));
}
const servers = await Promise.all(
  Array.from({ length: 10 }, (_, i) =>
    startEtcd({
      name: `m${i}`,
      ...(i % 2 === 0 ? { inMemory: true } : { dataDir: join(directory, `once-${i}`) }),
      listenClientUrls: ["http://127.0.0.1:0"],
      listenPeerUrls: [],
    }),
  ),
);
const ports = servers.map(({ clientUrls }) => clientUrls[0] as string);
await Promise.all(servers.map(live));
const stillOpen: string[] = [];
for (const url of ports) {
  const answered = await fetch(`${url}/version`).then(
    () => true,
    () => false,
  );
  if (answered) stillOpen.push(url);
}
process.on("exit", () => process.stdout.write(" ended"));
process.stdout.write(JSON.stringify({ before, after: (await openFiles()).length, ports: new Set(ports).size, stillOpen }));
