/**
 * The gRPC transport once more, on node:http2. It is slower and defends itself less than the one that is served, but it was written by others down to the frames:
 * a witness that the contract suite asks for HTTP/2 and not for our reading of it.
 */
import * as http2 from "node:http2";
import type { Duplex } from "node:stream";
import { percentEncoded } from "../../src/server/grpc/status-message.ts";
import type { CallHandler, GrpcCall, GrpcTransport, RequestHead, TransportOptions } from "../../src/server/grpc/transport.ts";

type Handshake = (socket: Duplex, options: http2.ServerOptions) => http2.ServerHttp2Session;
const { performServerHandshake } = http2 as unknown as { performServerHandshake: Handshake };

const QUEUE_BYTES_MAX = 65_536;

export function createNodeHttp2Transport(options: TransportOptions): GrpcTransport {
  const sessions = new Set<http2.ServerHttp2Session>();
  const streams = new Set<Stream>();
  let closing: Promise<void> | undefined;
  const { limits } = options;

  const close = async (graceMs: number): Promise<void> => {
    for (const session of sessions) session.close();
    for (const stream of streams) stream.handler?.closing();
    const gone = [...sessions].map((session) => new Promise<void>((resolve) => session.once("close", resolve)));
    const cut = options.clock.timer(graceMs, () => {
      for (const session of sessions) session.destroy();
    });
    await Promise.all(gone);
    cut.cancel();
  };

  return {
    handle(socket) {
      if (closing !== undefined) {
        socket.destroy();
        return;
      }
      const session = performServerHandshake(socket, {
        maxHeaderListPairs: 10_000,
        settings: {
          maxHeaderListSize: limits.headerListBytesMax,
          ...(limits.maxConcurrentStreams < 2 ** 32 - 1 ? { maxConcurrentStreams: limits.maxConcurrentStreams } : {}),
        },
      });
      sessions.add(session);
      session.on("close", () => sessions.delete(session));
      session.on("error", () => session.destroy());
      session.on("stream", (stream, headers) => {
        const call = new Stream(stream);
        streams.add(call);
        stream.on("close", () => streams.delete(call));
        call.begin(options.open(call, headOf(headers)));
      });
    },
    get connections() {
      return sessions.size;
    },
    close({ graceMs }) {
      closing ??= close(graceMs);
      return closing;
    },
  };
}

function headOf(headers: http2.IncomingHttpHeaders): RequestHead {
  const text = (name: string): string | undefined => {
    const value = headers[name];
    return Array.isArray(value) ? value[0] : value;
  };
  return {
    method: text(":method") ?? "",
    path: text(":path") ?? "",
    contentType: text("content-type"),
    encoding: text("grpc-encoding"),
    timeout: text("grpc-timeout"),
    token: text("token"),
    authorization: text("authorization"),
    hasLeader: text("hasleader"),
    clientApiVersion: text("client-api-version"),
    commonName: undefined,
  };
}

class Stream implements GrpcCall {
  readonly #stream: http2.ServerHttp2Stream;
  handler: CallHandler | undefined;
  #over = false;
  #contentType = "application/grpc";
  #encoding: string | undefined;
  #requestEnded = false;
  #paused = false;
  #endHeld = false;

  constructor(stream: http2.ServerHttp2Stream) {
    this.#stream = stream;
    stream.on("error", () => undefined);
  }

  begin(handler: CallHandler): void {
    this.handler = handler;
    const stream = this.#stream;
    stream.on("data", (chunk: Buffer) => handler.data(chunk, 0, chunk.byteLength));
    stream.on("end", () => {
      this.#requestEnded = true;
      if (this.#paused) this.#endHeld = true;
      else handler.ended();
    });
    stream.on("drain", () => handler.drained());
    stream.on("close", () => {
      if (this.#over) return;
      this.#over = true;
      handler.gone();
    });
  }

  setAnswer(contentType: string, encoding: string | undefined): void {
    this.#contentType = contentType;
    this.#encoding = encoding;
  }

  respond(frame: Uint8Array, owned: boolean): void {
    this.send(frame, owned);
    this.finish(0, "");
  }

  send(frame: Uint8Array, owned: boolean): boolean {
    if (this.#over || this.#stream.destroyed) return true;
    if (!this.#stream.headersSent) this.#respond(200, {}, false);
    this.#stream.write(owned ? frame : Buffer.from(frame));
    return this.#stream.writableLength < QUEUE_BYTES_MAX && !this.#stream.writableNeedDrain;
  }

  finish(code: number, message: string): void {
    this.#end(200, code, message, http2.constants.NGHTTP2_NO_ERROR);
  }

  refuse(httpStatus: number, code: number, message: string): void {
    this.#end(httpStatus, code, message, http2.constants.NGHTTP2_NO_ERROR);
  }

  expire(code: number, message: string): void {
    this.#end(200, code, message, http2.constants.NGHTTP2_CANCEL);
  }

  expect(): void {
    // Node gives window back as the bytes are read.
  }

  pause(): void {
    this.#paused = true;
    this.#stream.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#stream.resume();
    if (!this.#endHeld) return;
    this.#endHeld = false;
    this.handler?.ended();
  }

  #respond(status: number, fields: Record<string, string>, endStream: boolean): void {
    const encoding = this.#encoding === undefined ? {} : { "grpc-encoding": this.#encoding };
    const headers = { ":status": status, "content-type": this.#contentType, ...encoding, ...fields };
    this.#stream.respond(
      headers,
      endStream ? ({ endStream, sendDate: false } as object) : ({ waitForTrailers: true, sendDate: false } as object),
    );
  }

  #end(status: number, code: number, message: string, resetCode: number): void {
    if (this.#over) return;
    this.#over = true;
    const stream = this.#stream;
    if (stream.destroyed) return;
    const trailers = { "grpc-status": String(code), "grpc-message": percentEncoded(message) };
    // In a later turn: Node drops what it has not sent when it resets a stream.
    const reset = (): void => {
      if (!this.#requestEnded) setImmediate(() => stream.close(resetCode));
    };
    if (!stream.headersSent) {
      this.#respond(status, trailers, true);
      reset();
      return;
    }
    stream.on("wantTrailers", () => {
      stream.sendTrailers(trailers);
      reset();
    });
    stream.end();
  }
}
