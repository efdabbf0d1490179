import { describe, expect, it } from "vitest";
import * as api from "../../src/api/index.ts";
import { rpcError } from "../../src/api/rpc-errors.ts";
import { utf8Bytes, utf8Text } from "../../src/base/bytes.ts";
import { EtcdError } from "../../src/base/errors.ts";
import { createCoordination } from "../../src/server/services/coordination.ts";
import type { CallContext } from "../../src/server/services/services.contract.ts";
import { FakeMember } from "../support/fake-coordination.ts";

const ANYONE: CallContext = {};

function start(): { member: FakeMember } & ReturnType<typeof createCoordination> {
  const member = new FakeMember();
  return { member, ...createCoordination(member) };
}

const lockRequest = (name: string, lease: bigint): api.LockRequest => api.LockRequest.create({ name: utf8Bytes(name), lease });
const campaignRequest = (name: string, lease: bigint, value: string): api.CampaignRequest =>
  api.CampaignRequest.create({ name: utf8Bytes(name), lease, value: utf8Bytes(value) });
const leaderRequest = (name: string): api.LeaderRequest => api.LeaderRequest.create({ name: utf8Bytes(name) });

async function failure(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return EtcdError.is(error) ? `${error.grpcCode} ${error.message}` : `bug: ${String(error)}`;
  }
  return "no error";
}

/** Waits for a condition; every step of the event loop looks again. */
async function until(condition: () => boolean, what: string): Promise<void> {
  for (let n = 0; n < 5000; n += 1) {
    if (condition()) return;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`never happened: ${what}`);
}

/** A promise whose state can be asked. */
function watched<T>(promise: Promise<T>): { promise: Promise<T>; settled: () => boolean } {
  let settled = false;
  const done = (): void => {
    settled = true;
  };
  promise.then(done, done);
  return { promise, settled: () => settled };
}

describe("Lock", () => {
  it("12: takes a free lock at once; the key is the name and the lease in hexadecimal", async () => {
    const { member, lock } = start();
    member.grant(300n);
    member.grant(-2n);
    const first = await lock.lock(lockRequest("mine", 300n), ANYONE);
    expect([utf8Text(first.key), first.header?.revision, first.header?.raftTerm]).toEqual(["mine/12c", 2, 3]);
    expect(utf8Text((await lock.lock(lockRequest("", 300n), ANYONE)).key)).toBe("/12c");
    expect(utf8Text((await lock.lock(lockRequest("/a/", -2n), ANYONE)).key)).toBe("/a//fffffffffffffffe");
    // Again with the same lease: the same key, nothing written.
    const again = await lock.lock(lockRequest("mine", 300n), ANYONE);
    expect([utf8Text(again.key), again.header?.revision]).toEqual(["mine/12c", 4]);
    expect(member.revision).toBe(4);
  });

  it("grants a lease of 60 seconds to who has none", async () => {
    const { member, lock } = start();
    const response = await lock.lock(lockRequest("auto", 0n), ANYONE);
    expect([...member.leases]).toEqual([[1001n, 60]]);
    expect(utf8Text(response.key)).toBe("auto/3e9");
  });

  it("X1: waiters get it in the order in which they came, each woken by the one before it", async () => {
    const { member, lock } = start();
    for (const lease of [1n, 2n, 3n]) member.grant(lease);
    await lock.lock(lockRequest("q", 1n), ANYONE);
    const second = watched(lock.lock(lockRequest("q", 2n), ANYONE));
    await until(() => member.sessions === 1, "second waits");
    const third = watched(lock.lock(lockRequest("q", 3n), ANYONE));
    await until(() => member.sessions === 2, "third waits");
    expect(member.keys).toEqual(["q/1", "q/2", "q/3"]);
    const freed = await lock.unlock(api.UnlockRequest.create({ key: utf8Bytes("q/1") }), ANYONE);
    expect(freed.header?.revision).toBe(5);
    expect((await second.promise).header?.revision).toBe(5);
    expect(third.settled()).toBe(false);
    // The third waits for the second, not for the first: it did not look again.
    expect(member.calls.filter((call) => call === "range q/").length).toBe(3);
    member.revoke(2n);
    expect(utf8Text((await third.promise).key)).toBe("q/3");
    expect(member.sessions).toBe(0);
  });

  it("goes on waiting for who is before it when the one it waits for leaves out of turn", async () => {
    const { member, lock } = start();
    for (const lease of [1n, 2n, 3n]) member.grant(lease);
    await lock.lock(lockRequest("q", 1n), ANYONE);
    const second = watched(lock.lock(lockRequest("q", 2n), ANYONE));
    await until(() => member.sessions === 1, "second waits");
    const third = watched(lock.lock(lockRequest("q", 3n), ANYONE));
    await until(() => member.sessions === 2, "third waits");
    member.revoke(2n);
    await until(() => member.calls.filter((call) => call === "range q/").length === 3, "third looks again");
    expect([second.settled(), third.settled()]).toEqual([false, false]);
    member.deleteNow("q/1");
    expect(utf8Text((await third.promise).key)).toBe("q/3");
    expect(await failure(second.promise)).toBe("2 mutex: session is expired");
  });

  it("BL9: who lost its lease while waiting does not get the lock, also if the lease and the key came again", async () => {
    const { member, lock } = start();
    member.grant(1n);
    member.grant(2n);
    await lock.lock(lockRequest("q", 1n), ANYONE);
    const second = watched(lock.lock(lockRequest("q", 2n), ANYONE));
    await until(() => member.sessions === 1, "second waits");
    member.revoke(2n);
    expect(second.settled()).toBe(false);
    member.grant(2n);
    const again = watched(lock.lock(lockRequest("q", 2n), ANYONE));
    await until(() => member.sessions === 2, "the new one waits");
    member.revoke(1n);
    expect(await failure(second.promise)).toBe("2 mutex: session is expired");
    expect(utf8Text((await again.promise).key)).toBe("q/2");
    expect(member.keys).toEqual(["q/2"]);
  });

  it("X4: a caller that goes away while waiting leaves no key, and the next one does not wait for it", async () => {
    const { member, lock } = start();
    for (const lease of [1n, 2n, 3n]) member.grant(lease);
    await lock.lock(lockRequest("q", 1n), ANYONE);
    const caller = new AbortController();
    const second = lock.lock(lockRequest("q", 2n), { signal: caller.signal, token: "alice" });
    await until(() => member.sessions === 1, "second waits");
    const third = lock.lock(lockRequest("q", 3n), ANYONE);
    await until(() => member.sessions === 2, "third waits");
    caller.abort();
    expect(await failure(second)).toBe("1 context canceled");
    expect(member.keys).toEqual(["q/1", "q/3"]);
    // As the caller, but not with its signal.
    expect(member.calls.filter((call) => call === "txn q/2 as alice").length).toBe(2);
    member.deleteNow("q/1");
    expect(utf8Text((await third).key)).toBe("q/3");
    expect(member.sessions).toBe(0);
  });

  it("a caller that runs out of time hears just that", async () => {
    const { member, lock } = start();
    member.grant(1n);
    member.grant(2n);
    await lock.lock(lockRequest("q", 1n), ANYONE);
    const caller = new AbortController();
    const second = lock.lock(lockRequest("q", 2n), { signal: caller.signal });
    await until(() => member.sessions === 1, "second waits");
    caller.abort(rpcError("deadline-exceeded"));
    expect(await failure(second)).toBe("4 context deadline exceeded");
    expect(member.keys).toEqual(["q/1"]);
    expect(await failure(lock.lock(lockRequest("q", 2n), { signal: caller.signal }))).toBe("4 context deadline exceeded");
  });

  it("an abandoned call does not take away a key that came back under the same name", async () => {
    const { member, lock } = start();
    member.grant(1n);
    member.grant(2n);
    await lock.lock(lockRequest("q", 1n), ANYONE);
    const caller = new AbortController();
    const second = lock.lock(lockRequest("q", 2n), { signal: caller.signal });
    await until(() => member.sessions === 1, "second waits");
    member.deleteNow("q/2");
    member.putNow("q/2", "another", 2n);
    caller.abort();
    await failure(second);
    expect(member.keys).toEqual(["q/1", "q/2"]);
  });

  it("all errors have code 2 and the text of what went wrong", async () => {
    const { member, lock } = start();
    expect(await failure(lock.lock(lockRequest("n", 99n), ANYONE))).toBe("2 etcdserver: requested lease not found");
    expect(await failure(lock.unlock(api.UnlockRequest.create(), ANYONE))).toBe("2 etcdserver: key is not provided");
    member.before = (call) => {
      if (call === "delete x") throw rpcError("permission-denied");
    };
    expect(await failure(lock.unlock(api.UnlockRequest.create({ key: utf8Bytes("x") }), ANYONE))).toBe("2 etcdserver: permission denied");
    expect(await failure(lock.unlock(api.UnlockRequest.create({ key: utf8Bytes("never") }), ANYONE))).toBe("no error");
    member.before = () => {
      throw new TypeError("a bug");
    };
    expect(await failure(lock.lock(lockRequest("n", 1n), ANYONE))).toBe("bug: TypeError: a bug");
  });

  it("an error while waiting takes the key away; if that fails too, the first error counts", async () => {
    const { member, lock } = start();
    member.grant(1n);
    member.grant(2n);
    await lock.lock(lockRequest("q", 1n), ANYONE);
    member.before = (call) => {
      if (call === "range q/") throw rpcError("leader-changed");
    };
    expect(await failure(lock.lock(lockRequest("q", 2n), ANYONE))).toBe("2 etcdserver: leader changed");
    expect(member.keys).toEqual(["q/1"]);
    let txns = 0;
    member.before = (call) => {
      txns += call === "txn q/2" ? 1 : 0;
      if (call === "range q/" || txns === 2) throw rpcError(call === "range q/" ? "no-leader" : "timeout");
    };
    expect(await failure(lock.lock(lockRequest("q", 2n), ANYONE))).toBe("2 etcdserver: no leader");
  });

  it("a compaction past the wait makes it look again", async () => {
    const { member, lock } = start();
    member.grant(1n);
    member.grant(2n);
    await lock.lock(lockRequest("q", 1n), ANYONE);
    let looks = 0;
    member.before = (call) => {
      if (call !== "range q/") return;
      looks += 1;
    };
    const originalWatch = member.watch.watch;
    member.watch.watch = (context) => {
      // Between the look and the watch the owner leaves, and that history is compacted.
      if (looks === 1) {
        member.deleteNow("q/1");
        member.putNow("x", "1");
        member.source.compact(member.revision);
      }
      return originalWatch(context);
    };
    expect(utf8Text((await lock.lock(lockRequest("q", 2n), ANYONE)).key)).toBe("q/2");
    expect(looks).toBe(2);
  });
});

describe("Election", () => {
  it("13: campaign, leader, proclaim, resign", async () => {
    const { member, election } = start();
    member.grant(10n);
    expect(await failure(election.leader(leaderRequest("e"), ANYONE))).toBe("2 election: no leader");
    const won = await election.campaign(campaignRequest("e", 10n, "one"), ANYONE);
    expect(won.leader).toEqual(api.LeaderKey.create({ name: utf8Bytes("e"), key: utf8Bytes("e/a"), rev: 2, lease: 10n }));
    expect(won.header?.revision).toBe(2);
    const asked = await election.leader(leaderRequest("e"), ANYONE);
    expect([asked.header?.revision, utf8Text(asked.kv?.value ?? new Uint8Array(0)), asked.kv?.lease]).toEqual([2, "one", 10n]);
    const proclaimed = await election.proclaim(api.ProclaimRequest.create({ leader: won.leader, value: utf8Bytes("two") }), ANYONE);
    expect(proclaimed.header?.revision).toBe(3);
    // Again as leader: at once, with the header of the first transaction, although the value changes.
    const again = await election.campaign(campaignRequest("e", 10n, "three"), ANYONE);
    expect([again.header?.revision, again.leader?.rev, member.revision]).toEqual([3, 2, 4]);
    await election.campaign(campaignRequest("e", 10n, "three"), ANYONE);
    expect(member.revision).toBe(4);
    const resigned = await election.resign(api.ResignRequest.create({ leader: won.leader }), ANYONE);
    expect(resigned.header?.revision).toBe(5);
    expect(member.keys).toEqual([]);
  });

  it("missing fields, wrong revisions and leadership that was lost", async () => {
    const { member, election } = start();
    member.grant(10n);
    const leader = (await election.campaign(campaignRequest("e", 10n, "one"), ANYONE)).leader as api.LeaderKey;
    const wrong = { ...leader, rev: 7 };
    expect(await failure(election.proclaim(api.ProclaimRequest.create({}), ANYONE))).toBe('2 "leader" field must be provided');
    expect(await failure(election.resign(api.ResignRequest.create({}), ANYONE))).toBe('2 "leader" field must be provided');
    expect(await failure(election.proclaim(api.ProclaimRequest.create({ leader: wrong }), ANYONE))).toBe("2 election: not leader");
    expect(await failure(election.resign(api.ResignRequest.create({ leader: wrong }), ANYONE))).toBe("no error");
    expect(member.keys).toEqual(["e/a"]);
    expect(await failure(election.campaign(campaignRequest("e", 99n, "x"), ANYONE))).toBe("2 etcdserver: requested lease not found");
    expect(await failure(election.proclaim(api.ProclaimRequest.create({ leader: api.LeaderKey.create() }), ANYONE))).toBe(
      "2 etcdserver: key is not provided",
    );
    // A leader key without a lease makes the server grant one, and a proclamation hangs the key on it.
    expect(member.leases.size).toBe(2);
    await election.proclaim(api.ProclaimRequest.create({ leader: { ...leader, lease: 0n }, value: utf8Bytes("v") }), ANYONE);
    expect((await election.leader(leaderRequest("e"), ANYONE)).kv?.lease).toBe(1002n);
    await election.resign(api.ResignRequest.create({ leader: { ...wrong, lease: 0n } }), ANYONE);
    expect(member.leases.size).toBe(4);
    member.revoke(1002n);
    expect(await failure(election.proclaim(api.ProclaimRequest.create({ leader }), ANYONE))).toBe("2 election: not leader");
  });

  it("candidates wait in order; who goes away while waiting withdraws", async () => {
    const { member, election } = start();
    for (const lease of [1n, 2n, 3n]) member.grant(lease);
    await election.campaign(campaignRequest("e", 1n, "one"), ANYONE);
    const caller = new AbortController();
    const second = election.campaign(campaignRequest("e", 2n, "two"), { signal: caller.signal });
    await until(() => member.sessions === 1, "second waits");
    const third = watched(election.campaign(campaignRequest("e", 3n, "three"), ANYONE));
    await until(() => member.sessions === 2, "third waits");
    caller.abort();
    expect(await failure(second)).toBe("1 context canceled");
    expect(member.keys).toEqual(["e/1", "e/3"]);
    expect(third.settled()).toBe(false);
    member.revoke(1n);
    const won = await third.promise;
    // The header is that of the candidacy, older than the victory.
    expect([won.header?.revision, won.leader?.rev, member.revision]).toEqual([4, 4, 6]);
  });

  it("after another error the candidacy stays, and campaigning again resumes it", async () => {
    const { member, election } = start();
    member.grant(1n);
    member.grant(2n);
    await election.campaign(campaignRequest("e", 1n, "one"), ANYONE);
    member.before = (call) => {
      if (call === "range e/") throw rpcError("leader-changed");
    };
    expect(await failure(election.campaign(campaignRequest("e", 2n, "two"), ANYONE))).toBe("2 etcdserver: leader changed");
    expect(member.keys).toEqual(["e/1", "e/2"]);
    member.before = () => undefined;
    member.revoke(1n);
    expect((await election.campaign(campaignRequest("e", 2n, "two"), ANYONE)).leader?.rev).toBe(3);
  });

  it("an election and a lock of one name block each other", async () => {
    const { member, election, lock } = start();
    member.grant(1n);
    member.grant(2n);
    await lock.lock(lockRequest("a", 1n), ANYONE);
    const candidate = watched(election.campaign(campaignRequest("a", 2n, "x"), ANYONE));
    await until(() => member.sessions === 1, "the candidate waits");
    expect(candidate.settled()).toBe(false);
    await lock.unlock(api.UnlockRequest.create({ key: utf8Bytes("a/1") }), ANYONE);
    expect((await candidate.promise).leader?.rev).toBe(3);
  });

  it("observe: silent without a leader, then every value and every leader, with these headers", async () => {
    const { member, election } = start();
    member.grant(1n);
    member.grant(2n);
    const caller = new AbortController();
    const seen: string[] = [];
    let ended = "";
    const observing = (async () => {
      try {
        for await (const { header, kv } of election.observe(leaderRequest("e"), { signal: caller.signal })) {
          seen.push(
            `${header?.revision}: ${utf8Text(kv?.key ?? new Uint8Array(0))}=${utf8Text(kv?.value ?? new Uint8Array(0))}@${kv?.modRevision}`,
          );
        }
      } catch (error) {
        ended = EtcdError.is(error) ? `${error.grpcCode} ${error.message}` : String(error);
      }
    })();
    await until(() => member.sessions === 1, "it waits for a leader");
    member.putNow("other/1", "no");
    const { leader } = await election.campaign(campaignRequest("e", 1n, "one"), ANYONE);
    await until(() => seen.length === 1, "the first leader");
    await election.proclaim(api.ProclaimRequest.create({ leader, value: utf8Bytes("uno") }), ANYONE);
    await until(() => seen.length === 2, "what it proclaims");
    const second = election.campaign(campaignRequest("e", 2n, "two"), ANYONE);
    await until(() => member.sessions === 2, "the second candidate waits");
    await election.resign(api.ResignRequest.create({ leader }), ANYONE);
    await second;
    await until(() => seen.length === 3, "the second leader");
    member.revoke(2n);
    await until(() => member.sessions === 1, "it waits again");
    await election.campaign(campaignRequest("e", 1n, "three"), ANYONE);
    await until(() => seen.length === 4, "the third leader");
    expect(seen).toEqual(["3: e/1=one@3", "4: e/1=uno@4", "6: e/2=two@5", "8: e/1=three@8"]);
    caller.abort();
    await observing;
    expect(ended).toBe("1 context canceled");
    expect(member.sessions).toBe(0);
  });

  it("observe: the current leader first, and nothing is missed or told twice by a slow reader; X3", async () => {
    const { member, election } = start();
    for (let n = 1n; n <= 20n; n += 1n) member.grant(n);
    await election.campaign(campaignRequest("e", 1n, "0"), ANYONE);
    const observer = election.observe(leaderRequest("e"), ANYONE)[Symbol.asyncIterator]();
    const read = async (): Promise<api.LeaderResponse> => {
      const { value, done } = await observer.next();
      if (done === true || value === undefined) throw new Error("the stream ended");
      return value;
    };
    expect((await read()).header?.revision).toBe(2);
    const before = read();
    await until(() => member.sessions === 1, "it watches");
    for (let n = 1; n <= 50; n += 1) member.putNow("e/1", `${n}`, 1n);
    const values = [await before];
    for (let n = 2; n <= 50; n += 1) values.push(await read());
    expect(values.map(({ kv }) => utf8Text(kv?.value ?? new Uint8Array(0)))).toEqual(Array.from({ length: 50 }, (_, n) => `${n + 1}`));
    // Leaders change while nobody reads: the newest is told, and none that was created before one told already.
    for (let n = 2n; n <= 10n; n += 1n) {
      member.putNow(`e/${n.toString(16)}`, `leader ${n}`, n);
      member.revoke(n - 1n);
    }
    const next = await read();
    expect(utf8Text(next.kv?.value ?? new Uint8Array(0))).toBe("leader 10");
    expect(next.kv?.createRevision).toBeGreaterThan(2);
    await observer.return?.();
    expect(member.sessions).toBe(0);
  });

  it("observe: a compaction past its position makes it look again, without telling the same twice", async () => {
    const { member, election } = start();
    member.grant(1n);
    await election.campaign(campaignRequest("e", 1n, "one"), ANYONE);
    let watches = 0;
    const originalWatch = member.watch.watch;
    member.watch.watch = (context) => {
      watches += 1;
      if (watches === 1) {
        for (let n = 0; n < 5; n += 1) member.putNow("x", `${n}`);
        member.source.compact(member.revision);
      }
      return originalWatch(context);
    };
    const observer = election.observe(leaderRequest("e"), ANYONE)[Symbol.asyncIterator]();
    expect((await observer.next()).value?.kv?.modRevision).toBe(2);
    const next = observer.next();
    await until(() => watches === 2 && member.sessions === 1, "it watches again");
    member.putNow("e/1", "two", 1n);
    expect((await next).value?.kv?.modRevision).toBe(8);
    await observer.return?.();
  });

  it("a refused or lost watch ends the call with its text", async () => {
    const { member, election } = start();
    member.grant(1n);
    member.grant(2n);
    await election.campaign(campaignRequest("e", 1n, "one"), ANYONE);
    const sessionOf = (responses: readonly api.WatchResponse[] | undefined): void => {
      member.watch.watch = () => ({ send: () => undefined, next: async () => responses, close: () => undefined });
    };
    sessionOf(undefined);
    expect(await failure(election.campaign(campaignRequest("e", 2n, "two"), ANYONE))).toBe("2 lost watcher waiting for delete");
    const refusal = api.WatchResponse.create({
      watchId: -1n,
      created: true,
      canceled: true,
      cancelReason: "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
    });
    sessionOf([refusal]);
    expect(await failure(election.campaign(campaignRequest("e", 2n, "two"), ANYONE))).toBe("2 etcdserver: permission denied");
  });
});
