/** Which of several ways to take: in turn among those that work, away from those that failed, back to them after a pause that grows. */
import type { Clock } from "../base/clock.ts";
import { ClosedError, InvalidUseError } from "./errors.ts";
import type { Channel, Transport } from "./transport.ts";

const BACKOFF_FIRST_MS = 50;
const BACKOFF_MAX_MS = 2000;
/** After a failure that took long to show. */
const SLOW_FACTOR = 20;
const SLOW_MAX_MS = 10_000;

interface Way {
  readonly channel: Channel;
  failures: number;
  /** Not before this, on the monotonic clock, unless there is no other. */
  downUntilMs: number;
}

export class Endpoints {
  readonly #clock: Clock;
  readonly #ways: readonly Way[];
  #turn: number;
  #closed = false;

  /** @param first index of the endpoint to begin with; chosen at random by many clients it spreads them. */
  constructor(options: { clock: Clock; transport: Transport; endpoints: readonly string[]; first: number }) {
    this.#clock = options.clock;
    const endpoints = [...new Set(options.endpoints)];
    if (endpoints.length === 0) throw new InvalidUseError("a client needs at least one endpoint");
    this.#ways = endpoints.map((endpoint) => ({ channel: options.transport.connect(endpoint), failures: 0, downUntilMs: 0 }));
    this.#turn = options.first % endpoints.length;
  }

  get count(): number {
    return this.#ways.length;
  }

  get names(): readonly string[] {
    return this.#ways.map(({ channel }) => channel.endpoint);
  }

  /** A transport is so, or is not, to all endpoints. */
  get fullDuplex(): boolean {
    return (this.#ways[0] as Way).channel.fullDuplex;
  }

  /** The only channel, if there is just one. */
  get single(): Channel | undefined {
    return this.#ways.length === 1 && !this.#closed ? (this.#ways[0] as Way).channel : undefined;
  }

  named(endpoint: string): Channel {
    if (this.#closed) throw new ClosedError();
    const way = this.#ways.find(({ channel }) => channel.endpoint === endpoint);
    if (way === undefined) throw new InvalidUseError(`this client has no endpoint ${endpoint}`);
    return way.channel;
  }

  /** The next channel in turn, and how long to wait before using it: 0 unless all of them failed lately. */
  pick(): { channel: Channel; waitMs: number } {
    if (this.#closed) throw new ClosedError();
    const { length } = this.#ways;
    const nowMs = this.#clock.monotonicMs();
    let best = this.#turn;
    let bestMs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < length; i += 1) {
      const at = (this.#turn + i) % length;
      const { downUntilMs } = this.#ways[at] as Way;
      if (downUntilMs <= nowMs) {
        best = at;
        bestMs = nowMs;
        break;
      }
      if (downUntilMs < bestMs) {
        best = at;
        bestMs = downUntilMs;
      }
    }
    this.#turn = (best + 1) % length;
    return { channel: (this.#ways[best] as Way).channel, waitMs: Math.max(0, bestMs - nowMs) };
  }

  worked(channel: Channel): void {
    const way = this.#wayOf(channel);
    if (way.failures === 0) return;
    way.failures = 0;
    way.downUntilMs = 0;
  }

  /** @param slow the failure cost its caller a lot of time, and may do so again */
  failed(channel: Channel, slow = false): void {
    const way = this.#wayOf(channel);
    way.failures += 1;
    const doubled = BACKOFF_FIRST_MS * 2 ** Math.min(way.failures - 1, 10);
    // With nowhere else to go, waiting only adds to the harm.
    const backoff = slow && this.#ways.length > 1 ? Math.min(SLOW_MAX_MS, doubled * SLOW_FACTOR) : Math.min(BACKOFF_MAX_MS, doubled);
    // Spread, so that many clients do not come back at the same moment.
    way.downUntilMs = this.#clock.monotonicMs() + backoff * (0.5 + Math.random() / 2);
  }

  close(): void {
    this.#closed = true;
    for (const { channel } of this.#ways) channel.close();
  }

  #wayOf(channel: Channel): Way {
    return this.#ways.find((way) => way.channel === channel) as Way;
  }
}
