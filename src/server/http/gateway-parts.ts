/** What all calls through the gateway share. */
import type { Clock } from "../../base/clock.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { Logger } from "../../base/logger.ts";
import type { ServerMetrics } from "../metrics.ts";
import type { Services } from "../services/services.contract.ts";
import type { GatewayLimits } from "./gateway-limits.ts";

export class GatewayParts {
  readonly services: Services;
  readonly metrics: ServerMetrics;
  readonly clock: Clock;
  readonly limits: GatewayLimits;
  readonly logger: Logger;
  readonly heavyWork = new TurnQueue();
  readonly #onBug: (error: unknown) => void;

  constructor(options: {
    services: Services;
    metrics: ServerMetrics;
    clock: Clock;
    limits: GatewayLimits;
    logger: Logger;
    onBug: (error: unknown) => void;
  }) {
    this.services = options.services;
    this.metrics = options.metrics;
    this.clock = options.clock;
    this.limits = options.limits;
    this.logger = options.logger;
    this.#onBug = options.onBug;
  }

  /** What a client may be told about `error`. Anything but an EtcdError is a bug: it is reported, and its text stays here. */
  asEtcdError(error: unknown): EtcdError {
    if (EtcdError.is(error)) return error;
    if (isStringTooLong(error)) {
      return new EtcdError("message-too-large", GrpcCode.ResourceExhausted, "grpc: trying to send message larger than max (in JSON)", {
        cause: error,
      });
    }
    this.logger.error(
      { error: String(error), stack: error instanceof Error ? error.stack : undefined },
      "unexpected error in a call through the gateway",
    );
    this.#onBug(error);
    return new EtcdError("internal", GrpcCode.Internal, "internal error", { cause: error });
  }
}

/** The JSON of an answer does not fit into a string of the engine (about half a gigabyte). */
function isStringTooLong(error: unknown): boolean {
  return error instanceof RangeError && error.message === "Invalid string length";
}

/** Work that takes milliseconds: one piece in each turn of the event loop, so that timers and sockets have their turn between. */
class TurnQueue {
  readonly #jobs: (() => void)[] = [];

  /** Bounded by its users: one job per connection. */
  add(job: () => void): void {
    this.#jobs.push(job);
    if (this.#jobs.length === 1) setImmediate(this.#next);
  }

  readonly #next = (): void => {
    const job = this.#jobs[0];
    try {
      job?.();
    } finally {
      this.#jobs.shift();
      if (this.#jobs.length > 0) setImmediate(this.#next);
    }
  };
}
