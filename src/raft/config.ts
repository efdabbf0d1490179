import type { LogIndex, MemberId } from "../base/ids.ts";
import type { TraceSink } from "./trace.ts";

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
  /**
   * Payload bytes proposed on this leader and not handed out as committed yet, beyond which proposals answer "over-limit" (one is
   * always accepted). Also bounds what a follower collects for one turn of forwarding.
   */
  readonly uncommittedBytesMax: number;
  /** Payload bytes of committed entries handed out per ready (one entry always). Nothing more while twice as much is not applied yet. */
  readonly committedBytesMax: number;
  /**
   * How the leader makes sure that it still leads when it answers a read: by a quorum round (default), or by its lease, that is by a
   * quorum round of less than an election timeout ago (needs checkQuorum on every member, clocks of nearly equal rate, and a driver
   * that hands in passed ticks before a read; a member in this mode gives no vote for an election timeout after a restart).
   */
  readonly readMode: "quorum" | "lease";
  /**
   * Index up to which the state machine already is when starting; entries at or below are not handed out again. When it is
   * above the stored commit index, the commit index starts there: what is applied was committed.
   */
  readonly applied: LogIndex;
  /**
   * This member has lost its log (or part of it), and with it what it had promised: it starts with an empty one, does not vote and does not
   * campaign until it is healed. See `RawNodeFace.admit`.
   */
  readonly quarantined?: boolean | undefined;
  /** Names from `RAFT_MUTANTS`: breakages for the mutant run; undefined in production. */
  readonly mutants?: ReadonlySet<string> | undefined;
  /** Hears of role changes, refused messages, truncations and the like; see `trace.ts`. */
  readonly trace?: TraceSink | undefined;
}
