/** Queues, by the keys of etcd's own recipes, so that Go programs put in and take out of the same ones. */
import { equalBytes, utf8Bytes } from "../../base/bytes.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { EtcdClient } from "../client.ts";
import type { KeyValue, ValueInput } from "../coding.ts";
import { type CallOptions, Deadline, pause } from "../deadline.ts";
import { ClientError, canceledError, InvalidUseError } from "../errors.ts";
import type { RangeOptions } from "../requests.ts";
import { compare, op } from "../txn.ts";
import type { Session, WaitOptions } from "./session.ts";
import { Turns } from "./turns.ts";
import { uniqueNanos } from "./unique-key.ts";

/** Taken out of a queue: it is nobody else's. */
export interface QueueItem<V = string> {
  readonly value: V;
  readonly key: string;
  /** At which it was put in. */
  readonly revision: number;
}

/** Items looked at once: others may take the first ones meanwhile. */
const LOOK_AHEAD = 8;
const CREATE_ATTEMPTS = 10;

/** Between attempts to learn what became of a taking. */
const RETRY_MS = 250;

/** Refusals that repeating does not change. */
const FINAL_CODES: ReadonlySet<number> = new Set([
  GrpcCode.InvalidArgument,
  GrpcCode.NotFound,
  GrpcCode.PermissionDenied,
  GrpcCode.Unauthenticated,
  GrpcCode.Unimplemented,
  GrpcCode.FailedPrecondition,
]);

type Order = Pick<RangeOptions<string>, "sort">;

export interface QueueOptions {
  /**
   * With a session no item is lost with an answer: each taking leaves a receipt, on the session's lease, by which a second attempt tells whether the first one took
   * the item. A taking that has begun is then brought to its end, also when its signal is aborted meanwhile; only the end of the session ends it without result.
   */
  readonly session?: Pick<Session, "lease" | "lost" | "over"> | undefined;
}

/** By what a taker recognises its own takings. */
interface Receipts {
  readonly session: NonNullable<QueueOptions["session"]>;
  readonly key: string;
  taken: number;
}

/** What both kinds of queue do alike. */
abstract class Queued<V, K> {
  protected readonly client: EtcdClient<V, string>;
  /** In front of the keys of all items. */
  protected readonly prefix: string;
  readonly #order: Order;
  readonly #receipts: Receipts | undefined;
  /** Takers of this process come one after the other, so that they do not all reach for the same item. */
  readonly #turns = new Turns();

  constructor(client: EtcdClient<V, K>, name: string, order: Order, { session }: QueueOptions) {
    this.client = client.withTextKeys();
    this.prefix = `${name}/`;
    this.#order = order;
    // Beside the items, so that nobody takes it for one.
    this.#receipts = session === undefined ? undefined : { session, key: `__${name}/taken/${uniqueNanos(client.clock)}`, taken: 0 };
  }

  /**
   * Takes the first item out, or waits for one.
   *
   * An item is given to at most one taker. Without a session (see {@link QueueOptions}) the item may be gone with the answer to the taking, if that is lost
   * (`mayHaveHappened`).
   * @throws `canceled`, `deadline-exceeded`
   */
  async dequeue(options?: WaitOptions): Promise<QueueItem<V>> {
    const deadline = new Deadline(this.client.clock, options?.timeoutMs ?? 0, options?.signal);
    let leave: (() => void) | undefined;
    try {
      deadline.throwIfOver();
      leave = await this.#turns.take("", deadline.signal);
      for (;;) {
        const { item, revision, contended } = await this.#tryTake(deadline.signal);
        if (item !== undefined) return item;
        if (!contended) await this.#untilPut(revision + 1, deadline.signal);
      }
    } catch (error) {
      throw deadline.error ?? error;
    } finally {
      leave?.();
      deadline.done();
    }
  }

  /** Takes the first item out; undefined if there is none. */
  async tryDequeue(options?: CallOptions): Promise<QueueItem<V> | undefined> {
    for (;;) {
      const { item, contended } = await this.#tryTake(options?.signal);
      if (item !== undefined || !contended) return item;
    }
  }

  /** How many items there are. */
  size(options?: CallOptions): Promise<number> {
    return this.client.count(this.prefix, { ...options, prefix: true });
  }

  async #tryTake(signal: AbortSignal | undefined): Promise<{ item?: QueueItem<V>; revision: number; contended: boolean }> {
    const { kvs, revision } = await this.client.range(this.prefix, { ...this.#order, prefix: true, limit: LOOK_AHEAD, signal });
    for (const kv of kvs) if (await this.#claim(kv, signal)) return { item: itemOf(kv), revision, contended: false };
    return { revision, contended: kvs.length > 0 };
  }

  async #claim(kv: KeyValue<V, string>, signal: AbortSignal | undefined): Promise<boolean> {
    if (this.#receipts !== undefined) {
      // There is one receipt: one taking at a time. An aborted one does not begin.
      const leave = await this.#turns.take("taking", signal);
      try {
        if (signal?.aborted === true) throw canceledError(signal);
        return await this.#claimSurely(kv, this.#receipts);
      } finally {
        leave();
      }
    }
    const { succeeded } = await this.client
      .txn()
      .if(compare.modRevision(kv.key, "=", kv.modRevision))
      .do(op.delete(kv.key))
      .commit({ signal });
    return succeeded;
  }

  /** The attempt that took the item wrote the receipt in the same transaction; so one that finds its own receipt there comes second. */
  async #claimSurely(kv: KeyValue<V, string>, receipts: Receipts): Promise<boolean> {
    const { session, key } = receipts;
    const { clock } = this.client;
    receipts.taken += 1;
    const mark = utf8Bytes(`${receipts.taken} ${kv.key}`);
    const raw = this.client.raw();
    for (;;) {
      try {
        const { succeeded, results } = await raw
          .txn()
          .if(compare.modRevision(kv.key, "=", kv.modRevision))
          .do(op.delete(kv.key), op.put(key, mark, { lease: session.lease.id }))
          .else(op.get(key))
          .commit({ retry: "always", signal: session.lost });
        return succeeded || (results[0] !== undefined && equalBytes(results[0].value, mark));
      } catch (error) {
        if (session.over.error !== undefined) throw session.over.error;
        if (!EtcdError.is(error) || this.client.closed || FINAL_CODES.has(error.grpcCode) || error.reason === "no-space") throw error;
      }
      await pause(clock, RETRY_MS, session.lost);
    }
  }

  async #untilPut(fromRevision: number, signal: AbortSignal): Promise<void> {
    const watch = this.client.raw().watch(this.prefix, { prefix: true, only: "puts", fromRevision, signal });
    try {
      await watch.next();
    } catch (error) {
      if (!EtcdError.is(error) || error.reason !== "compacted") throw error;
    } finally {
      watch.close();
    }
  }
}

function itemOf<V>(kv: KeyValue<V, string>): QueueItem<V> {
  return { value: kv.value, key: kv.key, revision: kv.modRevision };
}

/** First in, first out. Items are keys `name/<nanoseconds>`; their order is that of their revisions. */
export class Queue<V = string, K = string> extends Queued<V, K> {
  constructor(client: EtcdClient<V, K>, name: string, options: QueueOptions = {}) {
    super(client, name, { sort: { by: "modRevision" } }, options);
  }

  /** Returns the item's key. A rejection may come after it was put in (see `mayHaveHappened`); with `retry: "always"` it may be put in twice. */
  async enqueue(value: ValueInput<V>, options?: CallOptions): Promise<string> {
    const encoded = this.client.encodeValue(value);
    for (let attempt = 0; attempt < CREATE_ATTEMPTS; attempt += 1) {
      const key = this.prefix + uniqueNanos(this.client.clock);
      const { succeeded } = await this.client
        .txn()
        .if(compare.version(key, "=", 0))
        .do(op.put(key, encoded as V))
        .commit(options);
      if (succeeded) return key;
    }
    throw new ClientError("already-queued", GrpcCode.Aborted, `no free key in the queue ${this.prefix}`);
  }
}

const PRIORITY_DIGITS = 5;
const NUMBER_DIGITS = 16;

/**
 * Lower numbers come first; within a priority, first in first out. Items are keys `name/<priority>/<number>`, beside them one key `__name/<priority>` per
 * priority.
 */
export class PriorityQueue<V = string, K = string> extends Queued<V, K> {
  constructor(client: EtcdClient<V, K>, name: string, options: QueueOptions = {}) {
    super(client, name, { sort: { by: "key" } }, options);
  }

  /** @param priority 0 to 65535: more would not sort as numbers */
  async enqueue(value: ValueInput<V>, priority: number, options?: CallOptions): Promise<string> {
    if (!Number.isInteger(priority) || priority < 0 || priority > 0xffff) {
      throw new InvalidUseError(`a priority is a whole number from 0 to 65535, not ${priority}`);
    }
    const encoded = this.client.encodeValue(value);
    const prefix = this.prefix + String(priority).padStart(PRIORITY_DIGITS, "0");
    // Changes with every item of the priority, also when the last one is taken out again: so no number is given out twice.
    const base = `__${prefix}`;
    for (;;) {
      const last = await this.client.keys(prefix, { prefix: true, limit: 1, sort: { by: "key", order: "descending" }, ...options });
      const number = last.keys[0] === undefined ? 0 : Number(last.keys[0].key.split("/").at(-1)) + 1;
      const key = `${prefix}/${String(number).padStart(NUMBER_DIGITS, "0")}`;
      const { succeeded } = await this.client
        .txn()
        .if(compare.modRevision(base, "<", last.revision + 1))
        .do(op.put(base, EMPTY as V), op.put(key, encoded as V))
        .commit(options);
      if (succeeded) return key;
    }
  }
}

/** Bytes are stored as they are, whatever the codec. */
const EMPTY: unknown = new Uint8Array(0);
