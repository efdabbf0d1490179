/** What clients asked and were told, and when. Times are simulated ms; `ret` is infinite while the outcome is unknown, which is never taken for a failure. */
import type * as api from "../../../src/api/index.ts";

export type Outcome =
  | "ok"
  /** Refused before anything happened, or by the state machine. */
  | "no"
  | "unknown";

interface OpOf<Kind extends string, Request, Response> {
  readonly kind: Kind;
  readonly client: number;
  /** Which machine was asked, and which life of it. */
  readonly machine: number;
  readonly life: number;
  readonly call: number;
  ret: number;
  outcome: Outcome;
  /** Of a refusal or of what is not known. */
  reason: string;
  readonly request: Request;
  response: Response | undefined;
  /** Unique mark inside the request, by which it is found in the log; empty for reads. */
  readonly nonce: string;
}

export type Op =
  | OpOf<"range", api.RangeRequest, api.RangeResponse>
  | OpOf<"read-txn", api.TxnRequest, api.TxnResponse>
  | OpOf<"put", api.PutRequest, api.PutResponse>
  | OpOf<"delete", api.DeleteRangeRequest, api.DeleteRangeResponse>
  | OpOf<"txn", api.TxnRequest, api.TxnResponse>
  | OpOf<"compact", api.CompactionRequest, api.CompactionResponse>
  | OpOf<"grant", api.LeaseGrantRequest, api.LeaseGrantResponse>
  | OpOf<"revoke", api.LeaseRevokeRequest, api.LeaseRevokeResponse>
  | OpOf<"keepalive", api.LeaseKeepAliveRequest, api.LeaseKeepAliveResponse>
  | OpOf<"ttl", api.LeaseTimeToLiveRequest, api.LeaseTimeToLiveResponse>
  | OpOf<"lock", api.LockRequest, api.LockResponse>
  | OpOf<"unlock", api.UnlockRequest, api.UnlockResponse>
  | OpOf<"campaign", api.CampaignRequest, api.CampaignResponse>
  | OpOf<"resign", api.ResignRequest, api.ResignResponse>
  | OpOf<"members", api.MemberListRequest, api.MemberListResponse>;

export type OpKind = Op["kind"];
export type OpFor<Kind extends OpKind> = Extract<Op, { kind: Kind }>;

/** Refusals after which nothing of the request can take effect any more. Everything else may have happened. */
const DEFINITE: ReadonlySet<string> = new Set([
  "key-not-provided",
  "key-not-found",
  "value-provided",
  "lease-provided",
  "too-many-ops",
  "duplicate-key",
  "invalid-sort-option",
  "compacted",
  "future-revision",
  "no-space",
  "request-too-large",
  "too-many-requests",
  "lease-not-found",
  "lease-exists",
  "lease-ttl-too-large",
  "not-supported-for-learner",
  "no-leader",
  "corrupt-cluster",
  // The harness's own: the request never left the client, or found nobody.
  "refused",
]);

export function isDefinite(reason: string): boolean {
  return DEFINITE.has(reason);
}

/** One applied entry of the log, as first seen. */
export interface LogEntry {
  readonly index: number;
  readonly term: number;
  readonly type: "normal" | "conf-change";
  readonly data: Uint8Array;
  /** When the first member applied it. */
  readonly at: number;
  /** As of it. */
  readonly revision: number;
  readonly compacted: number;
  readonly leases: number;
}

export interface ObservedLeader {
  readonly client: number;
  readonly stream: number;
  readonly at: number;
  readonly name: string;
  readonly createRevision: number;
}

/** Everything that the checks of a run look at. */
export interface History {
  readonly ops: Op[];
  readonly log: readonly LogEntry[];
  readonly observed: ObservedLeader[];
  /** Since when there were no faults, nor another leader; and when the run ended. */
  readonly steadyFrom: number;
  readonly now: number;
}
