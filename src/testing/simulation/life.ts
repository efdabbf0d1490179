/** One run of a simulated member's process, from its start to its death. What a dead one still tries has no effect, and nothing comes back to it. */
import type { Clock, Timer } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { UnavailableError } from "../../client/index.ts";
import type { PeerTransport, Server } from "../../server/index.ts";
import { Gate } from "../gate.ts";
import type { DiskUser } from "./sim-disk.ts";

/** Milliseconds, more or less. */
const LATENCY_MS = { write: 0, read: 0.1, sync: 1 } as const;

export class Life implements DiskUser {
  readonly name: string;
  readonly clock: Clock;
  /** Shut while the process is paused. */
  readonly gate = new Gate();
  server: Server | undefined;
  transport: PeerTransport | undefined;
  /** It serves. */
  ready = false;
  #dead = false;
  readonly #random: Random;
  readonly #deaths = new Set<() => void>();

  constructor(name: string, clock: Clock, random: Random) {
    this.name = name;
    this.#random = random;
    this.clock = {
      monotonicMs: () => clock.monotonicMs(),
      wallMs: () => clock.wallMs(),
      timer: (ms, fn): Timer => {
        let cancelled = false;
        const timer = clock.timer(ms, () =>
          this.run(() => {
            if (!cancelled) fn();
          }),
        );
        return {
          cancel: () => {
            cancelled = true;
            timer.cancel();
          },
        };
      },
    };
  }

  get dead(): boolean {
    return this.#dead;
  }

  /** Calls `fn` when the process runs; never, if it is dead by then. */
  run(fn: () => void): void {
    if (this.#dead) return;
    this.gate.pass(() => {
      if (!this.#dead) fn();
    });
  }

  done(what: "write" | "sync" | "read"): Promise<void> {
    const ms = LATENCY_MS[what];
    if (ms === 0 && !this.#dead) return Promise.resolve();
    return new Promise((resolve) => this.clock.timer((ms * (512 + this.#random.below(1024))) / 1024, resolve));
  }

  /** Has the process do what a client asks for. Rejects when it dies meanwhile. */
  serve<T>(act: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const forget = this.onDeath(() => reject(this.gone()));
      const settle = (fn: () => void): void =>
        this.run(() => {
          forget();
          fn();
        });
      this.run(() => {
        act().then(
          (value) => settle(() => resolve(value)),
          (error: unknown) => settle(() => reject(error)),
        );
      });
    });
  }

  /** What clients see of its death. */
  gone(): UnavailableError {
    return new UnavailableError({ endpoint: this.name, requestSent: true, message: "connection reset by peer" });
  }

  /** Calls `listener` when it dies, at once if it is dead. Returns how to stop that. */
  onDeath(listener: () => void): () => void {
    if (this.#dead) listener();
    else this.#deaths.add(listener);
    return () => this.#deaths.delete(listener);
  }

  die(): void {
    if (this.#dead) return;
    this.#dead = true;
    this.ready = false;
    void this.transport?.close();
    for (const listener of [...this.#deaths]) listener();
    // What was held back finds out that it is too late.
    this.gate.open();
  }
}
