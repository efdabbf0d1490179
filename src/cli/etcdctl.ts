#!/usr/bin/env node
/** The client tool as a process: `holdfastctl <command>`. */
import { runTool } from "./cobra/command.ts";
import { processFace } from "./cobra/face.ts";
import { ctlTool } from "./ctl/tool.ts";

const face = processFace();
let status: number;
try {
  status = await runTool(ctlTool, process.argv.slice(2), face, face);
} catch (error) {
  face.stderr(`Error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  status = 1;
}
process.exit(status);
