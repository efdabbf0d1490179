/**
 * CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), the checksum of etcd's HashKV. Table driven, eight bytes per step
 * ("slicing by 8"), because the platform only offers the IEEE polynomial.
 */

/** Eight tables of 256 entries in one array: `TABLES[k * 256 + b]` is the sum of byte `b` followed by `k` zero bytes. */
const TABLES: Uint32Array = makeTables();

function makeTables(): Uint32Array {
  const tables = new Uint32Array(8 * 256);
  for (let byte = 0; byte < 256; byte += 1) {
    let sum = byte;
    for (let bit = 0; bit < 8; bit += 1) sum = (sum & 1) !== 0 ? (sum >>> 1) ^ 0x82f63b78 : sum >>> 1;
    tables[byte] = sum >>> 0;
  }
  for (let at = 256; at < 8 * 256; at += 1) {
    const before = tables[at - 256] as number;
    tables[at] = (before >>> 8) ^ (tables[before & 0xff] as number);
  }
  return tables;
}

/** The sum of `bytes` as an unsigned 32-bit number. `seed` is the sum of what came before, 0 at the start. */
export function crc32c(bytes: Uint8Array, seed = 0): number {
  const t = TABLES;
  const end = bytes.length;
  let sum = ~seed;
  let i = 0;
  for (const stop = end - 7; i < stop; i += 8) {
    const low =
      sum ^ ((bytes[i] as number) | ((bytes[i + 1] as number) << 8) | ((bytes[i + 2] as number) << 16) | ((bytes[i + 3] as number) << 24));
    sum =
      (t[1792 + (low & 0xff)] as number) ^
      (t[1536 + ((low >>> 8) & 0xff)] as number) ^
      (t[1280 + ((low >>> 16) & 0xff)] as number) ^
      (t[1024 + (low >>> 24)] as number) ^
      (t[768 + (bytes[i + 4] as number)] as number) ^
      (t[512 + (bytes[i + 5] as number)] as number) ^
      (t[256 + (bytes[i + 6] as number)] as number) ^
      (t[bytes[i + 7] as number] as number);
  }
  for (; i < end; i += 1) sum = (sum >>> 8) ^ (t[(sum ^ (bytes[i] as number)) & 0xff] as number);
  return ~sum >>> 0;
}
