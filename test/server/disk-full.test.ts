import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, onTestFinished, test } from "vitest";
import { EtcdError } from "../../src/base/errors.ts";
import type { EtcdConfig } from "../../src/embed/config.ts";
import { type EtcdServer, startEtcd } from "../../src/embed/start-etcd.ts";
import { eventually, get, hashOf, put, startCluster, type TestCluster } from "../support/cluster.ts";
import { FailingDisk } from "../support/failing-disk.ts";
import { SmallFileSystem } from "../support/small-file-system.ts";

let cluster: TestCluster | undefined;
afterEach(async () => {
  await cluster?.close();
  cluster = undefined;
});

async function refusalOf(call: Promise<unknown>): Promise<EtcdError> {
  const error = await call.then(
    () => new Error("it was answered"),
    (reason: unknown) => reason,
  );
  if (!EtcdError.is(error)) throw error;
  return error;
}

function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "holdfast-full-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** One member by itself, with a port for clients. */
async function lone(dataDir: string, config: EtcdConfig): Promise<EtcdServer> {
  const member = await startEtcd({
    name: "a",
    dataDir,
    listenClientUrls: "http://127.0.0.1:0",
    advertiseClientUrls: "http://127.0.0.1:0",
    listenPeerUrls: "http://127.0.0.1:0",
    initialAdvertisePeerUrls: "http://127.0.0.1:0",
    initialCluster: "a=http://127.0.0.1:0",
    heartbeatInterval: 20,
    electionTimeout: 200,
    ...config,
  });
  onTestFinished(() => member.close());
  await member.ready;
  return member;
}

/** Acknowledged writes by a client that goes on whatever it is told, and what it was told. */
class Writer {
  readonly acknowledged: string[] = [];
  readonly refusals: EtcdError[] = [];
  readonly #member: EtcdServer;
  #count = 0;
  #stopped = false;
  readonly #done: Promise<void>;

  constructor(member: EtcdServer, valueBytes: number) {
    this.#member = member;
    this.#done = this.#run("x".repeat(valueBytes));
  }

  async #run(value: string): Promise<void> {
    while (!this.#stopped) {
      const key = `written/${this.#count++}`;
      try {
        await put(this.#member, key, value);
        this.acknowledged.push(key);
      } catch (error) {
        if (!EtcdError.is(error)) throw error;
        this.refusals.push(error);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  }

  stop(): Promise<void> {
    this.#stopped = true;
    return this.#done;
  }
}

async function expectAll(member: EtcdServer, keys: readonly string[]): Promise<void> {
  for (const key of keys) expect(await get(member, key), key).toBeDefined();
}

describe("a full disk", () => {
  test("ends no member: it refuses with the reason, and goes on by itself when there is space (BW6, BW14)", async () => {
    const disk = new FailingDisk();
    const directory = temporaryDirectory();
    const member = await lone(directory, { disk });
    const { services, client } = member;
    await using events = client.watch("later", { prefix: true });
    const seen = (async () => {
      for await (const batch of events) return batch.events.length;
      return 0;
    })();
    await put(member, "before", "1");

    disk.full = true;
    const refusal = await refusalOf(put(member, "during", "1"));
    expect(refusal.reason).toBe("out-of-space");
    await eventually("the member waits", () => member.status === "waiting");
    expect((await refusalOf(put(member, "during", "2"))).message).toContain("out of space");
    expect((await refusalOf(get(member, "before"))).reason).toBe("out-of-space");
    const health = await fetch(`${member.clientUrls[0]}/health`);
    expect(health.status).toBe(503);
    expect(await health.json()).toEqual({ health: "false", reason: expect.stringContaining("out of space") });
    const answer = await fetch(`${member.clientUrls[0]}/v3/kv/put`, { method: "POST", body: JSON.stringify({ key: "AA==" }) });
    expect(answer.status).toBe(503);
    expect(await answer.json()).toMatchObject({ code: 14, message: expect.stringContaining("out of space") });

    disk.full = false;
    await eventually("the member serves again", () => member.status === "ready");
    expect(member.services).toBe(services);
    expect(await get(member, "before")).toBe("1");
    await put(member, "later", "1");
    expect(await seen).toBe(1);
    expect((await fetch(`${member.clientUrls[0]}/health`)).status).toBe(200);
    expect(await Promise.race([member.failed, Promise.resolve("alive")])).toBe("alive");

    // What was never acknowledged may be there or not, but only in one way: a restart agrees.
    const during = await get(member, "during");
    await member.close();
    const again = await lone(directory, {});
    expect(await get(again, "during")).toBe(during);
    expect(await get(again, "later")).toBe("1");
  });

  test("can be closed while it waits, at once", async () => {
    const disk = new FailingDisk();
    const member = await lone(temporaryDirectory(), { disk });
    disk.full = true;
    await refusalOf(put(member, "k", "v"));
    await eventually("the member waits", () => member.status === "waiting");
    await member.close();
    expect(member.status).toBe("closed");
  });

  test.each(["EIO", "ENOSPC"])(
    "is no matter of a sync that fails (%s): that is never tried again and ends the member (BW19)",
    async (code) => {
      const disk = new FailingDisk();
      const member = await lone(temporaryDirectory(), { disk });
      await put(member, "before", "1");
      disk.nextSyncFails = code;
      const refusal = await refusalOf(put(member, "during", "1"));
      expect(refusal.reason).toBe("server-stopped");
      const failure = await member.failed;
      expect(failure.failure).toBe("storage");
      expect(member.status).toBe("failed");
      const { syncs } = disk;
      expect((await refusalOf(get(member, "before"))).reason).toBe("server-stopped");
      expect(disk.syncs).toBe(syncs);
    },
  );

  test("of the leader keeps the others from nothing, and it has everything afterwards", async () => {
    const disks = new Map(["a", "b", "c"].map((name) => [name, new FailingDisk()]));
    const all = await startCluster(["a", "b", "c"], {}, (name) => ({ disk: disks.get(name) }));
    cluster = all;
    const full = await all.leader();
    const disk = disks.get(full.name) as FailingDisk;
    for (let i = 0; i < 20; i++) await put(full, `before/${i}`, "1");
    disk.full = true;
    await eventually("the member waits", async () => {
      await put([...all.members.values()].find((member) => member !== full) as EtcdServer, "poke", "1").catch(() => undefined);
      return full.status === "waiting";
    });
    const other = await eventually("another leader", () => [...all.members.values()].find((member) => member !== full && member.isLeader));
    for (let i = 0; i < 20; i++) await put(other, `during/${i}`, "1");
    disk.full = false;
    await eventually("the member serves again", () => full.status === "ready");
    await put(full, "after", "1");
    const { revision } = full.server.store;
    const expected = await hashOf(full, revision);
    for (const member of all.members.values()) {
      await eventually(`${member.name} has everything`, () => member.server.store.revision >= revision);
      expect(await hashOf(member, revision)).toBe(expected);
    }
  });

  test("of a real small file system: filled to the last byte, freed, filled again (BW15, BW22)", async (context) => {
    const directory = temporaryDirectory();
    const place = SmallFileSystem.mount(directory, 48);
    if (place === undefined) {
      context.skip("no file system can be mounted here");
      return;
    }
    onTestFinished(() => place.unmount());
    const dataDir = join(place.path, "data");
    const member = await lone(dataDir, { snapshotCount: 200 });
    const writer = new Writer(member, 8000);
    try {
      for (let round = 0; round < 2; round++) {
        await eventually("writes", () => writer.acknowledged.length >= 50 * (round + 1));
        place.fill();
        await eventually("the member waits", () => member.status === "waiting");
        expect((await fetch(`${member.clientUrls[0]}/health`)).status).toBe(503);
        const { length } = writer.acknowledged;
        place.free();
        await eventually("the member serves again", () => member.status === "ready");
        await eventually("it takes writes", () => writer.acknowledged.length > length);
      }
    } finally {
      await writer.stop();
    }
    await expectAll(member, writer.acknowledged);
    expect(writer.refusals.length).toBeGreaterThan(0);
    await member.close();
    await expectAll(await lone(dataDir, {}), writer.acknowledged);
  });
});
