/** `npm run sim [-- options]`: clusters in simulated time with every fault, checked; `-- --help` names the options. The last line is `N passed, N failed`. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepareModules, ROOT } from "./lib/setup.mjs";

prepareModules();
endLike(await runNode(["--import", "tsx", join(ROOT, "test/chaos/sim/main.ts"), ...process.argv.slice(2)]));
