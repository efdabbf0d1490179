import { utf8Bytes } from "../../base/bytes.ts";

const PLAIN = /^[\x20-\x24\x26-\x7e]*$/;

/** A status text as it goes into `grpc-message`: UTF-8, where everything but printable ASCII, and the percent sign, is written as %XX. */
export function percentEncoded(text: string): string {
  if (PLAIN.test(text)) return text;
  let encoded = "";
  for (const byte of utf8Bytes(text)) {
    if (byte >= 0x20 && byte <= 0x7e && byte !== 0x25) encoded += String.fromCharCode(byte);
    else encoded += `%${byte < 16 ? "0" : ""}${byte.toString(16).toUpperCase()}`;
  }
  return encoded;
}
