import type { LogIndex, MemberId } from "../base/ids.ts";

export interface ReadRequest {
  /** Who asked: this member or a follower. */
  readonly from: MemberId;
  readonly context: bigint;
}

export interface ReadRound {
  readonly round: number;
  /** The commit index when the round's heartbeats were sent, hence not below that of any request's arrival. */
  readonly index: LogIndex;
  readonly requests: readonly ReadRequest[];
}

/**
 * ReadIndex requests on the leader (Raft thesis, 6.4). A request waits for a heartbeat round that starts after its arrival; when a
 * quorum has answered that round or a later one, nobody else can have been leading when it arrived. All requests waiting share the
 * next round, so one broadcast serves any number. Rounds are numbered, never reused within a leadership (failure catalogue BR15).
 */
export class ReadOnly {
  readonly #max: number;
  #waiting: ReadRequest[] = [];
  /** Started, not confirmed; ascending by round. */
  #rounds: ReadRound[] = [];
  #count = 0;

  /** `max` bounds requests waiting and in rounds together. */
  constructor(max: number) {
    this.#max = max;
  }

  /** Requests not answered yet. */
  get count(): number {
    return this.#count;
  }

  get hasWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  /** A round with requests is on its way. */
  get roundUnderWay(): boolean {
    return this.#rounds.length > 0;
  }

  /** False when full: the request is dropped. */
  add(from: MemberId, context: bigint): boolean {
    if (this.#count >= this.#max) return false;
    this.#waiting.push({ from, context });
    this.#count += 1;
    return true;
  }

  /** Everything waiting joins `round`, about to be sent. Undefined when nothing waited. */
  start(round: number, index: LogIndex): ReadRound | undefined {
    if (this.#waiting.length === 0) return undefined;
    const started = { round, index, requests: this.#waiting };
    this.#waiting = [];
    this.#rounds.push(started);
    return started;
  }

  /** A quorum has answered `round`: takes out that round and all before it. */
  confirm(round: number): readonly ReadRound[] {
    let done = 0;
    for (const started of this.#rounds) {
      if (started.round > round) break;
      this.#count -= started.requests.length;
      done += 1;
    }
    return done === 0 ? NO_ROUNDS : this.#rounds.splice(0, done);
  }

  /** Forgets everything; answers how many requests will never be answered. */
  clear(): number {
    const dropped = this.#count;
    this.#waiting = [];
    this.#rounds = [];
    this.#count = 0;
    return dropped;
  }
}

const NO_ROUNDS: readonly ReadRound[] = Object.freeze([]);
