/** Numbers that many clients share. */
import type { EtcdClient } from "../client.ts";
import type { CallOptions } from "../deadline.ts";
import { BadAnswerError, InvalidUseError } from "../errors.ts";
import { compare, op } from "../txn.ts";
import { Turns } from "./turns.ts";

type TextClient = EtcdClient<string, string>;

function read(value: string | undefined, key: string): number {
  const number = value === undefined ? 0 : Number(value);
  if (!Number.isSafeInteger(number)) throw new BadAnswerError(`the value of ${key} is not a whole number`);
  return number;
}

/** One step of compare and set. Undefined: somebody else was faster. */
async function step(
  client: TextClient,
  key: string,
  change: number,
  options: CallOptions | undefined,
  known: { value: number; revision: number } | undefined,
): Promise<{ value: number; revision: number } | { seen: { value: number; revision: number } }> {
  const next = (known?.value ?? 0) + change;
  if (!Number.isSafeInteger(next)) throw new InvalidUseError(`${key} would leave the range of whole numbers`);
  const result = await client
    .txn()
    .if(compare.modRevision(key, "=", known?.revision ?? 0))
    .do(op.put(key, String(next)))
    .else(op.get(key))
    .commit(options);
  if (result.succeeded) return { value: next, revision: result.revision };
  const kv = result.results[0];
  return { seen: { value: read(kv?.value, key), revision: kv?.modRevision ?? 0 } };
}

async function addTo(
  client: TextClient,
  key: string,
  change: number,
  options: CallOptions | undefined,
  known: { value: number; revision: number } | undefined,
): Promise<{ value: number; revision: number }> {
  let last = known;
  for (;;) {
    const result = await step(client, key, change, options, last);
    if (!("seen" in result)) return result;
    last = result.seen;
  }
}

/** A number under one key, in decimal; 0 while there is no key. */
export class Counter {
  readonly key: string;
  readonly #client: TextClient;

  constructor(client: Pick<EtcdClient, "text">, key: string) {
    this.#client = client.text();
    this.key = key;
  }

  async value(options?: CallOptions): Promise<number> {
    return read((await this.#client.get(this.key, options))?.value, this.key);
  }

  /** Adds and returns the sum. A rejection may come after it was added: see `mayHaveHappened`. */
  async add(change: number, options?: CallOptions): Promise<number> {
    if (!Number.isSafeInteger(change)) throw new InvalidUseError(`a counter counts whole numbers, not ${change}`);
    return (await addTo(this.#client, this.key, change, options, undefined)).value;
  }
}

export interface SequenceOptions {
  /** Numbers taken at once and then given out without asking. They are lost if the process ends before. Default 1. */
  readonly block?: number | undefined;
}

/**
 * Numbers that are given out once only: 1, 2, 3 and so on over all clients, in no particular order between them, with gaps where something failed. Callers of one
 * object who ask at the same time share one write.
 */
export class Sequence {
  readonly key: string;
  readonly #client: TextClient;
  readonly #block: number;
  readonly #turns = new Turns();
  /** Waiting for numbers: those who come while a write is under way share the next one. */
  #asking: { readonly resolve: (number: number) => void; readonly reject: (error: unknown) => void }[] = [];
  #free: { next: number; readonly last: number } = { next: 1, last: 0 };
  #known: { value: number; revision: number } | undefined;

  constructor(client: Pick<EtcdClient, "text">, key: string, options: SequenceOptions = {}) {
    const { block = 1 } = options;
    if (!Number.isSafeInteger(block) || block < 1) throw new InvalidUseError(`a block holds at least one number, not ${block}`);
    this.#client = client.text();
    this.key = key;
    this.#block = block;
  }

  /** A number that nobody else gets. */
  next(): Promise<number> {
    if (this.#asking.length === 0 && this.#free.next <= this.#free.last) return Promise.resolve(this.#take());
    return new Promise((resolve, reject) => {
      this.#asking.push({ resolve, reject });
      if (this.#asking.length === 1) void this.#serve();
    });
  }

  #take(): number {
    const number = this.#free.next;
    this.#free.next += 1;
    return number;
  }

  /** One at a time; the next one serves all who have come meanwhile. */
  async #serve(): Promise<void> {
    const leave = await this.#turns.take("", undefined);
    const asking = this.#asking;
    this.#asking = [];
    let served = 0;
    try {
      for (const one of asking) {
        if (this.#free.next > this.#free.last) await this.#fetch(Math.max(asking.length - served, this.#block));
        one.resolve(this.#take());
        served += 1;
      }
    } catch (error) {
      this.#known = undefined;
      for (const one of asking.slice(served)) one.reject(error);
    } finally {
      leave();
    }
  }

  /** Numbers of an attempt whose answer was lost are never given out: repeating it leaves a gap, nothing worse. */
  async #fetch(count: number): Promise<void> {
    const { value, revision } = await addTo(this.#client, this.key, count, { retry: "always" }, this.#known);
    this.#known = { value, revision };
    this.#free = { next: value - count + 1, last: value };
  }
}
