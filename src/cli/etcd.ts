#!/usr/bin/env node
/** The server as a process: `holdfast [flags]`. */
import { openSync, readFileSync } from "node:fs";
import { pino } from "pino";
import { systemClock } from "../base/clock-system.ts";
import { SERVER_VERSION } from "../server/index.ts";
import { createLogger } from "./log.ts";
import { type Ending, type EndingSignal, type ProcessFace, runCli } from "./run.ts";

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };

/** Four lines like etcd's, of which programs read the first. */
const versionText = [
  `etcd Version: ${SERVER_VERSION}`,
  `Git SHA: Not provided (holdfast ${version})`,
  `Node Version: ${process.version}`,
  `Node OS/Arch: ${process.platform}/${process.arch}`,
  "",
].join("\n");

const face: ProcessFace = {
  environment: process.env,
  clock: systemClock(),
  versionText,
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
  logStream(output) {
    const fd = output === "stderr" ? 2 : output === "stdout" ? 1 : openSync(output, "a", 0o644);
    // Synchronous, so that the last words before an end are not lost.
    const stream = pino.destination({ fd, sync: true });
    // A reader that went away or a full disk must not stop the server; there is nobody left to tell.
    stream.on("error", () => undefined);
    return stream;
  },
  readFile: (path) => readFileSync(path, "utf8"),
  onSignal(handler) {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => handler(signal));
  },
  end,
};

function end(ending: Ending): void {
  if ("status" in ending) process.exit(ending.status);
  dieBy(ending.signal);
}

function dieBy(signal: EndingSignal): void {
  // The kernel does not let the first process of a container die by a signal that it handles by default.
  if (process.pid === 1) process.exit(0);
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}

// A bug: nothing of this process can be trusted any more, so it ends at once. What was acknowledged is in the log.
process.on("uncaughtException", (error) => {
  const log = createLogger({ level: "error", format: "json", streams: [{ write: face.stderr }], wallMs: face.clock.wallMs });
  log.fatal({ error }, "unexpected error; the process ends");
  process.exit(1);
});

for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", () => undefined); // As for the logs.
}

const { startEtcd } = await import("../embed/start-etcd.ts");
end(await runCli(process.argv.slice(2), face, { startEtcd }));
