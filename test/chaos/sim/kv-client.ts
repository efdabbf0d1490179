/** A client of the KV service: puts, deletes, transactions, reads of every kind and now and then a compaction, each recorded. */
import * as api from "../../../src/api/index.ts";
import { EMPTY_BYTES } from "../../../src/base/bytes.ts";
import type { CallContext, Services } from "../../../src/server/services/services.contract.ts";
import { Dice } from "./dice.ts";
import { isDefinite, type Op, type OpFor, type OpKind } from "./history.ts";
import type { Machine } from "./machine.ts";
import { bytesOf } from "./model.ts";
import type { ClientPlan } from "./plan.ts";
import type { World } from "./world.ts";

/** Does one call and records it. The promise gives the finished record. */
export async function perform<Kind extends OpKind>(
  world: World,
  dice: Dice,
  at: { readonly client: number; readonly machine: Machine; readonly timeoutMs: number },
  what: { readonly kind: Kind; readonly request: OpFor<Kind>["request"]; readonly nonce?: string },
  work: (services: Services, context: CallContext) => Promise<NonNullable<OpFor<Kind>["response"]>>,
): Promise<OpFor<Kind>> {
  const { machine } = at;
  const op = {
    kind: what.kind,
    client: at.client,
    machine: machine.index,
    life: machine.lives,
    call: world.now,
    ret: Number.POSITIVE_INFINITY,
    outcome: "unknown",
    reason: "",
    request: what.request,
    response: undefined,
    nonce: what.nonce ?? "",
  } as unknown as OpFor<Kind>;
  world.ops.push(op as Op);
  let result = await world.call(dice, machine, at.timeoutMs, work);
  // Mutant: what may have happened is asked for again (BG1).
  if (!result.ok && !isDefinite(result.reason) && world.mutants.has("retry-in-client"))
    result = await world.call(dice, machine, at.timeoutMs, work);
  if (result.ok) {
    op.outcome = "ok";
    op.response = result.value;
    op.ret = world.now;
  } else {
    op.reason = result.reason;
    if (isDefinite(result.reason)) {
      op.outcome = "no";
      op.ret = world.now;
    }
  }
  if (world.tracing) world.trace(`client ${at.client}`, describe(op as Op, machine.name));
  return op;
}

function describe(op: Op, machine: string): string {
  const what = op.nonce === "" ? op.kind : `${op.kind} ${op.nonce}`;
  const header = (op.response as { header?: { revision: number } } | undefined)?.header;
  const end = op.outcome === "ok" ? `ok${header === undefined ? "" : ` at revision ${header.revision}`}` : `${op.outcome}: ${op.reason}`;
  return `${what} on ${machine}, called at ${op.call.toFixed(1)}: ${end}`;
}

export class KvClient {
  readonly #world: World;
  readonly #number: number;
  readonly #plan: ClientPlan;
  readonly #dice: Dice;
  readonly #keys: readonly string[];
  #machine: Machine | undefined;
  #count = 0;
  /** The newest revision seen. */
  #revision = 1;
  /** A delete without a mark has an unknown outcome: another one could not be told from it. */
  #plainLost = false;

  constructor(world: World, number: number, plan: ClientPlan) {
    this.#world = world;
    this.#number = number;
    this.#plan = plan;
    this.#dice = new Dice(plan.seed);
    this.#keys = Array.from({ length: world.plan.keys }, (_, i) => `k${String(i).padStart(2, "0")}`);
  }

  async run(): Promise<void> {
    const world = this.#world;
    const dice = this.#dice;
    await world.sleep(dice.between(0, 500));
    while (!world.stopping) {
      await world.sleep(dice.exponential(this.#plan.thinkMs));
      if (world.stopping) return;
      this.#machine = world.pickServer(dice, this.#machine, this.#plan.roamPercent);
      this.#count += 1;
      const op = await this.#one(dice);
      const revision = (op.response as { header?: api.ResponseHeader } | undefined)?.header?.revision ?? 0;
      this.#revision = Math.max(this.#revision, revision);
    }
  }

  #one(dice: Dice): Promise<Op> {
    switch (dice.weighted({ put: 34, delete: 9, txn: 16, read: 34, "read-txn": 5, compact: 2 })) {
      case "put": {
        const nonce = this.#nonce();
        return this.#do("put", this.#put(nonce, true), nonce, (services, context, request) => services.kv.put(request, context));
      }
      case "delete": {
        if (!this.#plainLost && dice.percent(20)) return this.#plainDelete();
        const nonce = this.#nonce();
        return this.#do("delete", this.#delete(nonce), nonce, (services, context, request) => services.kv.deleteRange(request, context));
      }
      case "txn": {
        const nonce = this.#nonce();
        return this.#do("txn", this.#txn(nonce), nonce, (services, context, request) => services.kv.txn(request, context));
      }
      case "read":
        return this.#do("range", this.#range(), "", (services, context, request) => services.kv.range(request, context));
      case "read-txn":
        return this.#do("read-txn", this.#readTxn(), "", (services, context, request) => services.kv.txn(request, context));
      case "compact": {
        const revision = Math.max(1, this.#revision - dice.below(30) + (dice.percent(10) ? 5 : 0));
        const request = api.CompactionRequest.create({ revision, physical: dice.percent(20) });
        return this.#do("compact", request, "", (services, context, body) => services.kv.compact(body, context));
      }
    }
  }

  #do<Kind extends OpKind>(
    kind: Kind,
    request: OpFor<Kind>["request"],
    nonce: string,
    work: (services: Services, context: CallContext, request: OpFor<Kind>["request"]) => Promise<NonNullable<OpFor<Kind>["response"]>>,
  ): Promise<OpFor<Kind>> {
    const at = { client: this.#number, machine: this.#machine as Machine, timeoutMs: this.#plan.timeoutMs };
    return perform(this.#world, this.#dice, at, { kind, request, nonce }, (services, context) => work(services, context, request));
  }

  /** Of a key that nobody else writes, so that it needs no mark. */
  async #plainDelete(): Promise<Op> {
    const request = api.DeleteRangeRequest.create({ key: bytesOf(this.#ownKey()), prevKv: this.#dice.percent(50) });
    const op = await this.#do("delete", request, "", (services, context, body) => services.kv.deleteRange(body, context));
    if (op.outcome === "unknown") this.#plainLost = true;
    return op;
  }

  #ownKey(): string {
    return `own/${this.#number}`;
  }

  /** Ends in ";" so that none is the beginning of another. */
  #nonce(): string {
    return `${this.#number}.${this.#count};`;
  }

  #key(): string {
    return this.#dice.pick(this.#keys);
  }

  #put(nonce: string, mayIgnore: boolean): api.PutRequest {
    const dice = this.#dice;
    const ignoreLease = mayIgnore && dice.percent(4);
    const padding = dice.below(this.#world.plan.valueBytesMax);
    return api.PutRequest.create({
      key: bytesOf(dice.percent(6) ? this.#ownKey() : this.#key()),
      value: bytesOf(nonce + "x".repeat(padding)),
      prevKv: dice.percent(25),
      ignoreLease,
    });
  }

  /** The end of the range carries the mark: no key lies between `key` and `key\0mark`. */
  #delete(nonce: string): api.DeleteRangeRequest {
    const dice = this.#dice;
    const from = this.#key();
    const to = dice.percent(70) ? from : this.#key();
    const last = [from, to].sort()[1] as string;
    return api.DeleteRangeRequest.create({ key: bytesOf(from), rangeEnd: bytesOf(`${last}\0${nonce}`), prevKv: dice.percent(25) });
  }

  #rangeEnd(from: string): Uint8Array {
    const dice = this.#dice;
    if (dice.percent(50)) return EMPTY_BYTES;
    if (dice.percent(20)) return bytesOf("\0");
    const to = this.#key();
    return to > from ? bytesOf(to) : bytesOf("l");
  }

  #range(inTxn = false): api.RangeRequest {
    const dice = this.#dice;
    const key = this.#key();
    const sorted = dice.percent(15);
    const bound = (): number => (dice.percent(5) ? Math.max(1, this.#revision - dice.below(20)) : 0);
    const past = dice.percent(inTxn ? 5 : 15);
    return api.RangeRequest.create({
      key: bytesOf(key),
      rangeEnd: this.#rangeEnd(key),
      limit: dice.percent(15) ? dice.between(1, 4) : 0,
      revision: past ? Math.max(1, this.#revision - dice.below(40) + (dice.percent(10) ? 8 : 0)) : 0,
      serializable: dice.percent(35),
      sortOrder: sorted ? dice.between(1, 2) : 0,
      sortTarget: sorted ? dice.between(0, 4) : 0,
      keysOnly: dice.percent(10),
      countOnly: dice.percent(6),
      minModRevision: bound(),
      maxModRevision: bound(),
      minCreateRevision: bound(),
      maxCreateRevision: bound(),
    });
  }

  #compare(): api.Compare {
    const dice = this.#dice;
    const key = this.#key();
    const target = dice.between(0, 4);
    const compare = api.Compare.create({
      key: bytesOf(key),
      rangeEnd: dice.percent(15) ? this.#rangeEnd(key) : EMPTY_BYTES,
      target,
      result: dice.between(0, 3),
    });
    const revision = Math.max(0, this.#revision - dice.below(10));
    if (target === api.CompareTarget.VERSION) compare.version = dice.between(0, 3);
    else if (target === api.CompareTarget.CREATE) compare.createRevision = dice.percent(50) ? 0 : revision;
    else if (target === api.CompareTarget.MOD) compare.modRevision = dice.percent(30) ? 0 : revision;
    else if (target === api.CompareTarget.VALUE) compare.value = bytesOf(dice.pick(["", "5", `${this.#number}.${this.#count - 1};`]));
    else compare.lease = 0n;
    return compare;
  }

  #txn(nonce: string, depth = 0): api.TxnRequest {
    const dice = this.#dice;
    // Both branches write with the mark, or one of them only reads; some branch writes, or it would not go through the log.
    const success = this.#branch(nonce, depth, dice.percent(80));
    const failure = this.#branch(nonce, depth, success.length === 0 || !isMarked(success) || dice.percent(40));
    return api.TxnRequest.create({
      compare: Array.from({ length: dice.between(0, 2) }, () => this.#compare()),
      success,
      failure,
    });
  }

  /** Keys of puts in one transaction must differ, also from what it deletes; so each branch has one put at most, and deletes elsewhere. */
  #branch(nonce: string, depth: number, writes: boolean): api.RequestOp[] {
    const dice = this.#dice;
    const ops: api.RequestOp[] = [];
    const nestsMuch = this.#plan.nested === true;
    let written: Uint8Array | undefined;
    if (dice.percent(40)) ops.push(api.RequestOp.create({ requestRange: this.#range(true) }));
    if (writes) {
      if (dice.percent(75)) {
        const requestPut = this.#put(nonce, false);
        written = requestPut.key;
        ops.push(api.RequestOp.create({ requestPut }));
      } else ops.push(api.RequestOp.create({ requestDeleteRange: this.#delete(nonce) }));
    }
    if (depth === 0 && dice.percent(nestsMuch ? 60 : 10)) {
      ops.push(api.RequestOp.create({ requestTxn: this.#nested(nonce, nestsMuch ? written : undefined) }));
    }
    if (dice.percent(25)) ops.push(api.RequestOp.create({ requestRange: this.#range(true) }));
    return ops;
  }

  /** Inside another: only reads and deletes, which never collide. */
  #nested(nonce: string, written: Uint8Array | undefined): api.TxnRequest {
    const dice = this.#dice;
    const compare = this.#compare();
    if (written !== undefined) {
      compare.key = written;
      compare.rangeEnd = EMPTY_BYTES;
    }
    const branch = (): api.RequestOp[] => [
      dice.percent(50)
        ? api.RequestOp.create({ requestRange: this.#range(true) })
        : api.RequestOp.create({ requestDeleteRange: this.#delete(nonce) }),
    ];
    return api.TxnRequest.create({ compare: [compare], success: branch(), failure: branch() });
  }

  #readTxn(): api.TxnRequest {
    const dice = this.#dice;
    const serializable = dice.percent(30);
    const ranges = (count: number): api.RequestOp[] =>
      Array.from({ length: count }, () => {
        const requestRange = this.#range(true);
        requestRange.serializable = serializable;
        requestRange.revision = 0;
        return api.RequestOp.create({ requestRange });
      });
    return api.TxnRequest.create({ compare: [this.#compare()], success: ranges(dice.between(1, 3)), failure: ranges(dice.between(1, 2)) });
  }
}

function isMarked(ops: readonly api.RequestOp[]): boolean {
  return ops.some((op) => op.requestPut !== undefined || op.requestDeleteRange !== undefined);
}
