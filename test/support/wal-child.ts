/**
 * A process that appends to a log on the real disk and prints the index of each acknowledged entry, until it is killed.
 * Arguments: directory, first index, segment bytes.
 */
import { writeSync } from "node:fs";
import { systemDisk } from "../../src/base/disk-system.ts";
import { Wal } from "../../src/wal/index.ts";
import { entries, TEST_METADATA } from "./wal-model.ts";

const [directory = "", segmentBytes = ""] = process.argv.slice(2);
const options = { disk: systemDisk(), directory, segmentBytes: Number(segmentBytes) };
let next = 1;
let wal: Wal;
if (await Wal.exists(options.disk, directory)) {
  const opened = await Wal.open(options);
  wal = opened.wal;
  next = opened.contents.snapshot.index + opened.contents.entries.length + 1;
} else {
  wal = await Wal.create({ ...options, metadata: TEST_METADATA });
}

function append(): void {
  const index = next++;
  wal.append({ entries: entries(index, index, 1, 50 + (index % 400)), mustSync: true }, (error) => {
    if (error !== undefined) throw error;
    writeSync(1, `${index}\n`);
    append();
  });
}

for (let i = 0; i < 8; i++) append();
