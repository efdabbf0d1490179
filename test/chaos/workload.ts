/** Clients that ask for everything the key-value API offers, each at a pace of its own, until told to stop. */
import * as api from "../../src/api/index.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { sleep } from "../support/server-process.ts";
import { type Exchange, isMutation, type Operation, revisionOf } from "./history.ts";
import { type Endpoint, RecordingClient } from "./json-client.ts";

export interface WorkloadOptions {
  readonly clients: number;
  readonly seed: number;
  /** The endpoint of a client's next request. */
  readonly endpoint: (client: number) => Endpoint;
  /** Longest pause between two requests of a client, in milliseconds. */
  readonly pauseMs?: number;
  readonly keys?: number;
  /** Length of the values that make room on disks grow; 0: short values only. */
  readonly padding?: number;
  /** After about so many revisions one client compacts away what is older. */
  readonly compactEvery?: number;
  readonly deadlineMs?: number;
  /** Only linearizable reads and puts. */
  readonly simple?: boolean;
}

const DEADLINE_MS = 10_000;

export class Workload {
  readonly history: Operation[] = [];
  readonly #options: WorkloadOptions;
  readonly #running: Promise<void>[] = [];
  #stopped = false;
  #newest = 1;
  #compacted = 0;
  /** How many mutations have been acknowledged, for scenarios that wait for progress. */
  acknowledged = 0;
  /** When the last mutation was acknowledged. */
  lastAcknowledgedAt = 0;

  constructor(options: WorkloadOptions) {
    this.#options = options;
  }

  start(): this {
    for (let client = 0; client < this.#options.clients; client += 1) this.#running.push(this.#run(client));
    return this;
  }

  /** Resolves when the last requests have ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
  }

  /** The newest revision that anybody was told. */
  get newestRevision(): number {
    return this.#newest;
  }

  async #run(client: number): Promise<void> {
    const { seed, endpoint, pauseMs = 4, deadlineMs = DEADLINE_MS } = this.#options;
    const random = seededRandom(seed * 1000 + client);
    const recording = new RecordingClient(client, this.history, deadlineMs);
    const maker = new ExchangeMaker(client, random, this.#options);
    while (!this.#stopped) {
      const exchange = this.#compaction(client) ?? maker.next(this.#newest);
      const operation = await recording.call(endpoint(client), exchange);
      this.#newest = Math.max(this.#newest, revisionOf(operation));
      if (operation.outcome === "yes" && isMutation(exchange)) {
        this.acknowledged += 1;
        this.lastAcknowledgedAt = operation.ret;
      }
      maker.learn(operation);
      // A member that is gone answers at once.
      await sleep(operation.outcome === "yes" ? random.below(pauseMs + 1) : 20 + random.below(30));
    }
    recording.close();
  }

  #compaction(client: number): Exchange | undefined {
    const { compactEvery } = this.#options;
    if (compactEvery === undefined || client !== 0 || this.#newest < this.#compacted + 2 * compactEvery) return undefined;
    this.#compacted = this.#newest - compactEvery;
    return { kind: "compact", request: api.CompactionRequest.create({ revision: this.#compacted }) };
  }
}

/** Makes one client's requests. */
export class ExchangeMaker {
  readonly #client: number;
  readonly #random: Random;
  readonly #options: Pick<WorkloadOptions, "keys" | "padding" | "simple">;
  #count = 0;
  /** Revision of each key as this client last saw it, for guarded writes that succeed now and then. */
  readonly #seen = new Map<string, number>();

  constructor(client: number, random: Random, options: Pick<WorkloadOptions, "keys" | "padding" | "simple">) {
    this.#client = client;
    this.#random = random;
    this.#options = options;
  }

  #key(): Uint8Array {
    return Buffer.from(`k/${this.#random.below(this.#options.keys ?? 30)}`);
  }

  /** No two puts of a run have the same value. */
  #value(): Uint8Array {
    this.#count += 1;
    const { padding = 0 } = this.#options;
    return Buffer.from(`v${this.#client}-${this.#count}${padding === 0 ? "" : `-${"p".repeat(this.#random.below(padding))}`}`);
  }

  #put(): api.PutRequest {
    return api.PutRequest.create({ key: this.#key(), value: this.#value(), prevKv: this.#random.chance({ of: 1, outOf: 3 }) });
  }

  next(newest: number): Exchange {
    const dice = this.#random.below(100);
    if (this.#options.simple === true) {
      return dice < 60 ? { kind: "put", request: this.#put() } : { kind: "range", request: api.RangeRequest.create({ key: this.#key() }) };
    }
    if (dice < 42) return { kind: "put", request: this.#put() };
    if (dice < 62) return { kind: "range", request: api.RangeRequest.create({ key: this.#key() }) };
    if (dice < 66) return { kind: "range", request: this.#prefix({}) };
    if (dice < 70) return { kind: "range", request: this.#prefix({ serializable: true, limit: this.#random.below(5) }) };
    if (dice < 76) return { kind: "range", request: api.RangeRequest.create({ key: this.#key(), serializable: true }) };
    if (dice < 79) return { kind: "range", request: this.#prefix({ revision: Math.max(1, newest - this.#random.below(3000) + 2) }) };
    if (dice < 80) return { kind: "range", request: this.#prefix({ countOnly: true }) };
    if (dice < 85) return { kind: "delete", request: this.#delete() };
    if (dice < 86) return { kind: "txn", request: api.TxnRequest.create({ success: [{ ...NO_OP, requestRange: this.#prefix({}) }] }) };
    return { kind: "txn", request: this.#txn() };
  }

  #prefix(more: Partial<api.RangeRequest>): api.RangeRequest {
    return api.RangeRequest.create({ key: Buffer.from("k/"), rangeEnd: Buffer.from("k0"), ...more });
  }

  #delete(): api.DeleteRangeRequest {
    const prevKv = this.#random.chance({ of: 1, outOf: 2 });
    if (this.#random.chance({ of: 1, outOf: 4 }))
      return api.DeleteRangeRequest.create({ key: Buffer.from("k/1"), rangeEnd: Buffer.from("k/2"), prevKv });
    return api.DeleteRangeRequest.create({ key: this.#key(), prevKv });
  }

  #txn(): api.TxnRequest {
    const key = this.#key();
    const name = Buffer.from(key).toString("latin1");
    const compare = api.Compare.create({
      key,
      target: api.CompareTarget.MOD,
      result: api.CompareResult.EQUAL,
      modRevision: this.#seen.get(name) ?? 0,
    });
    const success: api.RequestOp[] = [
      { ...NO_OP, requestPut: api.PutRequest.create({ key, value: this.#value(), prevKv: true }) },
      { ...NO_OP, requestRange: api.RangeRequest.create({ key }) },
    ];
    const other = Buffer.from(`k/other-${this.#random.below(5)}`);
    const extra = this.#random.below(4);
    if (extra < 2) success.push({ ...NO_OP, requestPut: api.PutRequest.create({ key: other, value: this.#value() }) });
    else if (extra === 2) success.push({ ...NO_OP, requestDeleteRange: api.DeleteRangeRequest.create({ key: other, prevKv: true }) });
    return api.TxnRequest.create({ compare: [compare], success, failure: [{ ...NO_OP, requestRange: api.RangeRequest.create({ key }) }] });
  }

  learn({ exchange }: Operation): void {
    const kvs =
      exchange.kind === "range"
        ? exchange.response?.kvs
        : exchange.kind === "txn"
          ? exchange.response?.responses.flatMap(({ responseRange }) => responseRange?.kvs ?? [])
          : undefined;
    for (const kv of kvs ?? []) this.#seen.set(Buffer.from(kv.key).toString("latin1"), kv.modRevision);
  }
}

const NO_OP: api.RequestOp = { requestRange: undefined, requestPut: undefined, requestDeleteRange: undefined, requestTxn: undefined };
