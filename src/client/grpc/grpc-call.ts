/** One call over one HTTP/2 stream: messages out and in, and how it ended. */
import { type ClientHttp2Stream, constants, type IncomingHttpHeaders } from "node:http2";
import { type MessageType, rpcError } from "../../api/index.ts";
import { utf8Text } from "../../base/bytes.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import { BadAnswerError, canceledError, errorOfAnswer } from "../errors.ts";
import { type Connection, REFUSED_STREAM } from "./connection.ts";
import { MessageReader } from "./messages.ts";

/** Messages that may wait to be taken before the server is told to stop sending. */
const WAITING_MAX = 256;

export class GrpcCall<Response extends object> {
  readonly #stream: ClientHttp2Stream;
  readonly #connection: Connection;
  readonly #signal: AbortSignal | undefined;
  readonly #reader: MessageReader<Response>;
  #waiting: Response[] = [];
  #head: IncomingHttpHeaders | undefined;
  #tail: IncomingHttpHeaders | undefined;
  #failure: EtcdError | undefined;
  #broken: Error | undefined;
  #ended = false;
  /** False for a page of a proxy, say: what comes is not looked at. */
  #isGrpc = false;
  #wake: (() => void) | undefined;

  constructor(
    stream: ClientHttp2Stream,
    connection: Connection,
    parts: { readonly type: MessageType<Response>; readonly messageBytesMax: number; readonly signal: AbortSignal | undefined },
  ) {
    this.#stream = stream;
    this.#connection = connection;
    this.#signal = parts.signal;
    this.#reader = new MessageReader(parts.type, parts.messageBytesMax);
    stream.on("response", (headers) => {
      this.#head = headers;
      this.#isGrpc = headers[":status"] === 200;
    });
    stream.on("trailers", (headers) => {
      this.#tail = headers;
    });
    stream.on("data", (chunk: Buffer) => this.#onData(chunk));
    stream.on("error", (error: Error) => {
      this.#broken = error;
    });
    stream.on("close", () => this.#onClose());
    this.#signal?.addEventListener("abort", this.#onAbort);
    if (this.#signal?.aborted === true) this.#onAbort();
  }

  write(frame: Uint8Array): void {
    if (!this.#stream.writable) return; // It has ended; whoever reads is told how.
    this.#stream.write(frame);
  }

  /** The last of the request. */
  end(frame?: Uint8Array): void {
    if (!this.#stream.writable) return;
    this.#stream.end(frame);
  }

  /** All messages that have come; waits for the first. Undefined: the call ended well. @throws EtcdError how it ended otherwise */
  async next(): Promise<readonly Response[] | undefined> {
    for (;;) {
      if (this.#waiting.length > 0) {
        const messages = this.#waiting;
        this.#waiting = [];
        if (this.#stream.isPaused()) this.#stream.resume();
        return messages;
      }
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Ends the call, wherever it is. Idempotent. */
  cancel(): void {
    if (this.#ended) return;
    this.#failure ??= rpcError("canceled");
    if (!this.#stream.closed) this.#stream.close(constants.NGHTTP2_CANCEL);
    this.#wakeUp();
  }

  readonly #onAbort = (): void => {
    const error = canceledError(this.#signal as AbortSignal);
    this.#failure ??= error;
    this.#waiting = [];
    if (error.grpcCode === GrpcCode.DeadlineExceeded) this.#connection.probe();
    this.cancel();
  };

  #onData(chunk: Uint8Array): void {
    if (this.#failure !== undefined || !this.#isGrpc) return;
    try {
      this.#reader.push(chunk, this.#waiting);
    } catch (error) {
      this.#failure = EtcdError.is(error) ? error : new BadAnswerError(String(error), { cause: error });
      this.cancel();
    }
    if (this.#waiting.length >= WAITING_MAX) this.#stream.pause();
    this.#wakeUp();
  }

  #onClose(): void {
    this.#ended = true;
    this.#signal?.removeEventListener("abort", this.#onAbort);
    this.#failure ??= this.#outcome();
    this.#wakeUp();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  #outcome(): EtcdError | undefined {
    const head = this.#head;
    const status = this.#tail?.["grpc-status"] ?? head?.["grpc-status"];
    if (status !== undefined) {
      const code = Number(status);
      if (code === GrpcCode.OK) return this.#reader.unfinished ? new BadAnswerError("a call ended in the middle of a message") : undefined;
      return errorOfAnswer(code, percentDecoded(String(this.#tail?.["grpc-message"] ?? head?.["grpc-message"] ?? "")));
    }
    const { rstCode } = this.#stream;
    if (rstCode === REFUSED_STREAM) return this.#connection.unavailable("the call was refused", false, this.#broken);
    const httpStatus = Number(head?.[":status"] ?? 200);
    if (httpStatus !== 200) {
      const text = `unexpected HTTP status ${httpStatus}`;
      return PASSING_STATUS.has(httpStatus) ? this.#connection.unavailable(text, true) : new BadAnswerError(text);
    }
    const why = this.#broken?.message ?? (head === undefined ? "the connection was closed" : `it was reset with code ${rstCode}`);
    return this.#connection.unavailable(why, true, this.#broken);
  }
}

/** A proxy with nobody behind it, or too many before it. */
const PASSING_STATUS: ReadonlySet<number> = new Set([429, 502, 503, 504]);

/** `grpc-message`: UTF-8 with `%XX`; what is no such sequence stays as it is. */
function percentDecoded(text: string): string {
  if (!text.includes("%")) return text;
  const bytes: number[] = [];
  for (let at = 0; at < text.length; at += 1) {
    const hex = text.slice(at + 1, at + 3);
    if (text[at] === "%" && /^[0-9a-fA-F]{2}$/.test(hex)) {
      bytes.push(Number.parseInt(hex, 16));
      at += 2;
    } else bytes.push(text.charCodeAt(at) & 0xff);
  }
  return utf8Text(Uint8Array.from(bytes));
}
