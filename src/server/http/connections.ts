/**
 * The HTTP/1 connections of one app: requests of a connection are served one after the other, calls end when their client goes away, silent clients
 * are cut off, and closing leaves nothing behind.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Clock, Timer } from "../../base/clock.ts";

/** What runs on behalf of the current request of a connection. */
export interface RunningCall {
  /** The client is gone, or has closed its side. Must not throw; further calls change nothing. */
  disconnected(): void;
}

export interface ConnectionLimits {
  /** From the first byte of a request (or the accept) to the end of its headers, in ms. */
  readonly headersMs: number;
  /** Longest pause while the body of a call is read, in ms. */
  readonly bodyPauseMs: number;
  /** Longest time for the whole body of a call, in ms. */
  readonly bodyMs: number;
  /** Longest pause while a client takes a whole (not streamed) answer, in ms. */
  readonly answerPauseMs: number;
  /** Most that is kept of the request bodies of all connections together, in bytes; calls that would exceed it are refused. */
  readonly heldBytes: number;
}

export const DEFAULT_LIMITS: ConnectionLimits = {
  headersMs: 10_000,
  bodyPauseMs: 30_000,
  bodyMs: 300_000,
  answerPauseMs: 60_000,
  heldBytes: 512 * 1024 * 1024,
};

/** How often silence is looked for. Only while there are connections. */
const SWEEP_MS = 1000;
/** Requests that wait on one connection (pipelining) before its socket is not read any more. */
const PIPELINE_MAX = 16;
/** TCP keep-alive, so that peers which vanished without a word are found out. */
const TCP_KEEP_ALIVE_MS = 30_000;

const CONNECTION = Symbol("connection");

interface TrackedSocket extends Socket {
  [CONNECTION]?: Connection;
}

/** Serves one request; the connection has no other at that time. */
export type Serve = (connection: Connection, req: IncomingMessage, res: ServerResponse) => void;

export class Connection {
  readonly socket: Socket;
  readonly #table: ConnectionTable;
  readonly #waiting: (readonly [IncomingMessage, ServerResponse])[] = [];
  #response: ServerResponse | undefined;
  #call: RunningCall | undefined;
  /** Handed over to another protocol (WebSocket): no requests any more, never idle. */
  #detached = false;
  #gone = false;
  #readEnded = false;
  /** Monotonic ms since when a request's headers are awaited; undefined while nothing of them was seen. */
  #headersSince: number | undefined;
  /** Monotonic ms since when the body of a call is awaited; undefined while it is not. */
  #bodySince: number | undefined;
  #progressAt = 0;
  #bytesRead = 0;
  #answerTimed = false;
  #heldBytes = 0;

  constructor(table: ConnectionTable, socket: Socket) {
    this.#table = table;
    this.socket = socket;
    this.#headersSince = table.clock.monotonicMs();
  }

  static of(socket: Socket): Connection | undefined {
    return (socket as TrackedSocket)[CONNECTION];
  }

  get gone(): boolean {
    return this.#gone;
  }

  get idle(): boolean {
    return this.#response === undefined && !this.#detached;
  }

  /** A request arrived; it is served when those before it are answered. */
  request(req: IncomingMessage, res: ServerResponse): void {
    if (this.#response !== undefined) {
      this.#waiting.push([req, res]);
      if (this.#waiting.length >= PIPELINE_MAX) this.socket.pause();
      return;
    }
    this.#begin(req, res);
  }

  #begin(req: IncomingMessage, res: ServerResponse): void {
    this.#response = res;
    this.#headersSince = undefined;
    res.on("close", onResponseClose);
    if (this.#table.closing) res.shouldKeepAlive = false;
    this.#table.serve(this, req, res);
  }

  /** This much of the current request's body is kept, until it is answered. False if all connections together then keep too much. */
  hold(bytes: number): boolean {
    const held = this.#gone ? 0 : bytes;
    const total = this.#table.hold(held - this.#heldBytes);
    this.#heldBytes = held;
    return total <= this.#table.limits.heldBytes;
  }

  /** The current response is complete (or will never be). */
  answered(res: ServerResponse): void {
    if (this.#response !== res) return;
    this.hold(0);
    this.#response = undefined;
    this.#call = undefined;
    this.#bodySince = undefined;
    this.#bytesRead = this.socket.bytesRead;
    if (this.#answerTimed) {
      this.#answerTimed = false;
      this.socket.setTimeout(0, onAnswerStalled);
    }
    if (this.#gone) return;
    const next = this.#waiting.shift();
    if (next !== undefined) {
      if (this.#waiting.length < PIPELINE_MAX) this.socket.resume();
      this.#begin(next[0], next[1]);
      return;
    }
    if (this.#table.closing || this.#readEnded) this.socket.destroySoon();
  }

  /** Node lets a socket flow again for each body that is read. Whoever has requests waiting has sent the bodies of those before them. */
  resumed(): void {
    if (this.#waiting.length >= PIPELINE_MAX) this.socket.pause();
  }

  /** Names what to tell when the client goes away. If it already has, it is told in a later turn. */
  running(call: RunningCall): void {
    this.#call = call;
    if (this.#gone || this.#readEnded) process.nextTick(() => this.#endCall());
  }

  /** The call is over; nobody wants to know any more. */
  finished(): void {
    this.#call = undefined;
  }

  /** The body of a call is being read from now on, or no longer; a client that dawdles is cut off. */
  readingBody(reading: boolean): void {
    if (!reading) {
      this.#bodySince = undefined;
      return;
    }
    this.#bodySince = this.#table.clock.monotonicMs();
    this.#progressAt = this.#bodySince;
    this.#bytesRead = this.socket.bytesRead;
  }

  /** A whole answer was handed to the socket. If the client does not take it, the connection ends. */
  awaitTaken(): void {
    if (this.#answerTimed || this.socket.writableLength === 0) return;
    this.#answerTimed = true;
    this.socket.setTimeout(this.#table.limits.answerPauseMs, onAnswerStalled);
  }

  /** Another protocol takes over. `call` is told when the client goes away. */
  detach(call: RunningCall): void {
    this.#detached = true;
    this.#headersSince = undefined;
    this.#call = call;
  }

  /** No more requests are served: the current answer is the last. */
  lastAnswer(): void {
    if (this.#response !== undefined && !this.#response.headersSent) this.#response.shouldKeepAlive = false;
  }

  /** The client has closed its side: as in Go, calls are cancelled; what is answered anyway still reaches it. */
  readEnded(): void {
    this.#readEnded = true;
    this.lastAnswer();
    this.#endCall();
  }

  closed(): void {
    this.hold(0);
    this.#gone = true;
    this.#waiting.length = 0;
    this.#endCall();
  }

  sweep(nowMs: number, limits: ConnectionLimits): void {
    if (this.#bodySince !== undefined) {
      const bytesRead = this.socket.bytesRead;
      if (bytesRead !== this.#bytesRead) {
        this.#bytesRead = bytesRead;
        this.#progressAt = nowMs;
      }
      if (nowMs - this.#progressAt > limits.bodyPauseMs || nowMs - this.#bodySince > limits.bodyMs) this.socket.destroy();
      return;
    }
    if (!this.idle) return;
    // Bytes without a request: headers are on their way.
    if (this.#headersSince === undefined && this.socket.bytesRead !== this.#bytesRead) this.#headersSince = nowMs;
    if (this.#headersSince !== undefined && nowMs - this.#headersSince > limits.headersMs) this.socket.destroy();
  }

  #endCall(): void {
    const call = this.#call;
    this.#call = undefined;
    call?.disconnected();
  }
}

function onResponseClose(this: ServerResponse): void {
  Connection.of(this.req.socket)?.answered(this);
}

function onAnswerStalled(this: Socket): void {
  this.destroy();
}

export class ConnectionTable {
  readonly clock: Clock;
  readonly limits: ConnectionLimits;
  readonly serve: Serve;
  readonly #connections = new Set<Connection>();
  #heldBytes = 0;
  #closing = false;
  #sweep: Timer | undefined;
  #whenEmpty: (() => void) | undefined;

  constructor(clock: Clock, limits: ConnectionLimits, serve: Serve) {
    this.clock = clock;
    this.limits = limits;
    this.serve = serve;
  }

  get closing(): boolean {
    return this.#closing;
  }

  get size(): number {
    return this.#connections.size;
  }

  /** Changes the bytes kept of request bodies by `change` and gives their sum. */
  hold(change: number): number {
    this.#heldBytes += change;
    return this.#heldBytes;
  }

  /** Takes a connected socket; one that it knows already is left alone. Destroys it if this table is closing. */
  add(socket: Socket): void {
    if (Connection.of(socket) !== undefined) return;
    if (this.#closing) {
      socket.destroy();
      return;
    }
    socket.setNoDelay(true);
    socket.setKeepAlive(true, TCP_KEEP_ALIVE_MS);
    // A client may close its side and still wait for the answer.
    socket.allowHalfOpen = true;
    const connection = new Connection(this, socket);
    (socket as TrackedSocket)[CONNECTION] = connection;
    this.#connections.add(connection);
    socket.on("resume", () => connection.resumed());
    socket.on("end", () => connection.readEnded());
    socket.on("close", () => {
      this.#connections.delete(connection);
      connection.closed();
      if (this.#connections.size === 0) this.#whenEmpty?.();
    });
    this.#sweep ??= this.clock.timer(SWEEP_MS, () => this.#sweepAll());
  }

  /**
   * Ends idle connections at once and the others as soon as their current request is answered, at the latest after `graceMs`.
   * Resolves when none is left.
   */
  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    for (const connection of this.#connections) {
      if (connection.idle) connection.socket.destroy();
      else connection.lastAnswer();
    }
    if (this.#connections.size > 0) {
      const empty = new Promise<void>((resolve) => {
        this.#whenEmpty = resolve;
      });
      const cut = this.clock.timer(graceMs, () => {
        for (const connection of this.#connections) connection.socket.destroy();
      });
      await empty;
      cut.cancel();
    }
    this.#sweep?.cancel();
    this.#sweep = undefined;
  }

  #sweepAll(): void {
    this.#sweep = undefined;
    const nowMs = this.clock.monotonicMs();
    for (const connection of this.#connections) connection.sweep(nowMs, this.limits);
    if (this.#connections.size > 0) this.#sweep = this.clock.timer(SWEEP_MS, () => this.#sweepAll());
  }
}
