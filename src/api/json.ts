/** The v3 JSON mapping as etcd's gateway does it: one value to a message, several values of a stream, messages and errors to text. */
import { latin1Bytes, latin1Text } from "../base/bytes.ts";
import type { EtcdError } from "../base/errors.ts";
import { isSpace, JsonScanner, unexpectedEof } from "./json-scanner.ts";
import { messageTooLarge } from "./rpc-errors.ts";
import { jsonString } from "./wire/json-text.ts";
import type { MessageType } from "./wire/message-type.ts";

export { parseJson } from "./json-parse.ts";
export { JSON_DEPTH_MAX, JsonError } from "./json-scanner.ts";

/**
 * The message as JSON: names of the .proto file, 64-bit integers as strings, bytes in base64, enums by name, fields with their default left
 * out, no white space.
 */
export function printJson<T extends object>(type: MessageType<T>, message: T): string {
  return type.printJson(message);
}

/** One line of a stream's answer, without the line end: `{"result":…}`. */
export function printStreamResult<T extends object>(type: MessageType<T>, message: T): string {
  return `{"result":${escapeHtml(type.printJson(message))}}`;
}

/** Body of a unary call's error: `{"code":…,"message":…}`. Defaults are left out here too. */
export function printError(error: Pick<EtcdError, "grpcCode" | "message">): string {
  const parts: string[] = [];
  if (error.grpcCode !== 0) parts.push(`"code":${error.grpcCode}`);
  if (error.message !== "") parts.push(`"message":${jsonString(error.message)}`);
  return `{${parts.join(",")}}`;
}

/** The line, without its end, with which a stream fails: `{"error":{"code":…,"message":…}}`. */
export function printStreamError(error: Pick<EtcdError, "grpcCode" | "message">): string {
  return `{"error":${escapeHtml(printError(error))}}`;
}

const HTML = /[<>&\u2028\u2029]/;

/** What Go's encoding/json escapes in the stream wrapper, so that the text can stand inside HTML. */
function escapeHtml(json: string): string {
  if (!HTML.test(json)) return json;
  return json.replace(/[<>&\u2028\u2029]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * Cuts a request body into its JSON values, which may follow each other with white space or nothing between them. Fed piece by piece,
 * returns each value as soon as it is complete; a number at the top is complete only when something follows.
 *
 * Once a method has thrown, the body is broken and the splitter must not be used on.
 */
export class JsonSplitter {
  readonly #valueBytesMax: number;
  readonly #scanner = new JsonScanner();
  /** What there is of the value that has begun. */
  #pieces: string[] = [];
  #pendingBytes = 0;

  /** @param valueBytesMax longest single value in bytes; it must be kept until it is complete. */
  constructor(valueBytesMax: number) {
    this.#valueBytesMax = valueBytesMax;
  }

  /** Bytes kept of a value that is not complete. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /**
   * Hands out, in order, each value which this piece completes, before it looks at the next one.
   * @throws JsonError for what is not JSON, TransportError for a value that is too long.
   */
  push(piece: Uint8Array, each: (value: Uint8Array) => void): void {
    const text = latin1Text(piece);
    let at = 0;
    while (at < text.length) {
      let start = at;
      if (!this.#scanner.begun) {
        while (isSpace(text.charCodeAt(start))) start += 1;
        if (start === text.length) return;
      }
      const end = this.#scanner.scan(text, start);
      this.#keep(text.slice(start, end < 0 ? text.length : end));
      if (end < 0) return;
      each(this.#take());
      at = end;
    }
  }

  /**
   * The body has ended.
   * @returns the last value, if it was one that only the end completes.
   * @throws JsonError if it ended inside a value.
   */
  end(): Uint8Array | undefined {
    if (!this.#scanner.begun) return undefined;
    if (!this.#scanner.completeAtEnd) throw unexpectedEof();
    return this.#take();
  }

  #keep(text: string): void {
    this.#pendingBytes += text.length;
    if (this.#pendingBytes > this.#valueBytesMax) throw messageTooLarge(this.#pendingBytes, this.#valueBytesMax);
    this.#pieces.push(text);
  }

  #take(): Uint8Array {
    const value = latin1Bytes(this.#pieces.length === 1 ? (this.#pieces[0] as string) : this.#pieces.join(""));
    this.#pieces = [];
    this.#pendingBytes = 0;
    this.#scanner.reset();
    return value;
  }
}
