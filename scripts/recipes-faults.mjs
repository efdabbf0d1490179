/** `npm run recipes:faults [-- options]`: the recipes under many seeds of faults, in simulated time. The last line is `N passed, N failed`. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT } from "./lib/setup.mjs";

prepare();
endLike(await runNode(["--import", "tsx", join(ROOT, "test/recipes/main.ts"), ...process.argv.slice(2)]));
