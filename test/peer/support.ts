import * as net from "node:net";
import { systemClock } from "../../src/base/clock-system.ts";
import type { ClusterId, MemberId } from "../../src/base/ids.ts";
import { type LogFields, type Logger, silentLogger } from "../../src/base/logger.ts";
import { seededRandom } from "../../src/base/random.ts";
import type { Message, SnapshotRequest } from "../../src/raft/index.ts";
import {
  createHttpPeerTransport,
  type HttpPeerTransport,
  type HttpPeerTransportOptions,
  type PeerHandlers,
  type PeerObserver,
  type SnapshotInfo,
  type SnapshotSource,
} from "../../src/server/peer/index.ts";

export const CLUSTER = 0xc1n as ClusterId;

export function memberId(n: number): MemberId {
  return BigInt(n) as MemberId;
}

/** Keeps what is logged, for looking at levels and texts. */
export function recordingLogger(): Logger & { readonly lines: { level: string; fields: LogFields; message: string }[] } {
  const lines: { level: string; fields: LogFields; message: string }[] = [];
  const make = (base: LogFields): Logger => ({
    debug: () => undefined,
    info: (fields, message) => void lines.push({ level: "info", fields: { ...base, ...fields }, message }),
    warn: (fields, message) => void lines.push({ level: "warn", fields: { ...base, ...fields }, message }),
    error: (fields, message) => void lines.push({ level: "error", fields: { ...base, ...fields }, message }),
    child: (fields) => make({ ...base, ...fields }),
  });
  return { ...make({}), lines };
}

export interface TestMember {
  readonly id: MemberId;
  readonly transport: HttpPeerTransport;
  readonly received: Message[];
  readonly unreachable: MemberId[];
  removedCalls: number;
  readonly removedIds: Set<MemberId>;
  readonly counts: { sent: number; received: number; sendFailed: number; receiveFailed: number; roundTrips: number };
  /** Replace to answer requests and take snapshots. */
  handlers: Partial<PeerHandlers>;
  url(): string;
}

export interface TestMemberOptions {
  readonly clusterId?: ClusterId;
  readonly listenUrls?: readonly string[];
  readonly advertisedPeerUrls?: readonly string[];
  readonly limits?: HttpPeerTransportOptions["limits"];
  readonly serverVersion?: string;
  readonly handlers?: Partial<PeerHandlers>;
  readonly logger?: Logger;
  /** Count what happens (default). */
  readonly observe?: boolean;
  /** Start listening at once (default). */
  readonly start?: boolean;
}

export async function startMember(n: number, options: TestMemberOptions = {}): Promise<TestMember> {
  const counts = { sent: 0, received: 0, sendFailed: 0, receiveFailed: 0, roundTrips: 0 };
  const observer: PeerObserver = {
    sent: (_to, _bytes, messages) => {
      counts.sent += messages;
    },
    received: (_from, _bytes, messages) => {
      counts.received += messages;
    },
    sendFailed: () => {
      counts.sendFailed++;
    },
    receiveFailed: () => {
      counts.receiveFailed++;
    },
    roundTrip: () => {
      counts.roundTrips++;
    },
  };
  const transport = createHttpPeerTransport({
    listenUrls: options.listenUrls ?? ["http://127.0.0.1:0"],
    advertisedPeerUrls: options.advertisedPeerUrls ?? [],
    serverVersion: options.serverVersion ?? "3.7.1",
    clock: systemClock(),
    random: seededRandom(n),
    logger: options.logger ?? silentLogger,
    observer: options.observe === false ? undefined : observer,
    limits: options.limits,
  });
  const member: TestMember = {
    id: memberId(n),
    transport,
    received: [],
    unreachable: [],
    removedCalls: 0,
    removedIds: new Set(),
    counts,
    handlers: options.handlers ?? {},
    url: () => transport.boundUrls()[0] ?? "",
  };
  if (options.start !== false) await transport.start(handlersOf(member, options.clusterId ?? CLUSTER));
  return member;
}

export function handlersOf(member: TestMember, clusterId: ClusterId): PeerHandlers {
  const missing = (): never => {
    throw new Error("not expected here");
  };
  return {
    clusterId,
    memberId: member.id,
    onMessage: (message) => {
      member.received.push(message);
      member.handlers.onMessage?.(message);
    },
    onSnapshot: (message, chunks, info) => member.handlers.onSnapshot?.(message, chunks, info) ?? missing(),
    snapshotBytesHeld: async (info) => member.handlers.snapshotBytesHeld?.(info) ?? 0,
    onRequest: (from, kind, body, requestOptions) => member.handlers.onRequest?.(from, kind, body, requestOptions) ?? missing(),
    onUnreachable: (peer) => {
      member.unreachable.push(peer);
      member.handlers.onUnreachable?.(peer);
    },
    isRemoved: (peer) => member.removedIds.has(peer),
    onRemoved: () => {
      member.removedCalls++;
    },
    membersJson: () => member.handlers.membersJson?.() ?? "[]\n",
    versionJson: () => `{"etcdserver":"3.7.1","etcdcluster":"3.7.0"}`,
  };
}

/** Makes every member know every other one. */
export function connectAll(...members: TestMember[]): void {
  for (const one of members) {
    one.transport.setPeers(members.filter((other) => other !== one).map((other) => ({ id: other.id, urls: [other.url()] })));
  }
}

export function heartbeat(from: MemberId, to: MemberId, round: number): Message {
  return { type: "heartbeat", from, to, term: 1, commit: 0, round };
}

export function append(from: MemberId, to: MemberId, prevIndex: number, data: Uint8Array): Message {
  const entries = [{ term: 1, index: prevIndex + 1, type: "normal" as const, data }];
  return { type: "append-request", from, to, term: 1, prevIndex, prevTerm: prevIndex === 0 ? 0 : 1, commit: prevIndex, entries };
}

export function snapshotMessage(from: MemberId, to: MemberId, index = 10): SnapshotRequest {
  const confState = {
    voters: [from, to].sort((a, b) => (a < b ? -1 : 1)),
    votersOutgoing: [],
    learners: [],
    learnersNext: [],
    autoLeave: false,
  };
  return { type: "snapshot", from, to, term: 3, snapshot: { metadata: { index, term: 2, confState } } };
}

/** A source of bytes that are known from their position. */
export function patternSource(sizeBytes: number, options: { id?: string; chunkBytes?: number } = {}): SnapshotSource & { closed: boolean } {
  const info: SnapshotInfo = { id: options.id ?? `pattern-${sizeBytes}`, sizeBytes };
  const chunkBytes = options.chunkBytes ?? 100_000;
  return {
    info,
    closed: false,
    async *read(offset) {
      for (let at = offset; at < sizeBytes; at += chunkBytes) yield patternBytes(at, Math.min(chunkBytes, sizeBytes - at));
    },
    async close() {
      this.closed = true;
    },
  };
}

export function patternBytes(from: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (Math.imul(from + i, 2654435761) >>> 13) & 0xff;
  return bytes;
}

/** Waits for a condition with a deadline; the message names what did not happen. */
export async function until(what: string, condition: () => boolean, deadlineMs = 15_000): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`did not happen in ${deadlineMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A TCP proxy in front of one port that can stop forwarding, cut, and alter. */
export class TcpProxy {
  readonly #server: net.Server;
  readonly #pairs = new Set<{ client: net.Socket; upstream: net.Socket }>();
  /** Nothing is read from either side any more; nobody is told. */
  #frozen = false;
  /** Sees and may replace every piece from client to upstream; undefined cuts the connection there. */
  onClientBytes: ((bytes: Buffer) => Buffer | undefined) | undefined;
  connections = 0;

  private constructor(server: net.Server) {
    this.#server = server;
  }

  static async start(targetPort: number, port = 0): Promise<TcpProxy> {
    const server = net.createServer({ allowHalfOpen: true });
    const proxy = new TcpProxy(server);
    server.on("connection", (client) => proxy.#accept(client, targetPort));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, "127.0.0.1", resolve);
    });
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as net.AddressInfo).port}`;
  }

  #accept(client: net.Socket, targetPort: number): void {
    this.connections++;
    const upstream = net.connect({ port: targetPort, host: "127.0.0.1", allowHalfOpen: true });
    const pair = { client, upstream };
    this.#pairs.add(pair);
    const end = (): void => {
      client.destroy();
      upstream.destroy();
      this.#pairs.delete(pair);
    };
    for (const socket of [client, upstream]) {
      socket.on("error", end);
      socket.on("close", end);
      if (this.#frozen) socket.pause();
    }
    client.on("data", (bytes: Buffer) => {
      const passed = this.onClientBytes === undefined ? bytes : this.onClientBytes(bytes);
      if (passed === undefined) end();
      else if (!upstream.write(passed)) {
        client.pause();
        upstream.once("drain", () => this.#frozen || client.resume());
      }
    });
    upstream.on("data", (bytes: Buffer) => client.write(bytes));
    client.on("end", () => upstream.end());
    upstream.on("end", () => client.end());
    if (this.#frozen) this.freeze();
  }

  freeze(): void {
    this.#frozen = true;
    for (const { client, upstream } of this.#pairs) {
      client.pause();
      upstream.pause();
    }
  }

  thaw(): void {
    this.#frozen = false;
    for (const { client, upstream } of this.#pairs) {
      client.resume();
      upstream.resume();
    }
  }

  /** Ends every connection; new ones are accepted. */
  cut(): void {
    for (const { client, upstream } of this.#pairs) {
      client.destroy();
      upstream.destroy();
    }
    this.#pairs.clear();
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.cut();
    await closed;
  }
}

export function portOf(url: string): number {
  return Number(new URL(url).port);
}
