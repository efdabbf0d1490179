/** `npm run bench:grpc [-- options]`: memory of many connections with many gRPC streams each, of the built server and with `--against` of a real etcd. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT, SERVER } from "./lib/setup.mjs";

prepare();
endLike(await runNode(["--import", "tsx", join(ROOT, "test/bench/grpc-streams.ts"), "--server", SERVER, ...process.argv.slice(2)]));
