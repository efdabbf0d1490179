/**
 * The HTTP/1.1 side of the client port, apart from listening: the JSON gateway, health, version, metrics, and whatever routes an embedding program
 * adds. The port hands over accepted sockets whose first bytes are HTTP/1.
 *
 * Requests pass in this order: one at a time per connection, host check, CORS, tidy paths (all by the rules of etcd's Go router), then the gateway
 * straight on Node's request (fastify's route and reply cost about a third of what the rest of a call costs), then fastify for everything else.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/logger.ts";
import type { ServerMetrics } from "../metrics.ts";
import type { HealthService, Services } from "../services/services.contract.ts";
import { AccessControl, type AccessOptions } from "./access.ts";
import { answer, answerBadRequest, answerError, answerNotFound, answerRedirect, decideHeaders } from "./answers.ts";
import { Connection, type ConnectionLimits, ConnectionTable, DEFAULT_LIMITS } from "./connections.ts";
import { answerDebugVars, answerMetrics, answerVersion } from "./endpoints.ts";
import { BETA_PREFIX, GATEWAY_PREFIX, Gateway } from "./gateway.ts";
import { gatewayLimits } from "./gateway-limits.ts";
import { GatewayParts } from "./gateway-parts.ts";
import { answerHealth, answerProbe, type HealthOptions, PROBES } from "./health.ts";
import { cleanPath, encodePath, parseTarget, type Target } from "./request-path.ts";

/** Longest header block of a request in bytes; tokens are the only thing in it that can be long. */
const HEADER_BYTES_MAX = 64 * 1024;

export interface HttpAppOptions extends AccessOptions {
  readonly services: Services;
  readonly metrics: ServerMetrics;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly enableGateway: boolean;
  readonly maxRequestBytes: number;
  /** How long the read behind `/health` may take: five seconds and two election timeouts, in ms. */
  readonly requestTimeoutMs: number;
  /** What `/debug/vars` shows as `raft.status`; ids may be bigints. */
  readonly raftStatus?: () => unknown;
  /** A call failed with something that is no EtcdError: a bug. The owner stops the instance. */
  readonly onBug?: (error: unknown) => void;
  /** Adds routes and plugins of an embedding program. They come after the gateway and the host and origin checks. */
  readonly register?: (app: FastifyInstance) => void | Promise<void>;
  readonly limits?: Partial<ConnectionLimits>;
}

export interface MetricsAppOptions {
  readonly health: HealthService;
  readonly metrics: ServerMetrics;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly requestTimeoutMs: number;
  readonly limits?: Partial<ConnectionLimits>;
}

/** An HTTP/1.1 server without a port of its own. */
export interface HttpApp {
  /** For those who want to listen with it or look at it. Its connections are tracked like those of {@link HttpApp.handle}. */
  readonly server: Server;
  readonly fastify: FastifyInstance;
  /** Connections that are open. */
  readonly connections: number;
  /** Takes an accepted socket (after its handshake, if it is TLS). Bytes that were read of it must have been put back with `unshift`. */
  handle(socket: Socket): void;
  /** Idle connections end at once, others with their current answer, all after `graceMs`. Idempotent. */
  close(options: { readonly graceMs: number }): Promise<void>;
}

/** The app of the client port. */
export async function buildHttpApp(options: HttpAppOptions): Promise<HttpApp> {
  const { services, metrics, clock, logger } = options;
  const parts = new GatewayParts({
    services,
    metrics,
    clock,
    logger,
    limits: gatewayLimits(options.maxRequestBytes),
    onBug: options.onBug ?? (() => undefined),
  });
  const gateway = options.enableGateway ? new Gateway(parts) : undefined;
  const app = new App({ access: new AccessControl(options), gateway, clock, logger, limits: options.limits });
  const health = { health: services.health, metrics, clock, logger, requestTimeoutMs: options.requestTimeoutMs };
  addHealth(app, health);
  app.route("/version", (req, res) => answerVersion(services.health, req, res));
  app.route("/metrics", (req, res) => answerMetrics(metrics, logger, req, res));
  app.route("/debug/vars", (req, res) => answerDebugVars(options.raftStatus ?? (() => null), metrics, req, res));
  await app.ready(options.register);
  return app;
}

/** The app of `--listen-metrics-urls`: metrics and health only, without host check, CORS and gateway. */
export async function buildMetricsApp(options: MetricsAppOptions): Promise<HttpApp> {
  const { metrics, clock, logger } = options;
  const app = new App({ access: undefined, gateway: undefined, clock, logger, limits: options.limits });
  addHealth(app, options);
  app.route("/metrics", (req, res) => answerMetrics(metrics, logger, req, res));
  await app.ready(undefined);
  return app;
}

function addHealth(app: App, options: HealthOptions): void {
  app.route("/health", (req, res) => answerHealth(options, req, res, queryOf(req)));
  for (const probe of ["livez", "readyz"] as const) {
    app.route(`/${probe}`, (req, res) => answerProbe(options, probe, undefined, req, res, queryOf(req)));
    for (const check of PROBES[probe])
      app.route(`/${probe}/${check}`, (req, res) => answerProbe(options, probe, check, req, res, queryOf(req)));
  }
}

function queryOf(req: IncomingMessage): URLSearchParams {
  const url = req.url ?? "";
  const mark = url.indexOf("?");
  return new URLSearchParams(mark < 0 ? "" : url.slice(mark + 1));
}

type Handler = (req: IncomingMessage, res: ServerResponse) => void | Promise<void>;

class App implements HttpApp {
  readonly server: Server;
  readonly fastify: FastifyInstance;
  readonly #access: AccessControl | undefined;
  readonly #gateway: Gateway | undefined;
  readonly #logger: Logger;
  readonly #table: ConnectionTable;
  /** By exact path; fastify asks here too, so that it need not know every method that HTTP has. */
  readonly #routes = new Map<string, Handler>();
  #routeThroughFastify: Handler = answerNotFound;
  #closed: Promise<void> | undefined;

  constructor(options: {
    access: AccessControl | undefined;
    gateway: Gateway | undefined;
    clock: Clock;
    logger: Logger;
    limits: Partial<ConnectionLimits> | undefined;
  }) {
    this.#access = options.access;
    this.#gateway = options.gateway;
    this.#logger = options.logger;
    this.#table = new ConnectionTable(options.clock, { ...DEFAULT_LIMITS, ...options.limits }, (connection, req, res) =>
      this.#serve(connection, req, res),
    );
    this.server = this.#makeServer();
    this.fastify = fastify({
      logger: false,
      exposeHeadRoutes: false,
      serverFactory: (handler) => {
        this.#routeThroughFastify = handler;
        return this.server;
      },
    });
  }

  get connections(): number {
    return this.#table.size;
  }

  /** One endpoint, for all methods. */
  route(path: string, handler: Handler): void {
    this.#routes.set(path, handler);
  }

  async ready(register: ((app: FastifyInstance) => void | Promise<void>) | undefined): Promise<void> {
    // Before bodies are read: a body that fastify could not read would be answered with something else than 404.
    this.fastify.addHook("onRequest", async (request: FastifyRequest, reply: FastifyReply) => {
      if (!request.is404) return;
      reply.hijack();
      answerNotFound(request.raw, reply.raw);
    });
    if (register !== undefined) await register(this.fastify);
    await this.fastify.ready();
  }

  handle(socket: Socket): void {
    this.server.emit("connection", socket);
    // Accepted in the paused state, or paused to look at its first bytes.
    socket.resume();
  }

  close(options: { readonly graceMs: number }): Promise<void> {
    this.#closed ??= this.#close(options.graceMs);
    return this.#closed;
  }

  async #close(graceMs: number): Promise<void> {
    await this.#table.close(graceMs);
    await this.fastify.close();
  }

  #makeServer(): Server {
    const server = createServer({
      maxHeaderSize: HEADER_BYTES_MAX,
      // Streams may be open for ever and connections idle; the connection table watches over headers and bodies.
      requestTimeout: 0,
      keepAliveTimeout: 0,
    });
    // A client that closes its side still gets its answer.
    (server as Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
    server.on("connection", (socket: Socket) => this.#table.add(socket));
    const request = (req: IncomingMessage, res: ServerResponse): void => {
      const connection = Connection.of(req.socket);
      if (connection === undefined) req.socket.destroy();
      else connection.request(req, res);
    };
    server.on("request", request);
    server.on("checkContinue", (req: IncomingMessage, res: ServerResponse) => {
      res.writeContinue();
      request(req, res);
    });
    server.on("upgrade", (req: IncomingMessage, socket: Duplex, head: Buffer) => this.#upgrade(req, socket as Socket, head));
    server.on("clientError", refuseUnreadable);
    return server;
  }

  #serve(connection: Connection, req: IncomingMessage, res: ServerResponse): void {
    if (req.method === "POST" && this.#gateway !== undefined && this.#access !== undefined) {
      const route = this.#gateway.routeOfTarget(req.url ?? "");
      if (route !== undefined) {
        if (this.#access.admit(req, res, true)) this.#gateway.call(route, connection, req, res, this.#access.corsHeaders(req));
        return;
      }
    }
    this.#serveAny(connection, req, res);
  }

  /** The long way: any method, any target. */
  #serveAny(connection: Connection, req: IncomingMessage, res: ServerResponse): void {
    const admitted = this.#admit(req, res);
    if (admitted === undefined) {
      req.resume();
      return;
    }
    const { path, cors } = admitted;
    if (this.#gateway !== undefined && path.startsWith(GATEWAY_PREFIX)) {
      this.#gateway.serve(path, connection, req, res, cors);
      return;
    }
    const handler = this.#routes.get(path);
    if (handler === undefined) {
      // Fastify writes its answers itself.
      decideHeaders(res, []);
      for (let i = 0; i + 1 < cors.length; i += 2) res.setHeader(cors[i] ?? "", cors[i + 1] ?? "");
      this.#routeThroughFastify(req, res);
      return;
    }
    req.resume();
    this.#run(handler, req, res);
  }

  /** The checks before any route. Undefined if the request has been answered. */
  #admit(req: IncomingMessage, res: ServerResponse): { path: string; cors: readonly string[] } | undefined {
    const url = req.url ?? "";
    if (url === "*" && req.method === "OPTIONS") {
      answer(req, res, 200, [], "");
      return undefined;
    }
    const target = parseTarget(url);
    if (target === undefined) {
      answerBadRequest(req, res);
      return undefined;
    }
    const { path, escapedPath } = asCurrent(target);
    let cors: readonly string[] = [];
    if (this.#access !== undefined) {
      if (!this.#access.admit(req, res, path.startsWith(GATEWAY_PREFIX), target.host)) return undefined;
      cors = this.#access.corsHeaders(req);
      decideHeaders(res, cors);
      if (req.method === "OPTIONS") {
        answer(req, res, 200, [], "");
        return undefined;
      }
    }
    const query = target.query === undefined ? "" : `?${target.query}`;
    const clean = cleanPath(escapedPath);
    if (clean !== escapedPath && req.method !== "CONNECT") {
      answerRedirect(req, res, `${encodePath(clean)}${query}`);
      return undefined;
    }
    if (this.#gateway !== undefined && path === GATEWAY_PREFIX.slice(0, -1)) {
      answerRedirect(req, res, `${GATEWAY_PREFIX}${query}`);
      return undefined;
    }
    return { path, cors };
  }

  #run(handler: Handler, req: IncomingMessage, res: ServerResponse): void {
    void (async () => {
      try {
        await handler(req, res);
      } catch (error) {
        this.#logger.error({ path: req.url, error: String(error) }, "unexpected error in an HTTP endpoint");
        if (!res.headersSent && !res.destroyed) answerError(req, res, 500, "Internal Server Error");
        else req.socket.destroy();
      }
    })();
  }

  #upgrade(req: IncomingMessage, socket: Socket, head: Buffer): void {
    const connection = Connection.of(socket);
    const target = parseTarget(req.url ?? "");
    if (connection === undefined || target === undefined || !connection.idle) {
      socket.destroy();
      return;
    }
    const { path, escapedPath } = asCurrent(target);
    const forGateway = path.startsWith(GATEWAY_PREFIX) && cleanPath(escapedPath) === escapedPath;
    if (
      this.#gateway === undefined ||
      this.#access === undefined ||
      !forGateway ||
      !isWebSocket(req) ||
      this.#access.refusal(req, true, target.host) !== undefined
    ) {
      this.#withoutUpgrade(req, socket, head);
      return;
    }
    this.#gateway.upgrade(path, req, socket, head, (call) => connection.detach(call));
  }

  /** Offers to change the protocol that are not taken up are no reason to refuse the request: it is served as if it had none. */
  #withoutUpgrade(req: IncomingMessage, socket: Socket, head: Buffer): void {
    let text = `${req.method ?? "GET"} ${req.url ?? "/"} HTTP/${req.httpVersion}\r\n`;
    for (let i = 0; i + 1 < req.rawHeaders.length; i += 2) {
      const name = req.rawHeaders[i] ?? "";
      const value = req.rawHeaders[i + 1] ?? "";
      if (!/^(upgrade|http2-settings)$/i.test(name)) text += `${name}: ${/^connection$/i.test(name) ? withoutOffers(value) : value}\r\n`;
    }
    socket.unshift(Buffer.concat([Buffer.from(`${text}\r\n`, "latin1"), head]));
    this.server.emit("connection", socket);
  }
}

/** The target as today's releases name it. */
function asCurrent(target: Target): { path: string; escapedPath: string } {
  if (!target.path.startsWith(BETA_PREFIX)) return target;
  const path = `${GATEWAY_PREFIX}${target.path.slice(BETA_PREFIX.length)}`;
  return { path, escapedPath: encodePath(path) };
}

function isWebSocket(req: IncomingMessage): boolean {
  return req.headers.upgrade?.toLowerCase() === "websocket";
}

/** The Connection header without the offer to change the protocol. */
function withoutOffers(connection: string): string {
  return connection
    .split(",")
    .map((option) => option.trim())
    .filter((option) => !/^(upgrade|http2-settings)$/i.test(option))
    .join(", ");
}

/** What is not HTTP, or too long, is refused and the connection ends. */
function refuseUnreadable(error: Error & { readonly code?: string }, socket: Duplex): void {
  const status = error.code === "HPE_HEADER_OVERFLOW" ? "431 Request Header Fields Too Large" : "400 Bad Request";
  // In the middle of an answer there is no place for another one.
  if (error.code === "ECONNRESET" || !socket.writable || Connection.of(socket as Socket)?.idle !== true) {
    socket.destroy();
    return;
  }
  socket.write(`HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n${status}`);
  (socket as Socket).destroySoon();
}
