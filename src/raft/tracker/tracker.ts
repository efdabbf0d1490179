import { assert } from "../../base/assert.ts";
import { compareIds, type LogIndex, type MemberId } from "../../base/ids.ts";
import type { ConfState } from "../entry.ts";
import { committedByJoint, type JointVoters, voteByJoint } from "../quorum/joint.ts";
import type { VoteResult } from "../quorum/majority.ts";
import { Inflights } from "./inflights.ts";
import { Progress } from "./progress.ts";

export interface TrackerOptions {
  readonly inflightMessagesMax: number;
  readonly inflightBytesMax: number;
  /** Mutant: learners count in quorums. */
  readonly learnersCount: boolean;
  /** Mutant: see {@link Inflights}. */
  readonly inflightLeak: boolean;
}

/** The active configuration, and each member's progress and vote. `peers` (this member included) is ascending by id: iteration order is fixed. */
export class Tracker {
  readonly #self: MemberId;
  readonly #options: TrackerOptions;
  #config: ConfState;
  #voters: JointVoters = { incoming: [], outgoing: [] };
  #peers: Progress[] = [];
  #byId = new Map<MemberId, Progress>();
  #votes = new Map<MemberId, boolean>();
  #round = 0;
  #mutedCount = 0;

  // One closure each for the life of the tracker: quorum questions are asked per acknowledgement.
  readonly #matchOf = (id: MemberId): LogIndex => this.#counted(id)?.match ?? 0;
  readonly #roundOf = (id: MemberId): number => (id === this.#self ? this.#round : (this.#counted(id)?.ackedRound ?? 0));
  readonly #voteOf = (id: MemberId): boolean | undefined => this.#votes.get(id);
  readonly #activeOf = (id: MemberId): boolean => id === this.#self || this.#counted(id)?.recentActive === true;

  constructor(self: MemberId, config: ConfState, lastIndex: LogIndex, options: TrackerOptions) {
    this.#self = self;
    this.#options = options;
    this.#config = config;
    this.switchTo(config, lastIndex);
  }

  get config(): ConfState {
    return this.#config;
  }

  /** Ascending by id, this member included when it is in the configuration. */
  get peers(): readonly Progress[] {
    return this.#peers;
  }

  progress(id: MemberId): Progress | undefined {
    return this.#byId.get(id);
  }

  /** May campaign and is asked for votes: a voter of either half. */
  isVoter(id: MemberId): boolean {
    return this.#config.voters.includes(id) || this.#config.votersOutgoing.includes(id);
  }

  /** In the configuration in any role. */
  isMember(id: MemberId): boolean {
    return this.#byId.has(id);
  }

  isJoint(): boolean {
    return this.#config.votersOutgoing.length > 0;
  }

  /** Takes over a configuration. Members that stay keep their progress; new ones start as probes behind `lastIndex`. */
  switchTo(config: ConfState, lastIndex: LogIndex): void {
    this.#config = config;
    this.#voters = this.#options.learnersCount
      ? {
          incoming: config.voters.concat(config.learners),
          outgoing: config.votersOutgoing.length === 0 ? [] : config.votersOutgoing.concat(config.learners),
        }
      : { incoming: config.voters, outgoing: config.votersOutgoing };
    const ids = new Set<MemberId>([...config.voters, ...config.votersOutgoing, ...config.learners]);
    const ascending = [...ids].sort(compareIds);
    const byId = new Map<MemberId, Progress>();
    for (const id of ascending) {
      const learner = config.learners.includes(id);
      let progress = this.#byId.get(id);
      if (progress === undefined) {
        const { inflightMessagesMax, inflightBytesMax, inflightLeak } = this.#options;
        progress = new Progress(id, lastIndex + 1, learner, new Inflights(inflightMessagesMax, inflightBytesMax, inflightLeak));
      }
      progress.learner = learner;
      byId.set(id, progress);
    }
    this.#byId = byId;
    this.#peers = [...byId.values()];
    this.#mutedCount = this.#countMuted();
  }

  /** A leadership begins. */
  resetProgress(lastIndex: LogIndex): void {
    for (const peer of this.#peers) peer.reset(lastIndex);
    this.#mutedCount = 0;
  }

  /** Without that member, and without all who are muted, there is still a quorum. */
  hasQuorumWithout(id: MemberId): boolean {
    return committedByJoint(this.#voters, (other) => (other === id || this.#counted(other) === undefined ? 0 : 1)) === 1;
  }

  /** See {@link Progress.beginAnew}. `muted` is false only in a mutant. */
  beginAnew(peer: Progress, fence: LogIndex, muted: boolean): void {
    peer.beginAnew(fence);
    peer.muted = muted;
    this.#mutedCount = this.#countMuted();
  }

  /** Everything up to `committed` is committed. True when somebody counts again because of that. */
  unmute(committed: LogIndex): boolean {
    if (this.#mutedCount === 0) return false;
    for (const peer of this.#peers) if (peer.muted && peer.fence <= committed) peer.muted = false;
    const before = this.#mutedCount;
    this.#mutedCount = this.#countMuted();
    return this.#mutedCount < before;
  }

  /** Highest index on a quorum, by match; the caller checks its term. */
  committed(): LogIndex {
    return committedByJoint(this.#voters, this.#matchOf);
  }

  /** Highest heartbeat round that a quorum has answered, this member counting as having answered `round`. */
  confirmedRound(round: number): number {
    this.#round = round;
    return committedByJoint(this.#voters, this.#roundOf);
  }

  /** A quorum was heard of since the last {@link clearActive}. */
  quorumActive(): boolean {
    return voteByJoint(this.#voters, this.#activeOf) === "won";
  }

  clearActive(): void {
    for (const peer of this.#peers) peer.recentActive = peer.id === this.#self;
  }

  resetVotes(): void {
    this.#votes.clear();
  }

  /** The first answer of a member counts. */
  recordVote(id: MemberId, granted: boolean): void {
    if (!this.#votes.has(id)) this.#votes.set(id, granted);
  }

  voteResult(): VoteResult {
    return voteByJoint(this.#voters, this.#voteOf);
  }

  /** Recomputes what is kept incrementally. Costly. */
  check(lastIndex: LogIndex): void {
    for (const peer of this.#peers) {
      peer.check();
      assert(peer.match <= lastIndex, "match is within the log", { id: peer.id, match: peer.match, lastIndex });
      assert(!(peer.learner && this.isVoter(peer.id)), "no member is learner and voter", { id: peer.id });
    }
    assert(this.#mutedCount === this.#countMuted(), "the number of muted members equals the recomputed one");
  }

  #counted(id: MemberId): Progress | undefined {
    const peer = this.#byId.get(id);
    return peer?.muted === true ? undefined : peer;
  }

  #countMuted(): number {
    let count = 0;
    for (const peer of this.#peers) if (peer.muted) count += 1;
    return count;
  }
}
