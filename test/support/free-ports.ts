/** Ports that nobody uses now: several runs of the tests on one machine must not get in each other's way. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Server } from "node:net";

const ATTEMPTS = 50;

async function listen(port: number): Promise<Server> {
  const server = createServer();
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return server;
}

/** The first of `count` free ports in a row. */
export async function freePorts(count: number): Promise<number> {
  let last: unknown;
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const servers: Server[] = [];
    try {
      servers.push(await listen(0));
      const { port } = servers[0]?.address() as AddressInfo;
      for (let next = 1; next < count; next += 1) servers.push(await listen(port + next));
      return port;
    } catch (error) {
      // The next one is taken, or there is none.
      last = error;
    } finally {
      for (const server of servers) server.close();
    }
  }
  throw new Error(`no ${count} free ports in a row`, { cause: last });
}
