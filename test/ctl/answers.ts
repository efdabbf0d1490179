/** What a tool says to a server, line by line of the script, with everything taken out that differs between two servers. */
import { parseScript, SCRIPT, type Step } from "./steps.ts";
import { normalised, type RunResult, runCtl, runProgram } from "./support.ts";

export interface Answer {
  readonly line: string;
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export type ToolRun = (words: readonly string[], step: Step) => Promise<RunResult>;

/** Longer than any command of the script takes on a slow machine; one that hangs is ended, and its status is -1. */
const COMMAND_MS = 120_000;
/** A loaded machine must not decide what a tool says. */
const PATIENCE = "60s";

export const ourTool: ToolRun = (words, { stdin, environment }) => runCtl(words, { stdin, environment });

export function programTool(program: string): ToolRun {
  return (words, { stdin, environment }) => runProgram(program, words, { stdin, environment, timeoutMs: COMMAND_MS });
}

/** The script against the server at `port`, whose peers talk at the next one. */
export async function answersOf(run: ToolRun, port: number): Promise<Answer[]> {
  const endpoint = `127.0.0.1:${port}`;
  const places = { [`127.0.0.1:${port + 1}`]: "<peer>", [endpoint]: "<endpoint>" };
  const answers: Answer[] = [];
  for (const step of parseScript(SCRIPT)) {
    const given = (flag: string): boolean => step.words.some((word) => word === flag || word.startsWith(`${flag}=`));
    const words = [
      ...(given("--endpoints") ? [] : ["--endpoints", endpoint]),
      ...(given("--command-timeout") ? [] : ["--command-timeout", PATIENCE]),
      ...["--dial-timeout", PATIENCE, ...step.words],
    ];
    const { status, stdout, stderr } = await run(words, step);
    const isBinary = step.words.includes("protobuf") && status === 0;
    answers.push({
      line: step.line,
      status,
      // Of bytes with ids in them only their number is worth a look, and whether there are any.
      stdout: isBinary ? `${stdout.byteLength > 0 ? "bytes" : "nothing"}` : normalised(stdout.toString("utf8"), places),
      // Descriptions are in our own words; what is wrong is not.
      stderr: normalised(stderr, places).replace(
        /^(?:Error: [^\n]*\n)?(?:Usage|Flags of \w+):[\s\S]*$/m,
        (text) => /^Error: .*$/m.exec(text)?.[0] ?? "<usage>",
      ),
    });
  }
  return answers;
}
