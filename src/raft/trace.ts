import type { LogIndex, MemberId, Term } from "../base/ids.ts";
import type { ConfState } from "./entry.ts";
import type { Message } from "./message.ts";
import type { Role } from "./status.ts";
import type { ProgressState } from "./tracker/progress.ts";

/**
 * What the core has to tell beside its work: the core never logs. The driver turns these into log lines and metrics, tests into
 * traces. Events describe what has just happened; the sink must not call back into the core.
 */
export type TraceEvent =
  | { readonly type: "role"; readonly role: Role; readonly term: Term; readonly leader: MemberId }
  | { readonly type: "vote"; readonly candidate: MemberId; readonly term: Term; readonly pre: boolean; readonly granted: boolean }
  | { readonly type: "ignored"; readonly message: Message; readonly reason: IgnoreReason }
  | { readonly type: "commit"; readonly index: LogIndex; readonly term: Term }
  /** Entries from `from` on were replaced by the leader's. */
  | { readonly type: "truncated"; readonly from: LogIndex }
  | { readonly type: "conf-applied"; readonly confState: ConfState }
  /** A committed change that changes nothing, on every member alike. */
  | { readonly type: "conf-refused"; readonly problem: string }
  | { readonly type: "progress"; readonly peer: MemberId; readonly state: ProgressState; readonly match: LogIndex; readonly next: LogIndex }
  | { readonly type: "snapshot-sent"; readonly to: MemberId; readonly index: LogIndex }
  | { readonly type: "snapshot-accepted"; readonly index: LogIndex; readonly term: Term }
  /** The snapshot's position is in the log already: only the commit index moved. */
  | { readonly type: "snapshot-skipped"; readonly index: LogIndex }
  | { readonly type: "transfer"; readonly phase: "started" | "timeout-now" | "ended"; readonly to: MemberId }
  | { readonly type: "proposals-dropped"; readonly count: number; readonly reason: DropReason }
  | { readonly type: "reads-dropped"; readonly count: number }
  | { readonly type: "read-round"; readonly round: number; readonly index: LogIndex; readonly requests: number }
  | { readonly type: "read-confirmed"; readonly round: number; readonly index: LogIndex; readonly requests: number }
  /** An append finished after a newer leader had replaced (part of) it; what was replaced counts for nothing. */
  | { readonly type: "stale-append"; readonly ticketIndex: LogIndex; readonly durable: LogIndex }
  /** No election although it was time: committed configuration changes are not applied yet. */
  | { readonly type: "campaign-held"; readonly reason: "unapplied-conf-change" | "snapshot-pending" | "not-voter" | "quarantined" }
  /** The leader has learned that `peer` lost its log; it counts again when the entry at `fence` is committed. */
  | { readonly type: "fenced"; readonly peer: MemberId; readonly fence: LogIndex }
  | {
      readonly type: "quarantine";
      readonly phase: "admitted" | "ended";
      readonly leader: MemberId;
      readonly term: Term;
      readonly fence: LogIndex;
    }
  /** The leader has not heard of a quorum for an election timeout. */
  | { readonly type: "quorum-lost"; readonly term: Term };

export type IgnoreReason =
  | "malformed"
  | "wrong-addressee"
  | "unknown-sender"
  | "stale-term"
  | "lease"
  | "no-effect"
  /** This member lost its log and does not hear the sender yet. */
  | "quarantined"
  /** The sender has lost its log since it sent this. */
  | "former-life"
  /** A second leader in this term: somewhere safety is already broken; this member keeps to the one it knows. */
  | "second-leader";

export type DropReason = "no-leader" | "transferring" | "over-limit" | "pending";

export type TraceSink = (event: TraceEvent) => void;
