/** `npm run chaos [-- options]`: the built server as real processes, under load and faults. `-- --list` names the scenarios; the last line is `N passed, N failed`. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT, SERVER } from "./lib/setup.mjs";

prepare();
const chaos = join(ROOT, "test/chaos/main.ts");
endLike(await runNode(["--import", "tsx", chaos, "--server", SERVER, ...process.argv.slice(2)]));
