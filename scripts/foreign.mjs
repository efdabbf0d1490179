/** `npm run foreign [-- options]`: clients made by others (etcd's Go client, npm's etcd3) against the built server, and with `--against` a real etcd. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT, SERVER } from "./lib/setup.mjs";

prepare();
endLike(await runNode(["--import", "tsx", join(ROOT, "test/foreign/run.ts"), "--server", SERVER, ...process.argv.slice(2)]));
