import { type Backend, createBatch, MemoryBackend } from "../../src/backend/index.ts";
import { utf8Bytes, utf8Text } from "../../src/base/bytes.ts";
import type { ClusterId, MemberId } from "../../src/base/ids.ts";
import type { SnapshotSource } from "../../src/server/peer/index.ts";
import { memorySpool, type SnapshotHeader, writeSnapshotSpool } from "../../src/server/snapshot/index.ts";

export const swapHeader: SnapshotHeader = {
  clusterId: 1n as ClusterId,
  index: 42,
  term: 2,
  confState: { voters: [1n as MemberId], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
};

const ROWS = 500;

/** Rows that all carry the same word. */
export async function fill(backend: Backend, word: string): Promise<void> {
  const batch = createBatch();
  for (let i = 0; i < ROWS; i++) batch.put(utf8Bytes(`k${i}`), utf8Bytes(`${word}:${"x".repeat(i)}`));
  await backend.write(batch);
}

/** The word; undefined when the rows are not all there or not of one piece. */
export async function wordOf(backend: Backend): Promise<string | undefined> {
  const words = new Set<string>();
  let count = 0;
  const rows = backend.iterate({ gte: new Uint8Array(0) });
  for (let slice = await rows.next(1000); slice.length > 0; slice = await rows.next(1000)) {
    for (const [, value] of slice) {
      words.add(utf8Text(value).split(":")[0] ?? "");
      count++;
    }
  }
  await rows.close();
  return words.size === 1 && count === ROWS ? [...words][0] : undefined;
}

export async function snapshotOf(word: string): Promise<SnapshotSource> {
  const backend = new MemoryBackend();
  await fill(backend, word);
  const snapshot = backend.snapshot();
  return writeSnapshotSpool({ backend, snapshot, header: swapHeader, storage: memorySpool(), tag: "1", defer: setImmediate });
}
