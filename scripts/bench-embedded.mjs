/** `npm run bench:embedded -- --against /path/to/etcd`: the built package inside a program, next to etcd's Go client on a real etcd. Needs Go for that. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT } from "./lib/setup.mjs";

prepare();
const bench = join(ROOT, "test/bench/embedded/main.ts");
endLike(await runNode(["--import", "tsx", bench, "--module", join(ROOT, "dist"), ...process.argv.slice(2)]));
