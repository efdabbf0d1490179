import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { startTestEtcd } from "../../src/testing/index.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

/** Files of this package that importing `path` loads. */
function reachable(path: string, found = new Set<string>()): Set<string> {
  if (found.has(path)) return found;
  found.add(path);
  const text = readFileSync(join(ROOT, path), "utf8").replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
  for (const [, clause = "", target = ""] of text.matchAll(/^(?:import|export)\b([^;"'`=()]*?)\bfrom\s+"([^"]+)"/gm)) {
    if (/^\s*type\b/.test(clause)) continue;
    if (target.startsWith(".")) reachable(posix.join(dirname(path), target), found);
    else found.add(target);
  }
  return found;
}

describe("the client without Node", () => {
  it("imports nothing of Node, no package, and nothing of the server", () => {
    for (const entry of ["src/client/index.ts", "src/client/concurrency/index.ts"]) {
      const files = [...reachable(entry)];
      expect(files.length).toBeGreaterThan(30);
      expect(files.filter((file) => !/^src\/(client|api|base)\//.test(file))).toEqual([]);
      const own = files.filter((file) => file.startsWith("src/client/"));
      expect(
        own.filter((file) =>
          /\bBuffer\.[a-z]|\bprocess\.(?!ts")[a-z]|\bsetImmediate\b|\.unref\(/.test(readFileSync(join(ROOT, file), "utf8")),
        ),
      ).toEqual([]);
    }
  });

  it("and the server load only what every member needs", () => {
    const packages = [...reachable("src/index.ts")].filter((file) => !file.startsWith("src/") && !file.startsWith("node:"));
    // The HTTP side, metrics for others, peers' frames, configuration files, tokens and passwords are loaded when they are used.
    expect(packages).toEqual(["level"]);
    // Over gRPC nothing of the server comes along either.
    expect([...reachable("src/client/grpc/index.ts")].filter((file) => !/^(src\/(client|api|base)\/|node:)/.test(file))).toEqual([]);
  });

  it("has the types of the web", async () => {
    const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
    await expect(run(process.execPath, [tsc, "-p", join(ROOT, "tsconfig.client.json"), "--noEmit"])).resolves.toMatchObject({ stdout: "" });
  }, 90_000);

  it("works where neither Buffer nor process is there", async () => {
    await using etcd = await startTestEtcd({ listen: true });
    const child = fileURLToPath(new URL("./portable-child.ts", import.meta.url));
    const { stdout } = await run(process.execPath, ["--import", "tsx", child, etcd.endpoints[0] as string], { timeout: 60_000 });
    expect(JSON.parse(stdout)).toEqual({
      text: "ü €",
      bytes: [0, 255, 128, 10],
      isBuffer: false,
      events: ["p/ä", "p/bytes", "p/t"],
      size: 4,
      locked: true,
      counted: "1",
    });
  }, 90_000);
});
