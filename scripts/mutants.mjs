/** `npm run mutants [-- options]`: deliberate faults which the simulator must notice; the last line is `N passed, N failed`. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepareModules, ROOT } from "./lib/setup.mjs";

prepareModules();
endLike(await runNode(["--import", "tsx", join(ROOT, "test/chaos/sim/mutants.ts"), ...process.argv.slice(2)]));
