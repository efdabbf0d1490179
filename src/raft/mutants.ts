/**
 * Names of deliberate breakages that `RaftConfig.mutants` switches on, so that tests can prove that they would notice. Never set
 * in production. Most come from the mutant list of the failure catalogue.
 */
export const RAFT_MUTANTS = [
  /** Counts replicas of entries of earlier terms towards the commit index (BR1). */
  "commit-old-term",
  /** Forgets the vote when stepping down within a term (BR3). */
  "reset-vote-on-step-down",
  /** A new leader appends no empty entry (BR14). */
  "no-noop",
  /** Answers reads from the commit index without asking anybody (BR13). */
  "read-without-round",
  /** Uses one round number for all heartbeats, so that a late answer confirms a later read (BR15). */
  "reuse-read-token",
  /** Acknowledges the end of the own log instead of what the append covered (BR7). */
  "ack-full-log",
  /** Keeps a conflicting suffix. */
  "no-conflict-truncation",
  /** Cuts the log behind every append, conflict or not. */
  "truncate-always",
  /** Learners count in quorums. */
  "learner-counted",
  /** Allows a configuration change while another is not applied. */
  "two-pending-confs",
  /** Allows a configuration change before an entry of the own term is committed (BM1). */
  "no-own-term-check-before-conf",
  /** A member that is not a voter campaigns. */
  "removed-keeps-campaigning",
  /** Commits and hands out entries that are not durable here (BW2). */
  "apply-before-durable",
  /** Votes leave before they are durable (BR2). */
  "send-vote-before-durable",
  /** Append acknowledgements leave before the entries are durable. */
  "send-ack-before-durable",
  /** An append that finishes late counts for what has replaced its entries (the ABA case of asynchronous storage). */
  "accept-stale-append",
  /** Votes without comparing logs. */
  "vote-without-log-check",
  /** Votes for everyone who asks. */
  "vote-twice",
  /** A follower commits up to the leader's index instead of what the append covered. */
  "commit-beyond-covered",
  /** Heartbeats tell the leader's commit index unclamped by what the follower has. */
  "heartbeat-commit-unclamped",
  /** A refused append lets next fall to or below match (BR18). */
  "next-below-match",
  /** Freed in-flight messages keep their bytes counted (BR21). */
  "inflight-leak",
  /** The configuration of a snapshot is not taken over (BM12). */
  "snapshot-without-conf",
  /** After a restart the commit index is not inferred from the configuration changes in the log. */
  "commit-unlearned-from-confs",
  /** Accepts proposals while leadership is being transferred and tells the target to campaign before it has caught up (BR27). */
  "transfer-without-catch-up",
  /** A member that lost its log votes before it is healed (BW20). */
  "quarantined-votes",
  /** A member that lost its log counts in quorums as soon as the leader knows that. */
  "reset-unmuted",
  /** What a member acknowledged before it lost its log still counts. */
  "former-acks-count",
] as const;

export type RaftMutant = (typeof RAFT_MUTANTS)[number];
