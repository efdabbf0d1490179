/** Services that answer from nothing, for tests and measurements of the transports. Each function can be replaced. */
import * as api from "../../src/api/index.ts";
import type { CallContext, Services, WatchSession } from "../../src/server/services/services.contract.ts";

export const STUB_HEADER: api.ResponseHeader = api.ResponseHeader.create({
  clusterId: 10144879847569953045n,
  memberId: 12428976124636271536n,
  revision: 2,
  raftTerm: 2,
});

type ServiceName = keyof Services;

/** Replacements by service and function. */
export type StubOverrides = { readonly [S in ServiceName]?: Partial<Services[S]> };

/** What the stub was called with, newest last. */
export interface StubCall {
  readonly method: string;
  readonly request: object;
  readonly context: CallContext;
}

export interface StubServices extends Services {
  readonly calls: StubCall[];
}

const HEALTHY: Services["health"] = {
  alarms: () => [],
  leader: () => 12428976124636271536n,
  isLearner: () => false,
  outage: () => undefined,
  probeRead: async () => undefined,
  versions: () => ({ server: "3.7.1", cluster: "3.7.0", storage: "3.7.0" }),
};

const METHODS = {
  kv: api.KvService,
  lease: api.LeaseService,
  cluster: api.ClusterService,
  maintenance: api.MaintenanceService,
  auth: api.AuthService,
  lock: api.LockService,
  election: api.ElectionService,
} as const;

/** `record: false` keeps no calls, for measurements. */
export function stubServices(overrides: StubOverrides = {}, options: { record?: boolean } = {}): StubServices {
  const calls: StubCall[] = [];
  const record = options.record ?? true;
  const built: Record<string, Record<string, unknown>> = {
    watch: { watch: (context: CallContext) => new StubWatch(context), ...overrides.watch },
    health: { ...HEALTHY, ...overrides.health },
  };
  for (const [serviceName, methods] of Object.entries(METHODS)) {
    const service: Record<string, unknown> = {};
    const replaced = overrides[serviceName as ServiceName] as
      | Record<string, (request: object, context: CallContext) => unknown>
      | undefined;
    for (const [name, method] of Object.entries(methods) as [string, api.MethodDescriptor<object, object>][]) {
      const answer = replaced?.[name] ?? defaultAnswer(method);
      service[name] = (request: object, context: CallContext) => {
        if (record) calls.push({ method: method.path, request, context });
        return answer(request, context);
      };
    }
    built[serviceName] = service;
  }
  return { ...(built as unknown as Services), calls };
}

function defaultAnswer(method: api.MethodDescriptor<object, object>): (request: object) => unknown {
  const empty = method.response.create({ header: STUB_HEADER } as object);
  if (method.serverStreaming && !method.clientStreaming) {
    return async function* () {
      yield empty;
    };
  }
  if (method.name === "LeaseKeepAlive") {
    return async (request) =>
      api.LeaseKeepAliveResponse.create({ header: STUB_HEADER, id: (request as api.LeaseKeepAliveRequest).id, ttl: 600 });
  }
  return async () => empty;
}

/** Says `created` to each create request and `canceled` to each cancel request; {@link StubWatch.push} sends more. */
export class StubWatch implements WatchSession {
  readonly context: CallContext;
  readonly requests: api.WatchRequest[] = [];
  closed = false;
  readonly #ready: api.WatchResponse[] = [];
  #waiting: { resolve: (responses: readonly api.WatchResponse[] | undefined) => void; reject: (error: unknown) => void } | undefined;
  #nextId = 0;

  constructor(context: CallContext) {
    this.context = context;
  }

  send(request: api.WatchRequest): void {
    this.requests.push(request);
    if (request.createRequest !== undefined) this.push({ watchId: BigInt(this.#nextId++), created: true });
    if (request.cancelRequest !== undefined) this.push({ watchId: request.cancelRequest.watchId, canceled: true });
    if (request.progressRequest !== undefined) this.push({ watchId: -1n });
  }

  /** Answers waiting to be fetched. */
  get backlog(): number {
    return this.#ready.length;
  }

  push(response: Partial<api.WatchResponse>): void {
    this.#ready.push(api.WatchResponse.create({ header: STUB_HEADER, ...response }));
    this.#wake();
  }

  fail(error: unknown): void {
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  next(bytesMax = Number.POSITIVE_INFINITY): Promise<readonly api.WatchResponse[] | undefined> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve: () => resolve(this.#take(bytesMax)), reject };
      if (this.closed) {
        this.#waiting = undefined;
        resolve(undefined);
      } else this.#wake();
    });
  }

  close(): void {
    this.closed = true;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve(undefined);
  }

  #take(bytesMax: number): readonly api.WatchResponse[] | undefined {
    if (this.closed) return undefined;
    const taken: api.WatchResponse[] = [];
    let bytes = 0;
    while (this.#ready.length > 0 && bytes < bytesMax) {
      const response = this.#ready.shift() as api.WatchResponse;
      bytes += api.WatchResponse.byteLength(response);
      taken.push(response);
    }
    return taken;
  }

  #wake(): void {
    if (this.#ready.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve([]);
  }
}
