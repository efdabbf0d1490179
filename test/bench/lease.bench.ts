/**
 * What leases cost: bytes each on a follower and on the leader, and the time of a leader change, renewals, expiry and listing.
 * Run: node --expose-gc --import tsx test/bench/lease.bench.ts [leases]
 */
import type { KeyString } from "../../src/base/bytes.ts";
import type { LeaseId } from "../../src/base/ids.ts";
import { Lessor } from "../../src/lease/lessor.ts";

function heapBytes(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers;
}

function timed(work: () => void): number {
  const start = performance.now();
  work();
  return performance.now() - start;
}

const count = Number(process.argv[2] ?? 100_000);
const ids = Array.from({ length: count }, (_, n) => (BigInt(n) * 7919n + 12345678901234n) as LeaseId);
const before = heapBytes();
const lessor = new Lessor({ minTtlSeconds: 2 });
ids.forEach((id, n) => {
  lessor.grant(id, 10 + (n % 60), 0);
});
const follower = heapBytes();
ids.forEach((id, n) => {
  lessor.attach(`/registry/leases/key${n}` as KeyString, id);
});
const attached = heapBytes();
const promoteMs = timed(() => lessor.promote(0, 1000));
const leader = heapBytes();
const renewMs = timed(() => {
  for (const id of ids) lessor.renew(id, 1000);
});
const listMs = timed(() => lessor.ids());
const expireMs = timed(() => lessor.expired(1e9, count, 7000));
console.log(
  JSON.stringify({
    leases: count,
    bytesPerLeaseFollower: Math.round((follower - before) / count),
    bytesPerLeaseWithOneKey: Math.round((attached - before) / count),
    bytesPerLeaseLeader: Math.round((leader - before) / count),
    promoteMs: Math.round(promoteMs),
    renewNs: Math.round((renewMs / count) * 1e6),
    listMs: Math.round(listMs),
    expireNs: Math.round((expireMs / count) * 1e6),
  }),
);
