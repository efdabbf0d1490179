/**
 * A listener of the client port: one port, two protocols. The first bytes of a connection tell HTTP/2 with prior knowledge (gRPC) from HTTP/1 (the JSON API and
 * the plain endpoints). Connections are accepted at once, but nobody is answered before the member is ready.
 */
import { createServer, type Server, type Socket } from "node:net";
import type { Clock } from "../base/clock.ts";

export type SocketHandler = (socket: Socket) => void;

export interface ClientPortOptions {
  readonly clock: Clock;
  readonly address:
    | { readonly kind: "tcp"; readonly host: string; readonly port: number }
    | { readonly kind: "unix"; readonly path: string };
  /** HTTP/1 connections; undefined: refused. */
  readonly http: SocketHandler | undefined;
  /** HTTP/2 connections; undefined: refused. */
  readonly http2: SocketHandler | undefined;
  readonly onError: (error: Error) => void;
}

/** How every HTTP/2 connection with prior knowledge begins (RFC 9113 section 3.4); three bytes are enough to tell it from any HTTP/1 method. */
const HTTP2_PREFACE = Buffer.from("PRI * HTTP/2.0");
const SNIFF_BYTES = 3;
/** A connection that says nothing is closed after this time. */
const FIRST_BYTES_MS = 30_000;

export class ClientPort {
  readonly #options: ClientPortOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #open = false;
  #waiting: Socket[] = [];

  constructor(options: ClientPortOptions) {
    this.#options = options;
    this.#server = createServer({ noDelay: true, keepAlive: true, pauseOnConnect: true }, (socket) => this.#accept(socket));
  }

  /** Binds. Connections wait until {@link serve}. */
  async listen(): Promise<void> {
    const { address } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      const bound = (): void => {
        this.#server.off("error", reject);
        this.#server.on("error", this.#options.onError);
        resolve();
      };
      if (address.kind === "unix") this.#server.listen(address.path, bound);
      else this.#server.listen({ host: address.host === "" ? undefined : address.host, port: address.port }, bound);
    });
  }

  /** The port really bound; 0 for a socket file. */
  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  serve(): void {
    this.#open = true;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const socket of waiting) this.#sniff(socket);
  }

  /** Stops accepting and drops the connections that no protocol has taken. Those handed over belong to their handlers. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#waiting = [];
    if (!this.#server.listening) return;
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    const drop = (): void => {
      this.#sockets.delete(socket);
    };
    socket.once("close", drop);
    socket.on("error", ignoreReset);
    if (this.#open) this.#sniff(socket);
    else this.#waiting.push(socket);
  }

  #sniff(socket: Socket): void {
    if (socket.destroyed) return;
    const timer = this.#options.clock.timer(FIRST_BYTES_MS, () => socket.destroy());
    socket.once("close", () => timer.cancel());
    const onReadable = (): void => {
      const head = socket.read() as Buffer | null;
      if (head === null) return;
      if (head.byteLength < SNIFF_BYTES && HTTP2_PREFACE.subarray(0, head.byteLength).equals(head)) {
        // Too little to tell: wait for more.
        socket.unshift(head);
        return;
      }
      socket.off("readable", onReadable);
      timer.cancel();
      socket.unshift(head);
      const isHttp2 = head.subarray(0, SNIFF_BYTES).equals(HTTP2_PREFACE.subarray(0, SNIFF_BYTES));
      const handler = isHttp2 ? this.#options.http2 : this.#options.http;
      this.#sockets.delete(socket);
      socket.off("error", ignoreReset);
      if (handler === undefined) socket.destroy();
      else handler(socket);
    };
    socket.on("readable", onReadable);
    // A socket that was accepted in the paused state begins to read with this.
    socket.read(0);
  }
}

/** A client that goes away before it said anything is no event. */
function ignoreReset(): void {
  // "close" follows and cleans up.
}
