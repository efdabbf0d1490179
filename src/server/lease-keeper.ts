/**
 * The leader's work on leases: expiring them through the log, replicating remaining times, renewing. Time is monotonic, and before anything is decided by the
 * clock the member makes sure that it still leads: after a stall its belief may be old (failure catalogue BL1).
 */
import * as api from "../api/index.ts";
import { rpcError } from "../api/rpc-errors.ts";
import type { Clock, Timer } from "../base/clock.ts";
import { EtcdError } from "../base/errors.ts";
import type { LeaseId, Term } from "../base/ids.ts";
import type { Logger } from "../base/logger.ts";
import type { Lessor } from "../lease/index.ts";
import type { Proposals } from "./proposals.ts";
import type { RaftDriver } from "./raft-driver.ts";
import { raftRequest } from "./raft-request.ts";

export interface LeaseKeeperOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly proposals: Proposals;
  lessor(): Lessor;
  isLeader(): boolean;
  term(): Term;
  /** See {@link RaftDriver.stalls}. */
  stalls(): RaftDriver["stalls"];
  /** Resolves when a quorum has confirmed that this member leads. */
  confirmLeadership(signal?: AbortSignal): Promise<void>;
  readonly electionMs: number;
  readonly requestTimeoutMs: number;
  readonly checkpoint: boolean;
  /** Tests only: "expire-leases-on-follower" lets members that do not lead end leases, too. */
  readonly mutants?: ReadonlySet<string> | undefined;
  onExpired?: (count: number) => void;
}

const SCAN_MS = 500;
const EXPIRED_PER_SCAN = 500;
const REVOKES_IN_FLIGHT = 16;
const CHECKPOINT_MS = 5 * 60_000;
const CHECKPOINT_LEASES = 1000;

export class LeaseKeeper {
  readonly #options: LeaseKeeperOptions;
  #timer: Timer | undefined;
  #stopped = false;
  #inFlight = 0;
  #due: LeaseId[] = [];
  #checkpointing = false;
  /** Stalls up to which a quorum has confirmed the leadership since. */
  #confirmedStalls = 0;
  /** Callers that renew an expired lease wait here for its end. */
  readonly #endWaiters = new Map<LeaseId, (() => void)[]>();

  readonly #followersExpire: boolean;

  constructor(options: LeaseKeeperOptions) {
    this.#options = options;
    this.#followersExpire = options.mutants?.has("expire-leases-on-follower") === true;
  }

  start(): void {
    this.#timer = this.#options.clock.timer(SCAN_MS, () => this.#scan());
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    for (const waiters of this.#endWaiters.values()) for (const wake of waiters) wake();
    this.#endWaiters.clear();
  }

  /** The first entry of this leader's term is applied: from now on its clock counts. */
  promote(): void {
    this.#due = [];
    this.#options.lessor().promote(this.#options.clock.monotonicMs(), this.#options.electionMs);
  }

  demote(): void {
    this.#due = [];
    this.#options.lessor().demote();
    this.#wakeAll();
  }

  /** The applier removed a lease. */
  onRevoked(id: LeaseId): void {
    const waiters = this.#endWaiters.get(id);
    if (waiters === undefined) return;
    this.#endWaiters.delete(id);
    for (const wake of waiters) wake();
  }

  /**
   * Renews on the leader. Gives the TTL, 0 when the lease is unknown or has just ended.
   * @throws not-primary-lessor when this member cannot prove that it leads.
   */
  async renew(id: LeaseId, signal: AbortSignal | undefined): Promise<number> {
    const options = this.#options;
    await this.ensureLeading(signal);
    for (;;) {
      const renewal = options.lessor().renew(id, options.clock.monotonicMs());
      switch (renewal.outcome) {
        case "renewed":
          if (renewal.checkpointed) {
            await this.#clearCheckpoint(id);
            // Revoked while the checkpoint was being cleared: the renewal came too late (failure catalogue BL2).
            if (!options.lessor().exists(id)) return 0;
          }
          return renewal.ttlSeconds;
        case "unknown":
          return 0;
        case "not-primary":
          throw rpcError("not-primary-lessor");
        case "expired":
          await this.#waitForEnd(id, signal);
          break;
        default:
          renewal satisfies never;
      }
    }
  }

  /**
   * Before anything is said by this leader's clock. After a stall others may have elected a leader who counts anew, so a quorum has to confirm first that there is
   * none (failure catalogue BL1).
   * @throws not-primary-lessor when this member does not lead, or cannot prove it.
   */
  async ensureLeading(signal: AbortSignal | undefined): Promise<void> {
    const options = this.#options;
    if (!options.isLeader()) throw rpcError("not-primary-lessor");
    if (!this.#stalled()) return;
    try {
      await this.#confirm(signal);
    } catch (error) {
      throw rpcError("not-primary-lessor", { cause: error });
    }
    if (!options.isLeader()) throw rpcError("not-primary-lessor");
  }

  #stalled(): boolean {
    return this.#options.stalls() !== this.#confirmedStalls;
  }

  async #confirm(signal?: AbortSignal): Promise<void> {
    const stalls = this.#options.stalls();
    await this.#options.confirmLeadership(signal);
    this.#confirmedStalls = Math.max(this.#confirmedStalls, stalls);
  }

  async #clearCheckpoint(id: LeaseId): Promise<void> {
    const body = api.LeaseCheckpointRequest.create({ checkpoints: [api.LeaseCheckpoint.create({ id, remainingTtl: 0 })] });
    await this.#options.proposals.submit(raftRequest("lease-checkpoint", body, { leaderTerm: this.#options.term() }), {});
  }

  #waitForEnd(id: LeaseId, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const timeout = this.#options.clock.timer(this.#options.requestTimeoutMs, () => done(rpcError("timeout")));
      const onAbort = (): void => done(EtcdError.is(signal?.reason) ? (signal.reason as EtcdError) : rpcError("canceled"));
      const done = (error?: EtcdError): void => {
        timeout.cancel();
        signal?.removeEventListener("abort", onAbort);
        const waiters = this.#endWaiters.get(id)?.filter((one) => one !== wake) ?? [];
        if (waiters.length === 0) this.#endWaiters.delete(id);
        else this.#endWaiters.set(id, waiters);
        if (error === undefined) resolve();
        else reject(error);
      };
      const wake = (): void => done();
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#endWaiters.set(id, [...(this.#endWaiters.get(id) ?? []), wake]);
    });
  }

  #wakeAll(): void {
    for (const waiters of [...this.#endWaiters.values()]) for (const wake of waiters) wake();
  }

  #scan(): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.timer(SCAN_MS, () => this.#scan());
    const options = this.#options;
    const lessor = options.lessor();
    if ((!lessor.primary || !options.isLeader()) && !this.#followersExpire) return;
    const now = options.clock.monotonicMs();
    if (this.#due.length === 0) this.#due = lessor.expired(now, EXPIRED_PER_SCAN, options.requestTimeoutMs);
    this.#revokeDue();
    if (options.checkpoint && !this.#checkpointing) this.#checkpointSome(now);
  }

  #revokeDue(): void {
    while (this.#due.length > 0 && this.#inFlight < REVOKES_IN_FLIGHT && !this.#stopped) {
      const id = this.#due.shift() as LeaseId;
      this.#inFlight++;
      this.#revoke(id).then(
        () => {
          this.#inFlight--;
          this.#revokeDue();
        },
        (error: unknown) => {
          this.#inFlight--;
          // The lessor offers it again after the request timeout.
          this.#options.logger.warn({ lease: id.toString(16), error: String(error) }, "failed to revoke lease");
          this.#revokeDue();
        },
      );
    }
  }

  async #revoke(id: LeaseId): Promise<void> {
    const options = this.#options;
    const term = options.term();
    if (this.#stalled()) {
      await this.#confirm();
      if (!options.isLeader() || options.term() !== term) return;
    }
    // Renewed while the leadership was being confirmed, or gone.
    const remaining = options.lessor().remainingMs(id, options.clock.monotonicMs());
    if (remaining === undefined || remaining > 0) return;
    try {
      await options.proposals.submit(
        raftRequest("lease-revoke", api.LeaseRevokeRequest.create({ id }), { leaderTerm: term }),
        {},
        "urgent",
      );
      options.onExpired?.(1);
    } catch (error) {
      if (EtcdError.is(error) && error.reason === "lease-not-found") return;
      throw error;
    }
  }

  #checkpointSome(now: number): void {
    const items = this.#options.lessor().checkpointsDue(now, CHECKPOINT_MS, CHECKPOINT_LEASES);
    if (items.length === 0) return;
    this.#checkpointing = true;
    const checkpoints = items.map((item) => api.LeaseCheckpoint.create({ id: item.id, remainingTtl: item.remainingTtlSeconds }));
    const body = api.LeaseCheckpointRequest.create({ checkpoints });
    this.#options.proposals.submit(raftRequest("lease-checkpoint", body, { leaderTerm: this.#options.term() }), {}).then(
      () => {
        this.#checkpointing = false;
      },
      (error: unknown) => {
        this.#checkpointing = false;
        this.#options.logger.warn({ error: String(error) }, "failed to checkpoint leases");
      },
    );
  }
}
