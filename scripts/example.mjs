/** `npm run example -- lock`: runs one of examples/. Without a name it lists them. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT } from "./lib/setup.mjs";

const [name, ...args] = process.argv.slice(2);
const names = readdirSync(join(ROOT, "examples"))
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.slice(0, -3));
if (name === undefined || !names.includes(name)) {
  console.error(`npm run example -- <name>, where <name> is one of ${names.join(", ")}`);
  process.exitCode = 1;
} else {
  prepare();
  endLike(await runNode(["--import", "tsx", join(ROOT, `examples/${name}.ts`), ...args]));
}
