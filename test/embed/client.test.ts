/** An embedded member as its program sees it: its life, its client, and what it leaves behind. */

import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { startEtcd } from "../../src/embed/start-etcd.ts";
import { eventually, failureOf } from "../client/support.ts";

const run = promisify(execFile);
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "holdfast-embed-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

const alone = { listenClientUrls: [], listenPeerUrls: [] } as const;

describe("an embedded member", () => {
  it("tells where it is in its life, and who leads", async () => {
    const listening = (): number => process.getActiveResourcesInfo().filter((kind) => /^(TCPServer|Pipe(Server)?)Wrap$/.test(kind)).length;
    const before = listening();
    const server = await startEtcd({ ...alone, name: "a", inMemory: true });
    const leaders: string[] = [];
    const loop = (async () => {
      for await (const leader of server.leaderChanged) leaders.push(leader);
    })();
    const called: string[] = [];
    const stop = server.onLeaderChanged((leader) => called.push(leader));
    await server.ready;
    expect(server).toMatchObject({ status: "ready", name: "a", leader: server.id, isLeader: true, clientUrls: [], peerUrls: [] });
    expect(listening()).toBe(before);
    await eventually("the loop has seen the leader", () => leaders.length === 1);
    expect(leaders).toEqual([server.id]);
    expect(called.every((leader) => leader === server.id)).toBe(true);
    stop();
    await server.client.put("k", "v");
    expect((await server.client.get("k"))?.value).toBe("v");
    const watch = server.client.watch("k");
    await watch.ready;
    const next = failureOf(watch.next());
    const closing = server.close();
    expect(server.status).toBe("closing");
    await closing;
    expect(server.status).toBe("closed");
    await loop;
    expect((await next).reason).toBe("client-closed");
    expect((await failureOf(server.client.put("k", "v"))).reason).toBe("client-closed");
  });

  it("can be closed in any state, twice, and during the start", async () => {
    const reason = new Error("enough");
    await expect(startEtcd({ ...alone, inMemory: true }, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const controller = new AbortController();
    const starting = startEtcd({ ...alone, dataDir: join(directory, "aborted") }, { signal: controller.signal });
    controller.abort(reason);
    await expect(starting).rejects.toBe(reason);
    // It can be started again in the same place.
    const again = await startEtcd({ ...alone, dataDir: join(directory, "aborted") });
    await again.ready;
    await Promise.all([again.close(), again.close()]);
    await again.close();

    const early = await startEtcd({ ...alone, inMemory: true });
    const { client } = early;
    await early.close();
    expect((await failureOf(early.ready)).reason).toBe("server-stopped");
    expect((await failureOf(client.get("k"))).reason).toBe("client-closed");
    // A member that waits for others, which never come.
    const waiting = await startEtcd({
      name: "w",
      dataDir: join(directory, "waiting"),
      listenClientUrls: ["http://127.0.0.1:0"],
      listenPeerUrls: ["http://127.0.0.1:0"],
      initialAdvertisePeerUrls: ["http://127.0.0.1:22701"],
      initialCluster: "w=http://127.0.0.1:22701,x=http://127.0.0.1:22702,y=http://127.0.0.1:22703",
      heartbeatInterval: 20,
      electionTimeout: 200,
    });
    const put = failureOf(waiting.client.put("k", "v"));
    await waiting.close();
    expect((await put).reason).toBe("server-stopped");
    await using _ = await startEtcd({ ...alone, inMemory: true });
  });

  it("can be closed at any moment of its start, whatever already waits for it", async () => {
    for (let i = 0; i < 24; i += 1) {
      const dataDir = join(directory, `moment-${i % 3}`);
      const controller = new AbortController();
      const reason = new Error("enough");
      const starting = startEtcd({ ...alone, dataDir }, { signal: controller.signal });
      for (let turn = 0; turn < i * 2; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      if (i % 2 === 0) {
        controller.abort(reason);
        const outcome = await starting.then(
          (server) => server,
          (error: unknown) => error,
        );
        if (outcome instanceof Error) {
          expect(outcome).toBe(reason);
          continue;
        }
      }
      const server = await starting;
      const { client } = server;
      // Nobody serves them yet.
      const watch = client.watch("k");
      const view = client.view("");
      const waiting = [watch.next(), watch.ready, view.ready, view.atLeast(1_000_000), client.lease({ ttlSeconds: 5 })];
      const ends = Promise.allSettled(waiting);
      for (let turn = 0; turn < i; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      await Promise.all([server.close(), server.close()]);
      const reasons = (await ends).map((end) => (end.status === "rejected" ? (end.reason as { reason: string }).reason : "done"));
      for (const one of reasons) expect(["done", "client-closed", "server-stopped"]).toContain(one);
      expect(reasons[0]).toBe("client-closed");
      expect(reasons[3]).toBe("client-closed");
      expect(server.status).toBe("closed");
    }
  });

  it("leaves nothing behind, ten times in a row and ten at once", async () => {
    const child = fileURLToPath(new URL("./leaks-child.ts", import.meta.url));
    // Ends by itself, or is killed at the timeout and fails.
    const { stdout, stderr } = await run(process.execPath, ["--import", "tsx", child, directory], { timeout: 100_000 });
    expect(stderr).toBe("");
    expect(stdout).toMatch(/ ended$/);
    const { before, after, ports, stillOpen } = JSON.parse(stdout.replace(/ ended$/, ""));
    expect({ ports, stillOpen }).toEqual({ ports: 10, stillOpen: [] });
    // The runtime may keep one of its own; twenty members would show.
    expect(after).toBeLessThanOrEqual(before + 2);
    // Data is where it was told to be, and nowhere else.
    expect((await readdir(directory)).sort()).toEqual(
      ["first", ...Array.from({ length: 10 }, (_, i) => `row-${i}`), ...[1, 3, 5, 7, 9].map((i) => `once-${i}`)].sort(),
    );
  }, 120_000);
});
