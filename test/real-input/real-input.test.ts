import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type EtcdServer, startEtcd } from "../../src/index.ts";
import { checkRealInput, findRealFiles } from "./check.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** All of them: `npm run real-input`. */
const FILES = 300;

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "holdfast-real-input-"));
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

async function open(dataDir: string): Promise<EtcdServer & { url: string }> {
  const server = await startEtcd({ dataDir, listenClientUrls: ["http://127.0.0.1:0"], listenPeerUrls: [] });
  await server.ready;
  return Object.assign(server, { url: server.clientUrls[0] ?? "" });
}

describe("real input", () => {
  const found = findRealFiles(ROOT, "node_modules").files;

  it(`is there byte for byte and in order: the first ${FILES} manifests and READMEs below node_modules`, async () => {
    expect(found.length).toBeGreaterThan(100);
    const lines: string[] = [];
    const life = (): ReturnType<typeof open> => open(join(directory, "good"));
    const options = { prefix: "node_modules/", files: found.slice(0, FILES), first: life, second: life };
    await checkRealInput({ ...options, say: (line) => lines.push(line) });
    expect(lines).toHaveLength(8);
  });

  it("is missed when one byte of it is another", async () => {
    const files = found.slice(0, 20);
    const life = (): ReturnType<typeof open> => open(join(directory, "bad"));
    const second = async (): ReturnType<typeof open> => {
      const server = await life();
      const { path, bytes } = files[7] ?? { path: "", bytes: Buffer.alloc(0) };
      const changed = Buffer.from(bytes);
      changed[0] = (changed[0] ?? 0) ^ 1;
      await server.client.put(path, changed);
      return server;
    };
    const options = { prefix: "node_modules/", files, first: life, second, say: () => undefined };
    await expect(checkRealInput(options)).rejects.toThrow(`${files[7]?.path} has other bytes`);
  });
});
