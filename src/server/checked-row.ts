/**
 * Rows whose value carries a checksum: LevelDB gives back whatever the disk gives it (failure catalogue BW16), and an altered voter or URL would be believed.
 * Layout: content, then CRC-32 (u32, big-endian) of the content, seeded with the CRC-32 of the key, so that a row in another one's place does not pass either.
 */
import { concatBytes, crc32 } from "../base/bytes.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";

const SUM_BYTES = 4;

/** The backend's content cannot be trusted: rows are missing or altered. The member must be rebuilt from its log or its peers. */
export class BackendBrokenError extends EtcdError {
  constructor(why: string) {
    super("backend-broken", GrpcCode.DataLoss, `the store in the data directory is damaged: ${why}`);
    this.name = "BackendBrokenError";
  }
}

export function sealRow(key: Uint8Array, content: Uint8Array): Uint8Array {
  const sum = new Uint8Array(SUM_BYTES);
  new DataView(sum.buffer).setUint32(0, crc32(content, crc32(key)));
  return concatBytes([content, sum]);
}

/** @throws BackendBrokenError when the value is not what was written under that key. */
export function openRow(key: Uint8Array, value: Uint8Array, what: string): Uint8Array {
  const end = value.byteLength - SUM_BYTES;
  if (end < 0) throw new BackendBrokenError(`${what} is cut short`);
  const content = value.subarray(0, end);
  const sum = new DataView(value.buffer, value.byteOffset, value.byteLength).getUint32(end);
  if (sum !== crc32(content, crc32(key))) throw new BackendBrokenError(`${what} is not what was written`);
  return content;
}
