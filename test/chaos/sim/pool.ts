/** Processes that work on tasks side by side. One that does not answer in time is ended and replaced. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Task, TaskResult } from "./worker.ts";

const WORKER = fileURLToPath(new URL("./worker.ts", import.meta.url));

export class Pool {
  readonly #timeoutMs: number;
  readonly #idle: ChildProcess[] = [];
  readonly #all = new Set<ChildProcess>();

  constructor(options: { readonly timeoutMs: number }) {
    this.#timeoutMs = options.timeoutMs;
  }

  /** The caller sees to it that no more are under way than there are cores. */
  perform(task: Task, timeoutMs = this.#timeoutMs): Promise<TaskResult> {
    const child = this.#idle.pop() ?? this.#spawn();
    return new Promise((resolve) => {
      const settle = (result: TaskResult, isUsable: boolean): void => {
        clearTimeout(timer);
        child.removeAllListeners("message");
        child.removeAllListeners("exit");
        if (isUsable) this.#idle.push(child);
        else {
          this.#all.delete(child);
          child.kill("SIGKILL");
        }
        resolve(result);
      };
      const timer = setTimeout(() => settle({ kind: "crashed", message: `no result after ${timeoutMs} ms: ended` }, false), timeoutMs);
      child.on("message", (result) => settle(result as TaskResult, true));
      child.on("exit", (code, signal) => settle({ kind: "crashed", message: `the worker ended (${signal ?? code})` }, false));
      child.send(task);
    });
  }

  close(): void {
    for (const child of this.#all) child.kill("SIGKILL");
    this.#all.clear();
  }

  #spawn(): ChildProcess {
    const child = fork(WORKER, {
      execArgv: ["--max-semi-space-size=64", "--import", "tsx"],
      stdio: ["ignore", "inherit", "inherit", "ipc"],
      serialization: "json",
    });
    this.#all.add(child);
    return child;
  }
}
