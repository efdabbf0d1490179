/** `npm run real-input`: every package.json and README below node_modules into a real member and back, with sizes and times; the last line is `N passed, N failed`. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT, SERVER } from "./lib/setup.mjs";

prepare();
endLike(await runNode(["--import", "tsx", join(ROOT, "test/real-input/main.ts"), SERVER, ROOT]));
