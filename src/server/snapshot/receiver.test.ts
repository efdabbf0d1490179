import { describe, expect, test } from "vitest";
import { ModelDisk } from "../../../test/support/model-disk.ts";
import { type Backend, type BackendRow, createBatch, MemoryBackend, RowSpace } from "../../backend/index.ts";
import { compareBytes } from "../../base/bytes.ts";
import type { ClusterId, MemberId } from "../../base/ids.ts";
import { seededRandom } from "../../base/random.ts";
import type { SnapshotMetadata } from "../../raft/index.ts";
import type { SnapshotSource } from "../peer/transport.ts";
import type { SnapshotHeader } from "./format.ts";
import { SnapshotReceiver } from "./receiver.ts";
import { diskSpool, memorySpool, type SpoolStorage } from "./spool.ts";
import { writeSnapshotSpool } from "./write-spool.ts";

const header: SnapshotHeader = {
  clusterId: 5n as ClusterId,
  index: 100,
  term: 3,
  confState: { voters: [1n as MemberId, 2n as MemberId], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
};
const metadata: SnapshotMetadata = { index: header.index, term: header.term, confState: header.confState };

let turns = 0;
const defer = (fn: () => void): void => {
  turns++;
  setImmediate(fn);
};

/** Rows of every space, large and small, in no particular order. */
async function filled(seed: number, rows = 3000): Promise<Backend> {
  const backend = new MemoryBackend();
  const random = seededRandom(seed);
  const spaces = Object.values(RowSpace);
  const batch = createBatch();
  for (let i = 0; i < rows; i++) {
    const key = new Uint8Array(2 + random.below(30));
    for (let at = 0; at < key.byteLength; at++) key[at] = random.below(256);
    key[0] = spaces[random.below(spaces.length)] as number;
    batch.put(key, new Uint8Array(random.chance({ of: 1, outOf: 100 }) ? 100_000 : random.below(200)).fill(i));
  }
  await backend.write(batch);
  return backend;
}

async function rowsOf(backend: Backend): Promise<BackendRow[]> {
  const rows: BackendRow[] = [];
  const iterator = backend.iterate({ gte: new Uint8Array(0) });
  for (let slice = await iterator.next(1000); slice.length > 0; slice = await iterator.next(1000)) rows.push(...slice);
  await iterator.close();
  return rows;
}

const hex = (rows: readonly BackendRow[]): string[] =>
  rows.map(([key, value]) => `${Buffer.from(key).toString("hex")}=${Buffer.from(value).toString("base64")}`);

async function spool(backend: Backend, storage: SpoolStorage, of: SnapshotHeader = header): Promise<SnapshotSource> {
  const snapshot = backend.snapshot();
  try {
    return await writeSnapshotSpool({ backend, snapshot, header: of, storage, tag: "2a", defer });
  } finally {
    await snapshot.close();
  }
}

async function* stream(
  source: SnapshotSource,
  from: number,
  options: { until?: number; pieceBytes?: number; alter?: number } = {},
): AsyncGenerator<Uint8Array> {
  const { until = Number.POSITIVE_INFINITY, pieceBytes = 10_000, alter } = options;
  let at = from;
  for await (const chunk of source.read(from)) {
    for (let i = 0; i < chunk.byteLength; i += pieceBytes) {
      const piece = Uint8Array.from(chunk.subarray(i, i + pieceBytes));
      if (at + piece.byteLength > until) {
        yield piece.subarray(0, until - at);
        throw new Error("broken off");
      }
      if (alter !== undefined && alter >= at && alter < at + piece.byteLength) piece[alter - at] = (piece[alter - at] as number) ^ 4;
      at += piece.byteLength;
      yield piece;
    }
  }
}

async function wholeOf(source: SnapshotSource, from: number): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of source.read(from)) pieces.push(piece);
  return Buffer.concat(pieces);
}

const storages: [string, () => SpoolStorage][] = [
  ["disk", () => diskSpool(new ModelDisk(), "snap")],
  ["memory", () => memorySpool()],
];

describe.each(storages)("snapshots through the %s", (_name, newStorage) => {
  const newReceiver = (storage: SpoolStorage): SnapshotReceiver => new SnapshotReceiver({ storage, clusterId: header.clusterId, defer });

  test("a damaged row ends the writing, and nothing is left of it", async () => {
    const backend = await filled(2);
    const outgoing = newStorage();
    const snapshot = backend.snapshot();
    let rows = 0;
    const check = (): void => {
      rows += 1;
      if (rows === 40) throw new Error("row 40 is damaged");
    };
    await expect(writeSnapshotSpool({ backend, snapshot, header, storage: outgoing, tag: "2a", defer, check })).rejects.toThrow(
      "row 40 is damaged",
    );
    expect(rows).toBe(40);
    await snapshot.close();
  });

  test("carry all rows but those of the chain, in slices", async () => {
    const backend = await filled(1);
    const expected = hex((await rowsOf(backend)).filter(([key]) => key[0] !== RowSpace.chain));
    const outgoing = newStorage();
    turns = 0;
    const source = await spool(backend, outgoing);
    expect(turns).toBeGreaterThan(10);
    expect(await outgoing.list()).toEqual(["0000000000000064-2a.snap.out.tmp"]);

    const incoming = newStorage();
    const receiver = newReceiver(incoming);
    expect(receiver.bytesHeld(source.info)).toBe(0);
    const received = await receiver.receive(source.info, stream(source, 0), metadata);
    expect(received.header).toEqual(header);
    const fresh = new MemoryBackend();
    expect(await received.installInto(fresh)).toEqual({ rows: expected.length });
    expect(hex(await rowsOf(fresh))).toEqual(expected);

    // Once more from the same file.
    const again = new MemoryBackend();
    await received.installInto(again);
    expect(hex(await rowsOf(again))).toEqual(expected);
    await expect(received.installInto(again)).rejects.toThrow(/empty store/);

    await received.discard();
    await received.discard();
    await source.close();
    expect(await incoming.list()).toEqual([]);
    expect(await outgoing.list()).toEqual([]);
  });

  test("show the view they were given, not what is written meanwhile", async () => {
    const backend = await filled(2, 500);
    const before = hex((await rowsOf(backend)).filter(([key]) => key[0] !== RowSpace.chain));
    const snapshot = backend.snapshot();
    let writes = 0;
    const source = await writeSnapshotSpool({
      backend,
      snapshot,
      header,
      storage: newStorage(),
      tag: "1",
      defer: (fn) => {
        const batch = createBatch();
        batch.put(new Uint8Array([RowSpace.revision, writes++]), new Uint8Array(10));
        void backend.write(batch).then(() => setImmediate(fn));
      },
    });
    await snapshot.close();
    expect(writes).toBeGreaterThan(1);
    const received = await newReceiver(newStorage()).receive(source.info, stream(source, 0), metadata);
    const fresh = new MemoryBackend();
    await received.installInto(fresh);
    expect(hex(await rowsOf(fresh))).toEqual(before);
  });

  test("the owner may choose the rows; an empty state is a state", async () => {
    const backend = await filled(3, 200);
    const snapshot = backend.snapshot();
    for (const space of [RowSpace.lease, 0]) {
      const source = await writeSnapshotSpool({
        backend,
        snapshot,
        header,
        storage: newStorage(),
        tag: "1",
        defer,
        includes: (key) => key[0] === space,
      });
      const received = await newReceiver(newStorage()).receive(source.info, stream(source, 0), metadata);
      const fresh = new MemoryBackend();
      await received.installInto(fresh);
      expect(hex(await rowsOf(fresh))).toEqual(hex((await rowsOf(backend)).filter(([key]) => key[0] === space)));
    }
  });

  test("BS7: a stream broken at any place is continued from there", async () => {
    const source = await spool(await filled(4, 400), newStorage());
    const random = seededRandom(4);
    for (let round = 0; round < 40; round++) {
      const storage = newStorage();
      const receiver = newReceiver(storage);
      const until = random.below(source.info.sizeBytes);
      await expect(
        receiver.receive(source.info, stream(source, 0, { until, pieceBytes: 1 + random.below(50_000) }), metadata),
      ).rejects.toThrow("broken off");
      expect(receiver.bytesHeld(source.info)).toBe(until);
      expect(receiver.bytesHeld({ ...source.info, sizeBytes: 1 })).toBe(0);
      const received = await receiver.receive(source.info, stream(source, until), metadata);
      const fresh = new MemoryBackend();
      await received.installInto(fresh);
      await received.discard();
      expect(await storage.list()).toEqual([]);
    }
  });

  test("an altered byte anywhere is refused and nothing of it stays", async () => {
    const source = await spool(await filled(5, 50), newStorage());
    const random = seededRandom(5);
    for (let round = 0; round < 100; round++) {
      const storage = newStorage();
      const receiver = newReceiver(storage);
      const alter = random.below(source.info.sizeBytes);
      await expect(receiver.receive(source.info, stream(source, 0, { alter }), metadata), `byte ${alter}`).rejects.toMatchObject({
        reason: "snapshot-corrupt",
      });
      expect(receiver.bytesHeld(source.info)).toBe(0);
      expect(await storage.list()).toEqual([]);
      const received = await receiver.receive(source.info, stream(source, 0), metadata);
      await received.discard();
    }
  });

  test("what is not the announced snapshot is refused", async () => {
    const source = await spool(await filled(6, 50), newStorage());
    const { info } = source;
    const storage = newStorage();
    const receiver = newReceiver(storage);
    const refused = async (as: typeof info, expected: SnapshotMetadata, bytes: AsyncIterable<Uint8Array>): Promise<void> => {
      await expect(receiver.receive(as, bytes, expected)).rejects.toMatchObject({ reason: "snapshot-corrupt" });
      expect(await storage.list()).toEqual([]);
    };
    await refused({ ...info, id: "../../etc/passwd" }, metadata, stream(source, 0));
    await refused({ ...info, id: `${info.id.slice(0, 17)}${"0".repeat(64)}` }, metadata, stream(source, 0));
    await refused({ ...info, id: `${"0".repeat(16)}${info.id.slice(16)}` }, metadata, stream(source, 0));
    await refused({ ...info, sizeBytes: info.sizeBytes - 1 }, metadata, stream(source, 0));
    await refused({ ...info, sizeBytes: info.sizeBytes + 1 }, metadata, stream(source, 0));
    await refused(info, { ...metadata, index: 101 }, stream(source, 0));
    await refused(info, { ...metadata, term: 4 }, stream(source, 0));
    await refused(info, { ...metadata, confState: { ...metadata.confState, voters: [1n as MemberId] } }, stream(source, 0));
    const foreign = await spool(await filled(6, 50), newStorage(), { ...header, clusterId: 6n as ClusterId });
    await refused(foreign.info, metadata, stream(foreign, 0));
    // A stream that ends early without an error.
    await refused(info, metadata, (async function* () {})());
    await (await receiver.receive(info, stream(source, 0), metadata)).discard();
  });

  test("BS1: a second one is refused while the first comes in and until it is installed or given up", async () => {
    const first = await spool(await filled(7, 50), newStorage());
    const second = await spool(await filled(8, 50), newStorage());
    const storage = newStorage();
    const receiver = newReceiver(storage);
    let go: (() => void) | undefined;
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    const slow = (async function* () {
      await gate;
      yield* stream(first, 0);
    })();
    const receiving = receiver.receive(first.info, slow, metadata);
    await expect(receiver.receive(second.info, stream(second, 0), metadata)).rejects.toMatchObject({ reason: "snapshot-busy" });
    go?.();
    const received = await receiving;
    expect(receiver.bytesHeld(first.info)).toBe(0);
    await expect(receiver.receive(second.info, stream(second, 0), metadata)).rejects.toMatchObject({ reason: "snapshot-busy" });
    await received.installInto(new MemoryBackend());
    await received.discard();
    const next = await receiver.receive(second.info, stream(second, 0), metadata);
    // Discarding the first once more takes nothing away from the second.
    await received.discard();
    await expect(receiver.receive(first.info, stream(first, 0), metadata)).rejects.toMatchObject({ reason: "snapshot-busy" });
    await next.installInto(new MemoryBackend());
    await next.discard();
  });

  test("another snapshot takes the place of one that was broken off", async () => {
    const first = await spool(await filled(9, 50), newStorage());
    const second = await spool(await filled(10, 50), newStorage());
    const storage = newStorage();
    const receiver = newReceiver(storage);
    await expect(receiver.receive(first.info, stream(first, 0, { until: 2000 }), metadata)).rejects.toThrow("broken off");
    await (await receiver.receive(second.info, stream(second, 0), metadata)).discard();
    expect(receiver.bytesHeld(first.info)).toBe(0);
    await expect(receiver.receive(first.info, stream(first, 0, { until: 2000 }), metadata)).rejects.toThrow("broken off");
    await receiver.close();
    expect(await storage.list()).toEqual([]);
  });

  test("closing while a stream runs leaves nothing once the stream has ended", async () => {
    const source = await spool(await filled(15, 50), newStorage());
    const storage = newStorage();
    const receiver = newReceiver(storage);
    let fail: ((error: Error) => void) | undefined;
    const stuck = (async function* () {
      yield* stream(source, 0, { until: 3000, pieceBytes: 1000 });
    })();
    const waiting = (async function* () {
      yield (await stuck.next()).value as Uint8Array;
      await new Promise<void>((_resolve, reject) => {
        fail = reject;
      });
    })();
    const receiving = receiver.receive(source.info, waiting, metadata);
    const outcome = receiving.catch((error: Error) => error.message);
    for (let i = 0; i < 100 && fail === undefined; i++) await new Promise((resolve) => setImmediate(resolve));
    await receiver.close();
    expect(await storage.list()).toHaveLength(1);
    fail?.(new Error("the transport closed"));
    expect(await outcome).toBe("the transport closed");
    expect(await storage.list()).toEqual([]);
    await expect(receiver.receive(source.info, stream(source, 0), metadata)).rejects.toMatchObject({ reason: "snapshot-busy" });
  });

  test("left-overs go at start, and nothing else", async () => {
    const storage = newStorage();
    const name = `${"0".repeat(15)}a-${"b".repeat(64)}.part`;
    for (const one of [name, "0000000000000001-2a.snap.out.tmp", "db.switch", "notes.part", "x.snap.out.tmp"]) await storage.create(one);
    await newReceiver(storage).removeLeftovers();
    expect(await storage.list()).toEqual(["db.switch", "notes.part", "x.snap.out.tmp"]);
  });

  test("a write that fails leaves nothing behind, on either side", async () => {
    const backend = await filled(11, 300);
    const disk = new ModelDisk();
    disk.faults.freeBytes = 20_000;
    await expect(spool(backend, diskSpool(disk, "snap"))).rejects.toMatchObject({ code: "ENOSPC" });
    expect(await disk.list("snap")).toEqual([]);
    disk.faults.freeBytes = undefined;
    const source = await spool(backend, newStorage());
    disk.faults.freeBytes = 20_000;
    const receiver = newReceiver(diskSpool(disk, "snap"));
    await expect(receiver.receive(source.info, stream(source, 0), metadata)).rejects.toMatchObject({ code: "ENOSPC" });
    expect(receiver.bytesHeld(source.info)).toBe(0);
    expect(await disk.list("snap")).toEqual([]);
    disk.faults.freeBytes = undefined;
    await (await receiver.receive(source.info, stream(source, 0), metadata)).discard();
  });

  test("spooling ends with its signal and leaves nothing behind", async () => {
    const backend = await filled(12);
    const storage = newStorage();
    const given = new AbortController();
    const snapshot = backend.snapshot();
    const spooling = writeSnapshotSpool({
      backend,
      snapshot,
      header,
      storage,
      tag: "1",
      defer: (fn) => {
        given.abort(new Error("no longer wanted"));
        setImmediate(fn);
      },
      signal: given.signal,
    });
    await expect(spooling).rejects.toThrow("no longer wanted");
    await snapshot.close();
    expect(await storage.list()).toEqual([]);
  });
});

test("what changed on the disk between receiving and installing is found", async () => {
  const source = await spool(await filled(13, 300), memorySpool());
  const disk = new ModelDisk();
  const receiver = new SnapshotReceiver({ storage: diskSpool(disk, "snap"), clusterId: header.clusterId, defer });
  const received = await receiver.receive(source.info, stream(source, 0), metadata);
  const path = `snap/${source.info.id}.part`;
  for (const at of [0, 9, 100, source.info.sizeBytes - 100, source.info.sizeBytes - 1]) {
    disk.flipBit(path, at, 3);
    await expect(received.installInto(new MemoryBackend()), `byte ${at}`).rejects.toMatchObject({ reason: "snapshot-corrupt" });
    disk.flipBit(path, at, 3);
  }
  disk.resize(path, source.info.sizeBytes - 1);
  await expect(received.installInto(new MemoryBackend())).rejects.toMatchObject({ reason: "snapshot-corrupt" });
});

test("any part can be read again", async () => {
  for (const [, newStorage] of storages) {
    const source = await spool(await filled(14, 400), newStorage());
    const whole = await wholeOf(source, 0);
    expect(whole.byteLength).toBe(source.info.sizeBytes);
    const random = seededRandom(14);
    for (const at of [0, 1, whole.byteLength - 1, whole.byteLength, ...Array.from({ length: 50 }, () => random.below(whole.byteLength))]) {
      const part = await wholeOf(source, at);
      expect(compareBytes(part, whole.subarray(at))).toBe(0);
    }
  }
});
