import { type AddressInfo, connect as connectSocket, createServer, type Server, type Socket } from "node:net";

/** A way through a TCP proxy that can be told to do harm, and whose own address stays when its target moves. */
export class TcpProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #dead = new WeakSet<Socket>();
  /** Swallows everything, in both directions, without a word. */
  frozen = false;
  /** Ends the connection instead of passing on what the server says. */
  dropAnswers = false;
  connections = 0;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @param endpoint the URL to lead to, or who knows it; undefined: nobody is there now. */
  static async to(endpoint: string | (() => string | undefined)): Promise<TcpProxy> {
    const server = createServer();
    const proxy = new TcpProxy(server);
    server.on("connection", (client) => {
      proxy.connections += 1;
      const url = typeof endpoint === "string" ? endpoint : endpoint();
      if (url === undefined) {
        client.on("error", () => client.destroy());
        client.destroy();
        return;
      }
      const target = new URL(url);
      const upstream = connectSocket(Number(target.port), target.hostname);
      for (const socket of [client, upstream]) {
        proxy.#sockets.add(socket);
        socket.on("error", () => socket.destroy());
        socket.on("close", () => proxy.#sockets.delete(socket));
      }
      client.on("data", (data) => {
        if (!proxy.frozen && !proxy.#dead.has(client)) upstream.write(data);
      });
      upstream.on("data", (data) => {
        if (proxy.frozen || proxy.#dead.has(client)) return;
        if (proxy.dropAnswers) client.destroy();
        else client.write(data);
      });
      client.on("close", () => upstream.destroy());
      upstream.on("close", () => {
        if (!proxy.frozen && !proxy.#dead.has(client)) client.destroy();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  /** Breaks all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Connections that are there stay frozen, new ones are not. */
  freezeOnly(_: "present"): void {
    for (const socket of this.#sockets) this.#dead.add(socket);
    this.frozen = false;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
