/** A served app over stub services, and clients that show every byte. */
import { once } from "node:events";
import { type IncomingHttpHeaders, request } from "node:http";
import { connect, createServer, type Server, type Socket } from "node:net";
import type { Clock, Timer } from "../../src/base/clock.ts";
import { systemClock } from "../../src/base/clock-system.ts";
import { type Logger, silentLogger } from "../../src/base/logger.ts";
import { buildHttpApp, buildMetricsApp, type HttpApp, type HttpAppOptions } from "../../src/server/http/http-app.ts";
import { ServerMetrics } from "../../src/server/metrics.ts";
import { type StubOverrides, type StubServices, StubWatch, stubServices } from "../support/stub-services.ts";

const FIRST_PORT = 24200;
const LAST_PORT = 24289;

/** Listens on the first free port of the range. */
async function listen(server: Server): Promise<number> {
  for (let port = FIRST_PORT + (process.pid % 40); port <= LAST_PORT; port++) {
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

export interface TestApp extends AsyncDisposable {
  readonly port: number;
  readonly app: HttpApp;
  readonly services: StubServices;
  readonly metrics: ServerMetrics;
  /** Watch sessions in the order in which they were opened. */
  readonly watches: StubWatch[];
  readonly bugs: unknown[];
}

export async function testApp(options: Partial<HttpAppOptions> & { overrides?: StubOverrides } = {}): Promise<TestApp> {
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
  const app = await buildHttpApp({
    services,
    metrics,
    clock: systemClock({ unref: true }),
    logger: silentLogger,
    enableGateway: true,
    maxRequestBytes: 1_572_864,
    requestTimeoutMs: 7000,
    cors: ["*"],
    hostWhitelist: ["*"],
    clientCertAuth: false,
    authEnabled: () => false,
    onBug: (error) => bugs.push(error),
    ...options,
  });
  return { ...(await serveApp(app)), services, metrics, watches, bugs };
}

export async function testMetricsApp(): Promise<{ port: number; app: HttpApp } & AsyncDisposable> {
  const { health } = stubServices();
  const app = await buildMetricsApp({
    health,
    metrics: new ServerMetrics(),
    clock: systemClock({ unref: true }),
    logger: silentLogger,
    requestTimeoutMs: 7000,
  });
  return serveApp(app);
}

async function serveApp(app: HttpApp): Promise<{ port: number; app: HttpApp } & AsyncDisposable> {
  const server = createServer({ noDelay: true, pauseOnConnect: true }, (socket) => app.handle(socket));
  const port = await listen(server);
  return {
    port,
    app,
    [Symbol.asyncDispose]: async () => {
      server.close();
      await app.close({ graceMs: 0 });
    },
  };
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  readonly trailers: Readonly<Record<string, string | undefined>>;
  readonly text: string;
}

export interface Ask {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Uint8Array;
}

/** One request on a connection of its own. */
export function ask(port: number, { method = "POST", path, headers = {}, body }: Ask): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { "Content-Length": String(Buffer.byteLength(body)) };
    const req = request({ host: "127.0.0.1", port, method, path, headers: { ...length, ...headers }, agent: false }, (res) => {
      const chunks: Buffer[] = [];
      res.on("data", (chunk: Buffer) => chunks.push(chunk));
      res.on("error", reject);
      res.on("end", () => {
        const text = Buffer.concat(chunks).toString("utf8");
        resolve({ status: res.statusCode ?? 0, headers: res.headers, rawHeaders: res.rawHeaders, trailers: res.trailers, text });
      });
    });
    req.on("error", reject);
    req.end(body);
  });
}

/** A connection whose bytes are written and read as they are. */
export class RawClient implements AsyncDisposable {
  readonly socket: Socket;
  text = "";
  ended = false;
  closed = false;

  constructor(port: number) {
    this.socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    this.socket.on("data", (chunk) => {
      this.text += chunk.toString("latin1");
    });
    this.socket.on("end", () => {
      this.ended = true;
    });
    this.socket.on("close", () => {
      this.closed = true;
    });
    // Being cut off is what some tests want to see.
    this.socket.on("error", () => undefined);
  }

  write(text: string | Uint8Array): this {
    this.socket.write(text);
    return this;
  }

  /** A request with its head and, if there is one, its body. */
  request(line: string, body?: string, headers: Readonly<Record<string, string>> = {}): this {
    let head = `${line} HTTP/1.1\r\nHost: test\r\n`;
    for (const [name, value] of Object.entries(headers)) head += `${name}: ${value}\r\n`;
    if (body !== undefined) head += `Content-Length: ${Buffer.byteLength(body)}\r\n`;
    return this.write(`${head}\r\n${body ?? ""}`);
  }

  /** Opens a chunked upload. */
  open(line: string, headers: Readonly<Record<string, string>> = {}): this {
    return this.request(line, undefined, { "Transfer-Encoding": "chunked", ...headers });
  }

  chunk(text: string): this {
    return this.write(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`);
  }

  endChunks(): this {
    return this.write("0\r\n\r\n");
  }

  /** Waits until what came contains `text`. */
  async until(text: string | RegExp): Promise<string> {
    await eventually(
      () => (typeof text === "string" ? this.text.includes(text) : text.test(this.text)),
      () => `came: ${this.text.slice(0, 2000)}`,
    );
    return this.text;
  }

  async untilClosed(): Promise<void> {
    await eventually(
      () => this.ended || this.closed,
      () => `still open; came: ${this.text.slice(0, 500)}`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.closed) return;
    const closed = once(this.socket, "close");
    this.socket.destroy();
    await closed;
  }
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

/** Time moves only by {@link ManualClock.advance}. */
export class ManualClock implements Clock {
  #now = 1000;
  readonly #timers = new Set<{ at: number; fn: () => void }>();

  monotonicMs(): number {
    return this.#now;
  }

  wallMs(): number {
    return this.#now;
  }

  timer(ms: number, fn: () => void): Timer {
    const timer = { at: this.#now + ms, fn };
    this.#timers.add(timer);
    return {
      cancel: () => {
        this.#timers.delete(timer);
      },
    };
  }

  /** Timers that wait. */
  get pending(): number {
    return this.#timers.size;
  }

  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#now = due.at;
      due.fn();
    }
    this.#now = end;
  }
}

/** Keeps what is logged. */
export function recordingLogger(): Logger & { readonly lines: { level: string; message: string; fields: object }[] } {
  const lines: { level: string; message: string; fields: object }[] = [];
  const at = (level: string) => (fields: object, message: string) => {
    lines.push({ level, message, fields });
  };
  const logger = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error"), child: () => logger, lines };
  return logger;
}
