/** Endpoints as they are typed, and connections to them. */
import { type ClientHttp2Session, connect, constants, type SecureClientSessionOptions } from "node:http2";
import { connect as connectSocket, isIP } from "node:net";
import { connect as connectTls } from "node:tls";
import { GrpcCode } from "../../base/errors.ts";
import { GrpcError } from "./grpc-error.ts";

export interface TlsFiles {
  readonly ca: Buffer | undefined;
  readonly cert: Buffer | undefined;
  readonly key: Buffer | undefined;
  readonly skipVerify: boolean;
}

export interface ConnectOptions {
  /** For endpoints that do not say so themselves; undefined: without TLS. */
  readonly tls: TlsFiles | undefined;
  /** For `https` and `unixs`, whatever `tls` is. */
  readonly secureTls: TlsFiles;
  /** How long nothing may come from a server that owes an answer before it is asked for a sign of life, and how long that may take. */
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly connectTimeoutMs: number;
}

interface Target {
  readonly socketPath: string | undefined;
  readonly host: string;
  readonly port: number;
  readonly secure: boolean | undefined;
}

/** Of a stream and of the whole connection: answers of megabytes should not wait for permission all the time. */
const WINDOW_BYTES = 4 * 1024 * 1024;
const DEFAULT_PORT = 2379;
/** Servers take it amiss when they are asked more often. */
const KEEPALIVE_MIN_MS = 10_000;

function parse(endpoint: string): Target {
  const match = /^(?:([a-z]+):(?:\/\/)?)?(.*)$/.exec(endpoint);
  const scheme = match?.[1];
  if (scheme === "unix" || scheme === "unixs") {
    return { socketPath: match?.[2] ?? "", host: "localhost", port: 0, secure: scheme === "unixs" };
  }
  const isUrl = scheme === "http" || scheme === "https";
  const authority = (isUrl ? (match?.[2] ?? "") : endpoint).replace(/\/.*$/, "");
  const bracketed = /^\[([^\]]*)\](?::(\d+))?$/.exec(authority);
  const plain = bracketed ?? /^([^:]*)(?::(\d+))?$/.exec(authority);
  return {
    socketPath: undefined,
    host: plain?.[1] ?? authority,
    port: plain?.[2] === undefined ? DEFAULT_PORT : Number(plain[2]),
    secure: isUrl ? scheme === "https" : undefined,
  };
}

/** One server, with at most one connection, made when it is needed and made again after it broke. */
export class Endpoint {
  readonly text: string;
  readonly #target: Target;
  readonly #options: ConnectOptions;
  #session: ClientHttp2Session | undefined;
  #connecting: Promise<ClientHttp2Session> | undefined;
  #closed = false;

  constructor(text: string, options: ConnectOptions) {
    this.text = text;
    this.#target = parse(text);
    this.#options = options;
  }

  /** The connection, if it stands and takes streams. */
  get ready(): ClientHttp2Session | undefined {
    const session = this.#session;
    return session === undefined || session.closed || session.destroyed ? undefined : session;
  }

  get #isSecure(): boolean {
    return this.#target.secure ?? this.#options.tls !== undefined;
  }

  get authority(): string {
    const { socketPath, host, port } = this.#target;
    if (socketPath !== undefined) return "localhost";
    return `${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
  }

  get scheme(): "http" | "https" {
    return this.#isSecure ? "https" : "http";
  }

  /** Rejects with a GrpcError that says why there is no connection. */
  connect(): Promise<ClientHttp2Session> {
    const ready = this.ready;
    if (ready !== undefined) return Promise.resolve(ready);
    this.#connecting ??= this.#open().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  close(): void {
    this.#closed = true;
    this.#session?.destroy();
  }

  #open(): Promise<ClientHttp2Session> {
    return new Promise((resolve, reject) => {
      const session = connect(`${this.scheme}://${this.authority}`, this.#sessionOptions());
      const timer = setTimeout(() => session.destroy(new Error("i/o timeout")), this.#options.connectTimeoutMs);
      let failure: Error | undefined;
      session.on("error", (error) => {
        failure = error;
      });
      session.once("close", () => {
        clearTimeout(timer);
        if (this.#session === session) this.#session = undefined;
        reject(this.#dialError(failure));
      });
      // The server has spoken: it is one for HTTP/2.
      session.once("remoteSettings", () => {
        clearTimeout(timer);
        session.setLocalWindowSize(WINDOW_BYTES);
        if (this.#closed) {
          session.destroy();
          return;
        }
        this.#session = session;
        this.#keepAlive(session);
        resolve(session);
      });
      session.on("goaway", () => {
        // Calls under way may end; new ones need another connection.
        if (this.#session === session) this.#session = undefined;
      });
    });
  }

  #sessionOptions(): SecureClientSessionOptions {
    const { socketPath, host, port } = this.#target;
    const settings = { enablePush: false, initialWindowSize: WINDOW_BYTES };
    if (!this.#isSecure) {
      return { settings, createConnection: () => (socketPath === undefined ? connectSocket({ host, port }) : connectSocket(socketPath)) };
    }
    const tls = this.#options.tls ?? this.#options.secureTls;
    return {
      settings,
      createConnection: () =>
        connectTls({
          ...(socketPath === undefined ? { host, port } : { path: socketPath }),
          ...(isIP(host) === 0 ? { servername: host } : {}),
          ALPNProtocols: ["h2"],
          rejectUnauthorized: !tls.skipVerify,
          ...(tls.ca === undefined ? {} : { ca: tls.ca }),
          ...(tls.cert === undefined ? {} : { cert: tls.cert }),
          ...(tls.key === undefined ? {} : { key: tls.key }),
        }),
    };
  }

  #dialError(failure: Error | undefined): GrpcError {
    const { socketPath, host, port } = this.#target;
    const where = socketPath === undefined ? `tcp ${host}:${port}` : `unix ${socketPath}`;
    const code = (failure as NodeJS.ErrnoException | undefined)?.code;
    const why = code === "ECONNREFUSED" ? "connect: connection refused" : (failure?.message ?? "the connection was closed");
    const text = `connection error: desc = "transport: Error while dialing: dial ${where}: ${why}"`;
    return new GrpcError(GrpcCode.Unavailable, text, { unsent: true, cause: failure });
  }

  /** Asks a silent server for a sign of life, and gives it up when there is none. */
  #keepAlive(session: ClientHttp2Session): void {
    const { keepaliveMs, keepaliveTimeoutMs } = this.#options;
    if (keepaliveMs <= 0) return;
    const timer = setInterval(
      () => {
        if (session.closed || session.destroyed) return;
        const giveUp = setTimeout(
          () => session.destroy(new Error("keepalive ping failed to receive ACK within timeout"), constants.NGHTTP2_NO_ERROR),
          keepaliveTimeoutMs,
        );
        session.ping(() => clearTimeout(giveUp));
      },
      Math.max(keepaliveMs, KEEPALIVE_MIN_MS),
    );
    timer.unref();
    session.once("close", () => clearInterval(timer));
  }
}
