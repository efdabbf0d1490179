import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Backend, createBatch, LevelBackend, MemoryBackend, RowSpace } from "../../src/backend/index.ts";
import { systemDisk } from "../../src/base/disk-system.ts";
import { seededRandom } from "../../src/base/random.ts";
import type { SnapshotRequest } from "../../src/raft/index.ts";
import {
  diskSpool,
  finishSwap,
  memorySpool,
  type ReceivedSnapshot,
  SnapshotReceiver,
  writeSnapshotSpool,
} from "../../src/server/snapshot/index.ts";
import { CLUSTER, memberId, portOf, snapshotMessage, startMember, TcpProxy, type TestMember } from "./support.ts";
import { fill, wordOf } from "./swap-fixture.ts";

let directory: string;
const members: TestMember[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "holdfast-snapshot-"));
});

afterEach(async () => {
  await Promise.all(members.splice(0).map((one) => one.transport.close()));
  await rm(directory, { recursive: true, force: true });
});

async function hashOf(backend: Backend): Promise<string> {
  const hash = createHash("sha256");
  const rows = backend.iterate({ gte: new Uint8Array(0) });
  let count = 0;
  for (let slice = await rows.next(1000); slice.length > 0; slice = await rows.next(1000)) {
    for (const [key, value] of slice) {
      if (key[0] === RowSpace.chain) continue;
      hash.update(`${key.byteLength}:`).update(key).update(`${value.byteLength}:`).update(value);
      count++;
    }
  }
  await rows.close();
  return `${count}:${hash.digest("hex")}`;
}

async function write(backend: Backend, rows: number, seed: number): Promise<void> {
  const random = seededRandom(seed);
  for (let done = 0; done < rows; ) {
    const batch = createBatch();
    for (let i = 0; i < 1000 && done < rows; i++, done++) {
      const key = Buffer.alloc(17);
      key[0] = random.chance({ of: 1, outOf: 20 }) ? RowSpace.chain : RowSpace.revision;
      key.writeBigUInt64BE(random.bits64(), 1);
      batch.put(key, Buffer.alloc(random.below(600), done));
    }
    await backend.write(batch);
  }
}

describe("a state on its way from store to store", () => {
  test.each(["level", "memory"] as const)("%s to level, over a connection that breaks", async (kind) => {
    const from: Backend = kind === "level" ? await LevelBackend.open({ directory: join(directory, "a") }) : new MemoryBackend();
    await write(from, 20_000, 1);
    const [a, b] = [await startMember(1), await startMember(2)];
    members.push(a, b);
    const between = await TcpProxy.start(portOf(b.url()));
    const random = seededRandom(2);
    let budget = 1_000_000;
    let cuts = 4;
    between.onClientBytes = (bytes) => {
      budget -= bytes.byteLength;
      if (budget > 0 || cuts === 0) return bytes;
      budget = 200_000 + random.below(1_500_000);
      cuts--;
      return undefined;
    };
    a.transport.setPeers([{ id: b.id, urls: [between.url] }]);

    const message: SnapshotRequest = snapshotMessage(a.id, b.id, 77);
    const storage = kind === "level" ? diskSpool(systemDisk(), join(directory, "out")) : memorySpool();
    const snapshot = from.snapshot();
    const header = { clusterId: CLUSTER, ...message.snapshot.metadata };
    const source = await writeSnapshotSpool({ backend: from, snapshot, header, storage, tag: "2", defer: setImmediate });
    await snapshot.close();
    const expected = await hashOf(from);
    // The source's store goes on meanwhile.
    await write(from, 500, 3);

    const receiver = new SnapshotReceiver({
      storage: diskSpool(systemDisk(), join(directory, "in")),
      clusterId: CLUSTER,
      defer: setImmediate,
    });
    let received: ReceivedSnapshot | undefined;
    b.handlers = {
      snapshotBytesHeld: async (info) => receiver.bytesHeld(info),
      onSnapshot: async (request, chunks, info) => {
        received = await receiver.receive(info, chunks, request.snapshot.metadata);
      },
    };
    await a.transport.sendSnapshot(message, source, new AbortController().signal);
    expect(cuts).toBe(0);
    await between.close();
    const to = await LevelBackend.open({ directory: join(directory, "b") });
    await received?.installInto(to);
    expect(await hashOf(to)).toBe(expected);
    await received?.discard();
    await source.close();
    expect(await readdir(join(directory, "in"))).toEqual([]);
    await Promise.all([to.close(), from.close()]);
  });

  test("spooling and installing leave the event loop free", async () => {
    const from = await LevelBackend.open({ directory: join(directory, "a") });
    await write(from, 100_000, 5);
    const storage = diskSpool(systemDisk(), join(directory, "out"));
    const snapshot = from.snapshot();
    let turns = 0;
    let running = true;
    const count = (): void => {
      turns++;
      if (running) setImmediate(count);
    };
    count();
    const message = snapshotMessage(memberId(1), memberId(3));
    const header = { clusterId: CLUSTER, ...message.snapshot.metadata };
    const source = await writeSnapshotSpool({ backend: from, snapshot, header, storage, tag: "2", defer: setImmediate });
    await snapshot.close();
    const slices = source.info.sizeBytes / (64 * 1024);
    // At least one other turn per slice, however slow the machine.
    expect(turns).toBeGreaterThan(slices);
    const receiver = new SnapshotReceiver({
      storage: diskSpool(systemDisk(), join(directory, "in")),
      clusterId: CLUSTER,
      defer: setImmediate,
    });
    const received = await receiver.receive(source.info, source.read(0), message.snapshot.metadata);
    const to = await LevelBackend.open({ directory: join(directory, "b") });
    turns = 0;
    await received.installInto(to);
    running = false;
    expect(turns).toBeGreaterThan(source.info.sizeBytes / (256 * 1024));
    await received.discard();
    await source.close();
    await Promise.all([to.close(), from.close()]);
  });
});

describe("BS5: a process that is killed while it replaces its store", () => {
  const child = fileURLToPath(new URL("swap-child.ts", import.meta.url));

  function run(data: string, step: number): Promise<"finished" | "killed"> {
    return new Promise((resolve, reject) => {
      const started = spawn(process.execPath, ["--import", "tsx", child, data, String(step)], { stdio: ["ignore", "ignore", "pipe"] });
      let errors = "";
      started.stderr.on("data", (bytes: Buffer) => {
        errors += bytes.toString();
      });
      started.on("error", reject);
      started.on("exit", (code, signal) => {
        if (signal === "SIGKILL") resolve("killed");
        else if (code === 0) resolve("finished");
        else reject(new Error(`child ended with ${code ?? signal}: ${errors}`));
      });
    });
  }

  test("has the old store or the new one, as its log says, after a kill at every step", async () => {
    const template = join(directory, "template");
    const old = await LevelBackend.open({ directory: join(template, "db") });
    await fill(old, "old");
    await old.checkpoint();
    await old.close();
    const disk = systemDisk();
    const outcomes = new Set<string>();
    /** One life, one recovery. */
    const check = async (step: number): Promise<"finished" | "killed"> => {
      const data = join(directory, `step-${step}`);
      await cp(template, data, { recursive: true });
      const end = await run(data, step);
      const wanted = await disk.exists(join(data, "wal-record"));
      await finishSwap(disk, data, { isWanted: () => wanted });
      const spool = new SnapshotReceiver({ storage: diskSpool(disk, data), clusterId: CLUSTER, defer: setImmediate });
      await spool.removeLeftovers();
      const backend = await LevelBackend.open({ directory: join(data, "db") });
      expect(await wordOf(backend), `step ${step}`).toBe(wanted ? "new" : "old");
      await backend.close();
      expect(
        (await readdir(data)).filter((name) => name !== "wal-record"),
        `step ${step}`,
      ).toEqual(["db"]);
      outcomes.add(`${end} ${wanted}`);
      await rm(data, { recursive: true });
      return end;
    };
    let step = 1;
    for (;;) {
      // Two at a time: each is a process of its own.
      const ends = await Promise.all([check(step), check(step + 1)]);
      if (ends.includes("finished")) break;
      step += 2;
    }
    expect(step).toBeGreaterThan(20);
    expect([...outcomes].sort()).toEqual(["finished true", "killed false", "killed true"]);
  }, 180_000);
});
