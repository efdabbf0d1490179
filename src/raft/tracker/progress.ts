import { assert } from "../../base/assert.ts";
import type { LogIndex, MemberId } from "../../base/ids.ts";
import type { Inflights } from "./inflights.ts";

/**
 * - `probe`: the follower's log end is not known; one append at a time, the next after an answer or a heartbeat interval.
 * - `replicate`: appends are pipelined behind the last one sent, bounded by the in-flight window.
 * - `snapshot`: the log no longer reaches back far enough; nothing is sent until the snapshot is reported or acknowledged.
 */
export type ProgressState = "probe" | "replicate" | "snapshot";

/** What a leader knows of one member's log. Followers keep it too, but only who leads gives it meaning. */
export class Progress {
  readonly id: MemberId;
  /** Highest index known to equal the leader's log and to be durable there. Decreases within a leadership only by `beginAnew`. */
  match: LogIndex = 0;
  /**
   * First index not yet sent. Invariant: match < next (failure catalogue BR18). In `replicate` everything before it was sent; in
   * `probe` it is the guess being tried; in `snapshot` it is pendingSnapshot + 1.
   */
  next: LogIndex;
  state: ProgressState = "probe";
  /** Index of the snapshot being sent; 0 outside state `snapshot`. */
  pendingSnapshot: LogIndex = 0;
  /** Gets entries, counts in no quorum. */
  learner: boolean;
  /** Heard of since the last check-quorum. True at first, so that a new member is not taken for a dead one. */
  recentActive = true;
  /** No more appends until an answer or the first heartbeat answer of the next interval. */
  paused = false;
  /** Send an append at the next opportunity even when it carries nothing: its answer tells where the follower is. */
  appendDue = false;
  /** The first heartbeat answer after a tick may un-pause; those of read rounds, which come at any rate, may not. */
  heartbeatDue = false;
  /** Highest commit index told by an append; not above what those appends covered. */
  sentCommit: LogIndex = 0;
  /** Highest heartbeat round answered in this leadership; 0 for none. */
  ackedRound = 0;
  /**
   * Not 0: the member has lost its log and began anew before the leader appended the entry at this index (its fence). It gets a snapshot at
   * or behind the fence, so whatever it says of lower positions was said in its former life and is not true any more.
   */
  fence: LogIndex = 0;
  /** It counts in no quorum until its fence is committed by others. */
  muted = false;
  readonly inflights: Inflights;

  constructor(id: MemberId, next: LogIndex, learner: boolean, inflights: Inflights) {
    this.id = id;
    this.next = next;
    this.learner = learner;
    this.inflights = inflights;
  }

  /** A new leadership begins, in which `lastIndex` is the end of the leader's log. */
  reset(lastIndex: LogIndex): void {
    this.match = 0;
    this.next = lastIndex + 1;
    this.#enter("probe");
    this.recentActive = false;
    this.appendDue = false;
    this.heartbeatDue = false;
    this.sentCommit = 0;
    this.ackedRound = 0;
    this.fence = 0;
    this.muted = false;
  }

  /** The member has an empty log again. `fence` was appended after it said so. */
  beginAnew(fence: LogIndex): void {
    this.match = 0;
    this.next = 1;
    this.#enter("probe");
    // It has just asked for this.
    this.recentActive = true;
    this.appendDue = true;
    this.sentCommit = 0;
    this.fence = fence;
  }

  becomeProbe(): void {
    // After a snapshot that may have arrived, probing starts right behind it.
    const next = this.state === "snapshot" ? Math.max(this.match, this.pendingSnapshot) + 1 : this.match + 1;
    this.#enter("probe");
    this.next = next;
    this.sentCommit = Math.min(this.sentCommit, next - 1);
  }

  becomeReplicate(): void {
    this.#enter("replicate");
    this.next = this.match + 1;
    this.sentCommit = Math.min(this.sentCommit, this.match);
  }

  becomeSnapshot(index: LogIndex): void {
    assert(index > this.match, "a snapshot is sent only beyond the match", { index, match: this.match });
    this.#enter("snapshot");
    this.pendingSnapshot = index;
    this.next = index + 1;
    this.sentCommit = index;
  }

  /** Nothing may be sent now. */
  isPaused(): boolean {
    return this.state === "snapshot" || this.paused;
  }

  /** An append with `count` entries (ending at next - 1 + count) and `bytes` of payload was sent, telling `commit`. */
  sent(count: number, bytes: number, commit: LogIndex): void {
    if (this.state === "replicate") {
      if (count > 0) {
        this.next += count;
        this.inflights.add(this.next - 1, bytes);
      }
      // Once the window is full one empty message may go per heartbeat interval; it finds out when all the others were lost.
      this.paused = this.inflights.full();
      this.sentCommit = Math.min(commit, this.next - 1);
    } else {
      this.paused = true;
      this.sentCommit = Math.min(commit, this.next - 1 + count);
    }
    this.appendDue = false;
  }

  /** The follower would learn something from an append that carries nothing but `commit`. */
  canTellCommit(commit: LogIndex): boolean {
    return commit > this.sentCommit && this.sentCommit < this.next - 1;
  }

  /** The follower has everything up to `index`. False when that is no news. */
  acknowledged(index: LogIndex): boolean {
    if (index <= this.match) return false;
    this.match = index;
    if (this.next <= index) this.next = index + 1;
    this.paused = false;
    return true;
  }

  /**
   * The follower refused an append behind `rejected` and suggests that the logs agree at `hint`. False when the answer is stale,
   * in which case nothing changes.
   */
  refused(rejected: LogIndex, hint: LogIndex): boolean {
    if (this.state === "snapshot") return false;
    if (this.state === "replicate") {
      if (rejected <= this.match) return false;
      this.becomeProbe();
      return true;
    }
    // A prober sends one append at a time, so a refusal of any other position is an old one.
    if (this.next - 1 !== rejected) return false;
    this.next = Math.max(Math.min(rejected, hint + 1), this.match + 1);
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
    this.paused = false;
    return true;
  }

  check(): void {
    assert(this.match < this.next, "match is below next", { id: this.id, match: this.match, next: this.next });
    assert((this.state === "snapshot") === this.pendingSnapshot > 0, "a pending snapshot only in state snapshot", { id: this.id });
    if (this.state === "snapshot") assert(this.next === this.pendingSnapshot + 1, "next is behind the pending snapshot");
    assert(this.state === "replicate" || this.inflights.count === 0, "only replicate has messages in flight", { state: this.state });
    assert(this.match === 0 || this.match >= this.fence, "nothing below the fence counts as held", {
      match: this.match,
      fence: this.fence,
    });
    assert(!this.muted || this.fence > 0, "only who began anew is muted", { id: this.id });
    this.inflights.check();
  }

  #enter(state: ProgressState): void {
    this.state = state;
    this.paused = false;
    this.pendingSnapshot = 0;
    this.inflights.reset();
  }
}
