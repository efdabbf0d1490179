/** A whole member in this process, for clients from elsewhere. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EtcdConfig } from "../../src/embed/config.ts";
import { type EtcdServer, startEtcd } from "../../src/embed/start-etcd.ts";

export interface TestMember extends AsyncDisposable {
  readonly url: string;
  readonly server: EtcdServer;
}

/** Uses `port` and the one above. */
export async function testMember(port: number, config: EtcdConfig = {}): Promise<TestMember> {
  const directory = await mkdtemp(join(tmpdir(), "holdfast-grpc-"));
  const url = `http://127.0.0.1:${port}`;
  const peer = `http://127.0.0.1:${port + 1}`;
  const server = await startEtcd({
    name: "one",
    dataDir: directory,
    listenClientUrls: url,
    advertiseClientUrls: url,
    listenPeerUrls: peer,
    initialAdvertisePeerUrls: peer,
    initialCluster: `one=${peer}`,
    ...config,
  });
  await server.ready;
  return {
    url,
    server,
    [Symbol.asyncDispose]: async () => {
      await server.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
