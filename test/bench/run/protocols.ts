/**
 * The client side of the ways to ask over the network, as lean as can be: prepared requests on plain sockets, so that the load generator costs
 * little, and the same for every server. Not general clients: they know exactly what the benchmarks send.
 */
import { connect as connectSocket, type Socket } from "node:net";
import * as api from "../../../src/api/index.ts";
import type { Call } from "./operations.ts";

/** Called with false when the server refused, or the connection is gone. */
export type Done = (succeeded: boolean) => void;

export interface Connection {
  /** `request` comes from {@link Protocol.encode} and belongs to the connection until `done`. */
  send(request: Buffer, done: Done): void;
  close(): void;
}

export interface Protocol {
  /** How many callers share one connection. */
  readonly callersPerConnection: number;
  encode(call: Call, authority: string): Buffer;
  open(host: string, port: number, authority: string, method: Call["method"]): Promise<Connection>;
}

export const PROTOCOLS = { json: jsonProtocol(), grpc: grpcProtocol() } satisfies Record<string, Protocol>;
export type ProtocolName = keyof typeof PROTOCOLS;

function messageOf(call: Call): { json: string; binary: Uint8Array } {
  switch (call.method) {
    case "put":
      return { json: api.PutRequest.printJson(call.request), binary: api.PutRequest.encode(call.request) };
    case "range":
      return { json: api.RangeRequest.printJson(call.request), binary: api.RangeRequest.encode(call.request) };
    case "txn":
      return { json: api.TxnRequest.printJson(call.request), binary: api.TxnRequest.encode(call.request) };
    default:
      return call satisfies never;
  }
}

function openSocket(host: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket({ host, port, noDelay: true });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.removeListener("error", reject);
      resolve(socket);
    });
  });
}

// -- JSON over HTTP/1.1: one request at a time per connection --------------------------------------------------------------------------------

const HEAD_END = Buffer.from("\r\n\r\n");
const LAST_CHUNK = Buffer.from("\r\n0\r\n\r\n");

function jsonProtocol(): Protocol {
  return {
    callersPerConnection: 1,
    encode(call, authority) {
      const { json } = messageOf(call);
      return Buffer.from(
        `POST /v3/kv/${call.method} HTTP/1.1\r\nHost: ${authority}\r\nContent-Type: application/json\r\n` +
          `Content-Length: ${Buffer.byteLength(json)}\r\n\r\n${json}`,
      );
    },
    async open(host, port) {
      return new HttpConnection(await openSocket(host, port));
    },
  };
}

class HttpConnection implements Connection {
  readonly #socket: Socket;
  #done: Done | undefined;
  #pending: Buffer | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (bytes: Buffer) => this.#take(bytes));
    socket.on("error", () => this.#finish(false));
    socket.on("close", () => this.#finish(false));
  }

  send(request: Buffer, done: Done): void {
    this.#done = done;
    if (this.#socket.destroyed) setImmediate(() => this.#finish(false));
    else this.#socket.write(request);
  }

  close(): void {
    this.#done = undefined;
    this.#socket.destroy();
  }

  #take(bytes: Buffer): void {
    const all = this.#pending === undefined ? bytes : Buffer.concat([this.#pending, bytes]);
    const headEnd = all.indexOf(HEAD_END);
    if (headEnd >= 0) {
      const head = all.toString("latin1", 0, headEnd);
      const length = /content-length: *(\d+)/i.exec(head)?.[1];
      // Go's server sends long answers in chunks; nothing follows the last one, because nothing else was asked.
      if (length === undefined ? all.subarray(-LAST_CHUNK.length).equals(LAST_CHUNK) : all.length >= headEnd + 4 + Number(length)) {
        this.#pending = undefined;
        this.#finish(head.startsWith("HTTP/1.1 200"));
        return;
      }
    }
    this.#pending = all;
  }

  #finish(succeeded: boolean): void {
    const done = this.#done;
    this.#done = undefined;
    done?.(succeeded);
  }
}

// -- gRPC: HTTP/2 with prior knowledge, calls of one method, headers from the dynamic table after the first ------------------------------------

const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7, windowUpdate: 8 } as const;
const END_STREAM = 0x1;
const END_HEADERS = 0x4;
const ACK = 0x1;
const FRAME_HEAD = 9;
const WINDOW = 0x3fff_ffff;
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

const GRPC_PATHS: Readonly<Record<Call["method"], string>> = {
  put: "/etcdserverpb.KV/Put",
  range: "/etcdserverpb.KV/Range",
  txn: "/etcdserverpb.KV/Txn",
};

/** Static entries `:method: POST` and `:scheme: http`, then the five that the first request put into the table, the newest first. */
const LATER_HEADERS = Buffer.from([0x83, 0x86, 0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]);

function grpcProtocol(): Protocol {
  return {
    callersPerConnection: 16,
    encode(call) {
      const { binary } = messageOf(call);
      const data = Buffer.alloc(5 + binary.length);
      data.writeUInt32BE(binary.length, 1);
      data.set(binary, 5);
      return Buffer.concat([frame(FRAME.headers, END_HEADERS, LATER_HEADERS), frame(FRAME.data, END_STREAM, data)]);
    },
    async open(host, port, authority, method) {
      return new Http2Connection(await openSocket(host, port), authority, GRPC_PATHS[method]);
    },
  };
}

function frame(type: number, flags: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(FRAME_HEAD + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.set(payload, FRAME_HEAD);
  return bytes;
}

function windowUpdate(bytes: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(bytes);
  return frame(FRAME.windowUpdate, 0, payload);
}

/** A literal that enters the dynamic table. `name` is an index of the static table, or text. */
function literal(name: number | string, value: string): Buffer {
  const text = Buffer.from(value);
  const head = typeof name === "number" ? Buffer.from([0x40 | name]) : Buffer.concat([Buffer.from([0x40, name.length]), Buffer.from(name)]);
  return Buffer.concat([head, Buffer.from([text.length]), text]);
}

class Http2Connection implements Connection {
  readonly #socket: Socket;
  readonly #firstHeaders: Buffer;
  #nextStream = 1;
  #pending: Buffer | undefined;
  #unacknowledged = 0;
  /** Calls under way, by stream; the flag tells that a message has come. */
  readonly #calls = new Map<number, { readonly done: Done; answered: boolean }>();

  constructor(socket: Socket, authority: string, path: string) {
    this.#socket = socket;
    this.#firstHeaders = Buffer.concat([
      Buffer.from([0x83, 0x86]),
      literal(4, path),
      literal(1, authority),
      literal(31, "application/grpc"),
      literal("te", "trailers"),
      literal(58, "holdfast-bench"),
    ]);
    const settings = Buffer.alloc(6);
    settings.writeUInt16BE(4, 0);
    settings.writeUInt32BE(WINDOW, 2);
    socket.on("data", (bytes: Buffer) => this.#take(bytes));
    socket.on("error", () => this.#failAll());
    socket.on("close", () => this.#failAll());
    socket.write(Buffer.concat([PREFACE, frame(FRAME.settings, 0, settings), windowUpdate(WINDOW)]));
  }

  send(request: Buffer, done: Done): void {
    const stream = this.#nextStream;
    this.#nextStream += 2;
    this.#calls.set(stream, { done, answered: false });
    if (this.#socket.destroyed) {
      setImmediate(() => this.#failAll());
      return;
    }
    let bytes = request;
    const dataAt = FRAME_HEAD + LATER_HEADERS.length;
    if (stream === 1) {
      const head = frame(FRAME.headers, END_HEADERS, this.#firstHeaders);
      head.writeUInt32BE(stream, 5);
      bytes = Buffer.concat([head, request.subarray(dataAt)]);
      bytes.writeUInt32BE(stream, head.length + 5);
    } else {
      bytes.writeUInt32BE(stream, 5);
      bytes.writeUInt32BE(stream, dataAt + 5);
    }
    // The messages are small and few are under way, so the server's windows are never exhausted.
    this.#socket.write(bytes);
  }

  close(): void {
    this.#calls.clear();
    this.#socket.destroy();
  }

  #failAll(): void {
    for (const { done } of [...this.#calls.values()]) done(false);
    this.#calls.clear();
  }

  #take(bytes: Buffer): void {
    const all = this.#pending === undefined ? bytes : Buffer.concat([this.#pending, bytes]);
    let at = 0;
    while (all.length - at >= FRAME_HEAD) {
      const length = all.readUIntBE(at, 3);
      if (all.length - at < FRAME_HEAD + length) break;
      this.#frame(all[at + 3] ?? 0, all[at + 4] ?? 0, all.readUInt32BE(at + 5), all.subarray(at + FRAME_HEAD, at + FRAME_HEAD + length));
      at += FRAME_HEAD + length;
    }
    this.#pending = at === all.length ? undefined : all.subarray(at);
  }

  #frame(type: number, flags: number, stream: number, payload: Buffer): void {
    if (type === FRAME.data) {
      const call = this.#calls.get(stream);
      if (call !== undefined) call.answered = true;
      this.#unacknowledged += payload.length;
      if (this.#unacknowledged > WINDOW / 2) {
        this.#socket.write(windowUpdate(this.#unacknowledged));
        this.#unacknowledged = 0;
      }
    }
    if (type === FRAME.settings && (flags & ACK) === 0) this.#socket.write(frame(FRAME.settings, ACK, new Uint8Array(0)));
    if (type === FRAME.ping && (flags & ACK) === 0) this.#socket.write(frame(FRAME.ping, ACK, payload));
    const ends = (type === FRAME.headers || type === FRAME.data) && (flags & END_STREAM) !== 0;
    if (ends || type === FRAME.reset) {
      const call = this.#calls.get(stream);
      this.#calls.delete(stream);
      // A refusal comes without a message.
      call?.done(call.answered && type !== FRAME.reset);
    }
    if (type === FRAME.goAway) this.#socket.destroy();
  }
}
