/** The transport that is served: HTTP/2 of our own on whatever carries bytes. docs/adr/0002-grpc-transport.md says why. */
import type { Timer } from "../../../base/clock.ts";
import type { GrpcTransport, TransportOptions } from "../transport.ts";
import { Connection, type ConnectionOptions } from "./connection.ts";

/** How often connections are looked at, at least. */
const SWEEP_MS = 1000;
const SWEEP_MS_MIN = 10;

export function createHttp2Transport(options: TransportOptions): GrpcTransport {
  const { clock, limits } = options;
  const connections = new Set<Connection>();
  let sweeper: Timer | undefined;
  let closing: Promise<void> | undefined;
  let whenEmpty: (() => void) | undefined;

  const { headersMs, keepaliveIntervalMs, keepaliveTimeoutMs } = limits;
  const awaited = [headersMs, keepaliveIntervalMs, keepaliveTimeoutMs].filter((ms) => ms > 0);
  const sweepMs = Math.max(SWEEP_MS_MIN, Math.min(SWEEP_MS, ...awaited.map((ms) => ms / 2)));
  const sweep = (): void => {
    const nowMs = clock.monotonicMs();
    for (const connection of connections) connection.sweep(nowMs);
    sweeper = connections.size > 0 ? clock.timer(sweepMs, sweep) : undefined;
  };

  const connectionOptions: ConnectionOptions = {
    open: options.open,
    clock,
    limits,
    budget: options.budget,
    onBug: options.onBug,
    onClosed: (connection) => {
      connections.delete(connection);
      if (connections.size === 0) whenEmpty?.();
    },
  };

  const close = async (graceMs: number): Promise<void> => {
    for (const connection of connections) connection.drain();
    if (connections.size > 0) {
      const empty = new Promise<void>((resolve) => {
        whenEmpty = resolve;
      });
      const cut = clock.timer(graceMs, () => {
        for (const connection of connections) connection.destroy();
      });
      await empty;
      cut.cancel();
    }
    sweeper?.cancel();
    sweeper = undefined;
  };

  return {
    handle(socket, peer = {}) {
      if (closing !== undefined || socket.destroyed) {
        socket.destroy();
        return;
      }
      connections.add(new Connection(connectionOptions, socket, peer));
      sweeper ??= clock.timer(sweepMs, sweep);
    },
    get connections() {
      return connections.size;
    },
    close({ graceMs }) {
      closing ??= close(graceMs);
      return closing;
    },
  };
}
