/** E5: leases neither end too early nor live for ever, and end whole. */
import type { Replay, Step, Verdicts } from "./checks.ts";
import type { History, OpFor } from "./history.ts";
import type { Plan } from "./plan.ts";

/** A renewal without an answer may have been carried out so much later. */
const UNKNOWN_RENEWAL_MS = 20_000;
/** Scans, the way through the log, and a slow disk. */
const EXPIRY_SLACK_MS = 5000;

interface LeaseLife {
  readonly id: bigint;
  readonly ttlMs: number;
  readonly granted: Step;
  ended: Step | undefined;
}

/** Returns how many leases were checked. */
export function checkLeases(judge: Verdicts, history: History & { readonly plan: Plan }, replay: Replay): number {
  const { plan } = history;
  const lives = livesOf(replay, plan);
  const renewals = new Map<bigint, OpFor<"keepalive">[]>();
  for (const op of history.ops) {
    if (op.kind === "keepalive" && op.outcome === "ok" && (op.response?.ttl ?? 0) > 0) {
      const list = renewals.get(op.request.id) ?? [];
      list.push(op);
      renewals.set(op.request.id, list);
    }
    if (
      op.kind === "ttl" &&
      op.outcome === "ok" &&
      op.response !== undefined &&
      op.response.ttl > 0 &&
      op.response.ttl > op.response.grantedTtl
    ) {
      judge.fail("L7", `lease ${op.request.id} has ${op.response.ttl} s left of ${op.response.grantedTtl} s`);
    }
  }
  const { fastest, skewed } = clockBounds(plan);
  for (const life of lives) {
    const { ended } = life;
    if (ended === undefined) {
      checkNotForever(judge, history, life);
      continue;
    }
    const endedAt = ended.entry.at;
    const expired = ended.request.leaderTerm !== 0;
    const renewed = renewals.get(life.id) ?? [];
    if (expired) {
      let last = life.granted.op?.call ?? life.granted.entry.at;
      for (const op of renewed) if (op.ret < endedAt) last = Math.max(last, op.call);
      // A clock that runs fast may end it earlier; one that was stopped never does.
      const earliest = last + life.ttlMs / fastest - 1;
      if (endedAt < earliest) {
        judge.fail("L2", `lease ${life.id} (${life.ttlMs} ms) ended at ${endedAt}, though it was renewed by a call at ${last}`);
      }
    }
    if (skewed) continue;
    for (const op of renewed) {
      // Whoever was told that it is gone, or saw it gone, must not see it renewed by a later call.
      if (op.call > endedAt + 1 && observedBy(history, life.id, endedAt, op.call)) {
        judge.fail("L6", `lease ${life.id} ended at ${endedAt}; a renewal called at ${op.call} says that it lives`);
      }
    }
  }
  return lives.length;
}

/** At the end of the run one leader has led for long, without faults: what nobody renewed has ended (L3). */
function checkNotForever(judge: Verdicts, history: History & { readonly plan: Plan }, life: LeaseLife): void {
  let last = Math.max(life.granted.entry.at, history.steadyFrom);
  for (const op of history.ops) {
    if (op.kind !== "keepalive" || op.request.id !== life.id) continue;
    last = Math.max(last, op.ret === Number.POSITIVE_INFINITY ? op.call + UNKNOWN_RENEWAL_MS : op.ret);
  }
  const latest = last + 1.12 * life.ttlMs + 4 * history.plan.settings.electionMs + EXPIRY_SLACK_MS;
  if (latest < history.now)
    judge.fail("L3", `lease ${life.id} (${life.ttlMs} ms) still lives at ${history.now}, though it should have ended by ${latest}`);
}

/** Somebody was told, before `time`, that the lease has ended. */
function observedBy(history: History, id: bigint, endedAt: number, time: number): boolean {
  return history.ops.some((op) => {
    if (op.ret >= time || op.ret < endedAt || op.outcome !== "ok") return false;
    if (op.kind === "revoke") return op.request.id === id;
    if (op.kind === "ttl") return op.request.id === id && (op.response?.ttl ?? 0) === -1;
    return op.kind === "keepalive" && op.request.id === id && op.response?.ttl === 0;
  });
}

function livesOf(replay: Replay, plan: Plan): LeaseLife[] {
  const minimum = Math.ceil((1.5 * plan.settings.electionMs) / 1000);
  const lives: LeaseLife[] = [];
  const open = new Map<bigint, LeaseLife>();
  for (const step of replay.steps) {
    const { request } = step;
    if (step.error !== undefined) continue;
    if (request.kind === "lease-grant") {
      const life: LeaseLife = {
        id: request.body.id,
        ttlMs: Math.max(request.body.ttl, minimum) * 1000,
        granted: step,
        ended: undefined,
      };
      lives.push(life);
      open.set(life.id, life);
    } else if (request.kind === "lease-revoke") {
      const life = open.get(request.body.id);
      if (life !== undefined) life.ended = step;
      open.delete(request.body.id);
    }
  }
  return lives;
}

/** How fast the fastest clock runs, and whether two of them drift apart by more than a lease bears. */
function clockBounds(plan: Plan): { fastest: number; skewed: boolean } {
  const rates = [...plan.clockPercent, ...plan.faults.flatMap((fault) => (fault.kind === "clock-rate" ? [fault.ratePercent] : []))];
  const fastest = Math.max(100, ...rates) / 100;
  const slowest = Math.min(100, ...rates) / 100;
  return { fastest, skewed: fastest / slowest > 1.12 };
}
