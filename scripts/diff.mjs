/** `npm run diff -- --against /path/to/etcd [--requests N] [--seed S]`: random requests to this server and to a real etcd, answers compared. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT } from "./lib/setup.mjs";

prepare();
endLike(await runNode(["--import", "tsx", join(ROOT, "test/diff/run.ts"), ...process.argv.slice(2)]));
