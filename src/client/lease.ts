/** Leases: granted, kept alive in the background, and reported as lost before the cluster can end them. */
import * as api from "../api/index.ts";
import type { Timer } from "../base/clock.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { Caller } from "./caller.ts";
import type { Coding } from "./coding.ts";
import { type CallOptions, Deadline, pause } from "./deadline.ts";
import { Ending } from "./ending.ts";
import { ClientError, ClosedError, InvalidUseError } from "./errors.ts";

export interface GrantOptions extends CallOptions {
  /** Seconds without a renewal after which the cluster ends the lease. The cluster raises it to its minimum (2 s by default). */
  readonly ttlSeconds: number;
  /** Signed 64 bits; absent or 0n: chosen by the cluster. */
  readonly id?: bigint | undefined;
}

export interface LeaseOptions extends GrantOptions {
  /** Default true. */
  readonly keepAlive?: boolean | undefined;
}

/** Why a lease is not held any more. */
export type LeaseEnd = "unconfirmed" | "expired" | "closed";

/**
 * The lease is not, or soon not any more, this client's. "unconfirmed": no renewal was confirmed in time, so the cluster may end it from about now on;
 * "expired": the cluster has ended it; "closed": this client has.
 */
export class LeaseLostError extends ClientError {
  readonly lease: bigint;
  readonly end: LeaseEnd;

  constructor(facts: { lease: bigint; end: LeaseEnd }, options?: { cause?: unknown }) {
    super(
      "lease-lost",
      GrpcCode.FailedPrecondition,
      `lease ${BigInt.asUintN(64, facts.lease).toString(16)} is lost (${facts.end})`,
      options,
    );
    this.name = "LeaseLostError";
    this.lease = facts.lease;
    this.end = facts.end;
  }
}

export interface TimeToLive<K = string> {
  /** Whole seconds left. */
  readonly ttlSeconds: number;
  readonly grantedTtlSeconds: number;
  /** Attached, below the client's namespace; only if asked for. */
  readonly keys: readonly K[];
}

/** Attempts to renew are made this often in the life of a lease. */
const RENEWALS_PER_TTL = 3;
const RETRY_MS = 250;
/** How long an attempt waits for its answer, at most, before another member is asked. */
const ATTEMPT_MS_MAX = 5000;
/** Clocks of different machines may run at rates this much apart, in parts of the TTL, and timers are late. */
const MARGIN_PARTS = 100;
const MARGIN_MIN_MS = 100;

/**
 * A lease of this client, renewed in the background until it is closed or lost. `lost` is aborted (with a {@link LeaseLostError} as its reason) before the
 * cluster can end the lease, as long as the process runs: who may be stopped for long (a suspended machine) must guard its writes, see `Mutex`.
 */
export class Lease {
  readonly id: bigint;
  /** As granted. */
  readonly ttlSeconds: number;
  readonly #caller: Caller;
  readonly #lost = new AbortController();
  readonly #closing = new Ending();
  readonly #releaseClient: () => void;
  /** On this client's clock: until then the cluster certainly keeps the lease. */
  #safeUntilMs: number;
  #ending: Timer | undefined;
  #renewal: Timer | undefined;
  #closed: Promise<void> | undefined;

  /** @param facts.sentMs when the request was sent by which the lease was last confirmed */
  constructor(caller: Caller, facts: { id: bigint; ttlSeconds: number; sentMs: number; keepAlive: boolean }) {
    this.#caller = caller;
    this.id = facts.id;
    this.ttlSeconds = facts.ttlSeconds;
    this.#safeUntilMs = 0;
    this.#confirmed(facts.sentMs);
    if (facts.keepAlive) this.#scheduleRenewal();
    this.#releaseClient = caller.closing.onEnd(() => this.abandon());
    if (caller.closed) this.abandon();
  }

  /** Aborted when the lease is not safely held any more. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Milliseconds for which the lease is certainly held without another renewal; 0 when it is lost. */
  get safeForMs(): number {
    return this.lost.aborted ? 0 : Math.max(0, this.#safeUntilMs - this.#caller.clock.monotonicMs());
  }

  /** @throws LeaseLostError also when a timer is late and `lost` has not been aborted yet */
  throwIfLost(): void {
    if (!this.lost.aborted && this.safeForMs > 0) return;
    this.#lose("unconfirmed");
    throw this.lost.reason;
  }

  /** Renews now. @throws LeaseLostError if the cluster has ended it */
  async renew(options?: CallOptions): Promise<void> {
    if (this.lost.aborted) throw this.lost.reason;
    const sentMs = this.#caller.clock.monotonicMs();
    const ttlSeconds = await keepAliveOnce(this.#caller, this.id, options, this.#closing);
    if (ttlSeconds <= 0) {
      this.#lose("expired");
      throw this.lost.reason;
    }
    this.#confirmed(sentMs);
  }

  /** Stops renewing, without giving the lease back: it ends after its TTL. */
  abandon(): void {
    this.#closing.end(new ClosedError("the lease"));
    this.#renewal?.cancel();
    this.#lose("closed");
  }

  /** Gives the lease back: its keys are deleted now. Succeeds also when it has ended already. Idempotent. */
  close(options?: CallOptions): Promise<void> {
    this.#closed ??= this.#close(options);
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(options: CallOptions | undefined): Promise<void> {
    this.abandon();
    if (this.#caller.closed) return;
    try {
      // Twice is as good as once.
      await this.#caller.unary(api.LeaseService.leaseRevoke, { id: this.id }, { retry: "always", ...options }, "write");
    } catch (error) {
      if (!api.isRpcError(error, "lease-not-found")) throw error;
    }
  }

  #confirmed(sentMs: number): void {
    if (this.lost.aborted) return;
    const ttlMs = this.ttlSeconds * 1000;
    const safeUntilMs = sentMs + ttlMs - Math.max(MARGIN_MIN_MS, ttlMs / MARGIN_PARTS);
    if (safeUntilMs <= this.#safeUntilMs) return;
    this.#safeUntilMs = safeUntilMs;
    if (this.#ending === undefined) this.#scheduleEnd();
  }

  /** One timer at a time, set again when it finds that there was a renewal. Long waits are cut by the clock. */
  #scheduleEnd(): void {
    const { clock } = this.#caller;
    this.#ending = clock.timer(Math.max(0, this.#safeUntilMs - clock.monotonicMs()), () => {
      if (clock.monotonicMs() >= this.#safeUntilMs) this.#lose("unconfirmed");
      else this.#scheduleEnd();
    });
  }

  #scheduleRenewal(): void {
    const periodMs = (this.ttlSeconds * 1000) / RENEWALS_PER_TTL;
    this.#renewal = this.#caller.clock.timer(periodMs, () => {
      this.#renewUntilConfirmed(periodMs).then(
        () => {
          if (!this.lost.aborted) this.#scheduleRenewal();
        },
        // Only the end of the lease gets here, and `lost` has told of it.
        () => undefined,
      );
    });
  }

  async #renewUntilConfirmed(periodMs: number): Promise<void> {
    for (;;) {
      try {
        await this.renew({ timeoutMs: Math.max(Math.min(periodMs, ATTEMPT_MS_MAX), RETRY_MS), signal: this.lost });
        return;
      } catch (error) {
        if (this.lost.aborted) throw error;
        if (EtcdError.is(error) && FINAL_CODES.has(error.grpcCode)) {
          this.#lose("unconfirmed", error);
          throw error;
        }
      }
      await pause(this.#caller.clock, Math.min(RETRY_MS, periodMs), this.lost);
    }
  }

  #lose(end: LeaseEnd, cause?: unknown): void {
    if (this.lost.aborted) return;
    this.#ending?.cancel();
    this.#renewal?.cancel();
    this.#releaseClient?.();
    this.#lost.abort(new LeaseLostError({ lease: this.id, end }, { cause }));
  }
}

/** The member, or the way to it, is not well. */
const TROUBLE_CODES: ReadonlySet<number> = new Set([GrpcCode.Unavailable, GrpcCode.DeadlineExceeded]);
/** Refusals that repeating does not change. */
const FINAL_CODES: ReadonlySet<number> = new Set([GrpcCode.PermissionDenied, GrpcCode.Unimplemented, GrpcCode.Unauthenticated]);

/** The TTL after the renewal; 0 when there is no such lease. */
async function keepAliveOnce(caller: Caller, id: bigint, options: CallOptions | undefined, closing?: Ending): Promise<number> {
  const endings = closing === undefined ? [caller.closing] : [closing, caller.closing];
  const deadline = new Deadline(caller.clock, options?.timeoutMs ?? 0, options?.signal, ...endings);
  try {
    for (let refused = 0; ; refused += 1) {
      const { channel, waitMs } = caller.endpoints.pick();
      // A way that failed is given less time to recover than other calls give it: the lease is running out.
      if (waitMs > 0) await deadline.pause(Math.min(waitMs, RETRY_MS));
      const context = await caller.context(deadline, options);
      try {
        const { ttl } = await channel.keepAlive({ id }, context);
        caller.endpoints.worked(channel);
        return ttl;
      } catch (error) {
        if (caller.tokenRefused(error, context.token) && refused < 2) continue;
        const failure = deadline.error ?? error;
        if (EtcdError.is(failure) && TROUBLE_CODES.has(failure.grpcCode)) caller.endpoints.failed(channel, failure === deadline.error);
        throw failure;
      }
    }
  } finally {
    deadline.done();
  }
}

/** Leases by their ids. */
export class LeaseClient<K> {
  readonly #caller: Caller;
  readonly #coding: Coding<unknown, K>;

  constructor(caller: Caller, coding: Coding<unknown, K>) {
    this.#caller = caller;
    this.#coding = coding;
  }

  /** Grants a lease, and by default keeps it alive. */
  async open(options: LeaseOptions): Promise<Lease> {
    const sentMs = this.#caller.clock.monotonicMs();
    const { id, ttlSeconds } = await this.grant(options);
    return new Lease(this.#caller, { id, ttlSeconds, sentMs, keepAlive: options.keepAlive ?? true });
  }

  /** Keeps a lease alive that exists already, granted by whomever. */
  async adopt(id: bigint, options?: CallOptions): Promise<Lease> {
    const sentMs = this.#caller.clock.monotonicMs();
    const ttlSeconds = await this.keepAliveOnce(id, options);
    if (ttlSeconds <= 0) throw new LeaseLostError({ lease: id, end: "expired" });
    return new Lease(this.#caller, { id, ttlSeconds, sentMs, keepAlive: true });
  }

  /** Grants a lease and leaves it alone. */
  async grant(options: GrantOptions): Promise<{ readonly id: bigint; readonly ttlSeconds: number }> {
    if (!Number.isSafeInteger(options.ttlSeconds))
      throw new InvalidUseError(`ttlSeconds must be a whole number, not ${options.ttlSeconds}`);
    const request = { id: options.id ?? 0n, ttl: options.ttlSeconds };
    const { id, ttl } = await this.#caller.unary(api.LeaseService.leaseGrant, request, options, "write");
    return { id, ttlSeconds: ttl };
  }

  /** Ends a lease and deletes its keys. @throws RpcError `lease-not-found` */
  async revoke(id: bigint, options?: CallOptions): Promise<void> {
    await this.#caller.unary(api.LeaseService.leaseRevoke, { id }, options, "write");
  }

  /** The TTL in seconds after the renewal; 0 when there is no such lease. */
  keepAliveOnce(id: bigint, options?: CallOptions): Promise<number> {
    return keepAliveOnce(this.#caller, id, options);
  }

  /** Undefined: there is no such lease. */
  async timeToLive(id: bigint, options?: CallOptions & { readonly keys?: boolean }): Promise<TimeToLive<K> | undefined> {
    const request = { id, keys: options?.keys === true };
    const response = await this.#caller.unary(api.LeaseService.leaseTimeToLive, request, options, "read");
    if (response.ttl < 0) return undefined;
    const { prefix } = this.#coding;
    const own = response.keys.filter((key) => startsWith(key, prefix));
    return { ttlSeconds: response.ttl, grantedTtlSeconds: response.grantedTtl, keys: own.map((key) => this.#coding.keyOf(key)) };
  }

  /** Ids of all leases, as one member sees them. */
  async list(options?: CallOptions): Promise<readonly bigint[]> {
    const { leases } = await this.#caller.unary(api.LeaseService.leaseLeases, {}, options, "read");
    return leases.map(({ id }) => id);
  }
}

function startsWith(key: Uint8Array, prefix: Uint8Array): boolean {
  return prefix.every((byte, i) => key[i] === byte);
}
