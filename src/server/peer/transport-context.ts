import type { ServerOptions as TlsServerOptions } from "node:https";
import type { Socket } from "node:net";
import type { ConnectionOptions } from "node:tls";
import type { Clock } from "../../base/clock.ts";
import type { MemberId } from "../../base/ids.ts";
import type { Logger } from "../../base/logger.ts";
import type { Random } from "../../base/random.ts";
import { FRAME_BYTES_MAX } from "./frame.ts";
import type { LocalIdentity } from "./handshake.ts";
import type { PeerObserver } from "./observer.ts";

export interface HttpPeerTransportOptions {
  /** Where to accept, e.g. `http://127.0.0.1:2380`; port 0 picks a free one (see `boundUrls`). */
  readonly listenUrls: readonly string[];
  /** This member's own advertised URLs: tell a peer that does not know this member yet where to answer. */
  readonly advertisedPeerUrls: readonly string[];
  /** Sent to peers and compared with theirs, e.g. `3.7.1`. */
  readonly serverVersion: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly observer?: PeerObserver | undefined;
  /** For https URLs: passed on to `https.createServer` and to the dialling side as they are. */
  readonly tls?: { readonly server?: TlsServerOptions | undefined; readonly client?: ConnectionOptions | undefined } | undefined;
  readonly limits?: Partial<PeerTransportLimits> | undefined;
}

/** All have working defaults. */
export interface PeerTransportLimits {
  /** Largest frame, in bytes; one raft message must fit, so keep it well above the largest request. Default 64 MiB. */
  readonly frameBytesMax: number;
  /** Raft messages that wait for one peer. Default 4096. */
  readonly queueMessagesMax: number;
  /** Their bytes. Default 64 MiB. */
  readonly queueBytesMax: number;
  /** Largest body of a `request`. Default 1 MiB. */
  readonly requestBytesMax: number;
  /** First and longest pause between two attempts to connect. Defaults 50 and 1000 ms. */
  readonly reconnectMinMs: number;
  readonly reconnectMaxMs: number;
  /** Longest wait for one attempt to connect, handshake included. Default 2000 ms. */
  readonly dialTimeoutMs: number;
  /** Each side sends something this often. Default a third of the read deadline. */
  readonly keepaliveMs: number;
  /** A connection on which nothing arrives for so long is given up. Default 5000 ms. */
  readonly readDeadlineMs: number;
  /** The same for snapshot connections, where a busy disk may take its time. Default 30,000 ms. */
  readonly snapshotSilenceMs: number;
  /** Attempts in a row without progress before a snapshot is given up. Default 4. */
  readonly snapshotAttemptsMax: number;
  /** Largest snapshot that is accepted, in bytes. Default: no limit but 2^53. */
  readonly snapshotBytesMax: number;
  /** A snapshot that arrives more slowly than this on average (after a first minute) is refused. Default 64 KiB/s. */
  readonly snapshotBytesPerSecondMin: number;
  /** TCP connections accepted at once, over all listeners each. Default 1024. */
  readonly connectionsMax: number;
}

export function resolveLimits(given: Partial<PeerTransportLimits> = {}): PeerTransportLimits {
  const readDeadlineMs = given.readDeadlineMs ?? 5000;
  return {
    frameBytesMax: given.frameBytesMax ?? FRAME_BYTES_MAX,
    queueMessagesMax: given.queueMessagesMax ?? 4096,
    queueBytesMax: given.queueBytesMax ?? 64 * 1024 * 1024,
    requestBytesMax: given.requestBytesMax ?? 1024 * 1024,
    reconnectMinMs: given.reconnectMinMs ?? 50,
    reconnectMaxMs: given.reconnectMaxMs ?? 1000,
    dialTimeoutMs: given.dialTimeoutMs ?? 2000,
    keepaliveMs: given.keepaliveMs ?? readDeadlineMs / 3,
    readDeadlineMs,
    snapshotSilenceMs: given.snapshotSilenceMs ?? 30_000,
    snapshotAttemptsMax: given.snapshotAttemptsMax ?? 4,
    snapshotBytesMax: given.snapshotBytesMax ?? Number.MAX_SAFE_INTEGER,
    snapshotBytesPerSecondMin: given.snapshotBytesPerSecondMin ?? 64 * 1024,
    connectionsMax: given.connectionsMax ?? 1024,
  };
}

/** What the parts of one transport share. */
export interface TransportContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly observer: PeerObserver;
  readonly identity: LocalIdentity;
  readonly limits: PeerTransportLimits;
  readonly advertisedPeerUrls: readonly string[];
  readonly tlsClient: ConnectionOptions | undefined;
  /** The socket is destroyed when the transport closes. */
  track(socket: Socket): void;
  /** Tells the server, in a later microtask: never from inside one of its own calls. */
  unreachable(peer: MemberId): void;
  /** A peer of this cluster says that this member was removed. */
  removed(): void;
}
