import type { LogIndex, MemberId } from "../base/ids.ts";

export interface RaftConfig {
  readonly id: MemberId;
  /** Ticks without a leader before campaigning; randomised per term to [n, 2n-1]. */
  readonly electionTimeoutTicks: number;
  /** Ticks between heartbeats. */
  readonly heartbeatTicks: number;
  readonly preVote: boolean;
  readonly checkQuorum: boolean;
  /** Entry payload bytes per append message; one entry always goes, however large. */
  readonly appendBytesMax: number;
  /** Append messages in flight per follower in state "replicate". */
  readonly inflightMessagesMax: number;
  readonly inflightBytesMax: number;
  /** Payload bytes proposed but not yet committed, beyond which proposals answer "over-limit" (one is always accepted). */
  readonly uncommittedBytesMax: number;
  /** Payload bytes of committed entries handed out per ready. */
  readonly committedBytesMax: number;
  /** Confirmed by a quorum round (default) or by the leader lease (needs checkQuorum). */
  readonly readMode: "quorum" | "lease";
  /** Index up to which the state machine already is when starting; entries at or below are not handed out again. */
  readonly applied: LogIndex;
  /** Build-time switchable breakages for the mutant run; undefined in production. */
  readonly mutants?: ReadonlySet<string>;
}
