/**
 * The peer transport of real members: one HTTP server per listen URL, one dialled connection to every other member.
 *
 *   GET /members, /version            who is in the cluster (joiners ask), which version
 *   Upgrade on /raft/stream           raft messages and requests, dialler to acceptor: peer-link.ts and inbound-stream.ts
 *   Upgrade on /raft/snapshot         a state snapshot: snapshot-send.ts and snapshot-accept.ts
 *
 * Senders which are not members (yet) are heard when they name the right cluster and were not removed: a joiner may be contacted by members it
 * has not learnt of. Their URLs are remembered, and dialled only once raft wants to answer them.
 */
import * as http from "node:http";
import * as https from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { assert } from "../../base/assert.ts";
import { hexId, type MemberId } from "../../base/ids.ts";
import type { Message, SnapshotRequest } from "../../raft/index.ts";
import { PeerFrameError, PeerTransportClosedError, PeerUnavailableError, SnapshotInProgressError } from "./errors.ts";
import { FramedSocket } from "./framed-socket.ts";
import { checkHandshake, parsePeerUrl, RAFT_PATH, RAFT_PROTOCOL, SNAPSHOT_PATH, SNAPSHOT_PROTOCOL } from "./handshake.ts";
import { InboundStream } from "./inbound-stream.ts";
import { PeerLink } from "./peer-link.ts";
import { SnapshotAcceptor } from "./snapshot-accept.ts";
import { sendSnapshot } from "./snapshot-send.ts";
import type { PeerAddress, PeerHandlers, PeerRequestKind, PeerTransport, SnapshotSource } from "./transport.ts";
import { type HttpPeerTransportOptions, resolveLimits, type TransportContext } from "./transport-context.ts";

/** Senders outside the membership that are remembered, and connections from peers of each kind. */
const REMOTES_MAX = 32;
const STREAMS_MAX = 64;
const SNAPSHOT_STREAMS_MAX = 8;
const HEADERS_TIMEOUT_MS = 10_000;
/** Longest wait for handlers to return when closing. */
const CLOSE_WAIT_MS = 5000;
const REFUSAL_LOG_INTERVAL_MS = 5000;

export interface HttpPeerTransport extends PeerTransport {
  /** Binds the listeners before `start`, for those who must know their ports first. Connections are refused with 503 until `start`. */
  bind(): Promise<void>;
  /** The listen URLs with the ports that were really bound; empty before `bind` or `start` has resolved. */
  boundUrls(): readonly string[];
}

export function createHttpPeerTransport(options: HttpPeerTransportOptions): HttpPeerTransport {
  return new HttpTransport(options);
}

class HttpTransport implements HttpPeerTransport {
  readonly #options: HttpPeerTransportOptions;
  readonly #limits: ReturnType<typeof resolveLimits>;
  #handlers: PeerHandlers | undefined;
  #context: TransportContext | undefined;
  readonly #servers: (http.Server | https.Server)[] = [];
  #boundUrls: readonly string[] = [];
  #bound: Promise<void> | undefined;
  /** The listener that is being bound: until then it cannot be closed. */
  #binding: Promise<string> | undefined;
  /** Every connection, of whatever kind, until it is closed. */
  readonly #sockets = new Set<Socket>();
  #peers: readonly PeerAddress[] = [];
  readonly #links = new Map<MemberId, PeerLink>();
  /** Senders that are not members; oldest first. */
  readonly #remotes = new Map<MemberId, { urls: readonly string[]; link: PeerLink | undefined }>();
  readonly #streams = new Map<MemberId, InboundStream>();
  readonly #snapshotsIn = new Map<MemberId, SnapshotAcceptor>();
  readonly #snapshotsOut = new Map<MemberId, AbortController>();
  /** Handlers and sends under way, for `close` to wait for. */
  readonly #running = new Set<Promise<void>>();
  /** When each refusal was last logged. */
  readonly #refusalsLogged = new Map<string, number>();
  #removedReported = false;
  #closing: Promise<void> | undefined;

  constructor(options: HttpPeerTransportOptions) {
    this.#options = options;
    this.#limits = resolveLimits(options.limits);
  }

  boundUrls(): readonly string[] {
    return this.#boundUrls;
  }

  async start(handlers: PeerHandlers): Promise<void> {
    assert(this.#handlers === undefined, "a transport starts once");
    this.#handlers = handlers;
    if (this.#closing !== undefined) throw new PeerTransportClosedError();
    const { clock, random, logger, observer, serverVersion, advertisedPeerUrls, tls } = this.#options;
    this.#context = {
      clock,
      random,
      logger,
      observer: observer ?? {},
      identity: { clusterId: handlers.clusterId, memberId: handlers.memberId, serverVersion },
      limits: this.#limits,
      advertisedPeerUrls,
      tlsClient: tls?.client,
      track: (socket) => this.#track(socket),
      unreachable: (peer) =>
        queueMicrotask(() => {
          if (this.#closing === undefined) handlers.onUnreachable(peer);
        }),
      removed: () => this.#reportRemoved(),
    };
    await this.bind();
    if (this.#closing !== undefined) throw new PeerTransportClosedError();
    this.#reconcile();
  }

  bind(): Promise<void> {
    this.#bound ??= this.#bind();
    return this.#bound;
  }

  async #bind(): Promise<void> {
    // What is bound after `close` would never be closed.
    if (this.#closing !== undefined) throw new PeerTransportClosedError();
    try {
      const bound: string[] = [];
      for (const url of this.#options.listenUrls) {
        const binding = this.#listen(url);
        this.#binding = binding;
        bound.push(await binding);
        if (this.#closing !== undefined) throw new PeerTransportClosedError();
      }
      this.#boundUrls = bound;
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  setPeers(peers: readonly PeerAddress[]): void {
    this.#peers = peers.map(({ id, urls }) => ({ id, urls: [...urls] }));
    this.#reconcile();
  }

  send(messages: readonly Message[]): void {
    if (this.#closing !== undefined) return;
    for (const message of messages) {
      assert(message.type !== "snapshot", "a snapshot message travels with its state");
      this.#linkTo(message.to)?.enqueue(message);
    }
  }

  async sendSnapshot(message: SnapshotRequest, source: SnapshotSource, signal: AbortSignal): Promise<void> {
    const peer = message.to;
    const context = this.#context;
    if (this.#closing !== undefined || context === undefined) throw new PeerTransportClosedError();
    if (this.#snapshotsOut.has(peer)) throw new SnapshotInProgressError(peer);
    if (this.#urlsOf(peer).length === 0) throw new PeerUnavailableError(peer, "it is not known here");
    const controller = new AbortController();
    this.#snapshotsOut.set(peer, controller);
    const { clock, observer } = context;
    const startedMs = clock.monotonicMs();
    observer.snapshotSend?.(peer, { type: "started" });
    const combined = AbortSignal.any([signal, controller.signal]);
    const task = sendSnapshot(context, { peer, urls: () => this.#urlsOf(peer) }, message, source, combined);
    const done = this.#remember(task);
    try {
      await task;
      observer.snapshotSend?.(peer, { type: "succeeded", ms: clock.monotonicMs() - startedMs, bytes: source.info.sizeBytes });
    } catch (error) {
      observer.snapshotSend?.(peer, { type: "failed", ms: clock.monotonicMs() - startedMs });
      throw error;
    } finally {
      this.#snapshotsOut.delete(peer);
      await done;
    }
  }

  request(to: MemberId, kind: PeerRequestKind, body: Uint8Array, options: { signal: AbortSignal }): Promise<Uint8Array> {
    if (this.#closing !== undefined) return Promise.reject(new PeerTransportClosedError());
    const link = this.#linkTo(to);
    if (link === undefined) return Promise.reject(new PeerUnavailableError(to, "it is not known here"));
    return link.request(kind, body, options.signal);
  }

  activeSince(peer: MemberId): number | undefined {
    return this.#links.get(peer)?.connectedSinceMs;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    for (const link of this.#links.values()) link.close();
    for (const remote of this.#remotes.values()) remote.link?.close();
    for (const controller of this.#snapshotsOut.values()) controller.abort(new PeerTransportClosedError());
    for (const stream of [...this.#streams.values()]) stream.destroy(new PeerTransportClosedError());
    for (const acceptor of [...this.#snapshotsIn.values()]) acceptor.destroy(new PeerTransportClosedError());
    const gone = [...this.#sockets].map((socket) => new Promise<void>((resolve) => socket.once("close", () => resolve())));
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(gone);
    if (this.#binding !== undefined) await Promise.allSettled([this.#binding]);
    await Promise.all(this.#servers.map((server) => closeServer(server)));
    if (!(await this.#settled([...this.#running], CLOSE_WAIT_MS)))
      this.#options.logger.warn({ count: this.#running.size }, "peer handlers did not return while closing");
  }

  /** True when all have settled, false when the time was over first. */
  #settled(tasks: readonly Promise<unknown>[], ms: number): Promise<boolean> {
    if (tasks.length === 0) return Promise.resolve(true);
    return new Promise((resolve) => {
      const timer = this.#options.clock.timer(ms, () => resolve(false));
      void Promise.allSettled(tasks).then(() => {
        timer.cancel();
        resolve(true);
      });
    });
  }

  #remember(task: Promise<unknown>): Promise<void> {
    const settled = task.then(
      () => undefined,
      () => undefined,
    );
    this.#running.add(settled);
    return settled.then(() => {
      this.#running.delete(settled);
    });
  }

  #reportRemoved(): void {
    if (this.#removedReported || this.#closing !== undefined) return;
    this.#removedReported = true;
    this.#options.logger.warn({}, "a peer reports that this member was removed from the cluster");
    queueMicrotask(() => {
      if (this.#closing === undefined) this.#handlers?.onRemoved();
    });
  }

  /** Makes the links fit the members. Before `start` there is nothing to do. */
  #reconcile(): void {
    const context = this.#context;
    const handlers = this.#handlers;
    if (context === undefined || handlers === undefined || this.#closing !== undefined) return;
    const wanted = new Set<MemberId>();
    for (const { id, urls } of this.#peers) {
      if (id === handlers.memberId) continue;
      wanted.add(id);
      let link = this.#links.get(id);
      if (link === undefined) {
        link = this.#remotes.get(id)?.link ?? new PeerLink(context, id, urls);
        this.#links.set(id, link);
      }
      this.#remotes.delete(id);
      link.setUrls(urls);
      link.start();
    }
    for (const [id, link] of this.#links) {
      if (wanted.has(id)) continue;
      link.close();
      this.#links.delete(id);
      this.#snapshotsOut.get(id)?.abort(new PeerUnavailableError(id, "it is no member any more"));
    }
    for (const [id, remote] of this.#remotes) {
      if (!handlers.isRemoved(id)) continue;
      remote.link?.close();
      this.#remotes.delete(id);
    }
    for (const [id, stream] of this.#streams) {
      if (handlers.isRemoved(id)) stream.destroy(new Error("the sender was removed"));
    }
  }

  #linkTo(peer: MemberId): PeerLink | undefined {
    const link = this.#links.get(peer);
    if (link !== undefined) return link;
    const remote = this.#remotes.get(peer);
    if (remote === undefined || this.#context === undefined) return undefined;
    remote.link ??= new PeerLink(this.#context, peer, remote.urls);
    return remote.link;
  }

  #urlsOf(peer: MemberId): readonly string[] {
    return this.#links.get(peer)?.urls ?? this.#remotes.get(peer)?.urls ?? [];
  }

  #learn(from: MemberId, urls: readonly string[]): void {
    const link = this.#links.get(from);
    if (link !== undefined) {
      link.kick();
      return;
    }
    if (urls.length === 0) return;
    const known = this.#remotes.get(from);
    if (known !== undefined) {
      known.urls = urls;
      known.link?.setUrls(urls);
      known.link?.kick();
      return;
    }
    if (this.#remotes.size >= REMOTES_MAX) {
      const oldest = this.#remotes.keys().next().value;
      if (oldest !== undefined) {
        this.#remotes.get(oldest)?.link?.close();
        this.#remotes.delete(oldest);
      }
    }
    this.#remotes.set(from, { urls, link: undefined });
  }

  #track(socket: Socket): void {
    if (this.#closing !== undefined) {
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
  }

  async #listen(url: string): Promise<string> {
    const endpoint = parsePeerUrl(url);
    if (endpoint === undefined) throw new Error(`not a peer URL: ${url}`);
    const settings: http.ServerOptions = {
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: HEADERS_TIMEOUT_MS,
      keepAliveTimeout: 5000,
      connectionsCheckingInterval: 2000,
      keepAlive: true,
      keepAliveInitialDelay: 30_000,
    };
    const server = endpoint.secure
      ? https.createServer({ handshakeTimeout: HEADERS_TIMEOUT_MS, ...this.#options.tls?.server, ...settings })
      : http.createServer(settings);
    server.maxConnections = this.#limits.connectionsMax;
    server.on("request", (request, response) => this.#answer(request, response));
    server.on("upgrade", (request, socket, head) => {
      try {
        this.#upgrade(request, socket as Socket, head);
      } catch (error) {
        this.#options.logger.error({ error: String(error) }, "failed to accept a peer connection");
        socket.destroy();
      }
    });
    server.on("connection", (socket) => this.#track(socket));
    server.on("clientError", (_error, socket) => this.#badRequest(socket));
    if (endpoint.secure) server.on("tlsClientError", () => this.#context?.observer.receiveFailed?.(undefined));
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => {
      const failed = (error: Error): void => reject(error);
      server.once("error", failed);
      server.listen(endpoint.port, endpoint.host, () => {
        server.removeListener("error", failed);
        server.on("error", (error) => this.#options.logger.error({ error: error.message, url }, "peer listener failed"));
        resolve();
      });
    });
    const address = server.address();
    assert(address !== null && typeof address === "object", "a bound TCP listener has an address");
    const bound = new URL(url);
    bound.port = String(address.port);
    // The URL class leaves out a scheme's default port; a port is always named here.
    return `${bound.protocol}//${bound.hostname}:${address.port}`;
  }

  #badRequest(socket: Duplex): void {
    this.#context?.observer.receiveFailed?.(undefined);
    if (socket.writable) socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    socket.destroy();
  }

  #answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    const { status, headers, body } = this.#plain(request.method, request.url);
    // A body is of no use here; closing spares reading it.
    const hasBody = request.headers["content-length"] !== undefined || request.headers["transfer-encoding"] !== undefined;
    if (hasBody) response.shouldKeepAlive = false;
    response.writeHead(status, headers);
    response.end(body);
    if (hasBody) response.once("finish", () => request.socket.destroy());
  }

  /** The endpoints without an upgrade. */
  #plain(method: string | undefined, url: string | undefined): { status: number; headers: Record<string, string>; body: string } {
    const handlers = this.#handlers;
    // Bound, but this member does not know yet who it is.
    if (handlers === undefined) return { status: 503, headers: { "Content-Type": TEXT }, body: "starting\n" };
    const headers: Record<string, string> = { "X-Etcd-Cluster-Id": hexId(handlers.clusterId) };
    const path = (url ?? "").split("?", 1)[0];
    if (path !== "/members" && path !== "/version") {
      return { status: 404, headers: { ...headers, "Content-Type": TEXT }, body: "404 page not found\n" };
    }
    if (method !== "GET") return { status: 405, headers: { ...headers, "Content-Type": TEXT, Allow: "GET" }, body: "Method Not Allowed\n" };
    try {
      const body = path === "/members" ? handlers.membersJson() : handlers.versionJson();
      return { status: 200, headers: { ...headers, "Content-Type": "application/json" }, body };
    } catch (error) {
      this.#options.logger.error({ error: String(error), path }, "failed to answer on the peer port");
      return { status: 500, headers: { ...headers, "Content-Type": TEXT }, body: "Internal Server Error\n" };
    }
  }

  #upgrade(request: http.IncomingMessage, socket: Socket, head: Uint8Array): void {
    const context = this.#context;
    const handlers = this.#handlers;
    // Until it is a framed socket, an error ends it quietly.
    const swallow = (): void => {
      socket.destroy();
    };
    socket.on("error", swallow);
    this.#track(socket);
    if (this.#closing !== undefined) return;
    if (context === undefined || handlers === undefined) {
      const { status, headers, body } = this.#plain(request.method, request.url);
      this.#writeResponse(socket, status, headers, body);
      return;
    }
    const path = (request.url ?? "").split("?", 1)[0];
    const protocol = path === RAFT_PATH ? RAFT_PROTOCOL : path === SNAPSHOT_PATH ? SNAPSHOT_PROTOCOL : undefined;
    if (protocol === undefined || request.method !== "GET") {
      // An Upgrade header alone (h2c of some clients) does not change what the plain endpoints answer.
      const { status, headers, body } = this.#plain(request.method, request.url);
      this.#writeResponse(socket, status, headers, body);
      return;
    }
    const outcome = checkHandshake(request.headers, protocol, context.identity, (id) => handlers.isRemoved(id));
    if (!outcome.ok) {
      context.observer.receiveFailed?.(undefined);
      this.#warnRefused(context, request, outcome.text);
      this.#refuse(socket, outcome.status, outcome.text);
      return;
    }
    const { from } = outcome;
    const streams = path === RAFT_PATH ? this.#streams : this.#snapshotsIn;
    const streamsMax = path === RAFT_PATH ? STREAMS_MAX : SNAPSHOT_STREAMS_MAX;
    if (streams.size >= streamsMax && !streams.has(from)) {
      this.#refuse(socket, 503, "too many peer connections");
      return;
    }
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n` +
        `X-Etcd-Cluster-Id: ${hexId(context.identity.clusterId)}\r\nX-Server-Version: ${context.identity.serverVersion}\r\n\r\n`,
    );
    this.#learn(from, outcome.peerUrls);
    if (path === RAFT_PATH) this.#acceptStream(context, handlers, from, socket, head);
    else this.#acceptSnapshot(context, handlers, from, socket, head);
    socket.removeListener("error", swallow);
  }

  #acceptStream(context: TransportContext, handlers: PeerHandlers, from: MemberId, socket: Socket, head: Uint8Array): void {
    // The same sender again: its older connection is a left-over of which it knows nothing any more.
    this.#streams.get(from)?.destroy(new Error("replaced by a newer connection"));
    const connection: FramedSocket = new FramedSocket(socket, head, {
      clock: context.clock,
      frameBytesMax: this.#limits.frameBytesMax,
      handlers: {
        onFrame: (kind, content) => stream.receive(kind, content),
        onClose: (reason) => {
          stream.ended();
          if (this.#streams.get(from) === stream) this.#streams.delete(from);
          this.#endedInbound(context, from, reason);
        },
      },
    });
    const stream = new InboundStream(context, handlers, from, connection, this.#running);
    this.#streams.set(from, stream);
    context.logger.info({ "remote-peer-id": hexId(from) }, "accepted connection of remote peer");
  }

  #acceptSnapshot(context: TransportContext, handlers: PeerHandlers, from: MemberId, socket: Socket, head: Uint8Array): void {
    const older = this.#snapshotsIn.get(from);
    older?.destroy(new Error("replaced by a newer connection"));
    const ready = async (): Promise<void> => {
      // The older stream's bytes must be stored before the newer one asks how many there are.
      if (older !== undefined && !(await this.#settled([older.finished], this.#limits.snapshotSilenceMs)))
        throw new SnapshotInProgressError(from);
    };
    const connection: FramedSocket = new FramedSocket(socket, head, {
      clock: context.clock,
      frameBytesMax: this.#limits.frameBytesMax,
      handlers: {
        onFrame: (kind, content) => {
          acceptor.receive(kind, content);
        },
        onClose: (reason) => {
          acceptor.ended(reason);
          void this.#remember(acceptor.finished).then(() => {
            if (this.#snapshotsIn.get(from) === acceptor) this.#snapshotsIn.delete(from);
          });
          this.#endedInbound(context, from, reason);
        },
      },
    });
    const acceptor = new SnapshotAcceptor(context, handlers, from, connection, ready);
    this.#snapshotsIn.set(from, acceptor);
  }

  #endedInbound(context: TransportContext, from: MemberId, reason: Error | undefined): void {
    if (reason === undefined || this.#closing !== undefined) return;
    context.observer.receiveFailed?.(from);
    const fields = { "remote-peer-id": hexId(from), error: reason.message };
    if (reason instanceof PeerFrameError) context.logger.warn(fields, "closed a peer connection because of what it sent");
    else context.logger.info(fields, "connection of remote peer ended");
  }

  /** A refused member comes again and again: once in a while is enough for each. */
  #warnRefused(context: TransportContext, request: http.IncomingMessage, text: string): void {
    const from = request.headers["x-server-from"];
    const key = `${request.socket.remoteAddress} ${from} ${text}`;
    const now = context.clock.monotonicMs();
    const last = this.#refusalsLogged.get(key);
    if (last !== undefined && now - last < REFUSAL_LOG_INTERVAL_MS) return;
    if (this.#refusalsLogged.size >= REMOTES_MAX) this.#refusalsLogged.clear();
    this.#refusalsLogged.set(key, now);
    context.logger.warn({ "remote-address": request.socket.remoteAddress, "remote-peer-id": from, text }, "refused a peer connection");
  }

  #refuse(socket: Socket, status: number, text: string): void {
    const { identity } = this.#context ?? {};
    this.#writeResponse(
      socket,
      status,
      {
        "Content-Type": TEXT,
        "X-Etcd-Cluster-Id": identity === undefined ? "" : hexId(identity.clusterId),
        "X-Server-Version": identity?.serverVersion ?? "",
      },
      `${text}\n`,
    );
  }

  #writeResponse(socket: Socket, status: number, headers: Readonly<Record<string, string>>, body: string): void {
    const lines = [`HTTP/1.1 ${status} ${http.STATUS_CODES[status] ?? ""}`];
    for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
    lines.push(`Content-Length: ${Buffer.byteLength(body)}`, "Connection: close", "", body);
    const linger = this.#options.clock.timer(2000, () => socket.destroy());
    socket.once("close", () => linger.cancel());
    socket.on("end", () => socket.destroy());
    socket.resume();
    socket.end(lines.join("\r\n"));
  }
}

const TEXT = "text/plain; charset=utf-8";

function closeServer(server: http.Server | https.Server): Promise<void> {
  return new Promise((resolve) => {
    // The error says that it was not listening (yet); it does not matter then.
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
