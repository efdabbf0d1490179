/** Which path of the gateway calls what. */
import {
  AuthService,
  ClusterService,
  ElectionService,
  KvService,
  LeaseService,
  LockService,
  MaintenanceService,
  type MethodDescriptor,
  WatchService,
} from "../../api/index.ts";
import type { RpcSeries, ServerMetrics } from "../metrics.ts";
import type { CallContext, Services } from "../services/services.contract.ts";

/** The services behind the gateway, with the methods of each; the names of both tables must agree. */
const METHODS = {
  kv: KvService,
  watch: WatchService,
  lease: LeaseService,
  cluster: ClusterService,
  maintenance: MaintenanceService,
  auth: AuthService,
  lock: LockService,
  election: ElectionService,
} as const satisfies { [S in Exclude<keyof Services, "health">]: Record<keyof Services[S], { readonly httpPaths: readonly string[] }> };

type Method = MethodDescriptor<object, object>;

class RouteBase {
  readonly method: Method;
  readonly #metrics: ServerMetrics;
  #rpc: RpcSeries | undefined;

  constructor(method: Method, metrics: ServerMetrics) {
    this.method = method;
    this.#metrics = metrics;
  }

  /** Made with the first call: some services must not show in the metrics before. */
  get rpc(): RpcSeries {
    this.#rpc ??= this.#metrics.rpc(this.method);
    return this.#rpc;
  }
}

export class UnaryRoute extends RouteBase {
  readonly kind = "unary";
  readonly invoke: (request: object, context: CallContext) => Promise<object>;

  constructor(method: Method, metrics: ServerMetrics, invoke: (request: object, context: CallContext) => Promise<object>) {
    super(method, metrics);
    this.invoke = invoke;
  }
}

export class ServerStreamRoute extends RouteBase {
  readonly kind = "server-stream";
  readonly invoke: (request: object, context: CallContext) => AsyncIterable<object>;

  constructor(method: Method, metrics: ServerMetrics, invoke: (request: object, context: CallContext) => AsyncIterable<object>) {
    super(method, metrics);
    this.invoke = invoke;
  }
}

/** Streams in both directions, each with a way of its own. */
export class BidiRoute extends RouteBase {
  readonly kind: "watch" | "keepalive";

  constructor(method: Method, metrics: ServerMetrics, kind: "watch" | "keepalive") {
    super(method, metrics);
    this.kind = kind;
  }
}

export type StreamRoute = ServerStreamRoute | BidiRoute;
export type Route = UnaryRoute | StreamRoute;

type AnyFunction = (request: object, context: CallContext) => unknown;

/** By path, aliases included. */
export function gatewayRoutes(services: Services, metrics: ServerMetrics): ReadonlyMap<string, Route> {
  const routes = new Map<string, Route>();
  for (const [serviceName, methods] of Object.entries(METHODS)) {
    // The compiler has checked above that the service has a function for each of its methods.
    const service = services[serviceName as keyof typeof METHODS] as unknown as Record<string, AnyFunction>;
    for (const [name, method] of Object.entries(methods) as [string, Method][]) {
      if (method.httpPaths.length === 0) continue;
      const route = routeOf(service, name, method, metrics);
      for (const path of method.httpPaths) routes.set(path, route);
    }
  }
  return routes;
}

function routeOf(service: Record<string, AnyFunction>, name: string, method: Method, metrics: ServerMetrics): Route {
  if (method.clientStreaming) return new BidiRoute(method, metrics, name === "watch" ? "watch" : "keepalive");
  const invoke: AnyFunction = (request, context) => service[name]?.(request, context);
  return method.serverStreaming
    ? new ServerStreamRoute(method, metrics, invoke as ServerStreamRoute["invoke"])
    : new UnaryRoute(method, metrics, invoke as UnaryRoute["invoke"]);
}
