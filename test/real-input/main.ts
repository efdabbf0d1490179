/**
 * `npm run real-input`: the manifests and READMEs below `node_modules` in a real member. The server's command is loaded and read over the network, then stopped, and
 * its data directory opened in this process. The last line is `N passed, N failed`.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEtcd } from "../../src/index.ts";
import { holdfastKind, memberFlags, ServerProcess, untilServing } from "../support/server-process.ts";
import { checkRealInput, findRealFiles } from "./check.ts";

const [script = "", root = "", directory = "node_modules"] = process.argv.slice(2);

async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => (address === null || typeof address === "string" ? reject(new Error("no port")) : resolve(address.port)));
    });
  });
}

async function main(): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), "holdfast-real-input-"));
  const dataDir = join(base, "data");
  const spec = {
    name: "real",
    clientUrl: `http://127.0.0.1:${await freePort()}`,
    peerUrl: `http://127.0.0.1:${await freePort()}`,
    dataDir,
  };
  const cluster = { token: "real-input", initialCluster: `${spec.name}=${spec.peerUrl}`, state: "new" } as const;
  const { files, tooLarge } = findRealFiles(root, directory);
  if (tooLarge > 0) console.log(`${tooLarge} files are longer than a request may be, and left out`);
  await checkRealInput({
    prefix: `${directory}/`,
    files,
    say: (line) => console.log(line),
    first: async () => {
      const server = new ServerProcess(holdfastKind(script), memberFlags(spec, cluster), join(base, "log"));
      await untilServing(server, spec.clientUrl);
      return { url: spec.clientUrl, close: () => server.stop() };
    },
    second: async () => {
      const server = await startEtcd({ name: spec.name, dataDir, listenClientUrls: [], listenPeerUrls: [] });
      await server.ready;
      return Object.assign(server, { url: "" });
    },
  });
  rmSync(base, { recursive: true, force: true });
}

try {
  await main();
  console.log("1 passed, 0 failed");
} catch (error) {
  console.error(error);
  console.log("0 passed, 1 failed");
  process.exitCode = 1;
}
