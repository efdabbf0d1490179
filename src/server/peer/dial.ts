import * as http from "node:http";
import * as https from "node:https";
import type { Socket } from "node:net";
import type { ConnectionOptions } from "node:tls";
import type { Clock } from "../../base/clock.ts";
import { PeerRefusedError } from "./errors.ts";
import { parsePeerUrl } from "./handshake.ts";

export interface DialOptions {
  readonly url: string;
  readonly path: string;
  readonly protocol: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly tls: ConnectionOptions | undefined;
}

export interface DialledConnection {
  readonly socket: Socket;
  /** Bytes that came together with the 101. */
  readonly head: Uint8Array;
}

const REFUSAL_TEXT_BYTES_MAX = 1024;

/**
 * Opens a connection and upgrades it. Rejects with {@link PeerRefusedError} when the other side answered something else than 101, with
 * the platform's error when it could not be reached, with the signal's reason when aborted. Leaves no socket behind when it rejects.
 */
export function dial(options: DialOptions): Promise<DialledConnection> {
  const endpoint = parsePeerUrl(options.url);
  if (endpoint === undefined) return Promise.reject(new Error(`not a peer URL: ${options.url}`));
  const { signal } = options;
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise<DialledConnection>((resolve, reject) => {
    const request = (endpoint.secure ? https : http).request({
      ...(endpoint.secure ? options.tls : undefined),
      host: endpoint.host,
      port: endpoint.port,
      path: options.path,
      headers: { ...options.headers },
      // A fresh connection of its own: it will not be shared.
      agent: false,
    });
    let settled = false;
    const settle = (act: () => void): void => {
      if (settled) return;
      settled = true;
      timer.cancel();
      signal.removeEventListener("abort", onAbort);
      act();
    };
    const fail = (error: unknown): void =>
      settle(() => {
        request.destroy();
        reject(error);
      });
    const onAbort = (): void => fail(signal.reason);
    const timer = options.clock.timer(options.timeoutMs, () => fail(new Error(`no answer within ${options.timeoutMs} ms`)));
    signal.addEventListener("abort", onAbort);

    // Stays attached after settling: a late error of a destroyed request must find a listener.
    request.on("error", fail);
    request.on("upgrade", (response, socket: Socket, head: Buffer) => {
      if (settled || response.headers.upgrade?.toLowerCase() !== options.protocol) {
        socket.destroy();
        fail(new Error("upgraded to another protocol"));
        return;
      }
      settle(() => resolve({ socket, head }));
    });
    request.on("response", (response) => {
      const pieces: Buffer[] = [];
      let bytes = 0;
      const refuse = (): void => {
        const text = Buffer.concat(pieces).subarray(0, REFUSAL_TEXT_BYTES_MAX).toString("utf8").trim();
        const clusterId = response.headers["x-etcd-cluster-id"];
        fail(new PeerRefusedError(response.statusCode ?? 0, text, typeof clusterId === "string" ? clusterId : undefined));
      };
      response.on("data", (piece: Buffer) => {
        pieces.push(piece);
        bytes += piece.byteLength;
        if (bytes >= REFUSAL_TEXT_BYTES_MAX) refuse();
      });
      response.on("end", refuse);
      response.on("error", fail);
    });
    request.end();
  });
}
