/** The lessor against a twin that is too simple to be wrong: it keeps every lease in a map and looks at all of them each time. */
import { beforeAll, describe, expect, it } from "vitest";
import { setVerify } from "../base/assert.ts";
import type { KeyString } from "../base/bytes.ts";
import { type LeaseId, NO_LEASE } from "../base/ids.ts";
import { type Random, seededRandom } from "../base/random.ts";
import { decodeLeaseRow, encodeLeaseRow, leaseRowKey } from "./lease-row.ts";
import { LEASE_MUTANTS, Lessor } from "./lessor.ts";

const MIN_TTL = 2;
const RETRY_MS = 7000;
const INTERVAL_MS = 20_000;

interface TwinLease {
  ttl: number;
  remaining: number;
  /** Checkpoints which the leader gave out and which are not applied yet, and the newest was not yet followed by a clearing one. */
  clearNeeded: boolean;
  expiryMs: number;
  offerMs: number;
}

/** The whole of what a cluster's leases look like to one observer. */
class Twin {
  readonly leases = new Map<LeaseId, TwinLease>();
  readonly keys = new Map<KeyString, LeaseId>();
  primary = false;

  keysOf(id: LeaseId): KeyString[] {
    return [...this.keys]
      .filter(([, lease]) => lease === id)
      .map(([key]) => key)
      .sort();
  }

  promote(nowMs: number, extendMs: number): void {
    this.primary = true;
    for (const lease of this.leases.values()) {
      lease.expiryMs = nowMs + (lease.remaining || lease.ttl) * 1000 + extendMs;
      lease.offerMs = lease.expiryMs;
      lease.clearNeeded = lease.remaining > 0;
    }
  }
}

class Difference extends Error {}

function same(actual: unknown, expected: unknown, what: string): void {
  const text = (value: unknown): string =>
    JSON.stringify(value, (_, part) => (typeof part === "bigint" ? `${part}n` : part)) ?? "undefined";
  if (text(actual) !== text(expected)) throw new Difference(`${what}: got ${text(actual)}, expected ${text(expected)}`);
}

function run(seed: number, operations: number, mutants: string[] = []): number {
  const random: Random = seededRandom(seed);
  let lessor = new Lessor({ minTtlSeconds: MIN_TTL, mutants: new Set(mutants) });
  const twin = new Twin();
  let nowMs = 1000;
  let done = 0;
  /** Checkpoints on their way through the log. */
  let inFlight: { id: LeaseId; remainingTtlSeconds: number }[] = [];
  const someId = (): LeaseId => BigInt(random.below(120) - 20) as LeaseId;
  const someKey = (): KeyString => `key${random.below(200)}` as KeyString;
  const applyRevoke = (id: LeaseId): void => {
    same(lessor.keysOf(id), twin.keysOf(id), "keys");
    lessor.revoke(id);
    for (const key of twin.keysOf(id)) twin.keys.delete(key);
    twin.leases.delete(id);
  };

  for (; done < operations; done += 1) {
    if (random.chance({ of: 1, outOf: 3 })) nowMs += random.below(700) + (random.chance({ of: 1, outOf: 50 }) ? 15_000 : 0);
    const dice = random.below(100);
    if (dice < 14) {
      const id = someId();
      if (id === NO_LEASE || twin.leases.has(id)) continue;
      const ttl = random.below(8) === 0 ? random.below(400) : random.below(20);
      const granted = Math.max(ttl, MIN_TTL);
      same(lessor.grant(id, ttl, nowMs), granted, "granted TTL");
      const expiryMs = nowMs + granted * 1000;
      twin.leases.set(id, { ttl: granted, remaining: 0, clearNeeded: false, expiryMs, offerMs: expiryMs });
    } else if (dice < 24) {
      const key = someKey();
      const id = random.chance({ of: 1, outOf: 5 }) ? NO_LEASE : someId();
      if (id !== NO_LEASE && !twin.leases.has(id)) continue;
      lessor.attach(key, id);
      if (id === NO_LEASE) twin.keys.delete(key);
      else twin.keys.set(key, id);
      same(lessor.leaseOf(key), id, "lease of a key");
    } else if (dice < 27) {
      const id = someId();
      same(lessor.exists(id), twin.leases.has(id), "exists");
      if (twin.leases.has(id)) applyRevoke(id);
    } else if (dice < 60) {
      const id = someId();
      const lease = twin.leases.get(id);
      const result = lessor.renew(id, nowMs);
      if (!twin.primary) same(result.outcome, "not-primary", "renewal");
      else if (lease === undefined) same(result.outcome, "unknown", "renewal");
      else if (lease.expiryMs <= nowMs) same(result.outcome, "expired", "renewal");
      else {
        same(result, { outcome: "renewed", ttlSeconds: lease.ttl, checkpointed: lease.remaining > 0 || lease.clearNeeded }, "renewal");
        lease.expiryMs = nowMs + lease.ttl * 1000;
        lease.offerMs = lease.expiryMs;
        if (lease.remaining > 0 || lease.clearNeeded) inFlight.push({ id, remainingTtlSeconds: 0 });
      }
    } else if (dice < 70) {
      const id = someId();
      const lease = twin.leases.get(id);
      const expected =
        twin.primary && lease !== undefined ? Math.min(lease.ttl, Math.max(0, Math.floor((lease.expiryMs - nowMs) / 1000))) : undefined;
      same(lessor.remainingTtl(id, nowMs), expected, "remaining TTL");
      same(lessor.grantedTtl(id), lease?.ttl, "granted TTL");
    } else if (dice < 86) {
      const limit = random.below(6);
      const offered = lessor.expired(nowMs, limit, RETRY_MS);
      const due = twin.primary
        ? [...twin.leases.values()]
            .map((lease) => lease.offerMs)
            .filter((at) => at <= nowMs)
            .sort((a, b) => a - b)
        : [];
      // Leases due at the same time come in any order, so compare their times.
      same(
        offered.map((id) => twin.leases.get(id)?.offerMs),
        due.slice(0, limit),
        "offered",
      );
      same(new Set(offered).size, offered.length, "offered once");
      const next = lessor.nextDeadlineMs();
      if (next === undefined) same(twin.primary && twin.leases.size > 0, false, "no deadline");
      for (const id of offered) {
        (twin.leases.get(id) as TwinLease).offerMs = nowMs + RETRY_MS;
        if (random.chance({ of: 3, outOf: 4 })) applyRevoke(id);
      }
    } else if (dice < 90) {
      for (const item of lessor.checkpointsDue(nowMs, INTERVAL_MS, 1 + random.below(5))) {
        const lease = twin.leases.get(item.id) as TwinLease;
        same(twin.primary, true, "checkpoints come from the primary");
        same(item.remainingTtlSeconds, Math.ceil((lease.expiryMs - nowMs) / 1000), "checkpointed time");
        same(lease.expiryMs - nowMs > INTERVAL_MS, true, "worth a checkpoint");
        lease.clearNeeded = true;
        if (random.chance({ of: 4, outOf: 5 })) inFlight.push(item);
      }
    } else if (dice < 94) {
      // The log applies what was proposed, in order.
      const count = random.below(3) + 1;
      for (const item of inFlight.slice(0, count)) {
        lessor.checkpoint(item);
        const lease = twin.leases.get(item.id);
        if (lease === undefined) continue;
        lease.remaining = Math.min(item.remainingTtlSeconds, lease.ttl);
        if (item.remainingTtlSeconds === 0) lease.clearNeeded = false;
      }
      inFlight = inFlight.slice(count);
    } else if (dice < 96) {
      const order = twin.primary
        ? [...twin.leases].sort(([a, x], [b, y]) => x.expiryMs - y.expiryMs || (a < b ? -1 : 1))
        : [...twin.leases].sort(([a], [b]) => (a < b ? -1 : 1));
      same(
        lessor.ids(),
        order.map(([id]) => id),
        "ids",
      );
      same(lessor.size, twin.leases.size, "size");
      const next = lessor.nextDeadlineMs();
      if (next !== undefined)
        for (const lease of twin.leases.values()) same(lease.offerMs >= Math.min(next, lease.offerMs), true, "next deadline");
      const earliest = Math.min(...[...twin.leases.values()].map((lease) => lease.offerMs));
      if (twin.primary && next !== undefined) same(next <= earliest, true, "no deadline is overlooked");
    } else if (dice < 97) {
      lessor.demote();
      twin.primary = false;
      inFlight = [];
    } else if (dice < 99) {
      const extendMs = random.below(3) * 1000;
      lessor.promote(nowMs, extendMs);
      twin.promote(nowMs, extendMs);
      inFlight = [];
    } else {
      // Restart, or a snapshot: through the stored rows.
      const rows = [...lessor.rows()].map((row) => decodeLeaseRow(leaseRowKey(row.id), encodeLeaseRow(row)));
      const attachments = [...twin.keys];
      if (random.chance({ of: 1, outOf: 2 })) lessor = new Lessor({ minTtlSeconds: MIN_TTL, mutants: new Set(mutants) });
      lessor.restore(rows, attachments);
      twin.primary = false;
      inFlight = [];
    }
    same(lessor.primary, twin.primary, "primary");
  }
  for (const id of twin.leases.keys()) {
    same(lessor.keysOf(id), twin.keysOf(id), "keys at the end");
    same(lessor.row(id)?.remainingTtlSeconds, twin.leases.get(id)?.remaining, "checkpoint at the end");
  }
  return done;
}

beforeAll(() => setVerify(true));

describe("the lessor and its twin", () => {
  it("BL6: agree on 200,000 random operations", () => {
    let done = 0;
    for (let seed = 1; seed <= 20; seed += 1) done += run(seed, 10_000);
    expect(done).toBe(200_000);
  });

  it.each(LEASE_MUTANTS)("the twin notices %s", (mutant) => {
    expect(() => {
      for (let seed = 1; seed <= 20; seed += 1) run(seed, 10_000, [mutant]);
    }).toThrow(Difference);
  });
});
