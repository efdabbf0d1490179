#!/usr/bin/env node
/** The client tool as a process: `holdfastctl <command>`. */
import { runProcess } from "./cobra/process.ts";
import { ctlTool } from "./ctl/tool.ts";

await runProcess(ctlTool);
