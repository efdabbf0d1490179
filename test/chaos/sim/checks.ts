/**
 * Judges a finished run by what its clients saw (failure catalogue, section e): E1 the KV history with revisions as witness, E4 watches, E5 leases, E6 locks and
 * elections. The committed log says in which order things happened; everything that anybody was told must fit to it.
 */
import type * as api from "../../../src/api/index.ts";
import { decodeRaftRequest, type RaftRequest } from "../../../src/server/raft-request.ts";
import { checkConcatenation, checkWatchStream, WatchModel } from "../../support/watch-checker.ts";
import { checkLeases } from "./check-leases.ts";
import { checkLocks } from "./check-locks.ts";
import type { History, LogEntry, Op } from "./history.ts";
import {
  type Answer,
  bytesOf,
  deleteDifference,
  KvModel,
  latin1,
  putDifference,
  rangeDifference,
  txnDifference,
  type Version,
} from "./model.ts";
import type { Plan } from "./plan.ts";
import { Violation } from "./violation.ts";
import type { WatchRecords } from "./watch-client.ts";

export interface CheckCounts {
  readonly reads: number;
  readonly writes: number;
  readonly events: number;
  readonly leases: number;
  readonly locks: number;
  readonly durability: number;
  readonly hashes: number;
}

/** The log, decoded and executed by the model. */
export interface Replay {
  readonly model: KvModel;
  readonly steps: readonly Step[];
  /** When a revision was first applied by anybody. */
  readonly revisionAt: ReadonlyMap<number, number>;
}

export interface Step {
  readonly entry: LogEntry;
  readonly request: RaftRequest;
  /** What the model says to it. */
  readonly answer: Answer | undefined;
  readonly error: string | undefined;
  /** The model's revision before and after. */
  readonly before: number;
  readonly after: number;
  /** The client's operation, when it is one. */
  op: Op | undefined;
}

/** Throws the first violation. */
class Judge {
  fail(check: string, detail: string): never {
    throw new Violation(check, detail);
  }
}

export interface Verdict {
  readonly violation: Violation | undefined;
  readonly counts: CheckCounts;
}

/** `complete`: the run came to its end, so that everything must have arrived everywhere. */
export function checkHistory(history: History & { readonly plan: Plan }, records: WatchRecords, complete: boolean): Verdict {
  const counts = { reads: 0, writes: 0, events: 0, leases: 0, locks: 0, durability: 0, hashes: 0 };
  const judge = new Judge();
  try {
    const replay = replayLog(judge, history.log);
    counts.writes = attribute(judge, history.ops, replay);
    checkRealTime(judge, history.ops, replay);
    counts.reads = checkReads(judge, history.ops, replay);
    checkSessions(judge, history.ops);
    counts.events = checkWatches(judge, history.ops, replay, records, complete);
    counts.leases = checkLeases(judge, history, replay);
    counts.locks = checkLocks(judge, history, replay);
    return { violation: undefined, counts };
  } catch (error) {
    if (error instanceof Violation) return { violation: error, counts };
    throw error;
  }
}

export interface Verdicts {
  fail(check: string, detail: string): never;
}

export function replayLog(judge: Verdicts, log: readonly LogEntry[]): Replay {
  const model = new KvModel();
  const steps: Step[] = [];
  const revisionAt = new Map<number, number>([[1, 0]]);
  for (const entry of log) {
    if (entry.type !== "normal" || entry.data.byteLength === 0) continue;
    const request = decodeRaftRequest(entry.data);
    const before = model.revision;
    const outcome = model.apply(request, entry.term);
    const after = model.revision;
    if (after !== before) revisionAt.set(after, entry.at);
    if (entry.revision !== after) {
      judge.fail("K1", `entry ${entry.index} (${request.kind}) led to revision ${entry.revision}, the model says ${after}`);
    }
    if (entry.leases !== model.leases.size) {
      judge.fail("K11", `entry ${entry.index} (${request.kind}) led to ${entry.leases} leases, the model says ${model.leases.size}`);
    }
    if ("answer" in outcome) steps.push({ entry, request, answer: outcome.answer, error: undefined, before, after, op: undefined });
    else steps.push({ entry, request, answer: undefined, error: outcome.error, before, after, op: undefined });
  }
  return { model, steps, revisionAt };
}

// -- E1: what was written -----------------------------------------------------------------------------------------------------------------------

const MARK = /^\d+\.\d+;/;

function markOf(text: string): string {
  return MARK.exec(text)?.[0] ?? "";
}

/** The client's mark inside a request; empty when there is none. */
function nonceOf(request: RaftRequest): string {
  switch (request.kind) {
    case "put":
      return markOf(latin1(request.body.value));
    case "delete-range":
      return markOfDelete(request.body);
    case "txn":
      return markOfTxn(request.body);
    default:
      return "";
  }
}

function markOfDelete(request: api.DeleteRangeRequest): string {
  const end = latin1(request.rangeEnd);
  const at = end.indexOf("\0");
  return at < 0 ? "" : markOf(end.slice(at + 1));
}

function markOfTxn(request: api.TxnRequest): string {
  for (const op of [...request.success, ...request.failure]) {
    const mark =
      op.requestPut !== undefined
        ? markOf(latin1(op.requestPut.value))
        : op.requestDeleteRange !== undefined
          ? markOfDelete(op.requestDeleteRange)
          : op.requestTxn !== undefined
            ? markOfTxn(op.requestTxn)
            : "";
    if (mark !== "") return mark;
  }
  return "";
}

function keyOfPlain(kind: Op["kind"], what: string): string {
  return `${kind} ${what}`;
}

/** What finds an operation in the log: its mark, or for those without one the thing that it is about. */
function identityOf(op: Op): string {
  if (op.nonce !== "") return op.nonce;
  switch (op.kind) {
    case "delete":
      return keyOfPlain("delete", latin1(op.request.key));
    case "compact":
      return keyOfPlain("compact", String(op.request.revision));
    case "grant":
      return keyOfPlain("grant", String(op.response?.id ?? op.request.id));
    case "revoke":
      return keyOfPlain("revoke", String(op.request.id));
    default:
      return "";
  }
}

function identityOfRequest(request: RaftRequest): string {
  const nonce = nonceOf(request);
  if (nonce !== "") return nonce;
  switch (request.kind) {
    case "delete-range":
      return keyOfPlain("delete", latin1(request.body.key));
    case "compaction":
      return keyOfPlain("compact", String(request.body.revision));
    case "lease-grant":
      return keyOfPlain("grant", String(request.body.id));
    case "lease-revoke":
      return keyOfPlain("revoke", String(request.body.id));
    default:
      return "";
  }
}

/** Every applied request is somebody's, every answer fits to the place of its request in the log (K1, K2, K4, K5, K7, K12). Returns how many were checked. */
export function attribute(judge: Verdicts, ops: readonly Op[], replay: Replay): number {
  const waiting = new Map<string, Op[]>();
  for (const op of ops) {
    const identity = identityOf(op);
    if (identity === "") continue;
    const list = waiting.get(identity);
    if (list === undefined) waiting.set(identity, [op]);
    else list.push(op);
  }
  const anonymousGrants = ops.filter((op) => op.kind === "grant" && op.request.id === 0n && op.outcome === "unknown");
  let checked = 0;
  for (const step of replay.steps) {
    const { request, entry } = step;
    if (isInternal(request)) continue;
    const identity = identityOfRequest(request);
    const candidates = waiting.get(identity) ?? [];
    const op = choose(candidates, step);
    if (op === undefined) {
      if (request.kind === "lease-grant" && anonymousGrants.some((grant) => grant.call < entry.at)) continue;
      if (isCoordination(request)) continue;
      // Marked requests are made once, so a second entry is a second execution.
      const twice = candidates.length > 0 ? " once more" : "";
      judge.fail("K12", `entry ${entry.index} executes ${request.kind} ${JSON.stringify(identity)}${twice}, which nobody asked for then`);
    }
    candidates.splice(candidates.indexOf(op), 1);
    step.op = op;
    checked += 1;
    if (op.call > entry.at) judge.fail("K3", `${op.kind} ${identity} was applied at ${entry.at} before it was called at ${op.call}`);
    checkAnswer(judge, op, step, identity);
  }
  for (const [identity, left] of waiting) {
    for (const op of left) {
      if (op.outcome !== "ok" || !goesThroughLog(op)) continue;
      judge.fail("K5", `${op.kind} ${identity} of client ${op.client} was answered at ${op.ret}, but is not in the log`);
    }
  }
  return checked;
}

function goesThroughLog(op: Op): boolean {
  return (
    op.kind === "put" || op.kind === "delete" || op.kind === "txn" || op.kind === "compact" || op.kind === "grant" || op.kind === "revoke"
  );
}

/** What the members themselves put into the log. */
function isInternal(request: RaftRequest): boolean {
  switch (request.kind) {
    case "lease-revoke":
      return request.leaderTerm !== 0;
    case "put":
    case "delete-range":
    case "txn":
    case "lease-grant":
      return false;
    case "compaction":
      // Automatic compaction looks like anybody's.
      return false;
    default:
      return true;
  }
}

/** Made by the lock and election services on behalf of a caller. */
function isCoordination(request: RaftRequest): boolean {
  if (request.kind === "delete-range") return isOwnership(latin1(request.body.key));
  if (request.kind === "compaction") return true;
  if (request.kind !== "txn") return false;
  return [...request.body.success, ...request.body.failure].every((op) => {
    const key = op.requestPut?.key ?? op.requestDeleteRange?.key ?? op.requestRange?.key;
    return key !== undefined && isOwnership(latin1(key));
  });
}

function isOwnership(key: string): boolean {
  return key.startsWith("lock/") || key.startsWith("election/");
}

/** Of several that look alike the one whose answer names this place, else one that may have been it. */
function choose(candidates: readonly Op[], step: Step): Op | undefined {
  let possible: Op | undefined;
  for (const op of candidates) {
    // Whoever was answered was answered after it was applied somewhere.
    if (op.call > step.entry.at || op.ret < step.entry.at) continue;
    if (op.outcome === "ok") {
      const header = (op.response as { header?: api.ResponseHeader } | undefined)?.header;
      if (header?.revision === step.after && step.error === undefined && op.ret >= step.entry.at) return op;
      if (op.nonce !== "") return op;
      continue;
    }
    if (op.outcome === "no" && (step.error === undefined || op.reason !== step.error) && op.nonce === "") continue;
    possible ??= op;
  }
  return possible;
}

function checkAnswer(judge: Verdicts, op: Op, step: Step, identity: string): void {
  const where = `${op.kind} ${identity} of client ${op.client}, entry ${step.entry.index}`;
  if (op.outcome === "no") {
    if (step.error === undefined && (step.after !== step.before || op.kind === "grant" || op.kind === "revoke" || op.kind === "compact")) {
      judge.fail("K12", `${where}: was refused (${op.reason}), but took effect`);
    }
    if (step.error !== undefined && step.error !== op.reason)
      judge.fail("K4", `${where}: was refused as ${op.reason}, the model says ${step.error}`);
    return;
  }
  if (op.outcome !== "ok") return;
  if (step.answer === undefined) {
    judge.fail("K4", `${where}: was accepted, the model says ${step.error}`);
  }
  const header = (op.response as { header?: api.ResponseHeader } | undefined)?.header;
  if (header?.revision !== step.after) judge.fail("K4", `${where}: header says revision ${header?.revision}, the model ${step.after}`);
  const difference = answerDifference(op, step.answer);
  if (difference !== undefined) judge.fail("K4", `${where}: ${difference}`);
}

function answerDifference(op: Op, answer: Answer): string | undefined {
  if (op.response === undefined) return undefined;
  switch (op.kind) {
    case "put":
      return answer.type === "put" ? putDifference(answer, op.response) : "not a put";
    case "delete":
      return answer.type === "delete" ? deleteDifference(answer, op.response) : "not a delete";
    case "txn":
      return answer.type === "txn" ? txnDifference(answer, op.response) : "not a transaction";
    case "grant":
      return answer.type === "granted" && answer.id === op.response.id ? undefined : `granted ${op.response.id}`;
    default:
      return undefined;
  }
}

// -- E1: order in real time (K3) ----------------------------------------------------------------------------------------------------------------

interface Placed {
  readonly revision: number;
  readonly rank: number;
  readonly call: number;
  readonly ret: number;
  readonly what: string;
}

export function checkRealTime(judge: Verdicts, ops: readonly Op[], replay: Replay): void {
  // The log is an order of everything that went through it.
  let latestCall = -1;
  let latestWhat = "";
  for (const { op, entry } of replay.steps) {
    if (op === undefined) continue;
    if (op.ret < latestCall)
      judge.fail(
        "K3",
        `${op.kind} at entry ${entry.index} returned at ${op.ret}, before ${latestWhat}, earlier in the log, was called at ${latestCall}`,
      );
    if (op.call > latestCall) {
      latestCall = op.call;
      latestWhat = `${op.kind} at entry ${entry.index}`;
    }
  }
  // And revisions order the reads, too.
  const placed: Placed[] = [];
  for (const { op, after, before, entry } of replay.steps) {
    if (op === undefined) continue;
    placed.push({
      revision: after,
      rank: after === before ? 1 : 0,
      call: op.call,
      ret: op.ret,
      what: `${op.kind} at entry ${entry.index}`,
    });
  }
  for (const op of ops) {
    const revision = linearizableRevision(op);
    if (revision !== undefined)
      placed.push({ revision, rank: 1, call: op.call, ret: op.ret, what: `${op.kind} of client ${op.client} at ${op.call}` });
  }
  placed.sort((a, b) => a.revision - b.revision || a.rank - b.rank || a.call - b.call);
  latestCall = -1;
  for (const one of placed) {
    if (one.ret < latestCall) {
      judge.fail(
        "K3",
        `${one.what} shows revision ${one.revision} and returned at ${one.ret}, before ${latestWhat} was called at ${latestCall}`,
      );
    }
    if (one.call > latestCall) {
      latestCall = one.call;
      latestWhat = `${one.what} (revision ${one.revision})`;
    }
  }
}

/** The revision that an answered linearizable read was made at. */
function linearizableRevision(op: Op): number | undefined {
  if (op.outcome !== "ok") return undefined;
  if (op.kind === "range" && !op.request.serializable) return op.response?.header?.revision;
  if (op.kind === "read-txn" && !isSerializableTxn(op.request)) return op.response?.header?.revision;
  return undefined;
}

function isSerializableTxn(request: api.TxnRequest): boolean {
  return [...request.success, ...request.failure].every((op) => op.requestRange?.serializable === true);
}

// -- E1: what was read (K4, K7, K8, K9) -----------------------------------------------------------------------------------------------------------

export function checkReads(judge: Verdicts, ops: readonly Op[], replay: Replay): number {
  const { model } = replay;
  let checked = 0;
  for (const op of ops) {
    if (op.kind !== "range" && op.kind !== "read-txn") continue;
    const where = `${op.kind} of client ${op.client} on m${op.machine}, called at ${op.call}, returned at ${op.ret}`;
    if (op.outcome === "no") {
      checkRefusedRead(judge, op, replay, where);
      continue;
    }
    if (op.outcome !== "ok" || op.response === undefined) continue;
    checked += 1;
    const revision = op.response.header?.revision ?? 0;
    if (revision < 1 || revision > model.revision)
      judge.fail("K6", `${where}: revision ${revision}, which never was; the last is ${model.revision}`);
    const madeAt = replay.revisionAt.get(revision) ?? 0;
    if (madeAt > op.ret) judge.fail("K3", `${where}: revision ${revision}, which was made at ${madeAt} only`);
    if (op.kind === "read-txn") {
      const expected = model.readOnlyTxn(op.request, revision);
      const difference = expected.type === "txn" ? txnDifference(expected, op.response) : undefined;
      if (difference !== undefined) judge.fail("K7", `${where}, revision ${revision}: ${difference}`);
      continue;
    }
    const asked = op.request.revision > 0 ? op.request.revision : revision;
    if (asked > revision) judge.fail("K9", `${where}: read at ${asked}, a future revision of ${revision}`);
    const difference = rangeDifference(model.range(op.request, asked), op.response);
    if (difference !== undefined)
      judge.fail(
        op.request.revision > 0 ? "K9" : op.request.serializable ? "K8" : "K4",
        `${where}, revision ${asked} of ${revision}: ${difference}`,
      );
    if (op.request.revision > 0) checkNotCompacted(judge, op, replay, where);
  }
  return checked;
}

/** A read of the past that began after a compaction beyond it had been answered must be refused, if it was linearizable. */
function checkNotCompacted(judge: Verdicts, op: Op & { kind: "range" }, replay: Replay, where: string): void {
  if (op.request.serializable) return;
  for (const step of replay.steps) {
    if (step.request.kind !== "compaction" || step.error !== undefined) continue;
    if (step.request.body.revision <= op.request.revision) continue;
    if (step.op !== undefined && step.op.ret < op.call)
      judge.fail("K9", `${where}: read at ${op.request.revision}, compacted to ${step.request.body.revision} before`);
  }
}

function checkRefusedRead(judge: Verdicts, op: Op & { kind: "range" | "read-txn" }, replay: Replay, where: string): void {
  if (op.kind !== "range") return;
  const { revision } = op.request;
  if (op.reason === "compacted") {
    const compacted = replay.steps.some(
      ({ request, error, entry }) =>
        request.kind === "compaction" && error === undefined && request.body.revision > revision && entry.at <= op.ret,
    );
    if (!compacted) judge.fail("K9", `${where}: revision ${revision} is said to be compacted, but nothing was compacted beyond it`);
  } else if (op.reason === "future-revision") {
    if (op.request.serializable) return;
    // By then a mutation with that revision, or a later one, had been answered.
    for (const step of replay.steps) {
      if (step.after >= revision && step.after > step.before && step.op !== undefined && step.op.ret < op.call) {
        judge.fail("K9", `${where}: revision ${revision} is said to be in the future, but ${step.after} had been answered before`);
      }
    }
  }
}

/** What one client sees of one member never goes back, from one answered call to the next (K8). */
export function checkSessions(judge: Verdicts, ops: readonly Op[]): void {
  const seen = new Map<string, { revision: number; ret: number }>();
  for (const op of ops) {
    if (op.outcome !== "ok") continue;
    if (op.kind !== "range" && op.kind !== "read-txn" && op.kind !== "put" && op.kind !== "delete" && op.kind !== "txn") continue;
    const revision = op.response?.header?.revision ?? 0;
    const key = `${op.client}/${op.machine}/${op.life}`;
    const last = seen.get(key);
    if (last !== undefined && op.call >= last.ret && revision < last.revision) {
      judge.fail(
        "K8",
        `client ${op.client} saw revision ${last.revision} on m${op.machine}, then ${revision} (${op.kind} called at ${op.call})`,
      );
    }
    if (last === undefined || revision >= last.revision) seen.set(key, { revision, ret: op.ret });
  }
}

// -- E4 --------------------------------------------------------------------------------------------------------------------------------------------

export function watchModelOf(ops: readonly Op[], replay: Replay): WatchModel {
  const watchModel = new WatchModel();
  const calledAt = new Map<number, number>();
  for (const { op, after, before } of replay.steps) if (op !== undefined && after !== before) calledAt.set(after, op.call);
  void ops;
  const newest = new Map<string, api.KeyValue>();
  for (const version of replay.model.changes) {
    const kv = version.version === 0 ? undefined : toKeyValue(version);
    const called = calledAt.get(version.main);
    watchModel.append({
      revision: version.main,
      key: version.key as never,
      kv,
      // Of the revision before: an earlier change of the same revision does not count.
      previous: previousOf(replay.model, version, newest),
      ...(called === undefined ? {} : { calledAt: called }),
    });
    if (kv === undefined) newest.delete(version.key);
    else newest.set(version.key, kv);
  }
  watchModel.compactions.push(...replay.model.compactions);
  return watchModel;
}

function previousOf(model: KvModel, version: Version, newest: ReadonlyMap<string, api.KeyValue>): api.KeyValue | undefined {
  const last = newest.get(version.key);
  if (last === undefined || last.modRevision < version.main) return last;
  const before = model.at(version.key, version.main - 1);
  return before === undefined ? undefined : toKeyValue(before);
}

function toKeyValue(version: Version): api.KeyValue {
  return {
    key: bytesOf(version.key),
    createRevision: version.create,
    modRevision: version.main,
    version: version.version,
    value: bytesOf(version.value),
    lease: version.lease,
    wire: undefined,
  };
}

function checkWatches(judge: Verdicts, ops: readonly Op[], replay: Replay, records: WatchRecords, complete: boolean): number {
  const model = watchModelOf(ops, replay);
  let events = 0;
  for (const { machine, record, liveUpTo } of records.streams) {
    for (const entry of record.entries) if (entry.kind === "response") events += entry.response.events.length;
    const upTo = complete ? liveUpTo() : undefined;
    const [first] = checkWatchStream(model, record, upTo === undefined ? {} : { liveUpTo: upTo });
    if (first !== undefined) judge.fail(first.rule, `a stream on ${machine}${upTo === undefined ? "" : " (live)"}: ${first.what}`);
  }
  for (const { who, span } of records.spans) {
    const [first] = checkConcatenation(model, span.request, span.events, span.from, span.upTo);
    if (first !== undefined) judge.fail(first.rule, `${who}, resumed from ${span.from} to ${span.upTo}: ${first.what}`);
  }
  return events;
}
