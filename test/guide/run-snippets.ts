/**
 * Runs programs one after the other in one process. Arguments: a directory to work in, then files. Prints a line of JSON for each: what it printed, and how it
 * failed, if it did.
 */
import { mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";

const [directory = "", ...files] = process.argv.slice(2);
let printed: string[] = [];
const unseen: string[] = [];
console.log = (...parts: unknown[]) => {
  printed.push(parts.map((part) => (typeof part === "string" ? part : inspect(part, { breakLength: 100 }))).join(" "));
};
process.on("unhandledRejection", (reason) => unseen.push(inspect(reason)));

for (const file of files) {
  printed = [];
  const place = join(directory, basename(file, ".ts"));
  mkdirSync(place, { recursive: true });
  process.chdir(place);
  let error: string | undefined;
  try {
    await import(pathToFileURL(file).href);
    // Rejections that nobody sees show one turn later.
    await new Promise((resolve) => setImmediate(resolve));
    if (unseen.length > 0) error = `unhandled: ${unseen.splice(0).join("; ")}`;
  } catch (thrown) {
    error = inspect(thrown);
  }
  process.stdout.write(`${JSON.stringify({ file, printed: printed.join("\n"), error })}\n`);
}
// From here on the process has to end by itself: programs close what they open.
