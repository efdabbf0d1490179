import * as http from "node:http";
import * as net from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { systemClock } from "../../src/base/clock-system.ts";
import { EtcdError, GrpcCode } from "../../src/base/errors.ts";
import type { ClusterId } from "../../src/base/ids.ts";
import { FrameKind, smallFrame } from "../../src/server/peer/frame.ts";
import { fetchMembers, fetchVersion, NoMembersError } from "../../src/server/peer/index.ts";
import { encodeMessages } from "../../src/server/peer/message-codec.ts";
import {
  append,
  CLUSTER,
  connectAll,
  handlersOf,
  heartbeat,
  memberId,
  portOf,
  recordingLogger,
  startMember,
  TcpProxy,
  type TestMember,
  type TestMemberOptions,
  until,
} from "./support.ts";

const members: TestMember[] = [];
const proxies: TcpProxy[] = [];

async function member(n: number, options: TestMemberOptions = {}): Promise<TestMember> {
  const one = await startMember(n, options);
  members.push(one);
  return one;
}

async function proxy(targetPort: number): Promise<TcpProxy> {
  const one = await TcpProxy.start(targetPort);
  proxies.push(one);
  return one;
}

afterEach(async () => {
  await Promise.all(members.splice(0).map((one) => one.transport.close()));
  await Promise.all(proxies.splice(0).map((one) => one.close()));
});

const isConnected = (from: TestMember, to: TestMember): boolean => from.transport.activeSince(to.id) !== undefined;

describe("raft messages", () => {
  test("go both ways, a hundred thousand of them in order", async () => {
    const [a, b] = [await member(1), await member(2)];
    connectAll(a, b);
    await until("connected", () => isConnected(a, b) && isConnected(b, a));
    const total = 100_000;
    let sent = 0;
    while (sent < total) {
      const batch = [];
      // Below the bound of the queue, so that nothing is dropped.
      for (let i = 0; i < 500 && sent < total; i++) batch.push(heartbeat(a.id, b.id, sent++));
      a.transport.send(batch);
      b.transport.send([heartbeat(b.id, a.id, sent)]);
      await until("room", () => sent - b.received.length < 2000);
    }
    await until("all arrived", () => b.received.length === total);
    expect(b.received.every((message, i) => message.type === "heartbeat" && message.round === i)).toBe(true);
    expect(a.received).toHaveLength(total / 500);
    expect(b.counts.received).toBe(total);
    expect(a.unreachable).toEqual([]);
  });

  test("need nobody who counts them", async () => {
    const [a, b] = [await member(1, { observe: false }), await member(2, { observe: false })];
    connectAll(a, b);
    await until("connected", () => isConnected(a, b));
    a.transport.send([heartbeat(a.id, b.id, 1)]);
    await until("heard", () => b.received.length === 1);
  });

  test("three members, on fixed ports", async () => {
    const ports = [24400, 24401, 24402];
    const three = await Promise.all(ports.map((port, i) => member(i + 1, { listenUrls: [`http://127.0.0.1:${port}`] })));
    expect(three.map((one) => one.url())).toEqual(ports.map((port) => `http://127.0.0.1:${port}`));
    connectAll(...three);
    await until("all connected", () => three.every((one) => three.every((other) => one === other || isConnected(one, other))));
    for (const one of three) one.transport.send(three.filter((other) => other !== one).map((other) => heartbeat(one.id, other.id, 7)));
    await until("all heard", () => three.every((one) => one.received.length === 2));
  });

  test("large and small entries arrive whole", async () => {
    const [a, b] = [await member(1), await member(2)];
    connectAll(a, b);
    await until("connected", () => isConnected(a, b));
    const sizes = [0, 1, 100, 70_000, 1_500_000, 6_000_000, 3];
    a.transport.send(sizes.map((size, i) => append(a.id, b.id, i, new Uint8Array(size).fill(i + 1))));
    await until("arrived", () => b.received.length === sizes.length);
    b.received.forEach((message, i) => {
      if (message.type !== "append-request") throw new Error("another message");
      const [entry] = message.entries;
      expect(entry?.data.byteLength).toBe(sizes[i]);
      expect(entry?.data.every((byte) => byte === i + 1)).toBe(true);
    });
  });

  test("a queue that is full drops, reports once per episode and goes on afterwards", async () => {
    const a = await member(1, { limits: { queueMessagesMax: 100 } });
    const b = await member(2);
    const between = await proxy(portOf(b.url()));
    a.transport.setPeers([{ id: b.id, urls: [between.url] }]);
    await until("connected", () => isConnected(a, b));
    between.freeze();
    const data = new Uint8Array(200_000);
    let index = 0;
    // Sockets and kernel take some megabytes first.
    for (let i = 0; i < 200 && a.counts.sendFailed < 50; i++) {
      a.transport.send([append(a.id, b.id, index++, data)]);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(a.counts.sendFailed).toBeGreaterThanOrEqual(50);
    await until("reported", () => a.unreachable.length > 0);
    expect(a.unreachable).toEqual([b.id]);
    between.thaw();
    await until("the rest arrived", () => b.received.length === index - a.counts.sendFailed);
    a.transport.send([heartbeat(a.id, b.id, 1)]);
    await until("the next one too", () => b.received.at(-1)?.type === "heartbeat");
    expect(a.unreachable).toEqual([b.id]);
  });

  test("a message that no frame can hold is dropped and reported, the others pass", async () => {
    const a = await member(1, { limits: { frameBytesMax: 100_000 } });
    const b = await member(2, { limits: { frameBytesMax: 100_000 } });
    connectAll(a, b);
    await until("connected", () => isConnected(a, b));
    a.transport.send([append(a.id, b.id, 0, new Uint8Array(200_000)), heartbeat(a.id, b.id, 1)]);
    await until("the small one arrived", () => b.received.length === 1);
    expect(a.unreachable).toEqual([b.id]);
    expect(isConnected(a, b)).toBe(true);
  });

  test("unknown addressees are dropped, and nothing is sent before start or after close", async () => {
    const a = await member(1, { start: false });
    a.transport.send([heartbeat(a.id, memberId(2), 1)]);
    await a.transport.start(handlersOf(a, CLUSTER));
    a.transport.send([heartbeat(a.id, memberId(2), 1)]);
    await a.transport.close();
    a.transport.send([heartbeat(a.id, memberId(2), 1)]);
    expect(a.counts.sent).toBe(0);
  });
});

describe("connections", () => {
  test("come back after the peer was away, on another of its URLs too", async () => {
    const a = await member(1);
    const b = await member(2);
    // The first URL never answers.
    const dead = "http://127.0.0.1:24499";
    a.transport.setPeers([{ id: b.id, urls: [dead, b.url()] }]);
    await until("connected", () => isConnected(a, b));
    const [first] = [a.transport.activeSince(b.id)];
    const url = b.url();
    await b.transport.close();
    await until("lost", () => !isConnected(a, b));
    expect(a.unreachable.length).toBeGreaterThan(0);
    const again = await member(2, { listenUrls: [url] });
    await until("connected again", () => isConnected(a, b));
    expect(a.transport.activeSince(b.id)).toBeGreaterThan(first ?? Number.POSITIVE_INFINITY);
    a.transport.send([heartbeat(a.id, b.id, 5)]);
    await until("heard again", () => again.received.length === 1);
  });

  test("a peer that dials in ends the pause before the next attempt", async () => {
    const b = await member(2, { start: false });
    const port = 24403;
    const a = await member(1, { limits: { reconnectMinMs: 60_000, reconnectMaxMs: 60_000 } });
    a.transport.setPeers([{ id: b.id, urls: [`http://127.0.0.1:${port}`] }]);
    await until("first attempt failed", () => a.unreachable.length === 1);
    const late = await member(2, { listenUrls: [`http://127.0.0.1:${port}`] });
    late.transport.setPeers([{ id: a.id, urls: [a.url()] }]);
    await until("both ways", () => isConnected(late, a) && isConnected(a, late));
  });

  test("BG2: a link that swallows everything without a word is noticed by both ends", async () => {
    const limits = { readDeadlineMs: 300 };
    const a = await member(1, { limits });
    const b = await member(2, { limits });
    const between = await proxy(portOf(b.url()));
    a.transport.setPeers([{ id: b.id, urls: [between.url] }]);
    await until("connected", () => isConnected(a, b));
    // Idle connections stay.
    await until("some pings", () => a.counts.roundTrips >= 8);
    expect(between.connections).toBe(1);
    between.freeze();
    await until("the dialler gave up", () => !isConnected(a, b));
    await until("the acceptor gave up", () => b.counts.receiveFailed > 0);
    between.thaw();
    between.cut();
    await until("connected again", () => isConnected(a, b));
  });

  test("a link that is dead in one direction only is noticed", async () => {
    const limits = { readDeadlineMs: 300 };
    const a = await member(1, { limits });
    const b = await member(2, { limits });
    const between = await proxy(portOf(b.url()));
    a.transport.setPeers([{ id: b.id, urls: [between.url] }]);
    await until("connected", () => isConnected(a, b));
    between.onClientBytes = () => Buffer.alloc(0);
    // b hears nothing and ends the connection, which a is told.
    await until("lost", () => between.connections > 1);
    between.onClientBytes = undefined;
    between.cut();
    await until("connected again", () => isConnected(a, b));
  });

  test("follow the membership: new URLs, vanished members", async () => {
    const a = await member(1);
    const b = await member(2);
    const one = await proxy(portOf(b.url()));
    const two = await proxy(portOf(b.url()));
    a.transport.setPeers([{ id: b.id, urls: [one.url] }]);
    await until("connected", () => isConnected(a, b));
    a.transport.setPeers([{ id: b.id, urls: [one.url] }]);
    expect(isConnected(a, b)).toBe(true);
    a.transport.setPeers([{ id: b.id, urls: [two.url] }]);
    await until("moved", () => two.connections === 1 && isConnected(a, b));
    expect(one.connections).toBe(1);
    a.transport.setPeers([]);
    expect(isConnected(a, b)).toBe(false);
    a.transport.send([heartbeat(a.id, b.id, 1)]);
    expect(b.received).toEqual([]);
  });

  test("a newer connection of the same sender replaces the older one", async () => {
    const b = await member(2);
    const first = await member(1);
    first.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    await until("connected", () => isConnected(first, b));
    const second = await member(1);
    second.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    await until("the newer one is connected", () => isConnected(second, b));
    await first.transport.close();
    second.transport.send([heartbeat(memberId(1), b.id, 9)]);
    await until("heard", () => b.received.length > 0);
  });

  test("a sender that is no member is heard and can be answered", async () => {
    const joiner = await member(3);
    const a = await member(1, { start: false });
    const port = 24404;
    const leader = await member(1, { listenUrls: [`http://127.0.0.1:${port}`], advertisedPeerUrls: [`http://127.0.0.1:${port}`] });
    leader.transport.setPeers([{ id: joiner.id, urls: [joiner.url()] }]);
    await until("connected", () => isConnected(leader, joiner));
    leader.transport.send([append(a.id, joiner.id, 0, new Uint8Array(1))]);
    await until("heard", () => joiner.received.length === 1);
    joiner.transport.send([
      { type: "append-response", from: joiner.id, to: a.id, term: 1, rejected: false, index: 1, hintIndex: 0, hintTerm: 0 },
    ]);
    await until("answered", () => leader.received.length === 1);
    // Named at last: the same connection goes on.
    joiner.transport.setPeers([{ id: a.id, urls: [`http://127.0.0.1:${port}`] }]);
    expect(isConnected(joiner, leader)).toBe(true);
  });
});

describe("refusals", () => {
  function upgrade(
    url: string,
    headers: Record<string, string>,
    path = "/raft/stream",
  ): Promise<{ status: number; text: string; headers: http.IncomingHttpHeaders }> {
    return new Promise((resolve, reject) => {
      const request = http.request(`${url}${path}`, {
        agent: false,
        headers: {
          Connection: "Upgrade",
          Upgrade: path === "/raft/snapshot" ? "holdfast-snapshot/1" : "holdfast-raft/1",
          "X-Server-From": "1",
          "X-Server-Version": "3.7.1",
          "X-Min-Cluster-Version": "3.0.0",
          "X-Etcd-Cluster-ID": "c1",
          "X-Raft-To": "2",
          ...headers,
        },
      });
      request.on("error", reject);
      request.on("upgrade", (response, socket) => {
        socket.destroy();
        resolve({ status: 101, text: "", headers: response.headers });
      });
      request.on("response", (response) => {
        let text = "";
        response.on("data", (piece: Buffer) => {
          text += piece.toString();
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, text: text.trim(), headers: response.headers }));
      });
      request.end();
    });
  }

  test.each([
    ["all right", {}, 101, ""],
    ["one of several protocols", { Upgrade: "holdfast-raft/9, holdfast-raft/1" }, 101, ""],
    ["another protocol", { Upgrade: "holdfast-raft/9" }, 412, "incompatible version"],
    ["no version", { "X-Server-Version": "" }, 412, "incompatible version"],
    ["older than this one can live with", { "X-Server-Version": "2.3.8" }, 412, "incompatible version"],
    ["wants a newer one", { "X-Min-Cluster-Version": "3.8.0" }, 412, "incompatible version"],
    ["wrong version before wrong cluster", { "X-Server-Version": "x", "X-Etcd-Cluster-ID": "c2" }, 412, "incompatible version"],
    ["another cluster", { "X-Etcd-Cluster-ID": "c2" }, 412, "cluster ID mismatch"],
    ["another cluster before another addressee", { "X-Etcd-Cluster-ID": "c2", "X-Raft-To": "3" }, 412, "cluster ID mismatch"],
    ["no cluster", { "X-Etcd-Cluster-ID": "" }, 412, "cluster ID mismatch"],
    ["BM10: another addressee", { "X-Raft-To": "3" }, 412, "to field mismatch"],
    ["another addressee before removed", { "X-Raft-To": "3", "X-Server-From": "bad" }, 412, "to field mismatch"],
    ["removed", { "X-Server-From": "bad" }, 410, "removed member"],
    ["no sender", { "X-Server-From": "" }, 404, "invalid from"],
    ["a sender that is no id", { "X-Server-From": "-1" }, 404, "invalid from"],
    ["a sender of 65 bits", { "X-Server-From": "10000000000000000" }, 404, "invalid from"],
    ["itself", { "X-Server-From": "2" }, 404, "invalid from"],
  ])("%s", async (_name, headers, status, text) => {
    const b = await member(2);
    b.removedIds.add(memberId(0xbad));
    for (const path of ["/raft/stream", "/raft/snapshot"]) {
      const given: Record<string, string> = { ...headers };
      if (path === "/raft/snapshot" && given.Upgrade !== undefined) given.Upgrade = given.Upgrade.replaceAll("raft", "snapshot");
      const answer = await upgrade(b.url(), given, path);
      expect([answer.status, answer.text]).toEqual([status, text]);
      expect(answer.headers["x-etcd-cluster-id"]).toBe("c1");
    }
  });

  test("a wrong cluster is logged in etcd's words, changes nothing, and nobody stops", async () => {
    const logger = recordingLogger();
    const a = await member(1, { clusterId: 0xaan as ClusterId, logger, limits: { reconnectMaxMs: 50 } });
    const b = await member(2);
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    await until("refused a few times", () => b.counts.receiveFailed >= 3);
    const warnings = logger.lines.filter(({ level, message }) => level === "warn" && message.includes("cluster ID mismatch"));
    expect(warnings).toHaveLength(1);
    expect(warnings[0]?.fields["remote-peer-cluster-id"]).toBe("c1");
    expect(b.received).toEqual([]);
    expect(a.removedCalls).toBe(0);
  });

  test("a removed member learns it when it connects, and while it is connected", async () => {
    const a = await member(1);
    const b = await member(2);
    connectAll(a, b);
    await until("connected", () => isConnected(a, b));
    expect(a.removedCalls).toBe(0);
    b.removedIds.add(a.id);
    b.transport.setPeers([]);
    await until("told", () => a.removedCalls === 1);
    a.transport.send([heartbeat(a.id, b.id, 1)]);
    await until("refused again", () => b.counts.receiveFailed >= 3);
    expect(a.removedCalls).toBe(1);
    expect(b.received).toEqual([]);
  });

  test("I14: a removed sender's message is not delivered even if the connection is still there", async () => {
    const a = await member(1);
    const b = await member(2);
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    await until("connected", () => isConnected(a, b));
    b.removedIds.add(a.id);
    a.transport.send([heartbeat(a.id, b.id, 1)]);
    await until("told", () => a.removedCalls === 1);
    expect(b.received).toEqual([]);
  });

  test("a foreign cluster cannot tell a member that it was removed", async () => {
    const port = 24405;
    const impostor = http.createServer();
    impostor.on("upgrade", (_request, socket) => {
      socket.on("error", () => undefined);
      socket.end("HTTP/1.1 410 Gone\r\nX-Etcd-Cluster-Id: c2\r\nContent-Length: 14\r\nConnection: close\r\n\r\nremoved member");
    });
    await new Promise<void>((resolve) => impostor.listen(port, "127.0.0.1", resolve));
    try {
      const a = await member(1, { limits: { reconnectMaxMs: 50 } });
      a.transport.setPeers([{ id: memberId(2), urls: [`http://127.0.0.1:${port}`] }]);
      await until("answered", () => a.unreachable.length === 1);
      expect(a.removedCalls).toBe(0);
    } finally {
      await new Promise((resolve) => impostor.close(resolve));
    }
  });
});

describe("hostile peers", () => {
  /** A raw connection after a proper handshake. */
  function connect(url: string, options: { from?: string; path?: string } = {}): Promise<net.Socket> {
    return new Promise((resolve, reject) => {
      const path = options.path ?? "/raft/stream";
      const request = http.request(`${url}${path}`, {
        agent: false,
        headers: {
          Connection: "Upgrade",
          Upgrade: path === "/raft/snapshot" ? "holdfast-snapshot/1" : "holdfast-raft/1",
          "X-Server-From": options.from ?? "1",
          "X-Server-Version": "3.7.1",
          "X-Min-Cluster-Version": "3.0.0",
          "X-Etcd-Cluster-ID": "c1",
          "X-Raft-To": "2",
        },
      });
      request.on("error", reject);
      request.on("response", (response) => {
        reject(new Error(`refused with ${response.statusCode}`));
        request.destroy();
      });
      request.on("upgrade", (_response, socket: net.Socket) => {
        socket.on("error", () => undefined);
        resolve(socket);
      });
      request.end();
    });
  }

  const closed = (socket: net.Socket): Promise<void> =>
    new Promise((resolve) => {
      socket.once("close", () => resolve());
      socket.resume();
    });

  test.each([
    ["random bytes", () => Buffer.from(Array.from({ length: 100 }, (_, i) => (i * 37) & 0xff))],
    ["a frame above the limit", () => Buffer.from("ffffffff0000000001", "hex")],
    ["a wrong checksum", () => Buffer.from("000000020000000001ff", "hex")],
    ["an unknown kind", () => Buffer.from(smallFrame(99, new Uint8Array(3)))],
    ["an answer nobody asked for", () => Buffer.from(smallFrame(FrameKind.response, new Uint8Array(20)))],
    ["a malformed message", () => Buffer.from(smallFrame(FrameKind.messages, Buffer.from("9144c0", "hex")))],
    ["a malformed request", () => Buffer.from(smallFrame(FrameKind.request, Buffer.from("4c01", "hex")))],
    ["a ping of another size", () => Buffer.from(smallFrame(FrameKind.ping, new Uint8Array(9)))],
    ["HTTP instead of frames", () => Buffer.from("GET /members HTTP/1.1\r\nHost: x\r\n\r\n")],
  ])("BG7, BR22: %s ends the connection and nothing else", async (_name, bytes) => {
    const b = await member(2, { limits: { readDeadlineMs: 300 } });
    const socket = await connect(b.url());
    // A good message first, one behind the bad bytes: the latter must not count.
    socket.write(smallFrame(FrameKind.messages, encodeMessages([heartbeat(memberId(1), memberId(2), 1)])));
    socket.write(Buffer.concat([bytes(), smallFrame(FrameKind.messages, encodeMessages([heartbeat(memberId(1), memberId(2), 2)]))]));
    await closed(socket);
    expect(b.received).toEqual([heartbeat(memberId(1), memberId(2), 1)]);
    expect(b.counts.receiveFailed).toBe(1);
    // Still in service.
    const a = await member(1);
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    await until("connected", () => isConnected(a, b));
  });

  test("BM10, I14: messages of another sender or for another member are dropped and counted", async () => {
    const b = await member(2);
    const socket = await connect(b.url());
    const frame = encodeMessages([
      heartbeat(memberId(3), memberId(2), 1),
      heartbeat(memberId(1), memberId(4), 2),
      heartbeat(memberId(1), memberId(2), 3),
    ]);
    socket.write(smallFrame(FrameKind.messages, frame));
    await until("the good one arrived", () => b.received.length === 1);
    expect(b.received).toEqual([heartbeat(memberId(1), memberId(2), 3)]);
    expect(b.counts.receiveFailed).toBe(2);
    socket.destroy();
  });

  test("one malformed message spoils its whole frame", async () => {
    const b = await member(2);
    const socket = await connect(b.url());
    const good = encodeMessages([heartbeat(memberId(1), memberId(2), 1)]);
    socket.write(smallFrame(FrameKind.messages, Buffer.concat([Buffer.from([0x92]), good.subarray(1), Buffer.from([0x44, 0xc0])])));
    await closed(socket);
    expect(b.received).toEqual([]);
  });

  test("a handler that throws ends that connection only", async () => {
    const b = await member(2, {
      handlers: {
        onMessage: (message) => {
          if (message.type === "timeout-now") throw new Error("broken on purpose");
        },
      },
    });
    const a = await member(1);
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    await until("connected", () => isConnected(a, b));
    a.transport.send([{ type: "timeout-now", from: a.id, to: b.id, term: 1 }]);
    await until("ended", () => b.counts.receiveFailed === 1);
    await until("connected again", () => isConnected(a, b));
  });

  test("too many different senders are refused", async () => {
    const b = await member(2);
    const sockets = await Promise.all(Array.from({ length: 64 }, (_, i) => connect(b.url(), { from: (100 + i).toString(16) })));
    await expect(connect(b.url(), { from: "fff" })).rejects.toThrow("refused with 503");
    // One that is there already may still replace its own.
    const again = await connect(b.url(), { from: (100).toString(16) });
    for (const socket of [again, ...sockets]) socket.destroy();
  });

  test("slow headers and silent connections do not stay", async () => {
    const b = await member(2, { limits: { readDeadlineMs: 200 } });
    const afterHandshake = await connect(b.url());
    await closed(afterHandshake);
    const noOffer = await connect(b.url(), { path: "/raft/snapshot" });
    await closed(noOffer);
  });
});

describe("plain HTTP", () => {
  function get(
    url: string,
    method = "GET",
    headers: Record<string, string> = {},
    body = "",
  ): Promise<{ status: number; text: string; headers: http.IncomingHttpHeaders }> {
    return new Promise((resolve, reject) => {
      const request = http.request(url, { method, agent: false, headers });
      request.on("error", reject);
      request.on("response", (response) => {
        let text = "";
        response.on("data", (piece: Buffer) => {
          text += piece.toString();
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, text, headers: response.headers }));
        response.on("error", reject);
      });
      request.end(body);
    });
  }

  const json = '[{"id":13668033151171901709,"peerURLs":["http://127.0.0.1:23801"],"name":"n1","clientURLs":["http://127.0.0.1:23800"]}]\n';

  test("/members, /version and nothing else", async () => {
    const b = await member(2, { handlers: { membersJson: () => json } });
    const list = await get(`${b.url()}/members`);
    expect([list.status, list.text, list.headers["x-etcd-cluster-id"], list.headers["content-type"]]).toEqual([
      200,
      json,
      "c1",
      "application/json",
    ]);
    expect((await get(`${b.url()}/members?x=1`)).status).toBe(200);
    expect((await get(`${b.url()}/version`)).text).toContain('"etcdserver":"3.7.1"');
    const post = await get(`${b.url()}/members`, "POST", {}, "{}");
    expect([post.status, post.headers.allow]).toEqual([405, "GET"]);
    for (const path of ["/", "/health", "/metrics", "/members/", "/raft", "/raft/stream", "/v3/kv/range"]) {
      expect((await get(`${b.url()}${path}`)).status).toBe(404);
    }
    // Clients that offer an upgrade to HTTP/2 get the same.
    const h2c = await get(`${b.url()}/members`, "GET", {
      Connection: "Upgrade, HTTP2-Settings",
      Upgrade: "h2c",
      "HTTP2-Settings": "AAMAAABk",
    });
    expect([h2c.status, h2c.text]).toEqual([200, json]);
    expect((await get(`${b.url()}/other`, "GET", { Connection: "Upgrade", Upgrade: "holdfast-raft/1" })).status).toBe(404);
  });

  test("a server that is not ready answers 500 and lives on", async () => {
    const b = await member(2, {
      handlers: {
        membersJson: () => {
          throw new Error("not yet");
        },
      },
    });
    expect((await get(`${b.url()}/members`)).status).toBe(500);
    expect((await get(`${b.url()}/members`, "GET", { Connection: "Upgrade", Upgrade: "h2c" })).status).toBe(500);
    expect((await get(`${b.url()}/version`)).status).toBe(200);
  });

  test("a joiner fetches members and cluster id, exactly, from the first that answers", async () => {
    const b = await member(2, { handlers: { membersJson: () => json } });
    const options = { clock: systemClock(), signal: AbortSignal.timeout(10_000), timeoutMs: 1000 };
    const cluster = await fetchMembers(["http://127.0.0.1:24499", b.url()], options);
    expect(cluster).toEqual({
      clusterId: CLUSTER,
      url: b.url(),
      members: [
        {
          id: 13668033151171901709n,
          name: "n1",
          peerUrls: ["http://127.0.0.1:23801"],
          clientUrls: ["http://127.0.0.1:23800"],
          isLearner: false,
        },
      ],
    });
    expect(JSON.parse(await fetchVersion(b.url(), options))).toEqual({ etcdserver: "3.7.1", etcdcluster: "3.7.0" });
    await expect(fetchMembers(["http://127.0.0.1:24499", "ftp://x"], options)).rejects.toThrow(NoMembersError);
    await expect(fetchMembers([b.url()], { ...options, signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow("enough");
  });

  test("what is no member list is refused, also one that hides ids inside names", async () => {
    let text = "";
    const b = await member(2, { handlers: { membersJson: () => text } });
    const options = { clock: systemClock(), signal: AbortSignal.timeout(10_000), timeoutMs: 1000 };
    for (text of [
      "{}",
      "[1]",
      '[{"id":0}]',
      '[{"id":18446744073709551616}]',
      '[{"id":"x"}]',
      "[{}]",
      '[{"id":1,"peerURLs":[1]}]',
      "nonsense",
    ]) {
      await expect(fetchMembers([b.url()], options)).rejects.toThrow(NoMembersError);
    }
    text = String.raw`[{"id":9007199254740993,"name":"\"id\":1,","isLearner":true}]`;
    const { members: list } = await fetchMembers([b.url()], options);
    expect(list).toEqual([{ id: 9007199254740993n, name: '"id":1,', peerUrls: [], clientUrls: [], isLearner: true }]);
  });

  test("an answer that never ends is given up", async () => {
    const server = net.createServer((socket) => {
      socket.on("error", () => undefined);
      socket.resume();
      socket.write("HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: c1\r\n\r\n[");
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as net.AddressInfo;
    const options = { clock: systemClock(), signal: AbortSignal.timeout(10_000), timeoutMs: 100 };
    await expect(fetchMembers([`http://127.0.0.1:${port}`], options)).rejects.toThrow(NoMembersError);
    await new Promise((resolve) => server.close(resolve));
  });
});

describe("requests", () => {
  test("are answered, with errors that keep reason, code and text", async () => {
    const b = await member(2, {
      handlers: {
        onRequest: async (from, kind, body) => {
          if (kind === "hash-kv")
            throw new EtcdError("compacted", GrpcCode.OutOfRange, "etcdserver: mvcc: required revision has been compacted");
          if (kind === "status") throw new TypeError("inner detail");
          return Buffer.concat([Buffer.from(`${from}:${kind}:`), body]);
        },
      },
    });
    const a = await member(1);
    connectAll(a, b);
    const signal = AbortSignal.timeout(10_000);
    // Before the connection is there.
    const early = a.transport.request(b.id, "lease-renew", Buffer.from("early"), { signal });
    await until("connected", () => isConnected(a, b));
    const answers = await Promise.all([
      early,
      ...["x", "", "y"].map((text) => a.transport.request(b.id, "lease-renew", Buffer.from(text), { signal })),
    ]);
    expect(answers.map((answer) => Buffer.from(answer).toString())).toEqual([
      "1:lease-renew:early",
      "1:lease-renew:x",
      "1:lease-renew:",
      "1:lease-renew:y",
    ]);
    const failed = await a.transport.request(b.id, "hash-kv", new Uint8Array(0), { signal }).catch((error: unknown) => error);
    expect(EtcdError.is(failed) && [failed.reason, failed.grpcCode, failed.message]).toEqual([
      "compacted",
      GrpcCode.OutOfRange,
      "etcdserver: mvcc: required revision has been compacted",
    ]);
    const hidden = await a.transport.request(b.id, "status", new Uint8Array(0), { signal }).catch((error: unknown) => error);
    expect(EtcdError.is(hidden) && [hidden.reason, hidden.message]).toEqual(["internal", "internal error at the peer"]);
    await expect(a.transport.request(memberId(9), "status", new Uint8Array(0), { signal })).rejects.toMatchObject({
      reason: "peer-unavailable",
    });
    await expect(a.transport.request(b.id, "lease-renew", new Uint8Array(2 ** 21), { signal })).rejects.toMatchObject({
      reason: "request-too-large",
    });
  });

  test("end with their signal on both sides, with the connection, and with close", async () => {
    const signals: AbortSignal[] = [];
    const b = await member(2, {
      handlers: {
        onRequest: (_from, _kind, _body, { signal }) => {
          signals.push(signal);
          return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
        },
      },
    });
    const a = await member(1);
    const between = await proxy(portOf(b.url()));
    a.transport.setPeers([{ id: b.id, urls: [between.url] }]);
    await until("connected", () => isConnected(a, b));
    const never = new AbortController().signal;

    const given = new AbortController();
    const first = a.transport.request(b.id, "status", new Uint8Array(0), { signal: given.signal });
    await until("there", () => signals.length === 1);
    given.abort(new Error("no longer wanted"));
    await expect(first).rejects.toThrow("no longer wanted");
    await until("the other side stopped too", () => signals[0]?.aborted === true);
    expect(isConnected(a, b)).toBe(true);

    const second = a.transport.request(b.id, "status", new Uint8Array(0), { signal: never });
    await until("there", () => signals.length === 2);
    between.cut();
    await expect(second).rejects.toMatchObject({ reason: "peer-unavailable" });
    await until("the other side stopped too", () => signals[1]?.aborted === true);
    await until("connected again", () => isConnected(a, b));

    const third = a.transport.request(b.id, "status", new Uint8Array(0), { signal: never });
    third.catch(() => undefined);
    await until("there", () => signals.length === 3);
    await a.transport.close();
    await expect(third).rejects.toMatchObject({ reason: "peer-transport-closed" });
    await expect(a.transport.request(b.id, "status", new Uint8Array(0), { signal: never })).rejects.toMatchObject({
      reason: "peer-transport-closed",
    });
  });
});

describe("close", () => {
  test("leaves nothing behind", async () => {
    const handles = (): number => (process as unknown as { _getActiveHandles(): unknown[] })._getActiveHandles().length;
    const before = handles();
    const three = await Promise.all([1, 2, 3].map((n) => startMember(n)));
    connectAll(...three);
    await until("all connected", () => three.every((one) => three.every((other) => one === other || isConnected(one, other))));
    const [a, b] = three as [TestMember, TestMember, TestMember];
    a.transport.send([heartbeat(a.id, b.id, 1)]);
    await until("heard", () => b.received.length === 1);
    const ends = three.map((one) => one.transport.close());
    await Promise.all(ends);
    await Promise.all(three.map((one) => one.transport.close()));
    await until("all handles are gone", () => handles() <= before);
  });

  test("works before start, during it, and after a listener could not be bound", async () => {
    const early = await startMember(1, { start: false });
    await early.transport.close();
    await expect(early.transport.start(handlersOf(early, CLUSTER))).rejects.toMatchObject({ reason: "peer-transport-closed" });

    const port = 24406;
    const during = await startMember(2, { start: false, listenUrls: [`http://localhost:${port}`, `http://127.0.0.1:${port + 1}`] });
    const starting = during.transport.start(handlersOf(during, CLUSTER));
    starting.catch(() => undefined);
    await during.transport.close();
    await expect(starting).rejects.toMatchObject({ reason: "peer-transport-closed" });
    const holder = net.createServer();
    await new Promise<void>((resolve, reject) => {
      holder.once("error", reject);
      holder.listen(port + 1, "127.0.0.1", resolve);
    });
    const refused = await startMember(3, { start: false, listenUrls: [`http://127.0.0.1:${port}`, `http://127.0.0.1:${port + 1}`] });
    await expect(refused.transport.start(handlersOf(refused, CLUSTER))).rejects.toMatchObject({ code: "EADDRINUSE" });
    await new Promise((resolve) => holder.close(resolve));
    // Neither attempt holds a port.
    const after = await member(4, { listenUrls: [`http://127.0.0.1:${port}`, `http://127.0.0.1:${port + 1}`] });
    expect(after.transport.boundUrls()).toHaveLength(2);
  });

  test("ports may be bound before start, and are freed when it never comes", async () => {
    const a = await member(1, { start: false });
    await Promise.all([a.transport.bind(), a.transport.bind()]);
    const url = a.url();
    const dialler = await member(2);
    dialler.transport.setPeers([{ id: a.id, urls: [url] }]);
    await until("told to wait", () => dialler.unreachable.length === 1);
    const options = { clock: systemClock(), signal: AbortSignal.timeout(10_000), timeoutMs: 1000 };
    await expect(fetchMembers([url], options)).rejects.toMatchObject({ failures: [{ url, error: "status 503" }] });
    await a.transport.start(handlersOf(a, CLUSTER));
    expect(a.url()).toBe(url);
    await until("connected", () => isConnected(dialler, a));

    const unused = await startMember(3, { start: false });
    await unused.transport.bind();
    const port = portOf(unused.url());
    await unused.transport.close();
    await expect(unused.transport.start(handlersOf(unused, CLUSTER))).rejects.toMatchObject({ reason: "peer-transport-closed" });
    await member(4, { listenUrls: [`http://127.0.0.1:${port}`] });
    const closed = await startMember(5, { start: false });
    await closed.transport.close();
    await expect(closed.transport.bind()).rejects.toMatchObject({ reason: "peer-transport-closed" });
  });

  test("waits for handlers that are still at work", async () => {
    let atWork = false;
    let finished = false;
    const b = await member(2, {
      handlers: {
        onRequest: async (_from, _kind, _body, { signal }) => {
          atWork = true;
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
          finished = true;
          return new Uint8Array(0);
        },
      },
    });
    const a = await member(1);
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    const pending = a.transport.request(b.id, "status", new Uint8Array(0), { signal: AbortSignal.timeout(10_000) });
    await until("at work", () => atWork);
    const closing = b.transport.close();
    await expect(pending).rejects.toMatchObject({ reason: "peer-unavailable" });
    await closing;
    expect(finished).toBe(true);
  });
});
