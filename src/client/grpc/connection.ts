/** A connection to one endpoint: made when it is needed, made again when it broke, and given up when nobody is at its other end any more. */
import { type ClientHttp2Session, connect, constants } from "node:http2";
import { connect as connectSocket, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { InvalidUseError, UnavailableError } from "../errors.ts";

/** PEM texts. */
export interface GrpcTls {
  /** Authorities to trust in place of the system's. */
  readonly ca?: string | Uint8Array | undefined;
  /** The client's own certificate and its key. */
  readonly cert?: string | Uint8Array | undefined;
  readonly key?: string | Uint8Array | undefined;
  readonly passphrase?: string | undefined;
  /** The name that the server's certificate must have, if not the endpoint's. */
  readonly servername?: string | undefined;
  /** False: any certificate will do. The connection is then only encrypted. */
  readonly rejectUnauthorized?: boolean | undefined;
}

export interface ConnectionOptions {
  readonly tls: GrpcTls | undefined;
  readonly connectTimeoutMs: number;
}

/** Where an endpoint is. */
export interface Target {
  readonly endpoint: string;
  readonly secure: boolean;
  readonly host: string;
  readonly port: number;
  /** In place of host and port. */
  readonly path: string | undefined;
}

const DEFAULT_PORT = 2379;

/** @throws InvalidUseError */
export function targetOf(endpoint: string): Target {
  const [, scheme, rest = ""] = /^(https?|unixs?):\/\/(.+)$/.exec(endpoint) ?? [];
  if (scheme === undefined) {
    throw new InvalidUseError(`an endpoint is a URL such as http://127.0.0.1:2379 or unix:///run/etcd.sock, not ${endpoint}`);
  }
  const secure = scheme.endsWith("s");
  if (scheme.startsWith("unix")) return { endpoint, secure, host: "localhost", port: 0, path: rest };
  let url: URL;
  try {
    url = new URL(endpoint);
  } catch (cause) {
    throw new InvalidUseError(`${endpoint} is not a URL: ${String(cause)}`);
  }
  const port = url.port !== "" ? Number(url.port) : /:\d+\/?$/.test(rest) ? (secure ? 443 : 80) : DEFAULT_PORT;
  return { endpoint, secure, host: url.hostname.replace(/^\[(.*)\]$/, "$1"), port, path: undefined };
}

/** Of a stream and of the whole connection: answers of megabytes should not wait for permission all the time. */
const WINDOW_BYTES = 4 * 1024 * 1024;
/** Node refuses streams beyond that. Its own bound of 10 is reached by ordinary large values. */
const SESSION_MEGABYTES_MAX = 4096;
/** How long the sign of life may take that is asked for when a call was given up. */
const PROBE_MS = 3000;
/** Servers take it amiss when they are asked more often than every 5 s. */
const PROBE_PAUSE_MS = 6000;

export class Connection {
  readonly #target: Target;
  readonly #options: ConnectionOptions;
  #session: ClientHttp2Session | undefined;
  /** Of {@link #session}. */
  #socketNow: Socket | undefined;
  #connecting: Promise<ClientHttp2Session> | undefined;
  /** Of all connections that are not gone yet: those that take no new calls, too. */
  readonly #ends = new Set<(failure?: Error) => void>();
  #closed = false;
  #probedMs = Number.NEGATIVE_INFINITY;

  constructor(target: Target, options: ConnectionOptions) {
    this.#target = target;
    this.#options = options;
  }

  /** The connection if it stands and takes calls. */
  get ready(): ClientHttp2Session | undefined {
    const session = this.#session;
    return session === undefined || session.closed || session.destroyed ? undefined : session;
  }

  get authority(): string {
    const { path, host, port } = this.#target;
    if (path !== undefined) return "localhost";
    return `${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
  }

  get scheme(): "http" | "https" {
    return this.#target.secure ? "https" : "http";
  }

  /** Rejects with an UnavailableError that says why there is no connection. One attempt for all who wait. */
  connect(): Promise<ClientHttp2Session> {
    const { ready } = this;
    if (ready !== undefined) return Promise.resolve(ready);
    if (this.#closed) return Promise.reject(this.unavailable("the connection was closed", false));
    this.#connecting ??= this.#open().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  unavailable(why: string, requestSent: boolean, cause?: unknown): UnavailableError {
    const { endpoint } = this.#target;
    const message = requestSent ? `the call to ${endpoint} broke off: ${why}` : `${endpoint} cannot be reached: ${why}`;
    return new UnavailableError({ endpoint, requestSent, message }, { cause });
  }

  /** A call got no answer in its time: is anybody there? If not, the next call gets a connection of its own. */
  probe(): void {
    const session = this.ready;
    const socket = this.#socketNow;
    const nowMs = performance.now();
    if (session === undefined || socket === undefined || nowMs - this.#probedMs < PROBE_PAUSE_MS) return;
    this.#probedMs = nowMs;
    let heard = socket.bytesRead;
    let timer: ReturnType<typeof setTimeout>;
    const check = (): void => {
      // The answer may be behind a lot of other bytes: while these come, somebody is there.
      if (socket.bytesRead === heard) {
        session.destroy(new Error("no sign of life"));
        return;
      }
      heard = socket.bytesRead;
      timer = setTimeout(check, PROBE_MS);
    };
    timer = setTimeout(check, PROBE_MS);
    socket.once("close", () => clearTimeout(timer));
    session.ping(() => clearTimeout(timer));
  }

  close(): void {
    this.#closed = true;
    for (const end of [...this.#ends]) end();
  }

  #open(): Promise<ClientHttp2Session> {
    return new Promise((resolve, reject) => {
      const socket = this.#socket();
      const session = connect(`${this.scheme}://${this.authority}`, {
        createConnection: () => socket,
        settings: { enablePush: false, initialWindowSize: WINDOW_BYTES },
        maxSessionMemory: SESSION_MEGABYTES_MAX,
      });
      const timer = setTimeout(() => end(new Error("timed out")), this.#options.connectTimeoutMs);
      // Node's session does not always notice or tell the end of its socket: not when TLS is refused after the handshake, for example.
      const end = (failure?: Error): void => {
        clearTimeout(timer);
        if (this.#session === session) this.#session = undefined;
        this.#ends.delete(end);
        reject(this.unavailable(describe(failure), false, failure));
        session.destroy(failure);
        socket.destroy();
      };
      this.#ends.add(end);
      socket.on("error", end);
      socket.on("close", () => end());
      session.on("error", end);
      session.once("close", () => end());
      // The server has spoken: it is one for HTTP/2.
      session.once("remoteSettings", () => {
        clearTimeout(timer);
        if (session.destroyed) return;
        session.setLocalWindowSize(WINDOW_BYTES);
        this.#session = session;
        this.#socketNow = socket;
        resolve(session);
      });
      session.on("goaway", () => {
        // Calls under way may end there; new ones need another connection.
        if (this.#session === session) this.#session = undefined;
        session.close();
      });
    });
  }

  #socket(): Socket {
    const { secure, host, port, path } = this.#target;
    const where = path === undefined ? { host, port } : { path };
    if (!secure) return path === undefined ? connectSocket({ host, port, noDelay: true }) : connectSocket({ path });
    const { ca, cert, key, passphrase, servername, rejectUnauthorized } = this.#options.tls ?? {};
    const name = servername ?? (path === undefined && isIP(host) === 0 ? host : undefined);
    return connectTls({
      ...where,
      ALPNProtocols: ["h2"],
      ...(ca === undefined ? {} : { ca: pem(ca) }),
      ...(cert === undefined ? {} : { cert: pem(cert) }),
      ...(key === undefined ? {} : { key: pem(key) }),
      ...(passphrase === undefined ? {} : { passphrase }),
      ...(name === undefined ? {} : { servername: name }),
      rejectUnauthorized: rejectUnauthorized ?? true,
    });
  }
}

function pem(text: string | Uint8Array): string | Buffer {
  return typeof text === "string" ? text : Buffer.from(text);
}

function describe(failure: Error | undefined): string {
  if (failure === undefined) return "the connection was closed";
  // Several addresses of one name, each with its own failure.
  const several = (failure as { errors?: readonly Error[] }).errors;
  return failure.message !== "" || several === undefined ? failure.message : several.map(({ message }) => message).join(", ");
}

/** Resets with which a server says that it has not looked at the call. */
export const REFUSED_STREAM = constants.NGHTTP2_REFUSED_STREAM;
