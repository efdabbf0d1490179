import { describe, expect, test } from "vitest";
import type { Clock } from "../../base/clock.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { ClusterId, MemberId } from "../../base/ids.ts";
import { seededRandom } from "../../base/random.ts";
import type { Message, SnapshotRequest } from "../../raft/index.ts";
import { MemoryNetwork, type Route } from "./memory-transport.ts";
import type { PeerHandlers, PeerTransport } from "./transport.ts";

/** Time that moves only when told; timers of one instant fire in the order they were set. */
class ManualClock implements Clock {
  #now = 0;
  #sequence = 0;
  #timers: { at: number; sequence: number; fn: () => void }[] = [];

  monotonicMs(): number {
    return this.#now;
  }

  wallMs(): number {
    return this.#now;
  }

  timer(ms: number, fn: () => void): { cancel(): void } {
    const entry = { at: this.#now + ms, sequence: this.#sequence++, fn };
    this.#timers.push(entry);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== entry);
      },
    };
  }

  /** Fires everything that is due until then, with the promises in between. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      for (let i = 0; i < 20; i++) await Promise.resolve();
      this.#timers.sort((a, b) => a.at - b.at || a.sequence - b.sequence);
      const next = this.#timers[0];
      if (next === undefined || next.at > end) break;
      this.#timers.shift();
      this.#now = Math.max(this.#now, next.at);
      next.fn();
    }
    this.#now = end;
  }
}

const CLUSTER = 1n as ClusterId;
const [A, B, C] = [1n as MemberId, 2n as MemberId, 3n as MemberId];

interface Member {
  readonly transport: PeerTransport;
  readonly received: Message[];
  readonly unreachable: MemberId[];
  removed: number;
}

async function join(network: MemoryNetwork, id: MemberId, handlers: Partial<PeerHandlers> = {}): Promise<Member> {
  const member: Member = { transport: network.transport(), received: [], unreachable: [], removed: 0 };
  await member.transport.start({
    clusterId: CLUSTER,
    memberId: id,
    onMessage: (message) => void member.received.push(message),
    onSnapshot: async () => undefined,
    snapshotBytesHeld: async () => 0,
    onRequest: async () => new Uint8Array(0),
    onUnreachable: (peer) => void member.unreachable.push(peer),
    isRemoved: () => false,
    onRemoved: () => {
      member.removed++;
    },
    membersJson: () => "[]",
    versionJson: () => "{}",
    ...handlers,
  });
  member.transport.setPeers([A, B, C].filter((other) => other !== id).map((other) => ({ id: other, urls: [] })));
  return member;
}

function heartbeat(from: MemberId, to: MemberId, round: number): Message {
  return { type: "heartbeat", from, to, term: 1, commit: 0, round };
}

const rounds = (member: Member): number[] => member.received.map((message) => (message.type === "heartbeat" ? message.round : -1));

describe("the network inside a process", () => {
  test("delivers later, in order, copies, without the proposer's context", async () => {
    const clock = new ManualClock();
    const network = new MemoryNetwork({ clock });
    const [a, b] = [await join(network, A), await join(network, B)];
    const entry = { term: 1, index: 1, type: "normal" as const, data: new Uint8Array([1, 2]), context: {} };
    const append: Message = { type: "append-request", from: A, to: B, term: 1, prevIndex: 0, prevTerm: 0, commit: 0, entries: [entry] };
    a.transport.send([append, heartbeat(A, B, 1), heartbeat(A, B, 2)]);
    expect(b.received).toEqual([]);
    await clock.advance(0);
    expect(b.received).toHaveLength(3);
    const [first] = b.received;
    expect(first).not.toBe(append);
    expect(first?.type === "append-request" && Object.keys(first.entries[0] ?? {})).toEqual(["term", "index", "type", "data"]);
    expect(rounds(b).slice(1)).toEqual([1, 2]);
  });

  test("what has no delay may take a faster way, in order all the same", async () => {
    const deferred: (() => void)[] = [];
    const network = new MemoryNetwork({ clock: new ManualClock(), defer: (fn) => void deferred.push(fn) });
    const [a, b] = [await join(network, A), await join(network, B)];
    a.transport.send([1, 2, 3].map((round) => heartbeat(A, B, round)));
    expect(b.received).toEqual([]);
    for (const fn of deferred.splice(0)) fn();
    expect(rounds(b)).toEqual([1, 2, 3]);
  });

  test("a route may drop, delay and double", async () => {
    const clock = new ManualClock();
    const route: Route = (parcel) => {
      if (parcel.type !== "message" || parcel.message.type !== "heartbeat") return [0];
      return [[], [50], [0, 100]][parcel.message.round % 3] as number[];
    };
    const network = new MemoryNetwork({ clock, route });
    const [a, b] = [await join(network, A), await join(network, B)];
    a.transport.send([0, 1, 2].map((round) => heartbeat(A, B, round)));
    await clock.advance(10);
    expect(rounds(b)).toEqual([2]);
    await clock.advance(200);
    expect(rounds(b)).toEqual([2, 1, 2]);
  });

  test("one way cuts, partitions, and what activeSince makes of them", async () => {
    const clock = new ManualClock();
    const network = new MemoryNetwork({ clock });
    const [a, b, c] = [await join(network, A), await join(network, B), await join(network, C)];
    await clock.advance(10);
    expect(a.transport.activeSince(B)).toBe(0);
    network.cut(A, B);
    a.transport.send([heartbeat(A, B, 1), heartbeat(A, B, 2)]);
    b.transport.send([heartbeat(B, A, 3)]);
    await clock.advance(0);
    expect(rounds(a)).toEqual([3]);
    expect(b.received).toEqual([]);
    expect(a.unreachable).toEqual([B]);
    expect(a.transport.activeSince(B)).toBeUndefined();
    expect(b.transport.activeSince(A)).toBeUndefined();
    await clock.advance(10);
    network.heal(A, B);
    expect(a.transport.activeSince(B)).toBe(20);
    network.partition([[A], [B, C]]);
    a.transport.send([heartbeat(A, B, 4), heartbeat(A, C, 4)]);
    b.transport.send([heartbeat(B, C, 5)]);
    await clock.advance(0);
    expect(rounds(c)).toEqual([5]);
    expect(a.unreachable).toEqual([B, B, C]);
    network.partition([]);
    expect(a.transport.activeSince(C)).toBe(20);
  });

  test("a member that is gone is unreachable until it is back; old copies of itself are out", async () => {
    const clock = new ManualClock();
    const network = new MemoryNetwork({ clock });
    const [a, b] = [await join(network, A), await join(network, B)];
    await b.transport.close();
    await clock.advance(0);
    expect(a.unreachable).toEqual([B]);
    a.transport.send([heartbeat(A, B, 1)]);
    const again = await join(network, B);
    a.transport.send([heartbeat(A, B, 2)]);
    await clock.advance(0);
    expect(rounds(again)).toEqual([2]);
    expect(b.received).toEqual([]);
  });

  test("wrong senders, foreign clusters and removed members are not heard; the removed one learns it", async () => {
    const clock = new ManualClock();
    const network = new MemoryNetwork({ clock });
    const a = await join(network, A, { isRemoved: (id) => id === B });
    const b = await join(network, B);
    const c = await join(network, C, { clusterId: 2n as ClusterId });
    b.transport.send([heartbeat(B, A, 1)]);
    c.transport.send([heartbeat(C, A, 1), heartbeat(A, B, 1)]);
    await clock.advance(0);
    expect(a.received).toEqual([]);
    expect(b.received).toEqual([]);
    expect(b.removed).toBe(1);
  });

  test("messages on the way are bounded", async () => {
    const clock = new ManualClock();
    const network = new MemoryNetwork({ clock });
    const [a, b] = [await join(network, A), await join(network, B)];
    a.transport.send(Array.from({ length: 5000 }, (_, i) => heartbeat(A, B, i)));
    await clock.advance(0);
    expect(b.received).toHaveLength(4096);
    expect(a.unreachable).toEqual([B]);
    a.transport.send([heartbeat(A, B, 9999)]);
    await clock.advance(0);
    expect(rounds(b).at(-1)).toBe(9999);
  });

  test("requests: answers, errors, cancelling, lost ones", async () => {
    const clock = new ManualClock();
    let lose: string | undefined;
    const network = new MemoryNetwork({ clock, route: (parcel) => (parcel.type === lose ? [] : [5]) });
    const a = await join(network, A);
    let seen: AbortSignal | undefined;
    await join(network, B, {
      onRequest: async (from, kind, body, { signal }) => {
        if (kind === "hash-kv") throw new EtcdError("compacted", GrpcCode.OutOfRange, "gone");
        seen = signal;
        if (kind === "status") return new Promise(() => undefined);
        return new Uint8Array([Number(from), ...body]);
      },
    });
    const never = new AbortController().signal;
    const good = a.transport.request(B, "lease-renew", new Uint8Array([7]), { signal: never });
    const bad = a.transport.request(B, "hash-kv", new Uint8Array(0), { signal: never }).catch((error: unknown) => error);
    await clock.advance(20);
    expect([...(await good)]).toEqual([1, 7]);
    const error = await bad;
    expect(EtcdError.is(error) && error.reason).toBe("compacted");
    for (lose of ["request", "response", undefined]) {
      const given = new AbortController();
      let failed: unknown;
      a.transport
        .request(B, lose === "response" ? "lease-renew" : "status", new Uint8Array(0), { signal: given.signal })
        .catch((reason: unknown) => {
          failed = reason;
        });
      await clock.advance(1000);
      expect(failed).toBeUndefined();
      given.abort(new Error("deadline"));
      await clock.advance(0);
      expect(failed).toEqual(new Error("deadline"));
    }
    expect(seen?.aborted).toBe(true);
    network.cut(A, B);
    await expect(a.transport.request(B, "status", new Uint8Array(0), { signal: never })).rejects.toMatchObject({
      reason: "peer-unavailable",
    });
    await a.transport.close();
    await expect(a.transport.request(B, "status", new Uint8Array(0), { signal: never })).rejects.toMatchObject({
      reason: "peer-transport-closed",
    });
  });

  test("snapshots: whole, broken and resumed, refused, given up", async () => {
    const clock = new ManualClock();
    const random = seededRandom(3);
    let loss = 0;
    const network = new MemoryNetwork({
      clock,
      route: (parcel) => (parcel.type === "snapshot-chunk" && random.chance({ of: loss, outOf: 100 }) ? [] : [1]),
    });
    const a = await join(network, A);
    let bytes: number[] = [];
    let refuse: Error | undefined;
    await join(network, B, {
      snapshotBytesHeld: async () => bytes.length,
      onSnapshot: async (_message, chunks) => {
        if (refuse !== undefined) throw refuse;
        for await (const chunk of chunks) bytes.push(...chunk);
      },
    });
    const confState = { voters: [A, B], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
    const message: SnapshotRequest = {
      type: "snapshot",
      from: A,
      to: B,
      term: 2,
      snapshot: { metadata: { index: 5, term: 1, confState } },
    };
    const source = {
      info: { id: "s", sizeBytes: 100 },
      async *read(offset: number) {
        for (let at = offset; at < 100; at++) yield new Uint8Array([at]);
      },
      close: async () => undefined,
    };
    const run = async (signal = new AbortController().signal): Promise<unknown> => {
      const sending = a.transport.sendSnapshot(message, source, signal).then(
        () => "sent",
        (error: unknown) => (EtcdError.is(error) ? error.reason : (error as Error).message),
      );
      await clock.advance(5000);
      return sending;
    };
    expect(await run()).toBe("sent");
    expect(bytes).toEqual([...Array(100).keys()]);
    bytes = [];
    loss = 2;
    const outcomes = [await run(), await run(), await run()];
    expect(outcomes).toContain("sent");
    expect(bytes).toEqual([...Array(100).keys()]);
    bytes = [];
    loss = 100;
    expect(await run()).toBe("peer-unavailable");
    loss = 0;
    refuse = new EtcdError("snapshot-busy", GrpcCode.Unavailable, "busy");
    expect(await run()).toBe("snapshot-busy");
    expect(await run(AbortSignal.abort(new Error("stop")))).toBe("stop");
  });

  test("two runs of one seed are the same", async () => {
    const run = async (): Promise<string> => {
      const clock = new ManualClock();
      const random = seededRandom(99);
      const log: string[] = [];
      const network = new MemoryNetwork({ clock, route: () => Array.from({ length: random.below(3) }, () => random.below(40)) });
      const members = [await join(network, A), await join(network, B), await join(network, C)];
      for (let i = 0; i < 200; i++) {
        const from = random.below(3);
        const to = (from + 1 + random.below(2)) % 3;
        members[from]?.transport.send([heartbeat(BigInt(from + 1) as MemberId, BigInt(to + 1) as MemberId, i)]);
        if (random.chance({ of: 1, outOf: 10 })) network.partition([[BigInt(1 + random.below(3)) as MemberId], [A, B, C]]);
        await clock.advance(random.below(10));
        log.push(members.map((member) => member.received.length).join());
      }
      return `${log.join(";")}|${members.map((member) => rounds(member).join()).join("|")}`;
    };
    expect(await run()).toBe(await run());
  });
});
