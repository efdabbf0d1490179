/** `npm run conformance [-- the kit's options]`: the recorded conversations with etcd, played against this server. The last line is `N passed, N failed`. */
import { join } from "node:path";
import { endLike, runNode } from "./lib/child.mjs";
import { prepare, ROOT, SERVER } from "./lib/setup.mjs";

prepare();
const client = "http://127.0.0.1:{clientPort}";
const peer = "http://127.0.0.1:{peerPort}";
const server = [
  ...[`"${process.execPath}"`, `"${SERVER}"`, "--data-dir", "{dir}"],
  ...["--listen-client-urls", client, "--advertise-client-urls", client],
  ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "{extra}"],
].join(" ");
const kit = join(ROOT, "test/conformance/conformance.mjs");
endLike(await runNode([kit, "--jobs", "4", "--server", server, ...process.argv.slice(2)]));
