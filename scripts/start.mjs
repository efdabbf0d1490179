/** `npm start [-- flags]`: one server, with etcd's flags. Installs and builds first, if need be. */
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, SERVER } from "./lib/setup.mjs";

prepare();
endLike(await runNode([SERVER, ...process.argv.slice(2)], { env: { ...process.env, HOLDFAST_GREETING: "1" } }));
