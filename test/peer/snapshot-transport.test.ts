import * as http from "node:http";
import type * as net from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { EtcdError, GrpcCode } from "../../src/base/errors.ts";
import { seededRandom } from "../../src/base/random.ts";
import { FrameDecoder, FrameKind, numberContent, smallFrame } from "../../src/server/peer/frame.ts";
import type { PeerHandlers, SnapshotInfo } from "../../src/server/peer/index.ts";
import { decodeError, encodeSnapshotOffer } from "../../src/server/peer/message-codec.ts";
import {
  memberId,
  patternBytes,
  patternSource,
  portOf,
  snapshotMessage,
  startMember,
  TcpProxy,
  type TestMember,
  type TestMemberOptions,
  until,
} from "./support.ts";

const members: TestMember[] = [];
const proxies: TcpProxy[] = [];

async function member(n: number, options: TestMemberOptions = {}): Promise<TestMember> {
  const one = await startMember(n, { ...options, limits: { reconnectMinMs: 5, reconnectMaxMs: 20, ...options.limits } });
  members.push(one);
  return one;
}

async function proxyTo(target: TestMember): Promise<TcpProxy> {
  const one = await TcpProxy.start(portOf(target.url()));
  proxies.push(one);
  return one;
}

afterEach(async () => {
  await Promise.all(members.splice(0).map((one) => one.transport.close()));
  await Promise.all(proxies.splice(0).map((one) => one.close()));
});

/** A receiver that keeps what came, as the real one does. */
function store(): Partial<PeerHandlers> & { bytes: Buffer; attempts: number[]; done: number } {
  const state = {
    bytes: Buffer.alloc(0),
    /** What was held at the start of each attempt. */
    attempts: [] as number[],
    done: 0,
    async snapshotBytesHeld(): Promise<number> {
      state.attempts.push(state.bytes.byteLength);
      return state.bytes.byteLength;
    },
    async onSnapshot(_message: unknown, chunks: AsyncIterable<Uint8Array>, info: SnapshotInfo): Promise<void> {
      for await (const chunk of chunks) state.bytes = Buffer.concat([state.bytes, chunk]);
      expect(state.bytes.byteLength).toBe(info.sizeBytes);
      state.done++;
    },
  };
  return state;
}

const never = new AbortController().signal;

describe("snapshots between members", () => {
  test("arrive whole, beside the raft message", async () => {
    const [a, b] = [await member(1), await member(2)];
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    const kept = store();
    const seen: unknown[] = [];
    b.handlers = {
      ...kept,
      onSnapshot: async (message, chunks, info) => {
        seen.push(message, info);
        await kept.onSnapshot?.(message, chunks, info);
      },
    };
    for (const size of [0, 1, 100_000, 5_000_000]) {
      kept.bytes = Buffer.alloc(0);
      const source = patternSource(size);
      const message = snapshotMessage(a.id, b.id, 10 + size);
      await a.transport.sendSnapshot(message, source, never);
      expect(kept.bytes.equals(patternBytes(0, size))).toBe(true);
      expect(seen.splice(0)).toEqual([message, source.info]);
      expect(source.closed).toBe(false);
    }
    expect(kept.done).toBe(4);
  });

  test("BS7: a stream cut at any byte goes on where it was, and nothing is lost or doubled", async () => {
    const random = seededRandom(42);
    const size = 600_000;
    const [a, b] = [await member(1), await member(2)];
    const between = await proxyTo(b);
    a.transport.setPeers([{ id: b.id, urls: [between.url] }]);
    for (let round = 0; round < 30; round++) {
      const kept = store();
      b.handlers = kept;
      // Counted per connection, from the request line on, so cuts fall into the handshake, the offer, chunks, headers and the end.
      const cuts = [random.below(1000), random.below(size + 2000), random.below(size / 2)];
      let left = cuts.shift() ?? Number.POSITIVE_INFINITY;
      between.onClientBytes = (bytes) => {
        // The raft stream is not meant.
        if (bytes.includes("/raft/stream") || bytes.byteLength < 40) return bytes;
        left -= bytes.byteLength;
        if (left > 0) return bytes;
        left = cuts.shift() ?? Number.POSITIVE_INFINITY;
        return undefined;
      };
      await a.transport.sendSnapshot(snapshotMessage(a.id, b.id), patternSource(size, { chunkBytes: 10_000 }), never);
      expect(kept.bytes.equals(patternBytes(0, size))).toBe(true);
      expect(kept.done).toBe(1);
    }
  });

  test("a resumed stream sends only what is missing", async () => {
    const size = 2_000_000;
    const [a, b] = [await member(1), await member(2)];
    const between = await proxyTo(b);
    a.transport.setPeers([{ id: b.id, urls: [between.url] }]);
    const kept = store();
    b.handlers = kept;
    let passed = 0;
    let cut = false;
    between.onClientBytes = (bytes) => {
      passed += bytes.byteLength;
      if (!cut && passed > size * 0.7) {
        cut = true;
        return undefined;
      }
      return bytes;
    };
    await a.transport.sendSnapshot(snapshotMessage(a.id, b.id), patternSource(size), never);
    expect(kept.attempts).toHaveLength(2);
    expect(kept.attempts[0]).toBe(0);
    expect(kept.attempts[1]).toBeGreaterThan(0);
    expect(passed).toBeLessThan(size * 1.3);
    expect(kept.bytes.equals(patternBytes(0, size))).toBe(true);
  });

  test("an altered byte ends the stream, is never stored, and the rest is sent again", async () => {
    const size = 500_000;
    const [a, b] = [await member(1), await member(2)];
    const between = await proxyTo(b);
    a.transport.setPeers([{ id: b.id, urls: [between.url] }]);
    const random = seededRandom(7);
    for (let round = 0; round < 10; round++) {
      const kept = store();
      b.handlers = kept;
      let altered = false;
      between.onClientBytes = (bytes) => {
        if (altered || bytes.byteLength < 5000) return bytes;
        altered = true;
        const copy = Buffer.from(bytes);
        const at = random.below(copy.byteLength);
        copy[at] = (copy[at] as number) ^ (1 << random.below(8));
        return copy;
      };
      await a.transport.sendSnapshot(snapshotMessage(a.id, b.id), patternSource(size, { chunkBytes: 20_000 }), never);
      expect(altered).toBe(true);
      expect(kept.attempts).toHaveLength(2);
      expect(kept.bytes.equals(patternBytes(0, size))).toBe(true);
    }
  });

  test("a refusal of the receiver arrives as it is and is final, even in the middle of the stream", async () => {
    const [a, b] = [await member(1), await member(2)];
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    let calls = 0;
    b.handlers = {
      onSnapshot: async (_message, chunks) => {
        calls++;
        let seen = 0;
        for await (const chunk of chunks) {
          seen += chunk.byteLength;
          if (seen > 1_000_000) throw new EtcdError("snapshot-corrupt", GrpcCode.DataLoss, "no good");
        }
      },
    };
    const failed = await a.transport
      .sendSnapshot(snapshotMessage(a.id, b.id), patternSource(50_000_000), never)
      .catch((error: unknown) => error);
    expect(EtcdError.is(failed) && [failed.reason, failed.grpcCode, failed.message]).toEqual([
      "snapshot-corrupt",
      GrpcCode.DataLoss,
      "no good",
    ]);
    expect(calls).toBe(1);
  });

  test("BS9: one that is larger than allowed is refused before a byte of it is sent", async () => {
    const [a, b] = [await member(1), await member(2, { limits: { snapshotBytesMax: 1000 } })];
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    let asked = false;
    const source = {
      info: { id: "huge", sizeBytes: 10 * 2 ** 30 },
      async *read() {
        asked = true;
        yield new Uint8Array(1);
      },
      close: async () => undefined,
    };
    await expect(a.transport.sendSnapshot(snapshotMessage(a.id, b.id), source, never)).rejects.toMatchObject({
      reason: "snapshot-too-large",
    });
    expect(asked).toBe(false);
  });

  test("one at a time per peer; another peer is served meanwhile", async () => {
    const [a, b, c] = [await member(1), await member(2), await member(3)];
    a.transport.setPeers([b, c].map((one) => ({ id: one.id, urls: [one.url()] })));
    const release: (() => void)[] = [];
    const kept = store();
    b.handlers = {
      ...kept,
      onSnapshot: async (message, chunks, info) => {
        await kept.onSnapshot?.(message, chunks, info);
        await new Promise<void>((resolve) => release.push(resolve));
      },
    };
    const other = store();
    c.handlers = other;
    const first = a.transport.sendSnapshot(snapshotMessage(a.id, b.id), patternSource(1000), never);
    await until("under way", () => release.length === 1);
    await expect(a.transport.sendSnapshot(snapshotMessage(a.id, b.id), patternSource(1000), never)).rejects.toMatchObject({
      reason: "snapshot-in-progress",
    });
    await a.transport.sendSnapshot(snapshotMessage(a.id, c.id), patternSource(1000), never);
    release[0]?.();
    await first;
    await expect(a.transport.sendSnapshot(snapshotMessage(a.id, memberId(9)), patternSource(1), never)).rejects.toMatchObject({
      reason: "peer-unavailable",
    });
  });

  test("a slow receiver holds the sender back and is not taken for dead", async () => {
    const limits = { snapshotSilenceMs: 300 };
    const [a, b] = [await member(1, { limits }), await member(2, { limits })];
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    const size = 60_000_000;
    let produced = 0;
    let consumed = 0;
    let aheadMax = 0;
    const source = {
      info: { id: "slow", sizeBytes: size },
      async *read() {
        for (; produced < size; produced += 500_000) {
          aheadMax = Math.max(aheadMax, produced - consumed);
          yield new Uint8Array(500_000);
        }
      },
      close: async () => undefined,
    };
    let attempts = 0;
    b.handlers = {
      onSnapshot: async (_message, chunks) => {
        attempts++;
        for await (const chunk of chunks) {
          consumed += chunk.byteLength;
          // A pause longer than the deadline, once in the middle.
          if (consumed === size / 2 || (consumed > size / 2 && consumed - chunk.byteLength < size / 2)) {
            const until = performance.now() + 900;
            while (performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
          }
        }
        // And one after everything has come.
        await new Promise((resolve) => setTimeout(resolve, 900));
      },
    };
    await a.transport.sendSnapshot(snapshotMessage(a.id, b.id), source, never);
    expect(consumed).toBe(size);
    expect(attempts).toBe(1);
    // Both processes' buffers and the kernel's.
    expect(aheadMax).toBeLessThan(20_000_000);
  });

  test("a receiver that has fallen silent is given up after a few attempts without progress", async () => {
    const limits = { snapshotSilenceMs: 150, dialTimeoutMs: 150, snapshotAttemptsMax: 3 };
    const [a, b] = [await member(1, { limits }), await member(2)];
    const between = await proxyTo(b);
    a.transport.setPeers([{ id: b.id, urls: [between.url] }]);
    const kept = store();
    b.handlers = kept;
    between.onClientBytes = (bytes) => {
      if (bytes.byteLength > 5000) between.freeze();
      return bytes;
    };
    await expect(a.transport.sendSnapshot(snapshotMessage(a.id, b.id), patternSource(1_000_000), never)).rejects.toMatchObject({
      reason: "peer-unavailable",
    });
    between.thaw();
  });

  test("ends with its signal and with close, and the receiver's stream with it", async () => {
    const [a, b] = [await member(1), await member(2)];
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    const ended: unknown[] = [];
    let arrived = 0;
    b.handlers = {
      onSnapshot: async (_message, chunks) => {
        try {
          for await (const chunk of chunks) arrived += chunk.byteLength;
        } catch (error) {
          ended.push(error);
          throw error;
        }
      },
    };
    const endless = () => ({
      info: { id: "endless", sizeBytes: 2 ** 50 },
      async *read() {
        for (;;) {
          yield new Uint8Array(100_000);
          await new Promise((resolve) => setImmediate(resolve));
        }
      },
      close: async () => undefined,
    });
    const given = new AbortController();
    const first = a.transport.sendSnapshot(snapshotMessage(a.id, b.id), endless(), given.signal);
    await until("flowing", () => arrived > 1_000_000);
    given.abort(new Error("not needed"));
    await expect(first).rejects.toThrow("not needed");
    const second = a.transport.sendSnapshot(snapshotMessage(a.id, b.id), endless(), never);
    second.catch(() => undefined);
    arrived = 0;
    await until("flowing", () => arrived > 1_000_000);
    await a.transport.close();
    await expect(second).rejects.toMatchObject({ reason: "peer-transport-closed" });
    await until("the receiver's streams ended", () => ended.length === 2);
    await expect(a.transport.sendSnapshot(snapshotMessage(a.id, b.id), endless(), never)).rejects.toMatchObject({
      reason: "peer-transport-closed",
    });
  });

  test("a source that is not as long as it said, or cannot be read, ends the sending at once", async () => {
    const [a, b] = [await member(1), await member(2)];
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    const fresh = (): void => {
      b.handlers = store();
    };
    const source = (pieces: number, fail?: Error) => ({
      info: { id: "wrong", sizeBytes: 1000 },
      async *read() {
        for (let i = 0; i < pieces; i++) yield new Uint8Array(100);
        if (fail !== undefined) throw fail;
      },
      close: async () => undefined,
    });
    fresh();
    await expect(a.transport.sendSnapshot(snapshotMessage(a.id, b.id), source(9), never)).rejects.toThrow("shorter");
    fresh();
    await expect(a.transport.sendSnapshot(snapshotMessage(a.id, b.id), source(11), never)).rejects.toThrow("longer");
    fresh();
    await expect(a.transport.sendSnapshot(snapshotMessage(a.id, b.id), source(5, new Error("EIO")), never)).rejects.toThrow("EIO");
  });

  test("a receiver that needs no more bytes may say so early", async () => {
    const [a, b] = [await member(1), await member(2)];
    a.transport.setPeers([{ id: b.id, urls: [b.url()] }]);
    b.handlers = { onSnapshot: async () => undefined };
    await a.transport.sendSnapshot(snapshotMessage(a.id, b.id), patternSource(20_000_000), never);
  });
});

describe("hostile snapshot senders", () => {
  async function connect(url: string): Promise<{ socket: net.Socket; frames: { kind: number; content: Buffer }[]; closed: Promise<void> }> {
    const socket = await new Promise<net.Socket>((resolve, reject) => {
      const request = http.request(`${url}/raft/snapshot`, {
        agent: false,
        headers: {
          Connection: "Upgrade",
          Upgrade: "holdfast-snapshot/1",
          "X-Server-From": "1",
          "X-Server-Version": "3.7.1",
          "X-Min-Cluster-Version": "3.0.0",
          "X-Etcd-Cluster-ID": "c1",
          "X-Raft-To": "2",
        },
      });
      request.on("error", reject);
      request.on("upgrade", (_response, upgraded: net.Socket) => resolve(upgraded));
      request.end();
    });
    const frames: { kind: number; content: Buffer }[] = [];
    const decoder = new FrameDecoder(1_000_000, (kind, content) => {
      frames.push({ kind, content: Buffer.from(content) });
      return true;
    });
    socket.on("error", () => undefined);
    socket.on("data", (bytes) => decoder.push(bytes));
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    socket.on("end", () => socket.destroy());
    return { socket, frames, closed };
  }

  const offer = (from = 1, to = 2, sizeBytes = 1000): Uint8Array =>
    smallFrame(FrameKind.snapshotOffer, encodeSnapshotOffer({ id: "x", sizeBytes }, snapshotMessage(memberId(from), memberId(to))));
  const chunk = (bytes: number): Uint8Array => smallFrame(FrameKind.snapshotChunk, new Uint8Array(bytes));

  test.each([
    ["a chunk before the offer", () => [chunk(10)]],
    ["chunks before it was told where to begin", () => [offer(), chunk(10)]],
    ["a second offer", () => [offer(), offer()]],
    ["an offer of another sender", () => [offer(3)]],
    ["an offer for another member", () => [offer(1, 3)]],
    ["raft messages on this connection", () => [smallFrame(FrameKind.messages, Buffer.from([0x90]))]],
    ["an end without chunks", () => [offer(), smallFrame(FrameKind.snapshotEnd, new Uint8Array(32))]],
    ["garbage", () => [Buffer.from("0000000500000000aaaaaaaaaa", "hex")]],
  ])("%s ends the connection", async (_name, frames) => {
    const b = await member(2);
    b.handlers = store();
    const { socket, closed } = await connect(b.url());
    socket.write(Buffer.concat(frames()));
    await closed;
    expect(b.counts.receiveFailed).toBe(1);
  });

  test("more bytes than announced, fewer, and a wrong digest are never handed over as complete", async () => {
    const b = await member(2);
    for (const [sizes, digest] of [
      [[1001], 0],
      [[999], 0],
      [[1000], 0],
    ] as const) {
      const outcomes: string[] = [];
      b.handlers = {
        onSnapshot: async (_message, chunks) => {
          try {
            for await (const piece of chunks) expect(piece.byteLength).toBeGreaterThan(0);
            outcomes.push("complete");
          } catch (error) {
            outcomes.push("failed");
            throw error;
          }
        },
      };
      const { socket, frames, closed } = await connect(b.url());
      socket.write(offer());
      await until("told where to begin", () => frames.some(({ kind }) => kind === FrameKind.snapshotFrom));
      expect(numberContent(frames.find(({ kind }) => kind === FrameKind.snapshotFrom)?.content ?? Buffer.alloc(0), { counter: true })).toBe(
        0,
      );
      for (const size of sizes) socket.write(chunk(size));
      socket.write(smallFrame(FrameKind.snapshotEnd, new Uint8Array(32).fill(digest)));
      await closed;
      await until("handler ended", () => outcomes.length === 1);
      expect(outcomes).toEqual(["failed"]);
    }
  });

  test("one that never sends a chunk is told why it failed, or cut off", async () => {
    const b = await member(2, { limits: { snapshotSilenceMs: 150 } });
    b.handlers = store();
    const silent = await connect(b.url());
    silent.socket.write(offer());
    await silent.closed;
    // A refusal by the handlers reaches the sender.
    b.handlers = { snapshotBytesHeld: async () => Promise.reject(new EtcdError("snapshot-busy", GrpcCode.Unavailable, "busy")) };
    const refused = await connect(b.url());
    refused.socket.write(offer());
    await refused.closed;
    const failure = refused.frames.find(({ kind }) => kind === FrameKind.failure);
    expect(decodeError(failure?.content ?? Buffer.alloc(0)).error.reason).toBe("snapshot-busy");
  });

  test("the same sender again replaces its older stream, whose bytes are stored first", async () => {
    const b = await member(2);
    const order: string[] = [];
    b.handlers = {
      snapshotBytesHeld: async () => {
        order.push("asked");
        return 0;
      },
      onSnapshot: async (_message, chunks) => {
        try {
          for await (const piece of chunks) expect(piece.byteLength).toBeGreaterThan(0);
        } catch (error) {
          await new Promise((resolve) => setTimeout(resolve, 50));
          order.push("stored");
          throw error;
        }
      },
    };
    const first = await connect(b.url());
    first.socket.write(offer());
    await until("begun", () => first.frames.some(({ kind }) => kind === FrameKind.snapshotFrom));
    const second = await connect(b.url());
    second.socket.write(offer());
    await until("begun again", () => second.frames.some(({ kind }) => kind === FrameKind.snapshotFrom));
    expect(order).toEqual(["asked", "stored", "asked"]);
    second.socket.destroy();
  });
});
