/** The Huffman code of HPACK (RFC 7541 appendix B), decoding only: what this side sends is never longer for being plain. */

/**
 * Code lengths by byte value. The code is canonical (within one length the codes count upward by byte value), so the lengths are the whole code; the end
 * marker has the last of the 30-bit codes, all ones.
 */
// biome-ignore format: a table
const CODE_BITS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const CODE_BITS_MAX = 30;
const END_MARKER = 256;

/**
 * Nodes of 256 branches, one per next byte of input. A branch is 0 (no code), a node to go on with (its number shifted by 16), or an end: the symbol plus one in
 * the low nine bits, and how many of the eight bits belong to the code in the next four.
 */
let nodes: Int32Array | undefined;

function build(): Int32Array {
  const made: number[] = new Array(256).fill(0);
  const place = (symbol: number, code: number, bits: number): void => {
    let node = 0;
    let left = bits;
    while (left > 8) {
      const at = node * 256 + ((code >>> (left - 8)) & 0xff);
      if (made[at] === 0) {
        made[at] = (made.length / 256) << 16;
        for (let i = 0; i < 256; i++) made.push(0);
      }
      node = (made[at] as number) >> 16;
      left -= 8;
    }
    const first = node * 256 + ((code << (8 - left)) & 0xff);
    for (let i = 0; i < 1 << (8 - left); i++) made[first + i] = (left << 9) | (symbol + 1);
  };
  let code = 0;
  for (let bits = 1; bits <= CODE_BITS_MAX; bits++) {
    code *= 2;
    for (let symbol = 0; symbol < 256; symbol++) if (CODE_BITS[symbol] === bits) place(symbol, code++, bits);
  }
  place(END_MARKER, code, CODE_BITS_MAX);
  return Int32Array.from(made);
}

/**
 * Decodes `bytes[from, to)` into `out` and returns how many bytes that gave; -1 if it is no such code: an end marker inside, padding of a whole byte or more, or
 * padding that is not all ones. `out` must have room for eight fifths of the input.
 */
export function huffmanDecode(bytes: Uint8Array, from: number, to: number, out: Uint8Array): number {
  nodes ??= build();
  const table = nodes;
  let length = 0;
  let node = 0;
  /** Bits not yet used, in the low end of `held`. */
  let held = 0;
  let heldBits = 0;
  /** Bits since the last complete symbol. */
  let pending = 0;
  for (let at = from; at < to; at++) {
    held = ((held << 8) | (bytes[at] as number)) & 0xffff;
    heldBits += 8;
    pending += 8;
    while (heldBits >= 8) {
      const branch = table[node * 256 + ((held >>> (heldBits - 8)) & 0xff)] as number;
      if (branch >= 0x10000) {
        node = branch >> 16;
        heldBits -= 8;
        continue;
      }
      const symbol = (branch & 0x1ff) - 1;
      if (symbol < 0 || symbol === END_MARKER) return -1;
      out[length++] = symbol;
      heldBits -= branch >> 9;
      pending = heldBits;
      node = 0;
    }
  }
  // Codes that end within the last bits.
  while (heldBits > 0) {
    const branch = table[node * 256 + ((held << (8 - heldBits)) & 0xff)] as number;
    if (branch >= 0x10000 || branch === 0) break;
    const bits = branch >> 9;
    const symbol = (branch & 0x1ff) - 1;
    if (bits > heldBits || symbol === END_MARKER) break;
    out[length++] = symbol;
    heldBits -= bits;
    pending = heldBits;
    node = 0;
  }
  const padding = (1 << heldBits) - 1;
  return pending >= 8 || (held & padding) !== padding ? -1 : length;
}
