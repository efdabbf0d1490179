/**
 * Small files that are replaced as a whole (which snapshot is the current one, how far a swap got): after a crash there is the old
 * contents or the new, never a mixture. Layout: "HFS1", CRC-32 (u32 little-endian) of the contents, contents.
 */
import { concatBytes, crc32 } from "../base/bytes.ts";
import type { Disk } from "../base/disk.ts";
import { WalCorruptError } from "./errors.ts";

const MAGIC = 0x31534648;
const HEADER_BYTES = 8;
const CONTENTS_BYTES_MAX = 1 << 20;

/** Durable when it resolves. `contents` up to 1 MiB. Leftovers of a crash (`<name>.tmp`) are overwritten by the next call. */
export async function writeSnapshotFile(disk: Disk, directory: string, name: string, contents: Uint8Array): Promise<void> {
  const header = new Uint8Array(HEADER_BYTES);
  const view = new DataView(header.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, crc32(contents), true);
  const temporary = `${directory}/${name}.tmp`;
  await disk.remove(temporary);
  const file = await disk.open(temporary, { create: true });
  try {
    await file.write(0, concatBytes([header, contents]));
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(temporary, `${directory}/${name}`);
  await disk.syncDirectory(directory);
}

/** Undefined when there is no such file. Throws WalCorruptError when it is damaged. */
export async function readSnapshotFile(disk: Disk, directory: string, name: string): Promise<Uint8Array | undefined> {
  if (!(await disk.exists(`${directory}/${name}`))) return undefined;
  const file = await disk.open(`${directory}/${name}`);
  try {
    const bytes = await file.read(0, Math.min(await file.sizeBytes(), HEADER_BYTES + CONTENTS_BYTES_MAX));
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const contents = bytes.subarray(HEADER_BYTES);
    if (bytes.byteLength < HEADER_BYTES || view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== crc32(contents)) {
      throw new WalCorruptError({
        damage: "damaged-record",
        segment: name,
        offset: 0,
        lastGoodIndex: 0,
        what: "its checksum does not match",
      });
    }
    return contents;
  } finally {
    await file.close();
  }
}
