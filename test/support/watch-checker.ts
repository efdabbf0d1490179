/**
 * Checks what watch streams delivered against the list of all changes (failure catalogue, promises W1 to W11, method E4). Works on records
 * made while a run goes on, and after it: the model need not be known before the end. Used by the hub's random tests and by the simulator.
 */
import { type Event, EventType, FilterType, type KeyValue, type WatchCreateRequest, type WatchResponse } from "../../src/api/index.ts";
import { bytesOfKey, equalBytes, type KeyString, keyStringOf } from "../../src/base/bytes.ts";
import type { Revision } from "../../src/base/ids.ts";

/** One change of one key. */
export interface ModelChange {
  readonly revision: Revision;
  readonly key: KeyString;
  /** The pair after a put; undefined for a delete. */
  readonly kv: KeyValue | undefined;
  /** The pair before; undefined for a creation. */
  readonly previous: KeyValue | undefined;
  /** When the request that did it was called, if known. */
  readonly calledAt?: number;
}

/** All changes in revision order, inside a revision in execution order. Compaction does not take anything away here. */
export class WatchModel {
  readonly changes: ModelChange[] = [];
  /** All revisions that were compacted to, anywhere. */
  readonly compactions: Revision[] = [];
  /** Position in `changes` of the first change of a revision. */
  readonly #firstOf = new Map<Revision, number>();
  #last: Revision = 1;

  /** The newest revision. */
  get revision(): Revision {
    return this.#last;
  }

  /** Revisions must come in order. */
  append(change: ModelChange): void {
    if (change.revision < this.#last) throw new Error(`revision ${change.revision} after ${this.#last}`);
    if (!this.#firstOf.has(change.revision)) this.#firstOf.set(change.revision, this.changes.length);
    this.#last = change.revision;
    this.changes.push(change);
  }

  /** Position of the first change with that revision or a later one. */
  positionOf(revision: Revision): number {
    if (revision > this.#last) return this.changes.length;
    for (let at = revision; at <= this.#last; at += 1) {
      const position = this.#firstOf.get(at);
      if (position !== undefined) return position;
    }
    return this.changes.length;
  }

  /** The revision could be compacted, so that the pair before it is gone. */
  mayBeCompacted(revision: Revision): boolean {
    return this.compactions.some((compaction) => compaction >= revision);
  }
}

export type WatchRule =
  | "W1-ordered"
  | "W2-unique"
  | "W3-atomic"
  | "W4-reliable"
  | "W5-resumable"
  | "W6-bookmarkable"
  | "W7-previous"
  | "W8-filter"
  | "W9-causal"
  | "W11-live"
  | "content"
  | "protocol";

export interface WatchViolation {
  readonly rule: WatchRule;
  readonly what: string;
}

export type StreamEntry =
  | { readonly kind: "create"; readonly request: WatchCreateRequest }
  | { readonly kind: "cancel"; readonly watchId: bigint }
  | { readonly kind: "response"; readonly response: WatchResponse; readonly receivedAt?: number };

/** Everything sent and received on one stream, in order (a request before its answer). */
export class StreamRecord {
  readonly entries: StreamEntry[] = [];

  create(request: WatchCreateRequest): void {
    this.entries.push({ kind: "create", request });
  }

  cancel(watchId: bigint): void {
    this.entries.push({ kind: "cancel", watchId });
  }

  response(response: WatchResponse, receivedAt?: number): void {
    this.entries.push(receivedAt === undefined ? { kind: "response", response } : { kind: "response", response, receivedAt });
  }
}

/** One watcher's life on a stream. */
interface Watched {
  readonly id: bigint;
  readonly request: WatchCreateRequest;
  /** First revision that may and must be delivered. */
  readonly start: Revision;
  readonly matches: (change: ModelChange) => boolean;
  /** Position in the model's changes: everything matching before it was delivered or is in `missing`. */
  cursor: number;
  /** Skipped positions: delivered later they were out of order, never delivered they are lost. */
  readonly missing: Set<number>;
  readonly delivered: Set<number>;
  lastEvent: Revision;
  bookmark: Revision;
  inFragments: boolean;
  compacted: boolean;
}

export interface CheckOptions {
  /** Every watcher that is still there must have everything up to here (W11). */
  readonly liveUpTo?: Revision;
}

/** All violations of one stream, in the order in which they show. */
export function checkWatchStream(model: WatchModel, record: StreamRecord, options: CheckOptions = {}): WatchViolation[] {
  const violations: WatchViolation[] = [];
  const report = (rule: WatchRule, what: string): void => {
    violations.push({ rule, what });
  };
  const asked: WatchCreateRequest[] = [];
  /** Cancel requests without an answer, by id. */
  const cancelling = new Map<bigint, number>();
  const watched = new Map<bigint, Watched>();

  const answerCreate = (response: WatchResponse): void => {
    const request = asked.shift();
    if (request === undefined) {
      report("protocol", `created ${response.watchId} without a request`);
      return;
    }
    if (response.canceled) {
      if (response.watchId !== -1n || response.cancelReason === "") report("protocol", "a refusal has id -1 and a reason");
      return;
    }
    if (request.startRevision < 0) report("W5-resumable", "a negative start is refused");
    if (watched.has(response.watchId)) report("protocol", `id ${response.watchId} is in use`);
    if (request.watchId !== 0n && request.watchId !== response.watchId)
      report("protocol", `asked for id ${request.watchId}, got ${response.watchId}`);
    const revision = response.header?.revision ?? 0;
    if (revision === 0) report("protocol", "created without a revision");
    const start = request.startRevision === 0 ? revision + 1 : request.startRevision;
    watched.set(response.watchId, {
      id: response.watchId,
      request,
      start,
      matches: matcher(request),
      cursor: model.positionOf(start),
      missing: new Set(),
      delivered: new Set(),
      lastEvent: 0,
      bookmark: 0,
      inFragments: false,
      compacted: false,
    });
  };

  const answerCancel = (response: WatchResponse): void => {
    const one = watched.get(response.watchId);
    if (one === undefined) {
      report("protocol", `cancelled ${response.watchId}, which is not there`);
      return;
    }
    if (response.compactRevision === 0) {
      const asks = cancelling.get(response.watchId) ?? 0;
      if (asks === 0) report("protocol", `cancelled ${response.watchId}, which nobody asked for`);
      else cancelling.set(response.watchId, asks - 1);
      finish(model, one, report);
      watched.delete(response.watchId);
      return;
    }
    const compaction = response.compactRevision;
    if (one.compacted) report("protocol", "compacted twice");
    if (response.header?.revision !== 0 || response.cancelReason !== "")
      report("protocol", "a compaction cancel has revision 0 and no reason");
    if (!model.compactions.includes(compaction)) report("protocol", `nothing was compacted to ${compaction}`);
    // It had everything below these, so a compaction up to there does not overtake it.
    if (compaction <= Math.max(one.start, one.bookmark + 1, one.lastEvent + 1)) {
      report(
        "W5-resumable",
        `cancelled by compaction ${compaction} although it was at ${Math.max(one.start, one.bookmark + 1, one.lastEvent + 1)}`,
      );
    }
    one.compacted = true;
    finish(model, one, report);
  };

  const progress = (one: Watched, revision: Revision): void => {
    if (one.compacted) report("W6-bookmarkable", `progress for ${one.id}, which is compacted`);
    if (one.start > revision && one.request.startRevision !== 0)
      report("W6-bookmarkable", `progress ${revision} before the start ${one.start} of ${one.id}`);
    if (revision < one.bookmark) report("W6-bookmarkable", `progress ${revision} after ${one.bookmark}`);
    if (revision < one.lastEvent) report("W6-bookmarkable", `progress ${revision} after events of ${one.lastEvent}`);
    const next = nextMatch(model, one);
    if (next !== undefined && next.revision <= revision)
      report("W6-bookmarkable", `progress ${revision} passes the event of ${next.revision} on ${one.id}`);
    one.bookmark = Math.max(one.bookmark, revision);
  };

  for (const entry of record.entries) {
    if (entry.kind === "create") asked.push(entry.request);
    else if (entry.kind === "cancel") {
      // Perhaps of a watcher whose creation is not answered yet, perhaps of none: then it stays without an answer.
      cancelling.set(entry.watchId, (cancelling.get(entry.watchId) ?? 0) + 1);
    } else {
      const { response } = entry;
      if (response.created) answerCreate(response);
      else if (response.canceled) answerCancel(response);
      else if (response.events.length > 0) {
        const one = watched.get(response.watchId);
        if (one === undefined || one.compacted) report("protocol", `events for ${response.watchId}, which is not there`);
        else takeEvents(model, one, response, entry.receivedAt, report);
      } else {
        const own = watched.get(response.watchId);
        const revision = response.header?.revision ?? 0;
        if (own !== undefined) {
          if (!own.request.progressNotify && response.watchId !== -1n) report("protocol", `progress for ${own.id}, which did not ask`);
          progress(own, revision);
        } else if (response.watchId === -1n) {
          if (watched.size === 0) report("protocol", "progress of a stream without watchers");
          for (const one of watched.values()) progress(one, revision);
        } else report("protocol", `progress for ${response.watchId}, which is not there`);
      }
    }
  }
  for (const one of watched.values()) {
    finish(model, one, report);
    if (options.liveUpTo === undefined || one.compacted) continue;
    const next = nextMatch(model, one);
    if (next !== undefined && next.revision <= options.liveUpTo) report("W11-live", `${one.id} waits for the event of ${next.revision}`);
  }
  if (options.liveUpTo !== undefined && asked.length > 0) report("W11-live", `${asked.length} creations were not answered`);
  return violations;
}

/** The events of a watch that was resumed over several streams must be exactly those of the model in [from, upTo]. */
export function checkConcatenation(
  model: WatchModel,
  request: Pick<WatchCreateRequest, "key" | "rangeEnd" | "filters">,
  events: readonly Event[],
  from: Revision,
  upTo: Revision,
): WatchViolation[] {
  const matches = matcher(request);
  const expected = model.changes.filter((change) => change.revision >= from && change.revision <= upTo && matches(change));
  for (let at = 0; at < Math.max(expected.length, events.length); at += 1) {
    const want = expected[at];
    const got = events[at];
    if (want === undefined) return [{ rule: "W2-unique", what: `more events than changes: ${describe(got)}` }];
    if (got === undefined || !isOf(got, want))
      return [{ rule: "W4-reliable", what: `expected ${want.revision} ${want.key}, got ${describe(got)}` }];
  }
  return [];
}

type Report = (rule: WatchRule, what: string) => void;

function takeEvents(model: WatchModel, one: Watched, response: WatchResponse, receivedAt: number | undefined, report: Report): void {
  const first = response.events[0]?.kv?.modRevision ?? 0;
  const last = response.events.at(-1)?.kv?.modRevision ?? 0;
  if (first === one.lastEvent && !one.inFragments) report("W3-atomic", `revision ${first} in two responses for ${one.id}`);
  if (response.fragment && !one.request.fragment) report("W3-atomic", `${one.id} did not ask for fragments`);
  one.inFragments = response.fragment;
  if ((response.header?.revision ?? 0) < last) report("protocol", `header ${response.header?.revision} below its events of ${last}`);
  for (const event of response.events) takeEvent(model, one, event, receivedAt, report);
}

function takeEvent(model: WatchModel, one: Watched, event: Event, receivedAt: number | undefined, report: Report): void {
  const revision = event.kv?.modRevision ?? 0;
  const at = find(model, event);
  const change = at === undefined ? undefined : model.changes[at];
  if (at === undefined || change === undefined) {
    report("W4-reliable", `no such change: ${describe(event)}`);
    return;
  }
  if (!one.matches(change)) {
    report("W8-filter", `${describe(event)} was not asked for by ${one.id}`);
    return;
  }
  if (revision < one.start) report("W5-resumable", `${describe(event)} before the start ${one.start}`);
  else if (one.delivered.has(at)) report("W2-unique", `${describe(event)} twice on ${one.id}`);
  else if (revision <= one.bookmark) report("W6-bookmarkable", `${describe(event)} after progress ${one.bookmark}`);
  else if (one.missing.delete(at)) report("W1-ordered", `${describe(event)} after ${one.lastEvent} on ${one.id}`);
  checkContent(model, one, event, change, report);
  if (receivedAt !== undefined && change.calledAt !== undefined && receivedAt < change.calledAt) {
    report("W9-causal", `${describe(event)} came before its request`);
  }
  one.delivered.add(at);
  for (; one.cursor < at; one.cursor += 1) if (one.matches(model.changes[one.cursor] as ModelChange)) one.missing.add(one.cursor);
  one.cursor = Math.max(one.cursor, at + 1);
  one.lastEvent = Math.max(one.lastEvent, revision);
}

function checkContent(model: WatchModel, one: Watched, event: Event, change: ModelChange, report: Report): void {
  const { kv, prevKv } = event;
  if (change.kv === undefined) {
    const bare = kv !== undefined && kv.createRevision === 0 && kv.version === 0 && kv.value.length === 0 && kv.lease === 0n;
    if (!bare) report("content", `a delete has key and revision only: ${describe(event)}`);
  } else if (kv === undefined || !equalPairs(kv, change.kv)) report("content", `${describe(event)} is not what was put`);
  const isCreation = change.kv !== undefined && change.previous === undefined;
  if (change.kv !== undefined && isCreation !== (kv?.createRevision === kv?.modRevision))
    report("W7-previous", `creation or not: ${describe(event)}`);
  if (prevKv !== undefined) {
    if (!one.request.prevKv) report("W7-previous", `${one.id} did not ask for previous pairs`);
    else if (change.previous === undefined || !equalPairs(prevKv, change.previous))
      report("W7-previous", `wrong previous pair: ${describe(event)}`);
  } else if (one.request.prevKv && change.previous !== undefined && !model.mayBeCompacted(change.revision)) {
    report("W7-previous", `no previous pair: ${describe(event)}`);
  }
}

function finish(model: WatchModel, one: Watched, report: Report): void {
  for (const at of one.missing) {
    const change = model.changes[at];
    report("W4-reliable", `${one.id} never got ${change?.revision} ${change?.key}`);
  }
  one.missing.clear();
}

/** The first matching change behind everything delivered. */
function nextMatch(model: WatchModel, one: Watched): ModelChange | undefined {
  for (let at = one.cursor; at < model.changes.length; at += 1) {
    const change = model.changes[at] as ModelChange;
    if (one.matches(change)) return change;
    one.cursor = at + 1;
  }
  return undefined;
}

function find(model: WatchModel, event: Event): number | undefined {
  const revision = event.kv?.modRevision ?? 0;
  for (let at = model.positionOf(revision); at < model.changes.length; at += 1) {
    const change = model.changes[at] as ModelChange;
    if (change.revision !== revision) return undefined;
    if (isOf(event, change)) return at;
  }
  return undefined;
}

function isOf(event: Event, change: ModelChange): boolean {
  const { kv } = event;
  return (
    kv !== undefined &&
    kv.modRevision === change.revision &&
    (event.type === EventType.DELETE) === (change.kv === undefined) &&
    equalBytes(kv.key, bytesOfKey(change.key))
  );
}

function matcher(request: Pick<WatchCreateRequest, "key" | "rangeEnd" | "filters">): (change: ModelChange) => boolean {
  const start = request.key.length === 0 ? "\0" : keyStringOf(request.key);
  const end = keyStringOf(request.rangeEnd);
  const noPut = request.filters.includes(FilterType.NOPUT);
  const noDelete = request.filters.includes(FilterType.NODELETE);
  return (change) => {
    if (change.kv === undefined ? noDelete : noPut) return false;
    if (end === "") return change.key === start;
    return change.key >= start && (end === "\0" || change.key < end);
  };
}

function equalPairs(a: KeyValue, b: KeyValue): boolean {
  return (
    equalBytes(a.key, b.key) &&
    a.createRevision === b.createRevision &&
    a.modRevision === b.modRevision &&
    a.version === b.version &&
    equalBytes(a.value, b.value) &&
    a.lease === b.lease
  );
}

function describe(event: Event | undefined): string {
  if (event?.kv === undefined) return "nothing";
  return `${event.kv.modRevision} ${event.type === EventType.DELETE ? "DELETE" : "PUT"} ${keyStringOf(event.kv.key)}`;
}
