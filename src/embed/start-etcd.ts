/**
 * A whole member inside this process: `startEtcd(config)` gives what Go programs get from etcd's embed package. It installs no signal handlers, never exits
 * the process, keeps no state at package level, and leaves nothing behind after `close()`.
 */
import type { Socket } from "node:net";
import { LevelBackend, lockDirectory, MemoryBackend } from "../backend/index.ts";
import type { Clock } from "../base/clock.ts";
import { systemClock } from "../base/clock-system.ts";
import type { Disk } from "../base/disk.ts";
import { systemDisk } from "../base/disk-system.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import { hexId, type MemberId } from "../base/ids.ts";
import { type Logger, silentLogger } from "../base/logger.ts";
import type { Random } from "../base/random.ts";
import { systemRandom } from "../base/random-system.ts";
import { type EtcdClient, localClient } from "../client/index.ts";
import {
  bindMetrics,
  buildHttpApp,
  buildMetricsApp,
  ClientPort,
  createGrpcServer,
  createHttpPeerTransport,
  fetchMembers,
  type GrpcServer,
  type HttpApp,
  isOutOfSpace,
  metricsObserver,
  OutOfSpaceError,
  type PeerObserver,
  type PeerTransport,
  type RemoteMembers,
  SERVER_VERSION,
  Server,
  type ServerConfig,
  ServerFailedError,
  ServerMetrics,
  type ServerPorts,
  type Services,
} from "../server/index.ts";
import { openTokens } from "./auth-tokens.ts";
import { type EtcdConfig, type ListenUrl, type ResolvedConfig, resolveConfig, withBoundPorts } from "./config.ts";
import { LeaderChanges } from "./leader-changes.ts";
import { Supervisor } from "./supervisor.ts";
import { refusingServices, switchingServices } from "./switching-services.ts";

/**
 * "starting": until it serves for the first time; "waiting": it serves nobody because its disk is full, and goes on by itself when there is space; "failed": ended
 * by itself for good, see `failed`, but not closed yet.
 */
export type EtcdStatus = "starting" | "ready" | "waiting" | "failed" | "closing" | "closed";

/** A running member. */
export interface EtcdServer {
  readonly name: string;
  /** As etcd prints it: lower-case hex. */
  readonly id: string;
  readonly clusterId: string;
  /** Resolves when it serves: joined, published, with a leader. Rejects when it ended before. */
  readonly ready: Promise<void>;
  /**
   * Resolves with the reason when the member ended by itself for good (failed disk, broken invariant, removed from the cluster); stays pending otherwise. A full disk
   * is no such reason: then the member answers nobody until there is space, and goes on.
   */
  readonly failed: Promise<ServerFailedError>;
  /** Hex id of the leader that this member knows; undefined while there is none. */
  readonly leader: string | undefined;
  readonly isLeader: boolean;
  /** Where it is in its life. */
  readonly status: EtcdStatus;
  /** A client of this member without sockets: the interface of `holdfast/client`. It is closed with the member. */
  readonly client: EtcdClient;
  /** The hex id of the leader, then of each new one: `for await (const leader of server.leaderChanged)`. Ends with the member. */
  readonly leaderChanged: AsyncIterable<string>;
  /** Calls `listener` with the hex id of each new leader. Returns how to stop that. */
  onLeaderChanged(listener: (leader: string) => void): () => void;
  /** The v3 services, in process: no sockets, no encoding. The same object for as long as the member exists. */
  readonly services: Services;
  /** Where clients are served, with the ports really bound. */
  readonly clientUrls: readonly string[];
  readonly peerUrls: readonly string[];
  readonly metrics: ServerMetrics;
  /** For tests and tools that look inside: the present life of the member. Not covered by semantic versioning. */
  readonly server: Server;
  /** Hands leadership over, stops, and releases everything. Idempotent, in any state. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** How long clients' running calls may take to end when the member closes. */
const PEER_FRAME_BYTES = 64 * 1024 * 1024;
const CLOSE_GRACE_MS = 500;

/**
 * Starts a member. Resolves when it is started and bound, before it is ready: await `server.ready` before using it. An aborted `signal` ends the start, leaves
 * nothing behind and rejects with the signal's reason; later it has no effect.
 * @throws ConfigError with all problems of the configuration; BootstrapError when the data or the cluster do not fit it; the system's error for ports in use.
 */
export async function startEtcd(config: EtcdConfig = {}, options: { readonly signal?: AbortSignal } = {}): Promise<EtcdServer> {
  const { signal } = options;
  signal?.throwIfAborted();
  const member = new Member(resolveConfig(config));
  const onAbort = (): void => member.abortStart();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await member.start();
    signal?.throwIfAborted();
  } catch (error) {
    await member.close();
    throw signal?.aborted === true ? signal.reason : error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
  return member;
}

class Member implements EtcdServer {
  #config: ResolvedConfig;
  readonly metrics: ServerMetrics;
  readonly services: Services;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #disk: Disk;
  readonly #supervisor: Supervisor<Server, ServerFailedError>;
  readonly #clientPorts: ClientPort[] = [];
  readonly #metricsPorts: ClientPort[] = [];
  /** Bound before the first life begins, so that the ports are known; taken by it. */
  #boundTransport: PeerTransport | undefined;
  /** An injected transport that cannot be made again has been used. */
  #transportSpent = false;
  #http: HttpApp | undefined;
  #metricsHttp: HttpApp | undefined;
  #grpc: GrpcServer | undefined;
  #tokens: ServerPorts["tokens"];
  #memberId: MemberId | undefined;
  /** Filled in when the member knows its id; nothing is observed before. */
  readonly #peerObserver: PeerObserver = {};
  #clientUrls: readonly string[] = [];
  #peerUrls: readonly string[] = [];
  #closing: Promise<void> | undefined;
  #status: EtcdStatus = "starting";
  #client: EtcdClient | undefined;
  readonly #leaderListeners = new Set<(leader: string) => void>();
  readonly #leaderChanges = new LeaderChanges(() => this.leader);
  /** Ends what a start waits for when the member is closed meanwhile. */
  readonly #abort = new AbortController();

  constructor(config: ResolvedConfig) {
    this.#config = config;
    const { injected } = config;
    this.#logger = injected.logger ?? silentLogger;
    this.#clock = injected.clock ?? systemClock();
    this.#random = injected.random ?? systemRandom();
    this.#disk = config.server.unsafeNoFsync ? withoutSync(injected.disk ?? systemDisk()) : (injected.disk ?? systemDisk());
    this.metrics = new ServerMetrics();
    this.#supervisor = new Supervisor({
      clock: this.#clock,
      logger: this.#logger,
      begin: () => this.#begin(),
      onBegun: (life) => this.#follow(life),
      onOutage: () => this.#become("waiting"),
      passes: (failure) => (failure.failure === "space" && !this.#transportSpent ? new OutOfSpaceError({ cause: failure }) : undefined),
      // A port may be in use because somebody took it meanwhile, and gives it back.
      mayRetry: (error) => isOutOfSpace(error) || (error as { code?: unknown }).code === "EADDRINUSE",
      toFailure,
    });
    this.#supervisor.ready.then(
      () => this.#become("ready"),
      () => undefined, // The owner is told by `ready` itself.
    );
    void this.#supervisor.failed.then(() => this.#become("failed"));
    this.services = switchingServices(() => this.#presentServices());
  }

  get server(): Server {
    const { life } = this.#supervisor;
    if (life === undefined) throw new EtcdError("not-started", GrpcCode.FailedPrecondition, "the member is not started");
    return life;
  }

  get name(): string {
    return this.#config.server.name;
  }

  get id(): string {
    return hexId(this.server.memberId);
  }

  get clusterId(): string {
    return hexId(this.server.clusterId);
  }

  get ready(): Promise<void> {
    return this.#supervisor.ready;
  }

  get failed(): Promise<ServerFailedError> {
    return this.#supervisor.failed;
  }

  get leader(): string | undefined {
    const { leader } = this.server;
    return leader === 0n ? undefined : hexId(leader);
  }

  get isLeader(): boolean {
    return this.server.isLeader;
  }

  get status(): EtcdStatus {
    return this.#status;
  }

  get client(): EtcdClient {
    if (this.#client === undefined) {
      this.#client = localClient({ members: [{ name: this.name, services: () => this.services }], clock: this.#clock });
      if (this.#closing !== undefined) this.#client.close();
    }
    return this.#client;
  }

  get leaderChanged(): AsyncIterable<string> {
    return this.#leaderChanges;
  }

  get clientUrls(): readonly string[] {
    return this.#clientUrls;
  }

  get peerUrls(): readonly string[] {
    return this.#peerUrls;
  }

  onLeaderChanged(listener: (leader: string) => void): () => void {
    this.#leaderListeners.add(listener);
    return () => this.#leaderListeners.delete(listener);
  }

  abortStart(): void {
    this.#abort.abort();
  }

  async start(): Promise<void> {
    for (const notice of this.#config.notices) this.#logger[notice.level](notice.fields, notice.message);
    this.#tokens = await openTokens(this.#config.authTokens, this.#clock);
    if (this.#config.injected.transport === undefined) {
      const transport = this.#httpTransport(this.#config.listen.peer.map((url) => url.url));
      this.#boundTransport = transport;
      await transport.bind();
      this.#peerUrls = transport.boundUrls();
    }
    await this.#bindClientPorts();
    this.#config = withBoundPorts(this.#config, { peer: this.#peerUrls, client: this.#clientUrls });
    await this.#supervisor.start();
    await this.#serve(this.#config.server);
  }

  /** One life: all that the member is made of, but what faces its clients. */
  async #begin(): Promise<Server> {
    const { server: config, injected } = this.#config;
    const transport = this.#takeTransport();
    const { passwords } = injected;
    const ports: ServerPorts = {
      clock: this.#clock,
      random: this.#random,
      disk: this.#disk,
      logger: this.#logger,
      lockDirectory,
      openBackend: (directory) => (config.inMemory ? Promise.resolve(new MemoryBackend()) : LevelBackend.open({ directory })),
      defer: injected.defer ?? ((fn) => void setImmediate(fn)),
      // Of all lives, so closed behind the last one.
      ...(passwords === undefined
        ? {}
        : {
            passwords: {
              hash: (password, salt, signal) => passwords.hash(password, salt, signal),
              verify: (password, hash, signal) => passwords.verify(password, hash, signal),
              close: () => Promise.resolve(),
            },
          }),
      tokens: this.#tokens,
    };
    try {
      return await Server.start({
        config,
        ports,
        transport,
        fetchMembers: async (urls, timeoutMs) =>
          transport.fetchMembers === undefined ? askMembers(this.#clock, urls, timeoutMs, this.#abort.signal) : transport.fetchMembers(),
        observer: metricsObserver(this.metrics, () => this.#memberId),
        onIdentity: ({ memberId }) => {
          if (this.#memberId !== undefined) return;
          // Only now: a member that does not get as far has nothing to say about tokens.
          if (this.#config.authTokens.kind === "simple") this.#logger.warn({}, "simple token is not cryptographically signed");
          this.#memberId = memberId;
          Object.assign(this.#peerObserver, this.metrics.peerObserver(memberId));
        },
      });
    } catch (error) {
      await transport.close();
      throw error;
    }
  }

  /** Each life has its own. */
  #takeTransport(): PeerTransport {
    const { transport } = this.#config.injected;
    if (typeof transport === "function") return transport();
    if (transport !== undefined) {
      this.#transportSpent = true;
      return transport;
    }
    const bound = this.#boundTransport;
    this.#boundTransport = undefined;
    return bound ?? this.#httpTransport(this.#peerUrls);
  }

  #httpTransport(listenUrls: readonly string[]): ReturnType<typeof createHttpPeerTransport> {
    const { server } = this.#config;
    return createHttpPeerTransport({
      listenUrls,
      advertisedPeerUrls: server.initialAdvertisePeerUrls,
      serverVersion: SERVER_VERSION,
      clock: this.#clock,
      random: this.#random,
      logger: this.#logger,
      observer: this.#peerObserver,
      // One entry must always fit into a frame.
      limits: { frameBytesMax: Math.max(PEER_FRAME_BYTES, 2 * server.maxRequestBytes) },
    });
  }

  #presentServices(): Services {
    const { outage, life } = this.#supervisor;
    if (outage === undefined) return this.server.services;
    return refusingServices(outage, () =>
      life === undefined ? { server: SERVER_VERSION, cluster: "not_decided", storage: "unknown" } : life.services.health.versions(),
    );
  }

  close(): Promise<void> {
    this.#closing ??= this.#close().finally(() => {
      this.#status = "closed";
    });
    return this.#closing;
  }

  #follow(life: Server): void {
    bindMetrics(this.metrics, life);
    life.onLeaderChanged((leader) => {
      const id = hexId(leader);
      this.#leaderChanges.changed(id);
      for (const listener of [...this.#leaderListeners]) listener(id);
    });
    if (this.#status !== "waiting") return;
    life.ready.then(
      () => this.#become("ready"),
      () => undefined, // As above.
    );
  }

  #become(status: "ready" | "waiting" | "failed"): void {
    if (this.#closing !== undefined || this.#status === "failed") return;
    this.#status = status;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #bindClientPorts(): Promise<void> {
    const { listen } = this.#config;
    const separate = listen.clientHttp.length > 0;
    const urls: string[] = [];
    for (const url of listen.client) {
      const port = this.#clientPort(url, { http: !separate, http2: true });
      await port.listen();
      urls.push(boundUrl(url, port));
    }
    for (const url of listen.clientHttp) await this.#clientPort(url, { http: true, http2: false }).listen();
    for (const url of listen.metrics) {
      const port = new ClientPort({
        clock: this.#clock,
        address: url,
        http: (socket) => handOver(socket, this.#metricsHttp),
        http2: undefined,
        onError: (error) => this.#logger.warn({ error: error.message }, "metrics listener failed"),
      });
      this.#metricsPorts.push(port);
      await port.listen();
    }
    this.#clientUrls = urls;
  }

  #clientPort(url: ListenUrl, serves: { http: boolean; http2: boolean }): ClientPort {
    const port = new ClientPort({
      clock: this.#clock,
      address: url,
      http: serves.http ? (socket) => handOver(socket, this.#http) : undefined,
      http2: serves.http2 ? (socket) => handOver(socket, this.#grpc) : undefined,
      onError: (error) => this.#logger.warn({ error: error.message }, "client listener failed"),
    });
    this.#clientPorts.push(port);
    return port;
  }

  async #serve(config: ServerConfig): Promise<void> {
    const { services } = this;
    const onBug = (error: unknown): void => this.server.fail(error);
    const requestTimeoutMs = 5000 + 2 * config.electionMs;
    const shared = { metrics: this.metrics, clock: this.#clock, logger: this.#logger, requestTimeoutMs };
    if (this.#metricsPorts.length > 0) {
      this.#metricsHttp = await buildMetricsApp({ ...shared, health: services.health });
      for (const port of this.#metricsPorts) port.serve();
    }
    if (this.#clientPorts.length === 0) return;
    this.#http = await buildHttpApp({
      ...shared,
      services,
      cors: this.#config.cors,
      hostWhitelist: this.#config.hostWhitelist,
      enableGateway: this.#config.enableGrpcGateway,
      clientCertAuth: config.clientCertAuth,
      authEnabled: () => this.server.state.auth.enabled,
      maxRequestBytes: config.maxRequestBytes,
      raftStatus: () => this.server.raftStatus(),
      onBug,
    });
    this.#grpc = await createGrpcServer({
      services,
      metrics: this.metrics,
      clock: this.#clock,
      logger: this.#logger,
      maxRequestBytes: config.maxRequestBytes,
      limits: this.#config.grpc,
      onBug,
    });
    this.ready.then(
      () => {
        if (this.#closing !== undefined) return;
        for (const port of this.#clientPorts) port.serve();
        this.#logger.info({ name: config.name }, "ready to serve client requests");
        for (const url of this.#clientUrls)
          this.#logger.info({ address: url }, "serving client traffic insecurely; this is strongly discouraged!");
      },
      () => undefined,
    );
  }

  async #close(): Promise<void> {
    this.#status = "closing";
    this.#abort.abort();
    this.#client?.close();
    this.#leaderChanges.end();
    // Clients first: they must not see the parts end one by one.
    // A port has closed when its last connection has, and a watch or an idle connection only ends with the HTTP server that holds it.
    const portsClosed = Promise.all([...this.#clientPorts, ...this.#metricsPorts].map((port) => port.close()));
    await Promise.all([this.#http?.close({ graceMs: CLOSE_GRACE_MS }), this.#grpc?.close({ graceMs: CLOSE_GRACE_MS })]);
    await this.#metricsHttp?.close({ graceMs: 0 });
    await portsClosed;
    await this.#supervisor.close();
    await this.#boundTransport?.close();
    await this.#config.injected.passwords?.close();
  }
}

/** For good: the data does not fit any more, or something else than space is missing. */
function toFailure(error: unknown): ServerFailedError {
  const cause = error instanceof Error ? error : new Error(String(error));
  return new ServerFailedError("storage", cause.message, { cause });
}

function handOver(socket: Socket, app: { handle(socket: Socket): void } | undefined): void {
  if (app === undefined) socket.destroy();
  else app.handle(socket);
}

function boundUrl(url: ListenUrl, port: ClientPort): string {
  if (url.kind === "unix" || url.port !== 0) return url.url;
  return url.url.replace(/:0$/, `:${port.port}`);
}

async function askMembers(
  clock: Clock,
  urls: readonly string[],
  timeoutMs: number,
  signal: AbortSignal,
): Promise<RemoteMembers | undefined> {
  if (urls.length === 0) return undefined;
  try {
    const { clusterId, members } = await fetchMembers(urls, { timeoutMs, clock, signal });
    return { clusterId, members };
  } catch (error) {
    if (EtcdError.is(error)) return undefined;
    throw error;
  }
}

/** `--unsafe-no-fsync`: a power failure may lose what was acknowledged. */
function withoutSync(disk: Disk): Disk {
  const nothing = (): Promise<void> => Promise.resolve();
  return {
    ...disk,
    syncDirectory: nothing,
    async open(path, options) {
      const file = await disk.open(path, options);
      return {
        read: (position, length) => file.read(position, length),
        write: (position, bytes) => file.write(position, bytes),
        writeNow: (position, bytes) => file.writeNow(position, bytes),
        sync: nothing,
        syncNow: () => undefined,
        sizeBytes: () => file.sizeBytes(),
        truncate: (sizeBytes) => file.truncate(sizeBytes),
        close: () => file.close(),
      };
    },
  };
}
