/** `npm run bench [-- options]`: what the built server costs, and with `--against /path/to/etcd` next to a real etcd. `-- --help` lists the options. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT, SERVER } from "./lib/setup.mjs";

prepare();
const bench = join(ROOT, "test/bench/run/main.ts");
endLike(await runNode(["--import", "tsx", bench, "--server", SERVER, "--module", join(ROOT, "dist/index.js"), ...process.argv.slice(2)]));
