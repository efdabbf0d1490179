/** One gRPC call over one HTTP/2 stream: frames in and out, and how it ended. */
import { type ClientHttp2Stream, constants, type IncomingHttpHeaders } from "node:http2";
import type { MessageType } from "../../api/index.ts";
import { GrpcCode } from "../../base/errors.ts";
import { GrpcError } from "./grpc-error.ts";

const PREFIX_BYTES = 5;

/** A message with its prefix. @throws GrpcError when it is longer than `bytesMax` */
export function frameOf<T extends object>(type: MessageType<T>, message: T, bytesMax: number): Uint8Array {
  const body = type.encode(message);
  if (body.byteLength > bytesMax) {
    const text = `trying to send message larger than max (${body.byteLength} vs. ${bytesMax})`;
    throw new GrpcError(GrpcCode.ResourceExhausted, text);
  }
  const frame = new Uint8Array(PREFIX_BYTES + body.byteLength);
  new DataView(frame.buffer).setUint32(1, body.byteLength);
  frame.set(body, PREFIX_BYTES);
  return frame;
}

/** The messages of a stream, then nothing when the call ended well. @throws GrpcError how it ended otherwise */
export async function* messagesOf<T extends object>(
  stream: ClientHttp2Stream,
  type: MessageType<T>,
  bytesMax: number,
): AsyncGenerator<T, void, undefined> {
  let head: IncomingHttpHeaders | undefined;
  let tail: IncomingHttpHeaders | undefined;
  const { session } = stream;
  stream.on("response", (headers) => {
    head = headers;
  });
  stream.on("trailers", (headers) => {
    tail = headers;
  });
  let failure: unknown;
  // Chunks of the message being received.
  let parts: Buffer[] = [];
  let held = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      parts.push(chunk);
      held += chunk.byteLength;
      while (held >= PREFIX_BYTES) {
        if ((parts[0] as Buffer).byteLength < PREFIX_BYTES) parts = [Buffer.concat(parts)];
        const first = parts[0] as Buffer;
        const length = first.readUInt32BE(1);
        if (first[0] !== 0) throw new GrpcError(GrpcCode.Internal, "grpc: compressed message although none was asked for");
        if (length > bytesMax) {
          throw new GrpcError(GrpcCode.ResourceExhausted, `grpc: received message larger than max (${length} vs. ${bytesMax})`);
        }
        if (held < PREFIX_BYTES + length) break;
        const all = parts.length === 1 ? first : Buffer.concat(parts);
        const rest = all.subarray(PREFIX_BYTES + length);
        parts = rest.byteLength === 0 ? [] : [rest];
        held = rest.byteLength;
        yield type.decode(all.subarray(PREFIX_BYTES, PREFIX_BYTES + length));
      }
    }
  } catch (error) {
    if (error instanceof GrpcError) {
      stream.close(constants.NGHTTP2_CANCEL);
      throw error;
    }
    failure = error;
  } finally {
    if (!stream.closed) stream.close(constants.NGHTTP2_CANCEL);
  }
  // A connection that ends takes its streams with it, and Node gives them the code of a cancellation that nobody sent.
  checkEnd(session?.destroyed === true ? undefined : stream.rstCode, head, tail, failure);
}

/** @throws GrpcError unless the call ended well. `rst` is undefined when there is no connection any more. */
function checkEnd(
  rst: number | undefined,
  head: IncomingHttpHeaders | undefined,
  tail: IncomingHttpHeaders | undefined,
  failure: unknown,
): void {
  const status = tail?.["grpc-status"] ?? head?.["grpc-status"];
  if (status !== undefined) {
    const code = Number(status);
    if (code === GrpcCode.OK) return;
    const message = tail?.["grpc-message"] ?? head?.["grpc-message"] ?? "";
    throw new GrpcError(Number.isInteger(code) ? code : GrpcCode.Unknown, percentDecoded(String(message)));
  }
  const httpStatus = head === undefined ? 200 : Number(head[":status"]);
  if (httpStatus !== 200) {
    throw new GrpcError(codeOfHttpStatus(httpStatus), `unexpected HTTP status code received from server: ${httpStatus}`);
  }
  if (rst === constants.NGHTTP2_REFUSED_STREAM) throw new GrpcError(GrpcCode.Unavailable, "the stream was refused", { unsent: true });
  if (rst !== undefined && rst !== constants.NGHTTP2_NO_ERROR && head !== undefined) {
    throw new GrpcError(codeOfReset(rst), `stream terminated by RST_STREAM with error code: ${rst}`, { cause: failure });
  }
  const why = failure instanceof Error ? failure.message : "EOF";
  throw new GrpcError(GrpcCode.Unavailable, `error reading from server: ${why}`, { cause: failure });
}

function codeOfReset(rst: number): number {
  if (rst === constants.NGHTTP2_CANCEL) return GrpcCode.Canceled;
  if (rst === constants.NGHTTP2_ENHANCE_YOUR_CALM) return GrpcCode.ResourceExhausted;
  return rst === constants.NGHTTP2_INADEQUATE_SECURITY ? GrpcCode.PermissionDenied : GrpcCode.Internal;
}

function codeOfHttpStatus(status: number): number {
  if (status === 401) return GrpcCode.Unauthenticated;
  if (status === 403) return GrpcCode.PermissionDenied;
  if (status === 404) return GrpcCode.Unimplemented;
  if (status === 429 || (status >= 502 && status <= 504)) return GrpcCode.Unavailable;
  return status === 400 ? GrpcCode.Internal : GrpcCode.Unknown;
}

/** `grpc-message`: UTF-8 with `%XX`; what is no such sequence stays as it is. */
function percentDecoded(text: string): string {
  if (!text.includes("%")) return text;
  const bytes: number[] = [];
  for (let at = 0; at < text.length; at += 1) {
    const hex = text.slice(at + 1, at + 3);
    if (text[at] === "%" && /^[0-9a-fA-F]{2}$/.test(hex)) {
      bytes.push(Number.parseInt(hex, 16));
      at += 2;
    } else {
      bytes.push(text.charCodeAt(at) & 0xff);
    }
  }
  return Buffer.from(bytes).toString("utf8");
}
