import { beforeAll, describe, expect, it } from "vitest";
import { setVerify } from "../base/assert.ts";
import type { KeyString } from "../base/bytes.ts";
import { EtcdError } from "../base/errors.ts";
import { type LeaseId, NO_LEASE } from "../base/ids.ts";
import { LEASE_TTL_SECONDS_MAX } from "./lease-row.ts";
import { LEASE_MUTANTS, Lessor, minimumTtlSeconds } from "./lessor.ts";

const id = (n: number | bigint): LeaseId => BigInt(n) as LeaseId;
const key = (text: string): KeyString => text as KeyString;
const lessor = (mutants: string[] = []): Lessor => new Lessor({ minTtlSeconds: 2, mutants: new Set(mutants) });

function primary(nowMs = 0): Lessor {
  const leases = lessor();
  leases.promote(nowMs, 0);
  return leases;
}

function reasonOf(call: () => unknown): string | undefined {
  try {
    call();
  } catch (error) {
    return EtcdError.is(error) ? `${error.reason}|${error.grpcCode}|${error.message}` : String(error);
  }
  return undefined;
}

beforeAll(() => setVerify(true));

describe("grant", () => {
  it("raises a short, zero or negative TTL to the minimum and keeps any other", () => {
    const leases = lessor();
    expect([1, 0, -5, 2, 3, 600].map((ttl, n) => leases.grant(id(n + 1), ttl, 0))).toEqual([2, 2, 2, 2, 3, 600]);
    expect(leases.grant(id(-7), LEASE_TTL_SECONDS_MAX, 0)).toBe(9_000_000_000);
    expect(leases.grantedTtl(id(-7))).toBe(9_000_000_000);
    expect(leases.size).toBe(7);
  });

  it("refuses a TTL above the maximum, also before it looks at the id", () => {
    const leases = lessor();
    leases.grant(id(1), 10, 0);
    const tooLarge = "lease-ttl-too-large|11|etcdserver: too large lease TTL";
    expect(reasonOf(() => leases.grant(id(2), LEASE_TTL_SECONDS_MAX + 1, 0))).toBe(tooLarge);
    expect(reasonOf(() => leases.grant(id(1), Number.MAX_SAFE_INTEGER, 0))).toBe(tooLarge);
    expect(reasonOf(() => leases.grant(id(1), 10, 0))).toBe("lease-exists|9|etcdserver: lease already exists");
    expect(reasonOf(() => leases.grant(NO_LEASE, 10, 0))).toBe("lease-not-found|5|etcdserver: requested lease not found");
    expect(leases.size).toBe(1);
  });

  it("computes the minimum TTL from the election timeout", () => {
    expect(minimumTtlSeconds(10, 100)).toBe(2);
    expect(minimumTtlSeconds(10, 10)).toBe(1);
    expect(minimumTtlSeconds(5, 100)).toBe(1); // 3 x 5 / 2 is 7 ticks: 0.7 s
    expect(minimumTtlSeconds(50, 1000)).toBe(75);
  });

  it("BL5: ids and TTLs at the bounds of their types neither collide nor overflow", () => {
    const leases = primary(1e9);
    const ids = [-(2n ** 63n), 2n ** 63n - 1n, -1n, 1n, 7587862094236862466n].map(id);
    for (const one of ids) leases.grant(one, LEASE_TTL_SECONDS_MAX, 1e9);
    expect(leases.remainingTtl(id(-1n), 1e9)).toBe(9_000_000_000);
    expect(leases.expired(1e9 + 1e12, 10, 1)).toEqual([]);
    expect(leases.remainingTtl(id(-1n), 1e9 + 1e12)).toBe(8_000_000_000);
    expect(leases.nextDeadlineMs()).toBe(1e9 + 9e12);
    expect(leases.expired(1e9 + 9e12, 10, 1).length).toBe(5);
    leases.demote();
    expect(leases.ids()).toEqual([-(2n ** 63n), -1n, 1n, 7587862094236862466n, 2n ** 63n - 1n]);
  });
});

describe("attachments", () => {
  it("a key hangs on one lease, the last one it was attached to", () => {
    const leases = lessor();
    leases.grant(id(1), 10, 0);
    leases.grant(id(2), 10, 0);
    for (const name of ["b", "a", "\xff", "aa"]) leases.attach(key(name), id(1));
    expect(leases.keysOf(id(1))).toEqual(["a", "aa", "b", "\xff"]);
    leases.attach(key("aa"), id(2));
    leases.attach(key("aa"), id(2));
    expect(leases.keysOf(id(1))).toEqual(["a", "b", "\xff"]);
    expect(leases.keysOf(id(2))).toEqual(["aa"]);
    expect([1, 2, 3].map((one) => [...leases.attachedKeys(id(one))].sort())).toEqual([["a", "b", "\xff"], ["aa"], []]);
    expect(leases.leaseOf(key("aa"))).toBe(2n);
    leases.attach(key("aa"), NO_LEASE);
    leases.attach(key("aa"), NO_LEASE);
    expect(leases.keysOf(id(2))).toEqual([]);
    expect(leases.leaseOf(key("aa"))).toBe(NO_LEASE);
  });

  it("L4: a revoke takes the lease and its attachments, not the keys that moved away", () => {
    const leases = lessor();
    leases.grant(id(1), 10, 0);
    leases.grant(id(2), 10, 0);
    leases.attach(key("a"), id(1));
    leases.attach(key("b"), id(1));
    leases.attach(key("b"), id(2));
    leases.revoke(id(1));
    expect(leases.exists(id(1))).toBe(false);
    expect(leases.leaseOf(key("a"))).toBe(NO_LEASE);
    expect(leases.leaseOf(key("b"))).toBe(2n);
    const notFound = "lease-not-found|5|etcdserver: requested lease not found";
    expect(reasonOf(() => leases.keysOf(id(1)))).toBe(notFound);
    expect(reasonOf(() => leases.revoke(id(1)))).toBe(notFound);
    expect(reasonOf(() => leases.revoke(NO_LEASE))).toBe(notFound);
    expect(() => leases.attach(key("c"), id(1))).toThrow("keys are attached to leases that exist");
  });
});

describe("expiry", () => {
  it("offers a lease at its deadline, not before, and again only after the retry time", () => {
    const leases = primary();
    leases.grant(id(1), 5, 0);
    leases.grant(id(2), 3, 0);
    expect(leases.expired(2999, 10, 7000)).toEqual([]);
    expect(leases.expired(3000, 10, 7000)).toEqual([2n]);
    expect(leases.expired(5000, 10, 7000)).toEqual([1n]);
    expect(leases.expired(9999, 10, 7000)).toEqual([]);
    expect(leases.expired(10000, 10, 7000)).toEqual([2n]);
    leases.revoke(id(2));
    expect(leases.expired(30000, 10, 7000)).toEqual([1n]);
    leases.revoke(id(1));
    expect(leases.nextDeadlineMs()).toBeUndefined();
  });

  it("hands out at most `limit`, the earliest first", () => {
    const leases = primary();
    for (let n = 1; n <= 50; n += 1) leases.grant(id(n), 51 - n + 2, 0);
    expect(leases.expired(1e6, 3, 7000)).toEqual([50n, 49n, 48n]);
    expect(leases.expired(1e6, 0, 7000)).toEqual([]);
    expect(leases.expired(1e6, 100, 7000).length).toBe(47);
  });

  it("a renewal moves the deadline to a full TTL from now", () => {
    const leases = primary();
    leases.grant(id(1), 10, 0);
    expect(leases.renew(id(1), 9000)).toEqual({ outcome: "renewed", ttlSeconds: 10, checkpointed: false });
    expect(leases.remainingTtl(id(1), 9000)).toBe(10);
    expect(leases.remainingTtl(id(1), 9001)).toBe(9);
    expect(leases.expired(18_999, 10, 7000)).toEqual([]);
    expect(leases.remainingTtl(id(1), 18_500)).toBe(0);
    expect(leases.expired(19_000, 10, 7000)).toEqual([1n]);
  });

  it("BL2, L6: nothing renews a lease that is over, also when it was offered and not yet revoked", () => {
    const leases = primary();
    leases.grant(id(1), 10, 0);
    expect(leases.renew(id(1), 10_000)).toEqual({ outcome: "expired" });
    expect(leases.expired(10_000, 10, 7000)).toEqual([1n]);
    expect(leases.renew(id(1), 10_001)).toEqual({ outcome: "expired" });
    // A caller which took its time earlier does not bring it back to life either.
    expect(leases.renew(id(1), 9_000)).toEqual({ outcome: "expired" });
    expect(leases.remainingTtl(id(1), 9_000)).toBe(0);
    leases.revoke(id(1));
    expect(leases.renew(id(1), 10_002)).toEqual({ outcome: "unknown" });
  });

  it("BL4: a member that is not primary counts nothing and says so", () => {
    const leases = lessor();
    leases.grant(id(1), 2, 0);
    expect(leases.expired(1e9, 10, 7000)).toEqual([]);
    expect(leases.renew(id(1), 0)).toEqual({ outcome: "not-primary" });
    expect(leases.renew(id(2), 0)).toEqual({ outcome: "not-primary" });
    expect(leases.remainingTtl(id(1), 0)).toBeUndefined();
    expect(leases.nextDeadlineMs()).toBeUndefined();
    expect(leases.checkpointsDue(1e9, 1000, 10)).toEqual([]);
    leases.promote(1e9, 1000);
    expect(leases.remainingTtl(id(1), 1e9)).toBe(2);
    leases.demote();
    expect(leases.remainingTtl(id(1), 1e9)).toBeUndefined();
    expect(leases.expired(2e9, 10, 7000)).toEqual([]);
  });

  it("lists soonest expiry first on the primary, ascending elsewhere", () => {
    const leases = primary();
    leases.grant(id(3), 30, 0);
    leases.grant(id(1), 40, 0);
    leases.grant(id(2), 20, 0);
    expect(leases.ids()).toEqual([2n, 3n, 1n]);
    leases.renew(id(2), 15_000);
    leases.renew(id(3), 15_000);
    expect(leases.ids()).toEqual([2n, 1n, 3n]);
    leases.demote();
    expect(leases.ids()).toEqual([1n, 2n, 3n]);
  });
});

describe("leader change", () => {
  it("L2: every lease restarts at its full TTL plus the extension, whatever an earlier term counted", () => {
    const leases = primary();
    leases.grant(id(1), 30, 0);
    leases.demote();
    leases.promote(25_000, 1000);
    expect(leases.remainingTtl(id(1), 25_000)).toBe(30); // not 31: never above the granted TTL
    expect(leases.remainingMs(id(1), 25_000)).toBe(31_000);
    expect(leases.expired(55_999, 10, 7000)).toEqual([]);
    expect(leases.expired(56_000, 10, 7000)).toEqual([1n]);
  });

  it("a renewal after the change gives up the extension", () => {
    const leases = lessor();
    leases.grant(id(1), 30, 0);
    leases.promote(0, 5000);
    leases.renew(id(1), 1000);
    expect(leases.nextDeadlineMs()).toBe(31_000);
    expect(leases.expired(31_000, 10, 7000)).toEqual([1n]);
  });

  it("L7: no TTL above the granted one while leaders change", () => {
    const leases = lessor();
    for (let n = 1; n <= 2000; n += 1) leases.grant(id(n), 60, 0);
    leases.promote(0, 10_000);
    for (let n = 1; n <= 2000; n += 1) expect(leases.remainingTtl(id(n), 0)).toBe(60);
  });

  it.each([
    [999, false],
    [1000, true],
    [5000, true],
  ])("of %i leases that end together, at most 750 end in any second: %s", (count, spread) => {
    const leases = lessor();
    for (let n = 1; n <= count; n += 1) leases.grant(id(n), n % 10 === 0 ? 61 : 60, 0);
    leases.promote(1000, 500);
    const ends: number[] = [];
    for (let now = 60_000; leases.size > 0; now += 1) {
      for (const one of leases.expired(now, 10_000, 7000)) {
        ends.push(now);
        expect(now).toBeGreaterThanOrEqual(1000 + 500 + (leases.grantedTtl(one) as number) * 1000);
        leases.revoke(one);
      }
    }
    const crowded = ends.some((end, n) => n >= 750 && end - (ends[n - 750] as number) < 1000);
    expect(crowded).toBe(!spread);
    // No later than necessary: the last one ends when the last full second is over.
    expect(ends.at(-1)).toBeLessThanOrEqual(1500 + 61_000 + (spread ? Math.floor((count - 1) / 750) * 1000 : 0));
  });
});

describe("checkpoints", () => {
  const MINUTE = 60_000;
  const INTERVAL = 5 * MINUTE;

  it("offers what is left, rounded up, every interval, for leases with more than an interval left", () => {
    const leases = primary();
    leases.grant(id(1), 1000, 0);
    leases.grant(id(2), 300, 0);
    expect(leases.checkpointsDue(500.5, INTERVAL, 10)).toEqual([]);
    expect(leases.nextDeadlineMs()).toBe(300_000);
    expect(leases.checkpointsDue(300_500, INTERVAL, 10)).toEqual([]);
    expect(leases.checkpointsDue(300_501, INTERVAL, 10)).toEqual([{ id: 1n, remainingTtlSeconds: 700 }]);
    expect(leases.checkpointsDue(300_501, INTERVAL, 10)).toEqual([]);
    expect(leases.checkpointsDue(600_501, INTERVAL, 10)).toEqual([{ id: 1n, remainingTtlSeconds: 400 }]);
    // 99.5 s are left: not worth one any more.
    expect(leases.checkpointsDue(900_501, INTERVAL, 10)).toEqual([]);
    expect(leases.checkpointsDue(1_200_000, INTERVAL, 10)).toEqual([]);
  });

  it("a renewal starts the interval again, a revoke ends it, the limit postpones", () => {
    const leases = primary();
    for (let n = 1; n <= 5; n += 1) leases.grant(id(n), 1000, 0);
    leases.checkpointsDue(0, INTERVAL, 10);
    leases.renew(id(1), MINUTE);
    leases.revoke(id(2));
    leases.grant(id(6), 1000, 2 * MINUTE);
    expect(leases.checkpointsDue(INTERVAL, INTERVAL, 2).map((item) => item.id)).toEqual([3n, 4n]);
    expect(leases.checkpointsDue(INTERVAL, INTERVAL, 2).map((item) => item.id)).toEqual([5n]);
    expect(leases.checkpointsDue(INTERVAL + MINUTE, INTERVAL, 10)).toEqual([{ id: 1n, remainingTtlSeconds: 700 }]);
    expect(leases.checkpointsDue(INTERVAL + 2 * MINUTE, INTERVAL, 10)).toEqual([{ id: 6n, remainingTtlSeconds: 700 }]);
  });

  it("BL3: over three leader changes the remaining time goes down", () => {
    const a = primary();
    const b = lessor();
    a.grant(id(1), 1000, 0);
    b.grant(id(1), 1000, 0);
    let [leader, other] = [a, b];
    let now = 0;
    const remaining: (number | undefined)[] = [];
    for (let change = 0; change < 3; change += 1) {
      leader.checkpointsDue(now, MINUTE, 10);
      now += MINUTE;
      const items = leader.checkpointsDue(now, MINUTE, 10);
      expect(items.length).toBe(1);
      for (const item of items) {
        a.checkpoint(item);
        b.checkpoint(item);
      }
      expect(a.row(id(1))).toEqual(b.row(id(1)));
      leader.demote();
      [leader, other] = [other, leader];
      leader.promote(now, 1000);
      remaining.push(leader.remainingTtl(id(1), now));
    }
    // Each change adds the extension of one second at most.
    expect(remaining).toEqual([941, 882, 823]);
    expect(other.primary).toBe(false);
  });

  it("L2: a renewal asks for a clearing checkpoint, also while one is still on its way through the log", () => {
    const leases = primary();
    leases.grant(id(1), 1000, 0);
    leases.checkpointsDue(0, MINUTE, 10);
    const [item] = leases.checkpointsDue(MINUTE, MINUTE, 10);
    if (item === undefined) throw new Error("a checkpoint is due");
    expect(leases.renew(id(1), MINUTE)).toEqual({ outcome: "renewed", ttlSeconds: 1000, checkpointed: true });
    leases.checkpoint(item);
    expect(leases.renew(id(1), MINUTE)).toEqual({ outcome: "renewed", ttlSeconds: 1000, checkpointed: true });
    leases.checkpoint({ id: id(1), remainingTtlSeconds: 0 });
    expect(leases.renew(id(1), MINUTE)).toEqual({ outcome: "renewed", ttlSeconds: 1000, checkpointed: false });
    leases.demote();
    leases.promote(MINUTE, 0);
    expect(leases.remainingTtl(id(1), MINUTE)).toBe(1000);
  });

  it("an unknown id is ignored, a value outside the TTL is cut", () => {
    const leases = lessor();
    leases.checkpoint({ id: id(9), remainingTtlSeconds: 5 });
    leases.grant(id(1), 10, 0);
    leases.checkpoint({ id: id(1), remainingTtlSeconds: 50 });
    expect(leases.row(id(1))?.remainingTtlSeconds).toBe(10);
    leases.checkpoint({ id: id(1), remainingTtlSeconds: -50 });
    expect(leases.row(id(1))?.remainingTtlSeconds).toBe(0);
  });
});

describe("restore", () => {
  it("L8, BL7: takes over exactly what was stored, also into a lessor that was in use", () => {
    const from = primary();
    from.grant(id(1), 10, 0);
    from.grant(id(-2), 1000, 0);
    from.checkpoint({ id: id(-2), remainingTtlSeconds: 400 });
    from.attach(key("a"), id(1));
    from.attach(key("b"), id(-2));
    const to = primary();
    to.grant(id(1), 99, 0);
    to.grant(id(7), 99, 0);
    to.attach(key("z"), id(7));
    to.restore(from.rows(), [
      [key("a"), id(1)],
      [key("b"), id(-2)],
    ]);
    expect(to.primary).toBe(false);
    expect(to.ids()).toEqual([-2n, 1n]);
    expect(to.grantedTtl(id(1))).toBe(10);
    expect(to.leaseOf(key("z"))).toBe(NO_LEASE);
    expect(to.keysOf(id(-2))).toEqual(["b"]);
    to.promote(0, 0);
    expect(to.remainingTtl(id(-2), 0)).toBe(400);
    expect(to.remainingTtl(id(1), 0)).toBe(10);
  });

  it("I19: refuses attachments to leases that are not there, and a lease stored twice", () => {
    expect(() => lessor().restore([], [[key("a"), id(1)]])).toThrow("keys are attached to leases that exist");
    const row = { id: id(1), ttlSeconds: 5, remainingTtlSeconds: 0 };
    expect(() => lessor().restore([row, row], [])).toThrow("an id of its own");
  });
});

describe("mutants are visible", () => {
  it("names them", () => {
    expect(LEASE_MUTANTS.length).toBe(4);
  });

  it("expire-leases-on-follower", () => {
    const leases = lessor(["expire-leases-on-follower"]);
    leases.grant(id(1), 2, 0);
    expect(leases.expired(2000, 10, 7000)).toEqual([1n]);
  });

  it("keep-old-leaders-expiry (BL1)", () => {
    const leases = lessor(["keep-old-leaders-expiry"]);
    leases.promote(0, 0);
    leases.grant(id(1), 10, 0);
    leases.demote();
    leases.promote(9000, 1000);
    expect(leases.expired(10_000, 10, 7000)).toEqual([1n]);
  });

  it("renew-without-recheck", () => {
    const leases = lessor(["renew-without-recheck"]);
    leases.promote(0, 0);
    leases.grant(id(1), 2, 0);
    expect(leases.expired(2000, 10, 7000)).toEqual([1n]);
    expect(leases.renew(id(1), 2001).outcome).toBe("renewed");
  });

  it("checkpoint-race-unseen", () => {
    const leases = lessor(["checkpoint-race-unseen"]);
    leases.promote(0, 0);
    leases.grant(id(1), 1000, 0);
    leases.checkpointsDue(0, 60_000, 10);
    expect(leases.checkpointsDue(60_000, 60_000, 10).length).toBe(1);
    expect(leases.renew(id(1), 60_000)).toEqual({ outcome: "renewed", ttlSeconds: 1000, checkpointed: false });
  });
});
