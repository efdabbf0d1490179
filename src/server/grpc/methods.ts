/** Which path calls what: made from the service tables of the API, so a method exists here because it exists there. */
import {
  AuthService,
  ClusterService,
  ElectionService,
  HealthService,
  KvService,
  LeaseService,
  LockService,
  MaintenanceService,
  type MethodDescriptor,
  malformedMethod,
  unknownRpcMethod,
  unknownRpcService,
  WatchService,
} from "../../api/index.ts";
import { latin1Bytes, utf8Text } from "../../base/bytes.ts";
import type { EtcdError } from "../../base/errors.ts";
import type { RpcSeries, ServerMetrics } from "../metrics.ts";
import type { CallContext, Services } from "../services/services.contract.ts";
import type { GrpcHealthService } from "./health.ts";

type Descriptor = MethodDescriptor<object, object>;
type Unary = (request: object, context: CallContext) => Promise<object>;
type ServerStream = (request: object, context: CallContext) => AsyncIterable<object>;

/** The services behind gRPC, with the methods of each; the names of both tables must agree. */
const METHODS = {
  kv: KvService,
  watch: WatchService,
  lease: LeaseService,
  cluster: ClusterService,
  maintenance: MaintenanceService,
  auth: AuthService,
  lock: LockService,
  election: ElectionService,
} as const satisfies { [S in Exclude<keyof Services, "health">]: Record<keyof Services[S], { readonly path: string }> };

/** How a method is served. */
export type MethodKind = "unary" | "server-stream" | "watch" | "keepalive";

export class Method {
  readonly descriptor: Descriptor;
  readonly kind: MethodKind;
  /** Of unary methods. */
  readonly unary: Unary;
  /** Of server streams. */
  readonly serverStream: ServerStream;
  readonly #metrics: ServerMetrics;
  #rpc: RpcSeries | undefined;

  constructor(descriptor: Descriptor, kind: MethodKind, invoke: unknown, metrics: ServerMetrics) {
    this.descriptor = descriptor;
    this.kind = kind;
    this.unary = invoke as Unary;
    this.serverStream = invoke as ServerStream;
    this.#metrics = metrics;
  }

  /** Made with the first call: some services must not show in the metrics before. */
  get rpc(): RpcSeries {
    this.#rpc ??= this.#metrics.rpc(this.descriptor);
    return this.#rpc;
  }
}

export class MethodTable {
  readonly #byPath = new Map<string, Method>();
  readonly #services = new Set<string>();

  constructor(services: Services, health: GrpcHealthService, metrics: ServerMetrics) {
    for (const [name, methods] of Object.entries(METHODS)) {
      // The compiler has checked above that the service has a function for each of its methods.
      this.#add(methods, services[name as keyof typeof METHODS] as unknown as Record<string, unknown>, metrics);
    }
    this.#add(HealthService, health as unknown as Record<string, unknown>, metrics);
  }

  /** Undefined for paths that name no method: see {@link errorFor}. */
  get(path: string): Method | undefined {
    return this.#byPath.get(path);
  }

  get size(): number {
    return this.#byPath.size;
  }

  /** What is wrong with a path that has no method. `path` has one char per byte. */
  errorFor(path: string): EtcdError {
    const text = utf8Text(latin1Bytes(path));
    const slash = text.lastIndexOf("/");
    if (!text.startsWith("/") || slash === 0) return malformedMethod(text);
    const service = text.slice(1, slash);
    return this.#services.has(service) ? unknownRpcMethod(text.slice(slash + 1), service) : unknownRpcService(service);
  }

  #add(methods: Readonly<Record<string, Descriptor>>, service: Record<string, unknown>, metrics: ServerMetrics): void {
    for (const [name, descriptor] of Object.entries(methods)) {
      const invoke = (request: object, context: CallContext): unknown => (service[name] as Unary)(request, context);
      this.#byPath.set(descriptor.path, new Method(descriptor, kindOf(descriptor, name), invoke, metrics));
      this.#services.add(descriptor.service);
    }
  }
}

function kindOf(descriptor: Descriptor, name: string): MethodKind {
  if (descriptor.clientStreaming) return name === "watch" ? "watch" : "keepalive";
  return descriptor.serverStreaming ? "server-stream" : "unary";
}
