/** Who may talk to the client port over HTTP: host names (against DNS rebinding), origins (CORS), client certificates on the gateway. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { answerError, type FlatHeaders } from "./answers.ts";

export interface AccessOptions {
  /** Allowed origins, scheme, host and port; `*` or an empty list allows all. */
  readonly cors: readonly string[];
  /** Allowed host names without port, for plain text only; `*` or an empty list allows all. */
  readonly hostWhitelist: readonly string[];
  /** Client certificates are demanded on the TLS listeners. */
  readonly clientCertAuth: boolean;
  /** User authentication is on right now. */
  readonly authEnabled: () => boolean;
}

const NONE: FlatHeaders = [];

function corsHeaders(origin: string): FlatHeaders {
  return [
    "Access-Control-Allow-Headers",
    "accept, content-type, authorization",
    "Access-Control-Allow-Methods",
    "POST, GET, OPTIONS, PUT, DELETE",
    "Access-Control-Allow-Origin",
    origin,
  ];
}

function isTls(socket: Socket): socket is TLSSocket {
  return "encrypted" in socket && socket.encrypted === true;
}

export class AccessControl {
  readonly #origins: ReadonlySet<string> | undefined;
  readonly #hosts: ReadonlySet<string> | undefined;
  readonly #options: AccessOptions;
  readonly #anyOrigin = corsHeaders("*");

  constructor(options: AccessOptions) {
    this.#options = options;
    this.#origins = options.cors.length === 0 || options.cors.includes("*") ? undefined : new Set(options.cors);
    this.#hosts = options.hostWhitelist.length === 0 || options.hostWhitelist.includes("*") ? undefined : new Set(options.hostWhitelist);
  }

  /** The CORS headers for an answer to this request, the same object for all as long as any origin may ask. */
  corsHeaders(req: IncomingMessage): FlatHeaders {
    if (this.#origins === undefined) return this.#anyOrigin;
    const origin = req.headers.origin;
    return origin !== undefined && this.#origins.has(origin) ? corsHeaders(origin) : NONE;
  }

  /** True if the request may go on; otherwise it has been answered. `host` overrides the Host header. */
  admit(req: IncomingMessage, res: ServerResponse, gatewayPath: boolean, host?: string): boolean {
    const refusal = this.refusal(req, gatewayPath, host);
    if (refusal === undefined) return true;
    answerError(req, res, refusal.status, refusal.text);
    return false;
  }

  /** Why the request may not go on; undefined if it may. */
  refusal(req: IncomingMessage, gatewayPath: boolean, host?: string): Refusal | undefined {
    if (!isTls(req.socket)) {
      if (this.#hosts === undefined) return undefined;
      const name = withoutPort(host ?? req.headers.host ?? "");
      return this.#hosts.has(name) ? undefined : { status: 421, text: unknownHostText(name) };
    }
    if (!gatewayPath || !this.#options.clientCertAuth || !req.socket.authorized || !this.#options.authEnabled()) return undefined;
    const name = req.socket.getPeerCertificate().subject?.CN;
    if (name === undefined || name.length === 0) return undefined;
    return { status: 400, text: "CommonName of client sending a request against gateway will be ignored and not used as expected" };
  }
}

interface Refusal {
  readonly status: number;
  readonly text: string;
}

/** The host name of a Host header. What has no port, or is no address at all, stays as it is. */
export function withoutPort(host: string): string {
  const bracketed = /^\[([^\]]*)\]:[^:]*$/.exec(host);
  if (bracketed !== null) return bracketed[1] ?? "";
  const colon = host.indexOf(":");
  return colon < 0 || host.includes("[") || host.indexOf(":", colon + 1) >= 0 ? host : host.slice(0, colon);
}

function unknownHostText(host: string): string {
  return `
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist ${JSON.stringify(host)}

This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).
`;
}
