/** gRPC servers over stub services, and transports without any services. */
import { createServer, type Server, type Socket } from "node:net";
import type { Clock } from "../../src/base/clock.ts";
import { systemClock } from "../../src/base/clock-system.ts";
import { silentLogger } from "../../src/base/logger.ts";
import { createGrpcServer, type GrpcServer, type GrpcServerOptions } from "../../src/server/grpc/grpc-server.ts";
import {
  type CallHandler,
  DEFAULT_TRANSPORT_LIMITS,
  type GrpcCall,
  type GrpcTransport,
  ReceiveBudget,
  type RequestHead,
  type TransportLimits,
  type TransportOptions,
} from "../../src/server/grpc/transport.ts";
import { ServerMetrics } from "../../src/server/metrics.ts";
import { type StubOverrides, type StubServices, StubWatch, stubServices } from "../support/stub-services.ts";

const FIRST_PORT = 24600;
const LAST_PORT = 24659;

export type MakeTransport = (options: TransportOptions) => GrpcTransport;

/** Listens on the first free port of the range. */
export async function listen(server: Server): Promise<number> {
  for (let port = FIRST_PORT + (process.pid % 30); port <= LAST_PORT; port++) {
    const outcome = await new Promise<string | undefined>((resolve) => {
      const onError = (error: NodeJS.ErrnoException): void => resolve(error.code);
      server.once("error", onError);
      server.listen(port, "127.0.0.1", () => {
        server.off("error", onError);
        resolve("listening");
      });
    });
    if (outcome === "listening") return port;
    server.removeAllListeners("listening");
    if (outcome !== "EADDRINUSE") throw new Error(`cannot listen: ${outcome}`);
  }
  throw new Error("no free port");
}

export interface TestGrpc extends AsyncDisposable {
  readonly port: number;
  readonly grpc: GrpcServer;
  readonly services: StubServices;
  readonly metrics: ServerMetrics;
  /** Watch sessions in the order in which they were opened. */
  readonly watches: StubWatch[];
  readonly bugs: unknown[];
  /** Server sides of the connections. */
  readonly sockets: Socket[];
}

/** A gRPC server over stub services. */
export async function testGrpc(options: Partial<GrpcServerOptions> & { overrides?: StubOverrides } = {}): Promise<TestGrpc> {
  const watches: StubWatch[] = [];
  const watch = {
    watch: (context: ConstructorParameters<typeof StubWatch>[0]): StubWatch => {
      const session = new StubWatch(context);
      watches.push(session);
      return session;
    },
  };
  const services = stubServices({ watch, ...options.overrides });
  const metrics = new ServerMetrics({ extensive: true });
  const bugs: unknown[] = [];
  const grpc = createGrpcServer({
    services,
    metrics,
    clock: systemClock({ unref: true }),
    logger: silentLogger,
    maxRequestBytes: 1_572_864,
    onBug: (error) => bugs.push(error),
    ...options,
  });
  const sockets: Socket[] = [];
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.push(socket);
    grpc.handle(socket);
  });
  const port = await listen(server);
  return {
    port,
    grpc,
    services,
    metrics,
    watches,
    bugs,
    sockets,
    [Symbol.asyncDispose]: async () => {
      server.close();
      await grpc.close({ graceMs: 0 });
    },
  };
}

/** A call without a skin: keeps what comes, and lets the test say what goes. */
export class RawCall implements CallHandler {
  readonly call: GrpcCall;
  readonly head: RequestHead;
  readonly pieces: Uint8Array[] = [];
  incomplete = false;
  hasEnded = false;
  isGone = false;
  drains = 0;
  closings = 0;
  readonly #onEnded: (call: RawCall) => void;
  #whenDrained: (() => void) | undefined;

  constructor(call: GrpcCall, head: RequestHead, onEnded: (call: RawCall) => void) {
    this.call = call;
    // The head is only good during the call that announces it.
    this.head = {
      method: head.method,
      path: head.path,
      contentType: head.contentType,
      encoding: head.encoding,
      timeout: head.timeout,
      token: head.token,
      authorization: head.authorization,
      hasLeader: head.hasLeader,
      clientApiVersion: head.clientApiVersion,
      commonName: head.commonName,
    };
    this.#onEnded = onEnded;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.pieces);
  }

  data(bytes: Uint8Array, from: number, to: number): void {
    this.pieces.push(bytes.slice(from, to));
  }

  ended(): void {
    this.hasEnded = true;
    this.#onEnded(this);
  }

  gone(): void {
    this.isGone = true;
    this.drained();
  }

  drained(): void {
    this.drains += 1;
    const resolve = this.#whenDrained;
    this.#whenDrained = undefined;
    resolve?.();
  }

  closing(): void {
    this.closings += 1;
  }

  /** Sends, and waits until more may be sent. */
  async send(bytes: Uint8Array): Promise<void> {
    if (this.call.send(bytes, false)) return;
    await new Promise<void>((resolve) => {
      this.#whenDrained = resolve;
    });
  }
}

export interface TestTransport extends AsyncDisposable {
  readonly port: number;
  readonly transport: GrpcTransport;
  readonly calls: RawCall[];
  readonly budget: ReceiveBudget;
  readonly bugs: unknown[];
  readonly sockets: Socket[];
}

/** A transport alone. Without `onOpen` and `onEnded` calls just stay. */
export async function testTransport(
  make: MakeTransport,
  options: {
    limits?: Partial<TransportLimits>;
    clock?: Clock;
    budgetBytes?: number;
    onOpen?: (call: RawCall) => void;
    onEnded?: (call: RawCall) => void;
  } = {},
): Promise<TestTransport> {
  const calls: RawCall[] = [];
  const bugs: unknown[] = [];
  const budget = new ReceiveBudget(options.budgetBytes ?? 64 * 1024 * 1024);
  const transport = make({
    open: (call, head) => {
      const raw = new RawCall(call, head, options.onEnded ?? (() => undefined));
      calls.push(raw);
      options.onOpen?.(raw);
      return raw;
    },
    clock: options.clock ?? systemClock({ unref: true }),
    logger: silentLogger,
    limits: { ...DEFAULT_TRANSPORT_LIMITS, ...options.limits },
    budget,
    onBug: (error) => bugs.push(error),
  });
  const sockets: Socket[] = [];
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.push(socket);
    transport.handle(socket);
  });
  const port = await listen(server);
  return {
    port,
    transport,
    calls,
    budget,
    bugs,
    sockets,
    [Symbol.asyncDispose]: async () => {
      server.close();
      await transport.close({ graceMs: 0 });
    },
  };
}

const DEADLINE_MS = 10_000;

/** Waits until `condition` holds. */
export async function eventually(condition: () => boolean, describe: () => string = () => condition.toString()): Promise<void> {
  const deadline = performance.now() + DEADLINE_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`did not happen: ${describe()}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Lets everything that is ready to happen happen, to see that something does not. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(resolve, 1));
}
