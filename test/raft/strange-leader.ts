/**
 * A follower under any leader that the paper allows. Our own leader finds the last common entry so exactly that a follower's careless answers do no harm under
 * it; leaders of other versions, or the next change of ours, send what they like of their log: from any place, so much or so little, late and again. Each answer
 * is held against both logs. Everything comes from the seed.
 */
import type { LogIndex, Term } from "../../src/base/ids.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { type ConfState, EMPTY_CONF, type Entry, type Message, type RaftMutant } from "../../src/raft/index.ts";
import { Violation } from "./cluster.ts";
import { entry, type Hand, id, makeHand, only } from "./probes.ts";

const STEPS = 60;
const LEADER = id(2);

export interface StrangeLeaderOptions {
  readonly seed: number;
  readonly mutant?: RaftMutant | undefined;
}

/** Throws a Violation when the follower says or commits what it must not. Gives how many answers were checked. */
export function runStrangeLeader(options: StrangeLeaderOptions): number {
  return new StrangeLeader(options).run();
}

class StrangeLeader {
  readonly #random: Random;
  readonly #hand: Hand;
  /** The leader's log; place 0 is before the first entry. */
  readonly #terms: Term[] = [0];
  readonly #term: Term;
  /** Voters as of each index of the leader's log. */
  readonly #confs: ConfState[] = [];
  /** What the leader has committed. */
  #commit: LogIndex;
  /** Acknowledged by the follower. */
  #matched: LogIndex = 0;
  #late: Message[] = [];
  #answers = 0;

  constructor({ seed, mutant }: StrangeLeaderOptions) {
    const random = seededRandom(seed * 31 + 7);
    this.#random = random;
    const common = 1 + random.below(6);
    // The leader's terms are even, those of the follower's leftovers odd, so that no pair of term and index is in both logs by chance.
    let term = 2;
    for (let index = 1; index <= common; index++) {
      if (random.below(3) === 0) term += 2;
      this.#terms.push(term);
    }
    const leftovers: Term[] = [];
    let stale = term + 1;
    for (let more = random.below(6); more > 0; more--) {
      if (random.below(3) === 0) stale += 2;
      leftovers.push(stale);
    }
    term = stale + 1;
    for (let more = 1 + random.below(6); more > 0; more--) {
      if (random.below(3) === 0) term += 2;
      this.#terms.push(term);
    }
    this.#term = term;
    const held = this.#terms.slice(1, common + 1);
    const commit = random.below(common + 1);
    this.#commit = commit + random.below(this.#terms.length - commit);
    this.#terms.forEach((_, index) => {
      const others = [3, 4, 5].filter(() => random.below(2) === 0).map(id);
      // As the follower knows it up to the end of the common part; some change of it may lie behind.
      this.#confs.push({ ...EMPTY_CONF, voters: index <= common ? [1, 2, 3].map(id) : [id(1), LEADER, ...others] });
    });
    this.#hand = makeHand({
      entries: [...held, ...leftovers].map((of, i) => entry(i + 1, of)),
      term: leftovers[leftovers.length - 1] ?? held[held.length - 1] ?? 0,
      commit,
      mutant,
      seed,
    });
    this.#work();
  }

  run(): number {
    for (let step = 0; step < STEPS; step++) {
      const message = this.#nextMessage();
      this.#hand.node.step(message);
      if (this.#random.below(5) === 0) this.#late.push(message);
      this.#work();
    }
    return this.#answers;
  }

  #nextMessage(): Message {
    const random = this.#random;
    const end = this.#terms.length - 1;
    if (this.#late.length > 0 && random.below(5) === 0) return this.#late[random.below(this.#late.length)] as Message;
    if (random.below(4) === 0) this.#commit += random.below(end - this.#commit + 1);
    const header = { from: LEADER, to: id(1), term: this.#term };
    const kind = random.below(10);
    if (kind === 0 && this.#commit > 0) {
      const index = 1 + random.below(this.#commit);
      const metadata = { index, term: this.#terms[index] as Term, confState: this.#confs[index] as ConfState };
      return { type: "snapshot", ...header, snapshot: { metadata } };
    }
    if (kind === 1) return { type: "heartbeat", ...header, commit: Math.min(this.#matched, this.#commit), round: 1 };
    const prevIndex = random.below(end + 1);
    const entries: Entry[] = [];
    for (let count = random.below(4); count > 0 && prevIndex + entries.length < end; count--) {
      const index = prevIndex + entries.length + 1;
      entries.push(entry(index, this.#terms[index] as Term));
    }
    return { type: "append-request", ...header, prevIndex, prevTerm: this.#terms[prevIndex] as Term, commit: this.#commit, entries };
  }

  #work(): void {
    const { node, storage } = this.#hand;
    for (let ready = node.ready(); ready !== undefined; ready = node.ready()) {
      const snapshot = ready.append?.snapshot;
      const messages = [...ready.messages, ...this.#hand.persist(ready)];
      for (const one of ready.committed) {
        if (this.#terms[one.index] !== one.term)
          throw new Violation("J3", `applies ${one.index}/${one.term}, the leader has ${this.#terms[one.index]}`);
        node.applied(one.index);
      }
      if (snapshot !== undefined) {
        const wanted = snapshot.metadata.confState.voters.join();
        const { voters } = node.confState();
        if (voters.join() !== wanted) throw new Violation("BM12", `acts on [${voters.join()}] after a snapshot with [${wanted}]`);
      }
      this.#checkAnswers(messages);
    }
    const { commit } = node.status();
    const known = this.#leaders(commit);
    if (commit > this.#commit) throw new Violation("J4", `commits ${commit}, the leader has committed ${this.#commit}`);
    if (commit > 0 && commit >= storage.firstIndex() && storage.term(commit) !== known)
      throw new Violation("J4", `commits ${commit} of term ${storage.term(commit)}, the leader's is of term ${known}`);
  }

  #checkAnswers(messages: readonly Message[]): void {
    const { storage } = this.#hand;
    for (const { rejected, index } of only(messages, "append-response")) {
      if (rejected) continue;
      this.#answers += 1;
      const own = index < storage.firstIndex() ? this.#leaders(index) : storage.term(index);
      if (index > 0 && own !== this.#leaders(index))
        throw new Violation("I9", `acknowledges ${index}, where it has term ${own} and the leader ${this.#leaders(index)}`);
      this.#matched = Math.max(this.#matched, index);
    }
  }

  #leaders(index: LogIndex): Term | undefined {
    return this.#terms[index];
  }
}
