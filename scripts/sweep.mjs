/**
 * `npm run sweep [-- --operations N] [--seed S] [--quick]`: a crash and several power losses at every change of the disk, and damage to every byte of log and snapshot, on a
 * modelled disk; the last line is `N passed, N failed`.
 */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT } from "./lib/setup.mjs";

prepare();
endLike(await runNode(["--import", "tsx", join(ROOT, "test/chaos/sweep/main.ts"), ...process.argv.slice(2)]));
