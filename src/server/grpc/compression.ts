/** gzip, the one compression that etcd has. Off the event loop, because a message of two megabytes takes some ten milliseconds. */
import { promisify } from "node:util";
import { gunzip, gzip } from "node:zlib";
import { decompressedTooLarge, decompressionBroken, decompressionFailed } from "../../api/index.ts";
import type { EtcdError } from "../../base/errors.ts";

const gunzipAsync = promisify(gunzip);
const gzipAsync = promisify(gzip);

export const GZIP = "gzip";

/** Bytes of a gzip header without its optional parts. */
const HEADER_BYTES = 10;

/**
 * The decompressed message.
 * @throws TransportError with the texts of gRPC's Go library; inflating stops at `limit` bytes, whatever the input would grow to.
 */
export async function decompress(bytes: Uint8Array, limit: number): Promise<Uint8Array> {
  if (bytes.byteLength === 0) throw decompressionFailed(new Error("EOF"));
  if (bytes.byteLength < HEADER_BYTES) throw decompressionFailed(new Error("unexpected EOF"));
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b || bytes[2] !== 8) throw decompressionFailed(new Error("gzip: invalid header"));
  try {
    return await gunzipAsync(bytes, { maxOutputLength: Math.max(limit, 1) });
  } catch (error) {
    throw asTransportError(error, limit);
  }
}

export function compress(bytes: Uint8Array): Promise<Uint8Array> {
  return gzipAsync(bytes);
}

function asTransportError(error: unknown, limit: number): EtcdError {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ERR_BUFFER_TOO_LARGE") return decompressedTooLarge(limit);
  if (code === "Z_BUF_ERROR") return decompressionBroken(new Error("unexpected EOF"));
  const text = error instanceof Error ? error.message : String(error);
  if (/incorrect data check|incorrect length check/.test(text)) return decompressionBroken(new Error("gzip: invalid checksum"));
  return decompressionBroken(new Error(text === "incorrect header check" ? "gzip: invalid header" : text));
}
