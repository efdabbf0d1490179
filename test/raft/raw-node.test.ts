import { expect, test } from "vitest";
import { InvariantError, setVerify } from "../../src/base/assert.ts";
import { EMPTY_BYTES, utf8Bytes, utf8Text } from "../../src/base/bytes.ts";
import { type MemberId, NO_MEMBER } from "../../src/base/ids.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { type ConfChange, EMPTY_CONF, encodeConfChange, type Message, READS_PENDING_MAX, type TraceEvent } from "../../src/raft/index.ts";
import { acknowledge, entry, type Hand, id, lead, makeHand, only, PROBES } from "./probes.ts";

setVerify(true);

for (const probe of PROBES) test(probe.name, () => probe.run());

const addVoter = (n: number): ConfChange => ({ steps: [{ kind: "add-voter", memberId: id(n) }], context: EMPTY_BYTES });
const remove = (n: number): ConfChange => ({ steps: [{ kind: "remove", memberId: id(n) }], context: EMPTY_BYTES });

test("each piece of work is handed out once, and hasReady says the same as ready", () => {
  const hand = makeHand({ voters: 1 });
  const { node } = hand;
  expect(node.hasReady()).toBe(false);
  expect(node.ready()).toBeUndefined();
  node.campaign();
  const campaign = hand.take();
  expect(campaign.append).toMatchObject({ hardState: { term: 1, vote: id(1), commit: 0 }, entries: [], mustSync: true });
  expect([node.hasReady(), node.ready()]).toEqual([false, undefined]);
  hand.persist(campaign);
  const noop = hand.take();
  expect(noop.softState).toEqual({ leader: id(1), role: "leader" });
  expect(noop.append?.entries.map((e) => e.index)).toEqual([1]);
  expect(node.hasReady()).toBe(false);

  // A second append is handed out while the first is being written; one report covers both.
  expect(node.propose(utf8Bytes("a"), "context of a")).toBe("accepted");
  const proposal = hand.take();
  expect(proposal.committed).toEqual([]);
  hand.storage.append([...(noop.append?.entries ?? []), ...(proposal.append?.entries ?? [])]);
  if (proposal.append !== undefined) node.appended(proposal.append.ticket);
  const committed = hand.take();
  expect(committed.committed.map((e) => [e.index, utf8Text(e.data), e.context])).toEqual([
    [1, "", undefined],
    [2, "a", "context of a"],
  ]);
  expect(committed.append).toMatchObject({ hardState: { commit: 2 }, entries: [], mustSync: false });
  if (noop.append !== undefined) node.appended(noop.append.ticket);
  expect(node.ready()).toBeUndefined();
  node.applied(2);
  expect(node.status()).toMatchObject({ role: "leader", commit: 2, applied: 2 });
  node.applied(1);
  expect(() => node.applied(3)).toThrow(InvariantError);
});

test("a report for an append that storage does not hold is found out", () => {
  const hand = makeHand({ voters: 1 });
  hand.node.campaign();
  hand.persist(hand.take());
  const { append } = hand.take();
  expect(() => append !== undefined && hand.node.appended(append.ticket)).toThrow("storage holds an append before it is reported durable");
});

test("a leader counts all ticks that are handed in, a follower one", () => {
  const hand = makeHand();
  hand.node.tick(1000);
  expect(hand.node.status().role).toBe("follower");
  lead(hand);
  const events: TraceEvent[] = [];
  const strict = makeHand({ config: { checkQuorum: true, trace: (event) => events.push(event) } });
  lead(strict);
  strict.node.tick(10);
  expect(strict.node.status().role).toBe("leader");
  strict.node.tick(10);
  expect(strict.node.status().role).toBe("follower");
  expect(events.map((event) => event.type)).toContain("quorum-lost");
  expect(() => hand.node.tick(0)).toThrow(InvariantError);
  expect(() => hand.node.tick(1.5)).toThrow(InvariantError);
});

test("election timeouts are drawn anew, within one to two times the configured one", () => {
  const seen = new Set<number>();
  for (let seed = 1; seed <= 60; seed++) {
    const { node } = makeHand({ seed });
    // The first attempt, and one more after it has got no answer.
    for (const term of [1, 2]) {
      let ticks = 0;
      while (node.status().term < term) {
        node.tick();
        ticks += 1;
      }
      expect(ticks).toBeGreaterThanOrEqual(10);
      expect(ticks).toBeLessThanOrEqual(19);
      seen.add(ticks);
    }
  }
  expect(seen.size).toBe(10);
});

test("what becomes of a proposal", () => {
  const follower = makeHand();
  expect(follower.node.propose(utf8Bytes("x"))).toBe("no-leader");
  expect(follower.node.proposeConfChange(addVoter(4))).toBe("no-leader");
  follower.node.step({ type: "heartbeat", from: id(2), to: id(1), term: 1, commit: 0, round: 1 });
  expect(follower.node.propose(utf8Bytes("x"))).toBe("accepted");
  expect(follower.node.proposeConfChange(addVoter(4))).toBe("accepted");
  expect(only(follower.work(), "propose")[0]?.entries.map((e) => e.type)).toEqual(["normal", "conf-change"]);

  const leader = makeHand();
  lead(leader);
  expect(leader.node.proposeConfChange(addVoter(4))).toBe("accepted");
  expect(leader.node.proposeConfChange(addVoter(5))).toBe("pending");
  expect(leader.node.propose(new Uint8Array(9000))).toBe("accepted");
  expect(leader.node.propose(new Uint8Array(9000))).toBe("over-limit");
});

test("a member outside its configuration proposes nothing; one without any configuration may ask its leader", () => {
  const hand = makeHand({ terms: [1], term: 1 });
  hand.node.step({ type: "heartbeat", from: id(2), to: id(1), term: 1, commit: 0, round: 1 });
  hand.node.applyConfChange(remove(1));
  expect(hand.node.propose(EMPTY_BYTES)).toBe("not-member");

  const joining = makeHand({ voters: 0 });
  expect(joining.node.propose(EMPTY_BYTES)).toBe("no-leader");
  joining.node.step({ type: "heartbeat", from: id(2), to: id(1), term: 1, commit: 0, round: 1 });
  expect(joining.node.propose(EMPTY_BYTES)).toBe("accepted");
});

test("large proposals are forwarded in several messages, each within the append limit where it can", () => {
  const hand = makeHand({ config: { appendBytesMax: 10 } });
  hand.node.step({ type: "heartbeat", from: id(2), to: id(1), term: 1, commit: 0, round: 1 });
  for (const bytes of [4, 4, 4, 30, 1]) hand.node.propose(new Uint8Array(bytes));
  expect(only(hand.work(), "propose").map((m) => m.entries.map((e) => e.data.length))).toEqual([[4, 4], [4], [30], [1]]);
});

test("a forwarded configuration change that is garbage is dropped", () => {
  const hand = makeHand();
  lead(hand);
  const before = hand.storage.lastIndex();
  const { term } = hand.node.status();
  const entries = [
    { type: "conf-change", data: Uint8Array.of(9, 9, 9) },
    { type: "conf-change", data: encodeConfChange(addVoter(4)) },
    { type: "conf-change", data: encodeConfChange(addVoter(5)) },
    { type: "normal", data: EMPTY_BYTES },
  ] as const;
  expect(hand.node.step({ type: "propose", from: id(2), to: id(1), term, entries })).toBe("ok");
  hand.work();
  expect(hand.storage.lastIndex()).toBe(before + 2);
});

test("reads beyond the bound are dropped, and a change of leadership forgets the rest", () => {
  const dropped: number[] = [];
  const hand = makeHand({ config: { trace: (event) => event.type === "reads-dropped" && dropped.push(event.count) } });
  lead(hand);
  for (let i = 0; i <= READS_PENDING_MAX; i++) hand.node.readIndex(BigInt(i));
  expect(dropped).toEqual([1]);
  hand.node.step({ type: "heartbeat", from: id(2), to: id(1), term: 9, commit: 0, round: 1 });
  expect(dropped).toEqual([1, READS_PENDING_MAX]);
});

test("messages that are not for this member, from nobody it knows, or of an old term change nothing (I14, BM10)", () => {
  const hand = makeHand();
  lead(hand);
  hand.work();
  const { term } = hand.node.status();
  const head = { from: id(2), to: id(1), term };
  const response = { type: "append-response", rejected: false, index: 1, hintIndex: 0, hintTerm: 0 } as const;
  const table: Message[] = [
    { ...response, ...head, to: id(9) },
    { ...response, ...head, from: id(1) },
    { ...response, ...head, from: NO_MEMBER },
    { ...response, ...head, from: id(9) },
    { ...response, ...head, term: term - 1 },
    { ...response, ...head, index: 1000 },
    { ...head, type: "heartbeat-response", round: 1000 },
    { ...head, from: id(9), type: "propose", entries: [{ type: "normal", data: EMPTY_BYTES }] },
    { ...head, from: id(9), type: "read-index-request", context: 1n },
    { ...head, from: id(9), type: "transfer-leader", transferee: id(2) },
    { ...head, type: "timeout-now" },
    { ...head, type: "heartbeat", commit: 0, round: 1 },
    { ...head, type: "append-request", prevIndex: 0, prevTerm: 0, commit: 0, entries: [] },
  ];
  const before = hand.node.status();
  for (const message of table) {
    expect(hand.node.step(message)).toBe("ignored");
    expect(hand.node.status()).toEqual(before);
    expect(hand.node.ready()).toBeUndefined();
  }
});

test("a second leader of the same term is not followed", () => {
  const hand = makeHand();
  hand.node.step({ type: "heartbeat", from: id(2), to: id(1), term: 1, commit: 0, round: 1 });
  expect(hand.node.step({ type: "heartbeat", from: id(3), to: id(1), term: 1, commit: 0, round: 1 })).toBe("ignored");
  expect(hand.node.status().leader).toBe(id(2));
});

test("a member that is told of commits it has lost stops with the reason (BR23)", () => {
  const hand = makeHand();
  const heartbeat = { type: "heartbeat", from: id(2), to: id(1), term: 1, commit: 7, round: 1 } as const;
  expect(() => hand.node.step(heartbeat)).toThrow("entries that this member had acknowledged are missing");
});

test("a commit index that is stored too far, or a state machine ahead of the log, does not start", () => {
  expect(() => makeHand({ terms: [1], commit: 2 })).toThrow("acknowledged are missing");
  expect(() => makeHand({ terms: [1], config: { applied: 2 } })).toThrow("acknowledged are missing");
  expect(() => makeHand({ terms: [5], term: 4 })).toThrow("the stored term is not behind the log");
  // The state machine was written in time, the commit index was not (BS10).
  expect(makeHand({ terms: [1, 1, 1], commit: 1, config: { applied: 2 } }).node.status()).toMatchObject({ commit: 2, applied: 2 });
});

test("odd configurations are refused", () => {
  for (const config of [
    { id: NO_MEMBER },
    { heartbeatTicks: 0 },
    { electionTimeoutTicks: 1 },
    { appendBytesMax: 0 },
    { committedBytesMax: 0 },
    { uncommittedBytesMax: 0 },
    { inflightMessagesMax: 0 },
    { readMode: "lease", checkQuorum: false },
  ] as const) {
    expect(() => makeHand({ config })).toThrow(InvariantError);
  }
});

test("a member with unapplied configuration changes does not campaign", () => {
  const hand = makeHand({ terms: [1] });
  const change = { term: 1, index: 2, type: "conf-change", data: encodeConfChange(remove(3)) } as const;
  hand.node.step({ type: "append-request", from: id(2), to: id(1), term: 1, prevIndex: 1, prevTerm: 1, commit: 2, entries: [change] });
  const first = hand.take();
  hand.node.campaign();
  expect(hand.node.status().role).toBe("follower");
  hand.persist(first);
  const { committed } = hand.take();
  expect(committed.map((e) => e.index)).toEqual([1, 2].slice(2 - committed.length));
  hand.node.applyConfChange(remove(3));
  hand.node.applied(2);
  hand.node.campaign();
  expect(hand.node.status().role).toBe("candidate");
});

test("a configuration change from before an accepted snapshot moves only what is applied", () => {
  const hand = makeHand({ terms: [1] });
  const change = { term: 1, index: 2, type: "conf-change", data: encodeConfChange(addVoter(7)) } as const;
  hand.node.step({ type: "append-request", from: id(2), to: id(1), term: 1, prevIndex: 1, prevTerm: 1, commit: 2, entries: [change] });
  hand.persist(hand.take());
  hand.take();
  const confState = { ...EMPTY_CONF, voters: [id(2), id(3)] };
  hand.node.step({ type: "snapshot", from: id(2), to: id(1), term: 1, snapshot: { metadata: { index: 50, term: 1, confState } } });
  expect(hand.node.applyConfChange(addVoter(7)).voters).toEqual([id(1), id(2), id(3), id(7)]);
  expect(hand.node.confState()).toEqual(confState);
  hand.node.applied(2);
  hand.persist(hand.take());
  expect(hand.node.status().applied).toBe(50);
  expect(hand.node.applyConfChange(addVoter(8)).voters).toEqual([id(2), id(3), id(8)]);
});

test("a change that cannot be made changes nothing, a refused one neither", () => {
  const problems: string[] = [];
  const hand = makeHand({ voters: 1, config: { trace: (event) => event.type === "conf-refused" && problems.push(event.problem) } });
  const before = hand.node.confState();
  expect(hand.node.applyConfChange(remove(1))).toBe(before);
  expect(hand.node.applyConfChange(undefined)).toBe(before);
  expect(problems).toEqual(["no voters would be left"]);
});

test("proposals between two collections share their messages", () => {
  const hand = makeHand();
  lead(hand);
  for (let i = 0; i < 20; i++) hand.node.propose(utf8Bytes(`${i}`));
  const appends = only(hand.work(), "append-request");
  expect(appends.map((m) => m.entries.length)).toEqual([20, 20]);
  expect(appends[0]?.entries).toBe(appends[1]?.entries);
  acknowledge(hand, appends);
  expect(hand.node.status().commit).toBe(hand.storage.lastIndex());
});

test("committed entries come in portions, and no more than two are outstanding", () => {
  const hand = makeHand({ voters: 1, config: { committedBytesMax: 10 } });
  hand.node.campaign();
  hand.persist(hand.take());
  for (let i = 0; i < 8; i++) hand.node.propose(new Uint8Array(5));
  hand.persist(hand.take());
  const portions: number[] = [];
  for (let ready = hand.node.ready(); ready !== undefined; ready = hand.node.ready()) portions.push(ready.committed.length);
  expect(portions).toEqual([3, 2]);
  hand.node.applied(3);
  expect(hand.take().committed.length).toBe(2);
});

// ------------------------------------------------------------------------------------------------------------------- BR22

const ODD_NUMBERS = [0, 1, 2, 3, 4, 5, 7, 100, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 60, "7", undefined, null, 3n];
const ODD_OTHERS = [undefined, null, true, false, 0, "x", [], {}, 5n, -5n, 0n];

/** A sensible message with one or more fields replaced by something else. */
function oddMessage(random: Random): Message {
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)] as T;
  const small = (): number => random.below(7);
  const head = { from: id(1 + random.below(4)), to: id(1), term: small() };
  const confState = { ...EMPTY_CONF, voters: [id(1), id(2), id(3)] };
  const entries = Array.from({ length: random.below(3) }, (_, i) => entry(small() + i, small()));
  const sensible: Message[] = [
    {
      ...head,
      type: "vote-request",
      pre: true,
      lastIndex: small(),
      lastTerm: small(),
      commit: small(),
      commitTerm: small(),
      transfer: false,
    },
    { ...head, type: "vote-response", pre: false, granted: true, commit: small(), commitTerm: small() },
    { ...head, type: "append-request", prevIndex: small(), prevTerm: small(), commit: small(), entries },
    {
      ...head,
      type: "append-response",
      rejected: random.chance({ of: 1, outOf: 2 }),
      index: small(),
      hintIndex: small(),
      hintTerm: small(),
    },
    { ...head, type: "heartbeat", commit: small(), round: small() },
    { ...head, type: "heartbeat-response", round: small() },
    { ...head, type: "snapshot", snapshot: { metadata: { index: small(), term: small(), confState } } },
    { ...head, type: "propose", entries: [{ type: "normal", data: EMPTY_BYTES }] },
    { ...head, type: "read-index-request", context: 5n },
    { ...head, type: "read-index-response", context: 5n, index: small() },
    { ...head, type: "transfer-leader", transferee: id(2) },
    { ...head, type: "timeout-now" },
  ];
  const message: Record<string, unknown> = { ...pick(sensible) };
  const fields = Object.keys(message).filter((field) => field !== "type");
  for (let i = random.below(3); i > 0; i--) {
    const field = pick(fields);
    message[field] = pick(typeof message[field] === "number" ? ODD_NUMBERS : ODD_OTHERS);
  }
  if (Array.isArray(message.entries) && random.chance({ of: 1, outOf: 3 })) {
    message.entries = (message.entries as object[]).map((e) => ({ ...e, [pick(["index", "term", "type", "data"])]: pick(ODD_NUMBERS) }));
  }
  if (message.type === "snapshot" && random.chance({ of: 1, outOf: 3 })) {
    message.snapshot = pick([
      {},
      { metadata: {} },
      { metadata: { index: 3, term: 1, confState: { voters: pick(ODD_OTHERS) } } },
      undefined,
    ]);
  }
  return message as unknown as Message;
}

test("no message, however malformed, throws through the loop; only proof of lost commits stops a member (BR22)", () => {
  const random = seededRandom(11);
  const starts: (() => Hand)[] = [
    () => makeHand({ terms: [1, 1, 2, 2], commit: 2, config: { preVote: true, checkQuorum: true } }),
    () => makeHand({ voters: 0 }),
    () => {
      const hand = makeHand({ terms: [1, 1] });
      hand.node.campaign();
      return hand;
    },
    () => {
      const hand = makeHand();
      lead(hand);
      return hand;
    },
  ];
  let stopped = 0;
  for (let round = 0; round < 300; round++) {
    const hand = (starts[round % starts.length] as () => Hand)();
    try {
      for (let step = 0; step < 100; step++) {
        const outcome = hand.node.step(oddMessage(random));
        expect(["ok", "ignored"]).toContain(outcome);
        if (random.chance({ of: 1, outOf: 3 })) hand.work();
        if (random.chance({ of: 1, outOf: 10 })) hand.node.tick();
      }
    } catch (error) {
      if (!(error instanceof InvariantError)) throw error;
      expect(error.message).toMatch(/acknowledged are missing|a committed entry conflicts with the leader's/);
      stopped += 1;
    }
  }
  expect(stopped).toBeLessThan(300);
});

test("a status lists progress only on the leader, in id order", () => {
  const hand = makeHand({ voters: 3 });
  expect(hand.node.status().progress).toEqual([]);
  lead(hand);
  expect(hand.node.status().progress.map((peer) => peer.id)).toEqual([id(1), id(2), id(3)]);
  expect(hand.node.status().progress[0]).toMatchObject({
    match: 1,
    state: "replicate",
    recentActive: true,
    learner: false,
  } satisfies object);
  const ids: MemberId[] = hand.node.confState().voters.slice();
  expect(ids).toEqual([id(1), id(2), id(3)]);
});
