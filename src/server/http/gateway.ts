/** The JSON gateway: paths below `/v3/` to calls of the services. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { rpcError } from "../../api/index.ts";
import type { FlatHeaders } from "./answers.ts";
import type { Connection, RunningCall } from "./connections.ts";
import type { GatewayParts } from "./gateway-parts.ts";
import { gatewayRoutes, type Route } from "./gateway-routes.ts";
import { answerGatewayError, UnaryExchange } from "./gateway-unary.ts";
import { serveStream } from "./http-stream.ts";
import { WebSocketGateway } from "./websocket.ts";

export const GATEWAY_PREFIX = "/v3/";
/** Rewritten to {@link GATEWAY_PREFIX}, for clients of old releases. */
export const BETA_PREFIX = "/v3beta/";

export class Gateway {
  readonly #parts: GatewayParts;
  readonly #routes: ReadonlyMap<string, Route>;
  /** Also under the paths of old releases, for the look-up of whole request targets. */
  readonly #targets: ReadonlyMap<string, Route>;
  readonly #webSockets: WebSocketGateway;

  constructor(parts: GatewayParts) {
    this.#parts = parts;
    this.#routes = gatewayRoutes(parts.services, parts.metrics);
    const targets = new Map(this.#routes);
    for (const [path, route] of this.#routes) targets.set(path.replace(GATEWAY_PREFIX, BETA_PREFIX), route);
    this.#targets = targets;
    this.#webSockets = new WebSocketGateway(parts);
  }

  /** The route of a request target which is exactly a path of the gateway, without query or escapes: nearly all that come. */
  routeOfTarget(target: string): Route | undefined {
    return this.#targets.get(target);
  }

  /** Answers a POST to a known path. */
  call(route: Route, connection: Connection, req: IncomingMessage, res: ServerResponse, cors: FlatHeaders): void {
    let ignoreBody = false;
    if (req.headers["x-http-method-override"] !== undefined) {
      // A quirk of the gateway's library: forms may name another method. Every other method is refused, and POST costs the form its body.
      const override = req.headers["x-http-method-override"];
      if (override !== "" && req.headers["content-type"] === "application/x-www-form-urlencoded") {
        if (String(override).toUpperCase() !== "POST") {
          req.resume();
          answerGatewayError(req, res, cors, rpcError("http-method-not-allowed"));
          return;
        }
        ignoreBody = true;
      }
    }
    if (route.kind === "unary") new UnaryExchange(this.#parts, route, connection, req, res, cors).start(ignoreBody);
    else serveStream(this.#parts, route, connection, req, res, cors);
  }

  /** Answers any request for a decoded path below the prefix. */
  serve(path: string, connection: Connection, req: IncomingMessage, res: ServerResponse, cors: FlatHeaders): void {
    const route = this.#routes.get(path);
    if (route !== undefined && req.method === "POST") {
      this.call(route, connection, req, res, cors);
      return;
    }
    req.resume();
    answerGatewayError(req, res, cors, rpcError(route === undefined ? "http-not-found" : "http-method-not-allowed"));
  }

  /** A WebSocket to a decoded path below the prefix. */
  upgrade(path: string, req: IncomingMessage, socket: Duplex, head: Buffer, attach: (call: RunningCall) => void): void {
    this.#webSockets.upgrade(req, socket, head, this.#routes.get(path), attach);
  }
}
