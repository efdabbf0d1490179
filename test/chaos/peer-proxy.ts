/**
 * Stands in front of a member's peer port and knows, from the first request of each connection, which member dialled it: so every directed link can be cut,
 * delayed or left half-open by itself.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { sleep } from "../support/server-process.ts";

/**
 * What a link does. "cut": connections are closed and refused. "silent": connections stay, nothing gets through in either direction (half-open). "mute": what the
 * dialler says is swallowed, answers get through. With `delayMs` everything arrives later, in order.
 */
export interface LinkState {
  readonly kind: "open" | "cut" | "silent" | "mute";
  readonly delayMs?: number;
}

const OPEN: LinkState = { kind: "open" };
const HEAD_BYTES_MAX = 65_536;
/** A stalled receiver must not make the proxy keep everything. */
const BUFFERED_MAX = 64 << 20;

interface Link {
  /** The dialler's id, as it said it. */
  readonly from: string | undefined;
  readonly near: Socket;
  readonly far: Socket;
}

export class PeerProxy {
  readonly #server: Server;
  readonly #links = new Set<Link>();
  readonly #waiting = new Set<Socket>();
  readonly #states = new Map<string, LinkState>();
  readonly #target: number;
  readonly #names: (id: string) => string | undefined;

  /** `names` turns a member's hexadecimal id into its name. */
  constructor(port: number, target: number, names: (id: string) => string | undefined) {
    this.#target = target;
    this.#names = names;
    this.#server = createServer((socket) => this.#accept(socket));
    this.#server.listen(port, "127.0.0.1");
  }

  /** How the link from that member is from now on. */
  set(from: string, state: LinkState): void {
    this.#states.set(from, state);
    if (state.kind !== "cut") return;
    for (const link of this.#links) {
      if (this.#nameOf(link.from) !== from) continue;
      link.near.destroy();
      link.far.destroy();
    }
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#waiting) socket.destroy();
    for (const { near, far } of this.#links) {
      near.destroy();
      far.destroy();
    }
  }

  #accept(near: Socket): void {
    let head = Buffer.alloc(0);
    near.setNoDelay(true);
    this.#waiting.add(near);
    const drop = (): void => void near.destroy();
    const take = (bytes: Buffer): void => {
      head = Buffer.concat([head, bytes]);
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) {
        if (head.length > HEAD_BYTES_MAX) near.destroy();
        return;
      }
      near.removeListener("data", take);
      near.removeListener("error", drop);
      near.pause();
      this.#waiting.delete(near);
      const id = /^x-server-from: *([0-9a-f]+)/im.exec(head.toString("latin1", 0, end))?.[1];
      this.#connect(near, head, id);
    };
    near.on("data", take);
    near.on("error", drop);
    near.on("close", () => this.#waiting.delete(near));
  }

  /** Asked anew each time: members dial each other long before anybody knows their ids. */
  #nameOf(id: string | undefined): string | undefined {
    return id === undefined ? undefined : this.#names(id.replace(/^0+/, ""));
  }

  #state(from: string | undefined): LinkState {
    const name = this.#nameOf(from);
    return (name === undefined ? undefined : this.#states.get(name)) ?? OPEN;
  }

  #connect(near: Socket, head: Buffer, from: string | undefined): void {
    if (this.#state(from).kind === "cut") {
      near.destroy();
      return;
    }
    const far = connect({ port: this.#target, host: "127.0.0.1", noDelay: true });
    const link = { from, near, far };
    this.#links.add(link);
    const end = (): void => {
      this.#links.delete(link);
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      socket.on("error", end);
      socket.on("close", end);
    }
    this.#pipe(near, far, from, true, head);
    this.#pipe(far, near, from, false);
    near.resume();
  }

  #pipe(source: Socket, sink: Socket, from: string | undefined, isRequest: boolean, first?: Buffer): void {
    let last = Promise.resolve();
    const pass = (bytes: Buffer): void => {
      const { kind, delayMs = 0 } = this.#state(from);
      // Bytes that were swallowed once make the rest of the stream useless: such a connection stays broken after the fault, as a real one would.
      if (kind === "silent" || (kind === "mute" && isRequest)) {
        source.removeListener("data", pass);
        source.on("data", () => undefined);
        return;
      }
      if (sink.writableLength > BUFFERED_MAX) {
        sink.destroy();
        return;
      }
      if (delayMs === 0) last = last.then(() => void sink.write(bytes));
      else {
        const due = sleep(delayMs);
        last = last.then(() => due).then(() => void sink.write(bytes));
      }
    };
    source.on("data", pass);
    if (first !== undefined) pass(first);
  }
}
