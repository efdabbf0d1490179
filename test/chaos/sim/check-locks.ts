/** E6: locks and elections inside the store. */
import type { Replay, Verdicts } from "./checks.ts";
import type { History } from "./history.ts";
import { GUARDED_KEY, LOCK_NAME, ownershipPrefix } from "./lock-client.ts";
import { latin1 } from "./model.ts";

interface Ownership {
  readonly from: number;
  readonly key: string;
}

/** Returns how many acquisitions and writes were checked. */
export function checkLocks(judge: Verdicts, history: History, replay: Replay): number {
  let checked = 0;
  // Locks only: a campaign that outlived its lease returns without looking again, as in etcd.
  const owners = ownersOf(replay, ownershipPrefix(LOCK_NAME));
  for (const op of history.ops) {
    if (op.outcome !== "ok" || op.kind !== "lock" || op.response === undefined) continue;
    checked += 1;
    const key = latin1(op.response.key);
    if (!ownedWithin(owners, replay, key, op.call, op.ret)) {
      judge.fail("X1", `client ${op.client} was told that ${key} is the owner, which it was not at any time from ${op.call} to ${op.ret}`);
    }
  }
  // Fenced writes: the create revision of the holder's key never goes back.
  let newest = 0;
  for (const change of replay.model.changes) {
    if (change.key !== GUARDED_KEY || change.version === 0) continue;
    checked += 1;
    const token = Number(change.value.split(";")[1]);
    if (token < newest) judge.fail("X2", `a write with token ${token} at revision ${change.main} came after one with ${newest}`);
    newest = Math.max(newest, token);
  }
  const told = new Map<number, number>();
  for (const one of history.observed) {
    checked += 1;
    const last = told.get(one.client) ?? 0;
    if (one.createRevision < last) {
      judge.fail(
        "X3",
        `client ${one.client} saw leader ${one.name} (created at ${one.createRevision}) at ${one.at}, after one created at ${last}`,
      );
    }
    told.set(one.client, one.createRevision);
  }
  return checked;
}

/** The owner from each revision at which it changed; "" for nobody. */
function ownersOf(replay: Replay, prefix: string): Ownership[] {
  const owners: Ownership[] = [{ from: 0, key: "" }];
  const present = new Map<string, number>();
  const { changes } = replay.model;
  for (let i = 0; i < changes.length; i++) {
    const change = changes[i];
    if (change === undefined || !change.key.startsWith(prefix)) continue;
    if (change.version === 0) present.delete(change.key);
    else present.set(change.key, change.create);
    // Only whole revisions are seen.
    if (changes[i + 1]?.main === change.main) continue;
    let key = "";
    let oldest = Number.POSITIVE_INFINITY;
    for (const [candidate, create] of present) {
      if (create >= oldest) continue;
      oldest = create;
      key = candidate;
    }
    if (owners[owners.length - 1]?.key !== key) owners.push({ from: change.main, key });
  }
  return owners;
}

function ownedWithin(owners: readonly Ownership[], replay: Replay, key: string, call: number, ret: number): boolean {
  return owners.some((one, i) => {
    if (one.key !== key) return false;
    const beganAt = replay.revisionAt.get(one.from) ?? 0;
    const next = owners[i + 1];
    const endedAt = next === undefined ? Number.POSITIVE_INFINITY : (replay.revisionAt.get(next.from) ?? Number.POSITIVE_INFINITY);
    return beganAt <= ret && endedAt > call;
  });
}
