/** The lines of a body that comes in pieces. */
import { concatBytes } from "../base/bytes.ts";
import { BadAnswerError } from "./errors.ts";
import type { ByteReader } from "./http.ts";

const LINE_END = 0x0a;

/**
 * Each line without its end, and what follows the last one if it is not empty. Leaving the loop cancels the body.
 * @throws BadAnswerError for a line of more than `bytesMax` bytes
 */
export async function* lines(reader: ByteReader, bytesMax: number): AsyncGenerator<Uint8Array, void, undefined> {
  let pieces: Uint8Array[] = [];
  let length = 0;
  let ended = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      let from = 0;
      for (;;) {
        const to = value.indexOf(LINE_END, from);
        if (to < 0) break;
        pieces.push(value.subarray(from, to));
        if (length + to - from > 0) yield concatBytes(pieces);
        pieces = [];
        length = 0;
        from = to + 1;
      }
      if (from === value.length) continue;
      pieces.push(value.subarray(from));
      length += value.length - from;
      if (length > bytesMax) throw new BadAnswerError(`a message of more than ${bytesMax} bytes`);
    }
    ended = true;
    if (length > 0) yield concatBytes(pieces);
  } finally {
    // A body that has ended or broken has nothing to cancel; a rejection then says only that.
    if (!ended) reader.cancel().catch(() => undefined);
  }
}
