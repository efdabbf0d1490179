/** A tool as this process. */
import { runTool, type Tool } from "./command.ts";
import { processFace, type ToolFace } from "./face.ts";

/** Runs the process's own arguments and ends it with the status. */
export async function runProcess(tool: Tool<ToolFace>): Promise<never> {
  const face = processFace();
  let status: number;
  try {
    status = await runTool(tool, process.argv.slice(2), face, face);
  } catch (error) {
    face.stderr(`Error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    status = 1;
  }
  process.exit(status);
}
