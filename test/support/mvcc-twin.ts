/**
 * Plays a random stream of requests on the store and on the naive model and compares everything that comes back. Batches, prefetches,
 * long reads, compaction slices and restarts happen in between, all from one seed.
 */
import { KeyValue, type TxnRequest } from "../../src/api/index.ts";
import { type Backend, type BackendBatch, createBatch } from "../../src/backend/index.ts";
import type { KeyString } from "../../src/base/bytes.ts";
import { EtcdError } from "../../src/base/errors.ts";
import type { LeaseId } from "../../src/base/ids.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { type LeaseView, type MvccEvent, MvccStore, type WriteOutcome } from "../../src/mvcc/index.ts";
import { FakeBackend } from "./fake-backend.ts";
import { ModelError, type ModelEvent, MvccModel } from "./mvcc-model.ts";
import { AWKWARD_KEYS, isReadOnly, RequestMaker } from "./mvcc-requests.ts";

export interface TwinOptions {
  readonly seed: number;
  readonly steps: number;
  readonly keys?: readonly string[];
  readonly mutants?: ReadonlySet<string>;
  readonly cacheBytesMax?: number;
  /** An empty one; by default a fake one that counts. */
  readonly backend?: Backend;
  /** Relative weights of the kinds of steps. */
  readonly weights?: Partial<Record<Step, number>>;
}

type Step =
  | "put"
  | "delete"
  | "txn"
  | "deleteKeys"
  | "range"
  | "slowRange"
  | "readTxn"
  | "history"
  | "compact"
  | "compactSlice"
  | "hash"
  | "write"
  | "restart";

const WEIGHTS: Record<Step, number> = {
  put: 30,
  delete: 8,
  txn: 22,
  deleteKeys: 1,
  range: 22,
  slowRange: 3,
  readTxn: 5,
  history: 2,
  compact: 1,
  compactSlice: 4,
  hash: 1,
  write: 8,
  restart: 0.15,
};

const OPS_MAX = 10;
const LEASES = [1n, 7n, -3n, 2n ** 62n];
const KNOWN_LEASES = new Set([1n, 7n, -3n]);

/** A plain copy to compare: bytes as text, the wire form checked against the fields and left out. */
export function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("latin1");
  if (typeof value === "bigint") return `${value}n`;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  const copy: Record<string, unknown> = {};
  for (const [name, member] of Object.entries(value)) {
    if (name !== "wire") copy[name] = plain(member);
    else if (member !== undefined) checkWire(value as KeyValue);
  }
  return copy;
}

function checkWire(kv: KeyValue): void {
  const fields = Buffer.from(KeyValue.encode({ ...kv, wire: undefined }));
  if (kv.wire === undefined || !fields.equals(kv.wire)) throw new Error("the wire form of a pair does not say what its fields say");
}

/** Runs a function and returns what it gave or which refusal it threw. */
function outcome(run: () => unknown): unknown {
  try {
    return run();
  } catch (error) {
    return refusal(error);
  }
}

function refusal(error: unknown): unknown {
  if (error instanceof ModelError) return { refused: error.message };
  if (EtcdError.is(error)) return { refused: error.reason };
  throw error;
}

async function outcomeOf(run: () => Promise<unknown>): Promise<unknown> {
  try {
    return await run();
  } catch (error) {
    return refusal(error);
  }
}

class Mismatch extends Error {}

export class MvccTwin {
  readonly #random: Random;
  readonly #options: TwinOptions;
  readonly #backend: Backend;
  readonly #fake = new FakeBackend();
  readonly #model = new MvccModel();
  readonly #maker: RequestMaker;
  readonly #leases: LeaseView = { exists: (id: LeaseId) => KNOWN_LEASES.has(id), leaseOf: () => 0n as LeaseId };
  readonly #attachments = new Map<string, bigint>();
  #store: MvccStore | undefined;
  #batch = createBatch();
  /** Batches executed but not written. */
  #unwritten: BackendBatch[] = [];
  #slow: { promise: Promise<unknown>; expected: string; what: unknown }[] = [];
  #now = 0;
  steps = 0;
  readonly counts: Record<string, number> = {};

  constructor(options: TwinOptions) {
    this.#options = options;
    this.#backend = options.backend ?? this.#fake;
    this.#random = seededRandom(options.seed);
    this.#maker = new RequestMaker(this.#random, { keys: options.keys ?? AWKWARD_KEYS, leases: LEASES, fatalToReference: true });
  }

  get store(): MvccStore {
    if (this.#store === undefined) throw new Error("not open");
    return this.#store;
  }

  get syncReads(): number {
    return this.#fake.syncReads;
  }

  /** Throws at the first difference, naming seed and step. */
  async run(): Promise<void> {
    await this.#open();
    try {
      for (; this.steps < this.#options.steps; this.steps += 1) await this.#step();
      await this.#settle();
      await this.#restart();
      this.#compareState();
    } catch (error) {
      throw new Error(`seed ${this.#options.seed}, step ${this.steps}: ${(error as Error).message}`, { cause: error });
    }
  }

  async #open(): Promise<void> {
    const attachments = new Map<string, bigint>();
    this.#store = await MvccStore.open({
      backend: this.#backend,
      cacheBytesMax: this.#options.cacheBytesMax ?? 6000,
      yieldNow: () => new Promise((resolve) => setImmediate(resolve)),
      // Time flies: every look at the clock is a slice's end.
      nowMs: () => {
        this.#now += 3;
        return this.#now;
      },
      mutants: this.#options.mutants,
      onAttachment: (key, lease) => attachments.set(key, lease),
    });
    this.#same("attachments", [...attachments].sort(), [...this.#attachments].sort());
  }

  #same(what: string, actual: unknown, expected: unknown): void {
    const a = JSON.stringify(plain(actual));
    const b = JSON.stringify(plain(expected));
    if (a !== b) throw new Mismatch(`${what}\n  store ${a}\n  model ${b}`);
  }

  #compareState(): void {
    const { store } = this;
    const model = this.#model;
    this.#same(
      "state",
      { revision: store.revision, compactRevision: store.compactRevision },
      { revision: model.revision, compactRevision: model.compactRevision },
    );
  }

  async #step(): Promise<void> {
    const weights = { ...WEIGHTS, ...this.#options.weights };
    const kinds = Object.keys(weights) as Step[];
    let dice = this.#random.below(Math.round(kinds.reduce((sum, kind) => sum + weights[kind], 0) * 100)) / 100;
    let chosen: Step = "put";
    for (const kind of kinds) {
      chosen = kind;
      dice -= weights[kind];
      if (dice < 0) break;
    }
    this.counts[chosen] = (this.counts[chosen] ?? 0) + 1;
    await this.#do(chosen);
    this.#compareState();
  }

  async #do(step: Step): Promise<void> {
    const { store } = this;
    const model = this.#model;
    switch (step) {
      case "put": {
        const request = this.#maker.put();
        await this.#write(
          request,
          () => {
            store.checkPut(request);
            return store.put(request, this.#leases, this.#batch);
          },
          () => {
            model.checkPut(request);
            return model.put(request, KNOWN_LEASES);
          },
        );
        return;
      }
      case "delete": {
        const request = this.#maker.deleteRange();
        await this.#write(
          request,
          () => {
            store.checkDeleteRange(request);
            return store.deleteRange(request, this.#batch);
          },
          () => {
            model.checkDeleteRange(request);
            return model.deleteRange(request);
          },
        );
        return;
      }
      case "txn": {
        const request = this.#maker.txn(model.revision);
        await this.#write(
          request,
          () => {
            store.checkTxn(request, OPS_MAX);
            return store.txn(request, this.#leases, this.#batch);
          },
          () => {
            model.checkTxn(request, OPS_MAX);
            return model.txn(request, KNOWN_LEASES);
          },
        );
        return;
      }
      case "deleteKeys": {
        const keys = [...new Set([this.#maker.key(), this.#maker.key(), this.#maker.key()])].sort();
        await this.#write(
          keys,
          () => store.deleteKeys(keys as KeyString[], this.#batch),
          () => ({ response: undefined, ...model.deleteKeys(keys) }),
        );
        return;
      }
      case "range":
        await this.#range();
        return;
      case "slowRange": {
        // Started now, finished some steps later: it must not notice.
        const request = this.#maker.range(model.revision);
        const checked = outcome(() => this.#model.checkRange(request));
        if (checked !== undefined) return;
        const expected = JSON.stringify(plain(outcome(() => this.#model.range(request))));
        this.#slow.push({ promise: outcomeOf(async () => await store.range(request)), expected, what: request });
        if (this.#slow.length > 3) await this.#settleSlow();
        return;
      }
      case "readTxn":
        await this.#readTxn();
        return;
      case "history":
        await this.#history();
        return;
      case "compact": {
        const revision = this.#random.chance({ of: 1, outOf: 10 })
          ? model.revision + 1 - this.#random.below(3)
          : model.revision - this.#random.below(30);
        this.#same(
          `compact ${revision}`,
          outcome(() => store.compact({ revision }, this.#batch)),
          outcome(() => model.compact(revision)),
        );
        return;
      }
      case "compactSlice": {
        await this.#writeAll();
        const batch = createBatch();
        const done = await store.compactSlice(() => batch, this.#random.chance({ of: 1, outOf: 3 }) ? 1 : 1 + this.#random.below(60));
        this.#same("pending", store.compactionPending, !done);
        await this.#backend.write(batch);
        store.written(batch);
        return;
      }
      case "hash":
        await this.#hash();
        return;
      case "write":
        await this.#writeSome();
        return;
      case "restart":
        await this.#settle();
        await this.#restart();
        return;
    }
  }

  async #write(
    request: unknown,
    store: () => WriteOutcome<unknown>,
    model: () => { response: unknown; events: ModelEvent[] },
  ): Promise<void> {
    const prefetched =
      typeof request === "object" && request !== null && "key" in request && (request.key as Uint8Array).length === 0
        ? undefined
        : this.#random.chance({ of: 1, outOf: 3 }) && !Array.isArray(request)
          ? await this.store.prefetch([request as TxnRequest])
          : undefined;
    const before = this.store.revision;
    const actual = outcome(store);
    const expected = outcome(model);
    prefetched?.release();
    if (typeof actual !== "object" || actual === null || "refused" in actual) {
      this.#same(`request ${JSON.stringify(plain(request))}`, actual, expected);
      return;
    }
    const { response, events, revision } = actual as WriteOutcome<unknown>;
    const wanted = expected as { response: unknown; events: ModelEvent[] };
    this.#same(`request ${JSON.stringify(plain(request))}`, response, wanted.response);
    this.#same("revision", revision, this.#model.revision);
    if (events.length > 0 && revision !== before + 1) throw new Mismatch("a change takes one revision");
    this.#compareEvents(events, wanted.events);
    for (const { type, key, kv } of events) {
      if (type === "put" && kv.lease !== 0n) this.#attachments.set(key, kv.lease);
      else this.#attachments.delete(key);
    }
  }

  /** Events with their previous pairs looked up. Where the pair is compacted by now the store may say so. */
  #compareEvents(events: readonly MvccEvent[], expected: readonly ModelEvent[]): void {
    const seen = events.map(({ type, kv, key, previous }) => {
      if (plain(kv.key) !== key) throw new Mismatch("an event names its key twice differently");
      const compacted = kv.modRevision - 1 < this.#model.compactRevision;
      return { type, kv, prevKv: previous === undefined || compacted ? undefined : this.store.rowAt(previous) };
    });
    const wanted = expected.map((event) =>
      event.kv.modRevision - 1 < this.#model.compactRevision ? { ...event, prevKv: undefined } : event,
    );
    this.#same("events", seen, wanted);
  }

  #modelRange(request: Parameters<MvccModel["range"]>[0]): unknown {
    this.#model.checkRange(request);
    return this.#model.range(request);
  }

  async #range(): Promise<void> {
    const { store } = this;
    const request = this.#maker.range(this.#model.revision);
    const expected = outcome(() => this.#modelRange(request));
    const what = `range ${JSON.stringify(plain(request))}`;
    const now = outcome(() => {
      store.checkRange(request);
      return store.rangeNow(request);
    });
    if (now !== undefined) this.#same(what, now, expected);
    else this.counts["not now"] = (this.counts["not now"] ?? 0) + 1;
    const later = await outcomeOf(async () => {
      store.checkRange(request);
      return await store.range(request);
    });
    this.#same(what, later, expected);
  }

  async #readTxn(): Promise<void> {
    const { store } = this;
    const request = this.#maker.txn(this.#model.revision);
    for (const ops of [request.success, request.failure]) ops.splice(0, ops.length, ...ops.filter((op) => op.requestRange !== undefined));
    if (!isReadOnly(request)) throw new Error("not a read-only transaction");
    const expected = outcome(() => {
      this.#model.checkTxn(request, OPS_MAX);
      return this.#model.txn(request, KNOWN_LEASES).response;
    });
    const what = `read-only txn ${JSON.stringify(plain(request))}`;
    const now = outcome(() => {
      store.checkTxn(request, OPS_MAX);
      return store.readOnlyTxnNow(request);
    });
    if (now !== undefined) this.#same(what, now, expected);
    const later = await outcomeOf(async () => {
      store.checkTxn(request, OPS_MAX);
      return await store.readOnlyTxn(request);
    });
    this.#same(what, later, expected);
  }

  async #history(): Promise<void> {
    const { store } = this;
    const model = this.#model;
    const from = Math.max(0, model.revision - this.#random.below(40));
    const upTo = from + this.#random.below(30);
    const expected = outcome(() => model.history(from, upTo));
    const limits = { revisionsMax: 1 + this.#random.below(10), bytesMax: 1 + this.#random.below(500) };
    const events: MvccEvent[] = [];
    for (let next = from; next <= Math.min(upTo, model.revision); ) {
      const page = await outcomeOf(async () => await store.history(next, upTo, limits));
      if (page !== null && typeof page === "object" && "refused" in page) {
        this.#same(`history ${from} to ${upTo}`, page, expected);
        return;
      }
      const { events: some, next: after } = page as Awaited<ReturnType<MvccStore["history"]>>;
      if (after <= next) throw new Mismatch("a page of history has at least one revision");
      if (new Set(some.map((event) => event.kv.modRevision)).size > limits.revisionsMax) throw new Mismatch("too many revisions in a page");
      events.push(...some);
      next = after;
    }
    if (!Array.isArray(expected)) {
      if (from <= model.revision) throw new Mismatch(`history ${from} to ${upTo} should have been refused`);
      return;
    }
    this.#compareEvents(events, expected as ModelEvent[]);
  }

  async #hash(): Promise<void> {
    const model = this.#model;
    const revision = this.#random.below(5) === 0 ? this.#random.below(4) - 1 : Math.max(0, model.revision + 1 - this.#random.below(30));
    const expected = outcome(() => model.hash(revision));
    const actual = await outcomeOf(async () => await this.store.hashByRevision(revision));
    // What a compaction hashes is known when its physical part is done, and until then computed like any other.
    if (this.store.compactionPending) return;
    this.#same(`hash ${revision}`, actual, expected);
  }

  // -- batches ------------------------------------------------------------------------------------------------------------------------------

  async #writeSome(): Promise<void> {
    this.#unwritten.push(this.#batch);
    this.#batch = createBatch();
    const count = this.#random.below(this.#unwritten.length + 1);
    for (let i = 0; i < count; i += 1) {
      const batch = this.#unwritten.shift();
      if (batch === undefined) return;
      await this.#backend.write(batch);
      this.store.written(batch);
    }
  }

  async #writeAll(): Promise<void> {
    this.#unwritten.push(this.#batch);
    this.#batch = createBatch();
    for (const batch of this.#unwritten) {
      await this.#backend.write(batch);
      this.store.written(batch);
    }
    this.#unwritten = [];
  }

  async #settleSlow(): Promise<void> {
    for (const { promise, expected, what } of this.#slow) {
      const actual = JSON.stringify(plain(await promise));
      if (actual !== expected) throw new Mismatch(`slow range ${JSON.stringify(plain(what))}\n  store ${actual}\n  model ${expected}`);
    }
    this.#slow = [];
  }

  async #settle(): Promise<void> {
    await this.#settleSlow();
    await this.#writeAll();
  }

  async #restart(): Promise<void> {
    const finish = this.#random.chance({ of: 1, outOf: 2 });
    while (finish && this.store.compactionPending) {
      const batch = createBatch();
      await this.store.compactSlice(() => batch, 100);
      await this.#backend.write(batch);
      this.store.written(batch);
    }
    this.store.checkIndex();
    const { bytesInUse, keyCount } = this.store;
    this.#same("keys", keyCount, this.#model.keyCount);
    if (!this.store.compactionPending) this.#same("bytes", bytesInUse, this.#model.bytesInUse);
    await this.#open();
    this.#model.restart();
    this.#same("after a restart", { bytesInUse: this.store.bytesInUse, keyCount: this.store.keyCount }, { bytesInUse, keyCount });
    this.store.checkIndex();
  }
}
