/** `npm run compare-ctl -- --against /path/to/etcd [--etcdctl /path/to/etcdctl]...`: client tools against this server and a real etcd, answers compared. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT, SERVER } from "./lib/setup.mjs";

prepare();
endLike(await runNode(["--import", "tsx", join(ROOT, "test/ctl/compare-run.ts"), "--server", SERVER, ...process.argv.slice(2)]));
