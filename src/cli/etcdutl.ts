#!/usr/bin/env node
/** The tool for files as a process: `holdfastutl <command>`. */
import { runProcess } from "./cobra/process.ts";
import { utlTool } from "./utl/tool.ts";

await runProcess(utlTool);
