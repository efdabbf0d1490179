/** The quick ones of examples/, as `npm run examples` runs them all: on the built package, each checking its own results. */
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const QUICK = ["cache", "config", "election", "lock", "queue"];

function runNode(...args: readonly string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, args, { cwd: ROOT, timeout: 90_000 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ code, output: `${stdout}${stderr}` });
    });
  });
}

describe("the examples", () => {
  it("are all there, and fit to the package's types", async () => {
    expect(readdirSync(join(ROOT, "examples")).filter((file) => file.endsWith(".ts"))).toEqual(
      ["cache", "cluster", "config", "election", "lock", "queue", "registry", "sequences"].map((name) => `${name}.ts`),
    );
    const { code, output } = await runNode("node_modules/typescript/bin/tsc", "-p", "examples/tsconfig.json", "--noEmit");
    expect(output).toBe("");
    expect(code).toBe(0);
  }, 120_000);

  it.each(QUICK)(
    "%s",
    async (name) => {
      const { code, output } = await runNode("--import", "tsx", `examples/${name}.ts`);
      expect({ code, output }).toEqual({ code: 0, output: expect.stringMatching(/\S/) });
      expect(output).not.toMatch(/Error|Warning/);
    },
    120_000,
  );
});
