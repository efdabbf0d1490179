/**
 * Applying committed entries: one synchronous pass, no await inside, so no half-applied entry can be seen. Effects go into the open batch, events to
 * the watch hub, answers to the waiters; deterministic on every member, whatever its disk or its callers do.
 */
import * as api from "../../api/index.ts";
import { RpcError, rpcError } from "../../api/rpc-errors.ts";
import { requireDeleteRange, requireLeaseWrite, requirePut, requireTxn } from "../../auth/index.ts";
import { assert, InvariantError } from "../../base/assert.ts";
import type { KeyString } from "../../base/bytes.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import { type LeaseId, type LogIndex, type MemberId, NO_LEASE, type Revision, type Term } from "../../base/ids.ts";
import { encodeLeaseRow, leaseRowKey } from "../../lease/index.ts";
import type { MvccEvent } from "../../mvcc/index.ts";
import {
  type ConfChange,
  ConfChangeDecodeError,
  type ConfState,
  confChangeProblem,
  decodeConfChange,
  type Entry,
} from "../../raft/index.ts";
import type { ActiveAlarm } from "../alarms.ts";
import { decodeMemberChange, type MemberChange, type MemberRecord } from "../membership.ts";
import { Proposal } from "../proposals.ts";
import { decodeRaftRequest, type RaftRequest } from "../raft-request.ts";
import { type AuthSinks, applyAuth } from "./auth.ts";
import type { State } from "./state.ts";

/** Whoever waits for a request on this member. */
export interface Waiter {
  /** Monotonic ms. */
  readonly startedMs: number;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/** Operations inside an applied request, nested ones included. */
export interface OperationCounts {
  ranges: number;
  puts: number;
  deletes: number;
  /** Transactions of more than one operation. */
  txns: number;
}

/** What the applier tells the rest of the member. */
export interface ApplySinks extends AuthSinks {
  /** The waiter of that request on this member, taken out of the book. */
  takeWaiter(requestId: bigint): Waiter | undefined;
  /** All events of one revision. */
  onEvents(revision: Revision, events: readonly MvccEvent[]): void;
  /** Hands a committed configuration change to raft; undefined when the state machine refused it. */
  onConfChange(change: ConfChange | undefined): ConfState;
  onMembersChanged(change: MemberChange): void;
  /** The empty entry at the start of a term was applied. */
  onTermStart(term: Term): void;
  onCompacted(): void;
  onLeaseRevoked(id: LeaseId): void;
  onAlarmsChanged(change: { action: "activated" | "deactivated"; alarms: readonly ActiveAlarm[] }): void;
  onClusterVersion(version: string): void;
  /** A write was applied although the space quota is used up. */
  onQuotaExceeded(): void;
  onMemberAttributes(id: MemberId): void;
}

export type ReadingRequest = api.PutRequest | api.DeleteRangeRequest | api.TxnRequest;

/** Result of a member change: all members after it. */
export interface MembersResult {
  readonly members: readonly MemberRecord[];
}

/** A response together with the revision for its header. */
export interface Applied<Response> {
  readonly response: Response;
  readonly revision: Revision;
}

export interface ExecutorOptions {
  readonly sinks: ApplySinks;
  readonly nowMs: () => number;
  /** Infinity for none. */
  readonly quotaBytes: number;
  /** For metrics: how long applying took, and, if it was asked for here, the whole request. Milliseconds. */
  readonly onApplied?: (kind: RaftRequest["kind"], ok: boolean, applyMs: number, requestMs: number | undefined) => void;
  readonly onOperations?: (counts: OperationCounts) => void;
  readonly onEntry?: (entry: Entry, state: State) => void;
  readonly mutants?: ReadonlySet<string> | undefined;
}

export class Executor {
  readonly #options: ExecutorOptions;

  constructor(options: ExecutorOptions) {
    this.#options = options;
  }

  /** Decodes what this member did not propose itself. */
  decode(entries: readonly Entry[]): (RaftRequest | undefined)[] {
    return entries.map((entry) => (entry.type === "normal" && entry.data.byteLength > 0 ? requestOf(entry) : undefined));
  }

  /** The requests whose execution may read rows; to be handed to `store.prefetch` before {@link execute}. */
  reads(requests: readonly (RaftRequest | undefined)[]): ReadingRequest[] {
    const reading: ReadingRequest[] = [];
    for (const request of requests) {
      if (request === undefined) continue;
      if (request.kind === "put") {
        if (request.body.prevKv || request.body.ignoreValue) reading.push(request.body);
      } else if (request.kind === "txn" || (request.kind === "delete-range" && request.body.prevKv)) {
        reading.push(request.body);
      }
    }
    return reading;
  }

  /**
   * Applies consecutive entries, the first being `state.appliedIndex + 1`; `requests` is what {@link decode} gave for them.
   * Throws only when an invariant is broken: then the member stops.
   */
  execute(state: State, entries: readonly Entry[], requests: readonly (RaftRequest | undefined)[]): void {
    try {
      this.#executeAll(state, entries, requests);
    } catch (error) {
      state.writer.abandon(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
    state.writer.advance(state.appliedIndex, state.appliedTerm);
  }

  #executeAll(state: State, entries: readonly Entry[], requests: readonly (RaftRequest | undefined)[]): void {
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i] as Entry;
      const request = requests[i];
      assert(entry.index === state.appliedIndex + 1, "entries are applied in order, each once");
      if (request !== undefined) this.#request(state, entry, request);
      else if (entry.type === "conf-change") this.#confChange(state, entry);
      else this.#options.sinks.onTermStart(entry.term);
      if (entry.context instanceof Proposal) entry.context.release();
      state.appliedIndex = entry.index;
      state.appliedTerm = entry.term;
      this.#options.onEntry?.(entry, state);
    }
  }

  #request(state: State, entry: Entry, request: RaftRequest): void {
    const started = this.#options.onApplied === undefined ? 0 : this.#options.nowMs();
    const waiter = this.#options.sinks.takeWaiter(request.id);
    let result: unknown;
    try {
      if (request.leaderTerm !== 0 && request.leaderTerm !== entry.term) throw rpcError("not-leader");
      result = this.#dispatch(state, request, entry.index);
    } catch (error) {
      // Refusals are answers, the same on every member. Anything else, a row that cannot be read among them, is this member's own: it is half changed and stops.
      if (!(error instanceof RpcError)) throw error;
      this.#measure(request, false, started, waiter);
      waiter?.reject(error);
      return;
    }
    this.#measure(request, true, started, waiter);
    waiter?.resolve(result);
  }

  #measure(request: RaftRequest, ok: boolean, startedMs: number, waiter: Waiter | undefined): void {
    const { onApplied, onOperations, nowMs } = this.#options;
    if (onApplied === undefined) return;
    const now = nowMs();
    onApplied(request.kind, ok, now - startedMs, waiter === undefined ? undefined : now - waiter.startedMs);
    if (!ok || onOperations === undefined) return;
    const counts: OperationCounts = { ranges: 0, puts: 0, deletes: 0, txns: 0 };
    if (request.kind === "put") counts.puts = 1;
    else if (request.kind === "delete-range") counts.deletes = 1;
    else return;
    onOperations(counts);
  }

  #dispatch(state: State, request: RaftRequest, index: LogIndex): unknown {
    const { alarms, auth } = state;
    if (alarms.any) this.#checkAlarms(state, request);
    if (auth.enabled) checkPermissions(state, request);
    const batch = state.writer.batch;
    switch (request.kind) {
      case "put": {
        const outcome = state.store.put(request.body, state.lessor, batch);
        this.#events(state, outcome.revision, outcome.events);
        this.#checkQuota(state);
        return { response: outcome.response, revision: outcome.revision } satisfies Applied<api.PutResponse>;
      }
      case "delete-range": {
        const outcome = state.store.deleteRange(request.body, batch);
        this.#events(state, outcome.revision, outcome.events);
        return { response: outcome.response, revision: outcome.revision } satisfies Applied<api.DeleteRangeResponse>;
      }
      case "txn": {
        const outcome = state.store.txn(request.body, state.lessor, batch);
        this.#events(state, outcome.revision, outcome.events);
        if (txnHasPut(request.body)) this.#checkQuota(state);
        this.#options.onOperations?.(countOperations(outcome.response));
        return { response: outcome.response, revision: outcome.revision } satisfies Applied<api.TxnResponse>;
      }
      case "compaction": {
        state.store.compact(request.body, batch);
        this.#options.sinks.onCompacted();
        return { response: undefined, revision: state.store.revision } satisfies Applied<undefined>;
      }
      case "lease-grant": {
        const id = request.body.id as LeaseId;
        const ttl = state.lessor.grant(id, request.body.ttl, this.#options.nowMs());
        batch.put(leaseRowKey(id), encodeLeaseRow({ id, ttlSeconds: ttl, remainingTtlSeconds: 0 }));
        this.#checkQuota(state);
        return { response: { id, ttl }, revision: state.store.revision } satisfies Applied<{ id: LeaseId; ttl: number }>;
      }
      case "lease-revoke": {
        const id = request.body.id as LeaseId;
        const keys: KeyString[] = state.lessor.keysOf(id);
        const outcome = state.store.deleteKeys(keys, batch);
        this.#events(state, outcome.revision, outcome.events);
        state.lessor.revoke(id);
        batch.delete(leaseRowKey(id));
        this.#options.sinks.onLeaseRevoked(id);
        return { response: undefined, revision: state.store.revision } satisfies Applied<undefined>;
      }
      case "lease-checkpoint": {
        for (const one of request.body.checkpoints) {
          const id = one.id as LeaseId;
          const ttlSeconds = state.lessor.grantedTtl(id);
          if (ttlSeconds === undefined) continue;
          state.lessor.checkpoint({ id, remainingTtlSeconds: one.remainingTtl });
          batch.put(leaseRowKey(id), encodeLeaseRow({ id, ttlSeconds, remainingTtlSeconds: one.remainingTtl }));
        }
        return undefined;
      }
      case "alarm":
        return this.#alarm(state, request.body);
      case "cluster-version-set":
        state.setClusterVersion(request.body.ver);
        this.#options.sinks.onClusterVersion(request.body.ver);
        return undefined;
      case "member-attributes-set": {
        const { memberId, memberAttributes } = request.body;
        state.membership.setAttributes(
          memberId as MemberId,
          { name: memberAttributes?.name ?? "", clientUrls: memberAttributes?.clientUrls ?? [] },
          batch,
        );
        this.#options.sinks.onMemberAttributes(memberId as MemberId);
        return undefined;
      }
      case "downgrade-info-set":
        state.setDowngrade({ enabled: request.body.enabled, targetVersion: request.body.ver });
        return { index };
      default:
        return applyAuth(state, request, index, this.#options.sinks);
    }
  }

  /** A corrupt cluster refuses everything that changes the store; a full one everything that makes it grow (api-semantics.md section 15.3). */
  #checkAlarms(state: State, request: RaftRequest): void {
    switch (request.kind) {
      case "put":
      case "txn":
      case "delete-range":
      case "compaction":
      case "lease-grant":
      case "lease-revoke":
        if (state.alarms.has(api.AlarmType.CORRUPT)) throw rpcError("corrupt-cluster");
        break;
      default:
        return;
    }
    if (!state.alarms.has(api.AlarmType.NOSPACE)) return;
    if (request.kind === "put" || request.kind === "lease-grant" || (request.kind === "txn" && txnHasPut(request.body))) {
      throw rpcError("no-space");
    }
  }

  #checkQuota(state: State): void {
    if (state.sizeAllocated >= this.#options.quotaBytes) this.#options.sinks.onQuotaExceeded();
  }

  #events(state: State, revision: Revision, events: readonly MvccEvent[]): void {
    if (events.length === 0) return;
    const { lessor } = state;
    for (const event of events) {
      // Deletes detach too. Later events of the same key win, as in the store.
      lessor.attach(event.key, event.type === "put" ? (event.kv.lease as LeaseId) : NO_LEASE);
    }
    this.#options.sinks.onEvents(revision, events);
  }

  #alarm(state: State, request: api.AlarmRequest): Applied<readonly ActiveAlarm[]> {
    const alarm = { memberId: request.memberId, alarm: request.alarm };
    const revision = state.store.revision;
    switch (request.action) {
      case api.AlarmAction.GET:
        return { response: state.alarms.list(request.alarm), revision };
      case api.AlarmAction.ACTIVATE: {
        const alarms = state.alarms.activate(alarm, state.writer.batch);
        this.#options.sinks.onAlarmsChanged({ action: "activated", alarms });
        return { response: alarms, revision };
      }
      case api.AlarmAction.DEACTIVATE: {
        const alarms = state.alarms.deactivate(alarm, state.writer.batch);
        this.#options.sinks.onAlarmsChanged({ action: "deactivated", alarms });
        return { response: alarms, revision };
      }
      default:
        // The reference crashes here; the service refuses such a request before it is replicated.
        throw rpcError("unknown-method");
    }
  }

  #confChange(state: State, entry: Entry): void {
    const { sinks } = this.#options;
    const change = decodeConfChange(entry.data);
    if (change instanceof ConfChangeDecodeError) {
      throw new InvariantError("a committed configuration change can be read", { index: entry.index, error: change.message });
    }
    if (change.steps.length === 0) {
      // Leaving a joint configuration: nothing for the membership.
      state.setConfState(sinks.onConfChange(change));
      return;
    }
    const memberChange = decodeMemberChange(change.context);
    assert(memberChange !== undefined, "a committed configuration change carries a member record", { index: entry.index });
    const waiter = memberChange.requestId === 0n ? undefined : sinks.takeWaiter(memberChange.requestId);
    const problem = confChangeProblem(state.confState, change);
    const refusal = state.membership.check(memberChange) ?? (problem === undefined ? undefined : new RefusedConfChangeError(problem));
    if (refusal !== undefined) {
      state.setConfState(sinks.onConfChange(undefined));
      waiter?.reject(refusal);
      return;
    }
    state.membership.apply(memberChange, state.writer.batch);
    state.setConfState(sinks.onConfChange(change));
    sinks.onMembersChanged(memberChange);
    waiter?.resolve({ members: state.membership.list() } satisfies MembersResult);
  }
}

/** Raft's configuration does not allow the change now, although the membership would. */
export class RefusedConfChangeError extends EtcdError {
  constructor(problem: string) {
    super("conf-change-refused", GrpcCode.FailedPrecondition, `etcdserver: configuration change refused: ${problem}`);
    this.name = "RefusedConfChangeError";
  }
}

/**
 * By the users and roles as of this entry, so that every member decides the same, whatever was true when the request was taken (promise C7). Requests of the
 * kinds that are not here need no rights on keys; who may make them was checked when they were taken.
 */
function checkPermissions(state: State, request: RaftRequest): void {
  const { auth, lessor } = state;
  const { username, authRevision } = request;
  switch (request.kind) {
    case "put":
      requirePut(auth.rightsOf(username, authRevision), request.body, lessor);
      return;
    case "delete-range":
      requireDeleteRange(auth.rightsOf(username, authRevision), request.body);
      return;
    case "txn":
      requireTxn(auth.rightsOf(username, authRevision), request.body, lessor);
      return;
    case "lease-grant":
      if (isNobodys(request)) throw rpcError("user-empty");
      return;
    case "lease-revoke":
      // The leader ends leases by its own authority (failure catalogue BA10).
      if (request.leaderTerm !== 0) return;
      if (isNobodys(request)) throw rpcError("user-empty");
      requireLeaseWrite(auth.leaseRightsOf(username, authRevision), request.body.id as LeaseId, lessor);
      return;
  }
}

function isNobodys({ username, authRevision }: RaftRequest): boolean {
  return username === "" && authRevision === 0;
}

/** The proposer's own object when this member proposed the entry, else decoded. */
function requestOf(entry: Entry): RaftRequest {
  return (entry.context instanceof Proposal ? entry.context.request : undefined) ?? decodeRaftRequest(entry.data);
}

/** What a transaction really executed. */
export function countOperations(response: api.TxnResponse): OperationCounts {
  const counts: OperationCounts = { ranges: 0, puts: 0, deletes: 0, txns: response.responses.length > 1 ? 1 : 0 };
  for (const op of response.responses) {
    if (op.responseRange !== undefined) counts.ranges++;
    else if (op.responsePut !== undefined) counts.puts++;
    else if (op.responseDeleteRange !== undefined) counts.deletes++;
    else if (op.responseTxn !== undefined) {
      const inner = countOperations(op.responseTxn);
      counts.ranges += inner.ranges;
      counts.puts += inner.puts;
      counts.deletes += inner.deletes;
    }
  }
  return counts;
}

/** True when either branch, at any depth, contains a put. */
export function txnHasPut(txn: api.TxnRequest): boolean {
  return txn.success.some(opHasPut) || txn.failure.some(opHasPut);
}

function opHasPut(op: api.RequestOp): boolean {
  return op.requestPut !== undefined || (op.requestTxn !== undefined && txnHasPut(op.requestTxn));
}
