/** The scripts are given to the shells themselves, where they are installed. */
import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { runTool, type Tool } from "./command.ts";
import { completionCommand } from "./completion.ts";

interface Context {
  stdout(text: string): void;
}

const commands = [
  { use: "put <key>", short: "Puts", flags: [{ name: "lease", kind: "string" as const, help: "" }], run: () => undefined },
  { use: "member", short: "Members", commands: [{ use: "list", short: "Lists", run: () => undefined }] },
];

async function script(...words: string[]): Promise<{ status: number; out: string; err: string }> {
  let out = "";
  let err = "";
  const context = {
    stdout: (text: string) => {
      out += text;
    },
    stderr: (text: string) => {
      err += text;
    },
  };
  const tool: Tool<Context> = { use: "mytool", short: "", commands: [...commands, completionCommand("mytool", commands)] };
  const output = { ...context, stdout: (data: string | Uint8Array) => context.stdout(String(data)) };
  return { status: await runTool(tool, ["completion", ...words], context, output), out, err };
}

describe("completion", () => {
  it("of bash offers commands and flags", async () => {
    const { out } = await script("bash");
    const offers = (line: string): string[] => {
      const words = line.split(" ");
      const program = `${out}\nCOMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}; _mytool_complete; printf '%s ' "\${COMPREPLY[@]}"`;
      const { status, stdout, stderr } = spawnSync("bash", ["-c", program], { encoding: "utf8" });
      expect([status, stderr]).toEqual([0, ""]);
      return stdout.trim().split(" ");
    };
    expect(offers("mytool m")).toEqual(["member"]);
    expect(offers("mytool member ")).toEqual(["--help", "list"]);
    expect(offers("mytool put --l")).toEqual(["--lease"]);
  });

  it("is there for four shells and no other", async () => {
    for (const shell of ["zsh", "fish", "powershell"]) {
      const { status, out } = await script(shell);
      expect([status, out.includes("member"), out.includes("lease")]).toEqual([0, true, true]);
    }
    const { status, err } = await script("foo");
    expect([status, err.split("\n", 1)]).toEqual([1, ['Error: invalid argument "foo" for "mytool completion"']]);
    expect((await script()).err).toContain("Error: accepts 1 arg(s), received 0\n");
  });
});
