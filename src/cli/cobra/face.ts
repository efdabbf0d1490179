/** The process around a tool, as far as it needs one: passed in, so that runs can be tested without processes. */
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { createInterface } from "node:readline";
import type { Output } from "./command.ts";

export type StopSignal = "SIGINT" | "SIGTERM";

export interface ToolFace extends Output {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly stdin: ToolInput;
  /** Calls `handler` at the first SIGINT or SIGTERM from now on; without a handler they end the process. Returns how to stop that. */
  onSignal(handler: (signal: StopSignal) => void): () => void;
  /** Runs a program with our own streams and these variables besides our own; resolves with its status, rejects when it cannot be started. */
  runProgram(words: readonly string[], variables: Readonly<Record<string, string>>): Promise<number>;
}

export interface ToolInput {
  readonly isTerminal: boolean;
  /** Everything until the end. */
  readAll(): Promise<Uint8Array>;
  /** The next line without its end; undefined at the end of the input. A last line without an end is given, too. */
  readLine(): Promise<string | undefined>;
  /** Asks on the terminal without showing what is typed. */
  readSecret(prompt: string): Promise<string>;
}

/** Node's own process. */
export function processFace(): ToolFace {
  for (const stream of [process.stdout, process.stderr]) {
    // Whoever read our output has gone: there is nothing left to do, and nobody to tell.
    stream.on("error", () => process.exit(1));
  }
  return {
    environment: process.env,
    stdin: processInput(),
    stdout: (data) => void process.stdout.write(data),
    stderr: (text) => void process.stderr.write(text),
    onSignal(handler) {
      const handlers = (["SIGINT", "SIGTERM"] as const).map((signal) => {
        const one = (): void => handler(signal);
        process.once(signal, one);
        return () => process.off(signal, one);
      });
      return () => {
        for (const off of handlers) off();
      };
    },
    runProgram: (words, variables) =>
      new Promise((resolve, reject) => {
        const [program = "", ...args] = words;
        const child = spawn(program, args, { stdio: "inherit", env: { ...process.env, ...variables } });
        child.once("error", reject);
        // A shell's way to tell that a signal ended it.
        child.once("exit", (status, signal) => resolve(status ?? 128 + (signal === null ? 0 : constants.signals[signal])));
      }),
  };
}

function processInput(): ToolInput {
  const isTerminal = process.stdin.isTTY === true;
  let lines: AsyncIterator<string> | undefined;
  const readLine = async (): Promise<string | undefined> => {
    lines ??= createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })[Symbol.asyncIterator]();
    const next = await lines.next();
    return next.done === true ? undefined : next.value;
  };
  return {
    isTerminal,
    readLine,
    async readAll() {
      const chunks: Buffer[] = [];
      for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
      return Buffer.concat(chunks);
    },
    async readSecret(prompt) {
      process.stdout.write(prompt);
      const text = isTerminal ? await typedSecretly() : ((await readLine()) ?? "");
      process.stdout.write("\n");
      return text;
    },
  };
}

/** One line from the terminal, not echoed. */
function typedSecretly(): Promise<string> {
  const { stdin } = process;
  return new Promise((resolve) => {
    stdin.setRawMode(true);
    let text = "";
    const done = (): void => {
      stdin.off("data", take);
      stdin.off("end", done);
      stdin.setRawMode(false);
      stdin.pause();
      resolve(text);
    };
    const take = (chunk: Buffer): void => {
      for (const character of chunk.toString("utf8")) {
        if (character === "\r" || character === "\n" || character === "\u0004") {
          done();
          return;
        }
        if (character === "\u0003") {
          stdin.setRawMode(false);
          process.kill(process.pid, "SIGINT");
          return;
        }
        if (character === "\u007f" || character === "\b") text = text.slice(0, -1);
        else text += character;
      }
    };
    stdin.on("data", take);
    stdin.on("end", done);
    stdin.resume();
  });
}
