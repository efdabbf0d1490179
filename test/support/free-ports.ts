/** Ports that nobody uses now: several runs of the tests on one machine must not get in each other's way. */
import { once } from "node:events";
import { createServer, type Server } from "node:net";

const ATTEMPTS = 50;
/** Below those that systems give to connections: one of them could take a port before its server does. */
const FIRST = 23_500;
const PORTS = 500;

async function listen(port: number): Promise<Server> {
  const server = createServer();
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return server;
}

/** The first of `count` free ports in a row. Chance keeps runs apart between asking and using. */
export async function freePorts(count: number): Promise<number> {
  let last: unknown;
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const first = FIRST + Math.floor(Math.random() * (PORTS - count));
    const servers: Server[] = [];
    try {
      for (let port = first; port < first + count; port += 1) servers.push(await listen(port));
      return first;
    } catch (error) {
      last = error;
    } finally {
      await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
    }
  }
  throw new Error(`no ${count} free ports in a row`, { cause: last });
}
