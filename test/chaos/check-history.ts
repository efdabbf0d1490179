/**
 * Checks a recorded history of the key-value API (failure catalogue, promises K1 to K12, method E1). The server publishes its order by its revisions, so no search
 * is needed: operations are sorted by revision, replayed through the naive model, and every answer and every event must be the model's.
 */
import * as api from "../../src/api/index.ts";
import { keyStringOf } from "../../src/base/bytes.ts";
import { MvccModel } from "../support/mvcc-model.ts";
import { WatchModel } from "../support/watch-checker.ts";
import { hasEffect, isLinearizable, isMutation, type Operation, revisionOf, valuesOf } from "./history.ts";

export type HistoryRule =
  | "K1-total-order"
  | "K2-effects-only"
  | "K3-real-time"
  | "K4-replay"
  | "K5-durable"
  | "K8-serializable"
  | "K9-historic"
  | "K12-unknown"
  | "L4-lease-atomic";

export interface HistoryViolation {
  readonly rule: HistoryRule;
  readonly what: string;
}

export interface HistoryInput {
  readonly operations: readonly Operation[];
  /** All events from revision 2 on, of a member that has everything; those of one revision together. */
  readonly events: readonly api.Event[];
  /** The revision up to which the events are complete. */
  readonly revision: number;
}

export interface HistoryResult {
  readonly violations: HistoryViolation[];
  /** The changes in order, for checking watches. */
  readonly changes: WatchModel;
  /** Unknown operations that turned out to have happened. */
  readonly resolved: number;
  /** Revisions that were leases' ends. */
  readonly leaseEnds: number;
}

const VIOLATIONS_MAX = 50;

/** Judges a whole run. */
export function checkHistory(input: HistoryInput): HistoryResult {
  return new HistoryChecker(input).check();
}

class HistoryChecker {
  readonly #input: HistoryInput;
  readonly #violations: HistoryViolation[] = [];
  readonly #model = new MvccModel();
  readonly #changes = new WatchModel();
  readonly #eventsAt = new Map<number, api.Event[]>();
  readonly #unknownByValue = new Map<string, Operation>();
  readonly #unknownDeletes = new Set<Operation>();
  #resolved = 0;
  #leaseEnds = 0;

  constructor(input: HistoryInput) {
    this.#input = input;
  }

  #report(rule: HistoryRule, what: string): void {
    if (this.#violations.length < VIOLATIONS_MAX) this.#violations.push({ rule, what });
  }

  check(): HistoryResult {
    this.#indexEvents();
    this.#checkRefused();
    const owners = this.#findOwners();
    const reads = this.#readsByRevision();
    let latestCall = { at: Number.NEGATIVE_INFINITY, name: "" };
    /** Whoever comes later in the order may not have returned before somebody earlier was called. */
    const place = (operation: Operation): void => {
      if (operation.ret < latestCall.at)
        this.#report("K3-real-time", `${describe(operation)} returned before the call of ${latestCall.name}, which precedes it`);
    };
    const passed = (operation: Operation): void => {
      if (operation.call > latestCall.at) latestCall = { at: operation.call, name: describe(operation) };
    };
    for (let revision = 1; revision <= this.#input.revision; revision += 1) {
      if (revision > 1) {
        const owner = owners.get(revision) ?? this.#resolve(revision);
        if (owner !== undefined) {
          if (owner.outcome === "yes") place(owner);
          passed(owner);
        }
        this.#apply(revision, owner);
      }
      const here = reads.get(revision) ?? [];
      for (const read of here) {
        if (isLinearizable(read.exchange)) place(read);
        this.#checkRead(read);
      }
      for (const read of here) if (isLinearizable(read.exchange)) passed(read);
      reads.delete(revision);
      if (this.#violations.length >= VIOLATIONS_MAX) break;
    }
    if (this.#violations.length < VIOLATIONS_MAX) {
      for (const [revision, [read]] of reads)
        this.#report(
          "K5-durable",
          `${read === undefined ? "" : describe(read)} saw revision ${revision}, the last is ${this.#input.revision}`,
        );
    }
    this.#checkReadRefusals();
    this.#checkSerializableOrder();
    return { violations: this.#violations, changes: this.#changes, resolved: this.#resolved, leaseEnds: this.#leaseEnds };
  }

  #indexEvents(): void {
    for (const event of this.#input.events) {
      const revision = event.kv?.modRevision ?? 0;
      const list = this.#eventsAt.get(revision);
      if (list === undefined) this.#eventsAt.set(revision, [event]);
      else list.push(event);
    }
  }

  /** K12: what was refused for good has left nothing. */
  #checkRefused(): void {
    const refused = new Map<string, Operation>();
    for (const operation of this.#input.operations) {
      if (operation.outcome === "no") for (const value of valuesOf(operation.exchange)) refused.set(value, operation);
      if (operation.outcome !== "unknown" || !isMutation(operation.exchange)) continue;
      for (const value of valuesOf(operation.exchange)) this.#unknownByValue.set(value, operation);
      if (operation.exchange.kind !== "put") this.#unknownDeletes.add(operation);
    }
    for (const { kv } of this.#input.events) {
      const operation = kv === undefined || kv.value.length === 0 ? undefined : refused.get(keyStringOf(kv.value));
      if (operation !== undefined) this.#report("K12-unknown", `${describe(operation)} was refused and is there at ${kv?.modRevision}`);
    }
  }

  /** Which acknowledged operation made which revision. */
  #findOwners(): Map<number, Operation> {
    const owners = new Map<number, Operation>();
    for (const operation of this.#input.operations) {
      if (operation.outcome !== "yes" || !hasEffect(operation)) continue;
      const revision = revisionOf(operation);
      const other = owners.get(revision);
      if (other !== undefined) this.#report("K1-total-order", `${describe(operation)} and ${describe(other)} have one revision`);
      if (revision > this.#input.revision || !this.#eventsAt.has(revision))
        this.#report("K5-durable", `${describe(operation)} is acknowledged and not there`);
      owners.set(revision, operation);
    }
    return owners;
  }

  /** All acknowledged operations without an effect of their own, by the revision that they saw, in the order of their calls. */
  #readsByRevision(): Map<number, Operation[]> {
    const reads = new Map<number, Operation[]>();
    for (const operation of this.#input.operations) {
      if (operation.outcome !== "yes" || operation.exchange.kind === "compact" || hasEffect(operation)) continue;
      const revision = revisionOf(operation);
      const list = reads.get(revision);
      if (list === undefined) reads.set(revision, [operation]);
      else list.push(operation);
    }
    for (const list of reads.values()) list.sort((a, b) => a.call - b.call);
    return reads;
  }

  /** The operation of unknown outcome that made this revision; undefined for the end of a lease. */
  #resolve(revision: number): Operation | undefined {
    const events = this.#eventsAt.get(revision) ?? [];
    for (const { kv, type } of events) {
      if (type !== api.EventType.PUT || kv === undefined) continue;
      const value = keyStringOf(kv.value);
      const operation = this.#unknownByValue.get(value);
      if (operation === undefined) continue;
      for (const own of valuesOf(operation.exchange)) this.#unknownByValue.delete(own);
      this.#unknownDeletes.delete(operation);
      this.#resolved += 1;
      return operation;
    }
    const deleted = new Set(events.map(({ kv }) => (kv === undefined ? "" : keyStringOf(kv.key))));
    for (const operation of this.#unknownDeletes) {
      const { exchange } = operation;
      if (exchange.kind !== "delete" || !sameSet(this.#keysIn(exchange.request), deleted)) continue;
      this.#unknownDeletes.delete(operation);
      this.#resolved += 1;
      return operation;
    }
    return undefined;
  }

  #keysIn({ key, rangeEnd }: { key: Uint8Array; rangeEnd: Uint8Array }): string[] {
    return this.#model.range(api.RangeRequest.create({ key, rangeEnd })).kvs.map((kv) => keyStringOf(kv.key));
  }

  /** Replays what made `revision`, and compares with the answer and with the events. */
  #apply(revision: number, owner: Operation | undefined): void {
    const events = this.#eventsAt.get(revision) ?? [];
    if (events.length === 0) {
      this.#report("K1-total-order", `revision ${revision} has no event`);
      // The model has no empty revisions; everything behind this one would be wrong.
      this.#abandon();
      return;
    }
    if (owner === undefined) {
      this.#applyLeaseEnd(revision, events);
      return;
    }
    const { exchange } = owner;
    const leases = { has: () => true } as unknown as ReadonlySet<bigint>;
    const done =
      exchange.kind === "put"
        ? this.#model.put(exchange.request, leases)
        : exchange.kind === "delete"
          ? this.#model.deleteRange(exchange.request)
          : exchange.kind === "txn"
            ? this.#model.txn(exchange.request, leases)
            : { events: [], response: {} };
    if (this.#model.revision !== revision) {
      this.#report("K2-effects-only", `${describe(owner)} has no effect at ${revision}, says the model`);
      this.#abandon();
      return;
    }
    if (owner.outcome === "yes") this.#compareAnswer(owner, done.response);
    this.#compareEvents(revision, owner, events, done.events);
  }

  /** After a first mismatch of revisions everything else would be noise. */
  #abandon(): void {
    while (this.#violations.length < VIOLATIONS_MAX) this.#violations.push({ rule: "K1-total-order", what: "(not checked further)" });
  }

  #applyLeaseEnd(revision: number, events: readonly api.Event[]): void {
    const before = events.map(({ kv }) => (kv === undefined ? [] : this.#model.range(api.RangeRequest.create({ key: kv.key })).kvs).at(0));
    const lease = before[0]?.lease ?? 0n;
    if (lease === 0n || events.some(({ type }) => type !== api.EventType.DELETE)) {
      this.#report("K1-total-order", `nobody made revision ${revision}: ${events.map(describeEvent).join(", ")}`);
    }
    this.#leaseEnds += 1;
    const everything = this.#model.range(api.RangeRequest.create({ key: Buffer.from([0]), rangeEnd: Buffer.from([0]) })).kvs;
    const attached = everything.filter((kv) => kv.lease === lease).map((kv) => keyStringOf(kv.key));
    const deleted = new Set(events.map(({ kv }) => (kv === undefined ? "" : keyStringOf(kv.key))));
    if (lease !== 0n && !sameSet(attached, deleted))
      this.#report("L4-lease-atomic", `lease ${lease} had ${attached.join(" ")}, its end at ${revision} deleted ${[...deleted].join(" ")}`);
    const done = this.#model.deleteKeys([...deleted]);
    if (this.#model.revision !== revision) this.#abandon();
    else this.#compareEvents(revision, undefined, events, done.events);
  }

  #compareAnswer(operation: Operation, expected: object): void {
    const { exchange } = operation;
    const [got, want] = [printAnswer(exchange.kind, exchange.response), printAnswer(exchange.kind, expected)];
    if (got !== want) this.#report("K4-replay", `${describe(operation)} was answered ${got}, should be ${want}`);
  }

  #compareEvents(
    revision: number,
    owner: Operation | undefined,
    got: readonly api.Event[],
    want: ReturnType<MvccModel["txn"]>["events"],
  ): void {
    const line = (type: string, kv: api.KeyValue | undefined): string => `${type} ${kv === undefined ? "" : api.KeyValue.printJson(kv)}`;
    const gotLines = got.map(({ type, kv }) => line(type === api.EventType.DELETE ? "delete" : "put", kv));
    const wantLines = want.map(({ type, kv }) => line(type, kv));
    if (gotLines.join("\n") !== wantLines.join("\n"))
      this.#report(
        "K4-replay",
        `revision ${revision} of ${owner === undefined ? "a lease" : describe(owner)}: ${gotLines} should be ${wantLines}`,
      );
    for (const { type, kv, prevKv } of want) {
      this.#changes.append({
        revision,
        key: keyStringOf(kv.key),
        kv: type === "put" ? kv : undefined,
        previous: prevKv,
        ...(owner === undefined ? {} : { calledAt: owner.call }),
      });
    }
  }

  #checkRead(operation: Operation): void {
    const { exchange } = operation;
    if (exchange.kind === "range") {
      const wanted = exchange.request.revision;
      if (wanted > this.#model.revision) {
        this.#report("K9-historic", `${describe(operation)} was answered at ${this.#model.revision}`);
        return;
      }
      if (wanted > 0) {
        const overtaken = this.#compactions().find((compact) => compact.revision > wanted && compact.ret < operation.call);
        if (overtaken !== undefined)
          this.#report("K9-historic", `${describe(operation)} reads what was compacted to ${overtaken.revision}`);
      }
      const expected = this.#model.range(exchange.request);
      const [got, want] = [printAnswer("range", exchange.response), printAnswer("range", expected)];
      if (got !== want) {
        const rule = wanted > 0 ? "K9-historic" : exchange.request.serializable ? "K8-serializable" : "K4-replay";
        this.#report(rule, `${describe(operation)} at ${revisionOf(operation)} was answered ${got}, should be ${want}`);
      }
      return;
    }
    const before = this.#model.revision;
    const done =
      exchange.kind === "txn"
        ? this.#model.txn(exchange.request, new Set())
        : exchange.kind === "delete"
          ? this.#model.deleteRange(exchange.request)
          : undefined;
    if (this.#model.revision !== before) {
      this.#report("K4-replay", `${describe(operation)} should have changed something`);
      this.#abandon();
    } else if (done !== undefined) this.#compareAnswer(operation, done.response);
  }

  #compactionsFound: { revision: number; call: number; ret: number }[] | undefined;

  #compactions(): { revision: number; call: number; ret: number }[] {
    this.#compactionsFound ??= this.#input.operations.flatMap(({ exchange, outcome, call, ret }) =>
      exchange.kind === "compact" && outcome !== "no" ? [{ revision: exchange.request.revision, call, ret }] : [],
    );
    return this.#compactionsFound;
  }

  /** K9 for reads of a past revision that were refused. */
  #checkReadRefusals(): void {
    for (const operation of this.#input.operations) {
      const { exchange, outcome, why } = operation;
      if (exchange.kind !== "range" || outcome !== "no" || exchange.request.revision <= 0) continue;
      const wanted = exchange.request.revision;
      if (why.includes("has been compacted")) {
        if (!this.#compactions().some((compact) => compact.revision > wanted && compact.call < operation.ret))
          this.#report("K9-historic", `${describe(operation)}: nothing was compacted so far`);
      } else if (why.includes("is a future revision")) {
        const known = this.#input.operations.find((one) => one.outcome === "yes" && revisionOf(one) >= wanted && one.ret < operation.call);
        if (known !== undefined && !exchange.request.serializable)
          this.#report("K9-historic", `${describe(operation)} is no future revision: ${describe(known)}`);
      }
    }
  }

  /** K8: one client never sees a member go back while that member stays up. */
  #checkSerializableOrder(): void {
    const latest = new Map<string, Operation>();
    const serial = this.#input.operations.filter(
      ({ exchange, outcome }) => outcome === "yes" && exchange.kind === "range" && exchange.request.serializable,
    );
    for (const operation of [...serial].sort((a, b) => a.call - b.call)) {
      const who = `${operation.client} ${operation.member} ${operation.run}`;
      const before = latest.get(who);
      if (before !== undefined && before.ret <= operation.call && revisionOf(before) > revisionOf(operation))
        this.#report("K8-serializable", `${describe(operation)} saw ${revisionOf(operation)} after ${revisionOf(before)}`);
      if (before === undefined || revisionOf(before) <= revisionOf(operation)) latest.set(who, operation);
    }
  }
}

function printAnswer(kind: Operation["exchange"]["kind"], response: object | undefined): string {
  const bare = { ...response, header: undefined };
  switch (kind) {
    case "put":
      return api.PutResponse.printJson(bare as api.PutResponse);
    case "delete":
      return api.DeleteRangeResponse.printJson(bare as api.DeleteRangeResponse);
    case "txn":
      return api.TxnResponse.printJson(bare as api.TxnResponse);
    case "range":
      return api.RangeResponse.printJson(bare as api.RangeResponse);
    case "compact":
      return "";
    default:
      return kind satisfies never;
  }
}

function sameSet(list: readonly string[], set: ReadonlySet<string>): boolean {
  return list.length === set.size && list.every((one) => set.has(one));
}

function describeEvent({ type, kv }: api.Event): string {
  return `${type === api.EventType.DELETE ? "DELETE" : "PUT"} ${kv === undefined ? "" : keyStringOf(kv.key)}`;
}

/** Short, with everything that is needed to find it in the record. */
export function describe(operation: Operation): string {
  const { exchange } = operation;
  const target =
    "key" in exchange.request
      ? keyStringOf(exchange.request.key)
      : exchange.kind === "compact"
        ? exchange.request.revision
        : valuesOf(exchange).join(",");
  const ret = operation.ret === Number.POSITIVE_INFINITY ? "..." : operation.ret.toFixed(1);
  return `${exchange.kind} ${target} by ${operation.client} at ${operation.member} [${operation.call.toFixed(1)}, ${ret}] -> ${revisionOf(operation)}`;
}
