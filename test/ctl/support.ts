/** Runs of the client tool inside this process, and texts from which everything that differs between two servers has been taken. */
import { spawn, spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import { runTool } from "../../src/cli/cobra/command.ts";
import type { ToolFace } from "../../src/cli/cobra/face.ts";
import { ctlTool } from "../../src/cli/ctl/tool.ts";

export interface RunOptions {
  readonly stdin?: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly terminal?: boolean;
  /** Of programs only: how long one may take. */
  readonly timeoutMs?: number;
}

export interface RunResult {
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** A face that keeps what is written to it. Programs it is asked to run are really run, their output kept, too. */
export function recordingFace(options: RunOptions = {}): {
  face: ToolFace;
  stdout: () => Buffer;
  stderr: () => string;
  signal: () => void;
} {
  const out: Buffer[] = [];
  let err = "";
  let rest = options.stdin ?? "";
  const handlers = new Set<(signal: "SIGINT") => void>();
  const readLine = async (): Promise<string | undefined> => {
    if (rest === "") return undefined;
    const end = rest.indexOf("\n");
    const line = end < 0 ? rest : rest.slice(0, end);
    rest = end < 0 ? "" : rest.slice(end + 1);
    return line;
  };
  const face: ToolFace = {
    environment: options.environment ?? {},
    stdin: {
      isTerminal: options.terminal ?? false,
      readAll: async () => Buffer.from(rest),
      readLine,
      readSecret: async (prompt) => {
        out.push(Buffer.from(prompt));
        const text = (await readLine()) ?? "";
        out.push(Buffer.from("\n"));
        return text;
      },
    },
    stdout: (data) => void out.push(Buffer.from(data as string)),
    stderr: (text) => {
      err += text;
    },
    onSignal(handler) {
      handlers.add(handler);
      return () => handlers.delete(handler);
    },
    async runProgram([program = "", ...args], variables) {
      const result = spawnSync(program, args, { env: { ...process.env, ...variables } });
      if (result.error !== undefined) throw result.error;
      out.push(result.stdout);
      err += result.stderr.toString("utf8");
      return result.status ?? 1;
    },
  };
  return {
    face,
    stdout: () => Buffer.concat(out),
    stderr: () => err,
    signal: () => {
      for (const handler of [...handlers]) handler("SIGINT");
    },
  };
}

export async function runCtl(words: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { face, stdout, stderr } = recordingFace(options);
  const status = await runTool(ctlTool, words, face, face);
  return { status, stdout: stdout(), stderr: stderr() };
}

/** The same by a program. */
export function runProgram(program: string, words: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, {
      env: { PATH: process.env.PATH, ...options.environment },
      // Files that it may leave go there.
      cwd: tmpdir(),
      stdio: "pipe",
      killSignal: "SIGKILL",
      ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs }),
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => err.push(chunk));
    child.once("error", reject);
    child.once("close", (status) =>
      resolve({ status: status ?? -1, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString("utf8") }),
    );
    // It may end without having read anything.
    child.stdin.on("error", () => undefined);
    child.stdin.end(options.stdin ?? "");
  });
}

/** Takes out what no two servers or runs have in common: ids, times, sizes, positions in the log, addresses, names of tools. */
export function normalised(text: string, places: Readonly<Record<string, string>>): string {
  let result = text;
  for (const [place, name] of Object.entries(places)) result = result.replaceAll(place, name);
  return (
    result
      .replace(/(ETCD_INITIAL_CLUSTER=")([^"]*)/g, (_, head: string, list: string) => head + list.split(",").sort().join(","))
      .replace(/\{"level":"[^\n]*\n/g, "")
      .replace(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ /gm, "")
      // What a Go program that broke down tells of its inside.
      .replace(/(?:\n\[signal [^\n]*)?\n\ngoroutine \d+ \[[\s\S]*$/, "\n")
      // A tool that wants the terminal not to show what is typed, where there is none.
      .replace(/^stty: [^\n]*\n/gm, "")
      // Ids come from the time: within one second an address gives the same id.
      .replaceAll("member ID already exist", "Peer URLs already exists")
      // How older versions describe themselves, and in our own words how we do.
      .replace(/^NAME:\n[\s\S]*$/m, "<usage>")
      .replace(/^Examples:\n[\s\S]*?(?=^\S)/gm, "")
      .replaceAll("holdfastctl", "<tool>")
      .replaceAll("etcdctl", "<tool>")
      .replace(/ *\b[0-9a-f]{13,16}\b/g, (id) => (id.startsWith(" ") ? " <id>" : "<id>"))
      .replace(/\b\d{13,20}\b/g, "<id>")
      .replace(/\b\d+(\.\d+)?(ns|µs|ms|s)\b(?!\))/g, "<time>")
      .replace(/\b\d+(\.\d+)? (kB|MB|GB|B)\b/g, "<size>")
      .replace(/\b\d+%/g, "<percent>")
      .replace(/"(raft_term|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|dbSizeQuota)":\d+/g, '"$1":0')
      .replace(/"(RaftTerm|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse|DBSizeQuota)" : \d+/g, '"$1" : 0')
      .replace(/(, (?:true|false), (?:true|false)), \d+, \d+, \d+,/g, "$1, 0, 0, 0,")
  );
}
