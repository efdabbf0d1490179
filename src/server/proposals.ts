/**
 * Requests on their way through the log: each has an id, a waiter and one deadline for all (5 s + 2 x election timeout, cluster-behaviour.md section 7).
 * An answer of "timed out" means unknown: the entry may still be applied later, at most once.
 */
import { rpcError } from "../api/rpc-errors.ts";
import { EMPTY_BYTES } from "../base/bytes.ts";
import type { Clock, Timer } from "../base/clock.ts";
import { EtcdError } from "../base/errors.ts";
import type { RequestId } from "../base/ids.ts";
import type { ProposeConfChangeOutcome, ProposeOutcome } from "../raft/index.ts";
import { encodeRaftRequest, type RaftRequest } from "./raft-request.ts";
import type { RequestIdGenerator } from "./request-id.ts";
import type { CallContext } from "./services/services.contract.ts";

/** A request, decoded, with the waiter of the member that proposed it. Travels beside the entry in memory (`Entry.context`). */
export class Proposal {
  readonly id: RequestId;
  /** Undefined for configuration changes, which are proposed by `proposeOther`, and once the entry is applied. */
  request: RaftRequest | undefined;
  data: Uint8Array;
  proposeOther: (() => ProposeConfChangeOutcome) | undefined;
  readonly startedMs: number;
  readonly deadlineMs: number;
  resolve: (result: unknown) => void;
  reject: (error: unknown) => void;
  /** Handed to raft, so its outcome is unknown until it is applied. */
  proposed = false;
  detach: (() => void) | undefined;

  constructor(
    id: RequestId,
    request: RaftRequest | undefined,
    data: Uint8Array,
    startedMs: number,
    deadlineMs: number,
    resolve: (result: unknown) => void,
    reject: (error: unknown) => void,
  ) {
    this.id = id;
    this.request = request;
    this.data = data;
    this.startedMs = startedMs;
    this.deadlineMs = deadlineMs;
    this.proposeOther = undefined;
    this.resolve = resolve;
    this.reject = reject;
  }

  /** The entry is applied: what it carried need not live as long as the entry stays in the log. */
  release(): void {
    this.request = undefined;
    this.data = EMPTY_BYTES;
    this.resolve = nothing;
    this.reject = nothing;
    this.detach = undefined;
  }
}

function nothing(): void {
  // The waiter has been answered.
}

export interface ProposalsOptions {
  readonly clock: Clock;
  readonly ids: RequestIdGenerator;
  readonly requestTimeoutMs: number;
  readonly requestBytesMax: number;
  /** Requests that may wait for an answer at once; more are refused with "too many requests". */
  readonly pendingMax: number;
  propose(data: Uint8Array, proposal: Proposal): ProposeOutcome;
  /** Commit index minus applied index. */
  applyLag(): number;
  /** The error for a request that was proposed and not answered in time. */
  timeoutError(startedMs: number): EtcdError;
}

const SWEEP_MS = 100;
/** Entries committed but not applied beyond which new requests are refused (limits-and-defaults.md section 6). */
const APPLY_LAG_MAX = 5000;
/** The same for the end of leases: they must not wait for as long as clients write more than can be applied (failure catalogue BL8). */
const URGENT_APPLY_LAG_MAX = 10_000;

export class Proposals {
  readonly #options: ProposalsOptions;
  /** In order of their deadlines, because all have the same timeout. */
  readonly #pending = new Map<bigint, Proposal>();
  /** Not yet accepted by raft: no leader known, or a transfer under way. In order; a subset of `#pending`. */
  #waiting: Proposal[] = [];
  #sweeper: Timer | undefined;
  #stopped: EtcdError | undefined;
  failures = 0;

  constructor(options: ProposalsOptions) {
    this.#options = options;
  }

  get pending(): number {
    return this.#pending.size;
  }

  /**
   * Replicates a request and resolves with what applying it gave. Rejects with the error of applying it, `request-too-large`, `too-many-requests`, the
   * caller's cancellation, or a timeout. "urgent" is for what this member itself must do, and is taken when clients are refused already.
   */
  submit<Result>(request: RaftRequest, context: CallContext, urgency: "usual" | "urgent" = "usual"): Promise<Result> {
    const options = this.#options;
    if (this.#stopped !== undefined) return Promise.reject(this.#stopped);
    const urgent = urgency === "urgent";
    // Whoever submits urgent requests bounds their number.
    if (options.applyLag() > (urgent ? URGENT_APPLY_LAG_MAX : APPLY_LAG_MAX) || (!urgent && this.#pending.size >= options.pendingMax))
      return Promise.reject(rpcError("too-many-requests"));
    const id = options.ids.next();
    request.id = id;
    const data = encodeRaftRequest(request);
    if (data.byteLength > options.requestBytesMax) return Promise.reject(rpcError("request-too-large"));
    return this.#track<Result>(id, request, data, undefined, context);
  }

  /**
   * The same for what is not a plain request: `make` gets the request id and says how large the entry is and how to propose it.
   */
  submitWith<Result>(
    context: CallContext,
    make: (id: RequestId) => { bytes: number; propose: () => ProposeConfChangeOutcome },
  ): Promise<Result> {
    const options = this.#options;
    if (this.#stopped !== undefined) return Promise.reject(this.#stopped);
    if (this.#pending.size >= options.pendingMax) return Promise.reject(rpcError("too-many-requests"));
    const id = options.ids.next();
    const { bytes, propose } = make(id);
    if (bytes > options.requestBytesMax) return Promise.reject(rpcError("request-too-large"));
    return this.#track<Result>(id, undefined, EMPTY_BYTES, propose, context);
  }

  #track<Result>(
    id: RequestId,
    request: RaftRequest | undefined,
    data: Uint8Array,
    proposeOther: (() => ProposeConfChangeOutcome) | undefined,
    context: CallContext,
  ): Promise<Result> {
    const signal = context.signal;
    if (signal?.aborted === true) return Promise.reject(abortError(signal));
    const now = this.#options.clock.monotonicMs();
    return new Promise<Result>((resolve, reject) => {
      const proposal = new Proposal(
        id,
        request,
        data,
        now,
        now + this.#options.requestTimeoutMs,
        resolve as (result: unknown) => void,
        reject,
      );
      proposal.proposeOther = proposeOther;
      this.#pending.set(id, proposal);
      if (signal !== undefined) {
        const onAbort = (): void => this.#finish(proposal, abortError(signal));
        signal.addEventListener("abort", onAbort, { once: true });
        proposal.detach = () => signal.removeEventListener("abort", onAbort);
      }
      this.#propose(proposal);
      if (this.#sweeper === undefined) this.#sweep();
    });
  }

  /** The waiter of an applied entry, removed from the book; undefined when it is another member's or nobody waits any more. */
  take(id: bigint): Proposal | undefined {
    const proposal = this.#pending.get(id);
    if (proposal === undefined) return undefined;
    this.#pending.delete(id);
    proposal.detach?.();
    return proposal;
  }

  /** A leader is known (again): what waited goes out, in order. */
  retryWaiting(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const proposal of waiting) {
      if (this.#pending.has(proposal.id)) this.#propose(proposal);
    }
  }

  /** Every waiter is told; later submissions fail at once. */
  stop(error: EtcdError): void {
    if (this.#stopped !== undefined) return;
    this.#stopped = error;
    this.#sweeper?.cancel();
    this.#sweeper = undefined;
    for (const proposal of [...this.#pending.values()]) this.#finish(proposal, error);
    this.#waiting = [];
  }

  #propose(proposal: Proposal): void {
    const outcome = proposal.proposeOther === undefined ? this.#options.propose(proposal.data, proposal) : proposal.proposeOther();
    switch (outcome) {
      case "accepted":
        proposal.proposed = true;
        return;
      case "no-leader":
      case "transferring":
      case "pending":
        // Nothing was sent, so waiting and trying again is safe.
        this.#waiting.push(proposal);
        return;
      case "over-limit":
        this.#finish(proposal, rpcError("too-many-requests"));
        return;
      case "not-member":
        this.#finish(proposal, rpcError("server-stopped"));
        return;
      default:
        outcome satisfies never;
    }
  }

  #finish(proposal: Proposal, error: EtcdError): void {
    if (!this.#pending.delete(proposal.id)) return;
    proposal.detach?.();
    this.failures++;
    proposal.reject(error);
  }

  #sweep(): void {
    const now = this.#options.clock.monotonicMs();
    for (const proposal of this.#pending.values()) {
      if (proposal.deadlineMs > now) break;
      // Without a leader nothing was tried, and etcd's answer is the expired context itself.
      this.#finish(proposal, proposal.proposed ? this.#options.timeoutError(proposal.startedMs) : rpcError("deadline-exceeded"));
    }
    // A change that came while another was pending is tried again; others wait for a leader.
    this.retryWaiting();
    this.#sweeper = this.#pending.size === 0 ? undefined : this.#options.clock.timer(SWEEP_MS, () => this.#sweep());
  }
}

/** The EtcdError an aborted call ends with: the signal's own reason when it is one, else "context canceled". */
export function abortError(signal: AbortSignal): EtcdError {
  const reason: unknown = signal.reason;
  return EtcdError.is(reason) ? reason : rpcError("canceled");
}
