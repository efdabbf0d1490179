/**
 * What the peer transport carries between two members of one process over loopback sockets, and what a state snapshot costs from store to
 * store. Both ends share one thread, so a member of its own does better. Run with `npx tsx test/bench/peer.bench.ts`; one line per case.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBatch, LevelBackend, RowSpace } from "../../src/backend/index.ts";
import { systemDisk } from "../../src/base/disk-system.ts";
import type { Message } from "../../src/raft/index.ts";
import { decodeMessages, encodeMessages } from "../../src/server/peer/message-codec.ts";
import { diskSpool, type ReceivedSnapshot, SnapshotReceiver, writeSnapshotSpool } from "../../src/server/snapshot/index.ts";
import { append, CLUSTER, connectAll, heartbeat, memberId, snapshotMessage, startMember, until } from "../peer/support.ts";

function line(what: string, text: string): void {
  process.stdout.write(`${what.padEnd(58)} ${text}\n`);
}

/** What a case took; processor time (all threads, kernel included) says more than the clock on a busy machine. */
function meter(): { rate(count: number): number; cpuMicros(): number } {
  const startedMs = performance.now();
  const cpu = process.cpuUsage();
  return {
    rate: (count) => Math.round((count / (performance.now() - startedMs)) * 1000),
    cpuMicros: () => {
      const { user, system } = process.cpuUsage(cpu);
      return user + system;
    },
  };
}

function appendOf(entries: number, valueBytes: number): Message {
  const data = Buffer.alloc(valueBytes, 1);
  return {
    type: "append-request",
    from: memberId(1),
    to: memberId(2),
    term: 1,
    prevIndex: 10_000_000,
    prevTerm: 1,
    commit: 10_000_000,
    entries: Array.from({ length: entries }, (_, i) => ({ term: 1, index: 10_000_001 + i, type: "normal" as const, data })),
  };
}

function codec(): void {
  for (const entries of [0, 1, 50]) {
    const messages = [appendOf(entries, 256)];
    const bytes = encodeMessages(messages);
    const rounds = entries === 50 ? 20_000 : 300_000;
    for (const [name, run] of [
      ["encode", () => encodeMessages(messages)],
      ["decode", () => decodeMessages(bytes)],
    ] as const) {
      for (let i = 0; i < rounds / 10; i++) run();
      const taken = meter();
      for (let i = 0; i < rounds; i++) run();
      line(`${name} an append of ${entries} entries of 256 bytes`, `${(taken.cpuMicros() / rounds).toFixed(2)} µs of processor`);
    }
  }
}

async function messages(): Promise<void> {
  const [a, b] = [await startMember(1), await startMember(2)];
  connectAll(a, b);
  await until("connected", () => a.transport.activeSince(b.id) !== undefined);
  let received = 0;
  b.handlers = {
    onMessage: () => {
      received++;
      b.received.length = 0;
    },
  };
  const flood = async (what: string, total: number, perCall: number, window: number, make: (i: number) => Message): Promise<void> => {
    received = 0;
    let sent = 0;
    const taken = meter();
    while (sent < total) {
      while (sent < total && sent - received < window) {
        const batch: Message[] = [];
        for (let i = 0; i < perCall; i++) batch.push(make(sent + i));
        a.transport.send(batch);
        sent += perCall;
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    while (received < sent) await new Promise((resolve) => setImmediate(resolve));
    line(what, `${taken.rate(received)} messages/s, ${(taken.cpuMicros() / received).toFixed(2)} µs of processor each, both ends`);
  };
  await flood("heartbeats, 100 per call", 600_000, 100, 3000, (i) => heartbeat(a.id, b.id, i));
  await flood("heartbeats, 1 per call", 300_000, 1, 3000, (i) => heartbeat(a.id, b.id, i));
  const entry = Buffer.alloc(256);
  await flood("appends of one entry of 256 bytes, 1 per call", 300_000, 1, 3000, (i) => append(a.id, b.id, i, entry));
  const fifty = appendOf(50, 256);
  await flood("appends of 50 entries of 256 bytes (entries/s = 50 x)", 20_000, 1, 500, () => fifty);
  const big = appendOf(1, 1024 * 1024);
  await flood("appends of 1 MiB (MiB/s)", 2000, 1, 32, () => big);

  b.handlers = { onRequest: async (_from, _kind, body) => body };
  const signal = new AbortController().signal;
  const body = new Uint8Array(20);
  const taken = meter();
  for (let i = 0; i < 10_000; i++) await a.transport.request(b.id, "lease-renew", body, { signal });
  const each = taken.cpuMicros() / 10_000;
  line("requests, one after the other", `${taken.rate(10_000)} per s, ${each.toFixed(0)} µs of processor each, both ends`);
  await Promise.all([a.transport.close(), b.transport.close()]);
}

async function snapshot(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "holdfast-bench-"));
  const from = await LevelBackend.open({ directory: join(directory, "a") });
  const rows = 1_000_000;
  for (let done = 0; done < rows; ) {
    const batch = createBatch();
    for (let i = 0; i < 5000; i++, done++) {
      const key = Buffer.alloc(17);
      key[0] = RowSpace.revision;
      key.writeBigUInt64BE(BigInt(done), 1);
      batch.put(key, Buffer.alloc(256, done));
    }
    await from.write(batch);
  }
  await from.checkpoint();
  const [a, b] = [await startMember(1), await startMember(2)];
  connectAll(a, b);
  const message = snapshotMessage(a.id, b.id);
  const header = { clusterId: CLUSTER, ...message.snapshot.metadata };
  const view = from.snapshot();
  const out = diskSpool(systemDisk(), join(directory, "out"));
  let worstMs = 0;
  let last = performance.now();
  const probe = setInterval(() => {
    worstMs = Math.max(worstMs, performance.now() - last - 5);
    last = performance.now();
  }, 5);
  const step = async <T>(what: string, bytes: () => number, run: () => Promise<T>): Promise<T> => {
    worstMs = 0;
    last = performance.now();
    const taken = meter();
    const result = await run();
    const perCpu = Math.round(bytes() / taken.cpuMicros());
    line(
      what,
      `${Math.round(taken.rate(bytes()) / 1e6)} MB/s, ${perCpu} MB per second of processor, timers at most ${worstMs.toFixed(0)} ms late`,
    );
    return result;
  };
  let size = 0;
  const source = await step(
    `spool a state of ${rows} rows of 256 bytes`,
    () => size,
    async () => {
      const made = await writeSnapshotSpool({ backend: from, snapshot: view, header, storage: out, tag: "1", defer: setImmediate });
      size = made.info.sizeBytes;
      return made;
    },
  );
  await view.close();
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
  await step(
    `send and store it (${Math.round(size / 1e6)} MB)`,
    () => size,
    () => a.transport.sendSnapshot(message, source, new AbortController().signal),
  );
  const to = await LevelBackend.open({ directory: join(directory, "b") });
  await step(
    "install it into a fresh store",
    () => size,
    async () => received?.installInto(to),
  );
  clearInterval(probe);
  await Promise.all([a.transport.close(), b.transport.close(), from.close(), to.close()]);
  await rm(directory, { recursive: true, force: true });
}

codec();
await messages();
await snapshot();
line("resident memory at the end", `${Math.round(process.memoryUsage().rss / 1e6)} MB`);
