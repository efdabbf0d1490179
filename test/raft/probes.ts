/**
 * Short stories about one or two members, stepped by hand. Each throws when the core behaves wrongly; each is told about the sound core
 * (raw-node.test.ts) and about the mutants that the random cluster seldom catches (mutants.test.ts).
 */
import { EMPTY_BYTES, utf8Bytes } from "../../src/base/bytes.ts";
import { type MemberId, NO_MEMBER } from "../../src/base/ids.ts";
import { seededRandom } from "../../src/base/random.ts";
import {
  EMPTY_CONF,
  type Entry,
  encodeConfChange,
  MemoryStorage,
  type Message,
  type RaftConfig,
  type RaftMutant,
  RawNode,
  type Ready,
} from "../../src/raft/index.ts";

export const id = (n: number): MemberId => BigInt(n) as MemberId;
export const entry = (index: number, term: number, text = ""): Entry => ({ term, index, type: "normal", data: utf8Bytes(text) });

export interface Hand {
  readonly node: RawNode;
  readonly storage: MemoryStorage;
  /** Takes all work, does what the disk has to do, and answers everything that may be sent. */
  work(): Message[];
  /** The next portion of work, not done. */
  take(): Ready;
  /** Does the disk's part of a portion and answers what may be sent then. */
  persist(ready: Ready): readonly Message[];
}

/** Member 1 of `voters`, with a log of these terms. */
export function makeHand(
  options: {
    voters?: number;
    terms?: number[];
    /** Behind the entries of `terms`, committed or not. */
    entries?: Entry[];
    term?: number;
    commit?: number;
    mutant?: RaftMutant | undefined;
    seed?: number;
    config?: Partial<RaftConfig>;
  } = {},
): Hand {
  const { voters = 3, terms = [], commit = 0 } = options;
  const storage = new MemoryStorage();
  storage.append(terms.map((term, i) => entry(i + 1, term)));
  storage.append(options.entries ?? []);
  storage.setHardState({ term: options.term ?? terms[terms.length - 1] ?? 0, vote: NO_MEMBER, commit });
  storage.setConfState({ ...EMPTY_CONF, voters: Array.from({ length: voters }, (_, i) => id(i + 1)) });
  const config: RaftConfig = {
    id: id(1),
    electionTimeoutTicks: 10,
    heartbeatTicks: 1,
    preVote: false,
    checkQuorum: false,
    appendBytesMax: 1000,
    inflightMessagesMax: 8,
    inflightBytesMax: 10_000,
    uncommittedBytesMax: 10_000,
    committedBytesMax: 10_000,
    readMode: "quorum",
    applied: 0,
    mutants: options.mutant === undefined ? undefined : new Set([options.mutant]),
    ...options.config,
  };
  const node = new RawNode(config, storage, seededRandom(options.seed ?? 1));
  const persist = (ready: Ready): readonly Message[] => {
    const { append } = ready;
    if (append === undefined) return [];
    if (append.snapshot !== undefined) storage.applySnapshot(append.snapshot.metadata);
    storage.append(append.entries);
    if (append.hardState !== undefined) storage.setHardState(append.hardState);
    node.appended(append.ticket);
    return append.thenSend;
  };
  return {
    node,
    storage,
    persist,
    take() {
      const ready = node.ready();
      if (ready === undefined) throw new Error("no work");
      return ready;
    },
    work() {
      const messages: Message[] = [];
      for (let ready = node.ready(); ready !== undefined; ready = node.ready()) {
        messages.push(...ready.messages, ...persist(ready));
        const last = ready.committed[ready.committed.length - 1];
        if (last !== undefined) node.applied(last.index);
      }
      return messages;
    },
  };
}

export function expectThat(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`expected: ${what}`);
}

export function only<Type extends Message["type"]>(messages: readonly Message[], type: Type): (Message & { type: Type })[] {
  return messages.filter((message): message is Message & { type: Type } => message.type === type);
}

/** Member 1 wins an election in a cluster of `voters`, and its no-op is replicated and committed. */
export function lead(hand: Hand, voters = 3): void {
  hand.node.campaign();
  for (const request of only(hand.work(), "vote-request")) {
    const { from, to, term, pre, commit, commitTerm } = request;
    hand.node.step({ type: "vote-response", from: to, to: from, term, pre, granted: true, commit, commitTerm });
  }
  for (let round = 0; round < 3; round++) acknowledge(hand, hand.work());
  expectThat(hand.node.status().role === "leader" && hand.node.status().progress.length === voters, "member 1 leads");
}

/** Everybody accepts what was sent to them. */
export function acknowledge(hand: Hand, messages: readonly Message[]): void {
  for (const { from, to, term, prevIndex, entries } of only(messages, "append-request")) {
    const index = prevIndex + entries.length;
    hand.node.step({ type: "append-response", from: to, to: from, term, rejected: false, index, hintIndex: 0, hintTerm: 0 });
  }
}

export interface Probe {
  readonly name: string;
  readonly run: (mutant?: RaftMutant) => void;
}

export const PROBES: readonly Probe[] = [
  {
    name: "a follower acknowledges what the append covered, not its whole log (BR7, I9)",
    run(mutant) {
      const hand = makeHand({ terms: [1, 1, 1, 1], mutant });
      hand.node.step({
        type: "append-request",
        from: id(2),
        to: id(1),
        term: 2,
        prevIndex: 1,
        prevTerm: 1,
        commit: 0,
        entries: [entry(2, 1)],
      });
      const [response] = only(hand.work(), "append-response");
      expectThat(response?.index === 2, `acknowledged to 2, was ${response?.index}`);
    },
  },
  {
    name: "a follower commits what the append covered, not its whole log",
    run(mutant) {
      const hand = makeHand({ terms: [1, 1, 1, 1], mutant });
      hand.node.step({
        type: "append-request",
        from: id(2),
        to: id(1),
        term: 2,
        prevIndex: 1,
        prevTerm: 1,
        commit: 4,
        entries: [entry(2, 1)],
      });
      expectThat(hand.node.status().commit === 2, `committed to 2, was ${hand.node.status().commit}`);
    },
  },
  {
    name: "a candidate that loses keeps its vote in that term (BR3)",
    run(mutant) {
      const hand = makeHand({ mutant });
      hand.node.campaign();
      hand.work();
      for (const from of [2, 3]) {
        hand.node.step({ type: "vote-response", from: id(from), to: id(1), term: 1, pre: false, granted: false, commit: 0, commitTerm: 0 });
      }
      expectThat(hand.node.status().role === "follower", "it lost");
      const ask = { pre: false, lastIndex: 0, lastTerm: 0, commit: 0, commitTerm: 0, transfer: false } as const;
      hand.node.step({ type: "vote-request", from: id(2), to: id(1), term: 1, ...ask });
      const [response] = only(hand.work(), "vote-response");
      expectThat(response?.granted === false, "no second vote in the term");
    },
  },
  {
    name: "a late answer to an earlier heartbeat confirms no later read (BR15, I12)",
    run(mutant) {
      const hand = makeHand({ mutant });
      lead(hand);
      hand.node.tick();
      const early = only(hand.work(), "heartbeat");
      hand.node.readIndex(7n);
      hand.work();
      for (const { from, to, term, round } of early) hand.node.step({ type: "heartbeat-response", from: to, to: from, term, round });
      let answered = false;
      for (let ready = hand.node.ready(); ready !== undefined; ready = hand.node.ready()) answered ||= ready.readStates.length > 0;
      expectThat(!answered, "the read is not answered by answers from before it");
    },
  },
  {
    name: "a read needs a round (BR13)",
    run(mutant) {
      const hand = makeHand({ mutant });
      lead(hand);
      hand.node.readIndex(7n);
      const ready = hand.take();
      expectThat(ready.readStates.length === 0 && only(ready.messages, "heartbeat").length === 2, "a heartbeat round goes out first");
    },
  },
  {
    name: "an append that finishes late does not count for what replaced it",
    run(mutant) {
      const hand = makeHand({ terms: [1], mutant });
      const append = (term: number, from: number, commit: number): void => {
        hand.node.step({
          type: "append-request",
          from: id(from),
          to: id(1),
          term,
          prevIndex: 1,
          prevTerm: 1,
          commit,
          entries: [entry(2, term)],
        });
      };
      append(2, 2, 1);
      const first = hand.take();
      hand.node.applied(1);
      append(3, 3, 2);
      const second = hand.take();
      hand.persist(first);
      // Entry 2/3 is committed; the disk has 2/2 in its place.
      expectThat((hand.node.ready()?.committed ?? []).length === 0, "nothing to apply before the second append is durable");
      hand.persist(second);
      expectThat(hand.take().committed[0]?.term === 3, "then entry 2/3");
    },
  },
  {
    name: "a transfer waits until the target has everything, and takes no proposals meanwhile (BR27)",
    run(mutant) {
      const hand = makeHand({ mutant });
      lead(hand);
      hand.node.propose(utf8Bytes("x"));
      hand.work();
      hand.node.transferLeader(id(2));
      expectThat(only(hand.work(), "timeout-now").length === 0, "the target is not told to campaign yet");
      expectThat(hand.node.propose(utf8Bytes("y")) === "transferring", "no proposals");
      hand.node.step({
        type: "append-response",
        from: id(2),
        to: id(1),
        term: hand.node.status().term,
        rejected: false,
        index: hand.storage.lastIndex(),
        hintIndex: 0,
        hintTerm: 0,
      });
      expectThat(only(hand.work(), "timeout-now").length === 1, "now it is");
    },
  },
  {
    name: "the configuration comes with the snapshot (BM12)",
    run(mutant) {
      const hand = makeHand({ mutant });
      const confState = { ...EMPTY_CONF, voters: [id(2), id(4)] };
      hand.node.step({ type: "snapshot", from: id(2), to: id(1), term: 3, snapshot: { metadata: { index: 9, term: 2, confState } } });
      hand.work();
      expectThat(hand.node.confState().voters.join() === "2,4", "it acts on the snapshot's configuration");
    },
  },
  {
    name: "after a restart the configuration acted on is at most one step behind the log, whatever commit index was stored (I11, J9)",
    run(mutant) {
      const add = (index: number, n: number): Entry => ({
        term: 1,
        index,
        type: "conf-change",
        data: encodeConfChange({ steps: [{ kind: "add-voter", memberId: id(n) }], context: EMPTY_BYTES }),
      });
      const hand = makeHand({ terms: [1], entries: [add(2, 4), add(3, 5), entry(4, 1)], commit: 1, mutant });
      expectThat(hand.node.status().commit === 2, `the first change is known to be committed, commit was ${hand.node.status().commit}`);
      hand.node.campaign();
      expectThat(hand.node.status().role === "follower", "no election before it is applied");
    },
  },
  {
    name: "a member that lost its log gives no vote before it is healed (BW20)",
    run(mutant) {
      const hand = makeHand({ mutant, config: { quarantined: true } });
      const ask = { pre: false, lastIndex: 9, lastTerm: 4, commit: 0, commitTerm: 0, transfer: false } as const;
      hand.node.step({ type: "vote-request", from: id(2), to: id(1), term: 5, ...ask });
      hand.node.campaign();
      for (let i = 0; i < 40; i++) hand.node.tick();
      expectThat(hand.work().length === 0 && hand.node.status().term === 0, "it keeps silent");
    },
  },
  {
    name: "a member that lost its log confirms no read before its fence is committed (BW20, I12)",
    run(mutant) {
      const hand = makeHand({ mutant });
      lead(hand);
      const outcome = hand.node.resetProgress(id(3), utf8Bytes("fence"));
      expectThat(typeof outcome !== "string", "the leader takes note");
      hand.node.readIndex(7n);
      const answer = (messages: readonly Message[]): void => {
        for (const { from, to, term, round } of only(messages, "heartbeat")) {
          if (to === id(3)) hand.node.step({ type: "heartbeat-response", from: to, to: from, term, round });
        }
      };
      let answered = false;
      for (let ready = hand.node.ready(); ready !== undefined; ready = hand.node.ready()) {
        answered ||= ready.readStates.length > 0;
        answer([...ready.messages, ...hand.persist(ready)]);
      }
      expectThat(!answered, "its answer does not make a quorum");
    },
  },
  {
    name: "what a member acknowledged before it lost its log counts for nothing (BW20)",
    run(mutant) {
      const hand = makeHand({ mutant });
      lead(hand);
      hand.node.propose(utf8Bytes("x"));
      const late = only(hand.work(), "append-request").filter(({ to }) => to === id(3));
      hand.node.resetProgress(id(3), utf8Bytes("fence"));
      acknowledge(hand, late);
      const peer = hand.node.status().progress.find((one) => one.id === id(3));
      expectThat(peer?.match === 0 && hand.node.status().commit === 1, `nothing is held there, match was ${peer?.match}`);
    },
  },
  {
    name: "a conflicting entry is truncated, a matching suffix is not (BR8, I3)",
    run(mutant) {
      const hand = makeHand({ terms: [1, 1, 2, 2], mutant });
      const step = (prevIndex: number, prevTerm: number, ...entries: Entry[]): void => {
        hand.node.step({ type: "append-request", from: id(2), to: id(1), term: 3, prevIndex, prevTerm, commit: 0, entries });
        hand.work();
      };
      step(1, 1, entry(2, 1));
      expectThat(hand.storage.lastIndex() === 4, "nothing is truncated without a conflict");
      step(2, 1, entry(3, 3));
      expectThat(hand.storage.lastIndex() === 3 && hand.storage.term(3) === 3, "the conflict is");
    },
  },
];
