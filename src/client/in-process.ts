/** The way to a member in this process: no sockets, no encoding, the services themselves. */
import * as api from "../api/index.ts";
import { InvalidUseError } from "./errors.ts";
import type { CallContext, Channel, Transport, WatchSession } from "./transport.ts";

type Unary = (request: never, context: CallContext) => Promise<object>;
type Streaming = (request: never, context: CallContext) => AsyncIterable<object>;

/** The services of a member, as far as a client needs them; the server's own contract fits. */
export interface LocalServices {
  readonly kv: object;
  readonly lease: object;
  readonly cluster: object;
  readonly maintenance: object;
  readonly auth: object;
  readonly lock: object;
  readonly election: object;
  readonly watch: { watch(context: CallContext): WatchSession };
}

/** A member to reach: its name (the "endpoint") and how to get at its services, which may throw while it is down. */
export interface LocalMember {
  readonly name: string;
  services(): LocalServices;
}

const GROUPS = {
  kv: api.KvService,
  lease: api.LeaseService,
  cluster: api.ClusterService,
  maintenance: api.MaintenanceService,
  auth: api.AuthService,
  lock: api.LockService,
  election: api.ElectionService,
} as const;

/** Endpoints are the members' names. */
export function inProcess(members: readonly LocalMember[]): Transport {
  return {
    local: true,
    connect(endpoint) {
      const member = members.find(({ name }) => name === endpoint);
      if (member === undefined) throw new InvalidUseError(`there is no member ${endpoint} in this process`);
      return new LocalChannel(member);
    },
  };
}

class LocalChannel implements Channel {
  readonly endpoint: string;
  readonly fullDuplex = true;
  readonly #member: LocalMember;
  #services: LocalServices | undefined;
  #methods: ReadonlyMap<object, Unary | Streaming> = new Map();

  constructor(member: LocalMember) {
    this.endpoint = member.name;
    this.#member = member;
  }

  unary<Request extends object, Response extends object>(
    method: api.MethodDescriptor<Request, Response>,
    request: Request,
    context: CallContext,
  ): Promise<Response> {
    try {
      return (this.#method(method) as unknown as (request: Request, context: CallContext) => Promise<Response>)(request, context);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  stream<Request extends object, Response extends object>(
    method: api.MethodDescriptor<Request, Response>,
    request: Request,
    context: CallContext,
  ): AsyncIterable<Response> {
    return (this.#method(method) as unknown as (request: Request, context: CallContext) => AsyncIterable<Response>)(request, context);
  }

  watch(context: CallContext): WatchSession {
    return this.#current().watch.watch(context);
  }

  keepAlive(request: api.LeaseKeepAliveRequest, context: CallContext): Promise<api.LeaseKeepAliveResponse> {
    return this.unary(api.LeaseService.leaseKeepAlive, request, context);
  }

  close(): void {
    this.#services = undefined;
    this.#methods = new Map();
  }

  #method(method: object): Unary | Streaming {
    this.#current();
    const found = this.#methods.get(method);
    if (found === undefined) throw api.unknownRpcMethod((method as api.MethodDescriptor<object, object>).name, "holdfast");
    return found;
  }

  /** The services of now: a member that was started anew has new ones. */
  #current(): LocalServices {
    const services = this.#member.services();
    if (services === this.#services) return services;
    this.#services = services;
    const methods = new Map<object, Unary | Streaming>();
    for (const [group, descriptors] of Object.entries(GROUPS)) {
      const service = services[group as keyof typeof GROUPS] as Readonly<Record<string, Unary | Streaming>>;
      for (const [name, descriptor] of Object.entries(descriptors)) {
        const implementation = service[name];
        if (implementation !== undefined) methods.set(descriptor, implementation);
      }
    }
    this.#methods = methods;
    return services;
  }
}
